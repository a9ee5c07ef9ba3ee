//! The result of an appraisal. Its JSON form is `docs/schemas/appraisal.schema.json`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use cocoon_attestation::UnixTime;
use serde::{Deserialize, Serialize};

/// The schema that results of this version name.
pub const SCHEMA: &str = "cocoon/appraisal/v1";

/// What came of it, in one word. The same words are used in library, command line, exit code and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Genuine, and every check of the policy passed.
    Accepted,
    /// Genuine, but the policy says no.
    Refused,
    /// Cannot be authenticated: signature, chain, revocation, expiry, mismatch.
    Invalid,
    /// Not parseable as what it claims to be.
    Malformed,
}

impl Outcome {
    /// Exit code of `cocoon verify`: 0, 10, 20, 30.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Refused => 10,
            Self::Invalid => 20,
            Self::Malformed => 30,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
        })
    }
}

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// It holds.
    Passed,
    /// It does not hold, and the policy was loosened to allow that.
    Allowed,
    /// It does not hold, and the policy demands it.
    Refused,
    /// It does not hold, so the evidence is not authentic.
    Invalid,
    /// The bytes are not what they claim to be.
    Malformed,
}

impl CheckOutcome {
    /// Whether the check stands in the way of acceptance.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Passed | Self::Allowed)
    }
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
        })
    }
}

/// One check that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name, such as `tdx.debug`.
    pub id: Cow<'static, str>,
    /// What came of it.
    pub outcome: CheckOutcome,
    /// What was found, for people.
    pub detail: Cow<'static, str>,
}

/// Something that was not checked, so that nobody mistakes "genuine" for "mine".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchecked {
    /// Name of the check that would have been made.
    pub id: Cow<'static, str>,
    /// Why it was not made.
    pub why: Cow<'static, str>,
}

/// The result of an appraisal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appraisal {
    /// [`SCHEMA`].
    pub schema: String,
    /// The outcome.
    pub outcome: Outcome,
    /// The first check that did not hold, in words a person can act on.
    pub reason: String,
    /// Intel's TCB status; `None` where the TEE has none or it was not reached.
    pub tcb_status: Option<String>,
    /// Advisories that apply to the platform.
    pub advisories: Vec<String>,
    /// Every check that was made, in order.
    pub checks: Vec<Check>,
    /// What was not checked.
    pub unchecked: Vec<Unchecked>,
    /// Values from authenticated evidence, in lower-case hex or decimal. Empty unless the evidence is authentic.
    pub measurements: BTreeMap<Cow<'static, str>, String>,
    /// When the first of the endorsements lapses.
    pub not_after: Option<UnixTime>,
    /// The evidence rests on a root that the policy named instead of the vendor's: it is **not confidential**.
    pub development: bool,
}

impl Appraisal {
    /// The check with an id.
    pub fn check(&self, id: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.id == id)
    }

    /// What logs record of it: all but the measurements that no other evidence of the same guest has. Those stand in the evidence, and
    /// without them the renewals of a guest come to the same bytes, which are stored once.
    pub fn recorded(mut self) -> Self {
        self.measurements.retain(|name, _| !of_one_evidence(name));
        self
    }

    /// Whether `recorded` is what a log may record of this: the whole of it, or without such measurements.
    pub fn is_recorded_as(&self, recorded: &Self) -> bool {
        let Self {
            schema,
            outcome,
            reason,
            tcb_status,
            advisories,
            checks,
            unchecked,
            measurements,
            not_after,
            development,
        } = recorded;
        let mut left = measurements.iter().peekable();
        let mut same = |(name, value): (&Text, &String)| match left.next_if(|(recorded, _)| *recorded == name) {
            Some((_, recorded)) => recorded == value,
            None => of_one_evidence(name),
        };
        self.schema == *schema
            && self.outcome == *outcome
            && self.reason == *reason
            && self.tcb_status == *tcb_status
            && self.advisories == *advisories
            && self.checks == *checks
            && self.unchecked == *unchecked
            && self.not_after == *not_after
            && self.development == *development
            && self.measurements.iter().all(&mut same)
            && left.next().is_none()
    }
}

/// Whether a measurement is the evidence's own: what binds it to its claims, and what a report is called.
fn of_one_evidence(name: &str) -> bool {
    matches!(name, "tdx.report-data" | "snp.report-data" | "snp.report-id" | "snp.report-id-ma")
        || (name.starts_with("gpu") && name.ends_with(".nonce"))
}

/// Whether the evidence's own signature counts. Only a test can leave it out, to show that it is what stops a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    Checked,
    #[cfg(test)]
    SwitchedOff,
}

/// Most texts of a result are constant: those cost no allocation.
pub(crate) type Text = Cow<'static, str>;

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; 2 * bytes.len()];
    match hex::encode_to_slice(bytes, &mut text) {
        Ok(()) => String::from_utf8(text).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Collects checks while an appraisal runs.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) tcb_status: Option<String>,
    pub(crate) advisories: Vec<String>,
    /// By name, which is put in order in the end: of two of one name the last one counts.
    pub(crate) measurements: Vec<(Text, String)>,
    pub(crate) not_after: Option<UnixTime>,
    pub(crate) development: bool,
    checks: Vec<Check>,
    unchecked: Vec<Unchecked>,
}

impl Record {
    pub(crate) fn put(&mut self, id: impl Into<Text>, outcome: CheckOutcome, detail: impl Into<Text>) {
        self.checks.push(Check { id: id.into(), outcome, detail: detail.into() });
    }

    pub(crate) fn passed(&mut self, id: impl Into<Text>, detail: impl Into<Text>) {
        self.put(id, CheckOutcome::Passed, detail);
    }

    /// Room for what most appraisals find.
    pub(crate) fn roomy() -> Self {
        Self {
            checks: Vec::with_capacity(48),
            unchecked: Vec::with_capacity(40),
            measurements: Vec::with_capacity(24),
            ..Self::default()
        }
    }

    /// Checks that were made before, and still hold.
    pub(crate) fn extend(&mut self, checks: &[Check]) {
        self.checks.extend_from_slice(checks);
    }

    /// Takes over what another record found; with a number, of one GPU among several.
    pub(crate) fn absorb(&mut self, other: Self, gpu: Option<usize>) {
        let said = |text: Text| match gpu {
            None => text,
            Some(n) => format!("GPU {n}: {text}").into(),
        };
        self.checks.extend(other.checks.into_iter().map(|check| Check { detail: said(check.detail), ..check }));
        for item in other.unchecked {
            if !self.unchecked.contains(&item) {
                self.unchecked.push(item);
            }
        }
        let renamed = |name: Text| match (gpu, name.strip_prefix("gpu.")) {
            (Some(n), Some(rest)) => format!("gpu{n}.{rest}").into(),
            _ => name,
        };
        self.measurements.extend(other.measurements.into_iter().map(|(name, value)| (renamed(name), value)));
        self.development |= other.development;
        self.not_after = [self.not_after, other.not_after].into_iter().flatten().min();
    }

    /// A check of authenticity.
    pub(crate) fn genuine(&mut self, id: impl Into<Text>, holds: bool, detail: impl Into<Text>) {
        self.put(id, if holds { CheckOutcome::Passed } else { CheckOutcome::Invalid }, detail);
    }

    /// A check that the policy demands.
    pub(crate) fn demand(&mut self, id: impl Into<Text>, holds: bool, detail: impl Into<Text>) {
        self.demand_unless(id, holds, false, detail);
    }

    /// A check that the policy demands unless it was loosened.
    pub(crate) fn demand_unless(&mut self, id: impl Into<Text>, holds: bool, loosened: bool, detail: impl Into<Text>) {
        let outcome = match (holds, loosened) {
            (true, _) => CheckOutcome::Passed,
            (false, true) => CheckOutcome::Allowed,
            (false, false) => CheckOutcome::Refused,
        };
        self.put(id, outcome, detail);
    }

    /// A value that must be among those the policy gives; unchecked if it gives none.
    pub(crate) fn reference<T: AsRef<[u8]>>(&mut self, id: impl Into<Text>, actual: &[u8], accepted: &[T]) {
        if accepted.is_empty() {
            return self.unchecked(id, "the policy gives no reference value");
        }
        let holds = accepted.iter().any(|value| value.as_ref() == actual);
        let actual = hex(actual);
        let detail = if holds {
            format!("{actual} is a reference value")
        } else {
            format!("{actual} is not among the {} reference value(s) of the policy", accepted.len())
        };
        self.demand(id, holds, detail);
    }

    /// A number with a least value; unchecked if the policy gives none.
    pub(crate) fn minimum(&mut self, id: impl Into<Text>, actual: u64, least: Option<u64>) {
        match least {
            None => self.unchecked(id, "the policy gives no minimum"),
            Some(least) => {
                self.demand(id, actual >= least, format!("{actual}, and the policy asks for {least} or more"))
            }
        }
    }

    pub(crate) fn unchecked(&mut self, id: impl Into<Text>, why: impl Into<Text>) {
        self.unchecked.push(Unchecked { id: id.into(), why: why.into() });
    }

    /// Something that another check covered after all.
    pub(crate) fn covered(&mut self, id: &str) {
        self.unchecked.retain(|item| item.id != id);
    }

    pub(crate) fn measure(&mut self, name: impl Into<Text>, value: &[u8]) {
        self.measurements.push((name.into(), hex(value)));
    }

    pub(crate) fn finish(self) -> Appraisal {
        let severity = |outcome: CheckOutcome| match outcome {
            CheckOutcome::Passed | CheckOutcome::Allowed => Outcome::Accepted,
            CheckOutcome::Refused => Outcome::Refused,
            CheckOutcome::Invalid => Outcome::Invalid,
            CheckOutcome::Malformed => Outcome::Malformed,
        };
        let outcome = self.checks.iter().map(|check| severity(check.outcome)).max().unwrap_or(Outcome::Malformed);
        let first = self.checks.iter().find(|check| severity(check.outcome) == outcome);
        let reason = match (outcome, first) {
            (Outcome::Accepted, Some(_)) => "genuine, and every check of the policy passed".into(),
            (_, Some(check)) => format!("{}: {}", check.id, check.detail),
            (_, None) => "there was nothing to check".into(),
        };
        let authentic = matches!(outcome, Outcome::Accepted | Outcome::Refused);
        Appraisal {
            schema: SCHEMA.into(),
            outcome,
            reason,
            tcb_status: self.tcb_status,
            advisories: self.advisories,
            checks: self.checks,
            unchecked: self.unchecked,
            measurements: if authentic { self.measurements.into_iter().collect() } else { BTreeMap::new() },
            not_after: self.not_after,
            development: self.development,
        }
    }
}
