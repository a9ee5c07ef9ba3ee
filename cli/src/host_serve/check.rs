//! `cocoon host serve --check`: a line for everything that the configuration names, from this machine outwards.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::wallet::Wallet;
use cocoon_settlement::{Address, Nanoton, NetworkId, ops};
use tokio::net::TcpListener;

use super::{HostFile, Local, foreign, provider, registry, unlock};
use crate::provider::Guest;
use crate::{config, host_launch};

/// What an attestation sends along, 0.2 TON, and a full batch of claims, 0.05 for each of eight, with their fees: less and the next one fails.
const LEAST_BALANCE: Nanoton = Nanoton(650_000_000);
/// How long each service gets.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said, and whether anything was wrong.
#[derive(Default)]
struct Report {
    wrong: usize,
}

impl Report {
    fn say<T: Display>(&mut self, what: &str, found: Result<T>) -> bool {
        let ok = found.is_ok();
        match found {
            Ok(found) => println!("ok       {what:<14} {}", foreign(&found.to_string())),
            Err(error) => {
                self.wrong += 1;
                println!("wrong    {what:<14} {}", foreign(&format!("{error:#}")));
            }
        }
        ok
    }

    fn unknown(what: &str, why: &str) {
        println!("unknown  {what:<14} {}", foreign(why));
    }
}

/// Runs it. The exit code is that of `cocoon host doctor`: 0 if nothing is wrong, 10 if something is.
pub(super) async fn run(file: &HostFile, base: &Path, passphrase: Option<&Path>) -> Result<ExitCode> {
    let mut report = Report::default();
    let local = file.local(base);
    let summary = local.as_ref().map(|_| "every key says something possible");
    report.say("configuration", summary.map_err(|error| anyhow::anyhow!("{error:#}")));
    report.say("listen", listen(file).await);
    report.say("data", data(&base.join(&file.data)));
    if let Ok(local) = &local {
        guest(&mut report, &local.guest).await;
    }
    let wallet = wallet(file, base, passphrase, local.as_ref().ok());
    report.say("wallet", wallet.as_ref().map_err(|error| anyhow::anyhow!("{error:#}")));
    on_chain(&mut report, file, base, wallet.ok()).await;
    if let Ok(local) = &local {
        for node in &local.nodes {
            report.say("node", log_of(node).await);
        }
        for gateway in &local.gateways {
            report.say("gateway", health_of(gateway).await);
        }
    }
    println!(
        "{}",
        match report.wrong {
            0 => "Ready: `cocoon host serve` without --check starts.".to_owned(),
            wrong => format!("{wrong} wrong."),
        }
    );
    Ok(ExitCode::from(if report.wrong == 0 { 0 } else { 10 }))
}

async fn listen(file: &HostFile) -> Result<String> {
    TcpListener::bind(file.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: a host runs already, or something else does; name another address as `listen`",
            file.listen
        )
    })?;
    Ok(match &file.url {
        Some(url) => format!("{} is free; gateways are told {url}, which must lead there", file.listen),
        None => format!("{} is free", file.listen),
    })
}

/// Whether the folder, or the nearest one above it that is there, can be written. Nothing is left behind.
fn data(path: &Path) -> Result<String> {
    let there = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    tempfile::tempfile_in(there)
        .with_context(|| format!("{} cannot be written: name another folder as `data`", there.display()))?;
    Ok(format!("{}, {}", path.display(), if path.is_dir() { "which is there" } else { "which will be made" }))
}

async fn guest(report: &mut Report, guest: &Guest) {
    match guest {
        Guest::Process { binary, .. } => {
            report.say("guest", Ok(format!("{} as a process: {}", binary.display(), crate::ui::NOT_CONFIDENTIAL)));
        }
        Guest::Machine(plan, _) => {
            let fit = host_launch::wrong(plan).await.and_then(|wrong| {
                ensure!(
                    wrong.is_empty(),
                    "this machine is not fit for it, as `cocoon host doctor` says: {}",
                    wrong.join("; ")
                );
                Ok(format!("{}, a {} guest that this machine can run", plan.config.name, plan.config.tee))
            });
            report.say("guest", fit);
        }
        Guest::Running(address, _) => {
            let asked = address.clone();
            let reached = tokio::task::spawn_blocking(move || asked.reach()).await;
            let reached = reached.map_err(anyhow::Error::from).and_then(|reached| {
                reached.map_err(anyhow::Error::msg).with_context(|| {
                    format!("`guest.address`: no guest answers at {address}; `cocoon host launch` starts one")
                })?;
                Ok(format!("one answers at {address}"))
            });
            report.say("guest", reached);
        }
    }
}

fn wallet(file: &HostFile, base: &Path, passphrase: Option<&Path>, local: Option<&Local>) -> Result<Address> {
    let secret = unlock(file, base, passphrase)?;
    let version = local.map(|local| local.version).unwrap_or_default();
    Ok(Wallet::with_version(*secret, NetworkId(file.network), version)?.address())
}

async fn on_chain(report: &mut Report, file: &HostFile, base: &Path, wallet: Option<Address>) {
    let chain = match config::chain(&file.chain, file.network, file.chain_key_file.as_deref(), base) {
        Ok(chain) => chain,
        Err(error) => {
            report.say::<String>("chain", Err(error));
            return Report::unknown("contracts", "the chain cannot be asked");
        }
    };
    let found = async {
        chain.check_network().await.context("`chain` and `network`")?;
        let head = chain.head().await.context("`chain`")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(format!("{}, block {} of {} s ago", chain.network(), head.seqno, now.saturating_sub(head.time.0)))
    };
    if !report.say("chain", found.await) {
        return Report::unknown("contracts", "the chain cannot be asked");
    }
    let params = registry(&chain, file).await;
    report.say(
        "registry",
        params.map(|params| {
            let (threshold, verifiers, images) = (params.threshold, params.verifiers.len(), params.images.len());
            format!("{threshold} of {verifiers} verdicts, {images} images allowed")
        }),
    );
    let Some(wallet) = wallet else {
        return Report::unknown("provider", "whether it is this wallet's cannot be told");
    };
    let terms = provider(&chain, file, &wallet).await;
    report.say(
        "provider",
        terms.map(|terms| format!("this wallet's; claims are paid for {} s after an attestation", terms.claim_window)),
    );
    // Where it cannot be told, the line above has said why.
    let lacks = ops::provider_lacks(&*chain, &file.provider, 1).await.unwrap_or_default();
    let balance = chain.account(&wallet).await.map_err(anyhow::Error::from).and_then(|account| {
        ensure!(
            account.balance >= LEAST_BALANCE.saturating_add(lacks),
            "the wallet {wallet} holds {}, and an attestation sends 0.2 TON along and {lacks} that the provider lacks of a year's rent, a batch of claims 0.4: send it 1 TON more than that",
            account.balance
        );
        Ok(format!("{}, for attestations and claims", account.balance))
    });
    report.say("balance", balance);
}

/// Name and size of a node's log.
async fn log_of(node: &str) -> Result<String> {
    let url = format!("{node}/checkpoint");
    let hint = || format!("`nodes`: {node} does not show its log's checkpoint");
    let (status, body) = cocoon_host::get(&url, PATIENCE).await.with_context(hint)?;
    ensure!(status == 200, "{}: status {status}", hint());
    let text = String::from_utf8_lossy(&body);
    let mut lines = text.lines();
    let (Some(name), Some(size)) = (lines.next(), lines.next().and_then(|size| size.parse::<u64>().ok())) else {
        anyhow::bail!("{}: what is there is none", hint());
    };
    Ok(format!("{node}, log {name} of {size} leaves"))
}

async fn health_of(gateway: &str) -> Result<String> {
    let url = format!("{gateway}/health");
    let hint = || format!("`gateways`: {gateway} does not say how it is");
    let (status, body) = cocoon_host::get(&url, PATIENCE).await.with_context(hint)?;
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    ensure!(status == 200 && said["status"] == "ok", "{}: status {status}", hint());
    Ok(format!("{gateway}, which lists {} enclaves", said["enclaves"]))
}
