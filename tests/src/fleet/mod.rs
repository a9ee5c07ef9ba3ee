//! A fleet's history, made by the development platform: enclaves on many machines, renewed daily, three verifier nodes with a log each,
//! contracts on the local chain, and faults at known places. A replay must find every one of them and nothing else.

pub mod chain;
pub mod history;
pub mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;

use cocoon_attestation::Digest;
use cocoon_transparency::replay::report::Report;
use cocoon_transparency::replay::{Kind, origin};

pub use chain::FleetChain;
pub use history::History;

/// Nodes of a fleet.
pub const NODES: usize = 3;
/// Verdicts that an attestation needs.
pub const THRESHOLD: u8 = 2;

/// What is made.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Enclaves.
    pub enclaves: usize,
    /// Days, each with a renewal of every enclave.
    pub days: u64,
    /// Enclaves on one machine.
    pub per_machine: usize,
    /// How the enclaves' evidence is made up, by turns.
    pub kinds: Vec<EvidenceKind>,
    /// OCSP responses come with GPUs.
    pub ocsp: bool,
    /// Faults are mixed in.
    pub faults: bool,
}

/// What an enclave's evidence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceKind {
    /// A TDX quote.
    Tdx,
    /// A TDX quote and a GPU's report.
    TdxGpu,
    /// An SNP report.
    Snp,
}

impl Default for Spec {
    fn default() -> Self {
        use EvidenceKind::{Snp, Tdx, TdxGpu};
        let kinds = vec![Tdx, TdxGpu, Tdx, Snp, Tdx];
        Self { enclaves: 20, days: 4, per_machine: 4, kinds, ocsp: false, faults: true }
    }
}

/// A finding that a replay must make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// What it is.
    pub kind: Kind,
    /// In which node's log.
    pub node: Option<usize>,
    /// In which leaf.
    pub leaf: Option<u64>,
    /// About which evidence.
    pub evidence_id: Option<Digest>,
}

/// One node's log.
#[derive(Clone, Debug)]
pub struct FleetLog {
    /// Its data folder.
    pub folder: PathBuf,
    /// Its verifier key.
    pub key: String,
    /// The verifier key of its cosignatures.
    pub witness: String,
    /// Checkpoints that others kept.
    pub checkpoints: Vec<String>,
}

/// What of a report was not expected, and what was expected and is not there; both empty if replay found every fault and nothing else.
pub fn compare(report: &Report, logs: &[FleetLog], expected: &[Expected]) -> (Vec<String>, Vec<Expected>) {
    let mut left: BTreeMap<Expected, u64> = BTreeMap::new();
    for fault in expected {
        *left.entry(fault.clone()).or_default() += 1;
    }
    let mut unexpected = Vec::new();
    for finding in &report.findings {
        let node = finding.log.as_deref().and_then(|log| logs.iter().position(|known| origin(&known.key) == log));
        let found = left.iter_mut().find(|(fault, count)| {
            **count > 0
                && fault.kind == finding.kind
                && fault.node == node
                && (fault.leaf.is_none() || fault.leaf == finding.leaf)
                && (fault.evidence_id.is_none() || fault.evidence_id == finding.evidence_id)
        });
        match found {
            Some((_, count)) => *count -= 1,
            None => unexpected.push(format!("{finding:?}")),
        }
    }
    let missed = left.into_iter().filter(|(_, count)| *count > 0).map(|(fault, _)| fault).collect();
    (unexpected, missed)
}
