//! The image of the development platform, its machine, and the reference values that its files have.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_attestation::ReferenceValues;
use cocoon_cli::host_launch::read_plan;
use cocoon_host::vm::Plan;
use cocoon_image::guest::{GuestImage, MANIFEST};

const SEED: [u8; 32] = [0x5e; 32];

pub struct Image {
    /// Where guests have their folders.
    folder: PathBuf,
    /// What was built.
    pub built: GuestImage,
    /// As a client gets them: signed, and read with the signer's key.
    pub references: ReferenceValues,
}

/// A guest before it is launched, to be altered.
pub struct Draft {
    /// Its image's folder.
    pub image: PathBuf,
    /// The manifest in it.
    pub manifest: GuestImage,
    /// Its processors.
    pub vcpus: u16,
    /// More arguments for QEMU.
    pub args: Vec<String>,
}

impl Draft {
    /// Replaces a file of the image by an altered one.
    pub fn alter(&self, name: &Path, alter: impl FnOnce(&mut [u8])) {
        let path = self.image.join(name);
        let mut bytes = fs::read(&path).unwrap();
        alter(&mut bytes);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

/// Runs a program of this build and gives what it says.
fn run(program: &str, args: &[&Path]) -> String {
    let output = Command::new(cocoon_tests::cocoon_binary().with_file_name(program)).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

macro_rules! paths {
    ($($part:expr),*) => { &[$(AsRef::<Path>::as_ref(&$part)),*] };
}

impl Image {
    /// Builds it, and measures it from its files by the commands that a release is measured with.
    pub fn build(folder: &Path) -> Self {
        let packages = std::env::var_os("COCOON_PACKAGES").map(PathBuf::from);
        let packages = packages.expect("COCOON_PACKAGES is not set: run this by `make vm`");
        let (enclave, model) = (cocoon_tests::enclave_binary(), cocoon_tests::demo_model().canonicalize().unwrap());
        let image = folder.join("image");
        run(
            "cocoon-image",
            paths![
                "build",
                "--platform",
                "development",
                "--enclave",
                enclave,
                "--model",
                model,
                "--packages",
                packages,
                "--out",
                image
            ],
        );
        let built = GuestImage::open(&image).unwrap();

        let config = write_config(&folder.join("measured"), &image, &built, 1);
        let acpi = run("cocoon", paths!["measure", "acpi", "--config", config, "--out", folder.join("acpi")]);
        let qemu = acpi.strip_prefix("QEMU ").and_then(|rest| rest.split(',').next()).expect("QEMU's version");
        let description = format!(
            "name = {:?}\nversion = {:?}\nkernel = \"image/{}\"\ninitrd = \"image/{}\"\ncmdline = {:?}\n\
             [tdx]\nfirmware = \"image/{}\"\n\
             [[tdx.machine]]\nname = \"one vCPU\"\nmemory = \"{}M\"\nvcpus = 1\nacpi = \"acpi\"\nqemu = \"{qemu}\"\n\
             [[models]]\nname = \"cocoon-demo\"\npath = {model:?}\n",
            built.name,
            built.version,
            built.kernel.display(),
            built.initrd.display(),
            built.cmdline,
            built.firmware.display(),
            built.memory_mib
        );
        let (image, key, out) = (folder.join("image.toml"), folder.join("key"), folder.join("references.toml"));
        fs::write(&image, description).unwrap();
        fs::write(&key, hex::encode(SEED)).unwrap();
        run("cocoon", paths!["measure", "image", image, "--key", key, "--out", out]);
        let signer = cocoon_protocol::identity::SigningKey::from_seed(&SEED).unwrap().public();
        let references = ReferenceValues::from_signed(&fs::read_to_string(&out).unwrap(), &[signer]).unwrap();
        Self { folder: folder.to_owned(), built, references }
    }

    /// A guest of its own folder, altered before its launch is planned.
    pub fn plan(&self, name: &str, alter: impl FnOnce(&mut Draft)) -> Plan {
        let (config, args) = self.write(name, alter);
        let mut plan = read_plan(&config).unwrap();
        plan.command.args.extend(args);
        plan
    }

    /// The configuration of a guest of its own folder, as it should be.
    pub fn config(&self, name: &str) -> PathBuf {
        self.write(name, |_| {}).0
    }

    fn write(&self, name: &str, alter: impl FnOnce(&mut Draft)) -> (PathBuf, Vec<String>) {
        let folder = self.folder.join(name);
        let image = folder.join("image");
        fs::create_dir_all(&image).unwrap();
        let files = [&self.built.firmware, &self.built.firmware_snp, &self.built.kernel, &self.built.initrd];
        for file in files.into_iter().chain([&self.built.model_image]) {
            symlink(self.folder.join("image").join(file), image.join(file)).unwrap();
        }
        let mut draft = Draft { image: image.clone(), manifest: self.built.clone(), vcpus: 1, args: Vec::new() };
        alter(&mut draft);
        fs::write(image.join(MANIFEST), toml::to_string(&draft.manifest).unwrap()).unwrap();
        (write_config(&folder, &image, &draft.manifest, draft.vcpus), draft.args)
    }
}

/// The configuration of a guest in a folder.
fn write_config(folder: &Path, image: &Path, built: &GuestImage, vcpus: u16) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "name = \"guest\"\ntee = \"development\"\nimage = {image:?}\ndata = \"data\"\nvcpus = {vcpus}\nmemory = \"{}M\"\n\
         network = {{ tcp = \"127.0.0.1:{port}\", port = 8443 }}\n",
        built.memory_mib
    );
    let path = folder.join("guest.toml");
    fs::write(&path, config).unwrap();
    path
}
