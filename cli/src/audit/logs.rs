//! Where logs are, and whose they are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cocoon_attestation::Digest;
use cocoon_settlement::Address;
use cocoon_transparency::replay::origin;
use cocoon_transparency::{Folder, Source as _, layout};
use serde::Deserialize;

use super::mirror;
use super::progress::Progress;
use crate::data::DataDir;

/// Which logs, and what is known of them from elsewhere.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LogArgs {
    /// Logs: a folder of a log's files, a node's data folder, or the URL of a node or of a copy of its files; repeatable
    #[arg(value_name = "LOG")]
    logs: Vec<String>,
    /// A file that names logs with their keys, registry and chain: `auditor.toml` of `cocoon up`, or one of your own
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Verifier key of a log, as its node prints it; repeatable. It belongs to the log whose origin it begins with
    #[arg(long = "log-key", value_name = "KEY")]
    keys: Vec<String>,
    /// Verifier key of a witness that must have cosigned; repeatable
    #[arg(long = "witness", value_name = "KEY")]
    witnesses: Vec<String>,
    /// Another checkpoint of one of the logs, which it must continue: from another copy, or kept by a client; repeatable
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Where what was fetched and found is kept, so that a replay goes on where it was [default: audit in the data folder]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
}

/// The part of a configuration that names logs. Whatever else stands there is others' business.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Trust {
    #[serde(default)]
    logs: Vec<TrustedLog>,
    /// The Registry.
    pub registry: Option<Address>,
    /// The chain's API.
    pub chain: Option<String>,
    /// The network.
    pub network: Option<i32>,
}

#[derive(Debug, Deserialize)]
struct TrustedLog {
    url: String,
    key: String,
    witness: Option<String>,
    /// Its verifier's position in the Registry.
    verifier: Option<u8>,
}

/// A log that can be read.
#[derive(Debug)]
pub(super) struct OpenLog {
    /// As it was named.
    pub place: String,
    pub key: String,
    /// The key was taken from where the log itself is: nothing says whose log it is.
    pub unauthenticated: bool,
    pub folder: Folder,
    pub witnesses: Vec<String>,
    pub checkpoints: Vec<String>,
    pub verifier: Option<u8>,
}

impl LogArgs {
    /// Names one more log, before the others.
    pub fn prepend(&mut self, log: String) {
        self.logs.insert(0, log);
    }

    /// Whether any log is named.
    pub fn names_any(&self, trust: &Trust) -> bool {
        !self.logs.is_empty() || !trust.logs.is_empty()
    }

    pub fn work(&self) -> Result<PathBuf> {
        self.work.clone().map_or_else(|| Ok(DataDir::default_path()?.join("audit")), Ok)
    }

    pub fn trust(&self) -> Result<Trust> {
        let Some(path) = &self.config else { return Ok(Trust::default()) };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} names no logs", path.display()))
    }

    /// Fetches what is not at hand yet, and opens every log once: other copies of the same log count as further checkpoints of it.
    pub async fn open(&self, trust: &Trust, progress: &Progress) -> Result<Vec<OpenLog>> {
        let work = self.work()?;
        let mut keys = self.keys.clone();
        keys.extend(trust.logs.iter().map(|log| log.key.clone()));
        let places: Vec<String> = if self.logs.is_empty() {
            trust.logs.iter().map(|log| log.url.clone()).collect()
        } else {
            self.logs.clone()
        };
        ensure!(!places.is_empty(), "no log is named: give a folder or a URL, or name a file with --config");
        let checkpoints: Vec<String> = self.checkpoints.iter().map(|path| checkpoint(path)).collect::<Result<_>>()?;
        let mut open: Vec<OpenLog> = Vec::new();
        for place in places {
            let found = if place.starts_with("http://") || place.starts_with("https://") {
                let named = trust.logs.iter().find(|log| log.url == place).map(|log| &log.key);
                mirror::fetch(&place, named.map(std::slice::from_ref).unwrap_or(&keys), &work.join("copies"), progress)
                    .await?
            } else {
                local(Path::new(&place), &keys)?
            };
            let (folder, key, unauthenticated) = found;
            let mut log = OpenLog {
                place,
                key,
                unauthenticated,
                folder,
                witnesses: Vec::new(),
                checkpoints: Vec::new(),
                verifier: None,
            };
            if let Some(known) = open.iter_mut().find(|known| known.key == log.key) {
                // Of two copies the longer one is read; each must continue the other's checkpoint.
                if size(&log.folder) > size(&known.folder) {
                    std::mem::swap(&mut known.folder, &mut log.folder);
                    std::mem::swap(&mut known.place, &mut log.place);
                }
                known
                    .checkpoints
                    .extend(log.folder.read(layout::CHECKPOINT)?.and_then(|text| String::from_utf8(text).ok()));
                continue;
            }
            let named = trust.logs.iter().find(|known| known.key == log.key);
            log.verifier = named.and_then(|known| known.verifier);
            log.checkpoints.clone_from(&checkpoints);
            log.witnesses.clone_from(&self.witnesses);
            let others = trust.logs.iter().filter(|known| known.key != log.key);
            log.witnesses.extend(others.filter_map(|known| known.witness.clone()));
            open.push(log);
        }
        Ok(open)
    }
}

/// The file that a log's replay is kept in.
pub(super) fn state_path(work: &Path, key: &str) -> PathBuf {
    work.join(format!("{}.redb", &Digest::of(&[key.as_bytes()]).to_string()[..16]))
}

/// A checkpoint from a file. What a client keeps has the log's key in front of it, and of a split view both checkpoints: the first counts.
fn checkpoint(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let is_key = first.split('+').count() == 3 && rest.starts_with(origin(first));
    Ok(if is_key { rest.to_owned() } else { text })
}

/// How many leaves a checkpoint says, before anybody has looked at its signature.
fn size(folder: &Folder) -> u64 {
    let text = folder.read(layout::CHECKPOINT).ok().flatten().and_then(|text| String::from_utf8(text).ok());
    text.and_then(|text| text.lines().nth(1)?.parse().ok()).unwrap_or(0)
}

/// A log's files in a folder, or in `public` below it, and its key.
fn local(path: &Path, keys: &[String]) -> Result<(Folder, String, bool)> {
    let public = path.join("public");
    let (files, beside) = if public.is_dir() { (public, path.to_owned()) } else { (path.to_owned(), path.join("..")) };
    ensure!(files.is_dir(), "{} is no folder: name a log's folder or URL", path.display());
    let text = fs::read_to_string(files.join(layout::CHECKPOINT)).unwrap_or_default();
    if let Some(key) = key_of(&text, keys) {
        return Ok((Folder(files), key, false));
    }
    match fs::read_to_string(beside.join("owner")) {
        Ok(owner) => Ok((Folder(files), owner.trim().to_owned(), true)),
        Err(_) if keys.len() == 1 => Ok((Folder(files), keys[0].clone(), false)),
        Err(_) => bail!(
            "nothing says which key signs the log in {}: name it with --log-key, as its node prints it",
            path.display()
        ),
    }
}

/// The key that belongs to a checkpoint, by the origin that both name.
pub(super) fn key_of(checkpoint: &str, keys: &[String]) -> Option<String> {
    let first = checkpoint.lines().next()?;
    keys.iter().find(|key| origin(key) == first).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_checkpoint_is_read_with_and_without_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.seen");
        let note = "log.example\n3\nAAAA\n\n\u{2014} log.example BBBB\n";
        fs::write(&path, note).unwrap();
        assert_eq!(checkpoint(&path).unwrap(), note);
        fs::write(&path, format!("log.example+00000000+CCCC\n{note}")).unwrap();
        assert_eq!(checkpoint(&path).unwrap(), note);
    }

    #[test]
    fn keys_are_found_by_origin_and_never_by_order() {
        let keys = ["one+1+A".to_owned(), "two+2+B".to_owned()];
        assert_eq!(key_of("two\n5\n", &keys).as_deref(), Some("two+2+B"));
        assert_eq!(key_of("three\n5\n", &keys), None);
        assert_eq!(key_of("", &keys), None);
    }
}
