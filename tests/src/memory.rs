//! Looks for secrets where they must not be: in bytes, in files, in another process's memory.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// How many bytes of a secret in a row, in any form, count as seeing it.
pub const RUN: usize = 16;

/// How much of another process is read at a time.
const PIECE: usize = 1 << 20;

/// One place where a secret was seen.
#[derive(Debug)]
pub struct Hit {
    /// Name of the secret.
    pub secret: String,
    /// `plain`, `json`, `hex` or `base64`.
    pub form: &'static str,
    /// The process and its mapping, or the file.
    pub place: String,
    /// Address in the process, or offset in the bytes.
    pub offset: u64,
    /// What stands around it.
    pub near: String,
}

/// Every run of every secret, in every form that is looked for.
pub struct Needles {
    names: Vec<String>,
    runs: HashMap<[u8; RUN], (usize, &'static str)>,
    /// By the last two bytes of a window: how far the next place is where a run may stand.
    shift: Vec<u8>,
}

impl Needles {
    /// Secrets by name, each of at least [`RUN`] bytes.
    pub fn new(secrets: &[(String, String)]) -> Self {
        let mut runs: HashMap<[u8; RUN], (usize, &'static str)> = HashMap::new();
        for (index, (_, secret)) in secrets.iter().enumerate() {
            for (text, form) in forms(secret) {
                runs.extend(text.windows(RUN).filter_map(|run| Some((run.try_into().ok()?, (index, form)))));
            }
        }
        let mut shift = vec![RUN as u8 - 1; 1 << 16];
        for run in runs.keys() {
            for (at, pair) in run.windows(2).enumerate() {
                let entry = &mut shift[block(pair)];
                *entry = (*entry).min((RUN - 2 - at) as u8);
            }
        }
        Self { names: secrets.iter().map(|(name, _)| name.clone()).collect(), runs, shift }
    }

    /// Stops looking for runs that stand in `public` anyway: they say nothing of a secret.
    pub fn forget(&mut self, public: &[u8]) {
        let mut known = Vec::new();
        self.scan(public, |at, _, _| known.extend(public[at..].first_chunk::<RUN>().copied()));
        for run in known {
            self.runs.remove(&run);
        }
    }

    /// How many runs of a secret are looked for.
    pub fn runs(&self, secret: &str) -> usize {
        self.runs.values().filter(|(index, _)| self.names[*index] == secret).count()
    }

    /// Calls back with the offset of each run, its secret and its form.
    fn scan(&self, bytes: &[u8], mut found: impl FnMut(usize, usize, &'static str)) {
        let mut at = 0;
        while let Some(window) = bytes.get(at..at + RUN) {
            let shift = self.shift[block(&window[RUN - 2..])];
            if shift == 0
                && let Some((secret, form)) = self.runs.get(window)
            {
                found(at, *secret, form);
            }
            at += usize::from(shift.max(1));
        }
    }

    /// The first hit of each secret in `bytes`, which begin at `start` of `place`.
    fn search_from(&self, place: &str, start: u64, bytes: &[u8]) -> Vec<Hit> {
        let (mut hits, mut seen) = (Vec::new(), vec![false; self.names.len()]);
        self.scan(bytes, |at, secret, form| {
            if !std::mem::replace(&mut seen[secret], true) {
                let near = &bytes[at.saturating_sub(64)..bytes.len().min(at + 128)];
                hits.push(Hit {
                    secret: self.names[secret].clone(),
                    form,
                    place: place.to_owned(),
                    offset: start + at as u64,
                    near: near.escape_ascii().to_string(),
                });
            }
        });
        hits
    }

    /// The first hit of each secret in `bytes`.
    pub fn search(&self, place: &str, bytes: &[u8]) -> Vec<Hit> {
        self.search_from(place, 0, bytes)
    }

    /// Searches all memory of a process that it can read itself, while it runs.
    ///
    /// # Errors
    /// The system does not let this process look: root may.
    pub fn in_process(&self, name: &str, pid: u64) -> io::Result<Vec<Hit>> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let (mut hits, mut buffer, mut total) = (Vec::new(), vec![0; PIECE + RUN - 1], 0);
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let place = format!("{name}, {rights} {}", fields.nth(3).unwrap_or("anonymous"));
            let address = |text: &str| u64::from_str_radix(text, 16).map_err(io::Error::other);
            let Some((from, to)) = range.split_once('-') else { continue };
            let (mut from, to) = (address(from)?, address(to)?);
            while rights.starts_with('r') && from < to {
                // A run may lie across the end of a piece: the next one begins that much earlier.
                let wanted = buffer.len().min((to - from) as usize);
                // What went away meanwhile, or belongs to the kernel, is passed over.
                let Ok(read @ 1..) = memory.read_at(&mut buffer[..wanted], from) else { break };
                total += read;
                hits.extend(self.search_from(&place, from, &buffer[..read]));
                let whole = from + read as u64 == to;
                from += if whole { read } else { read.saturating_sub(RUN - 1).max(1) } as u64;
            }
        }
        assert!(total > PIECE, "{name}: next to nothing of its memory could be read");
        Ok(hits)
    }

    /// Searches a file, or all files under a folder, and their names. What goes away meanwhile is passed over.
    pub fn in_files(&self, path: &Path) -> Vec<Hit> {
        let place = path.display().to_string();
        let mut hits = self.search(&format!("the name {place}"), place.as_bytes());
        match fs::symlink_metadata(path) {
            Ok(kind) if kind.is_dir() => {
                let entries = fs::read_dir(path).into_iter().flatten().flatten();
                hits.extend(entries.flat_map(|entry| self.in_files(&entry.path())));
            }
            Ok(kind) if kind.is_file() => {
                hits.extend(fs::read(path).map(|bytes| self.search(&place, &bytes)).unwrap_or_default());
            }
            _ => {}
        }
        hits
    }

    /// Searches the arguments and the environment of a process, and every file that it holds open.
    ///
    /// # Errors
    /// The system does not let this process look.
    pub fn in_handles(&self, name: &str, pid: u64) -> io::Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for file in ["cmdline", "environ"] {
            hits.extend(self.search(&format!("{name}, {file}"), &fs::read(format!("/proc/{pid}/{file}"))?));
        }
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let place = format!("{name}, {}", target.display());
            hits.extend(self.search(&place, target.as_os_str().as_encoded_bytes()));
            // Files only, deleted ones and those in memory too: to read a pipe would take what is in it.
            if fs::metadata(entry.path()).is_ok_and(|kind| kind.is_file()) {
                hits.extend(fs::read(entry.path()).map(|bytes| self.search(&place, &bytes)).unwrap_or_default());
            }
        }
        Ok(hits)
    }
}

fn block(pair: &[u8]) -> usize {
    usize::from(pair[0]) << 8 | usize::from(pair[1])
}

/// A secret as it is, as JSON writes it in ASCII, in hexadecimal, and in base64 at each place in a group of three.
fn forms(secret: &str) -> Vec<(Vec<u8>, &'static str)> {
    let quoted = serde_json::Value::from(secret).to_string();
    let escaped: String = quoted[1..quoted.len() - 1]
        .encode_utf16()
        .map(|unit| match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
            _ => format!("\\u{unit:04x}"),
        })
        .collect();
    let mut forms = vec![
        (escaped.into_bytes(), "json"),
        (secret.as_bytes().to_vec(), "plain"),
        (hex::encode(secret).into_bytes(), "hex"),
        (hex::encode_upper(secret).into_bytes(), "hex"),
    ];
    for before in 0..3 {
        let padded = [&[0; 3][..before], secret.as_bytes()].concat();
        for encode in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = encode.encode(&padded).into_bytes();
            // Only the characters that do not depend on what stands before and behind.
            forms.push((text[(before * 8).div_ceil(6)..padded.len() * 8 / 6].to_vec(), "base64"));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "k3Vz81Lq\"é\nTt0aWm7Xy5pRu2Qd";

    fn needles() -> Needles {
        Needles::new(&[("one".into(), SECRET.into()), ("two".into(), "another secret of some length".into())])
    }

    fn form(leak: &[u8]) -> Option<&'static str> {
        let mut bytes: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        bytes.splice(50_001..50_001, leak.iter().copied());
        let hits = needles().search("here", &bytes);
        assert!(hits.iter().all(|hit| hit.secret == "one" && (50_001..50_300).contains(&hit.offset)), "{hits:?}");
        hits.first().map(|hit| hit.form)
    }

    #[test]
    fn every_form_is_found_and_noise_is_not() {
        assert_eq!(form(b"nothing"), None);
        assert_eq!(form(SECRET.as_bytes()), Some("plain"));
        assert_eq!(form(&SECRET.as_bytes()[7..7 + RUN]), Some("plain"));
        assert_eq!(form(&SECRET.as_bytes()[7..7 + RUN - 1]), None);
        assert_eq!(form(br#"k3Vz81Lq\"\u00e9\nTt0a"#), Some("json"));
        assert_eq!(form(hex::encode(SECRET).as_bytes()), Some("hex"));
        for before in ["", "x", "xy"] {
            assert_eq!(form(STANDARD_NO_PAD.encode(format!("{before}{SECRET}, more")).as_bytes()), Some("base64"));
        }
    }

    #[test]
    fn what_is_public_is_forgotten() {
        let mut needles = needles();
        needles.forget(SECRET.as_bytes());
        assert!(needles.search("here", SECRET.as_bytes()).is_empty());
        assert!(!needles.search("here", hex::encode(SECRET).as_bytes()).is_empty());
        assert!(needles.runs("two") > 100);
    }
}
