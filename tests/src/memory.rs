//! Looks for secrets where they must not be: on the wire, in files, in another process's memory.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// How many bytes of a secret in a row, in any form, count as seeing it: shorter runs are in any text.
pub const RUN: usize = 16;

/// No form of a run is longer than this, in bytes.
const LONGEST: usize = 6 * RUN;

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

/// Random strings by the name of where they were put, and whatever else must not be seen.
#[derive(Default)]
pub struct Secrets(pub Vec<(String, String)>);

impl Secrets {
    /// One of 32 letters and digits, which any name may have.
    ///
    /// # Panics
    /// The system gives no random bytes.
    pub fn make(&mut self, name: &str) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut random = [0; 32];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("random bytes");
        let text: String = random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect();
        self.0.push((name.into(), text.clone()));
        text
    }

    /// What to look for: every run of every secret, in every form. Runs that stand in `public` anyway say nothing of a secret.
    pub fn needles(&self, public: &[Vec<u8>]) -> Needles {
        let runs = |(index, (_, secret)): (usize, &(String, String))| -> Vec<(usize, Vec<u8>)> {
            secret.as_bytes().windows(RUN).map(|run| (index, run.to_vec())).collect()
        };
        let runs: Vec<_> = self.0.iter().enumerate().flat_map(runs).collect();
        let plain = Needles::new(self, runs.iter().map(|(index, run)| (*index, "plain", run.clone())));
        let mut known = HashSet::new();
        for public in public {
            plain.scan(public, |at, _| known.extend(public[at..].first_chunk::<RUN>().map(|run| run.to_vec())));
        }
        let secret = runs.iter().filter(|(_, run)| !known.contains(run));
        Needles::new(
            self,
            secret.flat_map(|(index, run)| forms(run).into_iter().map(|(form, text)| (*index, form, text))),
        )
    }
}

struct Needle {
    secret: usize,
    form: &'static str,
    /// What follows the first [`RUN`] bytes.
    tail: Vec<u8>,
}

/// What is looked for, and how to find it fast.
pub struct Needles {
    names: Vec<String>,
    runs: HashMap<[u8; RUN], Vec<Needle>>,
    /// By the last two bytes of a window: how far the next place is where a run may stand.
    shift: Vec<u8>,
}

impl Needles {
    fn new(secrets: &Secrets, texts: impl Iterator<Item = (usize, &'static str, Vec<u8>)>) -> Self {
        let mut runs: HashMap<[u8; RUN], Vec<Needle>> = HashMap::new();
        for (secret, form, text) in texts {
            if let Some((first, tail)) = text.split_first_chunk::<RUN>() {
                runs.entry(*first).or_default().push(Needle { secret, form, tail: tail.to_vec() });
            }
        }
        let mut shift = vec![RUN as u8 - 1; 1 << 16];
        for run in runs.keys() {
            for (at, pair) in run.windows(2).enumerate() {
                let entry = &mut shift[block(pair)];
                *entry = (*entry).min((RUN - 2 - at) as u8);
            }
        }
        Self { names: secrets.0.iter().map(|(name, _)| name.clone()).collect(), runs, shift }
    }

    /// How many runs of a secret are looked for.
    pub fn runs(&self, secret: &str) -> usize {
        let plain = |needle: &&Needle| needle.form == "plain" && self.names[needle.secret] == secret;
        self.runs.values().flatten().filter(plain).count()
    }

    /// Calls back with the offset of each run that is found.
    fn scan(&self, bytes: &[u8], mut found: impl FnMut(usize, &Needle)) {
        let mut at = 0;
        while let Some(window) = bytes.get(at..at + RUN) {
            let shift = self.shift[block(&window[RUN - 2..])];
            if shift == 0 {
                let rest = &bytes[at + RUN..];
                let needles = self.runs.get(window).into_iter().flatten();
                needles.filter(|needle| rest.starts_with(&needle.tail)).for_each(|needle| found(at, needle));
            }
            at += usize::from(shift.max(1));
        }
    }

    /// The first hit of each secret in `bytes`, which begin at `start` of `place`.
    fn search_from(&self, place: &str, start: u64, bytes: &[u8]) -> Vec<Hit> {
        let (mut hits, mut seen) = (Vec::new(), vec![false; self.names.len()]);
        self.scan(bytes, |at, Needle { secret, form, .. }| {
            if !std::mem::replace(&mut seen[*secret], true) {
                let near = &bytes[at.saturating_sub(64)..bytes.len().min(at + 128)];
                hits.push(Hit {
                    secret: self.names[*secret].clone(),
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
    ///
    /// # Panics
    /// Next to nothing could be read, so that finding nothing would say nothing.
    pub fn in_process(&self, name: &str, pid: u64) -> io::Result<Vec<Hit>> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let (mut hits, mut buffer, mut total) = (Vec::new(), vec![0; PIECE + LONGEST], 0);
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
                from += if whole { read } else { read.saturating_sub(LONGEST).max(1) } as u64;
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
    (usize::from(pair[0]) << 8) | usize::from(pair[1])
}

/// A run as it is, as JSON writes it in ASCII, in hexadecimal, and in base64 at each place in a group of three.
fn forms(run: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms =
        vec![("plain", run.to_vec()), ("hex", hex::encode(run).into()), ("hex", hex::encode_upper(run).into())];
    for before in 0..3 {
        let padded = [&[0; 3][..before], run].concat();
        // Only the characters that do not depend on what stands before and behind.
        let core = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        let mut written = [STANDARD_NO_PAD, URL_SAFE_NO_PAD]
            .map(|form| form.encode(&padded).as_bytes()[core.clone()].to_vec())
            .to_vec();
        written.dedup();
        forms.extend(written.into_iter().map(|text| ("base64", text)));
    }
    // Runs that begin or end inside a character have none.
    if let Ok(text) = std::str::from_utf8(run) {
        let escaped = escaped(text);
        if escaped != text {
            forms.push(("json", escaped.into()));
        }
    }
    forms
}

/// As the inside of a JSON string, without a character that is not ASCII.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let unit = |unit: u16| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    quoted[1..quoted.len() - 1].encode_utf16().map(unit).collect()
}

/// The port that a process listens on.
pub fn port(pid: u64) -> Option<u16> {
    let handles = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let open: Vec<_> =
        handles.filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned)).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(3) == Some(&"0A") && open.contains(&format!("socket:[{}]", fields.get(9)?));
        listens.then(|| u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok())?
    })
}

/// Checks that the kernel keeps nothing of a process's memory and lets it call nobody.
///
/// # Panics
/// It may write a core file, or is under no filter.
pub fn hardened(pid: u64) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("what anybody may read");
    let fields = |text: &str, line: &str| -> Vec<String> {
        let line = text.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_else(|| panic!("no {line}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(fields(&read("limits"), "Max core file size")[..2], ["0", "0"]);
    assert_eq!(u32::from_str_radix(read("coredump_filter").trim(), 16), Ok(0));
    assert_eq!(fields(&read("status"), "Seccomp:"), ["2"]);
    assert_eq!(fields(&read("status"), "NoNewPrivs:"), ["1"]);
}

/// Passes connections on and keeps all bytes, for each connection and direction apart.
pub struct Recorder {
    url: String,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    /// A recorder in front of a server, named by its base URL. It runs as long as this process.
    ///
    /// # Panics
    /// There is no port to listen on.
    pub fn before(target: &str) -> Self {
        let target = target.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let recorder =
            Self { url: format!("http://{}", listener.local_addr().expect("an address")), seen: Arc::default() };
        let seen = recorder.seen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let seen = seen.clone();
                    std::thread::spawn(move || pass(from, to, &seen));
                }
            }
        });
        recorder
    }

    /// Its own base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All bytes so far.
    pub fn seen(&self) -> Vec<u8> {
        lock(&self.seen).concat()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<Vec<u8>>>) {
    let index = {
        let mut seen = lock(seen);
        seen.push(Vec::new());
        seen.len() - 1
    };
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        lock(seen)[index].extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "k3Vz81Lq\"é\nTt0aWm7Xy5pRu2Qd";

    fn secrets() -> Secrets {
        Secrets(vec![("one".into(), SECRET.into()), ("two".into(), "another secret of some length".into())])
    }

    fn form(leak: &[u8]) -> Option<&'static str> {
        let mut bytes: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        bytes.splice(50_001..50_001, leak.iter().copied());
        let hits = secrets().needles(&[]).search("here", &bytes);
        assert!(hits.iter().all(|hit| hit.secret == "one" && (50_001..50_300).contains(&hit.offset)), "{hits:?}");
        hits.first().map(|hit| hit.form)
    }

    #[test]
    fn every_form_is_found_and_noise_is_not() {
        assert_eq!(form(b"nothing"), None);
        assert_eq!(form(SECRET.as_bytes()), Some("plain"));
        assert_eq!(form(&SECRET.as_bytes()[7..7 + RUN]), Some("plain"));
        assert_eq!(form(&SECRET.as_bytes()[7..7 + RUN - 1]), None);
        assert_eq!(form(br#"k3Vz81Lq\"\u00e9\nTt0aWm7X"#), Some("json"));
        assert_eq!(form(hex::encode(SECRET).as_bytes()), Some("hex"));
        assert_eq!(form(hex::encode_upper(SECRET).as_bytes()), Some("hex"));
        for before in ["", "x", "xy"] {
            assert_eq!(form(STANDARD_NO_PAD.encode(format!("{before}{SECRET}, more")).as_bytes()), Some("base64"));
        }
    }

    #[test]
    fn what_is_public_is_not_looked_for() {
        let needles = secrets().needles(&[SECRET.into()]);
        for text in [SECRET.to_owned(), hex::encode(SECRET)] {
            assert!(needles.search("here", text.as_bytes()).is_empty());
        }
        assert_eq!((needles.runs("one"), needles.runs("two")), (0, 14));
    }
}
