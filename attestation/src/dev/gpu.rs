//! NVIDIA's part: SPDM reports of GPUs, their certificate chains, and reference manifests, under a root of the development platform.
//!
//! Sources: DMTF DSP0274 (SPDM 1.1), GET_MEASUREMENTS and MEASUREMENTS; the fields of NVIDIA's opaque data as its open verifier
//! names them; TCG RIM binding for SWID tags; W3C XMLDSig and Canonical XML 1.1.

use std::collections::BTreeMap;
use std::fmt::Write;

use aws_lc_rs::digest::{SHA384, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::certs::{CertSpec, Party, Role, certificate, extension, pem, serial};
use super::der;
use super::keys::{Key, SignedBy};
use super::ocsp::{self, OcspSpec, OcspSubject};

/// Digest of the development platform's GPU firmware.
pub const FWID: [u8; 48] = [0xf1; 48];

/// Everything in a GPU's report. The default is good evidence under [`GpuChainSpec::default`] and the default manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuSpec {
    /// The nonce that was asked with.
    pub nonce: [u8; 32],
    /// The GPU's own nonce.
    pub response_nonce: [u8; 32],
    /// Digests of blocks 1 to 64; block n is a manifest's index n - 1.
    pub measurements: BTreeMap<u8, [u8; 48]>,
    /// Opaque fields by number, as they stand in the report.
    pub opaque: BTreeMap<u16, Vec<u8>>,
    /// Whether the GPU's key signed.
    pub signed_by: SignedBy,
    /// Which of the platform's GPUs it is; each has a key of its own.
    pub gpu: u8,
}

/// A measurement of the development platform: constant for its index.
pub fn measurement(index: u8) -> [u8; 48] {
    let mut out = [0; 48];
    out.copy_from_slice(digest(&SHA384, &[b"cocoon-development-gpu".as_slice(), &[index]].concat()).as_ref());
    out
}

impl Default for GpuSpec {
    fn default() -> Self {
        let text = |text: &str| [text.as_bytes(), &[0]].concat();
        let opaque = BTreeMap::from([
            (3, text("580.159.03")),
            (6, vec![0x00, 0x74, 0x00, 0x96, 0x20, 0, 0, 0]),
            (11, vec![0xaa]),
            (15, text("862")),
            (17, text("1010")),
            (18, text("0205")),
            (20, FWID.to_vec()),
            (36, vec![0, 0]),
        ]);
        Self {
            nonce: [0; 32],
            response_nonce: [7; 32],
            measurements: (1..=64).map(|block| (block, measurement(block - 1))).collect(),
            opaque,
            signed_by: SignedBy::Right,
            gpu: 0,
        }
    }
}

/// Everything in a GPU's certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuChainSpec {
    /// Such as `GH100`, `GB100`; `LS10` is a switch's.
    pub architecture: String,
    /// Firmware that holds the leaf's key; `None`: the leaf does not say.
    pub fwid: Option<[u8; 48]>,
    /// Blackwell puts it under another object identifier.
    pub fwid_arcs: Vec<u32>,
    /// The leaf.
    pub leaf: CertSpec,
    /// What issued it: the boot ROM's key, the provisioner's, the model's.
    pub authorities: [CertSpec; 3],
    /// Which GPU's chain.
    pub gpu: u8,
}

impl Default for GpuChainSpec {
    fn default() -> Self {
        Self {
            architecture: "GH100".into(),
            fwid: Some(FWID),
            fwid_arcs: vec![2, 23, 133, 5, 4, 1],
            leaf: CertSpec::new(serial::GPU),
            authorities: [10, 11, 12].map(CertSpec::new),
            gpu: 0,
        }
    }
}

/// Everything in a reference manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RimSpec {
    /// Such as `GH100`.
    pub product: String,
    /// A driver's, `580.159.03`, or a VBIOS's, `96.00.74.00.20`.
    pub version: String,
    /// Golden values by index, with their alternatives; indices left out are inactive.
    pub golden: BTreeMap<u8, Vec<[u8; 48]>>,
    /// The signer.
    pub leaf: CertSpec,
    /// What issued it, up to the root.
    pub authorities: [CertSpec; 2],
    /// Whether the signer signed.
    pub signed_by: SignedBy,
}

impl RimSpec {
    /// The manifest of the default GPU's driver: odd indices below 40.
    pub fn driver() -> Self {
        Self::new("580.159.03", (0..40).filter(|index| index % 2 == 1))
    }

    /// The manifest of the default GPU's VBIOS: even indices below 40.
    pub fn vbios() -> Self {
        Self::new("96.00.74.00.20", (0..40).filter(|index| index % 2 == 0))
    }

    fn new(version: &str, indices: impl Iterator<Item = u8>) -> Self {
        Self {
            product: "GH100".into(),
            version: version.into(),
            golden: indices.map(|index| (index, vec![[0xee; 48], measurement(index)])).collect(),
            leaf: CertSpec::new(20),
            authorities: [21, 22].map(CertSpec::new),
            signed_by: SignedBy::Right,
        }
    }
}

/// Keys of NVIDIA's part.
#[derive(Clone)]
pub(super) struct Gpu {
    seed: [u8; 32],
    root: Party,
}

impl Gpu {
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        Self { seed: *seed, root: party(seed, "NVIDIA development root") }
    }

    pub(super) fn root_der(&self) -> Vec<u8> {
        certificate(&self.root, &self.root, Role::Ca(4), &CertSpec::new(serial::ROOT), &[])
    }

    pub(super) fn report(&self, spec: &GpuSpec) -> Vec<u8> {
        let mut out = vec![0x11, 0xe0, 0x01, 0xff];
        out.extend(spec.nonce);
        out.push(0);
        let mut record = Vec::new();
        for (block, digest) in &spec.measurements {
            record.extend([*block, 1, 51, 0, 1, 48, 0]);
            record.extend(digest);
        }
        out.extend([0x11, 0x60, 0, 0, spec.measurements.len() as u8]);
        out.extend(&(record.len() as u32).to_le_bytes()[..3]);
        out.extend(record);
        out.extend(spec.response_nonce);
        let mut opaque = Vec::new();
        for (field, value) in &spec.opaque {
            opaque.extend(field.to_le_bytes());
            opaque.extend((value.len() as u16).to_le_bytes());
            opaque.extend(value);
        }
        out.extend((opaque.len() as u16).to_le_bytes());
        out.extend(opaque);
        let signature = self.leaf("any", spec.gpu).signer(spec.signed_by).sign_raw(&out);
        out.extend(signature);
        out
    }

    fn leaf(&self, architecture: &str, gpu: u8) -> Party {
        let own = |label: &str| Key::p384(&self.seed, &format!("{label} {gpu}"));
        Party::new(&format!("{architecture} A01 GSP FMC LF"), own("gpu leaf"), own("gpu leaf impostor"))
    }

    /// PEM, leaf first, root last.
    pub(super) fn chain(&self, spec: &GpuChainSpec) -> Vec<u8> {
        let name = &spec.architecture;
        let model = party(&self.seed, &format!("NVIDIA {name} Identity"));
        let provisioner = party(&self.seed, &format!("NVIDIA {name} Provisioner ICA 1"));
        let firmware = party(&self.seed, &format!("{name} A01 GSP BROM"));
        let leaf = self.leaf(name, spec.gpu);
        let fwid = spec.fwid.map(|fwid| {
            let id = der::sequence(&[der::oid(&[2, 16, 840, 1, 101, 3, 4, 2, 2]), der::octets(&fwid)]);
            extension(&spec.fwid_arcs, false, &der::sequence(&[der::integer(1), firmware.key.spki(), id]))
        });
        let [third, second, first] = &spec.authorities;
        pem(&[
            certificate(&firmware, &leaf, Role::Leaf, &spec.leaf, fwid.as_slice()),
            certificate(&provisioner, &firmware, Role::Ca(0), third, &[]),
            certificate(&model, &provisioner, Role::Ca(1), second, &[]),
            certificate(&self.root, &model, Role::Ca(2), first, &[]),
            self.root_der(),
        ])
        .into_bytes()
    }

    pub(super) fn ocsp(&self, spec: &OcspSpec) -> Vec<u8> {
        let named = |name: &str| party(&self.seed, name);
        let name = &spec.architecture;
        let (issuer, serial) = match spec.subject {
            OcspSubject::Gpu => (named(&format!("{name} A01 GSP BROM")), serial::GPU),
            OcspSubject::Firmware => (named(&format!("NVIDIA {name} Provisioner ICA 1")), 10),
            OcspSubject::Provisioner => (named(&format!("NVIDIA {name} Identity")), 11),
            OcspSubject::Model => (self.root.clone(), 12),
            OcspSubject::RimSigner => (named("Reference Value L3"), 20),
            OcspSubject::RimL3 => (named("Reference Value CA"), 21),
            OcspSubject::RimCa => (self.root.clone(), 22),
        };
        let responder = party(&self.seed, "NVIDIA development OCSP responder");
        ocsp::response(&issuer, &responder, serial, spec)
    }

    /// The manifest in canonical form, so that what is signed is what stands there.
    pub(super) fn manifest(&self, spec: &RimSpec) -> Vec<u8> {
        const SWID: &str = r#"xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd""#;
        const HASH: &str = r#"xmlns:hash="http://www.w3.org/2001/04/xmlenc#sha384""#;
        const DSIG: &str = r#"xmlns:ds="http://www.w3.org/2000/09/xmldsig#""#;
        const TCG: &str = r#"xmlns:rim="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/""#;
        const C14N: &str = "http://www.w3.org/2006/12/xml-c14n11";
        let (product, version) = (&spec.product, &spec.version);
        let mut head = format!("<SoftwareIdentity {SWID} {HASH} name=\"{product}\" tagId=\"development\">");
        let _ = write!(
            head,
            "<Meta {TCG} colloquialVersion=\"{version}\" product=\"{product}\" rim:PlatformModel=\"{product}\"></Meta><Payload>"
        );
        for index in 0..64 {
            let (none, zero) = (Vec::new(), [[0; 48]]);
            let golden = spec.golden.get(&index).unwrap_or(&none);
            let (active, values) = if golden.is_empty() { ("False", &zero[..]) } else { ("True", &golden[..]) };
            let _ = write!(
                head,
                "<Resource active=\"{active}\" alternatives=\"{}\" index=\"{index}\" name=\"Measurement_{index}\" size=\"48\" type=\"Measurement\"",
                values.len()
            );
            // Canonical XML sorts attributes by name, as text.
            let mut hashes: Vec<_> = values.iter().enumerate().map(|(n, value)| (format!("Hash{n}"), value)).collect();
            hashes.sort();
            for (name, value) in hashes {
                let _ = write!(head, " hash:{name}=\"{}\"", hex::encode(value));
            }
            head.push_str("></Resource>");
        }
        head.push_str("</Payload>");
        let tail = "</SoftwareIdentity>";
        let covered = STANDARD.encode(digest(&SHA384, format!("{head}{tail}").as_bytes()));
        let info = format!(
            "<ds:CanonicalizationMethod Algorithm=\"{C14N}\"></ds:CanonicalizationMethod>\
             <ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384\"></ds:SignatureMethod>\
             <ds:Reference URI=\"\"><ds:Transforms>\
             <ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform>\
             <ds:Transform Algorithm=\"{C14N}\"></ds:Transform></ds:Transforms>\
             <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#sha384\"></ds:DigestMethod>\
             <ds:DigestValue>{covered}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
        );
        let signer = party(&self.seed, "HCC RIM L4 Signer");
        // On its own, SignedInfo carries the namespaces that are in scope where it stands.
        let signed = format!("<ds:SignedInfo {SWID} {DSIG} {HASH}>{info}");
        let signature = STANDARD.encode(signer.signer(spec.signed_by).sign_raw(signed.as_bytes()));
        let (second, first) = (party(&self.seed, "Reference Value L3"), party(&self.seed, "Reference Value CA"));
        let chain = [
            certificate(&second, &signer, Role::Leaf, &spec.leaf, &[]),
            certificate(&first, &second, Role::Ca(0), &spec.authorities[0], &[]),
            certificate(&self.root, &first, Role::Ca(1), &spec.authorities[1], &[]),
            self.root_der(),
        ];
        let chain: String = chain
            .iter()
            .map(|der| format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(der)))
            .collect();
        format!(
            "{head}<ds:Signature {DSIG}><ds:SignedInfo>{info}<ds:SignatureValue>{signature}</ds:SignatureValue>\
             <ds:KeyInfo><ds:X509Data>{chain}</ds:X509Data></ds:KeyInfo></ds:Signature>{tail}"
        )
        .into_bytes()
    }
}

fn party(seed: &[u8; 32], name: &str) -> Party {
    Party::new(name, Key::p384(seed, name), Key::p384(seed, &format!("{name} impostor")))
}
