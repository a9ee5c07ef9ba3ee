//! What the configuration files of roles have in common: how they are read, and how they name a chain.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cocoon_settlement::NetworkId;
use cocoon_settlement::toncenter::Toncenter;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

/// Reads a configuration. Gives the folder that its paths are taken from, too.
///
/// # Errors
/// The file cannot be read, or is not what it should be; the message names the key.
pub fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<(T, PathBuf)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = toml::from_str(&text).with_context(|| format!("{} is no {what} configuration", path.display()))?;
    Ok((file, path.parent().map(Path::to_owned).unwrap_or_default()))
}

/// The chain that `chain`, `network` and `chain_key_file` name. It is not asked anything yet.
///
/// # Errors
/// The URL is none, or the key cannot be read.
pub fn chain(url: &str, network: i32, key_file: Option<&Path>, base: &Path) -> Result<Arc<Toncenter>> {
    let url = crate::money::endpoint(url).context("`chain`")?;
    let key = match key_file {
        None => std::env::var("COCOON_TONCENTER_KEY").ok(),
        Some(file) => {
            let path = base.join(file);
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("`chain_key_file`: cannot read {}", path.display()))?;
            let key = text.trim().to_owned();
            ensure!(!key.is_empty(), "`chain_key_file`: {} is empty: write the API's key there", path.display());
            Some(key)
        }
    };
    Ok(Arc::new(Toncenter::new(&url, key, NetworkId(network)).context("`chain`")?))
}

/// A base URL to which paths are appended.
///
/// # Errors
/// It is none.
pub fn base_url(key: &str, url: &str) -> Result<String> {
    let uri = url.parse::<hyper::Uri>().ok();
    let fits = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    ensure!(fits, "`{key}`: {url:?} is no http:// or https:// URL");
    Ok(url.trim_end_matches('/').to_owned())
}

/// Waits for Ctrl-C or SIGTERM.
///
/// # Errors
/// Signals cannot be waited for.
pub async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_bases_and_the_key_is_named() {
        assert_eq!(base_url("nodes", "https://verifier.example/").unwrap(), "https://verifier.example");
        assert_eq!(base_url("nodes", "http://127.0.0.1:8443/log").unwrap(), "http://127.0.0.1:8443/log");
        for bad in ["", "verifier.example", "ftp://x", "http://", "http://x?y"] {
            assert!(base_url("nodes", bad).unwrap_err().to_string().contains("`nodes`"), "{bad}");
        }
    }

    #[test]
    fn a_chains_key_comes_from_its_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "topsecret\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let open = |url: &str, file: &str| chain(url, -217, Some(Path::new(file)), folder.path());
        assert!(open("http://127.0.0.1:1", "key").is_ok());
        for (url, file, expected) in [
            ("http://127.0.0.1:1", "none", "`chain_key_file`"),
            ("http://127.0.0.1:1", "empty", "is empty"),
            ("nowhere", "key", "`chain`"),
            ("http://toncenter.com", "key", "unprotected"),
        ] {
            let said = format!("{:#}", open(url, file).unwrap_err());
            assert!(said.contains(expected) && !said.contains("topsecret"), "{said}");
        }
    }
}
