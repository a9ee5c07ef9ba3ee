//! Claims against what the CPU signed, and against reference values.

use cocoon_attestation::binding::{gpu_digest, gpu_nonce, report_data};
use cocoon_attestation::reference::TdxReference;
use cocoon_attestation::{Claims, EventLog, ReferenceValues, UnixTime};

use crate::bundle::{Parts, References};
use crate::gpu::{self, GpuEvidence, GpuReferences};
use crate::outcome::{Record, hex};
use crate::policy::Policy;
use crate::snp::Report;
use crate::tdx::Quote;

/// CPU evidence that was found authentic.
pub(crate) enum Authentic {
    Tdx(Quote),
    Snp(Report),
}

impl Authentic {
    pub(crate) fn report_data(&self) -> ([u8; 64], &'static str) {
        match self {
            Self::Tdx(quote) => (quote.report_data(), "tdx.report-data"),
            Self::Snp(report) => (report.report_data(), "snp.report-data"),
        }
    }
}

/// The CPU signed these claims, and no others.
pub(crate) fn claims(record: &mut Record, cpu: &Authentic, claims: &[u8]) {
    let (signed, id) = cpu.report_data();
    let holds = signed == report_data(claims);
    let detail = if holds { "the CPU signed these claims" } else { "REPORTDATA is that of other claims" };
    record.genuine("binding.report-data", holds, detail);
    record.covered(id);
}

/// The GPU evidence is the one the claims name, answers the nonce that is made from the claims, and is good in itself.
pub(crate) fn gpu(
    record: &mut Record,
    claims: &Claims,
    bundle: &Parts<'_>,
    policy: &Policy,
    at: UnixTime,
    known: Option<&gpu::Known>,
) {
    let found = gpu_digest(&bundle.gpu);
    if claims.gpu_digest != found {
        let detail = match (claims.gpu_digest, found) {
            (Some(_), None) => "the claims name GPU evidence that the bundle lacks",
            (None, _) => "the bundle carries GPU evidence that the claims do not name",
            (Some(_), Some(_)) => "the claims carry the digest of other GPU evidence",
        };
        return record.genuine("binding.gpu-digest", false, detail);
    }
    if found.is_none() {
        return record.unchecked("gpu.appraisal", "the claims name no GPU");
    }
    record.genuine("binding.gpu-digest", true, "the claims carry the digest of this GPU evidence");
    let chains = &bundle.gpu_chains;
    if chains.len() != bundle.gpu.len() {
        let detail = format!("{} GPU report(s) came with {} certificate chain(s)", bundle.gpu.len(), chains.len());
        return record.demand_unless("gpu.appraisal", false, policy.gpu.allow_unappraised, detail);
    }
    let evidence = bundle.gpu.iter().zip(chains).map(|(report, chain)| GpuEvidence { report, chain });
    let evidence: Vec<_> = evidence.collect();
    let carried;
    let references = match &bundle.gpu_references {
        References::Shared(references) => references,
        References::Carried(carries) => {
            carried = GpuReferences::new(carries.manifests.clone(), carries.ocsp.clone());
            &carried
        }
    };
    gpu::run(record, &evidence, references, Some(gpu_nonce(claims)), policy, at, known);
}

/// Measurement and model are among the reference values.
pub(crate) fn references(
    record: &mut Record,
    cpu: &Authentic,
    claims: &Claims,
    log: Option<&EventLog>,
    references: Option<&ReferenceValues>,
    policy: &Policy,
) {
    const NONE: &str = "no reference values were given";
    match references {
        None => record.unchecked("reference.measurement", NONE),
        Some(values) => measurement(record, cpu, log, values),
    }
    let root = claims.model_root;
    let listed: Vec<_> = references.iter().flat_map(|values| &values.models).collect();
    if references.is_none() && policy.claims.model_root.is_empty() {
        record.unchecked("reference.model-root", NONE);
    } else {
        let named = listed.iter().any(|model| model.name == claims.model_name && model.root == root);
        let holds = (references.is_none() || named)
            && (policy.claims.model_root.is_empty() || policy.claims.model_root.contains(&root));
        let verdict = if holds {
            if references.is_some() {
                "is a reference value"
            } else {
                "is a root that the policy names (it names no models)"
            }
        } else {
            "is not what the reference values say of it: another model is loaded"
        };
        record.demand(
            "reference.model-root",
            holds,
            format!("{:?} with root {} {verdict}", claims.model_name, hex(&root.0)),
        );
    }
    record.reference("reference.config-digest", claims.config_digest.as_ref(), &policy.claims.config_digest);
    record.reference("reference.provider", claims.provider.as_ref(), &policy.claims.provider);
}

/// CPU evidence is of a guest that one entry of the reference values describes.
pub(crate) fn measurement(record: &mut Record, cpu: &Authentic, log: Option<&EventLog>, values: &ReferenceValues) {
    let (actual, holds) = match cpu {
        Authentic::Tdx(quote) => {
            let entry = values.tdx.iter().find(|entry| {
                let rtmrs = entry.rtmrs();
                entry.mrtd.0 == quote.mrtd()
                    && (0..4).all(|n| rtmrs[n].is_none_or(|expected| expected.0 == quote.rtmr(n)))
            });
            if let Some(entry) = entry {
                record.covered("tdx.mrtd");
                for (n, _) in entry.rtmrs().iter().enumerate().filter(|(_, register)| register.is_some()) {
                    record.covered(&format!("tdx.rtmr{n}"));
                }
            }
            (hex(&quote.mrtd()), entry.is_some())
        }
        Authentic::Snp(report) => {
            record.covered("snp.measurement");
            let actual = report.measurement();
            (hex(&actual), values.snp.iter().any(|entry| entry.measurement.0 == actual))
        }
    };
    let image = format!("{} {}", values.image.name, values.image.version);
    let verdict = if holds {
        format!("is image {image}")
    } else {
        let differs = match cpu {
            Authentic::Tdx(quote) => difference(quote, log, &values.tdx),
            Authentic::Snp(_) => None,
        };
        let differs = differs.map(|differs| format!(", and what differs is {differs}")).unwrap_or_default();
        format!("is not among the measurements of image {image}: another guest runs there{differs}")
    };
    record.demand("reference.measurement", holds, format!("{actual} {verdict}"));
}

/// What each register is made of, MRTD first, where nothing finer is known.
const REGISTERS: [(&str, &str); 5] = [
    ("MRTD", "the firmware"),
    ("RTMR0", "the machine (vCPUs, memory, devices) or the firmware's settings"),
    ("RTMR1", "the kernel"),
    ("RTMR2", "the command line or the initial ram disk"),
    ("RTMR3", "what the guest measured while it ran"),
];

/// How a guest differs from the entry that comes nearest to it, in words. A log names the parts: it was replayed before, so it says what
/// the registers hold; what each part is called comes from the reference values, which are signed.
fn difference(quote: &Quote, log: Option<&EventLog>, entries: &[TdxReference]) -> Option<String> {
    let registers = |entry: &TdxReference| -> Vec<usize> {
        let [a, b, c, d] = entry.rtmrs();
        let actual = std::iter::once(quote.mrtd()).chain((0..4).map(|n| quote.rtmr(n)));
        let expected = [Some(entry.mrtd), a, b, c, d];
        let pairs = actual.zip(expected).enumerate();
        pairs
            .filter(|(_, (actual, expected))| expected.is_some_and(|value| value.0 != *actual))
            .map(|(n, _)| n)
            .collect()
    };
    let parts = |entry: &TdxReference| -> Vec<String> {
        registers(entry).into_iter().flat_map(|n| named(n, log, entry)).collect()
    };
    let nearest = entries.iter().min_by_key(|entry| (registers(entry).len(), parts(entry).len()))?;
    Some(parts(nearest).join("; "))
}

/// The parts of a register that differ, 0 for MRTD.
fn named(register: usize, log: Option<&EventLog>, entry: &TdxReference) -> Vec<String> {
    let (name, whole) = REGISTERS[register];
    let whole = vec![format!("{name}: {whole}")];
    let Some(number) = register.checked_sub(1).and_then(|n| u8::try_from(n).ok()) else { return whole };
    let logged: Vec<_> = log.iter().flat_map(|log| &log.0).filter(|event| event.register == number).collect();
    let expected: Vec<_> = entry.events_of(number).collect();
    if logged.is_empty() || expected.is_empty() {
        return whole;
    }
    let pairs = expected.iter().zip(&logged).filter(|(expected, found)| expected.digest.0 != found.digest);
    let mut parts: Vec<_> = pairs.map(|(expected, _)| format!("{name}: {}", expected.what)).collect();
    if logged.len() != expected.len() {
        parts.push(format!("{name}: {} things were measured instead of {}", logged.len(), expected.len()));
    }
    if parts.is_empty() { whole } else { parts }
}

/// The beacon gives the evidence its earliest time.
pub(crate) fn freshness(record: &mut Record, claims: &Claims, policy: &Policy, at: UnixTime) {
    record.unchecked("claims.beacon", "whether the block of the beacon exists: ask the chain");
    let beacon = claims.beacon.time;
    let Some(longest) = policy.claims.max_beacon_age else {
        return record.unchecked("claims.freshness", "the policy gives no longest age");
    };
    let detail = format!("the beacon is of {beacon}, appraised at {at}, and may be {longest} s old");
    record.demand("claims.freshness", beacon <= at && at <= beacon.plus(longest), detail);
}
