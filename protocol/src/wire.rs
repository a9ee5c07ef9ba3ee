//! The HTTP interfaces between roles: paths, header names, media types and bodies (`docs/protocol.md`).

use cocoon_attestation::cbor::{self, Fields, Value};
use cocoon_attestation::{Beacon, Digest, UnixTime};
use cocoon_settlement::{Address, Prices};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::statement::SignedKeyStatement;

/// Outer header: which enclave a sealed request is for, by evidence id.
pub const ENCLAVE_HEADER: &str = "cocoon-enclave";
/// Outer header: the voucher ([`crate::voucher::SignedVoucher::to_header`]).
pub const VOUCHER_HEADER: &str = "cocoon-voucher";
/// Inner trailer: the full receipt ([`crate::receipt::SignedFullReceipt::to_trailer`]).
pub const RECEIPT_TRAILER: &str = "cocoon-receipt";
/// Inner header: the identifier by which a client keeps the receipt of this answer.
pub const RECEIPT_ID_HEADER: &str = "cocoon-receipt-id";

/// Media type of a sealed request.
pub const SEALED_REQUEST: &str = "message/ohttp-chunked-req";
/// Media type of a sealed answer.
pub const SEALED_RESPONSE: &str = "message/ohttp-chunked-res";
/// Media type of an enclave's answer to its host.
pub const FRAMES: &str = "application/vnd.cocoon.frames";
/// Media type of CBOR bodies.
pub const CBOR: &str = "application/cbor";

/// Enclave: its bundle and key statement.
pub const EVIDENCE_PATH: &str = "/v1/evidence";
/// Enclave: makes new evidence on a beacon.
pub const ATTEST_PATH: &str = "/v1/attest";
/// Enclave: a sealed request.
pub const SEALED_PATH: &str = "/v1/sealed";
/// Enclave: the latest settlement receipt of a channel, by the query's `channel`; with `request` ([`crate::sealed::request_id`]) only once that
/// request has ended.
pub const RECEIPTS_PATH: &str = "/v1/receipts";
/// Host and gateway: relay of a sealed request.
pub const RELAY_PATH: &str = "/v1/relay";
/// Host and gateway: the enclaves that can be asked.
pub const ENCLAVES_PATH: &str = "/v1/enclaves";
/// Gateway: a host announces an enclave.
pub const ANNOUNCEMENTS_PATH: &str = "/v1/announcements";
/// Verifier node: appraises a bundle.
pub const APPRAISE_PATH: &str = "/v1/appraise";
/// Verifier node: inclusion proof of an evidence id.
pub const INCLUSION_PATH: &str = "/v1/inclusion";
/// Path of a verifier node: a log's checkpoint to cosign (C2SP tlog-witness).
pub const WITNESS_PATH: &str = "/add-checkpoint";

/// The largest bundle that is read, in bytes.
pub const MAX_BUNDLE: usize = cocoon_attestation::bundle::MAX_BYTES;

/// An enclave's bundle with a current key statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclaveEvidence {
    /// The bundle's CBOR.
    pub bundle: Vec<u8>,
    /// The key to seal to.
    pub key_statement: SignedKeyStatement,
}

impl EnclaveEvidence {
    /// Deterministic CBOR: `{0: bundle, 1: signed key statement}`.
    pub fn to_cbor(&self) -> Vec<u8> {
        cbor::encode(&cbor::map([
            (0, Value::Bytes(self.bundle.clone())),
            (1, Value::Bytes(self.key_statement.to_bytes())),
        ]))
    }

    /// Reads what [`Self::to_cbor`] wrote.
    ///
    /// # Errors
    /// Fields that are absent, unknown or of another type.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("an enclave's evidence", bytes)?;
        let bundle = fields.bytes(0)?;
        let key_statement = SignedKeyStatement::from_bytes(&fields.bytes(1)?)?;
        fields.finish()?;
        Ok(Self { bundle, key_statement })
    }
}

/// What a host gives the enclave to make evidence with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttestRequest {
    /// A recent block: evidence cannot be older than it.
    pub beacon: Beacon,
    /// Root over clients' waiting nonces, zero if there are none.
    pub nonce_root: Digest,
}

impl AttestRequest {
    /// Deterministic CBOR: `{0: seqno, 1: root hash, 2: time, 3: nonce root}`.
    pub fn to_cbor(&self) -> Vec<u8> {
        cbor::encode(&cbor::map([
            (0, Value::from(self.beacon.seqno)),
            (1, Value::Bytes(self.beacon.root_hash.0.to_vec())),
            (2, Value::from(self.beacon.time.0)),
            (3, Value::Bytes(self.nonce_root.0.to_vec())),
        ]))
    }

    /// Reads what [`Self::to_cbor`] wrote.
    ///
    /// # Errors
    /// Fields that are absent, unknown, of another type or out of range.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("a request for evidence", bytes)?;
        let seqno = u32::try_from(fields.uint(0)?)
            .map_err(|_| Error::malformed("a beacon", "its block number is beyond 2^32"))?;
        let root_hash = Digest(fields.array(1)?);
        let time = UnixTime(fields.uint(2)?);
        let nonce_root = Digest(fields.array(3)?);
        fields.finish()?;
        Ok(Self { beacon: Beacon { seqno, root_hash, time }, nonce_root })
    }
}

/// What a host announces to gateways, and gateways list. Nothing in it is trusted: a client appraises the bundle itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Evidence id, lower-case hexadecimal.
    pub evidence_id: String,
    /// Base URL of the host's relay.
    pub host_url: String,
    /// Names of the models served.
    pub models: Vec<String>,
    /// The provider that is paid.
    pub provider: Address,
    /// Prices in nanoton per million tokens.
    pub prices: Prices,
    /// The bundle with endorsements, base64 of its CBOR.
    pub bundle: String,
    /// The signed key statement, base64.
    pub key_statement: String,
}

/// A verifier node's answer to a bundle it accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedVerdict {
    /// The node's place in the Registry's list of verifiers.
    pub index: u8,
    /// The verdict, base64 of its bag of cells.
    pub verdict: String,
    /// Ed25519 over the verdict's representation hash, hexadecimal.
    pub signature: String,
    /// Where the node's log holds the bundle.
    pub inclusion: LogInclusion,
}

/// That a log holds a leaf, as far as its checkpoint goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogInclusion {
    /// Index of the leaf.
    pub leaf_index: u64,
    /// The leaf, base64 of its CBOR.
    pub leaf: String,
    /// Size of the tree of the checkpoint.
    pub tree_size: u64,
    /// Hashes from the leaf to the root, hexadecimal.
    pub hashes: Vec<String>,
    /// Signed note of the checkpoint (C2SP tlog-checkpoint) with its cosignatures.
    pub checkpoint: String,
    /// Hashes that show how that tree continues the one whose size was asked about (`?since=SIZE`), hexadecimal.
    pub consistency: Vec<String>,
}

/// Why a verifier node signs no verdict for a bundle, as it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRefusal {
    /// Outcome of the appraisal: refused, invalid or malformed.
    pub outcome: String,
    /// Why, in words a person can act on.
    pub reason: String,
    /// The same as a signed note by the key of the node's log: whoever was refused wrongly can show it.
    pub statement: String,
    /// Where the node's log holds the refusal. Evidence that is not authentic is not logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inclusion: Option<LogInclusion>,
}

/// A refusal outside the seal: what happened and what to do. Says nothing of any content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
    /// What the other side can do about it.
    pub what_to_do: String,
}
