//! What a log amounts to: a size that does not depend on its length.

use std::collections::BTreeMap;

use cocoon_attestation::UnixTime;
use cocoon_verifier::Outcome;
use serde::{Deserialize, Serialize};

use super::finding::Kind;

/// Most different texts of one sort that are told apart; what comes after them is counted as [`OTHER`]. A log that means harm could
/// name a new one in every leaf.
const MOST: usize = 256;
/// Most days that are told apart: ten years.
const MOST_DAYS: usize = 3_660;
/// What has no name of its own.
pub const OTHER: &str = "other";
const DAY: u64 = 86_400;

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counts(pub BTreeMap<String, u64>);

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, name: &str) {
        self.add_many(name, 1);
    }

    fn add_many(&mut self, name: &str, count: u64) {
        if let Some(known) = self.0.get_mut(name) {
            *known += count;
        } else if self.0.len() < MOST || name == OTHER {
            self.0.insert(name.to_owned(), count);
        } else {
            self.add_many(OTHER, count);
        }
    }

    fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|(name, count)| self.add_many(&name, count));
    }

    /// How many there are of a name.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// One day of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// Leaves that say accepted.
    pub accepted: u64,
    /// Leaves that say anything else.
    pub refused: u64,
    /// Leaves that something was found about.
    pub findings: u64,
    /// Leaves by TCB status; those of SNP, which has none, by `SNP`.
    pub tcb: Counts,
}

impl Day {
    fn merge(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.findings += other.findings;
        self.tcb.merge(other.tcb);
    }
}

/// What a log amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Leaves that were appraised again.
    pub leaves: u64,
    /// Leaves that say accepted.
    pub accepted: u64,
    /// Leaves that say anything else.
    pub refused: u64,
    /// Leaves whose evidence was accepted and that got no verdict all the same.
    pub no_verdict: u64,
    /// Leaves that rest on development roots.
    pub development: u64,
    /// Leaves whose evidence includes GPUs.
    pub with_gpu: u64,
    /// Bytes of leaves.
    pub bytes: u64,
    /// By CPU: TDX, SNP.
    pub cpus: Counts,
    /// By TCB status.
    pub tcb: Counts,
    /// By advisory that applied.
    pub advisories: Counts,
    /// By the node that a leaf names.
    pub nodes: Counts,
    /// By what appraised.
    pub verifiers: Counts,
    /// By SHA-256 of the policy.
    pub policies: Counts,
    /// By SHA-256 of the reference values.
    pub references: Counts,
    /// By kind of finding.
    pub findings: Counts,
    /// By day since 1970.
    pub days: BTreeMap<u64, Day>,
    /// Time of the first leaf.
    pub first: Option<UnixTime>,
    /// Highest time of a leaf so far.
    pub last: Option<UnixTime>,
}

/// What a leaf says, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Said<'a> {
    pub time: UnixTime,
    pub outcome: Outcome,
    pub no_verdict: bool,
    pub development: bool,
    pub gpu: bool,
    pub bytes: u64,
    pub cpu: &'static str,
    pub tcb: &'a str,
    pub advisories: &'a [String],
    pub node: &'a str,
    pub verifier: &'a str,
    pub policy: &'a str,
    pub references: Option<&'a str>,
    pub findings: bool,
}

impl Totals {
    pub(super) fn add(&mut self, said: &Said<'_>) {
        let accepted = said.outcome == Outcome::Accepted;
        self.leaves += 1;
        self.accepted += u64::from(accepted);
        self.refused += u64::from(!accepted);
        self.no_verdict += u64::from(said.no_verdict);
        self.development += u64::from(said.development);
        self.with_gpu += u64::from(said.gpu);
        self.bytes += said.bytes;
        self.cpus.add(said.cpu);
        self.tcb.add(said.tcb);
        said.advisories.iter().for_each(|id| self.advisories.add(id));
        self.nodes.add(said.node);
        self.verifiers.add(said.verifier);
        self.policies.add(said.policy);
        if let Some(references) = said.references {
            self.references.add(references);
        }
        let day = self.day(said.time);
        day.accepted += u64::from(accepted);
        day.refused += u64::from(!accepted);
        day.findings += u64::from(said.findings);
        day.tcb.add(said.tcb);
        self.first = self.first.or(Some(said.time));
        self.last = self.last.max(Some(said.time));
    }

    fn day(&mut self, time: UnixTime) -> &mut Day {
        let day = time.0 / DAY;
        // Beyond what is told apart, the last day stands for all others.
        let full = self.days.len() >= MOST_DAYS && !self.days.contains_key(&day);
        let day = if full { self.days.keys().next_back().copied().unwrap_or(day) } else { day };
        self.days.entry(day).or_default()
    }

    /// Counts a finding.
    pub(super) fn found(&mut self, kind: Kind) {
        self.findings.add(kind.name());
    }

    /// Takes over what stands behind this in the log, or in another log.
    pub fn merge(&mut self, other: Self) {
        self.leaves += other.leaves;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.no_verdict += other.no_verdict;
        self.development += other.development;
        self.with_gpu += other.with_gpu;
        self.bytes += other.bytes;
        let counts = [
            (&mut self.cpus, other.cpus),
            (&mut self.tcb, other.tcb),
            (&mut self.advisories, other.advisories),
            (&mut self.nodes, other.nodes),
            (&mut self.verifiers, other.verifiers),
            (&mut self.policies, other.policies),
            (&mut self.references, other.references),
            (&mut self.findings, other.findings),
        ];
        counts.into_iter().for_each(|(counts, other)| counts.merge(other));
        for (day, counts) in other.days {
            self.day(UnixTime(day.saturating_mul(DAY))).merge(counts);
        }
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(time: u64, node: &str) -> Totals {
        let mut totals = Totals::default();
        totals.add(&Said {
            time: UnixTime(time),
            outcome: Outcome::Accepted,
            no_verdict: false,
            development: true,
            gpu: false,
            bytes: 10,
            cpu: "TDX",
            tcb: "UpToDate",
            advisories: &[],
            node,
            verifier: "v",
            policy: "p",
            references: None,
            findings: false,
        });
        totals
    }

    #[test]
    fn the_size_does_not_depend_on_what_a_log_says() {
        let mut totals = Totals::default();
        for n in 0..10_000 {
            totals.merge(said(n * DAY, &format!("node {n}")));
        }
        assert_eq!(totals.leaves, 10_000);
        assert_eq!((totals.nodes.0.len(), totals.days.len()), (MOST + 1, MOST_DAYS));
        assert_eq!(totals.nodes.0.values().sum::<u64>(), 10_000);
        assert_eq!(totals.days.values().map(|day| day.accepted).sum::<u64>(), 10_000);
    }
}
