//! From a configuration file to QEMU's command line, for each kind of guest; and what is refused on the way. The command lines are in
//! `command-lines/`; `COCOON_BLESS=1` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use cocoon_host::doctor::{Answer, Recording};
use cocoon_host::vm::{ConfigError, GuestConfig, Plan};

/// A folder with an image and a configuration.
struct Guest(tempfile::TempDir);

const IMAGE: &str = r#"
kernel = "vmlinuz"
initrd = "initrd.cpio"
cmdline = "console=ttyS0 panic=-1 cocoon.verity=2f4b"
model_image = "model.img"
verity_root = "2f4b"
firmware = "OVMF.fd"
firmware_snp = "OVMF.amdsev.fd"
memory_mib = 900
"#;

impl Guest {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::create_dir(&image).unwrap();
        for file in ["vmlinuz", "initrd.cpio", "model.img", "OVMF.fd", "OVMF.amdsev.fd", "OVMF.ms.fd"] {
            fs::write(image.join(file), file).unwrap();
        }
        fs::write(image.join("image.toml"), IMAGE).unwrap();
        fs::write(folder.path().join("guest.toml"), config).unwrap();
        fs::write(folder.path().join("id-block"), "aWRi\nbG9j\n").unwrap();
        fs::write(folder.path().join("id-auth"), "YXV0aA==\n").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn plan(&self, machine: &Recording) -> Result<Plan, ConfigError> {
        Plan::new(GuestConfig::read(&self.path("guest.toml"))?, machine)
    }

    /// The command line, with this test's folder named `/G`.
    fn command(&self, machine: &Recording) -> String {
        let plan = self.plan(machine).unwrap_or_else(|error| panic!("{error}"));
        plan.command.to_string().replace(self.0.path().to_str().unwrap(), "/G") + "\n"
    }

    fn fault(&self) -> String {
        self.plan(&machine()).unwrap_err().to_string()
    }
}

fn machine() -> Recording {
    let mut machine = Recording::default();
    machine.set("file /sys/devices/system/node/node1/cpulist", Answer::Text("64-127,192-255".into()));
    machine.set(
        "qmp qemu-system-x86_64 kvm query-sev-capabilities",
        Answer::Text(r#"{"cbitpos": 51, "reduced-phys-bits": 1}"#.into()),
    );
    machine
}

const TDX: &str = r#"
name = "cocoon-0"
tee = "tdx"
image = "image"
data = "data"
vcpus = 16
memory = "64G"
network = { vsock = 42, port = 8443 }
gpus = ["0000:41:00.0", "61:00.0"]

[tdx]
mrconfigid = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
"#;

const SNP: &str = r#"
name = "cocoon-1"
tee = "snp"
image = "image"
data = "data"
vcpus = 8
memory = "32G"
network = { tcp = "127.0.0.1:18443", port = 8443 }
gpus = ["0000:c1:00.0"]

[snp]
host_data = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
id_block = "id-block"
id_auth = "id-auth"
"#;

const DEVELOPMENT: &str = r#"
name = "try"
tee = "development"
image = "image"
enclave = "enclave.toml"
data = "data"
vcpus = 1
memory = "1G"
network = { tcp = "127.0.0.1:18443", port = 8443 }
"#;

#[test]
fn command_lines_are_the_documented_ones() {
    let unix = TDX.replace("[tdx]", "[tdx]\nquotes = \"unix:/var/run/tdx-qgs/qgs.socket\"").replace("gpus", "# gpus");
    let bound = format!("hugepages = \"1G\"\nnuma = 1\nmmio64 = \"1024G\"\nmachine = \"pc-q35-10.2\"\n{SNP}")
        .replace("[snp]", "[snp]\ncbitpos = 47\nreduced_phys_bits = 5\npolicy = 0x20000")
        .replace("gpus", "cpu = \"EPYC-Genoa-v2\"\ngpus");
    let cases = [("tdx", TDX), ("tdx-unix", &unix), ("snp", SNP), ("snp-bound", &bound), ("development", DEVELOPMENT)];
    for (name, config) in cases {
        let command = Guest::new(config).command(&machine());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/command-lines/{name}.sh"));
        if std::env::var_os("COCOON_BLESS").is_some() {
            fs::write(&path, &command).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), command, "{name}");
    }
}

/// The options that Linux's and QEMU's documents ask for, and those that must not be there, whatever else changes.
#[test]
fn command_lines_hold_what_each_tee_needs() {
    let tdx = Guest::new(TDX).command(&machine());
    for part in [
        r#""qom-type":"tdx-guest""#,
        r#""quote-generation-socket":{"cid":"2","port":"4050","type":"vsock"}"#,
        r#""mrconfigid":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v""#,
        ",kernel-irqchip=split,confidential-guest-support=tdx,memory-backend=mem0,hpet=off",
        "-cpu host",
        "vhost-vsock-pci,guest-cid=42",
        "iommufd,id=iommufd0",
        "pcie-root-port,id=pci.1,bus=pcie.0,chassis=1",
        "vfio-pci,host=0000:41:00.0,bus=pci.1,iommufd=iommufd0",
        "vfio-pci,host=0000:61:00.0,bus=pci.2,iommufd=iommufd0",
        "name=opt/ovmf/X-PciMmio64Mb,string=524288",
    ] {
        assert!(tdx.contains(part), "{part} is not in\n{tdx}");
    }
    assert!(!tdx.contains("virtio-net"), "a guest over virtual sockets has no network card");
    let snp = Guest::new(SNP).command(&machine());
    for part in [
        "sev-snp-guest,id=sev0,policy=0x30000,kernel-hashes=on,cbitpos=51,reduced-phys-bits=1",
        "host-data=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "id-block=aWRibG9j,id-auth=YXV0aA==",
        "memory-backend-memfd,id=mem0,size=32768M,share=true,prealloc=false",
        "confidential-guest-support=sev0,memory-backend=mem0",
        "-cpu EPYC-v4,+invtsc",
        "restrict=on,hostfwd=tcp:127.0.0.1:18443-:8443",
    ] {
        assert!(snp.contains(part), "{part} is not in\n{snp}");
    }
    // An author's signature is looked at only if QEMU is told that there is one.
    assert!(!snp.contains("author-key-enabled"), "{snp}");
    let authored = Guest::new(SNP);
    fs::write(authored.path("id-auth"), "AQAAAAEAAAA=\n").unwrap();
    let authored = authored.command(&machine());
    assert!(authored.contains(",author-key-enabled=on,id-auth=AQAAAAEAAAA="), "{authored}");
    let development = Guest::new(DEVELOPMENT).command(&machine());
    assert!(development.contains("-accel tcg") && development.contains("name=cocoon.quotes"));
    for command in [tdx, snp, development] {
        for part in ["-nodefaults", "-no-user-config", "pc-q35-", "-no-reboot", "read-only", "-sandbox on"] {
            assert!(command.contains(part), "{part} is not in\n{command}");
        }
    }
}

#[test]
fn what_cannot_work_or_must_not_be_is_refused_with_what_to_do() {
    let cases: &[(&str, &str, &str, &str)] = &[
        (TDX, "tee = \"tdx\"", "tee = \"sgx\"", "unknown variant"),
        (TDX, "vcpus", "cpus", "unknown field"),
        (TDX, "name = \"cocoon-0\"", "name = \"a,b\"", "letters, digits"),
        (TDX, "vcpus = 16", "vcpus = 0", "1 to 255"),
        (TDX, "vcpus = 16", "vcpus = 256", "1 to 255"),
        (TDX, "\"64G\"", "\"64\"", "512M"),
        (TDX, "\"64G\"", "\"128M\"", "256M at least"),
        (TDX, "vsock = 42", "vsock = 2", "taken"),
        (TDX, "vsock = 42,", "", "neither vsock nor tcp"),
        (TDX, "vsock = 42", "vsock = 42, tcp = \"127.0.0.1:1\"", "both vsock and tcp"),
        (TDX, "port = 8443", "port = 0", "port that the guest listens on"),
        (SNP, "127.0.0.1:18443", "0.0.0.0:18443", "127.0.0.1"),
        (SNP, "127.0.0.1:18443", "127.0.0.1:0", "needs a port"),
        (DEVELOPMENT, "tcp = \"127.0.0.1:18443\"", "vsock = 42", "emulation has not"),
        (DEVELOPMENT, "vcpus", "gpus = [\"0000:41:00.0\"]\nvcpus", "emulated machine"),
        (DEVELOPMENT, "vcpus", "mmio64 = \"256G\"\nvcpus", "without gpus"),
        (TDX, "gpus = [", "mmio64 = \"300G\"\ngpus = [", "power of two"),
        (TDX, "61:00.0", "41:00.0", "twice"),
        (TDX, "61:00.0", "61:00.8", "no PCI address"),
        (TDX, "vcpus", "hugepages = \"4M\"\nvcpus", "2M and 1G"),
        (TDX, "\"64G\"", "\"65000M\"\nhugepages = \"1G\"", "no multiple"),
        (TDX, "vcpus", "numa = 7\nvcpus", "no such node"),
        (TDX, "vcpus", "machine = \"q35\"\nvcpus", "not pinned"),
        (TDX, "vcpus", "cpu = \"max\"\nvcpus", "host's processor"),
        (TDX, "[tdx]", "[snp]\n[tdx]", "[snp] is given"),
        (SNP, "[snp]", "[tdx]\n[snp]", "[tdx] is given"),
        (TDX, "2e2f\"", "2e\"", "48 bytes"),
        (TDX, "[tdx]", "[tdx]\nquotes = \"qgs\"", "vsock:CID:PORT"),
        (SNP, "[snp]", "[snp]\npolicy = 0x10000", "bit 17"),
        (SNP, "[snp]", "[snp]\npolicy = 0xb0000", "debugging"),
        (SNP, "[snp]", "[snp]\npolicy = 0x70000", "migration"),
        (SNP, "id_auth", "# id_auth", "go together"),
        (SNP, "\"id-auth\"", "\"nowhere\"", "nowhere"),
    ];
    for (base, from, to, part) in cases {
        assert!(base.contains(from), "{from}");
        let fault = Guest::new(&base.replacen(from, to, 1)).fault();
        assert!(fault.contains(part), "{to}: {fault}");
    }
    let long = "d".repeat(120);
    let fault = Guest::new(&DEVELOPMENT.replace("\"data\"", &format!("\"{long}\""))).fault();
    assert!(fault.contains("shorter data folder"), "{fault}");
}

#[test]
fn an_image_that_would_prove_nothing_is_refused() {
    let cases = [
        ("cocoon.verity=2f4b", "quiet", "no measurement covers the model"),
        ("verity_root = \"2f4b\"", "", "model_image without verity_root"),
        ("OVMF.fd", "OVMF.ms.fd", "Secure Boot"),
        ("\"vmlinuz\"", "\"bzImage\"", "bzImage"),
        ("console=ttyS0", "console=ttyS0\\nquiet", "one line"),
        ("memory_mib = 900", "memory_mib = 70000", "needs 70000M"),
        ("memory_mib", "listen = \"vsock,8444\"\nmemory_mib", "listens at vsock,8444"),
        ("memory_mib", "listen = \"tcp,10.0.2.15/24,8443\"\nmemory_mib", "listens at tcp"),
        ("kernel =", "kernels =", "missing field"),
    ];
    for (from, to, part) in cases {
        let guest = Guest::new(TDX);
        fs::write(guest.path("image/image.toml"), IMAGE.replacen(from, to, 1)).unwrap();
        let fault = guest.fault();
        assert!(fault.contains(part), "{to}: {fault}");
    }
    let guest = Guest::new(TDX);
    fs::remove_file(guest.path("image/image.toml")).unwrap();
    assert!(guest.fault().contains("image.toml"));
}

#[test]
fn an_image_that_says_where_it_listens_is_looked_for_there() {
    for (config, listen) in [(TDX, "vsock,8443"), (SNP, "tcp,10.0.2.15/24,8443")] {
        let guest = Guest::new(config);
        let manifest = format!("{IMAGE}listen = \"{listen}\"\n");
        fs::write(guest.path("image/image.toml"), manifest).unwrap();
        guest.command(&machine());
    }
}

#[test]
fn a_machine_that_does_not_say_where_its_encryption_bit_is_is_not_guessed_at() {
    let fault = Guest::new(SNP).plan(&Recording::default()).unwrap_err().to_string();
    assert!(fault.contains("snp.cbitpos"), "{fault}");
}

#[test]
fn commas_in_file_names_do_not_end_an_option() {
    let guest = Guest::new(&DEVELOPMENT.replace("\"data\"", "\"a,server=off\""));
    let command = guest.command(&machine());
    assert!(command.contains("/G/a,,server=off/qmp.sock"), "{command}");
}
