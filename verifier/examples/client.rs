//! A client: it appraises an enclave's bundle before it sends a prompt, and uses the enclave's key only if the bundle is
//! accepted **and** nothing that matters to it was left unchecked.

mod common;

use cocoon_attestation::Digest;
use cocoon_verifier::{Outcome, appraise_bundle};

fn main() -> Result<(), String> {
    let (bundle, mut policy) = common::bundle(1);
    // The model that this client wants, evidence not older than an hour, and memory that starts as it must.
    policy.claims.model_root = vec![Digest([3; 32])];
    policy.claims.max_beacon_age = Some(3_600);
    policy.tdx.mrtd = vec![cocoon_verifier::policy::Hex([0x11; 48])];

    // The time is the client's own.
    let result = appraise_bundle(&bundle, &policy, None, common::AT);
    let appraisal = &result.appraisal;
    if appraisal.outcome != Outcome::Accepted {
        for advice in appraisal.advice() {
            eprintln!("{}: {}\n  {}", advice.layer, advice.found, advice.remedy);
        }
        return Err(appraisal.reason.clone());
    }
    for needed in ["tdx.mrtd", "reference.model-root", "claims.freshness"] {
        if appraisal.unchecked.iter().any(|item| item.id == needed) {
            return Err(format!("{needed} was not checked"));
        }
    }
    if appraisal.development {
        println!("DEVELOPMENT PLATFORM - NOT CONFIDENTIAL");
    }
    let claims = result.claims.ok_or("accepted bundles have claims")?;
    println!("seal prompts to what {} signed", hex::encode(claims.enclave_key.0));
    Ok(())
}
