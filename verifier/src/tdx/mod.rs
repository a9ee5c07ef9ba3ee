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
use crate::x509::{Cert, Signatures};

use authenticate::Platform;
pub use collateral::Collateral;
pub(crate) use parse::Quote;
use parse::SignatureData;

/// Longest constant part of a quote that is remembered; with three certificates it has about 4 KB.
const REMEMBERED: usize = 16 * 1024;

/// What is remembered of Intel's platforms.
#[derive(Debug)]
pub(crate) struct Known {
    platforms: Cache<Platform>,
    signatures: Signatures,
}

impl Known {
    pub(crate) fn new(platforms: usize) -> Self {
        // Of each platform its certificate and its quoting enclave's report; of collateral some six.
        Self { platforms: Cache::new(platforms), signatures: Signatures::new(platforms.saturating_mul(4)) }
    }
}

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
    known: Option<&Known>,
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
    match authentic(record, &quote, collateral, policy, at, signature, known) {
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

/// A quote whose own chain leads to a root in force; whether the platform is revoked or good enough, only collateral says.
pub(crate) fn signed(bytes: &[u8], policy: &Policy, at: UnixTime) -> Option<Quote> {
    let quote = Quote::parse(bytes).ok()?;
    authenticate::signed_under_any(&quote, &roots::tdx(policy), at).then_some(quote)
}

/// The platform that signed a quote, if both are genuine.
fn authentic(
    record: &mut Record,
    quote: &Quote,
    collateral: &Collateral,
    policy: &Policy,
    at: UnixTime,
    signature: Signature,
    known: Option<&Known>,
) -> Result<Arc<Platform>, tcb::Failure> {
    let data = quote.signature_data().map_err(|detail| ("tdx.signature-data", detail))?;
    // Where to look: by the attestation key, which differs from platform to platform. What is found there counts only if every byte that the platform's
    // authenticity rests on is the same, and all roots in force.
    let mut key = Context::new(&SHA256);
    key.update(&collateral.digest);
    key.update(data.attestation_key);
    policy.roots.iter().for_each(|root| key.update(root));
    let key = key.finish();
    let counts =
        |platform: &Platform| platform.window.contains(at) && platform.rests_on(data.constant, collateral, policy);
    let remembered = known.and_then(|known| known.platforms.get(key.as_ref(), counts));
    let holds = match &remembered {
        Some(platform) => platform.attestation_key.verify_sig(quote.signed(), data.signature).is_ok(),
        None => authenticate::signed(data.attestation_key, quote.signed(), data.signature, None),
    };
    if signature == Signature::Checked && !holds {
        return Err(("tdx.signature", "the attestation key did not sign this header and body".into()));
    }
    record.passed("tdx.signature", "the attestation key signed header and body");
    let platform = match remembered {
        Some(platform) => platform,
        None => {
            let signatures = known.map(|known| &known.signatures);
            let mut platform = authenticate_under_any(&data, collateral, &roots::tdx(policy), at, signatures)?;
            // Anybody can put more into a genuine quote that Intel's signatures do not cover; none is made with so much.
            let keeps = known.filter(|_| data.constant.len() <= REMEMBERED);
            if keeps.is_some() {
                platform.remember(data.constant, policy);
            }
            let platform = Arc::new(platform);
            if let Some(known) = keeps {
                known.platforms.keep(key.as_ref(), platform.clone());
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
    signatures: Option<&Signatures>,
) -> Result<Platform, tcb::Failure> {
    let mut failure = ("tdx.certificates", "the policy names no root that can sign TDX evidence".to_string());
    for root in roots {
        match Platform::authenticate(data, collateral, root, at, signatures) {
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
