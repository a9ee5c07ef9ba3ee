//! `cocoon channel`: a client's deposit for one provider, from its opening to its end.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use cocoon_attestation::EnclaveKey;
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::contracts::{ChannelInit, ChannelStatus, channel, registry};
use cocoon_settlement::{Address, Nanoton, keyfile, ops};
use serde_json::json;
use zeroize::Zeroizing;

use super::{ChainArgs, PayArgs, Payer, Source, duration};
use crate::proxy::ProxyConfig;

/// A client's deposit for one provider.
#[derive(Debug, Args)]
pub struct ChannelArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Deposit TON for a provider, under a new client key
    Open {
        /// The Provider's contract
        provider: Address,
        /// How much, in TON
        deposit: Nanoton,
        /// Where the new client key goes, encrypted under the wallet's passphrase [default: channel-ADDRESS.json beside the wallet's]
        #[arg(long)]
        client_key: Option<PathBuf>,
        /// A client configuration of the same network; with --config a new one for this channel is made from it
        #[arg(long, requires = "config")]
        like: Option<PathBuf>,
        /// Where the new client configuration goes, for `cocoon proxy --config`
        #[arg(long, requires = "like")]
        config: Option<PathBuf>,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Show what a channel holds, and what it has paid
    Status {
        /// The Channel
        channel: Address,
        /// An enclave key, hexadecimal: what it was paid
        #[arg(long = "enclave-key")]
        keys: Vec<EnclaveKey>,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Add to the deposit
    TopUp {
        /// The Channel
        channel: Address,
        /// How much, in TON
        amount: Nanoton,
        /// The channel is somebody else's, who gets the refund: give it away
        #[arg(long)]
        gift: bool,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Anyone: show a provider's contract two receipts of one of its enclaves that cannot both be true, which costs it its stake
    Report {
        /// The evidence, as `cocoon host evidence` writes it
        evidence: PathBuf,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Take the next step towards its end: start to close, take the refund, or delete what is left
    Close {
        /// The Channel
        channel: Address,
        #[command(flatten)]
        pay: PayArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// The chain or the contract says no, or the owner does.
pub async fn run(args: ChannelArgs) -> Result<()> {
    match args.command {
        Command::Open { provider, deposit, client_key, like, config, pay } => {
            open(&pay, &provider, deposit, client_key, like.zip(config)).await
        }
        Command::Status { channel, keys, chain } => status(&channel, &keys, &chain).await,
        Command::TopUp { channel, amount, gift, pay } => {
            let payer = pay.open().await?;
            let client = ops::channel_terms(&*payer.chain, &channel).await?.client;
            let own = payer.account.address();
            ensure!(
                gift || client == own,
                "the channel is {client}'s, who gets what is not claimed of it, and this wallet is {own}: --gift adds to it all the same"
            );
            let state = ops::channel_state(&*payer.chain, &channel).await?;
            ensure!(state.status == ChannelStatus::Open, "the channel is closing or closed: open another one");
            let ask = format!(
                "This adds {amount} to the channel, which has {} for claims. Fees: about 0.006 TON.",
                state.available
            );
            let back = match client == own {
                true => "  What is not claimed comes back to this wallet when the channel is closed.".to_owned(),
                false => {
                    format!("  You do not get it back: what is not claimed goes to the channel's client {client}.")
                }
            };
            let before = payer.ask(&[ask, back]).await?;
            let report = ops::top_up(&payer.account, &channel, amount).await?;
            let available = ops::channel_state(&*payer.chain, &channel).await?.available;
            payer.explain("top-up", before, report, json!({ "available_nanoton": available.0 })).await
        }
        Command::Report { evidence, pay } => super::evidence::report(&evidence, &pay).await,
        Command::Close { channel, pay } => close(&pay, &channel).await,
    }
}

async fn open(
    pay: &PayArgs,
    provider: &Address,
    deposit: Nanoton,
    client_key: Option<PathBuf>,
    config: Option<(PathBuf, PathBuf)>,
) -> Result<()> {
    let payer = pay.open().await?;
    let terms = ops::provider_terms(&*payer.chain, provider).await?;
    ensure!(terms.network == payer.chain.network(), "the provider's contract is of {}", terms.network);
    let release = registry::release(&*payer.chain, &terms.registry).await.context("the provider's Registry")?;
    release.check_channel()?;
    let mut random = Zeroizing::new([[0; 32]; 2]);
    getrandom::fill(random.as_flattened_mut()).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let [secret, salt] = &*random;
    let init = ChannelInit {
        network: terms.network,
        provider: *provider,
        owner: terms.owner,
        client: payer.account.address(),
        client_key: SigningKey::from_seed(secret)?.public(),
        close_delay: terms.claim_window,
        salt: *salt,
    };
    init.check_for(&terms)?;
    let channel = init.address();
    let key_path = match client_key {
        Some(path) => path,
        None => pay.key.path()?.with_file_name(format!("channel-{}.json", &hex::encode(channel.hash)[..16])),
    };
    let source = config.as_ref().map_or(Source::Provider, |(like, _)| Source::Configuration(like));
    let [registry, code] = super::vouched(&release, "channels", &terms.registry, &source);
    let adapt =
        |(like, to): (PathBuf, PathBuf)| adapted(&like, &to, &init, &terms.registry, &key_path).map(|text| (to, text));
    let config = config.clone().map(adapt).transpose()?;
    let before = payer
        .ask(&[
            format!("This opens a channel with a deposit of {deposit} for the provider {provider},"),
            format!("  whose owner {} is paid by receipts that cover your vouchers.", terms.owner),
            registry,
            code,
            "It costs about 0.022 TON in fees; about 0.03 TON of the deposit is held back as the rent of the channel."
                .into(),
            format!(
                "What is not claimed comes back: at once if the provider releases it, or {} after you close alone.",
                duration(terms.claim_window.into())
            ),
            format!(
                "Its client key goes to {}, under the wallet's passphrase: keep a copy, nobody else has it.",
                key_path.display()
            ),
        ])
        .await?;
    // The key is on disk before there is money behind it.
    keyfile::create(&key_path, secret, &payer.passphrase, &format!("client key of channel {channel}"))?;
    if let Some((path, text)) = &config {
        write_new(path, text)?;
    }
    let report = ops::open_channel(&payer.account, &init, deposit).await?;
    let available = match report.aborted {
        None => ops::channel_state(&*payer.chain, &channel).await?.available,
        Some(_) => Nanoton::ZERO,
    };
    if !pay.chain.json {
        super::print(&super::table(&[
            ("channel", channel.to_string()),
            ("for claims", available.to_string()),
            ("client key", key_path.display().to_string()),
        ]))?;
    }
    let extra = json!({ "channel": channel.to_string(), "available_nanoton": available.0, "client_key_file": key_path,
                        "channel_init": STANDARD.encode(init.to_boc()) });
    payer.explain("open-channel", before, report, extra).await
}

/// A client configuration with this channel in place of another one's.
fn adapted(like: &Path, to: &Path, init: &ChannelInit, registry: &Address, key: &Path) -> Result<String> {
    let text = std::fs::read_to_string(like).with_context(|| format!("cannot read {}", like.display()))?;
    let mut config: ProxyConfig =
        toml::from_str(&text).with_context(|| format!("{} is no client configuration", like.display()))?;
    ensure!(
        config.network == init.network.0,
        "{} is for network {}, and the channel is on {}",
        like.display(),
        config.network,
        init.network
    );
    ensure!(
        config.registry == *registry,
        "{} believes the Registry {}, and the provider belongs to {registry}: nothing would be bought from him with it",
        like.display(),
        config.registry
    );
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    let base = absolute(like)?.parent().map(Path::to_owned).unwrap_or_default();
    config.channel = STANDARD.encode(init.to_boc());
    config.client_key_file = absolute(key)?;
    config.references = base.join(&config.references);
    config.policy = config.policy.map(|policy| base.join(policy));
    config.data = PathBuf::from(format!("client-{}", &hex::encode(init.address().hash)[..16]));
    ensure!(!to.exists(), "{} exists already: name another file", to.display());
    Ok(toml::to_string(&config)?)
}

pub(super) fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

async fn status(channel: &Address, keys: &[EnclaveKey], args: &ChainArgs) -> Result<()> {
    let chain = args.open().await?;
    let state = ops::channel_state(&*chain, channel).await?;
    let terms = ops::channel_terms(&*chain, channel).await?;
    let now = chain.head().await?.time;
    let (word, at) = match state.status {
        ChannelStatus::Open => ("open", None),
        ChannelStatus::Closing { at } => ("closing", Some(at)),
        ChannelStatus::Closed { at } => ("closed", Some(at)),
    };
    let life = match state.status {
        ChannelStatus::Open => "open".to_owned(),
        ChannelStatus::Closing { at } if now < at => {
            format!("closing: the refund can be taken in {}", duration(at.0 - now.0))
        }
        ChannelStatus::Closing { .. } => "closing: the refund can be taken now, `cocoon channel close`".into(),
        ChannelStatus::Closed { at } => format!("closed since {at}"),
    };
    let mut rows = vec![
        ("channel", channel.to_string()),
        ("network", terms.network.to_string()),
        ("status", life),
        ("holds", state.balance.to_string()),
        ("  for claims", state.available.to_string()),
        ("  held back as rent", state.balance.saturating_sub(state.available).to_string()),
        ("provider", terms.provider.to_string()),
        ("  its owner, who is paid", terms.owner.to_string()),
        ("client, who is refunded", terms.client.to_string()),
        ("client key", hex::encode(terms.client_key)),
        ("close delay", duration(terms.close_delay.into())),
        ("enclave keys paid", state.keys.to_string()),
    ];
    let mut paid = Vec::new();
    for key in keys {
        let record = ops::channel_paid(&*chain, channel, key).await?;
        rows.push(("  paid", format!("{} to {key}", record.paid)));
        paid.push(json!({ "enclave_key": key.to_string(), "paid_nanoton": record.paid.0, "cap_nanoton": record.cap.0, "expiry": record.expiry.0 }));
    }
    args.show(
        &rows,
        json!({ "schema": "cocoon/channel/v1", "channel": channel.to_string(), "network": terms.network.0, "status": word,
                "at": at.map(|at| at.0), "balance_nanoton": state.balance.0, "available_nanoton": state.available.0,
                "provider": terms.provider.to_string(), "owner": terms.owner.to_string(), "client": terms.client.to_string(),
                "client_key": hex::encode(terms.client_key), "close_delay": terms.close_delay, "opened": state.opened.0,
                "keys": state.keys, "paid": paid }),
    )
}

async fn close(pay: &PayArgs, address: &Address) -> Result<()> {
    let payer = pay.open().await?;
    let state = ops::channel_state(&*payer.chain, address).await?;
    let terms = ops::channel_terms(&*payer.chain, address).await?;
    let now = payer.chain.head().await?.time;
    match state.status {
        ChannelStatus::Open => {
            ensure!(
                terms.client == payer.account.address(),
                "only its client {} may start to close it; its provider's owner may use `cocoon host release`",
                terms.client
            );
            let before = payer
                .ask(&[
                    "This starts to close the channel. No more can be deposited; the provider can still claim what it earned.".into(),
                    format!("In {} the refund of now {} can be taken by running this again.", duration(terms.close_delay.into()), state.available),
                    "Fees: about 0.006 TON.".into(),
                ])
                .await?;
            let report = ops::start_close(&payer.account, address).await?;
            step(&payer, "start-close", address, before, report).await
        }
        ChannelStatus::Closing { at } => {
            ensure!(
                now >= at,
                "the refund can be taken at {at}, in {}: run this again then",
                duration(at.0.saturating_sub(now.0))
            );
            let ask =
                format!("This ends the close: {} go back to {}. Fees: about 0.008 TON.", state.available, terms.client);
            let rent = super::closing_rent(&*payer.chain, address).await?;
            let before = payer.ask(&[vec![ask], rent].concat()).await?;
            let report = ops::finish_close(&payer.account, address).await?;
            step(&payer, "finish-close", address, before, report).await
        }
        ChannelStatus::Closed { at } => {
            let from = channel::deletable(at, terms.close_delay);
            ensure!(
                now >= from,
                "the channel is closed and its client was refunded; what is left of its rent comes back when it is deleted, from {from} on, in {}: run this again then",
                duration(from.0.saturating_sub(now.0))
            );
            let ask = format!(
                "The channel is closed. This deletes it: the rent that is left of {} goes back to {}.",
                state.balance, terms.client
            );
            let before = payer.ask(&[ask, "Fees: about 0.006 TON.".into()]).await?;
            let report = ops::delete_channel(&payer.account, address).await?;
            step(&payer, "delete-channel", address, before, report).await
        }
    }
}

async fn step(
    payer: &Payer<'_>,
    what: &str,
    channel: &Address,
    before: Nanoton,
    report: cocoon_settlement::account::TxReport,
) -> Result<()> {
    payer.explain(what, before, report, json!({ "channel": channel.to_string() })).await
}
