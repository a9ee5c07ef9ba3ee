//! The dependency direction of `docs/architecture.md`, enforced: an arrow against it fails here, and so does a second verifier.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each member, its folder, and the members it may depend on.
const LAYERS: &[(&str, &str, &[&str])] = &[
    ("cocoon-attestation", "attestation", &[]),
    ("cocoon-firmware-measurements", "firmware-measurements", &["cocoon-attestation"]),
    ("cocoon-verifier", "verifier", &["cocoon-attestation"]),
    ("cocoon-settlement", "settlement", &["cocoon-attestation"]),
    ("cocoon-protocol", "protocol", &["cocoon-attestation", "cocoon-verifier", "cocoon-settlement"]),
    ("cocoon-transparency", "transparency", &["cocoon-attestation", "cocoon-verifier", "cocoon-settlement"]),
    ("cocoon-init", "enclave/init", &[]),
    ("cocoon-image", "enclave/image", &["cocoon-attestation", "cocoon-firmware-measurements", "cocoon-init"]),
    ("cocoon-allowance", "enclave/allowance", &[]),
    ("cocoon-engine", "enclave/engine", &["cocoon-allowance"]),
    (
        "cocoon-enclave",
        "enclave",
        &[
            "cocoon-attestation",
            "cocoon-settlement",
            "cocoon-protocol",
            "cocoon-allowance",
            "cocoon-engine",
            "cocoon-init",
        ],
    ),
    ("cocoon-host-device", "host/device", &[]),
    ("cocoon-host", "host", HOST),
    ("cocoon-node", "node", ROLE),
    ("cocoon-gateway", "gateway", ROLE),
    ("cocoon-client", "client", ROLE),
    ("cocoon", "cli", CLI),
    ("cocoon-tests", "tests", TESTS),
];

const ROLE: &[&str] = &[
    "cocoon-attestation",
    "cocoon-firmware-measurements",
    "cocoon-verifier",
    "cocoon-settlement",
    "cocoon-protocol",
    "cocoon-transparency",
];

const HOST: &[&str] = &[
    "cocoon-attestation",
    "cocoon-firmware-measurements",
    "cocoon-verifier",
    "cocoon-settlement",
    "cocoon-protocol",
    "cocoon-transparency",
    "cocoon-host-device",
];

const CLI: &[&str] = &[
    "cocoon-attestation",
    "cocoon-firmware-measurements",
    "cocoon-verifier",
    "cocoon-settlement",
    "cocoon-protocol",
    "cocoon-transparency",
    "cocoon-image",
    "cocoon-host",
    "cocoon-node",
    "cocoon-gateway",
    "cocoon-client",
];

const TESTS: &[&str] = &[
    "cocoon-attestation",
    "cocoon-firmware-measurements",
    "cocoon-verifier",
    "cocoon-settlement",
    "cocoon-protocol",
    "cocoon-transparency",
    "cocoon-image",
    "cocoon-host",
    "cocoon-node",
    "cocoon-gateway",
    "cocoon-client",
    "cocoon",
];

/// Crates that check signatures on evidence or parse certificates. `attestation` has some to mint development evidence.
const EVIDENCE_CRYPTO: &[(&str, &[&str])] = &[
    ("dcap-qvl", &["cocoon-verifier"]),
    ("x509-cert", &["cocoon-verifier", "cocoon-attestation"]),
    ("rustls-webpki", &["cocoon-verifier"]),
    ("p256", &["cocoon-attestation"]),
    ("p384", &["cocoon-attestation"]),
    ("rsa", &["cocoon-attestation"]),
    ("sev", &["cocoon-firmware-measurements"]),
    ("mistralrs", &["cocoon-engine"]),
];

/// Names in source that can only mean a signature check on evidence; they belong to the verifier.
const EVIDENCE_PRIMITIVES: &[&str] =
    &["ECDSA_P256_SHA256", "ECDSA_P384_SHA384", "RSA_PSS_", "RSA_PKCS1_", "VerifyingKey::from_public_key_der"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(dir: &str) -> toml::Table {
    let path = root().join(dir).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Packages that a crate depends on outside its tests: by their own names, and for any target.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(|targets| targets.values().filter_map(toml::Value::as_table));
    std::iter::once(manifest)
        .chain(targets)
        .flat_map(|table| ["dependencies", "build-dependencies"].map(|section| table.get(section)))
        .filter_map(|section| section?.as_table())
        .flat_map(|section| section.iter().map(|(name, entry)| package(name, entry)))
        .collect()
}

/// A dependency may go by another name here, or by one that the workspace gives it.
fn package(name: &str, entry: &toml::Value) -> String {
    let named = |entry: &toml::Value| entry.get("package").and_then(toml::Value::as_str).map(str::to_owned);
    let inherited = || named(manifest(".").get("workspace")?.get("dependencies")?.get(name)?);
    named(entry).or_else(inherited).unwrap_or_else(|| name.to_owned())
}

fn layers() -> BTreeMap<&'static str, (&'static str, &'static [&'static str])> {
    LAYERS.iter().map(|(name, dir, allowed)| (*name, (*dir, *allowed))).collect()
}

#[test]
fn workspace_members_are_the_documented_ones() {
    let workspace = manifest(".");
    let members: BTreeSet<&str> = workspace["workspace"]["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|member| member.as_str().expect("a path"))
        .collect();
    let documented: BTreeSet<&str> = LAYERS.iter().map(|(_, dir, _)| *dir).collect();
    assert_eq!(members, documented);
    for (name, dir, _) in LAYERS {
        assert_eq!(manifest(dir)["package"]["name"].as_str(), Some(*name), "{dir}");
    }
}

#[test]
fn dependencies_point_one_way() {
    for (name, (dir, allowed)) in layers() {
        for dependency in dependencies(&manifest(dir)) {
            if !layers().contains_key(dependency.as_str()) {
                continue;
            }
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn a_dependency_cannot_hide_behind_a_target_or_another_name() {
    let hidden: toml::Table = "[target.'cfg(unix)'.dependencies]\nx = { package = \"dcap-qvl\", version = \"1\" }\n\
        [build-dependencies]\nmistralrs = \"1\"\n[dev-dependencies]\nsev = \"1\""
        .parse()
        .expect("TOML");
    assert_eq!(dependencies(&hidden), BTreeSet::from(["dcap-qvl".to_owned(), "mistralrs".to_owned()]));
}

#[test]
fn the_engine_stays_outside_the_default_members() {
    let workspace = manifest(".");
    let default = workspace["workspace"]["default-members"].as_array().expect("default-members");
    for outside in ["enclave", "enclave/engine"] {
        assert!(
            !default.iter().any(|member| member.as_str() == Some(outside)),
            "{outside} must not be a default member"
        );
    }
}

#[test]
fn only_the_verifier_checks_signatures_on_evidence() {
    for (name, (dir, _)) in layers() {
        let dependencies = dependencies(&manifest(dir));
        for (crypto, users) in EVIDENCE_CRYPTO {
            assert!(
                !dependencies.contains(*crypto) || users.contains(&name),
                "{name} depends on {crypto}: evidence is checked by cocoon-verifier alone"
            );
        }
        if name == "cocoon-verifier" || name == "cocoon-tests" {
            continue;
        }
        for (file, text) in sources(&root().join(dir).join("src")) {
            for primitive in EVIDENCE_PRIMITIVES {
                assert!(
                    !text.contains(primitive),
                    "{} uses {primitive}: evidence is checked by cocoon-verifier alone",
                    file.display()
                );
            }
        }
    }
}

/// What Linux offers through system calls alone: reads of hardware and virtual sockets on a host; mounts, modules, dm-verity and power in a guest.
/// And an allocator.
const UNSAFE: &[&str] = &["cocoon-host-device", "cocoon-init", "cocoon-allowance"];

#[test]
fn every_crate_but_three_forbids_unsafe_code() {
    assert_eq!(manifest(".")["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for (name, dir, _) in LAYERS.iter().filter(|(name, ..)| !UNSAFE.contains(name)) {
        assert_eq!(manifest(dir)["lints"]["workspace"].as_bool(), Some(true), "{name} must take the workspace's lints");
    }
}

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            found.push((path, text));
        }
    }
    found
}
