//! Files read and written, with errors that name them.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use aws_lc_rs::digest;
use cocoon_attestation::Digest;

use crate::Error;

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::file(path))
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::file(path))
}

pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::file(path))
}

/// SHA-256 of a file of any length.
pub(crate) fn sha256(path: &Path) -> Result<Digest, Error> {
    let mut file = File::open(path).map_err(Error::file(path))?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::file(path))? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Ok(Digest(bytes))
}
