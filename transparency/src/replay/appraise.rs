//! One leaf again: its hash, its evidence at its own time with its own endorsements, under the policy and reference values that it
//! names, and whether what it recorded is what comes of that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocoon_attestation::{Digest, ReferenceValues, UnixTime};
use cocoon_verifier::{Appraisal, Beside, Outcome, Policy, Verifier};

use super::entry::{Entry, PartRef};
use super::finding::{Finding, Kind};
use super::state::Subject;
use super::totals::{Said, Totals};
use crate::files::Source;
use crate::leaf::Leaf;

/// What appraises here, as leaves name it.
pub const VERIFIER: &str = concat!("cocoon-verifier ", env!("CARGO_PKG_VERSION"));
/// Bytes of policies, and as many of reference values, that are kept read: a node changes them a few times a year.
const DOCUMENTS: usize = 1 << 20;
/// Bytes of recorded appraisals that are kept read: some three thousand, each of them of a platform and what runs on it.
const RECORDED: usize = 16 << 20;
/// Longest policy or reference values, in bytes.
pub(super) const MOST_DOCUMENT: usize = 65_536;
/// Former versions of the verifier whose outcomes this one knows to differ from its own, as leaves name them. What somebody writes into a
/// leaf explains nothing; only what stands here does.
const FORMER: &[&str] = &[];

/// What came of reading a document: itself and its name, or why it cannot be had.
type Document<T> = Result<(T, String), (Kind, String)>;
/// What was made of parts, by their SHA-256: each is read once, until there are too many of them.
struct Read<T> {
    read: Mutex<Held<T>>,
    /// Most bytes of parts, as they are stored.
    most: usize,
}

struct Held<T> {
    by_digest: HashMap<Digest, Arc<T>>,
    bytes: usize,
}

impl<T> Read<T> {
    fn new(most: usize) -> Self {
        Self { read: Mutex::new(Held { by_digest: HashMap::new(), bytes: 0 }), most }
    }

    fn lock(&self) -> MutexGuard<'_, Held<T>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, digest: &Digest) -> Option<Arc<T>> {
        self.lock().by_digest.get(digest).cloned()
    }

    fn keep(&self, digest: &Digest, bytes: usize, fresh: T) -> Arc<T> {
        let fresh = Arc::new(fresh);
        let mut held = self.lock();
        // Each counts as no less than what keeping it takes besides.
        let bytes = bytes.max(1_024);
        if held.bytes + bytes > self.most {
            *held = Held { by_digest: HashMap::new(), bytes: 0 };
        }
        if bytes <= self.most && held.by_digest.insert(*digest, fresh.clone()).is_none() {
            held.bytes += bytes;
        }
        fresh
    }
}

/// Appraises leaves of one log.
pub(super) struct Appraiser<'a> {
    source: &'a (dyn Source + Sync),
    /// The log's name, which its leaves name as their node's.
    origin: &'a str,
    verifier: &'a Verifier,
    beside: Beside<'a>,
    policies: Read<Document<Policy>>,
    references: Read<Document<ReferenceValues>>,
    recorded: Read<Result<Appraisal, String>>,
}

/// What is kept of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub evidence_id: Digest,
    /// What its evidence is about, if that can be read.
    pub subject: Option<Subject>,
    /// The node that it names is the one whose log this is.
    pub own: bool,
    pub time: UnixTime,
    pub outcome: Outcome,
    /// It says accepted, has no reason for a verdict not to be given, and its evidence is accepted again.
    pub confirmed: bool,
}

impl<'a> Appraiser<'a> {
    pub fn new(source: &'a (dyn Source + Sync), origin: &'a str, verifier: &'a Verifier) -> Self {
        let beside = Beside::new(move |digest| source.part(digest).ok());
        let (policies, references) = (Read::new(DOCUMENTS), Read::new(DOCUMENTS));
        Self { source, origin, verifier, beside, policies, references, recorded: Read::new(RECORDED) }
    }

    fn part(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        self.source.part(digest).map_err(|error| error.to_string())
    }

    /// A policy, or reference values.
    fn document<T, E: std::fmt::Display>(
        &self,
        known: &Read<Document<T>>,
        digest: &Digest,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Arc<Document<T>> {
        known.get(digest).unwrap_or_else(|| {
            let (bytes, fresh) = match self.part(digest) {
                Ok(bytes) => (bytes.len(), Self::read(digest, bytes, read)),
                Err(error) => (0, Err((Kind::PartMissing, error))),
            };
            known.keep(digest, bytes, fresh)
        })
    }

    /// A recorded appraisal that stands beside the tree.
    fn recorded(&self, digest: &Digest) -> Result<Arc<Result<Appraisal, String>>, String> {
        if let Some(known) = self.recorded.get(digest) {
            return Ok(known);
        }
        let json = self.part(digest)?;
        Ok(self.recorded.keep(digest, json.len(), recorded(&json)))
    }

    fn read<T, E: std::fmt::Display>(
        digest: &Digest,
        bytes: Vec<u8>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Document<T> {
        let not_read = |why: &str| (Kind::DocumentNotRead, format!("the part {digest} {why}"));
        if bytes.len() > MOST_DOCUMENT {
            return Err(not_read(&format!("has {} bytes, more than {MOST_DOCUMENT}", bytes.len())));
        }
        let text = String::from_utf8(bytes).map_err(|_| not_read("is not text"))?;
        let read = read(&text).map_err(|error| not_read(&format!("cannot be read: {}", short(&error.to_string()))))?;
        Ok((read, digest.to_string()))
    }

    /// Appraises the entry at an index; what it amounts to goes into `totals`, and what is wrong with it into `findings`.
    pub fn appraise(&self, index: u64, bytes: &[u8], totals: &mut Totals, findings: &mut Vec<Finding>) -> Option<Kept> {
        let before = findings.len();
        let slow;
        let entry = match Entry::read(bytes) {
            Some(entry) => entry,
            None => match Leaf::from_cbor(bytes) {
                Ok(leaf) => {
                    slow = leaf;
                    Entry::of(&slow)
                }
                Err(error) => {
                    findings.push(Finding::new(Kind::MalformedLeaf, error.to_string()).at_leaf(index));
                    return None;
                }
            },
        };
        let again = self.again(&entry);
        let mut found = |kind: Kind, detail: String| {
            let finding = Finding::new(kind, detail).at_leaf(index).of(entry.evidence_id.0).dated(entry.time);
            findings.push(finding);
        };
        let mut said = Said {
            time: entry.time,
            outcome: entry.outcome,
            no_verdict: entry.refusal.is_some(),
            development: false,
            gpu: false,
            bytes: bytes.len() as u64,
            cpu: "not known",
            tcb: "not known",
            advisories: &[],
            node: entry.node,
            verifier: entry.verifier,
            policy: "not known",
            references: None,
            findings: false,
        };
        let (mut subject, mut confirmed) = (None, false);
        match &again {
            Err((kind, detail)) => found(*kind, detail.clone()),
            Ok(again) => {
                said.development = again.appraisal.development;
                said.gpu = again.gpu;
                said.cpu = again.cpu;
                said.tcb = again.appraisal.tcb_status.as_deref().unwrap_or(if again.cpu == "SNP" {
                    "SNP"
                } else {
                    "none reached"
                });
                said.advisories = &again.appraisal.advisories;
                said.policy = again.policy();
                said.references = again.references();
                subject = again.subject;
                let outcome = again.appraisal.outcome;
                // From outcomes alone: whoever wrote the leaf says nothing of how it was meant.
                confirmed =
                    outcome == Outcome::Accepted && entry.outcome == Outcome::Accepted && entry.refusal.is_none();
                let expected = if entry.refusal.is_some() { Outcome::Refused } else { outcome };
                let former = FORMER.contains(&entry.verifier);
                if entry.outcome != expected && !former {
                    let mut detail = format!("the leaf says {}, and its evidence is {outcome}", entry.outcome);
                    if let Some((_, more)) = &again.difference {
                        detail += &format!(": {more}");
                    }
                    found(Kind::ResultDiffers, detail);
                } else if let Some((other_outcome, detail)) = &again.difference {
                    let explained = former || (!other_outcome && entry.verifier != VERIFIER);
                    let kind = if explained { Kind::ResultOfOtherVersion } else { Kind::ResultDiffers };
                    found(kind, detail.clone());
                }
            }
        }
        said.findings = findings.len() > before;
        totals.add(&said);
        let (time, outcome) = (entry.time, entry.outcome);
        let own = entry.node == self.origin;
        Some(Kept { evidence_id: entry.evidence_id.0, subject, own, time, outcome, confirmed })
    }

    fn again(&self, entry: &Entry<'_>) -> Result<Again, (Kind, String)> {
        let missing = |detail: String| (Kind::PartMissing, detail);
        let policy = self.document(&self.policies, &entry.policy, Policy::from_toml);
        let named = match &*policy {
            Ok((named, _)) => named,
            Err(why) => return Err(why.clone()),
        };
        let references =
            entry.references.map(|digest| self.document(&self.references, &digest, ReferenceValues::from_toml));
        let values = match references.as_deref() {
            None => None,
            Some(Ok((values, _))) => Some(values),
            Some(Err(why)) => return Err(why.clone()),
        };
        let beside;
        let bundle = match entry.bundle {
            PartRef::Inline(bytes) => bytes,
            PartRef::Shared(digest) => {
                beside = self.part(&digest).map_err(missing)?;
                &beside
            }
        };
        let recorded = match entry.appraisal {
            PartRef::Inline(bytes) => Arc::new(recorded(bytes)),
            PartRef::Shared(digest) => self.recorded(&digest).map_err(missing)?,
        };
        let result = self.verifier.detached(bundle, &self.beside, named, values, entry.time);
        let (cpu, gpu) = match cocoon_attestation::detached::Detached::read(bundle) {
            Some(read) => {
                // What cannot be found is no result: the verifier calls the bundle malformed for it.
                if result.appraisal.outcome == Outcome::Malformed {
                    for digest in read.named() {
                        self.part(&digest).map_err(missing)?;
                    }
                }
                let cpu = match read.cpu {
                    cocoon_attestation::detached::CpuSlice::Tdx(_) => "TDX",
                    cocoon_attestation::detached::CpuSlice::Snp(_) => "SNP",
                };
                (cpu, !read.gpu.is_empty())
            }
            None => ("not known", false),
        };
        if result.evidence_id != Some(entry.evidence_id) {
            let of =
                result.evidence_id.map_or("no evidence that can be read".into(), |id| format!("the evidence {}", id.0));
            let detail = format!("it names the evidence {} and holds a bundle of {of}", entry.evidence_id.0);
            return Err((Kind::MalformedLeaf, detail));
        }
        let difference = difference(&recorded, &result.appraisal);
        let subject = result.claims.map(|claims| Subject {
            enclave_key: claims.enclave_key,
            provider: claims.provider,
            model_root: claims.model_root,
        });
        Ok(Again { appraisal: result.appraisal, difference, subject, cpu, gpu, policy, references })
    }
}

/// An appraisal that was made again.
struct Again {
    appraisal: Appraisal,
    /// What differs from what was recorded, and whether the outcome does.
    difference: Option<(bool, String)>,
    subject: Option<Subject>,
    cpu: &'static str,
    gpu: bool,
    policy: Arc<Document<Policy>>,
    references: Option<Arc<Document<ReferenceValues>>>,
}

impl Again {
    fn policy(&self) -> &str {
        (*self.policy).as_ref().map_or("not known", |(_, digest)| digest)
    }

    fn references(&self) -> Option<&str> {
        self.references.as_deref().map(|read| read.as_ref().map_or("not known", |(_, digest)| digest.as_str()))
    }
}

fn recorded(json: &[u8]) -> Result<Appraisal, String> {
    serde_json::from_slice(json)
        .map_err(|error| format!("the recorded appraisal cannot be read: {}", short(&error.to_string())))
}

/// What a recorded appraisal says that the one that was made again does not, if anything, and whether that is the outcome.
fn difference(recorded: &Result<Appraisal, String>, again: &Appraisal) -> Option<(bool, String)> {
    let recorded = match recorded {
        Ok(recorded) => recorded,
        Err(why) => return Some((true, why.clone())),
    };
    if again.is_recorded_as(recorded) {
        return None;
    }
    let mut parts = Vec::new();
    let mut differ = |what: &str, was: String, is: String| {
        if was != is {
            parts.push(format!("{what} was {}, is {}", short(&was), short(&is)));
        }
    };
    differ("outcome", recorded.outcome.to_string(), again.outcome.to_string());
    differ("reason", recorded.reason.clone(), again.reason.clone());
    let tcb = |appraisal: &Appraisal| appraisal.tcb_status.clone().unwrap_or_else(|| "none".into());
    differ("TCB status", tcb(recorded), tcb(again));
    differ("advisories", recorded.advisories.join(" "), again.advisories.join(" "));
    let check = |appraisal: &Appraisal, n: usize| match appraisal.checks.get(n) {
        Some(check) => format!("{} {}: {}", check.id, check.outcome, check.detail),
        None => "absent".into(),
    };
    let longest = recorded.checks.len().max(again.checks.len());
    if let Some(n) = (0..longest).find(|n| recorded.checks.get(*n) != again.checks.get(*n)) {
        differ(&format!("check {n}"), check(recorded, n), check(again, n));
    }
    if parts.is_empty() {
        parts.push("what was not checked, measured or stated besides differs".into());
    }
    Some((recorded.outcome != again.outcome, parts.join("; ")))
}

/// What is long is cut: findings are for people, and the leaf has all of it.
fn short(text: &str) -> String {
    let cut = text.floor_char_boundary(300);
    if cut < text.len() { format!("{:?}...", &text[..cut]) } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::UnixTime;
    use cocoon_verifier::appraise_bundle;

    use super::*;

    #[test]
    fn only_another_result_is_a_difference() {
        let again = appraise_bundle(b"no bundle", &Policy::default(), None, UnixTime(7)).appraisal;
        let json = serde_json::to_vec(&again).unwrap();
        let difference = |json: &[u8]| difference(&recorded(json), &again);
        assert_eq!(difference(&json), None);
        // Another spelling of the same.
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(difference(serde_json::to_string_pretty(&value).unwrap().as_bytes()), None);
        let differs = |alter: fn(&mut Appraisal), expected: &str| {
            let mut recorded = again.clone();
            alter(&mut recorded);
            let (outcome, found) = difference(&serde_json::to_vec(&recorded).unwrap()).expect(expected);
            assert!(found.contains(expected), "{found}");
            assert_eq!(outcome, recorded.outcome != again.outcome);
        };
        differs(|recorded| recorded.outcome = Outcome::Accepted, "outcome was \"accepted\", is \"malformed\"");
        differs(|recorded| recorded.reason = "fine".into(), "reason was \"fine\"");
        differs(|recorded| recorded.tcb_status = Some("UpToDate".into()), "TCB status was \"UpToDate\", is \"none\"");
        differs(|recorded| recorded.advisories = vec!["INTEL-SA-1".into()], "advisories was \"INTEL-SA-1\"");
        differs(|recorded| recorded.checks.clear(), "check 0 was \"absent\"");
        differs(|recorded| recorded.development = true, "stated besides differs");
        assert!(matches!(difference(b"{}"), Some((true, why)) if why.contains("cannot be read")));
        assert!(difference(&json[..json.len() - 1]).is_some());
    }
}
