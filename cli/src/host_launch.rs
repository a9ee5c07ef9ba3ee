//! `cocoon host launch`: one guest in a virtual machine, kept running.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use cocoon_attestation::dev::DevPlatform;
use cocoon_host::doctor::{Live, examine};
use cocoon_host::vm::config::{PciAddress, Size, Tee};
use cocoon_host::vm::supervise::{self, Event};
use cocoon_host::vm::{DevelopmentCpu, EmulatedCpu, GuestConfig, Plan};
use serde_json::json;

use crate::measure::image::seed as seed_of;

/// Run a guest and keep it running; Ctrl-C stops it cleanly. `docs/guides/provider.md` documents the configuration
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The guest's configuration
    #[arg(long)]
    config: PathBuf,
    /// Another image folder
    #[arg(long)]
    image: Option<PathBuf>,
    /// Another data folder
    #[arg(long)]
    data: Option<PathBuf>,
    /// Another number of processors; changes the measurement
    #[arg(long)]
    vcpus: Option<u16>,
    /// Other memory
    #[arg(long)]
    memory: Option<Size>,
    /// Other GPUs
    #[arg(long = "gpu")]
    gpus: Vec<PciAddress>,
    /// Another QEMU
    #[arg(long)]
    qemu: Option<PathBuf>,
    /// With tee = "development": play the guest's CPU, with the keys of the development platform of this seed (a file with 32 bytes in hex)
    #[arg(long, value_name = "FILE")]
    platform_seed: Option<PathBuf>,
    /// Print the command line and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Start although `cocoon host doctor` finds something wrong
    #[arg(long)]
    anyway: bool,
    /// Seconds that a guest gets to switch itself off
    #[arg(long, default_value_t = 30)]
    patience: u64,
    /// One JSON object a line on standard output: started, ended, stopped
    #[arg(long)]
    json: bool,
}

/// Reads a guest's configuration and checks it against its image and this machine.
///
/// # Errors
/// The first thing that is wrong, and what to do.
pub fn read_plan(config: &Path) -> Result<Plan> {
    checked(GuestConfig::read(config)?)
}

fn plan(args: &LaunchArgs) -> Result<Plan> {
    let mut config = GuestConfig::read(&args.config)?;
    config.image = args.image.clone().unwrap_or(config.image);
    config.data = args.data.clone().unwrap_or(config.data);
    config.vcpus = args.vcpus.unwrap_or(config.vcpus);
    config.memory = args.memory.unwrap_or(config.memory);
    config.qemu = args.qemu.clone().unwrap_or(config.qemu);
    if !args.gpus.is_empty() {
        config.gpus.clone_from(&args.gpus);
    }
    checked(config)
}

fn checked(mut config: GuestConfig) -> Result<Plan> {
    // QEMU runs with this folder as its own, and its sockets' paths must be short and complete.
    config.data = std::path::absolute(&config.data)?;
    config.image = std::path::absolute(&config.image)?;
    Ok(Plan::new(config, &Live::default())?)
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// The guest cannot be launched as it is configured or on this machine, or ended in a way that another start would not mend.
pub async fn run(args: LaunchArgs) -> Result<ExitCode> {
    let plan = plan(&args)?;
    if args.dry_run {
        println!("{}", plan.command);
        return Ok(ExitCode::SUCCESS);
    }
    if plan.config.tee == Tee::Development {
        eprintln!("DEVELOPMENT PLATFORM - NOT CONFIDENTIAL");
    }
    let cpu = args.platform_seed.as_deref().map(|path| development_cpu(&plan, path)).transpose()?;
    let wrong = wrong(&plan).await?;
    if !wrong.is_empty() && !args.anyway {
        bail!("this machine is not fit for the guest (--anyway starts it all the same):\n{}", wrong.join("\n"));
    }
    let (stop, stopped) = mpsc::channel();
    tokio::spawn(async move {
        if let Err(error) = interrupted().await {
            tracing::warn!(%error, "signals cannot be waited for");
            return;
        }
        let _ = stop.send(());
    });
    let (name, json, patience) = (plan.config.name.clone(), args.json, Duration::from_secs(args.patience));
    let data = plan.config.data.clone();
    let told = move |event: Event| {
        if let (Event::Started { pid }, Some(cpu)) = (&event, &cpu) {
            play(cpu.clone(), data.clone(), *pid);
        }
        tell(&name, json, &event);
    };
    tokio::task::spawn_blocking(move || supervise::run(&plan, &stopped, patience, told))
        .await?
        .context("the guest is not started again")?;
    Ok(ExitCode::SUCCESS)
}

/// What `cocoon host doctor` finds wrong with this machine for a guest.
///
/// # Errors
/// The examination broke off.
pub async fn wrong(plan: &Plan) -> Result<Vec<String>> {
    let wanted = plan.wanted();
    let report = tokio::task::spawn_blocking(move || examine(&Live::default(), &wanted)).await?;
    Ok(report.wrong().collect())
}

fn development_cpu(plan: &Plan, seed: &Path) -> Result<Arc<DevelopmentCpu>> {
    if plan.config.tee != Tee::Development {
        bail!("--platform-seed is for tee = \"development\": here the guest's CPU is {}'s own", plan.config.tee);
    }
    Ok(Arc::new(DevelopmentCpu::new(DevPlatform::from_seed(*seed_of(seed)?))))
}

/// Measures the guest while it boots; its first request for a quote waits that long.
fn play(cpu: Arc<DevelopmentCpu>, data: PathBuf, pid: u32) {
    std::thread::spawn(move || {
        if let Err(error) = cpu.attach(&data, pid) {
            eprintln!("the guest gets no quotes: {error}");
        }
    });
}

async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

fn tell(name: &str, as_json: bool, event: &Event) {
    if as_json {
        let line = match event {
            Event::Started { pid } => {
                json!({"schema": "cocoon/launch/v1", "event": "started", "name": name, "pid": pid})
            }
            Event::Ended { why, again_in } => {
                json!({"schema": "cocoon/launch/v1", "event": "ended", "name": name, "why": why,
                                                     "again_in_ms": again_in.as_millis() as u64})
            }
            Event::Stopped { how } => {
                json!({"schema": "cocoon/launch/v1", "event": "stopped", "name": name, "how": how})
            }
        };
        println!("{line}");
        return;
    }
    match event {
        Event::Started { pid } => {
            println!("{name}: runs as process {pid}; its console is console.log of its data folder")
        }
        Event::Ended { why, again_in } => println!("{name}: {why}; started again in {:.1} s", again_in.as_secs_f32()),
        Event::Stopped { how } => println!("{name}: {how}"),
    }
}
