//! What a replay says, for machines; its JSON is `docs/schemas/audit.schema.json`. Its size is bounded, whatever was replayed.

use std::collections::BTreeMap;

use cocoon_attestation::UnixTime;
use cocoon_verifier::Outcome;
use serde::{Deserialize, Serialize};

use super::chain::ChainResult;
use super::finding::{Finding, Gravity, Kind};
use super::state::{EnclaveSpan, State};
use super::{LogResult, VERIFIER};
use crate::Error;

/// The schema that reports of this version name.
pub const SCHEMA: &str = "cocoon/audit-replay/v1";
/// Findings of one kind that are told one by one; the others are counted.
pub const MOST_FINDINGS: usize = 100;
/// Enclaves that are told one by one.
const MOST_ENCLAVES: usize = 60;
/// Leaves up to which every one of an enclave is told.
const MOST_LEAVES: u64 = 4_000;

/// Is told of a finding.
type Told = Box<dyn FnMut(&Finding) + Send>;

/// Findings: all are counted, the first of each kind are kept.
#[derive(Default)]
pub struct Findings {
    counts: BTreeMap<Kind, u64>,
    kept: Vec<Finding>,
    told: Option<Told>,
}

impl Findings {
    /// None yet; `told` is told of every one, those that are not kept too.
    pub fn telling(told: impl FnMut(&Finding) + Send + 'static) -> Self {
        Self { told: Some(Box::new(told)), ..Self::default() }
    }

    /// Takes a finding.
    pub fn add(&mut self, finding: Finding) {
        if let Some(told) = &mut self.told {
            told(&finding);
        }
        let count = self.counts.entry(finding.kind).or_default();
        *count += 1;
        if *count <= MOST_FINDINGS as u64 {
            self.kept.push(finding);
        }
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }

    /// The gravest.
    pub fn gravest(&self) -> Option<Gravity> {
        self.counts.keys().map(|kind| kind.gravity()).max()
    }
}

/// One log in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogReport {
    /// Where it was read.
    pub place: String,
    /// The key was taken from the log's own folder: nothing says whose log it is.
    pub key_unchecked: bool,
    /// Verifier keys of the witnesses that were named.
    pub named_witnesses: Vec<String>,
    /// What came of it.
    pub result: LogResult,
    /// How many enclaves it names.
    pub enclaves: u64,
}

/// An enclave in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnclaveReport {
    /// Its key, in hex.
    pub key: String,
    /// Time of its first leaf in any log.
    pub first: UnixTime,
    /// Time of its newest leaf in any log.
    pub last: UnixTime,
    /// A leaf of it says something else than accepted.
    pub refused: bool,
    /// Its leaves, where the logs are short: log, time, outcome, whether the outcome was had again.
    pub leaves: Vec<(usize, UnixTime, Outcome, bool)>,
}

/// What was asked besides the logs, so that a finding's command asks the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The chain's API.
    pub chain: Option<String>,
    /// Files of other checkpoints.
    pub checkpoints: Vec<String>,
    /// Channels besides those that claims name.
    pub channels: Vec<String>,
    /// Positions of verifiers and the origins of their logs, where they were named.
    pub verifiers: Vec<(u8, String)>,
}

/// Everything that a replay says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was made.
    pub made: UnixTime,
    /// What appraised again.
    pub verifier: String,
    /// `nothing`, or the gravest finding's gravity.
    pub outcome: String,
    /// Exit code of the command: 0, 10, 20, 30.
    pub exit_code: u8,
    /// How many findings there are of each kind.
    pub counts: BTreeMap<String, u64>,
    /// Findings, the gravest first; of each kind the first hundred.
    pub findings: Vec<Finding>,
    /// The logs.
    pub logs: Vec<LogReport>,
    /// The chain, if it was asked.
    pub chain: Option<ChainResult>,
    /// Some of the enclaves: those about which something was found, and those with refusals, first.
    pub enclaves: Vec<EnclaveReport>,
    /// Nothing in it rests on hardware.
    pub development: bool,
    /// What was asked.
    pub asked: Asked,
}

impl Report {
    /// Puts a report together. `findings` holds those of the chain; those of the logs are added here.
    ///
    /// # Errors
    /// The disk failed.
    pub fn new(
        made: UnixTime,
        logs: Vec<(String, LogResult, &State)>,
        chain: Option<ChainResult>,
        mut findings: Findings,
    ) -> Result<Self, Error> {
        for (_, result, state) in &logs {
            result.findings.iter().cloned().for_each(|finding| findings.add(finding));
            state.findings(|finding| findings.add(finding))?;
        }
        if let Some(chain) = chain.as_ref().filter(|chain| chain.verdicts_without_log > 0) {
            let detail = format!("{} verdicts were not followed", chain.verdicts_without_log);
            findings.add(Finding::new(Kind::VerdictsNotFollowed, detail).about(chain.registry.clone()));
        }
        let enclaves = enclaves(&logs)?;
        let development = logs.iter().any(|(_, result, _)| result.totals.development > 0);
        let logs = logs.into_iter().map(|(place, result, state)| {
            let enclaves = state.enclaves()?;
            Ok(LogReport { place, key_unchecked: false, named_witnesses: Vec::new(), result, enclaves })
        });
        let logs = logs.collect::<Result<Vec<_>, Error>>()?;
        let gravest = findings.gravest();
        findings.kept.sort_by_key(|finding| std::cmp::Reverse((finding.gravity, finding.kind)));
        Ok(Self {
            schema: SCHEMA.into(),
            made,
            verifier: VERIFIER.into(),
            outcome: gravest.map_or("nothing", Gravity::name).into(),
            exit_code: gravest.map_or(0, Gravity::exit_code),
            counts: findings.counts.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect(),
            findings: findings.kept,
            logs,
            chain,
            enclaves,
            development,
            asked: Asked::default(),
        })
    }
}

fn enclaves(logs: &[(String, LogResult, &State)]) -> Result<Vec<EnclaveReport>, Error> {
    let mut spans: BTreeMap<[u8; 32], EnclaveSpan> = BTreeMap::new();
    for (_, _, state) in logs {
        for span in state.spans(MOST_ENCLAVES)? {
            let known = spans.entry(span.key.0).or_insert(span);
            known.first = known.first.min(span.first);
            known.last = known.last.max(span.last);
            known.refused |= span.refused;
        }
    }
    let mut spans: Vec<_> = spans.into_values().collect();
    spans.sort_by_key(|span| (!span.refused, span.first, span.key.0));
    spans.truncate(MOST_ENCLAVES);
    let mut reports: Vec<EnclaveReport> = spans
        .iter()
        .map(|span| EnclaveReport {
            key: cocoon_attestation::Digest(span.key.0).to_string(),
            first: span.first,
            last: span.last,
            refused: span.refused,
            leaves: Vec::new(),
        })
        .collect();
    for (n, (_, _, state)) in logs.iter().enumerate() {
        for (_, logged) in state.all_logged(MOST_LEAVES)?.unwrap_or_default() {
            let Some(key) = logged.subject.map(|subject| subject.enclave_key) else { continue };
            let place = spans.iter().position(|span| span.key == key);
            if let Some(report) = place.and_then(|place| reports.get_mut(place)) {
                let as_said = logged.confirmed || logged.outcome != Outcome::Accepted;
                report.leaves.push((n, logged.time, logged.outcome, as_said));
            }
        }
    }
    for report in &mut reports {
        report.leaves.sort_by_key(|(log, time, ..)| (*time, *log));
    }
    reports.sort_by_key(|report| (report.leaves.iter().all(|(.., as_said)| *as_said), !report.refused, report.first));
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_all_counted_and_the_first_of_each_kind_kept() {
        let all = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = all.clone();
        let mut findings = Findings::telling(move |_| _ = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        for n in 0..1_000 {
            findings.add(Finding::new(Kind::ResultDiffers, n.to_string()));
            findings.add(Finding::new(Kind::DoubleClaim, n.to_string()));
        }
        assert_eq!(findings.counts()[&Kind::DoubleClaim], 1_000);
        assert_eq!(findings.kept.len(), 2 * MOST_FINDINGS);
        assert_eq!(all.load(std::sync::atomic::Ordering::Relaxed), 2_000);
        assert_eq!(findings.gravest(), Some(Gravity::Wrong));
        let report = Report::new(UnixTime(7), Vec::new(), None, findings).unwrap();
        assert_eq!((report.outcome.as_str(), report.exit_code), ("wrong", 20));
        assert_eq!(report.findings[0].kind, Kind::ResultDiffers);
        let nothing = Report::new(UnixTime(7), Vec::new(), None, Findings::default()).unwrap();
        assert_eq!((nothing.outcome.as_str(), nothing.exit_code), ("nothing", 0));
    }
}
