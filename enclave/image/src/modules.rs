//! Kernel modules: those that the guest needs, with what they need, in an order in which they can be loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_init::ModuleName;

use crate::Error;
use crate::debian::run;

/// What the guest needs beyond what is built into Debian's cloud kernel (PCI, virtio, virtio-console, SHA-256).
const NEEDED: &[&str] = &[
    "virtio_blk",
    "dm-verity",
    // Hashes several times faster.
    "sha256-ssse3",
    "erofs",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "qemu_fw_cfg",
    "configfs",
];

/// Drivers of the CPUs' reports.
const CPU: &[&str] = &["tdx-guest", "sev-guest"];

/// A kernel module, not compressed, as Debian signed it.
pub struct Module {
    /// Its name, and whether it is for one CPU.
    pub name: ModuleName,
    /// Its file.
    pub bytes: Vec<u8>,
}

/// The modules under a kernel's folder (`usr/lib/modules/VERSION`), in load order.
///
/// # Errors
/// One is not there, or cannot be unpacked.
pub fn in_load_order(kernel: &Path) -> Result<Vec<Module>, Error> {
    let mut paths = BTreeMap::new();
    find(kernel, &mut paths)?;
    let mut loaded = Vec::new();
    for (names, cpu) in [(NEEDED, false), (CPU, true)] {
        for name in names {
            add(name, cpu, &paths, &mut loaded)?;
        }
    }
    Ok(loaded)
}

/// Module names count `-` and `_` as the same.
fn key(name: &str) -> String {
    name.replace('-', "_")
}

fn find(folder: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::file(folder))? {
        let entry = entry.map_err(Error::file(folder))?;
        let kind = entry.file_type().map_err(Error::file(folder))?;
        if kind.is_dir() {
            find(&entry.path(), paths)?;
        } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko.xz") {
            paths.insert(key(name), entry.path());
        }
    }
    Ok(())
}

fn add(name: &str, cpu: bool, paths: &BTreeMap<String, PathBuf>, loaded: &mut Vec<Module>) -> Result<(), Error> {
    if loaded.iter().any(|module| key(&module.name.name) == key(name)) {
        return Ok(());
    }
    let path = paths
        .get(&key(name))
        .ok_or_else(|| Error::Manifest(format!("the pinned kernel has no module {name}: it is built in, or gone")))?;
    let bytes = run("xz", Command::new("xz").args(["--decompress", "--stdout"]).arg(path))?;
    for dependency in dependencies(&bytes) {
        add(&dependency, false, paths, loaded)?;
    }
    loaded.push(Module { name: ModuleName { name: name.to_owned(), cpu }, bytes });
    Ok(())
}

/// What a module says that it depends on: a string of its `.modinfo` section, which holds strings ended by zero bytes.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let names = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(names).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(modules: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, depends) in modules {
            let path = folder.path().join(format!("{name}.ko"));
            std::fs::write(&path, format!("ELF\0license=GPL\0depends={depends}\0name={name}\0")).unwrap();
            run("xz", Command::new("xz").arg(&path)).unwrap();
        }
        folder
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let kernel = kernel(&[
            ("dm-verity", "dm-bufio,dm-mod"),
            ("dm-bufio", "dm-mod"),
            ("dm-mod", ""),
            ("tdx-guest", "dm_mod"),
        ]);
        let mut paths = BTreeMap::new();
        find(kernel.path(), &mut paths).unwrap();
        let mut loaded = Vec::new();
        add("dm_verity", false, &paths, &mut loaded).unwrap();
        add("tdx-guest", true, &paths, &mut loaded).unwrap();
        let names: Vec<String> = loaded.iter().map(|module| module.name.to_string()).collect();
        assert_eq!(names, ["dm-mod", "dm-bufio", "dm_verity", "?tdx-guest"]);
        assert!(loaded[0].bytes.starts_with(b"ELF"));
    }

    #[test]
    fn a_kernel_without_a_module_is_named() {
        let error = in_load_order(kernel(&[("other", "")]).path()).err().unwrap().to_string();
        assert!(error.contains("virtio_blk"), "{error}");
    }
}
