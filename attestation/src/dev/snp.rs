//! AMD's part: SEV-SNP reports, endorsement key certificates and their chain, under a root of the development platform.
//!
//! Sources: SEV Secure Nested Paging Firmware ABI Specification (56860), ATTESTATION_REPORT and TCB_VERSION; Versioned
//! Chip Endorsement Key Certificate and KDS Interface Specification (57230), table "VCEK certificate extensions".

use super::certs::{CertSpec, CrlSpec, FROM, Party, Role, UNTIL, certificate, crl, extension, serial};
use super::der;
use super::keys::{Key, SignedBy};
use crate::bundle::SnpEndorsements;

/// Security versions of the parts of an SNP platform (TCB_VERSION).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnpTcb {
    /// Of Turin's further part, whose versions have a layout of their own; `None`: Milan's and Genoa's.
    pub fmc: Option<u8>,
    /// Boot loader of the secure processor.
    pub bootloader: u8,
    /// Its operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Default for SnpTcb {
    fn default() -> Self {
        Self { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 }
    }
}

impl SnpTcb {
    fn to_bytes(self) -> [u8; 8] {
        match self.fmc {
            None => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
            Some(fmc) => [fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
        }
    }
}

/// Firmware version: build, minor, major.
pub type FirmwareVersion = [u8; 3];

/// Chip id of the development platform's processor.
pub const CHIP_ID: [u8; 64] = [0xc1; 64];

/// Everything in a report. The default is good evidence under [`SnpEndorsementSpec::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpSpec {
    /// Version of the report's layout: 3, or 2 without the processor's identification.
    pub version: u32,
    /// Security version of the guest.
    pub guest_svn: u32,
    /// Guest policy bits: 16 SMT allowed, 17 always one, 18 migration agent, 19 debug, 20 single socket.
    pub policy: u64,
    /// Chosen by the guest's owner.
    pub family_id: [u8; 16],
    /// Chosen by the guest's owner.
    pub image_id: [u8; 16],
    /// Privilege level that asked, 0 to 3.
    pub vmpl: u32,
    /// 1: ECDSA P-384 with SHA-384.
    pub signature_algorithm: u32,
    /// TCB that runs now.
    pub current_tcb: SnpTcb,
    /// Platform bits: 0 SMT, 1 TSME, and later ones.
    pub platform_info: u64,
    /// An author key signed the identity block.
    pub author_key_enabled: bool,
    /// The chip key is masked.
    pub mask_chip_key: bool,
    /// 0 VCEK, 1 VLEK, 7 none.
    pub signing_key: u8,
    /// What the guest bound.
    pub report_data: [u8; 64],
    /// Launch digest.
    pub measurement: [u8; 48],
    /// Chosen by whoever launched the guest.
    pub host_data: [u8; 32],
    /// SHA-384 of the identity key.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author key.
    pub author_key_digest: [u8; 48],
    /// Id of the guest, constant until it ends.
    pub report_id: [u8; 32],
    /// Id of its migration agent's report; all ones for none.
    pub report_id_ma: [u8; 32],
    /// TCB that the signing key stands for.
    pub reported_tcb: SnpTcb,
    /// Combined family, model and stepping of the processor (version 3).
    pub cpuid: [u8; 3],
    /// Unique chip id.
    pub chip_id: [u8; 64],
    /// TCB that cannot be gone back behind.
    pub committed_tcb: SnpTcb,
    /// Firmware that runs now.
    pub current_firmware: FirmwareVersion,
    /// Firmware that cannot be gone back behind.
    pub committed_firmware: FirmwareVersion,
    /// TCB at launch.
    pub launch_tcb: SnpTcb,
    /// Mitigations that the firmware had at launch, a bit for each (version 5).
    pub launch_mitigations: u64,
    /// Mitigations that it has now (version 5).
    pub current_mitigations: u64,
    /// Whether the VCEK signed.
    pub signed_by: SignedBy,
}

impl Default for SnpSpec {
    fn default() -> Self {
        Self {
            version: 3,
            guest_svn: 0,
            policy: 0x30000,
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: 0,
            signature_algorithm: 1,
            current_tcb: SnpTcb::default(),
            platform_info: 1,
            author_key_enabled: false,
            mask_chip_key: false,
            signing_key: 0,
            report_data: [0; 64],
            measurement: [0x22; 48],
            host_data: [0; 32],
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: [0x1d; 32],
            report_id_ma: [0xff; 32],
            reported_tcb: SnpTcb::default(),
            // Milan.
            cpuid: [0x19, 0x01, 0x01],
            chip_id: CHIP_ID,
            committed_tcb: SnpTcb::default(),
            current_firmware: [24, 55, 1],
            committed_firmware: [24, 55, 1],
            launch_tcb: SnpTcb::default(),
            launch_mitigations: 0,
            current_mitigations: 0,
            signed_by: SignedBy::Right,
        }
    }
}

impl SnpSpec {
    /// The report without its signature, 672 bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGNED_LEN);
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        put(&self.version.to_le_bytes());
        put(&self.guest_svn.to_le_bytes());
        put(&self.policy.to_le_bytes());
        put(&self.family_id);
        put(&self.image_id);
        put(&self.vmpl.to_le_bytes());
        put(&self.signature_algorithm.to_le_bytes());
        put(&self.current_tcb.to_bytes());
        put(&self.platform_info.to_le_bytes());
        let flags = u32::from(self.author_key_enabled)
            | u32::from(self.mask_chip_key) << 1
            | (u32::from(self.signing_key) & 7) << 2;
        put(&flags.to_le_bytes());
        put(&[0; 4]);
        put(&self.report_data);
        put(&self.measurement);
        put(&self.host_data);
        put(&self.id_key_digest);
        put(&self.author_key_digest);
        put(&self.report_id);
        put(&self.report_id_ma);
        put(&self.reported_tcb.to_bytes());
        put(if self.version >= 3 { &self.cpuid } else { &[0; 3] });
        put(&[0; 21]);
        put(&self.chip_id);
        put(&self.committed_tcb.to_bytes());
        put(&self.current_firmware);
        put(&[0]);
        put(&self.committed_firmware);
        put(&[0]);
        put(&self.launch_tcb.to_bytes());
        let (launch, current) =
            if self.version >= 5 { (self.launch_mitigations, self.current_mitigations) } else { (0, 0) };
        put(&launch.to_le_bytes());
        put(&current.to_le_bytes());
        put(&[0; 152]);
        out
    }
}

const SIGNED_LEN: usize = 672;
/// Each number of a signature, little-endian.
const NUMBER_LEN: usize = 72;
const SIGNATURE_LEN: usize = 512;

/// Everything in the certificates that endorse a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpEndorsementSpec {
    /// Chip endorsement key certificate.
    pub vcek: CertSpec,
    /// TCB that the certificate is for.
    pub tcb: SnpTcb,
    /// Chip that the certificate is for: 64 bytes, or Turin's 8.
    pub hwid: Vec<u8>,
    /// Whether its extension holds an OCTET STRING around the chip's bytes, as some do.
    pub wrapped_hwid: bool,
    /// The key is a cloud provider's (VLEK), of no chip.
    pub vlek: bool,
    /// Product and stepping; what comes before the dash names the authorities.
    pub product: String,
    /// AMD signing key's certificate.
    pub ask: CertSpec,
    /// The root's revocation list; `None`: none is stapled.
    pub crl: Option<CrlSpec>,
}

impl Default for SnpEndorsementSpec {
    fn default() -> Self {
        Self {
            vcek: CertSpec::new(serial::VCEK),
            tcb: SnpTcb::default(),
            hwid: CHIP_ID.to_vec(),
            wrapped_hwid: false,
            vlek: false,
            product: "Milan-B0".into(),
            ask: CertSpec::new(serial::ASK),
            crl: Some(CrlSpec::new(FROM, UNTIL)),
        }
    }
}

/// Keys and names of AMD's part.
#[derive(Clone)]
pub(super) struct Snp {
    ark: Party,
    ask: Party,
    vcek: Party,
}

impl Snp {
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            ark: Party::new("ARK-Milan", Key::Ark, Key::Ask),
            ask: Party::new("SEV-Milan", Key::Ask, Key::Ark),
            vcek: Party::new("SEV-VCEK", Key::p384(seed, "snp vcek"), Key::p384(seed, "snp vcek impostor")),
        }
    }

    pub(super) fn ark_der(&self) -> Vec<u8> {
        certificate(&self.ark, &self.ark, Role::Ca(1), &CertSpec::new(serial::ROOT), &[])
    }

    pub(super) fn report(&self, spec: &SnpSpec) -> Vec<u8> {
        let mut report = spec.to_bytes();
        let signature = self.vcek.signer(spec.signed_by).sign_raw(&report);
        for number in signature.chunks(signature.len() / 2) {
            let mut little_endian: Vec<u8> = number.iter().rev().copied().collect();
            little_endian.resize(NUMBER_LEN, 0);
            report.extend_from_slice(&little_endian);
        }
        report.resize(SIGNED_LEN + SIGNATURE_LEN, 0);
        report
    }

    pub(super) fn endorsements(&self, spec: &SnpEndorsementSpec) -> SnpEndorsements {
        let mut extensions = Vec::new();
        let mut amd = |arcs: &[u32], value: &[u8]| {
            extensions.push(extension(&[&[1, 3, 6, 1, 4, 1, 3704, 1], arcs].concat(), false, value));
        };
        amd(&[1], &der::integer(0));
        amd(&[2], &der::ia5(&spec.product));
        let versions = [(1, spec.tcb.bootloader), (2, spec.tcb.tee), (3, spec.tcb.snp), (8, spec.tcb.microcode)];
        let further = spec.tcb.fmc.map(|fmc| (9, fmc));
        for (part, version) in versions.into_iter().chain((4..8).map(|reserved| (reserved, 0))).chain(further) {
            amd(&[3, part], &der::integer(u64::from(version)));
        }
        match (spec.vlek, spec.wrapped_hwid) {
            (true, _) => amd(&[5], &der::ia5("cloud provider")),
            // AMD puts the bare bytes there, without an inner OCTET STRING.
            (false, false) => amd(&[4], &spec.hwid),
            (false, true) => amd(&[4], &der::octets(&spec.hwid)),
        }
        let line = spec.product.split('-').next().unwrap_or_default();
        let kind = if spec.vlek { "VLEK-" } else { "" };
        let ark = self.ark.named(&format!("ARK-{line}"));
        let ask = self.ask.named(&format!("SEV-{kind}{line}"));
        let key = self.vcek.named(if spec.vlek { "SEV-VLEK" } else { "SEV-VCEK" });
        let root = certificate(&ark, &ark, Role::Ca(1), &CertSpec::new(serial::ROOT), &[]);
        SnpEndorsements {
            vek: certificate(&ask, &key, Role::Leaf, &spec.vcek, &extensions),
            ca: vec![certificate(&ark, &ask, Role::Ca(0), &spec.ask, &[]), root],
            crl: spec.crl.as_ref().map(|spec| crl(&ark, spec)),
        }
    }
}
