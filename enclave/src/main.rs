//! `cocoon-enclave`: what runs inside the confidential virtual machine.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use cocoon_attestation::model_root;
use cocoon_attestation::tsm::{ConfigfsTsm, SocketTsm, Tsm};
use cocoon_enclave::attester::Attester;
use cocoon_enclave::config::Config;
use cocoon_enclave::ledger::Ledger;
use cocoon_enclave::session::Enclave;
use cocoon_engine::{Engine, EngineConfig};

#[derive(Parser)]
#[command(version, about = "The guest of Cocoon: answers sealed prompts inside a confidential virtual machine")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a model and serve its host
    Serve {
        /// The measured configuration
        #[arg(long)]
        config: PathBuf,
        /// The model folder
        #[arg(long)]
        model: PathBuf,
        /// Where the host reaches the enclave
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Who signs evidence
        #[arg(long, value_enum, default_value_t = Platform::Tsm)]
        platform: Platform,
    },
    /// Call the engine in this process: the baseline of the benchmarks
    #[command(hide = true)]
    BenchEngine {
        #[arg(long)]
        model: PathBuf,
        #[arg(long)]
        prompt: String,
        #[arg(long, default_value_t = 64)]
        max_tokens: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Platform {
    /// The CPU, through the kernel's configfs-tsm
    Tsm,
    /// The development platform at the other end of standard input: NOT CONFIDENTIAL
    Development,
}

fn main() -> Result<()> {
    // Memory holds prompts and keys: none of it may reach a core file, whatever the machine is set to.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        // The engine's own logs are left out: what it says of a failing request is not ours to promise.
        .with_env_filter(tracing_subscriber::EnvFilter::new("off,cocoon_enclave=info,cocoon_engine=info"))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Args::parse().command {
        Command::Serve { config, model, listen, platform } => runtime.block_on(serve(config, model, listen, platform)),
        Command::BenchEngine { model, prompt, max_tokens } => {
            runtime.block_on(cocoon_enclave::bench::run(&model, &prompt, max_tokens))
        }
    }
}

async fn serve(config: PathBuf, model: PathBuf, listen: SocketAddr, platform: Platform) -> Result<()> {
    let tsm: Box<dyn Tsm> = match platform {
        Platform::Tsm => Box::new(ConfigfsTsm::default()),
        Platform::Development => {
            tracing::warn!("DEVELOPMENT PLATFORM - NOT CONFIDENTIAL");
            Box::new(SocketTsm::new(development_socket()?))
        }
    };
    let (config, config_digest) = Config::load(&config)?;
    // The root first: what is loaded afterwards is what evidence will name.
    let folder = model.clone();
    let root = tokio::task::spawn_blocking(move || model_root(&folder)).await??.root;
    tracing::info!(model = config.model_name, %root, "loading the model");
    let limits = EngineConfig { concurrent: config.concurrent, waiting: config.waiting };
    let engine = Engine::load(&model, limits).await?;
    let again = tokio::task::spawn_blocking(move || model_root(&model)).await??.root;
    anyhow::ensure!(
        root == again,
        "the model folder changed while it was loaded: start again on files that stay as they are"
    );
    let ledger = Ledger::new(config.network(), config.provider);
    let attester = Attester::new(config, config_digest, root, tsm)?;
    let enclave = Arc::new(Enclave { attester, ledger, engine });
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("{}", serde_json::json!({"listening": listener.local_addr()?.to_string()}));
    // A streamed token must not wait for the acknowledgement of the last.
    let listener = axum::serve::ListenerExt::tap_io(listener, |connection| {
        let _ = connection.set_nodelay(true);
    });
    axum::serve(listener, cocoon_enclave::http::router(enclave)).await?;
    Ok(())
}

/// The socket to the development platform. Standard input is watched: its end means that the host is gone, and a guest without a host
/// must not run on.
fn development_socket() -> Result<UnixStream> {
    let host = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().context("standard input is closed")?);
    host.peer_addr().context("with --platform development, standard input must be a Unix socket to the platform")?;
    let (ours, guest) = UnixStream::pair()?;
    let (mut from_host, mut to_guest) = (host.try_clone()?, ours.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_host, &mut to_guest);
        std::process::exit(0);
    });
    let (mut from_guest, mut to_host) = (ours, host);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_guest, &mut to_host);
    });
    Ok(guest)
}
