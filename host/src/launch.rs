//! Starting a guest: a process here, a virtual machine behind the same trait, or one that runs already ([`crate::join`]).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cocoon_attestation::dev::DevPlatform;
use cocoon_attestation::dev::cpu::{DevCpu, Tee};
use cocoon_firmware_measurements::process_launch;

use crate::Error;

/// How long a guest may take to load its model.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// How often is looked at whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// What a guest is started with.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// Its measured configuration.
    pub config: PathBuf,
    /// Its model folder.
    pub model: PathBuf,
    /// Where its log goes.
    pub log: PathBuf,
    /// Set when nobody wants it any more: a launcher that waits for its guest gives up.
    pub given_up: Arc<AtomicBool>,
}

/// Starts guests.
pub trait EnclaveLauncher: Send + Sync {
    /// Starts one and waits until it listens. Blocks.
    ///
    /// # Errors
    /// It does not start; the message names its log.
    fn launch(&self, spec: &LaunchSpec) -> Result<RunningEnclave, Error>;
}

/// What a launcher has started: a process here, a virtual machine's monitor elsewhere.
pub trait Guest: Send {
    /// Process id of it, or of what runs it; `None` if it runs elsewhere.
    fn pid(&self) -> Option<u32>;

    /// Whether it has ended, and how.
    fn ended(&mut self) -> Option<String>;

    /// Ends it, and waits until it has ended.
    fn kill(&mut self);
}

impl Guest for Child {
    fn pid(&self) -> Option<u32> {
        Some(self.id())
    }

    fn ended(&mut self) -> Option<String> {
        match self.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    fn kill(&mut self) {
        let _ = Child::kill(self);
        let _ = self.wait();
    }
}

/// A guest that runs. It is killed when this is dropped.
pub struct RunningEnclave {
    /// Base URL at which the host reaches it.
    pub base_url: String,
    guest: Box<dyn Guest>,
}

impl RunningEnclave {
    /// A guest that the host reaches at a URL.
    pub fn new(base_url: String, guest: Box<dyn Guest>) -> Self {
        Self { base_url, guest }
    }

    /// Its process id; `None` if it runs elsewhere.
    pub fn pid(&self) -> Option<u32> {
        self.guest.pid()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<String> {
        self.guest.ended()
    }

    /// Ends it.
    pub fn kill(&mut self) {
        self.guest.kill();
    }
}

impl Drop for RunningEnclave {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the guest as a process, with the development platform as its CPU. **Not confidential.**
pub struct ProcessLauncher {
    binary: PathBuf,
    platform: DevPlatform,
    tee: Tee,
}

impl ProcessLauncher {
    /// A launcher of this binary.
    pub fn new(binary: PathBuf, platform: DevPlatform, tee: Tee) -> Self {
        Self { binary, platform, tee }
    }
}

impl EnclaveLauncher for ProcessLauncher {
    fn launch(&self, spec: &LaunchSpec) -> Result<RunningEnclave, Error> {
        let failed = |why: String| Error::Launch { binary: self.binary.clone(), why, log: spec.log.clone() };
        // The measurement is of the file that is executed, not of what anybody says it is.
        let launch = process_launch(&self.binary)?.to_launch();
        let (host, guest) = UnixStream::pair().map_err(|error| failed(error.to_string()))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(|error| failed(format!("its log cannot be written: {error}")))?;
        let mut child = Command::new(&self.binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--platform", "development", "--config"])
            .arg(&spec.config)
            .arg("--model")
            .arg(&spec.model)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(guest)))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let cpu = DevCpu::new(self.platform.clone(), self.tee, launch);
        std::thread::spawn(move || {
            // It ends with the guest.
            let _ = cpu.serve(host);
        });
        let stdout = child.stdout.take();
        let mut running = RunningEnclave::new(String::new(), Box::new(child));
        let (sender, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            if let Some(stdout) = stdout {
                let _ = BufReader::new(stdout).read_line(&mut line);
            }
            let _ = sender.send(line);
        });
        let until = Instant::now() + READY_TIMEOUT;
        let line = loop {
            match line.recv_timeout(LOOK) {
                Ok(line) => break line,
                Err(_) if spec.given_up.load(Ordering::Relaxed) => return Err(failed("the host stops".into())),
                Err(_) if Instant::now() > until => return Err(failed("it does not become ready".into())),
                Err(_) => {}
            }
        };
        let ready: serde_json::Value = serde_json::from_str(&line).map_err(|_| {
            failed(
                running.ended().map_or_else(|| "it said something unexpected".into(), |how| format!("it ended: {how}")),
            )
        })?;
        let address = ready["listening"].as_str().ok_or_else(|| failed("it does not say where it listens".into()))?;
        running.base_url = format!("http://{address}");
        Ok(running)
    }
}
