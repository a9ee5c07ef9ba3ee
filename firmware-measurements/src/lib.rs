//! Launch measurements: what a CPU will measure when a guest is launched from given files, computed offline from the files and a
//! description of the machine alone.
//!
//! - [`snp::measure`]: the launch digest of SEV-SNP; [`id_block`]: the block by which its owner vouches for it.
//! - [`tdx::measure`]: MRTD and RTMR0 to 3 of TDX, with every event.
//! - [`inspect`]: what a firmware image does with kernel, tables and variables, which decides what is measured.
//! - [`explain`]: where the event log of a running guest differs from what it should be.
//! - [`image`]: a whole image over many machines, as reference values.
//! - [`process_launch`]: a guest that is a process on the development platform.
//!
//! Inputs are bytes, not paths, but for [`process_launch`]. What is unknown or contradictory is an [`Error`], never a guess; which
//! bytes go where, and what is not covered, is in `docs/measurements.md`.

pub mod acpi;
mod bytes;
pub mod cpu;
mod efi;
mod error;
pub mod event;
pub mod explain;
mod gctx;
mod guid;
mod hob;
pub mod id_block;
pub mod image;
pub mod inspect;
pub mod kernel_hashes;
pub mod linux;
mod ovmf;
pub mod pe;
mod process;
pub mod sev_metadata;
pub mod snp;
pub mod tdvf;
pub mod tdx;
mod variables;
mod vmsa;

pub use acpi::AcpiTables;
pub use cpu::CpuModel;
pub use error::Error;
pub use event::{Event, Step};
pub use inspect::Inspection;
pub use kernel_hashes::KernelHashes;
pub use process::{ProcessLaunch, process_launch};
pub use vmsa::Vmm;
