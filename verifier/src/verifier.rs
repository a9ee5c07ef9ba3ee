//! A verifier that remembers what it has authenticated.

use std::cell::Cell;

use cocoon_attestation::bundle::MAX_BYTES;
use cocoon_attestation::detached::{Detached, Named};
use cocoon_attestation::{Bundle, Digest, EventLog, ReferenceValues, UnixTime};

use crate::beside::Beside;
use crate::bundle::{
    self, BundleAppraisal, Endorsed as EndorsedCpu, Parts, Platforms, References, appraise_bundle_with,
};
use crate::cache::Cache;
use crate::gpu::{self, GpuEvidence, GpuReferences, Shared};
use crate::outcome::{Appraisal, Record, Signature};
use crate::policy::Policy;
use crate::snp::{self, Endorsed};
use crate::tdx::{self, Collateral, Given, Intel};

/// Most platforms of each kind that are remembered, some 20 KB each.
const PLATFORMS: usize = 1024;

/// More than an endorsement takes in a bundle beyond its own bytes: its SHA-256 in hex, its media type, and what is around them.
const STORED: usize = 160;

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
                tdx: tdx::Known::new(platforms),
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
        let endorsed = Endorsed { vek, ca: snp::slices(ca), crl };
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

    /// Appraises a bundle whose endorsements stand beside it, as logs keep them, at a time. The result is that of
    /// [`crate::appraise_bundle`] for the bundle with its endorsements inside.
    pub fn detached(
        &self,
        bundle: &[u8],
        beside: &Beside<'_>,
        policy: &Policy,
        references: Option<&ReferenceValues>,
        at: UnixTime,
    ) -> BundleAppraisal {
        match Detached::read(bundle).and_then(|read| self.in_place(bundle.len(), &read, beside, policy, references, at))
        {
            Some(result) => result,
            None => self.attached(bundle, beside, policy, references, at),
        }
    }

    /// The same without haste: whatever is wrong shows as it does in a bundle that carries its endorsements.
    fn attached(
        &self,
        bundle: &[u8],
        beside: &Beside<'_>,
        policy: &Policy,
        references: Option<&ReferenceValues>,
        at: UnixTime,
    ) -> BundleAppraisal {
        match Bundle::from_cbor_with(bundle, |digest| beside.find(digest)) {
            Ok(bundle) => self.bundle(&bundle.to_cbor(), policy, references, at),
            Err(error) => bundle::unreadable(error.to_string()),
        }
    }

    /// `None` where something is missing, or has to be looked at without haste.
    fn in_place(
        &self,
        len: usize,
        bundle: &Detached<'_>,
        beside: &Beside<'_>,
        policy: &Policy,
        references: Option<&ReferenceValues>,
        at: UnixTime,
    ) -> Option<BundleAppraisal> {
        let event_log = match bundle.event_log {
            None => None,
            Some(log) => Some(EventLog::from_cbor(log).ok()?),
        };
        // What the bundle would take with its endorsements inside, and a little more: there is a limit to that.
        let whole = Cell::new(len);
        let count = |part: usize| {
            whole.set(whole.get() + part + STORED);
            (whole.get() <= MAX_BYTES).then_some(())
        };
        let part = |digest: &Digest| {
            let part = beside.part(digest)?;
            count(part.len())?;
            Some(part)
        };
        let (collateral, chip);
        let (vek, ca, crl);
        let endorsed = match &bundle.endorsements {
            Named::None => EndorsedCpu::None,
            Named::Tdx(digest) => {
                collateral = beside.collateral(digest)?;
                count(collateral.len)?;
                EndorsedCpu::Tdx(Intel::Read(&collateral.collateral))
            }
            Named::Snp(vek_name, ca_names, crl_name) => {
                vek = part(vek_name)?;
                ca = ca_names.iter().map(part).collect::<Option<Vec<_>>>()?;
                crl = match crl_name {
                    None => None,
                    Some(name) => Some(part(name)?),
                };
                let crl = crl.as_ref().map(|crl| crl.as_slice());
                chip = Endorsed { vek: &vek, ca: ca.iter().map(|ca| ca.as_slice()).collect(), crl };
                EndorsedCpu::Snp(chip)
            }
        };
        let chains = bundle.gpu_chains.iter().map(part).collect::<Option<Vec<_>>>()?;
        let shared = |digests: &[Digest]| {
            let shared = |digest: &Digest| part(digest).map(|bytes| Shared { bytes, digest: digest.0 });
            digests.iter().map(shared).collect::<Option<Vec<_>>>()
        };
        let parts = Parts {
            claims: bundle.claims,
            cpu: bundle.cpu,
            gpu: bundle.gpu.clone(),
            event_log: event_log.as_ref(),
            endorsed,
            gpu_chains: chains.iter().map(|chain| chain.as_slice()).collect(),
            gpu_references: References::Shared(GpuReferences::of(
                shared(&bundle.gpu_manifests)?,
                shared(&bundle.gpu_ocsp)?,
            )),
            evidence_id: bundle.evidence_id(),
        };
        Some(bundle::appraise_parts(&parts, policy, references, at, Some(&self.platforms)))
    }
}
