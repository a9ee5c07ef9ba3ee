//! `cocoon registry`: what everybody trusts, and how governance changes it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use cocoon_attestation::{Digest, EnclaveKey};
use cocoon_settlement::contracts::registry::{self, Anchored, Change, Listed, Release};
use cocoon_settlement::{Address, Nanoton, ops};
use serde_json::{Value, json};

use super::{ChainArgs, PayArgs, duration, print, table};
use crate::verify::signed_reference_values;

/// The contract that says which verifiers, images and models count.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show parameters, lists, waiting proposals and log checkpoints
    Show {
        /// The Registry
        registry: Address,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// Anyone: pay its rent. It keeps what it gets
    Fund {
        /// The Registry
        registry: Address,
        /// How much, in TON [default: what it lacks of a year's rent]
        amount: Option<Nanoton>,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Governance: propose a change, which waits for the time-lock
    Propose {
        /// The Registry
        registry: Address,
        #[command(subcommand)]
        change: Proposed,
    },
    /// Anyone: carry out a proposal whose time-lock is over
    Execute {
        /// The Registry
        registry: Address,
        /// Its number
        id: u32,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Governance: take a proposal back
    Cancel {
        /// The Registry
        registry: Address,
        /// Its number
        id: u32,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Governance: forbid an image or a model at once
    Forbid {
        /// The Registry
        registry: Address,
        #[command(flatten)]
        listed: ListedArgs,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Governance: drop verifiers, raise the threshold or shorten attestations, at once
    Tighten {
        /// The Registry
        registry: Address,
        /// Position of a verifier to drop
        #[arg(long)]
        drop: Vec<u8>,
        /// Verdicts that are needed from now on [default: as now]
        #[arg(long)]
        threshold: Option<u8>,
        /// Longest attestation in seconds [default: as now]
        #[arg(long)]
        max_lifetime: Option<u32>,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Governance: revoke an enclave key of a Provider at once
    RevokeKey {
        /// The Registry
        registry: Address,
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

#[derive(Debug, Args)]
struct ListedArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Ed25519 key of who must have signed the reference values, hexadecimal; repeatable
    #[arg(long, value_name = "KEY", requires = "references")]
    signer: Vec<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhatArgs {
    /// An image digest, hexadecimal
    #[arg(long)]
    image: Option<Digest>,
    /// The image of signed reference values, as `cocoon measure image` writes them
    #[arg(long, value_name = "FILE", requires = "signer")]
    references: Option<PathBuf>,
    /// A model root, hexadecimal
    #[arg(long)]
    model: Option<Digest>,
}

impl ListedArgs {
    fn listed(&self) -> Result<Listed> {
        let signed =
            self.what.references.as_deref().map(|path| signed_reference_values(path, &self.signer)).transpose()?;
        let image = self.what.image.or(signed.map(|values| values.image.digest)).map(Listed::Image);
        image.or(self.what.model.map(Listed::Model)).context("name an image with --image or a model with --model")
    }
}

#[derive(Debug, Subcommand)]
enum Proposed {
    /// Allow an image or a model
    Allow {
        #[command(flatten)]
        listed: ListedArgs,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Replace the verifiers; every verdict signed before becomes void
    Verifiers {
        /// Verdicts that are needed
        #[arg(long)]
        threshold: u8,
        /// Ed25519 key of a verifier, hexadecimal, in the order of their positions
        #[arg(long = "key", required = true)]
        keys: Vec<Digest>,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Longest attestation
    MaxLifetime {
        /// In seconds
        seconds: u32,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Hand governance over
    Governance {
        /// To whom
        address: Address,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Another time-lock
    TimeLock {
        /// In seconds
        seconds: u32,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Name the code that new Providers and Channels use; those that exist keep theirs
    Release {
        /// Grows with every release
        version: u32,
        /// Representation hash of the Provider's code
        provider_code: Digest,
        /// Representation hash of the Channel's code
        channel_code: Digest,
        #[command(flatten)]
        pay: PayArgs,
    },
}

impl Proposed {
    fn split(self) -> Result<(Change, PayArgs)> {
        Ok(match self {
            Self::Allow { listed, pay } => (Change::Allow(listed.listed()?), pay),
            Self::Verifiers { threshold, keys, pay } => (
                Change::Verifiers { threshold, verifiers: (0u8..=u8::MAX).zip(keys.iter().map(|key| key.0)).collect() },
                pay,
            ),
            Self::MaxLifetime { seconds, pay } => (Change::MaxLifetime(seconds), pay),
            Self::Governance { address, pay } => (Change::Governance(address), pay),
            Self::TimeLock { seconds, pay } => (Change::TimeLock(seconds), pay),
            Self::Release { version, provider_code, channel_code, pay } => (
                Change::Release(Release { version, provider_code: provider_code.0, channel_code: channel_code.0 }),
                pay,
            ),
        })
    }
}

/// A change in words.
fn words(change: &Change) -> String {
    match change {
        Change::Verifiers { threshold, verifiers } => format!("{threshold} of {} new verifiers", verifiers.len()),
        Change::Allow(Listed::Image(digest)) => format!("allow image {digest}"),
        Change::Allow(Listed::Model(root)) => format!("allow model {root}"),
        Change::MaxLifetime(seconds) => format!("attestations of up to {}", duration(u64::from(*seconds))),
        Change::Governance(address) => format!("governance by {address}"),
        Change::TimeLock(seconds) => format!("a time-lock of {}", duration(u64::from(*seconds))),
        Change::Release(release) => format!("release {} for new Providers and Channels", release.version),
        Change::Unknown(_) => "nothing that a Registry can carry out: take it back, or let it lapse".into(),
    }
}

/// Runs the command.
///
/// # Errors
/// The chain or the contract says no, or the owner does.
pub async fn run(args: RegistryArgs) -> Result<()> {
    match args.command {
        Command::Show { registry, chain } => show(&registry, &chain).await,
        Command::Fund { registry, amount, pay } => {
            let payer = pay.open().await?;
            // Reading them shows that it is one: money that goes elsewhere by mistake does not come back.
            let lacks = ops::registry_lacks(&*payer.chain, &registry, 0).await.context("the Registry")?;
            let amount = match amount {
                Some(amount) => amount,
                None => {
                    ensure!(lacks > Nanoton::ZERO, "it holds more than a year's rent: name an amount to add to it");
                    lacks.saturating_add(FUND_FEES)
                }
            };
            let ask = [
                format!(
                    "This adds {amount}, less about 0.003 TON of fees, to what the Registry {registry} pays its rent from."
                ),
                format!("  It lacks {lacks} of a year's rent. Nobody can take it out again. Fees: about 0.004 TON."),
            ];
            let before = payer.ask(&ask).await?;
            let report = ops::pay_rent(&payer.account, &registry, amount).await?;
            let lacks = ops::registry_lacks(&*payer.chain, &registry, 0).await?;
            payer.explain("fund", before, report, json!({ "lacks_nanoton": lacks.0 })).await
        }
        Command::Propose { registry, change } => {
            let (change, pay) = change.split()?;
            let payer = pay.open().await?;
            let params = ops::registry_params(&*payer.chain, &registry).await?;
            let when = match params.time_lock {
                0 => "It acts at once: this Registry has no time-lock.".to_owned(),
                seconds => format!("It can be executed after {}.", duration(seconds.into())),
            };
            let ask =
                format!("This proposes to the Registry {registry}: {}. {when} Fees: below 0.05 TON.", words(&change));
            let before = payer.ask(&[ask]).await?;
            let report = ops::propose(&payer.account, &registry, &change).await?;
            let waiting: Vec<u32> =
                registry::proposals(&*payer.chain, &registry).await?.iter().map(|proposal| proposal.id).collect();
            payer.explain("propose", before, report, json!({ "proposals": waiting })).await
        }
        Command::Execute { registry, id, pay } => {
            let payer = pay.open().await?;
            let proposals = registry::proposals(&*payer.chain, &registry).await?;
            let proposal = proposals.iter().find(|proposal| proposal.id == id);
            let proposal =
                proposal.with_context(|| format!("no proposal {id} waits; `cocoon registry show` lists them"))?;
            let now = payer.chain.head().await?.time;
            ensure!(
                now >= proposal.not_before,
                "proposal {id} waits until {}, for another {}",
                proposal.not_before,
                duration(proposal.not_before.0 - now.0)
            );
            let before =
                payer.ask(&[format!("This carries out: {}. Fees: below 0.05 TON.", words(&proposal.change))]).await?;
            let report = ops::execute(&payer.account, &registry, id).await?;
            payer.explain("execute", before, report, json!({})).await
        }
        Command::Cancel { registry, id, pay } => {
            let payer = pay.open().await?;
            let before = payer.ask(&[format!("This takes proposal {id} back. Fees: below 0.05 TON.")]).await?;
            let report = ops::cancel(&payer.account, &registry, id).await?;
            payer.explain("cancel", before, report, json!({})).await
        }
        Command::Forbid { registry, listed, pay } => {
            let listed = listed.listed()?;
            let payer = pay.open().await?;
            let ask = format!(
                "This forbids at once what it would take a proposal to allow again: {listed:?}. Fees: below 0.05 TON."
            );
            let before = payer.ask(&[ask]).await?;
            let report = ops::forbid(&payer.account, &registry, listed).await?;
            payer.explain("forbid", before, report, json!({})).await
        }
        Command::Tighten { registry, drop, threshold, max_lifetime, pay } => {
            let payer = pay.open().await?;
            let params = ops::registry_params(&*payer.chain, &registry).await?;
            let (threshold, lifetime) =
                (threshold.unwrap_or(params.threshold), max_lifetime.unwrap_or(params.max_lifetime));
            let ask = format!(
                "This takes effect at once: {} verifiers dropped, {threshold} verdicts needed, attestations of up to {}. Fees: below 0.05 TON.",
                drop.len(),
                duration(lifetime.into())
            );
            let before = payer.ask(&[ask]).await?;
            let report = ops::tighten(&payer.account, &registry, &drop, threshold, lifetime).await?;
            payer.explain("tighten", before, report, json!({})).await
        }
        Command::RevokeKey { registry, provider, key, void, pay } => {
            let payer = pay.open().await?;
            let claims = if void { "none of its claims is paid any more" } else { "its receipts so far stay payable" };
            let ask =
                format!("This ends the attestation of enclave key {key} at once; {claims}. Fees: below 0.05 TON.");
            let before = payer.ask(&[ask]).await?;
            let report = ops::revoke_key(&payer.account, &registry, &provider, &key, void).await?;
            payer.explain("revoke-key", before, report, json!({})).await
        }
    }
}

/// What the message itself takes of an amount, at most.
pub(super) const FUND_FEES: Nanoton = Nanoton(5_000_000);

async fn show(address: &Address, args: &ChainArgs) -> Result<()> {
    let chain = args.open().await?;
    let params = ops::registry_params(&*chain, address).await?;
    let proposals = registry::proposals(&*chain, address).await?;
    let release = registry::release(&*chain, address).await?;
    let balance = chain.account(address).await?.balance;
    let lacks = ops::registry_lacks(&*chain, address, 0).await?;
    // A verifier that was dropped leaves a gap: the others keep their places.
    let places = params.verifiers.keys().next_back().map_or(0, |last| last + 1);
    let mut anchors: Vec<Option<Anchored>> = Vec::new();
    for index in 0..places {
        let known = params.verifiers.contains_key(&index);
        anchors.push(if known { registry::anchored(&*chain, address, index).await? } else { None });
    }
    if args.json {
        let proposals: Vec<Value> = proposals
            .iter()
            .map(|it| json!({ "id": it.id, "not_before": it.not_before.0, "change": words(&it.change) }))
            .collect();
        let anchors: Vec<Value> = anchors
            .iter()
            .map(|anchor| match anchor {
                Some(it) => json!({ "tree_size": it.tree_size, "root": it.root.to_string(), "time": it.time.0 }),
                None => Value::Null,
            })
            .collect();
        let hashes = |list: &[Digest]| list.iter().map(Digest::to_string).collect::<Vec<_>>();
        return print(&format!(
            "{}\n",
            json!({ "schema": "cocoon/registry/v1", "address": address.to_string(), "network": params.network.0,
                    "balance_nanoton": balance.0, "lacks_nanoton": lacks.0, "governance": params.governance.to_string(), "time_lock": params.time_lock,
                    "set_epoch": params.set_epoch, "threshold": params.threshold, "max_lifetime": params.max_lifetime,
                    "verifiers": (0..places).map(|index| params.verifiers.get(&index).map(hex::encode)).collect::<Vec<_>>(), "images": hashes(&params.images),
                    "models": hashes(&params.models), "proposals": proposals, "checkpoints": anchors,
                    "release": { "version": release.version, "provider_code": hex::encode(release.provider_code),
                                 "channel_code": hex::encode(release.channel_code) } })
        ));
    }
    let mut rows = vec![
        ("Registry", address.to_string()),
        ("network", params.network.to_string()),
        ("holds", balance.to_string()),
        (
            "  lacks of a year's rent",
            if lacks > Nanoton::ZERO { format!("{lacks}: `cocoon registry fund`") } else { "nothing".into() },
        ),
        ("governance", params.governance.to_string()),
        ("time-lock", duration(params.time_lock.into())),
        ("verdicts needed", format!("{} of {} (set {})", params.threshold, params.verifiers.len(), params.set_epoch)),
        ("longest attestation", duration(params.max_lifetime.into())),
    ];
    for (index, key) in &params.verifiers {
        let anchor = match anchors.get(usize::from(*index)).and_then(Option::as_ref) {
            Some(anchor) => format!("log of {} leaves anchored at {}", anchor.tree_size, anchor.time),
            None => "no checkpoint anchored".into(),
        };
        rows.push(("verifier", format!("{index}: {}, {anchor}", hex::encode(key))));
    }
    rows.extend(params.images.iter().map(|image| ("image", image.to_string())));
    rows.extend(params.models.iter().map(|model| ("model", model.to_string())));
    if release.version > 0 {
        rows.push(("release", format!("{} (Channel code {})", release.version, hex::encode(release.channel_code))));
    }
    for proposal in &proposals {
        rows.push((
            "proposal",
            format!("{}: {}, not before {}", proposal.id, words(&proposal.change), proposal.not_before),
        ));
    }
    print(&table(&rows))
}
