//! `cocoon policy`: what an appraisal policy means.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cocoon_attestation::ReferenceValues;
use cocoon_verifier::Policy;
use serde::Deserialize;

use crate::verify::signed_reference_values;

/// The part of a policy that names reference values. The verifier does no input and output, so it knows nothing of it, and refuses a
/// policy with it: whoever reads such a policy reads the file too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct References {
    /// The signed file, from the policy's folder.
    file: PathBuf,
    /// Ed25519 public keys, hex, of who may have signed it.
    signers: Vec<String>,
}

/// A policy and, if it has a `[references]` table, the reference values that it names.
///
/// # Errors
/// The text is no policy, or the file that it names is not signed by one of the keys that it names.
pub fn load(text: &str, base: &Path) -> Result<(Policy, Option<ReferenceValues>)> {
    // A text that is no TOML gets the verifier's own message, which says where.
    let table = text.parse::<toml::Table>().ok().filter(|table| table.contains_key("references"));
    let Some(mut table) = table else { return Ok((Policy::from_toml(text)?, None)) };
    let references: Option<References> =
        table.remove("references").map(toml::Value::try_into).transpose().context("references")?;
    let policy = Policy::from_toml(&toml::to_string(&table)?)?;
    let values =
        references.map(|named| signed_reference_values(&base.join(&named.file), &named.signers)).transpose()?;
    Ok((policy, values))
}

/// Reads appraisal policies.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say in plain sentences what a policy accepts
    Explain {
        /// The policy, TOML; docs/policy.example.toml explains each key
        file: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read, or is no policy.
pub fn run(args: PolicyArgs) -> Result<()> {
    let Command::Explain { file } = args.command;
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let base = file.parent().map(Path::to_owned).unwrap_or_default();
    let (policy, references) = load(&text, &base).with_context(|| file.display().to_string())?;
    let mut out = String::new();
    if let Some(values) = references {
        let (image, count) = (&values.image, values.tdx.len() + values.snp.len());
        out.push_str(&format!(
            "Reference values\n  The guest must be image {} {}, by one of {count} measurements in a file that a named key signed.\n",
            image.name, image.version
        ));
    }
    for (part, sentences) in policy.explain() {
        out.push_str(part);
        out.push('\n');
        for sentence in sentences {
            out.push_str(&format!("  {sentence}\n"));
        }
    }
    std::io::stdout().write_all(out.as_bytes()).context("cannot write")
}
