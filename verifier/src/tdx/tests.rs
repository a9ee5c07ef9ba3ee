//! The controls: each attack succeeds once the one check that stops it is switched off.

use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{CollateralSpec, DevPlatform, TdxSpec};

use super::{Given, Intel, run};
use crate::outcome::{Outcome, Record, Signature};
use crate::policy::Policy;

const AT: UnixTime = UnixTime(1_790_000_000);

#[test]
fn a_flipped_bit_passes_only_without_the_signature_check() {
    let platform = DevPlatform::from_seed([7; 32]);
    let mut quote = platform.tdx_quote(&TdxSpec::default());
    let collateral = platform.tdx_collateral(&CollateralSpec::default());
    let policy = Policy { roots: vec![platform.tdx_root_der()], ..Policy::default() };
    // RTMR3 is measured, and this policy gives no reference for it.
    quote[48 + 328 + 3 * 48] ^= 1;
    let outcome = |signature| {
        let mut record = Record::default();
        let given = Given { quote: &quote, collateral: Intel::Json(&collateral), events: None };
        run(&mut record, &given, &policy, AT, signature, None);
        record.finish()
    };
    let checked = outcome(Signature::Checked);
    assert_eq!(checked.outcome, Outcome::Invalid);
    assert!(checked.reason.starts_with("tdx.signature:"), "{}", checked.reason);
    assert_eq!(outcome(Signature::SwitchedOff).outcome, Outcome::Accepted);
}
