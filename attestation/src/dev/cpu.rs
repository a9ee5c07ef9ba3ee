//! The CPU of the development platform, played outside the guest: whoever launches a guest measures it, and answers its
//! report requests over a Unix socket. So a guest cannot quote a measurement that is not its own.

use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::{DevPlatform, SnpEndorsementSpec, SnpSpec, TdxSpec};
use crate::Error;
use crate::tsm::{self, CertTable, PROVIDER_SNP, PROVIDER_TDX, TsmReport};

/// Which CPU is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// Intel TDX.
    #[default]
    Tdx,
    /// AMD SEV-SNP.
    Snp,
}

/// What the CPU recorded when the guest was launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// TDX: measurement of the initial memory.
    pub mrtd: [u8; 48],
    /// TDX: runtime registers.
    pub rtmr: [[u8; 48]; 4],
    /// TDX: MRCONFIGID.
    pub mr_config_id: [u8; 48],
    /// SNP: launch digest.
    pub snp_measurement: [u8; 48],
    /// SNP: HOST_DATA.
    pub host_data: [u8; 32],
    /// A debugger may look into the guest.
    pub debug: bool,
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            mrtd: [0; 48],
            rtmr: [[0; 48]; 4],
            mr_config_id: [0; 48],
            snp_measurement: [0; 48],
            host_data: [0; 32],
            debug: false,
        }
    }
}

/// The bit of an SNP guest's policy that lets the host debug it.
const SNP_DEBUG: u32 = 19;

/// A CPU that holds one launched guest.
pub struct DevCpu {
    platform: DevPlatform,
    tee: Tee,
    launch: Launch,
    /// The certificates that a host passes along with SNP reports.
    certificates: Option<Vec<u8>>,
}

impl DevCpu {
    /// A CPU of a platform with a guest.
    pub fn new(platform: DevPlatform, tee: Tee, launch: Launch) -> Self {
        let certificates = (tee == Tee::Snp).then(|| {
            let chain = platform.snp_endorsements(&SnpEndorsementSpec { crl: None, ..Default::default() });
            let mut certificates = vec![(CertTable::VCEK, chain.vek)];
            certificates.extend([CertTable::ASK, CertTable::ARK].into_iter().zip(chain.ca));
            CertTable(certificates).to_bytes()
        });
        Self { platform, tee, launch, certificates }
    }

    /// The platform.
    pub fn platform(&self) -> &DevPlatform {
        &self.platform
    }

    /// A report about the guest. TDX knows no privilege levels and refuses one.
    pub fn report(&self, report_data: &[u8; 64], privlevel: Option<u32>) -> Result<TsmReport, Error> {
        match (self.tee, privlevel) {
            (Tee::Tdx, None) => {
                let mut spec = TdxSpec::default();
                spec.body.mr_td = self.launch.mrtd;
                spec.body.rtmr = self.launch.rtmr;
                spec.body.mr_config_id = self.launch.mr_config_id;
                spec.body.report_data = *report_data;
                spec.body.td_attributes[0] |= u8::from(self.launch.debug);
                let outblob = self.platform.tdx_quote(&spec);
                Ok(TsmReport { provider: PROVIDER_TDX.into(), outblob, auxblob: None, generation: 1 })
            }
            (Tee::Snp, None | Some(0..=3)) => {
                let policy = SnpSpec::default().policy | u64::from(self.launch.debug) << SNP_DEBUG;
                let spec = SnpSpec {
                    policy,
                    measurement: self.launch.snp_measurement,
                    host_data: self.launch.host_data,
                    report_data: *report_data,
                    vmpl: privlevel.unwrap_or(0),
                    ..SnpSpec::default()
                };
                let outblob = self.platform.snp_report(&spec);
                let auxblob = self.certificates.clone();
                Ok(TsmReport { provider: PROVIDER_SNP.into(), outblob, auxblob, generation: 1 })
            }
            (_, Some(level)) => Err(Error::Dev(format!("this guest cannot ask at privilege level {level}"))),
        }
    }

    /// Answers the guest's requests ([`tsm::SocketTsm`] is the other end) until it closes the socket. Blocks.
    pub fn serve(self, mut stream: UnixStream) -> std::io::Result<()> {
        while let Some((report_data, privlevel)) = tsm::read_request(&mut stream)? {
            tsm::write_response(&mut stream, &self.report(&report_data, privlevel))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{CpuEvidence, Endorsements};
    use crate::tsm::{Collected, SocketTsm, Tsm};
    use crate::{SnpEndorsements, binding};

    fn guest(tee: Tee) -> SocketTsm {
        let (host, guest) = UnixStream::pair().unwrap();
        let launch = Launch { mrtd: [0xa1; 48], snp_measurement: [0xa2; 48], ..Launch::default() };
        let cpu = DevCpu::new(DevPlatform::from_seed([1; 32]), tee, launch);
        std::thread::spawn(move || cpu.serve(host));
        SocketTsm::new(guest)
    }

    #[test]
    fn a_tdx_guest_gets_quotes_with_its_own_measurement_and_binding() {
        let mut tsm = guest(Tee::Tdx);
        for claims in [b"one".as_slice(), b"two"] {
            let Collected { cpu, event_log, endorsements } = tsm::collect(&mut tsm, claims).unwrap();
            assert_eq!(event_log, None, "who launched the guest has it");
            let CpuEvidence::Tdx { quote } = cpu else { panic!("TDX evidence expected") };
            assert_eq!(quote[48 + 136..48 + 184], [0xa1; 48], "MRTD");
            assert_eq!(quote[48 + 520..48 + 584], binding::report_data(claims), "REPORTDATA");
            assert_eq!(endorsements, Endorsements::None);
        }
    }

    #[test]
    fn an_snp_guest_gets_reports_and_certificates() {
        let mut tsm = guest(Tee::Snp);
        let Collected { cpu, endorsements, .. } = tsm::collect(&mut tsm, b"claims").unwrap();
        let CpuEvidence::Snp { report } = cpu else { panic!("SNP evidence expected") };
        assert_eq!(report.len(), tsm::SNP_REPORT_LEN);
        assert_eq!(report[0x90..0xc0], [0xa2; 48], "MEASUREMENT");
        assert_eq!(report[0x50..0x90], binding::report_data(b"claims"), "REPORT_DATA");
        let Endorsements::Snp(SnpEndorsements { ca, crl, .. }) = endorsements else { panic!("certificates expected") };
        assert_eq!((ca.len(), crl), (2, None));
        assert_eq!(tsm.report(&[0; 64], Some(3)).unwrap().outblob[0x30..0x34], [3, 0, 0, 0], "VMPL");
    }

    #[test]
    fn a_guest_that_may_be_debugged_cannot_hide_it() {
        for debug in [false, true] {
            let cpu = |tee| DevCpu::new(DevPlatform::from_seed([1; 32]), tee, Launch { debug, ..Launch::default() });
            let quote = cpu(Tee::Tdx).report(&[0; 64], None).unwrap().outblob;
            assert_eq!(quote[48 + 120] & 1, u8::from(debug), "TDX: bit 0 of the attributes");
            let report = cpu(Tee::Snp).report(&[0; 64], None).unwrap().outblob;
            assert_eq!(report[8 + 2] >> 3 & 1, u8::from(debug), "SNP: bit 19 of the policy");
        }
    }

    #[test]
    fn a_refused_request_leaves_the_socket_usable_and_a_closed_one_is_an_error() {
        let mut tsm = guest(Tee::Tdx);
        assert!(tsm.report(&[0; 64], Some(1)).unwrap_err().to_string().contains("privilege level 1"));
        assert!(tsm.report(&[0; 64], None).is_ok());
        let (host, guest) = UnixStream::pair().unwrap();
        drop(host);
        assert!(SocketTsm::new(guest).report(&[0; 64], None).unwrap_err().to_string().contains("does not answer"));
    }
}
