//! Making an embedded database so that being killed in the middle leaves either all of it or nothing.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use redb::{Database, DatabaseError, StorageError};

fn storage(error: io::Error) -> DatabaseError {
    DatabaseError::Storage(StorageError::Io(error))
}

/// The same as [`open`], for a database that grows for ever: it keeps at most so many bytes of it in memory, where redb would keep a GiB.
pub fn open_within(path: &Path, cache: usize) -> Result<Database, DatabaseError> {
    make(path)?;
    Database::builder().set_cache_size(cache).open(path)
}

/// Opens a database, or makes it under another name first and then moves it to its place: a file that is there is whole. The
/// caller sees to it that nobody else makes the same one at the same time.
pub fn open(path: &Path) -> Result<Database, DatabaseError> {
    make(path)?;
    Database::open(path)
}

fn make(path: &Path) -> Result<(), DatabaseError> {
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(storage(error)),
            _ => {}
        }
        drop(Database::create(&unfinished)?);
        fs::rename(&unfinished, path).map_err(storage)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(storage)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_finished_is_made_anew_and_what_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.redb");
        fs::write(folder.path().join("some.unfinished"), [0; 4096]).unwrap();
        drop(open(&path).unwrap());
        drop(open_within(&path, 1 << 20).unwrap());
        fs::write(&path, b"something else").unwrap();
        assert!(open(&path).is_err(), "a file that is no database is never replaced");
        assert_eq!(fs::read(&path).unwrap(), b"something else");
    }
}
