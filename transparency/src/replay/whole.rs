//! A log as a whole: its checkpoint, and whether it continues whatever else it signed.

use std::collections::{BTreeMap, BTreeSet};

use cocoon_attestation::Digest;

use super::finding::{Finding, Kind};
use super::state::{Saved, State};
use super::tiles::root_at;
use super::totals::Totals;
use super::{LogInput, LogResult, MOST_CHECKPOINT, origin};
use crate::Error;
use crate::layout::{self, CHECKPOINT, WIDTH};
use crate::note::{TreeHead, open_checkpoint, open_cosigned};
use crate::tree::Edge;

/// The log as a whole: its checkpoint, and whether it continues others.
pub(super) struct LogReplay<'a> {
    input: &'a LogInput<'a>,
    pub result: LogResult,
}

impl<'a> LogReplay<'a> {
    pub fn new(input: &'a LogInput<'a>) -> Self {
        let result = LogResult {
            origin: origin(input.key).into(),
            key: input.key.into(),
            size: 0,
            root: None,
            checkpoint: String::new(),
            witnesses: Vec::new(),
            replayed: 0,
            from: input.from,
            totals: Totals::default(),
            findings: Vec::new(),
            whole: false,
        };
        Self { input, result }
    }

    pub fn found(&mut self, finding: Finding) {
        let finding = finding.in_log(&self.result.origin);
        self.result.findings.push(finding);
    }

    pub fn counted(mut self) -> LogResult {
        self.result.findings.iter().for_each(|finding| self.result.totals.found(finding.kind));
        self.result
    }

    /// The newest checkpoint, if the log signed it.
    pub fn checkpoint(&mut self, state: &State) -> Result<Option<TreeHead>, Error> {
        let Some(bytes) = self.input.source.read(CHECKPOINT)? else {
            self.found(Finding::new(Kind::BadCheckpoint, "there is none"));
            return Ok(None);
        };
        if bytes.len() > MOST_CHECKPOINT {
            let detail = format!("it has {} bytes, more than {MOST_CHECKPOINT}", bytes.len());
            self.found(Finding::new(Kind::BadCheckpoint, detail));
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The log's own signature first: a line of somebody else's is not the log's fault.
        let head = match open_checkpoint(&text, self.input.key) {
            Ok(head) => head,
            Err(error @ Error::VerifierKey(_)) => return Err(error),
            Err(error) => {
                let mut finding = Finding::new(Kind::BadCheckpoint, error.to_string());
                finding.evidence.push(text);
                self.found(finding);
                return Ok(None);
            }
        };
        for witness in self.input.witnesses {
            let name = origin(witness);
            match open_cosigned(&text, self.input.key, std::slice::from_ref(witness)) {
                Ok(cosigned) => match cosigned.witnesses.first() {
                    Some((_, at)) => self.result.witnesses.push((name.into(), *at)),
                    None => {
                        let detail = format!("{name} did not cosign the checkpoint of {} leaves", head.size);
                        self.found(Finding::new(Kind::NotCosigned, detail).about(name));
                    }
                },
                Err(error @ Error::VerifierKey(_)) => return Err(error),
                Err(_) => {
                    let detail = format!(
                        "a line that bears the name of {name} is not its signature of these {} leaves",
                        head.size
                    );
                    let mut finding = Finding::new(Kind::BadCosignature, detail).about(name);
                    finding.evidence.push(text.clone());
                    self.found(finding);
                }
            }
        }
        self.result.size = head.size;
        self.result.root = Some(head.root.to_string());
        self.result.checkpoint = text;
        // Whatever comes of the replay, what the log signed is kept.
        state.keep_checkpoint(&head, &self.result.checkpoint, &[])?;
        Ok(Some(head))
    }

    /// The edge of what was replayed before, if the log still holds it.
    pub fn resume(&mut self, saved: &Saved, head: &TreeHead) -> Option<Edge> {
        if saved.tiles.checked_mul(WIDTH)? > head.size {
            return None;
        }
        let edge = Edge::resume(saved.tiles, |level, index| {
            let tile = self.input.source.read(&layout::hashes(level, index, WIDTH)).ok().flatten();
            tile.filter(|hashes| hashes.len() as u64 == WIDTH * 32).ok_or(())
        });
        edge.ok().filter(|edge| edge.root() == saved.root)
    }

    /// Every other checkpoint of the log that anybody has shown.
    pub fn others(&self, state: &State, head: &TreeHead) -> Result<Vec<(TreeHead, String)>, Error> {
        let mut others = state.checkpoints()?;
        for text in self.input.checkpoints.iter().filter(|text| text.len() <= MOST_CHECKPOINT) {
            // One that the log did not sign says nothing about it.
            if let Ok(other) = open_checkpoint(text, self.input.key) {
                state.keep_checkpoint(&other, text, &[])?;
                others.push((other, text.clone()));
            }
        }
        others.sort_by_key(|(other, _)| (other.size, other.root));
        others.dedup_by(|a, b| a.0 == b.0);
        others.retain(|(other, _)| other != head);
        Ok(others)
    }

    /// Whether the log continues every checkpoint of it that anybody has shown. `roots` are those that its leaves made on the way.
    pub fn continues(
        &mut self,
        state: &State,
        head: &TreeHead,
        others: Vec<(TreeHead, String)>,
        roots: &BTreeMap<u64, Digest>,
    ) -> Result<(), Error> {
        let mut continued = Vec::new();
        let (known, key) = (state.splits()?, self.input.key);
        let split_before = |other: &TreeHead| {
            let shown = |text: &String| open_checkpoint(text, key).is_ok_and(|head| head == *other);
            known.iter().any(|split| split.evidence.iter().any(shown))
        };
        let mut split = BTreeSet::new();
        for (other, text) in others {
            let (kind, detail) = if other.size > head.size {
                // One of two histories: which of them is shown now does not matter.
                if split_before(&other) {
                    continue;
                }
                // Nothing says that the one continues the other, nor that it does not.
                let detail = format!("it signed {} leaves, and shows {} here", other.size, head.size);
                (Kind::StaleCheckpoint, detail)
            } else if other.size == head.size {
                let detail =
                    format!("two trees of {} leaves have the roots {} and {}", head.size, other.root, head.root);
                (Kind::SplitView, detail)
            } else if !self.result.whole {
                // Its own leaves make no tree that it signed, which was found already; what it showed is kept for another time.
                continue;
            } else {
                let root = roots
                    .get(&other.size)
                    .map_or_else(|| root_at(self.input.source, head, other.size), |root| Ok(*root));
                match root {
                    Ok(root) if root == other.root => {
                        continued.push(other);
                        continue;
                    }
                    Ok(root) => {
                        let detail = format!(
                            "its tree of {} leaves begins with {} leaves of root {root}, and it signed {} leaves of root {}",
                            head.size, other.size, other.size, other.root
                        );
                        (Kind::SplitView, detail)
                    }
                    Err(error) => (Kind::TileDiffers, error.to_string()),
                }
            };
            let mut finding = Finding::new(kind, detail).about(other.root.to_string());
            finding.evidence = vec![text, self.result.checkpoint.clone()];
            if kind == Kind::SplitView {
                state.keep_split(&finding)?;
                split.insert(finding.about.clone());
            }
            self.found(finding);
        }
        for before in known.into_iter().filter(|before| !split.contains(&before.about)) {
            self.found(before);
        }
        state.keep_checkpoint(head, &self.result.checkpoint, &continued)
    }
}
