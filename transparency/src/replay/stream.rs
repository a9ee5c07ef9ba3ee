//! The leaves of a log, tile by tile: workers appraise, one thread puts tiles in their order, adds them to the tree and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::{Digest, UnixTime};
use tlog_tiles::{Hash, Tile as TileOfCrate};

use super::appraise::{Appraiser, Kept};
use super::finding::{Finding, Kind};
use super::state::{Again, Batch, Saved, State};
use super::tiles::read_tile;
use super::totals::Totals;
use super::{Job, LogInput, origin, utc};
use crate::Error;
use crate::layout::{self, LEVELS, WIDTH};
use crate::note::TreeHead;
use crate::tree::Edge;

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

/// The leaves, tile by tile.
pub(super) struct Stream<'a> {
    pub input: &'a LogInput<'a>,
    pub head: &'a TreeHead,
    pub state: &'a State,
    pub job: &'a Job<'a>,
    pub edge: Edge,
    pub saved: Saved,
    pub batch: Batch,
    pub written: Instant,
    /// Sizes of which the root is wanted, and those roots.
    pub wanted: BTreeSet<u64>,
    pub roots: BTreeMap<u64, Digest>,
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
    pub fn again(&mut self) -> Result<(), Error> {
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
    pub fn run(&mut self) -> Result<bool, Error> {
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
    pub fn tail(&mut self, reached: bool) -> Result<(Totals, bool), Error> {
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
pub(super) fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(Digest::of(&[&[0], entry]).0)
}

/// The entries that can be told apart, even if the bundle ends within one.
pub(super) fn whole_entries(bundle: &[u8]) -> Vec<&[u8]> {
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
pub(super) fn align(signed: &[Hash], computed: &[Hash]) -> Vec<Option<usize>> {
    let mut from = 0;
    let place = |hash: &Hash| {
        let at = signed[from..].iter().position(|other| other.0 == hash.0)?;
        from += at + 1;
        Some(from - 1)
    };
    computed.iter().map(place).collect()
}

pub(super) fn hex(hash: &Hash) -> String {
    Digest(hash.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
