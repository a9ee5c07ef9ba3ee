//! What a replay takes of memory. It is measured over a whole process, in which nothing else may take any.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};
use cocoon_transparency::Folder;
use cocoon_transparency::replay::{Job, LogInput, LogResult, State, replay};
use cocoon_verifier::Verifier;

use super::{FleetLog, Spec, chain, history};

/// What one replay may take more than another, in MB.
pub const NOISE: u64 = 16;

/// A replay's highest memory.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Leaves of the log.
    pub leaves: u64,
    /// Highest memory of the process while it was replayed, in MB.
    pub peak: u64,
}

/// Replays one log of a fleet from its files.
///
/// # Errors
/// The log cannot be read.
pub fn replay_log(
    log: &FleetLog,
    others: &[String],
    state: &State,
    verifier: &Verifier,
    jobs: usize,
) -> Result<LogResult> {
    let (source, stop) = (Folder(log.folder.join("public")), AtomicBool::new(false));
    let input = LogInput { source: &source, key: &log.key, witnesses: others, checkpoints: &log.checkpoints, from: 0 };
    Ok(replay(&input, state, &Job { jobs, verifier, progress: &|_, _| {}, stop: &stop })?)
}

/// Replays a log of so many enclaves over each of two numbers of days.
///
/// # Errors
/// Something was found, or the peak cannot be forgotten here, so that nothing can be said of it.
pub fn of_replays(folder: &Path, enclaves: usize, days: [u64; 2]) -> Result<[Measured; 2]> {
    let mut made = Vec::new();
    for days in days {
        let spec = Spec { enclaves, days, per_machine: 8, faults: false, ..Spec::default() };
        let here = folder.join(days.to_string());
        made.push((history::make(&here, &spec, chain::provider_of(enclaves)?, |_| {})?, here));
    }
    let mut measured = [Measured { leaves: 0, peak: 0 }; 2];
    for ((history, here), measured) in made.iter().zip(&mut measured) {
        ensure!(forget_peak(), "the highest memory cannot be reset here, so nothing can be said about it");
        let state = State::open(&here.join("state.redb"))?;
        let result = replay_log(&history.logs[0], &[], &state, &Verifier::with_capacity(8_192), 2)?;
        ensure!(result.whole, "something was found");
        *measured = Measured { leaves: result.size, peak: peak() };
    }
    Ok(measured)
}

/// Highest memory of this process since it was last forgotten, in MB.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Ends the peak's memory of what was before, if that is allowed.
pub fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}
