//! The development platform as the CPU of a virtual machine: it stands outside the guest, measures what QEMU was really given, and answers
//! the guest's quote requests. **Not confidential.**
//!
//! What QEMU was given is asked of the running process, not of whoever launched it: its arguments, and the files that they name. So a guest
//! that is launched with another file has another quote, whatever its launcher says.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::dev::cpu::{DevCpu, Launch, Tee};
use cocoon_attestation::{Bundle, CpuEvidence, EventLog, UnixTime};
use cocoon_firmware_measurements::Inspection;
use cocoon_firmware_measurements::explain::QuotedRegisters;
use cocoon_firmware_measurements::tdx::{self, TdxMachine, TdxMeasurements};

use super::acpi;
use super::config::{QUOTE_SOCKET, Size};
use crate::endorse::{DevEndorser, Endorser};

/// Why a guest could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A file of the guest, or of its process, cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// QEMU was given something whose measurement is not known.
    #[error("QEMU runs with {0}: what a CPU would measure then is not known")]
    Argument(String),
    /// The machine's ACPI tables cannot be had.
    #[error(transparent)]
    Tables(#[from] acpi::Error),
    /// What QEMU was given has no known measurement.
    #[error(transparent)]
    Measure(#[from] cocoon_firmware_measurements::Error),
}

fn read(path: PathBuf) -> Result<Vec<u8>, MeasureError> {
    fs::read(&path).map_err(|source| MeasureError::File { path, source })
}

/// What a running QEMU was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    environment: Vec<(OsString, OsString)>,
    /// Its folder, from which its arguments name files.
    folder: PathBuf,
}

impl Given {
    /// Asks the process.
    ///
    /// # Errors
    /// It is not there, or another user's.
    pub fn to(pid: u32) -> Result<Self, MeasureError> {
        let of = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let link = |name: &str| {
            let path = of(name);
            fs::read_link(&path).map_err(|source| MeasureError::File { path, source })
        };
        let words = |bytes: Vec<u8>| -> Vec<Vec<u8>> {
            let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
            text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
        };
        let args = words(read(of("cmdline"))?).into_iter().skip(1).map(String::from_utf8).collect::<Result<_, _>>();
        let environment = words(read(of("environ"))?).into_iter().filter_map(|variable| {
            let at = variable.iter().position(|byte| *byte == b'=')?;
            Some((OsString::from_vec(variable[..at].to_vec()), OsString::from_vec(variable[at + 1..].to_vec())))
        });
        Ok(Self {
            program: link("exe")?,
            args: args.map_err(|_| MeasureError::Argument("an argument that is not UTF-8".into()))?,
            environment: environment.collect(),
            folder: link("cwd")?,
        })
    }

    /// The last value of an option, which is the one that counts for QEMU.
    fn option(&self, name: &str) -> Option<&str> {
        let at = self.args.iter().rposition(|arg| arg == name)?;
        self.args.get(at + 1).map(String::as_str)
    }

    fn needed(&self, name: &str) -> Result<&str, MeasureError> {
        self.option(name).ok_or_else(|| MeasureError::Argument(format!("no {name}")))
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, MeasureError> {
        read(self.folder.join(self.needed(name)?))
    }

    /// Processors (`-smp`): those that are there from the start, and no others.
    fn vcpus(&self) -> Result<u32, MeasureError> {
        let text = self.option("-smp").unwrap_or("1");
        let unknown = || MeasureError::Argument(format!("-smp {text}"));
        let mut counts = text.split(',').filter_map(|part| match part.split_once('=') {
            None => Some(part),
            Some(("cpus" | "maxcpus", count)) => Some(count),
            Some(_) => None,
        });
        let first: u32 = counts.next().and_then(|count| count.parse().ok()).ok_or_else(unknown)?;
        if counts.any(|count| count.parse() != Ok(first)) {
            return Err(unknown());
        }
        Ok(first)
    }

    /// Memory (`-m`) in bytes, with its unit and nothing else.
    fn memory(&self) -> Result<u64, MeasureError> {
        let text = self.needed("-m")?;
        let size = text.parse::<Size>().map_err(|_| MeasureError::Argument(format!("-m {text}")))?;
        Ok(size.0)
    }

    /// Whether somebody outside may look into the guest and stop it: QEMU's door for a debugger.
    pub fn debug(&self) -> bool {
        self.option("-gdb").is_some_and(|device| device != "none") || self.args.iter().any(|arg| arg == "-s")
    }

    /// What a TDX CPU would measure of this launch. Blocks for some seconds.
    ///
    /// # Errors
    /// A file cannot be read, or its measurement is not known.
    pub fn measure(&self) -> Result<TdxMeasurements, MeasureError> {
        let firmware = self.file("-bios")?;
        let kernel = self.file("-kernel")?;
        let initrd = self.option("-initrd").map_or(Ok(Vec::new()), |_| self.file("-initrd"))?;
        let mut qemu = Command::new(&self.program);
        qemu.env_clear().envs(self.environment.iter().cloned()).current_dir(&self.folder);
        let dump = acpi::dump(qemu, &self.args)?;
        let machine = TdxMachine {
            firmware: &firmware,
            inspection: Inspection::of(&firmware)?,
            kernel: &kernel,
            initrd: &initrd,
            cmdline: self.option("-append").unwrap_or_default(),
            memory: self.memory()?,
            vcpus: self.vcpus()?,
            qemu: dump.qemu,
            page_order: None,
            acpi: Some(&dump.tables),
        };
        Ok(tdx::measure(&machine)?)
    }
}

/// Plays the CPU of a guest that has been launched.
pub trait EmulatedCpu: Send + Sync {
    /// Measures the guest of a QEMU process and answers at its port for quotes, in the guest's data folder, until it ends.
    ///
    /// # Errors
    /// It cannot be measured.
    fn attach(&self, guest: &Path, pid: u32) -> Result<(), MeasureError>;
}

/// Logs that are remembered: of as many guests.
const LOGS: usize = 64;

/// The CPU of one development platform: Intel TDX as it says, **not confidential**.
pub struct DevelopmentCpu {
    platform: DevPlatform,
    endorser: DevEndorser,
    logs: Mutex<VecDeque<EventLog>>,
}

impl DevelopmentCpu {
    /// The CPU of this platform.
    pub fn new(platform: DevPlatform) -> Self {
        Self { endorser: DevEndorser::new(platform.clone()), platform, logs: Mutex::default() }
    }

    fn remember(&self, log: EventLog) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|known| *known != log);
        logs.push_front(log);
        logs.truncate(LOGS);
    }

    /// What was measured into the registers that a quote states.
    fn log(&self, quote: &[u8]) -> Option<EventLog> {
        let quoted = QuotedRegisters::from_quote(quote).ok()?.rtmr;
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.iter().find(|log| log.replay().is_ok_and(|registers| registers == quoted)).cloned()
    }
}

impl EmulatedCpu for DevelopmentCpu {
    fn attach(&self, guest: &Path, pid: u32) -> Result<(), MeasureError> {
        let given = Given::to(pid)?;
        let measured = given.measure()?;
        let launch = Launch { debug: given.debug(), ..measured.to_launch()? };
        self.remember(measured.event_log());
        let path = guest.join(QUOTE_SOCKET);
        let socket = UnixStream::connect(&path).map_err(|source| MeasureError::File { path, source })?;
        let cpu = DevCpu::new(self.platform.clone(), Tee::Tdx, launch);
        // It ends with QEMU.
        std::thread::spawn(move || cpu.serve(socket));
        Ok(())
    }
}

#[async_trait]
impl Endorser for DevelopmentCpu {
    /// The platform's endorsements, and the log of what it measured: the guest does not see that.
    async fn endorse(&self, bundle: &mut Bundle, at: UnixTime) -> Result<(), crate::Error> {
        self.endorser.endorse(bundle, at).await?;
        if let CpuEvidence::Tdx { quote } = &bundle.cpu {
            bundle.event_log = self.log(quote);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(args: &str) -> Given {
        let args = args.split_whitespace().map(str::to_owned).collect();
        Given { program: "qemu".into(), args, environment: Vec::new(), folder: "/".into() }
    }

    #[test]
    fn a_process_is_asked_for_what_it_was_given() {
        let mut sleep =
            Command::new("sleep").args(["60", "0"]).env("COCOON_TRY", "a=b").current_dir("/").spawn().unwrap();
        // Between fork and exec it is still this program, and for a moment after that it has no arguments yet.
        let this = std::env::current_exe().unwrap();
        let ready = |given: &Given| given.program != this && !given.args.is_empty();
        while !ready(&Given::to(sleep.id()).unwrap()) {
            std::thread::yield_now();
        }
        let given = Given::to(sleep.id());
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        let given = given.unwrap();
        assert_eq!((given.args.join(" ").as_str(), given.folder.as_path()), ("60 0", Path::new("/")));
        assert!(given.environment.contains(&("COCOON_TRY".into(), "a=b".into())));
        assert!(Given::to(sleep.id()).is_err(), "a process that has ended");
    }

    #[test]
    fn the_machine_is_read_as_qemu_reads_it() {
        let machine = given("-smp 2,sockets=1,cores=2,threads=1 -m 1024M");
        assert_eq!((machine.vcpus().unwrap(), machine.memory().unwrap(), machine.debug()), (2, 1 << 30, false));
        assert_eq!(given("-m 1G -m 2G").memory().unwrap(), 2 << 30, "the last counts");
        assert_eq!(given("-smp cpus=3,maxcpus=3").vcpus().unwrap(), 3);
        assert_eq!(given("").vcpus().unwrap(), 1);
        for unknown in ["-smp 1,maxcpus=2", "-smp cores=2", "-smp x"] {
            assert!(given(unknown).vcpus().unwrap_err().to_string().contains(unknown), "{unknown}");
        }
        for unknown in ["", "-m 1024", "-m size=1G", "-m 1G,slots=2"] {
            assert!(given(unknown).memory().is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_door_for_a_debugger_is_debugging() {
        for (args, debug) in [("-gdb unix:x", true), ("-s", true), ("-gdb none", false), ("-nodefaults", false)] {
            assert_eq!(given(args).debug(), debug, "{args}");
        }
    }
}
