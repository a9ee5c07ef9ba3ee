//! Where tests find evidence and firmware of others, and a small kernel and firmware of their own.
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

/// The smallest bzImage that is one: a PE header, a boot header of protocol 2.15, a version, and `body` as its only section.
pub fn kernel(version: &str, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &1_u16.to_le_bytes()); // one section
    put(0x54, &0xa0_u16.to_le_bytes()); // length of the optional header
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 60, &0x1000_u32.to_le_bytes()); // length of the headers
    put(0x58 + 108, &6_u32.to_le_bytes()); // directories
    put(0xf8 + 16, &(body.len() as u32).to_le_bytes());
    put(0xf8 + 20, &0x1000_u32.to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x20e, &0x100_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &0x7f_u16.to_le_bytes());
    put(0x300, version.as_bytes());
    out.extend_from_slice(body);
    out
}
