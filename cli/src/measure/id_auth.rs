//! `cocoon measure id-auth`: who vouches for an identity block, as QEMU takes it. Keys stay where they are: what comes in is what OpenSSL
//! writes, public keys as PEM and signatures as DER.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use cocoon_firmware_measurements::id_block::{IdAuthentication, PublicKey, Signature};

use super::read;

#[derive(Debug, Args)]
pub struct IdAuthArgs {
    /// The identity key: a P-384 public key, PEM
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Its signature of the identity block (ECDSA with SHA-384, DER)
    #[arg(long, value_name = "FILE", required_unless_present = "to_sign")]
    signature: Option<PathBuf>,
    /// An author's key, which vouches for the identity key
    #[arg(long, value_name = "PEM", requires = "author_signature")]
    author_key: Option<PathBuf>,
    /// Its signature of what --to-sign writes
    #[arg(long, value_name = "FILE", requires = "author_key")]
    author_signature: Option<PathBuf>,
    /// Write the identity key as AMD lays it out, which is what an author signs, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["signature", "author_key"])]
    to_sign: Option<PathBuf>,
}

impl IdAuthArgs {
    pub fn run(self) -> Result<String> {
        let key = key(&self.key)?;
        if let Some(path) = &self.to_sign {
            std::fs::write(path, key.to_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(format!("ID_KEY_DIGEST {}\n", key.digest()));
        }
        let from = self.signature.context("--signature is missing")?;
        let author = self.author_key.zip(self.author_signature);
        let author = author.map(|(key, signed)| anyhow::Ok((self::key(&key)?, signature(&signed)?))).transpose()?;
        let authentication = IdAuthentication { key, signature: signature(&from)?, author };
        Ok(format!("{}\n", STANDARD.encode(authentication.to_bytes())))
    }
}

/// What a P-384 key begins with as SubjectPublicKeyInfo (RFC 5480): the algorithm, the curve, an uncompressed point.
const P384: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];

fn key(path: &Path) -> Result<PublicKey> {
    let text = String::from_utf8(read(path)?).unwrap_or_default();
    let body: Option<String> = text.split_once("-----BEGIN PUBLIC KEY-----").and_then(|(_, rest)| {
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
        Some(body.split_whitespace().collect())
    });
    let der = body.and_then(|body| STANDARD.decode(body).ok());
    let point = der.as_deref().and_then(|der| der.strip_prefix(&P384)).map(PublicKey::from_point);
    let point = point.and_then(Result::ok);
    point.with_context(|| format!("{} is no P-384 public key as PEM (openssl ec -in KEY -pubout)", path.display()))
}

fn signature(path: &Path) -> Result<Signature> {
    numbers(&read(path)?)
        .with_context(|| format!("{} is no P-384 signature as DER (openssl dgst -sha384 -sign KEY)", path.display()))
}

/// The two numbers of `ECDSA-Sig-Value` (RFC 3279).
fn numbers(der: &[u8]) -> Option<Signature> {
    let (content, []) = element(der, 0x30)? else { return None };
    let (r, rest) = element(content, 2)?;
    let (s, []) = element(rest, 2)? else { return None };
    let mut out = [0; 96];
    for (place, number) in out.chunks_exact_mut(48).zip([r, s]) {
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        let start = 48_usize.checked_sub(number.len())?;
        place[start..].copy_from_slice(number);
    }
    Some(Signature(out))
}

/// An element of this tag with a length of one byte, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    match der {
        [found, len @ 0..=127, rest @ ..] if *found == tag => rest.split_at_checked(usize::from(*len)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By OpenSSL 3.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEoQTHQCvrkQgT6l1UKbxIQrgERe1VdjK+
bQLltOqfTIXMxFMdsi69Xkw0vk0/RUGRbzmoqKTnk2nJKZnQfmohj9wPeYAU0gvy
OxB2WAFrNcdLzb6fMP7RldCU/Iyak+Gr
-----END PUBLIC KEY-----
";
    const SIGNATURE: &str = "306402301c0ab71efeacec2c2d75b51eddf95945f16d225462d26d4b18bb2bd71c6526ccdaa1a66e1ef34ed6d392fb6e85cc46a4\
        02303e33641ce03389d91eeb1601ab29e8114a7fd7b618faab1ff04f1305001d3fb17cce43c8b8514d0dd837ce5149569489";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), KEY).unwrap();
        std::fs::write(folder.path().join("signature"), hex::decode(SIGNATURE).unwrap()).unwrap();
        folder
    }

    fn args(folder: &Path, author: bool) -> IdAuthArgs {
        let (key, signature) = (folder.join("key"), folder.join("signature"));
        let author = author.then(|| (key.clone(), signature.clone())).unzip();
        IdAuthArgs { key, signature: Some(signature), author_key: author.0, author_signature: author.1, to_sign: None }
    }

    #[test]
    fn keys_and_signatures_stand_where_amd_reads_them() {
        let folder = folder();
        let laid_out = |author| STANDARD.decode(args(folder.path(), author).run().unwrap().trim()).unwrap();
        let (alone, with_author) = (laid_out(false), laid_out(true));
        // Numbers are little-endian: r ends with a4 and begins with 1c, x begins with a1.
        assert_eq!((alone.len(), alone[0x40], alone[0x40 + 47]), (4096, 0xa4, 0x1c));
        assert_eq!((alone[0x40 + 72], alone[0x40 + 72 + 47]), (0x89, 0x3e), "s");
        assert_eq!((alone[0x240], alone[0x244 + 47]), (2, 0xa1), "curve, x");
        assert_eq!((alone[4], with_author[4]), (0, 1), "whether there is an author");
        assert_eq!(with_author[0x680..0x880], with_author[0x40..0x240]);
        assert_eq!(with_author[0x880..0xc84], with_author[0x240..0x644]);
    }

    #[test]
    fn an_author_signs_the_identity_key_as_it_stands_there() {
        let folder = folder();
        let out = folder.path().join("to-sign");
        let mut asked = args(folder.path(), false);
        (asked.signature, asked.to_sign) = (None, Some(out.clone()));
        assert!(asked.run().unwrap().starts_with("ID_KEY_DIGEST "));
        let whole = STANDARD.decode(args(folder.path(), false).run().unwrap().trim()).unwrap();
        assert_eq!(std::fs::read(out).unwrap(), whole[0x240..0x240 + 1028]);
    }

    #[test]
    fn what_openssl_did_not_write_is_refused() {
        let folder = folder();
        let signature = hex::decode(SIGNATURE).unwrap();
        for broken in [&signature[..signature.len() - 1], &[&signature[..], &[0]].concat(), b"", b"text"] {
            std::fs::write(folder.path().join("signature"), broken).unwrap();
            assert!(args(folder.path(), false).run().unwrap_err().to_string().contains("openssl dgst"));
        }
        for broken in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &KEY.replace("MHYw", "MHUw")]
        {
            std::fs::write(folder.path().join("key"), broken).unwrap();
            assert!(args(folder.path(), false).run().unwrap_err().to_string().contains("openssl ec"));
        }
    }
}
