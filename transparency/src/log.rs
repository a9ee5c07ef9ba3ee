//! The log on disk: a folder of static files that any web server can serve, and a journal of what is not yet in a full tile.
//!
//! ```text
//! owner            verifier key of the log, written once
//! journal-<tile>   entries of the unfinished tile, durable before anybody is told their index
//! public/          what is served: checkpoint, tile/..., part/... (crate::layout)
//! ```
//! Full tiles are durable before the next journal begins, so the newest journal says where the log ends.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cocoon_attestation::Digest;
use tlog_tiles::{Hash, HashReader, Tile, prove_record, prove_tree, record_hash, split_stored_hash_index};

use crate::files::{self, Folder, Source};
use crate::journal::{Journal, Record};
use crate::layout::{self, CHECKPOINT, HEIGHT, WIDTH};
use crate::note::{LogSigner, TreeHead, open_checkpoint};
use crate::proof::InclusionProof;
use crate::tree::Edge;
use crate::{Error, MAX_ENTRY};

/// How often a log that is open elsewhere is tried again, and after how long: half a second in all.
const LOCK_ATTEMPTS: u32 = 25;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Full tiles remembered for proofs, 8 KiB each.
const TILES: usize = 256;
/// Parts whose durability is remembered.
const PARTS: usize = 65_536;

/// An append-only log that one process has open.
pub struct Log {
    dir: PathBuf,
    public: Folder,
    signer: LogSigner,
    state: Mutex<State>,
    /// The full tile of entries that was read last: whoever reads a log reads it in order.
    read: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
    /// Parts that are known to be on disk.
    durable: Mutex<HashSet<Digest>>,
    /// Held for as long as the log is open.
    _lock: File,
}

/// A tree head with its checkpoint, signed by the log and by nobody else yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The tree.
    pub tree: TreeHead,
    /// The signed note.
    pub checkpoint: String,
}

struct State {
    edge: Edge,
    journal: Option<Journal>,
    /// Entries of the unfinished tile as its file holds them.
    entries: Vec<u8>,
    /// Where each of them begins.
    starts: Vec<usize>,
    /// What is published.
    published: Option<Head>,
    /// Size at the publication before, whose unfinished tiles are kept for those who are just reading.
    before: u64,
    tiles: RefCell<HashMap<(u8, u64), Vec<u8>>>,
}

impl Log {
    /// Opens the log in a folder, or starts one. `origin` is its name, for example `verifier.example/log`; `seed` signs its
    /// checkpoints.
    ///
    /// # Errors
    /// An origin that cannot name a key, a folder that belongs to another log, is open elsewhere or lacks what was published, or a
    /// failing disk.
    pub fn open(dir: &Path, origin: &str, seed: [u8; 32]) -> Result<Self, Error> {
        let signer = LogSigner::new(origin, &seed)?;
        fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("lock"))?;
        // A process that has just ended, or is just starting another one, may hold it for a moment.
        let mut attempts = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempts == LOCK_ATTEMPTS => {
                    return Err(Error::InUse(dir.display().to_string()));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            attempts += 1;
        }
        let public = Folder(dir.join("public"));
        let state = State::recover(dir, &public, signer.vkey())?;
        Ok(Self {
            dir: dir.into(),
            public,
            signer,
            state: Mutex::new(state),
            read: Mutex::default(),
            durable: Mutex::default(),
            _lock: lock,
        })
    }

    /// The key that checks this log's checkpoints, as a C2SP verifier key.
    pub fn vkey(&self) -> &str {
        self.signer.vkey()
    }

    /// Signs lines with the log's key: a statement, which can never pass for a checkpoint ([`crate::open_statement`]).
    ///
    /// # Errors
    /// The lines are too long.
    pub fn state(&self, lines: &[&str]) -> Result<String, Error> {
        self.signer.state(lines)
    }

    /// What is served of it: any web server can do the same from `public` in its folder.
    pub fn files(&self) -> &Folder {
        &self.public
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts parts beside the tree, each under its SHA-256, durably. Those that are there already cost nothing.
    ///
    /// # Errors
    /// The disk failed.
    pub fn add_parts<'a>(&self, parts: impl IntoIterator<Item = (Digest, &'a [u8])>) -> Result<(), Error> {
        for (digest, bytes) in parts {
            let mut durable = self.durable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if durable.contains(&digest) {
                continue;
            }
            let path = self.public.0.join(layout::part(&digest));
            // Whoever wrote one that is there may have been killed before it was sure to stay.
            if path.exists() {
                files::sync(&path)?;
            } else {
                files::write_durably(&path, bytes)?;
            }
            if durable.len() >= PARTS {
                durable.clear();
            }
            durable.insert(digest);
        }
        Ok(())
    }

    /// Appends entries and returns the index of the first; all are on disk by then, or none is acknowledged.
    ///
    /// # Errors
    /// An entry is longer than [`MAX_ENTRY`], or the disk failed: then the log takes nothing more until it is opened again.
    pub fn append(&self, entries: Vec<Vec<u8>>) -> Result<u64, Error> {
        if let Some(long) = entries.iter().find(|entry| entry.len() > MAX_ENTRY) {
            return Err(Error::Leaf(format!("it has {} bytes, more than {MAX_ENTRY}", long.len())));
        }
        let mut records: Vec<_> =
            entries.into_iter().map(|entry| Record { hash: record_hash(&entry), entry }).collect();
        let mut state = self.lock();
        let first = state.edge.size();
        // Taken out, so that an error in between leaves a log that refuses instead of one that guesses.
        let mut journal = state.journal.take().ok_or_else(|| Error::Store("an earlier write failed".into()))?;
        while !records.is_empty() {
            let room = (WIDTH - state.edge.size() % WIDTH) as usize;
            let later = records.split_off(room.min(records.len()));
            if later.is_empty() && records.len() < room {
                journal.write(&records)?;
                journal.sync()?;
                state.add(&records);
            } else {
                // A tile that is full is durable by itself, and its journal is over.
                journal = state.finish_tile(&self.dir, &self.public, &records, journal)?;
            }
            records = later;
        }
        state.journal = Some(journal);
        Ok(first)
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.lock().edge.size()
    }

    /// The entry at an index.
    ///
    /// # Errors
    /// No leaf has the index, or a file is missing.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, Error> {
        let state = self.lock();
        let size = state.edge.size();
        if index >= size {
            return Err(Error::NoLeaf { index, size });
        }
        let (tile, at) = (index / WIDTH, (index % WIDTH) as usize);
        if tile == size / WIDTH {
            let start = state.starts[at];
            let length = usize::from(u16::from_be_bytes([state.entries[start], state.entries[start + 1]]));
            return Ok(state.entries[start + 2..start + 2 + length].to_vec());
        }
        drop(state);
        Ok(crate::read_entries(&self.full(tile)?, WIDTH)?[at].to_vec())
    }

    /// The entries of a full tile.
    fn full(&self, tile: u64) -> Result<Arc<Vec<u8>>, Error> {
        let mut read = self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((last, entries)) = &*read
            && *last == tile
        {
            return Ok(entries.clone());
        }
        let name = layout::entries(tile, WIDTH);
        let entries = self.public.read(&name)?.ok_or_else(|| Error::Damaged(format!("{name} is missing")))?;
        let entries = Arc::new(entries);
        *read = Some((tile, entries.clone()));
        Ok(entries)
    }

    /// The newest tree head, signed; its unfinished tiles are in their files and on disk, so that it can be published.
    ///
    /// # Errors
    /// The disk failed.
    pub fn head(&self) -> Result<Head, Error> {
        let state = self.lock();
        let tree = TreeHead { size: state.edge.size(), root: state.edge.root() };
        if let Some(published) = state.published.as_ref().filter(|published| published.tree == tree) {
            let checkpoint = self.signer.sign(&published.tree)?;
            return Ok(Head { tree, checkpoint });
        }
        for (level, index, hashes) in state.edge.partial() {
            files::write_durably(&self.public.0.join(layout::hashes(level, index, hashes.len() as u64 / 32)), hashes)?;
        }
        let width = tree.size % WIDTH;
        if width > 0 {
            files::write_durably(&self.public.0.join(layout::entries(tree.size / WIDTH, width)), &state.entries)?;
        }
        drop(state);
        let checkpoint = self.signer.sign(&tree)?;
        Ok(Head { tree, checkpoint })
    }

    /// Publishes a head with the cosignatures that were gathered for it, durably. An older one than what is published is left alone.
    ///
    /// # Errors
    /// The disk failed.
    pub fn publish(&self, head: &Head, cosignatures: &[String]) -> Result<(), Error> {
        let mut state = self.lock();
        if state.published.as_ref().is_some_and(|published| published.tree.size > head.tree.size) {
            return Ok(());
        }
        let checkpoint = format!("{}{}", head.checkpoint, cosignatures.concat());
        files::write_durably(&self.public.0.join(CHECKPOINT), checkpoint.as_bytes())?;
        let last =
            state.published.replace(Head { tree: head.tree.clone(), checkpoint }).map_or(0, |head| head.tree.size);
        if last != head.tree.size {
            let obsolete = std::mem::replace(&mut state.before, last);
            self.remove_partial(obsolete, &[last, head.tree.size]);
        }
        Ok(())
    }

    /// Unfinished tiles of a tree that was published long ago: nobody reads them any more.
    fn remove_partial(&self, size: u64, keep: &[u64]) {
        let partial = |size: u64| {
            (0..layout::LEVELS).flat_map(move |level| {
                let count = size.checked_shr(8 * u32::from(level)).unwrap_or(0);
                let (tile, width) = (count / WIDTH, count % WIDTH);
                let entries = (level == 0 && width > 0).then(|| layout::entries(tile, width));
                (width > 0).then(|| layout::hashes(level, tile, width)).into_iter().chain(entries)
            })
        };
        let kept: Vec<_> = keep.iter().flat_map(|size| partial(*size)).collect();
        for name in partial(size).filter(|name| !kept.contains(name)) {
            let path = self.public.0.join(&name);
            // What is left behind takes room and does no harm.
            let _removed = fs::remove_file(&path);
            if let Some(folder) = path.parent() {
                let _removed_if_empty = fs::remove_dir(folder);
            }
        }
    }

    /// What was published last.
    pub fn published(&self) -> Option<Head> {
        self.lock().published.clone()
    }

    /// Proof that the tree of a size, at most the log's, holds the leaf at an index.
    ///
    /// # Errors
    /// No such leaf in that tree, or a file is missing.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<InclusionProof, Error> {
        let state = self.lock();
        if index >= size || size > state.edge.size() {
            return Err(Error::NoLeaf { index, size: size.min(state.edge.size()) });
        }
        let reader = Hashes { state: &state, public: &self.public };
        let hashes = prove_record(size, index, &reader).map_err(missing)?;
        Ok(InclusionProof { index, tree_size: size, hashes: hashes.into_iter().map(|hash| Digest(hash.0)).collect() })
    }

    /// Proof that the tree of `newer` leaves continues that of `older`; empty where there is nothing to prove.
    ///
    /// # Errors
    /// The log never had such trees, or a file is missing.
    pub fn consistency(&self, older: u64, newer: u64) -> Result<Vec<Digest>, Error> {
        let state = self.lock();
        if older > newer || newer > state.edge.size() {
            return Err(Error::NoLeaf { index: older.max(newer), size: state.edge.size() });
        }
        if older == 0 || older == newer {
            return Ok(Vec::new());
        }
        let reader = Hashes { state: &state, public: &self.public };
        let hashes = prove_tree(newer, older, &reader).map_err(missing)?;
        Ok(hashes.into_iter().map(|hash| Digest(hash.0)).collect())
    }
}

impl State {
    fn recover(dir: &Path, public: &Folder, vkey: &str) -> Result<Self, Error> {
        let owner = match fs::read_to_string(dir.join("owner")) {
            Ok(owner) => Some(owner),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(found) = owner.as_ref().filter(|found| *found != vkey) {
            return Err(Error::OtherLog { found: found.clone(), expected: vkey.into() });
        }
        let mut journals = Vec::new();
        for file in fs::read_dir(dir)? {
            let name = file?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix("journal-")).and_then(|tile| tile.parse::<u64>().ok());
            journals.extend(number);
        }
        journals.sort_unstable();
        let Some(tile) = journals.pop() else {
            if owner.is_some() {
                return Err(Error::Damaged("it has no journal".into()));
            }
            let journal = Journal::create(&dir.join("journal-0"))?;
            // Last: a folder with an owner had a journal.
            files::write_durably(&dir.join("owner"), vkey.as_bytes())?;
            return Ok(Self::new(Edge::default(), journal));
        };
        if owner.is_none() {
            files::write_durably(&dir.join("owner"), vkey.as_bytes())?;
        }
        // Its tile is finished: a crash came before it could be removed.
        for finished in journals {
            fs::remove_file(dir.join(format!("journal-{finished}")))?;
        }
        let edge = Edge::resume(tile, |level, index| {
            let name = layout::hashes(level, index, WIDTH);
            let hashes = public.read(&name)?.filter(|hashes| hashes.len() as u64 == WIDTH * 32);
            hashes.ok_or_else(|| Error::Damaged(format!("{name} is missing or cut short")))
        })?;
        let (journal, mut records) = Journal::open(&dir.join(format!("journal-{tile}")))?;
        let mut state = Self::new(edge, journal);
        if records.len() as u64 >= WIDTH {
            records.truncate(WIDTH as usize);
            let journal = state.journal.take().ok_or_else(|| Error::Damaged("it has no journal".into()))?;
            state.journal = Some(state.finish_tile(dir, public, &records, journal)?);
        } else {
            state.add(&records);
        }
        state.check_published(public, vkey)?;
        Ok(state)
    }

    fn new(edge: Edge, journal: Journal) -> Self {
        Self {
            edge,
            journal: Some(journal),
            entries: Vec::new(),
            starts: Vec::new(),
            published: None,
            before: 0,
            tiles: RefCell::default(),
        }
    }

    /// What was published must still be there: the log may have grown, and nothing else.
    fn check_published(&mut self, public: &Folder, vkey: &str) -> Result<(), Error> {
        let Some(checkpoint) = public.read(CHECKPOINT)? else { return Ok(()) };
        let checkpoint =
            String::from_utf8(checkpoint).map_err(|_| Error::Damaged("its checkpoint is not text".into()))?;
        let tree = open_checkpoint(&checkpoint, vkey)?;
        if tree.size > self.edge.size() {
            let (had, has) = (tree.size, self.edge.size());
            return Err(Error::Damaged(format!("it published {had} leaves and holds {has}")));
        }
        let reader = Hashes { state: self, public };
        let root = tlog_tiles::tree_hash(tree.size, &reader).map_err(missing)?;
        if root.0 != tree.root.0 {
            return Err(Error::Damaged(format!("its first {} leaves are not those that it published", tree.size)));
        }
        self.before = tree.size;
        self.published = Some(Head { tree, checkpoint });
        Ok(())
    }

    /// Adds records that do not finish the tile, after they are in the journal.
    fn add(&mut self, records: &[Record]) {
        for record in records {
            self.starts.push(self.entries.len());
            self.entries.extend((record.entry.len() as u16).to_be_bytes());
            self.entries.extend(&record.entry);
            drop(self.edge.push_hash(record.hash));
        }
    }

    /// Adds the records that finish the tile: its files become durable, then the next journal begins.
    fn finish_tile(&mut self, dir: &Path, public: &Folder, records: &[Record], old: Journal) -> Result<Journal, Error> {
        let tile = self.edge.size() / WIDTH;
        let mut edge = self.edge.clone();
        let mut entries = self.entries.clone();
        let mut filled = Vec::new();
        for record in records {
            entries.extend((record.entry.len() as u16).to_be_bytes());
            entries.extend(&record.entry);
            filled = edge.push_hash(record.hash);
        }
        files::write_durably(&public.0.join(layout::entries(tile, WIDTH)), &entries)?;
        for tile in &filled {
            files::write_durably(&public.0.join(layout::hashes(tile.level, tile.index, WIDTH)), &tile.hashes)?;
        }
        let journal = Journal::create(&dir.join(format!("journal-{}", tile + 1)))?;
        self.edge = edge;
        self.entries.clear();
        self.starts.clear();
        old.remove()?;
        Ok(journal)
    }

    /// The hash of a perfect subtree.
    fn hash(&self, public: &Folder, stored: u64) -> Option<Hash> {
        let (level, index) = split_stored_hash_index(stored);
        let (tile_level, height) = (level / HEIGHT, level % HEIGHT);
        let first = index << height;
        let (tile, at) = (first / WIDTH, (first % WIDTH) as usize);
        let range = at * 32..(at + (1 << height)) * 32;
        let full = self.edge.size().checked_shr(8 * (u32::from(tile_level) + 1)).unwrap_or(0);
        if tile >= full {
            let (_, index, hashes) = self.edge.partial().find(|(level, ..)| *level == tile_level)?;
            return hashes.get(range).filter(|_| index == tile).map(Tile::subtree_hash);
        }
        let mut tiles = self.tiles.borrow_mut();
        if let Some(hashes) = tiles.get(&(tile_level, tile)) {
            return hashes.get(range).map(Tile::subtree_hash);
        }
        let hashes = public.read(&layout::hashes(tile_level, tile, WIDTH)).ok()??;
        let hash = hashes.get(range).map(Tile::subtree_hash);
        if tiles.len() >= TILES {
            tiles.clear();
        }
        tiles.insert((tile_level, tile), hashes);
        hash
    }
}

struct Hashes<'a> {
    state: &'a State,
    public: &'a Folder,
}

impl HashReader for Hashes<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |stored: &u64| self.state.hash(self.public, *stored).ok_or(tlog_tiles::Error::IndexesNotInTree);
        indexes.iter().map(hash).collect()
    }
}

fn missing(error: tlog_tiles::Error) -> Error {
    Error::Damaged(format!("a tile is missing or cut short ({error})"))
}
