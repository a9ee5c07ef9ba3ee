//! What decides a measurement without looking as if it did, and what is refused rather than guessed. No evidence of others is
//! needed here.

#[path = "common/made.rs"]
mod made;

use cocoon_attestation::{Measurement, ReferenceValues};
use cocoon_firmware_measurements::image::{ImageFiles, Matrix};
use cocoon_firmware_measurements::inspect::{InitrdArgument, require_verified_kernel};
use cocoon_firmware_measurements::snp::{Firmware, SnpMachine};
use cocoon_firmware_measurements::tdvf::PageOrder;
use cocoon_firmware_measurements::tdx::{QemuVersion, Register, TdxMachine, TdxMeasurements};
use cocoon_firmware_measurements::{AcpiTables, Error, Inspection, KernelHashes, Vmm, snp, tdx};
use made::{Image, SMBIOS_MEASUREMENT, acpi_tables, guid, kernel};

const GIB: u64 = 1 << 30;

/// A machine's parts, each of which a test can alter.
#[derive(Clone)]
struct Td {
    image: Image,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    cmdline: &'static str,
    memory: u64,
    vcpus: u32,
    qemu: &'static str,
    acpi: Option<Vec<u8>>,
}

impl Default for Td {
    fn default() -> Self {
        Self {
            image: Image::default(),
            kernel: kernel("6.12.0-cloud", b"the kernel"),
            initrd: b"the initial ram disk".to_vec(),
            cmdline: "console=ttyS0",
            memory: 4 * GIB,
            vcpus: 2,
            qemu: "10.1.0",
            acpi: Some(acpi_tables(2, b"")),
        }
    }
}

impl Td {
    fn measure(&self) -> Result<TdxMeasurements, Error> {
        let firmware = self.image.bytes();
        let acpi = self.acpi.clone().map(AcpiTables::from_tables).transpose()?;
        tdx::measure(&TdxMachine {
            firmware: &firmware,
            inspection: Inspection::of(&firmware)?,
            kernel: &self.kernel,
            initrd: &self.initrd,
            cmdline: self.cmdline,
            memory: self.memory,
            vcpus: self.vcpus,
            qemu: self.qemu.parse()?,
            page_order: None,
            acpi: acpi.as_ref(),
        })
    }

    fn rtmr(&self, n: usize) -> Measurement {
        self.measure().unwrap().rtmr[n].value().unwrap()
    }

    fn refused(&self) -> String {
        self.measure().unwrap_err().to_string()
    }
}

/// Everything is known of the default machine, and each alteration shows in its registers and in no other.
#[test]
fn each_input_shows_in_its_own_registers() {
    let values = |td: &Td| {
        let found = td.measure().unwrap();
        [0, 1, 2, 3].map(|n| found.rtmr[n].value().unwrap()).into_iter().chain([found.mrtd]).collect::<Vec<_>>()
    };
    let base = Td::default();
    let changed = |td: Td| -> Vec<usize> {
        let (before, after) = (values(&base), values(&td));
        (0..5).filter(|n| before[*n] != after[*n]).collect()
    };
    assert_eq!(changed(Td { memory: 8 * GIB, ..base.clone() }), [0]);
    assert_eq!(changed(Td { vcpus: 3, acpi: Some(acpi_tables(3, b"")), ..base.clone() }), [0]);
    assert_eq!(changed(Td { kernel: kernel("6.12.0-cloud", b"another"), ..base.clone() }), [1]);
    assert_eq!(changed(Td { cmdline: "console=ttyS1", ..base.clone() }), [2]);
    assert_eq!(changed(Td { initrd: b"another".to_vec(), ..base.clone() }), [2]);
    let mut image = base.image.clone();
    image.drivers.push(0);
    assert_eq!(changed(Td { image, ..base.clone() }), [4], "MRTD alone");
    assert_eq!(changed(Td { qemu: "9.2", ..base.clone() }), [1], "QEMU 9 writes into the kernel's header");
    assert_eq!(changed(Td { qemu: "8.2.2", ..base.clone() }), [1, 4], "and QEMU 8 adds all pages first");
}

#[test]
fn page_order_is_an_option_of_its_own() {
    let image = Image::default().bytes();
    let single = tdx::measure_mrtd(&image, PageOrder::SinglePass).unwrap();
    assert_ne!(single, tdx::measure_mrtd(&image, PageOrder::TwoPass).unwrap());
    assert_eq!("8.2".parse::<QemuVersion>().unwrap().page_order(), PageOrder::TwoPass);
    assert_eq!(QemuVersion::DEFAULT.page_order(), PageOrder::SinglePass);
}

#[test]
fn a_patched_kernel_depends_on_memory_below_4_gib_and_an_unpatched_one_does_not() {
    let rtmr1 = |qemu, mib: u64| Td { qemu, memory: mib << 20, ..Td::default() }.rtmr(1);
    assert_ne!(rtmr1("9.2", 1024), rtmr1("9.2", 4096));
    assert_eq!(rtmr1("9.2", 2816), rtmr1("9.2", 131_072), "from 2.75 GiB on, 2 GiB lie below");
    assert_ne!(rtmr1("9.2", 2815), rtmr1("9.2", 2816));
    assert_eq!(rtmr1("10.0", 1024), rtmr1("10.0", 4096));
    let mut older = Td { qemu: "10.1", ..Td::default() };
    older.image.drivers = String::from_utf8_lossy(&older.image.drivers).replace("etc/boot/", "etc/bott/").into_bytes();
    // Replacing text spoils GUIDs, which RTMR1 does not depend on.
    assert_eq!(older.rtmr(1), rtmr1("9.2", 4096), "older firmware takes the patched kernel from any QEMU");
}

#[test]
fn the_initial_ram_disk_is_named_where_the_firmware_names_it() {
    let digest = |text: &str| {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        Measurement::of(&[&units])
    };
    let first = |td: &Td| td.measure().unwrap().rtmr[2].events()[0].digest;
    let mut td = Td::default();
    assert_eq!(first(&td), digest("console=ttyS0 initrd=initrd\0"));
    td.image.drivers[..16].copy_from_slice(b"\0initrd=initrd \0");
    assert_eq!(Inspection::of(&td.image.bytes()).unwrap().initrd_argument, Some(InitrdArgument::InFront));
    assert_eq!(first(&td), digest("initrd=initrd console=ttyS0\0"));
    td.initrd.clear();
    assert_eq!(first(&td), digest("console=ttyS0\0"));
    assert_eq!(td.measure().unwrap().rtmr[2].events().len(), 1);
    td.image.drivers[..16].fill(0);
    assert!(td.refused().contains("loads no kernel directly"));
}

#[test]
fn rtmr0_is_unknown_rather_than_guessed() {
    let reason = |td: Td| match td.measure().unwrap().rtmr[0].clone() {
        Register::Unknown { reason } => reason,
        Register::Known { .. } => panic!("known"),
    };
    assert!(reason(Td { acpi: None, ..Td::default() }).contains("--acpi"));
    let mut smbios = Td::default();
    smbios.image.drivers.extend(guid(SMBIOS_MEASUREMENT));
    assert!(reason(smbios).contains("SMBIOS"));
    let mut menu = Td::default();
    let ui = guid("462caa21-7614-4503-836e-8ab6f4662331");
    let at = menu.image.drivers.windows(16).position(|window| window == ui).unwrap();
    menu.image.drivers[at] ^= 1;
    assert!(reason(menu).contains("boot menu"));
}

#[test]
fn what_is_unknown_or_contradictory_is_refused() {
    let base = Td::default();
    let variables = |variables| Td { image: Image { variables, ..Image::default() }, ..Td::default() };
    let no_tables = |without: &[u8]| Td { acpi: Some(acpi_tables(2, without)), ..Td::default() };
    let mut signed = kernel("6.12.0", b"x");
    signed[0x202] = 0;
    for (td, words) in [
        (Td { vcpus: 3, ..base.clone() }, "describe 2 vCPUs, and the machine has 3"),
        (Td { vcpus: 0, ..base.clone() }, "without vCPUs"),
        (Td { memory: 8 << 20, ..base.clone() }, "has none there"),
        (Td { memory: GIB + 1, ..base.clone() }, "whole MiB"),
        (Td { memory: 0, ..base.clone() }, "whole MiB"),
        (Td { memory: 1 << 60, ..base.clone() }, "64 TiB"),
        (Td { cmdline: "caf\u{e9}", ..base.clone() }, "not ASCII"),
        (Td { cmdline: "a\0b", ..base.clone() }, "not ASCII"),
        (Td { kernel: kernel("6.8.12", b""), ..base.clone() }, "before 6.9"),
        (Td { kernel: kernel("5.19", b""), ..base.clone() }, "before 6.9"),
        (Td { kernel: kernel("a kernel", b""), ..base.clone() }, "which version"),
        (Td { kernel: signed, ..base.clone() }, "no bzImage"),
        (Td { kernel: Vec::new(), ..base.clone() }, "cut"),
        (Td { qemu: "7.2", ..base.clone() }, "8.0 to 10.x"),
        (Td { qemu: "11.0", ..base.clone() }, "8.0 to 10.x"),
        (Td { qemu: "new", ..base.clone() }, "not like 10.1"),
        (Td { qemu: "9.2", initrd: vec![0; 20 << 20], memory: 18 << 20, ..base.clone() }, "does not fit"),
        (variables(vec!["dbx", "PK"]), "Secure Boot is on"),
        (variables(vec!["Boot0001"]), "\"Boot0001\""),
        (no_tables(b"MCFG"), "before the firmware had enumerated PCI"),
        (no_tables(b"DSDT"), "there is no DSDT"),
        (no_tables(b"APIC"), "there is no APIC"),
    ] {
        let error = td.refused();
        assert!(error.contains(words), "{words}: {error}");
    }
    let mut other = acpi_tables(2, b"");
    let at = other.windows(4).position(|window| window == b"WAET").unwrap();
    other[at..at + 4].copy_from_slice(b"TPM2");
    assert!(Td { acpi: Some(other), ..base.clone() }.refused().contains("TPM2"));
    let mut firmware = base.image.bytes();
    let end = firmware.len() - 40;
    firmware[end] ^= 1;
    assert!(tdx::measure_mrtd(&firmware, PageOrder::SinglePass).unwrap_err().to_string().contains("no OVMF table"));
    assert!(Inspection::of(&[0; 4096]).is_err());
}

fn guest(firmware: &Firmware) -> SnpMachine<'_> {
    let kernel = KernelHashes::of(b"kernel", b"initrd", "quiet").unwrap();
    let cpu = "EPYC-Milan".parse().unwrap();
    SnpMachine { firmware, kernel: Some(kernel), svsm: None, vcpus: 2, cpu, guest_features: 1, vmm: Vmm::Qemu }
}

#[test]
fn each_input_shows_in_the_launch_digest() {
    let firmware = Firmware::parse(&Image::default().bytes()).unwrap();
    let base = guest(&firmware);
    let digest = |machine: &SnpMachine<'_>| snp::measure(machine).unwrap().digest;
    let hashes = |kernel: &[u8], initrd: &[u8], cmdline: &str| Some(KernelHashes::of(kernel, initrd, cmdline).unwrap());
    let others = [
        SnpMachine { vcpus: 3, ..base },
        SnpMachine { vcpus: 1, ..base },
        SnpMachine { guest_features: 0x21, ..base },
        SnpMachine { cpu: "EPYC-Genoa".parse().unwrap(), ..base },
        SnpMachine { kernel: None, ..base },
        SnpMachine { kernel: hashes(b"Kernel", b"initrd", "quiet"), ..base },
        SnpMachine { kernel: hashes(b"kernel", b"Initrd", "quiet"), ..base },
        SnpMachine { kernel: hashes(b"kernel", b"", "quiet"), ..base },
        SnpMachine { kernel: hashes(b"kernel", b"initrd", "quiet "), ..base },
        SnpMachine { vmm: Vmm::Ec2, ..base },
        SnpMachine { vmm: Vmm::Gce, ..base },
    ];
    let mut digests: Vec<_> = others.iter().map(digest).collect();
    digests.push(digest(&base));
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), others.len() + 1, "each is another guest");
    // A version of a CPU model changes features, which are not measured.
    assert_eq!(digest(&base), digest(&SnpMachine { cpu: "EPYC-Milan-v2".parse().unwrap(), ..base }));
}

#[test]
fn guests_of_snp_that_cannot_be_are_refused() {
    let firmware = Firmware::parse(&Image::default().bytes()).unwrap();
    let plain = Firmware::parse(&Image { kernel_hashes: false, ..Image::default() }.bytes()).unwrap();
    let alone = Firmware { reset_address: None, ..firmware.clone() };
    let base = guest(&firmware);
    for (machine, words) in [
        (SnpMachine { vcpus: 0, ..base }, "0 vCPUs"),
        (SnpMachine { vcpus: 1 << 20, ..base }, "vCPUs"),
        (SnpMachine { guest_features: 0x20, ..base }, "lack bit 0"),
        (guest(&plain), "no place for hashes"),
        (guest(&alone), "where the others start"),
    ] {
        let error = snp::measure(&machine).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(KernelHashes::of(b"", b"", "a\0b").is_err());
    let mut image = Image::default();
    Inspection::of(&image.bytes()).unwrap().require_verified_kernel().unwrap();
    require_verified_kernel(&image.bytes()).unwrap();
    image.drivers.truncate(60);
    assert!(Inspection::of(&image.bytes()).unwrap().require_verified_kernel().is_err(), "generic OVMF");
    assert!(require_verified_kernel(&image.bytes()).is_err(), "generic OVMF");
}

#[test]
fn an_image_over_machines_becomes_one_signed_file() {
    let firmware = Image::default().bytes();
    let files = ImageFiles {
        kernel: b"kernel",
        initrd: b"initrd",
        cmdline: "quiet",
        tdx_firmware: Some(&firmware),
        snp_firmware: Some(&firmware),
    };
    let parsed = Firmware::parse(&firmware).unwrap();
    let (small, large) = (Td::default().measure().unwrap(), Td { memory: 8 * GIB, ..Td::default() }.measure().unwrap());
    let make = || {
        let mut matrix = Matrix::new("guest", "1", &files);
        for found in [&small, &large, &small] {
            matrix.add_tdx("shape", found, true).unwrap();
        }
        matrix.add_snp(&snp::measure(&guest(&parsed)).unwrap());
        matrix.finish().unwrap().to_signed(&[7; 32]).unwrap()
    };
    let signed = make();
    assert_eq!(signed, make(), "the same bytes every time");
    let public = signed.lines().last().unwrap().split(' ').nth(3).unwrap();
    let public: [u8; 32] = hex::decode(public).unwrap().try_into().unwrap();
    let values = ReferenceValues::from_signed(&signed, &[public]).unwrap();
    assert_eq!((values.tdx.len(), values.snp.len()), (2, 1), "what shapes share stands there once");
    assert_eq!(values.tdx[0].rtmrs()[1], small.rtmr[1].value());
    assert_eq!(values.tdx[0].rtmr3, Some(Measurement([0; 48])));
    assert_eq!(values.image.digest, files.digest());

    let unknown = Td { acpi: None, ..Td::default() }.measure().unwrap();
    let mut matrix = Matrix::new("guest", "1", &files);
    assert!(matrix.add_tdx("h100", &unknown, true).unwrap_err().to_string().contains("\"h100\": RTMR0 is unknown"));
    assert!(matrix.finish().is_err(), "no machine at all");
}

#[test]
fn the_image_digest_is_of_every_file() {
    let base = ImageFiles { kernel: b"a", initrd: b"b", cmdline: "c", tdx_firmware: None, snp_firmware: Some(b"d") };
    let others = [
        ImageFiles { kernel: b"A", ..base },
        ImageFiles { initrd: b"B", ..base },
        ImageFiles { cmdline: "C", ..base },
        ImageFiles { snp_firmware: Some(b"D"), ..base },
        ImageFiles { tdx_firmware: Some(b"d"), snp_firmware: None, ..base },
    ];
    assert!(others.iter().all(|other| other.digest() != base.digest()));
}
