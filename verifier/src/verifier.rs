//! A verifier that remembers what it has authenticated.

use cocoon_attestation::{ReferenceValues, UnixTime};

use crate::bundle::{BundleAppraisal, appraise_bundle_with};
use crate::cache::Cache;
use crate::outcome::{Appraisal, Record, Signature};
use crate::policy::Policy;
use crate::tdx::{self, Collateral, Given, Platform};

/// Most platforms that are remembered, some 20 KB each.
const PLATFORMS: usize = 1024;

/// A verifier that remembers platforms: certificate chain, collateral, quoting enclave's report and attestation key are
/// authenticated once, and after that a quote costs one signature check. An entry stands for exactly the bytes it was made
/// from, together with the root, and counts only while everything in it is current at the time of the appraisal; results are the
/// same as those of [`crate::appraise_tdx`] and [`crate::appraise_bundle`].
///
/// It is meant to be shared by threads: `&self` everywhere.
///
/// ```
/// use cocoon_attestation::UnixTime;
/// use cocoon_attestation::dev::{CollateralSpec, DevPlatform, TdxSpec};
/// use cocoon_verifier::{Collateral, Outcome, Policy, Verifier};
///
/// let platform = DevPlatform::from_seed([7; 32]);
/// let collateral = Collateral::from_json(&platform.tdx_collateral(&CollateralSpec::default())).unwrap();
/// let policy = Policy { roots: vec![platform.tdx_root_der()], ..Policy::default() };
/// let verifier = Verifier::default();
/// for n in 0..3 {
///     let mut spec = TdxSpec::default();
///     spec.body.report_data = [n; 64];
///     let result = verifier.tdx(&platform.tdx_quote(&spec), &collateral, &policy, UnixTime(1_790_000_000));
///     assert_eq!(result.outcome, Outcome::Accepted);
/// }
/// ```
#[derive(Debug)]
pub struct Verifier {
    platforms: Cache<Platform>,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::with_capacity(PLATFORMS)
    }
}

impl Verifier {
    /// Remembers at most so many platforms; the oldest is forgotten first.
    pub fn with_capacity(platforms: usize) -> Self {
        Self { platforms: Cache::new(platforms) }
    }

    /// Appraises a TDX quote against its collateral at a time.
    pub fn tdx(&self, quote: &[u8], collateral: &Collateral, policy: &Policy, at: UnixTime) -> Appraisal {
        let mut record = Record::default();
        let given = Given::Read(collateral);
        tdx::run(&mut record, quote, given, policy, at, Signature::Checked, Some(&self.platforms));
        record.finish()
    }

    /// Appraises a bundle that carries its endorsements, at a time.
    pub fn bundle(
        &self,
        bundle: &[u8],
        policy: &Policy,
        references: Option<&ReferenceValues>,
        at: UnixTime,
    ) -> BundleAppraisal {
        appraise_bundle_with(bundle, policy, references, at, Some(&self.platforms))
    }
}
