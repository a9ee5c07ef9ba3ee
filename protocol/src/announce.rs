//! Who announces an enclave: the owner of the provider that its evidence names, by the key of his wallet.
//!
//! A gateway sends whoever asks for an enclave to the address that was announced for it. So an announcement is signed over its very bytes, with
//! the network and the time, in the header [`HEADER`] of the request that brings it. Evidence names a Provider contract, the contract names its owner's wallet for ever,
//! and a wallet's address follows from its public key: whoever can say that this key is the owner's need believe nobody.
//!
//! The key is the wallet's own. What wallets sign is a hash of 32 bytes, and this is longer and begins with a name of its own, so that
//! neither can be taken for the other.

use cocoon_attestation::{Digest, UnixTime};
use cocoon_settlement::NetworkId;

use crate::Error;
use crate::identity::{Signature, SigningKey, verify};

/// The header that carries who announces, when, and the signature.
pub const HEADER: &str = "cocoon-announced";

const DOMAIN: &[u8] = b"cocoon-announcement-v1";
const WHAT: &str = "an announcement's header";

/// The signature under an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// When it was signed.
    pub time: UnixTime,
    /// Public key of the wallet of the provider's owner.
    pub key: [u8; 32],
    /// Ed25519 over name, network, time and the announcement's digest.
    pub signature: Signature,
}

impl Announced {
    /// Signs the body of an announcement, as it is sent.
    pub fn sign(body: &[u8], network: NetworkId, time: UnixTime, key: &SigningKey) -> Self {
        Self { time, key: key.public(), signature: key.sign(&message(body, network, time)) }
    }

    /// Whether the key it names signed these very bytes at that time for this network. Whose key it is, it cannot say.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn verify(&self, body: &[u8], network: NetworkId) -> Result<(), Error> {
        verify("the announcement", &self.key, &message(body, network, self.time), &self.signature)
    }

    /// The header's value: time in decimal, key and signature in hexadecimal, with spaces between them.
    pub fn to_header(&self) -> String {
        format!("{} {} {}", self.time.0, hex::encode(self.key), hex::encode(self.signature))
    }

    /// Reads the header's value.
    ///
    /// # Errors
    /// It has another form.
    pub fn from_header(value: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = value.split(' ').collect();
        let [time, key, signature] = parts[..] else {
            return Err(Error::malformed(WHAT, "it is not a time, a key and a signature"));
        };
        let (mut read_key, mut read_signature) = ([0; 32], [0; 64]);
        hex::decode_to_slice(key, &mut read_key).map_err(|_| Error::malformed(WHAT, "its key is not 32 bytes"))?;
        hex::decode_to_slice(signature, &mut read_signature)
            .map_err(|_| Error::malformed(WHAT, "its signature is not 64 bytes"))?;
        let time = time.parse().map_err(|_| Error::malformed(WHAT, "its time is no number of seconds"))?;
        Ok(Self { time: UnixTime(time), key: read_key, signature: read_signature })
    }
}

fn message(body: &[u8], network: NetworkId, time: UnixTime) -> Vec<u8> {
    [DOMAIN, &network.0.to_be_bytes(), &time.0.to_be_bytes(), Digest::of(&[body]).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (SigningKey, Announced) {
        let key = SigningKey::from_seed(&[0xb1; 32]).unwrap();
        let announced = Announced::sign(b"announcement", NetworkId::LOCAL, UnixTime(1_800_000_000), &key);
        (key, announced)
    }

    #[test]
    fn body_network_time_and_key_are_signed() {
        let (_, announced) = signed();
        announced.verify(b"announcement", NetworkId::LOCAL).unwrap();
        assert!(announced.verify(b"announcemens", NetworkId::LOCAL).is_err());
        assert!(announced.verify(b"announcement", NetworkId::MAINNET).is_err());
        let later = Announced { time: UnixTime(1_800_000_001), ..announced };
        assert!(later.verify(b"announcement", NetworkId::LOCAL).is_err());
        let other = SigningKey::from_seed(&[0xb2; 32]).unwrap().public();
        assert!(Announced { key: other, ..announced }.verify(b"announcement", NetworkId::LOCAL).is_err());
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_in_no_other_form() {
        let (_, announced) = signed();
        let header = announced.to_header();
        assert_eq!(Announced::from_header(&header).unwrap(), announced);
        for end in 0..header.len() {
            assert!(Announced::from_header(&header[..end]).is_err(), "{end}");
        }
        for bad in [format!("{header} "), format!(" {header}"), header.replacen('1', "-", 1), header.replace(' ', "  ")]
        {
            assert!(Announced::from_header(&bad).is_err(), "{bad}");
        }
    }
}
