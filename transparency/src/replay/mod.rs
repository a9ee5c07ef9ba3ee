//! Replay: everything that a log says, checked again by somebody who trusts nobody.
//!
//! [`replay`] streams one log: it checks the checkpoint's signature and cosignatures, every hash up to the root, that the log
//! continues what was seen of it before, and appraises the evidence of every leaf again. [`chain`] holds the result against what
//! the contracts did, and [`report`] says all of it in one document. What is found is a [`Finding`], never an error: an
//! [`crate::Error`] means that the replay itself could not go on.

mod appraise;
pub mod chain;
mod entry;
mod finding;
pub mod report;
mod state;
mod tiles;
mod totals;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::UnixTime;
use cocoon_verifier::Verifier;
use serde::{Deserialize, Serialize};
use tlog_tiles::Hash;

pub use appraise::VERIFIER;
pub use finding::{Finding, Gravity, Kind};
pub use state::{EnclaveSpan, Logged, State, Subject};
pub use totals::{Counts, Day, OTHER, Totals};

use crate::files::Source;
use crate::layout::{self, CHECKPOINT, WIDTH};
use crate::note::{TreeHead, open_checkpoint, open_cosigned};
use crate::tree::Edge;
use crate::{Error, read_entries};
use appraise::{Appraiser, Kept};
use state::{Batch, Saved};
use tiles::{read_tile, root_at};

/// Leaves between two writes, at most.
const BATCH: u64 = 64 * WIDTH;
/// Time between two writes, at most.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// Tiles that workers may be ahead of what is written, for each of them.
const AHEAD: u64 = 8;
/// How far a leaf may be dated before one in front of it.
const BACK: u64 = 3_600;
/// Findings of one tile beyond which they are not written one by one: the tile as a whole is damaged.
const MOST_OF_A_TILE: usize = 4 * WIDTH as usize;

/// A log to be replayed.
pub struct LogInput<'a> {
    /// Its files.
    pub source: &'a (dyn Source + Sync),
    /// Its C2SP verifier key.
    pub key: &'a str,
    /// Verifier keys of witnesses that should have cosigned it.
    pub witnesses: &'a [String],
    /// Other checkpoints of it, as their text: from other copies, or kept by clients.
    pub checkpoints: &'a [String],
    /// Appraise from this leaf on; of those before only the hashes count.
    pub from: u64,
}

/// How a replay is made.
pub struct Job<'a> {
    /// Threads that appraise.
    pub jobs: usize,
    /// Remembers platforms; to be shared by the replays of all logs of a fleet.
    pub verifier: &'a Verifier,
    /// Is told how many leaves are done, and how many there are.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Ends the replay soon when it is set; it can be taken up again later.
    pub stop: &'a AtomicBool,
}

/// What came of one log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogResult {
    /// Its name.
    pub origin: String,
    /// Its verifier key.
    pub key: String,
    /// Leaves and root of its newest checkpoint, if that can be believed.
    pub size: u64,
    /// The root, in hex.
    pub root: Option<String>,
    /// The checkpoint itself.
    pub checkpoint: String,
    /// Witnesses that cosigned it, and when.
    pub witnesses: Vec<(String, UnixTime)>,
    /// Leaves of those that were replayed now or before.
    pub replayed: u64,
    /// Appraised from this leaf on.
    pub from: u64,
    /// What its leaves amount to.
    pub totals: Totals,
    /// What was found about the log as a whole; what was found about leaves is in the replay's file.
    pub findings: Vec<Finding>,
    /// Whether the leaves make the tree that the log signed.
    pub whole: bool,
}

/// A time for people: `2026-09-21 23:40:00 UTC`. Beyond the year 9999 it stays a number.
pub fn utc(time: UnixTime) -> String {
    let (days, second) = (time.0 / 86_400, time.0 % 86_400);
    if time.0 > 253_402_300_799 {
        return format!("{} s after 1970", time.0);
    }
    // Days are counted from 1 March of the year 0, in eras of 400 years, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The name of a log, from its key.
pub fn origin(key: &str) -> &str {
    key.split('+').next().unwrap_or_default()
}

/// Replays a log. What was replayed before is in `state` and is not replayed again, if the log still continues it.
///
/// # Errors
/// The source or the disk failed, or the replay was stopped. What is wrong with the log is no error but found.
pub fn replay(input: &LogInput<'_>, state: &State, job: &Job<'_>) -> Result<LogResult, Error> {
    let mut log = LogReplay::new(input);
    let Some(head) = log.checkpoint(state)? else { return Ok(log.result) };
    let mut saved = Saved::new(input.key, VERIFIER, input.from);
    let mut edge = Edge::default();
    if let Some(before) = state.saved()? {
        let same = (&before.key, &before.verifier, before.from) == (&saved.key, &saved.verifier, saved.from);
        match if same { log.resume(&before, &head) } else { None } {
            Some(known) => {
                edge = known;
                saved = before;
            }
            None => state.reset()?,
        }
    }
    let mut stream =
        Stream { input, head: &head, state, job, edge, saved, batch: Batch::default(), written: Instant::now() };
    let reached = stream.run()?;
    let tail = stream.tail(reached)?;
    log.result.replayed = stream.edge.size();
    log.result.totals = stream.saved.totals.clone();
    log.result.totals.merge(tail);
    log.result.whole = stream.edge.size() == head.size && stream.edge.root() == head.root;
    if stream.edge.size() < head.size {
        let (has, says) = (stream.edge.size(), head.size);
        let detail = format!("leaves {has} to {} are not there: the tree does not reach its checkpoint", says - 1);
        log.found(Finding::new(Kind::MissingLeaf, detail).at_leaf(has));
    } else if !log.result.whole {
        let detail = format!("{} leaves make the root {}, signed is {}", head.size, stream.edge.root(), head.root);
        log.found(Finding::new(Kind::RootDiffers, detail));
    }
    log.continues(state, &head)?;
    let found: Vec<_> = log.result.findings.iter().map(|finding| finding.kind).collect();
    found.into_iter().for_each(|kind| log.result.totals.found(kind));
    Ok(log.result)
}

/// The log as a whole: its checkpoint, and whether it continues others.
struct LogReplay<'a> {
    input: &'a LogInput<'a>,
    result: LogResult,
}

impl<'a> LogReplay<'a> {
    fn new(input: &'a LogInput<'a>) -> Self {
        let result = LogResult {
            origin: origin(input.key).into(),
            key: input.key.into(),
            size: 0,
            root: None,
            checkpoint: String::new(),
            witnesses: Vec::new(),
            replayed: 0,
            from: input.from,
            totals: Totals::default(),
            findings: Vec::new(),
            whole: false,
        };
        Self { input, result }
    }

    fn found(&mut self, finding: Finding) {
        let finding = finding.in_log(&self.result.origin);
        self.result.findings.push(finding);
    }

    /// The newest checkpoint, if the log signed it.
    fn checkpoint(&mut self, state: &State) -> Result<Option<TreeHead>, Error> {
        let Some(bytes) = self.input.source.read(CHECKPOINT)? else {
            self.found(Finding::new(Kind::BadCheckpoint, "there is none"));
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let cosigned = match open_cosigned(&text, self.input.key, self.input.witnesses) {
            Ok(cosigned) => cosigned,
            Err(error @ Error::VerifierKey(_)) => return Err(error),
            Err(error) => {
                let mut finding = Finding::new(Kind::BadCheckpoint, error.to_string());
                finding.evidence.push(text);
                self.found(finding);
                return Ok(None);
            }
        };
        for (n, witness) in self.input.witnesses.iter().enumerate() {
            match cosigned.witnesses.iter().find(|(place, _)| *place == n) {
                Some((_, at)) => self.result.witnesses.push((origin(witness).into(), *at)),
                None => {
                    let detail =
                        format!("{} did not cosign the checkpoint of {} leaves", origin(witness), cosigned.head.size);
                    self.found(Finding::new(Kind::NotCosigned, detail));
                }
            }
        }
        let head = cosigned.head;
        self.result.size = head.size;
        self.result.root = Some(head.root.to_string());
        self.result.checkpoint = text;
        // Whatever comes of the replay, what the log signed is kept.
        state.keep_checkpoint(&head, &self.result.checkpoint, &[])?;
        Ok(Some(head))
    }

    /// The edge of what was replayed before, if the log still holds it.
    fn resume(&mut self, saved: &Saved, head: &TreeHead) -> Option<Edge> {
        if saved.tiles.checked_mul(WIDTH)? > head.size {
            return None;
        }
        let edge = Edge::resume(saved.tiles, |level, index| {
            let tile = self.input.source.read(&layout::hashes(level, index, WIDTH)).ok().flatten();
            tile.filter(|hashes| hashes.len() as u64 == WIDTH * 32).ok_or(())
        });
        edge.ok().filter(|edge| edge.root() == saved.root)
    }

    /// Whether the log continues every checkpoint of it that anybody has shown.
    fn continues(&mut self, state: &State, head: &TreeHead) -> Result<(), Error> {
        let mut others = state.checkpoints()?;
        for text in self.input.checkpoints {
            // One that the log did not sign says nothing about it.
            if let Ok(other) = open_checkpoint(text, self.input.key) {
                state.keep_checkpoint(&other, text, &[])?;
                others.push((other, text.clone()));
            }
        }
        others.sort_by_key(|(other, _)| (other.size, other.root));
        others.dedup_by(|a, b| a.0 == b.0);
        let mut continued = Vec::new();
        for (other, text) in others.into_iter().filter(|(other, _)| other != head) {
            let detail = if other.size > head.size {
                Some(format!("it signed {} leaves, and shows {} now", other.size, head.size))
            } else if other.size == head.size {
                Some(format!("two trees of {} leaves have the roots {} and {}", head.size, other.root, head.root))
            } else {
                match root_at(self.input.source, head, other.size) {
                    Ok(root) if root == other.root => None,
                    Ok(root) => Some(format!(
                        "its tree of {} leaves begins with {} leaves of root {root}, and it signed {} leaves of root {}",
                        head.size, other.size, other.size, other.root
                    )),
                    // Its own tiles are damaged, which was found already; what it showed before is kept for another time.
                    Err(_) => continue,
                }
            };
            match detail {
                None => continued.push(other),
                Some(detail) => {
                    let mut finding = Finding::new(Kind::SplitView, detail);
                    finding.evidence = vec![text, self.result.checkpoint.clone()];
                    self.found(finding);
                }
            }
        }
        state.keep_checkpoint(head, &self.result.checkpoint, &continued)
    }
}

/// The leaves, tile by tile.
struct Stream<'a> {
    input: &'a LogInput<'a>,
    head: &'a TreeHead,
    state: &'a State,
    job: &'a Job<'a>,
    edge: Edge,
    saved: Saved,
    batch: Batch,
    written: Instant,
}

/// What a worker made of a tile.
#[derive(Default)]
struct Tile {
    /// The leaves' hashes; fewer than the tile is wide if it cannot be read on.
    hashes: Vec<Hash>,
    kept: Vec<(u64, Kept)>,
    findings: Vec<Finding>,
    totals: Totals,
}

impl Stream<'_> {
    /// Replays every full tile; `false` if one cannot be read on.
    fn run(&mut self) -> Result<bool, Error> {
        let (first, end) = (self.saved.tiles, self.head.size / WIDTH);
        let jobs = self.job.jobs.max(1);
        let next = AtomicU64::new(first);
        let done = (Mutex::new(first), Condvar::new());
        let ended = AtomicBool::new(false);
        let appraiser = Appraiser::new(self.input.source, origin(self.input.key), self.job.verifier);
        let (input, job) = (self.input, self.job);
        let mut result = Ok(true);
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..jobs {
                let sender = sender.clone();
                let (next, done, ended, appraiser) = (&next, &done, &ended, &appraiser);
                scope.spawn(move || {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= end {
                            break;
                        }
                        let mut written = done.0.lock().unwrap_or_else(PoisonError::into_inner);
                        while index >= *written + AHEAD * jobs as u64 && !ended.load(Ordering::Acquire) {
                            written = done.1.wait(written).unwrap_or_else(PoisonError::into_inner);
                        }
                        drop(written);
                        if ended.load(Ordering::Acquire) || job.stop.load(Ordering::Relaxed) {
                            break;
                        }
                        if sender.send((index, tile(input, appraiser, index, WIDTH))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            result = self.merge(&receiver, &done, end);
            ended.store(true, Ordering::Release);
            // Held for a moment, so that no worker misses it between its look and its wait.
            drop(done.0.lock().unwrap_or_else(PoisonError::into_inner));
            done.1.notify_all();
        });
        result
    }

    /// Takes tiles in their order.
    fn merge(
        &mut self,
        tiles: &Receiver<(u64, Result<Tile, Error>)>,
        done: &(Mutex<u64>, Condvar),
        end: u64,
    ) -> Result<bool, Error> {
        let mut early = BTreeMap::new();
        while self.saved.tiles < end {
            let Some(tile) = early.remove(&self.saved.tiles) else {
                match tiles.recv() {
                    Ok((index, tile)) => early.insert(index, tile),
                    // The workers left: somebody stopped the replay.
                    Err(_) => {
                        self.flush()?;
                        return Err(Error::Stopped);
                    }
                };
                continue;
            };
            let tile = tile?;
            if (tile.hashes.len() as u64) < WIDTH {
                // What there is of it is looked at once more as the log's unfinished end.
                self.flush()?;
                return Ok(false);
            }
            self.take(tile)?;
            self.saved.tiles += 1;
            self.saved.root = self.edge.root();
            let mut written = done.0.lock().unwrap_or_else(PoisonError::into_inner);
            *written = self.saved.tiles;
            drop(written);
            done.1.notify_all();
            (self.job.progress)(self.edge.size(), self.head.size);
            if self.batch.kept.len() as u64 >= BATCH || self.written.elapsed() >= WRITE_EVERY {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.state.write(std::mem::take(&mut self.batch), Some(&self.saved))?;
        self.written = Instant::now();
        Ok(())
    }

    /// Takes a tile into the tree, the totals and what is to be written.
    fn take(&mut self, mut tile: Tile) -> Result<(), Error> {
        let origin = origin(self.input.key);
        for hash in tile.hashes {
            for filled in self.edge.push_hash(hash) {
                // Those of the leaves themselves were looked at one by one.
                let name = layout::hashes(filled.level, filled.index, WIDTH);
                if filled.level > 0 && self.input.source.read(&name)?.as_ref() != Some(&filled.hashes) {
                    tile.findings
                        .push(Finding::new(Kind::TileDiffers, format!("{name} is not what the leaves make it")));
                }
            }
        }
        for (index, kept) in &tile.kept {
            if let Some(previous) = self.saved.previous.filter(|previous| kept.time.plus(BACK) < *previous) {
                let detail = format!("it is dated {}, and the leaf in front of it {}", utc(kept.time), utc(previous));
                let finding = Finding::new(Kind::TimeGoesBack, detail).at_leaf(*index).of(kept.evidence_id);
                tile.findings.push(finding.dated(kept.time));
            }
            self.saved.previous = Some(kept.time);
        }
        for finding in tile.findings {
            self.saved.totals.found(finding.kind);
            let leaf = finding.leaf.unwrap_or(u64::MAX - 1);
            self.batch.findings.push((leaf, finding.in_log(origin)));
        }
        self.batch.kept.extend(tile.kept);
        self.saved.totals.merge(tile.totals);
        Ok(())
    }

    /// The leaves behind the last full tile, which are looked at again each time. They do not count as replayed.
    fn tail(&mut self, reached: bool) -> Result<Totals, Error> {
        let width = if reached { self.head.size % WIDTH } else { WIDTH };
        if width == 0 {
            return Ok(Totals::default());
        }
        let appraiser = Appraiser::new(self.input.source, origin(self.input.key), self.job.verifier);
        let tile = tile(self.input, &appraiser, self.saved.tiles, width)?;
        let before = self.saved.clone();
        self.saved.totals = Totals::default();
        self.take(tile)?;
        let mut tail = std::mem::replace(&mut self.saved, before).totals;
        for (level, index, hashes) in self.edge.partial().filter(|_| reached) {
            let name = layout::hashes(level, index, hashes.len() as u64 / 32);
            let there = self.input.source.read(&name)?;
            if level > 0 && there.is_some_and(|there| there != hashes) {
                let finding = Finding::new(Kind::TileDiffers, format!("{name} is not what the leaves make it"));
                tail.found(finding.kind);
                self.batch.findings.push((u64::MAX - 1, finding.in_log(origin(self.input.key))));
            }
        }
        self.state.write(std::mem::take(&mut self.batch), None)?;
        (self.job.progress)(self.edge.size(), self.head.size);
        Ok(tail)
    }
}

/// Reads a tile's entries and hashes, holds them against each other, and appraises the leaves.
fn tile(input: &LogInput<'_>, appraiser: &Appraiser<'_>, index: u64, width: u64) -> Result<Tile, Error> {
    let first = index * WIDTH;
    let source = input.source;
    let hashes = read_tile(source, |width| layout::hashes(0, index, width), width, false)?;
    let mut signed: Vec<Hash> =
        hashes.as_deref().unwrap_or_default().as_chunks().0.iter().map(|hash| Hash(*hash)).collect();
    signed.truncate(width as usize);
    let mut tile = Tile::default();
    if first + width <= input.from && signed.len() as u64 == width {
        tile.hashes = signed;
        return Ok(tile);
    }
    let bytes = read_tile(source, |width| layout::entries(index, width), width, false)?.unwrap_or_default();
    let mut entries = whole_entries(&bytes);
    entries.truncate(width as usize);
    let computed: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let mut missing = Vec::new();
    // Each entry's place is where the tree has its hash.
    let places: Vec<Option<usize>> = if signed.is_empty() {
        tile.hashes.clone_from(&computed);
        (0..computed.len()).map(Some).collect()
    } else {
        let places = align(&signed, &computed);
        missing.extend((0..signed.len()).filter(|place| !places.contains(&Some(*place))));
        tile.hashes = signed;
        places
    };
    for place in missing {
        let leaf = first + place as u64;
        let detail = format!("no entry has the hash {} that the tree has at its place", hex(&tile.hashes[place]));
        tile.findings.push(Finding::new(Kind::MissingLeaf, detail).at_leaf(leaf));
    }
    for (entry, place) in entries.iter().zip(places) {
        let Some(place) = place else { continue };
        let leaf = first + place as u64;
        if leaf < input.from {
            continue;
        }
        if let Some(kept) = appraiser.appraise(leaf, entry, &mut tile.totals, &mut tile.findings) {
            tile.kept.push((leaf, kept));
        }
    }
    tile.findings.truncate(MOST_OF_A_TILE);
    Ok(tile)
}

/// RFC 6962 hash of a leaf. The crate's own copies the entry first.
fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(cocoon_attestation::Digest::of(&[&[0], entry]).0)
}

/// The entries that can be told apart, even if the bundle ends within one.
fn whole_entries(bundle: &[u8]) -> Vec<&[u8]> {
    let (mut entries, mut rest) = (Vec::new(), bundle);
    while let Some((length, after)) = rest.split_first_chunk::<2>()
        && let Some((entry, after)) = after.split_at_checked(u16::from_be_bytes(*length).into())
    {
        entries.push(entry);
        rest = after;
    }
    entries
}

/// The place of each entry among the tree's hashes: in order, with gaps where something is missing or was put in.
fn align(signed: &[Hash], computed: &[Hash]) -> Vec<Option<usize>> {
    let mut from = 0;
    let place = |hash: &Hash| {
        let at = signed[from..].iter().position(|other| other.0 == hash.0)?;
        from += at + 1;
        Some(from - 1)
    };
    computed.iter().map(place).collect()
}

fn hex(hash: &Hash) -> String {
    cocoon_attestation::Digest(hash.0).to_string()
}

/// One evidence's newest leaf in a log, found by reading all of it: index and entry.
///
/// # Errors
/// The source failed, or the checkpoint is not the log's.
pub fn find(
    source: &(dyn Source + Sync),
    key: &str,
    evidence_id: &cocoon_attestation::Digest,
) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let checkpoint = source.read(CHECKPOINT)?.unwrap_or_default();
    let head = open_checkpoint(&String::from_utf8_lossy(&checkpoint), key)?;
    let mut found = None;
    for index in 0..head.size.div_ceil(WIDTH) {
        let width = (head.size - index * WIDTH).min(WIDTH);
        let bytes = read_tile(source, |width| layout::entries(index, width), width, false)?;
        for (n, entry) in whole_entries(&bytes.unwrap_or_default()).into_iter().enumerate() {
            if entry::Entry::read(entry).is_some_and(|leaf| leaf.evidence_id.0 == *evidence_id) {
                found = Some((index * WIDTH + n as u64, entry.to_vec()));
            }
        }
    }
    Ok(found)
}

/// One leaf of a log, by its index.
///
/// # Errors
/// The source failed, or the log has no such leaf.
pub fn leaf(source: &(dyn Source + Sync), size: u64, index: u64) -> Result<crate::Leaf, Error> {
    let tile = index / WIDTH;
    let width = size.saturating_sub(tile * WIDTH).min(WIDTH);
    let none = || Error::NoLeaf { index, size };
    let bytes = read_tile(source, |width| layout::entries(tile, width), width.max(1), false)?.ok_or_else(none)?;
    let entries = read_entries(&bytes, whole_entries(&bytes).len() as u64)?;
    crate::Leaf::from_cbor(entries.get((index % WIDTH) as usize).ok_or_else(none)?)
}

/// What an entry needs besides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsOf {
    /// Parts that can be named from the entry alone.
    pub parts: Vec<cocoon_attestation::Digest>,
    /// The part that the bundle is, where it does not stand in the entry: it names further ones ([`parts_of_bundle`]).
    pub bundle: Option<cocoon_attestation::Digest>,
}

/// The parts that an entry names; none if it cannot be read.
pub fn parts_of(entry: &[u8]) -> PartsOf {
    let slow;
    let entry = match entry::Entry::read(entry) {
        Some(entry) => entry,
        None => match crate::Leaf::from_cbor(entry) {
            Ok(leaf) => {
                slow = leaf;
                entry::Entry::of(&slow)
            }
            Err(_) => return PartsOf::default(),
        },
    };
    let mut of = PartsOf { parts: vec![entry.policy], bundle: None };
    of.parts.extend(entry.references);
    if let entry::PartRef::Shared(appraisal) = entry.appraisal {
        of.parts.push(appraisal);
    }
    match entry.bundle {
        entry::PartRef::Inline(bundle) => of.parts.extend(parts_of_bundle(bundle)),
        entry::PartRef::Shared(bundle) => {
            of.parts.push(bundle);
            of.bundle = Some(bundle);
        }
    }
    of
}

/// The endorsements that a detached bundle names; none if it cannot be read.
pub fn parts_of_bundle(bundle: &[u8]) -> Vec<cocoon_attestation::Digest> {
    cocoon_attestation::detached::named(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_tell_them() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_790_035_200, "2026-09-22 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
            (u64::MAX, "18446744073709551615 s after 1970"),
        ] {
            assert_eq!(utc(UnixTime(seconds)), text);
        }
    }

    #[test]
    fn leaves_are_hashed_as_the_log_hashes_them() {
        for entry in [&b""[..], b"a", &[7; 20_000]] {
            assert_eq!(leaf_hash(entry).0, tlog_tiles::record_hash(entry).0);
        }
    }

    #[test]
    fn entries_find_their_places_whatever_is_missing_or_was_put_in() {
        let hash = |n: u8| Hash([n; 32]);
        let signed: Vec<Hash> = (0..6).map(hash).collect();
        assert_eq!(align(&signed, &signed), (0..6).map(Some).collect::<Vec<_>>());
        assert_eq!(align(&signed, &[hash(0), hash(2), hash(5)]), [Some(0), Some(2), Some(5)]);
        assert_eq!(align(&signed, &[hash(0), hash(9), hash(1)]), [Some(0), None, Some(1)]);
        assert_eq!(align(&signed, &[hash(1), hash(0)]), [Some(1), None], "out of order is no place");
    }
}
