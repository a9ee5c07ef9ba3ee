//! Fetching endorsements, against a server of our own that plays the vendors' services, faults included.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::dev::{
    CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SnpEndorsementSpec, SnpSpec,
    TdxSpec,
};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, GpuEndorsements, ProviderAddress, UnixTime,
    binding,
};
use cocoon_node::endorsements::{Addresses, Endorser, Error, Folder, Limits};
use cocoon_verifier::{
    GpuEvidence, GpuReferences, Need, Outcome, Policy, appraise_bundle, appraise_gpus, appraise_snp, appraise_tdx,
    needs,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const AT: UnixTime = UnixTime(1_790_000_000);

fn platform() -> DevPlatform {
    DevPlatform::from_seed([7; 32])
}

fn policy() -> Policy {
    let platform = platform();
    let roots = vec![platform.tdx_root_der(), platform.snp_ark_der(), platform.gpu_root_der()];
    let mut policy = Policy { roots, ..Policy::default() };
    (policy.gpu.require_rims, policy.gpu.require_ocsp, policy.snp.require_crl) = (true, true, true);
    policy
}

/// What a service does instead of answering.
#[derive(Clone, Copy)]
enum Fault {
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
struct Vendors {
    collateral: Value,
    /// Whether revocation lists come in hex, as a PCCS gives them.
    pccs: bool,
    faults: Mutex<HashMap<String, VecDeque<Fault>>>,
    asked: Mutex<Vec<String>>,
}

impl Vendors {
    fn text(&self, name: &str) -> String {
        self.collateral[name].as_str().expect("text").to_owned()
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
            ("GET", "/vcek/v1/Milan/crl") => snp.crl.clone()?.into_response(),
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

fn snp_needs() -> Vec<Need> {
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

struct World {
    vendors: Arc<Vendors>,
    addresses: Addresses,
    folder: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(CollateralSpec::default(), false).await
    }

    async fn with(spec: CollateralSpec, pccs: bool) -> Self {
        let collateral = serde_json::from_slice(&platform().tdx_collateral(&spec)).expect("JSON");
        let (faults, asked) = Default::default();
        let vendors = Arc::new(Vendors { collateral, pccs, faults, asked });
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

    fn online(&self) -> Endorser {
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

    fn fault(&self, path: &str, faults: &[Fault]) {
        let faults = faults.iter().copied().collect();
        self.vendors.faults.lock().expect("no panic").insert(path.into(), faults);
    }

    fn asked(&self) -> usize {
        self.vendors.asked.lock().expect("no panic").len()
    }
}

fn quote() -> Vec<u8> {
    platform().tdx_quote(&TdxSpec::default())
}

const TCB: &str = "/tdx/certification/v4/tcb";

#[tokio::test]
async fn what_is_fetched_is_what_the_verifier_takes() {
    for pccs in [false, true] {
        let world = World::with(CollateralSpec::default(), pccs).await;
        let endorser = world.online();
        let collateral = endorser.tdx(&quote(), AT, false).await.expect("collateral");
        assert_eq!(appraise_tdx(&quote(), &collateral, &policy(), AT).outcome, Outcome::Accepted);
        assert_eq!(world.asked(), 4);

        let report = platform().snp_report(&SnpSpec::default());
        let chain = endorser.snp(&report, None, None, AT, false).await.expect("a chain");
        let result = appraise_snp(&report, &chain.vek, &chain.ca, chain.crl.as_deref(), &policy(), AT);
        assert_eq!(result.outcome, Outcome::Accepted, "{}", result.reason);

        let (report, chain) =
            (platform().gpu_report(&GpuSpec::default()), platform().gpu_chain(&GpuChainSpec::default()));
        let found = endorser.gpus(&[(&report, &chain)], AT, false).await.expect("manifests");
        assert_eq!((found.manifests.len(), found.ocsp.len()), (2, 6));
        let references = GpuReferences::new(found.manifests, found.ocsp);
        let gpu = GpuEvidence { report: &report, chain: &chain };
        let result = appraise_gpus(&[gpu], &references, None, &policy(), AT);
        assert_eq!(result.outcome, Outcome::Accepted, "{}", result.reason);

        // All of it again, from the folder alone.
        let asked = world.asked();
        let offline = Endorser::offline(world.folder.path()).expect("a folder");
        for endorser in [&endorser, &offline] {
            assert_eq!(endorser.tdx(&quote(), AT, false).await.expect("collateral"), collateral);
            assert_eq!(endorser.gpus(&[(&report, &chain)], AT, false).await.expect("manifests").ocsp.len(), 6);
        }
        assert_eq!(world.asked(), asked);
        endorser.tdx(&quote(), AT, true).await.expect("collateral");
        assert_eq!(world.asked(), asked + 4, "fetched anew when asked to");
    }
}

#[tokio::test]
async fn what_has_lapsed_is_fetched_again_and_is_missing_offline() {
    let lapses = AT.plus(1_000);
    let world = World::with(CollateralSpec::issued(UnixTime(AT.0 - 1_000), lapses), false).await;
    let endorser = world.online();
    for (at, asked) in [(AT, 4), (UnixTime(lapses.0 - 1), 4), (lapses, 8)] {
        endorser.tdx(&quote(), at, false).await.expect("collateral");
        assert_eq!(world.asked(), asked, "at {at}");
    }
    let offline = Endorser::offline(world.folder.path()).expect("a folder");
    offline.tdx(&quote(), AT, false).await.expect("collateral");
    let missing = offline.tdx(&quote(), lapses, false).await.expect_err("it has lapsed");
    assert!(matches!(&missing, Error::Missing { path } if path == "tdx/c0c000000000-platform.json"), "{missing}");
    assert!(Endorser::offline(&world.folder.path().join("none")).is_err());
}

#[tokio::test]
async fn busy_services_are_asked_again() {
    let world = World::new().await;
    let faults = [
        &[Fault::Busy(0)][..],
        &[Fault::Busy(1_000_000), Fault::Status(503)],
        &[Fault::Status(500), Fault::Status(502), Fault::Status(408)],
        &[Fault::Silent],
        &[Fault::Cut, Fault::Silent],
    ];
    for faults in faults {
        world.fault(TCB, faults);
        let before = world.asked();
        world.online().tdx(&quote(), AT, true).await.expect("collateral in the end");
        assert_eq!(world.asked() - before, 4 + faults.len());
    }
}

#[tokio::test]
async fn what_does_not_get_better_is_an_error_that_says_what_was_asked() {
    let world = World::new().await;
    let (again, once) = (4, 1);
    for (faults, asked, says) in [
        (vec![Fault::Status(503); 4], again, "status 503"),
        (vec![Fault::Silent; 4], again, "no answer within"),
        (vec![Fault::Cut; 4], again, "asked 4 time(s)"),
        (vec![Fault::Status(404)], once, "does not know it"),
        (vec![Fault::Status(403)], once, "status 403"),
        (vec![Fault::Status(301)], once, "status 301"),
        (vec![Fault::Endless], once, "longer than 65000 bytes"),
        (vec![Fault::Garbage], once, "not what was asked for"),
        (vec![Fault::Bare], once, "lacks the header TCB-Info-Issuer-Chain"),
    ] {
        world.fault(TCB, &faults);
        let before = world.asked();
        let error = world.online().tdx(&quote(), AT, true).await.expect_err(says).to_string();
        assert!(error.contains(says) && error.contains("/tdx/certification/v4/tcb?fmspc=c0c000000000"), "{error}");
        assert_eq!(world.asked() - before, asked, "{says}");
        world.vendors.faults.lock().expect("no panic").clear();
    }
    assert!(Folder::open(world.folder.path()).expect("a folder").entries().expect("entries").is_empty());
    let mut addresses = world.addresses.clone();
    addresses.intel = "nowhere".into();
    let endorser = Endorser::online(world.folder.path(), addresses, Limits::default()).expect("an endorser");
    assert!(matches!(endorser.tdx(&quote(), AT, false).await, Err(Error::Address(_))));
}

#[tokio::test]
async fn what_is_something_else_is_not_kept() {
    let mut other = CollateralSpec::default();
    other.tcb_info.fmspc = [9; 6];
    let world = World::with(other, false).await;
    let error = world.online().tdx(&quote(), AT, false).await.expect_err("another platform's");
    assert!(matches!(&error, Error::Foreign { detail, .. } if detail.contains("FMSPC 090909090909")), "{error}");
    for path in ["/vcek/v1/Milan/cert_chain", "/vcek/v1/Milan/crl"] {
        world.fault(path, &[Fault::Garbage]);
        let report = platform().snp_report(&SnpSpec::default());
        let error = world.online().snp(&report, None, None, AT, true).await.expect_err("garbage");
        assert!(matches!(error, Error::Foreign { .. }), "{path}: {error}");
    }
    let (report, chain) = (platform().gpu_report(&GpuSpec::default()), platform().gpu_chain(&GpuChainSpec::default()));
    world.fault("/ocsp/", &[Fault::Garbage]);
    let error = world.online().gpus(&[(&report, &chain)], AT, true).await.expect_err("garbage");
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    let kept = Folder::open(world.folder.path()).expect("a folder").entries().expect("entries");
    assert!(kept.iter().all(|entry| !entry.path.starts_with("tdx/") && !entry.path.ends_with(".crl")), "{kept:?}");
}

#[tokio::test]
async fn a_damaged_file_is_fetched_again() {
    let world = World::new().await;
    world.online().tdx(&quote(), AT, false).await.expect("collateral");
    let path = world.folder.path().join("tdx/c0c000000000-platform.json");
    let good = std::fs::read(&path).expect("the file");
    for damage in [&good[..good.len() / 2], b""] {
        std::fs::write(&path, damage).expect("written");
        assert!(Endorser::offline(world.folder.path()).expect("a folder").tdx(&quote(), AT, false).await.is_err());
        world.online().tdx(&quote(), AT, false).await.expect("collateral");
        assert_eq!(std::fs::read(&path).expect("the file"), good);
    }
}

#[tokio::test]
async fn a_service_is_not_asked_faster_than_it_likes() {
    let world = World::new().await;
    let spacing = Duration::from_millis(60);
    let limits = Limits { spacing, ..Limits::default() };
    let endorser = Endorser::online(world.folder.path(), world.addresses.clone(), limits).expect("an endorser");
    let started = Instant::now();
    let (quote, report) = (quote(), platform().snp_report(&SnpSpec::default()));
    let (tdx, snp) = tokio::join!(endorser.tdx(&quote, AT, false), endorser.snp(&report, None, None, AT, false));
    tdx.expect("collateral");
    snp.expect("a chain");
    // Seven questions to one service: six spaces, however fast the machine.
    assert!(started.elapsed() >= spacing * 6);
}

#[tokio::test]
async fn names_in_evidence_cannot_leave_the_folder() {
    let world = World::new().await;
    let chain = platform().gpu_chain(&GpuChainSpec::default());
    for driver in ["../../../etc/passwd", "580/159", "580?x=1", &"9".repeat(101)] {
        let mut spec = GpuSpec::default();
        spec.opaque.insert(3, [driver.as_bytes(), &[0]].concat());
        let report = platform().gpu_report(&spec);
        let error = world.online().gpus(&[(&report, &chain)], AT, false).await.expect_err(driver);
        assert!(matches!(&error, Error::Evidence(detail) if detail.contains("no manifest's name")), "{error}");
    }
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn a_bundle_is_stapled_and_keeps_its_name() {
    let world = World::new().await;
    let mut claims = Claims {
        enclave_key: EnclaveKey([1; 32]),
        provider: ProviderAddress([2; 33]),
        model_name: "model".into(),
        model_root: Digest([3; 32]),
        config_digest: Digest([4; 32]),
        beacon: Beacon { seqno: 1, root_hash: Digest([5; 32]), time: AT },
        nonce_root: Digest([0; 32]),
        gpu_digest: None,
    };
    let nonce = binding::gpu_nonce(&claims);
    let gpu = vec![platform().gpu_report(&GpuSpec { nonce, ..GpuSpec::default() })];
    claims.gpu_digest = binding::gpu_digest(&gpu);
    let mut spec = TdxSpec::default();
    spec.body.report_data = binding::report_data(&claims.to_cbor());
    let chains = vec![platform().gpu_chain(&GpuChainSpec::default())];
    let mut bundle = Bundle {
        claims: claims.to_cbor(),
        cpu: CpuEvidence::Tdx { quote: platform().tdx_quote(&spec) },
        gpu,
        event_log: None,
        endorsements: Endorsements::None,
        gpu_endorsements: GpuEndorsements { chains, ..GpuEndorsements::default() },
    };
    let id = bundle.evidence_id();
    world.online().staple(&mut bundle, AT, false).await.expect("stapled");
    assert_eq!(bundle.evidence_id(), id);
    let result = appraise_bundle(&bundle.to_cbor(), &policy(), None, AT).appraisal;
    assert_eq!(result.outcome, Outcome::Accepted, "{}", result.reason);
    bundle.gpu_endorsements.chains.clear();
    let error = world.online().staple(&mut bundle, AT, false).await.expect_err("no chain");
    assert!(error.to_string().contains("1 GPU report(s) came with 0 chain(s)"), "{error}");
}

#[test]
fn questions_are_read_off_the_evidence() {
    let report = |spec: &SnpSpec| platform().snp_report(spec);
    assert_eq!(
        snp_needs().iter().map(Need::path).collect::<Vec<_>>()[..2],
        ["snp/Milan/vcek-chain.pem", "snp/Milan/vcek.crl"]
    );
    assert!(snp_needs()[2].path().starts_with("snp/Milan/") && snp_needs()[2].path().ends_with(".der"));
    for (bad, says) in [(&b"none"[..], "few"), (&report(&SnpSpec::default())[..1184], "PCK")] {
        assert!(needs::of_tdx(bad).is_err(), "{says}");
    }
    assert!(
        needs::of_snp(b"none", None).is_err()
            && needs::of_gpu(b"none", b"").is_err()
            && needs::of_rim(b"none").is_err()
    );
    // Every request can be told from every other.
    let chain = platform().gpu_chain(&GpuChainSpec::default());
    let asked = needs::of_gpu(&platform().gpu_report(&GpuSpec::default()), &chain).expect("needs");
    let mut paths: Vec<_> = asked.iter().map(Need::path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 5, "two manifests, three certificates");
}
