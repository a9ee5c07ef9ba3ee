//! What a relying party accepts. The default is strict; every loosening is a field that must be set, and shows in the result.
//! `docs/policy.example.toml` explains each key.

use aws_lc_rs::digest::{SHA384, digest};
use cocoon_attestation::{Digest, ProviderAddress};
use serde::{Deserialize, Deserializer};

use crate::{Error, x509};

/// A fixed-size value, written in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> AsRef<[u8]> for Hex<N> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not {N} bytes in hex")))
    }
}

/// TCB statuses that a policy may accept, as Intel writes them; `Revoked` is none.
pub const STATUSES: [&str; 8] = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
];

/// What a relying party accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Roots accepted **instead of** the vendors', DER. Evidence that rests on one is marked as development evidence.
    #[serde(deserialize_with = "roots")]
    pub roots: Vec<Vec<u8>>,
    /// For TDX quotes.
    pub tdx: TdxPolicy,
    /// For SNP reports.
    pub snp: SnpPolicy,
    /// For the claims of a bundle.
    pub claims: ClaimsPolicy,
    /// For GPU evidence in a bundle.
    pub gpu: GpuPolicy,
}

/// Policy over TDX quotes. Lists of references that are empty leave the value unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxPolicy {
    /// TCB statuses to accept.
    pub accept_status: Vec<String>,
    /// Advisories that may apply to the platform. Each must be named.
    pub accept_advisories: Vec<String>,
    /// Least `tcbEvaluationDataNumber` of the collateral.
    pub min_tcb_evaluation: Option<u32>,
    /// Longest age of the oldest part of the collateral, in seconds.
    pub max_collateral_age: Option<u64>,
    /// Least security version of the quoting enclave.
    pub min_qe_svn: Option<u16>,
    /// Least security version of the PCE.
    pub min_pce_svn: Option<u16>,
    /// Least security versions of the TDX module (TEE_TCB_SVN), each of the 16 components for itself.
    pub min_tee_tcb_svn: Option<Hex<16>>,
    /// Accept TDs that can be debugged or profiled.
    pub allow_debug: bool,
    /// Accept TDs that can be migrated.
    pub allow_migration: bool,
    /// Accept TDs that take #VE on their private pages (attribute SEPT_VE_DISABLE clear).
    pub allow_sept_ve: bool,
    /// Accept TDs with service TDs bound to them.
    pub allow_service_td: bool,
    /// Whether hyper-threading may be on.
    pub allow_smt: Option<bool>,
    /// Whether platform keys may be cached by Intel's registration service.
    pub allow_cached_keys: Option<bool>,
    /// Whether packages may be added to the platform.
    pub allow_dynamic_platform: Option<bool>,
    /// Processors to accept.
    pub fmspc: Vec<Hex<6>>,
    /// Platform instances to accept.
    pub piid: Vec<Hex<16>>,
    /// Measurements of the initial memory.
    pub mrtd: Vec<Hex<48>>,
    /// Runtime register 0.
    pub rtmr0: Vec<Hex<48>>,
    /// Runtime register 1.
    pub rtmr1: Vec<Hex<48>>,
    /// Runtime register 2.
    pub rtmr2: Vec<Hex<48>>,
    /// Runtime register 3.
    pub rtmr3: Vec<Hex<48>>,
    /// Measurements of the TDX module.
    pub mrseam: Vec<Hex<48>>,
    /// TD attributes, 8 bytes as they stand in the quote, besides what the switches above ask for.
    pub td_attributes: Vec<Hex<8>>,
    /// Extended features, 8 bytes as they stand in the quote.
    pub xfam: Vec<Hex<8>>,
    /// MRCONFIGID.
    pub mrconfigid: Vec<Hex<48>>,
    /// MROWNER.
    pub mrowner: Vec<Hex<48>>,
    /// MROWNERCONFIG.
    pub mrownerconfig: Vec<Hex<48>>,
    /// REPORTDATA.
    pub report_data: Vec<Hex<64>>,
    /// Rules over what was measured into runtime registers, in the order of the events. A register that a rule names may have no
    /// event that meets none.
    pub events: Vec<EventRule>,
}

/// What one event of a runtime register, or several in a row, may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    /// RTMR index, 0 to 3.
    pub register: u8,
    /// The event's kind; any if left out. The kind itself is not measured: give digests, or `measured_data`.
    pub kind: Option<String>,
    /// Digests to accept; any if left out.
    #[serde(default)]
    pub digest: Vec<Hex<48>>,
    /// The event's data, as text. Believable only with `measured_data`.
    pub data: Option<String>,
    /// The digest must be the SHA-384 of the event's data.
    #[serde(default)]
    pub measured_data: bool,
    /// The event may be absent.
    #[serde(default)]
    pub optional: bool,
    /// Several events in a row may meet this rule.
    #[serde(default)]
    pub repeat: bool,
}

impl Default for TdxPolicy {
    fn default() -> Self {
        Self {
            accept_status: vec!["UpToDate".into()],
            accept_advisories: Vec::new(),
            min_tcb_evaluation: None,
            max_collateral_age: None,
            min_qe_svn: None,
            min_pce_svn: None,
            min_tee_tcb_svn: None,
            allow_debug: false,
            allow_migration: false,
            allow_sept_ve: false,
            allow_service_td: false,
            allow_smt: None,
            allow_cached_keys: None,
            allow_dynamic_platform: None,
            fmspc: Vec::new(),
            piid: Vec::new(),
            mrtd: Vec::new(),
            rtmr0: Vec::new(),
            rtmr1: Vec::new(),
            rtmr2: Vec::new(),
            rtmr3: Vec::new(),
            mrseam: Vec::new(),
            td_attributes: Vec::new(),
            xfam: Vec::new(),
            mrconfigid: Vec::new(),
            mrowner: Vec::new(),
            mrownerconfig: Vec::new(),
            report_data: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// Security versions of an SNP platform that must be reached. `fmc` counts on Turin only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MinTcb {
    /// Firmware of the boot ROM's successor (Turin).
    pub fmc: u8,
    /// Boot loader of the secure processor.
    pub bootloader: u8,
    /// Its operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

/// Least ABI version, as the guest policy states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinAbi {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
}

/// Least version of SNP firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinFirmware {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

/// Policy over SNP reports. Lists of references that are empty leave the value unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpPolicy {
    /// Highest privilege level number to accept; 0 is the most privileged.
    pub max_vmpl: u32,
    /// Accept guests that can be debugged.
    pub allow_debug: bool,
    /// Accept guests with a migration agent.
    pub allow_migration: bool,
    /// Accept firmware that is installed but not committed.
    pub allow_provisional_firmware: bool,
    /// Accept a report whose TCB is not the one its key's certificate is for.
    pub allow_tcb_mismatch: bool,
    /// Accept a report whose chip id is masked.
    pub allow_masked_chip_id: bool,
    /// Accept reports signed with a key that AMD loaded for a cloud provider (VLEK).
    pub allow_vlek: bool,
    /// Whether the guest policy may permit hyper-threading.
    pub allow_smt: Option<bool>,
    /// Demand AMD's revocation list.
    pub require_crl: bool,
    /// Least TCB, by component, of the reported TCB.
    pub min_tcb: Option<MinTcb>,
    /// Least TCB, by component, at launch.
    pub min_launch_tcb: Option<MinTcb>,
    /// Least ABI version in the guest policy.
    pub min_abi: Option<MinAbi>,
    /// Least security version of the guest.
    pub min_guest_svn: Option<u32>,
    /// Least version of the firmware that runs, and that is committed.
    pub min_firmware: Option<MinFirmware>,
    /// Bits of the guest policy that may be set, besides what the switches above ask for: 16 SMT, 17 always one, 18 migration agent,
    /// 19 debug, 20 single socket, 21 CXL, 22 AES-256-XTS, 23 RAPL off, 24 ciphertext hiding, 25 page swap off. The lower 16 are the ABI version.
    pub allowed_guest_policy: Option<u64>,
    /// Bits of the guest policy that must be set.
    pub required_guest_policy: Option<u64>,
    /// Bits of PLATFORM_INFO that may be set: 0 SMT, 1 TSME, 2 ECC, 3 RAPL off, 4 ciphertext hiding, 5 alias check.
    pub allowed_platform_info: Option<u64>,
    /// Bits of PLATFORM_INFO that must be set.
    pub required_platform_info: Option<u64>,
    /// Bits that must be set among the mitigations at launch and among those now; only reports of version 5 say.
    pub required_mitigations: Option<u64>,
    /// Demand that the guest was launched with an identity block.
    pub require_id_block: bool,
    /// Demand that an author key signed the identity block.
    pub require_author_key: bool,
    /// Demand that the guest is bound to one socket.
    pub require_single_socket: bool,
    /// Launch digests.
    pub measurement: Vec<Hex<48>>,
    /// HOST_DATA.
    pub host_data: Vec<Hex<32>>,
    /// REPORT_DATA.
    pub report_data: Vec<Hex<64>>,
    /// SHA-384 of identity keys.
    pub id_key_digest: Vec<Hex<48>>,
    /// SHA-384 of author keys.
    pub author_key_digest: Vec<Hex<48>>,
    /// Keys that may have signed the identity block, PEM of P-384 public keys. Either one of these did, or the author's is trusted.
    #[serde(deserialize_with = "key_digests")]
    pub trusted_id_keys: Vec<Hex<48>>,
    /// Keys that may have signed the key of the identity block, PEM of P-384 public keys.
    #[serde(deserialize_with = "key_digests")]
    pub trusted_author_keys: Vec<Hex<48>>,
    /// FAMILY_ID.
    pub family_id: Vec<Hex<16>>,
    /// IMAGE_ID.
    pub image_id: Vec<Hex<16>>,
    /// REPORT_ID: one running guest.
    pub report_id: Vec<Hex<32>>,
    /// REPORT_ID_MA: one running migration agent.
    pub report_id_ma: Vec<Hex<32>>,
    /// Chips.
    pub chip_id: Vec<Hex<64>>,
}

/// Policy over the claims of a bundle. What is empty is unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimsPolicy {
    /// Digests of guest configurations.
    pub config_digest: Vec<Digest>,
    /// Model roots, besides those of the reference values.
    pub model_root: Vec<Digest>,
    /// Providers.
    pub provider: Vec<ProviderAddress>,
    /// Longest age of the freshness beacon, in seconds.
    pub max_beacon_age: Option<u64>,
}

/// How GPUs are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuMode {
    /// One GPU for one guest.
    Spt,
    /// Several GPUs for one guest.
    Mpt,
    /// Several GPUs and their switches for one guest, with protected PCIe.
    Ppcie,
}

/// Policy over GPU evidence. Lists that are empty leave the value unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuPolicy {
    /// Accept a bundle whose GPU evidence is bound to the claims but was not itself appraised.
    pub allow_unappraised: bool,
    /// Refuse evidence that came without NVIDIA's manifests for its driver and its VBIOS.
    pub require_rims: bool,
    /// Refuse evidence that came without word of NVIDIA's (OCSP) on each certificate that its service knows.
    pub require_ocsp: bool,
    /// Modes to accept.
    pub mode: Vec<GpuMode>,
    /// Driver versions to accept.
    pub driver_version: Vec<String>,
    /// VBIOS versions to accept.
    pub vbios_version: Vec<String>,
}

impl Policy {
    /// Reads TOML. Unknown keys are refused: a mistyped check must not pass silently.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let policy: Self = toml::from_str(text).map_err(|error| Error::Policy(error.to_string()))?;
        for (n, rule) in policy.tdx.events.iter().enumerate() {
            let fault = if rule.register > 3 {
                "there are registers 0 to 3"
            } else if rule.data.is_some() && !rule.measured_data {
                "data is believable only with measured_data = true"
            } else {
                continue;
            };
            return Err(Error::Policy(format!("tdx.events, rule {n}: {fault}")));
        }
        match policy.tdx.accept_status.iter().find(|status| !STATUSES.contains(&status.as_str())) {
            None => Ok(policy),
            Some(status) => Err(Error::Policy(format!(
                "tdx.accept_status: {status:?} is no TCB status that can be accepted; there are {}",
                STATUSES.join(", ")
            ))),
        }
    }

    /// Adds a root, DER or PEM.
    pub fn add_root(&mut self, certificate: &[u8]) -> Result<(), Error> {
        self.roots.push(x509::one_certificate(certificate).map_err(Error::Root)?);
        Ok(())
    }
}

fn roots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let roots = texts.iter().map(|text| match hex::decode(text.trim()) {
        Ok(der) => x509::one_certificate(&der),
        Err(_) => x509::one_certificate(text.as_bytes()),
    });
    roots
        .collect::<Result<_, _>>()
        .map_err(|error| serde::de::Error::custom(format!("roots: {error}; give PEM or hex")))
}

/// Digests of public keys, as SNP reports state them: SHA-384 of AMD's own format of a key (SEV-SNP ABI, "Public key format":
/// curve, x and y in 72 little-endian bytes each, zeros up to 1028 bytes).
fn key_digests<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hex<48>>, D::Error> {
    const P384: [u8; 4] = [2, 0, 0, 0];
    let texts = Vec::<String>::deserialize(deserializer)?;
    let digests = texts.iter().map(|text| {
        let point = x509::p384_point(text.as_bytes())?;
        let mut key = [0; 1028];
        key[..4].copy_from_slice(&P384);
        for (n, coordinate) in point.chunks_exact(48).enumerate() {
            for (to, from) in key[4 + 72 * n..].iter_mut().zip(coordinate.iter().rev()) {
                *to = *from;
            }
        }
        let mut out = [0; 48];
        out.copy_from_slice(digest(&SHA384, &key).as_ref());
        Some(Hex(out))
    });
    digests.collect::<Option<_>>().ok_or_else(|| {
        serde::de::Error::custom("a trusted key must be the PEM of a P-384 public key (BEGIN PUBLIC KEY)")
    })
}
