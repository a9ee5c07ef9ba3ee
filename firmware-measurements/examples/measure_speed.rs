//! How long a measurement takes on one processor, beside one bare SHA-384 over the same bytes: `speed OVMF.fd OVMF.amdsev.fd KERNEL INITRD ACPI-TABLES`.

use cocoon_attestation::Measurement;
use cocoon_firmware_measurements::snp::{self, Firmware, SnpMachine};
use cocoon_firmware_measurements::tdx::{self, QemuVersion, TdxMachine};
use cocoon_firmware_measurements::{AcpiTables, Error, Inspection, KernelHashes, Vmm};

/// Milliseconds that this thread has been on a processor: others on the machine do not count.
fn processor_time() -> Result<f64, std::io::Error> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    nanoseconds.map(|time| time / 1e6).ok_or_else(|| std::io::Error::other("no time in schedstat"))
}

/// The median of nine runs, in milliseconds.
fn median(mut job: impl FnMut() -> Result<(), Error>) -> Result<f64, Box<dyn std::error::Error>> {
    let mut times = Vec::new();
    for _ in 0..9 {
        let started = processor_time()?;
        job()?;
        times.push(processor_time()? - started);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[4])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<_> = std::env::args().skip(1).collect();
    let [tdx_firmware, snp_firmware, kernel, initrd, acpi] = &names[..] else {
        return Err("give OVMF.fd, OVMF.amdsev.fd, kernel, initial ram disk and etc_acpi_tables".into());
    };
    let read = |name: &String| std::fs::read(name).map_err(|error| format!("{name}: {error}"));
    let (tdx_firmware, snp_firmware) = (read(tdx_firmware)?, read(snp_firmware)?);
    let (kernel, initrd) = (read(kernel)?, read(initrd)?);
    let acpi = AcpiTables::from_tables(read(acpi)?)?;
    let machine = TdxMachine {
        firmware: &tdx_firmware,
        inspection: Inspection::of(&tdx_firmware)?,
        kernel: &kernel,
        initrd: &initrd,
        cmdline: "console=ttyS0",
        memory: 64 << 30,
        vcpus: acpi.vcpus()?,
        qemu: QemuVersion::DEFAULT,
        page_order: None,
        acpi: Some(&acpi),
    };
    let hashed = |parts: &[&[u8]]| {
        std::hint::black_box(Measurement::of(parts));
        Ok(())
    };
    let line = |what: &str, time: f64, bare: f64| {
        println!("{what:44} {time:8.1} ms  {:6.2} x one SHA-384 of the files", time / bare)
    };
    let bare = median(|| hashed(&[&tdx_firmware, &kernel, &initrd]))?;
    line("TDX, firmware inspected before", median(|| tdx::measure(&machine).map(drop))?, bare);
    line("TDX, inspection alone", median(|| Inspection::of(&tdx_firmware).map(drop))?, bare);

    let bare = median(|| hashed(&[&snp_firmware, &kernel, &initrd]))?;
    let whole = || {
        let firmware = Firmware::parse(&snp_firmware)?;
        let kernel = Some(KernelHashes::of(&kernel, &initrd, "console=ttyS0")?);
        let cpu = "EPYC-Milan".parse()?;
        let machine =
            SnpMachine { firmware: &firmware, kernel, svsm: None, vcpus: 16, cpu, guest_features: 1, vmm: Vmm::Qemu };
        snp::measure(&machine).map(drop)
    };
    line("SNP from the files, 16 vCPUs", median(whole)?, bare);
    let firmware = Firmware::parse(&snp_firmware)?;
    let hashes = Some(KernelHashes::of(&kernel, &initrd, "console=ttyS0")?);
    let cpu = "EPYC-Milan".parse()?;
    let machine = SnpMachine {
        firmware: &firmware,
        kernel: hashes,
        svsm: None,
        vcpus: 16,
        cpu,
        guest_features: 1,
        vmm: Vmm::Qemu,
    };
    line("SNP, another shape of a known image", median(|| snp::measure(&machine).map(drop))?, bare);
    Ok(())
}
