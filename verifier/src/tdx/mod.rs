//! Intel TDX quotes (Intel TDX DCAP Quoting Library API, appendix 3: versions 4 and 5).

mod appraise;
mod authenticate;
mod endorsements;
mod parse;

use cocoon_attestation::UnixTime;

use crate::outcome::{Appraisal, CheckOutcome, Record};
use crate::policy::Policy;
use crate::roots;

pub(crate) use authenticate::QuoteSignature;
pub(crate) use parse::Quote;

/// Appraises a TDX quote against its collateral (`QuoteCollateralV3` as JSON) at a time.
pub fn appraise_tdx(quote: &[u8], collateral_json: &[u8], policy: &Policy, at: UnixTime) -> Appraisal {
    let mut record = Record::default();
    run(&mut record, quote, collateral_json, policy, at, QuoteSignature::Checked);
    record.finish()
}

/// The same into a record; the quote comes back only if it is authentic.
pub(crate) fn run(
    record: &mut Record,
    bytes: &[u8],
    collateral: &[u8],
    policy: &Policy,
    at: UnixTime,
    signature: QuoteSignature,
) -> Option<Quote> {
    let quote = match Quote::parse(bytes) {
        Ok(quote) => quote,
        Err(detail) => {
            record.put("tdx.format", CheckOutcome::Malformed, detail);
            return None;
        }
    };
    record.passed("tdx.format", format!("TDX quote, version {}, {} bytes", quote.version, bytes.len()));
    let collateral = match authenticate::collateral(collateral) {
        Ok(collateral) => collateral,
        Err(detail) => {
            record.put("tdx.collateral-format", CheckOutcome::Malformed, detail);
            return None;
        }
    };
    let mut failure = ("tdx.certificates", "the policy names no root that can sign TDX evidence".to_string());
    let roots = roots::tdx(policy);
    for root in &roots {
        match authenticate::authenticate(&quote, &collateral, root, at, signature) {
            Ok(claims) => {
                record.development = *root != roots::INTEL_SGX_ROOT_CA;
                for (id, detail) in authenticate::ESTABLISHED {
                    record.passed(id, *detail);
                }
                endorsements::check(record, &quote, &claims, &collateral);
                appraise::appraise(record, &quote, &claims, &policy.tdx);
                return Some(quote);
            }
            Err(error) => failure = error,
        }
    }
    if let Some(name) = authenticate::foreign_root(&collateral, &roots) {
        let detail =
            format!("the evidence rests on {name:?}, which is neither Intel's root nor one that the policy names");
        failure = ("tdx.root", detail);
    }
    record.put(failure.0, CheckOutcome::Invalid, failure.1);
    None
}

#[cfg(test)]
mod tests;
