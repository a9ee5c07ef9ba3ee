//! Account addresses and network ids.

use std::fmt;
use std::str::FromStr;

use cocoon_attestation::types::ProviderAddress;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tycho_types::cell::{CellBuilder, CellSlice, HashBytes};
use tycho_types::error::Error as CellError;
use tycho_types::models::{IntAddr, StateInit, StdAddr, StdAddrFormat};

use crate::error::Error;

/// Global id of a TON network: part of everything that is signed, so that nothing is valid on two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkId(pub i32);

impl NetworkId {
    /// TON mainnet.
    pub const MAINNET: Self = Self(-239);
    /// TON testnet.
    pub const TESTNET: Self = Self(-3);
    /// The local chain.
    pub const LOCAL: Self = Self(-217);
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MAINNET => f.write_str("mainnet"),
            Self::TESTNET => f.write_str("testnet"),
            Self::LOCAL => f.write_str("local"),
            Self(id) => id.fmt(f),
        }
    }
}

/// A standard internal address without anycast (`addr_std$10` of TON's block.tlb).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// 0 is the basechain, -1 the masterchain.
    pub workchain: i8,
    /// Account id: for a contract, the hash of its initial state.
    pub hash: [u8; 32],
}

impl Address {
    /// An account of the basechain.
    pub const fn basechain(hash: [u8; 32]) -> Self {
        Self { workchain: 0, hash }
    }

    /// The basechain address of an account deployed with this state.
    pub fn of_state_init(state: &StateInit) -> Result<Self, Error> {
        Ok(Self::basechain(CellBuilder::build_from(state)?.repr_hash().0))
    }

    /// Appends `addr_std$10` without anycast: always 267 bits.
    pub(crate) fn store(&self, builder: &mut CellBuilder) -> Result<(), CellError> {
        builder.store_small_uint(0b100, 3)?;
        builder.store_u8(self.workchain as u8)?;
        builder.store_u256(&HashBytes(self.hash))
    }

    /// Reads `addr_std$10` without anycast.
    pub(crate) fn load(slice: &mut CellSlice<'_>) -> Result<Self, CellError> {
        if slice.load_small_uint(3)? != 0b100 {
            return Err(CellError::InvalidTag);
        }
        Ok(Self { workchain: slice.load_u8()? as i8, hash: slice.load_u256()?.0 })
    }
}

/// Raw form, `0:` and 64 lower-case hexadecimal digits.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.workchain, hex::encode(self.hash))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Raw form, or the 48-character user-friendly form (TEP-2) in either base64 alphabet.
impl FromStr for Address {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match StdAddr::from_str_ext(text, StdAddrFormat::any()) {
            Ok((address, _)) => Ok(address.into()),
            Err(error) => Err(Error::Malformed { what: "a TON address", why: format!("`{text}`: {error}") }),
        }
    }
}

/// An address as its owner gave it. The user-friendly form also says what should become of value that is not taken there, and on which
/// networks it is meant to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenAddress {
    /// The address.
    pub address: Address,
    /// Whether value that is refused there should come back; `None` where it was given in raw form, which does not say.
    pub bounceable: Option<bool>,
    /// Whether it is for test networks only.
    pub testnet: bool,
}

impl FromStr for GivenAddress {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let address = text.parse()?;
        let friendly = StdAddrFormat { allow_raw: false, ..StdAddrFormat::any() };
        let flags = StdAddr::from_str_ext(text, friendly).ok().map(|(_, flags)| flags);
        Ok(Self {
            address,
            bounceable: flags.map(|flags| flags.bounceable),
            testnet: flags.is_some_and(|flags| flags.testnet),
        })
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl From<Address> for StdAddr {
    fn from(address: Address) -> Self {
        StdAddr::new(address.workchain, HashBytes(address.hash))
    }
}

impl From<StdAddr> for Address {
    fn from(address: StdAddr) -> Self {
        Self { workchain: address.workchain, hash: address.address.0 }
    }
}

impl From<Address> for IntAddr {
    fn from(address: Address) -> Self {
        IntAddr::Std(address.into())
    }
}

impl From<Address> for ProviderAddress {
    fn from(address: Address) -> Self {
        let mut bytes = [0; 33];
        bytes[0] = address.workchain as u8;
        bytes[1..].copy_from_slice(&address.hash);
        Self(bytes)
    }
}

impl From<ProviderAddress> for Address {
    fn from(address: ProviderAddress) -> Self {
        let [workchain, hash @ ..] = address.0;
        Self { workchain: workchain as i8, hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_raw_and_user_friendly_forms() {
        // TON's Elector contract, in the forms that explorers show.
        let raw = "-1:3333333333333333333333333333333333333333333333333333333333333333";
        let friendly = "Ef8zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM0vF";
        let address: Address = friendly.parse().unwrap();
        assert_eq!(address.to_string(), raw);
        assert_eq!(raw.parse::<Address>().unwrap(), address);
        assert_eq!(Address::from(ProviderAddress::from(address)), address);
        assert_eq!(serde_json::to_string(&address).unwrap(), format!("\"{raw}\""));
        let given = |text: &str| text.parse::<GivenAddress>().map(|given| (given.bounceable, given.testnet)).unwrap();
        assert_eq!((given(raw), given(friendly)), ((None, false), (Some(true), false)));
        // The same account to pay in any case, and on test networks only.
        for (other, flags) in [
            ("Uf8zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMxYA", (Some(false), false)),
            ("kf8zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM_BP", (Some(true), true)),
        ] {
            assert_eq!(given(other), flags);
            assert_eq!(other.parse::<GivenAddress>().unwrap().address, address);
        }
        for bad in ["", "0:12", "Ef8zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM0vG"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
