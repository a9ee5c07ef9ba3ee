//! Replay: everything that a log says, checked again by somebody who trusts nobody.
//!
//! [`replay`] streams one log: it checks the checkpoint's signature and cosignatures, every hash up to the root, that the log
//! continues what was seen of it before, and appraises the evidence of every leaf again. [`chain`] holds the result against what
//! the contracts did, and [`report`] says all of it in one document. What is found is a [`Finding`], never an error: an
//! [`crate::Error`] means that the replay itself could not go on.

mod alerts;
mod appraise;
pub mod chain;
mod entry;
mod finding;
pub mod report;
mod single;
mod state;
mod stream;
mod tiles;
mod totals;
mod whole;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use cocoon_attestation::UnixTime;
use cocoon_verifier::Verifier;
use serde::{Deserialize, Serialize};

pub use alerts::Alerts;
pub use appraise::VERIFIER;
pub use finding::{Finding, Gravity, Kind, MOST_DETAIL};
pub use single::{PartsOf, document, entries_match, find, leaf, parts_of, parts_of_bundle};
pub use state::{EnclaveSpan, Logged, State, Subject};
pub use totals::{Counts, Day, OTHER, Totals};

use crate::Error;
use crate::files::Source;
use crate::layout::CHECKPOINT;
use crate::tree::Edge;
use state::{Batch, Saved};
use stream::Stream;
use whole::LogReplay;

/// Longest checkpoint, in bytes: it stands in reports.
pub const MOST_CHECKPOINT: usize = 65_536;
/// How often a log is begun with that changes under the replay.
const ATTEMPTS: usize = 4;

/// A log to be replayed.
pub struct LogInput<'a> {
    /// Its files.
    pub source: &'a (dyn Source + Sync),
    /// Its C2SP verifier key.
    pub key: &'a str,
    /// Verifier keys of witnesses that should have cosigned it.
    pub witnesses: &'a [String],
    /// Other checkpoints of it, as their text: from other copies, or kept by clients.
    pub checkpoints: &'a [String],
    /// Appraise from this leaf on; of those before only the hashes count.
    pub from: u64,
}

/// How a replay is made.
pub struct Job<'a> {
    /// Threads that appraise.
    pub jobs: usize,
    /// Remembers platforms; to be shared by the replays of all logs of a fleet.
    pub verifier: &'a Verifier,
    /// Is told how many leaves are done, and how many there are.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Ends the replay soon when it is set; it can be taken up again later.
    pub stop: &'a AtomicBool,
}

/// What came of one log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogResult {
    /// Its name.
    pub origin: String,
    /// Its verifier key.
    pub key: String,
    /// Leaves and root of its newest checkpoint, if that can be believed.
    pub size: u64,
    /// The root, in hex.
    pub root: Option<String>,
    /// The checkpoint itself.
    pub checkpoint: String,
    /// Witnesses that cosigned it, and when.
    pub witnesses: Vec<(String, UnixTime)>,
    /// Leaves of those that were replayed now or before.
    pub replayed: u64,
    /// Appraised from this leaf on.
    pub from: u64,
    /// What its leaves amount to.
    pub totals: Totals,
    /// What was found about the log as a whole; what was found about leaves is in the replay's file.
    pub findings: Vec<Finding>,
    /// Whether the leaves make the tree that the log signed.
    pub whole: bool,
}

/// A time for people: `2026-09-21 23:40:00 UTC`. Beyond the year 9999 it stays a number.
pub fn utc(time: UnixTime) -> String {
    let (days, second) = (time.0 / 86_400, time.0 % 86_400);
    if time.0 > 253_402_300_799 {
        return format!("{} s after 1970", time.0);
    }
    // Days are counted from 1 March of the year 0, in eras of 400 years, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The name of a log, from its key.
pub fn origin(key: &str) -> &str {
    key.split('+').next().unwrap_or_default()
}

/// What is said of a log that could not be read: why, and the split views that it was found to show before.
///
/// # Errors
/// The disk failed.
pub fn unreachable(key: &str, why: &str, state: &State) -> Result<LogResult, Error> {
    let input = LogInput { source: &Nothing, key, witnesses: &[], checkpoints: &[], from: 0 };
    let mut log = LogReplay::new(&input);
    log.found(Finding::new(Kind::Unreachable, why).about(key));
    state.splits()?.into_iter().for_each(|split| log.found(split));
    Ok(log.counted())
}

struct Nothing;

impl Source for Nothing {
    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }
}

/// Replays a log. What was replayed before is in `state` and is not replayed again, if the log still continues it; but what was found
/// that may be the copy's fault is looked at again.
///
/// # Errors
/// The source or the disk failed, or the replay was stopped. What is wrong with the log is no error but found.
pub fn replay(input: &LogInput<'_>, state: &State, job: &Job<'_>) -> Result<LogResult, Error> {
    let mut attempt = 1;
    loop {
        let Once { result, resumed, settled } = once(input, state, job)?;
        // What leads to no tree that was signed is not gone on from, now or later.
        let astray = result.size > 0 && result.replayed == result.size && !result.whole;
        if astray {
            state.forget_progress()?;
        }
        // A log that is written while it is read takes away what an older checkpoint's end was.
        let moved_on = !settled && input.source.read(CHECKPOINT)?.unwrap_or_default() != result.checkpoint.as_bytes();
        if attempt == ATTEMPTS || !(moved_on || astray && resumed) {
            return Ok(result);
        }
        attempt += 1;
    }
}

/// What came of one attempt.
struct Once {
    result: LogResult,
    /// It went on from where another one ended.
    resumed: bool,
    /// Nothing was found that a newer checkpoint could explain.
    settled: bool,
}

fn once(input: &LogInput<'_>, state: &State, job: &Job<'_>) -> Result<Once, Error> {
    let mut log = LogReplay::new(input);
    let Some(head) = log.checkpoint(state)? else {
        return Ok(Once { result: log.counted(), resumed: false, settled: true });
    };
    let mut saved = Saved::new(input.key, VERIFIER, input.from);
    let mut edge = Edge::default();
    let before = state
        .saved()?
        .filter(|before| (&before.key, &before.verifier, before.from) == (&saved.key, &saved.verifier, saved.from));
    match before.and_then(|before| Some((log.resume(&before, &head)?, before))) {
        Some((known, before)) => (edge, saved) = (known, before),
        None => state.reset()?,
    }
    let resumed = saved.tiles > 0;
    let others = log.others(state, &head)?;
    let wanted = others.iter().map(|(other, _)| other.size).filter(|size| *size > edge.size() && *size < head.size);
    let wanted = wanted.collect();
    let (batch, written, roots) = (Batch::default(), Instant::now(), BTreeMap::new());
    let mut stream = Stream { input, head: &head, state, job, edge, saved, batch, written, wanted, roots };
    stream.again()?;
    let reached = stream.run()?;
    let (tail, settled) = stream.tail(reached)?;
    let mut totals = stream.saved.totals.clone();
    let mut next = state.again(0)?;
    while let Some((index, again)) = next {
        totals.merge(again.totals);
        next = state.again(index + 1)?;
    }
    totals.merge(tail);
    log.result.replayed = stream.edge.size();
    log.result.totals = totals;
    log.result.whole = stream.edge.size() == head.size && stream.edge.root() == head.root;
    if stream.edge.size() < head.size {
        let (has, says) = (stream.edge.size(), head.size);
        let detail = format!("leaves {has} to {} are not there: the tree does not reach its checkpoint", says - 1);
        log.found(Finding::new(Kind::MissingLeaf, detail).at_leaf(has));
    } else if !log.result.whole {
        let detail = format!("{} leaves make the root {}, signed is {}", head.size, stream.edge.root(), head.root);
        log.found(Finding::new(Kind::RootDiffers, detail));
    }
    log.continues(state, &head, others, &stream.roots)?;
    Ok(Once { result: log.counted(), resumed, settled: settled && reached })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_tell_them() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_790_035_200, "2026-09-22 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
            (u64::MAX, "18446744073709551615 s after 1970"),
        ] {
            assert_eq!(utc(UnixTime(seconds)), text);
        }
    }
}
