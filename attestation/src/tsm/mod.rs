//! Collection of CPU evidence inside the guest.
//!
//! On hardware the kernel's configfs-tsm interface (`Documentation/ABI/testing/configfs-tsm-report`, Linux 6.7) is the
//! same for TDX and SNP: [`ConfigfsTsm`]. On the development platform a socket takes its place: [`SocketTsm`].

mod certs;
mod configfs;
mod fake;
mod socket;

pub use certs::CertTable;
pub use configfs::{CCEL, ConfigfsTsm, DEFAULT_ROOT, FileOps, SystemFiles};
pub use fake::FakeTsm;
pub use socket::SocketTsm;
pub(crate) use socket::{read_request, write_response};

use crate::bundle::{CpuEvidence, Endorsements};
use crate::types::Measurement;
use crate::{Error, EventLog, binding};

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

    /// What the firmware and the kernel measured into runtime registers, where the guest can see it.
    fn event_log(&mut self) -> Option<EventLog> {
        None
    }
}

/// CPU evidence with what came along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The evidence.
    pub cpu: CpuEvidence,
    /// What was measured into the registers of a TDX guest, where it can see that.
    pub event_log: Option<EventLog>,
    /// Certificates that an SNP host passed along.
    pub endorsements: Endorsements,
}

/// Collects CPU evidence bound to claims.
pub fn collect(tsm: &mut dyn Tsm, claims_cbor: &[u8]) -> Result<Collected, Error> {
    let report = tsm.report(&binding::report_data(claims_cbor), None)?;
    match report.provider.as_str() {
        PROVIDER_TDX => Ok(Collected {
            event_log: tsm.event_log().filter(|log| explains(log, &report.outblob)),
            cpu: CpuEvidence::Tdx { quote: report.outblob },
            endorsements: Endorsements::None,
        }),
        PROVIDER_SNP => {
            let endorsements = match &report.auxblob {
                Some(table) => CertTable::parse(table)?.endorsements(),
                None => Endorsements::None,
            };
            // The firmware's response may stand in a longer buffer; a report has exactly this length.
            let mut snp = report.outblob;
            snp.truncate(SNP_REPORT_LEN);
            Ok(Collected { cpu: CpuEvidence::Snp { report: snp }, event_log: None, endorsements })
        }
        other => Err(Error::Tsm(format!("provider {other:?} is neither {PROVIDER_TDX} nor {PROVIDER_SNP}"))),
    }
}

/// Whether a log replays to the registers of a quote. One that does not would make good evidence look forged.
fn explains(log: &EventLog, quote: &[u8]) -> bool {
    let explains = registers(quote).is_some_and(|quoted| log.replay().is_ok_and(|replayed| replayed == quoted));
    if !explains {
        tracing::warn!("the firmware's event log does not replay to the quote's registers, and is left out");
    }
    explains
}

/// RTMR0 to 3 of a quote of version 4 or 5 (Intel, "TDX DCAP Quoting Library API", appendix A.3).
fn registers(quote: &[u8]) -> Option<[Measurement; 4]> {
    let body = if quote.first() == Some(&5) { 54 } else { 48 };
    let mut registers = [Measurement([0; 48]); 4];
    for (register, value) in registers.iter_mut().zip(quote.get(body + 328..body + 520)?.chunks_exact(48)) {
        register.0.copy_from_slice(value);
    }
    Some(registers)
}

/// Length of an SNP attestation report in bytes (SEV-SNP ABI, table ATTESTATION_REPORT).
pub const SNP_REPORT_LEN: usize = 1184;
