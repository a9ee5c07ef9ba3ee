//! `cocoon up`: everything on this machine, in one process with the enclave as its child.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use cocoon_host::ClaimRule;
use cocoon_image::guest::GuestImage;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::data::DataDir;
use crate::measure;
use crate::network::{MODEL_NAME, Network, Options, VmGuest};
use crate::paths;
use crate::provider::{CLAIM_AGE, CLAIM_LEAST};
use crate::staple::StapleArgs;
use crate::ui::{Output, Ui};

/// Arguments of `cocoon up`.
#[derive(clap::Args)]
pub struct UpArgs {
    /// The data folder; `$XDG_DATA_HOME/cocoon` if none is named
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the proxy listens
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// The model folder
    #[arg(long)]
    model: Option<PathBuf>,
    /// Which CPU the development platform plays: tdx or snp
    #[arg(long, default_value = "tdx")]
    tee: crate::network::Tee,
    /// Run the guest in a virtual machine that QEMU emulates, from the configuration of `cocoon host launch` with tee = "development"
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "tee"])]
    vm: Option<PathBuf>,
    /// Seconds between the provider's claims
    #[arg(long, default_value_t = 60)]
    claim_every: u64,
    #[command(flatten)]
    staple: StapleArgs,
    /// One JSON line when ready and one when stopped, on standard output
    #[arg(long)]
    json: bool,
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// Something cannot start; the message says what and what to do.
pub async fn run(args: UpArgs) -> Result<ExitCode> {
    anyhow::ensure!(
        args.listen.ip().is_loopback(),
        "the proxy holds the client's keys: let it listen on a loopback address"
    );
    // Before anything is started: every start attests an enclave on-chain.
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}: name another address with --listen", args.listen))?;
    let ui = Ui::new(if args.json { Output::Json } else { Output::Human });
    let data = DataDir::open(&args.data.map_or_else(DataDir::default_path, Ok)?)?;
    ui.banner();
    let (enclave, model, vm) = match args.vm {
        // Both are in its image.
        Some(config) => {
            (PathBuf::new(), PathBuf::new(), Some(tokio::task::spawn_blocking(move || vm(&config)).await??))
        }
        None => (paths::enclave_binary()?, args.model.map_or_else(paths::demo_model, Ok)?, None),
    };
    let options = Options {
        enclave,
        model,
        tee: args.tee,
        guest: String::new(),
        vm,
        tap: None,
        endorser: args.staple.endorser()?,
        claims: Some(ClaimRule {
            every: Duration::from_secs(args.claim_every.max(1)),
            least: CLAIM_LEAST,
            max_age: CLAIM_AGE,
            again: false,
        }),
        lifetime: crate::network::ATTESTATION_LIFETIME,
        ui,
    };
    // Heard from here on without a gap: one that came between two waits would be lost.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let network = tokio::select! {
        network = Network::start(&data, options) => network?,
        _ = interrupt.recv() => return stopped(ui, args.json),
        _ = terminate.recv() => return stopped(ui, args.json),
    };
    let proxy = format!("http://{}/v1", listener.local_addr()?);
    if args.json {
        event(&json!({
            "schema": "cocoon/up/v1", "event": "ready", "platform": "development-not-confidential", "proxy": proxy,
            "chain": network.urls.chain, "gateway": network.urls.gateway, "model": network.model_name,
            "enclave_pid": network.enclave_pid(), "registry": network.registry.to_string(),
            "provider": network.provider.to_string(), "channel": network.channel.to_string(),
        }))?;
    } else {
        ui.heading("Ready");
        ui.line(format!("  OpenAI's API    {proxy}   (model {}, any API key)", network.model_name));
        ui.line("  Try             cocoon chat \"Who can read my prompt?\"");
        ui.line(format!("  Gateway         {}", network.urls.gateway));
        ui.line(format!("  TON (local)     {}", network.urls.chain));
        ui.line(format!("  Data            {}", data.path().display()));
        ui.line("  Stop            Ctrl-C");
        ui.banner();
    }
    let router = network.proxy();
    let served = axum::serve(cocoon_host::no_delay(listener), router).into_future();
    tokio::select! {
        result = served => result.context("the proxy ended")?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    network.stop().await;
    stopped(ui, args.json)
}

/// A guest's configuration, and what may be accepted of it: measured from its image's files, before anything of it runs.
///
/// # Errors
/// The configuration or the image is not what it should be, or its measurement is not known.
pub fn vm(config: &Path) -> Result<VmGuest> {
    let plan = crate::host_launch::read_plan(config)?;
    let image = GuestImage::open(&plan.config.image)?;
    let references = measure::image::of_guest(&plan, &image, MODEL_NAME)?;
    Ok(VmGuest { plan, references })
}

fn stopped(ui: Ui, json: bool) -> Result<ExitCode> {
    if json {
        // Whoever read the first line may be gone by now, and everything has stopped cleanly all the same.
        let _ =
            event(&json!({"schema": "cocoon/up/v1", "event": "stopped", "platform": "development-not-confidential"}));
    } else {
        ui.line("Stopped. The data stays where it is; `cocoon up` continues from it.");
    }
    Ok(ExitCode::SUCCESS)
}

fn event(value: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{value}")?;
    out.flush().context("standard output")
}
