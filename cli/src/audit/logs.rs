//! Where logs are, and whose they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cocoon_attestation::Digest;
use cocoon_settlement::Address;
use cocoon_transparency::replay::{Finding, Kind, origin};
use cocoon_transparency::{Folder, Source as _, TreeHead, kept_checkpoints, layout, open_checkpoint, open_cosigned};
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
    /// Seconds after which a log that is still being fetched counts as unreachable; what came of it by then is kept
    #[arg(long, default_value_t = 3_600, value_name = "SECONDS")]
    deadline: u64,
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

/// A log that was named.
#[derive(Debug)]
pub(super) struct OpenLog {
    /// As it was named.
    pub place: String,
    pub key: String,
    /// The key was taken from where the log itself is: nothing says whose log it is.
    pub unauthenticated: bool,
    /// Its files, or why it cannot be read.
    pub folder: Result<Folder, String>,
    /// The files are a copy of this program's own.
    pub copied: bool,
    pub witnesses: Vec<String>,
    pub checkpoints: Vec<String>,
    pub verifier: Option<u8>,
    /// What was found about other copies of it.
    pub findings: Vec<Finding>,
}

impl OpenLog {
    /// The tree that the log signed, and how many of how many witnesses cosigned it.
    pub fn head(&self, folder: &Folder) -> Result<(TreeHead, usize)> {
        let text = folder.read(layout::CHECKPOINT)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let head = open_checkpoint(&text, &self.key)?;
        let cosigned = |witness: &&String| {
            open_cosigned(&text, &self.key, std::slice::from_ref(*witness))
                .is_ok_and(|opened| !opened.witnesses.is_empty())
        };
        Ok((head, self.witnesses.iter().filter(cosigned).count()))
    }
}

/// A log's files, its key, and whether the key was taken from them.
type Found = (Folder, String, bool);

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

    /// The files of other checkpoints, as they were named.
    pub fn checkpoint_files(&self) -> Vec<String> {
        self.checkpoints.iter().map(|path| path.display().to_string()).collect()
    }

    /// Fetches what is not at hand yet, and opens every log once: other copies of the same log count as further checkpoints of it. One
    /// that cannot be read is named all the same, unless none can.
    pub async fn open(&self, trust: &Trust, progress: &Progress) -> Result<Vec<OpenLog>> {
        let mut keys = self.keys.clone();
        keys.extend(trust.logs.iter().map(|log| log.key.clone()));
        let places: Vec<String> = if self.logs.is_empty() {
            trust.logs.iter().map(|log| log.url.clone()).collect()
        } else {
            self.logs.clone()
        };
        ensure!(!places.is_empty(), "no log is named: give a folder or a URL, or name a file with --config");
        let witnesses = trust.logs.iter().filter_map(|log| log.witness.as_ref()).chain(&self.witnesses);
        check_keys(&keys, &witnesses.cloned().collect::<Vec<_>>())?;
        // All at once: one that is slow keeps nobody waiting but for the deadline.
        let found =
            futures::future::join_all(places.iter().map(|place| self.find(place, trust, &keys, progress))).await;
        let mut open: Vec<OpenLog> = Vec::new();
        for (place, found) in places.into_iter().zip(found) {
            let copied = is_url(&place);
            let (folder, key, unauthenticated) = match found {
                Ok(Some((folder, key, unauthenticated))) => (Ok(folder), key, unauthenticated),
                Ok(None) => {
                    bail!(
                        "nothing says which key signs the log at {place}: name it with --log-key, as its node prints it"
                    )
                }
                Err(error) => {
                    let named = trust.logs.iter().find(|log| log.url == place).map(|log| log.key.clone());
                    let only = if let [only] = keys.as_slice() { Some(only.clone()) } else { None };
                    (Err(format!("{error:#}")), named.or(only).unwrap_or_else(|| place.clone()), false)
                }
            };
            let mut log = OpenLog {
                place,
                key,
                unauthenticated,
                folder,
                copied,
                witnesses: Vec::new(),
                checkpoints: Vec::new(),
                verifier: None,
                findings: Vec::new(),
            };
            if let Some(known) = open.iter_mut().find(|known| known.key == log.key) {
                second(known, log)?;
                continue;
            }
            let named = trust.logs.iter().find(|known| known.key == log.key);
            log.verifier = named.and_then(|known| known.verifier);
            log.witnesses.clone_from(&self.witnesses);
            let others = trust.logs.iter().filter(|known| known.key != log.key);
            log.witnesses.extend(others.filter_map(|known| known.witness.clone()));
            open.push(log);
        }
        // A log that is named by its key, and that no place shows, is not forgotten for it.
        let wanted = self.keys.iter().chain(trust.logs.iter().map(|log| &log.key).filter(|_| self.logs.is_empty()));
        for key in wanted {
            if open.iter().any(|log| log.key == *key) {
                continue;
            }
            open.push(OpenLog {
                place: origin(key).to_owned(),
                key: key.clone(),
                unauthenticated: false,
                folder: Err("none of the places that were named shows this log".into()),
                copied: false,
                witnesses: Vec::new(),
                checkpoints: Vec::new(),
                verifier: None,
                findings: Vec::new(),
            });
        }
        if open.iter().all(|log| log.folder.is_err()) {
            let why: Vec<_> = open.iter().filter_map(|log| log.folder.as_ref().err()).map(String::as_str).collect();
            bail!("no log can be read: {}", why.join("; "));
        }
        for path in &self.checkpoints {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let checkpoints = kept_checkpoints(&text);
            ensure!(!checkpoints.is_empty(), "{} holds no checkpoint", path.display());
            for checkpoint in checkpoints {
                let of = open.iter_mut().find(|log| open_checkpoint(&checkpoint, &log.key).is_ok());
                let of = of.with_context(|| {
                    format!(
                        "{} holds a checkpoint that none of the named logs signed: name its log too",
                        path.display()
                    )
                })?;
                of.checkpoints.push(checkpoint);
            }
        }
        Ok(open)
    }

    async fn find(&self, place: &str, trust: &Trust, keys: &[String], progress: &Progress) -> Result<Option<Found>> {
        let named = trust.logs.iter().find(|log| log.url == place).map(|log| &log.key);
        let keys = named.map(std::slice::from_ref).unwrap_or(keys);
        if !is_url(place) {
            return local(Path::new(place), keys);
        }
        let copies = self.work()?.join("copies");
        let fetched = mirror::fetch(place, keys, &copies, progress);
        let fetched = tokio::time::timeout(Duration::from_secs(self.deadline.max(1)), fetched).await;
        let fetched = fetched.map_err(|_| anyhow::anyhow!("{place}: not all of it came within {} s", self.deadline))?;
        Ok(fetched?.map(|(folder, key)| (folder, key, false)))
    }
}

/// Another copy of a log that is open. The one with the longer signed tree is read; it must continue the other's checkpoint.
fn second(known: &mut OpenLog, mut other: OpenLog) -> Result<()> {
    let of = origin(&known.key).to_owned();
    let signed = |log: &OpenLog| {
        let folder = log.folder.as_ref().ok()?;
        log.head(folder).ok().map(|(head, _)| head.size)
    };
    if signed(&other) > signed(known) || known.folder.is_err() {
        std::mem::swap(&mut known.folder, &mut other.folder);
        std::mem::swap(&mut known.place, &mut other.place);
        std::mem::swap(&mut known.copied, &mut other.copied);
        std::mem::swap(&mut known.unauthenticated, &mut other.unauthenticated);
    }
    let place = &other.place;
    match &other.folder {
        Err(why) => {
            let finding = Finding::new(Kind::Unreachable, format!("the copy at {place}: {why}"));
            known.findings.push(finding.in_log(&of).about(place));
        }
        Ok(folder) => {
            let text =
                folder.read(layout::CHECKPOINT)?.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
            match open_checkpoint(&text, &known.key) {
                Ok(_) => known.checkpoints.push(text),
                Err(error) => {
                    let finding = Finding::new(Kind::BadCheckpoint, format!("the copy at {place}: {error}"));
                    known.findings.push(finding.in_log(&of).about(place));
                }
            }
        }
    }
    Ok(())
}

fn is_url(place: &str) -> bool {
    place.starts_with("http://") || place.starts_with("https://")
}

/// Keys that are none are a mistake of whoever named them, and no fault of any log's.
fn check_keys(logs: &[String], witnesses: &[String]) -> Result<()> {
    for (n, key) in logs.iter().enumerate() {
        let witnesses = if n == 0 { witnesses } else { &[] };
        if let Err(error @ cocoon_transparency::Error::VerifierKey(_)) = open_cosigned("", key, witnesses) {
            return Err(error.into());
        }
    }
    Ok(())
}

/// The file that a log's replay is kept in, and that of its checkpoints: copies of one log have no other in common. What was replayed from
/// another leaf on has one of its own.
pub(super) fn state_paths(work: &Path, log: &OpenLog, from: u64) -> (PathBuf, PathBuf) {
    let place = if is_url(&log.place) {
        log.place.clone()
    } else {
        fs::canonicalize(&log.place).map_or_else(|_| log.place.clone(), |path| path.display().to_string())
    };
    let name = |parts: &[&[u8]]| Digest::of(parts).to_string()[..16].to_owned();
    let of_copy = name(&[log.key.as_bytes(), b"\n", place.as_bytes(), &from.to_be_bytes()]);
    (work.join(format!("{of_copy}.redb")), work.join(format!("seen-{}.redb", name(&[log.key.as_bytes()]))))
}

/// A log's files in a folder, or in `public` below it, and its key; `None` if nothing says which that is.
fn local(path: &Path, keys: &[String]) -> Result<Option<Found>> {
    let public = path.join("public");
    let (files, beside) = if public.is_dir() { (public, path.to_owned()) } else { (path.to_owned(), path.join("..")) };
    ensure!(files.is_dir(), "{} is no folder: name a log's folder or URL", path.display());
    let text = fs::read_to_string(files.join(layout::CHECKPOINT)).unwrap_or_default();
    if let Some(key) = key_of(&text, keys) {
        return Ok(Some((Folder(files), key, false)));
    }
    // Whoever names keys has not asked the files whose they are.
    Ok(match keys {
        [] => {
            let owner = fs::read_to_string(beside.join("owner")).ok();
            owner.map(|owner| (Folder(files), owner.trim().to_owned(), true))
        }
        [only] => Some((Folder(files), only.clone(), false)),
        _ => None,
    })
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
    fn keys_are_found_by_origin_and_never_by_order() {
        let keys = ["one+1+A".to_owned(), "two+2+B".to_owned()];
        assert_eq!(key_of("two\n5\n", &keys).as_deref(), Some("two+2+B"));
        assert_eq!(key_of("three\n5\n", &keys), None);
        assert_eq!(key_of("", &keys), None);
    }
}
