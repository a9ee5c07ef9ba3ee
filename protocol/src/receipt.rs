//! Receipts. The settlement receipt is a cell that the host sees and the contract checks; the full receipt is sealed to the client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::cbor::{self, Fields, Value};
use cocoon_attestation::{Digest, EnclaveKey, EvidenceId};
use cocoon_settlement::cells::SettlementReceipt;
use cocoon_settlement::{Nanoton, Prices};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::identity::{self, Signature, SigningKey};

const DOMAIN: &[u8] = b"cocoon-receipt-v1";
const VERSION: u64 = 1;
/// Tokens of one answer, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Prompt tokens that were computed.
    pub prompt: u64,
    /// Prompt tokens that came from a cache.
    pub cached: u64,
    /// Generated tokens, without reasoning.
    pub completion: u64,
    /// Generated reasoning tokens.
    pub reasoning: u64,
}

impl TokenCounts {
    /// What these tokens cost: the sum over kinds of count × price, divided by a million, rounded up once to a whole nanoton.
    ///
    /// # Errors
    /// More than 2^64 - 1 nanoton.
    pub fn charge(&self, prices: &Prices) -> Result<Nanoton, Error> {
        prices
            .charge(self.prompt, self.cached, self.completion, self.reasoning)
            .map_err(|error| Error::Voucher(error.to_string()))
    }
}

/// A settlement receipt with the enclave's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedSettlementReceipt {
    /// The cell the contract checks.
    pub receipt: SettlementReceipt,
    /// Ed25519 over its representation hash.
    pub signature: Signature,
}

impl SignedSettlementReceipt {
    /// Signs with the enclave's identity key.
    ///
    /// # Errors
    /// The crypto library refuses.
    pub fn sign(receipt: SettlementReceipt, key: &SigningKey) -> Result<Self, Error> {
        let signature = receipt.sign(key.seed()).map_err(|error| Error::Receipt(error.to_string()))?;
        Ok(Self { receipt, signature })
    }

    /// Checks the signature against the enclave key that the receipt names.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn verify(&self) -> Result<(), Error> {
        let key = &self.receipt.enclave_key.0;
        self.receipt.verify(&self.signature, key).map_err(|_| Error::Signature("the settlement receipt"))
    }

    /// Hash of the receipt's cell.
    pub fn hash(&self) -> [u8; 32] {
        self.receipt.hash()
    }

    /// 64 bytes of signature, then the bag of cells.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.signature.as_slice(), &self.receipt.to_boc()].concat()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No receipt behind the signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (signature, boc) = bytes
            .split_first_chunk()
            .ok_or_else(|| Error::malformed("a settlement receipt", "shorter than its signature"))?;
        let receipt =
            SettlementReceipt::from_boc(boc).map_err(|error| Error::malformed("a settlement receipt", error))?;
        Ok(Self { receipt, signature: *signature })
    }
}

/// What a client was served and charged (`docs/schemas/full-receipt.cddl`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullReceipt {
    /// 32 random bytes, so that the digests below show nothing to whoever guesses the content.
    pub salt: [u8; 32],
    /// SHA-256 of salt and request body.
    pub request_digest: Digest,
    /// SHA-256 of salt and response body as the client got it.
    pub response_digest: Digest,
    /// Tokens by kind.
    pub tokens: TokenCounts,
    /// Prices of the voucher.
    pub prices: Prices,
    /// Charge for this answer.
    pub charge: Nanoton,
    /// Root of the model that answered.
    pub model_root: Digest,
    /// Evidence of the enclave that answered.
    pub evidence_id: EvidenceId,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// The settlement receipt that charges for it, with its signature.
    pub settlement: SignedSettlementReceipt,
}

/// A full receipt with the enclave's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedFullReceipt {
    /// What was served.
    pub receipt: FullReceipt,
    /// Ed25519 over `"cocoon-receipt-v1" || CBOR`.
    pub signature: Signature,
}

impl FullReceipt {
    /// Salted digest of a request or response body.
    pub fn digest(salt: &[u8; 32], content: &[u8]) -> Digest {
        Digest::of(&[salt, content])
    }

    /// Deterministic CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        let counts = |values: [u64; 4]| Value::Array(values.into_iter().map(Value::from).collect());
        let TokenCounts { prompt, cached, completion, reasoning } = self.tokens;
        let prices = &self.prices;
        cbor::encode(&cbor::map([
            (0, Value::from(VERSION)),
            (1, Value::Bytes(self.salt.to_vec())),
            (2, Value::Bytes(self.request_digest.0.to_vec())),
            (3, Value::Bytes(self.response_digest.0.to_vec())),
            (4, counts([prompt, cached, completion, reasoning])),
            (5, counts([prices.prompt, prices.cached, prices.completion, prices.reasoning])),
            (6, Value::from(self.charge.0)),
            (7, Value::Bytes(self.model_root.0.to_vec())),
            (8, Value::Bytes(self.evidence_id.0.0.to_vec())),
            (9, Value::Text(self.finish_reason.clone())),
            (10, Value::Bytes(self.settlement.hash().to_vec())),
            (11, Value::Bytes(self.settlement.to_bytes())),
        ]))
    }

    /// Reads deterministic CBOR.
    ///
    /// # Errors
    /// Another version, fields that are absent, unknown or of another type, or a hash that is not the settlement receipt's.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("a receipt", bytes)?;
        if fields.uint(0)? != VERSION {
            return Err(Error::malformed("a receipt", "its version is not 1"));
        }
        let salt = fields.array(1)?;
        let request_digest = Digest(fields.array(2)?);
        let response_digest = Digest(fields.array(3)?);
        let [prompt, cached, completion, reasoning] = four(fields.items(4)?)?;
        let tokens = TokenCounts { prompt, cached, completion, reasoning };
        let [prompt, cached, completion, reasoning] = four(fields.items(5)?)?;
        let prices = Prices { prompt, cached, completion, reasoning };
        let charge = Nanoton(fields.uint(6)?);
        let model_root = Digest(fields.array(7)?);
        let evidence_id = EvidenceId(Digest(fields.array(8)?));
        let finish_reason = fields.text(9)?;
        let hash: [u8; 32] = fields.array(10)?;
        let settlement = SignedSettlementReceipt::from_bytes(&fields.bytes(11)?)?;
        fields.finish()?;
        if settlement.hash() != hash {
            return Err(Error::Receipt("it names another settlement receipt than it carries".into()));
        }
        Ok(Self {
            salt,
            request_digest,
            response_digest,
            tokens,
            prices,
            charge,
            model_root,
            evidence_id,
            finish_reason,
            settlement,
        })
    }

    /// Signs with the enclave's identity key.
    pub fn sign(self, key: &SigningKey) -> SignedFullReceipt {
        let signature = key.sign(&[DOMAIN, &self.to_cbor()].concat());
        SignedFullReceipt { receipt: self, signature }
    }
}

impl SignedFullReceipt {
    /// The receipt, if `key` signed it and the settlement receipt in it, and its charge is what tokens and prices make.
    ///
    /// # Errors
    /// Another signer, or numbers that contradict one another.
    pub fn verify(&self, key: &EnclaveKey) -> Result<&FullReceipt, Error> {
        identity::verify("the receipt", &key.0, &[DOMAIN, &self.receipt.to_cbor()].concat(), &self.signature)?;
        let receipt = &self.receipt;
        if receipt.settlement.receipt.enclave_key != *key {
            return Err(Error::Receipt("its settlement receipt is another enclave's".into()));
        }
        receipt.settlement.verify()?;
        let charge = receipt.tokens.charge(&receipt.prices)?;
        if charge != receipt.charge {
            return Err(Error::Receipt(format!("it charges {}, but its tokens cost {charge}", receipt.charge)));
        }
        Ok(receipt)
    }

    /// 64 bytes of signature, then the CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.signature.as_slice(), &self.receipt.to_cbor()].concat()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No receipt behind the signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (signature, cbor) =
            bytes.split_first_chunk().ok_or_else(|| Error::malformed("a receipt", "shorter than its signature"))?;
        Ok(Self { receipt: FullReceipt::from_cbor(cbor)?, signature: *signature })
    }

    /// The value of the inner trailer `cocoon-receipt`.
    pub fn to_trailer(&self) -> String {
        STANDARD.encode(self.to_bytes())
    }

    /// Reads the trailer's value.
    ///
    /// # Errors
    /// No base64, or no receipt in it.
    pub fn from_trailer(value: &str) -> Result<Self, Error> {
        let bytes = STANDARD.decode(value).map_err(|_| Error::malformed("a receipt", "it is not base64"))?;
        Self::from_bytes(&bytes)
    }
}

fn four(items: Vec<Value>) -> Result<[u64; 4], Error> {
    let count = |item: Value| match item {
        Value::Integer(number) => u64::try_from(number).ok(),
        _ => None,
    };
    // Every item must be a count: one that was skipped would be lost from what the signature is checked over.
    let counts: Option<Vec<u64>> = items.into_iter().map(count).collect();
    counts
        .and_then(|counts| counts.try_into().ok())
        .ok_or_else(|| Error::malformed("a receipt", "four counts are expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_counts_are_four_and_counts_only() {
        let good = || (1..=4_u64).map(Value::from).collect::<Vec<_>>();
        assert_eq!(four(good()).unwrap(), [1, 2, 3, 4]);
        assert!(four(good()[..3].to_vec()).is_err(), "three");
        for extra in [Value::from(5_u64), Value::Text("x".into()), Value::from(-1)] {
            assert!(four([good(), vec![extra]].concat()).is_err(), "a fifth item");
        }
    }
}
