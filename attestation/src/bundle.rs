//! The evidence bundle: a CMW collection (RFC 9999) of claims, CPU and GPU evidence, event log and stapled endorsements.
//! Schema: `docs/schemas/bundle.cddl`.
//!
//! Endorsements stand under their SHA-256, and an index says which serves as what: stores keep one copy of what many
//! bundles share, and a bundle that carries them can be appraised offline for ever.

use crate::binding::length_prefixed;
use crate::cbor::{self, Fields, Value};
use crate::types::{Digest, EvidenceId};
use crate::{Claims, Error, EventLog};

/// Media types of the records.
pub mod media_type {
    /// Claims, deterministic CBOR.
    pub const CLAIMS: &str = "application/vnd.cocoon.claims+cbor";
    /// A TDX quote as the quoting enclave made it.
    pub const TDX_QUOTE: &str = "application/vnd.cocoon.tdx-quote";
    /// An SEV-SNP attestation report.
    pub const SNP_REPORT: &str = "application/vnd.cocoon.snp-report";
    /// An NVIDIA GPU's SPDM request and response.
    pub const GPU_REPORT: &str = "application/vnd.cocoon.nvidia-spdm";
    /// Event log, deterministic CBOR.
    pub const EVENT_LOG: &str = "application/vnd.cocoon.event-log+cbor";
    /// Index of endorsements: a map from role to SHA-256.
    pub const INDEX: &str = "application/vnd.cocoon.endorsement-index+cbor";
    /// An endorsement as its issuer published it.
    pub const ENDORSEMENT: &str = "application/octet-stream";
}

pub(crate) const COLLECTION_TYPE: &str = "urn:cocoon:evidence-bundle:v1";
/// Longest bundle that is read: 1 MiB.
pub const MAX_BYTES: usize = 1 << 20;
const WHAT: &str = "bundle";

/// Labels in the collection; GPU report `n` stands at `GPU + n`.
pub(crate) mod label {
    pub const CLAIMS: u64 = 0;
    pub const CPU: u64 = 1;
    pub const EVENT_LOG: u64 = 2;
    pub const INDEX: u64 = 3;
    pub const ENDORSEMENTS: u64 = 4;
    pub const GPU: u64 = 16;
}

/// Most GPU reports in one bundle.
pub const MAX_GPUS: usize = 16;

/// Most reference manifests in one bundle: GPUs of one machine share drivers, and mostly VBIOSes.
pub const MAX_GPU_MANIFESTS: usize = 16;

/// Most OCSP responses in one bundle: three for each GPU and each manifest.
pub const MAX_OCSP: usize = 3 * (MAX_GPUS + MAX_GPU_MANIFESTS);

/// Most certificates of AMD's in one bundle.
pub(crate) const MAX_SNP_CA: usize = 8;

/// Most endorsements that one bundle names.
pub(crate) const MAX_NAMED: usize = MAX_SNP_CA + 2 + MAX_GPUS + MAX_GPU_MANIFESTS + MAX_OCSP;

/// CMW indicator bits (RFC 9999 section 3.1).
pub(crate) const EVIDENCE: u64 = 1 << 2;
pub(crate) const ENDORSEMENTS: u64 = 1 << 1;

/// Roles in the endorsement index.
pub(crate) mod role {
    pub const TDX_COLLATERAL: u64 = 0;
    pub const SNP_VEK: u64 = 1;
    pub const SNP_CA: u64 = 2;
    pub const SNP_CRL: u64 = 3;
    pub const GPU_CHAIN: u64 = 4;
    pub const GPU_MANIFEST: u64 = 5;
    pub const GPU_OCSP: u64 = 6;
}

/// Evidence by the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuEvidence {
    /// Intel TDX.
    Tdx {
        /// The quote, version 4 or 5.
        quote: Vec<u8>,
    },
    /// AMD SEV-SNP.
    Snp {
        /// The attestation report, 1184 bytes.
        report: Vec<u8>,
    },
}

impl CpuEvidence {
    /// The evidence as the CPU signed it.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Tdx { quote } => quote,
            Self::Snp { report } => report,
        }
    }
}

/// Certificates and revocation list for an SNP report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpEndorsements {
    /// Versioned chip or loaded endorsement key certificate, DER.
    pub vek: Vec<u8>,
    /// ASK and ARK, DER, in any order.
    pub ca: Vec<Vec<u8>>,
    /// The ARK's revocation list, DER.
    pub crl: Option<Vec<u8>>,
}

/// What vouches for GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuEndorsements {
    /// The certificate chain of each GPU, PEM, leaf first, in the order of their reports.
    pub chains: Vec<Vec<u8>>,
    /// NVIDIA's reference manifests for drivers and VBIOSes, in any order.
    pub manifests: Vec<Vec<u8>>,
    /// What NVIDIA's service says of the certificates of both (OCSP responses, DER), in any order.
    pub ocsp: Vec<Vec<u8>>,
}

impl GpuEndorsements {
    fn objects(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let chains = self.chains.iter().map(|chain| (role::GPU_CHAIN, chain.as_slice()));
        let manifests = self.manifests.iter().map(|manifest| (role::GPU_MANIFEST, manifest.as_slice()));
        chains.chain(manifests).chain(self.ocsp.iter().map(|response| (role::GPU_OCSP, response.as_slice())))
    }
}

/// What vouches for the platform that made the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endorsements {
    /// Nothing is stapled: the verifier must find endorsements itself.
    None,
    /// TDX collateral.
    Tdx {
        /// `QuoteCollateralV3` as JSON: TCB info, QE identity, certificate chains and revocation lists.
        collateral: Vec<u8>,
    },
    /// SNP certificates.
    Snp(SnpEndorsements),
}

impl Endorsements {
    /// Each endorsement with its role, in a stable order.
    fn objects(&self) -> Vec<(u64, &[u8])> {
        match self {
            Self::None => Vec::new(),
            Self::Tdx { collateral } => vec![(role::TDX_COLLATERAL, collateral)],
            Self::Snp(snp) => {
                let mut objects: Vec<(u64, &[u8])> = vec![(role::SNP_VEK, &snp.vek)];
                objects.extend(snp.ca.iter().map(|ca| (role::SNP_CA, ca.as_slice())));
                objects.extend(snp.crl.iter().map(|crl| (role::SNP_CRL, crl.as_slice())));
                objects
            }
        }
    }
}

/// Evidence together with what is needed to appraise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The claims as the enclave encoded them: REPORTDATA commits to these bytes.
    pub claims: Vec<u8>,
    /// Evidence by the CPU.
    pub cpu: CpuEvidence,
    /// SPDM reports of the GPUs, at most [`MAX_GPUS`].
    pub gpu: Vec<Vec<u8>>,
    /// What was measured into the runtime registers.
    pub event_log: Option<EventLog>,
    /// Stapled endorsements. They do not count towards the evidence id.
    pub endorsements: Endorsements,
    /// The same for the GPUs.
    pub gpu_endorsements: GpuEndorsements,
}

impl Bundle {
    /// SHA-256 over claims, CPU evidence and each GPU report, each behind its length (8 bytes, big-endian).
    pub fn evidence_id(&self) -> EvidenceId {
        let parts = [self.claims.as_slice(), self.cpu.as_bytes()];
        EvidenceId(length_prefixed(parts.into_iter().chain(self.gpu.iter().map(Vec::as_slice))))
    }

    /// The claims, decoded.
    pub fn claims(&self) -> Result<Claims, Error> {
        Claims::from_cbor(&self.claims)
    }

    /// Every endorsement with its role, in the order of the index.
    fn objects(&self) -> Vec<(u64, &[u8])> {
        let mut objects = self.endorsements.objects();
        objects.extend(self.gpu_endorsements.objects());
        objects
    }

    /// The bundle with its endorsements inside.
    pub fn to_cbor(&self) -> Vec<u8> {
        let objects = self.objects();
        let store = objects.iter().map(|(_, bytes)| {
            (Value::from(Digest::of(&[bytes]).to_string()), record(media_type::ENDORSEMENT, bytes, ENDORSEMENTS))
        });
        let mut store: Vec<_> = store.collect();
        store.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
        store.dedup();
        let mut entries = self.detached_entries();
        if !store.is_empty() {
            entries.push((Value::from(label::ENDORSEMENTS), Value::Map(store)));
        }
        cbor::encode(&Value::Map(entries))
    }

    /// The bundle with references to its endorsements only, and each endorsement under its SHA-256.
    pub fn to_detached(&self) -> (Vec<u8>, Vec<(Digest, Vec<u8>)>) {
        let objects = self.objects();
        let objects = objects.into_iter().map(|(_, bytes)| (Digest::of(&[bytes]), bytes.to_vec())).collect();
        (cbor::encode(&Value::Map(self.detached_entries())), objects)
    }

    fn detached_entries(&self) -> Vec<(Value, Value)> {
        let cpu_type = match self.cpu {
            CpuEvidence::Tdx { .. } => media_type::TDX_QUOTE,
            CpuEvidence::Snp { .. } => media_type::SNP_REPORT,
        };
        let mut entries = vec![
            (Value::from("__cmwc_t"), Value::from(COLLECTION_TYPE)),
            (Value::from(label::CLAIMS), record(media_type::CLAIMS, &self.claims, EVIDENCE)),
            (Value::from(label::CPU), record(cpu_type, self.cpu.as_bytes(), EVIDENCE)),
        ];
        if let Some(log) = &self.event_log {
            entries.push((Value::from(label::EVENT_LOG), record(media_type::EVENT_LOG, &log.to_cbor(), EVIDENCE)));
        }
        let objects = self.objects();
        if !objects.is_empty() {
            let index = objects.iter().map(|(role, bytes)| {
                Value::Array(vec![Value::from(*role), Value::Bytes(Digest::of(&[bytes]).0.to_vec())])
            });
            let index = cbor::encode(&Value::Array(index.collect()));
            entries.push((Value::from(label::INDEX), record(media_type::INDEX, &index, ENDORSEMENTS)));
        }
        for (n, report) in self.gpu.iter().enumerate() {
            entries.push((Value::from(label::GPU + n as u64), record(media_type::GPU_REPORT, report, EVIDENCE)));
        }
        entries
    }

    /// Reads a bundle that carries its endorsements.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        Self::from_cbor_with(bytes, |_| None)
    }

    /// Reads a bundle; endorsements that it does not carry are looked up by their SHA-256.
    pub fn from_cbor_with(bytes: &[u8], lookup: impl Fn(&Digest) -> Option<Vec<u8>>) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(field(format!("has {} bytes, and at most {MAX_BYTES} are read", bytes.len())));
        }
        let Value::Map(mut entries) = cbor::decode(WHAT, bytes)? else {
            return Err(field("must be a map"));
        };
        let kind = entries.iter().position(|(key, _)| key.as_text() == Some("__cmwc_t"));
        match kind.map(|at| entries.remove(at).1) {
            Some(Value::Text(kind)) if kind == COLLECTION_TYPE => {}
            _ => return Err(field(format!("__cmwc_t must be {COLLECTION_TYPE}"))),
        }
        let mut fields = Fields::new(WHAT, Value::Map(entries))?;
        let (_, claims) = required(&mut fields, label::CLAIMS, &[media_type::CLAIMS], EVIDENCE)?;
        let types = [media_type::TDX_QUOTE, media_type::SNP_REPORT];
        let cpu = match required(&mut fields, label::CPU, &types, EVIDENCE)? {
            (0, quote) => CpuEvidence::Tdx { quote },
            (_, report) => CpuEvidence::Snp { report },
        };
        let event_log = optional(&mut fields, label::EVENT_LOG, media_type::EVENT_LOG, EVIDENCE)?;
        let event_log = event_log.map(|log| EventLog::from_cbor(&log)).transpose()?;
        let mut gpu = Vec::new();
        while gpu.len() < MAX_GPUS {
            let label = label::GPU + gpu.len() as u64;
            let Some(report) = optional(&mut fields, label, media_type::GPU_REPORT, EVIDENCE)? else { break };
            gpu.push(report);
        }
        let index = optional(&mut fields, label::INDEX, media_type::INDEX, ENDORSEMENTS)?;
        let mut store = match fields.take(label::ENDORSEMENTS) {
            None => Vec::new(),
            Some(store) => read_store(store)?,
        };
        fields.finish()?;
        let (endorsements, gpu_endorsements) = match index {
            None => (Endorsements::None, GpuEndorsements::default()),
            Some(index) => read_index(&index, |digest| {
                let carried = store.iter_mut().find(|(found, ..)| found == digest);
                carried.map(|(_, bytes, used)| (*used = true, bytes.clone()).1).or_else(|| lookup(digest))
            })?,
        };
        if store.iter().any(|(.., used)| !used) {
            return Err(field("carries an endorsement that its index does not name"));
        }
        Ok(Self { claims, cpu, gpu, event_log, endorsements, gpu_endorsements })
    }
}

fn field(detail: impl Into<String>) -> Error {
    Error::Field { what: WHAT, detail: detail.into() }
}

/// A CMW record: [media type, value, indicator].
fn record(media_type: &str, bytes: &[u8], indicator: u64) -> Value {
    Value::Array(vec![Value::from(media_type), Value::Bytes(bytes.to_vec()), Value::from(indicator)])
}

fn read_record(value: Value, types: &[&str], indicator: u64) -> Result<(usize, Vec<u8>), Error> {
    if let Value::Array(items) = value
        && let Ok([Value::Text(found), Value::Bytes(bytes), ind]) = <[Value; 3]>::try_from(items)
        && ind == Value::from(indicator)
        && let Some(at) = types.iter().position(|expected| *expected == found)
    {
        return Ok((at, bytes));
    }
    Err(field(format!("a record must be [{}, bytes, {indicator}]", types.join(" or "))))
}

fn required(fields: &mut Fields, label: u64, types: &[&str], indicator: u64) -> Result<(usize, Vec<u8>), Error> {
    let value =
        fields.take(label).ok_or_else(|| field(format!("record {label} ({}) is missing", types.join(" or "))))?;
    read_record(value, types, indicator)
}

fn optional(fields: &mut Fields, label: u64, media_type: &str, indicator: u64) -> Result<Option<Vec<u8>>, Error> {
    fields.take(label).map(|value| Ok(read_record(value, &[media_type], indicator)?.1)).transpose()
}

type Stored = (Digest, Vec<u8>, bool);

fn read_store(store: Value) -> Result<Vec<Stored>, Error> {
    let Value::Map(entries) = store else { return Err(field("endorsements must be a map")) };
    if entries.is_empty() {
        return Err(field("endorsements must not be an empty map"));
    }
    let entries = entries.into_iter().map(|(key, value)| {
        let name = key.into_text().map_err(|_| field("an endorsement's label must be its SHA-256 in hex"))?;
        let (_, bytes) = read_record(value, &[media_type::ENDORSEMENT], ENDORSEMENTS)?;
        let digest = Digest::of(&[&bytes]);
        if digest.to_string() != name {
            let name: String = name.chars().take(80).collect();
            return Err(field(format!("endorsement {name:?} has SHA-256 {digest}")));
        }
        Ok((digest, bytes, false))
    });
    entries.collect()
}

fn read_index(
    index: &[u8],
    mut find: impl FnMut(&Digest) -> Option<Vec<u8>>,
) -> Result<(Endorsements, GpuEndorsements), Error> {
    let Value::Array(items) = cbor::decode("endorsement index", index)? else {
        return Err(field("the endorsement index must be an array"));
    };
    if items.len() > MAX_NAMED {
        return Err(field("the endorsement index is longer than any platform needs"));
    }
    let (mut objects, mut named) = (Vec::new(), std::collections::BTreeSet::new());
    for item in items {
        if let Value::Array(pair) = item
            && let Ok([Value::Integer(role), Value::Bytes(digest)]) = <[Value; 2]>::try_from(pair)
            && let Ok(role) = u64::try_from(role)
        {
            let digest = Digest::from_slice(&digest)?;
            // Named twice it would be copied twice: small bundles would become large ones.
            if !named.insert(digest) {
                return Err(field("the endorsement index names one endorsement twice"));
            }
            objects.push((role, find(&digest).ok_or(Error::MissingEndorsement(digest))?));
        } else {
            return Err(field("an index entry must be [role, SHA-256]"));
        }
    }
    let mut objects = objects.into_iter().peekable();
    let gpu_only = objects.peek().is_some_and(|(role, _)| *role >= role::GPU_CHAIN);
    let endorsements = match if gpu_only { None } else { objects.next() } {
        Some((role::TDX_COLLATERAL, collateral)) => Endorsements::Tdx { collateral },
        Some((role::SNP_VEK, vek)) => {
            let mut ca = Vec::new();
            while ca.len() < MAX_SNP_CA
                && let Some((_, certificate)) = objects.next_if(|(role, _)| *role == role::SNP_CA)
            {
                ca.push(certificate);
            }
            let crl = objects.next_if(|(role, _)| *role == role::SNP_CRL).map(|(_, crl)| crl);
            Endorsements::Snp(SnpEndorsements { vek, ca, crl })
        }
        None if gpu_only => Endorsements::None,
        _ => return Err(field("the endorsement index starts with no known role")),
    };
    let mut gpu = GpuEndorsements::default();
    while gpu.chains.len() < MAX_GPUS
        && let Some((_, chain)) = objects.next_if(|(role, _)| *role == role::GPU_CHAIN)
    {
        gpu.chains.push(chain);
    }
    while gpu.manifests.len() < MAX_GPU_MANIFESTS
        && let Some((_, manifest)) = objects.next_if(|(role, _)| *role == role::GPU_MANIFEST)
    {
        gpu.manifests.push(manifest);
    }
    while gpu.ocsp.len() < MAX_OCSP
        && let Some((_, response)) = objects.next_if(|(role, _)| *role == role::GPU_OCSP)
    {
        gpu.ocsp.push(response);
    }
    match objects.next() {
        None => Ok((endorsements, gpu)),
        Some((role, _)) => Err(field(format!("role {role} is out of place in the endorsement index"))),
    }
}
