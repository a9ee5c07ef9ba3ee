//! `cocoon host doctor` and `cocoon host launch` as their users run them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn cocoon(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cocoon")).args(args).output().unwrap()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn machine(name: &str) -> String {
    repository().join(format!("host/tests/machines/{name}.machine")).display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_doctors_exit_code_says_how_a_machine_is() {
    for (name, code) in [("tdx", 0), ("snp", 0), ("tdx-off", 10), ("laptop", 10)] {
        let output = cocoon(&["host", "doctor", "--machine", &machine(name)]);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", text(&output.stdout));
        let kept = std::fs::read_to_string(machine(name).replace(".machine", ".doctor")).unwrap();
        assert_eq!(text(&output.stdout), kept, "{name}");
        let json = cocoon(&["host", "doctor", "--json", "--machine", &machine(name)]);
        let value: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((json.status.code(), value["exit_code"].as_i64()), (Some(code), Some(code.into())), "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let blind = folder.path().join("blind");
    let recording = std::fs::read_to_string(machine("snp")).unwrap().replace("== snp-status", "== denied snp-status");
    std::fs::write(&blind, recording).unwrap();
    assert_eq!(cocoon(&["host", "doctor", "--machine", blind.to_str().unwrap()]).status.code(), Some(20));
    assert_eq!(cocoon(&["host", "doctor", "--machine", "/nowhere"]).status.code(), Some(1));
    assert_eq!(cocoon(&["host", "doctor", "--tee", "sgx"]).status.code(), Some(2));
}

/// A machine that cannot run a guest is told why, and does not fail to be examined.
#[test]
fn a_machine_is_examined_for_a_guest() {
    let folder = tempfile::tempdir().unwrap();
    let config = guest(folder.path());
    let snp = std::fs::read_to_string(&config).unwrap().replace("\"development\"", "\"snp\"\nnuma = 9");
    std::fs::write(&config, snp).unwrap();
    let output = cocoon(&["host", "doctor", "--config", &config, "--machine", &machine("laptop")]);
    assert_eq!(output.status.code(), Some(10), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("no SEV-SNP") && said.contains("numa = 9") && said.contains("image/firmware"), "{said}");
    assert!(!said.contains("vsock "), "this guest is reached over TCP\n{said}");
}

/// This machine, whatever it is: its recording is examined with the same outcome.
#[test]
fn a_recording_is_examined_as_the_machine_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("this.machine");
    let live = cocoon(&["host", "doctor", "--record", path.to_str().unwrap()]);
    assert!([0, 10, 20, 30].contains(&live.status.code().unwrap()), "{}", text(&live.stderr));
    let recorded = cocoon(&["host", "doctor", "--machine", path.to_str().unwrap()]);
    assert_eq!(text(&live.stdout), text(&recorded.stdout));
    assert_eq!(live.status.code(), recorded.status.code());
}

/// A development guest whose files are no guest.
fn guest(folder: &Path) -> String {
    let image = folder.join("image");
    std::fs::create_dir(&image).unwrap();
    for file in ["vmlinuz", "initrd", "firmware"] {
        std::fs::write(image.join(file), "nothing that boots").unwrap();
    }
    let manifest = "kernel = \"vmlinuz\"\ninitrd = \"initrd\"\nfirmware = \"firmware\"\ncmdline = \"quiet\"\n";
    std::fs::write(image.join("image.toml"), manifest).unwrap();
    let path = folder.join("guest.toml");
    let config = "name = \"try\"\ntee = \"development\"\nimage = \"image\"\ndata = \"data\"\nvcpus = 1\nmemory = \"256M\"\n\
                  network = { tcp = \"127.0.0.1:18443\", port = 8443 }\n";
    std::fs::write(&path, config).unwrap();
    path.display().to_string()
}

#[test]
fn a_dry_run_prints_the_command_line_with_what_flags_override() {
    let folder = tempfile::tempdir().unwrap();
    let config = guest(folder.path());
    let output = cocoon(&[
        "host",
        "launch",
        "--config",
        &config,
        "--dry-run",
        "--vcpus",
        "3",
        "--memory",
        "512M",
        "--qemu",
        "/opt/qemu",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let command = text(&output.stdout);
    assert!(
        command.starts_with("/opt/qemu ") && command.contains("cores=3") && command.contains("-m 512M"),
        "{command}"
    );
    assert!(!folder.path().join("data").exists(), "nothing was made");
    let output = cocoon(&["host", "launch", "--config", &config, "--dry-run", "--gpu", "41:00.0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("emulated machine"), "{}", text(&output.stderr));
}

#[test]
fn a_guest_that_cannot_start_ends_the_command_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = guest(folder.path());
    let output = cocoon(&["host", "launch", "--config", &config, "--qemu", "cocoon-no-such-qemu"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("NOT CONFIDENTIAL") && said.contains("is not installed") && said.contains("apt-get install"),
        "{said}"
    );
    let output = cocoon(&["host", "launch", "--config", &config, "--qemu", "cocoon-no-such-qemu", "--anyway"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cocoon host doctor"), "{}", text(&output.stderr));
}
