//! Guest images, and the reference values that verifiers compare evidence with.
//!
//! [`guest::build`] makes the files that a virtual machine is launched from, out of the enclave's binary, a model folder and pinned
//! packages of Debian. For guests that are processes on the development platform, an [`ImageManifest`] names the binary and the model
//! folders; [`ImageManifest::reference_values`] measures them by the same rules as the CPU and the enclave.
//!
//! - [`guest`]: what an image is. - [`cpio`]: the initial ram disk. - [`erofs`], [`verity`]: the model's disk. - [`debian`]: packages.
//! - [`modules`]: the kernel's modules.

pub mod cpio;
pub mod debian;
pub mod erofs;
mod files;
pub mod guest;
pub mod modules;
pub mod verity;

use std::path::{Path, PathBuf};

use cocoon_attestation::reference::{ImageReference, ModelReference, ReferenceValues, SnpReference, TdxReference};
use cocoon_attestation::{Measurement, model_root};
use cocoon_firmware_measurements::process_launch;
use serde::{Deserialize, Serialize};

/// Why an image could not be built or described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that the image is made of is not what it should be.
    #[error("image: {0}")]
    Manifest(String),
    /// The binary could not be measured.
    #[error(transparent)]
    Measurement(#[from] cocoon_firmware_measurements::Error),
    /// A model folder could not be hashed.
    #[error("model {name:?}: {source}")]
    Model {
        /// The model's name.
        name: String,
        /// What went wrong.
        source: cocoon_attestation::Error,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A tool of Debian's is missing or failed.
    #[error("{tool}: {why}")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// What it says.
        why: String,
    },
    /// A pinned package could not be had.
    #[error(
        "{name} {version}: {why}\nMirrors drop a version when the next is out. Debian's snapshot archive keeps all: set {variable} to its \
         address of this archive on a day when the version was current, or put the file into the packages' folder yourself"
    )]
    Package {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// What went wrong.
        why: String,
        /// The environment variable that names another mirror.
        variable: &'static str,
    },
    /// Nobody says where packages come from.
    #[error(
        "apt knows no mirror of {label}: run apt-get update, or, where this is not Debian, set {variable} to the address of one"
    )]
    NoMirror {
        /// The archive.
        label: &'static str,
        /// The environment variable that names a mirror.
        variable: &'static str,
    },
    /// The guest's libraries do not fit the binary.
    #[error("{} does not run on the guest's libraries: {why}; build it on Debian 13 or older", program.display())]
    Unfit {
        /// The binary.
        program: PathBuf,
        /// What the loader says.
        why: String,
    },
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(crate) fn model(name: &str, source: cocoon_attestation::Error) -> Self {
        Self::Model { name: name.to_owned(), source }
    }
}

/// A model that the image serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFolder {
    /// Name under which it is served.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
}

/// What a guest image is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageManifest {
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// The guest's binary.
    pub binary: PathBuf,
    /// Models that it may serve.
    #[serde(default)]
    pub models: Vec<ModelFolder>,
}

impl ImageManifest {
    /// Reads TOML; relative paths are taken from `base`, the folder of the manifest.
    pub fn from_toml(text: &str, base: &Path) -> Result<Self, Error> {
        let mut manifest: Self = toml::from_str(text).map_err(|error| Error::Manifest(error.to_string()))?;
        manifest.binary = base.join(&manifest.binary);
        for model in &mut manifest.models {
            model.path = base.join(&model.path);
        }
        Ok(manifest)
    }

    /// Measures binary and models.
    pub fn reference_values(&self) -> Result<ReferenceValues, Error> {
        let launch = process_launch(&self.binary)?;
        let image =
            ImageReference { name: self.name.clone(), version: self.version.clone(), digest: launch.image_digest };
        let mut values = ReferenceValues::new(image);
        let mrtd = Measurement(launch.mrtd);
        values.tdx.push(TdxReference::of_mrtd(mrtd));
        values.snp.push(SnpReference { measurement: Measurement(launch.snp_measurement) });
        for model in &self.models {
            let root = model_root(&model.path).map_err(|source| Error::model(&model.name, source))?;
            values.models.push(ModelReference { name: model.name.clone(), root: root.root });
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(folder: &Path) -> ImageManifest {
        std::fs::write(folder.join("enclave"), b"binary").unwrap();
        std::fs::create_dir_all(folder.join("model")).unwrap();
        std::fs::write(folder.join("model/config.json"), b"{}").unwrap();
        let text =
            "name = \"test\"\nversion = \"1\"\nbinary = \"enclave\"\n[[models]]\nname = \"m\"\npath = \"model\"\n";
        ImageManifest::from_toml(text, folder).unwrap()
    }

    #[test]
    fn values_are_those_of_launch_and_model() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = manifest(folder.path());
        let values = manifest.reference_values().unwrap();
        let launch = process_launch(&folder.path().join("enclave")).unwrap();
        assert_eq!(values.image.digest, launch.image_digest);
        assert_eq!(values.tdx[0].mrtd.0, launch.mrtd);
        assert_eq!(values.snp[0].measurement.0, launch.snp_measurement);
        assert_eq!(values.models[0].root, model_root(&folder.path().join("model")).unwrap().root);
        std::fs::write(folder.path().join("model/config.json"), b"{ }").unwrap();
        assert_ne!(manifest.reference_values().unwrap().models, values.models, "a changed model");
    }

    #[test]
    fn a_missing_model_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut manifest = manifest(folder.path());
        manifest.models[0].path = folder.path().join("absent");
        let error = manifest.reference_values().unwrap_err().to_string();
        assert!(error.contains("\"m\"") && error.contains("absent"), "{error}");
    }

    #[test]
    fn unknown_keys_in_a_manifest_are_refused() {
        let text = "name = \"a\"\nversion = \"1\"\nbinary = \"b\"\nmodel = []\n";
        assert!(ImageManifest::from_toml(text, Path::new(".")).is_err());
    }
}
