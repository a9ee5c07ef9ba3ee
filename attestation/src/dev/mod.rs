//! The development platform: it plays Intel and AMD with its own roots, so that everything can be built, tested and tried
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
mod der;
mod keys;
mod tdx;

pub use certs::{CertSpec, CrlSpec, FROM, ORGANISATION, UNTIL, serial};
pub use keys::SignedBy;
pub use tdx::{
    CollateralSpec, FMSPC, ModuleIdentity, ModuleLevel, PckCa, PckSpec, QE_MRSIGNER, QeIdentitySpec, QeLevel, QeReport,
    QuoteHeader, TcbComponents, TcbInfoSpec, TcbLevel, Td15, TdReport, TdxModule, TdxSpec,
};

/// Vendor keys and the machinery to sign with them.
pub struct DevPlatform {
    tdx: tdx::Tdx,
}

impl DevPlatform {
    /// A platform whose keys all come from a seed, but for AMD's RSA keys, which are committed with the source.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { tdx: tdx::Tdx::from_seed(&seed) }
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
}
