//! What dcap-qvl leaves open about certificates and collateral. A mismatch means that they do not belong to this quote, or
//! are not what they are used as.

use cocoon_attestation::UnixTime;
use const_oid::ObjectIdentifier;
use dcap_qvl::intel::{PckExtension, extract_cert_chain, parse_pck_extension_with};
use dcap_qvl::{QuoteClaims, QuoteCollateralV3, TcbInfo};
use x509_cert::Certificate;

use super::authenticate::AwsLc;
use super::parse::Quote;
use crate::outcome::Record;
use crate::x509;

pub(super) fn check(record: &mut Record, quote: &Quote, claims: &QuoteClaims, collateral: &QuoteCollateralV3) {
    record.not_after = Some(UnixTime(claims.earliest_expiration_date));
    tcb_info(record, claims, collateral);
    pck(record, quote, claims, collateral);
    header(record, claims);
}

fn tcb_info(record: &mut Record, claims: &QuoteClaims, collateral: &QuoteCollateralV3) {
    let info: Option<TcbInfo> = serde_json::from_str(&collateral.tcb_info).ok();
    let certified = &claims.platform.pck.pce_id;
    let stated = info.as_ref().and_then(|info| hex::decode(&info.pce_id).ok());
    let detail = format!(
        "PCEID {} in the PCK certificate, {} in TCB info",
        hex::encode(certified),
        hex::encode(stated.as_deref().unwrap_or_default())
    );
    record.genuine("tdx.pce-id", stated.as_ref() == Some(certified), detail);
    let kind = info.map(|info| info.tcb_type);
    let detail = format!("tcbType {kind:?}; 0 is the one whose comparison is known");
    record.genuine("tdx.tcb-type", kind == Some(0), detail);

    let chains = [&collateral.tcb_info_issuer_chain, &collateral.qe_identity_issuer_chain];
    let signers = chains.map(|chain| {
        let leaf = x509::certificates(chain.as_bytes()).ok().and_then(|chain| x509::parse(chain.first()?));
        leaf.map(|leaf| x509::common_name(leaf.tbs_certificate().subject())).unwrap_or_default()
    });
    let holds = signers.iter().all(|name| name.ends_with("SGX TCB Signing"));
    let detail = format!("TCB info signed by {:?}, QE identity by {:?}", signers[0], signers[1]);
    record.genuine("tdx.signer-subject", holds, detail);
}

/// The PCK certificate: that it is one, and that its two statements of the platform's security versions agree. TCB levels
/// are matched on CPUSVN; Intel's library matches on the components.
fn pck(record: &mut Record, quote: &Quote, claims: &QuoteClaims, collateral: &QuoteCollateralV3) {
    let leaf = pck_leaf(quote, collateral).and_then(|der| {
        let extension = parse_pck_extension_with::<AwsLc>(&der).ok()?;
        // The very certificate that was authenticated.
        let pck = &claims.platform.pck;
        let same = extension.ppid == pck.ppid && extension.cpu_svn == pck.cpu_svn && extension.fmspc == pck.fmspc;
        same.then_some((x509::parse(&der)?, extension))
    });
    let Some((certificate, extension)) = leaf else {
        return record.genuine("tdx.pck-subject", false, "the PCK certificate cannot be read again");
    };
    let (subject, issuer) = names(&certificate);
    let issuers = ["SGX PCK Platform CA", "SGX PCK Processor CA"];
    let holds = subject.ends_with("SGX PCK Certificate") && issuers.iter().any(|name| issuer.ends_with(name));
    record.genuine("tdx.pck-subject", holds, format!("{subject:?}, issued by {issuer:?}"));

    let components: Vec<_> = (1..=16).map(|n| component(&extension, n)).collect();
    let holds = components.iter().zip(extension.cpu_svn).all(|(found, expected)| *found == Some(expected));
    let detail = if holds { "SGX components and CPUSVN agree" } else { "SGX components and CPUSVN differ" };
    record.genuine("tdx.pck-tcb", holds, detail);
}

/// DER of the PCK certificate: the collateral's, or else the quote's.
fn pck_leaf(quote: &Quote, collateral: &QuoteCollateralV3) -> Option<Vec<u8>> {
    let chain = match &collateral.pck_certificate_chain {
        Some(pem) => x509::certificates(pem.as_bytes()).ok()?,
        None => extract_cert_chain(&dcap_qvl::quote::Quote::parse(&quote.bytes).ok()?).ok()?,
    };
    chain.into_iter().next()
}

fn names(certificate: &Certificate) -> (String, String) {
    let tbs = certificate.tbs_certificate();
    (x509::common_name(tbs.subject()), x509::common_name(tbs.issuer()))
}

/// One SGX TCB component (Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5).
fn component(extension: &PckExtension, n: u32) -> Option<u8> {
    let oid: ObjectIdentifier = format!("1.2.840.113741.1.13.1.2.{n}").parse().ok()?;
    match extension.get_value(&oid).ok()??[..] {
        // Integers above 127 carry a leading zero.
        [svn] | [0, svn] => Some(svn),
        _ => None,
    }
}

/// The header's bytes 8 to 11 state versions in other quotes and are reserved in TDX ones, where quoting enclaves leave
/// zero. A header that does state them must not exceed what was certified.
fn header(record: &mut Record, claims: &QuoteClaims) {
    let stated = (claims.header.qe_svn, claims.header.pce_svn);
    let certified = (claims.qe.report.isv_svn, claims.platform.pck.pce_svn);
    let holds = stated.0 <= certified.0 && stated.1 <= certified.1;
    let detail = format!("header states (QE, PCE) {stated:?}, certified are {certified:?}");
    record.genuine("tdx.header-svn", holds, detail);
}
