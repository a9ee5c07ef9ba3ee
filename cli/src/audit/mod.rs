//! `cocoon audit`: everything that logs and contracts say, checked again by somebody who trusts nobody.
//!
//! Exit codes are those of `cocoon verify`, by the gravest finding: 0 nothing was found, 10 something has to be explained, 20 something
//! was recorded or paid that should not have been, 30 a log does not hold together; 2 wrong usage, 1 anything else.

mod bundle;
pub mod html;
mod logs;
mod mirror;
mod progress;
mod receipt;
mod replay;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Checks what verifier nodes logged and contracts paid.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check logs from their first leaf to their last, appraise every evidence again, and follow the chain's money to it
    Replay(replay::ReplayArgs),
    /// Take one evidence out of a log and appraise it again
    Bundle(bundle::BundleArgs),
    /// Check what a client was served and charged, by the receipt that it shows
    Receipt(receipt::ReceiptArgs),
    /// Follow logs and chain, and say when something is found: metrics for Prometheus, alerts as JSON lines
    Watch(watch::WatchArgs),
}

/// Runs the command.
///
/// # Errors
/// There is no result: a file, a log or the chain cannot be read.
pub async fn run(args: AuditArgs) -> Result<ExitCode> {
    match args.command {
        Command::Replay(args) => replay::run(args).await,
        Command::Bundle(args) => bundle::run(args).await,
        Command::Receipt(args) => receipt::run(args).await,
        Command::Watch(args) => watch::run(args).await,
    }
}
