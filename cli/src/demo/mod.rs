//! `cocoon demo`: the main job with real checks, then six attacks that must fail.

mod attacks;
pub mod job;
pub mod search;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
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
    /// What to ask, at least 16 bytes: anything shorter is found in other text by chance
    #[arg(long, default_value = "Who can read my prompt?", value_parser = prompt)]
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

fn prompt(text: &str) -> Result<String, String> {
    if text.len() < search::WINDOW {
        return Err(format!("ask something of at least {} bytes", search::WINDOW));
    }
    Ok(text.into())
}

/// Runs the demo. The exit code is 0 only if everything it shows held.
///
/// # Errors
/// Something could not be started or did not work at all. With `--json` there is a line that says so as well.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let json = args.json;
    let shown = show(args).await;
    if json {
        let line = match &shown {
            Ok(shown) => shown.line.clone(),
            Err(error) => json!({
                "schema": "cocoon/demo/v1",
                "platform": "development-not-confidential",
                "outcome": "failed",
                "error": format!("{error:#}"),
            }),
        };
        writeln!(std::io::stdout(), "{line}").context("cannot write the result")?;
    }
    Ok(if shown?.held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of it.
struct Shown {
    held: bool,
    line: serde_json::Value,
}

async fn show(args: DemoArgs) -> Result<Shown> {
    let ui = Ui::new(if args.json { Output::Json } else { Output::Human });
    let temporary = tempfile::tempdir()?;
    let data = DataDir::open(args.data.as_deref().unwrap_or(temporary.path()))?;
    ui.banner();
    let recorder = Arc::new(Recorder::default());
    let options = Options {
        enclave: paths::enclave_binary()?,
        model: args.model.map_or_else(paths::demo_model, Ok)?,
        tee: args.tee,
        guest: String::new(),
        vm: None,
        tap: Some(recorder.clone()),
        endorser: None,
        claims: None,
        lifetime: crate::network::ATTESTATION_LIFETIME,
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
    network.stop().await;
    let mut seen = recorder.seen();
    // What the host wrote down: its log of the guest, and its database.
    seen.extend(files(&data.join("host"))?);
    let leak = search::find(&seen, &[&args.prompt, &job.answer]);
    match &leak {
        None => {
            ui.line(format!("  ok  {} bytes searched: neither prompt nor answer, plain, base64 or hex", seen.len()))
        }
        Some(leak) => ui.line(format!("  !!  plaintext ({}) at byte {} of {}", leak.form, leak.offset, seen.len())),
    }

    let held = leak.is_none() && !seen.is_empty() && refusals.all_refused;
    ui.heading(if held { "Everything shown here held." } else { "SOMETHING DID NOT HOLD: see above." });
    ui.banner();
    let receipt = &job.receipt;
    let line = json!({
        "schema": "cocoon/demo/v1",
        "platform": "development-not-confidential",
        "outcome": if held { "accepted" } else { "failed" },
        "answer": job.answer,
        "tokens": {"prompt": receipt.tokens.prompt, "cached": receipt.tokens.cached, "completion": receipt.tokens.completion},
        "paid_nanoton": job.paid.0,
        "gas": job.gas,
        "refusals": refusals.reasons,
        "plaintext_seen": leak.is_some(),
    });
    Ok(Shown { held, line })
}

/// The content of every file below a folder.
fn files(folder: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            content.extend(files(&path)?);
        } else if path.is_file() {
            content.extend(std::fs::read(&path)?);
        }
    }
    Ok(content)
}
