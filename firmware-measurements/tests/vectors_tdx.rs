//! MRTD, hand-off lists, ACPI files, kernels and whole registers against captured TDs and reference tools.

mod common;
#[path = "common/made.rs"]
mod made;

use std::path::Path;

use cocoon_attestation::Measurement;
use cocoon_firmware_measurements::inspect::InitrdArgument;
use cocoon_firmware_measurements::tdvf::PageOrder;
use cocoon_firmware_measurements::tdx::{QemuVersion, Register, TdxMachine, hand_off, measure, measure_mrtd};
use cocoon_firmware_measurements::{AcpiTables, Inspection, linux, pe};
use common::{firmware, json, measurement, read, text, vectors};
use made::kernel;
use serde_json::Value;

const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
const GIB: u64 = 1 << 30;

fn expected(folder: &Path) -> Value {
    json(folder, "tdx/own/expected.json")
}

fn sha384(data: &[u8]) -> Measurement {
    Measurement::of(&[data])
}

/// The firmware images that are at hand, with what is expected of each.
fn images(folder: &Path) -> Vec<(String, Vec<u8>, Value)> {
    let all = expected(folder);
    let stored = [("OVMF-2025.02", "tdx"), ("OVMF-2026.08", "snp"), ("OVMF.amdsev", "snp")];
    let mut images: Vec<_> =
        stored.iter().map(|(name, tee)| (name.to_string(), read(folder, &format!("{tee}/own/{name}.fd.xz")))).collect();
    for name in ["OVMF-2022.11", "OVMF.inteltdx.ms"] {
        let sha256 = text(&all["ovmf"][name]["sha256"]);
        images.extend(firmware(&format!("{name}.fd"), sha256).map(|image| (name.to_owned(), image)));
    }
    images.into_iter().map(|(name, image)| (name.clone(), image, all["ovmf"][&name].clone())).collect()
}

#[test]
fn mrtd_is_that_of_the_reference_in_both_orders() {
    let Some(folder) = vectors() else { return };
    for (name, image, expected) in images(&folder) {
        let single = measure_mrtd(&image, PageOrder::SinglePass).unwrap();
        assert_eq!(single, measurement(&expected["mrtd_single_pass"]), "{name}");
        let two = measure_mrtd(&image, PageOrder::TwoPass).unwrap();
        assert_eq!(two, measurement(&expected["mrtd_two_pass"]), "{name}");
    }
}

#[test]
fn the_hand_off_list_follows_the_memory() {
    let Some(folder) = vectors() else { return };
    for (name, image, expected) in images(&folder) {
        let sizes = expected["td_hob"].as_object().unwrap();
        assert_eq!(sizes.len(), 9);
        for (mib, digest) in sizes {
            let list = hand_off(&image, mib.parse::<u64>().unwrap() << 20).unwrap();
            assert_eq!(sha384(&list), measurement(digest), "{name} with {mib} MiB");
        }
    }
}

fn tables(folder: &Path, name: &str) -> AcpiTables {
    AcpiTables::from_tables(read(folder, &format!("tdx/{name}.gz"))).unwrap()
}

#[test]
fn loader_and_root_pointer_follow_from_the_tables() {
    let Some(folder) = vectors() else { return };
    let derived = tables(&folder, "own/etc_acpi_tables");
    let [tables_file, root, loader] = ["etc_acpi_tables", "etc_acpi_rsdp", "etc_table-loader"]
        .map(|name| read(&folder, &format!("tdx/own/{name}.gz")));
    assert_eq!(derived, AcpiTables::new(tables_file, root, loader).unwrap(), "those of QEMU 10.0.2");
    let live = tables(&folder, "tdx-measure/runtime-capture/acpi_tables.bin");
    let names = ["etc_table-loader", "etc_acpi_rsdp", "etc_acpi_tables"];
    for (file, name) in live.files().into_iter().zip(names) {
        assert_eq!(sha384(file), measurement(&expected(&folder)["runtime_capture"]["acpi"][name]), "{name}");
    }
    assert_eq!((derived.vcpus().unwrap(), live.vcpus().unwrap()), (8, 8));
}

fn machine<'a>(image: &'a [u8], inspection: Inspection, kernel: &'a [u8], memory: u64) -> TdxMachine<'a> {
    TdxMachine {
        firmware: image,
        inspection,
        kernel,
        initrd: b"initrd",
        cmdline: CMDLINE,
        memory,
        vcpus: 8,
        qemu: QemuVersion { major: 10, minor: 2 },
        page_order: None,
        acpi: None,
    }
}

/// RTMR0 of a TD that ran with QEMU 10.2.1, and of one that the reference tool computed; the firmware there differs from Debian's in
/// its code alone.
#[test]
fn rtmr0_of_a_live_td_comes_out() {
    let Some(folder) = vectors() else { return };
    let image = read(&folder, "tdx/own/OVMF-2025.02.fd.xz");
    let inspection = Inspection::of(&image).unwrap();
    let kernel = kernel("6.12.0", b"");
    for (name, gib) in [("runtime-capture", 16), ("q35-with-hpet", 4)] {
        let acpi = tables(&folder, &format!("tdx-measure/{name}/acpi_tables.bin"));
        let machine = TdxMachine { acpi: Some(&acpi), ..machine(&image, inspection, &kernel, gib * GIB) };
        let found = measure(&machine).unwrap();
        let expected = json(&folder, &format!("tdx/tdx-measure/{name}/expected.json"));
        assert_eq!(found.rtmr[0].value(), Some(measurement(&expected["rtmr0"])), "{name}");
        let other = measure(&TdxMachine { vcpus: 9, ..machine }).unwrap_err().to_string();
        assert!(other.contains("describe 8 vCPUs, and the machine has 9"), "{other}");
    }
}

#[test]
fn every_event_of_a_captured_quote_is_one_that_is_computed() {
    let Some(folder) = vectors() else { return };
    let log = json(&folder, "tdx/dstack/quote-report.json");
    let log: Value = match &log["event_log"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        log => log.clone(),
    };
    let captured = |register: u64| -> Vec<Measurement> {
        let events = log.as_array().unwrap().iter().filter(|event| event["imr"] == register);
        events.map(|event| measurement(&event["digest"])).collect()
    };
    let image = read(&folder, "tdx/own/OVMF-2025.02.fd.xz");
    let acpi = tables(&folder, "own/etc_acpi_tables");
    let kernel = kernel("6.9.0", b"");
    let machine =
        TdxMachine { acpi: Some(&acpi), ..machine(&image, Inspection::of(&image).unwrap(), &kernel, 64 * GIB) };
    let found = measure(&machine).unwrap();
    let digests =
        |register: usize| -> Vec<_> { found.rtmr[register].events().iter().map(|event| event.digest).collect() };
    // Its firmware lays memory out as OVMF 2022.11 does, and it has its own ACPI tables and kernel. All else is alike.
    assert_eq!(captured(0)[0], measurement(&expected(&folder)["ovmf"]["OVMF-2022.11"]["td_hob"]["65536"]));
    assert_eq!(captured(0)[1..8], digests(0)[1..8]);
    assert_eq!(captured(0)[11..], digests(0)[11..]);
    assert_eq!((captured(0).len(), captured(1).len(), captured(2).len()), (13, 5, 2));
    assert_eq!((digests(0).len(), digests(2).len()), (13, 2));
    assert_eq!(captured(1)[1..], digests(1)[1..]);
}

#[test]
fn single_digests_are_the_expected_ones() {
    let Some(folder) = vectors() else { return };
    let all = expected(&folder);
    let image = read(&folder, "tdx/own/OVMF-2025.02.fd.xz");
    let acpi = tables(&folder, "own/etc_acpi_tables");
    let kernel = kernel("6.12.107", b"");
    let initrd = read(&folder, "snp/own/initrd.cpio.xz");
    let machine = TdxMachine {
        acpi: Some(&acpi),
        initrd: &initrd,
        ..machine(&image, Inspection::of(&image).unwrap(), &kernel, 4 * GIB)
    };
    let found = measure(&machine).unwrap();
    let event = |register: usize, name: &str| {
        let event = found.rtmr[register].events().iter().find(|event| event.name == name);
        event.unwrap_or_else(|| panic!("no event {name}")).digest
    };
    for name in ["SecureBoot", "PK", "KEK", "db", "dbx"] {
        assert_eq!(event(0, &format!("variable-{name}")), measurement(&all["vars"][name]), "{name}");
    }
    assert_eq!(event(0, "variables"), measurement(&all["ovmf"]["OVMF-2025.02"]["cfv"]));
    assert_eq!(event(0, "separator"), measurement(&all["separator"]));
    assert_eq!(event(0, "variable-BootOrder"), measurement(&all["bootorder_00"]));
    assert_eq!(event(2, "command-line"), measurement(&all["kernel"]["cmdline_event"]));
    assert_eq!(event(2, "initrd"), measurement(&all["kernel"]["initrd_sha384"]));
    assert_eq!(
        found.rtmr[2].value(),
        Some(measurement(&all["kernel"]["rtmr2_confirmed_by_tdx-measure_fortanix_b48752b"]))
    );
    assert_eq!(found.rtmr[3].value(), Some(Measurement([0; 48])), "nothing extends RTMR3 before the guest does");
}

/// QEMU's own copies of a kernel's first 20 KiB, which it patched for 1, 2 and 4 GiB of memory.
#[test]
fn the_setup_header_is_patched_as_qemu_patches_it() {
    let Some(folder) = vectors() else { return };
    let initrd = read(&folder, "snp/own/initrd.cpio.xz").len() as u64;
    let setup = |gib: u64| read(&folder, &format!("tdx/own/qemu10.0.2-setup-{gib}G.bin.gz"));
    for from in [1, 2, 4] {
        // What QEMU writes is put back to what a kernel's build leaves there.
        let mut plain = setup(from);
        for field in [0x210..0x211, 0x218..0x220, 0x224..0x22c] {
            plain[field].fill(0);
        }
        plain[0x211] &= !0x80;
        for to in [1, 2, 4] {
            assert_eq!(linux::patched(&plain, initrd, to * GIB).unwrap(), setup(to), "from {from} to {to} GiB");
        }
    }
}

/// The one test that needs a whole kernel of Debian's: `vmlinuz` of the package that the vectors name.
#[test]
fn rtmr1_of_a_real_kernel_comes_out() {
    let Some(folder) = vectors() else { return };
    let all = expected(&folder);
    let Some(kernel) = firmware("vmlinuz", text(&all["kernel"]["sha256"])) else { return };
    let digest = pe::authenticode_sha384(&kernel).unwrap();
    assert_eq!(digest, measurement(&all["kernel"]["authenticode_sha384_unpatched"]));
    let initrd = read(&folder, "snp/own/initrd.cpio.xz");
    let patched = linux::patched(&kernel, initrd.len() as u64, 4 * GIB).unwrap();
    let digest = pe::authenticode_sha384(&patched).unwrap();
    assert_eq!(digest, measurement(&all["kernel"]["authenticode_sha384_patched_4G"]));
    let image = read(&folder, "tdx/own/OVMF-2025.02.fd.xz");
    let machine = TdxMachine { initrd: &initrd, ..machine(&image, Inspection::of(&image).unwrap(), &kernel, 4 * GIB) };
    let rtmr1 =
        |major| measure(&TdxMachine { qemu: QemuVersion { major, minor: 1 }, ..machine }).unwrap().rtmr[1].value();
    assert_eq!(rtmr1(10), Some(measurement(&all["kernel"]["rtmr1_unpatched"])));
    assert_eq!(rtmr1(9), Some(measurement(&all["kernel"]["rtmr1_patched_4G"])));
}

#[test]
fn each_firmware_is_seen_for_what_it_does() {
    let Some(folder) = vectors() else { return };
    for (name, image, _) in images(&folder) {
        let found = Inspection::of(&image).unwrap();
        let expected = |verifies, unpatched, argument, smbios| Inspection {
            verifies_kernel_hashes: verifies,
            takes_unpatched_kernel: unpatched,
            initrd_argument: Some(argument),
            measures_smbios: smbios,
            standard_boot_menu: true,
        };
        use InitrdArgument::{Behind, InFront};
        let expected = match name.as_str() {
            "OVMF-2022.11" => expected(false, false, Behind, false),
            "OVMF-2025.02" => expected(false, true, Behind, false),
            "OVMF-2026.08" | "OVMF.inteltdx.ms" => expected(false, true, InFront, true),
            "OVMF.amdsev" => expected(true, true, InFront, false),
            other => panic!("{other}"),
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn firmware_that_measures_smbios_leaves_rtmr0_unknown() {
    let Some(folder) = vectors() else { return };
    let image = read(&folder, "snp/own/OVMF-2026.08.fd.xz");
    let acpi = tables(&folder, "own/etc_acpi_tables");
    let kernel = kernel("6.12.107", b"");
    let machine =
        TdxMachine { acpi: Some(&acpi), ..machine(&image, Inspection::of(&image).unwrap(), &kernel, 4 * GIB) };
    let found = measure(&machine).unwrap();
    assert!(matches!(&found.rtmr[0], Register::Unknown { reason } if reason.contains("SMBIOS")), "{:?}", found.rtmr[0]);
    assert!(found.rtmr[1].value().is_some());
    let front =
        sha384(&format!("initrd=initrd {CMDLINE}\0").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    assert_eq!(found.rtmr[2].events()[0].digest, front, "this firmware names the initial ram disk first");
}

#[test]
fn firmware_with_secure_boot_refuses_a_kernel_given_directly() {
    let Some(folder) = vectors() else { return };
    let sha256 = expected(&folder)["ovmf"]["OVMF.inteltdx.ms"]["sha256"].clone();
    let Some(image) = firmware("OVMF.inteltdx.ms.fd", text(&sha256)) else { return };
    let kernel = kernel("6.12.107", b"");
    let error = measure(&machine(&image, Inspection::of(&image).unwrap(), &kernel, GIB)).unwrap_err().to_string();
    assert!(error.contains("Secure Boot is on"), "{error}");
}
