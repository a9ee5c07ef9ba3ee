//! A verifier node: many bundles, from several threads, under one policy. Platforms that were authenticated once cost one
//! signature check after that.

mod common;

use cocoon_verifier::Verifier;

fn main() {
    let verifier = Verifier::default();
    let (_, policy) = common::bundle(0);
    std::thread::scope(|scope| {
        for n in 1..=4 {
            let (verifier, policy) = (&verifier, &policy);
            scope.spawn(move || {
                let (mut bundle, _) = common::bundle(n);
                if n == 4 {
                    // Somebody else's claims with this quote.
                    let other = common::bundle(5).0;
                    let read = |bytes: &[u8]| cocoon_attestation::Bundle::from_cbor(bytes).expect("a bundle");
                    bundle = cocoon_attestation::Bundle { claims: read(&other).claims, ..read(&bundle) }.to_cbor();
                }
                let result = verifier.bundle(&bundle, policy, None, common::AT);
                let id = result.evidence_id.map(|id| id.to_string()).unwrap_or_default();
                println!("{id}: {}, {}", result.appraisal.outcome, result.appraisal.reason);
            });
        }
    });
}
