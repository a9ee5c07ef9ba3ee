//! What verifier nodes' logs show to this client, and that it is what they show to everybody.
//!
//! A checkpoint counts if other nodes cosigned it lately, and if it continues the one that this client saw before: a log that shows
//! different histories to different people is found out, and both of its checkpoints are kept.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_protocol::wire::{self, LogInclusion};
use cocoon_transparency::{
    InclusionProof, Leaf, TreeHead, open_checkpoint, open_cosigned, verify_consistency, verify_inclusion,
};
use cocoon_verifier::Outcome;

use crate::Error;
use crate::config::{ClientConfig, LogKey};
use crate::net::Http;

/// Oldest cosignature that counts, in seconds: nodes have their checkpoints cosigned anew every minute.
const MAX_AGE: u64 = 600;
/// Seconds by which a witness's clock may be ahead of this client's.
const MAX_SKEW: u64 = 60;

/// The newest checkpoint of each log that this client has seen, on disk.
pub(crate) struct Logs {
    dir: PathBuf,
    heads: Mutex<HashMap<String, Seen>>,
}

#[derive(Clone)]
struct Seen {
    head: TreeHead,
    checkpoint: String,
}

impl Logs {
    pub fn open(data: &Path) -> Result<Self, Error> {
        let dir = data.join("logs");
        fs::create_dir_all(&dir).map_err(state)?;
        let mut heads = HashMap::new();
        for file in fs::read_dir(&dir).map_err(state)? {
            let path = file.map_err(state)?.path();
            if path.extension().is_some_and(|extension| extension == "seen") {
                let text = fs::read_to_string(&path).map_err(state)?;
                let (key, checkpoint) = text.split_once('\n').unwrap_or((&text, ""));
                let head = open_checkpoint(checkpoint, key)
                    .map_err(|error| Error::State(format!("{}: {error}", path.display())))?;
                heads.insert(key.to_owned(), Seen { head, checkpoint: checkpoint.to_owned() });
            }
        }
        Ok(Self { dir, heads: Mutex::new(heads) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{}.{kind}", Digest::of(&[key.as_bytes()])))
    }

    /// Replaces a file by a whole one that outlasts a power cut: what was forgotten could be shown differently the next time.
    fn write(&self, unfinished: &Path, path: &Path, text: &str) -> std::io::Result<()> {
        let mut file = fs::File::create(unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(unfinished, path)?;
        fs::File::open(&self.dir)?.sync_all()
    }

    /// Leaves of the newest tree that was seen of a log.
    fn size(&self, key: &str) -> u64 {
        self.lock().get(key).map_or(0, |seen| seen.head.size)
    }

    /// Takes a checkpoint that continues what was seen, and remembers it. One that is older than what another task has seen meanwhile cannot
    /// be compared, and is asked for again.
    fn accept(&self, key: &str, head: &TreeHead, checkpoint: &str, since: u64, proof: &[Digest]) -> Result<(), String> {
        let mut heads = self.lock();
        if let Some(seen) = heads.get(key) {
            if seen.head.size != since && seen.head != *head {
                return Err("others moved on meanwhile".into());
            }
            if let Err(error) = verify_consistency(proof, head, &seen.head) {
                let kept = self.path(key, "split-view");
                let both = format!("{key}\n\n{}\n{checkpoint}", seen.checkpoint);
                let kept = match fs::write(&kept, both) {
                    Ok(()) => format!("both checkpoints are in {}", kept.display()),
                    Err(error) => format!("and both checkpoints could not be kept: {error}"),
                };
                tracing::error!(log = key, %error, kept, "a log shows different histories");
                return Err(format!("{error}; {kept}"));
            }
            if seen.head == *head {
                return Ok(());
            }
        }
        let (path, unfinished) = (self.path(key, "seen"), self.path(key, "unfinished"));
        let written = self.write(&unfinished, &path, &format!("{key}\n{checkpoint}"));
        written.map_err(|error| format!("what this client saw cannot be kept: {error}"))?;
        heads.insert(key.to_owned(), Seen { head: head.clone(), checkpoint: checkpoint.to_owned() });
        Ok(())
    }

    /// Enough logs must prove that they hold the evidence, as accepted, under checkpoints that others cosigned.
    pub async fn prove(
        &self,
        config: &ClientConfig,
        http: &Http,
        evidence: &EvidenceId,
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut proofs = 0;
        let mut why = Vec::new();
        for log in &config.logs {
            if proofs >= config.required_logs {
                break;
            }
            let mut proven = self.ask(config, http, log, evidence, now).await;
            if proven.as_ref().is_err_and(|reason| reason == "others moved on meanwhile") {
                proven = self.ask(config, http, log, evidence, now).await;
            }
            match proven {
                Ok(()) => proofs += 1,
                Err(reason) => why.push(format!("{}: {reason}", log.url)),
            }
        }
        if proofs < config.required_logs {
            let needed = config.required_logs;
            let why = if why.is_empty() { "no log is configured".to_owned() } else { why.join("; ") };
            let reason = format!("{proofs} of {needed} logs prove that they hold its evidence as accepted: {why}");
            return Err(Error::refused("transparency", reason));
        }
        Ok(())
    }

    async fn ask(
        &self,
        config: &ClientConfig,
        http: &Http,
        log: &LogKey,
        evidence: &EvidenceId,
        now: UnixTime,
    ) -> Result<(), String> {
        let since = self.size(&log.key);
        let url = format!("{}{}/{evidence}?since={since}", log.url, wire::INCLUSION_PATH);
        let body = match http.get(&url).await {
            Ok((200, body)) => body,
            Ok((status, _)) => return Err(format!("it answers {status}")),
            Err(error) => return Err(error.to_string()),
        };
        let inclusion: LogInclusion =
            serde_json::from_slice(&body).map_err(|_| "its proof cannot be read".to_owned())?;
        // A node is no witness of its own log.
        let witnesses: Vec<_> =
            config.logs.iter().filter(|other| other.key != log.key).map(|other| other.witness.as_str()).collect();
        let opened = open_cosigned(&inclusion.checkpoint, &log.key, &witnesses).map_err(|error| error.to_string())?;
        let current = |at: &UnixTime| at.plus(MAX_AGE) >= now && *at <= now.plus(MAX_SKEW);
        let cosigned = opened.witnesses.iter().filter(|(_, at)| current(at)).count();
        if cosigned < config.required_witnesses {
            let needed = config.required_witnesses;
            return Err(format!("its checkpoint was cosigned by {cosigned} of {needed} witnesses within {MAX_AGE} s"));
        }
        let consistency = digests(&inclusion.consistency)?;
        self.accept(&log.key, &opened.head, &inclusion.checkpoint, since, &consistency)?;
        included(&inclusion, evidence, &opened.head)
    }
}

fn digests(hashes: &[String]) -> Result<Vec<Digest>, String> {
    let read = |text: &String| text.parse::<Digest>().map_err(|_| "a hash of its proof is not hexadecimal".to_owned());
    hashes.iter().map(read).collect()
}

/// Checks a node's proof: the leaf is under the checkpoint, and says that this evidence was accepted.
fn included(inclusion: &LogInclusion, evidence: &EvidenceId, head: &TreeHead) -> Result<(), String> {
    let leaf = STANDARD.decode(&inclusion.leaf).map_err(|_| "its leaf is not base64".to_owned())?;
    let (index, tree_size) = (inclusion.leaf_index, inclusion.tree_size);
    let proof = InclusionProof { index, tree_size, hashes: digests(&inclusion.hashes)? };
    verify_inclusion(&leaf, &proof, head).map_err(|error| error.to_string())?;
    let leaf = Leaf::from_cbor(&leaf).map_err(|error| error.to_string())?;
    if leaf.evidence_id != *evidence {
        return Err("its proof is for other evidence".into());
    }
    if leaf.outcome != Outcome::Accepted {
        let reason = leaf.refusal.unwrap_or_else(|| format!("the evidence is {}", leaf.outcome));
        return Err(format!("the node does not accept it any more: {reason}"));
    }
    Ok(())
}

fn state(error: std::io::Error) -> Error {
    Error::State(error.to_string())
}
