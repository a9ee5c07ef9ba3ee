//! Files that the start reads: kernel modules of the initial ram disk, and the configuration that the host gives.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::{Error, Platform, sys};

/// Where the initial ram disk has the kernel modules, each as `NAME.ko`, not compressed.
pub const MODULES_FOLDER: &str = "/modules";
/// Their names in the order in which they are loaded, one a line ([`ModuleName`]).
pub const MODULES_LIST: &str = "/modules/order";

/// A line of the list of modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleName {
    /// The module.
    pub name: String,
    /// It is the driver of one CPU's reports: on another it finds no device, and is not asked for on the development platform. Its line
    /// begins with a question mark.
    pub cpu: bool,
}

impl std::fmt::Display for ModuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.cpu { "?" } else { "" }, self.name)
    }
}

impl FromStr for ModuleName {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        let (cpu, name) = line.strip_prefix('?').map_or((false, line), |name| (true, name));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(Error::Unfit(format!("{MODULES_LIST}: {line:?} is no module's name")));
        }
        Ok(Self { name: name.to_owned(), cpu })
    }
}

/// Loads all modules and forbids that any more are loaded.
pub fn load_modules(platform: Platform) -> Result<(), Error> {
    let list = fs::read_to_string(MODULES_LIST).map_err(Error::file(Path::new(MODULES_LIST)))?;
    let mut cpu_driver = false;
    for line in list.lines() {
        let module: ModuleName = line.parse()?;
        if module.cpu && platform == Platform::Development {
            continue;
        }
        let path = Path::new(MODULES_FOLDER).join(format!("{}.ko", module.name));
        let file = File::open(&path).map_err(Error::file(&path))?;
        match sys::load_module(&file) {
            Ok(()) => cpu_driver |= module.cpu,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if module.cpu && error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(source) => return Err(Error::Step { step: format!("kernel module {}", module.name), source }),
        }
    }
    if platform == Platform::Hardware && !cpu_driver {
        return Err(Error::Unfit(
            "this machine is neither a TDX nor an SEV-SNP guest: launch it as one, or use the image for the development platform".into(),
        ));
    }
    write("/proc/sys/kernel/modules_disabled", "1")
}

/// Writes a setting of the kernel.
pub fn write(path: &str, value: &str) -> Result<(), Error> {
    fs::write(path, value).map_err(Error::file(Path::new(path)))
}

/// How long a device may take to appear: the host has plugged it in before the start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a path exists.
pub fn wait_for(path: impl Into<PathBuf>, what: &str) -> Result<PathBuf, Error> {
    let path = path.into();
    let started = Instant::now();
    while !path.exists() {
        if started.elapsed() > PATIENCE {
            return Err(Error::Missing(format!(
                "the host gives this machine no {what} ({} is missing)",
                path.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(path)
}

/// Name under which QEMU is given the configuration: `-fw_cfg name=opt/cocoon/config,file=FILE`. It is not measured at launch; its digest is
/// among the claims of the evidence.
pub const CONFIG_NAME: &str = "opt/cocoon/config";
/// The longest configuration in bytes.
const MOST_CONFIG: u64 = 64 << 10;

/// Reads the configuration from the host.
pub fn configuration() -> Result<Vec<u8>, Error> {
    let path = Path::new("/sys/firmware/qemu_fw_cfg/by_name").join(CONFIG_NAME).join("raw");
    let file = File::open(&path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => {
            Error::Missing(format!("the host gives no configuration: -fw_cfg name={CONFIG_NAME},file=FILE"))
        }
        _ => Error::Step { step: path.display().to_string(), source },
    })?;
    let mut config = Vec::new();
    file.take(MOST_CONFIG + 1).read_to_end(&mut config).map_err(Error::file(&path))?;
    if config.len() as u64 > MOST_CONFIG {
        return Err(Error::Unfit(format!("the configuration is longer than {MOST_CONFIG} bytes")));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules_are_read_as_written_and_lead_nowhere_else() {
        for cpu in [false, true] {
            let module = ModuleName { name: "dm-mod".into(), cpu };
            assert_eq!(module.to_string().parse::<ModuleName>().unwrap(), module);
        }
        for bad in ["", "?", "../x", "a b", "a/b", "a.ko"] {
            assert!(bad.parse::<ModuleName>().is_err(), "{bad:?}");
        }
    }
}
