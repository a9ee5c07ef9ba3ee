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
use cocoon_transparency::replay::report::{Asked, Findings, LogReport, Report};
use cocoon_transparency::replay::{Finding, Job, Kind, LogInput, LogResult, State, replay, unreachable};
use cocoon_verifier::Verifier;
use serde_json::json;

use super::html;
use super::logs::{LogArgs, OpenLog, Trust, state_paths};
use super::mirror;
use super::progress::Progress;
use crate::money;
use crate::ui::{NOT_CONFIDENTIAL, within_line};

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

/// A chain that was named.
pub(super) struct NamedChain {
    pub url: String,
    pub network: NetworkId,
    pub registry: Address,
}

/// A chain that answers, and what to hold against it.
pub(super) struct OpenChain {
    pub chain: Box<dyn Chain>,
    pub registry: Address,
    pub as_of: UnixTime,
}

impl NamedChain {
    /// Connects. The chain is asked for its time before the logs are read: what is later may not be in them.
    pub async fn open(&self) -> Result<OpenChain> {
        let client = Toncenter::new(&self.url, std::env::var("COCOON_TONCENTER_KEY").ok(), self.network)?;
        let checked = client.check_network().await;
        checked.with_context(|| format!("the chain at {}; name another with --chain", self.url))?;
        let as_of = client.head().await?.time;
        Ok(OpenChain { chain: Box::new(client), registry: self.registry, as_of })
    }
}

impl ChainArgs {
    /// The chain, if one is named.
    pub fn named(&self, trust: &Trust) -> Result<Option<NamedChain>> {
        let Some(url) = self.chain.as_ref().or(trust.chain.as_ref()) else { return Ok(None) };
        let registry = self
            .registry
            .or(trust.registry)
            .context("which Registry? Name it with --registry, or in the file of --config")?;
        let network = self.network.or(trust.network.map(NetworkId)).unwrap_or(NetworkId::MAINNET);
        Ok(Some(NamedChain { url: money::endpoint(url)?, network, registry }))
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

/// Fetches and replays logs and holds them against the chain. A log or a chain that does not answer is found, and the others go on.
pub(super) async fn audit(args: &ReplayArgs, how: &How<'_>, mut findings: Findings) -> Result<Report> {
    let trust = args.logs.trust()?;
    let named = args.chain.named(&trust)?;
    let mut chain = match &named {
        None => None,
        Some(named) => Some(named.open().await.map_err(|error| format!("{error:#}"))),
    };
    let logs = args.logs.open(&trust, how.progress).await?;
    how.progress.end();
    let mut states = Vec::new();
    let mut results: Vec<LogResult> = Vec::new();
    let mut read = Vec::new();
    for log in &logs {
        let (state, result) = one(log, how)?;
        read.push(result.is_ok());
        results.push(match result {
            Ok(result) => result,
            Err(why) => unreachable(&log.key, &why, &state)?,
        });
        states.push(state);
        log.findings.iter().cloned().for_each(|finding| findings.add(finding));
    }
    let mut reconciled = None;
    if let Some(Ok(open)) = &chain {
        let replayed: Vec<_> = logs
            .iter()
            .zip(&states)
            .zip(&results)
            .zip(&read)
            .filter(|(_, read)| **read)
            .filter_map(|(((log, state), result), _)| {
                let source = log.folder.as_ref().ok()?;
                Some(ReplayedLog { result, state, source, verifier: args.chain.verifier_of(log) })
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
        match result {
            Ok(result) => reconciled = Some(result),
            Err(error) => chain = Some(Err(error.to_string())),
        }
    }
    if let (Some(named), Some(Err(why))) = (&named, &chain) {
        findings.add(Finding::new(Kind::Unreachable, format!("the chain: {why}")).about(named.url.clone()));
    }
    for ((log, result), _) in logs.iter().zip(&results).zip(&read).filter(|(_, read)| **read) {
        let doubtful =
            result.root.is_some() && !result.whole || result.totals.findings.of(Kind::TileDiffers.name()) > 0;
        if let (true, true, Ok(folder)) = (doubtful, log.copied, &log.folder) {
            mirror::doubt(&folder.0)?;
        }
    }
    let made = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let reported =
        logs.iter().zip(results).zip(&states).map(|((log, result), state)| (log.place.clone(), result, state));
    let mut report = Report::new(UnixTime(made), reported.collect(), reconciled, findings)?;
    for (log, told) in logs.iter().zip(&mut report.logs) {
        told.key_unchecked = log.unauthenticated;
        told.named_witnesses.clone_from(&log.witnesses);
    }
    report.asked = Asked {
        chain: named.map(|named| named.url),
        checkpoints: args.logs.checkpoint_files(),
        channels: args.chain.channels.iter().map(Address::to_string).collect(),
        verifiers: args.chain.verifiers.clone(),
    };
    Ok(report)
}

/// One log's replay, or why there is none.
fn one(log: &OpenLog, how: &How<'_>) -> Result<(State, Result<LogResult, String>)> {
    let (path, seen) = state_paths(how.work, log, how.from);
    let source = match &log.folder {
        Ok(folder) => folder,
        Err(why) => return Ok((State::in_memory_beside(&seen)?, Err(why.clone()))),
    };
    how.progress.begin(cocoon_transparency::replay::origin(&log.key));
    let replayed = || {
        let state = State::open_copy(&path, &seen)?;
        let (key, witnesses, checkpoints) = (log.key.as_str(), &log.witnesses, &log.checkpoints);
        let input = LogInput { source, key, witnesses, checkpoints, from: how.from };
        let said = |done, of| how.progress.at(done, of);
        let stop = AtomicBool::new(false);
        let job = Job { jobs: how.jobs, verifier: how.verifier, progress: &said, stop: &stop };
        let result = tokio::task::block_in_place(|| replay(&input, &state, &job))?;
        Ok::<_, cocoon_transparency::Error>((state, result))
    };
    let replayed = replayed();
    how.progress.end();
    match replayed {
        Ok((state, result)) => Ok((state, Ok(result))),
        // The file of checkpoints may be what failed.
        Err(error) => Ok((State::in_memory_beside(&seen).or_else(|_| State::in_memory())?, Err(error.to_string()))),
    }
}

pub(super) fn jobs(named: Option<usize>) -> usize {
    named.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

pub(super) fn verifier_of_a_fleet() -> Verifier {
    Verifier::with_capacity(PLATFORMS)
}

pub(super) async fn run(args: ReplayArgs) -> Result<ExitCode> {
    let progress = Progress::new();
    let (work, verifier) = (args.logs.work()?, verifier_of_a_fleet());
    let how = How { work: &work, jobs: jobs(args.jobs), from: args.from, verifier: &verifier, progress: &progress };
    let report = audit(&args, &how, Findings::default()).await?;
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
    let of = finding.log.as_deref().and_then(|origin| report.logs.iter().find(|log| log.result.origin == origin));
    let place = |log: &LogReport| format!(" {} --log-key {}", quoted(&log.place), quoted(&log.result.key));
    let asked = &report.asked;
    let mut command;
    match (of, finding.leaf, &report.chain) {
        (Some(log), Some(leaf), _) if !matches!(finding.kind, Kind::MissingLeaf | Kind::TileDiffers) => {
            return Some(format!("cocoon audit bundle --leaf {leaf}{}", place(log)));
        }
        (Some(log), ..) if finding.transaction.is_none() => {
            command = format!("cocoon audit replay{}", place(log));
            for witness in &log.named_witnesses {
                command += &format!(" --witness {}", quoted(witness));
            }
        }
        (_, _, Some(chain)) => {
            command = "cocoon audit replay".to_owned();
            command.extend(report.logs.iter().map(place));
            if let Some(url) = &asked.chain {
                command += &format!(" --chain {}", quoted(url));
            }
            command += &format!(" --network {} --registry {}", chain.network, chain.registry);
            for (index, origin) in &asked.verifiers {
                command += &format!(" --verifier {}", quoted(&format!("{index}={origin}")));
            }
            // Those that the file of --config names: whose log it is, the chain does not say.
            for link in chain.verifiers.iter().filter(|link| !asked.verifiers.iter().any(|(of, _)| *of == link.index)) {
                if let Some(log) = &link.log {
                    command += &format!(" --verifier {}", quoted(&format!("{}={log}", link.index)));
                }
            }
            for channel in &asked.channels {
                command += &format!(" --channel {channel}");
            }
        }
        _ => return None,
    }
    for file in &asked.checkpoints {
        command += &format!(" --checkpoint {}", quoted(file));
    }
    Some(command)
}

/// For a shell, where that is needed.
fn quoted(text: &str) -> String {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._:+=-".contains(&byte));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// What has to be said of a log whose key nobody named.
pub(super) const KEY_UNCHECKED: &str =
    "the key was taken from the log's own folder: nothing says whose log it is; name the key with --log-key";

fn for_people(report: &Report, page: Option<&Path>) -> String {
    let mut out = String::new();
    // What a log says never reaches the terminal as it stands.
    let mut line = |text: String| out.push_str(&(within_line(&text) + "\n"));
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
        if log.key_unchecked {
            line(format!("    {KEY_UNCHECKED}"));
        }
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
    out
}

/// Findings as JSON lines, for alerts.
pub(super) fn alert(finding: &Finding) -> String {
    json!({ "schema": "cocoon/audit-alert/v1", "finding": finding }).to_string()
}
