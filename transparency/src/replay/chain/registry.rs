//! The Registry: which verifiers there were when, the verdicts that it took, each followed to the leaf behind it, and the checkpoints
//! of their logs.

use std::collections::BTreeSet;

use cocoon_attestation::{Digest, UnixTime};
use cocoon_settlement::cells::{CheckpointAnchor, Signature, Verdict};
use cocoon_settlement::contracts::events::{self, Event};
use cocoon_settlement::contracts::registry::anchored;
use cocoon_settlement::contracts::{VerifierSet, Verifiers, initial_state};
use cocoon_settlement::{Address, Nanoton};
use cocoon_verifier::Outcome;

use super::super::finding::{Finding, Kind};
use super::super::tiles::root_at;
use super::super::{LogResult, utc};
use super::store::{Kept, Verdicts};
use super::{Pages, Reconcile, ReplayedLog, SLACK, VerifierLink};
use crate::Error;
use crate::note::TreeHead;

/// Attestations that are written together.
const BATCH: usize = 1_000;

/// The verifiers of one time.
struct Set {
    epoch: u32,
    /// In force behind the transaction of this logical time.
    from: u64,
    threshold: u8,
    verifiers: Verifiers,
}

impl Set {
    fn of(set: &VerifierSet, from: u64) -> Self {
        Self { epoch: set.epoch, from, threshold: set.threshold, verifiers: set.verifiers.clone() }
    }
}

/// The verifiers of all times that are known, oldest first.
#[derive(Default)]
pub(super) struct Sets(Vec<Set>);

impl Sets {
    /// From the Registry's first data, where they are known, and what governance did since. Besides, why that does not lead to what
    /// it holds now, if so: then only the verifiers of now are known.
    fn of(first: Option<VerifierSet>, governance: &[(u64, Event)], now: &VerifierSet) -> (Self, Option<String>) {
        let lead = || -> Result<Option<Vec<Set>>, String> {
            let Some(mut set) = first else { return Ok(None) };
            let mut sets = vec![Set::of(&set, 0)];
            for (lt, event) in governance {
                let before = set.epoch;
                set.apply(event).map_err(|error| error.to_string())?;
                if set.epoch != before {
                    sets.push(Set::of(&set, *lt));
                }
            }
            if set == *now {
                return Ok(Some(sets));
            }
            Err(format!("it leads to verifier set {} with threshold {}", set.epoch, set.threshold))
        };
        let last = governance.last().map_or(0, |(lt, _)| *lt);
        match lead() {
            Ok(Some(sets)) => (Self(sets), None),
            Ok(None) => (Self(vec![Set::of(now, last)]), None),
            Err(why) => (Self(vec![Set::of(now, last)]), Some(why)),
        }
    }

    fn of_epoch(&self, epoch: u32) -> Option<&Set> {
        self.0.iter().find(|set| set.epoch == epoch)
    }

    /// The one in force for a transaction.
    fn at(&self, lt: u64) -> Option<&Set> {
        self.0.iter().rev().find(|set| set.from < lt)
    }

    /// The key of a position: one that was dropped keeps its last.
    fn key(&self, index: u8) -> Option<&[u8; 32]> {
        self.0.iter().rev().find_map(|set| set.verifiers.get(&index))
    }
}

/// Whether a log backs a verdict.
enum Backed {
    Yes,
    /// The verifier's log is not at hand.
    NoLog,
    /// The copy of it ends too early to say.
    Later(usize),
    /// The log, and what it says.
    No(String, String),
}

/// When this copy of a log ends: what is later may be in it and not in the copy.
pub(super) fn end(log: &LogResult) -> UnixTime {
    let cosigned = log.witnesses.iter().map(|(_, time)| *time).max();
    cosigned.max(log.totals.last).unwrap_or(UnixTime(0))
}

impl Reconcile<'_> {
    /// Follows every verdict and anchor that the Registry took; the Providers that it passed attestations on to.
    pub(super) async fn registry(&mut self) -> Result<BTreeSet<Address>, Error> {
        let address = self.input.registry;
        let (mut providers, mut governance, mut first) = (BTreeSet::new(), Vec::new(), None);
        let mut pages = Pages::of(&address, &self.registry);
        while let Some(page) = self.page(&mut pages).await? {
            let mut kept = Vec::new();
            for transaction in &page {
                let init = transaction.received.as_ref().and_then(|message| message.init.as_ref());
                if let Some((_, data)) = init.and_then(|init| initial_state(&address, init)) {
                    first = VerifierSet::of_data(&data).ok();
                }
                match self.event(transaction)? {
                    Some(Event::Attest { verdict, .. }) => {
                        providers.insert(verdict.provider);
                        kept.push(Kept::of(transaction, Nanoton::ZERO));
                    }
                    Some(Event::Anchor { .. }) => kept.push(Kept::of(transaction, Nanoton::ZERO)),
                    Some(Event::RevokeKey { provider, .. }) => drop(providers.insert(provider)),
                    Some(
                        event @ (Event::Propose { .. }
                        | Event::Execute { .. }
                        | Event::Cancel { .. }
                        | Event::Tighten { .. }),
                    ) => governance.push((transaction.lt, event)),
                    _ => {}
                }
            }
            self.store.keep(&kept)?;
        }
        governance.reverse();
        let data = self.registry.data.as_ref().ok_or(cocoon_settlement::Error::Incomplete("the Registry's data"))?;
        let now = VerifierSet::of_data(data)?;
        let (sets, why) = Sets::of(first, &governance, &now);
        self.sets = sets;
        if let Some(why) = why {
            let (set, needed) = (now.epoch, now.threshold);
            let detail =
                format!("the Registry holds verifier set {set} with threshold {needed}, and of its history: {why}");
            self.findings.add(Finding::new(Kind::Unreconciled, detail));
        }
        self.bind(&now).await?;
        self.follow()?;
        Ok(providers)
    }

    /// Which verifier keeps which log, by what the auditor trusts.
    async fn bind(&mut self, now: &VerifierSet) -> Result<(), Error> {
        for (place, log) in self.input.logs.iter().enumerate() {
            if let Some(key) = log.verifier.and_then(|index| self.sets.key(index)) {
                self.bound.entry(*key).or_insert(place);
            }
        }
        self.result.threshold = now.threshold;
        for (index, key) in &now.verifiers {
            let newest = anchored(self.input.chain, &self.input.registry, *index).await?;
            let newest = newest.filter(|anchored| anchored.verifier == *key);
            let log = self.bound.get(key).and_then(|place| self.input.logs.get(*place));
            self.result.verifiers.push(VerifierLink {
                index: *index,
                key: Digest(*key).to_string(),
                log: log.map(|log| log.result.origin.clone()),
                anchored: newest.map(|anchored| anchored.tree_size),
            });
        }
        Ok(())
    }

    /// Looks at the Registry's transactions again, oldest first, now that its verifiers are known.
    fn follow(&mut self) -> Result<(), Error> {
        let store = self.store.clone();
        let mut batch = Vec::new();
        store.each_kept(|kept| {
            match events::from_bytes(&kept.body)? {
                Some(Event::Attest { verdict, signatures }) => {
                    let verdicts = self.verdicts(&kept, &verdict, &signatures)?;
                    batch.extend(kept.sent.iter().map(|message| (*message, verdicts)));
                    if batch.len() >= BATCH {
                        store.put_verdicts(&batch)?;
                        batch.clear();
                    }
                }
                Some(Event::Anchor { index, checkpoint, .. }) => self.anchor(&kept, index, &checkpoint),
                _ => {}
            }
            Ok(())
        })?;
        store.put_verdicts(&batch)?;
        store.forget()
    }

    /// Follows verdicts to their leaves; what is kept of them for when the attestation shows at its Provider.
    fn verdicts(&mut self, kept: &Kept, verdict: &Verdict, signatures: &[(u8, Signature)]) -> Result<Verdicts, Error> {
        let evidence_id = verdict.evidence_id;
        // Signers whose log backs them, those about whom nothing can be said, and those whose log ends too early.
        let (mut backed, mut unknown, mut later) = (0u8, 0u8, 0u8);
        let Some(set) = self.sets.of_epoch(verdict.set_epoch) else {
            if self.unknown_sets.insert(verdict.set_epoch) {
                let detail = format!(
                    "verifier set {} signed it, whose keys do not follow from what the chain's server shows of the Registry",
                    verdict.set_epoch
                );
                let finding = Finding::new(Kind::SetNotKnown, detail).of(evidence_id).dated(kept.time);
                self.findings.add(finding.in_transaction(&kept.hash));
            }
            self.result.verdicts_without_log += signatures.len() as u64;
            return Ok(Verdicts { evidence_id, count: 0, needed: 0 });
        };
        let (needed, mut signers) = (set.threshold, Vec::new());
        // The Registry looks at no more.
        for (index, signature) in signatures.iter().take(needed.into()) {
            let Some(key) = set.verifiers.get(index) else { continue };
            if verdict.verify(signature, key).is_ok() && !signers.iter().any(|(known, _)| known == index) {
                signers.push((*index, *key));
            }
        }
        for (index, key) in signers {
            match self.backs(&key, verdict, kept.time)? {
                Backed::Yes => backed += 1,
                Backed::NoLog => unknown += 1,
                Backed::Later(place) => {
                    later += 1;
                    self.ends_early(place, kept);
                }
                Backed::No(log, why) => {
                    let detail = format!("verifier {index} signed for it, and its log {why}");
                    let finding = Finding::new(Kind::VerdictWithoutLeaf, detail).of(evidence_id);
                    self.findings.add(finding.in_log(&log).dated(kept.time).in_transaction(&kept.hash));
                }
            }
        }
        self.result.verdicts_followed += u64::from(backed);
        self.result.verdicts_without_log += u64::from(unknown);
        self.result.attestations_later += u64::from(later > 0);
        Ok(Verdicts { evidence_id, count: backed + unknown + later, needed })
    }

    /// Whether the log of the verifier with this key backs a verdict that the Registry took at a time: with a leaf of that evidence, of
    /// the node's own, that says accepted and is accepted again, is no later, and is about the same enclave, provider and model.
    fn backs(&self, key: &[u8; 32], verdict: &Verdict, taken: UnixTime) -> Result<Backed, Error> {
        let bound = self.bound.get(key).and_then(|place| Some((*place, self.input.logs.get(*place)?)));
        let Some((place, log)) = bound.filter(|(_, log)| log.result.root.is_some()) else { return Ok(Backed::NoLog) };
        let leaves = log.state.logged(&verdict.evidence_id)?;
        let no = |why: String| Ok(Backed::No(log.result.origin.clone(), why));
        let accepted = leaves.iter().filter(|leaf| leaf.confirmed && leaf.own);
        let (mut late, mut another) = (None, None);
        for leaf in accepted {
            let Some(subject) = leaf.subject else { continue };
            let same = (subject.enclave_key, Address::from(subject.provider), subject.model_root)
                == (verdict.enclave_key, verdict.provider, verdict.model_root);
            match (same, leaf.time <= taken.plus(SLACK)) {
                (true, true) => return Ok(Backed::Yes),
                (true, false) => late = late.or(Some(leaf)),
                (false, _) => another = another.or(Some((leaf, subject))),
            }
        }
        // Evidence is about one enclave for ever: no later leaf can change that.
        if let Some((leaf, subject)) = another {
            return no(format!(
                "accepted in leaf {} evidence of the enclave {} of {} with model {}; the verdict is for {} of {} with model {}",
                leaf.leaf,
                Digest(subject.enclave_key.0),
                Address::from(subject.provider),
                subject.model_root,
                Digest(verdict.enclave_key.0),
                verdict.provider,
                verdict.model_root
            ));
        }
        if self.is_later(log, taken) {
            return Ok(Backed::Later(place));
        }
        if let Some(leaf) = late {
            return no(format!("accepted it only in leaf {} of {}", leaf.leaf, utc(leaf.time)));
        }
        match leaves.last() {
            // It may stand in front of where the replay began, or where the log cannot be read on.
            None if log.result.from > 0 || log.result.replayed < log.result.size => Ok(Backed::NoLog),
            None => no("holds no leaf of that evidence".to_owned()),
            Some(leaf) if leaf.outcome != Outcome::Accepted => {
                no(format!("says {} of it in leaf {}", leaf.outcome, leaf.leaf))
            }
            Some(leaf) if leaf.confirmed => no(format!("holds it in leaf {}, in the name of another node", leaf.leaf)),
            Some(leaf) => no(format!("says accepted in leaf {}, which is not what comes of its evidence", leaf.leaf)),
        }
    }

    /// Whether something of this time may be missing in a log only because the copy of it ends before. Clocks differ a little.
    fn is_later(&self, log: &ReplayedLog<'_>, time: UnixTime) -> bool {
        time.plus(SLACK) > end(log.result).min(self.input.as_of)
    }

    /// A log does not hold what something rests on, maybe because the copy of it ends too early. What is later than the audit itself
    /// needs no word.
    fn ends_early(&mut self, place: usize, kept: &Kept) {
        if kept.time <= self.input.as_of {
            let first = self.later.entry(place).or_insert((0, kept.time, kept.hash));
            first.0 += 1;
        }
    }

    /// A checkpoint that a verifier anchored must be of its own log's past.
    fn anchor(&mut self, kept: &Kept, index: u8, anchored: &CheckpointAnchor) {
        let key = self.sets.at(kept.lt).and_then(|set| set.verifiers.get(&index));
        let Some(place) = key.and_then(|key| self.bound.get(key)).copied() else { return };
        let Some(log) = self.input.logs.get(place) else { return };
        let Some(root) = log.result.root.as_deref().and_then(|root| root.parse().ok()) else { return };
        let head = TreeHead { size: log.result.size, root };
        let (size, root) = (anchored.tree_size, anchored.root);
        let detail = if anchored.origin != Digest::of(&[log.result.origin.as_bytes()]) {
            format!(
                "verifier {index} anchored a checkpoint of another log, whose name has the SHA-256 {}",
                anchored.origin
            )
        } else if size > head.size {
            if self.is_later(log, kept.time) {
                return self.ends_early(place, kept);
            }
            format!("verifier {index} anchored {size} leaves of it, and it shows {}", head.size)
        } else {
            match root_at(log.source, &head, size) {
                Ok(own) if own == root => {
                    self.result.anchors_followed += 1;
                    return;
                }
                Ok(own) => {
                    format!("verifier {index} anchored {size} leaves of root {root}, and the log's have the root {own}")
                }
                // Its own tiles are damaged, which was found already.
                Err(_) => return,
            }
        };
        let finding = Finding::new(Kind::AnchorDiffers, detail).in_log(&log.result.origin).dated(kept.time);
        self.findings.add(finding.in_transaction(&kept.hash));
    }
}
