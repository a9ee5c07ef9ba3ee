//! A witness: it cosigns a log's checkpoint only if that continues the one it cosigned before (C2SP tlog-witness).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Digest, UnixTime};
use redb::{Database, ReadableDatabase, TableDefinition};
use zeroize::Zeroizing;

use crate::note::{TreeHead, WitnessSigner, open_checkpoint, read_note};
use crate::proof::verify_consistency;
use crate::{Error, layout};

/// By a log's verifier key: size and root that were cosigned last.
const SEEN: TableDefinition<'static, &'static str, (u64, [u8; 32])> = TableDefinition::new("seen");

/// What a log asks of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size that the witness cosigned last.
    pub old: u64,
    /// Proof of consistency from there.
    pub proof: Vec<Digest>,
    /// The signed note.
    pub checkpoint: String,
}

impl AddCheckpoint {
    /// The request's body.
    pub fn to_text(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| STANDARD.encode(hash.0) + "\n").collect();
        format!("old {}\n{proof}\n{}", self.old, self.checkpoint)
    }

    /// Reads a request's body.
    pub fn from_text(text: &str) -> Option<Self> {
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = lines.next()?.strip_prefix("old ")?.parse().ok()?;
        let hash = |line: &str| Some(Digest(STANDARD.decode(line).ok()?.try_into().ok()?));
        let proof = lines.map(hash).collect::<Option<Vec<_>>>()?;
        Some(Self { old, proof, checkpoint: checkpoint.into() })
    }
}

/// Why a witness does not cosign, with the status that C2SP gives it.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// 400: the request cannot be read.
    #[error("the request is not 'old SIZE', the proof's hashes, an empty line and a checkpoint")]
    Malformed,
    /// 404: this witness does not watch the log.
    #[error("this witness does not watch the log '{0}'; ask its operator")]
    UnknownLog(String),
    /// 403: the checkpoint is not the log's.
    #[error(transparent)]
    Untrusted(Error),
    /// 409: the log does not know what was cosigned last, or shows another tree of that size.
    #[error("this witness cosigned {0} leaves last; prove from there")]
    Conflict(u64),
    /// 422: the newer tree is not proved to continue the older one.
    #[error(transparent)]
    Inconsistent(Error),
    /// 500: nothing was cosigned.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// A witness of the logs that it was told of.
pub struct Witness {
    signer: WitnessSigner,
    /// Verifier keys by origin.
    logs: BTreeMap<String, String>,
    database: Database,
    /// What is checked against the last cosigned tree must be written before anybody else is.
    turn: Mutex<()>,
}

impl Witness {
    /// Opens a witness's memory. `name` names its key; `seed` makes it; `logs` are the verifier keys of the logs it watches.
    ///
    /// # Errors
    /// A name that cannot name a key, a log's key that is none, or a failing disk.
    pub fn open(path: &Path, name: &str, seed: &[u8; 32], logs: &[String]) -> Result<Self, Error> {
        let database = cocoon_settlement::database::open(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(SEEN)?;
        transaction.commit()?;
        let mut by_origin = BTreeMap::new();
        for vkey in logs {
            signed_note::StandardVerifier::new(vkey).map_err(|_| Error::VerifierKey(vkey.clone()))?;
            let origin = vkey.split('+').next().unwrap_or_default();
            by_origin.insert(origin.to_owned(), vkey.clone());
        }
        Ok(Self { signer: WitnessSigner::new(name, seed)?, logs: by_origin, database, turn: Mutex::new(()) })
    }

    /// The witness's seed that belongs to a log's seed: one secret makes both keys, and neither signs what the other does.
    ///
    /// # Errors
    /// The crypto library failed.
    pub fn seed(log_seed: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, Error> {
        derive(log_seed, "cocoon-witness-v1", "seed")
    }

    /// The key that checks its cosignatures, as a C2SP verifier key.
    pub fn vkey(&self) -> &str {
        self.signer.vkey()
    }

    /// Checks a checkpoint against what was cosigned before and cosigns it: a signature line. What is cosigned is on disk by then.
    ///
    /// # Errors
    /// [`WitnessError`] says which status the log gets.
    pub fn add_checkpoint(&self, request: &str, now: UnixTime) -> Result<String, WitnessError> {
        let request = AddCheckpoint::from_text(request).ok_or(WitnessError::Malformed)?;
        let origin = request.checkpoint.split('\n').next().unwrap_or_default();
        let vkey = self.logs.get(origin).ok_or_else(|| WitnessError::UnknownLog(origin.chars().take(100).collect()))?;
        let head = open_checkpoint(&request.checkpoint, vkey).map_err(WitnessError::Untrusted)?;
        if request.old > head.size || request.proof.len() > usize::from(layout::HEIGHT) * 9 {
            return Err(WitnessError::Malformed);
        }
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = self.seen(vkey)?;
        if seen.size != request.old || (head.size == seen.size && seen.size > 0 && head.root != seen.root) {
            return Err(WitnessError::Conflict(seen.size));
        }
        verify_consistency(&request.proof, &head, &seen).map_err(WitnessError::Inconsistent)?;
        if head != seen {
            let write = || -> Result<(), Error> {
                let transaction = self.database.begin_write()?;
                transaction.open_table(SEEN)?.insert(vkey.as_str(), (head.size, head.root.0))?;
                Ok(transaction.commit()?)
            };
            write()?;
        }
        let note = read_note(&request.checkpoint)?;
        Ok(self.signer.cosign(&note, now))
    }

    /// What was cosigned last of a log, by its verifier key: an empty tree at first.
    ///
    /// # Errors
    /// The disk failed.
    pub fn seen(&self, vkey: &str) -> Result<TreeHead, Error> {
        let read = || -> Result<_, Error> {
            let table = self.database.begin_read()?.open_table(SEEN)?;
            Ok(table.get(vkey)?.map(|seen| seen.value()))
        };
        let (size, root) = read()?.unwrap_or((0, [0; 32]));
        Ok(TreeHead { size, root: Digest(root) })
    }
}

/// A seed of its own for each purpose: HKDF-SHA256 of a secret, with a salt and a name.
///
/// # Errors
/// The crypto library failed.
pub fn derive(secret: &[u8; 32], salt: &str, name: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut seed = Zeroizing::new([0; 32]);
    let key = Salt::new(HKDF_SHA256, salt.as_bytes()).extract(secret);
    key.expand(&[name.as_bytes()], HKDF_SHA256).and_then(|okm| okm.fill(&mut *seed)).map_err(|_| Error::Key)?;
    Ok(seed)
}
