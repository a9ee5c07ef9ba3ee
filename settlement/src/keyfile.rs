//! A secret key at rest: 32 bytes, and the words that they were made from where there are some, encrypted under a passphrase, in a file
//! that only its owner can read.
//!
//! JSON, `cocoon/key-file/v1`: Argon2id (RFC 9106) makes the key of ChaCha20-Poly1305, which also authenticates everything else that the
//! file says. `docs/chain.md` lists the fields.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use argon2::{Algorithm, Argon2, Params};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::mnemonic::{LONGEST, Mnemonic};

const SCHEMA: &str = "cocoon/key-file/v1";
/// Shorter passphrases are refused for new files.
pub const MIN_PASSPHRASE: usize = 8;
/// RFC 9106's second recommendation: 64 MiB and three passes.
const KDF: (u32, u32, u32) = (64 << 10, 3, 4);
/// What a file may ask for at most: 1 GiB and 64 passes, so that a planted one cannot stop the machine.
const MAX_KDF: (u32, u32, u32) = (1 << 20, 64, 16);
/// A key file is shorter than this.
const MAX_FILE: u64 = 4 << 10;

/// What a key file says of its key, without the passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// What the key is for, in its owner's words.
    pub label: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    #[serde(flatten)]
    header: Header,
    #[serde(with = "hex")]
    ciphertext: Vec<u8>,
}

/// Everything but the ciphertext: authenticated by it.
#[derive(Clone, Serialize, Deserialize)]
struct Header {
    schema: String,
    label: String,
    #[serde(with = "hex")]
    public_key: [u8; 32],
    kdf: Kdf,
    cipher: String,
    #[serde(with = "hex")]
    nonce: [u8; 12],
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    name: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    #[serde(with = "hex")]
    salt: [u8; 16],
}

fn fail(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::KeyFile { path: path.display().to_string(), why: why.to_string() }
}

/// Writes a new key file; one that is there is never replaced.
pub fn create(path: &Path, secret: &[u8; 32], passphrase: &str, label: &str) -> Result<KeyInfo, Error> {
    place(path, &seal(path, secret, passphrase, label)?)?;
    info(path)
}

/// The same of words, which [`words`] gives again.
pub fn create_from_words(path: &Path, words: &Mnemonic, passphrase: &str, label: &str) -> Result<KeyInfo, Error> {
    let mut plain = Zeroizing::new([0; 32 + LONGEST]);
    let (seed, rest) = plain.split_at_mut(32);
    seed.copy_from_slice(&*words.seed());
    // As long as the longest words, so that the file does not tell how long these are.
    let text = words.words().as_bytes();
    let room = rest.get_mut(..text.len()).ok_or_else(|| fail(path, "the words are too long"))?;
    room.copy_from_slice(text);
    place(path, &seal(path, &*plain, passphrase, label)?)?;
    info(path)
}

/// Writes a copy, byte for byte; a file that is there is never replaced.
pub fn copy(path: &Path, to: &Path) -> Result<(), Error> {
    // A file that is no key file, or that others can read, is not copied.
    read(path)?;
    place(to, &fs::read_to_string(path).map_err(|error| fail(path, error))?)
}

/// Puts a whole file where there is none.
fn place(path: &Path, text: &str) -> Result<(), Error> {
    let unfinished = write_beside(path, text)?;
    // Unlike a rename, a link fails if somebody was faster.
    let linked = fs::hard_link(&unfinished, path);
    let removed = fs::remove_file(&unfinished);
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(fail(path, "it exists already; name another file, or move that one away"))
        }
        other => other.and(removed).and_then(|()| sync_folder(path)).map_err(|error| fail(path, error)),
    }
}

/// Reads the secret.
pub fn open(path: &Path, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let plain = unseal(path, passphrase)?;
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(plain.get(..32).unwrap_or_default());
    Ok(secret)
}

/// Reads the words that the secret was made from; `None` if it was made otherwise.
pub fn words(path: &Path, passphrase: &str) -> Result<Option<Mnemonic>, Error> {
    let plain = unseal(path, passphrase)?;
    let (seed, rest) = plain.split_at(32);
    if rest.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(rest).map_err(|_| fail(path, "the words in it are no text"))?;
    let words = Mnemonic::parse(text.trim_end_matches('\0'))?;
    if words.seed().as_slice() != seed {
        return Err(fail(path, "the words in it belong to another key"));
    }
    Ok(Some(words))
}

/// Everything that is encrypted: the seed, and maybe words.
fn unseal(path: &Path, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let KeyFile { header, ciphertext } = read(path)?;
    let mut sealed = Zeroizing::new(ciphertext);
    let key = derive(path, &header.kdf, passphrase)?;
    let nonce = Nonce::assume_unique_for_key(header.nonce);
    let wrong =
        || fail(path, "the passphrase is wrong, or the file was changed; try again, or restore it from its copy");
    let length = key.open_in_place(nonce, aad(path, &header)?, &mut sealed).map_err(|_| wrong())?.len();
    sealed.truncate(length);
    if (length != 32 && length != 32 + LONGEST) || public_key(path, &sealed)? != header.public_key {
        return Err(wrong());
    }
    Ok(sealed)
}

/// Encrypts the same secret under another passphrase. The old file stays until the new one is whole.
pub fn change_passphrase(path: &Path, old: &str, new: &str) -> Result<(), Error> {
    let plain = unseal(path, old)?;
    let text = seal(path, &plain, new, &info(path)?.label)?;
    let unfinished = write_beside(path, &text)?;
    fs::rename(&unfinished, path).and_then(|()| sync_folder(path)).map_err(|error| fail(path, error))
}

/// What the file says of its key. Nobody vouches for it until [`open`] has succeeded.
pub fn info(path: &Path) -> Result<KeyInfo, Error> {
    let Header { label, public_key, .. } = read(path)?.header;
    Ok(KeyInfo { label, public_key })
}

/// Encrypts a seed and what follows it.
fn seal(path: &Path, plain: &[u8], passphrase: &str, label: &str) -> Result<String, Error> {
    if passphrase.chars().count() < MIN_PASSPHRASE {
        return Err(fail(path, format!("the passphrase is shorter than {MIN_PASSPHRASE} characters")));
    }
    let (mut salt, mut nonce) = ([0; 16], [0; 12]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut nonce)).map_err(|error| fail(path, error))?;
    let header = Header {
        schema: SCHEMA.into(),
        label: label.into(),
        public_key: public_key(path, plain)?,
        kdf: Kdf { name: "argon2id".into(), memory_kib: KDF.0, passes: KDF.1, lanes: KDF.2, salt },
        cipher: "chacha20-poly1305".into(),
        nonce,
    };
    let key = derive(path, &header.kdf, passphrase)?;
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(path, &header)?, &mut sealed)
        .map_err(|_| fail(path, "it cannot be encrypted"))?;
    let file = KeyFile { header, ciphertext: sealed };
    let mut text = serde_json::to_string_pretty(&file).map_err(|error| fail(path, error))?;
    text.push('\n');
    if text.len() as u64 > MAX_FILE {
        return Err(fail(path, "its label is too long"));
    }
    Ok(text)
}

/// Of the seed that `plain` begins with.
fn public_key(path: &Path, plain: &[u8]) -> Result<[u8; 32], Error> {
    let wrong = || fail(path, "it holds no Ed25519 seed");
    let seed = plain.get(..32).ok_or_else(wrong)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| wrong())?;
    pair.public_key().as_ref().try_into().map_err(|_| wrong())
}

fn derive(path: &Path, kdf: &Kdf, passphrase: &str) -> Result<LessSafeKey, Error> {
    let params = Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(32)).map_err(|error| fail(path, error))?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &kdf.salt, &mut *key)
        .map_err(|error| fail(path, error))?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*key).map_err(|_| fail(path, "it cannot be decrypted"))?;
    Ok(LessSafeKey::new(key))
}

fn aad(path: &Path, header: &Header) -> Result<Aad<Vec<u8>>, Error> {
    Ok(Aad::from(serde_json::to_vec(header).map_err(|error| fail(path, error))?))
}

fn read(path: &Path) -> Result<KeyFile, Error> {
    let metadata = fs::metadata(path).map_err(|error| fail(path, error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(fail(path, format!("others can read it: run `chmod 600 {}`", path.display())));
    }
    if metadata.len() > MAX_FILE {
        return Err(fail(path, "it is no key file: it is too long"));
    }
    let text = fs::read_to_string(path).map_err(|error| fail(path, error))?;
    let file: KeyFile =
        serde_json::from_str(&text).map_err(|error| fail(path, format!("it is no key file: {error}")))?;
    let Header { schema, kdf, cipher, .. } = &file.header;
    if schema != SCHEMA {
        return Err(fail(path, format!("it is of format {schema:?}, and this program knows {SCHEMA:?}")));
    }
    if kdf.name != "argon2id" || cipher != "chacha20-poly1305" {
        return Err(fail(path, "it names another cipher than argon2id with chacha20-poly1305"));
    }
    if kdf.memory_kib > MAX_KDF.0 || kdf.passes > MAX_KDF.1 || kdf.lanes > MAX_KDF.2 {
        let (memory, passes, lanes) = MAX_KDF;
        let why =
            format!("it asks for more work than {memory} KiB, {passes} passes and {lanes} lanes: it is not Cocoon's");
        return Err(fail(path, why));
    }
    Ok(file)
}

/// Writes a whole file beside `path`, on disk, readable by its owner alone.
fn write_beside(path: &Path, text: &str) -> Result<std::path::PathBuf, Error> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| fail(path, error))?;
    let mut name = path.file_name().ok_or_else(|| fail(path, "it is no file's name"))?.to_os_string();
    name.push(format!(".{}.unfinished", hex::encode(random)));
    let unfinished = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| fail(&unfinished, error))?;
    Ok(unfinished)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [0x5a; 32];
    const PASSPHRASE: &str = "correct horse";

    #[test]
    fn what_was_stored_comes_back_and_only_with_the_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let info = create(&path, &SECRET, PASSPHRASE, "my wallet").unwrap();
        assert_eq!(info.label, "my wallet");
        assert_eq!(*open(&path, PASSPHRASE).unwrap(), SECRET);
        let error = open(&path, "wrong horses").unwrap_err().to_string();
        assert!(error.contains("passphrase is wrong") && error.contains("key.json"), "{error}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("5a5a5a") && !text.contains("correct"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        assert!(create(&path, &[1; 32], PASSPHRASE, "").unwrap_err().to_string().contains("exists already"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "an existing key was overwritten");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "something was left behind");
        assert!(create(&folder.path().join("x"), &SECRET, "short", "").unwrap_err().to_string().contains("shorter"));
    }

    #[test]
    fn words_come_back_and_only_where_the_key_was_made_from_them() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bare) = (folder.path().join("key.json"), folder.path().join("bare.json"));
        let mnemonic = Mnemonic::generate().unwrap();
        let info = create_from_words(&path, &mnemonic, PASSPHRASE, "my wallet").unwrap();
        assert_eq!(words(&path, PASSPHRASE).unwrap().unwrap().words(), mnemonic.words());
        assert_eq!(open(&path, PASSPHRASE).unwrap(), mnemonic.seed());
        assert!(words(&path, "wrong horses").is_err());
        // Nothing of them can be read without the passphrase, nor how long they are.
        let text = fs::read_to_string(&path).unwrap();
        assert!(!mnemonic.words().split(' ').any(|word| word.len() > 4 && text.contains(word)), "{text}");
        let sealed = read(&path).unwrap().ciphertext.len();
        create_from_words(&folder.path().join("other.json"), &Mnemonic::generate().unwrap(), PASSPHRASE, "").unwrap();
        assert_eq!(read(&folder.path().join("other.json")).unwrap().ciphertext.len(), sealed);
        change_passphrase(&path, PASSPHRASE, "another one").unwrap();
        assert_eq!(words(&path, "another one").unwrap().unwrap().words(), mnemonic.words());
        assert_eq!(super::info(&path).unwrap(), info);

        create(&bare, &SECRET, PASSPHRASE, "").unwrap();
        assert!(words(&bare, PASSPHRASE).unwrap().is_none());
        // Words of another key, put there by somebody who knows the passphrase.
        let mut plain = Zeroizing::new(unseal(&path, "another one").unwrap().to_vec());
        plain[..32].copy_from_slice(&SECRET);
        let text = seal(&bare, &plain, PASSPHRASE, "").unwrap();
        fs::write(&bare, text).unwrap();
        assert!(words(&bare, PASSPHRASE).unwrap_err().to_string().contains("another key"));
    }

    #[test]
    fn a_copy_is_the_same_file_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("key.json"), folder.path().join("copy.json"));
        create(&path, &SECRET, PASSPHRASE, "").unwrap();
        copy(&path, &to).unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(&to).unwrap());
        assert_eq!(*open(&to, PASSPHRASE).unwrap(), SECRET);
        assert!(copy(&path, &to).unwrap_err().to_string().contains("exists already"));
        fs::write(&path, "{}").unwrap();
        assert!(copy(&path, &folder.path().join("third.json")).unwrap_err().to_string().contains("no key file"));
    }

    #[test]
    fn a_changed_passphrase_kills_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let before = create(&path, &SECRET, PASSPHRASE, "label").unwrap();
        assert!(change_passphrase(&path, "wrong horses", "another one").is_err());
        assert!(change_passphrase(&path, PASSPHRASE, "short").is_err());
        assert_eq!(*open(&path, PASSPHRASE).unwrap(), SECRET);
        change_passphrase(&path, PASSPHRASE, "another one").unwrap();
        assert!(open(&path, PASSPHRASE).is_err());
        assert_eq!(*open(&path, "another one").unwrap(), SECRET);
        assert_eq!(info(&path).unwrap(), before);
    }

    #[test]
    fn a_file_that_was_changed_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        create(&path, &SECRET, PASSPHRASE, "label").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let flip = |text: &str| {
            let first = if text.starts_with('0') { "1" } else { "0" };
            format!("{first}{}", &text[1..])
        };
        for pointer in
            ["/label", "/public_key", "/nonce", "/ciphertext", "/kdf/salt", "/schema", "/cipher", "/kdf/name"]
        {
            let mut changed = value.clone();
            let field = changed.pointer_mut(pointer).unwrap();
            *field = flip(field.as_str().unwrap()).into();
            fs::write(&path, changed.to_string()).unwrap();
            assert!(open(&path, PASSPHRASE).is_err(), "{pointer}");
        }
        for (pointer, number) in [("/kdf/passes", 2), ("/kdf/memory_kib", 1 << 15), ("/kdf/lanes", 1)] {
            let mut changed = value.clone();
            *changed.pointer_mut(pointer).unwrap() = number.into();
            fs::write(&path, changed.to_string()).unwrap();
            assert!(open(&path, PASSPHRASE).is_err(), "{pointer}");
        }
        for (pointer, number) in [("/kdf/passes", u32::MAX), ("/kdf/memory_kib", u32::MAX), ("/kdf/lanes", 1 << 20)] {
            let mut changed = value.clone();
            *changed.pointer_mut(pointer).unwrap() = number.into();
            fs::write(&path, changed.to_string()).unwrap();
            assert!(open(&path, PASSPHRASE).unwrap_err().to_string().contains("more work"), "{pointer}");
        }
        for damaged in [&text[..text.len() / 2], "", "{}", &"x".repeat(5_000)] {
            fs::write(&path, damaged).unwrap();
            assert!(open(&path, PASSPHRASE).unwrap_err().to_string().contains("no key file"));
        }
        fs::write(&path, &text).unwrap();
        assert_eq!(*open(&path, PASSPHRASE).unwrap(), SECRET);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        create(&path, &SECRET, PASSPHRASE, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = open(&path, PASSPHRASE).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
