//! configfs-tsm in memory, as the kernel behaves: for tests of what stands on it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::{CCEL, ConfigfsTsm, FileOps, PROVIDER_SNP, Tsm, TsmReport};
use crate::{Error, EventLog};

/// Answers a report request: report data and privilege level in, report out.
type Platform = Box<dyn FnMut(&[u8; 64], Option<u32>) -> Vec<u8> + Send>;

/// A fake of the kernel's interface. It is both the file operations under a [`ConfigfsTsm`] and, for convenience, a
/// [`Tsm`] that goes through one.
///
/// Like the kernel: creating a directory creates its attributes and only attributes can be written; reading `outblob` asks
/// the platform for a report over the present `inblob`; every write raises `generation`; a second reader meets the report
/// of the last writer; only `sev_guest` has `auxblob` and `privlevel`.
pub struct FakeTsm {
    provider: String,
    platform: Platform,
    auxblob: Option<Vec<u8>>,
    entries: BTreeMap<String, Entry>,
    /// The ACPI table with the firmware's event log; without one the file is not there.
    pub ccel: Option<Vec<u8>>,
    /// How many directories are to be refused as existing already.
    pub names_taken: u32,
    /// Errors that the next reads of `outblob` give, in order; then it works.
    pub outblob_errors: VecDeque<ErrorKind>,
    /// Inputs that another process writes, one after each of the next reads of `outblob`.
    pub racing_inputs: VecDeque<[u8; 64]>,
    /// Inputs that another process writes just before each of the next reads of `outblob`.
    pub racing_inputs_before: VecDeque<[u8; 64]>,
}

#[derive(Default)]
struct Entry {
    inblob: Option<[u8; 64]>,
    privlevel: Option<u32>,
    generation: u64,
}

impl FakeTsm {
    /// A fake with a provider name (`tdx_guest`, `sev_guest`) and a platform that answers requests.
    pub fn new(
        provider: &str,
        platform: impl FnMut(&[u8; 64], Option<u32>) -> Vec<u8> + Send + 'static,
        auxblob: Option<Vec<u8>>,
    ) -> Self {
        Self {
            provider: provider.into(),
            platform: Box::new(platform),
            auxblob,
            entries: BTreeMap::new(),
            ccel: None,
            names_taken: 0,
            outblob_errors: VecDeque::new(),
            racing_inputs: VecDeque::new(),
            racing_inputs_before: VecDeque::new(),
        }
    }

    /// How many entries exist: zero when every request cleaned up after itself.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    fn attribute<'a>(&mut self, path: &'a Path) -> io::Result<(&mut Entry, &'a str)> {
        let attribute = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let entry = path.parent().map(|entry| entry.display().to_string()).unwrap_or_default();
        let entry = self.entries.get_mut(&entry).ok_or(ErrorKind::NotFound)?;
        Ok((entry, attribute))
    }
}

impl FileOps for &mut FakeTsm {
    fn mkdir(&mut self, path: &Path) -> io::Result<()> {
        if self.names_taken > 0 {
            self.names_taken -= 1;
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.entries.insert(path.display().to_string(), Entry::default());
        Ok(())
    }

    fn rmdir(&mut self, path: &Path) -> io::Result<()> {
        self.entries.remove(&path.display().to_string()).map(|_| ()).ok_or(ErrorKind::NotFound.into())
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let snp = self.provider == PROVIDER_SNP;
        let (entry, attribute) = self.attribute(path)?;
        match attribute {
            "inblob" => entry.inblob = Some(bytes.try_into().map_err(|_| ErrorKind::InvalidInput)?),
            "privlevel" if snp => {
                let level = std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok());
                entry.privlevel = Some(level.filter(|level| *level <= 3).ok_or(ErrorKind::InvalidInput)?);
            }
            "outblob" | "auxblob" | "provider" | "generation" => return Err(ErrorKind::PermissionDenied.into()),
            _ => return Err(ErrorKind::NotFound.into()),
        }
        entry.generation += 1;
        Ok(())
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new(CCEL) {
            return self.ccel.clone().ok_or(ErrorKind::NotFound.into());
        }
        let (provider, auxblob) = (self.provider.clone(), self.auxblob.clone());
        let (entry, attribute) = self.attribute(path)?;
        match attribute {
            "generation" => Ok(format!("{}\n", entry.generation).into_bytes()),
            "provider" => Ok(format!("{provider}\n").into_bytes()),
            "auxblob" if provider == PROVIDER_SNP => Ok(auxblob.unwrap_or_default()),
            "outblob" => {
                if let Some(error) = self.outblob_errors.pop_front() {
                    return Err(error.into());
                }
                let inblob = path.with_file_name("inblob");
                if let Some(other) = self.racing_inputs_before.pop_front() {
                    self.write(&inblob, &other)?;
                }
                let (entry, _) = self.attribute(path)?;
                let (input, level) = (entry.inblob.ok_or(ErrorKind::InvalidInput)?, entry.privlevel);
                let report = (self.platform)(&input, level);
                if let Some(other) = self.racing_inputs.pop_front() {
                    self.write(&inblob, &other)?;
                }
                Ok(report)
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl Tsm for FakeTsm {
    fn report(&mut self, report_data: &[u8; 64], privlevel: Option<u32>) -> Result<TsmReport, Error> {
        ConfigfsTsm::with_files("/fake", self).report(report_data, privlevel)
    }

    fn event_log(&mut self) -> Option<EventLog> {
        ConfigfsTsm::with_files("/fake", self).event_log()
    }
}
