//! Checkpoints as signed notes, and the cosignatures of witnesses (C2SP tlog-checkpoint and tlog-cosignature).

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Digest, UnixTime};
use signed_note::{Note, StandardSigner, StandardVerifier, Verifier, VerifierList, is_key_name_valid, key_id};
use tlog_tiles::{Checkpoint, Hash};

use crate::Error;

/// Key type of a log's Ed25519 key in signed notes.
const LOG_KEY: u8 = 1;
/// Key type of a witness's timestamped Ed25519 cosignatures.
const WITNESS_KEY: u8 = 4;

/// A checkpoint whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Leaves of the tree.
    pub size: u64,
    /// RFC 6962 root hash.
    pub root: Digest,
}

/// A checkpoint whose signature and cosignatures were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The tree.
    pub head: TreeHead,
    /// Witnesses that saw it continue what they had seen before, and when: by their place among the keys asked about.
    pub witnesses: Vec<(usize, UnixTime)>,
}

fn vkey(name: &str, kind: u8, public: &[u8]) -> (String, u32) {
    let key = [&[kind], public].concat();
    let id = key_id(name, &key);
    (format!("{name}+{id:08x}+{}", STANDARD.encode(&key)), id)
}

/// The verifier key of the log with an origin and a seed.
///
/// # Errors
/// The origin cannot name a key.
pub fn log_key(origin: &str, seed: &[u8; 32]) -> Result<String, Error> {
    LogSigner::new(origin, seed).map(|signer| signer.vkey)
}

/// The verifier key of the witness with a name and a seed ([`crate::Witness::seed`]).
///
/// # Errors
/// The name cannot name a key.
pub fn witness_key(name: &str, seed: &[u8; 32]) -> Result<String, Error> {
    WitnessSigner::new(name, seed).map(|signer| signer.vkey)
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if !is_key_name_valid(name) || name.chars().any(char::is_control) || name == STATEMENT {
        return Err(Error::Origin(name.into()));
    }
    Ok(())
}

/// Signs a log's checkpoints.
pub(crate) struct LogSigner {
    origin: String,
    vkey: String,
    signer: StandardSigner,
}

impl LogSigner {
    pub fn new(origin: &str, seed: &[u8; 32]) -> Result<Self, Error> {
        check_name(origin)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Key)?;
        let (vkey, id) = vkey(origin, LOG_KEY, pair.public_key().as_ref());
        let secret = STANDARD.encode([&[LOG_KEY], seed.as_slice()].concat());
        let signer = StandardSigner::new(&format!("PRIVATE+KEY+{origin}+{id:08x}+{secret}")).map_err(|_| Error::Key)?;
        Ok(Self { origin: origin.into(), vkey, signer })
    }

    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// A signed note of lines that are no checkpoint. Line feeds and control characters within a line become spaces.
    pub fn state(&self, lines: &[&str]) -> Result<String, Error> {
        let mut text = format!("{STATEMENT}\n");
        for line in lines {
            text.extend(line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
            text.push('\n');
        }
        let failed = |error: &dyn std::fmt::Display| Error::Checkpoint(error.to_string());
        let mut note = Note::new(text.as_bytes(), &[]).map_err(|error| failed(&error))?;
        note.add_sigs(&[&self.signer]).map_err(|error| failed(&error))?;
        String::from_utf8(note.to_bytes()).map_err(|error| failed(&error))
    }

    /// The signed note of a tree.
    pub fn sign(&self, head: &TreeHead) -> Result<String, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Checkpoint(error.to_string());
        let head = Checkpoint::new(&self.origin, head.size, Hash(head.root.0), "").map_err(|error| failed(&error))?;
        let mut note = Note::new(&head.to_bytes(), &[]).map_err(|error| failed(&error))?;
        note.add_sigs(&[&self.signer]).map_err(|error| failed(&error))?;
        String::from_utf8(note.to_bytes()).map_err(|error| failed(&error))
    }
}

/// First line of a statement, which no checkpoint has: a log's origin is another text.
const STATEMENT: &str = "cocoon/statement/v1";

/// Signs what a witness has checked.
pub(crate) struct WitnessSigner {
    name: String,
    vkey: String,
    id: u32,
    pair: Ed25519KeyPair,
}

impl WitnessSigner {
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, Error> {
        check_name(name)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Key)?;
        let (vkey, id) = vkey(name, WITNESS_KEY, pair.public_key().as_ref());
        Ok(Self { name: name.into(), vkey, id, pair })
    }

    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// A signature line for a checkpoint, with its line feed.
    pub fn cosign(&self, note: &Note, at: UnixTime) -> String {
        let signature = self.pair.sign(&cosigned(note.text(), at));
        let bytes = [&self.id.to_be_bytes()[..], &at.0.to_be_bytes(), signature.as_ref()].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

fn cosigned(text: &[u8], at: UnixTime) -> Vec<u8> {
    let mut message = format!("cosignature/v1\ntime {}\n", at.0).into_bytes();
    message.extend(text);
    message
}

struct WitnessVerifier {
    name: String,
    id: u32,
    public: Vec<u8>,
}

impl WitnessVerifier {
    fn new(vkey: &str) -> Result<Self, Error> {
        let wrong = || Error::VerifierKey(vkey.into());
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(wrong()) };
        let key = STANDARD.decode(key).map_err(|_| wrong())?;
        let expected = key_id(name, &key);
        if !is_key_name_valid(name) || key.len() != 33 || key[0] != WITNESS_KEY || id != format!("{expected:08x}") {
            return Err(wrong());
        }
        Ok(Self { name: name.into(), id: expected, public: key[1..].to_vec() })
    }
}

impl Verifier for WitnessVerifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let Some((at, signature)) = signature.split_first_chunk::<8>() else { return false };
        let message = cosigned(text, UnixTime(u64::from_be_bytes(*at)));
        UnparsedPublicKey::new(&ED25519, &self.public).verify(&message, signature).is_ok()
    }
}

/// Checks a checkpoint's signature and origin; cosignatures are not looked at.
///
/// # Errors
/// The key is no verifier key, or it did not sign this checkpoint for its own origin.
pub fn open_checkpoint(checkpoint: &str, vkey: &str) -> Result<TreeHead, Error> {
    Ok(open_cosigned(checkpoint, vkey, &[] as &[&str])?.head)
}

/// Most leaves of a tree: a key signs any number, and positions in larger trees cannot be reckoned with.
const MOST_LEAVES: u64 = 1 << 62;

/// Checks a checkpoint's signature and origin, and which of the witnesses cosigned it. Signatures by others are not looked at.
///
/// # Errors
/// A key is no verifier key, the log did not sign this checkpoint for its own origin, or a signature that bears a witness's name is not
/// the witness's.
pub fn open_cosigned(checkpoint: &str, log: &str, witnesses: &[impl AsRef<str>]) -> Result<Cosigned, Error> {
    let failed = |why: String| Error::Checkpoint(why);
    let verifier = StandardVerifier::new(log).map_err(|_| Error::VerifierKey(log.into()))?;
    let (origin, log_id) = (verifier.name().to_owned(), verifier.key_id());
    let mut known: Vec<Box<dyn Verifier>> = vec![Box::new(verifier)];
    let mut keys = Vec::with_capacity(witnesses.len());
    for vkey in witnesses {
        let witness = WitnessVerifier::new(vkey.as_ref())?;
        let key = (witness.name.clone(), witness.id);
        // The same witness named twice counts once.
        if !keys.contains(&key) {
            known.push(Box::new(witness));
        }
        keys.push(key);
    }
    let note = Note::from_bytes(checkpoint.as_bytes()).map_err(|error| failed(error.to_string()))?;
    let (valid, _) = note.verify(&VerifierList::new(known)).map_err(|error| failed(error.to_string()))?;
    if !valid.iter().any(|signature| signature.name() == origin && signature.id() == log_id) {
        return Err(failed(format!("it is not signed by '{origin}'")));
    }
    let parsed = Checkpoint::from_bytes(note.text()).map_err(|error| failed(error.to_string()))?;
    if parsed.origin() != origin {
        return Err(failed(format!("it is of '{}', not of '{origin}'", parsed.origin())));
    }
    if parsed.size() > MOST_LEAVES {
        return Err(failed(format!("it is of {} leaves, more than any log has", parsed.size())));
    }
    let mut seen = Vec::new();
    for signature in &valid {
        let place = keys.iter().position(|(name, id)| name == signature.name() && *id == signature.id());
        let at = signature.signature().first_chunk::<8>().map(|at| UnixTime(u64::from_be_bytes(*at)));
        if let (Some(place), Some(at)) = (place, at) {
            seen.push((place, at));
        }
    }
    Ok(Cosigned { head: TreeHead { size: parsed.size(), root: Digest(parsed.hash().0) }, witnesses: seen })
}

/// Checks a statement that the key of a log signed ([`crate::Log::state`]), and gives its lines.
///
/// # Errors
/// The key is no verifier key, or did not sign it; or it is something else than a statement.
pub fn open_statement(note: &str, vkey: &str) -> Result<Vec<String>, Error> {
    let failed = |why: String| Error::Checkpoint(why);
    let verifier = StandardVerifier::new(vkey).map_err(|_| Error::VerifierKey(vkey.into()))?;
    let note = Note::from_bytes(note.as_bytes()).map_err(|error| failed(error.to_string()))?;
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(note.text()).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    if lines.next().as_deref() != Some(STATEMENT) {
        return Err(failed("it is no statement".into()));
    }
    Ok(lines.collect())
}

/// The checkpoints in a file: one as a log publishes it, or what clients keep, which has the log's key in front, and of a split view both.
/// No signature is looked at.
pub fn kept_checkpoints(text: &str) -> Vec<String> {
    let (first, behind) = text.split_once('\n').unwrap_or((text, ""));
    let mut rest = if first.split('+').count() >= 3 { behind } else { text };
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches('\n');
        // A signed note: its text, an empty line, and the lines of signatures.
        let Some(end) = rest.find("\n\n") else { return found };
        let mut end = end + 2;
        for line in rest[end..].split_inclusive('\n').take_while(|line| line.starts_with("\u{2014} ")) {
            end += line.len();
        }
        found.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
}

/// The note of a checkpoint that was checked already.
pub(crate) fn read_note(checkpoint: &str) -> Result<Note, Error> {
    Note::from_bytes(checkpoint.as_bytes()).map_err(|error| Error::Checkpoint(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_larger_than_can_be_reckoned_with_is_refused() {
        let signer = LogSigner::new("log.example", &[1; 32]).unwrap();
        let open = |size: u64| {
            let note = signer.sign(&TreeHead { size, root: Digest([2; 32]) }).unwrap();
            open_checkpoint(&note, signer.vkey())
        };
        assert_eq!(open(MOST_LEAVES).unwrap().size, MOST_LEAVES);
        for size in [MOST_LEAVES + 1, 1 << 63, u64::MAX] {
            assert!(open(size).unwrap_err().to_string().contains("more than any log has"));
        }
    }

    #[test]
    fn a_kept_checkpoint_is_read_with_and_without_its_key_and_of_a_split_view_both() {
        let note = |size: u64| format!("log.example\n{size}\nAAAA\n\n\u{2014} log.example BBBB\n\u{2014} w CCCC\n");
        let key = "log.example+00000000+CC+C";
        assert_eq!(kept_checkpoints(&note(3)), [note(3)]);
        assert_eq!(kept_checkpoints(&format!("{key}\n{}", note(3))), [note(3)]);
        assert_eq!(kept_checkpoints(&format!("{key}\n\n{}\n{}", note(3), note(4))), [note(3), note(4)]);
        assert!(kept_checkpoints("").is_empty() && kept_checkpoints("a\nb").is_empty());
    }
}
