//! TDX collateral: TCB info, QE identity, issuer chains and revocation lists, as Intel's provisioning certification service
//! (version 4) publishes them, in the JSON layout `QuoteCollateralV3` that verifiers exchange.

use serde::{Serialize, Serializer};

use super::quote::PckCa;
use super::{FMSPC, QE_MRSIGNER, Tdx};
use crate::dev::certs::{CertSpec, CrlSpec, Role, UNTIL, certificate, crl, pem, serial};
use crate::dev::der;
use crate::dev::keys::SignedBy;
use crate::types::UnixTime;

/// 2026-01-01T00:00:00Z: when default collateral was issued, and the date of its levels.
const ISSUED: UnixTime = UnixTime(1_767_225_600);
/// 2024-01-01T00:00:00Z: the date of outdated levels.
const OUTDATED: UnixTime = UnixTime(1_704_067_200);

/// Everything in the collateral. The default is good from 2026 to 2049 and fits [`super::TdxSpec::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollateralSpec {
    /// The root's revocation list.
    pub root_crl: CrlSpec,
    /// The PCK CA's revocation list.
    pub pck_crl: CrlSpec,
    /// Which PCK CA.
    pub ca: PckCa,
    /// The PCK CA's certificate.
    pub pck_ca: CertSpec,
    /// The certificate that TCB info and QE identity are signed with.
    pub tcb_signer: CertSpec,
    /// TCB info.
    pub tcb_info: TcbInfoSpec,
    /// Whether the TCB signer signed TCB info.
    pub tcb_info_signed_by: SignedBy,
    /// QE identity.
    pub qe_identity: QeIdentitySpec,
    /// Whether the TCB signer signed QE identity.
    pub qe_identity_signed_by: SignedBy,
}

impl CollateralSpec {
    /// Good collateral that was issued at one time and is due again at another.
    pub fn issued(at: UnixTime, next_update: UnixTime) -> Self {
        Self {
            root_crl: CrlSpec::new(at, next_update),
            pck_crl: CrlSpec::new(at, next_update),
            ca: PckCa::Platform,
            pck_ca: CertSpec::new(serial::PCK_PLATFORM_CA),
            tcb_signer: CertSpec::new(serial::TCB_SIGNER),
            tcb_info: TcbInfoSpec::issued(at, next_update),
            tcb_info_signed_by: SignedBy::Right,
            qe_identity: QeIdentitySpec::issued(at, next_update),
            qe_identity_signed_by: SignedBy::Right,
        }
    }
}

impl Default for CollateralSpec {
    fn default() -> Self {
        Self::issued(ISSUED, UNTIL)
    }
}

/// TCB info for TDX, version 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcbInfoSpec {
    /// `TDX`.
    pub id: String,
    /// 3.
    pub version: u32,
    /// When it was issued.
    #[serde(serialize_with = "rfc3339")]
    pub issue_date: UnixTime,
    /// When the next one is due.
    #[serde(serialize_with = "rfc3339")]
    pub next_update: UnixTime,
    /// Processors it is about.
    #[serde(serialize_with = "upper_hex")]
    pub fmspc: [u8; 6],
    /// PCE it is about.
    #[serde(serialize_with = "upper_hex")]
    pub pce_id: [u8; 2],
    /// How security versions compare: 0.
    pub tcb_type: u32,
    /// Counts Intel's evaluations.
    pub tcb_evaluation_data_number: u32,
    /// TDX module of major version 0.
    pub tdx_module: TdxModule,
    /// TDX modules by major version.
    pub tdx_module_identities: Vec<ModuleIdentity>,
    /// Levels, best first.
    pub tcb_levels: Vec<TcbLevel>,
}

/// Signer and attributes that a TDX module must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TdxModule {
    /// Signer; zero for Intel.
    #[serde(serialize_with = "upper_hex")]
    pub mrsigner: [u8; 48],
    /// Attributes.
    #[serde(serialize_with = "upper_hex")]
    pub attributes: [u8; 8],
    /// Which attribute bits count.
    #[serde(serialize_with = "upper_hex")]
    pub attributes_mask: [u8; 8],
}

impl Default for TdxModule {
    fn default() -> Self {
        Self { mrsigner: [0; 48], attributes: [0; 8], attributes_mask: [0xff; 8] }
    }
}

/// One TDX module major version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleIdentity {
    /// `TDX_` and the major version in two hex digits.
    pub id: String,
    /// Signer and attributes.
    #[serde(flatten)]
    pub module: TdxModule,
    /// Levels, best first.
    pub tcb_levels: Vec<ModuleLevel>,
}

/// A security version and its status, in a module identity or QE identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleLevel {
    /// Least security version.
    #[serde(serialize_with = "isvsvn")]
    pub tcb: u16,
    /// Date of the level.
    #[serde(serialize_with = "rfc3339")]
    pub tcb_date: UnixTime,
    /// Such as `UpToDate`, `OutOfDate`, `Revoked`.
    pub tcb_status: String,
    /// Advisories that apply.
    #[serde(rename = "advisoryIDs", skip_serializing_if = "Vec::is_empty")]
    pub advisory_ids: Vec<String>,
}

/// QE identity levels have the same shape.
pub type QeLevel = ModuleLevel;

impl ModuleLevel {
    /// A level without advisories.
    pub fn new(isvsvn: u16, date: UnixTime, status: &str) -> Self {
        Self { tcb: isvsvn, tcb_date: date, tcb_status: status.into(), advisory_ids: Vec::new() }
    }
}

/// One platform level: least security versions and their status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcbLevel {
    /// Least versions.
    pub tcb: TcbComponents,
    /// Date of the level.
    #[serde(serialize_with = "rfc3339")]
    pub tcb_date: UnixTime,
    /// Such as `UpToDate`, `SWHardeningNeeded`, `OutOfDate`.
    pub tcb_status: String,
    /// Advisories that apply.
    #[serde(rename = "advisoryIDs", skip_serializing_if = "Vec::is_empty")]
    pub advisory_ids: Vec<String>,
}

/// Security versions of a platform level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TcbComponents {
    /// SGX components 1 to 16.
    #[serde(rename = "sgxtcbcomponents", serialize_with = "components")]
    pub sgx: [u8; 16],
    /// PCESVN.
    pub pcesvn: u16,
    /// TDX components 1 to 16.
    #[serde(rename = "tdxtcbcomponents", serialize_with = "components")]
    pub tdx: [u8; 16],
}

impl TcbInfoSpec {
    fn issued(at: UnixTime, next_update: UnixTime) -> Self {
        let level = |sgx: [u8; 5], pcesvn, tdx: [u8; 3], tcb_date, status: &str, advisories: &[&str]| {
            let mut tcb = TcbComponents { sgx: [0; 16], pcesvn, tdx: [0; 16] };
            tcb.sgx[..5].copy_from_slice(&sgx);
            tcb.tdx[..3].copy_from_slice(&tdx);
            let advisory_ids = advisories.iter().map(|id| (*id).into()).collect();
            TcbLevel { tcb, tcb_date, tcb_status: status.into(), advisory_ids }
        };
        Self {
            id: "TDX".into(),
            version: 3,
            issue_date: at,
            next_update,
            fmspc: FMSPC,
            pce_id: [0; 2],
            tcb_type: 0,
            tcb_evaluation_data_number: 20,
            tdx_module: TdxModule::default(),
            tdx_module_identities: vec![ModuleIdentity {
                id: "TDX_01".into(),
                module: TdxModule::default(),
                tcb_levels: vec![ModuleLevel::new(7, ISSUED, "UpToDate"), ModuleLevel::new(2, OUTDATED, "OutOfDate")],
            }],
            tcb_levels: vec![
                level([3, 3, 2, 2, 4], 13, [7, 1, 3], ISSUED, "UpToDate", &[]),
                level([2, 2, 2, 2, 3], 5, [2, 1, 2], OUTDATED, "OutOfDate", &["INTEL-SA-00000"]),
            ],
        }
    }
}

/// QE identity for TDX, version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QeIdentitySpec {
    /// `TD_QE`.
    pub id: String,
    /// 2.
    pub version: u32,
    /// When it was issued.
    #[serde(serialize_with = "rfc3339")]
    pub issue_date: UnixTime,
    /// When the next one is due.
    #[serde(serialize_with = "rfc3339")]
    pub next_update: UnixTime,
    /// Counts Intel's evaluations.
    pub tcb_evaluation_data_number: u32,
    /// MISCSELECT.
    #[serde(serialize_with = "upper_hex")]
    pub miscselect: [u8; 4],
    /// Which of its bits count.
    #[serde(serialize_with = "upper_hex")]
    pub miscselect_mask: [u8; 4],
    /// Enclave attributes.
    #[serde(serialize_with = "upper_hex")]
    pub attributes: [u8; 16],
    /// Which of their bits count.
    #[serde(serialize_with = "upper_hex")]
    pub attributes_mask: [u8; 16],
    /// Signer of the quoting enclave.
    #[serde(serialize_with = "upper_hex")]
    pub mrsigner: [u8; 32],
    /// Product id of the quoting enclave.
    pub isvprodid: u16,
    /// Levels, best first.
    pub tcb_levels: Vec<QeLevel>,
}

impl QeIdentitySpec {
    fn issued(at: UnixTime, next_update: UnixTime) -> Self {
        let mut attributes = [0; 16];
        attributes[0] = 0x11;
        let mut attributes_mask = [0; 16];
        attributes_mask[..8].copy_from_slice(&[0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        Self {
            id: "TD_QE".into(),
            version: 2,
            issue_date: at,
            next_update,
            tcb_evaluation_data_number: 20,
            miscselect: [0; 4],
            miscselect_mask: [0xff; 4],
            attributes,
            attributes_mask,
            mrsigner: QE_MRSIGNER,
            isvprodid: 2,
            tcb_levels: vec![QeLevel::new(4, ISSUED, "UpToDate"), QeLevel::new(2, OUTDATED, "OutOfDate")],
        }
    }
}

#[derive(Serialize)]
struct QuoteCollateralV3 {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
}

impl Tdx {
    pub(in crate::dev) fn collateral(&self, spec: &CollateralSpec) -> Vec<u8> {
        let root = self.root_der();
        let signer = certificate(&self.root, &self.tcb_signer, Role::Leaf, &spec.tcb_signer, &[]);
        let signer_chain = pem(&[signer, root.clone()]);
        let tcb_info = json(&spec.tcb_info);
        let qe_identity = json(&spec.qe_identity);
        let sign = |text: &str, by| hex::encode(self.tcb_signer.signer(by).sign_raw(text.as_bytes()));
        let collateral = QuoteCollateralV3 {
            pck_crl_issuer_chain: pem(&[self.ca_der(spec.ca, &spec.pck_ca), root]),
            root_ca_crl: hex::encode(crl(&self.root, &spec.root_crl)),
            pck_crl: hex::encode(crl(self.ca(spec.ca), &spec.pck_crl)),
            tcb_info_issuer_chain: signer_chain.clone(),
            tcb_info_signature: sign(&tcb_info, spec.tcb_info_signed_by),
            tcb_info,
            qe_identity_issuer_chain: signer_chain,
            qe_identity_signature: sign(&qe_identity, spec.qe_identity_signed_by),
            qe_identity,
        };
        json(&collateral).into_bytes()
    }
}

fn json(value: &impl Serialize) -> String {
    // Strings, numbers and arrays in structs of our own: nothing that JSON could refuse.
    serde_json::to_string(value).unwrap_or_default()
}

fn rfc3339<S: Serializer>(at: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&der::rfc3339(*at))
}

fn upper_hex<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode_upper(bytes))
}

#[derive(Serialize)]
struct IsvSvn {
    isvsvn: u16,
}

fn isvsvn<S: Serializer>(isvsvn: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    IsvSvn { isvsvn: *isvsvn }.serialize(serializer)
}

#[derive(Serialize)]
struct Component {
    svn: u8,
}

fn components<S: Serializer>(versions: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(versions.iter().map(|svn| Component { svn: *svn }))
}
