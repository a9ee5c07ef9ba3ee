//! `scripts/reproduce`, with a cargo that compiles nothing: what it is given hides the machine's folders, both images are asked for, and two builds
//! are compared.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Notes what it was given, and leaves programs where cargo would.
const CARGO: &str = r#"#!/bin/sh
printf '%s|' "$*" "$CARGO_ENCODED_RUSTFLAGS" "$CFLAGS" "$CXXFLAGS" "${RUSTC_WORKSPACE_WRAPPER-none}" "${RUSTFLAGS-none}" >> "$NOTES"
echo >> "$NOTES"
mkdir -p "$CARGO_TARGET_DIR/release"
touch "$CARGO_TARGET_DIR/release/cocoon-enclave"
cp "$IMAGE" "$CARGO_TARGET_DIR/release/cocoon-image"
"#;
const IMAGE: &str = r#"#!/bin/sh
for out; do :; done
mkdir -p "$out" && echo "$*" > "$out/image.toml"
"#;

/// The same image wherever it is built.
const SAME_IMAGE: &str = r#"#!/bin/sh
for out; do :; done
mkdir -p "$out" && echo bytes > "$out/image.toml"
"#;

/// `scripts/reproduce` in a folder of its own, with these programs.
fn reproduce(folder: &Path, image: &str) -> Command {
    let program = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for name in ["bin", "cargo", "tmp"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    program(&folder.join("bin/cargo"), CARGO);
    program(&folder.join("image"), image);
    let mut command = Command::new("bash");
    command
        .arg(top().join("scripts/reproduce"))
        .env("PATH", format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap()))
        .env("NOTES", folder.join("notes"))
        .env("IMAGE", folder.join("image"))
        .env("CARGO_HOME", folder.join("cargo"))
        .env("TMPDIR", folder.join("tmp"));
    command
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn two_builds_are_compared_and_nothing_is_left_of_them() {
    if !top().join(".git").exists() {
        assert!(std::env::var_os("CI").is_none(), "these sources are no clone");
        return println!("skipped: these sources are no clone, so there is nothing to clone twice");
    }
    // What the other image says is its own folder.
    for (image, same) in [(SAME_IMAGE, true), (IMAGE, false)] {
        let folder = tempfile::tempdir().unwrap();
        let output = reproduce(folder.path(), image).arg("twice").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), same, "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.contains("two builds, the same bytes"), same, "{said}");
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0, "it leaves its folders behind");
        // The engine and the image's tool, each time.
        let built = fs::read_to_string(folder.path().join("notes")).unwrap().lines().count();
        assert_eq!(built, 4);
    }
}

#[test]
fn the_machines_folders_are_mapped_to_fixed_names() {
    let folder = tempfile::tempdir().unwrap();
    let [notes, home, out] = ["notes", "cargo", "out"].map(|name| folder.path().join(name));
    let top = top();
    let output = reproduce(folder.path(), IMAGE)
        .arg("build")
        .arg(&out)
        .env("RUSTC_WORKSPACE_WRAPPER", "a-linter")
        .env("RUSTFLAGS", "-Cdebuginfo=2")
        .env_remove("CFLAGS")
        .env_remove("CXXFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let folders = [(&top, "/cocoon"), (&out.join("target"), "/target"), (&home, "/cargo")];
    let map = |option: &str, between: &str| {
        let options = folders.map(|(from, to)| format!("{option}={}={to}", from.display()));
        options.join(between)
    };
    let (rust, c) = (map("--remap-path-prefix", "\u{1f}"), map("-ffile-prefix-map", " "));
    let expected = |package: &str| format!("build --release --locked -p {package}|{rust}|{c}|{c}|none|none|");
    let noted = fs::read_to_string(&notes).unwrap();
    assert_eq!(noted.lines().collect::<Vec<_>>(), [expected("cocoon-enclave"), expected("cocoon-image")]);

    let sums = fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    for platform in ["hardware", "development"] {
        assert!(sums.contains(&format!("{platform}/image.toml")), "{sums}");
        let asked = fs::read_to_string(out.join(platform).join("image.toml")).unwrap();
        assert!(asked.contains(&format!("--platform {platform}")), "{asked}");
    }
}
