//! What was found in firmware images, remembered between runs: looking into one takes longer than all the rest of a measurement. Of the guest's
//! own firmware it is known beforehand.
//!
//! A file of the user's cache folder for each image, named by the image's SHA-256. It counts only if it belongs to this user, nobody else
//! can write it, and it is whole; otherwise the image is looked into again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cocoon_attestation::Digest;
use cocoon_firmware_measurements::Inspection;
use cocoon_firmware_measurements::inspect::InitrdArgument;

/// Raised whenever an inspection looks for something else.
const VERSION: &str = "cocoon-firmware-inspection-v1";

/// What the firmware does: remembered, or looked up in it and remembered.
pub(super) fn inspect(image: &[u8]) -> Result<Inspection> {
    inspect_with(folder().as_deref(), image)
}

fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("cocoon/firmware"))
}

fn inspect_with(folder: Option<&Path>, image: &[u8]) -> Result<Inspection> {
    let digest = Digest::of(&[image]);
    if let Some(known) = Inspection::known(&digest.0) {
        return Ok(known);
    }
    let file = folder.map(|folder| folder.join(digest.to_string()));
    if let Some(known) = file.as_deref().and_then(|file| remembered(file, &digest)) {
        return Ok(known);
    }
    let found = Inspection::of(image).context("firmware")?;
    if let Some(file) = file {
        // A folder that cannot be written costs time and nothing else.
        let _ = remember(&file, &text(&digest, &found));
    }
    Ok(found)
}

/// One line, and the SHA-256 of it.
fn text(digest: &Digest, found: &Inspection) -> String {
    let Inspection {
        verifies_kernel_hashes,
        takes_unpatched_kernel,
        initrd_argument,
        measures_smbios,
        standard_boot_menu,
    } = found;
    let flags = [verifies_kernel_hashes, takes_unpatched_kernel, measures_smbios, standard_boot_menu];
    let flags: String = flags.map(|flag| if *flag { '1' } else { '0' }).iter().collect();
    let argument = match initrd_argument {
        None => "none",
        Some(InitrdArgument::Behind) => "behind",
        Some(InitrdArgument::InFront) => "in-front",
    };
    let line = format!("{VERSION} {digest} {flags} {argument}\n");
    format!("{line}{}\n", Digest::of(&[line.as_bytes()]))
}

fn remembered(file: &Path, digest: &Digest) -> Option<Inspection> {
    let about = fs::symlink_metadata(file).ok()?;
    let own = fs::metadata("/proc/self").ok()?.uid();
    if !about.is_file() || about.uid() != own || about.permissions().mode() & 0o022 != 0 {
        return None;
    }
    let kept = fs::read_to_string(file).ok()?;
    let mut words = kept.split_whitespace().skip(2);
    let flags: Vec<bool> = words.next()?.chars().map(|flag| flag == '1').collect();
    let [verifies_kernel_hashes, takes_unpatched_kernel, measures_smbios, standard_boot_menu] = flags[..] else {
        return None;
    };
    let initrd_argument = match words.next()? {
        "none" => None,
        "behind" => Some(InitrdArgument::Behind),
        _ => Some(InitrdArgument::InFront),
    };
    let found = Inspection {
        verifies_kernel_hashes,
        takes_unpatched_kernel,
        initrd_argument,
        measures_smbios,
        standard_boot_menu,
    };
    // Written anew it is the same, to the last byte.
    (text(digest, &found) == kept).then_some(found)
}

fn remember(file: &Path, text: &str) -> Result<()> {
    let folder = file.parent().context("no folder")?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut partial = tempfile::NamedTempFile::new_in(folder)?;
    partial.write_all(text.as_bytes())?;
    partial.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: Inspection = Inspection {
        verifies_kernel_hashes: true,
        takes_unpatched_kernel: false,
        initrd_argument: Some(InitrdArgument::InFront),
        measures_smbios: true,
        standard_boot_menu: false,
    };

    #[test]
    fn what_is_remembered_is_what_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let (file, digest) = (folder.path().join("a/b"), Digest([7; 32]));
        assert_eq!(remembered(&file, &digest), None);
        for initrd_argument in [None, Some(InitrdArgument::Behind), Some(InitrdArgument::InFront)] {
            let found = Inspection { initrd_argument, ..FOUND };
            remember(&file, &text(&digest, &found)).unwrap();
            assert_eq!(remembered(&file, &digest), Some(found));
        }
        assert_eq!(remembered(&file, &Digest([8; 32])), None, "another image's");
    }

    #[test]
    fn a_file_that_others_can_write_or_that_is_not_whole_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let (file, digest) = (folder.path().join("x"), Digest([7; 32]));
        let whole = text(&digest, &FOUND);
        for broken in [&whole[..whole.len() - 1], &whole.replace(" 1010 ", " 1011 "), "", "a b 1010 none"] {
            assert_ne!(broken, whole);
            remember(&file, broken).unwrap();
            assert_eq!(remembered(&file, &digest), None, "{broken:?}");
        }
        remember(&file, &whole).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(remembered(&file, &digest), None, "anybody may write it");
        let link = folder.path().join("link");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(remembered(&file, &digest), Some(FOUND));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(remembered(&link, &digest), None, "a link leads elsewhere");
    }

    #[test]
    fn an_image_is_looked_into_once() {
        let folder = tempfile::tempdir().unwrap();
        // Nothing is found in these bytes, so only the file can say this.
        let image = b"no firmware";
        let digest = Digest::of(&[image]);
        assert!(inspect_with(Some(folder.path()), image).is_err());
        remember(&folder.path().join(digest.to_string()), &text(&digest, &FOUND)).unwrap();
        assert_eq!(inspect_with(Some(folder.path()), image).unwrap(), FOUND);
        assert!(inspect_with(None, image).is_err());
    }
}
