//! `cocoon host doctor`: can this machine protect a guest, and if not, what to do.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use cocoon_host::doctor::{Live, Machine, Recorder, Recording, Wanted, examine};
use cocoon_host::vm::config::{PciAddress, Size, Tee};
use cocoon_host::vm::{self, GuestConfig, Image};

/// Examine this machine from BIOS to GPU; changes nothing. The exit code: 0 ready, 10 something is wrong, 20 unknown, 30 unreadable
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What is to protect guests: tdx, snp, or development for none; by default what the processor has
    #[arg(long)]
    tee: Option<Tee>,
    /// A guest's configuration: examine for exactly that guest
    #[arg(long, conflicts_with_all = ["tee", "gpus", "memory"])]
    config: Option<PathBuf>,
    /// A GPU to pass on, such as 0000:41:00.0; by default all of NVIDIA's
    #[arg(long = "gpu")]
    gpus: Vec<PciAddress>,
    /// Memory of a guest
    #[arg(long, default_value = "16G")]
    memory: Size,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Also write what the machine answered to a file, for somebody else to examine; read it before you pass it on
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Examine such a file instead of this machine
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    machine: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written.
pub fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let machine: Box<dyn Machine> = match &args.machine {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Box::new(Recording::parse(&text).map_err(|why| anyhow!("{}: {why}", path.display()))?)
        }
        None => Box::new(Live::default()),
    };
    let recorder = Recorder::new(machine);
    let wanted = match &args.config {
        Some(path) => {
            let config = GuestConfig::read(path)?;
            config.check()?;
            let image = Image::open(&config.image, config.tee)?;
            image.check(&config)?;
            vm::wanted(&config, &image)
        }
        None => Wanted { tee: args.tee, gpus: args.gpus.clone(), memory: args.memory, ..Wanted::default() },
    };
    let report = examine(&recorder, &wanted);
    if let Some(path) = &args.record {
        std::fs::write(path, recorder.recording().to_string()).with_context(|| path.display().to_string())?;
    }
    let text = if args.json { format!("{}\n", report.json()) } else { report.text() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::from(report.outcome().exit_code()))
}
