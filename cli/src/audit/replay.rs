//! `cocoon audit replay`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use clap::Args;
use cocoon_attestation::UnixTime;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::{Address, NetworkId};
use cocoon_transparency::replay::chain::{ChainInput, ReplayedLog, reconcile};
use cocoon_transparency::replay::report::{Findings, Report};
use cocoon_transparency::replay::{Finding, Job, LogInput, LogResult, State, replay};
use cocoon_verifier::Verifier;
use serde_json::json;

use super::html;
use super::logs::{LogArgs, OpenLog, Trust, state_path};
use super::progress::Progress;
use crate::money;
use crate::ui::NOT_CONFIDENTIAL;

/// Platforms that are remembered, of each kind: a fleet's.
const PLATFORMS: usize = 8_192;

#[derive(Debug, Clone, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub logs: LogArgs,
    #[command(flatten)]
    pub chain: ChainArgs,
    /// Appraise from this leaf on; of those before only the hashes are checked
    #[arg(long, default_value_t = 0, value_name = "LEAF")]
    from: u64,
    /// Threads that appraise [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Write report.html and report.json into this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The report as one JSON object on standard output, instead of text
    #[arg(long)]
    json: bool,
}

impl ReplayArgs {
    /// Of logs and a chain, and nothing else.
    pub fn of(logs: LogArgs, chain: ChainArgs) -> Self {
        Self { logs, chain, from: 0, jobs: None, report: None, json: false }
    }
}

/// The chain that logs are held against.
#[derive(Debug, Clone, Args)]
pub(super) struct ChainArgs {
    /// Hold the logs against this chain: toncenter, or a local chain's API
    #[arg(long, value_name = "URL")]
    chain: Option<String>,
    /// The network: mainnet, testnet, local, or a global id [default: what --config says, else mainnet]
    #[arg(long, value_parser = money::network)]
    network: Option<NetworkId>,
    /// The Registry [default: what --config says]
    #[arg(long)]
    registry: Option<Address>,
    /// A channel to look at although no claim names it yet; repeatable
    #[arg(long = "channel")]
    channels: Vec<Address>,
    /// INDEX=ORIGIN: the verifier at this place of the Registry keeps the log of this name; repeatable. Without it, or `verifier` in the
    /// file of --config, the log backs no verdict: anyone with a verdict key can anchor any log
    #[arg(long = "verifier", value_name = "INDEX=ORIGIN", value_parser = verifier)]
    verifiers: Vec<(u8, String)>,
}

fn verifier(text: &str) -> Result<(u8, String), String> {
    let (index, origin) = text.split_once('=').ok_or("must be INDEX=ORIGIN, such as 0=node.example/log")?;
    let index = index.parse().map_err(|_| "the index must be a number below 16".to_owned())?;
    Ok((index, origin.to_owned()))
}

/// A chain that answers, and what to hold against it.
pub(super) struct OpenChain {
    pub chain: Box<dyn Chain>,
    pub registry: Address,
    pub as_of: UnixTime,
}

impl ChainArgs {
    /// The chain, if one is named. It is asked for its time before the logs are read: what is later may not be in them.
    pub async fn open(&self, trust: &Trust) -> Result<Option<OpenChain>> {
        let Some(url) = self.chain.as_ref().or(trust.chain.as_ref()) else { return Ok(None) };
        let registry = self
            .registry
            .or(trust.registry)
            .context("which Registry? Name it with --registry, or in the file of --config")?;
        let network = self.network.or(trust.network.map(NetworkId)).unwrap_or(NetworkId::MAINNET);
        let url = money::endpoint(url)?;
        let client = Toncenter::new(&url, std::env::var("COCOON_TONCENTER_KEY").ok(), network)?;
        client.check_network().await.with_context(|| format!("the chain at {url}; name another with --chain"))?;
        let as_of = client.head().await?.time;
        Ok(Some(OpenChain { chain: Box::new(client), registry, as_of }))
    }

    fn verifier_of(&self, log: &OpenLog) -> Option<u8> {
        let origin = cocoon_transparency::replay::origin(&log.key);
        self.verifiers.iter().find(|(_, named)| named == origin).map(|(index, _)| *index).or(log.verifier)
    }
}

/// How a replay is made.
pub(super) struct How<'a> {
    pub work: &'a Path,
    pub jobs: usize,
    pub from: u64,
    pub verifier: &'a Verifier,
    pub progress: &'a Progress,
}

/// Replays logs and holds them against the chain.
pub(super) async fn audit(
    args: &ReplayArgs,
    logs: &[OpenLog],
    chain: Option<&OpenChain>,
    how: &How<'_>,
) -> Result<Report> {
    let mut states = Vec::new();
    for log in logs {
        let path = state_path(how.work, &log.key);
        states.push(State::open(&path).with_context(|| path.display().to_string())?);
    }
    let stop = AtomicBool::new(false);
    let mut results: Vec<LogResult> = Vec::new();
    for (log, state) in logs.iter().zip(&states) {
        let origin = cocoon_transparency::replay::origin(&log.key);
        how.progress.begin(origin);
        let input = LogInput {
            source: &log.folder,
            key: &log.key,
            witnesses: &log.witnesses,
            checkpoints: &log.checkpoints,
            from: how.from,
        };
        let said = |done, of| how.progress.at(done, of);
        let job = Job { jobs: how.jobs, verifier: how.verifier, progress: &said, stop: &stop };
        let result = tokio::task::block_in_place(|| replay(&input, state, &job));
        how.progress.end();
        results.push(result.with_context(|| log.place.clone())?);
    }
    let mut findings = Findings::default();
    let chain = match chain {
        None => None,
        Some(open) => {
            let replayed: Vec<_> = logs
                .iter()
                .zip(&states)
                .zip(&results)
                .map(|((log, state), result)| ReplayedLog {
                    result,
                    state,
                    source: &log.folder,
                    verifier: args.chain.verifier_of(log),
                })
                .collect();
            how.progress.begin("transactions");
            let said = |done| how.progress.at(done, 0);
            let input = ChainInput {
                chain: &*open.chain,
                registry: open.registry,
                logs: &replayed,
                channels: &args.chain.channels,
                as_of: open.as_of,
                work: how.work,
                progress: &said,
            };
            let result = reconcile(&input, &mut findings).await;
            how.progress.end();
            Some(result?)
        }
    };
    let made = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let reported =
        logs.iter().zip(results).zip(&states).map(|((log, result), state)| (log.place.clone(), result, state));
    Ok(Report::new(UnixTime(made), reported.collect(), chain, findings)?)
}

pub(super) fn jobs(named: Option<usize>) -> usize {
    named.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

pub(super) fn verifier_of_a_fleet() -> Verifier {
    Verifier::with_capacity(PLATFORMS)
}

pub(super) async fn run(args: ReplayArgs) -> Result<ExitCode> {
    let progress = Progress::new();
    let trust = args.logs.trust()?;
    let chain = args.chain.open(&trust).await?;
    let logs = args.logs.open(&trust, &progress).await?;
    progress.end();
    let (work, verifier) = (args.logs.work()?, verifier_of_a_fleet());
    let how = How { work: &work, jobs: jobs(args.jobs), from: args.from, verifier: &verifier, progress: &progress };
    let report = audit(&args, &logs, chain.as_ref(), &how).await?;
    for log in logs.iter().filter(|log| log.unauthenticated) {
        eprintln!(
            "cocoon: the key of {} was taken from its own folder: nothing says whose log it is; name the key with --log-key",
            log.place
        );
    }
    let written = args.report.as_deref().map(|folder| write(folder, &report)).transpose()?;
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { for_people(&report, written.as_deref()) };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the result")?;
    Ok(ExitCode::from(report.exit_code))
}

fn write(folder: &Path, report: &Report) -> Result<PathBuf> {
    let page = folder.join("report.html");
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)? + "\n")?;
        fs::write(&page, html::page(report))
    };
    write().with_context(|| format!("cannot write to {}", folder.display()))?;
    Ok(page)
}

/// The command that shows a finding again.
pub(super) fn command(finding: &Finding, report: &Report) -> Option<String> {
    let log = finding.log.as_deref().and_then(|origin| report.logs.iter().find(|log| log.result.origin == origin));
    let place = |log: &cocoon_transparency::replay::report::LogReport| quoted(&log.place);
    match (log, finding.leaf, &finding.evidence_id, &report.chain) {
        (Some(log), _, Some(id), _) if finding.leaf.is_some() => {
            Some(format!("cocoon audit bundle {id} {} --log-key {}", place(log), quoted(&log.result.key)))
        }
        (Some(log), Some(leaf), None, _) => {
            Some(format!("cocoon audit bundle --leaf {leaf} {} --log-key {}", place(log), quoted(&log.result.key)))
        }
        (Some(log), ..) if finding.transaction.is_none() => {
            Some(format!("cocoon audit replay {} --log-key {}", place(log), quoted(&log.result.key)))
        }
        (_, _, _, Some(chain)) => {
            let logs: Vec<_> =
                report.logs.iter().map(|log| format!("{} --log-key {}", place(log), quoted(&log.result.key))).collect();
            Some(format!(
                "cocoon audit replay {} --chain URL --network {} --registry {}",
                logs.join(" "),
                chain.network,
                chain.registry
            ))
        }
        _ => None,
    }
}

/// For a shell, where that is needed.
fn quoted(text: &str) -> String {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._:+=-".contains(&byte));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn for_people(report: &Report, page: Option<&Path>) -> String {
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&(text + "\n"));
    if report.development {
        line(format!("*** {NOT_CONFIDENTIAL} ***"));
    }
    for log in &report.logs {
        let (result, totals) = (&log.result, &log.result.totals);
        line(format!(
            "{}  {} leaves, {} accepted, {} refused, {} enclaves",
            result.origin, result.size, totals.accepted, totals.refused, log.enclaves
        ));
        let tree =
            if result.whole { "makes the tree that was signed" } else { "DOES NOT MAKE the tree that was signed" };
        let witnesses: Vec<_> = result.witnesses.iter().map(|(name, _)| name.as_str()).collect();
        let cosigned = if witnesses.is_empty() {
            "no witness was named".into()
        } else {
            format!("cosigned by {}", witnesses.join(", "))
        };
        line(format!("    {tree}; {cosigned}"));
    }
    if let Some(chain) = &report.chain {
        let money = &chain.money;
        let ton = |nanoton| cocoon_settlement::Nanoton(nanoton).to_string();
        line(format!(
            "chain  {} attestations of {} providers, {} claims on {} channels; {} verdicts followed to their leaves, {} receipts to an attestation",
            chain.attestations,
            chain.provider_count,
            chain.claims,
            chain.channel_count,
            chain.verdicts_followed,
            chain.receipts_followed
        ));
        line(format!(
            "    in {}, paid {}, refunded {}, held {}; stake {}",
            ton(money.deposited),
            ton(money.paid),
            ton(money.refunded),
            ton(money.held),
            ton(chain.stake)
        ));
        if chain.verdicts_without_log > 0 {
            line(format!(
                "    {} verdicts could not be followed: nobody says which log their verifiers keep, or it was not given",
                chain.verdicts_without_log
            ));
        }
    }
    if report.findings.is_empty() {
        line("nothing was found".into());
    }
    for finding in &report.findings {
        let place = finding.log.as_deref().map(|log| format!("{log} ")).unwrap_or_default();
        let leaf = finding.leaf.map(|leaf| format!("leaf {leaf} ")).unwrap_or_default();
        line(format!("{}: {} {place}{leaf}", finding.gravity.name(), finding.kind.name()));
        line(format!("    {}", finding.detail));
        if let Some(command) = command(finding, report) {
            line(format!("    $ {command}"));
        }
    }
    let told = report.findings.len() as u64;
    let all: u64 = report.counts.values().sum();
    if all > told {
        line(format!("{} more of the same kinds are counted in the report", all - told));
    }
    if let Some(page) = page {
        line(format!("report: {}", page.display()));
    }
    // What a log says never reaches the terminal as it stands.
    out.chars().map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter }).collect()
}

/// Findings as JSON lines, for alerts.
pub(super) fn alert(finding: &Finding) -> String {
    json!({ "schema": "cocoon/audit-alert/v1", "finding": finding }).to_string()
}
