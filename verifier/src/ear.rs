//! A result for other systems: an EAT attestation result (RFC 9711; draft-ietf-rats-ear-04) with the trustworthiness vector of
//! draft-ietf-rats-ar4si, as claims, and signed with Ed25519 as a JWT (RFC 7519) or a CWT (RFC 8392).
//!
//! There is one submodule for the CPU and one for the GPUs. A category about which nothing was checked is left out. Evidence of
//! the development platform is never affirmed, whatever the policy takes: its memory is visible to the machine's owner.

use std::collections::BTreeMap;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use cocoon_attestation::UnixTime;
use serde_json::{Value as Json, json};

use crate::Error;
use crate::outcome::{Appraisal, CheckOutcome, Outcome};

/// The profile that results name.
pub const PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";
const DEVELOPER: &str = "Cocoon";
const BUILD: &str = concat!("cocoon-verifier ", env!("CARGO_PKG_VERSION"));

/// What a result is about, besides the appraisal itself.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The time that evidence was appraised at.
    pub at: UnixTime,
    /// Names the policy, such as an `ni:` URI of its digest (RFC 6920).
    pub policy: Option<String>,
    /// A nonce of whoever asked for the result, 8 to 64 bytes (RFC 9711 section 4.1).
    pub nonce: Option<Vec<u8>>,
}

/// AR4SI's categories, by their CBOR key.
const CATEGORIES: [&str; 8] = [
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
];
const INSTANCE_IDENTITY: usize = 0;
const CONFIGURATION: usize = 1;
const EXECUTABLES: usize = 2;
const HARDWARE: usize = 4;
const RUNTIME_OPAQUE: usize = 5;

/// AR4SI's values, as far as they are used.
mod value {
    pub const UNEXPECTED_EVIDENCE: i8 = 1;
    pub const AFFIRMED: i8 = 2;
    /// Recognised, with known weaknesses that the policy accepts.
    pub const WEAK: i8 = 32;
    pub const CONTRAINDICATED: i8 = 96;
    pub const UNRECOGNISED: i8 = 97;
    pub const CRYPTO_FAILED: i8 = 99;
}

type Vector = BTreeMap<usize, i8>;

/// The tier of a value, by its lower end: 0 none, 2 affirming, 32 warning, 96 contraindicated.
fn tier(value: i8) -> u8 {
    match value {
        -1..=1 => 0,
        2..=31 | -32..=-2 => 2,
        32..=95 | -96..=-33 => 32,
        96..=127 | -128..=-97 => 96,
    }
}

fn tier_name(tier: u8) -> &'static str {
    match tier {
        0 => "none",
        2 => "affirming",
        32 => "warning",
        _ => "contraindicated",
    }
}

/// What is said of one part of the evidence.
struct Submodule {
    name: &'static str,
    vector: Vector,
}

impl Submodule {
    fn status(&self) -> u8 {
        self.vector.values().map(|value| tier(*value)).max().unwrap_or(0)
    }
}

fn submodules(appraisal: &Appraisal) -> Vec<Submodule> {
    let has = |prefixes: &[&str]| {
        appraisal.checks.iter().any(|check| prefixes.iter().any(|prefix| check.id.starts_with(prefix)))
    };
    let mut out = Vec::new();
    let gpu = has(&["gpu.", "rim."]);
    if !gpu || has(&["tdx.", "snp.", "bundle."]) {
        out.push(Submodule { name: "cpu", vector: cpu(appraisal) });
    }
    if gpu {
        out.push(Submodule { name: "gpu", vector: self::gpu(appraisal) });
    }
    out
}

/// The worst that the named checks say; `None` if none of them was made.
fn worst(appraisal: &Appraisal, ids: &[&str]) -> Option<CheckOutcome> {
    let rank = |outcome: CheckOutcome| match outcome {
        CheckOutcome::Passed => 0,
        CheckOutcome::Allowed => 1,
        CheckOutcome::Refused => 2,
        CheckOutcome::Invalid | CheckOutcome::Malformed => 3,
    };
    let named = appraisal.checks.iter().filter(|check| ids.contains(&&*check.id));
    named.map(|check| check.outcome).max_by_key(|outcome| rank(*outcome))
}

fn unchecked(appraisal: &Appraisal, id: &str) -> bool {
    appraisal.unchecked.iter().any(|item| item.id == id)
}

/// Nothing is said of evidence that is not authentic but that.
fn unauthentic(appraisal: &Appraisal) -> Option<Vector> {
    let value = match appraisal.outcome {
        Outcome::Malformed => value::UNEXPECTED_EVIDENCE,
        Outcome::Invalid => value::CRYPTO_FAILED,
        Outcome::Accepted | Outcome::Refused => return None,
    };
    Some(Vector::from([(INSTANCE_IDENTITY, value)]))
}

/// Puts a category by the worst of some checks: if they passed, if the policy was loosened for one, if it refused one.
fn put(vector: &mut Vector, category: usize, found: Option<CheckOutcome>, values: [i8; 3]) {
    let [passed, allowed, refused] = values;
    let value = match found {
        None => return,
        Some(CheckOutcome::Passed) => passed,
        Some(CheckOutcome::Allowed) => allowed,
        Some(_) => refused,
    };
    vector.insert(category, value);
}

/// What the policy refuses for a reason that no category is about (freshness, a host's data, a missing log) is a matter of
/// configuration: refused evidence is never more than contraindicated.
fn refused(appraisal: &Appraisal, part: &str, vector: &mut Vector) {
    let fails = appraisal.checks.iter().any(|check| check.outcome.is_failure() && of_gpu(&check.id) == (part == "gpu"));
    if fails && vector.values().all(|value| tier(*value) < tier(value::CONTRAINDICATED)) {
        vector.insert(CONFIGURATION, value::CONTRAINDICATED);
    }
    // Likewise what the policy was loosened for: such evidence is at best a warning.
    let loosened = appraisal
        .checks
        .iter()
        .any(|check| check.outcome == CheckOutcome::Allowed && of_gpu(&check.id) == (part == "gpu"));
    if loosened && vector.values().all(|value| tier(*value) < tier(value::WEAK)) {
        vector.insert(CONFIGURATION, value::WEAK);
    }
}

fn of_gpu(id: &str) -> bool {
    id.starts_with("gpu.") || id.starts_with("rim.")
}

fn development(appraisal: &Appraisal, vector: &mut Vector) {
    if appraisal.development {
        vector.insert(HARDWARE, value::UNRECOGNISED);
        vector.insert(RUNTIME_OPAQUE, value::CONTRAINDICATED);
    }
}

fn cpu(appraisal: &Appraisal) -> Vector {
    if let Some(vector) = unauthentic(appraisal) {
        return vector;
    }
    let mut vector = Vector::new();
    let of = |ids: &[&str]| worst(appraisal, ids);
    let contraindicated = [value::AFFIRMED, value::WEAK, value::CONTRAINDICATED];
    put(
        &mut vector,
        INSTANCE_IDENTITY,
        of(&["tdx.piid", "snp.allowed-chip"]),
        [value::AFFIRMED, value::WEAK, value::UNRECOGNISED],
    );
    let configuration = [
        "tdx.debug",
        "tdx.migration",
        "tdx.sept-ve-disable",
        "tdx.service-td",
        "tdx.attributes",
        "tdx.td-attributes",
        "tdx.xfam",
        "snp.debug",
        "snp.migration",
        "snp.vmpl",
        "snp.policy",
        "snp.guest-policy",
        "snp.smt",
        "snp.platform-info",
        "snp.single-socket",
        "tdx.smt",
        "tdx.cached-keys",
        "tdx.dynamic-platform",
    ];
    put(&mut vector, CONFIGURATION, of(&configuration), contraindicated);
    let executables = [
        "reference.measurement",
        "reference.model-root",
        "tdx.mrtd",
        "tdx.rtmr0",
        "tdx.rtmr1",
        "tdx.rtmr2",
        "tdx.rtmr3",
        "snp.measurement",
        "tdx.event-rules",
    ];
    // Later measurements mean something only on top of the first one.
    let first = of(&executables[..1]).or(of(&["tdx.mrtd", "snp.measurement"]));
    let found = of(&executables).filter(|found| first.is_some() || found.is_failure());
    put(&mut vector, EXECUTABLES, found, contraindicated);
    let hardware = [
        "tdx.tcb-status",
        "tdx.advisories",
        "tdx.module",
        "tdx.tcb-evaluation",
        "tdx.tee-tcb-svn",
        "tdx.qe-svn",
        "tdx.pce-svn",
        "tdx.collateral-age",
        "snp.tcb",
        "snp.min-tcb",
        "snp.min-launch-tcb",
        "snp.firmware",
        "snp.provisional-firmware",
    ];
    // AMD keeps no list of good versions: without a policy's own least TCB nobody has judged it.
    let judged = !self::unchecked(appraisal, "snp.min-tcb");
    let found = of(&hardware).filter(|found| judged || *found != CheckOutcome::Passed);
    put(&mut vector, HARDWARE, found, contraindicated);
    let opaque = [value::AFFIRMED, value::CONTRAINDICATED, value::CONTRAINDICATED];
    put(&mut vector, RUNTIME_OPAQUE, of(&["tdx.debug", "snp.debug"]), opaque);
    refused(appraisal, "cpu", &mut vector);
    development(appraisal, &mut vector);
    vector
}

fn gpu(appraisal: &Appraisal) -> Vector {
    if let Some(vector) = unauthentic(appraisal) {
        return vector;
    }
    let mut vector = Vector::new();
    let of = |ids: &[&str]| worst(appraisal, ids);
    let contraindicated = [value::AFFIRMED, value::WEAK, value::CONTRAINDICATED];
    put(&mut vector, INSTANCE_IDENTITY, of(&["gpu.signature"]), contraindicated);
    // What a GPU says of itself means something only if its measurements are the manufacturer's.
    let measured = of(&["gpu.measurements"]) == Some(CheckOutcome::Passed);
    let mode = of(&["gpu.mode"]).filter(|found| measured || *found != CheckOutcome::Passed);
    put(&mut vector, CONFIGURATION, mode, contraindicated);
    let versions = ["gpu.driver-version", "gpu.vbios-version", "gpu.driver-rim", "gpu.vbios-rim", "gpu.measurements"];
    let found = of(&versions).filter(|found| measured || *found != CheckOutcome::Passed);
    put(&mut vector, EXECUTABLES, found, contraindicated);
    put(&mut vector, HARDWARE, of(&["gpu.architecture", "gpu.revocation"]), contraindicated);
    refused(appraisal, "gpu", &mut vector);
    development(appraisal, &mut vector);
    vector
}

impl Appraisal {
    /// The result as claims of an EAT attestation result, JSON.
    ///
    /// # Errors
    /// [`Error::Ear`]: the nonce is shorter or longer than allowed.
    pub fn to_ear_json(&self, context: &Context) -> Result<Json, Error> {
        check_nonce(context)?;
        let submods: serde_json::Map<String, Json> = submodules(self)
            .into_iter()
            .map(|part| {
                let vector: serde_json::Map<String, Json> =
                    part.vector.iter().map(|(category, value)| (CATEGORIES[*category].into(), json!(value))).collect();
                let mut claims = json!({
                    "ear_status": tier_name(part.status()),
                    "ear_trustworthiness_vector": vector,
                    "ear_verifier_claims": self.verifier_claims(part.name),
                });
                if let Some(policy) = &context.policy {
                    claims["ear_appraisal_policy_ids"] = json!([policy]);
                }
                let attester = self.attester_claims(part.name);
                if !attester.is_empty() {
                    claims["ear_attester_claims"] = json!(attester);
                }
                (part.name.to_owned(), claims)
            })
            .collect();
        let mut claims = json!({
            "eat_profile": PROFILE,
            "iat": context.at.0,
            "ear_verifier_id": { "developer": DEVELOPER, "build": BUILD },
            "submods": submods,
        });
        if let Some(nonce) = &context.nonce {
            claims["eat_nonce"] = json!(URL_SAFE_NO_PAD.encode(nonce));
        }
        Ok(claims)
    }

    /// The same in deterministic CBOR.
    ///
    /// # Errors
    /// [`Error::Ear`]: the nonce is shorter or longer than allowed.
    pub fn to_ear_cbor(&self, context: &Context) -> Result<Vec<u8>, Error> {
        check_nonce(context)?;
        let key = |number: u16| Cbor::from(number);
        let text = |map: BTreeMap<&str, String>| {
            let mut entries: Vec<_> = map.into_iter().collect();
            // Deterministic encoding sorts keys by their bytes, and a text's begin with its length.
            entries.sort_by(|(a, _), (b, _)| (a.len(), *a).cmp(&(b.len(), *b)));
            Cbor::Map(entries.into_iter().map(|(name, value)| (Cbor::from(name), Cbor::from(value))).collect())
        };
        let submods = submodules(self).into_iter().map(|part| {
            let vector = part.vector.iter().map(|(category, value)| (Cbor::from(*category as u64), Cbor::from(*value)));
            let mut claims = vec![(key(1000), Cbor::from(part.status())), (key(1001), Cbor::Map(vector.collect()))];
            claims.extend(context.policy.as_ref().map(|id| (key(1003), Cbor::Array(vec![Cbor::from(id.as_str())]))));
            let attester = self.attester_claims(part.name);
            if !attester.is_empty() {
                claims.push((key(1005), text(attester)));
            }
            claims.push((key(1006), text(self.verifier_claims(part.name))));
            (Cbor::from(part.name), Cbor::Map(claims))
        });
        let mut claims = vec![(key(6), Cbor::from(context.at.0))];
        claims.extend(context.nonce.as_ref().map(|nonce| (key(10), Cbor::Bytes(nonce.clone()))));
        claims.extend([
            (key(265), Cbor::from(PROFILE)),
            (key(266), Cbor::Map(submods.collect())),
            (key(1004), Cbor::Map(vec![(key(0), Cbor::from(DEVELOPER)), (key(1), Cbor::from(BUILD))])),
        ]);
        cbor(&Cbor::Map(claims))
    }

    /// A signed result, JWT with EdDSA.
    ///
    /// # Errors
    /// [`Error::Ear`]: the nonce is shorter or longer than allowed.
    pub fn to_jwt(&self, context: &Context, seed: &[u8; 32]) -> Result<String, Error> {
        let header = json!({ "alg": "EdDSA", "typ": "eat+jwt" });
        let part = |json: &Json| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(&self.to_ear_json(context)?));
        let signature = key_pair(seed)?.sign(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A signed result, CWT: COSE_Sign1 (RFC 9052) with EdDSA.
    ///
    /// # Errors
    /// [`Error::Ear`]: the nonce is shorter or longer than allowed.
    pub fn to_cwt(&self, context: &Context, seed: &[u8; 32]) -> Result<Vec<u8>, Error> {
        const ALGORITHM: u8 = 1;
        const EDDSA: i8 = -8;
        const COSE_SIGN1: u64 = 18;
        let payload = Cbor::Bytes(self.to_ear_cbor(context)?);
        let header = Cbor::Bytes(cbor(&Cbor::Map(vec![(Cbor::from(ALGORITHM), Cbor::from(EDDSA))]))?);
        let to_sign =
            Cbor::Array(vec![Cbor::from("Signature1"), header.clone(), Cbor::Bytes(Vec::new()), payload.clone()]);
        let signature = key_pair(seed)?.sign(&cbor(&to_sign)?);
        let parts = vec![header, Cbor::Map(Vec::new()), payload, Cbor::Bytes(signature.as_ref().to_vec())];
        cbor(&Cbor::Tag(COSE_SIGN1, Box::new(Cbor::Array(parts))))
    }

    /// What was found out, for whoever wants more than a number. GPUs' checks go with the GPUs.
    fn verifier_claims(&self, part: &str) -> BTreeMap<&'static str, String> {
        let ours = |id: &str| of_gpu(id) == (part == "gpu");
        let list = |wanted: CheckOutcome| {
            let found = self.checks.iter().filter(|check| check.outcome == wanted && ours(&check.id));
            found.map(|check| &*check.id).collect::<Vec<_>>().join(" ")
        };
        let unchecked: Vec<_> = self.unchecked.iter().map(|item| &*item.id).filter(|id| ours(id)).collect();
        let mut claims = BTreeMap::from([
            ("cocoon_outcome", self.outcome.to_string()),
            ("cocoon_reason", self.reason.clone()),
            ("cocoon_passed", list(CheckOutcome::Passed)),
            ("cocoon_allowed", list(CheckOutcome::Allowed)),
            ("cocoon_refused", list(CheckOutcome::Refused)),
            ("cocoon_invalid", list(CheckOutcome::Invalid)),
            ("cocoon_malformed", list(CheckOutcome::Malformed)),
            ("cocoon_unchecked", unchecked.join(" ")),
        ]);
        claims.retain(|_, value| !value.is_empty());
        if self.development {
            claims.insert("cocoon_development", "NOT CONFIDENTIAL".into());
        }
        claims
    }

    fn attester_claims(&self, part: &str) -> BTreeMap<&str, String> {
        let ours = |name: &str| (name.starts_with("gpu") || name.starts_with("rim.")) == (part == "gpu");
        let named = self.measurements.iter().filter(|(name, _)| ours(name));
        named.map(|(name, value)| (&**name, value.clone())).collect()
    }
}

fn check_nonce(context: &Context) -> Result<(), Error> {
    match context.nonce.as_ref().map(Vec::len) {
        None | Some(8..=64) => Ok(()),
        Some(len) => Err(Error::Ear(format!("a nonce has 8 to 64 bytes, not {len}"))),
    }
}

fn key_pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, Error> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Ear("the seed makes no Ed25519 key".into()))
}

fn cbor(value: &Cbor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|error| Error::Ear(error.to_string()))?;
    Ok(bytes)
}
