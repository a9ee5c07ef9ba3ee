//! The measured configuration: its digest is among the claims, so a client can demand one it knows.

use std::path::Path;

use anyhow::{Context, Result};
use cocoon_attestation::Digest;
use cocoon_settlement::{Address, NetworkId};
use serde::Deserialize;

/// A guest's configuration, in TOML. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// TON network that pays: -239 mainnet, -3 testnet, -217 local.
    pub network: i32,
    /// The provider that is paid.
    pub provider: Address,
    /// Representation hash of the Channel's code, hexadecimal.
    pub channel_code_hash: Digest,
    /// Depth of that code.
    pub channel_code_depth: u16,
    /// Name that clients ask for. Several, with commas between them: the model folder holds a folder of each name.
    pub model_name: String,
    /// Seconds that evidence is good for, from its beacon on.
    #[serde(default = "day")]
    pub attestation_lifetime: u64,
    /// Seconds that an OHTTP key is good for.
    #[serde(default = "hour")]
    pub key_lifetime: u64,
    /// Seconds that an old OHTTP key still opens what was sealed to it in time.
    #[serde(default = "minute")]
    pub key_overlap: u64,
    /// The least delay of a Channel's lone close, in seconds: the claim window.
    #[serde(default = "claim_window")]
    pub least_close_delay: u32,
    /// Generations at once, on a GPU.
    #[serde(default = "four")]
    pub concurrent: usize,
    /// Requests that may wait.
    #[serde(default = "sixty_four")]
    pub waiting: usize,
    /// Tokens that a GPU's key-value cache holds, those of all generations of a model together.
    #[serde(default = "cache_tokens")]
    pub cache_tokens: usize,
    /// Requests that one channel may have running or waiting.
    #[serde(default = "sixteen")]
    pub channel_concurrent: usize,
    /// Tokens a minute that one channel may use; 0 is any number.
    #[serde(default)]
    pub channel_tokens_per_minute: u64,
    /// MiB of answers that may wait to be read, of all together; one may have an eighth of it.
    #[serde(default = "two_hundred_and_fifty_six")]
    pub unread_mib: usize,
}

fn day() -> u64 {
    86_400
}

fn hour() -> u64 {
    3_600
}

fn minute() -> u64 {
    60
}

fn claim_window() -> u32 {
    259_200
}

fn cache_tokens() -> usize {
    32_768
}

fn four() -> usize {
    4
}

fn sixteen() -> usize {
    16
}

fn sixty_four() -> usize {
    64
}

fn two_hundred_and_fifty_six() -> usize {
    256
}

impl Config {
    /// Reads a file. Gives the configuration and the SHA-256 of the file's bytes.
    ///
    /// # Errors
    /// The file cannot be read, or says something unknown.
    pub fn load(path: &Path) -> Result<(Self, Digest)> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not UTF-8", path.display()))?;
        let config = toml::from_str(text).with_context(|| format!("{} is no guest configuration", path.display()))?;
        Ok((config, Digest::of(&[&bytes])))
    }

    /// The network as a type.
    pub fn network(&self) -> NetworkId {
        NetworkId(self.network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
network = -217
provider = "0:0000000000000000000000000000000000000000000000000000000000000001"
channel_code_hash = "0000000000000000000000000000000000000000000000000000000000000002"
channel_code_depth = 3
model_name = "cocoon-demo"
"#;

    #[test]
    fn defaults_are_the_documented_lifetimes() {
        let config: Config = toml::from_str(GOOD).unwrap();
        assert_eq!(
            (config.attestation_lifetime, config.key_lifetime, config.least_close_delay),
            (86_400, 3_600, 259_200)
        );
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Config>(&format!("{GOOD}\nreplay_protection = false\n")).unwrap_err();
        assert!(error.to_string().contains("replay_protection"));
    }
}
