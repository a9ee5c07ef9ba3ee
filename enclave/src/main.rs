//! `cocoon-enclave`: what runs inside the confidential virtual machine.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use cocoon_allowance::Allowing;
use cocoon_attestation::tsm::{ConfigfsTsm, SocketTsm, Tsm};
use cocoon_enclave::attester::Attester;
use cocoon_enclave::config::Config;
use cocoon_enclave::egress;
use cocoon_enclave::gpu::{Gpus, NoGpus};
use cocoon_enclave::ledger::Ledger;
use cocoon_enclave::limits::Limits;
use cocoon_enclave::listen::Listen;
use cocoon_enclave::load::{self, Staged};
use cocoon_enclave::process;
use cocoon_enclave::session::{Enclave, OpenRequests};
use cocoon_enclave::unread::Unread;
use cocoon_engine::EngineConfig;
use zeroizing_alloc::ZeroAlloc;

/// Overwrites memory when it is freed: prompts and answers pass through strings of JSON, of templates and of the tokenizer, which nobody
/// else overwrites. Templates are rendered in threads with a bound of memory (`cocoon_engine`).
#[global_allocator]
static ALLOCATOR: ZeroAlloc<Allowing<std::alloc::System>> = ZeroAlloc(Allowing(std::alloc::System));

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
        /// Where the host reaches the enclave: an address and port, or vsock:PORT
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: Listen,
        /// Who signs evidence
        #[arg(long, value_enum, default_value_t = Platform::Tsm)]
        platform: Platform,
    },
    /// Record what a model answers, for every enclave that loads it to compare with before it serves
    Record {
        /// The model folder; its known-answers.json is written
        #[arg(long)]
        model: PathBuf,
        /// What to ask, several times
        #[arg(long = "question", default_values_t = default_questions())]
        questions: Vec<String>,
        /// Compare with what was recorded, as every enclave does before it serves, and write nothing
        #[arg(long)]
        check: bool,
    },
    /// Say what NVIDIA's driver says of this machine's GPUs, and whether they give evidence
    #[cfg(feature = "nvidia")]
    Gpus,
    /// Close the way out and try every way there is; for the test
    #[command(hide = true)]
    ProbeEgress {
        /// Where something listens
        #[arg(long)]
        address: SocketAddr,
        /// Leave it open: what the test compares with
        #[arg(long)]
        open: bool,
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
        /// mistral.rs as it comes instead of the enclave's engine
        #[arg(long)]
        raw: bool,
        /// With a cache of so many prompts, which the enclave's engine never has: what the test of its absence compares with
        #[arg(long, requires = "raw")]
        prefixes: Option<usize>,
        /// Tokens that never come, so that answers are as long as asked for
        #[arg(long)]
        never: Vec<u32>,
        /// Generations at once, on a GPU
        #[arg(long, default_value_t = EngineConfig::default().concurrent)]
        concurrent: usize,
    },
    /// Copy and hash a folder as a model is: for the benchmarks
    #[command(hide = true)]
    BenchWeights {
        #[arg(long)]
        model: PathBuf,
        #[arg(long, default_value_t = 3)]
        times: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Platform {
    /// The CPU, through the kernel's configfs-tsm
    Tsm,
    /// The development platform at the other end of standard input: NOT CONFIDENTIAL
    Development,
}

fn default_questions() -> Vec<String> {
    ["Who can read my prompt?", "What is seven times six?", "Name three rivers.", "How am I charged?"]
        .map(str::to_owned)
        .into()
}

fn main() -> Result<()> {
    if cocoon_init::is_first_process() {
        cocoon_init::run();
    }
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        // The engine's own logs are left out: what it says of a failing request is not ours to promise.
        .with_env_filter(tracing_subscriber::EnvFilter::new("off,cocoon_enclave=info,cocoon_engine=info"))
        .init();
    process::harden();
    without_nccl()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Args::parse().command {
        Command::Serve { config, model, listen, platform } => runtime.block_on(serve(config, model, listen, platform)),
        Command::ProbeEgress { address, open } => {
            if !open {
                egress::close()?;
            }
            println!("{}", egress::probe(address));
            Ok(())
        }
        Command::Record { model, check: true, .. } => runtime.block_on(load::check(&model)),
        Command::Record { model, questions, .. } => runtime.block_on(load::record(&model, &questions)),
        #[cfg(feature = "nvidia")]
        Command::Gpus => {
            println!("{}", serde_json::to_string_pretty(&cocoon_enclave::gpu::NvmlGpus::open()?.describe())?);
            Ok(())
        }
        Command::BenchWeights { model, times } => cocoon_enclave::bench::weights(&model, times),
        Command::BenchEngine { model, prompt, max_tokens, raw, prefixes, never, concurrent } => {
            let config = EngineConfig { concurrent, ..EngineConfig::default() };
            runtime.block_on(cocoon_enclave::bench::run(&model, &prompt, max_tokens, raw, prefixes, never, config))
        }
    }
}

/// mistral.rs 0.8.1 built with NCCL makes a socket for every request, from which it would send the prompt as JSON to copies of this program, one
/// for each further GPU; its engine panics where it may not (`replicate_request_to_daemons`). With this variable it does neither, and spreads
/// the layers of a model over the GPUs instead.
fn without_nccl() -> Result<()> {
    const OFF: &str = "MISTRALRS_NO_NCCL";
    if !cfg!(feature = "nccl") || std::env::var(OFF).is_ok_and(|value| value == "1") {
        return Ok(());
    }
    let again =
        std::process::Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(OFF, "1").exec();
    Err(again)
        .with_context(|| format!("this program was built with NCCL, and cannot start again without it: set {OFF}=1"))
}

/// Answers that may be open, generated and not yet read included, for each place in the queue.
const OPEN_ANSWERS: usize = 4;

async fn serve(config: PathBuf, model: PathBuf, listen: Listen, platform: Platform) -> Result<()> {
    let tsm: Box<dyn Tsm> = match platform {
        Platform::Tsm => Box::new(ConfigfsTsm::default()),
        Platform::Development => {
            tracing::warn!("DEVELOPMENT PLATFORM - NOT CONFIDENTIAL");
            Box::new(SocketTsm::new(development_socket()?))
        }
    };
    let (config, config_digest) = Config::load(&config)?;
    let listener = listen.bind().await?;
    egress::close()?;
    let gpus = gpus(platform)?;
    let started = std::time::Instant::now();
    let staged = tokio::task::spawn_blocking(move || Staged::copy(&model)).await??;
    let root = staged.root.root;
    let bytes: u64 = staged.root.files.iter().map(|file| file.size).sum();
    tracing::info!(model = config.model_name, %root, bytes, ms = started.elapsed().as_millis() as u64, "hashed; loading the model");
    let limits =
        EngineConfig { concurrent: config.concurrent, waiting: config.waiting, cache_tokens: config.cache_tokens };
    let models = load::models(&staged, &config.model_name, limits).await?;
    drop(staged);
    let ledger = Ledger::new(config.network(), config.provider);
    let open = OPEN_ANSWERS * (config.waiting + config.concurrent).max(1);
    let limits = Limits::new(open, config.channel_concurrent, config.channel_tokens_per_minute);
    let unread = Unread::new(config.unread_mib.saturating_mul(1 << 20));
    let attester = Attester::new(config, config_digest, root, tsm, gpus)?;
    let enclave = Arc::new(Enclave { attester, ledger, models, limits, unread, open: OpenRequests::default() });
    println!("{}", serde_json::json!({"listening": listener.address()?}));
    listener.serve(cocoon_enclave::http::router(enclave)).await?;
    Ok(())
}

/// The GPUs that give evidence. The development platform vouches for none: those of its machine compute, and say nothing.
#[cfg(feature = "nvidia")]
fn gpus(platform: Platform) -> Result<Box<dyn Gpus>> {
    if matches!(platform, Platform::Development) {
        return Ok(Box::new(NoGpus));
    }
    let gpus = cocoon_enclave::gpu::NvmlGpus::open()?;
    gpus.accept_work()?;
    Ok(Box::new(gpus))
}

#[cfg(not(feature = "nvidia"))]
fn gpus(_: Platform) -> Result<Box<dyn Gpus>> {
    Ok(Box::new(NoGpus))
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
