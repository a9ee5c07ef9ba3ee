//! `cocoon wallet`: make, import, look, send, and account for it.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use cocoon_settlement::mnemonic::Mnemonic;
use cocoon_settlement::statement::Statement;
use cocoon_settlement::wallet::OutMessage;
use cocoon_settlement::{Address, Nanoton, keyfile};
use serde_json::json;
use zeroize::Zeroizing;

use super::{ChainArgs, KeyArgs, PayArgs, print};

/// A TON wallet of the standard kind, its key in an encrypted file.
#[derive(Debug, Args)]
pub struct WalletArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a wallet and show its 24 words once: write them down, they are its back-up
    New(NewArgs),
    /// Restore a wallet from its 24 words (asked for, or on standard input)
    Import {
        #[command(flatten)]
        new: NewArgs,
        /// Read the key from a file of 64 hexadecimal digits instead, as `cocoon up` keeps them
        #[arg(long)]
        hex: Option<PathBuf>,
    },
    /// Show address and balance
    Show(LookArgs),
    /// Send TON
    Send {
        /// To whom
        to: Address,
        /// How much, in TON; `all` empties the wallet, which is how a wallet whose key may be known is left
        amount: String,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Account for every nanoton that came and went, of this wallet or with --address of any account: a channel, a provider's contract
    History {
        #[command(flatten)]
        look: LookArgs,
        /// Write comma-separated values to this file, also with --json; - is standard output, which then has nothing else
        #[arg(long)]
        csv: Option<PathBuf>,
    },
    /// Encrypt the key file under another passphrase (the new one is asked for, or the first line of --new-passphrase-file)
    Passphrase {
        #[command(flatten)]
        key: KeyArgs,
        /// A file whose first line is the new passphrase
        #[arg(long)]
        new_passphrase_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct NewArgs {
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    chain: ChainArgs,
    /// What the key is for, in your words
    #[arg(long, default_value = "wallet")]
    label: String,
}

#[derive(Debug, Args)]
struct LookArgs {
    /// An address, instead of the wallet's own
    #[arg(long)]
    address: Option<Address>,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    chain: ChainArgs,
}

/// Runs the command.
///
/// # Errors
/// The key file or the chain cannot be used, or the owner says no.
pub async fn run(args: WalletArgs) -> Result<()> {
    match args.command {
        Command::New(new) => {
            let words = Mnemonic::generate()?;
            create(&new, &words.seed(), Some(&words))
        }
        Command::Import { new, hex: Some(path) } => {
            let text = std::fs::read_to_string(&path).map(Zeroizing::new);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            let mut seed = Zeroizing::new([0; 32]);
            let read = hex::decode_to_slice(text.trim(), &mut *seed);
            read.ok().with_context(|| format!("{} does not hold 64 hexadecimal digits", path.display()))?;
            create(&new, &seed, None)
        }
        Command::Import { new, hex: None } => create(&new, &Mnemonic::parse(&words()?)?.seed(), None),
        Command::Show(look) => show(&look).await,
        Command::Send { to, amount, pay } => send(to, &amount, &pay).await,
        Command::History { look, csv } => history(&look, csv).await,
        Command::Passphrase { key, new_passphrase_file } => {
            let path = key.path()?;
            let old = key.passphrase(&format!("Present passphrase of {}: ", path.display()))?;
            let new = KeyArgs { passphrase_file: new_passphrase_file, ..key }.new_passphrase()?;
            keyfile::change_passphrase(&path, &old, &new)?;
            print(&format!(
                "{} is encrypted under the new passphrase; copies made before still open with the old one\n",
                path.display()
            ))
        }
    }
}

fn words() -> Result<Zeroizing<String>> {
    if std::io::stdin().is_terminal() {
        return Ok(Zeroizing::new(rpassword::prompt_password("The 24 words (not shown): ")?));
    }
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().read_to_string(&mut text).context("the words on standard input")?;
    Ok(text)
}

fn create(new: &NewArgs, seed: &[u8; 32], words: Option<&Mnemonic>) -> Result<()> {
    let path = new.key.path()?;
    // Before any word is shown: a wallet whose file cannot be written is none.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let passphrase = new.key.new_passphrase()?;
    keyfile::create(&path, seed, &passphrase, &new.label)?;
    let version = new.key.wallet_version;
    let address = new.key.address(new.chain.network)?;
    let mut rows = vec![
        ("key file", path.display().to_string()),
        ("version", version.to_string()),
        ("network", new.chain.network.to_string()),
        ("address", address.to_string()),
    ];
    if let Some(words) = words {
        rows.push(("24 words", words.words().to_owned()));
        rows.push((
            "",
            "Write them down on paper, in this order. They are shown this once. Whoever has them has the wallet."
                .into(),
        ));
    }
    new.chain.show(
        &rows,
        json!({ "schema": "cocoon/wallet/v1", "key_file": path, "version": version.to_string(),
                "network": new.chain.network.0, "address": address.to_string(), "label": new.label,
                "mnemonic": words.map(Mnemonic::words) }),
    )
}

impl LookArgs {
    fn address(&self) -> Result<Address> {
        match self.address {
            Some(address) => Ok(address),
            None => self.key.address(self.chain.network),
        }
    }
}

async fn show(look: &LookArgs) -> Result<()> {
    let address = look.address()?;
    let chain = look.chain.open().await?;
    let state = chain.account(&address).await?;
    let rows = [
        ("address", address.to_string()),
        ("network", chain.network().to_string()),
        ("balance", state.balance.to_string()),
        ("deployed", if state.active { "yes" } else { "no: its first payment deploys it" }.to_owned()),
    ];
    look.chain.show(
        &rows,
        json!({ "schema": "cocoon/wallet/v1", "network": chain.network().0, "address": address.to_string(),
                "balance_nanoton": state.balance.0, "deployed": state.active }),
    )
}

async fn send(to: Address, amount: &str, pay: &PayArgs) -> Result<()> {
    let everything = amount == "all";
    let value = if everything { Nanoton::ZERO } else { amount.parse()? };
    ensure!(everything || value > Nanoton::ZERO, "an amount above nothing, or `all`");
    let payer = pay.open().await?;
    let what = if everything { "everything".to_owned() } else { value.to_string() };
    let before = payer.ask(&[format!("This sends {what} to {to}. Fees: about 0.003 TON.")]).await?;
    let message = OutMessage { everything, ..OutMessage::new(to, value, None, None) };
    let report = payer.account.send_all(&[message]).await?;
    payer.explain("send", before, report, json!({ "to": to.to_string() })).await
}

async fn history(look: &LookArgs, csv: Option<PathBuf>) -> Result<()> {
    let address = look.address()?;
    let chain = look.chain.open().await?;
    let statement = Statement::read(&*chain, &address).await?;
    if let Some(path) = csv {
        if path.as_os_str() == "-" {
            return print(&statement.to_csv());
        }
        std::fs::write(&path, statement.to_csv()).with_context(|| format!("cannot write {}", path.display()))?;
        if !look.chain.json {
            return print(&format!(
                "{} transactions in {}; the last balance is the chain's: {}\n",
                statement.entries.len(),
                path.display(),
                statement.closing
            ));
        }
    }
    if look.chain.json {
        let entries: Vec<_> = statement
            .entries
            .iter()
            .map(|entry| {
                json!({ "time": entry.time.0, "lt": entry.lt, "hash": hex::encode(entry.hash), "what": entry.what,
                        "peers": entry.peers.iter().map(Address::to_string).collect::<Vec<_>>(),
                        "received_nanoton": entry.received.0, "sent_nanoton": entry.sent.0, "fees_nanoton": entry.fees.0,
                        "balance_nanoton": entry.balance.0 })
            })
            .collect();
        return print(&format!(
            "{}\n",
            json!({ "schema": "cocoon/statement/v1", "network": chain.network().0, "address": address.to_string(),
                    "opening_nanoton": statement.opening.0, "entries": entries, "closing_nanoton": statement.closing.0 })
        ));
    }
    let mut out = format!(
        "{:>12}  {:24} {:>16} {:>16} {:>14} {:>18}\n",
        "unix time", "what", "received", "sent", "fees", "balance, TON"
    );
    let ton = |amount: Nanoton| amount.to_string().trim_end_matches(" TON").to_owned();
    if statement.opening > Nanoton::ZERO {
        out.push_str(&format!(
            "{:>12}  {:24} {:>16} {:>16} {:>14} {:>18}\n",
            "",
            "opening",
            "",
            "",
            "",
            ton(statement.opening)
        ));
    }
    for entry in &statement.entries {
        out.push_str(&format!(
            "{:>12}  {:24} {:>16} {:>16} {:>14} {:>18}\n",
            entry.time.0,
            entry.what,
            ton(entry.received),
            ton(entry.sent),
            ton(entry.fees),
            ton(entry.balance)
        ));
    }
    print(&out)
}
    let to_output = csv.as_ref().is_some_and(|path| path.as_os_str() == "-");
    ensure!(
        !(to_output && look.chain.json),
        "standard output takes one of --csv - and --json: name a file for the other"
    );
    if to_output {
        return print(&statement.to_csv());
    }
