//! Fetching endorsements, against a server of our own that plays the vendors' services, faults included.

mod vendors;

use std::time::{Duration, Instant};

use cocoon_attestation::dev::{CollateralSpec, GpuChainSpec, GpuSpec, SnpSpec, TdxSpec};
use cocoon_attestation::{
    Beacon, Bundle, Claims, CpuEvidence, Digest, EnclaveKey, Endorsements, GpuEndorsements, ProviderAddress, UnixTime,
    binding,
};
use cocoon_node::endorsements::{Endorser, Error, Folder, Limits};
use cocoon_verifier::{
    GpuEvidence, GpuReferences, Need, Outcome, appraise_bundle, appraise_gpus, appraise_snp, appraise_tdx, needs,
};
use vendors::{AT, Fault, World, platform, policy, snp_needs};

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
