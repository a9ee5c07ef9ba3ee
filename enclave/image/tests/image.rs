//! The guest image: the same bytes from every build, accepted by other people's tools, and a machine that boots from it, proves what it
//! is, and is off as soon as anything is not as it was measured. Run by `make image-test`, which fetches what they need.

mod machine;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use cocoon_attestation::bundle::CpuEvidence;
use cocoon_attestation::{Beacon, Bundle, Digest, UnixTime, binding};
use cocoon_firmware_measurements::Inspection;
use cocoon_image::guest::{self, GuestImage};
use cocoon_protocol::wire::{ATTEST_PATH, AttestRequest, EVIDENCE_PATH, EnclaveEvidence};

use machine::{CONFIG, Machine, build, build_from, demo_model};

#[test]
#[ignore = "needs the enclave's binary and packages of Debian: make image-test"]
fn two_builds_in_two_folders_are_the_same_bytes() {
    let parent = tempfile::tempdir().unwrap();
    let folders = ["one", "another/and deeper"].map(|name| parent.path().join(name));
    // Each from packages of its own, fetched for it.
    let packages = ["packages", "more/packages"].map(|name| parent.path().join(name));
    let images = [0, 1].map(|n| build_from(&packages[n], &folders[n]));
    assert_eq!(images[0], images[1]);
    for package in &images[0].package {
        assert!(packages.iter().all(|folder| package.file(folder).is_file()), "{}", package.name);
    }
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&folders[0]).len(), 6, "firmware for two, kernel, ram disk, model, manifest");
    assert_eq!(names(&folders[0]), names(&folders[1]));
    for name in names(&folders[0]) {
        let bytes = folders.each_ref().map(|folder| fs::read(folder.join(&name)).unwrap());
        assert!(bytes[0] == bytes[1], "{} differs", name.display());
    }
    assert_eq!(GuestImage::open(&folders[0]).unwrap(), images[0]);
}

/// `cocoon measure` does not look into this firmware each time.
#[test]
#[ignore = "needs packages of Debian: make image-test"]
fn what_is_known_of_the_firmware_beforehand_is_what_is_found_in_it() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    for name in ["OVMF.fd", "OVMF.amdsev.fd"] {
        let firmware = fs::read(folder.path().join(name)).unwrap();
        let known = Inspection::known(&Digest::of(&[&firmware]).0);
        assert_eq!(
            known,
            Some(Inspection::of(&firmware).unwrap()),
            "{name}: its package was updated, and inspect.rs was not"
        );
    }
}

#[test]
#[ignore = "needs veritysetup and fsck.erofs: make image-test"]
fn the_models_disk_is_what_other_tools_take_it_for() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("model.img");
    let model = guest::model_image(&demo_model(), &disk).unwrap();
    let root = Digest(model.root).to_string();
    let verify = |root: &str| {
        let offset = format!("--hash-offset={}", model.data_blocks * 4096);
        Command::new("veritysetup").args(["verify", &offset]).args([&disk, &disk]).arg(root).output().unwrap()
    };
    let output = verify(&root);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let extracted = folder.path().join("extracted");
    let extract = format!("--extract={}", extracted.display());
    let output = Command::new("fsck.erofs").args([&extract, "--no-preserve"]).arg(&disk).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let roots = [demo_model(), extracted].map(|folder| cocoon_attestation::model_root(&folder).unwrap().root);
    assert_eq!(roots[0], roots[1]);
    flip(&disk, 3 * 4096);
    assert!(!verify(&root).status.success(), "a flipped bit");
}

/// Flips the lowest bit of a byte.
fn flip(file: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
#[ignore = "needs QEMU, the enclave's binary and packages of Debian: make image-test"]
fn a_machine_boots_the_image_proves_what_it_is_and_is_off_when_it_is_not_as_measured() {
    let folder = tempfile::tempdir().unwrap();
    let image = build(folder.path());
    let config = folder.path().join("config.toml");
    fs::write(&config, CONFIG).unwrap();

    let mut machine = Machine::boot(folder.path(), &image, Some(&config), 0xa1);
    machine.wait_for("DEVELOPMENT PLATFORM - NOT CONFIDENTIAL");
    machine.wait_for("{\"listening\":\"10.0.2.15:8443\"}");
    let (status, _) = machine.ask("GET", EVIDENCE_PATH, &[]);
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable", "before anybody asked for evidence");
    let beacon = Beacon { seqno: 1, root_hash: Digest([5; 32]), time: UnixTime(1_800_000_000) };
    let request = AttestRequest { beacon, nonce_root: Digest::ZERO };
    let (status, body) = machine.ask("POST", ATTEST_PATH, &request.to_cbor());
    assert_eq!(status, "HTTP/1.1 200 OK");
    let bundle = Bundle::from_cbor(&EnclaveEvidence::from_cbor(&body).unwrap().bundle).unwrap();
    let claims = bundle.claims().unwrap();
    assert_eq!((claims.model_root, claims.beacon), (image.model_root, beacon));
    assert_eq!(claims.config_digest, Digest::of(&[CONFIG.as_bytes()]), "the configuration that the host gave");
    let CpuEvidence::Tdx { quote } = &bundle.cpu else { panic!("TDX evidence expected") };
    assert_eq!(quote[48 + 136..48 + 184], [0xa1; 48], "MRTD, from outside the machine");
    assert_eq!(quote[48 + 520..48 + 584], binding::report_data(&bundle.claims), "REPORTDATA, from inside");
    drop(machine);

    let off = |image: &GuestImage, config: Option<&Path>, expected: &str| {
        let said = Machine::boot(folder.path(), image, config, 0).until_off();
        assert!(said.contains(expected) && said.contains("switching off"), "{expected:?} is not in:\n{said}");
    };
    off(&image, None, "the host gives no configuration");
    let unknown = GuestImage { cmdline: format!("{} cocoon.debug=1", image.cmdline), ..image.clone() };
    off(&unknown, Some(&config), "cocoon.debug is unknown");
    let hardware = GuestImage { cmdline: image.cmdline.replace("=development", "=hardware"), ..image.clone() };
    off(&hardware, Some(&config), "neither a TDX nor an SEV-SNP guest");
    // In the weights: the file system is sound, and the read finds it.
    flip(&folder.path().join(&image.model_image), 400 * 4096);
    off(&image, Some(&config), "the enclave ended");
}
