//! The model's file system: EROFS (`fs/erofs/erofs_fs.h`), uncompressed, so that the kernel reads it with the least code.
//!
//! Weights do not compress, and a writer of a hundred lines is easier to check than a tool's version is to reproduce. Layout: block 0 the
//! superblock; then the inodes, folders first; then the folders' blocks; then the files' blocks. Everything belongs to user 0, was changed
//! at time 0 and is read-only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::verity::{BLOCK, VerityWriter};

const INODE: u64 = 64;
/// Inodes are numbered by their place, in units of 32 bytes; they begin at block 1.
const FIRST_NID: u64 = BLOCK as u64 / 32;
const DIRENT: usize = 12;

#[derive(Clone, Copy)]
enum Kind {
    File = 1,
    Folder = 2,
}

#[derive(Default)]
struct Folder {
    /// Names in the order of their bytes, which is the order on disk; with the index of the inode.
    names: BTreeMap<Vec<u8>, (Kind, usize)>,
    parent: usize,
    folders: u32,
}

struct SourceFile {
    path: PathBuf,
    size: u64,
}

/// A file system that can be written.
pub struct FileSystem {
    folders: Vec<Folder>,
    files: Vec<SourceFile>,
    /// Blocks of each folder.
    listings: Vec<Vec<u8>>,
}

impl FileSystem {
    /// Plans a file system of these files, each its path inside and where it is read from.
    ///
    /// # Errors
    /// A file cannot be looked at, or a name is longer than 255 bytes.
    pub fn plan(entries: &[(String, PathBuf)]) -> Result<Self, Error> {
        let mut folders = vec![Folder::default()];
        let mut by_path: BTreeMap<&str, usize> = BTreeMap::from([("", 0)]);
        let mut places = Vec::new();
        for (name, _) in entries {
            let mut parent = 0;
            for (at, _) in name.match_indices('/') {
                parent = match by_path.get(&name[..at]) {
                    Some(index) => *index,
                    None => {
                        folders.push(Folder { parent, ..Folder::default() });
                        let index = folders.len() - 1;
                        folders[parent].names.insert(last(&name[..at])?, (Kind::Folder, index));
                        folders[parent].folders += 1;
                        by_path.insert(&name[..at], index);
                        index
                    }
                };
            }
            places.push((parent, last(name)?));
        }
        let mut files = Vec::new();
        for ((parent, name), (_, path)) in places.into_iter().zip(entries) {
            let size = std::fs::metadata(path).map_err(Error::file(path))?.len();
            let index = folders.len() + files.len();
            if folders[parent].names.insert(name, (Kind::File, index)).is_some() {
                return Err(Error::Manifest(format!("{} is there twice", path.display())));
            }
            files.push(SourceFile { path: path.clone(), size });
        }
        let listings = (0..folders.len()).map(|index| listing(&folders, index)).collect();
        Ok(Self { folders, files, listings })
    }

    fn inode_blocks(&self) -> u64 {
        ((self.folders.len() + self.files.len()) as u64 * INODE).div_ceil(BLOCK as u64)
    }

    fn sizes(&self) -> impl Iterator<Item = u64> {
        self.listings.iter().map(|listing| listing.len() as u64).chain(self.files.iter().map(|file| file.size))
    }

    /// Blocks of the whole file system.
    pub fn blocks(&self) -> u64 {
        1 + self.inode_blocks() + self.sizes().map(|size| size.div_ceil(BLOCK as u64)).sum::<u64>()
    }

    /// Writes it. Memory does not grow with the files.
    ///
    /// # Errors
    /// A file cannot be read or has changed its size, the image cannot be written, or it has more than 2^32 blocks.
    pub fn write(&self, out: &mut VerityWriter, image: &Path) -> Result<(), Error> {
        let blocks = u32::try_from(self.blocks())
            .map_err(|_| Error::Manifest("the model is longer than the 16 TiB of a file system".into()))?;
        let inodes = self.inodes();
        out.push(&self.superblock(blocks)).map_err(Error::file(image))?;
        for bytes in std::iter::once(&inodes).chain(&self.listings) {
            for chunk in bytes.chunks(BLOCK) {
                out.push(&padded(chunk)).map_err(Error::file(image))?;
            }
        }
        self.files.iter().try_for_each(|file| copy(file, out, image))
    }

    fn superblock(&self, blocks: u32) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[1024 + at..1024 + at + bytes.len()].copy_from_slice(bytes);
        put(0, &0xe0f5_e1e2_u32.to_le_bytes());
        put(12, &[BLOCK.trailing_zeros() as u8]);
        put(14, &(FIRST_NID as u16).to_le_bytes());
        put(16, &((self.folders.len() + self.files.len()) as u64).to_le_bytes());
        put(36, &blocks.to_le_bytes());
        put(48, b"cocoon-model-v1\0");
        put(64, b"cocoon-model");
        block
    }

    fn inodes(&self) -> Vec<u8> {
        let mut at = 1 + self.inode_blocks();
        let mut bytes = Vec::new();
        for (index, size) in self.sizes().enumerate() {
            let (mode, links) = match self.folders.get(index) {
                Some(folder) => (0o040_555_u16, 2 + folder.folders),
                None => (0o100_444, 1),
            };
            let mut inode = [0; INODE as usize];
            let mut put = |at: usize, bytes: &[u8]| inode[at..at + bytes.len()].copy_from_slice(bytes);
            // Of 64 bytes; its data in one piece.
            put(0, &1_u16.to_le_bytes());
            put(4, &mode.to_le_bytes());
            put(8, &size.to_le_bytes());
            // `write` has seen that addresses fit.
            put(16, &(at as u32).to_le_bytes());
            put(20, &(index as u32 + 1).to_le_bytes());
            put(44, &links.to_le_bytes());
            bytes.extend_from_slice(&inode);
            at += size.div_ceil(BLOCK as u64);
        }
        bytes
    }
}

fn last(path: &str) -> Result<Vec<u8>, Error> {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.len() {
        1..=255 => Ok(name.as_bytes().to_vec()),
        _ => Err(Error::Manifest(format!("{path:?}: a file's name has 1 to 255 bytes"))),
    }
}

fn nid(index: usize) -> u64 {
    FIRST_NID + index as u64 * (INODE / 32)
}

/// A folder's blocks. In each: its entries, then their names; a name ends where the next begins, the last at a zero byte.
fn listing(folders: &[Folder], index: usize) -> Vec<u8> {
    let folder = &folders[index];
    let mut names: BTreeMap<&[u8], (Kind, usize)> =
        folder.names.iter().map(|(name, inode)| (name.as_slice(), *inode)).collect();
    names.insert(b".", (Kind::Folder, index));
    names.insert(b"..", (Kind::Folder, folder.parent));
    let mut blocks = Vec::new();
    let mut block: Vec<(&[u8], (Kind, usize))> = Vec::new();
    let mut used = 0;
    for (name, inode) in names {
        if used + DIRENT + name.len() > BLOCK {
            blocks.extend_from_slice(&folder_block(&std::mem::take(&mut block)));
            used = 0;
        }
        used += DIRENT + name.len();
        block.push((name, inode));
    }
    blocks.extend_from_slice(&folder_block(&block));
    blocks
}

fn folder_block(entries: &[(&[u8], (Kind, usize))]) -> [u8; BLOCK] {
    let mut bytes = Vec::with_capacity(BLOCK);
    let mut at = entries.len() * DIRENT;
    for (name, (kind, index)) in entries {
        bytes.extend_from_slice(&nid(*index).to_le_bytes());
        bytes.extend_from_slice(&(at as u16).to_le_bytes());
        bytes.extend_from_slice(&[*kind as u8, 0]);
        at += name.len();
    }
    for (name, _) in entries {
        bytes.extend_from_slice(name);
    }
    padded(&bytes)
}

fn padded(bytes: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    block
}

fn copy(source: &SourceFile, out: &mut VerityWriter, image: &Path) -> Result<(), Error> {
    let mut file = io::BufReader::with_capacity(1 << 20, File::open(&source.path).map_err(Error::file(&source.path))?);
    let mut left = source.size;
    while left > 0 {
        let mut block = [0; BLOCK];
        let length = left.min(BLOCK as u64) as usize;
        file.read_exact(&mut block[..length]).map_err(Error::file(&source.path))?;
        out.push(&block).map_err(Error::file(image))?;
        left -= length as u64;
    }
    match file.read(&mut [0]).map_err(Error::file(&source.path))? {
        0 => Ok(()),
        _ => Err(Error::Manifest(format!("{} grew while it was read", source.path.display()))),
    }
}
