//! What a replay has found so far, on disk: its memory does not grow with a log, and a replay that was killed goes on from here.

use std::path::Path;

use cocoon_attestation::{Digest, EnclaveKey, ProviderAddress, UnixTime};
use cocoon_verifier::Outcome;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};

use super::appraise::Kept;
use super::finding::Finding;
use super::totals::Totals;
use crate::Error;
use crate::note::TreeHead;

/// Evidence id and leaf index: time, outcome's code, flags, and what the evidence is about: enclave's key, provider, model root.
const EVIDENCE: TableDefinition<'static, &'static [u8; 40], &'static [u8; VALUE]> = TableDefinition::new("leaves");
const VALUE: usize = 8 + 1 + 1 + 32 + 33 + 32;
/// Flags: it was confirmed, it names the log's own node, what its evidence is about can be read.
const CONFIRMED: u8 = 1;
const OWN: u8 = 2;
const READ: u8 = 4;
/// Enclave key: time of its first and of its newest leaf, and how many it has that do not say accepted (0 or 1).
const ENCLAVES: TableDefinition<'static, &'static [u8; 32], &'static [u8; 17]> = TableDefinition::new("enclaves");
/// Leaf index and number: a finding, JSON. Those of no leaf have the last index.
const FINDINGS: TableDefinition<'static, (u64, u32), &'static [u8]> = TableDefinition::new("findings");
/// Size and root of checkpoints that were seen: their text.
const CHECKPOINTS: TableDefinition<'static, (u64, &'static [u8; 32]), &'static str> =
    TableDefinition::new("checkpoints");
const SAVED: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("saved");

/// Layout of this file; another one is made anew.
const VERSION: u32 = 2;

/// Where a replay stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    version: u32,
    /// The log's key.
    pub key: String,
    /// What appraised, and from which leaf on.
    pub verifier: String,
    pub from: u64,
    /// Full tiles that were replayed, and the root that their leaves make.
    pub tiles: u64,
    pub root: Digest,
    pub totals: Totals,
    /// Time of the last of those leaves.
    pub previous: Option<UnixTime>,
}

impl Saved {
    pub fn new(key: &str, verifier: &str, from: u64) -> Self {
        Self { version: VERSION, key: key.into(), verifier: verifier.into(), from, ..Self::default() }
    }
}

/// What evidence is about, by its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The enclave's key.
    pub enclave_key: EnclaveKey,
    /// Who is paid for it.
    pub provider: ProviderAddress,
    /// The model that it serves.
    pub model_root: Digest,
}

/// A log's leaf with a given evidence id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its index.
    pub leaf: u64,
    /// Its time.
    pub time: UnixTime,
    /// What it says.
    pub outcome: Outcome,
    /// It says accepted, a verdict could be given, and its evidence is accepted when it is appraised again.
    pub confirmed: bool,
    /// It names the node whose log this is.
    pub own: bool,
    /// What its evidence is about, if that can be read.
    pub subject: Option<Subject>,
}

/// The first and newest leaf of an enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EnclaveSpan {
    /// The enclave's key.
    pub key: EnclaveKey,
    /// Time of its first leaf.
    pub first: UnixTime,
    /// Time of its newest leaf.
    pub last: UnixTime,
    /// A leaf of it says something else than accepted.
    pub refused: bool,
}

/// The file of one log's replay.
pub struct State {
    database: Database,
}

/// What is written together.
#[derive(Default)]
pub(super) struct Batch {
    pub kept: Vec<(u64, Kept)>,
    pub findings: Vec<(u64, Finding)>,
}

impl State {
    /// Opens the file of a log's replay, or makes it.
    ///
    /// # Errors
    /// The disk failed, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let database = cocoon_settlement::database::open(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(EVIDENCE)?;
        transaction.open_table(ENCLAVES)?;
        transaction.open_table(FINDINGS)?;
        transaction.open_table(CHECKPOINTS)?;
        transaction.open_table(SAVED)?;
        transaction.commit()?;
        Ok(Self { database })
    }

    pub(super) fn saved(&self) -> Result<Option<Saved>, Error> {
        let table = self.database.begin_read()?.open_table(SAVED)?;
        let saved = table.get("progress")?;
        Ok(saved
            .and_then(|saved| serde_json::from_slice(saved.value()).ok())
            .filter(|saved: &Saved| saved.version == VERSION))
    }

    /// Forgets everything but the checkpoints that were seen.
    pub(super) fn reset(&self) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        transaction.delete_table(EVIDENCE)?;
        transaction.delete_table(ENCLAVES)?;
        transaction.delete_table(FINDINGS)?;
        transaction.delete_table(SAVED)?;
        transaction.open_table(EVIDENCE)?;
        transaction.open_table(ENCLAVES)?;
        transaction.open_table(FINDINGS)?;
        transaction.open_table(SAVED)?;
        Ok(transaction.commit()?)
    }

    /// Writes what was found, and where the replay stands. All of it can be written again without harm.
    pub(super) fn write(&self, mut batch: Batch, saved: Option<&Saved>) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        {
            // In the order of their keys: neighbours share pages.
            let mut table = transaction.open_table(EVIDENCE)?;
            batch.kept.sort_unstable_by_key(|(index, kept)| (kept.evidence_id, *index));
            for (index, kept) in &batch.kept {
                table.insert(&evidence_key(&kept.evidence_id, *index), &evidence_value(kept))?;
            }
            let mut table = transaction.open_table(ENCLAVES)?;
            let mut spans: Vec<_> =
                batch.kept.iter().filter_map(|(_, kept)| Some((kept.subject?.enclave_key, kept))).collect();
            spans.sort_unstable_by_key(|(key, kept)| (key.0, kept.time));
            for group in spans.chunk_by(|a, b| a.0 == b.0) {
                let (Some((key, first)), Some((_, last))) = (group.first(), group.last()) else { continue };
                let refused = group.iter().any(|(_, kept)| kept.outcome != Outcome::Accepted);
                let (first, last) = (first.time, last.time);
                let mut span = EnclaveSpan { key: *key, first, last, refused };
                if let Some(known) = table.get(&key.0)?.map(|known| read_span(key, known.value())) {
                    span.first = span.first.min(known.first);
                    span.last = span.last.max(known.last);
                    span.refused |= known.refused;
                }
                table.insert(&key.0, &span_value(&span))?;
            }
            let mut table = transaction.open_table(FINDINGS)?;
            let mut number = (u64::MAX, 0);
            for (index, finding) in &batch.findings {
                number = if number.0 == *index { (*index, number.1 + 1) } else { (*index, 0) };
                let json = serde_json::to_vec(finding).map_err(|error| Error::Store(error.to_string()))?;
                table.insert(number, json.as_slice())?;
            }
            if let Some(saved) = saved {
                let json = serde_json::to_vec(saved).map_err(|error| Error::Store(error.to_string()))?;
                transaction.open_table(SAVED)?.insert("progress", json.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Checkpoints of the log that were seen before, by size.
    pub(super) fn checkpoints(&self) -> Result<Vec<(TreeHead, String)>, Error> {
        let table = self.database.begin_read()?.open_table(CHECKPOINTS)?;
        let mut seen = Vec::new();
        for entry in table.iter()? {
            let (head, text) = entry?;
            let (size, root) = head.value();
            seen.push((TreeHead { size, root: Digest(*root) }, text.value().to_owned()));
        }
        Ok(seen)
    }

    /// Keeps a checkpoint. Of those that continued one another only the newest is needed: `forget` are dropped.
    pub(super) fn keep_checkpoint(&self, head: &TreeHead, text: &str, forget: &[TreeHead]) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(CHECKPOINTS)?;
            for old in forget.iter().filter(|old| *old != head) {
                table.remove((old.size, &old.root.0))?;
            }
            table.insert((head.size, &head.root.0), text)?;
        }
        Ok(transaction.commit()?)
    }

    /// Every leaf with an evidence id.
    ///
    /// # Errors
    /// The disk failed.
    pub fn logged(&self, evidence_id: &Digest) -> Result<Vec<Logged>, Error> {
        let table = self.database.begin_read()?.open_table(EVIDENCE)?;
        let (from, to) = (evidence_key(evidence_id, 0), evidence_key(evidence_id, u64::MAX));
        let mut found = Vec::new();
        for entry in table.range::<&[u8; 40]>(&from..=&to)? {
            let (key, value) = entry?;
            found.push(read_logged(key.value(), value.value()).1);
        }
        Ok(found)
    }

    /// How many enclaves the log names.
    ///
    /// # Errors
    /// The disk failed.
    pub fn enclaves(&self) -> Result<u64, Error> {
        Ok(self.database.begin_read()?.open_table(ENCLAVES)?.len()?)
    }

    /// At most so many enclaves: those with leaves that do not say accepted come first.
    ///
    /// # Errors
    /// The disk failed.
    pub fn spans(&self, most: usize) -> Result<Vec<EnclaveSpan>, Error> {
        let table = self.database.begin_read()?.open_table(ENCLAVES)?;
        let (mut refused, mut others) = (Vec::new(), Vec::new());
        for entry in table.iter()? {
            let (key, value) = entry?;
            let span = read_span(&EnclaveKey(*key.value()), value.value());
            let list = if span.refused { &mut refused } else { &mut others };
            if list.len() < most {
                list.push(span);
            }
            if refused.len() >= most {
                break;
            }
        }
        refused.extend(others);
        refused.truncate(most);
        Ok(refused)
    }

    /// Every leaf's time and outcome with its enclave, if there are at most so many.
    ///
    /// # Errors
    /// The disk failed.
    pub fn all_logged(&self, most: u64) -> Result<Option<Vec<(Digest, Logged)>>, Error> {
        let table = self.database.begin_read()?.open_table(EVIDENCE)?;
        if table.len()? > most {
            return Ok(None);
        }
        let mut all = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            all.push(read_logged(key.value(), value.value()));
        }
        Ok(Some(all))
    }

    /// Findings in the order of their leaves, at most so many of each kind. `say` is told of each.
    ///
    /// # Errors
    /// The disk failed.
    pub fn findings(&self, mut say: impl FnMut(Finding)) -> Result<(), Error> {
        let table = self.database.begin_read()?.open_table(FINDINGS)?;
        for entry in table.iter()? {
            let (_, json) = entry?;
            say(serde_json::from_slice(json.value()).map_err(|error| Error::Store(error.to_string()))?);
        }
        Ok(())
    }
}

fn evidence_key(evidence_id: &Digest, index: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&evidence_id.0);
    key[32..].copy_from_slice(&index.to_be_bytes());
    key
}

fn evidence_value(kept: &Kept) -> [u8; VALUE] {
    let mut value = [0; VALUE];
    value[..8].copy_from_slice(&kept.time.0.to_be_bytes());
    value[8] = kept.outcome.exit_code();
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    value[9] = flag(kept.confirmed, CONFIRMED) | flag(kept.own, OWN) | flag(kept.subject.is_some(), READ);
    if let Some(Subject { enclave_key, provider, model_root }) = kept.subject {
        value[10..42].copy_from_slice(&enclave_key.0);
        value[42..75].copy_from_slice(&provider.0);
        value[75..].copy_from_slice(&model_root.0);
    }
    value
}

fn read_logged(key: &[u8; 40], value: &[u8; VALUE]) -> (Digest, Logged) {
    let (mut id, mut index, mut time) = ([0; 32], [0; 8], [0; 8]);
    id.copy_from_slice(&key[..32]);
    index.copy_from_slice(&key[32..]);
    time.copy_from_slice(&value[..8]);
    let outcome = match value[8] {
        0 => Outcome::Accepted,
        10 => Outcome::Refused,
        20 => Outcome::Invalid,
        _ => Outcome::Malformed,
    };
    let (leaf, time) = (u64::from_be_bytes(index), UnixTime(u64::from_be_bytes(time)));
    let has = |flag: u8| value[9] & flag != 0;
    let subject = has(READ).then(|| Subject {
        enclave_key: EnclaveKey(std::array::from_fn(|n| value[10 + n])),
        provider: ProviderAddress(std::array::from_fn(|n| value[42 + n])),
        model_root: Digest(std::array::from_fn(|n| value[75 + n])),
    });
    (Digest(id), Logged { leaf, time, outcome, confirmed: has(CONFIRMED), own: has(OWN), subject })
}

fn span_value(span: &EnclaveSpan) -> [u8; 17] {
    let mut value = [0; 17];
    value[..8].copy_from_slice(&span.first.0.to_be_bytes());
    value[8..16].copy_from_slice(&span.last.0.to_be_bytes());
    value[16] = u8::from(span.refused);
    value
}

fn read_span(key: &EnclaveKey, value: &[u8; 17]) -> EnclaveSpan {
    let time = |at: usize| UnixTime(u64::from_be_bytes(std::array::from_fn(|n| value[at + n])));
    EnclaveSpan { key: *key, first: time(0), last: time(8), refused: value[16] == 1 }
}
