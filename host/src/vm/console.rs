//! A guest's console, kept on disk within bounds. What a guest writes is not trusted: it is bytes in a file, and of its last lines only
//! printable characters are ever shown.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of a file before the next one is begun.
const FILE: u64 = 8 << 20;
/// Older files that are kept.
const KEPT: usize = 3;
/// Lines and bytes of each that are remembered.
const LINES: usize = 60;
const LINE: usize = 400;

/// The last lines of a text that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    /// Takes more text.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.close(),
                b'\r' => {}
                byte if self.open.len() < LINE => self.open.push(*byte),
                _ => {}
            }
        }
    }

    fn close(&mut self) {
        let line = printable(&std::mem::take(&mut self.open));
        if line.is_empty() {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The lines, oldest first; an unfinished one is the last.
    pub fn lines(&self) -> Vec<String> {
        let open = printable(&self.open);
        self.lines.iter().cloned().chain((!open.is_empty()).then_some(open)).collect()
    }
}

/// Without terminal sequences and other control characters.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // CSI sequences end with a letter or '~'; of others the escape alone is dropped.
            if chars.next_if_eq(&'[').is_some() {
                while chars.next_if(|c| !c.is_ascii_alphabetic() && *c != '~').is_some() {}
                chars.next();
            }
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain.trim().to_owned()
}

/// The files.
pub struct Console {
    path: PathBuf,
    file: File,
    written: u64,
    most: u64,
}

impl Console {
    /// Goes on in `console.log` of a folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_with(folder, FILE)
    }

    fn open_with(folder: &Path, most: u64) -> io::Result<Self> {
        let path = folder.join("console.log");
        let file = File::options().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, most })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps bytes.
    ///
    /// # Errors
    /// The disk is full, or the folder is gone.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + bytes.len() as u64 > self.most && self.written > 0 {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |index: usize| match index {
            0 => self.path.clone(),
            index => self.path.with_extension(format!("log.{index}")),
        };
        for index in (0..KEPT).rev() {
            match fs::rename(name(index), name(index + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = File::options().create(true).append(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_bounded_and_hold_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let mut console = Console::open_with(folder.path(), 100).unwrap();
        for index in 0..200 {
            console.write(format!("line {index:04}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["console.log", "console.log.1", "console.log.2", "console.log.3"]);
        let text: String =
            names.iter().rev().map(|name| fs::read_to_string(folder.path().join(name)).unwrap()).collect();
        assert!(text.len() <= 400 && text.ends_with("line 0199\n") && text.contains("line 0165\n"), "{text}");
    }

    #[test]
    fn a_console_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        Console::open(folder.path()).unwrap().write(b"one\n").unwrap();
        let mut console = Console::open(folder.path()).unwrap();
        console.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(console.path()).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn last_lines_are_bounded_and_cannot_move_the_cursor() {
        let mut tail = Tail::default();
        for index in 0..1_000 {
            tail.push(format!("line {index}\r\n").as_bytes());
        }
        tail.push(&[b'x'; 10_000]);
        tail.push(b"\n\x1b[31;1mred\x1b[0m\x07 \x1b]0;title");
        let lines = tail.lines();
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[LINES - 1].len(), LINE);
        assert_eq!(lines[LINES], "red ]0;title");
    }
}
