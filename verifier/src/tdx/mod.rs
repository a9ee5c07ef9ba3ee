//! Intel TDX quotes (Intel TDX DCAP Quoting Library API, appendix 3: versions 4 and 5).

mod appraise;
mod authenticate;
mod collateral;
mod events;
mod parse;
mod pck;
mod tcb;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use cocoon_attestation::{EventLog, ReferenceValues, UnixTime};

use crate::binding::{self, Authentic};
use crate::cache::Cache;
use crate::outcome::{Appraisal, CheckOutcome, Record, Signature};
use crate::policy::Policy;
use crate::roots;
use crate::x509::Cert;

pub(crate) use authenticate::Platform;
pub use collateral::Collateral;
pub(crate) use parse::Quote;
use parse::SignatureData;

/// Bytes of a platform's own that say where it is remembered: with the attestation key, and the beginning of the PCK certificate.
const KEY: usize = 512;
/// Longest constant part of a quote that is remembered; with three certificates it has about 4 KB.
const REMEMBERED: usize = 16 * 1024;

/// Appraises a TDX quote against its collateral (`QuoteCollateralV3` as JSON) at a time.
pub fn appraise_tdx(quote: &[u8], collateral_json: &[u8], policy: &Policy, at: UnixTime) -> Appraisal {
    appraise_tdx_with_events(quote, collateral_json, None, policy, at)
}

/// The same, with what was measured into the runtime registers: the log must replay to them, and meet the policy's rules.
pub fn appraise_tdx_with_events(
    quote: &[u8],
    collateral_json: &[u8],
    events: Option<&EventLog>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    appraise_tdx_against(quote, collateral_json, events, None, policy, at)
}

/// The same, and the registers must be those of one entry of the reference values, if there are any.
pub fn appraise_tdx_against(
    quote: &[u8],
    collateral_json: &[u8],
    events: Option<&EventLog>,
    references: Option<&ReferenceValues>,
    policy: &Policy,
    at: UnixTime,
) -> Appraisal {
    let mut record = Record::default();
    let given = Given { quote, collateral: Intel::Json(collateral_json), events };
    let quote = run(&mut record, &given, policy, at, Signature::Checked, None);
    if let Some((quote, values)) = quote.zip(references) {
        binding::measurement(&mut record, &Authentic::Tdx(quote), events, values);
    }
    record.finish()
}

/// A quote with what came along.
pub(crate) struct Given<'a> {
    pub(crate) quote: &'a [u8],
    pub(crate) collateral: Intel<'a>,
    pub(crate) events: Option<&'a EventLog>,
}

/// Collateral as it was given.
#[derive(Clone, Copy)]
pub(crate) enum Intel<'a> {
    Json(&'a [u8]),
    Read(&'a Collateral),
}

/// The same into a record; the quote comes back only if it is authentic.
pub(crate) fn run(
    record: &mut Record,
    given: &Given<'_>,
    policy: &Policy,
    at: UnixTime,
    signature: Signature,
    cache: Option<&Cache<Platform>>,
) -> Option<Quote> {
    let bytes = given.quote;
    let quote = match Quote::parse(bytes) {
        Ok(quote) => quote,
        Err(detail) => {
            record.put("tdx.format", CheckOutcome::Malformed, detail);
            return None;
        }
    };
    record.passed("tdx.format", format!("TDX quote, version {}, {} bytes", quote.version, bytes.len()));
    let read;
    let collateral = match given.collateral {
        Intel::Read(collateral) => collateral,
        Intel::Json(json) => match Collateral::from_json(json) {
            Ok(collateral) => {
                read = collateral;
                &read
            }
            Err(detail) => {
                record.put("tdx.collateral-format", CheckOutcome::Malformed, detail);
                return None;
            }
        },
    };
    match authentic(record, &quote, collateral, policy, at, signature, cache) {
        Ok(platform) => match tcb::evaluate(&platform.tcb_info, &platform.pck, &platform.qe_level, &quote) {
            Ok(tcb) => {
                record.extend(&platform.checks);
                record.passed("tdx.module", "the TDX module matches a module identity of TCB info");
                record.not_after = Some(platform.window.to);
                appraise::header(record, &quote, &platform);
                appraise::appraise(record, &quote, &platform, tcb, &policy.tdx, at);
                events::appraise(record, &quote, given.events, &policy.tdx);
                return Some(quote);
            }
            Err((id, detail)) => record.put(id, CheckOutcome::Invalid, detail),
        },
        Err((id, detail)) => record.put(id, CheckOutcome::Invalid, detail),
    }
    None
}

/// The platform that signed a quote, if both are genuine.
fn authentic(
    record: &mut Record,
    quote: &Quote,
    collateral: &Collateral,
    policy: &Policy,
    at: UnixTime,
    signature: Signature,
    cache: Option<&Cache<Platform>>,
) -> Result<Arc<Platform>, tcb::Failure> {
    let data = quote.signature_data().map_err(|detail| ("tdx.signature-data", detail))?;
    // Where to look: by what differs from platform to platform. What is found there counts only if every byte that the platform's
    // authenticity rests on is the same, and all roots in force.
    let mut key = Context::new(&SHA256);
    key.update(&collateral.digest);
    key.update(&data.constant[..data.constant.len().min(KEY)]);
    key.update(data.pck_chain.map_or(&[][..], |chain| &chain[..chain.len().min(KEY)]));
    policy.roots.iter().for_each(|root| key.update(root));
    let key = key.finish();
    let counts =
        |platform: &Platform| platform.window.contains(at) && platform.rests_on(data.constant, collateral, policy);
    let known = cache.and_then(|cache| cache.get(key.as_ref(), counts));
    let holds = match &known {
        Some(platform) => platform.attestation_key.verify_sig(quote.signed(), data.signature).is_ok(),
        None => authenticate::signed(data.attestation_key, quote.signed(), data.signature),
    };
    if signature == Signature::Checked && !holds {
        return Err(("tdx.signature", "the attestation key did not sign this header and body".into()));
    }
    record.passed("tdx.signature", "the attestation key signed header and body");
    let platform = match known {
        Some(platform) => platform,
        None => {
            let mut platform = authenticate_under_any(&data, collateral, &roots::tdx(policy), at)?;
            // Anybody can put more into a genuine quote that Intel's signatures do not cover; none is made with so much.
            let keeps = cache.filter(|_| data.constant.len() <= REMEMBERED);
            if keeps.is_some() {
                platform.remember(data.constant, policy);
            }
            let platform = Arc::new(platform);
            if let Some(cache) = keeps {
                cache.keep(key.as_ref(), platform.clone());
            }
            platform
        }
    };
    record.development = platform.development;
    Ok(platform)
}

/// The platform under the first root that vouches for it.
fn authenticate_under_any(
    data: &SignatureData<'_>,
    collateral: &Collateral,
    roots: &[Cert],
    at: UnixTime,
) -> Result<Platform, tcb::Failure> {
    let mut failure = ("tdx.certificates", "the policy names no root that can sign TDX evidence".to_string());
    for root in roots {
        match Platform::authenticate(data, collateral, root, at) {
            Ok(platform) => return Ok(platform),
            Err(error) => failure = error,
        }
    }
    if let Some(name) = authenticate::foreign_root(collateral, roots) {
        let detail =
            format!("the evidence rests on {name:?}, which is neither Intel's root nor one that the policy names");
        failure = ("tdx.root", detail);
    }
    Err(failure)
}

#[cfg(test)]
mod tests;
