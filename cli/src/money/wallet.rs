//! `cocoon wallet`: make, import, look, send, and account for it.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::ChannelStatus;
use cocoon_settlement::contracts::channel::channel_code_hash;
use cocoon_settlement::contracts::provider::provider_code_hash;
use cocoon_settlement::mnemonic::Mnemonic;
use cocoon_settlement::statement::Statement;
use cocoon_settlement::wallet::{OutMessage, Wallet};
use cocoon_settlement::{Address, GivenAddress, Nanoton, NetworkId, keyfile, ops};
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
    /// Make a wallet and show its 24 words: write them down, they are its back-up
    New(NewArgs),
    /// Restore a wallet from its 24 words (asked for, or on standard input)
    Import {
        #[command(flatten)]
        new: NewArgs,
        /// Read the key from a file of 64 hexadecimal digits instead, as `cocoon up` keeps them
        #[arg(long)]
        hex: Option<PathBuf>,
    },
    /// Show the 24 words again, or see that a back-up restores this wallet
    Backup {
        #[command(flatten)]
        key: KeyArgs,
        #[command(flatten)]
        chain: ChainArgs,
        /// Show nothing: say whether the words on your paper (asked for, or on standard input) restore this wallet
        #[arg(long, conflicts_with = "copy")]
        check: bool,
        /// Copy the key file to this one, if it is not there, and say whether it restores this wallet
        #[arg(long, value_name = "FILE")]
        copy: Option<PathBuf>,
    },
    /// Leave a wallet whose key somebody may know: make another, send it everything, and then list what cannot be moved
    Rotate {
        /// The new wallet's key file
        new: PathBuf,
        /// A file whose first line is the new passphrase [default: the present one's]
        #[arg(long)]
        new_passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Show address and balance
    Show(LookArgs),
    /// Send TON
    Send {
        /// To whom; what a contract there does not take comes back
        to: GivenAddress,
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
            create(&new, &Made::Of(&words), true)
        }
        Command::Import { new, hex: Some(path) } => {
            let text = std::fs::read_to_string(&path).map(Zeroizing::new);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            let mut seed = Zeroizing::new([0; 32]);
            let read = hex::decode_to_slice(text.trim(), &mut *seed);
            read.ok().with_context(|| format!("{} does not hold 64 hexadecimal digits", path.display()))?;
            create(&new, &Made::Elsewhere(&seed), false)
        }
        Command::Import { new, hex: None } => create(&new, &Made::Of(&Mnemonic::parse(&words()?)?), false),
        Command::Backup { key, chain, check, copy } => backup(&key, &chain, check, copy.as_deref()),
        Command::Rotate { new, new_passphrase_file, pay } => rotate(new, new_passphrase_file, &pay).await,
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

/// Where a key comes from.
enum Made<'a> {
    /// Its words.
    Of(&'a Mnemonic),
    /// A seed that nobody has words of.
    Elsewhere(&'a [u8; 32]),
}

impl Made<'_> {
    /// Writes the key file. Before any word is shown: a wallet whose file cannot be written is none.
    fn keep(&self, path: &Path, passphrase: &str, label: &str) -> Result<()> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        match self {
            Self::Of(words) => keyfile::create_from_words(path, words, passphrase, label)?,
            Self::Elsewhere(seed) => keyfile::create(path, seed, passphrase, label)?,
        };
        Ok(())
    }
}

const ON_PAPER: &str = "Write them down on paper, in this order. Whoever has them has the wallet. `cocoon wallet backup --check` compares.";

fn create(new: &NewArgs, made: &Made<'_>, show: bool) -> Result<()> {
    let path = new.key.path()?;
    made.keep(&path, &new.key.new_passphrase()?, &new.label)?;
    let words = match made {
        Made::Of(words) if show => Some(*words),
        _ => None,
    };
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
        rows.push(("", ON_PAPER.into()));
    }
    new.chain.show(
        &rows,
        json!({ "schema": "cocoon/wallet/v1", "key_file": path, "version": version.to_string(),
                "network": new.chain.network.0, "address": address.to_string(), "label": new.label,
                "mnemonic": words.map(Mnemonic::words) }),
    )
}

/// Shows the words, or compares a back-up with the key file. Neither needs the chain.
fn backup(key: &KeyArgs, chain: &ChainArgs, check: bool, copy: Option<&Path>) -> Result<()> {
    let path = key.existing()?;
    let (passphrase, secret) = key.unlock()?;
    let (version, network) = (key.wallet_version, chain.network);
    let address_of = |seed: &[u8; 32]| Ok::<_, anyhow::Error>(Wallet::with_version(*seed, network, version)?.address());
    let address = address_of(&secret)?;
    let mut rows = vec![("key file", path.display().to_string()), ("address", address.to_string())];
    let mut object = json!({ "schema": "cocoon/wallet/v1", "key_file": path, "version": version.to_string(),
                             "network": network.0, "address": address.to_string(), "label": keyfile::info(&path)?.label });
    let same = |what: String, seed: &[u8; 32]| {
        let other = address_of(seed)?;
        ensure!(
            *seed == *secret,
            "{what} the wallet {other}, and {} is {address}: it is no back-up of it",
            path.display()
        );
        Ok(format!("{what} this wallet"))
    };
    if let Some(copy) = copy {
        if !copy.exists() {
            keyfile::copy(&path, copy)?;
        }
        let opened =
            keyfile::open(copy, &passphrase).context("a copy opens with the passphrase that it was made under")?;
        let what = same(format!("{} restores", copy.display()), &opened)?;
        rows.push(("back-up", format!("{what}; keep it on another machine, and the passphrase in your head")));
        object["backup"] = json!(copy);
    } else if check {
        let what = same("these words restore".into(), &Mnemonic::parse(&words()?)?.seed())?;
        rows.push(("back-up", what));
        object["backup"] = json!("words");
    } else {
        let words = keyfile::words(&path, &passphrase)?.context(
            "this key was not made from words, or by a version that did not keep them: back it up with `cocoon wallet backup --copy FILE`",
        )?;
        rows.extend([("24 words", words.words().to_owned()), ("", ON_PAPER.into())]);
        object["mnemonic"] = json!(words.words());
    }
    chain.show(&rows, object)
}

async fn rotate(path: PathBuf, new_passphrase_file: Option<PathBuf>, pay: &PayArgs) -> Result<()> {
    ensure!(
        !path.exists(),
        "{} exists already: name another file, or send to its wallet with `cocoon wallet send ADDRESS all`",
        path.display()
    );
    let payer = pay.open().await?;
    let own = payer.account.address();
    let words = Mnemonic::generate()?;
    let version = pay.key.wallet_version;
    let address = Wallet::with_version(*words.seed(), payer.chain.network(), version)?.address();
    let plan = [
        format!(
            "This makes a new wallet {address} in {}, and sends everything to it. Fees: about 0.003 TON.",
            path.display()
        ),
        "  It cannot move channels and providers' contracts, which stay bound to the old key: they are looked for afterwards."
            .into(),
    ];
    let before = payer.ask(&plan).await?;
    let passphrase_file = new_passphrase_file.or_else(|| pay.key.passphrase_file.clone());
    let key = KeyArgs { wallet: Some(path.clone()), wallet_version: version, passphrase_file };
    let passphrase = key.new_passphrase()?;
    Made::Of(&words).keep(&path, &passphrase, "wallet")?;
    // What is sent there must come back out of the file, not out of this process's memory.
    let kept = keyfile::words(&path, &passphrase)?.context("the new key file has no words")?;
    ensure!(
        Wallet::with_version(*kept.seed(), payer.chain.network(), version)?.address() == address,
        "{} does not hold the new wallet's key: nothing was sent",
        path.display()
    );
    if !pay.chain.json {
        print(&super::table(&[
            ("new key file", path.display().to_string()),
            ("new address", address.to_string()),
            ("24 words", words.words().to_owned()),
            ("", ON_PAPER.to_owned()),
        ]))?;
    }
    // First of all: whoever else has the key may be at it already.
    let message = OutMessage { everything: true, ..OutMessage::new(address, Nanoton::ZERO, None, None) };
    let report = payer.account.send_all(&[message]).await?;
    let mut extra = json!({ "to": address.to_string(), "key_file": path, "mnemonic": words.words() });
    let chain = payer.chain.clone();
    let stop = async {
        tokio::select! {
            () = tokio::time::sleep(LOOKING) => {}
            // Without a way to hear of it there is still the time.
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    if pay.chain.json {
        let mut left = Vec::new();
        let all = bound_to(&*chain, &own, stop, |kind, address| {
            left.push(json!({ "kind": kind, "address": address.to_string() }));
            Ok(())
        });
        extra["left_behind_complete"] = json!(all.await?);
        extra["left_behind"] = json!(left);
        return payer.explain("rotate", before, report, extra).await;
    }
    payer.explain("rotate", before, report, extra).await?;
    eprintln!(
        "Looking for what stays bound to the old key, {} at most; Ctrl-C ends it.",
        super::duration(LOOKING.as_secs())
    );
    let mut any = false;
    let all = bound_to(&*chain, &own, stop, |kind, address| {
        any = true;
        print(&format!("left behind: {kind} {address}\n"))
    });
    let mut last = match all.await? {
        true => "All accounts that it had to do with were looked at.".to_owned(),
        false => {
            "Not all accounts that it had to do with could be looked at: `cocoon wallet history` names them.".into()
        }
    };
    last.push_str(
        " Only channels and providers' contracts of this version's code are found; those of others stay bound too.\n",
    );
    if any {
        last.push_str("What to do about these: docs/guides/pay-and-get-paid.md, \"When somebody may know a key\"\n");
    }
    print(&last)
}

/// How long what stays bound to a key is looked for.
const LOOKING: Duration = Duration::from_secs(120);
/// Transactions that are asked for at once.
const PAGE: usize = 100;

/// Names the channels that refund this wallet and are not closed, and the providers' contracts that it owns, as they are found: first among the
/// accounts that it sent to, from the latest on, then among those that only sent to it, of which anybody can make as many as he likes. Gives
/// whether all were looked at before `stop` ended.
async fn bound_to(
    chain: &dyn Chain,
    own: &Address,
    stop: impl Future<Output = ()>,
    mut found: impl FnMut(&'static str, Address) -> Result<()>,
) -> Result<bool> {
    let mut unread = false;
    let looking = async {
        let mut look = async |peer: Address| match kind_if_bound(chain, &peer, own).await {
            Ok(Some(kind)) => found(kind, peer),
            Ok(None) => Ok(()),
            // One that cannot be asked must not hide the others.
            Err(_) => {
                unread = true;
                Ok(())
            }
        };
        let (mut seen, mut others, mut before) = (BTreeSet::from([*own]), Vec::new(), None);
        loop {
            let page = chain.transactions_before(own, before, PAGE).await?;
            let Some(last) = page.last() else { break };
            before = Some((last.lt, last.hash));
            for transaction in &page {
                for message in &transaction.sent {
                    if seen.insert(message.peer) {
                        look(message.peer).await?;
                    }
                }
                others.extend(transaction.received.iter().map(|message| message.peer));
            }
        }
        for peer in others {
            if seen.insert(peer) {
                look(peer).await?;
            }
        }
        anyhow::Ok(())
    };
    let looked = tokio::select! {
        looked = looking => Some(looked),
        () = stop => None,
    };
    match looked {
        Some(Ok(())) => Ok(!unread),
        // The money is on its way already, and what was found stays found.
        Some(Err(error)) => {
            eprintln!("{error:#}");
            Ok(false)
        }
        None => Ok(false),
    }
}

/// What kind of account this is, if it stays bound to the wallet.
async fn kind_if_bound(chain: &dyn Chain, peer: &Address, own: &Address) -> Result<Option<&'static str>> {
    let code = chain.account(peer).await?.code_hash;
    if code == Some(channel_code_hash()) {
        let open = !matches!(ops::channel_state(chain, peer).await?.status, ChannelStatus::Closed { .. });
        return Ok((open && ops::channel_terms(chain, peer).await?.client == *own).then_some("channel"));
    }
    let owned = code == Some(provider_code_hash()) && ops::provider_terms(chain, peer).await?.owner == *own;
    Ok(owned.then_some("provider"))
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

async fn send(given: GivenAddress, amount: &str, pay: &PayArgs) -> Result<()> {
    let to = given.address;
    let everything = amount == "all";
    let value = if everything { Nanoton::ZERO } else { amount.parse()? };
    ensure!(everything || value > Nanoton::ZERO, "an amount above nothing, or `all`");
    let payer = pay.open().await?;
    ensure!(
        !(given.testnet && payer.chain.network() == NetworkId::MAINNET),
        "this address is written for test networks, and you send on {}: ask for another",
        NetworkId::MAINNET
    );
    let what = if everything { "everything".to_owned() } else { value.to_string() };
    let deployed = payer.chain.account(&to).await?.active;
    let arrives = match (deployed, given.bounceable) {
        (true, _) => {
            "A contract is there: if it does not take a plain transfer, what was sent comes back less the fees."
        }
        (false, Some(true)) => {
            "The address was given as one of a contract, and nothing is deployed there: what is sent stays there all the same."
        }
        (false, _) => "Nothing is deployed there yet: what is sent stays there for whoever has the key.",
    };
    let ask = [format!("This sends {what} to {to}. Fees: about 0.003 TON."), format!("  {arrives}")];
    let before = payer.ask(&ask).await?;
    let message = OutMessage { everything, ..OutMessage::transfer(to, value, deployed) };
    let report = payer.account.send_all(&[message]).await?;
    payer.explain("send", before, report, json!({ "to": to.to_string() })).await
}

async fn history(look: &LookArgs, csv: Option<PathBuf>) -> Result<()> {
    let address = look.address()?;
    let to_output = csv.as_ref().is_some_and(|path| path.as_os_str() == "-");
    ensure!(
        !(to_output && look.chain.json),
        "standard output takes one of --csv - and --json: name a file for the other"
    );
    let chain = look.chain.open().await?;
    let statement = Statement::read(&*chain, &address).await?;
    if to_output {
        return print(&statement.to_csv());
    }
    if let Some(path) = csv {
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
                        "received_nanoton": entry.received.0, "earned_nanoton": entry.earned.0, "sent_nanoton": entry.sent.0, "fees_nanoton": entry.fees.0,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cocoon_attestation::{Digest, UnixTime};
    use cocoon_settlement::Error;
    use cocoon_settlement::account::Account;
    use cocoon_settlement::chain::{AccountState, BlockRef, GetResult, StackValue, Trace, TxSummary};
    use cocoon_settlement::contracts::{ProviderInit, RegistryInit};
    use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};

    use super::*;

    const AT: UnixTime = UnixTime(1_790_000_000);

    /// A chain that does not answer about one account, or says that it cannot.
    struct Dumb {
        chain: Arc<LocalChain>,
        about: Address,
        says_so: bool,
    }

    #[async_trait::async_trait]
    impl Chain for Dumb {
        fn network(&self) -> NetworkId {
            self.chain.network()
        }
        async fn head(&self) -> Result<BlockRef, Error> {
            self.chain.head().await
        }
        async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
            self.chain.block(seqno).await
        }
        async fn account(&self, address: &Address) -> Result<AccountState, Error> {
            match (*address == self.about, self.says_so) {
                (true, true) => Err(Error::NotSeen("no".into())),
                (true, false) => std::future::pending().await,
                (false, _) => self.chain.account(address).await,
            }
        }
        async fn send(&self, external: tycho_types::cell::Cell) -> Result<[u8; 32], Error> {
            self.chain.send(external).await
        }
        async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error> {
            self.chain.run_get(address, method, args).await
        }
        async fn transactions_before(
            &self,
            address: &Address,
            before: Option<(u64, [u8; 32])>,
            limit: usize,
        ) -> Result<Vec<TxSummary>, Error> {
            self.chain.transactions_before(address, before, limit).await
        }
        async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
            self.chain.trace(message_hash).await
        }
    }

    /// A wallet that owns a Provider, and last got dust from another, whose address comes second.
    async fn owner() -> (Arc<LocalChain>, Account, Address, Address) {
        let address = |seed: u8| Wallet::new([seed; 32], NetworkId::LOCAL).unwrap().address();
        let accounts = [1, 2].map(|seed| (address(seed), Nanoton(10_000_000_000))).to_vec();
        let clock = Arc::new(ManualClock::new(AT));
        let chain = Arc::new(LocalChain::in_memory(Genesis { accounts, time: AT }, clock).unwrap());
        let account = Account::new(chain.clone(), [1; 32]).unwrap();
        let init = RegistryInit {
            network: NetworkId::LOCAL,
            governance: account.address(),
            time_lock: 0,
            threshold: 1,
            max_lifetime: 86_400,
            verifiers: vec![[1; 32]],
            images: vec![Digest([9; 32])],
            models: vec![Digest([3; 32])],
        };
        let registry = ops::deploy_registry(&account, &init).await.unwrap().0;
        let owner = account.address();
        let init = ProviderInit { network: NetworkId::LOCAL, registry, owner, claim_window: 3_600, salt: [0; 32] };
        let provider = ops::deploy_provider(&account, &init).await.unwrap().0;
        let other = Account::new(chain.clone(), [2; 32]).unwrap();
        other.send(owner, Nanoton(10_000_000), None, None).await.unwrap().success().unwrap();
        (chain, account, other.address(), provider)
    }

    async fn found(chain: &dyn Chain, own: &Address, patience: Duration) -> (bool, Vec<(&'static str, Address)>) {
        let mut found = Vec::new();
        let all = bound_to(chain, own, tokio::time::sleep(patience), |kind, address| {
            found.push((kind, address));
            Ok(())
        });
        (all.await.unwrap(), found)
    }

    #[tokio::test]
    async fn what_stays_bound_is_found_although_the_chain_does_not_answer_about_dust() {
        let (chain, account, dust, provider) = owner().await;
        let (own, long) = (account.address(), Duration::from_secs(600));
        let bound = vec![("provider", provider)];
        assert_eq!(found(&*chain, &own, long).await, (true, bound.clone()));
        // Only who sent to the wallet is looked at last, and it is no end of it that one of them cannot be looked at.
        let silent = Dumb { chain: chain.clone(), about: dust, says_so: false };
        assert_eq!(found(&silent, &own, Duration::from_millis(300)).await, (false, bound.clone()));
        for about in [dust, cocoon_settlement::Address::basechain([0; 32])] {
            let complete = about != dust;
            let failing = Dumb { chain: chain.clone(), about, says_so: true };
            assert_eq!(found(&failing, &own, long).await, (complete, bound.clone()));
        }
        // Where the wallet sent something last comes first.
        account.send(dust, Nanoton(10_000_000), None, None).await.unwrap().success().unwrap();
        assert_eq!(found(&silent, &own, Duration::from_millis(300)).await, (false, Vec::new()));
        // Another's contract is not bound to this wallet.
        assert_eq!(found(&*chain, &dust, long).await, (true, Vec::new()));
    }
}
