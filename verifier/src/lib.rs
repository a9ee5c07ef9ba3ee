//! The one verifier of Cocoon: it takes evidence, endorsements, a policy and a time, and says whether the evidence is
//! genuine and good enough. It reads no file, opens no socket and has no clock, so any result can be had again later.
//!
//! Evidence is **authenticated first and appraised second**, in separate modules:
//! - [`tdx`]: Intel TDX quotes, versions 4 and 5.
//! - [`snp`]: AMD SEV-SNP reports, versions 2 to 5.
//! - [`gpu`]: NVIDIA GPU reports, Hopper and Blackwell, and NVIDIA's reference manifests.
//! - [`binding`]: claims against what the CPU signed, and against reference values.
//! - [`bundle`]: a whole evidence bundle.
//! - [`policy`]: what a relying party accepts; strict unless told otherwise.
//! - [`obligations`]: every check in order, with its place in the code.
//! - [`needs`]: which endorsements evidence needs, for whoever fetches them; [`is_signed`]: whether it deserves that anybody is asked.
//! - [`roots`]: the vendors' roots.
//! - [`Verifier`]: the same, remembering platforms it has authenticated.
//! - [`outcome`]: the result, with every check that was made and what was left unchecked; [`Appraisal::advice`] says what to do
//!   about those that failed.
//! - [`ear`]: the result as an EAT attestation result, for other systems.
//!
//! ```
//! use cocoon_attestation::UnixTime;
//! use cocoon_attestation::dev::{CollateralSpec, DevPlatform, TdxSpec};
//! use cocoon_verifier::{Outcome, Policy, appraise_tdx};
//!
//! let platform = DevPlatform::from_seed([7; 32]);
//! let quote = platform.tdx_quote(&TdxSpec::default());
//! let collateral = platform.tdx_collateral(&CollateralSpec::default());
//! let at = UnixTime(1_790_000_000);
//!
//! // Nobody named the development platform's root, so its evidence is invalid ...
//! assert_eq!(appraise_tdx(&quote, &collateral, &Policy::default(), at).outcome, Outcome::Invalid);
//!
//! // ... and a policy that names it says so in the result.
//! let policy = Policy { roots: vec![platform.tdx_root_der()], ..Policy::default() };
//! let appraisal = appraise_tdx(&quote, &collateral, &policy, at);
//! assert_eq!(appraisal.outcome, Outcome::Accepted);
//! assert!(appraisal.development);
//! // No measurement was asked for, so none was compared.
//! assert!(appraisal.unchecked.iter().any(|item| item.id == "tdx.mrtd"));
//! ```

mod advice;
mod beside;
pub mod binding;
pub mod bundle;
mod cache;
pub mod ear;
mod error;
mod explain;
pub mod gpu;
pub mod needs;
pub mod obligations;
pub mod outcome;
pub mod policy;
pub mod roots;
mod signed;
pub mod snp;
pub mod tdx;
mod verifier;
mod x509;

pub use advice::{Advice, Layer};
pub use beside::Beside;
pub use bundle::{BundleAppraisal, appraise_bundle};
pub use error::Error;
pub use gpu::{GpuEvidence, GpuReferences, appraise_gpu, appraise_gpus, appraise_rim};
pub use needs::Need;
pub use outcome::{Appraisal, Check, CheckOutcome, Outcome, Unchecked};
pub use policy::Policy;
pub use signed::is_signed;
pub use snp::{appraise_snp, appraise_snp_against};
pub use tdx::{Collateral, appraise_tdx, appraise_tdx_against, appraise_tdx_with_events};
pub use verifier::Verifier;
