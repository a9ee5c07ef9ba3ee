//! `cocoon chain`: the local chain on its own, for development.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use cocoon_attestation::{Digest, UnixTime};
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::local::{Clock, Genesis, LocalChain, SystemClock, rpc};
use cocoon_settlement::wallet::Wallet;
use cocoon_settlement::{Address, Nanoton, NetworkId};
use serde_json::json;

use super::ChainArgs;
use crate::data::DataDir;

/// Where `cocoon chain serve` listens.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8081";
/// What the faucet of a new local chain holds.
const FAUCET: Nanoton = Nanoton::from_ton(1_000_000_000);

/// A TON for development: real transactions, play money, on this machine only.
#[derive(Debug, Args)]
pub struct ChainCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a local chain, with toncenter's API v2
    Serve {
        /// The chain's folder; that of a stopped `cocoon up` is `chain` in its data folder [default: chain in the data folder]
        #[arg(long)]
        data: Option<PathBuf>,
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
        /// Seconds that its clock is ahead of the machine's, to see what time brings. A chain's time never goes back
        #[arg(long, default_value_t = 0)]
        ahead: u64,
    },
    /// Give play money from a local chain's faucet
    Give {
        /// To whom
        to: Address,
        /// How much, in TON
        amount: Nanoton,
        #[command(flatten)]
        chain: ChainArgs,
    },
}

/// Key of every local chain's faucet: public on purpose, worth nothing elsewhere.
fn faucet_seed() -> [u8; 32] {
    Digest::of(&[b"cocoon local faucet"]).0
}

/// The account that new local chains give play money from.
pub(crate) fn faucet() -> Result<(Address, Nanoton)> {
    Ok((Wallet::new(faucet_seed(), NetworkId::LOCAL)?.address(), FAUCET))
}

/// The machine's clock, set ahead.
struct Ahead(u64);

impl Clock for Ahead {
    fn now(&self) -> UnixTime {
        SystemClock.now().plus(self.0)
    }
}

/// Runs the command.
///
/// # Errors
/// The folder or address cannot be used, or the chain has no faucet.
pub async fn run(args: ChainCommand) -> Result<()> {
    match args.command {
        Command::Serve { data, listen, ahead } => {
            let folder = data.map_or_else(|| Ok(DataDir::default_path()?.join("chain")), anyhow::Ok)?;
            let genesis = Genesis { accounts: vec![faucet()?], time: SystemClock.now() };
            let chain = Arc::new(LocalChain::open_with_clock(&folder, genesis, Arc::new(Ahead(ahead)))?);
            let listener = tokio::net::TcpListener::bind(listen).await;
            let listener =
                listener.with_context(|| format!("cannot listen on {listen}: name another address with --listen"))?;
            let head = chain.head().await?;
            super::print(&format!(
                "Local TON, play money: block {} at {}; API at http://{}; Ctrl-C stops\n",
                head.seqno,
                head.time,
                listener.local_addr()?
            ))?;
            tokio::select! {
                served = rpc::serve(listener, chain) => served.context("the listener ended"),
                stopped = tokio::signal::ctrl_c() => stopped.context("Ctrl-C"),
            }
        }
        Command::Give { to, amount, chain } => {
            let opened = chain.open().await?;
            anyhow::ensure!(opened.network() == NetworkId::LOCAL, "only local chains have a faucet");
            let faucet = Account::new(opened.clone(), faucet_seed())?;
            let sent = faucet.send(to, amount, None, None).await;
            let report = sent.context("the faucet, which chains have that were made since there is one")?.success()?;
            let balance = opened.account(&to).await?.balance;
            chain.show(
                &[("given", amount.to_string()), ("balance now", balance.to_string())],
                json!({ "schema": "cocoon/faucet/v1", "to": to.to_string(), "amount_nanoton": amount.0,
                        "balance_nanoton": balance.0, "message": hex::encode(report.message) }),
            )
        }
    }
}
