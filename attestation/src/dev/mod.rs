//! The development platform: it plays Intel, AMD and NVIDIA with its own roots, so that everything can be built, tested and tried
//! without TEE hardware. **Nothing it vouches for is confidential**, and a verifier accepts it only under a policy that
//! names its root.
//!
//! It mints the same bytes that hardware and vendors make, is deterministic (same seed and specification, same bytes), and
//! every field of a specification can be altered alone. Bytes flipped after signing are the caller's business.
//!
//! ```
//! use cocoon_attestation::dev::{CollateralSpec, DevPlatform, TdxSpec};
//!
//! let platform = DevPlatform::from_seed([7; 32]);
//! let mut spec = TdxSpec::default();
//! spec.body.report_data = [1; 64];
//! let quote = platform.tdx_quote(&spec);
//! let collateral = platform.tdx_collateral(&CollateralSpec::default());
//! assert_eq!(&quote[568..632], &[1; 64]);
//! assert!(!collateral.is_empty());
//! ```

mod certs;
pub mod cpu;
mod der;
mod gpu;
mod keys;
mod ocsp;
mod snp;
mod tdx;

pub use certs::{CertSpec, CrlSpec, FROM, ORGANISATION, UNTIL, serial};
pub use gpu::{FWID, GpuChainSpec, GpuSpec, RimSpec, measurement as gpu_measurement};
pub use keys::SignedBy;
pub use ocsp::{OcspHash, OcspSpec, OcspStatus, OcspSubject, Responder};
pub use snp::{CHIP_ID, SnpEndorsementSpec, SnpSpec, SnpTcb};
pub use tdx::{
    CollateralSpec, FMSPC, ModuleIdentity, ModuleLevel, PckCa, PckSpec, QE_MRSIGNER, QeIdentitySpec, QeLevel, QeReport,
    QuoteHeader, TcbComponents, TcbInfoSpec, TcbLevel, Td15, TdReport, TdxModule, TdxSpec,
};

use crate::bundle::SnpEndorsements;

/// Vendor keys and the machinery to sign with them.
#[derive(Clone)]
pub struct DevPlatform {
    tdx: tdx::Tdx,
    snp: snp::Snp,
    gpu: gpu::Gpu,
}

impl DevPlatform {
    /// A platform whose keys all come from a seed, but for AMD's RSA keys, which are committed with the source.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { tdx: tdx::Tdx::from_seed(&seed), snp: snp::Snp::from_seed(&seed), gpu: gpu::Gpu::from_seed(&seed) }
    }

    /// Root certificate of the Intel part, DER: what a policy must name to accept the platform's TDX evidence.
    pub fn tdx_root_der(&self) -> Vec<u8> {
        self.tdx.root_der()
    }

    /// A TDX quote with its PCK certificate chain.
    pub fn tdx_quote(&self, spec: &TdxSpec) -> Vec<u8> {
        self.tdx.quote(spec)
    }

    /// TDX collateral, JSON in `QuoteCollateralV3` layout.
    pub fn tdx_collateral(&self, spec: &CollateralSpec) -> Vec<u8> {
        self.tdx.collateral(spec)
    }

    /// Root certificate of the AMD part, DER: what a policy must name to accept the platform's SNP evidence. Every
    /// platform has this one, whatever its seed.
    pub fn snp_ark_der(&self) -> Vec<u8> {
        self.snp.ark_der()
    }

    /// An SNP report, 1184 bytes.
    pub fn snp_report(&self, spec: &SnpSpec) -> Vec<u8> {
        self.snp.report(spec)
    }

    /// Certificates and revocation list for SNP reports.
    pub fn snp_endorsements(&self, spec: &SnpEndorsementSpec) -> SnpEndorsements {
        self.snp.endorsements(spec)
    }

    /// Root certificate of the NVIDIA part, DER: of GPUs' chains and of reference manifests.
    pub fn gpu_root_der(&self) -> Vec<u8> {
        self.gpu.root_der()
    }

    /// A GPU's SPDM request and signed response.
    pub fn gpu_report(&self, spec: &GpuSpec) -> Vec<u8> {
        self.gpu.report(spec)
    }

    /// A GPU's certificates, PEM, leaf first.
    pub fn gpu_chain(&self, spec: &GpuChainSpec) -> Vec<u8> {
        self.gpu.chain(spec)
    }

    /// What NVIDIA's service says of one of its certificates (RFC 6960), DER.
    pub fn gpu_ocsp(&self, spec: &OcspSpec) -> Vec<u8> {
        self.gpu.ocsp(spec)
    }

    /// A signed reference manifest, XML.
    pub fn gpu_manifest(&self, spec: &RimSpec) -> Vec<u8> {
        self.gpu.manifest(spec)
    }
}
