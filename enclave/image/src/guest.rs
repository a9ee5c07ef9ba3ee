//! A guest image: the files that a virtual machine is launched from, and a manifest that says what they are.
//!
//! The same binary, model and recipe give the same bytes in every folder, at every time, on every machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::{Digest, model_files, model_root};
use cocoon_init::{Listen, MODEL_FOLDER, MODULES_FOLDER, MODULES_LIST, Parameters, Platform, VerityImage};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cpio::Archive;
use crate::debian::{self, Package};
use crate::erofs::FileSystem;
use crate::files::{create_folder, read, sha256, write};
use crate::modules;
use crate::verity::VerityWriter;

/// Name of the manifest in an image's folder.
pub const MANIFEST: &str = "image.toml";

const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.cpio";
const MODEL: &str = "model.img";
const FIRMWARE: &str = "OVMF.fd";
const FIRMWARE_SNP: &str = "OVMF.amdsev.fd";

/// The kernel's own part of the command line. `panic=-1 oops=panic`: a kernel that has lost its way ends the machine.
/// `lockdown=confidentiality`: signed modules only, and no way into the kernel's memory. `no-kvmclock`: time is the processor's, not the
/// host's. `random.trust_bootloader=off`: nothing that the host can choose counts as entropy.
const KERNEL_PARAMETERS: &str = "console=ttyS0 quiet panic=-1 oops=panic lockdown=confidentiality no-kvmclock \
                                 random.trust_bootloader=off ipv6.disable=1 ia32_emulation=0 vsyscall=none";

/// What an image is built from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The guest's binary, `cocoon-enclave`.
    pub enclave: PathBuf,
    /// The model folder.
    pub model: PathBuf,
    /// Who signs evidence.
    pub platform: Platform,
    /// Where the enclave listens.
    pub listen: Listen,
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
}

/// What an image's folder holds. Files are named relative to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestImage {
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// Firmware of TDX guests and of the development platform.
    pub firmware: PathBuf,
    /// Firmware of SEV-SNP guests.
    pub firmware_snp: PathBuf,
    /// Linux, as Debian built it.
    pub kernel: PathBuf,
    /// The initial ram disk: the enclave, its libraries, the kernel's modules.
    pub initrd: PathBuf,
    /// The kernel's command line, without an end of line.
    pub cmdline: String,
    /// The disk with the model and its hash tree; the machine's first virtio disk.
    pub model_image: PathBuf,
    /// Root of that tree, which the command line holds too.
    pub verity_root: Digest,
    /// Root of the model folder, as evidence names it.
    pub model_root: Digest,
    /// Where the enclave listens, as the command line says it.
    pub listen: String,
    /// The least memory of the machine, in MiB.
    pub memory_mib: u64,
    /// SHA-256 of each file.
    pub sha256: BTreeMap<String, Digest>,
    /// The packages of Debian in it.
    pub package: Vec<Package>,
}

impl GuestImage {
    /// Reads the manifest of an image's folder.
    ///
    /// # Errors
    /// It is missing or not what it should be.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MANIFEST);
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        toml::from_str(&text).map_err(|error| Error::Manifest(format!("{}: {error}", path.display())))
    }
}

/// Builds an image into a folder. Packages come from, and are kept in, another.
///
/// # Errors
/// A package, tool or file is missing, or the binary needs libraries that the guest does not have.
pub fn build(recipe: &Recipe, packages: &Path, out: &Path) -> Result<GuestImage, Error> {
    create_folder(out)?;
    let unpacked = tempfile::tempdir_in(out).map_err(Error::file(out))?;
    let root = unpacked.path();
    let pins = debian::pinned()?;
    for package in &pins {
        package.unpack(packages, root)?;
    }
    for (from, to) in [("usr/share/ovmf/OVMF.fd", FIRMWARE), ("usr/share/ovmf/OVMF.amdsev.fd", FIRMWARE_SNP)] {
        write(&out.join(to), &read(&root.join(from))?)?;
    }
    write(&out.join(KERNEL), &read(&only(&root.join("boot"), "vmlinuz-")?)?)?;
    write(&out.join(INITRD), &initrd(&recipe.enclave, root)?)?;
    let model = model_image(&recipe.model, &out.join(MODEL))?;
    let parameters = Parameters { platform: recipe.platform, model, listen: recipe.listen };
    let mut digests = BTreeMap::new();
    for name in [FIRMWARE, FIRMWARE_SNP, KERNEL, INITRD, MODEL] {
        digests.insert(name.to_owned(), sha256(&out.join(name))?);
    }
    let image = GuestImage {
        name: recipe.name.clone(),
        version: recipe.version.clone(),
        firmware: FIRMWARE.into(),
        firmware_snp: FIRMWARE_SNP.into(),
        kernel: KERNEL.into(),
        initrd: INITRD.into(),
        cmdline: format!("{KERNEL_PARAMETERS} {parameters}"),
        model_image: MODEL.into(),
        verity_root: Digest(model.root),
        model_root: model_root(&recipe.model).map_err(|source| Error::model(&recipe.name, source))?.root,
        listen: recipe.listen.to_string(),
        memory_mib: memory_mib(&out.join(INITRD), &out.join(MODEL))?,
        sha256: digests,
        package: pins,
    };
    let text = toml::to_string(&image).map_err(|error| Error::Manifest(error.to_string()))?;
    write(&out.join(MANIFEST), text.as_bytes())?;
    Ok(image)
}

/// The one entry of a folder whose name begins so.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::file(folder))? {
        let entry = entry.map_err(Error::file(folder))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => Err(Error::Manifest(format!("{} does not hold exactly one {prefix}*", folder.display()))),
    }
}

fn initrd(enclave: &Path, root: &Path) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::new();
    for folder in ["dev", "proc", "run", "sys", "tmp", inside(MODEL_FOLDER)] {
        archive.folder(folder);
    }
    // The kernel opens it for the first process, before there is any other device.
    archive.character_device("dev/console", 5, 1);
    archive.file("init", read(enclave)?, true);
    for (path, bytes) in libraries(enclave, root)? {
        archive.file(&path, bytes, true);
    }
    let mut order = String::new();
    for module in modules::in_load_order(&only(&root.join("usr/lib/modules"), "")?)? {
        order += &format!("{}\n", module.name);
        archive.file(&format!("{}/{}.ko", inside(MODULES_FOLDER), module.name.name), module.bytes, false);
    }
    archive.file(inside(MODULES_LIST), order.into_bytes(), false);
    let mut bytes = Vec::new();
    archive.write(&mut bytes).map_err(Error::file(Path::new(INITRD)))?;
    Ok(bytes)
}

fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Where every x86-64 program looks for it.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// The libraries that a program needs, from the pinned packages, under the paths of the guest. The packages' own loader says which, and
/// whether each has what the program was linked with.
fn libraries(program: &Path, root: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let folder = root.join(LIBRARIES);
    let loader = folder.join("ld-linux-x86-64.so.2");
    let output = Command::new(&loader)
        .args(["--inhibit-cache", "--list", "--library-path"])
        .arg(&folder)
        .arg(program)
        .env_remove("LD_PRELOAD")
        .output()
        .map_err(|error| Error::Tool { tool: "the guest's loader", why: format!("{}: {error}", loader.display()) })?;
    let unfit = |why: String| Error::Unfit { program: program.to_owned(), why };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || text.contains("not found") {
        let why = format!("{}{text}", String::from_utf8_lossy(&output.stderr));
        return Err(unfit(why.lines().map(str::trim).collect::<Vec<_>>().join("; ")));
    }
    let mut libraries = vec![(LOADER.to_owned(), read(&loader)?)];
    for line in text.lines() {
        // "libm.so.6 => /path/libm.so.6 (0x...)"; the loader and the kernel's own page have no arrow, or point at the loader.
        let Some((name, path)) = line.trim().split_once(" => ") else { continue };
        let path = Path::new(path.split(" (").next().unwrap_or(path));
        if name.contains("ld-linux") {
            continue;
        }
        if path.parent() != Some(&folder) {
            return Err(unfit(format!("{name} would come from {}", path.display())));
        }
        libraries.push((format!("lib/x86_64-linux-gnu/{name}"), read(path)?));
    }
    Ok(libraries)
}

/// Writes a model folder as a file system with its hash tree.
///
/// # Errors
/// A file cannot be read, or the image not written.
pub fn model_image(model: &Path, image: &Path) -> Result<VerityImage, Error> {
    let files = model_files(model).map_err(|source| Error::model(&model.display().to_string(), source))?;
    let system = FileSystem::plan(&files)?;
    let file = File::create(image).map_err(Error::file(image))?;
    let mut writer = VerityWriter::new(file, system.blocks());
    system.write(&mut writer, image)?;
    let root = writer.finish().map_err(Error::file(image))?;
    Ok(VerityImage { data_blocks: system.blocks(), root })
}

/// The initial ram disk is there twice while it is unpacked; a model is held in memory, and once more as the engine wants it.
fn memory_mib(initrd: &Path, model: &Path) -> Result<u64, Error> {
    let mib = |path: &Path| std::fs::metadata(path).map_err(Error::file(path)).map(|file| file.len().div_ceil(1 << 20));
    Ok((512 + 2 * mib(initrd)? + 3 * mib(model)?).next_multiple_of(256))
}
