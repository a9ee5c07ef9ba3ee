//! What a replay has found so far, on disk: its memory does not grow with a log, and a replay that was killed goes on from here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cocoon_attestation::{Digest, EnclaveKey, ProviderAddress, UnixTime};
use cocoon_verifier::Outcome;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::appraise::Kept;
use super::finding::Finding;
use super::totals::Totals;
use crate::Error;
use crate::layout::WIDTH;
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
/// Leaf index and the beginning of the JSON's SHA-256: a finding, JSON. Those of no leaf stand at the first leaf of their tile.
const FINDINGS: TableDefinition<'static, (u64, &'static [u8; 16]), &'static [u8]> = TableDefinition::new("findings");
/// Tiles about which something was found that another copy, or this one tomorrow, may not show: what they amount to, JSON.
const AGAIN: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("again");
/// Size and root of checkpoints that were seen: their text.
const CHECKPOINTS: TableDefinition<'static, (u64, &'static [u8; 32]), &'static str> =
    TableDefinition::new("checkpoints");
/// Root of the other tree of a split view: the finding, JSON. What was proved once is not forgotten, whichever of the two is shown later.
const SPLITS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("splits");
const SAVED: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("saved");

/// Memory for pages of a file, in bytes.
const CACHE: usize = 64 << 20;
/// Layout of this file; another one is made anew.
const VERSION: u32 = 4;

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
    /// What they amount to, without those that are looked at again each time ([`Again`]).
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

/// A tile that is looked at again each time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Again {
    pub totals: Totals,
    /// Time of the leaf in front of it.
    pub previous: Option<UnixTime>,
    /// What its hashes came to in the tree that the log signed: whatever stands there later must come to the same.
    pub subtree: Digest,
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

impl EnclaveSpan {
    fn join(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.refused |= other.refused;
    }
}

/// The file of one log's replay, and what there is of the log's unfinished end, which is looked at again each time.
pub struct State {
    database: Database,
    /// Checkpoints of the log from wherever it was read; in the same file if there is none.
    seen: Option<Database>,
    tail: Mutex<Batch>,
}

/// What is written together.
#[derive(Default)]
pub(super) struct Batch {
    pub kept: Vec<(u64, Kept)>,
    /// Findings, by the leaf that they stand at.
    pub findings: Vec<(u64, Finding)>,
    /// Tiles that are to be looked at again.
    pub again: Vec<(u64, Again)>,
}

impl State {
    /// Opens the file of a log's replay, or makes it.
    ///
    /// # Errors
    /// The disk failed, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::new(file(path)?, None)
    }

    /// The same, with the log's checkpoints in another file: copies of a log at other places share that one, and nothing else.
    ///
    /// # Errors
    /// The disk failed, or another process has one of them open.
    pub fn open_copy(path: &Path, seen: &Path) -> Result<Self, Error> {
        Self::new(file(path)?, Some(file(seen)?))
    }

    /// One that is forgotten in the end: for a log of which nothing could be read.
    ///
    /// # Errors
    /// There is no memory.
    pub fn in_memory() -> Result<Self, Error> {
        Self::new(Database::builder().create_with_backend(redb::backends::InMemoryBackend::new())?, None)
    }

    /// The same, with what is remembered of the log's checkpoints, if anything is.
    ///
    /// # Errors
    /// The disk failed, or another process has the file open.
    pub fn in_memory_beside(seen: &Path) -> Result<Self, Error> {
        let mut state = Self::in_memory()?;
        if seen.exists() {
            state = Self::new(state.database, Some(file(seen)?))?;
        }
        Ok(state)
    }

    fn new(database: Database, seen: Option<Database>) -> Result<Self, Error> {
        for database in [Some(&database), seen.as_ref()].into_iter().flatten() {
            let transaction = database.begin_write()?;
            transaction.open_table(CHECKPOINTS)?;
            transaction.open_table(SPLITS)?;
            transaction.commit()?;
        }
        let state = Self { database, seen, tail: Mutex::default() };
        // Tables of another version may have other types.
        if state.saved()?.is_none() {
            state.reset()?;
        }
        Ok(state)
    }

    fn seen(&self) -> &Database {
        self.seen.as_ref().unwrap_or(&self.database)
    }

    fn tail(&self) -> MutexGuard<'_, Batch> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what there is of the log's unfinished end, in the place of what there was.
    pub(super) fn set_tail(&self, tail: Batch) {
        *self.tail() = tail;
    }

    pub(super) fn saved(&self) -> Result<Option<Saved>, Error> {
        let table = match self.database.begin_read()?.open_table(SAVED) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        let saved = table.get("progress")?;
        Ok(saved
            .and_then(|saved| serde_json::from_slice(saved.value()).ok())
            .filter(|saved: &Saved| saved.version == VERSION))
    }

    /// Forgets everything but the checkpoints that were seen.
    pub(super) fn reset(&self) -> Result<(), Error> {
        self.set_tail(Batch::default());
        let transaction = self.database.begin_write()?;
        transaction.delete_table(EVIDENCE)?;
        transaction.delete_table(ENCLAVES)?;
        transaction.delete_table(FINDINGS)?;
        transaction.delete_table(AGAIN)?;
        transaction.delete_table(SAVED)?;
        transaction.open_table(EVIDENCE)?;
        transaction.open_table(ENCLAVES)?;
        transaction.open_table(FINDINGS)?;
        transaction.open_table(AGAIN)?;
        transaction.open_table(SAVED)?;
        Ok(transaction.commit()?)
    }

    /// Keeps what was found, and begins anew the next time.
    pub(super) fn forget_progress(&self) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(SAVED)?.remove("progress")?;
        Ok(transaction.commit()?)
    }

    /// Writes what was found, and where the replay stands. All of it can be written again without harm.
    pub(super) fn write(&self, batch: Batch, saved: &Saved) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        put(&transaction, batch)?;
        transaction.open_table(SAVED)?.insert("progress", json(saved)?.as_slice())?;
        Ok(transaction.commit()?)
    }

    /// The first tile from an index on that is to be looked at again.
    pub(super) fn again(&self, from: u64) -> Result<Option<(u64, Again)>, Error> {
        let table = self.database.begin_read()?.open_table(AGAIN)?;
        let Some(entry) = table.range(from..)?.next() else { return Ok(None) };
        let (index, json) = entry?;
        let again = serde_json::from_slice(json.value()).map_err(|error| Error::Store(error.to_string()))?;
        Ok(Some((index.value(), again)))
    }

    /// Puts what there is of a tile in the place of what there was.
    pub(super) fn replace(&self, tile: u64, batch: Batch, saved: &Saved) -> Result<(), Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(AGAIN)?.remove(tile)?;
        {
            let mut table = transaction.open_table(FINDINGS)?;
            let (from, to) = (tile * WIDTH, tile * WIDTH + (WIDTH - 1));
            table.retain_in((from, &[0; 16])..=(to, &[0xff; 16]), |_, _| false)?;
        }
        put(&transaction, batch)?;
        transaction.open_table(SAVED)?.insert("progress", json(saved)?.as_slice())?;
        Ok(transaction.commit()?)
    }

    /// Checkpoints of the log that were seen before, by size.
    pub(super) fn checkpoints(&self) -> Result<Vec<(TreeHead, String)>, Error> {
        let table = self.seen().begin_read()?.open_table(CHECKPOINTS)?;
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
        let transaction = self.seen().begin_write()?;
        {
            let mut table = transaction.open_table(CHECKPOINTS)?;
            for old in forget.iter().filter(|old| *old != head) {
                table.remove((old.size, &old.root.0))?;
            }
            table.insert((head.size, &head.root.0), text)?;
        }
        Ok(transaction.commit()?)
    }

    /// Keeps that the log showed two histories.
    pub(super) fn keep_split(&self, finding: &Finding) -> Result<(), Error> {
        let transaction = self.seen().begin_write()?;
        {
            let mut table = transaction.open_table(SPLITS)?;
            let name = finding.about.as_deref().unwrap_or_default().as_bytes();
            if table.get(name)?.is_none() {
                table.insert(name, json(finding)?.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Every split view that was proved.
    pub(super) fn splits(&self) -> Result<Vec<Finding>, Error> {
        let table = self.seen().begin_read()?.open_table(SPLITS)?;
        let mut splits = Vec::new();
        for entry in table.iter()? {
            let (_, json) = entry?;
            splits.push(serde_json::from_slice(json.value()).map_err(|error| Error::Store(error.to_string()))?);
        }
        Ok(splits)
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
        let tail = self.tail();
        let of_it = tail.kept.iter().filter(|(_, kept)| kept.evidence_id == *evidence_id);
        found.extend(of_it.map(|(leaf, kept)| logged(*leaf, kept)));
        Ok(found)
    }

    /// How many enclaves the log names.
    ///
    /// # Errors
    /// The disk failed.
    pub fn enclaves(&self) -> Result<u64, Error> {
        let table = self.database.begin_read()?.open_table(ENCLAVES)?;
        let mut count = table.len()?;
        for key in spans(&self.tail().kept).keys() {
            count += u64::from(table.get(key)?.is_none());
        }
        Ok(count)
    }

    /// At most so many enclaves: those with leaves that do not say accepted come first.
    ///
    /// # Errors
    /// The disk failed.
    pub fn spans(&self, most: usize) -> Result<Vec<EnclaveSpan>, Error> {
        let table = self.database.begin_read()?.open_table(ENCLAVES)?;
        let mut tail = spans(&self.tail().kept);
        let (mut refused, mut others) = (Vec::new(), Vec::new());
        let mut take = |span: EnclaveSpan| {
            let list = if span.refused { &mut refused } else { &mut others };
            if list.len() < most {
                list.push(span);
            }
            refused.len() >= most
        };
        for entry in table.iter()? {
            let (key, value) = entry?;
            let mut span = read_span(&EnclaveKey(*key.value()), value.value());
            if let Some(newer) = tail.remove(key.value()) {
                span.join(&newer);
            }
            if take(span) {
                break;
            }
        }
        tail.into_values().for_each(|span| _ = take(span));
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
        let tail = self.tail();
        if table.len()? + tail.kept.len() as u64 > most {
            return Ok(None);
        }
        let mut all = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            all.push(read_logged(key.value(), value.value()));
        }
        all.extend(tail.kept.iter().map(|(leaf, kept)| (kept.evidence_id, logged(*leaf, kept))));
        Ok(Some(all))
    }

    /// Every finding, in the order of their leaves. `say` is told of each.
    ///
    /// # Errors
    /// The disk failed.
    pub fn findings(&self, mut say: impl FnMut(Finding)) -> Result<(), Error> {
        let table = self.database.begin_read()?.open_table(FINDINGS)?;
        for entry in table.iter()? {
            let (_, json) = entry?;
            say(serde_json::from_slice(json.value()).map_err(|error| Error::Store(error.to_string()))?);
        }
        self.tail().findings.iter().for_each(|(_, finding)| say(finding.clone()));
        Ok(())
    }
}

fn file(path: &Path) -> Result<Database, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Made safely; then opened with less memory than a log's length could take.
    drop(cocoon_settlement::database::open(path)?);
    Ok(Database::builder().set_cache_size(CACHE).open(path)?)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Store(error.to_string()))
}

fn put(transaction: &WriteTransaction, mut batch: Batch) -> Result<(), Error> {
    // In the order of their keys: neighbours share pages.
    let mut table = transaction.open_table(EVIDENCE)?;
    batch.kept.sort_unstable_by_key(|(index, kept)| (kept.evidence_id, *index));
    for (index, kept) in &batch.kept {
        table.insert(&evidence_key(&kept.evidence_id, *index), &evidence_value(kept))?;
    }
    let mut table = transaction.open_table(ENCLAVES)?;
    for (key, mut span) in spans(&batch.kept) {
        if let Some(known) = table.get(&key)?.map(|known| read_span(&span.key, known.value())) {
            span.join(&known);
        }
        table.insert(&key, &span_value(&span))?;
    }
    let mut table = transaction.open_table(FINDINGS)?;
    for (leaf, finding) in &batch.findings {
        let json = json(finding)?;
        let digest = Digest::of(&[&json]);
        table.insert((*leaf, &std::array::from_fn(|n| digest.0[n])), json.as_slice())?;
    }
    let mut table = transaction.open_table(AGAIN)?;
    for (tile, again) in &batch.again {
        table.insert(*tile, json(again)?.as_slice())?;
    }
    Ok(())
}

/// The enclaves of leaves.
fn spans(kept: &[(u64, Kept)]) -> BTreeMap<[u8; 32], EnclaveSpan> {
    let mut spans: BTreeMap<[u8; 32], EnclaveSpan> = BTreeMap::new();
    for (_, kept) in kept {
        let Some(Subject { enclave_key: key, .. }) = kept.subject else { continue };
        let (time, refused) = (kept.time, kept.outcome != Outcome::Accepted);
        let span = EnclaveSpan { key, first: time, last: time, refused };
        spans.entry(key.0).and_modify(|known| known.join(&span)).or_insert(span);
    }
    spans
}

fn logged(leaf: u64, kept: &Kept) -> Logged {
    read_logged(&evidence_key(&kept.evidence_id, leaf), &evidence_value(kept)).1
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
