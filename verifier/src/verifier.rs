//! A verifier that remembers what it has authenticated.

use cocoon_attestation::{EventLog, ReferenceValues, UnixTime};

use crate::bundle::{BundleAppraisal, Platforms, appraise_bundle_with};
use crate::cache::Cache;
use crate::gpu::{self, GpuEvidence, GpuReferences};
use crate::outcome::{Appraisal, Record, Signature};
use crate::policy::Policy;
use crate::snp::{self, Endorsed};
use crate::tdx::{self, Collateral, Given, Intel};

/// Most platforms of each kind that are remembered, some 20 KB each.
const PLATFORMS: usize = 1024;

/// A verifier that remembers platforms: certificate chain, collateral, quoting enclave's report and attestation key, a chip's
/// chain and revocation list, or a GPU's chain and its manifests are authenticated once, and after that a quote or report costs one signature check. An entry stands for exactly the bytes it was made
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
///     let result = verifier.tdx(&platform.tdx_quote(&spec), &collateral, None, &policy, UnixTime(1_790_000_000));
///     assert_eq!(result.outcome, Outcome::Accepted);
/// }
/// ```
#[derive(Debug)]
pub struct Verifier {
    platforms: Platforms,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::with_capacity(PLATFORMS)
    }
}

impl Verifier {
    /// Remembers at most so many platforms of each kind; the oldest is forgotten first.
    pub fn with_capacity(platforms: usize) -> Self {
        Self {
            platforms: Platforms {
                tdx: Cache::new(platforms),
                snp: Cache::new(platforms),
                gpu: gpu::Known::new(platforms),
            },
        }
    }

    /// Appraises a TDX quote against its collateral and, if it came with one, its event log, at a time.
    pub fn tdx(
        &self,
        quote: &[u8],
        collateral: &Collateral,
        events: Option<&EventLog>,
        policy: &Policy,
        at: UnixTime,
    ) -> Appraisal {
        let mut record = Record::default();
        let given = Given { quote, collateral: Intel::Read(collateral), events };
        tdx::run(&mut record, &given, policy, at, Signature::Checked, Some(&self.platforms.tdx));
        record.finish()
    }

    /// Appraises an SNP report against the certificate of its key, AMD's certificates in any order and, if there is one, AMD's
    /// revocation list, at a time.
    pub fn snp(
        &self,
        report: &[u8],
        vek: &[u8],
        ca: &[Vec<u8>],
        crl: Option<&[u8]>,
        policy: &Policy,
        at: UnixTime,
    ) -> Appraisal {
        let mut record = Record::default();
        let endorsed = Endorsed { vek, ca, crl };
        snp::run(&mut record, report, &endorsed, policy, at, Signature::Checked, Some(&self.platforms.snp));
        record.finish()
    }

    /// Appraises the reports of one or several GPUs; see [`crate::appraise_gpus`].
    pub fn gpus(
        &self,
        gpus: &[GpuEvidence<'_>],
        references: &GpuReferences,
        nonce: Option<[u8; 32]>,
        policy: &Policy,
        at: UnixTime,
    ) -> Appraisal {
        let mut record = Record::default();
        gpu::run(&mut record, gpus, references, nonce, policy, at, Some(&self.platforms.gpu));
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
