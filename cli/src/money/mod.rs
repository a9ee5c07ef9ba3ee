//! Commands that look at money and move it: `wallet`, `channel`, `host`, `registry`, `chain`.
//!
//! Whatever spends says first what it will do, from which wallet and what it can cost, and asks; afterwards it explains the balance.

pub mod chain;
pub mod channel;
mod evidence;
pub mod host;
pub mod registry;
pub mod wallet;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use cocoon_settlement::account::{Account, TxReport};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::{Release, exit};
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::wallet::{Version, Wallet};
use cocoon_settlement::{Address, Nanoton, NetworkId, keyfile, ops};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::data::DataDir;

/// Which chain is asked, and how the answer is written.
#[derive(Debug, clap::Args)]
pub struct ChainArgs {
    /// The chain's API: toncenter, or a local chain that `cocoon up` or `cocoon chain serve` serves
    #[arg(long, env = "COCOON_CHAIN", default_value = chain::DEFAULT_URL)]
    chain: String,
    /// The network: mainnet, testnet, local, or a global id
    #[arg(long, env = "COCOON_NETWORK", default_value = "local", value_parser = network)]
    network: NetworkId,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub(crate) fn network(text: &str) -> Result<NetworkId, String> {
    match text {
        "mainnet" => Ok(NetworkId::MAINNET),
        "testnet" => Ok(NetworkId::TESTNET),
        "local" => Ok(NetworkId::LOCAL),
        id => id.parse().map(NetworkId).map_err(|_| "must be mainnet, testnet, local or a global id".into()),
    }
}

impl ChainArgs {
    /// The chain, after it has said that it is of the network that was named.
    async fn open(&self) -> Result<Arc<dyn Chain>> {
        let url = endpoint(&self.chain)?;
        let client = Toncenter::new(&url, std::env::var("COCOON_TONCENTER_KEY").ok(), self.network)?;
        let hint = || format!("the chain at {url}; name another with --chain or COCOON_CHAIN");
        client.check_network().await.with_context(hint)?;
        Ok(Arc::new(client))
    }

    /// Writes a table for a person, or the object for a program.
    fn show(&self, rows: &[(&str, String)], object: Value) -> Result<()> {
        print(&if self.json { format!("{object}\n") } else { table(rows) })
    }
}

/// A base URL gets the path of the API's JSON-RPC.
pub(crate) fn endpoint(text: &str) -> Result<String> {
    let uri: hyper::Uri = text.parse().with_context(|| format!("{text:?} is no URL"))?;
    ensure!(uri.host().is_some() && uri.scheme().is_some(), "{text:?} is no URL: it begins with http:// or https://");
    Ok(if uri.path() == "/" { format!("{}/api/v2/jsonRPC", text.trim_end_matches('/')) } else { text.to_owned() })
}

/// Two columns.
fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output")
}

/// Which key pays.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// The wallet's key file [default: wallet.json in the data folder]
    #[arg(long, env = "COCOON_WALLET")]
    wallet: Option<PathBuf>,
    /// The wallet's version: v5R1 or v4R2
    #[arg(long, default_value = "v5R1")]
    wallet_version: Version,
    /// A file whose first line is the passphrase; without one it is asked for
    #[arg(long, env = "COCOON_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    fn path(&self) -> Result<PathBuf> {
        self.wallet.clone().map_or_else(|| Ok(DataDir::default_path()?.join("wallet.json")), Ok)
    }

    fn passphrase(&self, prompt: &str) -> Result<Zeroizing<String>> {
        passphrase(self.passphrase_file.as_deref(), prompt)
    }

    /// The passphrase of a file that is made now: typed twice.
    fn new_passphrase(&self) -> Result<Zeroizing<String>> {
        let first = self.passphrase("A passphrase for the key file: ")?;
        if self.passphrase_file.is_none() {
            ensure!(*first == *self.passphrase("The same again: ")?, "the two differ: nothing was written");
        }
        Ok(first)
    }

    /// The passphrase and the secret that it opens.
    fn unlock(&self) -> Result<(Zeroizing<String>, Zeroizing<[u8; 32]>)> {
        let path = self.existing()?;
        let passphrase = self.passphrase(&format!("Passphrase of {}: ", path.display()))?;
        let secret = keyfile::open(&path, &passphrase)?;
        Ok((passphrase, secret))
    }

    /// The wallet's address, for which no passphrase is needed.
    fn address(&self, network: NetworkId) -> Result<Address> {
        let info = keyfile::info(&self.existing()?)?;
        Ok(Wallet::address_of(&info.public_key, network, self.wallet_version)?)
    }

    fn existing(&self) -> Result<PathBuf> {
        let path = self.path()?;
        ensure!(
            path.exists(),
            "{} is not there: make a wallet with `cocoon wallet new`, or name its file with --wallet",
            path.display()
        );
        Ok(path)
    }
}

/// The first line of a file, or what is typed at a terminal.
pub(crate) fn passphrase(file: Option<&Path>, prompt: &str) -> Result<Zeroizing<String>> {
    let Some(path) = file else {
        ensure!(
            std::io::stdin().is_terminal(),
            "no terminal to ask for a passphrase: name a file with --passphrase-file or in COCOON_PASSPHRASE_FILE"
        );
        return Ok(Zeroizing::new(rpassword::prompt_password(prompt).context("the passphrase")?));
    };
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read the passphrase file {}", path.display()))?;
    let line = text.lines().next().unwrap_or_default();
    ensure!(!line.is_empty(), "the first line of {} is empty: write the passphrase there", path.display());
    Ok(Zeroizing::new(line.to_owned()))
}

/// What every command that spends takes.
#[derive(Debug, clap::Args)]
pub struct PayArgs {
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Spend without asking
    #[arg(long)]
    yes: bool,
}

impl PayArgs {
    async fn open(&self) -> Result<Payer<'_>> {
        let chain = self.chain.open().await?;
        let (passphrase, secret) = self.key.unlock()?;
        let wallet = Wallet::with_version(*secret, chain.network(), self.key.wallet_version)?;
        let account = Arc::new(Account::with_wallet(chain.clone(), wallet));
        Ok(Payer { args: self, chain, account, passphrase })
    }
}

/// A wallet on a chain, and how its owner wants to be asked.
struct Payer<'a> {
    args: &'a PayArgs,
    chain: Arc<dyn Chain>,
    account: Arc<Account>,
    /// Of the wallet's key file, for key files that are made beside it.
    passphrase: Zeroizing<String>,
}

impl Payer<'_> {
    /// Says what is about to happen and asks for a yes.
    async fn ask(&self, plan: &[String]) -> Result<Nanoton> {
        let balance = self.account.balance().await?;
        let mut text = String::new();
        for line in plan {
            text.push_str(&format!("{line}\n"));
        }
        text.push_str(&format!(
            "From wallet {} on {}, which holds {balance}.\n",
            self.account.address(),
            self.chain.network()
        ));
        // Never into what a program reads.
        eprint!("{text}");
        if self.args.yes {
            return Ok(balance);
        }
        ensure!(std::io::stdin().is_terminal(), "this spends money and there is no terminal to ask at: say --yes");
        eprint!("Go on? [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => Ok(balance),
            _ => bail!("nothing was sent"),
        }
    }

    /// Explains the wallet's balance after `report`, and fails if a message was not carried out. `extra` goes into the JSON.
    async fn explain(&self, what: &str, before: Nanoton, report: TxReport, extra: Value) -> Result<()> {
        let own = |pick: fn(&cocoon_settlement::chain::TxSummary) -> Nanoton| -> Nanoton {
            report.transactions.iter().filter(|tx| tx.account == self.account.address()).map(pick).sum()
        };
        let (sent, back, fees) = (own(|tx| tx.value_out), own(|tx| tx.value_in), own(|tx| tx.fees));
        let after = self.account.balance().await?;
        let others = report.fees.saturating_sub(fees);
        let failed =
            report.aborted.map(|(at, code)| (at, code, exit::reason(code).unwrap_or("for a reason of TON's own")));
        let mut object = json!({
            "schema": "cocoon/payment/v1", "what": what, "network": self.chain.network().0,
            "wallet": self.account.address().to_string(), "message": hex::encode(report.message),
            "before_nanoton": before.0, "sent_nanoton": sent.0, "returned_nanoton": back.0, "wallet_fees_nanoton": fees.0,
            "after_nanoton": after.0, "other_fees_nanoton": others.0, "gas": report.gas_used,
            "failed": failed.map(|(at, code, why)| json!({ "account": at.to_string(), "exit_code": code, "reason": why })),
        });
        if let (Some(object), Value::Object(extra)) = (object.as_object_mut(), extra) {
            object.extend(extra);
        }
        let expected = i128::from(before.0) + i128::from(back.0) - i128::from(sent.0) - i128::from(fees.0);
        let other = i128::from(after.0) - expected;
        let mut rows = vec![
            ("wallet before", before.to_string()),
            ("- sent", sent.to_string()),
            ("+ came back", back.to_string()),
            ("- its own fees", fees.to_string()),
        ];
        if other != 0 {
            rows.push(("+ something else meanwhile", format!("{other} nanoton")));
        }
        rows.push(("= wallet now", after.to_string()));
        rows.push(("fees of the others, paid out of what was sent", others.to_string()));
        self.args.chain.show(&rows, object)?;
        match failed {
            None => Ok(()),
            Some((at, code, why)) => bail!("{at} refused it with exit code {code}: {why}. {}", returned(sent, back)),
        }
    }
}

/// What became of the value that went out with something that was refused, as the trace shows it and not as it should be.
fn returned(sent: Nanoton, back: Nanoton) -> String {
    match (sent, back) {
        (Nanoton::ZERO, _) => "Nothing was sent".into(),
        (sent, Nanoton::ZERO) => format!("Nothing of the {sent} that were sent came back"),
        (sent, back) => format!("Of the {sent} that were sent {back} came back"),
    }
}

/// Where the address of a Registry comes from, and so what its word is worth.
enum Source<'a> {
    /// The contract of the provider that is dealt with names it.
    Provider,
    /// A configuration that its owner believes in.
    Configuration(&'a Path),
    /// Whoever runs the command.
    CommandLine,
}

/// Who says that the code is the right one, for the question before it is deployed.
fn vouched(release: &Release, what: &str, registry: &Address, source: &Source<'_>) -> [String; 2] {
    let whose = match source {
        Source::Provider => format!(
            "  The Registry {registry} is the provider's own choice, and nobody has compared it: what it says is the provider's word, unless you know this address."
        ),
        Source::Configuration(path) => {
            format!("  The Registry {registry} is the one that {} believes in.", path.display())
        }
        Source::CommandLine => {
            format!("  The Registry {registry} is the one that you named: nobody else vouches for it.")
        }
    };
    let code = match release.version {
        0 => format!("  It names no code for new {what}: this program alone vouches for the code."),
        version => format!("  It names release {version} for new {what}, whose code is this program's."),
    };
    [whose, code]
}

/// What closing a Channel costs beyond its fees, if its rent may have eaten what it held.
async fn closing_rent(chain: &dyn Chain, channel: &Address) -> Result<Vec<String>> {
    let value = ops::close_value(chain, channel).await?;
    let rent = value.saturating_sub(ops::CALL_VALUE);
    Ok((rent > Nanoton::ZERO)
        .then(|| {
            format!(
                "  Its rent may have eaten what it held: {value} go with the message, of which up to {rent} stay as the rent of the closed channel; its client gets the rest, and what is left when it is deleted."
            )
        })
        .into_iter()
        .collect())
}

/// Seconds as a person says them.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_get_the_apis_path_and_nonsense_is_named() {
        assert_eq!(endpoint("http://127.0.0.1:81").unwrap(), "http://127.0.0.1:81/api/v2/jsonRPC");
        assert_eq!(endpoint("http://127.0.0.1:81/").unwrap(), "http://127.0.0.1:81/api/v2/jsonRPC");
        assert_eq!(endpoint("https://toncenter.com/api/v3").unwrap(), "https://toncenter.com/api/v3");
        for bad in ["", "127.0.0.1:81", "not a url", "/api"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_came_back_is_said_and_not_what_should_have() {
        let ton = Nanoton::from_ton;
        assert_eq!(returned(Nanoton::ZERO, Nanoton::ZERO), "Nothing was sent");
        assert_eq!(returned(ton(2), Nanoton::ZERO), "Nothing of the 2 TON that were sent came back");
        assert_eq!(returned(ton(2), ton(1)), "Of the 2 TON that were sent 1 TON came back");
    }

    #[test]
    fn networks_are_named_or_numbered() {
        assert_eq!(network("mainnet"), Ok(NetworkId::MAINNET));
        assert_eq!(network("-3"), Ok(NetworkId::TESTNET));
        assert!(network("main").is_err());
    }
}
