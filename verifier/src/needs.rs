//! Which endorsements evidence needs, read off the evidence itself, and whether what was fetched is that. Nothing here is
//! believed: these are questions to ask a vendor's service, and first looks at its answers.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use cocoon_attestation::UnixTime;
use der::Decode;
use x509_cert::crl::CertificateList;

use crate::gpu;
use crate::roots::Product;
use crate::snp::Report;
use crate::tdx::{Collateral, Quote};
use crate::x509::{self, Cert};

/// Who issued a PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PckCa {
    /// Multi-package platforms, registered with Intel.
    Platform,
    /// Single-package platforms.
    Processor,
}

impl fmt::Display for PckCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Platform => "platform",
            Self::Processor => "processor",
        })
    }
}

/// Security versions of an SNP platform, by component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnpVersions {
    /// Turin's only.
    pub fmc: Option<u8>,
    /// Boot loader.
    pub bootloader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

/// One thing that a vendor's service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Intel's collateral for a kind of platform, as `QuoteCollateralV3` JSON.
    TdxCollateral {
        /// The kind.
        fmspc: [u8; 6],
        /// Who issued its PCK certificates.
        ca: PckCa,
    },
    /// The certificate of a chip's key for its versions, DER.
    SnpKey {
        /// The product line.
        product: Product,
        /// 64 bytes; Turin's have 8.
        chip_id: Vec<u8>,
        /// What the key was derived for.
        tcb: SnpVersions,
    },
    /// AMD's signing key and root key, PEM.
    SnpChain {
        /// The product line.
        product: Product,
        /// Those of cloud providers' keys.
        vlek: bool,
    },
    /// The root's revocation list, DER.
    SnpCrl {
        /// The product line.
        product: Product,
        /// The one of cloud providers' keys.
        vlek: bool,
    },
    /// One of NVIDIA's reference manifests, XML.
    Rim {
        /// Its name with NVIDIA's service: letters, digits, dots, dashes and underscores.
        id: String,
    },
    /// What NVIDIA's service says of one of its certificates: OCSPResponse, DER.
    Ocsp {
        /// The certificate, DER.
        certificate: Vec<u8>,
        /// Its issuer's, DER.
        issuer: Vec<u8>,
    },
}

impl Need {
    /// A path that names it and no other, of letters, digits, dots, dashes, underscores and slashes.
    pub fn path(&self) -> String {
        let key = |vlek: &bool| if *vlek { "vlek" } else { "vcek" };
        match self {
            Self::TdxCollateral { fmspc, ca } => format!("tdx/{}-{ca}.json", hex::encode(fmspc)),
            Self::SnpKey { product, chip_id, tcb } => {
                let SnpVersions { fmc, bootloader, tee, snp, microcode } = tcb;
                let fmc = fmc.map(|fmc| format!("{fmc}.")).unwrap_or_default();
                let (product, chip) = (product.name(), hex::encode(chip_id));
                format!("snp/{product}/{chip}-{fmc}{bootloader}.{tee}.{snp}.{microcode}.der")
            }
            Self::SnpChain { product, vlek } => format!("snp/{}/{}-chain.pem", product.name(), key(vlek)),
            Self::SnpCrl { product, vlek } => format!("snp/{}/{}.crl", product.name(), key(vlek)),
            Self::Rim { id } => format!("nvidia/rim/{id}.xml"),
            Self::Ocsp { certificate, issuer } => {
                let both = [&(certificate.len() as u64).to_be_bytes()[..], certificate, issuer].concat();
                format!("nvidia/ocsp/{}.der", hex::encode(digest(&SHA256, &both)))
            }
        }
    }

    /// What a path asks for, where the path alone says it and the answer lapses some day: collateral, and revocation lists. What never lapses need
    /// not be asked for again, and an OCSP question stands in certificates.
    pub fn of_path(path: &str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/')?;
        let need = match (folder.strip_prefix("snp/"), name) {
            (Some(product), "vcek.crl" | "vlek.crl") => {
                let vlek = name == "vlek.crl";
                Self::SnpCrl { product: Product::from_name(product)?, vlek }
            }
            _ => {
                let (fmspc, ca) = name.strip_suffix(".json")?.split_once('-')?;
                let ca = [PckCa::Platform, PckCa::Processor].into_iter().find(|known| known.to_string() == ca)?;
                Self::TdxCollateral { fmspc: hex::decode(fmspc).ok()?.try_into().ok()?, ca }
            }
        };
        (need.path() == path).then_some(need)
    }

    /// The body of an OCSP request (RFC 6960), DER; `None` for what is not asked that way.
    pub fn ocsp_request(&self) -> Option<Vec<u8>> {
        let Self::Ocsp { certificate, issuer } = self else { return None };
        gpu::ocsp::request(&Cert::from_der(certificate.clone())?, &Cert::from_der(issuer.clone())?)
    }

    /// Looks at what was fetched: whether it is what this asks for, and when it lapses by its own word (`None`: never).
    ///
    /// # Errors
    /// It is something else, in words.
    pub fn look(&self, bytes: &[u8]) -> Result<Option<UnixTime>, String> {
        match self {
            Self::TdxCollateral { fmspc, .. } => Collateral::from_json(bytes)?.due(fmspc).map(Some),
            Self::SnpKey { .. } => {
                let certificate = x509::one_certificate(bytes)?;
                let certificate = Cert::from_der(certificate).ok_or("it is no certificate")?;
                match certificate.name().as_str() {
                    "SEV-VCEK" => Ok(None),
                    other => Err(format!("the certificate is of {other:?}, not of a VCEK")),
                }
            }
            Self::SnpChain { .. } => match x509::certificates(bytes)?.len() {
                2 => Ok(None),
                other => Err(format!("2 certificates are expected, {other} are there")),
            },
            Self::SnpCrl { .. } => due_of_crl(bytes).map(Some),
            Self::Rim { id } => gpu::rim_fits(bytes, id).map(|()| None),
            Self::Ocsp { certificate, issuer } => {
                let pair = Cert::from_der(certificate.clone()).zip(Cert::from_der(issuer.clone()));
                let (certificate, issuer) = pair.ok_or("the question names no certificates")?;
                gpu::ocsp::Response::parse(bytes)?.due(&certificate, &issuer).map(Some)
            }
        }
    }
}

/// When a revocation list, DER or PEM, is due again.
pub(crate) fn due_of_crl(bytes: &[u8]) -> Result<UnixTime, String> {
    let der = x509::revocation_list(bytes).ok_or("it is no revocation list")?;
    let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der)
        .map_err(|error| format!("it is no revocation list: {error}"))?;
    list.tbs_cert_list.next_update.map(x509::unix).ok_or_else(|| "it does not say when the next one is due".into())
}

/// What a TDX quote needs.
///
/// # Errors
/// The bytes are no quote, or carry no PCK certificate.
pub fn of_tdx(quote: &[u8]) -> Result<Vec<Need>, String> {
    let (fmspc, issuer) = Quote::parse(quote)?.platform()?;
    let ca = match issuer.as_str() {
        "Intel SGX PCK Platform CA" => PckCa::Platform,
        "Intel SGX PCK Processor CA" => PckCa::Processor,
        // The development platform's names say the same, and its services are nobody's.
        name if name.ends_with("Platform CA") => PckCa::Platform,
        name if name.ends_with("Processor CA") => PckCa::Processor,
        name => return Err(format!("the PCK certificate is issued by {name:?}, which is none of Intel's authorities")),
    };
    Ok(vec![Need::TdxCollateral { fmspc, ca }])
}

/// What an SNP report needs. Version 2 does not say which product line it is of.
///
/// # Errors
/// The bytes are no report; its chip id is masked; or nothing says which product line it is of.
pub fn of_snp(report: &[u8], product: Option<Product>) -> Result<Vec<Need>, String> {
    let report = Report::parse(report)?;
    let stated = report.cpuid().map(|(family, model)| {
        Product::from_cpuid(family, model)
            .ok_or_else(|| format!("processor family {family:#x}, model {model:#x} is of no product line known here"))
    });
    let product = stated.transpose()?.or(product);
    let product =
        product.ok_or("a report of version 2 does not say which product line it is of: name it (Milan or Genoa)")?;
    let vlek = report.signing_key() == 1;
    let mut needs = vec![Need::SnpChain { product, vlek }, Need::SnpCrl { product, vlek }];
    if vlek {
        // AMD gives a VLEK's certificate to its cloud provider only; the platform passes it on.
        return Ok(needs);
    }
    if report.chip_id_masked() {
        return Err("the report's chip id is masked: only the host can say which chip's certificate to fetch".into());
    }
    let id = report.chip_id();
    let tcb = report.reported_tcb(product);
    let chip_id = if product == Product::Turin { id[..8].to_vec() } else { id.to_vec() };
    let (fmc, bootloader, tee, snp, microcode) = (tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode);
    needs.push(Need::SnpKey { product, chip_id, tcb: SnpVersions { fmc, bootloader, tee, snp, microcode } });
    Ok(needs)
}

/// What a GPU's report and its certificate chain (PEM) need; manifests have needs of their own ([`of_rim`]).
///
/// # Errors
/// The bytes are no report or no chain, or name a driver or a board that no manifest can be called by.
pub fn of_gpu(report: &[u8], chain: &[u8]) -> Result<Vec<Need>, String> {
    gpu::needs(report, chain)
}

/// What a reference manifest needs.
///
/// # Errors
/// The bytes are no manifest.
pub fn of_rim(manifest: &[u8]) -> Result<Vec<Need>, String> {
    gpu::rim_needs(manifest)
}

/// A question for each certificate that NVIDIA's service knows: all but the root, and the first `unasked`.
pub(crate) fn of_chain(chain: &[Cert], unasked: usize) -> Vec<Need> {
    let pairs = chain.windows(2).skip(unasked);
    let needs = pairs.map(|pair| Need::Ocsp { certificate: pair[0].der.clone(), issuer: pair[1].der.clone() });
    needs.collect()
}

/// Certificates of a PEM file, each in DER.
///
/// # Errors
/// There is something else.
pub fn split(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    x509::certificates(pem)
}

/// The same look as [`Need::look`] at a file whose path ([`Need::path`]) is all that is known of the question.
///
/// # Errors
/// It is not what its path says.
pub fn look_by_path(path: &str, bytes: &[u8]) -> Result<Option<UnixTime>, String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    match (folder, name.rsplit('.').next()) {
        ("tdx", Some("json")) => {
            let fmspc = stem.split('-').next().and_then(|text| hex::decode(text).ok());
            let fmspc = fmspc.and_then(|bytes| bytes.try_into().ok()).ok_or("its name has no FMSPC")?;
            Collateral::from_json(bytes)?.due(&fmspc).map(Some)
        }
        ("nvidia/rim", Some("xml")) => gpu::rim_fits(bytes, stem).map(|()| None),
        ("nvidia/ocsp", Some("der")) => gpu::ocsp::Response::parse(bytes)?.first_due().map(Some),
        (_, Some("crl")) => due_of_crl(bytes).map(Some),
        (_, Some("der" | "pem")) => x509::certificates(bytes).map(|_| None),
        _ => Err("it is none of the files that belong in this folder".into()),
    }
}
