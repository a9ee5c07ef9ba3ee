//! Is a quote genuine? Its own key must have signed it, and Intel must vouch for that key. The second part does not change from
//! quote to quote of one platform, so it is made once ([`Platform::authenticate`]) and may be kept. In this order:
//!
//! 1. the root signed its revocation list; root, PCK issuer and signers are not on it; every certificate is what it is used
//!    as, current, and signed by its issuer; the PCK issuer signed its list, and the PCK certificate is not on it;
//! 2. TCB info is signed and current, and for this kind of platform;
//! 3. QE identity is signed and current, and for TDX;
//! 4. the PCK key signed the quoting enclave's report, which binds the attestation key, and the enclave is the one that QE
//!    identity describes.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, UnparsedPublicKey};
use cocoon_attestation::UnixTime;

use super::collateral::{Collateral, EnclaveLevel, QeIdentity, TcbInfo};
use super::parse::{Quote, SignatureData};
use super::pck::Pck;
use super::tcb::Failure;
use crate::outcome::{Check, CheckOutcome};
use crate::policy::Policy;
use crate::roots;
use crate::x509::{Cert, P256, Revoked, Signatures, Window};

/// What does not change from quote to quote of one platform.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(super) attestation_key: ParsedPublicKey,
    pub(super) pck: Pck,
    pub(super) tcb_info: Arc<TcbInfo>,
    pub(super) qe_level: EnclaveLevel,
    pub(super) qe_svn: u16,
    /// The lower of TCB info's and QE identity's.
    pub(super) evaluation: u32,
    /// When the oldest of TCB info, QE identity and revocation lists was issued.
    pub(super) issued: UnixTime,
    /// The root is not Intel's.
    pub(super) development: bool,
    /// While everything here is current.
    pub(crate) window: Window,
    /// What was found, in order.
    pub(super) checks: Vec<Check>,
    /// What it rests on, where it is remembered: the quote's constant part, the collateral's SHA-256, the policy's roots.
    constant: Box<[u8]>,
    collateral: [u8; 32],
    roots: Vec<Vec<u8>>,
}

/// r || s by a key x || y.
pub(super) fn signed(key: &[u8], message: &[u8], signature: &[u8], known: Option<&Signatures>) -> bool {
    Signatures::holds(known, "P-256, r || s", [key, message, signature], || {
        let point = [&[4], key].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(message, signature).is_ok()
    })
}

impl Platform {
    pub(super) fn authenticate(
        data: &SignatureData<'_>,
        collateral: &Collateral,
        root: &Cert,
        at: UnixTime,
        known: Option<&Signatures>,
    ) -> Result<Self, Failure> {
        let certificates = |detail: String| ("tdx.certificates", detail);
        let lists = Chains::verify(data, collateral, root, at, known).map_err(certificates)?;
        let mut checks = vec![passed(
            "tdx.certificates",
            "every chain ends at the root; all certificates are current and none is revoked",
        )];
        let pck = Pck::of(&lists.pck).map_err(certificates)?;

        let tcb_info = tcb_info(collateral, &lists, &pck, at, known).map_err(|detail| ("tdx.tcb-info", detail))?;
        checks.push(passed("tdx.tcb-info", "TCB info is signed, current, and for this FMSPC"));
        let qe_identity = qe_identity(collateral, &lists, at, known).map_err(|detail| ("tdx.qe-identity", detail))?;
        qe_report(data, &lists.pck, known).map_err(|detail| ("tdx.qe-report", detail))?;
        let (qe_level, qe_svn) = quoting_enclave(data, &qe_identity).map_err(|detail| ("tdx.qe-identity", detail))?;
        checks.push(passed("tdx.qe-identity", "QE identity is signed and current, and the quoting enclave matches it"));
        checks.push(passed(
            "tdx.qe-report",
            "the PCK signed the quoting enclave's report, and that binds the attestation key",
        ));
        agreement(&mut checks, &pck, &tcb_info, &lists);
        let documents = [tcb_info.window(), qe_identity.window(), lists.root_list.window, lists.pck_list.window];
        let issued = documents.iter().map(|window| window.from).min().unwrap_or(UnixTime(0));
        let point = [&[4], data.attestation_key].concat();
        let attestation_key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
            .map_err(|_| ("tdx.signature", "the attestation key is no key of P-256".to_string()))?;
        Ok(Self {
            attestation_key,
            evaluation: tcb_info.tcb_evaluation_data_number.min(qe_identity.tcb_evaluation_data_number),
            window: documents.into_iter().fold(lists.window, Window::and),
            pck,
            tcb_info,
            qe_level,
            qe_svn,
            issued,
            development: root.der != roots::INTEL_SGX_ROOT_CA,
            checks,
            constant: Box::default(),
            collateral: collateral.digest,
            roots: Vec::new(),
        })
    }

    /// Keeps what it rests on.
    pub(super) fn remember(&mut self, constant: &[u8], policy: &Policy) {
        self.constant = constant.into();
        self.roots.clone_from(&policy.roots);
    }

    /// Whether it rests on exactly these bytes: whoever was authenticated once need not be again.
    pub(super) fn rests_on(&self, constant: &[u8], collateral: &Collateral, policy: &Policy) -> bool {
        *self.constant == *constant && self.collateral == collateral.digest && self.roots == policy.roots
    }
}

fn passed(id: &'static str, detail: &'static str) -> Check {
    Check { id: id.into(), outcome: CheckOutcome::Passed, detail: detail.into() }
}

/// Certificates and revocation lists that have been checked.
struct Chains<'a> {
    pck: Cert,
    pck_issuer: Cert,
    tcb_signer: &'a Cert,
    qe_signer: &'a Cert,
    root_list: Revoked,
    pck_list: Revoked,
    window: Window,
}

impl<'a> Chains<'a> {
    fn verify(
        data: &SignatureData<'_>,
        collateral: &'a Collateral,
        root: &Cert,
        at: UnixTime,
        known: Option<&Signatures>,
    ) -> Result<Self, String> {
        let root_list = Revoked::signed_by(&collateral.root_crl, root, &P256, known, at)
            .map_err(|detail| format!("the root's revocation list {detail}"))?;
        let mut window = current("the root", root, at)?;
        if root_list.lists(root) {
            return Err("the root is revoked".into());
        }
        if !root.may_issue(1) {
            return Err("the root is no CA".into());
        }
        // Intel's signer of documents, issued by the root itself.
        let mut signer = |what: &str, chain: &'a [Cert]| {
            let leaf = chain.first().ok_or_else(|| format!("the {what}'s chain is empty"))?;
            link(what, leaf, "the root", root, known)?;
            window = window.and(current(what, leaf, at)?);
            sound(what, leaf)?;
            if !leaf.may_sign() {
                return Err(format!("the {what}'s certificate is a CA's, or not for signing"));
            }
            if root_list.lists(leaf) {
                return Err(format!("the {what}'s certificate is revoked"));
            }
            Ok(leaf)
        };
        let tcb_signer = signer("TCB info signer", &collateral.tcb_info_chain)?;
        let qe_signer = match &collateral.qe_identity_chain {
            None => tcb_signer,
            Some(chain) => signer("QE identity signer", chain)?,
        };
        let chain = match (&collateral.pck_chain, data.pck_chain) {
            (Some(chain), _) => chain.clone(),
            (None, Some(pem)) => {
                Cert::all(trimmed(pem), 5).map_err(|error| format!("the quote's PCK chain: {error}"))?
            }
            (None, None) => return Err("neither quote nor collateral carries the PCK certificate".into()),
        };
        let Vouched { pck, issuer, window: vouched } = Vouched::by(root, chain, at, known)?;
        window = window.and(vouched);
        if root_list.lists(&issuer) {
            return Err("the PCK's issuer is revoked".into());
        }
        let pck_list = Revoked::signed_by(&collateral.pck_crl, &issuer, &P256, known, at)
            .map_err(|detail| format!("the PCK's revocation list {detail}"))?;
        if pck_list.lists(&pck) {
            return Err("the PCK certificate is revoked: Intel no longer vouches for this platform".into());
        }
        Ok(Self { pck, pck_issuer: issuer, tcb_signer, qe_signer, root_list, pck_list, window })
    }
}

/// A PCK certificate whose chain leads to a root; what the root and its lists say of it is another question.
struct Vouched {
    pck: Cert,
    issuer: Cert,
    window: Window,
}

impl Vouched {
    fn by(root: &Cert, chain: Vec<Cert>, at: UnixTime, known: Option<&Signatures>) -> Result<Self, String> {
        let mut chain = chain.into_iter();
        let pck = chain.next().ok_or("the PCK chain is empty")?;
        let issuer = chain.next().filter(|issuer| pck.names_issuer(issuer));
        let issuer = issuer.ok_or("the PCK's certificate is not followed by its issuer's")?;
        // A byte that nothing depended on would make many quotes of one.
        if chain.any(|other| other.der != root.der) {
            return Err("the PCK chain has a certificate that is neither the PCK's, its issuer's nor the root's".into());
        }
        link("PCK issuer", &issuer, "the root", root, known)?;
        link("PCK", &pck, "its issuer", &issuer, known)?;
        let mut window = Window { from: UnixTime(0), to: UnixTime(u64::MAX) };
        for (what, certificate) in [("PCK issuer", &issuer), ("PCK", &pck)] {
            window = window.and(current(what, certificate, at)?);
            sound(what, certificate)?;
        }
        if !issuer.may_issue(0) || !pck.may_sign() {
            return Err("the PCK's issuer must be a CA, and the PCK's certificate none".into());
        }
        Ok(Self { pck, issuer, window })
    }
}

/// Whether a quote was signed by a platform that one of the roots vouches for, as far as the quote alone can show it: without collateral
/// nobody knows whether the platform is revoked, or good enough.
pub(super) fn signed_under_any(quote: &Quote, roots: &[Cert], at: UnixTime) -> bool {
    let Ok(data) = quote.signature_data() else { return false };
    let chain = data.pck_chain.and_then(|pem| Cert::all(trimmed(pem), 5).ok());
    let Some(chain) = chain else { return false };
    signed(data.attestation_key, quote.signed(), data.signature, None)
        && roots.iter().any(|root| {
            Vouched::by(root, chain.clone(), at, None).is_ok_and(|vouched| qe_report(&data, &vouched.pck, None).is_ok())
        })
}

/// PEM in quotes ends with a zero byte.
fn trimmed(pem: &[u8]) -> &[u8] {
    pem.strip_suffix(&[0]).unwrap_or(pem)
}

fn link(what: &str, subject: &Cert, issuer_is: &str, issuer: &Cert, known: Option<&Signatures>) -> Result<(), String> {
    if subject.signed_by(issuer, &P256, known) {
        Ok(())
    } else {
        Err(format!("{issuer_is} did not sign the {what}'s certificate"))
    }
}

fn current(what: &str, certificate: &Cert, at: UnixTime) -> Result<Window, String> {
    let window = certificate.window();
    if window.contains(at) {
        return Ok(window);
    }
    Err(format!("the {what}'s certificate is valid from {} to {}, not at {at}", window.from, window.to))
}

fn sound(what: &str, certificate: &Cert) -> Result<(), String> {
    match certificate.unknown_critical() {
        None => Ok(()),
        Some(oid) => Err(format!("the {what}'s certificate has the critical extension {oid}, which is not understood")),
    }
}

/// A document by Intel's signer, current at a time.
fn document(text: &str, signature: &[u8], signer: &Cert, what: &str, known: Option<&Signatures>) -> Result<(), String> {
    let key = signer.key().strip_prefix(&[4]).unwrap_or_default();
    if signed(key, text.as_bytes(), signature, known) {
        Ok(())
    } else {
        Err(format!("{what} is not signed by its signer"))
    }
}

fn dated(window: Window, at: UnixTime, what: &str) -> Result<(), String> {
    if window.contains(at) {
        return Ok(());
    }
    Err(format!(
        "{what} is of {} and was due again at {}, not current at {at}: fetch collateral anew",
        window.from, window.to
    ))
}

fn tcb_info(
    collateral: &Collateral,
    chains: &Chains<'_>,
    pck: &Pck,
    at: UnixTime,
    known: Option<&Signatures>,
) -> Result<Arc<TcbInfo>, String> {
    document(&collateral.tcb_info, &collateral.tcb_info_signature, chains.tcb_signer, "TCB info", known)?;
    let info = collateral.tcb_info_read.clone()?;
    dated(info.window(), at, "TCB info")?;
    if info.id != "TDX" || info.version < 3 {
        return Err(format!(
            "TCB info is for {:?}, version {}, not for TDX, version 3 or later",
            info.id, info.version
        ));
    }
    if info.fmspc.0 != pck.fmspc {
        let (found, wanted) = (hex::encode(info.fmspc.0), hex::encode(pck.fmspc));
        return Err(format!("TCB info is for FMSPC {found}, the platform's is {wanted}: fetch its own collateral"));
    }
    Ok(info)
}

fn qe_identity(
    collateral: &Collateral,
    chains: &Chains<'_>,
    at: UnixTime,
    known: Option<&Signatures>,
) -> Result<Arc<QeIdentity>, String> {
    document(&collateral.qe_identity, &collateral.qe_identity_signature, chains.qe_signer, "QE identity", known)?;
    let identity = collateral.qe_identity_read.clone()?;
    dated(identity.window(), at, "QE identity")?;
    if identity.id != "TD_QE" || !(2..=3).contains(&identity.version) {
        let (id, version) = (&identity.id, identity.version);
        return Err(format!("QE identity is for {id:?}, version {version}, not for TD_QE, version 2 or 3"));
    }
    Ok(identity)
}

fn qe_report(data: &SignatureData<'_>, pck: &Cert, known: Option<&Signatures>) -> Result<(), String> {
    let key = pck.key().strip_prefix(&[4]).unwrap_or_default();
    if !signed(key, data.qe_report, data.qe_signature, known) {
        return Err("the PCK did not sign the quoting enclave's report".into());
    }
    let bound = digest(&SHA256, &[data.attestation_key, data.qe_auth].concat());
    if data.qe_report[320..352] != *bound.as_ref() {
        return Err("the quoting enclave's report binds another attestation key".into());
    }
    Ok(())
}

/// The enclave that QE identity describes, and the level that its version reaches.
fn quoting_enclave(data: &SignatureData<'_>, identity: &QeIdentity) -> Result<(EnclaveLevel, u16), String> {
    let report = data.qe_report;
    let masked = |found: &[u8], expected: &[u8], mask: &[u8]| {
        found.iter().zip(expected).zip(mask).all(|((found, expected), mask)| found & mask == expected & mask)
    };
    let (misc_select, attributes, signer) = (&report[16..20], &report[48..64], &report[128..160]);
    let product = u16::from_le_bytes([report[256], report[257]]);
    let svn = u16::from_le_bytes([report[258], report[259]]);
    if signer != identity.mrsigner.0 {
        return Err("somebody else than Intel signed the quoting enclave (MRSIGNER)".into());
    }
    if product != identity.isvprodid {
        return Err(format!("the quoting enclave is product {product}, not {}", identity.isvprodid));
    }
    if !masked(misc_select, &identity.miscselect.0, &identity.miscselect_mask.0) {
        return Err("the quoting enclave's MISCSELECT is not QE identity's".into());
    }
    if attributes[0] & 2 != 0 || !masked(attributes, &identity.attributes.0, &identity.attributes_mask.0) {
        return Err("the quoting enclave's attributes are not QE identity's: it may be under debugging".into());
    }
    let level = EnclaveLevel::reached(&identity.tcb_levels, svn);
    level
        .map(|level| (level.clone(), svn))
        .ok_or_else(|| format!("the quoting enclave's version {svn} reaches no level"))
}

/// That certificates and collateral are what they are used as, and that they agree with each other.
fn agreement(checks: &mut Vec<Check>, pck: &Pck, info: &TcbInfo, chains: &Chains<'_>) {
    let mut genuine = |id: &'static str, holds: bool, detail: String| {
        let outcome = if holds { CheckOutcome::Passed } else { CheckOutcome::Invalid };
        checks.push(Check { id: id.into(), outcome, detail: detail.into() });
    };
    let (certified, stated) = (hex::encode(pck.pce_id), hex::encode(info.pce_id.0));
    genuine(
        "tdx.pce-id",
        pck.pce_id == info.pce_id.0,
        format!("PCEID {certified} in the PCK certificate, {stated} in TCB info"),
    );
    let kind = info.tcb_type;
    genuine("tdx.tcb-type", kind == 0, format!("tcbType {kind}; 0 is the one whose comparison is known"));

    let signers = [chains.tcb_signer.name(), chains.qe_signer.name()];
    genuine(
        "tdx.signer-subject",
        signers.iter().all(|name| name.ends_with("SGX TCB Signing")),
        format!("TCB info signed by {:?}, QE identity by {:?}", signers[0], signers[1]),
    );
    let (subject, issuer) = (chains.pck.name(), chains.pck_issuer.name());
    let issuers = ["SGX PCK Platform CA", "SGX PCK Processor CA"];
    let holds = subject.ends_with("SGX PCK Certificate") && issuers.iter().any(|name| issuer.ends_with(name));
    genuine("tdx.pck-subject", holds, format!("{subject:?}, issued by {issuer:?}"));

    // TCB levels are matched on CPUSVN here, on the components by Intel's library: so they must be the same.
    let holds = pck.components == pck.cpu_svn;
    let detail = if holds { "SGX components and CPUSVN agree" } else { "SGX components and CPUSVN differ" };
    genuine("tdx.pck-tcb", holds, detail.into());
}

/// The name of the root that the collateral brings along, if it is none of `roots`. It explains a failure, and decides nothing.
pub(super) fn foreign_root(collateral: &Collateral, roots: &[Cert]) -> Option<String> {
    let root = collateral.tcb_info_chain.last()?;
    (!roots.iter().any(|known| known.key() == root.key())).then(|| root.name())
}
