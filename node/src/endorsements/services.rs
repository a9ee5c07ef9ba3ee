//! The services of Intel, AMD and NVIDIA: what to ask where, and how the answers are put together.

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_verifier::Need;
use cocoon_verifier::needs::SnpVersions;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::Error;
use super::http::{Http, Limits};

/// Where the services are.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Intel's Provisioning Certification Service, or any PCCS: up to and without `/tdx/certification/v4`.
    pub intel: String,
    /// The revocation list of Intel's root; a PCCS has it at `/sgx/certification/v4/rootcacrl`.
    pub intel_root_crl: String,
    /// AMD's Key Distribution Service.
    pub amd: String,
    /// NVIDIA's reference manifests, by their names.
    pub nvidia_rim: String,
    /// NVIDIA's OCSP service.
    pub nvidia_ocsp: String,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            intel: "https://api.trustedservices.intel.com".into(),
            intel_root_crl: "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der".into(),
            amd: "https://kdsintf.amd.com".into(),
            nvidia_rim: "https://rim.attestation.nvidia.com/v1/rim".into(),
            nvidia_ocsp: "https://ocsp.ndis.nvidia.com".into(),
        }
    }
}

impl Addresses {
    /// Takes Intel's part from a PCCS.
    pub fn with_pccs(mut self, pccs: &str) -> Self {
        let pccs = pccs.trim_end_matches('/');
        self.intel = pccs.to_owned();
        self.intel_root_crl = format!("{pccs}/sgx/certification/v4/rootcacrl");
        self
    }
}

/// The vendors' services.
pub(super) struct Services {
    http: Http,
    addresses: Addresses,
}

/// A document that Intel signed, exactly as it stands in the answer: the signature is over those bytes.
struct Signed {
    document: String,
    signature: String,
    chain: String,
}

impl Services {
    pub(super) fn new(addresses: Addresses, limits: Limits) -> Result<Self, Error> {
        Ok(Self { http: Http::new(limits)?, addresses })
    }

    pub(super) async fn fetch(&self, need: &Need) -> Result<Vec<u8>, Error> {
        let amd = self.addresses.amd.trim_end_matches('/');
        let key = |vlek: &bool| if *vlek { "vlek" } else { "vcek" };
        match need {
            Need::TdxCollateral { fmspc, ca } => self.collateral(&hex::encode(fmspc), &ca.to_string()).await,
            Need::SnpKey { product, chip_id, tcb } => {
                let SnpVersions { fmc, bootloader, tee, snp, microcode } = tcb;
                let fmc = fmc.map(|fmc| format!("&fmcSPL={fmc:02}")).unwrap_or_default();
                let query =
                    format!("blSPL={bootloader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}{fmc}");
                let url = format!("{amd}/vcek/v1/{}/{}?{query}", product.name(), hex::encode(chip_id));
                self.plain(&url).await
            }
            Need::SnpChain { product, vlek } => {
                self.plain(&format!("{amd}/{}/v1/{}/cert_chain", key(vlek), product.name())).await
            }
            Need::SnpCrl { product, vlek } => {
                self.plain(&format!("{amd}/{}/v1/{}/crl", key(vlek), product.name())).await
            }
            Need::Rim { id } => self.rim(id).await,
            Need::Ocsp { .. } => {
                let url = self.addresses.nvidia_ocsp.trim_end_matches('/');
                let request = need.ocsp_request().ok_or_else(|| unexpected(url, "no question can be made of it"))?;
                let answer = self.http.post(&format!("{url}/"), "application/ocsp-request", request).await?;
                Ok(answer.body.to_vec())
            }
        }
    }

    async fn plain(&self, url: &str) -> Result<Vec<u8>, Error> {
        Ok(self.http.get(url).await?.body.to_vec())
    }

    async fn collateral(&self, fmspc: &str, ca: &str) -> Result<Vec<u8>, Error> {
        let base = self.addresses.intel.trim_end_matches('/');
        let url = format!("{base}/tdx/certification/v4/tcb?fmspc={fmspc}");
        let info = self.signed(&url, "tcbInfo", &["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"]).await?;
        let url = format!("{base}/tdx/certification/v4/qe/identity");
        let identity = self.signed(&url, "enclaveIdentity", &["SGX-Enclave-Identity-Issuer-Chain"]).await?;
        let url = format!("{base}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der");
        let answer = self.http.get(&url).await?;
        let pck_crl_chain = issuer_chain(&url, &answer.headers, &["SGX-PCK-CRL-Issuer-Chain"])?;
        let pck_crl = list(&url, &answer.body)?;
        let url = &self.addresses.intel_root_crl;
        let root_crl = list(url, &self.http.get(url).await?.body)?;
        let collateral = json!({
            "pck_crl_issuer_chain": pck_crl_chain,
            "root_ca_crl": hex::encode(root_crl),
            "pck_crl": hex::encode(pck_crl),
            "tcb_info_issuer_chain": info.chain,
            "tcb_info": info.document,
            "tcb_info_signature": info.signature,
            "qe_identity_issuer_chain": identity.chain,
            "qe_identity": identity.document,
            "qe_identity_signature": identity.signature,
        });
        Ok(collateral.to_string().into_bytes())
    }

    async fn signed(&self, url: &str, name: &str, chain: &[&str]) -> Result<Signed, Error> {
        let answer = self.http.get(url).await?;
        let fields: std::collections::HashMap<String, Box<RawValue>> =
            serde_json::from_slice(&answer.body).map_err(|error| unexpected(url, &error.to_string()))?;
        let field = |name: &str| fields.get(name).ok_or_else(|| unexpected(url, &format!("it lacks {name}")));
        let signature: String =
            serde_json::from_str(field("signature")?.get()).map_err(|_| unexpected(url, "its signature is no text"))?;
        let chain = issuer_chain(url, &answer.headers, chain)?;
        Ok(Signed { document: field(name)?.get().to_owned(), signature, chain })
    }

    async fn rim(&self, id: &str) -> Result<Vec<u8>, Error> {
        #[derive(Deserialize)]
        struct Manifest {
            rim: String,
        }
        let url = format!("{}/{id}", self.addresses.nvidia_rim.trim_end_matches('/'));
        let answer = self.http.get(&url).await?;
        let manifest: Manifest =
            serde_json::from_slice(&answer.body).map_err(|error| unexpected(&url, &error.to_string()))?;
        STANDARD.decode(manifest.rim).map_err(|_| unexpected(&url, "its manifest is not base64"))
    }
}

fn unexpected(url: &str, detail: &str) -> Error {
    Error::Answer { url: url.to_owned(), detail: detail.to_owned() }
}

/// A certificate chain from a header, where Intel puts it percent-encoded.
fn issuer_chain(url: &str, headers: &HeaderMap, names: &[&str]) -> Result<String, Error> {
    let header = names.iter().find_map(|name| headers.get(*name));
    let header = header.ok_or_else(|| unexpected(url, &format!("it lacks the header {}", names[0])))?;
    percent_decoded(header.as_bytes()).ok_or_else(|| unexpected(url, &format!("its header {} is no text", names[0])))
}

fn percent_decoded(text: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            out.extend(hex::decode(digits).ok()?);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

/// A revocation list: DER from Intel, DER in hex from a PCCS.
fn list(url: &str, body: &Bytes) -> Result<Vec<u8>, Error> {
    const SEQUENCE: u8 = 0x30;
    if let Ok(text) = std::str::from_utf8(body)
        && let Ok(der) = hex::decode(text.trim())
        && der.first() == Some(&SEQUENCE)
    {
        return Ok(der);
    }
    match body.first() {
        Some(&SEQUENCE) => Ok(body.to_vec()),
        _ => Err(unexpected(url, "it is no revocation list in DER or hex")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_percent_decoded() {
        assert_eq!(percent_decoded(b"-----BEGIN%20X-----%0Aab%2B+").as_deref(), Some("-----BEGIN X-----\nab++"));
        for bad in [&b"%"[..], b"%2", b"%zz", b"%ff"] {
            assert_eq!(percent_decoded(bad), None);
        }
    }

    #[test]
    fn lists_come_as_bytes_or_in_hex() {
        let der = [0x30, 0x82, 0xff, 0x00];
        assert_eq!(list("", &Bytes::copy_from_slice(&der)).expect("a list"), der);
        assert_eq!(list("", &Bytes::from("3082FF00\n")).expect("a list"), der);
        assert!(list("", &Bytes::from("<html>")).is_err() && list("", &Bytes::new()).is_err());
    }

    #[test]
    fn a_pccs_has_the_roots_list_too() {
        let addresses = Addresses::default().with_pccs("https://pccs.example:8081/");
        assert_eq!(addresses.intel, "https://pccs.example:8081");
        assert_eq!(addresses.intel_root_crl, "https://pccs.example:8081/sgx/certification/v4/rootcacrl");
    }
}
