//! Every parser on bytes that were altered at random and on bytes that were cut: an error or a result, never a panic, and in
//! bounded time. The seed is fixed, so that a failure comes again.

#[path = "common/made.rs"]
mod made;

use cocoon_attestation::ccel;
use cocoon_firmware_measurements::explain::QuotedRegisters;
use cocoon_firmware_measurements::snp::{Firmware, SnpMachine, Svsm};
use cocoon_firmware_measurements::tdvf::PageOrder;
use cocoon_firmware_measurements::tdx::{QemuVersion, TdxMachine};
use cocoon_firmware_measurements::{AcpiTables, Inspection, Vmm, linux, pe, snp, tdx};
use made::{Image, acpi_tables, kernel};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    /// Alters some bytes, mostly to values at the edges, within `ranges`; sometimes cuts.
    fn alter(&mut self, bytes: &[u8], ranges: &[(usize, usize)]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.next(4) {
            let (start, end) = ranges[self.next(ranges.len())];
            let at = start + self.next(end - start);
            out[at] = match self.next(4) {
                0 => 0,
                1 => 0xff,
                2 => 0x7f,
                _ => self.next(256) as u8,
            };
        }
        if self.next(10) == 0 {
            out.truncate(self.next(out.len()));
        }
        out
    }
}

#[test]
fn firmware() {
    let image = Image { variables: vec!["dbDefault"], ..Image::default() }.bytes();
    let kernel = kernel("6.12.0", b"kernel");
    let acpi = AcpiTables::from_tables(acpi_tables(2, b"")).unwrap();
    let good = Inspection::of(&Image::default().bytes()).unwrap();
    let mut random = Random(1);
    // Variables, the compressed section's head, metadata, the table of GUIDs.
    let ranges = [(0, 0x100), (0x3000, 0x3040), (0xf000, 0xf200), (0xff70, 0x10000)];
    for _ in 0..1_000 {
        let image = random.alter(&image, &ranges);
        let _ = tdx::measure_mrtd(&image, PageOrder::TwoPass);
        let _ = tdx::hand_off(&image, 4 << 30);
        let _ = tdx::measure(&TdxMachine {
            firmware: &image,
            inspection: Inspection::of(&image).unwrap_or(good),
            kernel: &kernel,
            initrd: b"initrd",
            cmdline: "",
            memory: 1 << 30,
            vcpus: 2,
            qemu: QemuVersion::DEFAULT,
            page_order: None,
            acpi: Some(&acpi),
        });
        if let Ok(firmware) = Firmware::parse(&image) {
            let svsm = Some(Svsm { image: &image, variables_size: u64::MAX - image.len() as u64 });
            let cpu = "EPYC".parse().unwrap();
            let machine = SnpMachine {
                firmware: &firmware,
                kernel: None,
                svsm,
                vcpus: 2,
                cpu,
                guest_features: 1,
                vmm: Vmm::Qemu,
            };
            let _ = snp::measure(&machine);
            let _ = snp::measure(&SnpMachine { svsm: None, ..machine });
            let svsm = Some(Svsm { image: &image, variables_size: 0 });
            let _ = snp::measure(&SnpMachine { svsm, ..machine });
        }
    }
}

#[test]
fn kernels() {
    let kernel = kernel("6.12.0", b"kernel");
    let mut random = Random(2);
    for _ in 0..10_000 {
        let altered = random.alter(&kernel, &[(0, 0x60), (0x58, 0x130), (0x1f0, 0x310)]);
        let _ = pe::authenticode_sha384(&altered);
        let _ = linux::check(&altered);
        let (initrd, memory) = (random.next(1 << 30) as u64, random.next(1 << 40) as u64);
        let _ = linux::patched(&altered, initrd << random.next(8), memory);
    }
}

#[test]
fn tables() {
    let tables = acpi_tables(2, b"");
    let end = tables.iter().rposition(|byte| *byte != 0).unwrap() + 64;
    let mut random = Random(3);
    for _ in 0..10_000 {
        let altered = random.alter(&tables, &[(0, end)]);
        if let Ok(acpi) = AcpiTables::from_tables(altered) {
            let _ = acpi.vcpus();
        }
    }
}

#[test]
fn logs_and_quotes() {
    let mut log = vec![1, 0, 0, 0, 3, 0, 0, 0];
    log.extend([0; 20]);
    log.extend(33_u32.to_le_bytes());
    log.extend(b"Spec ID Event03\0");
    log.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
    for n in 1..=4_u32 {
        log.extend(n.to_le_bytes());
        log.extend(4_u32.to_le_bytes());
        log.extend([1, 0, 0, 0, 0x0c, 0]);
        log.extend([n as u8; 48]);
        log.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(ccel::parse(&log).unwrap().0.len(), 4);
    let mut quote = vec![0; 1200];
    quote[..8].copy_from_slice(&[4, 0, 2, 0, 0x81, 0, 0, 0]);
    let mut random = Random(4);
    for _ in 0..10_000 {
        let _ = ccel::parse(&random.alter(&log, &[(0, log.len())]));
        let _ = QuotedRegisters::from_quote(&random.alter(&quote, &[(0, 60)]));
    }
}
