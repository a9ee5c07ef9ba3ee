//! `cocoon host`: a provider's machine and guests, its contract, its stake, and what it earned.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use cocoon_attestation::{EnclaveKey, UnixTime};
use cocoon_host::claim::AT_ONCE;
use cocoon_host::store::Store;
use cocoon_host::{ClaimRule, Claimer, Held};
use cocoon_settlement::contracts::{ProviderInit, exit, provider, registry as registry_contract};
use cocoon_settlement::{Address, Nanoton, ops};
use serde_json::json;

use super::evidence::EvidenceFile;
use super::{ChainArgs, PayArgs, Source, duration};
use crate::host_doctor::{self, DoctorArgs};
use crate::host_launch::{self, LaunchArgs};
use crate::host_serve::{self, ServeArgs};

/// A GPU provider's side.
#[derive(Debug, Args)]
pub struct HostArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Doctor(DoctorArgs),
    Launch(LaunchArgs),
    Serve(ServeArgs),
    #[command(flatten)]
    Contract(ContractCommand),
}

#[derive(Debug, Subcommand)]
enum ContractCommand {
    /// Deploy a provider's contract, owned by the wallet
    Register {
        /// The Registry whose verdicts it takes
        registry: Address,
        /// Seconds after the end of an attestation in which its receipts are paid, 90 days at most
        #[arg(long, default_value_t = crate::network::CLAIM_WINDOW)]
        claim_window: u32,
        /// A number, for more than one contract of one wallet
        #[arg(long, default_value_t = 0)]
        number: u32,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Show a provider's terms, stake and keys
    Status {
        /// The Provider
        provider: Address,
        /// An enclave key, hexadecimal: its attestation
        #[arg(long = "enclave-key")]
        keys: Vec<EnclaveKey>,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Add to the stake; what can cost it is said first
    Stake {
        /// The Provider
        provider: Address,
        /// How much, in TON
        amount: Nanoton,
        /// The provider belongs to somebody else, who gets the stake back: give it away
        #[arg(long)]
        gift: bool,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Anyone: pay the rent of a provider's contract. Its owner can take out what is more than a year's
    Fund {
        /// The Provider
        provider: Address,
        /// How much, in TON [default: what it lacks of a year's rent, stake apart]
        amount: Option<Nanoton>,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Start to take stake back
    Unstake {
        /// The Provider
        provider: Address,
        /// How much, in TON
        amount: Nanoton,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Take out what is neither stake nor unbonding nor rent
    Withdraw {
        /// The Provider
        provider: Address,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Claim what the receipts of a stopped host have earned; a running one claims by itself
    Claim {
        /// The Provider
        provider: Address,
        /// The host's folder, `host` in the data folder of `cocoon up`
        #[arg(long)]
        data: PathBuf,
        /// Claim what was refused before, too, whatever that has cost, and before its time
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Show what the record of a stopped host has earned in each channel: what is still claimed from, and what has ended
    Record {
        /// The host's folder, `host` in the data folder of `cocoon up`
        #[arg(long)]
        data: PathBuf,
        /// Write comma-separated values to this file instead; - is standard output
        #[arg(long)]
        csv: Option<PathBuf>,
    },
    /// Show which enclaves contradicted themselves by the record of a stopped host; `cocoon channel report` shows it to their provider
    Evidence {
        /// The host's folder, `host` in the data folder of `cocoon up`
        #[arg(long)]
        data: PathBuf,
        /// Write a file for each into this folder
        #[arg(long)]
        out: Option<PathBuf>,
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// Close a channel at once in its client's favour. Claim first: what is unclaimed is given up
    Release {
        /// The Provider
        provider: Address,
        /// The Channel
        channel: Address,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// End an enclave key's attestation at once
    Revoke {
        /// The Provider
        provider: Address,
        /// The key, hexadecimal
        key: EnclaveKey,
        /// Others may know it: pay none of its claims any more
        #[arg(long)]
        void: bool,
        #[command(flatten)]
        pay: PayArgs,
    },
}

/// What can cost a provider its stake, in plain words; and who gets it back, if that is not who stakes.
fn risk(window: u32, owner: Option<&Address>) -> Vec<String> {
    let unlocks = duration(604_800 + u64::from(window) + 86_400);
    let back = match owner {
        None => format!("You get it back by `cocoon host unstake`, {unlocks} later."),
        Some(owner) => format!(
            "You do not get it back: only the provider's owner {owner} can take it out, {unlocks} later, and it is his then."
        ),
    };
    vec![
        "What can cost you all of it: anybody who shows two receipts of one of your attested enclaves that cannot both be true.".into(),
        "  (One channel, and either the same number twice with different content, or a later number with a lower total.)".into(),
        "  An enclave that runs the published image never signs such a pair. One can that is broken into, or that runs on a machine of yours".into(),
        "  whose protection was broken: whoever gets one key out of it can have it sign anything. Nobody but you can bring enclaves here.".into(),
        "  A fifth then goes to whoever reports it, the rest is burned, and the key is void. There is no appeal.".into(),
        "What cannot cost you stake: being offline, slow, full, or refusing work; losing your data; an attestation that ends.".into(),
        back,
    ]
}

/// Runs the command.
///
/// # Errors
/// The chain or the contract says no, or the owner does.
pub async fn run(args: HostArgs) -> Result<ExitCode> {
    match args.command {
        Command::Doctor(args) => tokio::task::spawn_blocking(move || host_doctor::run(&args)).await?,
        Command::Launch(args) => host_launch::run(args).await,
        Command::Serve(args) => host_serve::run(args).await,
        Command::Contract(command) => contract(command).await.map(|()| ExitCode::SUCCESS),
    }
}

async fn contract(command: ContractCommand) -> Result<()> {
    match command {
        ContractCommand::Register { registry, claim_window, number, pay } => {
            register(&pay, registry, claim_window, number).await
        }
        ContractCommand::Status { provider, keys, chain } => status(&provider, &keys, &chain).await,
        ContractCommand::Stake { provider, amount, gift, pay } => {
            let payer = pay.open().await?;
            let terms = ops::provider_terms(&*payer.chain, &provider).await?;
            let others = Some(&terms.owner).filter(|owner| **owner != payer.account.address());
            if let Some(owner) = others {
                ensure!(
                    gift,
                    "the provider belongs to {owner}, who alone can take stake back, and this wallet is {}: --gift stakes it for him all the same",
                    payer.account.address()
                );
            }
            let stake = provider::stake_state(&*payer.chain, &provider).await?.stake;
            let mut ask = vec![format!(
                "This adds {amount}, less about 0.01 TON of fees, to the stake of {stake} of the provider {provider}."
            )];
            ask.extend(risk(terms.claim_window, others));
            let before = payer.ask(&ask).await?;
            let report = ops::stake(&payer.account, &provider, amount).await?;
            let stake = provider::stake_state(&*payer.chain, &provider).await?.stake;
            payer.explain("stake", before, report, json!({ "stake_nanoton": stake.0 })).await
        }
        ContractCommand::Fund { provider, amount, pay } => fund(&pay, provider, amount).await,
        ContractCommand::Record { data, csv } => record(&data, csv),
        ContractCommand::Evidence { data, out, json } => evidence(&data, out.as_deref(), json),
        ContractCommand::Unstake { provider, amount, pay } => {
            let payer = pay.open().await?;
            let terms = owned(&payer, &provider).await?;
            let state = provider::stake_state(&*payer.chain, &provider).await?;
            ensure!(amount <= state.stake, "the stake is {}, less than {amount}", state.stake);
            let wait = duration(604_800 + u64::from(terms.claim_window) + 86_400);
            let mut ask = vec![format!(
                "This starts to take {amount} back. It can be withdrawn in {wait}, and can be lost until then."
            )];
            if state.unbonding > Nanoton::ZERO {
                ask.push(format!("The {} that unbond already wait from the start again with it.", state.unbonding));
            }
            let before = payer.ask(&ask).await?;
            let report = ops::unstake(&payer.account, &provider, amount).await?;
            let unlocks = provider::stake_state(&*payer.chain, &provider).await?.unlocks_at;
            payer.explain("unstake", before, report, json!({ "unlocks_at": unlocks.0 })).await
        }
        ContractCommand::Withdraw { provider, pay } => {
            let payer = pay.open().await?;
            owned(&payer, &provider).await?;
            let free = provider::stake_state(&*payer.chain, &provider).await?.free;
            ensure!(free > Nanoton::ZERO, "nothing is free: all it holds is stake, unbonding or a year's rent");
            let before = payer
                .ask(&[format!("This takes {free} out of the provider's contract. Fees: about 0.006 TON.")])
                .await?;
            let report = ops::withdraw(&payer.account, &provider).await?;
            payer.explain("withdraw", before, report, json!({})).await
        }
        ContractCommand::Claim { provider, data, again, pay } => claim(&pay, provider, data, again).await,
        ContractCommand::Release { provider, channel, pay } => {
            let payer = pay.open().await?;
            owned(&payer, &provider).await?;
            let state = ops::channel_state(&*payer.chain, &channel).await?;
            let terms = ops::channel_terms(&*payer.chain, &channel).await?;
            let mut ask = vec![
                format!("This closes the channel at once: {} go back to its client {}.", state.available, terms.client),
                "Whatever you earned in it and have not claimed is given up. Fees: about 0.012 TON.".into(),
            ];
            ask.extend(super::closing_rent(&*payer.chain, &channel).await?);
            let before = payer.ask(&ask).await?;
            let report = ops::release_channel(&payer.account, &provider, &channel).await?;
            payer.explain("release-channel", before, report, json!({ "channel": channel.to_string() })).await
        }
        ContractCommand::Revoke { provider, key, void, pay } => {
            let payer = pay.open().await?;
            owned(&payer, &provider).await?;
            let claims =
                if void { "None of its receipts is paid any more" } else { "Its receipts so far stay payable" };
            let before = payer
                .ask(&[format!(
                    "This ends the attestation of enclave key {key} at once. {claims}. Fees: about 0.006 TON."
                )])
                .await?;
            let report = ops::revoke(&payer.account, &provider, &key, void).await?;
            payer.explain("revoke", before, report, json!({})).await
        }
    }
}

async fn owned(payer: &super::Payer<'_>, provider: &Address) -> Result<ProviderInit> {
    let terms = ops::provider_terms(&*payer.chain, provider).await?;
    let own = payer.account.address();
    ensure!(terms.owner == own, "the provider belongs to {}, and this wallet is {own}", terms.owner);
    Ok(terms)
}

async fn register(pay: &PayArgs, registry: Address, claim_window: u32, number: u32) -> Result<()> {
    let payer = pay.open().await?;
    let params = ops::registry_params(&*payer.chain, &registry).await.context("the Registry")?;
    let release = registry_contract::release(&*payer.chain, &registry).await?;
    release.check_provider()?;
    let mut salt = [0; 32];
    salt[28..].copy_from_slice(&number.to_be_bytes());
    let init = ProviderInit { network: params.network, registry, owner: payer.account.address(), claim_window, salt };
    init.check()?;
    let address = init.address();
    ensure!(
        !payer.chain.account(&address).await?.active,
        "{address} is this wallet's contract number {number} already; --number makes another one"
    );
    let [whose, code] = super::vouched(&release, "providers", &registry, &Source::CommandLine);
    let before = payer
        .ask(&[
            format!("This deploys the provider's contract {address}, owned by this wallet for ever,"),
            format!("  with {} for its rent. Fees: about 0.008 TON.", ops::PROVIDER_RENT),
            whose,
            code,
            format!(
                "Receipts are paid until {} after the attestation of their enclave ends.",
                duration(claim_window.into())
            ),
            "Losing the wallet's key loses the contract: its owner cannot be changed.".into(),
        ])
        .await?;
    let (_, report) = ops::deploy_provider(&payer.account, &init).await?;
    if !pay.chain.json {
        super::print(&super::table(&[("provider", address.to_string())]))?;
    }
    payer.explain("register", before, report, json!({ "provider": address.to_string() })).await
}

async fn status(address: &Address, keys: &[EnclaveKey], args: &ChainArgs) -> Result<()> {
    let chain = args.open().await?;
    let terms = ops::provider_terms(&*chain, address).await?;
    let stake = provider::stake_state(&*chain, address).await?;
    let count = provider::key_count(&*chain, address).await?;
    let lacks = ops::provider_lacks(&*chain, address, 0).await?;
    let balance = chain.account(address).await?.balance;
    let now = chain.head().await?.time;
    let unbonding = match stake.unbonding {
        Nanoton::ZERO => "nothing".to_owned(),
        amount if now < stake.unlocks_at => format!("{amount}, free in {}", duration(stake.unlocks_at.0 - now.0)),
        amount => format!("{amount}, free now"),
    };
    let mut rows = vec![
        ("provider", address.to_string()),
        ("network", terms.network.to_string()),
        ("owner", terms.owner.to_string()),
        ("Registry", terms.registry.to_string()),
        ("claim window", duration(terms.claim_window.into())),
        ("holds", balance.to_string()),
        ("  stake", stake.stake.to_string()),
        ("  unbonding", unbonding),
        ("  to withdraw", stake.free.to_string()),
        ("  lacks of a year's rent", if lacks == Nanoton::ZERO { "nothing".into() } else { lacks.to_string() }),
        ("enclave keys", count.to_string()),
    ];
    let mut records = Vec::new();
    for key in keys {
        let Some(record) = ops::enclave_record(&*chain, address, key).await? else {
            rows.push(("  key", format!("{key}: not attested")));
            continue;
        };
        rows.push((
            "  key",
            format!("{key}: {:?}, attested until {}, generation {}", record.state, record.until, record.generation),
        ));
        records.push(json!({ "enclave_key": key.to_string(), "state": format!("{:?}", record.state).to_lowercase(),
                             "until": record.until.0, "generation": record.generation, "evidence_id": record.evidence_id.to_string() }));
    }
    args.show(
        &rows,
        json!({ "schema": "cocoon/provider/v1", "provider": address.to_string(), "network": terms.network.0,
                "owner": terms.owner.to_string(), "registry": terms.registry.to_string(), "claim_window": terms.claim_window,
                "balance_nanoton": balance.0, "stake_nanoton": stake.stake.0, "unbonding_nanoton": stake.unbonding.0,
                "unlocks_at": stake.unlocks_at.0, "free_nanoton": stake.free.0, "lacks_nanoton": lacks.0, "key_count": count, "keys": records }),
    )
}

async fn fund(pay: &PayArgs, provider: Address, amount: Option<Nanoton>) -> Result<()> {
    let payer = pay.open().await?;
    // Reading them shows that it is one: money that goes elsewhere by mistake does not come back.
    let terms = ops::provider_terms(&*payer.chain, &provider).await.context("the provider")?;
    let lacks = ops::provider_lacks(&*payer.chain, &provider, 0).await?;
    let amount = match amount {
        Some(amount) => amount,
        None => {
            ensure!(
                lacks > Nanoton::ZERO,
                "it holds more than a year's rent beside its stake: name an amount to add to it"
            );
            lacks.saturating_add(super::registry::FUND_FEES)
        }
    };
    let own = payer.account.address();
    let back = match terms.owner == own {
        true => "`cocoon host withdraw` takes out what is more than that.".to_owned(),
        false => format!("Its owner {} can take out what is more than that, and you cannot.", terms.owner),
    };
    let ask = [
        format!(
            "This adds {amount}, less about 0.003 TON of fees, to what the provider {provider} pays its rent from."
        ),
        format!("  It lacks {lacks} of a year's rent. {back} Fees: about 0.004 TON."),
    ];
    let before = payer.ask(&ask).await?;
    let report = ops::pay_rent(&payer.account, &provider, amount).await?;
    let lacks = ops::provider_lacks(&*payer.chain, &provider, 0).await?;
    payer.explain("fund", before, report, json!({ "lacks_nanoton": lacks.0 })).await
}

/// The record of a host that does not run.
fn stopped(data: &Path) -> Result<Store> {
    let path = data.join("host.redb");
    ensure!(path.is_file(), "{} is not there: name the host's folder with --data", path.display());
    Store::open(&path).with_context(|| format!("{}; a host that runs holds it and claims by itself", path.display()))
}

fn evidence(data: &Path, out: Option<&Path>, json: bool) -> Result<()> {
    let found = stopped(data)?.equivocations()?;
    if let Some(folder) = out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let (mut text, mut files) = (String::new(), Vec::new());
    for one in &found {
        let (earlier, later) = (&one.earlier.receipt, &one.later.receipt);
        let file = out.map(|folder| folder.join(format!("equivocation-{}.json", earlier.enclave_key)));
        let evidence = EvidenceFile::from(one);
        if let Some(file) = &file {
            evidence.write(file)?;
        }
        let whereto = file.as_ref().map_or(String::new(), |file| format!(": {}", file.display()));
        text.push_str(&format!(
            "enclave {} in channel {}: number {} of {} and number {} of {}{whereto}\n",
            earlier.enclave_key, earlier.channel, earlier.sequence, earlier.total, later.sequence, later.total
        ));
        files.push(json!({ "evidence": evidence, "file": file }));
    }
    if json {
        return super::print(&format!("{}\n", json!({ "schema": "cocoon/evidence/v1", "equivocations": files })));
    }
    if found.is_empty() {
        text.push_str("No enclave of this host contradicted itself.\n");
    }
    super::print(&text)
}

/// One line for each channel and enclave: what was earned, promised and paid there, and whether it has ended.
fn record(data: &Path, csv: Option<PathBuf>) -> Result<()> {
    let store = stopped(data)?;
    let mut lines = Vec::new();
    for earned in store.earned()? {
        let receipt = earned.receipt.receipt;
        let paid = store.paid(&receipt.channel)?.get(&receipt.enclave_key).copied().unwrap_or_default();
        lines.push((receipt, earned.voucher.voucher.cap, paid, "open"));
    }
    for past in store.archived()? {
        let cap = past.voucher.map_or(Nanoton::ZERO, |voucher| voucher.voucher.cap);
        lines.push((past.receipt.receipt, cap, past.paid, past.ended.reason()));
    }
    lines.sort_by_key(|(receipt, ..)| (receipt.time, receipt.channel.hash, receipt.enclave_key.0));
    if let Some(path) = csv {
        let mut out =
            String::from("time,channel,enclave_key,sequence,total_nanoton,promised_nanoton,paid_nanoton,state\n");
        for (receipt, cap, paid, state) in lines {
            let (time, total) = (receipt.time.0, receipt.total.0);
            let (channel, key, sequence) = (receipt.channel, receipt.enclave_key, receipt.sequence);
            out.push_str(&format!("{time},{channel},{key},{sequence},{total},{},{},\"{state}\"\n", cap.0, paid.0));
        }
        if path.as_os_str() == "-" {
            return super::print(&out);
        }
        return std::fs::write(&path, out).with_context(|| format!("cannot write {}", path.display()));
    }
    let text: String = lines
        .iter()
        .map(|(receipt, cap, paid, state)| {
            let earned = receipt.total.min(*cap);
            format!(
                "{earned} earned, {paid} paid: enclave {} in channel {}: {state}\n",
                receipt.enclave_key, receipt.channel
            )
        })
        .collect();
    super::print(if text.is_empty() { "Nothing was earned yet.\n" } else { &text })
}

async fn claim(pay: &PayArgs, provider: Address, data: PathBuf, again: bool) -> Result<()> {
    let store = stopped(&data)?;
    let payer = pay.open().await?;
    owned(&payer, &provider).await?;
    let receipts = store.earned()?.len();
    let mut ask = vec![
        format!("This claims what {receipts} receipts in {} have earned beyond what was paid.", data.display()),
        "Only claims that bring more than their fees (0.015 TON, and 0.007 for each further enclave, at today's prices) are sent, and none that would be refused now.".into(),
    ];
    ask.push(if again {
        "What was refused before is claimed again, each alone, if it would not be refused now.".into()
    } else {
        "What was refused before is not claimed before its time: --again claims it too.".into()
    });
    let before = payer.ask(&ask).await?;
    let rule = ClaimRule { again, ..AT_ONCE };
    let report = Claimer::new(payer.account.clone(), provider).round(&store, &rule).await?;
    let after = payer.account.balance().await?;
    let now = payer.chain.head().await?.time;
    let held_in_all: Nanoton = report.held.iter().map(|held| held.value).sum();
    let mut rows = vec![
        ("receipts claimed", report.items.to_string()),
        ("paid", report.paid.to_string()),
        ("fees", report.fees.to_string()),
        ("left for later", report.waiting.to_string()),
        ("held off, because refused", held_in_all.to_string()),
    ];
    rows.extend(report.held.iter().map(|held| ("  held off", held_off(held, now))));
    rows.extend([("wallet before", before.to_string()), ("wallet now", after.to_string())]);
    let held: Vec<_> = report
        .held
        .iter()
        .map(|held| {
            let refusal = &held.refusal;
            json!({ "channel": held.channel.to_string(), "enclave_key": held.enclave_key.to_string(),
                    "value_nanoton": held.value.0, "exit_code": refusal.code, "reason": refused_for(refusal.code),
                    "refusals": refusal.count, "lost_nanoton": refusal.lost.0, "refused_at": refusal.at.0,
                    "next_try": held.next.0, "least_nanoton": held.least().0 })
        })
        .collect();
    pay.chain.show(
        &rows,
        json!({ "schema": "cocoon/claim/v1", "provider": provider.to_string(), "items": report.items, "paid_nanoton": report.paid.0,
                "fees_nanoton": report.fees.0, "gas": report.gas, "waiting_nanoton": report.waiting.0,
                "held_nanoton": held_in_all.0, "held": held, "before_nanoton": before.0, "after_nanoton": after.0 }),
    )
}

/// A refusal in words.
fn refused_for(code: i32) -> &'static str {
    match code {
        0 => "it was taken, and nothing was paid",
        code => exit::reason(code).unwrap_or("for a reason of TON's own"),
    }
}

/// What is not claimed because it was refused, why, and when it is tried again.
fn held_off(held: &Held, now: UnixTime) -> String {
    let Held { channel, enclave_key, value, refusal, next, .. } = held;
    let times = match refusal.count {
        0 => "one of several that were refused together".to_owned(),
        1 => "refused once".into(),
        count => format!("refused {count} times"),
    };
    let next = if *next > now {
        format!("next try in {}, at {next}", duration(next.0 - now.0))
    } else {
        "next try at once".into()
    };
    format!(
        "{value} of enclave {enclave_key} in channel {channel}: {times}, last with code {}: {}; {next}, if it then brings more than {}",
        refusal.code,
        refused_for(refusal.code),
        held.least()
    )
}
