//! The packages of Debian that the guest is made of: pinned by version and SHA-256, fetched from the mirror that apt is configured with.

use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::Digest;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::files::{create_folder, sha256};

/// Where Debian keeps a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// The main archive.
    Debian,
    /// The archive of security updates.
    DebianSecurity,
}

impl Archive {
    /// Environment variable that names a mirror of it.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Debian => "COCOON_DEBIAN_MIRROR",
            Self::DebianSecurity => "COCOON_DEBIAN_SECURITY_MIRROR",
        }
    }

    /// The label by which apt knows it.
    const fn label(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::DebianSecurity => "Debian-Security",
        }
    }
}

/// A package and the only bytes that are taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Debian's name.
    pub name: String,
    /// Debian's version.
    pub version: String,
    /// The archive that has it.
    pub archive: Archive,
    /// Its path there.
    pub path: String,
    /// SHA-256 of the `.deb` file.
    pub sha256: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pins {
    package: Vec<Package>,
}

/// The packages that this version of the image is made of: `packages.toml` beside the sources.
///
/// # Errors
/// The file is not what it should be.
pub fn pinned() -> Result<Vec<Package>, Error> {
    let pins: Pins = toml::from_str(include_str!("../packages.toml"))
        .map_err(|error| Error::Manifest(format!("packages.toml: {error}")))?;
    Ok(pins.package)
}

impl Package {
    /// The package's file in a folder.
    pub fn file(&self, folder: &Path) -> PathBuf {
        folder.join(self.path.rsplit('/').next().unwrap_or(&self.path))
    }

    /// Fetches the package into a folder, unless it is there already.
    ///
    /// # Errors
    /// No mirror is known, the mirror does not have it any more, or what it has are other bytes.
    pub fn fetch(&self, folder: &Path) -> Result<PathBuf, Error> {
        let file = self.file(folder);
        if file.exists() && sha256(&file)? == self.sha256 {
            return Ok(file);
        }
        self.fetch_from(&mirror(self.archive)?, folder)
    }

    fn fetch_from(&self, mirror: &str, folder: &Path) -> Result<PathBuf, Error> {
        create_folder(folder)?;
        let file = self.file(folder);
        let url = format!("{}/{}", mirror.trim_end_matches('/'), self.path);
        let output = Command::new("/usr/lib/apt/apt-helper")
            .args(["download-file", &url])
            .arg(&file)
            .arg(format!("SHA256:{}", self.sha256))
            .output()
            .map_err(|error| Error::Tool {
                tool: "apt-helper",
                why: format!("{error}; install Debian's package apt"),
            })?;
        if !output.status.success() {
            return Err(self.gone(&url, &String::from_utf8_lossy(&output.stderr)));
        }
        match sha256(&file)? == self.sha256 {
            true => Ok(file),
            false => Err(self.gone(&url, "other bytes than the pinned ones")),
        }
    }

    fn gone(&self, url: &str, why: &str) -> Error {
        let why = why.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ");
        Error::Package {
            name: self.name.clone(),
            version: self.version.clone(),
            why: format!("{url}: {why}"),
            variable: self.archive.variable(),
        }
    }

    /// Unpacks the package into a folder, nothing of it started.
    ///
    /// # Errors
    /// It cannot be fetched, or `dpkg-deb` is missing or fails.
    pub fn unpack(&self, packages: &Path, into: &Path) -> Result<(), Error> {
        let file = self.fetch(packages)?;
        run("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(file).arg(into)).map(drop)
    }
}

/// Runs a tool and gives its output.
pub(crate) fn run(tool: &'static str, command: &mut Command) -> Result<Vec<u8>, Error> {
    let output = command.output().map_err(|error| Error::Tool { tool, why: error.to_string() })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(Error::Tool { tool, why: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
    }
}

/// The mirror of an archive: named by the environment, else the one that apt uses.
fn mirror(archive: Archive) -> Result<String, Error> {
    let variable = archive.variable();
    if let Some(url) = std::env::var(variable).ok().filter(|url| !url.is_empty()) {
        return Ok(url);
    }
    let targets = run(
        "apt-get",
        Command::new("apt-get").args(["indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"]),
    )?;
    let targets = String::from_utf8_lossy(&targets);
    let found = targets.lines().filter_map(|line| line.split_once('|')).find(|(label, _)| *label == archive.label());
    found.map(|(_, url)| url.to_owned()).ok_or(Error::NoMirror { label: archive.label(), variable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_name_a_file_of_their_version_each_once() {
        let packages = pinned().unwrap();
        let names: std::collections::BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names.len(), packages.len());
        for package in packages {
            let file = package.file(Path::new("/p")).display().to_string();
            assert!(file.starts_with(&format!("/p/{}_{}_", package.name, package.version)), "{file}");
        }
    }

    #[test]
    fn only_the_pinned_bytes_are_taken_from_a_mirror_or_from_the_folder() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [mirror, folder] = folders.each_ref().map(|folder| folder.path());
        let mut package = pinned().unwrap().remove(0);
        package.path = "pool/test_1_all.deb".into();
        std::fs::create_dir(mirror.join("pool")).unwrap();
        std::fs::write(mirror.join(&package.path), b"abc").unwrap();
        let url = format!("copy:{}/", mirror.display());
        package.sha256 = Digest::of(&[b"abd"]);
        let error = package.fetch_from(&url, folder).unwrap_err().to_string();
        assert!(error.contains(&package.version) && error.contains(package.archive.variable()), "{error}");
        package.sha256 = Digest::of(&[b"abc"]);
        let file = package.fetch_from(&url, folder).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"abc");
        std::fs::remove_file(mirror.join(&package.path)).unwrap();
        assert_eq!(package.fetch(folder).unwrap(), file, "what is there is not fetched again");
    }
}
