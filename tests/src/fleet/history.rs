//! The logs' side of a fleet's history.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cocoon_attestation::binding::{gpu_digest, gpu_nonce, report_data};
use cocoon_attestation::dev::{
    CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SnpEndorsementSpec, SnpSpec,
    TdxSpec, serial,
};
use cocoon_attestation::reference::{ImageReference, ModelReference, SnpReference, TdxReference};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, GpuEndorsements, Measurement,
    ProviderAddress, ReferenceValues, SnpEndorsements, UnixTime,
};
use cocoon_protocol::identity::SigningKey;
use cocoon_transparency::replay::{Kind, VERIFIER};
use cocoon_transparency::{AddCheckpoint, Leaf, Log, Witness, layout, log_key};
use cocoon_verifier::{Appraisal, Beside, Outcome, Policy, Verifier};

use super::{EvidenceKind, Expected, FleetLog, NODES, Spec};

/// The first day begins here: midnight.
pub const START: u64 = 1_790_035_200;
/// SHA-256 of the fleet's image.
pub const IMAGE: Digest = Digest([0x1a; 32]);
/// Root of the fleet's model.
pub const MODEL: Digest = Digest([0x2b; 32]);
/// Seconds of a day.
pub const DAY: u64 = 86_400;
/// Days that collateral is used before it is fetched anew.
const COLLATERAL_DAYS: u64 = 7;
/// Leaves that are appended at once.
const BATCH: usize = 2_048;

/// One renewal of one enclave.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Which enclave.
    pub enclave: usize,
    /// On which day, from zero.
    pub day: u64,
    /// When.
    pub time: UnixTime,
    /// Its evidence.
    pub evidence_id: Digest,
    /// Nodes that sign a verdict for it; none: it is not attested.
    pub signers: Vec<u8>,
}

/// What was made.
pub struct History {
    /// The logs.
    pub logs: Vec<FleetLog>,
    /// Renewals in the order of their times, for the chain's side.
    pub renewals: Vec<Renewal>,
    /// Newest tree of each log at the end of each day: day, node, size, root.
    pub heads: Vec<(u64, usize, u64, Digest)>,
    /// What a replay must find in the logs alone.
    pub expected: Vec<Expected>,
    /// What it must find besides once it sees the chain.
    pub expected_on_chain: Vec<Expected>,
    /// Leaves in all logs.
    pub leaves: u64,
    /// Seconds that it took to make evidence, and to append it.
    pub seconds: (f64, f64),
}

/// The seed of an enclave's identity key.
pub fn enclave_seed(enclave: usize) -> [u8; 32] {
    Digest::of(&[b"fleet enclave", &(enclave as u64).to_be_bytes()]).0
}

/// The seed of a node's verdict key.
pub fn verdict_seed(node: usize) -> [u8; 32] {
    Digest::of(&[b"fleet verdict", &(node as u64).to_be_bytes()]).0
}

fn log_seed(node: usize) -> [u8; 32] {
    Digest::of(&[b"fleet log", &(node as u64).to_be_bytes()]).0
}

fn name(node: usize) -> String {
    format!("node-{node}.fleet.example/log")
}

/// What happens to one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// All nodes accept it.
    Good,
    /// All nodes refuse it, rightly: it can be debugged.
    Debug,
    /// Its platform is out of date, and nodes 0 and 1 recorded that it was not.
    StaleTcb,
    /// Its chip was revoked, and node 0 recorded that it was not.
    RevokedChip,
    /// Node 2 signed a verdict and logged nothing.
    ForgedVerdict,
    /// Node 1's log loses its leaf.
    LostLeaf,
}

/// Makes the evidence.
struct Maker {
    platform: DevPlatform,
    spec: Spec,
    policy: Policy,
    policy_text: String,
    references: ReferenceValues,
    verifier: Verifier,
    /// Endorsements that some bundle had, and where the verifier finds them.
    kept: Arc<Mutex<HashMap<Digest, Vec<u8>>>>,
    beside: Beside<'static>,
    policy_digest: Digest,
    references_digest: Digest,
    collateral: Mutex<HashMap<(u64, Bad), Vec<u8>>>,
    chips: Mutex<HashMap<u64, SnpEndorsements>>,
    chains: Mutex<HashMap<u8, Vec<u8>>>,
    manifests: Vec<Vec<u8>>,
    ocsp: Vec<Vec<u8>>,
    /// Parts that were handed out already.
    parts: Mutex<HashSet<Digest>>,
    provider: Box<dyn Fn(usize) -> ProviderAddress + Send + Sync>,
}

/// Makes something once.
fn once<K: Eq + Hash, V: Clone>(known: &Mutex<HashMap<K, V>>, key: K, make: impl FnOnce() -> V) -> V {
    known.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(make).clone()
}

/// A renewal's evidence as each node logs it.
struct Made {
    enclave: usize,
    time: UnixTime,
    fate: Fate,
    evidence_id: Digest,
    /// Entries for the nodes that log it, and whether what they say is not what comes of it.
    entries: Vec<Option<(Vec<u8>, bool)>>,
    /// Parts that no leaf before it named.
    parts: Vec<(Digest, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bad {
    No,
    Stale,
    Revoked(u64),
}

impl Maker {
    fn new(spec: &Spec, provider: Box<dyn Fn(usize) -> ProviderAddress + Send + Sync>) -> Result<Self> {
        let platform = DevPlatform::from_seed([7; 32]);
        let roots = [platform.tdx_root_der(), platform.snp_ark_der(), platform.gpu_root_der()].map(hex::encode);
        let policy_text = format!("# A fleet's policy.\nroots = [\"{}\"]\n", roots.join("\", \""));
        let mut references =
            ReferenceValues::new(ImageReference { name: "fleet-image".into(), version: "1".into(), digest: IMAGE });
        let tdx = TdxSpec::default().body.mr_td;
        references.tdx.push(TdxReference::of_mrtd(Measurement(tdx)));
        references.snp.push(SnpReference { measurement: Measurement(SnpSpec::default().measurement) });
        references.models.push(ModelReference { name: "fleet-model".into(), root: MODEL });
        let policy_digest = Digest::of(&[policy_text.as_bytes()]);
        let references_digest = Digest::of(&[references.to_toml().as_bytes()]);
        let kept = Arc::<Mutex<HashMap<_, _>>>::default();
        Ok(Self {
            policy: Policy::from_toml(&policy_text)?,
            policy_text,
            references,
            verifier: Verifier::with_capacity(8_192),
            beside: Beside::new({
                let kept = kept.clone();
                move |digest| kept.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
            }),
            kept,
            policy_digest,
            references_digest,
            collateral: Mutex::default(),
            chips: Mutex::default(),
            chains: Mutex::default(),
            parts: Mutex::default(),
            manifests: vec![platform.gpu_manifest(&RimSpec::driver()), platform.gpu_manifest(&RimSpec::vbios())],
            ocsp: OcspSubject::ASKED.map(|subject| platform.gpu_ocsp(&OcspSpec::new(subject))).to_vec(),
            platform,
            spec: spec.clone(),
            provider,
        })
    }

    fn kind(&self, enclave: usize) -> EvidenceKind {
        self.spec.kinds[enclave % self.spec.kinds.len()]
    }

    fn machine(&self, enclave: usize) -> u64 {
        (enclave / self.spec.per_machine.max(1)) as u64
    }

    fn collateral(&self, day: u64, bad: Bad) -> Vec<u8> {
        let week = day / COLLATERAL_DAYS;
        let platform = &self.platform;
        once(&self.collateral, (week, bad), || {
            let issued = UnixTime(START + week * COLLATERAL_DAYS * DAY - DAY);
            let mut spec = CollateralSpec::issued(issued, issued.plus(30 * DAY));
            match bad {
                Bad::No => {}
                Bad::Stale => spec.tcb_info.tcb_levels[0].tcb_status = "OutOfDate".into(),
                Bad::Revoked(serial) => spec.pck_crl.revoked = vec![serial],
            }
            platform.tdx_collateral(&spec)
        })
    }

    /// The evidence of a renewal, endorsed well or badly.
    fn bundle(&self, enclave: usize, day: u64, time: UnixTime, fate: Fate) -> Result<(Bundle, Bad)> {
        let kind = self.kind(enclave);
        let machine = self.machine(enclave);
        let key = SigningKey::from_seed(&enclave_seed(enclave)).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut claims = Claims {
            enclave_key: EnclaveKey(key.public()),
            provider: (self.provider)(enclave),
            model_name: "fleet-model".into(),
            model_root: self.references.models[0].root,
            config_digest: Digest([0x3c; 32]),
            beacon: Beacon {
                seqno: (time.0 / 5) as u32,
                root_hash: Digest::of(&[&time.0.to_be_bytes()]),
                time: UnixTime(time.0 - 30),
            },
            nonce_root: Digest([0; 32]),
            gpu_digest: None,
        };
        let gpu_index = (machine % 200) as u8;
        let mut gpu = Vec::new();
        if kind == EvidenceKind::TdxGpu {
            gpu.push(self.platform.gpu_report(&GpuSpec {
                nonce: gpu_nonce(&claims),
                gpu: gpu_index,
                ..GpuSpec::default()
            }));
            claims.gpu_digest = gpu_digest(&gpu);
        }
        let claims = claims.to_cbor();
        let data = report_data(&claims);
        let pck = serial::PCK + 1_000 + machine;
        let bad = match fate {
            Fate::StaleTcb => Bad::Stale,
            Fate::RevokedChip => Bad::Revoked(pck),
            _ => Bad::No,
        };
        let (cpu, endorsements) = match kind {
            EvidenceKind::Snp => {
                let mut chip = [0xc1; 64];
                chip[..8].copy_from_slice(&machine.to_be_bytes());
                let policy = if fate == Fate::Debug { 0x30000 | 1 << 19 } else { 0x30000 };
                let spec = SnpSpec { report_data: data, chip_id: chip, policy, ..SnpSpec::default() };
                let endorsed = SnpEndorsementSpec { hwid: chip.to_vec(), ..SnpEndorsementSpec::default() };
                let report = self.platform.snp_report(&spec);
                let chain = once(&self.chips, machine, || self.platform.snp_endorsements(&endorsed));
                (CpuEvidence::Snp { report }, Endorsements::Snp(chain))
            }
            EvidenceKind::Tdx | EvidenceKind::TdxGpu => {
                let mut spec = TdxSpec::default();
                spec.body.report_data = data;
                spec.pck.certificate.serial = pck;
                if fate == Fate::Debug {
                    spec.body.td_attributes = (1u64 << 28 | 1).to_le_bytes();
                }
                let quote = self.platform.tdx_quote(&spec);
                (CpuEvidence::Tdx { quote }, Endorsements::Tdx { collateral: self.collateral(day, bad) })
            }
        };
        let mut gpu_endorsements = GpuEndorsements::default();
        if !gpu.is_empty() {
            let spec = GpuChainSpec { gpu: gpu_index, ..GpuChainSpec::default() };
            gpu_endorsements.chains = vec![once(&self.chains, gpu_index, || self.platform.gpu_chain(&spec))];
            gpu_endorsements.manifests.clone_from(&self.manifests);
            if self.spec.ocsp {
                gpu_endorsements.ocsp.clone_from(&self.ocsp);
            }
        }
        Ok((Bundle { claims, cpu, gpu, event_log: None, endorsements, gpu_endorsements }, bad))
    }

    /// A renewal as each node logs it.
    fn make(&self, enclave: usize, day: u64, fate: Fate) -> Result<Made> {
        let time = UnixTime(START + day * DAY + enclave as u64 * DAY / self.spec.enclaves as u64);
        let (bundle, bad) = self.bundle(enclave, day, time, fate)?;
        let true_result = self.appraise(&bundle, time);
        match fate {
            Fate::Good | Fate::ForgedVerdict | Fate::LostLeaf => {
                ensure!(true_result.outcome == Outcome::Accepted, "{}", true_result.reason);
            }
            Fate::Debug | Fate::StaleTcb | Fate::RevokedChip => {
                ensure!(true_result.outcome != Outcome::Accepted, "it was to be refused");
            }
        }
        // What a node says that holds good endorsements against the evidence and logs bad ones beside it.
        let false_result = match bad {
            Bad::No => None,
            _ => {
                let collateral = self.collateral(day, Bad::No);
                let good = Bundle { endorsements: Endorsements::Tdx { collateral }, ..bundle.clone() };
                Some(self.appraise(&good, time))
            }
        };
        let (leaf, mut parts) = Leaf::new(&bundle, &true_result, time, self.policy_digest);
        let false_leaf = false_result.as_ref().map(|result| Leaf::new(&bundle, result, time, self.policy_digest));
        let mut entries = Vec::new();
        for n in 0..NODES {
            let lies = matches!((fate, n), (Fate::StaleTcb, 0 | 1) | (Fate::RevokedChip, 0));
            // Evidence that is not authentic is not logged by an honest node.
            if matches!((fate, n), (Fate::RevokedChip, 1 | 2) | (Fate::ForgedVerdict, 2)) {
                entries.push(None);
                continue;
            }
            let mut own = match false_leaf.as_ref().filter(|_| lies) {
                Some((leaf, _)) => {
                    ensure!(leaf.outcome == Outcome::Accepted, "no fault");
                    leaf.clone()
                }
                None => leaf.clone(),
            };
            own.node = name(n);
            own.verifier = VERIFIER.into();
            own.references = Some(self.references_digest);
            entries.push(Some((own.to_cbor(), lies)));
        }
        parts.extend(false_leaf.into_iter().flat_map(|(_, parts)| parts));
        let mut known = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|(digest, _)| known.insert(*digest));
        drop(known);
        Ok(Made { enclave, time, fate, evidence_id: bundle.evidence_id().0, entries, parts })
    }

    /// The same for many, on all cores.
    fn make_all(&self, enclaves: Range<usize>, day: u64, fates: &HashMap<(usize, u64), Fate>) -> Result<Vec<Made>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let all: Vec<usize> = enclaves.collect();
        let some = |enclaves: &[usize]| -> Result<Vec<Made>> {
            let fate = |enclave: &usize| fates.get(&(*enclave, day)).copied().unwrap_or(Fate::Good);
            enclaves.iter().map(|enclave| self.make(*enclave, day, fate(enclave))).collect()
        };
        let each = all.len().div_ceil(cores).max(1);
        let parts: Vec<Result<Vec<Made>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = all.chunks(each).map(|enclaves| scope.spawn(move || some(enclaves))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
            };
            threads.into_iter().map(join).collect()
        });
        let mut made = Vec::new();
        for part in parts {
            made.extend(part?);
        }
        Ok(made)
    }

    fn appraise(&self, bundle: &Bundle, time: UnixTime) -> Appraisal {
        let (detached, parts) = bundle.to_detached();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend(parts);
        self.verifier.detached(&detached, &self.beside, &self.policy, Some(&self.references), time).appraisal
    }
}

/// Where the faults are: enclave and day.
fn fates(spec: &Spec) -> HashMap<(usize, u64), Fate> {
    if !spec.faults {
        return HashMap::new();
    }
    let of_kind = |kind: &[EvidenceKind], from: usize| {
        (from..spec.enclaves).find(|enclave| kind.contains(&spec.kinds[enclave % spec.kinds.len()])).unwrap_or(0)
    };
    let tdx = [EvidenceKind::Tdx, EvidenceKind::TdxGpu];
    let middle = spec.days / 2;
    HashMap::from([
        ((of_kind(&tdx, 1), middle), Fate::StaleTcb),
        ((of_kind(&tdx, spec.enclaves / 3), middle), Fate::RevokedChip),
        ((spec.enclaves / 2, middle), Fate::ForgedVerdict),
        ((spec.enclaves / 2 + 1, 0), Fate::LostLeaf),
        ((spec.enclaves - 1, spec.days - 1), Fate::Debug),
        ((spec.enclaves - 2, 0), Fate::Debug),
    ])
}

/// Makes the history in a folder. `provider` says who is paid for an enclave; `told` is told how many renewals are done.
///
/// # Errors
/// The disk failed.
pub fn make(
    folder: &Path,
    spec: &Spec,
    provider: impl Fn(usize) -> ProviderAddress + Send + Sync + 'static,
    mut told: impl FnMut(u64),
) -> Result<History> {
    ensure!(spec.enclaves >= 10 && spec.days >= 2, "the faults need ten enclaves and two days");
    let maker = Maker::new(spec, Box::new(provider))?;
    let fates = fates(spec);
    let keys: Vec<String> = (0..NODES).map(|node| log_key(&name(node), &log_seed(node))).collect::<Result<_, _>>()?;
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let seed = Witness::seed(&log_seed(node))?;
        let dir = folder.join(format!("node-{node}"));
        std::fs::create_dir_all(&dir)?;
        let log = Log::open(&dir, &name(node), log_seed(node))?;
        let witness_name = format!("node-{node}.fleet.example/witness");
        let witness = Witness::open(&dir.join("witness.redb"), &witness_name, &seed, &keys)?;
        nodes.push(NodeOf { dir, log, witness, entries: Vec::new(), published: 0 });
    }
    let references_text = maker.references.to_toml();
    for node in &nodes {
        let policy = (maker.policy_digest, maker.policy_text.as_bytes());
        node.log.add_parts([policy, (maker.references_digest, references_text.as_bytes())])?;
    }
    let mut history = History {
        logs: Vec::new(),
        renewals: Vec::new(),
        heads: Vec::new(),
        expected: Vec::new(),
        expected_on_chain: Vec::new(),
        leaves: 0,
        seconds: (0.0, 0.0),
    };
    let mut lost = None;
    for day in 0..spec.days {
        for first in (0..spec.enclaves).step_by(BATCH) {
            let started = Instant::now();
            let made = maker.make_all(first..(first + BATCH).min(spec.enclaves), day, &fates)?;
            history.seconds.0 += started.elapsed().as_secs_f64();
            let started = Instant::now();
            for one in made {
                history.take(day, one, &mut nodes, &mut lost)?;
            }
            nodes.iter_mut().try_for_each(NodeOf::append)?;
            history.seconds.1 += started.elapsed().as_secs_f64();
            told(history.renewals.len() as u64);
        }
        let started = Instant::now();
        let now = UnixTime(START + (day + 1) * DAY);
        for n in 0..NODES {
            nodes[n].append()?;
            let (size, root) = publish(&mut nodes, n, now)?;
            history.heads.push((day, n, size, root));
        }
        history.seconds.1 += started.elapsed().as_secs_f64();
    }
    history.leaves = nodes.iter().map(|node| node.log.size()).sum();
    let mut fork = None;
    if spec.faults {
        fork = Some(forked(folder, &nodes[2], &maker.policy_digest)?);
        history.expected.push(Expected { kind: Kind::SplitView, node: Some(2), leaf: None, evidence_id: None });
    }
    for (n, node) in nodes.iter().enumerate() {
        let checkpoints = if n == 2 { fork.iter().cloned().collect() } else { Vec::new() };
        let key = node.log.vkey().to_owned();
        history.logs.push(FleetLog {
            folder: node.dir.clone(),
            key,
            witness: node.witness.vkey().to_owned(),
            checkpoints,
        });
    }
    let dirs: Vec<_> = nodes.iter().map(|node| node.dir.clone()).collect();
    drop(nodes);
    if let Some(index) = lost {
        lose(&dirs[1], index)?;
        history.expected.push(Expected {
            kind: Kind::MissingLeaf,
            node: Some(1),
            leaf: Some(index),
            evidence_id: None,
        });
    }
    Ok(history)
}

impl History {
    /// Takes a renewal into the logs, and what must be found about it.
    fn take(&mut self, day: u64, made: Made, nodes: &mut [NodeOf], lost: &mut Option<u64>) -> Result<()> {
        let Made { enclave, time, fate, evidence_id, entries, parts } = made;
        for ((n, node), entry) in nodes.iter_mut().enumerate().zip(entries) {
            node.log.add_parts(parts.iter().map(|(digest, bytes)| (*digest, bytes.as_slice())))?;
            let Some((entry, lies)) = entry else { continue };
            let index = node.next();
            if lies {
                let (node, leaf, evidence_id) = (Some(n), Some(index), Some(evidence_id));
                self.expected.push(Expected { kind: Kind::ResultDiffers, node, leaf, evidence_id });
            }
            if fate == Fate::LostLeaf && n == 1 {
                *lost = Some(index);
            }
            node.entries.push(entry);
        }
        let signers = match fate {
            Fate::Good => vec![0, 1],
            Fate::LostLeaf => vec![0, 2],
            Fate::ForgedVerdict => {
                self.on_chain(Kind::VerdictWithoutLeaf, Some(2), evidence_id);
                self.on_chain(Kind::AttestationWithoutQuorum, None, evidence_id);
                vec![0, 2]
            }
            Fate::StaleTcb => {
                self.on_chain(Kind::VerdictWithoutLeaf, Some(0), evidence_id);
                self.on_chain(Kind::VerdictWithoutLeaf, Some(1), evidence_id);
                self.on_chain(Kind::AttestationWithoutQuorum, None, evidence_id);
                vec![0, 1]
            }
            Fate::Debug | Fate::RevokedChip => Vec::new(),
        };
        self.renewals.push(Renewal { enclave, day, time, evidence_id, signers });
        Ok(())
    }

    fn on_chain(&mut self, kind: Kind, node: Option<usize>, evidence_id: Digest) {
        self.expected_on_chain.push(Expected { kind, node, leaf: None, evidence_id: Some(evidence_id) });
    }
}

struct NodeOf {
    dir: std::path::PathBuf,
    log: Log,
    witness: Witness,
    entries: Vec<Vec<u8>>,
    published: u64,
}

impl NodeOf {
    /// The index that the next leaf gets.
    fn next(&self) -> u64 {
        self.log.size() + self.entries.len() as u64
    }

    fn append(&mut self) -> Result<()> {
        let entries = std::mem::take(&mut self.entries);
        if !entries.is_empty() {
            self.log.append(entries)?;
        }
        Ok(())
    }
}

/// Publishes a node's checkpoint, cosigned by the others.
fn publish(nodes: &mut [NodeOf], n: usize, now: UnixTime) -> Result<(u64, Digest)> {
    let head = nodes[n].log.head()?;
    let old = nodes[n].published;
    let proof = nodes[n].log.consistency(old, head.tree.size)?;
    let request = AddCheckpoint { old, proof, checkpoint: head.checkpoint.clone() }.to_text();
    let mut lines = Vec::new();
    for (_, other) in nodes.iter().enumerate().filter(|(other, _)| *other != n) {
        lines.push(other.witness.add_checkpoint(&request, now).context("a witness does not cosign")?);
    }
    nodes[n].log.publish(&head, &lines)?;
    nodes[n].published = head.tree.size;
    Ok((head.tree.size, head.tree.root))
}

/// A checkpoint of the same log over another history: what the log shows to somebody else.
fn forked(folder: &Path, node: &NodeOf, policy: &Digest) -> Result<String> {
    let fork = Log::open(&folder.join("fork"), &name(2), log_seed(2))?;
    let size = node.log.size().min(300);
    let mut entries: Vec<Vec<u8>> = (0..size).map(|index| node.log.entry(index)).collect::<Result<_, _>>()?;
    let mut other = Leaf::from_cbor(entries.last().context("an empty log")?)?;
    other.policy = Digest::of(&[&policy.0]);
    entries.pop();
    entries.push(other.to_cbor());
    fork.append(entries)?;
    Ok(fork.head()?.checkpoint)
}

/// Takes an entry out of its file, as a log would that would rather not have it.
fn lose(dir: &Path, index: u64) -> Result<()> {
    let tile = index / layout::WIDTH;
    let public = dir.join("public");
    let full = public.join(layout::entries(tile, layout::WIDTH));
    let path = if full.exists() {
        full
    } else {
        (1..layout::WIDTH)
            .rev()
            .map(|width| public.join(layout::entries(tile, width)))
            .find(|path| path.exists())
            .context("no such tile")?
    };
    let bytes = std::fs::read(&path)?;
    let (mut out, mut rest, mut at) = (Vec::new(), bytes.as_slice(), tile * layout::WIDTH);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        if at != index {
            out.extend(&rest[..2 + length]);
        }
        rest = &after[length..];
        at += 1;
    }
    std::fs::write(&path, out)?;
    Ok(())
}
