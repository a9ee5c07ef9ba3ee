//! `make bench`: the whole path against mistral.rs called in-process, in the same run, and where the difference goes.
//!
//! Ways are measured in turn, so that a machine that slows down slows all of them. Figures are medians.

mod components;
mod engine;
mod hops;
mod throughput;
mod ways;
mod weights;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use cocoon_cli::data::DataDir;
use cocoon_cli::network::{Network, Options, Tee};
use cocoon_cli::ui::{Output, Ui};

fn options(model: PathBuf) -> Options {
    Options {
        enclave: cocoon_tests::enclave_binary(),
        model,
        tee: Tee::Tdx,
        guest: String::new(),
        vm: None,
        tap: None,
        endorser: None,
        claims: None,
        lifetime: cocoon_cli::network::ATTESTATION_LIFETIME,
        ui: Ui::new(Output::Json),
    }
}

/// Measure the whole path against mistral.rs called in this process
#[derive(clap::Parser)]
struct Args {
    /// Answers each way; a twentieth of them for what takes longer
    #[arg(default_value_t = 400)]
    runs: usize,
    #[command(subcommand)]
    only: Option<Only>,
}

#[derive(clap::Subcommand)]
enum Only {
    /// Only a model large enough to be the bottleneck
    Throughput(throughput::Throughput),
    /// Only how fast weights are copied and hashed
    Weights(weights::Weights),
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { runs, only } = Args::parse();
    println!("*** {} ***\n", cocoon_cli::ui::NOT_CONFIDENTIAL);
    match only {
        Some(Only::Throughput(what)) => return throughput::run(what).await,
        Some(Only::Weights(what)) => return weights::run(&what),
        None => {}
    }
    let folder = tempfile::tempdir()?;
    let network = Network::start(&DataDir::open(folder.path())?, options(cocoon_tests::demo_model())).await?;
    let ready = network.host.ready(Duration::from_secs(60)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let proxy_url = format!("http://{}", listener.local_addr()?);
    let router = network.proxy();
    tokio::spawn(async move { axum::serve(cocoon_host::no_delay(listener), router).await });
    let http = ways::http();
    let (enclaves, _) = network.client.enclaves().await?;
    let enclave = enclaves.into_iter().next().context("an enclave")?;
    let tokens = hops::first_token(&network, &http, &ready.base_url, &proxy_url, runs).await?;
    hops::per_token(&network, &http, &ready.base_url, &proxy_url, (runs / 40).max(3)).await?;
    components::components(&enclave, components::hop(&http, tokens).await?)?;
    components::appraisals(&network)?;
    let client = &network.client;
    println!("\nEvidence was appraised {} time(s) for more than {} requests.", client.appraisals(), runs * 4);
    network.stop().await;
    weights::run(&weights::Weights::default())?;
    throughput::run(throughput::Throughput::brief((runs / 33).max(3))).await
}
