//! TDX quotes (Intel TDX DCAP Quoting Library API, appendix 3: quote format versions 4 and 5).

use super::{FMSPC, QE_MRSIGNER, Tdx};
use crate::dev::certs::{CertSpec, Role, certificate, extension, pem, serial};
use crate::dev::der;
use crate::dev::keys::SignedBy;
use crate::types::Digest;

/// Quote header, 48 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteHeader {
    /// 4, or 5 for quotes that name their body's type.
    pub version: u16,
    /// 2: ECDSA-256 with the P-256 curve.
    pub attestation_key_type: u16,
    /// 0x81: TDX.
    pub tee_type: u32,
    /// Security version of the quoting enclave (reserved in version 4).
    pub qe_svn: u16,
    /// Security version of the PCE (reserved in version 4).
    pub pce_svn: u16,
    /// Intel's quoting enclave: 939a7233-f79c-4ca9-940a-0db3957f0607.
    pub qe_vendor_id: [u8; 16],
    /// Free for the quoting enclave.
    pub user_data: [u8; 20],
}

impl Default for QuoteHeader {
    fn default() -> Self {
        let qe_vendor_id = 0x939a7233_f79c_4ca9_940a_0db3957f0607_u128.to_be_bytes();
        Self {
            version: 4,
            attestation_key_type: 2,
            tee_type: 0x81,
            qe_svn: 0,
            pce_svn: 0,
            qe_vendor_id,
            user_data: [0; 20],
        }
    }
}

/// TD report body of TDX 1.0, 584 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdReport {
    /// Security versions of the TDX module and its loader: module minor version, module major version, SEAM loader, zeros.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mr_seam: [u8; 48],
    /// Signer of the TDX module; zero for Intel's.
    pub mr_signer_seam: [u8; 48],
    /// Attributes of the TDX module; zero for Intel's.
    pub seam_attributes: [u8; 8],
    /// TD attributes, little-endian bits: 0 DEBUG, 28 SEPT_VE_DISABLE, 29 MIGRATABLE, 30 PKS, 63 PERFMON.
    pub td_attributes: [u8; 8],
    /// Extended features that the TD may use.
    pub xfam: [u8; 8],
    /// MRTD: measurement of the initial memory.
    pub mr_td: [u8; 48],
    /// MRCONFIGID: chosen by whoever launched the TD.
    pub mr_config_id: [u8; 48],
    /// MROWNER.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG.
    pub mr_owner_config: [u8; 48],
    /// Runtime registers 0 to 3.
    pub rtmr: [[u8; 48]; 4],
    /// REPORTDATA: what the guest bound.
    pub report_data: [u8; 64],
}

impl Default for TdReport {
    fn default() -> Self {
        let mut tee_tcb_svn = [0; 16];
        tee_tcb_svn[..3].copy_from_slice(&[7, 1, 3]);
        Self {
            tee_tcb_svn,
            mr_seam: [0x5e; 48],
            mr_signer_seam: [0; 48],
            seam_attributes: [0; 8],
            td_attributes: (1u64 << 28).to_le_bytes(),
            xfam: 0x602e7_u64.to_le_bytes(),
            mr_td: [0x11; 48],
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            rtmr: [[0; 48]; 4],
            report_data: [0; 64],
        }
    }
}

/// What TDX 1.5 adds to the body; only in version 5 quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Td15 {
    /// Current security versions, after updates that preserved the TD.
    pub tee_tcb_svn2: [u8; 16],
    /// Measurement of service TDs bound to this one; zero for none.
    pub mr_service_td: [u8; 48],
}

impl Default for Td15 {
    fn default() -> Self {
        Self { tee_tcb_svn2: TdReport::default().tee_tcb_svn, mr_service_td: [0; 48] }
    }
}

/// The quoting enclave's own report, 384 bytes (Intel SDM, REPORT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QeReport {
    /// CPU security versions.
    pub cpu_svn: [u8; 16],
    /// MISCSELECT.
    pub misc_select: u32,
    /// Enclave attributes.
    pub attributes: [u8; 16],
    /// MRENCLAVE.
    pub mr_enclave: [u8; 32],
    /// MRSIGNER: who signed the enclave.
    pub mr_signer: [u8; 32],
    /// ISVPRODID.
    pub isv_prod_id: u16,
    /// ISVSVN.
    pub isv_svn: u16,
    /// Report data; `None`: SHA-256(attestation key || authentication data), as it should be.
    pub report_data: Option<[u8; 64]>,
}

impl Default for QeReport {
    fn default() -> Self {
        let mut attributes = [0; 16];
        attributes[0] = 0x11;
        Self {
            cpu_svn: PckSpec::default().cpu_svn,
            misc_select: 0,
            attributes,
            mr_enclave: [0x0e; 32],
            mr_signer: QE_MRSIGNER,
            isv_prod_id: 2,
            isv_svn: 4,
            report_data: None,
        }
    }
}

/// Which intermediate CA issued a PCK certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PckCa {
    /// For multi-package platforms; its certificates describe the platform's configuration.
    #[default]
    Platform,
    /// For single-package platforms.
    Processor,
}

/// PCK certificate with the SGX extension (Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PckSpec {
    /// The certificate.
    pub certificate: CertSpec,
    /// Its issuer.
    pub ca: PckCa,
    /// Provisioning id of the processor package.
    pub ppid: [u8; 16],
    /// SGX TCB components 1 to 16.
    pub tcb_components: [u8; 16],
    /// PCESVN.
    pub pce_svn: u16,
    /// CPUSVN; the components, packed by the processor.
    pub cpu_svn: [u8; 16],
    /// PCEID, two bytes, little-endian.
    pub pce_id: [u8; 2],
    /// Family, model, stepping, platform and custom SKU: which TCB info applies.
    pub fmspc: [u8; 6],
    /// 0 standard, 1 scalable, 2 scalable with integrity.
    pub sgx_type: u8,
    /// Platform instance id; platform CA only.
    pub platform_instance_id: [u8; 16],
    /// Packages may be added; platform CA only.
    pub dynamic_platform: bool,
    /// Platform keys are cached by Intel's registration service; platform CA only.
    pub cached_keys: bool,
    /// Hyper-threading is on; platform CA only.
    pub smt_enabled: bool,
}

impl Default for PckSpec {
    fn default() -> Self {
        let svn = [3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        Self {
            certificate: CertSpec::new(serial::PCK),
            ca: PckCa::Platform,
            ppid: [0xdd; 16],
            tcb_components: svn,
            pce_svn: 13,
            cpu_svn: svn,
            pce_id: [0; 2],
            fmspc: FMSPC,
            sgx_type: 1,
            platform_instance_id: [0x1d; 16],
            dynamic_platform: false,
            cached_keys: false,
            smt_enabled: false,
        }
    }
}

/// Everything in a quote. The default is good evidence under [`super::CollateralSpec::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxSpec {
    /// Header.
    pub header: QuoteHeader,
    /// TD report.
    pub body: TdReport,
    /// TDX 1.5 additions; taken up in version 5 only.
    pub td15: Option<Td15>,
    /// Quoting enclave's report.
    pub qe: QeReport,
    /// Quoting enclave's authentication data.
    pub qe_auth_data: [u8; 32],
    /// PCK certificate.
    pub pck: PckSpec,
    /// Certificate of the PCK certificate's issuer.
    pub pck_ca: CertSpec,
    /// Whether the attestation key signed the TD report.
    pub quote_signed_by: SignedBy,
    /// Whether the PCK signed the quoting enclave's report.
    pub qe_signed_by: SignedBy,
}

impl Default for TdxSpec {
    fn default() -> Self {
        Self {
            header: QuoteHeader::default(),
            body: TdReport::default(),
            td15: None,
            qe: QeReport::default(),
            qe_auth_data: std::array::from_fn(|at| at as u8),
            pck: PckSpec::default(),
            pck_ca: CertSpec::new(serial::PCK_PLATFORM_CA),
            quote_signed_by: SignedBy::Right,
            qe_signed_by: SignedBy::Right,
        }
    }
}

impl Tdx {
    pub(in crate::dev) fn quote(&self, spec: &TdxSpec) -> Vec<u8> {
        let mut quote = spec.header.to_bytes();
        let body = [spec.body.to_bytes(), spec.td15.as_ref().map(Td15::to_bytes).unwrap_or_default()].concat();
        if spec.header.version >= 5 {
            // Body types: 2 for TDX 1.0, 3 for TDX 1.5.
            let kind: u16 = if spec.td15.is_some() { 3 } else { 2 };
            quote.extend_from_slice(&kind.to_le_bytes());
            quote.extend_from_slice(&(body.len() as u32).to_le_bytes());
            quote.extend_from_slice(&body);
        } else {
            quote.extend_from_slice(&spec.body.to_bytes());
        }
        let attestation_key = self.attestation.key.point();
        let qe_report = spec.qe.to_bytes(&attestation_key, &spec.qe_auth_data);
        let chain = pem(&[self.pck_der(&spec.pck), self.ca_der(spec.pck.ca, &spec.pck_ca), self.root_der()]);

        let mut certification = qe_report.clone();
        certification.extend_from_slice(&self.pck.signer(spec.qe_signed_by).sign_raw(&qe_report));
        certification.extend_from_slice(&(spec.qe_auth_data.len() as u16).to_le_bytes());
        certification.extend_from_slice(&spec.qe_auth_data);
        certification.extend_from_slice(&certification_data(5, chain.as_bytes()));

        let mut signature = self.attestation.signer(spec.quote_signed_by).sign_raw(&quote);
        signature.extend_from_slice(&attestation_key);
        signature.extend_from_slice(&certification_data(6, &certification));
        quote.extend_from_slice(&(signature.len() as u32).to_le_bytes());
        quote.extend_from_slice(&signature);
        quote
    }

    fn pck_der(&self, spec: &PckSpec) -> Vec<u8> {
        let sgx = extension(&SGX_EXTENSION, false, &spec.sgx_extension());
        certificate(self.ca(spec.ca), &self.pck, Role::Leaf, &spec.certificate, &[sgx])
    }
}

/// Type (u16), length (u32), data.
fn certification_data(kind: u16, data: &[u8]) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &(data.len() as u32).to_le_bytes(), data].concat()
}

impl QuoteHeader {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.version.to_le_bytes().to_vec();
        out.extend_from_slice(&self.attestation_key_type.to_le_bytes());
        out.extend_from_slice(&self.tee_type.to_le_bytes());
        out.extend_from_slice(&self.qe_svn.to_le_bytes());
        out.extend_from_slice(&self.pce_svn.to_le_bytes());
        out.extend_from_slice(&self.qe_vendor_id);
        out.extend_from_slice(&self.user_data);
        out
    }
}

impl TdReport {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.tee_tcb_svn.to_vec();
        out.extend_from_slice(&self.mr_seam);
        out.extend_from_slice(&self.mr_signer_seam);
        out.extend_from_slice(&self.seam_attributes);
        out.extend_from_slice(&self.td_attributes);
        out.extend_from_slice(&self.xfam);
        out.extend_from_slice(&self.mr_td);
        out.extend_from_slice(&self.mr_config_id);
        out.extend_from_slice(&self.mr_owner);
        out.extend_from_slice(&self.mr_owner_config);
        self.rtmr.iter().for_each(|register| out.extend_from_slice(register));
        out.extend_from_slice(&self.report_data);
        out
    }
}

impl Td15 {
    fn to_bytes(&self) -> Vec<u8> {
        [self.tee_tcb_svn2.as_slice(), &self.mr_service_td].concat()
    }
}

impl QeReport {
    fn to_bytes(&self, attestation_key: &[u8], auth_data: &[u8]) -> Vec<u8> {
        let bound = || {
            let mut data = [0; 64];
            data[..32].copy_from_slice(&Digest::of(&[attestation_key, auth_data]).0);
            data
        };
        let mut out = self.cpu_svn.to_vec();
        out.extend_from_slice(&self.misc_select.to_le_bytes());
        out.extend_from_slice(&[0; 28]);
        out.extend_from_slice(&self.attributes);
        out.extend_from_slice(&self.mr_enclave);
        out.extend_from_slice(&[0; 32]);
        out.extend_from_slice(&self.mr_signer);
        out.extend_from_slice(&[0; 96]);
        out.extend_from_slice(&self.isv_prod_id.to_le_bytes());
        out.extend_from_slice(&self.isv_svn.to_le_bytes());
        out.extend_from_slice(&[0; 60]);
        out.extend_from_slice(&self.report_data.unwrap_or_else(bound));
        out
    }
}

const SGX_EXTENSION: [u32; 7] = [1, 2, 840, 113741, 1, 13, 1];

impl PckSpec {
    fn sgx_extension(&self) -> Vec<u8> {
        let entry = |arcs: &[u32], value: Vec<u8>| der::sequence(&[der::oid(&[&SGX_EXTENSION, arcs].concat()), value]);
        let components = self.tcb_components.iter().zip(1u32..);
        let mut tcb: Vec<_> = components.map(|(svn, n)| entry(&[2, n], der::integer(u64::from(*svn)))).collect();
        tcb.push(entry(&[2, 17], der::integer(u64::from(self.pce_svn))));
        tcb.push(entry(&[2, 18], der::octets(&self.cpu_svn)));
        let mut entries = vec![
            entry(&[1], der::octets(&self.ppid)),
            entry(&[2], der::sequence(&tcb)),
            entry(&[3], der::octets(&self.pce_id)),
            entry(&[4], der::octets(&self.fmspc)),
            entry(&[5], der::enumerated(self.sgx_type)),
        ];
        if self.ca == PckCa::Platform {
            entries.push(entry(&[6], der::octets(&self.platform_instance_id)));
            let configuration = [
                entry(&[7, 1], der::boolean(self.dynamic_platform)),
                entry(&[7, 2], der::boolean(self.cached_keys)),
                entry(&[7, 3], der::boolean(self.smt_enabled)),
            ];
            entries.push(entry(&[7], der::sequence(&configuration)));
        }
        der::sequence(&entries)
    }
}
