//! `cocoon audit watch`: a monitor. It replays what is new, again and again, and says what it finds: metrics on loopback for Prometheus,
//! alerts as JSON lines on standard output.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use clap::Args;
use cocoon_attestation::Digest;
use cocoon_transparency::replay::report::{Findings, Report};
use cocoon_transparency::replay::{Alerts, Finding, Kind};

use super::logs::LogArgs;
use super::progress::Progress;
use super::replay::{self, ChainArgs, How, ReplayArgs};

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    chain: ChainArgs,
    /// Seconds between two looks
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    every: u64,
    /// Where metrics are served, at /metrics; an address of this machine only
    #[arg(long, default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    metrics: SocketAddr,
    /// Look once, print alerts, and exit with the gravest finding's code
    #[arg(long)]
    once: bool,
    /// Threads that appraise [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// What the last looks came to.
#[derive(Default)]
struct Seen {
    report: Option<Report>,
    looks: u64,
    failures: u64,
    seconds: f64,
    at: u64,
}

pub(super) async fn run(args: WatchArgs) -> Result<ExitCode> {
    ensure!(args.metrics.ip().is_loopback(), "--metrics {}: metrics are served on this machine only", args.metrics);
    let verifier = replay::verifier_of_a_fleet();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let told = args.logs.work()?.join("alerts.redb");
    let alerts = Alerts::open(&told).with_context(|| told.display().to_string())?;
    let told = Arc::new(Mutex::new(Told { alerts, before: BTreeSet::new(), now: BTreeSet::new(), failed: None }));
    if !args.once {
        let listener = tokio::net::TcpListener::bind(args.metrics).await;
        let listener = listener
            .with_context(|| format!("cannot listen on {}: name another address with --metrics", args.metrics))?;
        eprintln!("cocoon: metrics at http://{}/metrics", listener.local_addr()?);
        let served = seen.clone();
        let router = Router::new().route("/metrics", get(move || async move { text(&served) }));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    loop {
        let started = Instant::now();
        let looked = look(&args, &verifier, &told).await;
        if let (Err(error), true) = (&looked, args.once) {
            anyhow::bail!("{error:#}");
        }
        let mut code = 0;
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.looks += 1;
            seen.seconds = started.elapsed().as_secs_f64();
            match looked {
                Ok(report) => {
                    seen.at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
                    code = report.exit_code;
                    seen.report = Some(report);
                }
                Err(error) => {
                    seen.failures += 1;
                    eprintln!("cocoon: {}", crate::ui::error(&error));
                }
            }
        }
        if args.once {
            return Ok(ExitCode::from(code));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.every.max(1))) => {}
            stopped = tokio::signal::ctrl_c() => {
                stopped.context("Ctrl-C")?;
                return Ok(ExitCode::from(code));
            }
        }
    }
}

fn say(line: &str) -> Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")
}

/// What was told, and what went wrong with telling.
struct Told {
    alerts: Alerts,
    /// What passes and comes back ([`passes`]), of the look before and of this one: told when it was not found the time before.
    before: BTreeSet<Digest>,
    now: BTreeSet<Digest>,
    failed: Option<anyhow::Error>,
}

impl Told {
    fn tell(&mut self, finding: &Finding) -> Result<()> {
        let identity = finding.identity();
        if !passes(finding.kind) {
            return self.alerts.tell(&identity, || say(&replay::alert(finding)));
        }
        if self.now.insert(identity) && !self.before.contains(&identity) {
            say(&replay::alert(finding))?;
        }
        Ok(())
    }
}

/// Whether something can be over and happen again, without anything having been recorded.
fn passes(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Unreachable
            | Kind::NotCosigned
            | Kind::BadCosignature
            | Kind::StaleCheckpoint
            | Kind::VerdictsNotFollowed
    )
}

async fn look(args: &WatchArgs, verifier: &cocoon_verifier::Verifier, told: &Arc<Mutex<Told>>) -> Result<Report> {
    let progress = Progress::new();
    let work = args.logs.work()?;
    let how = How { work: &work, jobs: replay::jobs(args.jobs), from: 0, verifier, progress: &progress };
    let tell = told.clone();
    // All of them pass by here, not only those that the report has room for.
    let findings = Findings::telling(move |finding| {
        let mut tell = tell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = tell.tell(finding) {
            tell.failed = Some(error);
        }
    });
    let report = replay::audit(&ReplayArgs::of(args.logs.clone(), args.chain.clone()), &how, findings).await;
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.alerts.write()?;
    let now = std::mem::take(&mut told.now);
    if report.is_ok() {
        told.before = now;
    }
    told.failed.take().map_or(report, Err)
}

fn text(seen: &Mutex<Seen>) -> impl IntoResponse + use<> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics(&seen))
}

/// In Prometheus's text format.
fn metrics(seen: &Seen) -> String {
    let head = |name: &str, kind: &str, help: &str| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    let mut text = String::new();
    text += &head("cocoon_audit_looks_total", "counter", "Looks at logs and chain.");
    text += &format!("cocoon_audit_looks_total {}\n", seen.looks);
    text +=
        &head("cocoon_audit_failures_total", "counter", "Looks without a result: a log or the chain did not answer.");
    text += &format!("cocoon_audit_failures_total {}\n", seen.failures);
    text += &head("cocoon_audit_seconds", "gauge", "Length of the last look.");
    text += &format!("cocoon_audit_seconds {:.3}\n", seen.seconds);
    text += &head("cocoon_audit_last_success_timestamp_seconds", "gauge", "Time of the last look with a result.");
    text += &format!("cocoon_audit_last_success_timestamp_seconds {}\n", seen.at);
    let Some(report) = &seen.report else { return text };
    text += &head("cocoon_audit_gravest", "gauge", "Exit code of the gravest finding: 0, 10, 20, 30.");
    text += &format!("cocoon_audit_gravest {}\n", report.exit_code);
    text += &head("cocoon_audit_findings", "gauge", "Findings by kind.");
    for kind in Kind::ALL {
        let count = report.counts.get(kind.name()).copied().unwrap_or(0);
        text += &format!(
            "cocoon_audit_findings{{kind=\"{}\",gravity=\"{}\"}} {count}\n",
            kind.name(),
            kind.gravity().name()
        );
    }
    for (name, help) in [
        ("cocoon_audit_log_leaves", "Leaves of the log's newest checkpoint."),
        ("cocoon_audit_log_replayed", "Leaves that were replayed."),
        ("cocoon_audit_log_accepted", "Leaves that say accepted."),
        ("cocoon_audit_log_refused", "Leaves that say anything else."),
        ("cocoon_audit_log_last_leaf_timestamp_seconds", "Time of the newest leaf."),
        ("cocoon_audit_log_witnesses", "Witnesses that cosigned the newest checkpoint."),
    ] {
        text += &head(name, "gauge", help);
        for log in &report.logs {
            let (result, totals) = (&log.result, &log.result.totals);
            let value = match name {
                "cocoon_audit_log_leaves" => result.size,
                "cocoon_audit_log_replayed" => result.replayed,
                "cocoon_audit_log_accepted" => totals.accepted,
                "cocoon_audit_log_refused" => totals.refused,
                "cocoon_audit_log_witnesses" => result.witnesses.len() as u64,
                _ => totals.last.map_or(0, |time| time.0),
            };
            text += &format!("{name}{{log=\"{}\"}} {value}\n", label(&result.origin));
        }
    }
    if let Some(chain) = &report.chain {
        let money = &chain.money;
        for (name, help, value) in [
            ("cocoon_audit_chain_attestations", "Attestations that came into force.", chain.attestations),
            ("cocoon_audit_chain_claims", "Claims that were settled.", chain.claims),
            ("cocoon_audit_chain_deposited_nanoton", "What clients put into channels.", money.deposited),
            ("cocoon_audit_chain_paid_nanoton", "What claims paid.", money.paid),
            ("cocoon_audit_chain_refunded_nanoton", "What went back to clients.", money.refunded),
            ("cocoon_audit_chain_held_nanoton", "What channels hold.", money.held),
        ] {
            text += &head(name, "gauge", help);
            text += &format!("{name} {value}\n");
        }
    }
    text
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
