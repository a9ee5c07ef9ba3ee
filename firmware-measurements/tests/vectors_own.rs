//! `docs/vectors/measurements.json`, which another implementation computed.

mod common;
#[path = "common/made.rs"]
mod made;

use cocoon_firmware_measurements::id_block::IdBlock;
use cocoon_firmware_measurements::image::ImageFiles;
use cocoon_firmware_measurements::tdx::{QemuVersion, TdxMachine, measure};
use cocoon_firmware_measurements::{Inspection, inspect::InitrdArgument};
use common::{digest, measurement, text};
use made::{Image, kernel};
use serde_json::Value;

fn vector() -> Value {
    serde_json::from_str(include_str!("../../docs/vectors/measurements.json")).unwrap()
}

#[test]
fn image_digests() {
    for case in vector()["image_digest"].as_array().unwrap() {
        let files = ImageFiles {
            kernel: text(&case["kernel"]).as_bytes(),
            initrd: text(&case["initrd"]).as_bytes(),
            cmdline: text(&case["cmdline"]),
            tdx_firmware: case["tdx_firmware"].as_str().map(str::as_bytes),
            snp_firmware: case["snp_firmware"].as_str().map(str::as_bytes),
        };
        assert_eq!(files.digest(), digest(&case["digest"]));
    }
}

#[test]
fn rtmr2_with_the_initial_ram_disk_named_in_either_place() {
    let case = &vector()["rtmr2"];
    let firmware = Image::default().bytes();
    let kernel = kernel("6.12.0", b"");
    for (place, expected) in [(InitrdArgument::Behind, "behind"), (InitrdArgument::InFront, "in_front")] {
        let inspection = Inspection { initrd_argument: Some(place), ..Inspection::of(&firmware).unwrap() };
        let machine = TdxMachine {
            firmware: &firmware,
            inspection,
            kernel: &kernel,
            initrd: text(&case["initrd"]).as_bytes(),
            cmdline: text(&case["cmdline"]),
            memory: 1 << 30,
            vcpus: 1,
            qemu: QemuVersion::DEFAULT,
            page_order: None,
            acpi: None,
        };
        assert_eq!(measure(&machine).unwrap().rtmr[2].value(), Some(measurement(&case[expected])));
    }
}

#[test]
fn identity_blocks() {
    let case = &vector()["id_block"];
    let identifier = |name: &str| hex::decode(text(&case[name])).unwrap().try_into().unwrap();
    let block = IdBlock {
        launch_digest: measurement(&case["launch_digest"]),
        family_id: identifier("family_id"),
        image_id: identifier("image_id"),
        guest_svn: case["guest_svn"].as_u64().unwrap() as u32,
        policy: u64::from_str_radix(text(&case["policy"]), 16).unwrap(),
    };
    assert_eq!(hex::encode(block.to_bytes()), text(&case["bytes"]));
}
