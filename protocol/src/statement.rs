//! Key statements: the attested identity key vouches for a short-lived OHTTP key, so that session keys rotate without a new quote.

use cocoon_attestation::cbor::{self, Fields, Value};
use cocoon_attestation::{Digest, EnclaveKey, EvidenceId, UnixTime};

use crate::Error;
use crate::identity::{self, Signature, SigningKey};

const DOMAIN: &[u8] = b"cocoon-key-statement-v1";
const VERSION: u64 = 1;

/// An OHTTP key configuration and how long it may be used (`docs/schemas/key-statement.cddl`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatement {
    /// The evidence that names the identity key.
    pub evidence_id: EvidenceId,
    /// OHTTP key configuration (RFC 9458 section 3).
    pub key_config: Vec<u8>,
    /// First second in which a client may seal to the key.
    pub not_before: UnixTime,
    /// Last second in which a client may seal to the key.
    pub not_after: UnixTime,
}

/// A key statement with the identity key's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedKeyStatement {
    /// What is stated.
    pub statement: KeyStatement,
    /// Ed25519 over `"cocoon-key-statement-v1" || CBOR`.
    pub signature: Signature,
}

impl KeyStatement {
    /// Deterministic CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        cbor::encode(&cbor::map([
            (0, Value::from(VERSION)),
            (1, Value::Bytes(self.evidence_id.0.0.to_vec())),
            (2, Value::Bytes(self.key_config.clone())),
            (3, Value::from(self.not_before.0)),
            (4, Value::from(self.not_after.0)),
        ]))
    }

    /// Reads deterministic CBOR.
    ///
    /// # Errors
    /// Another version, or fields that are absent, unknown or of another type.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("a key statement", bytes)?;
        if fields.uint(0)? != VERSION {
            return Err(Error::malformed("a key statement", "its version is not 1"));
        }
        let statement = Self {
            evidence_id: EvidenceId(Digest(fields.array(1)?)),
            key_config: fields.bytes(2)?,
            not_before: UnixTime(fields.uint(3)?),
            not_after: UnixTime(fields.uint(4)?),
        };
        fields.finish()?;
        Ok(statement)
    }

    /// Signs with the identity key.
    pub fn sign(self, key: &SigningKey) -> SignedKeyStatement {
        let signature = key.sign(&message(&self.to_cbor()));
        SignedKeyStatement { statement: self, signature }
    }
}

impl SignedKeyStatement {
    /// 64 bytes of signature, then the CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.signature.as_slice(), &self.statement.to_cbor()].concat()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// Too short, or no key statement behind the signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (signature, cbor) = bytes
            .split_first_chunk()
            .ok_or_else(|| Error::malformed("a key statement", "shorter than its signature"))?;
        Ok(Self { statement: KeyStatement::from_cbor(cbor)?, signature: *signature })
    }

    /// The statement, if `key` signed it for this evidence and it is valid at `at`.
    ///
    /// # Errors
    /// Another signer, other evidence, or another time.
    pub fn verify(&self, key: &EnclaveKey, evidence_id: &EvidenceId, at: UnixTime) -> Result<&KeyStatement, Error> {
        identity::verify("the key statement", &key.0, &message(&self.statement.to_cbor()), &self.signature)?;
        if self.statement.evidence_id != *evidence_id {
            return Err(Error::malformed("the key statement", "it is for other evidence"));
        }
        let KeyStatement { not_before: from, not_after: until, .. } = self.statement;
        if at < from || at > until {
            return Err(Error::StatementTime { from: from.0, until: until.0, at: at.0 });
        }
        Ok(&self.statement)
    }
}

fn message(cbor: &[u8]) -> Vec<u8> {
    [DOMAIN, cbor].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> (SigningKey, SignedKeyStatement) {
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let statement = KeyStatement {
            evidence_id: EvidenceId(Digest([2; 32])),
            key_config: vec![3; 10],
            not_before: UnixTime(100),
            not_after: UnixTime(200),
        };
        let signed = statement.sign(&key);
        (key, signed)
    }

    #[test]
    fn a_statement_survives_the_wire() {
        let (key, signed) = signed();
        let read = SignedKeyStatement::from_bytes(&signed.to_bytes()).unwrap();
        assert_eq!(read, signed);
        read.verify(&key.enclave_key(), &EvidenceId(Digest([2; 32])), UnixTime(100)).unwrap();
        read.verify(&key.enclave_key(), &EvidenceId(Digest([2; 32])), UnixTime(200)).unwrap();
    }

    #[test]
    fn each_thing_that_is_wrong_is_refused() {
        let (key, signed) = signed();
        let evidence = EvidenceId(Digest([2; 32]));
        let enclave = key.enclave_key();
        let other = SigningKey::from_seed(&[9; 32]).unwrap().enclave_key();
        assert!(matches!(signed.verify(&other, &evidence, UnixTime(150)), Err(Error::Signature(_))));
        assert!(matches!(
            signed.verify(&enclave, &EvidenceId(Digest([7; 32])), UnixTime(150)),
            Err(Error::Malformed { .. })
        ));
        assert!(matches!(signed.verify(&enclave, &evidence, UnixTime(99)), Err(Error::StatementTime { .. })));
        assert!(matches!(signed.verify(&enclave, &evidence, UnixTime(201)), Err(Error::StatementTime { .. })));
        let mut altered = signed.clone();
        altered.statement.key_config[0] ^= 1;
        assert!(matches!(altered.verify(&enclave, &evidence, UnixTime(150)), Err(Error::Signature(_))));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = signed().1.to_bytes();
        for end in 0..bytes.len() {
            assert!(SignedKeyStatement::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
    }
}
