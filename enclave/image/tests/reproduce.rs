//! `scripts/reproduce build`, with a cargo that compiles nothing: what it is given hides the machine's folders, and both images are asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
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

#[test]
fn the_machines_folders_are_mapped_to_fixed_names() {
    let folder = tempfile::tempdir().unwrap();
    let [notes, image, home, out] = ["notes", "image", "cargo", "out"].map(|name| folder.path().join(name));
    let program = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    fs::create_dir(folder.path().join("bin")).unwrap();
    fs::create_dir(&home).unwrap();
    program(&folder.path().join("bin/cargo"), CARGO);
    program(&image, IMAGE);
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let output = Command::new("bash")
        .arg(top.join("scripts/reproduce"))
        .arg("build")
        .arg(&out)
        .env("PATH", format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap()))
        .envs([("NOTES", &notes), ("IMAGE", &image), ("CARGO_HOME", &home)])
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
