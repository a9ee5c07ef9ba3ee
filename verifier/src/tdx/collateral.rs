//! Intel's collateral: what `QuoteCollateralV3` holds, and the two documents that Intel signs in it (Intel PCS API v4, "Get
//! TDX TCB Info" and "Get TD QE Identity").

use std::cmp::Reverse;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use cocoon_attestation::UnixTime;
use der::DateTime;
use serde::{Deserialize, Deserializer};

use crate::needs::due_of_crl;
use crate::x509::{Cert, Window};

/// Longest collateral that is looked at, in bytes; today's has about 17 KB.
const MAX_LEN: usize = 4 << 20;
/// Most certificates in a chain.
const MAX_CHAIN: usize = 5;

/// Collateral that has been read, but not yet believed. Reading it once serves any number of quotes.
#[derive(Clone, Debug)]
pub struct Collateral {
    pub(super) digest: [u8; 32],
    pub(super) root_crl: Vec<u8>,
    pub(super) pck_crl: Vec<u8>,
    pub(super) tcb_info: String,
    /// What it says, for whoever finds it signed.
    pub(super) tcb_info_read: Result<Arc<TcbInfo>, String>,
    pub(super) tcb_info_signature: Vec<u8>,
    pub(super) tcb_info_chain: Vec<Cert>,
    pub(super) qe_identity: String,
    pub(super) qe_identity_read: Result<Arc<QeIdentity>, String>,
    pub(super) qe_identity_signature: Vec<u8>,
    /// `None` where it is the same as TCB info's, as Intel's is.
    pub(super) qe_identity_chain: Option<Vec<Cert>>,
    pub(super) pck_chain: Option<Vec<Cert>>,
}

#[derive(Deserialize)]
struct Json {
    #[serde(deserialize_with = "in_hex")]
    root_ca_crl: Vec<u8>,
    #[serde(deserialize_with = "in_hex")]
    pck_crl: Vec<u8>,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    #[serde(deserialize_with = "in_hex")]
    tcb_info_signature: Vec<u8>,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    #[serde(deserialize_with = "in_hex")]
    qe_identity_signature: Vec<u8>,
    #[serde(default)]
    pck_certificate_chain: Option<String>,
}

fn in_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

impl Collateral {
    /// Reads `QuoteCollateralV3` as JSON: revocation lists and signatures in hex, certificate chains in PEM.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        if json.len() > MAX_LEN {
            return Err(format!("{} bytes are too many for collateral", json.len()));
        }
        let parts: Json =
            serde_json::from_slice(json).map_err(|error| format!("the collateral is no QuoteCollateralV3: {error}"))?;
        let chain = |what: &str, pem: &str| {
            Cert::all(pem.as_bytes(), MAX_CHAIN).map_err(|error| format!("the collateral's {what}: {error}"))
        };
        let same = parts.qe_identity_issuer_chain == parts.tcb_info_issuer_chain;
        let qe_identity_chain =
            if same { None } else { Some(chain("QE identity chain", &parts.qe_identity_issuer_chain)?) };
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, json).as_ref());
        Ok(Self {
            digest: hash,
            root_crl: parts.root_ca_crl,
            pck_crl: parts.pck_crl,
            tcb_info_chain: chain("TCB info chain", &parts.tcb_info_issuer_chain)?,
            tcb_info_read: TcbInfo::from_json(&parts.tcb_info).map(Arc::new),
            tcb_info: parts.tcb_info,
            tcb_info_signature: parts.tcb_info_signature,
            qe_identity_read: QeIdentity::from_json(&parts.qe_identity).map(Arc::new),
            qe_identity: parts.qe_identity,
            qe_identity_signature: parts.qe_identity_signature,
            qe_identity_chain,
            pck_chain: parts.pck_certificate_chain.map(|pem| chain("PCK chain", &pem)).transpose()?,
        })
    }
}

impl Collateral {
    /// When the first of its parts is due again, by their own word, if it is for a kind of platform.
    pub(crate) fn due(&self, fmspc: &[u8; 6]) -> Result<UnixTime, String> {
        let (info, identity) = (self.tcb_info_read.clone()?, self.qe_identity_read.clone()?);
        if info.fmspc.0 != *fmspc {
            return Err(format!("TCB info is for FMSPC {}, not {}", hex::encode(info.fmspc.0), hex::encode(fmspc)));
        }
        let lists = [due_of_crl(&self.root_crl)?, due_of_crl(&self.pck_crl)?];
        let documents = [info.window().to, identity.window().to];
        Ok(lists.into_iter().chain(documents).min().unwrap_or_default())
    }
}

/// A time as Intel writes it, `2026-03-16T22:16:03Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date(pub(super) UnixTime);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let date = DateTime::from_str(&text)
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is no date such as 2026-03-16T22:16:03Z")))?;
        Ok(Self(UnixTime(date.unix_duration().as_secs())))
    }
}

/// Bytes of a fixed length in hex, either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fixed<const N: usize>(pub(super) [u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not {N} bytes in hex")))
    }
}

/// Intel's word on a level of security versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Status {
    UpToDate,
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    ConfigurationNeeded,
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    OutOfDate,
    OutOfDateConfigurationNeeded,
    Revoked,
    /// Never in collateral: what comes of a guest launched on a module that has been updated since.
    #[serde(skip)]
    TdRelaunchAdvised,
    /// The same where configuration is needed as well.
    #[serde(skip)]
    TdRelaunchAdvisedConfigurationNeeded,
}

impl Status {
    /// As Intel writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TcbInfo {
    pub(super) id: String,
    pub(super) version: u32,
    issue_date: Date,
    next_update: Date,
    pub(super) fmspc: Fixed<6>,
    pub(super) pce_id: Fixed<2>,
    pub(super) tcb_type: u32,
    pub(super) tcb_evaluation_data_number: u32,
    #[serde(default)]
    pub(super) tdx_module: Option<ModuleIdentity>,
    #[serde(default)]
    pub(super) tdx_module_identities: Vec<ModuleIdentity>,
    pub(super) tcb_levels: Vec<Level>,
}

/// The signer of a TDX module, and the levels of its security versions. The module of version 0 has neither id nor levels.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModuleIdentity {
    #[serde(default)]
    pub(super) id: String,
    pub(super) mrsigner: Fixed<48>,
    pub(super) attributes: Fixed<8>,
    pub(super) attributes_mask: Fixed<8>,
    #[serde(default)]
    pub(super) tcb_levels: Vec<EnclaveLevel>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Level {
    pub(super) tcb: Components,
    pub(super) tcb_status: Status,
    #[serde(rename = "advisoryIDs", default)]
    pub(super) advisories: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Components {
    #[serde(rename = "sgxtcbcomponents")]
    pub(super) sgx: [Component; 16],
    #[serde(rename = "pcesvn")]
    pub(super) pce_svn: u16,
    #[serde(rename = "tdxtcbcomponents")]
    pub(super) tdx: [Component; 16],
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Component {
    pub(super) svn: u8,
    /// What it is the version of, for people: "BIOS", "OS/VMM".
    #[serde(default)]
    pub(super) category: String,
    /// More of that: "Early Microcode Update", "TDX Module".
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

impl Components {
    /// What levels are ordered by.
    fn versions(&self) -> ([u8; 16], u16, [u8; 16]) {
        let svns = |parts: &[Component; 16]| std::array::from_fn(|n| parts[n].svn);
        (svns(&self.sgx), self.pce_svn, svns(&self.tdx))
    }
}

/// A level of something that has one security version: the quoting enclave, or a TDX module.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnclaveLevel {
    tcb: IsvSvn,
    pub(super) tcb_status: Status,
    #[serde(rename = "advisoryIDs", default)]
    pub(super) advisories: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct IsvSvn {
    isvsvn: u16,
}

impl EnclaveLevel {
    /// The first level that a security version reaches; Intel lists them from the highest down.
    pub(super) fn reached(levels: &[Self], svn: u16) -> Option<&Self> {
        levels.iter().find(|level| svn >= level.tcb.isvsvn)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QeIdentity {
    pub(super) id: String,
    pub(super) version: u32,
    issue_date: Date,
    next_update: Date,
    pub(super) tcb_evaluation_data_number: u32,
    pub(super) miscselect: Fixed<4>,
    pub(super) miscselect_mask: Fixed<4>,
    pub(super) attributes: Fixed<16>,
    pub(super) attributes_mask: Fixed<16>,
    pub(super) mrsigner: Fixed<32>,
    pub(super) isvprodid: u16,
    pub(super) tcb_levels: Vec<EnclaveLevel>,
}

impl TcbInfo {
    /// Reads TCB info; the levels come back from the highest down, as Intel's library orders them whatever the file's order.
    pub(super) fn from_json(json: &str) -> Result<Self, String> {
        let mut info: Self = serde_json::from_str(json).map_err(|error| format!("TCB info cannot be read: {error}"))?;
        info.tcb_levels.sort_by_cached_key(|level| Reverse(level.tcb.versions()));
        Ok(info)
    }

    pub(super) fn window(&self) -> Window {
        Window { from: self.issue_date.0, to: self.next_update.0 }
    }
}

impl QeIdentity {
    pub(super) fn from_json(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| format!("QE identity cannot be read: {error}"))
    }

    pub(super) fn window(&self) -> Window {
        Window { from: self.issue_date.0, to: self.next_update.0 }
    }
}
