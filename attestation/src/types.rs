//! Values that every crate shares: digests, keys and times that cannot be mistaken for one another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The time `seconds` later; stops at the end of time rather than wrapping.
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fixed-size bytes that are written as lower-case hex wherever a person or JSON sees them.
macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Takes bytes of unchecked length, as they come from a file or the wire.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
                bytes.try_into().map(Self).map_err(|_| Error::Length { what: $what, expected: $len, actual: bytes.len() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let bytes = hex::decode(text).map_err(|_| Error::Hex { what: $what })?;
                Self::from_slice(&bytes)
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_bytes!(
    /// A SHA-256 digest.
    Digest, 32, "a SHA-256 digest"
);
hex_bytes!(
    /// An enclave's Ed25519 identity key (public, RFC 8032 encoding). The private half never leaves the enclave's memory.
    EnclaveKey, 32, "an enclave key"
);
hex_bytes!(
    /// Address of the Provider contract: workchain (one signed byte) and account hash (32 bytes).
    ProviderAddress, 33, "a provider address"
);
hex_bytes!(
    /// A launch measurement: a SHA-384 register of a TDX module (MRTD, RTMR) or an SNP launch digest.
    Measurement, 48, "a measurement"
);

impl Digest {
    /// Thirty-two zero bytes, which stand for "none" where a field is mandatory.
    pub const ZERO: Self = Self([0; 32]);

    /// SHA-256 of the parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Measurement {
    /// SHA-384 of the parts, one after the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA384);
        parts.iter().for_each(|part| context.update(part));
        let mut out = [0; 48];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }
}

/// Names a bundle by its evidence alone: it does not change when endorsements are stapled anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EvidenceId(pub Digest);

impl fmt::Display for EvidenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EvidenceId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip_and_refuse_other_lengths() {
        let digest = Digest::of(&[b"a", b"bc"]);
        // SHA-256("abc"), FIPS 180-4 example.
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(serde_json::to_string(&EvidenceId(digest)).unwrap(), format!("\"{digest}\""));
        assert!(matches!("ba78".parse::<Digest>(), Err(Error::Length { expected: 32, actual: 2, .. })));
        assert!(matches!("zz".parse::<Digest>(), Err(Error::Hex { .. })));
    }
}
