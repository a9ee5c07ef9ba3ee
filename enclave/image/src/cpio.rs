//! The initial ram disk: a cpio archive in the "newc" format that the kernel unpacks
//! (`Documentation/driver-api/early-userspace/buffer-format`).
//!
//! The bytes depend on paths, kinds and contents alone: entries are sorted, everything belongs to user 0, was changed at time 0, and is
//! numbered in order. It is not compressed: a compressor's version would be one more thing that a stranger has to reproduce.

use std::collections::BTreeMap;
use std::io::{self, Write};

enum Entry {
    Folder,
    File { bytes: Vec<u8>, executable: bool },
    CharacterDevice { major: u32, minor: u32 },
}

/// What goes into an archive.
#[derive(Default)]
pub struct Archive(BTreeMap<String, Entry>);

const TRAILER: &str = "TRAILER!!!";

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder, and those above it. Paths have no leading slash.
    pub fn folder(&mut self, path: &str) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::Folder);
    }

    /// Adds a file that its owner can read, and start if it is executable.
    pub fn file(&mut self, path: &str, bytes: Vec<u8>, executable: bool) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::File { bytes, executable });
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::CharacterDevice { major, minor });
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Folder);
        }
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// A file is longer than the format's 4 GiB, or the writer fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut number = 0;
        for (path, entry) in &self.0 {
            number += 1;
            let (mode, links, bytes, device): (u32, u32, &[u8], _) = match entry {
                Entry::Folder => (0o040_755, 2, &[], (0, 0)),
                Entry::File { bytes, executable } => {
                    (if *executable { 0o100_555 } else { 0o100_444 }, 1, bytes, (0, 0))
                }
                Entry::CharacterDevice { major, minor } => (0o020_600, 1, &[], (*major, *minor)),
            };
            write_entry(out, number, path, mode, links, bytes, device)?;
        }
        write_entry(out, 0, TRAILER, 0, 1, &[], (0, 0))
    }
}

fn write_entry(
    out: &mut impl Write,
    number: u32,
    path: &str,
    mode: u32,
    links: u32,
    bytes: &[u8],
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let size = u32::try_from(bytes.len())
        .map_err(|_| io::Error::other(format!("{path} is too long for an initial ram disk")))?;
    let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
    // Inode, mode, user, group, links, time, size, device, device of a device, length of the name, checksum (none in this format).
    let numbers = [number, mode, 0, 0, links, 0, size, 0, 0, major, minor, name, 0];
    let mut header = String::from("070701");
    for number in numbers {
        header += &format!("{number:08X}");
    }
    out.write_all(header.as_bytes())?;
    out.write_all(path.as_bytes())?;
    out.write_all(&[0; 4][..1 + padding(header.len() + path.len() + 1)])?;
    out.write_all(bytes)?;
    out.write_all(&[0; 3][..padding(bytes.len())])
}

/// Zero bytes up to the next multiple of four.
fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_archive_is_the_bytes_of_the_format() {
        let mut archive = Archive::new();
        archive.file("bin/a", b"hello".to_vec(), true);
        archive.character_device("dev/console", 5, 1);
        let expected = [
            "07070100000001000041ED00000000000000000000000200000000000000000000000000000000000000000000000000000004",
            "00000000bin\0\0\0",
        ];
        let bytes = written(&archive);
        assert!(bytes.starts_with(expected.concat().as_bytes()), "{}", String::from_utf8_lossy(&bytes[..120]));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("0000816D") && text.contains("bin/a\0hello\0\0\x00070701"), "{text:?}");
        assert!(text.contains("0000000500000001") && text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn the_order_in_which_things_are_added_does_not_matter() {
        let mut one = Archive::new();
        one.file("b/c", vec![1], false);
        one.folder("a");
        let mut other = Archive::new();
        other.folder("a");
        other.folder("b");
        other.file("b/c", vec![1], false);
        assert_eq!(written(&one), written(&other));
    }
}
