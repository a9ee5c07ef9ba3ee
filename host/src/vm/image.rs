//! A guest image as its builder left it: a folder with `image.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::{ConfigError, GuestConfig, Tee};

/// What a guest boots from. Paths are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Firmware.
    pub firmware: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial ram disk.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Read-only disk with the model and its hash tree.
    pub model: Option<PathBuf>,
    /// Where the guest listens, as its command line says it: `vsock,PORT`, or `tcp,ADDRESS/PREFIX,PORT`.
    pub listen: Option<String>,
    /// The least memory that it runs in, in MiB.
    pub memory_mib: u64,
}

#[derive(Deserialize)]
struct Manifest {
    firmware: PathBuf,
    firmware_snp: Option<PathBuf>,
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: String,
    model_image: Option<PathBuf>,
    verity_root: Option<String>,
    listen: Option<String>,
    #[serde(default)]
    memory_mib: u64,
}

impl Image {
    /// Reads the folder and sees that all of it is there.
    ///
    /// # Errors
    /// A file is missing, or the disk's root is not in the command line, where it would be measured.
    pub fn open(folder: &Path, tee: Tee) -> Result<Self, ConfigError> {
        let path = folder.join("image.toml");
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path: path.clone(), source })?;
        let fault = |why: String| ConfigError::Toml { path: path.clone(), why };
        let manifest: Manifest = toml::from_str(&text).map_err(|error| fault(error.to_string()))?;
        match (&manifest.model_image, &manifest.verity_root) {
            (Some(_), None) => {
                return Err(fault(
                    "model_image without verity_root: nothing would say which model it is; build the image again"
                        .into(),
                ));
            }
            (_, Some(root)) if !manifest.cmdline.contains(root.as_str()) => {
                return Err(fault(
                    "verity_root is not in cmdline, so no measurement covers the model; build the image again".into(),
                ));
            }
            _ => {}
        }
        if manifest.cmdline.contains('\n') {
            return Err(fault("cmdline must be one line".into()));
        }
        let image = Self {
            firmware: folder.join(match (tee, manifest.firmware_snp) {
                (Tee::Snp, Some(firmware)) => firmware,
                _ => manifest.firmware,
            }),
            kernel: folder.join(manifest.kernel),
            initrd: folder.join(manifest.initrd),
            cmdline: manifest.cmdline,
            model: manifest.model_image.map(|model| folder.join(model)),
            listen: manifest.listen,
            memory_mib: manifest.memory_mib,
        };
        for file in [Some(&image.firmware), Some(&image.kernel), Some(&image.initrd), image.model.as_ref()]
            .into_iter()
            .flatten()
        {
            std::fs::metadata(file).map_err(|source| ConfigError::File { path: file.clone(), source })?;
        }
        let name = image.firmware.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if tee == Tee::Tdx && name.contains(".ms.") {
            return Err(fault(format!(
                "firmware {name} has Secure Boot on and refuses a kernel given directly; use the one without \".ms\""
            )));
        }
        Ok(image)
    }

    /// Sees that a configuration fits.
    ///
    /// # Errors
    /// The guest has too little memory, or listens elsewhere than it is looked for.
    pub fn check(&self, config: &GuestConfig) -> Result<(), ConfigError> {
        if config.memory.mebibytes() < self.memory_mib {
            return Err(ConfigError::Setting(format!(
                "memory = {}: this image needs {}M at least",
                config.memory, self.memory_mib
            )));
        }
        let Some(listen) = &self.listen else { return Ok(()) };
        let kind = if config.network.vsock.is_some() { "vsock" } else { "tcp" };
        let fits = listen.split(',').next() == Some(kind)
            && listen.rsplit(',').next() == Some(config.network.port.to_string().as_str());
        if fits {
            return Ok(());
        }
        Err(ConfigError::Setting(format!(
            "network is {kind} with port {}, and this image listens at {listen}: change one of them",
            config.network.port
        )))
    }
}
