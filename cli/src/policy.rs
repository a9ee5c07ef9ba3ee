//! `cocoon policy`: what an appraisal policy means.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cocoon_verifier::Policy;

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
    let policy = Policy::from_toml(&text).with_context(|| file.display().to_string())?;
    let mut out = String::new();
    for (part, sentences) in policy.explain() {
        out.push_str(part);
        out.push('\n');
        for sentence in sentences {
            out.push_str(&format!("  {sentence}\n"));
        }
    }
    std::io::stdout().write_all(out.as_bytes()).context("cannot write")
}
