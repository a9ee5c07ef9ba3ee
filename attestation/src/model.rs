//! The model root: one digest that names every byte of a model folder.
//!
//! `SHA-256("cocoon-model-v1\n" || line...)` over one line `<SHA-256 in hex> <size in bytes> <path>\n` per file, sorted by
//! path (bytes of UTF-8, `/` between folders).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::types::Digest;

/// One file of a model folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Path below the folder, with `/` between folders.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// A model folder's root and the files it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRoot {
    /// The root.
    pub root: Digest,
    /// The files, sorted by path.
    pub files: Vec<ModelFile>,
}

/// Hashes a model folder, files in parallel.
///
/// A symbolic link counts as the file it leads to, and must not lead out of the folder; a link to a folder, a socket or a
/// device is refused, and so is a path that is not UTF-8 or has control characters. An empty folder is refused too: a
/// mistyped path must not get a root.
pub fn model_root(folder: &Path) -> Result<ModelRoot, Error> {
    Ok(ModelRoot::of(hash_all(&model_files(folder)?)?))
}

/// The files of a model folder, sorted, each with its path in the manifest. Refuses what [`model_root`] refuses.
pub fn model_files(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    if !folder.is_dir() {
        return Err(Error::NoModelFolder(folder.to_owned()));
    }
    let base = folder.canonicalize().map_err(Error::file(folder))?;
    let mut found = Vec::new();
    list(&base, &base, String::new(), &mut found)?;
    if found.is_empty() {
        return Err(Error::ModelEntry { path: folder.to_owned(), reason: "the folder is empty" });
    }
    found.sort();
    Ok(found)
}

impl ModelRoot {
    /// The root over files that were hashed already, sorted by path.
    pub fn of(files: Vec<ModelFile>) -> Self {
        Self { root: root_of(&files), files }
    }
}

fn root_of(files: &[ModelFile]) -> Digest {
    let mut manifest = String::from("cocoon-model-v1\n");
    for file in files {
        manifest.push_str(&format!("{} {} {}\n", file.sha256, file.size, file.path));
    }
    Digest::of(&[manifest.as_bytes()])
}

fn list(base: &Path, folder: &Path, prefix: String, found: &mut Vec<(String, PathBuf)>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let entry = entry.map_err(Error::file(folder))?;
        let path = entry.path();
        let refuse = |reason| Error::ModelEntry { path: path.clone(), reason };
        let name = entry.file_name().into_string().map_err(|_| refuse("its name is not UTF-8"))?;
        if name.chars().any(char::is_control) {
            return Err(refuse("its name has control characters"));
        }
        let name = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(Error::file(&path))?;
        if kind.is_dir() {
            list(base, &path, format!("{name}/"), found)?;
        } else if kind.is_file() {
            found.push((name, path));
        } else if kind.is_symlink() {
            let target = path.canonicalize().map_err(|_| refuse("a symbolic link that leads nowhere"))?;
            if !target.starts_with(base) {
                return Err(refuse("a symbolic link that leads out of the folder"));
            }
            if !target.is_file() {
                return Err(refuse("a symbolic link to something that is no file"));
            }
            found.push((name, target));
        } else {
            return Err(refuse("neither file nor folder"));
        }
    }
    Ok(())
}

fn hash_all(found: &[(String, PathBuf)]) -> Result<Vec<ModelFile>, Error> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from).min(found.len());
    let work = || {
        let mut done = Vec::new();
        while let Some((at, (name, path))) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            found.get(at).map(|entry| (at, entry))
        } {
            done.push((at, hash_file(name, path)));
        }
        done
    };
    let mut hashed: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    hashed.sort_by_key(|(at, _)| *at);
    let files = hashed.into_iter().map(|(_, file)| file).collect::<Result<Vec<_>, _>>()?;
    // A worker that died must not shorten the manifest.
    if files.len() != found.len() {
        return Err(Error::ModelEntry { path: PathBuf::from("."), reason: "a hashing thread died" });
    }
    Ok(files)
}

fn hash_file(name: &str, path: &Path) -> Result<ModelFile, Error> {
    let mut file = File::open(path).map_err(Error::file(path))?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer).map_err(Error::file(path))?;
        if read == 0 {
            break;
        }
        size += read as u64;
        context.update(&buffer[..read]);
    }
    let sha256 = Digest::from_slice(context.finish().as_ref())?;
    Ok(ModelFile { path: name.to_owned(), size, sha256 })
}
