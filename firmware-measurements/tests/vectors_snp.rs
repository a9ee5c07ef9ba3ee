//! Launch digests of real firmware, of a report that hardware signed, and of the reference tools, which must come out equal.

mod common;

use std::path::Path;

use cocoon_attestation::{Digest, Measurement};
use cocoon_firmware_measurements::sev_metadata::{SevRegion, SevRegionKind};
use cocoon_firmware_measurements::snp::{Firmware, SnpMachine, Svsm, measure};
use cocoon_firmware_measurements::{CpuModel, Inspection, KernelHashes, Vmm};
use common::{digest, json, measurement, read, text, vectors};
use serde_json::Value;

fn machine(firmware: &Firmware) -> SnpMachine<'_> {
    let cpu: CpuModel = "EPYC-v4".parse().unwrap();
    SnpMachine { firmware, kernel: None, svsm: None, vcpus: 1, cpu, guest_features: 1, vmm: Vmm::Qemu }
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{text}"))
}

/// Rows of CPU, vCPUs, features, kernel or none, digest.
fn rows(folder: &Path, list: &str, image: &str, hashes: KernelHashes) {
    let image = read(folder, image);
    let firmware = Firmware::parse(&image).unwrap();
    let text = String::from_utf8(read(folder, list)).unwrap();
    assert!(text.lines().count() > 20);
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [cpu, vcpus, features, kernel, expected] = words[..] else { panic!("{line}") };
        let machine = SnpMachine {
            kernel: (kernel == "kernel").then_some(hashes),
            vcpus: vcpus.parse().unwrap(),
            cpu: cpu.parse().unwrap(),
            guest_features: hexadecimal(features),
            ..machine(&firmware)
        };
        assert_eq!(measure(&machine).unwrap().digest.to_string(), expected, "{list}: {line}");
    }
}

#[test]
fn real_firmware_measures_as_two_reference_tools_say() {
    let Some(folder) = vectors() else { return };
    let kernel = digest(&json(&folder, "tdx/own/expected.json")["kernel"]["sha256"]);
    let initrd = read(&folder, "snp/own/initrd.cpio.xz");
    let hashes = KernelHashes::of(b"", &initrd, "console=ttyS0 quiet panic=-1").unwrap();
    let hashes = KernelHashes { kernel, ..hashes };
    rows(&folder, "snp/own/digests-OVMF.amdsev.txt", "snp/own/OVMF.amdsev.fd.xz", hashes);
    rows(&folder, "snp/own/digests-OVMF-2026.08.txt", "snp/own/OVMF-2026.08.fd.xz", hashes);
    let many = |word: &str, count: u32| -> Vec<u8> {
        (0..count).flat_map(|n| Digest::of(&[format!("{word}{n}").as_bytes()]).0).collect()
    };
    let hashes = KernelHashes::of(&many("kernel", 2048), &many("initrd", 1024), "console=ttyS0").unwrap();
    rows(&folder, "snp/own/digests-OVMF.amdsev-synthetic.txt", "snp/own/OVMF.amdsev.fd.xz", hashes);
}

#[test]
fn a_report_that_hardware_signed_is_computed_again() {
    let Some(folder) = vectors() else { return };
    let case = json(&folder, "snp/own/real-report-recompute.json");
    let regions = case["ovmf_sections"].as_array().unwrap().iter().map(|section| SevRegion {
        address: section["gpa"].as_u64().unwrap(),
        size: section["size"].as_u64().unwrap(),
        kind: match section["type"].as_u64().unwrap() {
            1 => SevRegionKind::Memory,
            2 => SevRegionKind::Secrets,
            3 => SevRegionKind::Cpuid,
            4 => SevRegionKind::CallingArea,
            16 => SevRegionKind::KernelHashes,
            other => panic!("{other}"),
        },
    });
    let firmware = Firmware {
        digest: measurement(&case["ovmf_hash"]),
        size: 4 << 20,
        regions: regions.collect(),
        hashes_address: case["hashes_table_gpa"].as_u64(),
        reset_address: case["reset_eip"].as_u64().map(|address| address as u32),
    };
    let hashes = KernelHashes {
        kernel: digest(&case["kernel_hash"]),
        initrd: digest(&case["initrd_hash"]),
        cmdline: Digest::of(&[text(&case["cmdline"]).as_bytes(), b"\0"]),
    };
    let machine = SnpMachine {
        kernel: Some(hashes),
        vcpus: case["vcpus"].as_u64().unwrap() as u32,
        cpu: text(&case["vcpu_type"]).parse().unwrap(),
        guest_features: case["guest_features"].as_u64().unwrap(),
        ..machine(&firmware)
    };
    let found = measure(&machine).unwrap();
    assert_eq!(found.digest, measurement(&case["expected_measurement"]));
    // The same bytes stand in the report itself, at MEASUREMENT (offset 0x90).
    let report = json(&folder, "snp/dstack/sev-snp-attestation.json");
    let report = hex::decode(text(&report["attestation"])).unwrap();
    assert!(report.windows(48).any(|window| window == found.digest.0));
    let fewer = SnpMachine { vcpus: 1, ..machine };
    assert_ne!(measure(&fewer).unwrap().digest, found.digest, "another number of vCPUs");
}

#[test]
fn only_the_firmware_for_kernels_verifies_their_hashes() {
    let Some(folder) = vectors() else { return };
    let inspect = |name: &str| Inspection::of(&read(&folder, name)).unwrap();
    inspect("snp/own/OVMF.amdsev.fd.xz").require_verified_kernel().unwrap();
    let generic = inspect("snp/own/OVMF-2026.08.fd.xz").require_verified_kernel().unwrap_err().to_string();
    assert!(generic.contains("the host could load another"), "{generic}");
}

/// What a call in the reference tools' own tests says, in Python or in Rust.
struct Call {
    machine_vcpus: u32,
    firmware: String,
    kernel: Option<KernelHashes>,
    features: u64,
    vmm: Vmm,
    svsm: bool,
    seed: bool,
}

/// `None` for what is no SNP guest.
fn call(test: &str, args: &str) -> Option<Call> {
    let snp = test.starts_with("test_snp") || test == "test_sev_snp_only";
    if !snp || test.contains("dump_vmsa") {
        return None;
    }
    let after = |key: &str| args.split_once(key).map(|(_, rest)| rest.trim_start());
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().map(str::to_owned).unwrap();
    let python = args.contains("SevMode.");
    let (vcpus, features) = if python {
        let features = args.split(", ").find(|word| word.starts_with("0x")).unwrap();
        (number(after(",").unwrap()), features.trim_end_matches([',', ' ']).to_owned())
    } else {
        (number(after("vcpus:").unwrap()), number(after("GuestFeatures(").unwrap()))
    };
    let cmdline = if args.contains("loglevel=7") { "console=ttyS0 loglevel=7" } else { "" };
    // Kernel and initial ram disk are /dev/null where there are any.
    let kernel = args.contains("/dev/null").then(|| KernelHashes::of(b"", b"", cmdline).unwrap());
    let file = args.split(['"', '\'']).find(|word| word.ends_with("_suffix.bin") || word.ends_with("ovmf.fd")).unwrap();
    let vmm = match args {
        args if args.contains("VMMType.ec2") || args.contains("VMMType::EC2") => Vmm::Ec2,
        args if args.contains("VMMType.gce") => Vmm::Gce,
        _ => Vmm::Qemu,
    };
    Some(Call {
        machine_vcpus: vcpus.parse().unwrap(),
        firmware: file.rsplit('/').next().unwrap().to_owned(),
        kernel,
        features: hexadecimal(&features),
        vmm,
        svsm: test.contains("svsm"),
        seed: args.contains("ovmf_hash"),
    })
}

fn reference_tests(folder: &Path, list: &str, wrong: &[&str]) {
    let cases = json(folder, list);
    let (mut compared, mut refused) = (0, 0);
    for case in cases.as_array().unwrap() {
        let args: Vec<&str> = match &case["args"] {
            Value::Array(args) => args.iter().map(text).collect(),
            args => vec![text(args)],
        };
        let test = text(&case["test"]);
        let Some(call) = call(test, args.first().unwrap_or(&"")) else { continue };
        let expected: Vec<_> = case["expected"].as_array().unwrap().iter().map(measurement).collect();
        let name = if call.svsm { "svsm_ovmf.fd.gz" } else { &call.firmware };
        let image = read(folder, &format!("snp/sev-snp-measure/{name}"));
        let svsm = call.svsm.then(|| read(folder, "snp/sev-snp-measure/svsm.bin.gz"));
        let mut firmware = Firmware::parse(&image).unwrap();
        if let (true, [seed, _]) = (call.seed, &expected[..]) {
            firmware.digest = *seed;
        }
        let machine = SnpMachine {
            kernel: call.kernel,
            svsm: svsm.as_ref().map(|image| Svsm { image, variables_size: 540_672 }),
            vcpus: call.machine_vcpus,
            guest_features: call.features,
            vmm: call.vmm,
            ..machine(&firmware)
        };
        let found = measure(&machine).map(|found| found.digest);
        match expected.last() {
            None => {
                assert!(found.unwrap_err().to_string().contains("no place for hashes"), "{test}");
                refused += 1;
            }
            Some(expected) if wrong.contains(&test) => {
                assert_ne!(found.unwrap(), *expected, "{test}: the tools agree now")
            }
            Some(expected) => {
                assert_eq!(found.unwrap(), *expected, "{test}");
                compared += 1;
            }
        }
    }
    println!("{list}: {compared} digests, {refused} refusals");
    assert!(compared >= 10 && refused == 1);
}

#[test]
fn every_snp_case_of_sev_snp_measure_comes_out() {
    let Some(folder) = vectors() else { return };
    reference_tests(&folder, "snp/sev-snp-measure/expected.json", &[]);
}

/// The two tools disagree about EC2's first vCPU; ours is the one of sev-snp-measure.
#[test]
fn every_snp_case_of_the_sev_crate_comes_out_but_for_ec2() {
    let Some(folder) = vectors() else { return };
    reference_tests(&folder, "snp/sev-crate/expected.json", &["test_snp_ec2_snp_only", "test_snp_ec2_default"]);
}

#[test]
fn the_firmware_pages_alone_are_what_the_tools_call_its_hash() {
    let Some(folder) = vectors() else { return };
    let image = read(&folder, "snp/sev-snp-measure/ovmf_AmdSev_suffix.bin");
    let hash: Measurement = Firmware::parse(&image).unwrap().digest;
    let cases = json(&folder, "snp/sev-crate/expected.json");
    let case = cases.as_array().unwrap().iter().find(|case| case["test"] == "test_snp_ovmf_hash_gen_default").unwrap();
    assert_eq!(hash, measurement(&case["expected"][0]));
}
