//! What is asked of a machine, and who answers: the machine itself, or a recording of one.
//!
//! Every look of the doctor is a [`Question`] with a text for an answer, so a machine is a text file: `cocoon host doctor --record`
//! writes one, `--machine` examines one, and the tests keep some.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Access, access};

use crate::vm::qmp;

/// Most bytes of an answer that are kept.
const LONGEST: u64 = 1 << 20;
/// How long a service may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// One look at a machine. It changes nothing there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// The text of a file.
    File(&'a str),
    /// The names in a folder, sorted, one a line.
    Folder(&'a str),
    /// The last part of what a symbolic link points to.
    Link(&'a str),
    /// `usable` if this user may read and write a device.
    Device(&'a str),
    /// Bytes of a file in hexadecimal; a negative offset counts from its end.
    Bytes {
        /// The file.
        path: &'a str,
        /// Where they begin.
        offset: i64,
        /// How many.
        len: usize,
    },
    /// Lines of the kernel's log that contain a word, whatever its case.
    KernelLog(&'a str),
    /// Standard output of a program, its arguments separated by blanks.
    Command(&'a str),
    /// The answer to a QMP command of a QEMU that runs no machine, with an accelerator; JSON.
    Qmp {
        /// The program.
        qemu: &'a str,
        /// `kvm` or `tcg`.
        accelerator: &'a str,
        /// The command.
        command: &'a str,
    },
    /// `connected` if something accepts at a virtual socket.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// `connected` if something accepts at a TCP address.
    Tcp(&'a str),
    /// AMD's `SNP_PLATFORM_STATUS`, in hexadecimal.
    SnpStatus,
    /// A word of a PCI device's first memory window, in hexadecimal.
    Window {
        /// The device, `0000:41:00.0`.
        device: &'a str,
        /// Byte offset.
        offset: u64,
    },
}

impl Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path}"),
            Self::Folder(path) => write!(f, "folder {path}"),
            Self::Link(path) => write!(f, "link {path}"),
            Self::Device(path) => write!(f, "device {path}"),
            Self::Bytes { path, offset, len } => write!(f, "bytes {path} {offset} {len}"),
            Self::KernelLog(word) => write!(f, "kernel-log {word}"),
            Self::Command(line) => write!(f, "command {line}"),
            Self::Qmp { qemu, accelerator, command } => write!(f, "qmp {qemu} {accelerator} {command}"),
            Self::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::SnpStatus => write!(f, "snp-status"),
            Self::Window { device, offset } => write!(f, "window {device} {offset:#x}"),
        }
    }
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer, without blanks around it.
    Text(String),
    /// There is no such thing.
    Missing,
    /// This user may not look.
    Denied,
    /// It is there and does not work; why.
    Failed(String),
}

impl Answer {
    /// The text, if there is one.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Answers questions about a machine.
pub trait Machine {
    /// Looks once.
    fn ask(&self, question: &Question<'_>) -> Answer;
}

impl<M: Machine + ?Sized> Machine for Box<M> {
    fn ask(&self, question: &Question<'_>) -> Answer {
        (**self).ask(question)
    }
}

/// The machine this runs on, or a copy of its files under another root folder.
#[derive(Clone, Debug)]
pub struct Live {
    root: PathBuf,
}

impl Default for Live {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Live {
    /// The files under a root folder. Programs and services are those of this machine, and asked only where the root is `/`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Machine for Live {
    fn ask(&self, question: &Question<'_>) -> Answer {
        match question {
            Question::File(path) => answer(read(&self.path(path))),
            Question::Folder(path) => answer(names(&self.path(path))),
            Question::Link(path) => {
                answer(fs::read_link(self.path(path)).map(|target| {
                    String::from_utf8_lossy(target.file_name().unwrap_or_default().as_bytes()).into_owned()
                }))
            }
            Question::Device(path) => {
                let usable = access(self.path(path), Access::READ_OK | Access::WRITE_OK).map(|()| "usable".into());
                answer(usable.map_err(Into::into))
            }
            Question::Bytes { path, offset, len } => answer(bytes(&self.path(path), *offset, *len)),
            _ if self.root != Path::new("/") => Answer::Missing,
            Question::KernelLog(word) => kernel_log(word),
            Question::Command(line) => command(line),
            Question::Qmp { qemu, accelerator, command } => match qmp::ask(qemu, accelerator, command) {
                Ok(value) => Answer::Text(value.to_string()),
                Err(qmp::Error::Start(error)) => answer(Err(error)),
                Err(error) => Answer::Failed(error.to_string()),
            },
            Question::Vsock { cid, port } => {
                answer(cocoon_host_device::vsock_connect(*cid, *port).map(|_| "connected".into()))
            }
            Question::Tcp(address) => answer(connect(address)),
            Question::SnpStatus => answer(
                File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/sev")
                    .and_then(|device| cocoon_host_device::snp_platform_status(&device))
                    .map(hex::encode),
            ),
            Question::Window { device, offset } => {
                let path = format!("/sys/bus/pci/devices/{device}/resource0");
                answer(cocoon_host_device::window_word(Path::new(&path), *offset).map(|word| format!("{word:#x}")))
            }
        }
    }
}

fn answer(result: std::io::Result<String>) -> Answer {
    match result {
        Ok(text) => Answer::Text(text.trim().to_owned()),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Answer::Missing,
            ErrorKind::PermissionDenied => Answer::Denied,
            _ => Answer::Failed(error.to_string()),
        },
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn names(path: &Path) -> std::io::Result<String> {
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names.join("\n"))
}

fn bytes(path: &Path, offset: i64, len: usize) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(match u64::try_from(offset) {
        Ok(offset) => SeekFrom::Start(offset),
        Err(_) => SeekFrom::End(offset),
    })?;
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

fn connect(address: &str) -> std::io::Result<String> {
    use std::net::{TcpStream, ToSocketAddrs};
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok("connected".into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn command(line: &str) -> Answer {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    // The language of messages is not the user's here: they are read.
    command.args(words).env("LC_ALL", "C").stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => {
            Answer::Text(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => {
            let said = [output.stderr, output.stdout].map(|said| String::from_utf8_lossy(&said).trim().to_owned());
            let said = said.into_iter().find(|said| !said.is_empty()).unwrap_or_else(|| output.status.to_string());
            Answer::Failed(said.lines().next().unwrap_or_default().to_owned())
        }
        Err(error) => answer(Err(error)),
    }
}

fn kernel_log(word: &str) -> Answer {
    let log = match command("dmesg") {
        Answer::Text(log) => Answer::Text(log),
        _ => command("journalctl --dmesg --boot --output=cat --no-pager --quiet"),
    };
    match log {
        Answer::Text(log) => {
            let word = word.to_lowercase();
            let lines: Vec<&str> = log.lines().filter(|line| line.to_lowercase().contains(&word)).take(200).collect();
            Answer::Text(lines.join("\n").trim().to_owned())
        }
        _ => Answer::Denied,
    }
}

/// A machine as it was when it was recorded. Whatever was not asked then is missing.
///
/// The text holds, for each question, a line `== QUESTION` (`== denied QUESTION`, `== failed QUESTION`) and the answer's lines below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    answers: BTreeMap<String, Answer>,
}

impl Recording {
    /// First line of a recording.
    pub const HEADER: &'static str = "# cocoon machine 1";

    /// Reads a recording.
    ///
    /// # Errors
    /// Its first line is not [`Self::HEADER`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next().map(str::trim) != Some(Self::HEADER) {
            return Err(format!("this is no recording of a machine: its first line is not {:?}", Self::HEADER));
        }
        let mut recording = Self::default();
        let mut open: Option<(String, Vec<&str>)> = None;
        for line in lines {
            match (line.strip_prefix("== "), &mut open) {
                (Some(question), open) => {
                    recording.close(open.take());
                    *open = Some((question.trim().to_owned(), Vec::new()));
                }
                (None, Some((_, text))) => text.push(line),
                (None, None) => {}
            }
        }
        recording.close(open);
        Ok(recording)
    }

    fn close(&mut self, section: Option<(String, Vec<&str>)>) {
        let Some((question, lines)) = section else { return };
        let text = lines.join("\n").trim().to_owned();
        let (question, answer) = match question.split_once(' ') {
            Some(("denied", question)) => (question.to_owned(), Answer::Denied),
            Some(("failed", question)) => (question.to_owned(), Answer::Failed(text)),
            _ => (question, Answer::Text(text)),
        };
        self.set(&question, answer);
    }

    /// Replaces one answer; `question` as it is written.
    pub fn set(&mut self, question: &str, answer: Answer) {
        match answer {
            Answer::Missing => self.answers.remove(question),
            answer => self.answers.insert(question.to_owned(), answer),
        };
    }

    /// The answer to a question as it is written.
    pub fn get(&self, question: &str) -> Answer {
        self.answers.get(question).cloned().unwrap_or(Answer::Missing)
    }
}

impl Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Self::HEADER)?;
        for (question, answer) in &self.answers {
            let (kind, text) = match answer {
                Answer::Text(text) => ("", text.as_str()),
                Answer::Failed(text) => ("failed ", text.as_str()),
                Answer::Denied => ("denied ", ""),
                Answer::Missing => continue,
            };
            writeln!(f, "== {kind}{question}")?;
            for line in text.lines() {
                // A line of the answer must not pass for a question.
                let blank = if line.starts_with("==") { " " } else { "" };
                writeln!(f, "{blank}{line}")?;
            }
        }
        Ok(())
    }
}

impl Machine for Recording {
    fn ask(&self, question: &Question<'_>) -> Answer {
        self.get(&question.to_string())
    }
}

/// Keeps what a machine answers.
pub struct Recorder<M> {
    machine: M,
    recording: RefCell<Recording>,
}

impl<M: Machine> Recorder<M> {
    /// Begins to keep it.
    pub fn new(machine: M) -> Self {
        Self { machine, recording: RefCell::default() }
    }

    /// What was answered so far.
    pub fn recording(&self) -> Recording {
        self.recording.borrow().clone()
    }
}

impl<M: Machine> Machine for Recorder<M> {
    fn ask(&self, question: &Question<'_>) -> Answer {
        let answer = self.machine.ask(question);
        self.recording.borrow_mut().set(&question.to_string(), answer.clone());
        answer
    }
}

/// A count of bytes for a person: `64 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut text = String::new();
    let (unit, name) = match bytes {
        0..1_048_576 => (1 << 10, "KiB"),
        1_048_576..1_073_741_824 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let _ = write!(text, "{} {name}", bytes / unit);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_read_as_it_was_written() {
        let mut recording = Recording::default();
        recording.set("file /a", Answer::Text("one\n\n two".into()));
        recording.set("command b --help", Answer::Failed("exit 1".into()));
        recording.set("bytes /c 0 8", Answer::Denied);
        assert_eq!(Recording::parse(&recording.to_string()).unwrap(), recording);
        assert_eq!(recording.ask(&Question::File("/nowhere")), Answer::Missing);
    }

    #[test]
    fn an_answer_cannot_pass_for_a_question() {
        let mut recording = Recording::default();
        recording.set("file /a", Answer::Text("== file /b\nforged".into()));
        let read = Recording::parse(&recording.to_string()).unwrap();
        assert_eq!(read.get("file /b"), Answer::Missing);
    }

    #[test]
    fn what_is_no_recording_is_said_to_be_none() {
        assert!(Recording::parse("== file /a\n").unwrap_err().contains(Recording::HEADER));
    }

    #[test]
    fn files_folders_links_and_bytes_are_read_under_the_root() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dir")).unwrap();
        fs::write(root.path().join("dir/b"), " text\n").unwrap();
        std::os::unix::fs::symlink("../../bus/pci/drivers/vfio-pci", root.path().join("dir/a")).unwrap();
        let machine = Live::at(root.path());
        let text = |text: &str| Answer::Text(text.into());
        assert_eq!(machine.ask(&Question::File("/dir/b")), text("text"));
        assert_eq!(machine.ask(&Question::Folder("/dir")), text("a\nb"));
        assert_eq!(machine.ask(&Question::Link("/dir/a")), text("vfio-pci"));
        assert_eq!(machine.ask(&Question::Bytes { path: "/dir/b", offset: -3, len: 2 }), text("7874"));
        assert_eq!(machine.ask(&Question::Device("/dir/b")), text("usable"));
        assert_eq!(machine.ask(&Question::File("/dir/none")), Answer::Missing);
        assert_eq!(machine.ask(&Question::Command("true")), Answer::Missing, "programs are not under the root");
    }

    #[test]
    fn programs_answer_or_fail_with_their_first_words() {
        let machine = Live::default();
        assert_eq!(machine.ask(&Question::Command("echo yes")), Answer::Text("yes".into()));
        assert_eq!(machine.ask(&Question::Command("cocoon-no-such-program")), Answer::Missing);
        assert!(
            matches!(machine.ask(&Question::Command("ls /no/such/folder")), Answer::Failed(why) if why.contains("/no/such/folder"))
        );
    }

    #[test]
    fn a_recorder_keeps_what_it_passes_on() {
        let recorder = Recorder::new(Live::default());
        let answer = recorder.ask(&Question::Command("echo yes"));
        assert_eq!(recorder.recording().ask(&Question::Command("echo yes")), answer);
    }
}
