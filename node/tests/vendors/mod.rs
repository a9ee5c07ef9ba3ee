#![allow(dead_code)]
//! A server that plays the vendors' services for the development platform, faults included.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{
    CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SnpEndorsementSpec, SnpSpec,
};
use cocoon_node::endorsements::{Addresses, Endorser, Limits};
use cocoon_verifier::{Need, Policy, needs};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const AT: UnixTime = UnixTime(1_790_000_000);

pub fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

pub fn policy() -> Policy {
    Policy::from_toml(&policy_document()).unwrap()
}

/// The same as a document.
pub fn policy_document() -> String {
    let platform = platform();
    let roots = [platform.tdx_root_der(), platform.snp_ark_der(), platform.gpu_root_der()].map(hex::encode);
    format!("roots = {roots:?}\n[snp]\nrequire_crl = true\n[gpu]\nrequire_rims = true\nrequire_ocsp = true\n")
}

/// What a service does instead of answering.
#[derive(Clone, Copy)]
pub enum Fault {
    Status(u16),
    /// Busy, and come back in so many seconds.
    Busy(u64),
    /// Never answers.
    Silent,
    /// Announces more than it sends.
    Cut,
    /// Something else altogether.
    Garbage,
    /// More than anybody wants.
    Endless,
    /// A good answer without its headers.
    Bare,
}

/// All vendors' services in one.
pub struct Vendors {
    pub collateral: Mutex<Value>,
    /// AMD's revocation list, where it is another than the good one.
    pub crl: Mutex<Option<Vec<u8>>>,
    /// Whether revocation lists come in hex, as a PCCS gives them.
    pub pccs: bool,
    pub faults: Mutex<HashMap<String, VecDeque<Fault>>>,
    pub asked: Mutex<Vec<String>>,
}

impl Vendors {
    fn text(&self, name: &str) -> String {
        self.collateral.lock().expect("no panic")[name].as_str().expect("text").to_owned()
    }

    fn list(&self, name: &str) -> Vec<u8> {
        let text = self.text(name);
        if self.pccs { text.into_bytes() } else { hex::decode(text).expect("hex") }
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Option<Response> {
        let (platform, snp) = (platform(), platform().snp_endorsements(&SnpEndorsementSpec::default()));
        let encode = |pem: String| pem.replace('\n', "%0A").replace(' ', "%20");
        let signed = |name: &str, header: &'static str, document: &str| {
            let text = format!(
                "{{\"{name}\":{},\"signature\":\"{}\"}}",
                self.text(document),
                self.text(&format!("{document}_signature"))
            );
            ([(header, encode(self.text(&format!("{document}_issuer_chain"))))], text).into_response()
        };
        let manifest = |spec: &RimSpec| {
            let rim = STANDARD.encode(platform.gpu_manifest(spec));
            json!({"id": "x", "rim": rim, "rim_format": "XML"}).to_string().into_response()
        };
        let chip = hex::encode(cocoon_attestation::dev::CHIP_ID);
        Some(match (method.as_str(), path) {
            ("GET", "/tdx/certification/v4/tcb") if query == "fmspc=c0c000000000" => {
                signed("tcbInfo", "TCB-Info-Issuer-Chain", "tcb_info")
            }
            ("GET", "/tdx/certification/v4/qe/identity") => {
                signed("enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain", "qe_identity")
            }
            ("GET", "/sgx/certification/v4/pckcrl") if query == "ca=platform&encoding=der" => {
                let chain = encode(self.text("pck_crl_issuer_chain"));
                ([("SGX-PCK-CRL-Issuer-Chain", chain)], self.list("pck_crl")).into_response()
            }
            ("GET", "/sgx/certification/v4/rootcacrl") => self.list("root_ca_crl").into_response(),
            ("GET", "/vcek/v1/Milan/cert_chain") => {
                let pem = snp.ca.iter().map(|der| {
                    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
                });
                pem.collect::<String>().into_response()
            }
            ("GET", "/vcek/v1/Milan/crl") => {
                self.crl.lock().expect("no panic").clone().or_else(|| snp.crl.clone())?.into_response()
            }
            ("GET", path) if path == format!("/vcek/v1/Milan/{chip}") && query == vcek_query() => {
                snp.vek.clone().into_response()
            }
            ("GET", "/rim/NV_GPU_DRIVER_GH100_580.159.03") => manifest(&RimSpec::driver()),
            ("GET", "/rim/NV_GPU_VBIOS_1010_0205_862_9600740020") => manifest(&RimSpec::vbios()),
            ("POST", "/ocsp/") => {
                let report = platform.gpu_report(&GpuSpec::default());
                let chain = platform.gpu_chain(&GpuChainSpec::default());
                let mut asked = needs::of_gpu(&report, &chain).expect("needs");
                asked.extend(needs::of_rim(&platform.gpu_manifest(&RimSpec::driver())).expect("needs"));
                let asked: Vec<_> = asked.iter().filter_map(Need::ocsp_request).collect();
                assert_eq!(asked.len(), OcspSubject::ASKED.len());
                let n = asked.iter().position(|request| request == body)?;
                platform.gpu_ocsp(&OcspSpec::new(OcspSubject::ASKED[n])).into_response()
            }
            _ => return None,
        })
    }
}

/// As AMD's service wants it: two digits each.
fn vcek_query() -> String {
    let Some(Need::SnpKey { tcb, .. }) = snp_needs().pop() else { panic!("a key") };
    format!("blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}", tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode)
}

pub fn snp_needs() -> Vec<Need> {
    needs::of_snp(&platform().snp_report(&SnpSpec::default()), None).expect("needs")
}

async fn serve(State(vendors): State<Arc<Vendors>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    vendors.asked.lock().expect("no panic").push(path.clone());
    let good = vendors.answer(&head.method, &path, &query, &body);
    let fault = vendors.faults.lock().expect("no panic").get_mut(&path).and_then(VecDeque::pop_front);
    match fault {
        None => good.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response()),
        Some(Fault::Status(status)) => StatusCode::from_u16(status).expect("a status").into_response(),
        Some(Fault::Busy(seconds)) => {
            (StatusCode::TOO_MANY_REQUESTS, [("Retry-After", seconds.to_string())]).into_response()
        }
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Cut) => {
            let broken = futures::stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("cut"))]);
            Body::from_stream(broken).into_response()
        }
        Some(Fault::Garbage) => "<html>please sign in</html>".into_response(),
        Some(Fault::Endless) => vec![b'0'; 70_000].into_response(),
        Some(Fault::Bare) => Response::new(good.expect("an answer").into_body()),
    }
}

pub struct World {
    pub vendors: Arc<Vendors>,
    pub addresses: Addresses,
    pub folder: TempDir,
}

fn json_of(spec: &CollateralSpec) -> Value {
    serde_json::from_slice(&platform().tdx_collateral(spec)).expect("JSON")
}

impl World {
    pub async fn new() -> Self {
        Self::with(CollateralSpec::default(), false).await
    }

    pub async fn with(spec: CollateralSpec, pccs: bool) -> Self {
        let collateral = Mutex::new(json_of(&spec));
        let (faults, asked, crl) = Default::default();
        let vendors = Arc::new(Vendors { collateral, crl, pccs, faults, asked });
        let router = Router::new().fallback(serve).with_state(vendors.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut addresses = Addresses::default().with_pccs(&base);
        addresses.amd = base.clone();
        addresses.nvidia_rim = format!("{base}/rim");
        addresses.nvidia_ocsp = format!("{base}/ocsp");
        Self { vendors, addresses, folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn online(&self) -> Endorser {
        let limits = Limits {
            timeout: Duration::from_millis(400),
            backoff: Duration::from_millis(1),
            longest_wait: Duration::from_millis(50),
            longest_answer: 65_000,
            spacing: Duration::ZERO,
            ..Limits::default()
        };
        Endorser::online(self.folder.path(), self.addresses.clone(), limits).expect("an endorser")
    }

    /// Intel says something else from now on.
    pub fn publish(&self, spec: &CollateralSpec) {
        *self.vendors.collateral.lock().expect("no panic") = json_of(spec);
    }

    pub fn fault(&self, path: &str, faults: &[Fault]) {
        let faults = faults.iter().copied().collect();
        self.vendors.faults.lock().expect("no panic").insert(path.into(), faults);
    }

    pub fn asked(&self) -> usize {
        self.vendors.asked.lock().expect("no panic").len()
    }
}
