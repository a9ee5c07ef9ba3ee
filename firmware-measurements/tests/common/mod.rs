//! Where tests find evidence and firmware of others.
#![allow(dead_code)]

use std::io::Read;
use std::path::{Path, PathBuf};

use cocoon_attestation::{Digest, Measurement};
use serde_json::Value;

/// The folder `measurements` of the vectors that `COCOON_VECTORS` names, or that lie in or beside the checkout. They are not part of
/// the project, so without the variable they may be absent; never in CI.
pub fn vectors() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("COCOON_VECTORS").map(|folder| PathBuf::from(folder).join("measurements")) {
        assert!(folder.is_dir(), "COCOON_VECTORS holds no folder {}", folder.display());
        return Some(folder);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["../shared/vectors", "../../shared/vectors"].map(|folder| root.join(folder).join("measurements"));
    let found = found.into_iter().find(|folder| folder.is_dir());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no vectors: let COCOON_VECTORS name their folder");
        eprintln!("skipped: no vectors; COCOON_VECTORS can name their folder");
    }
    found
}

/// A file of the folder that `COCOON_FIRMWARE` names, for what is too large to keep: kernels, firmware of distributions. It must
/// have the digest that the vectors state.
pub fn firmware(name: &str, sha256: &str) -> Option<Vec<u8>> {
    let Some(folder) = std::env::var_os("COCOON_FIRMWARE").map(PathBuf::from) else {
        eprintln!("skipped: COCOON_FIRMWARE can name a folder with {name} of SHA-256 {sha256}");
        return None;
    };
    let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name} in COCOON_FIRMWARE: {error}"));
    assert_eq!(Digest::of(&[&bytes]).to_string(), sha256, "{name} is another file than the vectors are of");
    Some(bytes)
}

/// A file, unpacked where its name says that it is packed.
pub fn read(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut out = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => lzma_rust2::XzReader::new(bytes.as_slice(), true).read_to_end(&mut out).expect("xz"),
        Some("gz") => flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut out).expect("gzip"),
        _ => return bytes,
    };
    out
}

pub fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&read(folder, name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

pub fn digest(value: &Value) -> Digest {
    text(value).parse().expect("SHA-256")
}

pub fn measurement(value: &Value) -> Measurement {
    text(value).parse().expect("SHA-384")
}
