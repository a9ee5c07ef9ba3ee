//! What the end-to-end tests share: where the built binaries and the demo model are.

pub mod browser;
pub mod fleet;
pub mod http;
pub mod memory;
pub mod models;
pub mod roles;
pub mod schema;
pub mod up;

use std::path::{Path, PathBuf};

/// The built `cocoon-enclave`: `COCOON_ENCLAVE_BIN`, else beside this test's own folder.
///
/// # Panics
/// There is none: `make enclave` builds it.
pub fn enclave_binary() -> PathBuf {
    binary("COCOON_ENCLAVE_BIN", "cocoon-enclave")
}

/// The built `cocoon`: `COCOON_BIN`, else beside this test's own folder.
///
/// # Panics
/// There is none: `make build` builds it.
pub fn cocoon_binary() -> PathBuf {
    binary("COCOON_BIN", "cocoon")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    // Tests lie in target/release/deps, programs in target/release.
    let beside = || {
        let own = std::env::current_exe().expect("a program knows its own path");
        let folders = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
        folders.filter(|path| path.is_file()).last().unwrap_or_else(|| PathBuf::from(name))
    };
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{} is not there: run `make build` first, or name it in {variable}", path.display());
    path
}

/// The model that ships with the repository.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
}
