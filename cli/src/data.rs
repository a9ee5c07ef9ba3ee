//! The data folder: where it is, its secrets, and the lock that keeps two processes from sharing it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A data folder that this process alone uses, readable by its owner only.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Where data goes without `--data`: `$XDG_DATA_HOME/cocoon`, else `~/.local/share/cocoon`.
    ///
    /// # Errors
    /// Neither variable is set.
    pub fn default_path() -> Result<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        match (set("XDG_DATA_HOME"), set("HOME")) {
            (Some(data), _) => Ok(data.join("cocoon")),
            (None, Some(home)) => Ok(home.join(".local/share/cocoon")),
            (None, None) => bail!("neither XDG_DATA_HOME nor HOME is set: name a data folder with --data"),
        }
    }

    /// Opens or creates the folder and locks it.
    ///
    /// # Errors
    /// The folder cannot be made or written, or another process holds it.
    pub fn open(path: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data folder {}", path.display()))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("cannot write to the data folder {}", path.display()))?;
        if lock.try_lock().is_err() {
            bail!(
                "{} is in use by another cocoon process: stop it, or name another folder with --data",
                path.display()
            );
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The 32-byte secret called `name`, made from the system's random source the first time.
    ///
    /// # Errors
    /// The file cannot be read or written, or does not hold 64 hexadecimal digits.
    pub fn secret(&self, name: &str) -> Result<[u8; 32]> {
        let path = self.path.join("secrets").join(name);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let mut secret = [0; 32];
                hex::decode_to_slice(text.trim(), &mut secret).ok().with_context(|| {
                    format!("{} does not hold 64 hexadecimal digits: restore it from a copy", path.display())
                })?;
                Ok(secret)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret)
                    .map_err(|error| anyhow::anyhow!("no random numbers from the system: {error}"))?;
                fs::DirBuilder::new().recursive(true).mode(0o700).create(self.path.join("secrets"))?;
                write_durably(&path, hex::encode(secret).as_bytes())?;
                Ok(secret)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes a file of the folder so that after a crash it is whole or as it was.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_durably(&path, content)?;
        Ok(path)
    }
}

fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let made = data.secret("client").unwrap();
        assert_eq!(data.secret("client").unwrap(), made);
        assert_ne!(data.secret("provider").unwrap(), made);
    }

    #[test]
    fn a_damaged_secret_is_named_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        data.secret("client").unwrap();
        fs::write(folder.path().join("secrets/client"), "00").unwrap();
        let error = data.secret("client").unwrap_err().to_string();
        assert!(error.contains("secrets/client"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("secrets/client")).unwrap(), "00");
    }

    #[test]
    fn two_processes_cannot_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        assert!(DataDir::open(folder.path()).is_err());
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }
}
