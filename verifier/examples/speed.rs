//! How fast evidence is appraised, beside one bare signature check and beside dcap-qvl, in one run, each in turn. One thread, then all.
//! `make bench` runs it. Evidence is the development platform's: the same sizes and the same number of signatures as hardware's.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaSigningAlgorithm};
use aws_lc_rs::{rand, signature};
use cocoon_attestation::UnixTime;
use cocoon_attestation::dev::{
    CollateralSpec, DevPlatform, GpuChainSpec, GpuSpec, OcspSpec, OcspSubject, RimSpec, SnpEndorsementSpec, SnpSpec,
    TdxSpec,
};
use cocoon_verifier::{
    Collateral, GpuEvidence, GpuReferences, Outcome, Policy, Verifier, appraise_gpus, appraise_snp, appraise_tdx,
};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;

const AT: UnixTime = UnixTime(1_790_000_000);
const ROUNDS: usize = 400;
/// As long as a quote's header and body.
const MESSAGE: [u8; 632] = [7; 632];

type Work<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// One signature check and nothing else.
fn bare(
    signing: &'static EcdsaSigningAlgorithm,
    verifying: &'static signature::EcdsaVerificationAlgorithm,
) -> impl Fn() {
    let random = rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref()).expect("a key");
    let signed = pair.sign(&random, &MESSAGE).expect("a signature");
    let key = pair.public_key().as_ref().to_vec();
    move || UnparsedPublicKey::new(verifying, &key).verify(&MESSAGE, signed.as_ref()).expect("it holds")
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let platform = DevPlatform::from_seed([7; 32]);
    let roots = vec![platform.tdx_root_der(), platform.snp_ark_der(), platform.gpu_root_der()];
    let policy = Policy { roots, ..Policy::default() };
    let quote = platform.tdx_quote(&TdxSpec::default());
    let json = platform.tdx_collateral(&CollateralSpec::default());
    let collateral = Collateral::from_json(&json).expect("collateral");
    let theirs: QuoteCollateralV3 = serde_json::from_slice(&json).expect("collateral");
    let qvl = QuoteVerifier::new(platform.tdx_root_der());
    let report = platform.snp_report(&SnpSpec::default());
    let chain = platform.snp_endorsements(&SnpEndorsementSpec::default());
    let gpu_report = platform.gpu_report(&GpuSpec::default());
    let gpu_chain = platform.gpu_chain(&GpuChainSpec::default());
    let rims = [platform.gpu_manifest(&RimSpec::driver()), platform.gpu_manifest(&RimSpec::vbios())];
    let asked = OcspSubject::ASKED.map(|subject| platform.gpu_ocsp(&OcspSpec::new(subject)));
    let references = GpuReferences::new(rims.to_vec(), Vec::new());
    let stapled = GpuReferences::new(rims.to_vec(), asked.to_vec());
    let gpus = [GpuEvidence { report: &gpu_report, chain: &gpu_chain }];
    let verifier = Verifier::default();
    let cold = || Verifier::with_capacity(1);
    let crl = chain.crl.as_deref();
    let accepted = |outcome: Outcome| assert_eq!(outcome, Outcome::Accepted);

    let work: Vec<Work> = vec![
        ("one bare P-256 verify", Box::new(bare(&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED))),
        ("TDX, platform known", Box::new(|| accepted(verifier.tdx(&quote, &collateral, None, &policy, AT).outcome))),
        (
            "TDX, cold, collateral read",
            Box::new(|| accepted(cold().tdx(&quote, &collateral, None, &policy, AT).outcome)),
        ),
        ("TDX, cold, from JSON", Box::new(|| accepted(appraise_tdx(&quote, &json, &policy, AT).outcome))),
        (
            "dcap-qvl (ring), collateral read",
            Box::new(|| drop(black_box(qvl.verify(&quote, &theirs, AT.0).expect("it holds")))),
        ),
        ("one bare P-384 verify", Box::new(bare(&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED))),
        (
            "SNP, chain known",
            Box::new(|| accepted(verifier.snp(&report, &chain.vek, &chain.ca, crl, &policy, AT).outcome)),
        ),
        ("SNP, cold", Box::new(|| accepted(appraise_snp(&report, &chain.vek, &chain.ca, crl, &policy, AT).outcome))),
        (
            "GPU, chain and RIMs known",
            Box::new(|| accepted(verifier.gpus(&gpus, &references, None, &policy, AT).outcome)),
        ),
        ("GPU, OCSP stapled, known", Box::new(|| accepted(verifier.gpus(&gpus, &stapled, None, &policy, AT).outcome))),
        ("GPU, cold, two RIMs", Box::new(|| accepted(appraise_gpus(&gpus, &references, None, &policy, AT).outcome))),
    ];
    let mut times = vec![Vec::with_capacity(ROUNDS); work.len()];
    for round in 0..ROUNDS + 20 {
        for ((_, work), times) in work.iter().zip(&mut times) {
            let started = Instant::now();
            work();
            if round >= 20 {
                times.push(started.elapsed());
            }
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    println!("\n| appraisal, one thread | us, p50 | per second | of a bare verify |\n|---|---|---|---|");
    for (n, ((name, _), time)) in work.iter().zip(&medians).enumerate() {
        let bare = if n < 5 { medians[0] } else { medians[5] };
        println!("| {name} | {time:.1} | {:.0} | {:.2}x |", 1e6 / time, bare / time);
    }
    println!("\nTDX cold against dcap-qvl, both with collateral read: {:.2} times as fast.", medians[4] / medians[2]);

    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let rate = |threads: usize| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    (0..4_000).for_each(|_| accepted(verifier.tdx(&quote, &collateral, None, &policy, AT).outcome))
                });
            }
        });
        (threads * 4_000) as f64 / started.elapsed().as_secs_f64()
    };
    let (one, all) = (rate(1), rate(cores));
    println!(
        "TDX with the platform known: {one:.0} per second on one thread, {all:.0} on {cores}: {:.2} times.",
        all / one
    );
}
