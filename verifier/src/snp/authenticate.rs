//! Is a report genuine? Root pinned or named, ARK signs itself and ASK, ASK signs the report's key, that key signs the
//! report; all certificates current and of the right kind; nothing revoked; the key's certificate is this chip's.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use cocoon_attestation::UnixTime;
use der::Decode;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

use super::Endorsed;
use super::parse::{Report, Tcb};
use crate::outcome::{CheckOutcome, Record, Signature};
use crate::policy::Policy;
use crate::roots::{self, Product};
use crate::x509;

/// AMD's arc for endorsement key certificates (57230, "VCEK certificate extensions").
const ARC: &str = "1.3.6.1.4.1.3704.1";
/// Most CA certificates that are looked at.
const MAX_CA: usize = 8;

/// What the certificate says of the key that signed the report.
pub(super) struct SigningKey {
    pub(super) product: Product,
    pub(super) tcb: Tcb,
    pub(super) vlek: bool,
}

/// A certificate with the bytes it came as.
type Loaded = (Vec<u8>, Certificate);

/// Authenticates a report; `None` if it is not authentic, which the record then says why.
pub(super) fn authenticate(
    record: &mut Record,
    report: &Report,
    endorsed: &Endorsed<'_>,
    policy: &Policy,
    at: UnixTime,
    signature: Signature,
) -> Option<SigningKey> {
    let result = chain(record, endorsed.vek, endorsed.ca, policy, at).and_then(|chain| {
        revocation(record, &chain, endorsed.crl, policy, at)?;
        key(record, report, &chain, signature)
    });
    match result {
        Ok(key) => Some(key),
        Err((id, outcome, detail)) => {
            record.put(id, outcome, detail);
            None
        }
    }
}

type Failure = (&'static str, CheckOutcome, String);

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

fn chain(record: &mut Record, vek: &[u8], ca: &[Vec<u8>], policy: &Policy, at: UnixTime) -> Result<Chain, Failure> {
    let vek = load(vek)?.into_iter().next().ok_or((
        "snp.certificate-format",
        CheckOutcome::Malformed,
        "no certificate".to_string(),
    ))?;
    let mut authorities = Vec::new();
    // A root that the policy names need not be in the evidence.
    for bytes in ca.iter().chain(&policy.roots).take(MAX_CA) {
        authorities.extend(load(bytes)?);
    }
    let issued = |issuer: &Loaded, subject: &Loaded| {
        let signature = subject.1.signature().raw_bytes();
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
    record.passed("snp.chain", "root, AMD signing key and report key sign one another in order");
    match roots::trusted_ark(&ark.1, policy) {
        Some(development) => record.development = development,
        None => return invalid("snp.root", "the root is neither AMD's nor one that the policy names"),
    }
    record.passed("snp.root", x509::common_name(ark.1.tbs_certificate().subject()));
    let mut not_after = UnixTime(u64::MAX);
    for (what, certificate) in [("root", &ark.1), ("AMD signing key", &ask.1), ("report key", &vek.1)] {
        let (from, to) = x509::validity(certificate);
        if at < from || at > to {
            return invalid(
                "snp.validity",
                format!("the {what}'s certificate is valid from {from} to {to}, not at {at}"),
            );
        }
        not_after = not_after.min(to);
    }
    record.passed("snp.validity", "every certificate is current");
    record.not_after = Some(not_after);
    if !x509::is_ca(&ark.1) || !x509::is_ca(&ask.1) || x509::has_ca_bit(&vek.1) {
        return invalid(
            "snp.key-usage",
            "root and AMD signing key must be CAs that sign certificates, the report key none",
        );
    }
    record.passed("snp.key-usage", "CAs are CAs, the report key is none");
    Ok(Chain { ark: ark.1.clone(), ask: ask.1.clone(), vek: vek.1 })
}

fn revocation(
    record: &mut Record,
    chain: &Chain,
    crl: Option<&[u8]>,
    policy: &Policy,
    at: UnixTime,
) -> Result<(), Failure> {
    let Some(crl) = crl else {
        if policy.snp.require_crl {
            record.demand(
                "snp.revocation",
                false,
                "the policy demands AMD's revocation list, and none came with the evidence",
            );
        } else {
            record.unchecked("snp.revocation", "no revocation list came with the evidence");
        }
        return Ok(());
    };
    let der = x509::revocation_list(crl).unwrap_or_default();
    let Ok(list) = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der) else {
        let detail = "the revocation list is no X.509 CRL in DER or PEM";
        return Err(("snp.revocation", CheckOutcome::Malformed, detail.into()));
    };
    let tbs = &list.tbs_cert_list;
    if tbs.issuer != *chain.ark.tbs_certificate().subject()
        || list.signature_algorithm != tbs.signature
        || !x509::rsa_pss_signed(&der, list.signature.raw_bytes(), &chain.ark)
    {
        return invalid("snp.revocation", "the root did not sign this revocation list");
    }
    let next = tbs.next_update.map(x509::unix);
    if at < x509::unix(tbs.this_update) || next.is_none_or(|next| at > next) {
        return invalid("snp.revocation", "the revocation list is not current; fetch the latest from AMD");
    }
    let ask = chain.ask.tbs_certificate().serial_number();
    if tbs.revoked_certificates.iter().flatten().any(|revoked| revoked.serial_number == *ask) {
        return invalid("snp.revocation", "AMD revoked the signing key that vouches for this chip");
    }
    record.not_after = record.not_after.min(next);
    record.passed("snp.revocation", "the AMD signing key is not on the root's revocation list");
    Ok(())
}

fn key(record: &mut Record, report: &Report, chain: &Chain, signature: Signature) -> Result<SigningKey, Failure> {
    if report.signature_algorithm() != 1 {
        return invalid(
            "snp.signature",
            format!("signature algorithm {} is not ECDSA P-384 with SHA-384 (1)", report.signature_algorithm()),
        );
    }
    let point = x509::key(&chain.vek);
    let holds =
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(report.signed(), &report.signature()).is_ok();
    if signature == Signature::Checked && !holds {
        return invalid("snp.signature", "the certified key did not sign this report");
    }
    record.passed("snp.signature", "the certified key signed the report");

    let name = x509::common_name(chain.vek.tbs_certificate().subject());
    let vlek = match (report.signing_key(), name.as_str()) {
        (0, "SEV-VCEK") => false,
        (1, "SEV-VLEK") => true,
        (kind, _) => {
            return invalid(
                "snp.signing-key",
                format!("the report says key kind {kind} (0 VCEK, 1 VLEK), the certificate says {name:?}"),
            );
        }
    };
    record.passed("snp.signing-key", name);

    let Some(product) = product(chain) else {
        return invalid("snp.product", "the report key's certificate names no product that this verifier knows");
    };
    let line = |name: String| Product::from_name(name.rsplit('-').next().unwrap_or_default());
    let ark = line(x509::common_name(chain.ark.tbs_certificate().subject()));
    let cpu = report.cpuid().map(|(family, model)| Product::from_cpuid(family, model));
    if ark != Some(product) || cpu.is_some_and(|cpu| cpu != Some(product)) {
        return invalid(
            "snp.product",
            format!("certificate for {}, root for {ark:?}, processor {cpu:?}", product.name()),
        );
    }
    record.passed("snp.product", product.name());

    let Some(tcb) = certified_tcb(&chain.vek, product) else {
        return invalid("snp.certificate-tcb", "the report key's certificate states no TCB");
    };
    chip(record, report, &chain.vek, vlek)?;
    Ok(SigningKey { product, tcb, vlek })
}

fn product(chain: &Chain) -> Option<Product> {
    let value = x509::extension(&chain.vek, &format!("{ARC}.2"))?;
    // An IA5String: tag, length, text.
    let (0x16, text) = (*value.first()?, value.get(2..)?) else { return None };
    Product::from_name(std::str::from_utf8(text).ok()?)
}

fn certified_tcb(vek: &Certificate, product: Product) -> Option<Tcb> {
    let part = |n: u32| u8::from_der(x509::extension(vek, &format!("{ARC}.3.{n}"))?).ok();
    let fmc = if product == Product::Turin { Some(part(9)?) } else { None };
    Some(Tcb { fmc, bootloader: part(1)?, tee: part(2)?, snp: part(3)?, microcode: part(8)? })
}

/// The chip in the report is the one the certificate is for.
fn chip(record: &mut Record, report: &Report, vek: &Certificate, vlek: bool) -> Result<(), Failure> {
    if vlek {
        record.unchecked("snp.chip-id", "a VLEK belongs to a cloud provider, not to a chip");
        return Ok(());
    }
    if report.chip_id_masked() {
        record.unchecked("snp.chip-id", "the report's chip id is masked; the signature still names the chip's own key");
        return Ok(());
    }
    // Bare bytes, or an OCTET STRING around them. Turin's are 8 bytes long, and the rest of the report's field is zero.
    let hwid = x509::extension(vek, &format!("{ARC}.4")).unwrap_or_default();
    let hwid = match hwid {
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
