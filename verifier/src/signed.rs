//! Whether evidence deserves that vendors are asked about it.

use cocoon_attestation::binding::{gpu_digest, gpu_nonce, report_data};
use cocoon_attestation::{Bundle, CpuEvidence, Endorsements, UnixTime};

use crate::binding::Authentic;
use crate::gpu::GpuEvidence;
use crate::outcome::{Record, Signature};
use crate::policy::Policy;
use crate::{gpu, snp, tdx};

/// Whether the keys that signed a bundle's evidence lead to roots in force, by nothing but what the bundle carries and what never lapses:
/// certificates and signatures, no TCB info, no revocation list. It is **no appraisal**: a revoked platform passes.
///
/// Names in evidence that fails here (a processor's family, a chip's id, a driver's version) are anybody's invention, and whoever asks a
/// vendor about them works for whoever invented them. An SNP report must come with the certificate of its key.
pub fn is_signed(bundle: &Bundle, policy: &Policy, at: UnixTime) -> bool {
    let Ok(claims) = bundle.claims() else { return false };
    let cpu = match (&bundle.cpu, &bundle.endorsements) {
        (CpuEvidence::Tdx { quote }, _) => tdx::signed(quote, policy, at).map(Authentic::Tdx),
        (CpuEvidence::Snp { report }, Endorsements::Snp(given)) => {
            let endorsed = snp::Endorsed { vek: &given.vek, ca: snp::slices(&given.ca), crl: None };
            let mut record = Record::default();
            snp::run(&mut record, report, &endorsed, policy, at, Signature::Checked, None).map(Authentic::Snp)
        }
        _ => None,
    };
    let bound = cpu.is_some_and(|cpu| cpu.report_data().0 == report_data(&bundle.claims));
    let chains = &bundle.gpu_endorsements.chains;
    if !bound || gpu_digest(&bundle.gpu) != claims.gpu_digest || bundle.gpu.len() != chains.len() {
        return false;
    }
    let nonce = gpu_nonce(&claims);
    let mut gpus = bundle.gpu.iter().zip(chains).map(|(report, chain)| GpuEvidence { report, chain });
    gpus.all(|gpu| gpu::signed(&gpu, nonce, policy, at))
}
