//! Is a quote genuine? In this order:
//!
//! 1. the attestation key in the quote signed header and body (checked here, over the quote's own bytes);
//! 2. TCB info and QE identity are signed under the root, and current; certificates are valid and not revoked;
//! 3. the PCK certificate chains to the root and signed the quoting enclave's report;
//! 4. that report binds the attestation key, and the quoting enclave is the one that QE identity describes;
//! 5. platform and TDX module match a TCB level and a module identity: their status comes from there.
//!
//! Steps 2 to 5 are dcap-qvl's. It also has opinions on TD attributes (debug, migration, SEPT_VE_DISABLE) and stops at them
//! before it says what the TCB status is. Those are matters of policy here, so it is given the quote with unremarkable
//! attributes, after step 1 has checked the signature over the real ones; for that one message under that one key its
//! signature check is answered from step 1. Nothing is gained by choosing that message: everything in it but the attributes
//! was signed by that key, dcap-qvl still ties the key to the quoting enclave, and its opinion on the attributes is not used.

use std::cell::RefCell;

use aws_lc_rs::digest::{self, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cocoon_attestation::UnixTime;
use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{Policy, QuoteClaims, QuoteCollateralV3};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

use super::parse::Quote;
use crate::x509;

/// What holds once [`authenticate`] has succeeded.
pub(super) const ESTABLISHED: &[(&str, &str)] = &[
    ("tdx.signature", "the attestation key signed header and body"),
    ("tdx.certificates", "every chain ends at the root; all certificates are current and none is revoked"),
    ("tdx.tcb-info", "TCB info is signed, current, and for this FMSPC"),
    ("tdx.qe-identity", "QE identity is signed and current, and the quoting enclave matches it"),
    ("tdx.qe-report", "the PCK signed the quoting enclave's report, and that binds the attestation key"),
    ("tdx.module", "the TDX module matches a module identity of TCB info"),
];

/// Whether step 1 is made. Only a test can leave it out, to show that it is what stops a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuoteSignature {
    Checked,
    #[cfg(test)]
    SwitchedOff,
}

/// SEPT_VE_DISABLE alone.
const UNREMARKABLE: u64 = 1 << 28;

/// Reads collateral.
pub(super) fn collateral(json: &[u8]) -> Result<QuoteCollateralV3, String> {
    serde_json::from_slice(json).map_err(|error| format!("the collateral is no QuoteCollateralV3: {error}"))
}

/// Authenticates a quote under a root; an error names the check that failed.
pub(super) fn authenticate(
    quote: &Quote,
    collateral: &QuoteCollateralV3,
    root: &[u8],
    at: UnixTime,
    signature: QuoteSignature,
) -> Result<QuoteClaims, (&'static str, String)> {
    let (bytes, key) = quote.signature().ok_or(("tdx.signature", "the quote has no signature".to_string()))?;
    let point = [&[4], key].concat();
    let holds = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(quote.signed(), bytes).is_ok();
    if signature == QuoteSignature::Checked && !holds {
        return Err(("tdx.signature", "the attestation key did not sign this header and body".into()));
    }
    let unremarkable = quote.with_td_attributes(UNREMARKABLE);
    let _answer = Answered::from_step_1(unremarkable.signed().to_vec(), point);
    let verifier = QuoteVerifier::<AwsLc>::new_with_config(root.to_vec()).allow_service_td(true);
    verifier.verify_with_policy(&unremarkable.bytes, collateral, at.0, &ClaimsOnly).map_err(|error| {
        let detail = format!("{error:#}");
        (check_of(&detail), detail)
    })
}

/// The name of the root that the collateral brings along, if it is none of `roots`. It explains a failure, and decides nothing.
pub(super) fn foreign_root(collateral: &QuoteCollateralV3, roots: &[&[u8]]) -> Option<String> {
    let der = x509::certificates(collateral.tcb_info_issuer_chain.as_bytes()).ok()?.pop()?;
    let root = x509::parse(&der)?;
    let known =
        roots.iter().filter_map(|known| x509::parse(known)).any(|known| x509::spki(&known) == x509::spki(&root));
    (!known).then(|| x509::common_name(root.tbs_certificate().subject()))
}

/// Which check a message of dcap-qvl's is about. The outcome does not depend on it.
fn check_of(message: &str) -> &'static str {
    const CHECKS: &[(&str, &str)] = &[
        ("Fmspc", "tdx.tcb-info"),
        ("TDX module", "tdx.module"),
        ("TCB level", "tdx.tcb-level"),
        ("TCB status", "tdx.tcb-level"),
        ("TCB info", "tdx.tcb-info"),
        ("tcb_info", "tdx.tcb-info"),
        ("TCBInfo", "tdx.tcb-info"),
        ("TCB Info", "tdx.tcb-info"),
        ("TcbInfo", "tdx.tcb-info"),
        ("qe_report", "tdx.qe-report"),
        ("QE report hash", "tdx.qe-report"),
        ("QE auth", "tdx.qe-report"),
        ("QE vendor", "tdx.signature-data"),
        ("qe_identity", "tdx.qe-identity"),
        ("QeIdentity", "tdx.qe-identity"),
        ("QE ", "tdx.qe-identity"),
        ("decode quote", "tdx.signature-data"),
        ("DCAP", "tdx.signature-data"),
    ];
    CHECKS.iter().find(|(word, _)| message.contains(word)).map_or("tdx.certificates", |(_, check)| check)
}

/// dcap-qvl's policy that leaves everything to ours.
struct ClaimsOnly;

impl Policy for ClaimsOnly {
    fn validate(&self, _: &QuoteClaims) -> anyhow::Result<()> {
        Ok(())
    }
}

/// dcap-qvl on aws-lc.
pub(super) struct AwsLc;

impl Config for AwsLc {
    type X509 = dcap_qvl::x509::X509CertBackend;
    type SigEncoder = dcap_qvl::signature::DerSigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for AwsLc {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &P256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        fixed(digest(&digest::SHA256, data).as_ref())
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        fixed(digest(&digest::SHA384, data).as_ref())
    }
}

fn fixed<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(digest);
    out
}

/// ECDSA P-256 with SHA-256, but for the one message that step 1 has answered.
#[derive(Debug)]
struct P256;

impl SignatureVerificationAlgorithm for P256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        if Answered::covers(message, key) {
            return Ok(());
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

thread_local! {
    static ANSWERED: RefCell<Option<(Vec<u8>, Vec<u8>)>> = const { RefCell::new(None) };
}

/// While this lives, on this thread, one message counts as signed by one key.
struct Answered;

impl Answered {
    fn from_step_1(message: Vec<u8>, key: Vec<u8>) -> Self {
        ANSWERED.set(Some((message, key)));
        Self
    }

    fn covers(message: &[u8], key: &[u8]) -> bool {
        ANSWERED.with_borrow(|answered| matches!(answered, Some((m, k)) if m == message && k == key))
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        ANSWERED.set(None);
    }
}
