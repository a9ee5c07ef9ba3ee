//! Replay: everything that a log says, checked again by somebody who trusts nobody.
//!
//! [`replay`] streams one log: it checks the checkpoint's signature and cosignatures, every hash up to the root, that the log
//! continues what was seen of it before, and appraises the evidence of every leaf again. [`chain`] holds the result against what
//! the contracts did, and [`report`] says all of it in one document. What is found is a [`Finding`], never an error: an
//! [`crate::Error`] means that the replay itself could not go on.

mod alerts;
mod appraise;
pub mod chain;
mod entry;
mod finding;
pub mod report;
mod state;
mod tiles;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::{Digest, UnixTime};
use cocoon_verifier::Verifier;
use serde::{Deserialize, Serialize};
use tlog_tiles::{Hash, Tile as TileOfCrate};

pub use alerts::Alerts;
pub use appraise::VERIFIER;
pub use finding::{Finding, Gravity, Kind, MOST_DETAIL};
pub use state::{EnclaveSpan, Logged, State, Subject};
pub use totals::{Counts, Day, OTHER, Totals};

use crate::Error;
use crate::files::Source;
use crate::layout::{self, CHECKPOINT, LEVELS, WIDTH};
use crate::note::{TreeHead, open_checkpoint, open_cosigned};
use crate::tree::Edge;
use appraise::{Appraiser, Kept, MOST_DOCUMENT};
use state::{Again, Batch, Saved};
use tiles::{prove, read_tile, root_at};

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
/// Longest checkpoint, in bytes: it stands in reports.
pub const MOST_CHECKPOINT: usize = 65_536;
/// How often a log is begun with that changes under the replay.
const ATTEMPTS: usize = 4;

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

/// What is said of a log that could not be read: why, and the split views that it was found to show before.
///
/// # Errors
/// The disk failed.
pub fn unreachable(key: &str, why: &str, state: &State) -> Result<LogResult, Error> {
    let input = LogInput { source: &Nothing, key, witnesses: &[], checkpoints: &[], from: 0 };
    let mut log = LogReplay::new(&input);
    log.found(Finding::new(Kind::Unreachable, why).about(key));
    state.splits()?.into_iter().for_each(|split| log.found(split));
    Ok(log.counted())
}

struct Nothing;

impl Source for Nothing {
    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }
}

/// Replays a log. What was replayed before is in `state` and is not replayed again, if the log still continues it; but what was found
/// that may be the copy's fault is looked at again.
///
/// # Errors
/// The source or the disk failed, or the replay was stopped. What is wrong with the log is no error but found.
pub fn replay(input: &LogInput<'_>, state: &State, job: &Job<'_>) -> Result<LogResult, Error> {
    let mut attempt = 1;
    loop {
        let Once { result, resumed, settled } = once(input, state, job)?;
        // What leads to no tree that was signed is not gone on from, now or later.
        let astray = result.size > 0 && result.replayed == result.size && !result.whole;
        if astray {
            state.forget_progress()?;
        }
        // A log that is written while it is read takes away what an older checkpoint's end was.
        let moved_on = !settled && input.source.read(CHECKPOINT)?.unwrap_or_default() != result.checkpoint.as_bytes();
        if attempt == ATTEMPTS || !(moved_on || astray && resumed) {
            return Ok(result);
        }
        attempt += 1;
    }
}

/// What came of one attempt.
struct Once {
    result: LogResult,
    /// It went on from where another one ended.
    resumed: bool,
    /// Nothing was found that a newer checkpoint could explain.
    settled: bool,
}

fn once(input: &LogInput<'_>, state: &State, job: &Job<'_>) -> Result<Once, Error> {
    let mut log = LogReplay::new(input);
    let Some(head) = log.checkpoint(state)? else {
        return Ok(Once { result: log.counted(), resumed: false, settled: true });
    };
    let mut saved = Saved::new(input.key, VERIFIER, input.from);
    let mut edge = Edge::default();
    let before = state
        .saved()?
        .filter(|before| (&before.key, &before.verifier, before.from) == (&saved.key, &saved.verifier, saved.from));
    match before.and_then(|before| Some((log.resume(&before, &head)?, before))) {
        Some((known, before)) => (edge, saved) = (known, before),
        None => state.reset()?,
    }
    let resumed = saved.tiles > 0;
    let others = log.others(state, &head)?;
    let wanted = others.iter().map(|(other, _)| other.size).filter(|size| *size > edge.size() && *size < head.size);
    let wanted = wanted.collect();
    let (batch, written, roots) = (Batch::default(), Instant::now(), BTreeMap::new());
    let mut stream = Stream { input, head: &head, state, job, edge, saved, batch, written, wanted, roots };
    stream.again()?;
    let reached = stream.run()?;
    let (tail, settled) = stream.tail(reached)?;
    let mut totals = stream.saved.totals.clone();
    let mut next = state.again(0)?;
    while let Some((index, again)) = next {
        totals.merge(again.totals);
        next = state.again(index + 1)?;
    }
    totals.merge(tail);
    log.result.replayed = stream.edge.size();
    log.result.totals = totals;
    log.result.whole = stream.edge.size() == head.size && stream.edge.root() == head.root;
    if stream.edge.size() < head.size {
        let (has, says) = (stream.edge.size(), head.size);
        let detail = format!("leaves {has} to {} are not there: the tree does not reach its checkpoint", says - 1);
        log.found(Finding::new(Kind::MissingLeaf, detail).at_leaf(has));
    } else if !log.result.whole {
        let detail = format!("{} leaves make the root {}, signed is {}", head.size, stream.edge.root(), head.root);
        log.found(Finding::new(Kind::RootDiffers, detail));
    }
    log.continues(state, &head, others, &stream.roots)?;
    Ok(Once { result: log.counted(), resumed, settled: settled && reached })
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

    fn counted(mut self) -> LogResult {
        self.result.findings.iter().for_each(|finding| self.result.totals.found(finding.kind));
        self.result
    }

    /// The newest checkpoint, if the log signed it.
    fn checkpoint(&mut self, state: &State) -> Result<Option<TreeHead>, Error> {
        let Some(bytes) = self.input.source.read(CHECKPOINT)? else {
            self.found(Finding::new(Kind::BadCheckpoint, "there is none"));
            return Ok(None);
        };
        if bytes.len() > MOST_CHECKPOINT {
            let detail = format!("it has {} bytes, more than {MOST_CHECKPOINT}", bytes.len());
            self.found(Finding::new(Kind::BadCheckpoint, detail));
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The log's own signature first: a line of somebody else's is not the log's fault.
        let head = match open_checkpoint(&text, self.input.key) {
            Ok(head) => head,
            Err(error @ Error::VerifierKey(_)) => return Err(error),
            Err(error) => {
                let mut finding = Finding::new(Kind::BadCheckpoint, error.to_string());
                finding.evidence.push(text);
                self.found(finding);
                return Ok(None);
            }
        };
        for witness in self.input.witnesses {
            let name = origin(witness);
            match open_cosigned(&text, self.input.key, std::slice::from_ref(witness)) {
                Ok(cosigned) => match cosigned.witnesses.first() {
                    Some((_, at)) => self.result.witnesses.push((name.into(), *at)),
                    None => {
                        let detail = format!("{name} did not cosign the checkpoint of {} leaves", head.size);
                        self.found(Finding::new(Kind::NotCosigned, detail).about(name));
                    }
                },
                Err(error @ Error::VerifierKey(_)) => return Err(error),
                Err(_) => {
                    let detail = format!(
                        "a line that bears the name of {name} is not its signature of these {} leaves",
                        head.size
                    );
                    let mut finding = Finding::new(Kind::BadCosignature, detail).about(name);
                    finding.evidence.push(text.clone());
                    self.found(finding);
                }
            }
        }
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

    /// Every other checkpoint of the log that anybody has shown.
    fn others(&self, state: &State, head: &TreeHead) -> Result<Vec<(TreeHead, String)>, Error> {
        let mut others = state.checkpoints()?;
        for text in self.input.checkpoints.iter().filter(|text| text.len() <= MOST_CHECKPOINT) {
            // One that the log did not sign says nothing about it.
            if let Ok(other) = open_checkpoint(text, self.input.key) {
                state.keep_checkpoint(&other, text, &[])?;
                others.push((other, text.clone()));
            }
        }
        others.sort_by_key(|(other, _)| (other.size, other.root));
        others.dedup_by(|a, b| a.0 == b.0);
        others.retain(|(other, _)| other != head);
        Ok(others)
    }

    /// Whether the log continues every checkpoint of it that anybody has shown. `roots` are those that its leaves made on the way.
    fn continues(
        &mut self,
        state: &State,
        head: &TreeHead,
        others: Vec<(TreeHead, String)>,
        roots: &BTreeMap<u64, Digest>,
    ) -> Result<(), Error> {
        let mut continued = Vec::new();
        let (known, key) = (state.splits()?, self.input.key);
        let split_before = |other: &TreeHead| {
            let shown = |text: &String| open_checkpoint(text, key).is_ok_and(|head| head == *other);
            known.iter().any(|split| split.evidence.iter().any(shown))
        };
        let mut split = BTreeSet::new();
        for (other, text) in others {
            let (kind, detail) = if other.size > head.size {
                // One of two histories: which of them is shown now does not matter.
                if split_before(&other) {
                    continue;
                }
                // Nothing says that the one continues the other, nor that it does not.
                let detail = format!("it signed {} leaves, and shows {} here", other.size, head.size);
                (Kind::StaleCheckpoint, detail)
            } else if other.size == head.size {
                let detail =
                    format!("two trees of {} leaves have the roots {} and {}", head.size, other.root, head.root);
                (Kind::SplitView, detail)
            } else if !self.result.whole {
                // Its own leaves make no tree that it signed, which was found already; what it showed is kept for another time.
                continue;
            } else {
                let root = roots
                    .get(&other.size)
                    .map_or_else(|| root_at(self.input.source, head, other.size), |root| Ok(*root));
                match root {
                    Ok(root) if root == other.root => {
                        continued.push(other);
                        continue;
                    }
                    Ok(root) => {
                        let detail = format!(
                            "its tree of {} leaves begins with {} leaves of root {root}, and it signed {} leaves of root {}",
                            head.size, other.size, other.size, other.root
                        );
                        (Kind::SplitView, detail)
                    }
                    Err(error) => (Kind::TileDiffers, error.to_string()),
                }
            };
            let mut finding = Finding::new(kind, detail).about(other.root.to_string());
            finding.evidence = vec![text, self.result.checkpoint.clone()];
            if kind == Kind::SplitView {
                state.keep_split(&finding)?;
                split.insert(finding.about.clone());
            }
            self.found(finding);
        }
        for before in known.into_iter().filter(|before| !split.contains(&before.about)) {
            self.found(before);
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
    /// Sizes of which the root is wanted, and those roots.
    wanted: BTreeSet<u64>,
    roots: BTreeMap<u64, Digest>,
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
    /// Looks once more at tiles about which something was found that may have been the copy's fault.
    fn again(&mut self) -> Result<(), Error> {
        let mut from = 0;
        let appraiser = Appraiser::new(self.input.source, origin(self.input.key), self.job.verifier);
        while let Some((index, Again { mut previous, subtree, .. })) = self.state.again(from)? {
            if self.job.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            from = index + 1;
            let before = previous;
            let mut tile = tile(self.input, &appraiser, index, WIDTH)?;
            if subtree_of(&tile.hashes) != subtree {
                // It is not what led to the signed root, so nothing in it counts.
                let short = (tile.hashes.len() as u64) < WIDTH;
                tile.kept.clear();
                tile.totals = Totals::default();
                tile.findings.retain(|finding| finding.kind == Kind::TileDiffers);
                if !short {
                    let name = layout::hashes(0, index, WIDTH);
                    let detail =
                        format!("{name} and its entries are not those that made the tree when it was replayed");
                    tile.findings.push(Finding::new(Kind::TileDiffers, detail).about(name));
                }
            }
            for level in 1..LEVELS {
                // The tile ends those of higher levels whose last leaf is its last leaf.
                let Some(each) = WIDTH.checked_pow(level.into()).filter(|each| (index + 1).is_multiple_of(*each))
                else {
                    break;
                };
                tile.findings.extend(self.higher(level, (index + 1) / each - 1)?);
            }
            let settled = self.settle(tile, &mut previous);
            let mut batch = Batch::default();
            self.put(index, settled, before, subtree, &mut batch);
            self.state.replace(index, batch, &self.saved)?;
        }
        Ok(())
    }

    /// A full tile of a higher level, held against the tiles below it.
    fn higher(&self, level: u8, index: u64) -> Result<Option<Finding>, Error> {
        let name = layout::hashes(level, index, WIDTH);
        let mut expected = Vec::new();
        for below in index * WIDTH..(index + 1) * WIDTH {
            let hashes = self.input.source.read(&layout::hashes(level - 1, below, WIDTH))?;
            // Of another length it was found at its own place.
            let Some(hashes) = hashes.filter(|hashes| hashes.len() as u64 == WIDTH * 32) else { return Ok(None) };
            expected.extend(TileOfCrate::subtree_hash(&hashes).0);
        }
        Ok(differs(&name, self.input.source.read(&name)?.as_deref(), &expected))
    }

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
            // A worker that has run ahead does not make the replay go on.
            if self.job.stop.load(Ordering::Relaxed) {
                self.flush()?;
                return Err(Error::Stopped);
            }
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
            let waiting = self.batch.kept.len().max(self.batch.findings.len()) as u64;
            if waiting >= BATCH || self.written.elapsed() >= WRITE_EVERY {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.state.write(std::mem::take(&mut self.batch), &self.saved)?;
        self.written = Instant::now();
        Ok(())
    }

    /// Adds a tile's hashes to the tree. What is wrong with tiles of higher levels that it fills is found with it.
    fn grow(&mut self, tile: &mut Tile) -> Result<(), Error> {
        for hash in std::mem::take(&mut tile.hashes) {
            for filled in self.edge.push_hash(hash) {
                // Those of the leaves themselves were looked at one by one.
                if filled.level > 0 {
                    let name = layout::hashes(filled.level, filled.index, WIDTH);
                    tile.findings.extend(differs(&name, self.input.source.read(&name)?.as_deref(), &filled.hashes));
                }
            }
            if self.wanted.first() == Some(&self.edge.size()) {
                self.wanted.pop_first();
                self.roots.insert(self.edge.size(), self.edge.root());
            }
        }
        Ok(())
    }

    /// What a tile comes to at its place behind others: `previous` is the time of the last leaf in front of it, and then of its own last one.
    fn settle(&self, mut tile: Tile, previous: &mut Option<UnixTime>) -> Tile {
        for (index, kept) in &tile.kept {
            if let Some(previous) = previous.filter(|previous| kept.time.plus(BACK) < *previous) {
                let detail = format!("it is dated {}, and the leaf in front of it {}", utc(kept.time), utc(previous));
                let finding = Finding::new(Kind::TimeGoesBack, detail).at_leaf(*index).of(kept.evidence_id);
                tile.findings.push(finding.dated(kept.time));
            }
            *previous = Some(kept.time);
        }
        tile.findings.sort_by_key(|finding| (finding.leaf, finding.kind));
        tile.findings.dedup();
        tile.findings.truncate(MOST_OF_A_TILE);
        for finding in &mut tile.findings {
            finding.log = Some(origin(self.input.key).into());
            tile.totals.found(finding.kind);
        }
        tile
    }

    /// Puts a tile where it is written from, and counts it: at once, or each time anew if another copy may show it better.
    fn put(&mut self, index: u64, tile: Tile, previous: Option<UnixTime>, subtree: Digest, batch: &mut Batch) {
        let first = index * WIDTH;
        let doubtful = tile.findings.iter().any(|finding| of_the_copy(finding.kind));
        batch.findings.extend(tile.findings.into_iter().map(|finding| (finding.leaf.unwrap_or(first), finding)));
        batch.kept.extend(tile.kept);
        if doubtful {
            batch.again.push((index, Again { totals: tile.totals, previous, subtree }));
        } else {
            self.saved.totals.merge(tile.totals);
        }
    }

    /// Takes a full tile.
    fn take(&mut self, mut tile: Tile) -> Result<(), Error> {
        let subtree = subtree_of(&tile.hashes);
        self.grow(&mut tile)?;
        let before = self.saved.previous;
        let mut previous = before;
        let tile = self.settle(tile, &mut previous);
        self.saved.previous = previous;
        let mut batch = std::mem::take(&mut self.batch);
        self.put(self.saved.tiles, tile, before, subtree, &mut batch);
        self.batch = batch;
        Ok(())
    }

    /// The leaves behind the last full tile, which are looked at again each time: they do not count as replayed. Whether nothing was
    /// found about them that a newer checkpoint could explain.
    fn tail(&mut self, reached: bool) -> Result<(Totals, bool), Error> {
        let width = if reached { self.head.size % WIDTH } else { WIDTH };
        let mut tail = Tile::default();
        if width > 0 {
            let appraiser = Appraiser::new(self.input.source, origin(self.input.key), self.job.verifier);
            tail = tile(self.input, &appraiser, self.saved.tiles, width)?;
            self.grow(&mut tail)?;
        }
        if self.edge.size() == self.head.size {
            for (level, index, hashes) in self.edge.partial().filter(|(level, ..)| *level > 0) {
                let width = hashes.len() as u64 / 32;
                let there = read_tile(self.input.source, |width| layout::hashes(level, index, width), width, false)?;
                let there = there.as_deref().map(|there| there.get(..hashes.len()).unwrap_or(there));
                tail.findings.extend(differs(&layout::hashes(level, index, width), there, hashes));
            }
        }
        let first = self.saved.tiles * WIDTH;
        let tail = self.settle(tail, &mut self.saved.previous.clone());
        let settled = !tail.findings.iter().any(|finding| of_the_copy(finding.kind));
        let findings = tail.findings.into_iter().map(|finding| (finding.leaf.unwrap_or(first), finding)).collect();
        self.state.set_tail(Batch { kept: tail.kept, findings, again: Vec::new() });
        (self.job.progress)(self.edge.size(), self.head.size);
        Ok((tail.totals, settled))
    }
}

/// What a tile's hashes come to in the tree above it; of another number of hashes it is nothing that a full tile comes to.
fn subtree_of(hashes: &[Hash]) -> Digest {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    if bytes.len() as u64 == WIDTH * 32 { Digest(TileOfCrate::subtree_hash(&bytes).0) } else { Digest([0; 32]) }
}

/// What another copy of the same log, or the same one a moment later, may not show.
fn of_the_copy(kind: Kind) -> bool {
    matches!(kind, Kind::MissingLeaf | Kind::PartMissing | Kind::TileDiffers)
}

/// What is wrong with a file of hashes, if anything.
fn differs(name: &str, there: Option<&[u8]>, expected: &[u8]) -> Option<Finding> {
    let detail = match there {
        Some(there) if there == expected => return None,
        Some(there) if there.len() < expected.len() => {
            format!("{name} has {} bytes, fewer than the {} that it must have", there.len(), expected.len())
        }
        Some(_) => format!("{name} is not what the leaves make it"),
        None => format!("{name} is not there"),
    };
    Some(Finding::new(Kind::TileDiffers, detail).about(name))
}

/// Reads a tile's entries and hashes, holds them against each other, and appraises the leaves.
fn tile(input: &LogInput<'_>, appraiser: &Appraiser<'_>, index: u64, width: u64) -> Result<Tile, Error> {
    let first = index * WIDTH;
    let source = input.source;
    let mut tile = Tile::default();
    let hashes = read_tile(source, |width| layout::hashes(0, index, width), width, false)?;
    let mut signed: Vec<Hash> =
        hashes.as_deref().unwrap_or_default().as_chunks().0.iter().map(|hash| Hash(*hash)).collect();
    signed.truncate(width as usize);
    if (signed.len() as u64) < width {
        let name = layout::hashes(0, index, width);
        let detail = match hashes {
            None => format!("{name} is not there"),
            Some(bytes) => format!("{name} has {} bytes, fewer than the {} that it must have", bytes.len(), width * 32),
        };
        tile.findings.push(Finding::new(Kind::TileDiffers, detail).about(name));
        // A part of it says less than the entries themselves do.
        signed.clear();
    }
    if first + width <= input.from && !signed.is_empty() {
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
        let there: BTreeSet<usize> = places.iter().copied().flatten().collect();
        missing.extend((0..signed.len()).filter(|place| !there.contains(place)));
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
    Ok(tile)
}

/// RFC 6962 hash of a leaf. The crate's own copies the entry first.
fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(Digest::of(&[&[0], entry]).0)
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
    Digest(hash.0).to_string()
}

/// The newest leaf about an evidence that is wanted, found by reading all of the log, and proved to be in its tree.
///
/// # Errors
/// The source failed, or the log's files do not prove the leaf.
pub fn find(
    source: &(dyn Source + Sync),
    head: &TreeHead,
    evidence_id: &Digest,
    mut wanted: impl FnMut(&crate::Leaf) -> bool,
) -> Result<Option<(u64, crate::Leaf)>, Error> {
    let mut found = None;
    for index in 0..head.size.div_ceil(WIDTH) {
        let width = (head.size - index * WIDTH).min(WIDTH);
        let name = |width| layout::entries(index, width);
        // Behind files that are not there nothing else is looked for: a log can sign any size.
        let Some(bytes) = read_tile(source, name, width, false)? else { break };
        let entries = whole_entries(&bytes);
        let named = |entry: &[u8]| match entry::Entry::read(entry) {
            Some(leaf) => leaf.evidence_id.0 == *evidence_id,
            None => crate::Leaf::from_cbor(entry).is_ok_and(|leaf| leaf.evidence_id.0 == *evidence_id),
        };
        if !entries.iter().any(|entry| named(entry)) {
            continue;
        }
        let places = align(
            &signed_hashes(source, index, width)?,
            &entries.iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>(),
        );
        for (entry, place) in entries.into_iter().zip(places) {
            let Some(place) = place.filter(|_| named(entry)) else { continue };
            let leaf = crate::Leaf::from_cbor(entry)?;
            if wanted(&leaf) {
                let at = index * WIDTH + place as u64;
                prove(source, head, at, leaf_hash(entry))?;
                found = Some((at, leaf));
            }
        }
    }
    Ok(found)
}

/// One leaf of a log, by its index, and proved to be in its tree.
///
/// # Errors
/// The source failed, the log has no such leaf, or its files do not prove it.
pub fn leaf(source: &(dyn Source + Sync), head: &TreeHead, index: u64) -> Result<crate::Leaf, Error> {
    if index >= head.size {
        return Err(Error::NoLeaf { index, size: head.size });
    }
    let tile = index / WIDTH;
    let width = (head.size - tile * WIDTH).min(WIDTH);
    let place = (index % WIDTH) as usize;
    let signed = signed_hashes(source, tile, width)?;
    let bytes = read_tile(source, |width| layout::entries(tile, width), width, false)?.unwrap_or_default();
    let hash = signed.get(place).ok_or(Error::NoLeaf { index, size: head.size })?;
    // By its hash: with an entry missing in front of it, it stands at another place.
    let entries = whole_entries(&bytes);
    let entry = entries.into_iter().find(|entry| leaf_hash(entry).0 == hash.0);
    let entry = entry.ok_or_else(|| {
        Error::Leaf(format!("no entry has the hash {} that the tree has for leaf {index}", hex(hash)))
    })?;
    prove(source, head, index, *hash)?;
    crate::Leaf::from_cbor(entry)
}

/// A policy, or reference values, that a leaf names.
///
/// # Errors
/// It is not there, not what its name says, too long, or no text.
pub fn document(source: &(dyn Source + Sync), digest: &Digest) -> Result<String, Error> {
    let bytes = source.part(digest)?;
    if bytes.len() > MOST_DOCUMENT {
        return Err(Error::Part(*digest, "is longer than a policy or reference values can be"));
    }
    String::from_utf8(bytes).map_err(|_| Error::Part(*digest, "is not text"))
}

fn signed_hashes(source: &(dyn Source + Sync), tile: u64, width: u64) -> Result<Vec<Hash>, Error> {
    let bytes = read_tile(source, |width| layout::hashes(0, tile, width), width, false)?.unwrap_or_default();
    let mut hashes: Vec<Hash> = bytes.as_chunks().0.iter().map(|hash| Hash(*hash)).collect();
    hashes.truncate(width as usize);
    if hashes.len() as u64 == width {
        return Ok(hashes);
    }
    Err(Error::Leaf(format!(
        "{} is not there or cut short, so nothing proves its leaves",
        layout::hashes(0, tile, width)
    )))
}

/// Whether entries are those that a tile of hashes stands for, one by one.
pub fn entries_match(entries: &[u8], hashes: &[u8], width: u64) -> bool {
    let (entries, hashes) = (whole_entries(entries), hashes.as_chunks::<32>().0);
    let width = width as usize;
    entries.len() >= width
        && hashes.len() >= width
        && entries.iter().zip(hashes).take(width).all(|(entry, hash)| leaf_hash(entry).0 == *hash)
}

/// What an entry needs besides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsOf {
    /// Parts that can be named from the entry alone.
    pub parts: Vec<Digest>,
    /// The part that the bundle is, where it does not stand in the entry: it names further ones ([`parts_of_bundle`]).
    pub bundle: Option<Digest>,
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
pub fn parts_of_bundle(bundle: &[u8]) -> Vec<Digest> {
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
