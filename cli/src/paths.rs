//! Where the enclave's binary and the demo model are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// `COCOON_ENCLAVE_BIN`, else `cocoon-enclave` beside this program.
///
/// # Errors
/// There is no such file.
pub fn enclave_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("COCOON_ENCLAVE_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe().context("this program's own path")?.with_file_name("cocoon-enclave"),
    };
    if !path.is_file() {
        bail!("{} is not there: run `make enclave`, or name the binary in COCOON_ENCLAVE_BIN", path.display());
    }
    Ok(path)
}

/// `COCOON_MODEL`, else `models/demo` of the checkout this program was built in, or below the current folder.
///
/// # Errors
/// There is no such folder.
pub fn demo_model() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("COCOON_MODEL") {
        return Ok(PathBuf::from(path));
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    for candidate in [built, PathBuf::from("models/demo")] {
        if candidate.join("config.json").is_file() {
            return candidate.canonicalize().with_context(|| format!("{}", candidate.display()));
        }
    }
    bail!("no model folder: name one with --model or in COCOON_MODEL; the demo's is models/demo of the source")
}
