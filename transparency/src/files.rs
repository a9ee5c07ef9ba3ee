//! A log's files: reading them from anywhere, and writing them so that a crash leaves whole ones.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cocoon_attestation::Digest;

use crate::{Error, layout};

/// Where a log's files come from.
pub trait Source {
    /// The file of a name ([`layout`]); `None` if there is none.
    ///
    /// # Errors
    /// The source failed.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error>;

    /// A part beside the tree, checked against its name.
    ///
    /// # Errors
    /// It is not there, or not what its name says.
    fn part(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.read(&layout::part(digest))?.ok_or(Error::Part(*digest, "is not there"))?;
        if Digest::of(&[&bytes]) != *digest {
            return Err(Error::Part(*digest, "has another SHA-256"));
        }
        Ok(bytes)
    }
}

/// A log in a folder.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Source for Folder {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        if !layout::is_name(name) {
            return Ok(None);
        }
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a file under another name, and moves it to its place: whoever finds it finds it whole, and it is on disk when this returns. A log has
/// no other files: what a checkpoint promises must outlast a power cut that comes after it.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folders(folder)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)?;
    sync_folder(folder)
}

/// Makes sure that a file which is there outlasts a power cut: whoever wrote it may have been killed before it was sure.
pub(crate) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path)?.sync_all()?;
    path.ancestors().skip(1).take(2).try_for_each(sync_folder)
}

fn make_folders(folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make_folders(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    match above {
        Some(above) => sync_folder(above),
        None => Ok(()),
    }
}

pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    Ok(File::open(folder)?.sync_all()?)
}
