//! AMD SEV-SNP reports (SEV Secure Nested Paging Firmware ABI Specification, 56860), over their raw bytes.

mod appraise;
mod authenticate;
mod parse;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use cocoon_attestation::{ReferenceValues, UnixTime};

use crate::binding::{self, Authentic};
use crate::cache::Cache;
use crate::outcome::{Appraisal, CheckOutcome, Record, Signature};
use crate::policy::Policy;

pub(crate) use authenticate::Platform;
pub(crate) use parse::Report;

/// Appraises an SNP report against the certificate of the key that signed it (`vek`), AMD's certificates (`ca`, in any
/// order) and, if there is one, AMD's revocation list, at a time. Certificates are DER or PEM.
pub fn appraise_snp(
    report: &[u8],
    vek: &[u8],
    ca: &[Vec<u8>],
    crl: Option<&[u8]>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    appraise_snp_against(report, vek, ca, crl, None, policy, at)
}

/// The same, and the launch digest must be one of the reference values, if there are any.
pub fn appraise_snp_against(
    report: &[u8],
    vek: &[u8],
    ca: &[Vec<u8>],
    crl: Option<&[u8]>,
    references: Option<&ReferenceValues>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let mut record = Record::default();
    let report = run(&mut record, report, &Endorsed { vek, ca: slices(ca), crl }, policy, at, Signature::Checked, None);
    if let Some((report, values)) = report.zip(references) {
        binding::measurement(&mut record, &Authentic::Snp(report), None, values);
    }
    record.finish()
}

/// What vouches for a report: the certificate of the key that signed it, AMD's certificates, AMD's revocation list.
pub(crate) struct Endorsed<'a> {
    pub(crate) vek: &'a [u8],
    pub(crate) ca: Vec<&'a [u8]>,
    pub(crate) crl: Option<&'a [u8]>,
}

pub(crate) fn slices(parts: &[Vec<u8>]) -> Vec<&[u8]> {
    parts.iter().map(Vec::as_slice).collect()
}

impl Endorsed<'_> {
    /// SHA-256 of every byte that a platform's authenticity rests on, each part behind its length, and of the roots in force.
    fn key(&self, policy: &Policy) -> [u8; 32] {
        let lists = [&[self.vek][..], self.crl.as_slice()];
        let (ca, roots) = (self.ca.iter().copied(), policy.roots.iter().map(Vec::as_slice));
        let mut context = Context::new(&SHA256);
        let mut list = |parts: &mut dyn Iterator<Item = &[u8]>| {
            for part in parts {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            // No part is this long.
            context.update(&u64::MAX.to_be_bytes());
        };
        lists.into_iter().for_each(|parts| list(&mut parts.iter().copied()));
        list(&mut ca.into_iter());
        list(&mut roots.into_iter());
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }
}

/// The same into a record; the report comes back only if it is authentic.
pub(crate) fn run(
    record: &mut Record,
    bytes: &[u8],
    endorsed: &Endorsed<'_>,
    policy: &Policy,
    at: UnixTime,
    signature: Signature,
    cache: Option<&Cache<Platform>>,
) -> Option<Report> {
    let report = match Report::parse(bytes) {
        Ok(report) => report,
        Err(detail) => {
            record.put("snp.format", CheckOutcome::Malformed, detail);
            return None;
        }
    };
    record.passed("snp.format", format!("SNP report, version {}", report.version()));
    let fresh = || Platform::authenticate(endorsed, policy, at).map(Arc::new);
    let platform = match cache {
        None => fresh(),
        Some(cache) => cache.get_or(&endorsed.key(policy), |platform| platform.window.contains(at), fresh),
    };
    let platform = match platform {
        Ok(platform) => platform,
        Err((checks, (id, outcome, detail))) => {
            record.extend(&checks);
            record.put(id, outcome, detail);
            return None;
        }
    };
    record.extend(&platform.checks);
    record.development = platform.development;
    record.not_after = Some(platform.window.to);
    if !platform.revocation_checked {
        if policy.snp.require_crl {
            let detail = "the policy demands AMD's revocation list, and none came with the evidence";
            record.demand("snp.revocation", false, detail);
        } else {
            record.unchecked("snp.revocation", "no revocation list came with the evidence");
        }
    }
    if !authenticate::report(record, &report, &platform, signature) {
        return None;
    }
    appraise::appraise(record, &report, &platform, &policy.snp);
    Some(report)
}

#[cfg(test)]
mod tests {
    //! The control: the attack succeeds once the one check that stops it is switched off.

    use cocoon_attestation::dev::{DevPlatform, SnpEndorsementSpec, SnpSpec};

    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn a_flipped_bit_passes_only_without_the_signature_check() {
        let platform = DevPlatform::from_seed([7; 32]);
        let mut report = platform.snp_report(&SnpSpec::default());
        let chain = platform.snp_endorsements(&SnpEndorsementSpec::default());
        let policy = Policy { roots: vec![platform.snp_ark_der()], ..Policy::default() };
        // HOST_DATA, for which this policy gives no reference.
        report[0xc0] ^= 1;
        let outcome = |signature| {
            let mut record = Record::default();
            let endorsed = Endorsed { vek: &chain.vek, ca: slices(&chain.ca), crl: chain.crl.as_deref() };
            run(&mut record, &report, &endorsed, &policy, UnixTime(1_790_000_000), signature, None);
            record.finish()
        };
        let checked = outcome(Signature::Checked);
        assert_eq!(checked.outcome, Outcome::Invalid);
        assert!(checked.reason.starts_with("snp.signature:"), "{}", checked.reason);
        assert_eq!(outcome(Signature::SwitchedOff).outcome, Outcome::Accepted);
    }
}
