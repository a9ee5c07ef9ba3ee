//! `cocoon demo`: the main job with real checks, then six attacks that must fail.

mod attacks;
mod job;
pub mod search;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use crate::data::DataDir;
use crate::network::{Network, Options, Tee};
use crate::paths;
use crate::tap::Recorder;
use crate::ui::{Output, Ui};

/// Arguments of `cocoon demo`.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Progress on standard error, and one JSON line on standard output at the end
    #[arg(long)]
    json: bool,
    /// What to ask
    #[arg(long, default_value = "Who can read my prompt?")]
    prompt: String,
    /// Keep the data in this folder; a temporary one if none is named
    #[arg(long)]
    data: Option<PathBuf>,
    /// The model folder
    #[arg(long)]
    model: Option<PathBuf>,
    /// Which CPU the development platform plays: tdx or snp
    #[arg(long, default_value = "tdx")]
    tee: Tee,
}

/// Runs the demo. The exit code is 0 only if everything it shows held.
///
/// # Errors
/// Something could not be started or did not work at all.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let ui = Ui::new(if args.json { Output::Json } else { Output::Human });
    let temporary = tempfile::tempdir()?;
    let data = DataDir::open(args.data.as_deref().unwrap_or(temporary.path()))?;
    ui.banner();
    let recorder = Arc::new(Recorder::default());
    let options = Options {
        enclave: paths::enclave_binary()?,
        model: args.model.map_or_else(paths::demo_model, Ok)?,
        tee: args.tee,
        tap: Some(recorder.clone()),
        claims: None,
        ui,
    };
    let (enclave_binary, model) = (options.enclave.clone(), options.model.clone());
    let network = Network::start(&data, options).await?;

    let job = job::run(&network, &args.prompt, ui).await?;

    ui.heading("Six attacks");
    let world =
        attacks::World { network: &network, data: &data, enclave_binary, model, tee: args.tee, prompt: &args.prompt };
    let refusals = attacks::run(&world, ui).await;

    ui.heading("What host and gateway saw");
    let seen = recorder.seen();
    let leak = search::find(&seen, &[&args.prompt, &job.answer]);
    match &leak {
        None => {
            ui.line(format!("  ok  {} bytes searched: neither prompt nor answer, plain, base64 or hex", seen.len()))
        }
        Some(leak) => ui.line(format!("  !!  plaintext ({}) at byte {} of {}", leak.form, leak.offset, seen.len())),
    }
    network.stop().await;

    let held = leak.is_none() && !seen.is_empty() && refusals.all_refused;
    ui.heading(if held { "Everything shown here held." } else { "SOMETHING DID NOT HOLD: see above." });
    ui.banner();
    if args.json {
        let receipt = &job.receipt;
        println!(
            "{}",
            json!({
                "schema": "cocoon/demo/v1",
                "platform": "development-not-confidential",
                "outcome": if held { "accepted" } else { "failed" },
                "answer": job.answer,
                "tokens": {"prompt": receipt.tokens.prompt, "cached": receipt.tokens.cached, "completion": receipt.tokens.completion},
                "paid_nanoton": job.paid.0,
                "gas": job.gas,
                "refusals": refusals.reasons,
                "plaintext_seen": leak.is_some(),
            })
        );
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
