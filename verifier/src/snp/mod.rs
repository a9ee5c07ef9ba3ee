//! AMD SEV-SNP reports (SEV Secure Nested Paging Firmware ABI Specification, 56860), over their raw bytes.

mod appraise;
mod authenticate;
mod parse;

use cocoon_attestation::UnixTime;

use crate::outcome::{Appraisal, CheckOutcome, Record};
use crate::policy::Policy;

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
    let mut record = Record::default();
    run(&mut record, report, vek, ca, crl, policy, at);
    record.finish()
}

/// The same into a record; the report comes back only if it is authentic.
pub(crate) fn run(
    record: &mut Record,
    bytes: &[u8],
    vek: &[u8],
    ca: &[Vec<u8>],
    crl: Option<&[u8]>,
    policy: &Policy,
    at: UnixTime,
) -> Option<Report> {
    let report = match Report::parse(bytes) {
        Ok(report) => report,
        Err(detail) => {
            record.put("snp.format", CheckOutcome::Malformed, detail);
            return None;
        }
    };
    record.passed("snp.format", format!("SNP report, version {}", report.version()));
    let key = authenticate::authenticate(record, &report, vek, ca, crl, policy, at)?;
    appraise::appraise(record, &report, &key, &policy.snp);
    Some(report)
}
