//! Entries of the unfinished tile, on disk before anybody is told their index.
//!
//! A record is the entry's length (32 bits, big-endian), its hash in the tree and the entry. A record that a crash tore has another
//! hash and ends the journal.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use tlog_tiles::{Hash, record_hash};

use crate::files::sync_folder;
use crate::{Error, MAX_ENTRY};

const HEADER: usize = 4 + 32;

pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

pub(crate) struct Record {
    pub hash: Hash,
    pub entry: Vec<u8>,
}

impl Journal {
    /// Makes an empty one, durably.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path)?;
        file.sync_all()?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))?;
        Ok(Self { file, path: path.into() })
    }

    /// Opens one, and cuts off what a crash left unfinished.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>), Error> {
        let bytes = std::fs::read(path)?;
        let (records, whole) = read(&bytes);
        let mut file = OpenOptions::new().write(true).open(path)?;
        if whole < bytes.len() {
            file.set_len(whole as u64)?;
            file.sync_all()?;
        }
        file.seek(std::io::SeekFrom::End(0))?;
        Ok((Self { file, path: path.into() }, records))
    }

    /// Writes records; they are durable after [`Journal::sync`].
    pub fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(records.iter().map(|record| HEADER + record.entry.len()).sum());
        for record in records {
            bytes.extend((record.entry.len() as u32).to_be_bytes());
            bytes.extend(record.hash.0);
            bytes.extend(&record.entry);
        }
        Ok(self.file.write_all(&bytes)?)
    }

    pub fn sync(&mut self) -> Result<(), Error> {
        Ok(self.file.sync_data()?)
    }

    pub fn remove(self) -> Result<(), Error> {
        Ok(std::fs::remove_file(self.path)?)
    }
}

/// The whole records, and how many bytes they take.
fn read(bytes: &[u8]) -> (Vec<Record>, usize) {
    let (mut records, mut rest) = (Vec::new(), bytes);
    while let Some((record, after)) = read_one(rest) {
        records.push(record);
        rest = after;
    }
    (records, bytes.len() - rest.len())
}

fn read_one(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (entry, rest) = rest.split_at_checked(length).filter(|_| length <= MAX_ENTRY)?;
    let hash = Hash(*hash);
    (record_hash(entry) == hash).then(|| (Record { hash, entry: entry.to_vec() }, rest))
}
