//! configfs-tsm: one directory per request under `/sys/kernel/config/tsm/report` (Linux 6.7,
//! `Documentation/ABI/testing/configfs-tsm-report`).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Tsm, TsmReport};
use crate::{Error, EventLog, ccel};

/// Where the kernel mounts the interface.
pub const DEFAULT_ROOT: &str = "/sys/kernel/config/tsm/report";

/// Where the kernel shows the firmware's event log (Linux, `Documentation/ABI/testing/sysfs-firmware-acpi`, `tables/data`).
pub const CCEL: &str = "/sys/firmware/acpi/tables/data/CCEL";

/// How often a busy platform, or a race with another writer, is tried again.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// The file operations that a report takes: a plain directory cannot imitate configfs, where creating a directory creates
/// its attributes, so tests put [`super::FakeTsm`] here.
pub trait FileOps: Send {
    /// Creates a directory.
    fn mkdir(&mut self, path: &Path) -> io::Result<()>;
    /// Removes a directory together with the attributes the kernel put there.
    fn rmdir(&mut self, path: &Path) -> io::Result<()>;
    /// Writes an attribute in one call.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Reads an attribute to its end.
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemFiles;

impl FileOps for SystemFiles {
    fn mkdir(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }
    fn rmdir(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // No create, no truncate: an attribute exists or the interface is not what it should be.
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        match io::Write::write(&mut file, bytes)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }
}

/// Reports through configfs-tsm.
#[derive(Debug)]
pub struct ConfigfsTsm<F: FileOps = SystemFiles> {
    root: PathBuf,
    files: F,
}

impl ConfigfsTsm {
    /// The interface at a root, usually [`DEFAULT_ROOT`].
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::with_files(root, SystemFiles)
    }
}

impl Default for ConfigfsTsm {
    fn default() -> Self {
        Self::new(DEFAULT_ROOT)
    }
}

impl<F: FileOps> ConfigfsTsm<F> {
    /// The interface over other file operations.
    pub fn with_files(root: impl Into<PathBuf>, files: F) -> Self {
        Self { root: root.into(), files }
    }

    fn create_entry(&mut self) -> Result<Entry<'_, F>, Error> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        for _ in 0..ATTEMPTS {
            let name = format!("cocoon-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
            let path = self.root.join(name);
            match self.files.mkdir(&path) {
                Ok(()) => return Ok(Entry { path, files: &mut self.files }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let root = self.root.display();
                    return Err(Error::Tsm(format!(
                        "{root} does not exist: this guest has no configfs-tsm (Linux 6.7 or later, in a TDX or SEV-SNP guest, with configfs mounted)"
                    )));
                }
                Err(error) => return Err(Error::File { path, source: error }),
            }
        }
        Err(Error::Tsm(format!("every entry name tried under {} is taken", self.root.display())))
    }
}

/// A report entry; its directory goes when this does.
struct Entry<'a, F: FileOps> {
    path: PathBuf,
    files: &'a mut F,
}

impl<F: FileOps> Entry<'_, F> {
    fn write(&mut self, attribute: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(attribute);
        patiently(|| self.files.write(&path, bytes)).map_err(Error::file(path))
    }

    fn read(&mut self, attribute: &str) -> Result<Vec<u8>, Error> {
        let path = self.path.join(attribute);
        patiently(|| self.files.read(&path)).map_err(Error::file(path))
    }

    fn read_if_there(&mut self, attribute: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(attribute);
        match patiently(|| self.files.read(&path)) {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => Ok(Some(bytes)),
            // TDX has no auxblob; the kernel says so in either way.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => Ok(None),
            Err(error) => Err(Error::File { path, source: error }),
        }
    }

    fn generation(&mut self) -> Result<u64, Error> {
        let text = self.read("generation")?;
        let text = String::from_utf8_lossy(&text);
        text.trim().parse().map_err(|_| Error::Tsm(format!("generation {:?} is no number", text.trim())))
    }
}

impl<F: FileOps> Drop for Entry<'_, F> {
    fn drop(&mut self) {
        if let Err(error) = self.files.rmdir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a report entry could not be removed");
        }
    }
}

impl<F: FileOps> Tsm for ConfigfsTsm<F> {
    fn report(&mut self, report_data: &[u8; 64], privlevel: Option<u32>) -> Result<TsmReport, Error> {
        let mut entry = self.create_entry()?;
        for _ in 0..ATTEMPTS {
            let before = entry.generation()?;
            entry.write("inblob", report_data)?;
            let mut writes = 1;
            if let Some(level) = privlevel {
                entry.write("privlevel", level.to_string().as_bytes())?;
                writes += 1;
            }
            let outblob = match entry.read("outblob") {
                // The kernel noticed the race itself (EWOULDBLOCK): write our own input again.
                Err(Error::File { source, .. }) if source.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(FIRST_PAUSE);
                    continue;
                }
                result => result?,
            };
            let auxblob = entry.read_if_there("auxblob")?;
            let provider = String::from_utf8_lossy(&entry.read("provider")?).trim().to_owned();
            let generation = entry.generation()?;
            // Anything but our own writes means that the report may answer somebody else's input.
            if generation == before + writes {
                if outblob.is_empty() {
                    return Err(Error::Tsm("the platform gave an empty report".into()));
                }
                return Ok(TsmReport { provider, outblob, auxblob, generation });
            }
        }
        Err(Error::TsmRace(entry.path.display().to_string()))
    }

    /// From the ACPI table CCEL. It helps whoever appraises a quote and vouches for nothing, so a quote without it is as good.
    fn event_log(&mut self) -> Option<EventLog> {
        let bytes = match self.files.read(Path::new(CCEL)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "the firmware's event log cannot be read");
                return None;
            }
        };
        ccel::parse(&bytes).inspect_err(|error| tracing::warn!(%error, "the firmware's event log is left out")).ok()
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::Interrupted)
}

/// Tries again, with growing pauses, while the platform says that it is busy.
fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match call() {
            Err(error) if is_busy(&error) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
    call()
}
