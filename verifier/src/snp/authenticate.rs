//! Is a report genuine? Root pinned or named, ARK signs itself and ASK, ASK signs the report's key, that key signs the
//! report; all certificates current and of the right kind; nothing revoked; the key's certificate is this chip's.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use cocoon_attestation::UnixTime;
use const_oid::ObjectIdentifier;
use der::Decode;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

use super::Endorsed;
use super::parse::{Report, Tcb};
use crate::outcome::{Check, CheckOutcome, Record, Signature, Text};
use crate::policy::Policy;
use crate::roots::{self, Product};
use crate::x509::{self, Window};

/// AMD's arc for endorsement key certificates (57230, "VCEK certificate extensions").
const ARC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1");
/// Most CA certificates that are looked at.
const MAX_CA: usize = 8;

/// What does not change from report to report of one chip: its key, and what its certificate says of it.
#[derive(Debug)]
pub(crate) struct Platform {
    key: ParsedPublicKey,
    pub(super) product: Product,
    pub(super) tcb: Tcb,
    pub(super) vlek: bool,
    /// Common name of the key's certificate, and the chip's id as it stands there.
    name: String,
    hwid: Vec<u8>,
    pub(super) revocation_checked: bool,
    pub(crate) development: bool,
    /// While every certificate and the revocation list are current.
    pub(crate) window: Window,
    /// What was found, in order.
    pub(super) checks: Vec<Check>,
}

/// A certificate with the bytes it came as.
type Loaded = (Vec<u8>, Certificate);

impl Platform {
    /// Authenticates a chip's key, from the root down. An error carries what was found before it.
    pub(super) fn authenticate(
        endorsed: &Endorsed<'_>,
        policy: &Policy,
        at: UnixTime,
    ) -> Result<Self, (Vec<Check>, Failure)> {
        let mut found = Found::default();
        Self::steps(&mut found, endorsed, policy, at).map_err(|failure| (found.checks, failure))
    }

    fn steps(found: &mut Found, endorsed: &Endorsed<'_>, policy: &Policy, at: UnixTime) -> Result<Self, Failure> {
        let (chain, development, mut window) = chain(found, endorsed.vek, &endorsed.ca, policy, at)?;
        if let Some(crl) = endorsed.crl {
            window = window.and(revocation(found, &chain, crl, at)?);
        }
        let Some(product) = product(&chain) else {
            return invalid("snp.product", "the report key's certificate names no product that this verifier knows");
        };
        let line = |name: String| Product::from_name(name.rsplit('-').next().unwrap_or_default());
        let ark = line(x509::common_name(chain.ark.tbs_certificate().subject()));
        if ark != Some(product) {
            return invalid("snp.product", format!("certificate for {}, root for {ark:?}", product.name()));
        }
        let Some(tcb) = certified_tcb(&chain.vek, product) else {
            return invalid("snp.certificate-tcb", "the report key's certificate states no TCB");
        };
        let name = x509::common_name(chain.vek.tbs_certificate().subject());
        let vlek = match name.as_str() {
            "SEV-VCEK" => false,
            "SEV-VLEK" => true,
            _ => return invalid("snp.signing-key", format!("the certificate is of {name:?}, neither VCEK nor VLEK")),
        };
        let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, x509::key(&chain.vek));
        let Ok(key) = key else { return invalid("snp.signature", "the report key is no key of P-384") };
        let hwid = x509::below(ARC, &[4]).and_then(|oid| x509::extension(&chain.vek, oid)).unwrap_or_default().to_vec();
        let checks = std::mem::take(&mut found.checks);
        let revocation_checked = endorsed.crl.is_some();
        Ok(Self { key, product, tcb, vlek, name, hwid, revocation_checked, development, window, checks })
    }
}

/// Checks that were made so far.
#[derive(Default)]
struct Found {
    checks: Vec<Check>,
}

impl Found {
    fn passed(&mut self, id: &'static str, detail: impl Into<Text>) {
        self.checks.push(Check { id: id.into(), outcome: CheckOutcome::Passed, detail: detail.into() });
    }
}

/// Authenticates a report by its chip's key; `false` if it is not authentic, which the record then says why.
pub(super) fn report(record: &mut Record, report: &Report, platform: &Platform, signature: Signature) -> bool {
    match key(record, report, platform, signature) {
        Ok(()) => true,
        Err((id, outcome, detail)) => {
            record.put(id, outcome, detail);
            false
        }
    }
}

pub(super) type Failure = (&'static str, CheckOutcome, String);

fn invalid<T>(id: &'static str, detail: impl Into<String>) -> Result<T, Failure> {
    Err((id, CheckOutcome::Invalid, detail.into()))
}

fn load(bytes: &[u8]) -> Result<Vec<Loaded>, Failure> {
    let malformed = |detail: String| ("snp.certificate-format", CheckOutcome::Malformed, detail);
    let ders = x509::certificates(bytes).map_err(malformed)?;
    ders.into_iter()
        .map(|der| {
            x509::parse(&der).map(|certificate| (der, certificate)).ok_or_else(|| malformed("no certificate".into()))
        })
        .collect()
}

struct Chain {
    ark: Certificate,
    ask: Certificate,
    vek: Certificate,
}

fn chain(
    found: &mut Found,
    vek: &[u8],
    ca: &[&[u8]],
    policy: &Policy,
    at: UnixTime,
) -> Result<(Chain, bool, Window), Failure> {
    let vek = load(vek)?.into_iter().next().ok_or((
        "snp.certificate-format",
        CheckOutcome::Malformed,
        "no certificate".to_string(),
    ))?;
    let mut authorities = Vec::new();
    // A root that the policy names need not be in the evidence.
    for bytes in ca.iter().copied().chain(policy.roots.iter().map(Vec::as_slice)).take(MAX_CA) {
        authorities.extend(load(bytes)?);
    }
    let issued = |issuer: &Loaded, subject: &Loaded| {
        let signature = subject.1.signature().as_bytes().unwrap_or_default();
        issuer.1.tbs_certificate().subject() == subject.1.tbs_certificate().issuer()
            && subject.1.signature_algorithm() == subject.1.tbs_certificate().signature()
            && x509::rsa_pss_signed(&subject.0, signature, &issuer.1)
    };
    let Some(ask) = authorities.iter().find(|ask| issued(ask, &vek)) else {
        return invalid("snp.chain", "none of the CA certificates signed the report key's certificate");
    };
    let Some(ark) = authorities.iter().find(|ark| issued(ark, ask) && issued(ark, ark)) else {
        return invalid("snp.chain", "no self-signed root among the CA certificates signed the AMD signing key's");
    };
    found.passed("snp.chain", "root, AMD signing key and report key sign one another in order");
    let Some(development) = roots::trusted_ark(&ark.1, policy) else {
        return invalid("snp.root", "the root is neither AMD's nor one that the policy names");
    };
    found.passed("snp.root", x509::common_name(ark.1.tbs_certificate().subject()));
    let mut window = Window { from: UnixTime(0), to: UnixTime(u64::MAX) };
    for (what, certificate) in [("root", &ark.1), ("AMD signing key", &ask.1), ("report key", &vek.1)] {
        if let Some(id) = x509::unknown_critical(certificate) {
            let detail = format!("the {what}'s certificate has the critical extension {id}, which is not understood");
            return invalid("snp.chain", detail);
        }
        let (from, to) = x509::validity(certificate);
        if at < from || at > to {
            return invalid(
                "snp.validity",
                format!("the {what}'s certificate is valid from {from} to {to}, not at {at}"),
            );
        }
        window = window.and(Window { from, to });
    }
    found.passed("snp.validity", "every certificate is current");
    if !x509::is_ca(&ark.1) || !x509::is_ca(&ask.1) || x509::has_ca_bit(&vek.1) {
        return invalid(
            "snp.key-usage",
            "root and AMD signing key must be CAs that sign certificates, the report key none",
        );
    }
    found.passed("snp.key-usage", "CAs are CAs, the report key is none");
    Ok((Chain { ark: ark.1.clone(), ask: ask.1.clone(), vek: vek.1 }, development, window))
}

fn revocation(found: &mut Found, chain: &Chain, crl: &[u8], at: UnixTime) -> Result<Window, Failure> {
    let der = x509::revocation_list(crl).unwrap_or_default();
    let Ok(list) = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der) else {
        let detail = "the revocation list is no X.509 CRL in DER or PEM";
        return Err(("snp.revocation", CheckOutcome::Malformed, detail.into()));
    };
    let tbs = &list.tbs_cert_list;
    if tbs.issuer != *chain.ark.tbs_certificate().subject()
        || list.signature_algorithm != tbs.signature
        || !x509::rsa_pss_signed(&der, list.signature.as_bytes().unwrap_or_default(), &chain.ark)
    {
        return invalid("snp.revocation", "the root did not sign this revocation list");
    }
    // A delta or a partial list marks itself with a critical extension.
    if let Some(extension) = tbs.crl_extensions.iter().flatten().find(|extension| extension.critical) {
        let id = extension.extn_id;
        return invalid(
            "snp.revocation",
            format!("the revocation list has the critical extension {id}, which is not understood"),
        );
    }
    let next = tbs.next_update.map(x509::unix);
    if at < x509::unix(tbs.this_update) || next.is_none_or(|next| at > next) {
        return invalid("snp.revocation", "the revocation list is not current; fetch the latest from AMD");
    }
    let ask = chain.ask.tbs_certificate().serial_number();
    if tbs.revoked_certificates.iter().flatten().any(|revoked| revoked.serial_number == *ask) {
        return invalid("snp.revocation", "AMD revoked the signing key that vouches for this chip");
    }
    found.passed("snp.revocation", "the AMD signing key is not on the root's revocation list");
    Ok(Window { from: x509::unix(tbs.this_update), to: next.unwrap_or(at) })
}

fn key(record: &mut Record, report: &Report, platform: &Platform, signature: Signature) -> Result<(), Failure> {
    if report.signature_algorithm() != 1 {
        return invalid(
            "snp.signature",
            format!("signature algorithm {} is not ECDSA P-384 with SHA-384 (1)", report.signature_algorithm()),
        );
    }
    let holds = platform.key.verify_sig(report.signed(), &report.signature()).is_ok();
    if signature == Signature::Checked && !holds {
        return invalid("snp.signature", "the certified key did not sign this report");
    }
    record.passed("snp.signature", "the certified key signed the report");
    let (kind, name) = (report.signing_key(), &platform.name);
    if kind != u32::from(platform.vlek) {
        return invalid(
            "snp.signing-key",
            format!("the report says key kind {kind} (0 VCEK, 1 VLEK), the certificate says {name:?}"),
        );
    }
    record.passed("snp.signing-key", name.clone());
    let cpu = report.cpuid().map(|(family, model)| Product::from_cpuid(family, model));
    if cpu.is_some_and(|cpu| cpu != Some(platform.product)) {
        return invalid("snp.product", format!("certificate for {}, processor {cpu:?}", platform.product.name()));
    }
    record.passed("snp.product", platform.product.name());
    chip(record, report, platform)
}

fn product(chain: &Chain) -> Option<Product> {
    let value = x509::extension(&chain.vek, x509::below(ARC, &[2])?)?;
    // An IA5String: tag, length, text.
    let (0x16, text) = (*value.first()?, value.get(2..)?) else { return None };
    Product::from_name(std::str::from_utf8(text).ok()?)
}

fn certified_tcb(vek: &Certificate, product: Product) -> Option<Tcb> {
    let part = |n: u32| u8::from_der(x509::extension(vek, x509::below(ARC, &[3, n])?)?).ok();
    let fmc = if product == Product::Turin { Some(part(9)?) } else { None };
    Some(Tcb { fmc, bootloader: part(1)?, tee: part(2)?, snp: part(3)?, microcode: part(8)? })
}

/// The chip in the report is the one the certificate is for.
fn chip(record: &mut Record, report: &Report, platform: &Platform) -> Result<(), Failure> {
    if platform.vlek {
        record.unchecked("snp.chip-id", "a VLEK belongs to a cloud provider, not to a chip");
        return Ok(());
    }
    if report.chip_id_masked() {
        record.unchecked("snp.chip-id", "the report's chip id is masked; the signature still names the chip's own key");
        return Ok(());
    }
    // Bare bytes, or an OCTET STRING around them. Turin's are 8 bytes long, and the rest of the report's field is zero.
    let hwid = match &platform.hwid[..] {
        [4, 64, id @ ..] if id.len() == 64 => id,
        [4, 8, id @ ..] if id.len() == 8 => id,
        id => id,
    };
    let chip = report.chip_id();
    let holds =
        matches!(hwid.len(), 8 | 64) && chip.starts_with(hwid) && chip[hwid.len()..].iter().all(|byte| *byte == 0);
    if !holds {
        return invalid("snp.chip-id", "the report is of another chip than its key's certificate");
    }
    record.passed("snp.chip-id", "report and certificate name the same chip");
    Ok(())
}
