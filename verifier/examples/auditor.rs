//! An auditor: years later, offline, it appraises a bundle again at the time that was recorded, compares the result with the
//! recorded one, and writes down its own as an attestation result that others can check.

mod common;

use cocoon_verifier::ear::Context;
use cocoon_verifier::{Appraisal, appraise_bundle};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What a log holds: the bundle with its endorsements, the time, the result.
    let (bundle, policy) = common::bundle(1);
    let recorded = serde_json::to_string(&appraise_bundle(&bundle, &policy, None, common::AT).appraisal)?;

    let recorded: Appraisal = serde_json::from_str(&recorded)?;
    let again = appraise_bundle(&bundle, &policy, None, common::AT).appraisal;
    if again == recorded {
        println!("the same result, {} checks", again.checks.len());
    } else {
        println!("recorded {}, found {}: {}", recorded.outcome, again.outcome, again.reason);
    }
    // A day after the endorsements lapsed nobody could have accepted it.
    let lapsed = again.not_after.ok_or("endorsements lapse")?.plus(86_400);
    println!("at {lapsed}: {}", appraise_bundle(&bundle, &policy, None, lapsed).appraisal.outcome);

    let context = Context { at: common::AT, policy: Some("example".into()), nonce: None };
    println!("{}", again.to_jwt(&context, &[7; 32])?);
    Ok(())
}
