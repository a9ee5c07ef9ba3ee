//! A QEMU process with its guest: started, watched, stopped.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::command::CommandLine;
use super::config::{QMP_SOCKET, QUOTE_SOCKET};
use super::console::{Console, Tail};
use super::death::{Death, Seen, explain};
use super::qmp::{self, Control, Events};

/// How long QEMU may take until its control socket answers: it sets a guest's memory up first.
const START: Duration = Duration::from_secs(300);
/// How long QEMU may take to end when it is told to.
const QUIT: Duration = Duration::from_secs(10);
const WATCH: Duration = Duration::from_millis(50);

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The guest's folder cannot be used.
    #[error("{}: {why}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The program cannot be run.
    #[error("{program}: {source}; `cocoon host doctor` says what to install")]
    Program {
        /// The program.
        program: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// QEMU ended before its guest ran.
    #[error("{}", .0.why)]
    Ended(Death),
}

#[derive(Default)]
struct Watched {
    seen: Seen,
    stderr: Tail,
    console: Tail,
}

/// A running guest. It is killed when this is dropped.
pub struct Vm {
    child: Child,
    watched: Arc<Mutex<Watched>>,
    control: Option<Control>,
    readers: Vec<JoinHandle<()>>,
    death: Option<Death>,
    _lock: File,
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vm {
    /// Starts it, and waits until QEMU answers at its control socket. Its console goes to `console.log` of its folder.
    ///
    /// # Errors
    /// The folder is another guest's, or QEMU ends; the message says why.
    pub fn start(command: &CommandLine, folder: &Path) -> Result<Self, StartError> {
        let fault = |why: std::io::Error| StartError::Folder { path: folder.to_owned(), why: why.to_string() };
        fs::create_dir_all(folder).map_err(fault)?;
        let own = File::options().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(fault)?;
        own.try_lock().map_err(|_| StartError::Folder {
            path: folder.to_owned(),
            why: "another guest runs with this folder; give each its own".into(),
        })?;
        // The lock is ours, so whoever launched what runs here is gone: it has its ports and memory still.
        match qmp::end_orphan(&folder.join(QMP_SOCKET), QUIT) {
            Ok(false) => {}
            Ok(true) => tracing::warn!(folder = %folder.display(), "a guest whose host was killed was ended"),
            Err(error) => {
                let why = format!(
                    "a guest whose host was killed still runs with it and does not end ({error}): end its QEMU"
                );
                return Err(StartError::Folder { path: folder.to_owned(), why });
            }
        }
        for socket in [QMP_SOCKET, QUOTE_SOCKET] {
            let _ = fs::remove_file(folder.join(socket));
        }
        let mut console = Console::open(folder).map_err(fault)?;
        console.write(b"--- cocoon starts the guest ---\n").map_err(fault)?;
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| StartError::Program { program: command.program.clone(), source })?;
        let watched = Arc::new(Mutex::new(Watched::default()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let watched = watched.clone();
            readers.push(std::thread::spawn(move || keep_console(stdout, console, &watched)));
        }
        let gone = Arc::new(AtomicBool::new(false));
        if let Some(stderr) = child.stderr.take() {
            let (watched, gone) = (watched.clone(), gone.clone());
            readers.push(std::thread::spawn(move || {
                keep_errors(stderr, &watched);
                gone.store(true, Ordering::Relaxed);
            }));
        }
        let mut vm = Self { child, watched, control: None, readers, death: None, _lock: own };
        match qmp::connect(&folder.join(QMP_SOCKET), START, || gone.load(Ordering::Relaxed)) {
            Ok((control, events)) => {
                lock(&vm.watched).seen.ran = true;
                let watched = vm.watched.clone();
                vm.readers.push(std::thread::spawn(move || watch(events, &watched)));
                vm.control = Some(control);
                Ok(vm)
            }
            Err(_) => {
                let until = Instant::now() + QUIT;
                let death = loop {
                    if let Some(death) = vm.ended() {
                        break death;
                    }
                    if Instant::now() > until {
                        vm.kill();
                    }
                    std::thread::sleep(WATCH);
                };
                Err(StartError::Ended(death))
            }
        }
    }

    /// Process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and why.
    pub fn ended(&mut self) -> Option<Death> {
        if self.death.is_none() {
            let status = self.child.try_wait().ok()??;
            // They end with QEMU, and have then seen all of it.
            for reader in self.readers.drain(..) {
                let _ = reader.join();
            }
            let mut watched = lock(&self.watched);
            watched.seen.stderr = watched.stderr.lines();
            watched.seen.console = watched.console.lines();
            self.death = Some(explain(status, &watched.seen));
        }
        self.death.clone()
    }

    /// Stops it: as its power button would, then by ending QEMU, then by force. Waits until it has ended.
    pub fn stop(&mut self, patience: Duration) -> Death {
        lock(&self.watched).seen.stopping = true;
        for (command, patience) in [("system_powerdown", patience), ("quit", QUIT)] {
            if let Some(death) = self.ended() {
                return death;
            }
            if self.control.as_mut().is_some_and(|control| control.execute(command).is_ok())
                && let Some(death) = self.wait(patience)
            {
                return death;
            }
        }
        loop {
            self.kill();
            if let Some(death) = self.wait(QUIT) {
                return death;
            }
        }
    }

    fn wait(&mut self, patience: Duration) -> Option<Death> {
        let until = Instant::now() + patience;
        loop {
            match self.ended() {
                None if Instant::now() < until => std::thread::sleep(WATCH),
                death => return death,
            }
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

fn keep_console(mut stdout: ChildStdout, mut console: Console, watched: &Mutex<Watched>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stdout.read(&mut buffer) {
        lock(watched).console.push(&buffer[..count]);
        if let Err(error) = console.write(&buffer[..count]) {
            tracing::warn!(%error, "the guest's console cannot be kept");
        }
    }
}

fn keep_errors(stderr: ChildStderr, watched: &Mutex<Watched>) {
    let (mut stderr, mut buffer) = (BufReader::new(stderr), [0; 1024]);
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        lock(watched).stderr.push(&buffer[..count]);
    }
}

fn watch(mut events: Events, watched: &Mutex<Watched>) {
    while let Ok(Some((name, data))) = events.event() {
        let mut watched = lock(watched);
        match name.as_str() {
            "SHUTDOWN" => watched.seen.shutdown = data["reason"].as_str().map(str::to_owned),
            "GUEST_PANICKED" => {
                let mut said = Tail::default();
                said.push(data["info"].to_string().as_bytes());
                watched.seen.panicked = said.lines().pop();
            }
            _ => {}
        }
    }
}
