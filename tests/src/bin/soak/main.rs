//! `soak [--streams 1000] [--minutes 10] [--json]`: that many streams at once, through gateway and host, for that long.
//!
//! They behave as clients do: most read to the end, some slowly, some hang up, some ask wrongly; each that ends is replaced at once. What
//! must hold all the time: every answer ends, is the one that the model gives when it is asked alone, and has a receipt that verifies; the
//! host loses no receipt; neither the enclave nor this process, which is client, gateway, host and chain, grows. Exit code 1 if it does not.

mod clients;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cocoon_cli::data::DataDir;
use cocoon_cli::network::{Network, Options, Tee};
use cocoon_cli::ui::{Output, Ui};
use cocoon_client::Appraised;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::wire;
use cocoon_settlement::{Nanoton, ops};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::clients::{Clients, LIMIT};

const SAMPLE: Duration = Duration::from_secs(5);
/// The host asks for this long, and a little less, for the receipt of a client that hung up.
const SETTLING: Duration = Duration::from_secs(6);
/// What an answer costs a hundred thousand times: neither channel nor voucher ends before the run does.
const PROMISE: Nanoton = Nanoton(40_000_000_000_000);
/// Files that each stream opens here: both ends of client to gateway and of gateway to host, and one to the enclave.
const FILES: usize = 5;
const PAGE: u64 = 4_096;

struct Args {
    streams: usize,
    minutes: f64,
    json: bool,
}

fn arguments() -> Result<Args> {
    let mut args = Args { streams: 1_000, minutes: 10.0, json: false };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().with_context(|| format!("{name} takes a value"));
        match name.as_str() {
            "--streams" => args.streams = value()?.parse().context("--streams takes a whole number")?,
            "--minutes" => args.minutes = value()?.parse().context("--minutes takes a number")?,
            "--json" => args.json = true,
            _ => bail!("unknown argument {name}: soak [--streams 1000] [--minutes 10] [--json]"),
        }
    }
    ensure!(args.streams > 0 && args.minutes > 0.0, "--streams and --minutes are above zero");
    Ok(args)
}

/// Memory of a process in bytes, as far as it is in RAM.
fn resident(process: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).context("the process has ended")?;
    Ok(statm.split(' ').nth(1).context("statm has seven fields")?.parse::<u64>()? * PAGE)
}

/// Lets this process, and the enclave that it starts, open as many files as the streams need.
fn allow_files(streams: usize) -> Result<()> {
    let needed = streams * FILES + 512;
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("a limit of files")?;
    let soft = line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX);
    if soft < needed {
        let own = std::process::id().to_string();
        let raised = Command::new("prlimit").args(["--pid", &own, &format!("--nofile={needed}:{needed}")]).status();
        ensure!(
            raised.is_ok_and(|status| status.success()),
            "{streams} streams open {needed} files and {soft} are allowed: `ulimit -n {needed}`, or ask for fewer streams"
        );
    }
    Ok(())
}

/// Median of the second quarter and of the last one, in bytes.
fn quarters(samples: &[u64]) -> (u64, u64) {
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or_default()
    };
    let quarter = (samples.len() / 4).max(1);
    let second = samples.get(quarter..quarter * 2).unwrap_or(samples);
    (median(second), median(&samples[samples.len().saturating_sub(quarter)..]))
}

/// The newest receipt of a channel that the enclave has signed.
async fn newest(url: &str, network: &Network) -> Result<SignedSettlementReceipt> {
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let path = format!("{url}{}?channel={}", wire::RECEIPTS_PATH, network.channel);
    let body = http.get(path.parse()?).await?.into_body().collect().await?.to_bytes();
    Ok(SignedSettlementReceipt::from_bytes(&body)?)
}

/// Puts enough into the channel, and promises the enclave enough, that money ends nothing.
async fn fund(network: &Network) -> Result<Appraised> {
    ops::top_up(&network.client_account, &network.channel, Nanoton(PROMISE.0 + PROMISE.0 / 10)).await?.success()?;
    let enclave = network.client.enclaves().await?.0.into_iter().next().context("an enclave")?;
    network.client.voucher_with_cap(&enclave, PROMISE)?;
    Ok(enclave)
}

/// What was measured every few seconds.
#[derive(Default)]
struct Samples {
    enclave: Vec<u64>,
    own: Vec<u64>,
    files: usize,
}

impl Samples {
    fn take(&mut self, enclave: u32, clients: &Clients, started: Instant) -> Result<()> {
        self.enclave.push(resident(enclave)?);
        self.own.push(resident(std::process::id())?);
        self.files = self.files.max(std::fs::read_dir("/proc/self/fd")?.count());
        eprintln!(
            "{:>5} s: {} ended, {} failed, {} times busy; enclave {} MB, client, gateway and host {} MB",
            started.elapsed().as_secs(),
            ended(clients),
            clients.failures().values().sum::<u64>(),
            clients.busy.load(Ordering::Relaxed),
            megabytes(*self.enclave.last().unwrap_or(&0)),
            megabytes(*self.own.last().unwrap_or(&0)),
        );
        Ok(())
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes >> 20
}

fn ended(clients: &Clients) -> u64 {
    clients.done().values().sum()
}

/// Figures of one process's memory; a problem if it grew by more than a tenth and 16 MB from the second quarter to the last.
fn memory(who: &str, samples: &[u64], problems: &mut Vec<String>) -> Value {
    let (second, last) = quarters(samples);
    if last > second + second / 10 + (16 << 20) {
        problems.push(format!("the memory of {who} grew from {} to {} MB", megabytes(second), megabytes(last)));
    }
    let most = samples.iter().copied().max().unwrap_or_default();
    json!({"first_mb": samples.first().copied().map(megabytes), "second_quarter_mb": megabytes(second),
        "last_quarter_mb": megabytes(last), "most_mb": megabytes(most)})
}

async fn soak(args: &Args) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let data = DataDir::open(folder.path())?;
    let most = args.streams + 64;
    let options = Options {
        enclave: cocoon_tests::enclave_binary(),
        model: cocoon_tests::demo_model(),
        tee: Tee::Tdx,
        guest: format!("waiting = {most}\nchannel_concurrent = {most}\n"),
        vm: None,
        tap: None,
        endorser: None,
        claims: None,
        lifetime: cocoon_cli::network::ATTESTATION_LIFETIME,
        ui: Ui::new(Output::Json),
    };
    let network = Arc::new(Network::start(&data, options).await?);
    let ready = network.host.ready(Duration::from_secs(60)).await?;
    let enclave = fund(&network).await?;
    let (record, key) = (network.clone(), enclave.claims.enclave_key);
    let stored = move || {
        let newest = record.host.store().receipt(&record.channel, &key)?;
        Ok(newest.map_or(0, |newest| newest.receipt.sequence))
    };
    let clients = Arc::new(Clients::new(network.client.clone(), Box::new(stored)).await?);
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(args.minutes * 60.0);
    let mut streams: tokio::task::JoinSet<()> =
        (0..args.streams).map(|number| clients.clone().stream(number as u64, until)).collect();
    let mut samples = Samples::default();
    while Instant::now() < until {
        tokio::time::sleep(SAMPLE.min(until - Instant::now())).await;
        samples.take(ready.pid.context("the enclave is no process")?, &clients, started)?;
    }
    let (seconds, ended) = (started.elapsed().as_secs_f64(), ended(&clients));
    // Nobody asks any more; what is under way may end.
    while streams.join_next().await.is_some() {}
    tokio::time::sleep(SETTLING).await;

    let mut problems = Vec::new();
    let stuck = clients.stuck.load(Ordering::Relaxed);
    if stuck > 0 {
        problems.push(format!("{stuck} requests had not ended after {} s", LIMIT.as_secs()));
    }
    let failures = clients.failures();
    problems.extend(failures.iter().map(|(why, times)| format!("{times} times: {why}")));
    let done = clients.done();
    for kind in ["whole", "read slowly", "dropped part-way", "refused as wrong"] {
        if !done.contains_key(kind) {
            problems.push(format!("no request was {kind}"));
        }
    }
    let dropped = ["dropped early", "dropped part-way"].map(|kind| done.get(kind).copied().unwrap_or_default());
    // What failed or hung may have been signed for as well, and is a problem already.
    let others = failures.values().sum::<u64>() + stuck;
    let (contradictions, receipts, (sequence, total)) = clients.compare(dropped.iter().sum::<u64>() + others);
    problems.extend(contradictions);
    let stored = network.host.store().receipt(&network.channel, &enclave.claims.enclave_key)?;
    let stored = stored.map_or((0, 0), |stored| (stored.receipt.sequence, stored.receipt.total.0));
    if stored.0 < sequence || stored.1 < total {
        problems.push(format!("the host has receipt {stored:?}, and a client verified ({sequence}, {total})"));
    }
    let signed = newest(&ready.base_url, &network).await?.receipt;
    if stored != (signed.sequence, signed.total.0) {
        let signed = (signed.sequence, signed.total.0);
        problems.push(format!("the host has receipt {stored:?}, and the enclave has signed {signed:?}"));
    }
    let memory = json!({
        "enclave": memory("the enclave", &samples.enclave, &mut problems),
        "client_gateway_host": memory("client, gateway and host", &samples.own, &mut problems),
    });
    let summary = json!({
        "streams": args.streams, "seconds": seconds.round(), "done": done, "ended_per_second": (ended as f64 / seconds * 10.0).round() / 10.0,
        "failures": failures, "busy": clients.busy.load(Ordering::Relaxed), "stuck": stuck, "memory": memory,
        "files": samples.files, "receipt": {"compared": receipts, "verified": [sequence, total], "host": [stored.0, stored.1], "enclave": [signed.sequence, signed.total.0]},
        "problems": problems,
    });
    drop(clients);
    if let Some(network) = Arc::into_inner(network) {
        network.stop().await;
    }
    if args.json {
        println!("{summary}");
    } else {
        println!("*** {} ***\n\n{summary:#}", cocoon_cli::ui::NOT_CONFIDENTIAL);
    }
    Ok(problems.is_empty())
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = arguments()?;
    allow_files(args.streams)?;
    Ok(if soak(&args).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
