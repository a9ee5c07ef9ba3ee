//! A guest that is a process on the development platform. It has no firmware: its measurements are digests of the binary under
//! names of their own.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use aws_lc_rs::digest;
use cocoon_attestation::dev::cpu::Launch;
use cocoon_attestation::{Digest, Measurement};

use crate::Error;

/// Measurements of a guest that is a process on the development platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessLaunch {
    /// SHA-256 of the binary: the image digest that the Registry admits.
    pub image_digest: Digest,
    /// `SHA-384("cocoon-process-mrtd-v1" || image digest)`, in MRTD's place.
    pub mrtd: [u8; 48],
    /// `SHA-384("cocoon-process-snp-v1" || image digest)`, in the launch digest's place.
    pub snp_measurement: [u8; 48],
}

impl ProcessLaunch {
    /// What the development platform's CPU records of this launch.
    pub fn to_launch(&self) -> Launch {
        Launch { mrtd: self.mrtd, snp_measurement: self.snp_measurement, ..Launch::default() }
    }
}

/// Measures a binary as the development platform does when it launches it.
pub fn process_launch(binary: &Path) -> Result<ProcessLaunch, Error> {
    let image_digest = sha256(binary).map_err(|source| Error::File { path: binary.to_owned(), source })?;
    Ok(ProcessLaunch {
        image_digest,
        mrtd: Measurement::of(&[b"cocoon-process-mrtd-v1", image_digest.as_bytes()]).0,
        snp_measurement: Measurement::of(&[b"cocoon-process-snp-v1", image_digest.as_bytes()]).0,
    })
}

fn sha256(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    Digest::from_slice(context.finish().as_ref()).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_follows_the_bytes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let one = process_launch(&write("one", b"abc")).unwrap();
        // SHA-256("abc"), FIPS 180-4 example; the others computed with coreutils' sha384sum.
        assert_eq!(one.image_digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex::encode(one.mrtd), MRTD_OF_ABC);
        assert_eq!(process_launch(&write("two", b"abc")).unwrap(), one, "same bytes under another name");
        let other = process_launch(&write("three", b"abd")).unwrap();
        assert_ne!(other.mrtd, one.mrtd);
        assert_ne!(other.snp_measurement, one.snp_measurement);
        assert_ne!(one.mrtd, one.snp_measurement);
    }

    #[test]
    fn a_missing_binary_is_named() {
        let error = process_launch(Path::new("/nonexistent/cocoon-enclave")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cocoon-enclave"));
    }

    const MRTD_OF_ABC: &str =
        "1f8eef5043713c9bd6b527b7c4aa31e0ccb89f0f3ace14745ad181544d014b85e710ae9072cd440e7a277328c9f1f0ca";
}
