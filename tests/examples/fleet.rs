//! Replay of a fleet's history, measured: first how fast each kind of evidence is replayed, beside its bare signature checks in the same
//! run; then a large fleet with faults, in which every one of them must be found and nothing else. `make bench` runs it.
//!
//! `cargo run --release -p cocoon-tests --example fleet -- --enclaves 10000 --days 30`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
};
use clap::Parser;
use cocoon_attestation::UnixTime;
use cocoon_settlement::chain::Chain;
use cocoon_tests::fleet::memory::{self, replay_log};
use cocoon_tests::fleet::{self, EvidenceKind, FleetChain, History, Spec, chain, history};
use cocoon_transparency::Folder;
use cocoon_transparency::replay::State;
use cocoon_transparency::replay::chain::{ChainInput, ReplayedLog, reconcile};
use cocoon_transparency::replay::report::{Findings, Report};
use cocoon_verifier::Verifier;

/// Measures replay.
#[derive(Parser)]
struct Args {
    /// Enclaves of the large fleet
    #[arg(long, default_value_t = 2_000)]
    enclaves: usize,
    /// Days, each with a renewal of every enclave
    #[arg(long, default_value_t = 10)]
    days: u64,
    /// Leaves of the runs that measure one kind of evidence
    #[arg(long, default_value_t = 10_000)]
    leaves: usize,
    /// Days of the large fleet whose attestations are brought on-chain; the others' verdicts are not looked at
    #[arg(long)]
    chain_days: Option<u64>,
    /// Threads
    #[arg(long)]
    jobs: Option<usize>,
    /// Only measure the kinds of evidence
    #[arg(long)]
    kinds_only: bool,
    /// Only the kind of evidence with this name
    #[arg(long)]
    only: Option<String>,
    /// Where everything is made; a folder that goes away by default
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Write the large fleet's page here
    #[arg(long)]
    page: Option<PathBuf>,
}

/// Processor time of this process so far, all threads: what others do on this machine does not count.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn bare(
    signing: &'static EcdsaSigningAlgorithm,
    verifying: &'static EcdsaVerificationAlgorithm,
    length: usize,
) -> impl Fn() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref()).expect("a key");
    let message = vec![7; length];
    let signed = pair.sign(&random, &message).expect("a signature");
    let key = pair.public_key().as_ref().to_vec();
    move || UnparsedPublicKey::new(verifying, &key).verify(&message, signed.as_ref()).expect("it holds")
}

/// Processor time of one bare check, in microseconds.
fn each(check: &impl Fn(), times: usize) -> f64 {
    let before = cpu();
    (0..times).for_each(|_| check());
    (cpu() - before).as_secs_f64() * 1e6 / times as f64
}

/// Rounds, of which the medians count.
const ROUNDS: usize = 7;
/// Least share that the bare signature checks of an evidence have of its replay.
const SHARE: f64 = 0.75;

fn kinds(args: &Args, folder: &Path) -> Result<()> {
    let p256 = bare(&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_FIXED, 632);
    let p384 = bare(&ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED, 1_000);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut short = Vec::new();
    println!(
        "\n| leaves of | bare checks, us | replay, us of processor time | leaves/s and core | of the bare checks | faster on {cores} threads |\n|---|---|---|---|---|---|"
    );
    for (name, kind, ocsp) in [
        ("TDX", EvidenceKind::Tdx, false),
        ("SNP", EvidenceKind::Snp, false),
        ("TDX and a GPU", EvidenceKind::TdxGpu, false),
        ("TDX and a GPU, OCSP stapled", EvidenceKind::TdxGpu, true),
    ] {
        if args.only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let days = 20;
        let enclaves = args.leaves / days as usize;
        let spec = Spec { enclaves, days, per_machine: 8, kinds: vec![kind], ocsp, faults: false };
        let here = folder.join(format!("{kind:?}-{ocsp}"));
        let history = history::make(&here, &spec, chain::provider_of(enclaves)?, |_| {})?;
        let log = &history.logs[0];
        // As many bare checks as leaves stand in front of each replay and behind it, so that both meet the same machine.
        let bare = || match kind {
            EvidenceKind::Tdx => each(&p256, args.leaves),
            EvidenceKind::Snp => each(&p384, args.leaves),
            EvidenceKind::TdxGpu => each(&p256, args.leaves) + each(&p384, args.leaves),
        };
        let (mut rounds, mut walls) = (Vec::new(), Vec::new());
        let mut front = bare();
        for round in 0..ROUNDS {
            let mut wall = [0.0; 2];
            for (jobs, wall) in [1, cores].into_iter().zip(&mut wall) {
                let state = State::open(&here.join(format!("state-{round}-{jobs}.redb")))?;
                let (before, started) = (cpu(), Instant::now());
                let result = replay_log(log, &[], &state, &Verifier::with_capacity(8_192), jobs)?;
                ensure!(result.whole && result.totals.accepted == result.size, "something was found");
                *wall = started.elapsed().as_secs_f64();
                if jobs == 1 {
                    let replay = (cpu() - before).as_secs_f64() * 1e6 / result.size as f64;
                    let behind = bare();
                    rounds.push((f64::midpoint(front, behind), replay));
                    front = behind;
                }
            }
            walls.push(wall[0] / wall[1]);
        }
        let median = |mut of: Vec<f64>| {
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        let of = |number: fn(&(f64, f64)) -> f64| median(rounds.iter().map(number).collect());
        let (checks, replay, share) = (of(|round| round.0), of(|round| round.1), of(|round| round.0 / round.1));
        let faster = median(walls);
        println!("| {name} | {checks:.1} | {replay:.1} | {:.0} | {share:.2} | {faster:.2} |", 1e6 / replay);
        if share < SHARE {
            short.push(format!("{name}: {share:.2}"));
        }
        std::fs::remove_dir_all(&here)?;
    }
    ensure!(short.is_empty(), "bare signature checks have less than {SHARE} of the replay of {}", short.join(", "));
    Ok(())
}

/// Memory does not grow with a log: one of four times the leaves, of the same platforms, takes no more.
fn bounded(folder: &Path) -> Result<()> {
    let [short, long] = memory::of_replays(folder, 500, [5, 20])?;
    println!(
        "\nHighest memory: {} MB with {} leaves, {} MB with {}.",
        short.peak, short.leaves, long.peak, long.leaves
    );
    ensure!(long.peak <= short.peak + memory::NOISE, "memory grows with the log");
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

async fn large(args: &Args, folder: &Path) -> Result<()> {
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let spec = Spec { enclaves: args.enclaves, days: args.days, per_machine: 8, ..Spec::default() };
    println!("\nA fleet of {} enclaves, {} days, {} nodes:", spec.enclaves, spec.days, fleet::NODES);
    let made = Instant::now();
    let mut history: History = history::make(folder, &spec, chain::provider_of(spec.enclaves)?, |_| {})?;
    let (evidence, appending) = history.seconds;
    println!(
        "- made in {:.0} s: {:.0} s of evidence for {} renewals, {:.0} s for appending {} leaves ({:.0} appends/s on one thread)",
        made.elapsed().as_secs_f64(),
        evidence,
        history.renewals.len(),
        appending,
        history.leaves,
        history.leaves as f64 / appending
    );
    let chain_days = args.chain_days.unwrap_or(spec.days);
    let mut contracts = FleetChain::deploy(Some(&folder.join("chain")), spec.enclaves).await?;
    let all = std::mem::take(&mut history.renewals);
    history.renewals = all.into_iter().filter(|renewal| renewal.day < chain_days).collect();
    contracts.attest(&history, |_| {}).await?;
    let mut expected = history.expected.clone();
    expected.extend(contracts.claim(&history, &(0..100.min(spec.enclaves)).collect::<Vec<_>>(), true).await?);
    let on_chain: std::collections::BTreeSet<_> = history.renewals.iter().map(|renewal| renewal.evidence_id).collect();
    expected.extend(
        history
            .expected_on_chain
            .iter()
            .filter(|fault| fault.evidence_id.is_none_or(|id| on_chain.contains(&id)))
            .cloned(),
    );
    println!(
        "- on the local chain: {} attestations in {:.0} s ({:.0}/s, each three transactions)",
        contracts.attestations,
        contracts.seconds,
        contracts.attestations as f64 / contracts.seconds
    );
    memory::forget_peak();
    let verifier = Verifier::with_capacity(8_192);
    let (mut results, mut states) = (Vec::new(), Vec::new());
    let (started, before) = (Instant::now(), cpu());
    for (n, log) in history.logs.iter().enumerate() {
        let others: Vec<String> =
            history.logs.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, log)| log.witness.clone()).collect();
        let state = State::open(&folder.join(format!("replay-{n}.redb")))?;
        results.push(replay_log(log, &others, &state, &verifier, jobs)?);
        states.push(state);
    }
    let (wall, busy) = (started.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    let leaves: u64 = results.iter().map(|result| result.size).sum();
    println!(
        "- replayed {leaves} leaves in {wall:.0} s on {jobs} threads: {:.0} leaves/s, {:.0} per second of processor time; highest memory {} MB",
        leaves as f64 / wall,
        leaves as f64 / busy,
        memory::peak()
    );
    let sources: Vec<Folder> = history.logs.iter().map(|log| Folder(log.folder.join("public"))).collect();
    let logs: Vec<_> = results
        .iter()
        .zip(&states)
        .zip(&sources)
        .zip(0u8..)
        .map(|(((result, state), source), n)| ReplayedLog { result, state, source, verifier: Some(n) })
        .collect();
    let work = folder.join("work");
    let as_of = contracts.chain.head().await?.time;
    let chain: &dyn Chain = &*contracts.chain;
    let input = ChainInput {
        chain,
        registry: contracts.registry,
        logs: &logs,
        channels: &[],
        as_of,
        work: &work,
        progress: &|_| {},
    };
    let mut findings = Findings::default();
    let started = Instant::now();
    let result = reconcile(&input, &mut findings).await?;
    println!(
        "- reconciled {} transactions in {:.0} s: {} attestations, {} verdicts followed to their leaves, {} paid receipts",
        result.transactions,
        started.elapsed().as_secs_f64(),
        result.attestations,
        result.verdicts_followed,
        result.receipts_followed
    );
    let reported = history
        .logs
        .iter()
        .zip(&results)
        .zip(&states)
        .map(|((log, result), state)| (log.folder.display().to_string(), result.clone(), state));
    let report = Report::new(UnixTime(1), reported.collect(), Some(result), findings)?;
    let page = cocoon_cli::audit::html::page(&report);
    let (unexpected, missed) = fleet::compare(&report, &history.logs, &expected);
    println!(
        "- {} faults were made, {} of them found, {} other things; the page has {} KB; highest memory {} MB",
        expected.len(),
        expected.len() - missed.len(),
        unexpected.len(),
        page.len() / 1024,
        memory::peak()
    );
    if let Some(path) = &args.page {
        std::fs::write(path, page)?;
    }
    ensure!(unexpected.is_empty() && missed.is_empty(), "not expected: {unexpected:?}; missed: {missed:?}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let temporary;
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_owned()
        }
    };
    kinds(&args, &folder.join("kinds"))?;
    bounded(&folder.join("memory"))?;
    if !args.kinds_only {
        large(&args, &folder.join("fleet")).await?;
    }
    Ok(())
}
