//! The folder of endorsements.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cocoon_attestation::UnixTime;
use cocoon_verifier::Need;

/// Longest file that is read.
const MAX_FILE: u64 = 16 << 20;

/// A folder of endorsements.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// One file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the folder, which says what it is.
    pub path: String,
    /// How long it is, in bytes.
    pub bytes: u64,
}

impl Folder {
    /// Makes a folder, or opens the one that is there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// There is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", path.display())));
        }
        Ok(Self(path.to_owned()))
    }

    /// What is there and still current at a time; a file that is not what its path says counts as absent.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn get(&self, need: &Need, at: UnixTime) -> io::Result<Option<Vec<u8>>> {
        let path = self.0.join(need.path());
        let bytes = match fs::metadata(&path) {
            Ok(meta) if meta.len() <= MAX_FILE => fs::read(&path)?,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let current = need.look(&bytes).is_ok_and(|lapses| lapses.is_none_or(|lapses| at < lapses));
        Ok(current.then_some(bytes))
    }

    /// How long ago something was written, by this machine's clock; `None` if it is not there, or from the future.
    pub(crate) fn age(&self, need: &Need) -> Option<Duration> {
        fs::metadata(self.0.join(need.path())).ok()?.modified().ok()?.elapsed().ok()
    }

    /// Keeps something. The file appears whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, need: &Need, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(need.path());
        let folder = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    }

    /// Everything in the folder, by path.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(self.0.join(&folder))? {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                match entry.metadata()? {
                    meta if meta.is_dir() => open.push(path),
                    meta => out.push(Entry { path: path.to_string_lossy().into_owned(), bytes: meta.len() }),
                }
            }
        }
        out.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(out)
    }

    /// The bytes of an entry.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(&entry.path))
    }
}
