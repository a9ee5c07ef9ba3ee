//! Collection of CPU evidence inside the guest.
//!
//! On hardware the kernel's configfs-tsm interface (`Documentation/ABI/testing/configfs-tsm-report`, Linux 6.7) is the
//! same for TDX and SNP: [`ConfigfsTsm`]. On the development platform a socket takes its place: [`SocketTsm`].

mod certs;
mod configfs;
mod fake;
mod socket;

pub use certs::CertTable;
pub use configfs::{ConfigfsTsm, DEFAULT_ROOT, FileOps, SystemFiles};
pub use fake::FakeTsm;
pub use socket::SocketTsm;
pub(crate) use socket::{read_request, write_response};

use crate::bundle::{CpuEvidence, Endorsements};
use crate::{Error, binding};

/// Name that the kernel gives TDX reports.
pub const PROVIDER_TDX: &str = "tdx_guest";
/// Name that the kernel gives SNP reports.
pub const PROVIDER_SNP: &str = "sev_guest";

/// One report, as configfs-tsm gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsmReport {
    /// `tdx_guest` or `sev_guest`.
    pub provider: String,
    /// TDX quote or SNP report.
    pub outblob: Vec<u8>,
    /// Certificates that the host passed along (SNP certificate table), where there are any.
    pub auxblob: Option<Vec<u8>>,
    /// Counts writes to the entry; equal before and after reading, or the report is someone else's.
    pub generation: u64,
}

/// Whatever gives reports about this guest.
pub trait Tsm: Send {
    /// Asks for a report over 64 bytes of report data, at an SNP privilege level (VMPL 0 to 3) if one is given.
    fn report(&mut self, report_data: &[u8; 64], privlevel: Option<u32>) -> Result<TsmReport, Error>;
}

/// Collects CPU evidence bound to claims. SNP hosts may pass certificates along; they come back as endorsements.
pub fn collect(tsm: &mut dyn Tsm, claims_cbor: &[u8]) -> Result<(CpuEvidence, Endorsements), Error> {
    let report = tsm.report(&binding::report_data(claims_cbor), None)?;
    match report.provider.as_str() {
        PROVIDER_TDX => Ok((CpuEvidence::Tdx { quote: report.outblob }, Endorsements::None)),
        PROVIDER_SNP => {
            let endorsements = match &report.auxblob {
                Some(table) => CertTable::parse(table)?.endorsements(),
                None => Endorsements::None,
            };
            // The firmware's response may stand in a longer buffer; a report has exactly this length.
            let mut snp = report.outblob;
            snp.truncate(SNP_REPORT_LEN);
            Ok((CpuEvidence::Snp { report: snp }, endorsements))
        }
        other => Err(Error::Tsm(format!("provider {other:?} is neither {PROVIDER_TDX} nor {PROVIDER_SNP}"))),
    }
}

/// Length of an SNP attestation report in bytes (SEV-SNP ABI, table ATTESTATION_REPORT).
pub const SNP_REPORT_LEN: usize = 1184;
