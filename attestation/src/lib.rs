//! Evidence: what an enclave says about itself, how CPU and GPU are bound to it, and how it is collected and carried.
//!
//! - [`claims`], [`binding`], [`bundle`], [`event_log`], [`ccel`], [`mod@reference`]: the formats. Their schemas are in `docs/schemas`.
//! - [`model`]: the root hash of a model folder.
//! - [`tsm`]: collection inside the guest.
//! - [`dev`]: the development platform, which plays the CPU vendors. **It is not confidential.**
//!
//! Nothing here decides whether evidence is good: that is the verifier's work, and the verifier's alone.

pub mod binding;
pub mod bundle;
pub mod cbor;
pub mod ccel;
pub mod claims;
pub mod detached;
pub mod dev;
mod error;
pub mod event_log;
mod in_place;
pub mod model;
pub mod reference;
pub mod tsm;
pub mod types;

pub use bundle::{Bundle, CpuEvidence, Endorsements, GpuEndorsements, SnpEndorsements};
pub use claims::{Beacon, Claims};
pub use error::Error;
pub use event_log::{Event, EventLog};
pub use model::{ModelFile, ModelRoot, model_files, model_root};
pub use reference::ReferenceValues;
pub use types::{Digest, EnclaveKey, EvidenceId, Measurement, ProviderAddress, UnixTime};
