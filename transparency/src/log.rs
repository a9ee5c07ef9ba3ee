//! The log on disk: leaves and tree hashes in one database, one commit per leaf.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::Digest;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use signed_note::{Note, StandardSigner, is_key_name_valid, key_id};
use tlog_tiles::{Checkpoint, Hash, HashReader, Tile, prove_record, stored_hash_index, stored_hashes, tree_hash};

use crate::Error;
use crate::leaf::{Leaf, entry};
use crate::proof::InclusionProof;

const HASHES: TableDefinition<'static, u64, [u8; 32]> = TableDefinition::new("hashes");
const LEAVES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("leaves");
const OWNER: TableDefinition<'static, (), &'static str> = TableDefinition::new("owner");

/// Ed25519 in signed notes (C2SP signed-note).
const ED25519: u8 = 1;
/// Height of C2SP tiles: 256 hashes wide.
const TILE_HEIGHT: u8 = 8;

/// An append-only log that one process has open.
pub struct Log {
    database: Database,
    origin: String,
    vkey: String,
    signer: StandardSigner,
}

struct Stored<T>(T);

impl<T: ReadableTable<u64, [u8; 32]>> HashReader for Stored<T> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let read = |index: &u64| match self.0.get(*index) {
            Ok(Some(hash)) => Ok(Hash(hash.value())),
            _ => Err(tlog_tiles::Error::IndexesNotInTree),
        };
        indexes.iter().map(read).collect()
    }
}

fn broken(error: tlog_tiles::Error) -> Error {
    Error::Store(error.to_string())
}

impl Log {
    /// Opens the log in a folder, or starts one. `origin` is its name, for example `verifier.example/log`; `seed` signs its
    /// checkpoints.
    ///
    /// # Errors
    /// An origin that cannot name a key, a folder that belongs to another log, or a failing disk.
    pub fn open(dir: &Path, origin: &str, seed: [u8; 32]) -> Result<Self, Error> {
        if !is_key_name_valid(origin) || origin.chars().any(char::is_control) {
            return Err(Error::Origin(origin.into()));
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| Error::Key)?;
        let public = [&[ED25519], pair.public_key().as_ref()].concat();
        let id = key_id(origin, &public);
        let vkey = format!("{origin}+{id:08x}+{}", STANDARD.encode(&public));
        let secret = STANDARD.encode([&[ED25519], seed.as_slice()].concat());
        let signer = StandardSigner::new(&format!("PRIVATE+KEY+{origin}+{id:08x}+{secret}")).map_err(|_| Error::Key)?;
        std::fs::create_dir_all(dir)?;
        let database = cocoon_settlement::database::open(&dir.join("log.redb"))?;
        let transaction = database.begin_write()?;
        {
            transaction.open_table(HASHES)?;
            transaction.open_table(LEAVES)?;
            let mut owner = transaction.open_table(OWNER)?;
            let found = owner.get(())?.map(|found| found.value().to_owned());
            match found {
                Some(found) if found != vkey => return Err(Error::OtherLog { found, expected: vkey }),
                Some(_) => {}
                None => drop(owner.insert((), vkey.as_str())?),
            }
        }
        transaction.commit()?;
        Ok(Self { database, origin: origin.into(), vkey, signer })
    }

    /// The key that checks this log's checkpoints, as a C2SP verifier key.
    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// Appends a leaf and returns its index; the leaf is on disk by then.
    ///
    /// # Errors
    /// The disk failed; the log is as it was.
    pub fn append(&self, leaf: &Leaf) -> Result<u64, Error> {
        let bytes = leaf.to_cbor();
        let transaction = self.database.begin_write()?;
        let index;
        {
            let mut leaves = transaction.open_table(LEAVES)?;
            index = leaves.len()?;
            let mut table = Stored(transaction.open_table(HASHES)?);
            let hashes = stored_hashes(index, entry(&bytes).as_bytes(), &table).map_err(broken)?;
            for (at, hash) in (stored_hash_index(0, index)..).zip(hashes) {
                table.0.insert(at, hash.0)?;
            }
            leaves.insert(index, bytes.as_slice())?;
        }
        transaction.commit()?;
        Ok(index)
    }

    /// Number of leaves.
    ///
    /// # Errors
    /// The disk failed.
    pub fn size(&self) -> Result<u64, Error> {
        Ok(self.database.begin_read()?.open_table(LEAVES)?.len()?)
    }

    /// CBOR of a leaf.
    ///
    /// # Errors
    /// No leaf has the index.
    pub fn leaf(&self, index: u64) -> Result<Vec<u8>, Error> {
        let leaves = self.database.begin_read()?.open_table(LEAVES)?;
        let size = leaves.len()?;
        let leaf = leaves.get(index)?.ok_or(Error::NoLeaf { index, size })?;
        Ok(leaf.value().to_vec())
    }

    /// The signed tree head (C2SP tlog-checkpoint).
    ///
    /// # Errors
    /// The disk failed.
    pub fn checkpoint(&self) -> Result<String, Error> {
        self.sign_head(&self.database.begin_read()?)
    }

    /// Proof that the current tree holds a leaf, and the checkpoint of that very tree.
    ///
    /// # Errors
    /// No leaf has the index.
    pub fn inclusion(&self, index: u64) -> Result<(InclusionProof, String), Error> {
        let snapshot = self.database.begin_read()?;
        let size = snapshot.open_table(LEAVES)?.len()?;
        if index >= size {
            return Err(Error::NoLeaf { index, size });
        }
        let hashes = prove_record(size, index, &Stored(snapshot.open_table(HASHES)?)).map_err(broken)?;
        let hashes = hashes.into_iter().map(|hash| Digest(hash.0)).collect();
        Ok((InclusionProof { index, tree_size: size, hashes }, self.sign_head(&snapshot)?))
    }

    /// A tile by its C2SP path, `tile/<level>/<index>[.p/<width>]` or `tile/entries/<index>[.p/<width>]`; `None` if the tree
    /// has no such tile.
    ///
    /// # Errors
    /// The disk failed.
    pub fn tile(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(rest) = path.strip_prefix("tile/") else { return Ok(None) };
        // The crate's paths are the older ones that name the height too.
        let (data, rest) = match rest.strip_prefix("entries/") {
            Some(rest) => (true, format!("tile/{TILE_HEIGHT}/data/{rest}")),
            None if rest.starts_with("data/") => return Ok(None),
            None => (false, format!("tile/{TILE_HEIGHT}/{rest}")),
        };
        // The crate panics on levels beyond 63 and on empty tiles; a tree of 2^64 leaves has levels 0 to 7.
        let level = rest.split('/').nth(2).unwrap_or_default();
        if rest.ends_with(".p/0") || !(data || matches!(level, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7")) {
            return Ok(None);
        }
        let Ok(tile) = Tile::from_path(&rest) else { return Ok(None) };
        let snapshot = self.database.begin_read()?;
        let leaves = snapshot.open_table(LEAVES)?;
        let size = leaves.len()?;
        let shift = u32::from(tile.level()) * u32::from(TILE_HEIGHT);
        let Some(first) = tile.level_index().checked_mul(1 << TILE_HEIGHT) else { return Ok(None) };
        let end = first.saturating_add(u64::from(tile.width()));
        if end > size.checked_shr(shift).unwrap_or(0) {
            return Ok(None);
        }
        if !data {
            return tile.read_data(&Stored(snapshot.open_table(HASHES)?)).map(Some).map_err(broken);
        }
        let mut out = Vec::new();
        for index in first..end {
            let Some(leaf) = leaves.get(index)? else { return Ok(None) };
            let digest = entry(leaf.value());
            out.extend_from_slice(&(digest.0.len() as u16).to_be_bytes());
            out.extend_from_slice(&digest.0);
        }
        Ok(Some(out))
    }

    fn sign_head(&self, snapshot: &ReadTransaction) -> Result<String, Error> {
        let size = snapshot.open_table(LEAVES)?.len()?;
        let root = tree_hash(size, &Stored(snapshot.open_table(HASHES)?)).map_err(broken)?;
        let failed = |error: &dyn std::fmt::Display| Error::Checkpoint(error.to_string());
        let head = Checkpoint::new(&self.origin, size, root, "").map_err(|error| failed(&error))?;
        let mut note = Note::new(&head.to_bytes(), &[]).map_err(|error| failed(&error))?;
        note.add_sigs(&[&self.signer]).map_err(|error| failed(&error))?;
        String::from_utf8(note.to_bytes()).map_err(|error| failed(&error))
    }
}
