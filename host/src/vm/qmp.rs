//! QEMU's control socket (QEMU Machine Protocol): JSON lines over a Unix socket, and over standard input for questions without a machine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest line that is read.
const LONGEST: u64 = 1 << 20;
/// How long a QEMU without a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why QEMU does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program cannot be run.
    #[error("{0}")]
    Start(io::Error),
    /// The socket broke.
    #[error("QEMU's control socket: {0}")]
    Io(#[from] io::Error),
    /// It said something else than the protocol has.
    #[error("QEMU's control socket gave something unexpected")]
    Protocol,
    /// QEMU refused.
    #[error("{0}")]
    Refused(String),
}

/// One message; `None` at the end.
fn message(reader: &mut impl BufRead) -> Result<Option<Value>, Error> {
    let mut line = Vec::new();
    reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|_| Error::Protocol)
}

/// The next answer, skipping events.
fn reply(reader: &mut impl BufRead) -> Result<Value, Error> {
    while let Some(mut message) = message(reader)? {
        if let Some(error) = message.get("error") {
            return Err(Error::Refused(error["desc"].as_str().unwrap_or("refused").to_owned()));
        }
        if let Some(value) = message.get_mut("return") {
            return Ok(value.take());
        }
    }
    Err(Error::Protocol)
}

/// Asks a QEMU that runs no machine.
///
/// # Errors
/// It does not start, or refuses.
pub fn ask(qemu: &str, accelerator: &str, command: &str) -> Result<Value, Error> {
    let mut child = Command::new(qemu)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            &format!("none,accel={accelerator}"),
            "-qmp",
            "stdio",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::Start)?;
    let input = child.stdin.take();
    let output = child.stdout.take();
    let (sender, answers) = std::sync::mpsc::channel();
    let command = command.to_owned();
    std::thread::spawn(move || {
        let (Some(mut input), Some(output)) = (input, output) else { return };
        let mut reader = BufReader::new(output);
        let mut talk = || -> Result<Value, Error> {
            message(&mut reader)?.ok_or(Error::Protocol)?;
            writeln!(input, "{}", json!({"execute": "qmp_capabilities"}))?;
            reply(&mut reader)?;
            writeln!(input, "{}", json!({"execute": command}))?;
            reply(&mut reader)
        };
        let _ = sender.send(talk());
    });
    let answer = answers.recv_timeout(PATIENCE);
    let _ = child.kill();
    let output = child.wait_with_output()?;
    match answer {
        Ok(Err(Error::Protocol | Error::Io(_))) | Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it says nothing").to_owned();
            Err(Error::Refused(said))
        }
        Ok(answer) => answer,
    }
}

/// Whether a process has this socket among its arguments.
fn runs_with(socket: &Path) -> bool {
    let socket = socket.as_os_str().as_encoded_bytes();
    let holds = |line: Vec<u8>| line.windows(socket.len()).any(|part| part == socket);
    let Ok(mut processes) = std::fs::read_dir("/proc") else { return false };
    processes.any(|process| process.and_then(|process| std::fs::read(process.path().join("cmdline"))).is_ok_and(holds))
}

/// Ends the QEMU behind a control socket, if there is one, whose launcher was killed: nobody else is connected to it. Gives whether one was there.
///
/// # Errors
/// It does not take its end within `patience`.
pub fn end_orphan(path: &Path, patience: Duration) -> Result<bool, Error> {
    let Ok(stream) = UnixStream::connect(path) else { return Ok(false) };
    stream.set_read_timeout(Some(patience))?;
    let mut events = BufReader::new(stream.try_clone()?);
    message(&mut events)?.ok_or(Error::Protocol)?;
    let mut control = Control(stream);
    control.execute("qmp_capabilities")?;
    reply(&mut events)?;
    control.execute("quit")?;
    // It closes the socket with everything else it has.
    while matches!(message(&mut events), Ok(Some(_))) {}
    // Its files and ports are free when its process is gone, a moment later.
    let until = Instant::now() + patience;
    while runs_with(path) {
        if Instant::now() > until {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// The writing end of a guest's control socket.
pub struct Control(UnixStream);

/// The reading end: events.
pub struct Events(BufReader<UnixStream>);

/// Connects as soon as QEMU listens.
///
/// # Errors
/// It does not within `patience`, or `gone` says that it has ended.
pub fn connect(path: &Path, patience: Duration, gone: impl Fn() -> bool) -> Result<(Control, Events), Error> {
    let until = Instant::now() + patience;
    let stream = loop {
        match UnixStream::connect(path) {
            Ok(stream) => break stream,
            Err(error) if gone() || Instant::now() > until => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut events = BufReader::new(stream.try_clone()?);
    let mut control = Control(stream);
    message(&mut events)?.ok_or(Error::Protocol)?;
    control.execute("qmp_capabilities")?;
    reply(&mut events)?;
    Ok((control, Events(events)))
}

impl Control {
    /// Sends a command without arguments. What comes of it shows in events and in the process's end.
    ///
    /// # Errors
    /// The socket is closed.
    pub fn execute(&mut self, command: &str) -> Result<(), Error> {
        Ok(writeln!(self.0, "{}", json!({"execute": command}))?)
    }

    /// Sends a command without arguments and waits for its answer; events on the way are lost.
    ///
    /// # Errors
    /// The socket is closed, or QEMU refuses.
    pub fn ask(&mut self, events: &mut Events, command: &str) -> Result<Value, Error> {
        self.execute(command)?;
        reply(&mut events.0)
    }
}

impl Events {
    /// The next event's name and data. Answers are skipped.
    ///
    /// # Errors
    /// The socket broke.
    pub fn event(&mut self) -> Result<Option<(String, Value)>, Error> {
        while let Some(mut message) = message(&mut self.0)? {
            if let Some(name) = message["event"].as_str().map(str::to_owned) {
                return Ok(Some((name, message["data"].take())));
            }
        }
        Ok(None)
    }
}
