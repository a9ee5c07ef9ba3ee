//! The commands that move money, as their users run them, against a local chain whose clock the test sets.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use cocoon_attestation::{Digest, UnixTime};
use cocoon_host::store::{Ended, Store};
use cocoon_protocol::identity::SigningKey;
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::{SettlementReceipt, Verdict, Voucher};
use cocoon_settlement::contracts::channel::channel_code_hash;
use cocoon_settlement::contracts::provider::provider_code_hash;
use cocoon_settlement::contracts::{Change, RegistryInit, Release};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock, rpc};
use cocoon_settlement::{Address, Nanoton, NetworkId, Prices, keyfile, ops};
use serde_json::Value;

const AT: UnixTime = UnixTime(1_790_000_000);
const LOCAL: NetworkId = NetworkId::LOCAL;
const DAY: u64 = 86_400;

struct World {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    chain: Arc<LocalChain>,
    url: String,
    /// Pays for what the test itself does.
    account: Account,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(AT));
        let address = |seed: u8| cocoon_settlement::wallet::Wallet::new([seed; 32], LOCAL).unwrap().address();
        let accounts = [1, 2, 9].map(|seed| (address(seed), Nanoton::from_ton(1_000))).to_vec();
        let chain = Arc::new(LocalChain::in_memory(Genesis { accounts, time: AT }, clock.clone()).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(rpc::serve(listener, chain.clone()));
        std::fs::write(folder.path().join("pass"), "correct horse\nand a second line").unwrap();
        std::fs::write(folder.path().join("pass2"), "battery staple").unwrap();
        for seed in [1_u8, 2] {
            std::fs::write(folder.path().join(format!("hex{seed}")), hex::encode([seed; 32])).unwrap();
        }
        let account = Account::new(chain.clone(), [9; 32]).unwrap();
        Self { folder, clock, chain, url, account }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, wallet: &str, args: &[&str], input: &str) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_cocoon"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("COCOON_CHAIN", &self.url)
            .env("COCOON_WALLET", wallet)
            .env("COCOON_PASSPHRASE_FILE", "pass")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).await.unwrap();
        child.wait_with_output().await.unwrap()
    }

    /// The JSON of a command that must succeed.
    async fn json(&self, wallet: &str, args: &[&str]) -> Value {
        let output = self.run(wallet, &[args, &["--json"]].concat(), "").await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        documented(&value);
        value
    }

    /// A payment, whose balance must be explained to the nanoton.
    async fn pay(&self, wallet: &str, args: &[&str]) -> Value {
        let value = self.json(wallet, &[args, &["--yes"]].concat()).await;
        let [before, sent, back, fees, after] = ["before", "sent", "returned", "wallet_fees", "after"]
            .map(|name| value[format!("{name}_nanoton")].as_i64().unwrap());
        assert_eq!(before - sent + back - fees, after, "{value}");
        value
    }

    /// What a command that must fail says.
    async fn fails(&self, wallet: &str, args: &[&str]) -> String {
        let output = self.run(wallet, args, "").await;
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What a command says at a terminal, and whether it succeeds, if it is answered so once it asks.
    async fn at_terminal(&self, wallet: &str, args: &[&str], answer: &str) -> (bool, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let command = format!("exec {} {}", env!("CARGO_BIN_EXE_cocoon"), args.join(" "));
        let mut terminal = tokio::process::Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .current_dir(self.folder.path())
            .env("COCOON_CHAIN", &self.url)
            .env("COCOON_WALLET", wallet)
            .env("COCOON_PASSPHRASE_FILE", "pass")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
        let (mut said, mut answered) = (Vec::new(), false);
        let talk = async {
            while stdout.read_buf(&mut said).await.unwrap() > 0 {
                if !answered && String::from_utf8_lossy(&said).contains("[y/N]") {
                    stdin.write_all(answer.as_bytes()).await.unwrap();
                    answered = true;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), talk).await.expect("it neither asks nor ends");
        (terminal.wait().await.unwrap().success(), String::from_utf8(said).unwrap())
    }

    async fn balance(&self, address: &str) -> i64 {
        self.chain_account(&address.parse().unwrap()).await
    }

    async fn chain_account(&self, address: &Address) -> i64 {
        use cocoon_settlement::chain::Chain;
        i64::try_from(self.chain.account(address).await.unwrap().balance.0).unwrap()
    }

    async fn import(&self, seed: u8) -> (String, String) {
        let (file, source) = (format!("wallet{seed}.json"), format!("hex{seed}"));
        let made = self.json(&file, &["wallet", "import", "--hex", &source]).await;
        assert_eq!(made["mnemonic"], Value::Null);
        (file, made["address"].as_str().unwrap().to_owned())
    }
}

/// `docs/schemas/money.schema.json` names every key that is written, and what it requires is there.
fn documented(value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/money.schema.json");
    let schemas: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let schema = &schemas["$defs"][value["schema"].as_str().unwrap()];
    let keys = value.as_object().unwrap();
    for key in keys.keys() {
        assert!(schema["properties"].get(key).is_some(), "{key} of {} is not documented", value["schema"]);
    }
    for key in schema["required"].as_array().unwrap() {
        assert!(keys.contains_key(key.as_str().unwrap()), "{key} of {} is missing", value["schema"]);
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn registry(governance: Address, time_lock: u32) -> RegistryInit {
    RegistryInit {
        network: LOCAL,
        governance,
        time_lock,
        threshold: 1,
        max_lifetime: 86_400,
        verifiers: vec![key(21).public()],
        images: vec![Digest([9; 32])],
        models: vec![Digest([3; 32])],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_made_restored_used_and_accounted_for() {
    let world = World::new().await;
    let made = world.json("new.json", &["wallet", "new"]).await;
    let words = made["mnemonic"].as_str().unwrap().to_owned();
    assert_eq!(words.split(' ').count(), 24);
    // The words alone bring the same wallet back, in either version.
    for version in ["v5R1", "v4R2"] {
        let file = format!("restored-{version}.json");
        let args = ["wallet", "import", "--wallet-version", version, "--json"];
        let output = world.run(&file, &args, &words.to_uppercase()).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let restored: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(restored["address"] == made["address"], version == "v5R1");
        assert_eq!(restored["version"], version);
    }
    let output = world.run("bad.json", &["wallet", "import"], &words.replacen(' ', " not-a-word ", 1)).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("25 words") && !error.contains("not-a-word") && !world.path("bad.json").exists(), "{error}");
    assert!(
        world.fails("new.json", &["wallet", "new"]).await.contains("exists already"),
        "an existing wallet was replaced"
    );

    let (rich, address) = world.import(1).await;
    let fresh = made["address"].as_str().unwrap();
    // Nothing is spent that nobody said yes to.
    let refused = world.fails(&rich, &["wallet", "send", fresh, "5"]).await;
    assert!(refused.contains("sends 5 TON") && refused.contains(&address) && refused.contains("--yes"), "{refused}");
    assert_eq!(world.balance(fresh).await, 0);
    for (amount, why) in
        [("0", "above nothing"), ("-1", "not an amount"), ("1,5", "not an amount"), ("10000", "holds 1000 TON")]
    {
        let error = world.fails(&rich, &["wallet", "send", "--yes", "--", fresh, amount]).await;
        assert!(error.contains(why), "{amount}: {error}");
    }
    world.pay(&rich, &["wallet", "send", fresh, "5"]).await;
    world.pay("new.json", &["wallet", "send", &address, "all"]).await;
    assert_eq!(world.balance(fresh).await, 0);

    let csv = world.run(&rich, &["wallet", "history", "--csv", "-"], "").await;
    let csv = String::from_utf8(csv.stdout).unwrap();
    let last = csv.lines().last().unwrap().rsplit(',').nth(1).unwrap();
    assert_eq!(last.parse::<i64>().unwrap(), world.balance(&address).await);
    assert_eq!(csv.lines().count(), 4, "{csv}");
    // Both at once: the file is the same, and a program that reads the output finds nothing but the object.
    let history = world.json(&rich, &["wallet", "history", "--csv", "statement.csv"]).await;
    assert_eq!(std::fs::read_to_string(world.path("statement.csv")).unwrap(), csv);
    assert_eq!((history["entries"].as_array().unwrap().len(), &history["address"]), (2, &address.clone().into()));
    let both = world.fails(&rich, &["wallet", "history", "--csv", "-", "--json"]).await;
    assert!(both.contains("standard output takes one"), "{both}");
    let table = world.run(&rich, &["wallet", "history", "--csv", "again.csv"], "").await;
    assert!(String::from_utf8(table.stdout).unwrap().starts_with("2 transactions in again.csv"));
    // Any account, for which no key is needed.
    let other = world.json("none.json", &["wallet", "history", "--address", fresh]).await;
    assert_eq!((&other["opening_nanoton"], other["entries"].as_array().unwrap().len()), (&0.into(), 2));

    // Another passphrase; the old one opens nothing any more.
    let changed = world.run(&rich, &["wallet", "passphrase", "--new-passphrase-file", "pass2"], "").await;
    assert!(changed.status.success());
    assert!(world.fails(&rich, &["wallet", "send", fresh, "1", "--yes"]).await.contains("passphrase is wrong"));
    world.pay(&rich, &["wallet", "send", fresh, "1", "--passphrase-file", "pass2"]).await;

    let wrong = world.fails(&rich, &["wallet", "show", "--network", "mainnet"]).await;
    assert!(wrong.contains("it is local, and you named mainnet"), "{wrong}");
    assert!(world.fails("none.json", &["wallet", "show"]).await.contains("cocoon wallet new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_lives_from_its_opening_to_its_deletion_and_its_provider_is_paid() {
    let world = World::new().await;
    let registry = ops::deploy_registry(&world.account, &registry(world.account.address(), 0)).await.unwrap().0;
    let (provider_wallet, owner) = world.import(1).await;
    let (client_wallet, client) = world.import(2).await;

    let made = world.pay(&provider_wallet, &["host", "register", &registry.to_string()]).await;
    let provider = made["provider"].as_str().unwrap();
    assert!(
        world.fails(&provider_wallet, &["host", "register", &registry.to_string(), "--yes"]).await.contains("already")
    );
    let slow = ["host", "register", &registry.to_string(), "--number", "1", "--claim-window", "7776001", "--yes"];
    assert!(world.fails(&provider_wallet, &slow).await.contains("90 days"));
    let provider_address: Address = provider.parse().unwrap();
    let verdict = Verdict {
        network: LOCAL,
        registry,
        provider: provider_address,
        enclave_key: key(41).enclave_key(),
        evidence_id: Digest([8; 32]),
        image: Digest([9; 32]),
        model_root: Digest([3; 32]),
        generation: 0,
        until: AT.plus(80_000),
        expiry: AT.plus(3_600),
        set_epoch: ops::registry_params(world.chain.as_ref(), &registry).await.unwrap().set_epoch,
    };
    let signature = verdict.sign(&[21; 32]).unwrap();
    // Only the owner brings a key: others cannot cost it its stake.
    let stranger = ops::attest(&world.account, &registry, &verdict, &[(0, signature)]).await.unwrap();
    assert_eq!(stranger.aborted, Some((provider_address, 100)));
    let owning = Account::new(world.chain.clone(), [1; 32]).unwrap();
    ops::attest(&owning, &registry, &verdict, &[(0, signature)]).await.unwrap().success().unwrap();

    // What can cost the stake is said before anything is staked.
    let warned = world.fails(&provider_wallet, &["host", "stake", provider, "50"]).await;
    assert!(warned.contains("two receipts") && warned.contains("burned") && warned.contains("--yes"), "{warned}");
    assert!(warned.contains("a machine of yours") && warned.contains("Nobody but you can bring"), "{warned}");
    assert!(warned.contains("You get it back by `cocoon host unstake`"), "{warned}");
    // Who would not get it back is told so, and has to say that it is a gift.
    let before = world.balance(&client).await;
    let refused = world.fails(&client_wallet, &["host", "stake", provider, "5", "--yes"]).await;
    assert!(refused.contains(&format!("belongs to {owner}")) && refused.contains("--gift"), "{refused}");
    assert_eq!(world.balance(&client).await, before);
    let asked = world.fails(&client_wallet, &["host", "stake", provider, "5", "--gift"]).await;
    assert!(asked.contains(&format!("You do not get it back: only the provider's owner {owner}")), "{asked}");
    assert!(!asked.contains("You get it back"), "{asked}");
    let given = world.pay(&client_wallet, &["host", "stake", provider, "5", "--gift"]).await;
    assert!((4_900_000_000..5_000_000_000).contains(&given["stake_nanoton"].as_i64().unwrap()), "{given}");
    let staked =
        world.pay(&provider_wallet, &["host", "stake", provider, "50"]).await["stake_nanoton"].as_i64().unwrap();
    assert!((54_900_000_000..55_000_000_000).contains(&staked), "{staked}");
    world.pay(&provider_wallet, &["host", "unstake", provider, "20"]).await;
    let status = world
        .json(&provider_wallet, &["host", "status", provider, "--enclave-key", &key(41).enclave_key().to_string()])
        .await;
    assert_eq!(status["unbonding_nanoton"], 20_000_000_000_i64);
    assert_eq!((&status["keys"][0]["state"], &status["owner"]), (&"active".into(), &owner.clone().into()));
    assert!(world.fails(&client_wallet, &["host", "unstake", provider, "1", "--yes"]).await.contains("belongs to"));

    let asked = world.fails(&client_wallet, &["channel", "open", provider, "10"]).await;
    assert!(asked.contains("deposit of 10 TON") && asked.contains(&owner) && asked.contains("3 days"), "{asked}");
    let opened = world.pay(&client_wallet, &["channel", "open", provider, "10", "--client-key", "client.json"]).await;
    let channel = opened["channel"].as_str().unwrap();
    let client_key = keyfile::open(&world.path("client.json"), "correct horse").unwrap();
    let again =
        world.fails(&client_wallet, &["channel", "open", provider, "10", "--client-key", "client.json", "--yes"]).await;
    assert!(again.contains("exists already"), "{again}");
    let before = world.balance(&owner).await;
    let refused = world.fails(&provider_wallet, &["channel", "top-up", channel, "1", "--yes"]).await;
    assert!(refused.contains(&format!("the channel is {client}'s")) && refused.contains("--gift"), "{refused}");
    assert_eq!(world.balance(&owner).await, before);
    let asked = world.fails(&provider_wallet, &["channel", "top-up", channel, "1", "--gift"]).await;
    assert!(asked.contains(&format!("goes to the channel's client {client}")), "{asked}");
    world.pay(&provider_wallet, &["channel", "top-up", channel, "0.5", "--gift"]).await;
    let asked = world.fails(&client_wallet, &["channel", "top-up", channel, "2"]).await;
    assert!(asked.contains("comes back to this wallet"), "{asked}");
    world.pay(&client_wallet, &["channel", "top-up", channel, "2"]).await;
    let status = world.json(&client_wallet, &["channel", "status", channel]).await;
    assert_eq!((&status["status"], &status["client"]), (&"open".into(), &client.clone().into()));
    let available = status["available_nanoton"].as_i64().unwrap();
    assert!((12_400_000_000..12_500_000_000).contains(&available), "{available}");

    // Work is done, and claimed from the record of a host that has stopped.
    let channel_address: Address = channel.parse().unwrap();
    let (enclave_key, cap) = (key(41).enclave_key(), Nanoton(3_000_000_000));
    let prices = Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 };
    let voucher =
        Voucher { network: LOCAL, channel: channel_address, enclave_key, cap, prices, expiry: AT.plus(3_600) };
    let receipt = SettlementReceipt {
        network: LOCAL,
        provider: provider_address,
        channel: channel_address,
        enclave_key,
        sequence: 1,
        total: Nanoton(1_234_567_890),
        time: AT,
    };
    std::fs::create_dir(world.path("host")).unwrap();
    {
        let store = Store::open(&world.path("host/host.redb")).unwrap();
        store.keep_voucher(&SignedVoucher::sign(voucher, &client_key).unwrap()).unwrap();
        store.keep_receipt(&SignedSettlementReceipt::sign(receipt.clone(), &key(41)).unwrap()).unwrap();
    }
    let claim = world.json(&provider_wallet, &["host", "claim", provider, "--data", "host", "--yes"]).await;
    assert_eq!((&claim["items"], &claim["paid_nanoton"]), (&1.into(), &1_234_567_890_i64.into()));
    let again = world.json(&provider_wallet, &["host", "claim", provider, "--data", "host", "--yes"]).await;
    assert_eq!((&again["items"], &again["fees_nanoton"]), (&0.into(), &0.into()));
    assert_eq!((&again["held_nanoton"], &again["held"]), (&0.into(), &Value::Array(Vec::new())));

    // A receipt that is not the enclave's: it is refused, held off for a day, and named each time; --again has it refused again.
    {
        let store = Store::open(&world.path("host/host.redb")).unwrap();
        let forged = SettlementReceipt { sequence: 2, total: Nanoton(2_234_567_890), ..receipt };
        store.keep_receipt(&SignedSettlementReceipt::sign(forged, &key(99)).unwrap()).unwrap();
    }
    let claiming = ["host", "claim", provider, "--data", "host", "--yes"];
    let mut lost = 0;
    for (args, refusals) in [(&[][..], 1), (&[], 1), (&["--again"], 2)] {
        let claim = world.json(&provider_wallet, &[&claiming, args].concat()).await;
        let held = &claim["held"][0];
        lost += claim["fees_nanoton"].as_i64().unwrap();
        assert_eq!(lost, 0, "it is known before it is sent");
        assert_eq!((&claim["items"], &claim["held_nanoton"]), (&0.into(), &1_000_000_000_i64.into()));
        assert_eq!((&held["refusals"], &held["lost_nanoton"]), (&refusals.into(), &lost.into()), "{args:?}");
        assert_eq!((&held["exit_code"], &held["enclave_key"]), (&133.into(), &enclave_key.to_string().into()));
        assert_eq!(held["next_try"].as_u64().unwrap() - held["refused_at"].as_u64().unwrap(), DAY);
    }
    let table = world.run(&provider_wallet, &claiming, "").await;
    let (said, asked) = (String::from_utf8(table.stdout).unwrap(), String::from_utf8(table.stderr).unwrap());
    let line = said.lines().find(|line| line.starts_with("  held off")).unwrap();
    for part in
        ["1 TON of enclave", "refused 2 times", "133: the receipt is not signed by this enclave", "next try in 24 h"]
    {
        assert!(line.contains(part), "{line}");
    }
    assert!(asked.contains("--again claims it too"), "{asked}");
    let status =
        world.json(&client_wallet, &["channel", "status", channel, "--enclave-key", &enclave_key.to_string()]).await;
    assert_eq!(status["paid"][0]["paid_nanoton"], 1_234_567_890_i64);

    // The client closes alone: a step, a wait, a step, and later the end.
    assert!(world.fails(&provider_wallet, &["channel", "close", channel, "--yes"]).await.contains("only its client"));
    world.pay(&client_wallet, &["channel", "close", channel]).await;
    let early = world.fails(&client_wallet, &["channel", "close", channel, "--yes"]).await;
    assert!(early.contains("in 3 days"), "{early}");
    assert!(
        world.fails(&client_wallet, &["channel", "top-up", channel, "1", "--yes"]).await.contains("closing or closed")
    );
    world.clock.advance(3 * DAY);
    let refund = world.pay(&client_wallet, &["channel", "close", channel]).await["returned_nanoton"].as_i64().unwrap();
    assert!(refund > 12_400_000_000 - 1_234_567_890 && refund < 12_550_000_000 - 1_234_567_890, "{refund}");
    assert_eq!(world.json(&client_wallet, &["channel", "status", channel]).await["status"], "closed");
    // What is left is deleted ten days later: known before, and nothing is paid to be told so.
    let before = world.balance(&client).await;
    let early = world.fails(&client_wallet, &["channel", "close", channel, "--yes"]).await;
    assert!(early.contains("in 10 days") && early.contains("run this again then"), "{early}");
    let delete_from = AT.plus(3 * DAY + 10 * DAY + 1);
    assert!(early.contains(&format!("from {delete_from} on")), "{early}");
    world.clock.advance(10 * DAY);
    world.fails(&client_wallet, &["channel", "close", channel, "--yes"]).await;
    assert_eq!(world.balance(&client).await, before);
    // The chain makes a block every five seconds.
    world.clock.advance(5);
    world.pay(&client_wallet, &["channel", "close", channel]).await;
    assert_eq!(world.balance(channel).await, 0);
    assert!(world.fails(&client_wallet, &["channel", "status", channel]).await.contains("is not deployed"));

    // The stake unlocked meanwhile.
    let before = world.balance(&owner).await;
    world.pay(&provider_wallet, &["host", "withdraw", provider]).await;
    assert!(world.balance(&owner).await - before > 19_900_000_000);
    for (wallet, address, earns) in [(&provider_wallet, &owner, 1_234_567_890), (&client_wallet, &client, 0)] {
        let history = world.json(wallet, &["wallet", "history"]).await;
        // What was earned, apart from what came back of what claims carried.
        let entries = history["entries"].as_array().unwrap();
        let earned: i64 = entries.iter().map(|entry| entry["earned_nanoton"].as_i64().unwrap()).sum();
        assert_eq!(earned, earns);
        let csv = String::from_utf8(world.run(wallet, &["wallet", "history", "--csv", "-"], "").await.stdout).unwrap();
        let column = csv.lines().next().unwrap().split(',').position(|name| name == "earned_nanoton").unwrap();
        let lines = csv.lines().skip(1).map(|line| line.split(',').nth(column).unwrap().parse::<i64>().unwrap());
        assert_eq!(lines.sum::<i64>(), earns);
        assert_eq!(history["closing_nanoton"], world.balance(address).await);
        assert_eq!(
            history["entries"].as_array().unwrap().last().unwrap()["balance_nanoton"],
            history["closing_nanoton"]
        );
    }
}

/// A contract that does not take a plain transfer must not keep it: nobody could get it out of a Registry again.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_transfer_comes_back_from_every_contract_and_stays_where_nothing_is_deployed() {
    use tycho_types::models::StdAddr;
    let world = World::new().await;
    let registry = ops::deploy_registry(&world.account, &registry(world.account.address(), 0)).await.unwrap().0;
    let (wallet, address) = world.import(1).await;
    let made = world.pay(&wallet, &["host", "register", &registry.to_string()]).await;
    let provider = made["provider"].as_str().unwrap();
    let opened = world.pay(&wallet, &["channel", "open", provider, "5"]).await;
    let friendly = |address: &str, bounceable| {
        let address = StdAddr::from(address.parse::<Address>().unwrap());
        address.display_base64_url(bounceable).to_string()
    };
    let registry = registry.to_string();
    for contract in [registry.as_str(), provider, opened["channel"].as_str().unwrap()] {
        // However it is written.
        for to in [contract.to_owned(), friendly(contract, true), friendly(contract, false)] {
            let (before, held) = (world.balance(&address).await, world.balance(contract).await);
            let asked = world.fails(&wallet, &["wallet", "send", &to, "3"]).await;
            assert!(asked.contains("does not take a plain transfer"), "{asked}");
            let output = world.run(&wallet, &["wallet", "send", &to, "3", "--yes", "--json"], "").await;
            assert!(!output.status.success());
            let (payment, error): (Value, _) =
                (serde_json::from_slice(&output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            assert_eq!(
                (&payment["failed"]["exit_code"], &payment["sent_nanoton"]),
                (&65535.into(), &3_000_000_000_i64.into())
            );
            let back = payment["returned_nanoton"].as_u64().unwrap();
            assert!((2_990_000_000..3_000_000_000).contains(&back), "{payment}");
            assert!(error.contains(&format!("Of the 3 TON that were sent {} came back", Nanoton(back))), "{error}");
            assert!(before - world.balance(&address).await < 10_000_000, "{to}");
            assert!(world.balance(contract).await <= held, "{to}");
        }
    }
    // Nothing is deployed: it stays, although the address is written as a contract's; and a wallet takes what it gets.
    let fresh = Address::basechain([0x77; 32]).to_string();
    let asked = world.fails(&wallet, &["wallet", "send", &friendly(&fresh, true), "1"]).await;
    assert!(asked.contains("nothing is deployed there") && asked.contains("stays there all the same"), "{asked}");
    for (to, amount) in [(&fresh, 1), (&friendly(&fresh, true), 2), (&friendly(&fresh, false), 3)] {
        let sent = world.pay(&wallet, &["wallet", "send", to, "1"]).await;
        assert_eq!(sent["returned_nanoton"], 0, "{to}");
        assert_eq!(world.balance(&fresh).await, amount * 1_000_000_000);
    }
    let (_, other) = world.import(2).await;
    let (account, before) = (Account::new(world.chain.clone(), [2; 32]).unwrap(), world.balance(&other).await);
    account.send(Address::basechain([0x78; 32]), Nanoton(1_000_000), None, None).await.unwrap().success().unwrap();
    assert!(before - world.balance(&other).await < 10_000_000, "it is deployed now");
    world.pay(&wallet, &["wallet", "send", &friendly(&other, true), "1"]).await;
    assert!(world.balance(&other).await > before + 990_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_the_question_is_asked_and_only_a_yes_spends() {
    let world = World::new().await;
    let (wallet, address) = world.import(1).await;
    let fresh = Address::basechain([0x77; 32]).to_string();
    let send = ["wallet", "send", &fresh, "5"];
    let before = world.balance(&address).await;
    for answer in ["n\n", "\n", "yess\n", "\u{4}"] {
        let (done, said) = world.at_terminal(&wallet, &send, answer).await;
        assert!(!done && said.contains("This sends 5 TON") && said.contains("nothing was sent"), "{answer:?}: {said}");
        assert_eq!((world.balance(&address).await, world.balance(&fresh).await), (before, 0), "{answer:?}");
    }
    for (n, answer) in ["y\n", "YES\n"].into_iter().enumerate() {
        let (done, said) = world.at_terminal(&wallet, &send, answer).await;
        let (asked, spent) = (said.find("Go on? [y/N]").unwrap(), said.find("= wallet now").unwrap());
        assert!(done && asked < spent, "{answer:?}: {said}");
        assert_eq!(world.balance(&fresh).await, 5_000_000_000 * (i64::try_from(n).unwrap() + 1), "{answer:?}");
    }
    // Whoever says so beforehand is not asked.
    let (done, said) = world.at_terminal(&wallet, &["wallet", "send", &fresh, "5", "--yes"], "").await;
    assert!(done && !said.contains("[y/N]"), "{said}");
}

/// A provider's enclave signs two receipts that cannot both be true: its host keeps them, and whoever has the file can show them.
#[tokio::test(flavor = "multi_thread")]
async fn what_contradicts_itself_is_exported_and_reported_and_costs_the_stake() {
    let world = World::new().await;
    let registry = ops::deploy_registry(&world.account, &registry(world.account.address(), 0)).await.unwrap().0;
    let (provider_wallet, _) = world.import(1).await;
    let (client_wallet, client) = world.import(2).await;
    let made = world.pay(&provider_wallet, &["host", "register", &registry.to_string()]).await;
    let provider = made["provider"].as_str().unwrap();
    let enclave_key = key(41).enclave_key();
    let verdict = Verdict {
        network: LOCAL,
        registry,
        provider: provider.parse().unwrap(),
        enclave_key,
        evidence_id: Digest([8; 32]),
        image: Digest([9; 32]),
        model_root: Digest([3; 32]),
        generation: 0,
        until: AT.plus(80_000),
        expiry: AT.plus(3_600),
        set_epoch: ops::registry_params(world.chain.as_ref(), &registry).await.unwrap().set_epoch,
    };
    let signature = verdict.sign(&[21; 32]).unwrap();
    let owning = Account::new(world.chain.clone(), [1; 32]).unwrap();
    ops::attest(&owning, &registry, &verdict, &[(0, signature)]).await.unwrap().success().unwrap();
    world.pay(&provider_wallet, &["host", "stake", provider, "50"]).await;
    let opened = world.pay(&client_wallet, &["channel", "open", provider, "5"]).await;
    let channel: Address = opened["channel"].as_str().unwrap().parse().unwrap();

    std::fs::create_dir(world.path("host")).unwrap();
    let receipt = |sequence, total| {
        let provider = provider.parse().unwrap();
        let total = Nanoton(total);
        let receipt = SettlementReceipt { network: LOCAL, provider, channel, enclave_key, sequence, total, time: AT };
        SignedSettlementReceipt::sign(receipt, &key(41)).unwrap()
    };
    {
        let store = Store::open(&world.path("host/host.redb")).unwrap();
        store.keep_receipt(&receipt(1, 500_000_000)).unwrap();
        let none = async || world.json("none.json", &["host", "evidence", "--data", "host"]).await;
        drop(store);
        assert_eq!(none().await["equivocations"], Value::Array(Vec::new()));
        let store = Store::open(&world.path("host/host.redb")).unwrap();
        assert!(store.keep_receipt(&receipt(2, 400_000_000)).is_err());
        // Later ones do not take the evidence away.
        store.keep_receipt(&receipt(3, 600_000_000)).unwrap();
        assert!(store.keep_receipt(&receipt(4, 1)).is_err());
    }
    let found = world.json("none.json", &["host", "evidence", "--data", "host", "--out", "found"]).await;
    let evidence = &found["equivocations"][0];
    documented(&evidence["evidence"]);
    let file = evidence["file"].as_str().unwrap();
    let text = std::fs::read_to_string(world.path(file)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), evidence["evidence"]);
    let table = world.run("none.json", &["host", "evidence", "--data", "host"], "").await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("number 1 of 0.5 TON and number 2 of 0.4 TON"), "{table}");

    // What can both be true, or is not signed by the enclave, is refused before anybody pays for it.
    let altered = |name: &str, with: (&SignedSettlementReceipt, &SignedSettlementReceipt)| {
        use base64::Engine;
        let mut value = evidence["evidence"].clone();
        for (which, receipt) in [("earlier", with.0), ("later", with.1)] {
            value[which] = base64::engine::general_purpose::STANDARD.encode(receipt.to_bytes()).into();
        }
        std::fs::write(world.path(name), value.to_string()).unwrap();
    };
    altered("fine.json", (&receipt(1, 5), &receipt(2, 5)));
    altered("same.json", (&receipt(1, 5), &receipt(1, 5)));
    let mut forged = receipt(2, 1);
    forged.signature[9] ^= 1;
    altered("forged.json", (&receipt(1, 5), &forged));
    std::fs::write(world.path("nonsense.json"), "{}").unwrap();
    let before = world.balance(&client).await;
    for (name, why) in [
        ("fine.json", "can both be true"),
        ("same.json", "can both be true"),
        ("forged.json", "the later receipt"),
        ("nonsense.json", "is no evidence"),
        ("missing.json", "cannot read"),
    ] {
        let refused = world.fails(&client_wallet, &["channel", "report", name, "--yes"]).await;
        assert!(refused.contains(why), "{name}: {refused}");
    }
    let asked = world.fails(&client_wallet, &["channel", "report", file]).await;
    assert!(asked.contains("number 1 of 0.5 TON and number 2 of 0.4 TON") && asked.contains("is another's"), "{asked}");
    assert!(asked.contains("the rest is burned") && asked.contains("9.99"), "{asked}");
    assert_eq!(world.balance(&client).await, before, "nothing was sent yet");

    let reported = world.pay(&client_wallet, &["channel", "report", file]).await;
    let burned = reported["burned_nanoton"].as_i64().unwrap();
    assert!((39_900_000_000..40_000_000_000).contains(&burned), "{reported}");
    let reward = world.balance(&client).await - before;
    assert!((burned / 4 - 20_000_000..burned / 4).contains(&reward), "{reward} of {burned}");
    let key_text = enclave_key.to_string();
    let status = world.json(&client_wallet, &["host", "status", provider, "--enclave-key", &key_text]).await;
    assert_eq!((&status["stake_nanoton"], &status["keys"][0]["state"]), (&0.into(), &"slashed".into()));
    let again = world.fails(&client_wallet, &["channel", "report", file, "--yes"]).await;
    assert!(again.contains("was reported before"), "{again}");

    // What its host has earned with it is void, and the record says so.
    let claim = world.json(&provider_wallet, &["host", "claim", provider, "--data", "host", "--yes"]).await;
    assert_eq!((&claim["items"], &claim["fees_nanoton"]), (&0.into(), &0.into()));
}

/// A provider's contract that nobody touched for years cannot take a key any more; anybody can pay its rent.
#[tokio::test(flavor = "multi_thread")]
async fn a_providers_rent_is_paid_and_its_record_is_read() {
    let world = World::new().await;
    let registry = ops::deploy_registry(&world.account, &registry(world.account.address(), 0)).await.unwrap().0;
    let (provider_wallet, owner) = world.import(1).await;
    let (other, _) = world.import(2).await;
    let made = world.pay(&provider_wallet, &["host", "register", &registry.to_string()]).await;
    let provider = made["provider"].as_str().unwrap();
    let full = world.fails(&other, &["host", "fund", provider, "--yes"]).await;
    assert!(full.contains("more than a year's rent beside its stake: name an amount"), "{full}");
    world.clock.advance(6 * 365 * DAY);
    let lacks = world.json(&other, &["host", "status", provider]).await["lacks_nanoton"].as_u64().unwrap();
    assert!(lacks > 10_000_000, "{lacks}");
    let asked = world.fails(&other, &["host", "fund", provider]).await;
    assert!(asked.contains(&Nanoton(lacks).to_string()) && asked.contains(&format!("Its owner {owner}")), "{asked}");
    assert_eq!(world.pay(&other, &["host", "fund", provider]).await["lacks_nanoton"], 0);
    world.pay(&other, &["host", "fund", provider, "1"]).await;
    let before = world.balance(&owner).await;
    world.pay(&provider_wallet, &["host", "withdraw", provider]).await;
    assert!(world.balance(&owner).await - before > 980_000_000);
    let wrong = world.fails(&other, &["host", "fund", &registry.to_string(), "1", "--yes"]).await;
    assert!(wrong.contains("the provider"), "{wrong}");

    // What is worked with and what is archived, in one table.
    std::fs::create_dir(world.path("host")).unwrap();
    let channels = [1, 2].map(|n| Address::basechain([n; 32]));
    {
        let store = Store::open(&world.path("host/host.redb")).unwrap();
        for channel in channels {
            let (enclave_key, cap) = (key(41).enclave_key(), Nanoton(3_000_000_000));
            let prices = Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 };
            let voucher = Voucher { network: LOCAL, channel, enclave_key, cap, prices, expiry: AT.plus(3_600) };
            store.keep_voucher(&SignedVoucher::sign(voucher, &[31; 32]).unwrap()).unwrap();
            let (provider, total) = (provider.parse().unwrap(), Nanoton(7));
            let receipt =
                SettlementReceipt { network: LOCAL, provider, channel, enclave_key, sequence: 1, total, time: AT };
            store.keep_receipt(&SignedSettlementReceipt::sign(receipt, &key(41)).unwrap()).unwrap();
        }
        store.archive(&channels[1], &key(41).enclave_key(), Ended::ChannelClosed, AT).unwrap();
    }
    let csv = world.run("none.json", &["host", "record", "--data", "host", "--csv", "-"], "").await;
    let csv = String::from_utf8(csv.stdout).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 3, "{csv}");
    assert!(rows[0].starts_with("time,channel,enclave_key,"));
    for (row, channel, state) in [(rows[1], channels[0], "open"), (rows[2], channels[1], "the channel is closed")] {
        let expected = format!("{channel},{},1,7,3000000000,0,\"{state}\"", key(41).enclave_key());
        assert!(row.ends_with(&expected), "{row}");
    }
    let table = world.run("none.json", &["host", "record", "--data", "host"], "").await;
    assert!(String::from_utf8(table.stdout).unwrap().contains(": the channel is closed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_releases_a_channel_and_its_client_gets_everything_back() {
    let world = World::new().await;
    let registry = ops::deploy_registry(&world.account, &registry(world.account.address(), 0)).await.unwrap().0;
    let (provider_wallet, _) = world.import(1).await;
    let (client_wallet, client) = world.import(2).await;
    let made = world.pay(&provider_wallet, &["host", "register", &registry.to_string(), "--number", "7"]).await;
    let provider = made["provider"].as_str().unwrap();
    let opened = world.pay(&client_wallet, &["channel", "open", provider, "10"]).await;
    let channel = opened["channel"].as_str().unwrap();
    assert!(
        Path::new(opened["client_key_file"].as_str().unwrap())
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("channel-")
    );
    assert!(world.fails(&client_wallet, &["host", "release", provider, channel, "--yes"]).await.contains("belongs to"));
    let before = world.balance(&client).await;
    world.pay(&provider_wallet, &["host", "release", provider, channel]).await;
    let back = world.balance(&client).await - before;
    assert!(back > 9_950_000_000, "{back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_up_is_shown_and_checked_and_restores_the_same_wallet() {
    let world = World::new().await;
    let made = world.json("new.json", &["wallet", "new"]).await;
    let (words, address) = (made["mnemonic"].as_str().unwrap(), made["address"].as_str().unwrap());
    let other = world.json("other.json", &["wallet", "new"]).await;
    let others = other["mnemonic"].as_str().unwrap();
    let shown = world.json("new.json", &["wallet", "backup"]).await;
    assert_eq!((shown["mnemonic"].as_str(), shown["address"].as_str()), (Some(words), Some(address)));
    let refused = world.fails("new.json", &["wallet", "backup", "--passphrase-file", "pass2"]).await;
    assert!(refused.contains("passphrase is wrong") && !refused.contains(words), "{refused}");

    // What is on paper is compared, and neither it nor what is in the file is shown.
    let check = async |words: &str| world.run("new.json", &["wallet", "backup", "--check"], words).await;
    let output = check(&words.to_uppercase().replace(' ', "\n")).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("restore this wallet") && said.contains(address), "{said}");
    assert!(!said.contains(words), "{said}");
    for (text, why) in [(others, other["address"].as_str().unwrap()), (&words.replacen(' ', " x", 1), "word 2")] {
        let output = check(text).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty() && error.contains(why), "{error}");
        assert!(!error.contains(words) && !error.contains(others), "{error}");
    }

    // A copy is made once and opened every time; it is the same wallet wherever it is used.
    for _ in 0..2 {
        let copied = world.json("new.json", &["wallet", "backup", "--copy", "copy.json"]).await;
        assert_eq!((copied["backup"].as_str(), &copied["mnemonic"]), (Some("copy.json"), &Value::Null));
    }
    assert_eq!(world.json("copy.json", &["wallet", "show"]).await["address"], address);
    assert_eq!(world.json("copy.json", &["wallet", "backup"]).await["mnemonic"], words);
    let wrong = world.fails("new.json", &["wallet", "backup", "--copy", "other.json"]).await;
    assert!(wrong.contains("other.json restores the wallet") && wrong.contains("no back-up of it"), "{wrong}");
    let changed = world.run("new.json", &["wallet", "passphrase", "--new-passphrase-file", "pass2"], "").await;
    assert!(changed.status.success());
    let later = ["wallet", "backup", "--passphrase-file", "pass2"];
    assert_eq!(world.json("new.json", &later).await["mnemonic"], words);
    let old = world.fails("new.json", &[later.as_slice(), &["--copy", "copy.json"]].concat()).await;
    assert!(old.contains("passphrase that it was made under"), "{old}");
    std::fs::write(world.path("damaged.json"), "{}").unwrap();
    assert!(!world.run("new.json", &["wallet", "backup", "--copy", "damaged.json"], "").await.status.success());

    // Restored from its words, it has them again; a key without words has only its file.
    let output = world.run("restored.json", &["wallet", "import"], words).await;
    assert!(output.status.success() && !String::from_utf8(output.stdout).unwrap().contains(words));
    assert_eq!(world.json("restored.json", &["wallet", "backup"]).await["mnemonic"], words);
    let (imported, _) = world.import(1).await;
    assert!(world.fails(&imported, &["wallet", "backup"]).await.contains("--copy FILE"));
    world.json(&imported, &["wallet", "backup", "--copy", "copy1.json"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_left_for_a_new_one_and_what_cannot_move_is_named() {
    let world = World::new().await;
    let registry = ops::deploy_registry(&world.account, &registry(world.account.address(), 0)).await.unwrap().0;
    let (old, address) = world.import(1).await;
    let made = world.pay(&old, &["host", "register", &registry.to_string()]).await;
    let provider = made["provider"].as_str().unwrap();
    let channel = |number: usize| {
        let key = ["one.json", "two.json"][number];
        ["channel", "open", provider, "5", "--client-key", key]
    };
    let opened = world.pay(&old, &channel(0)).await;
    let closed = world.pay(&old, &channel(1)).await;
    world.pay(&old, &["host", "release", provider, closed["channel"].as_str().unwrap()]).await;
    let open = opened["channel"].as_str().unwrap();

    let asked = world.fails(&old, &["wallet", "rotate", "new.json"]).await;
    assert!(asked.contains("sends everything to it") && asked.contains("looked for afterwards"), "{asked}");
    assert!(!world.path("new.json").exists());
    let before = world.balance(&address).await;
    let rotated = world.pay(&old, &["wallet", "rotate", "new.json", "--new-passphrase-file", "pass2"]).await;
    let new = rotated["to"].as_str().unwrap();
    assert_eq!((world.balance(&address).await, rotated["after_nanoton"].as_i64()), (0, Some(0)));
    let arrived = world.balance(new).await;
    assert!(before - arrived < 10_000_000, "{before} {arrived}");
    let mut left: Vec<&str> =
        rotated["left_behind"].as_array().unwrap().iter().map(|it| it["address"].as_str().unwrap()).collect();
    left.sort_unstable();
    let mut expected = [open, provider];
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(rotated["left_behind_complete"], true);
    let again = world.fails(&old, &["wallet", "rotate", "new.json", "--yes"]).await;
    assert!(again.contains("exists already") && again.contains("wallet send"), "{again}");

    // The new wallet is in its file, and in its words.
    let output =
        world.run("restored.json", &["wallet", "import", "--json"], rotated["mnemonic"].as_str().unwrap()).await;
    let restored: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(restored["address"], new);
    world.pay("new.json", &["wallet", "send", &address, "1", "--passphrase-file", "pass2"]).await;
    // With that the old one ends what is bound to it.
    world.pay(&old, &["host", "release", provider, open]).await;
    let output = world.run(&old, &["wallet", "rotate", "third.json", "--yes"], "").await;
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && table.contains("24 words") && table.contains(provider), "{table}");
    assert!(!table.contains(open), "{table}");
    // What it names comes after what it sent.
    let (sent, named) =
        (table.find("= wallet now").unwrap(), table.find(&format!("left behind: provider {provider}")).unwrap());
    assert!(sent < named && table.contains("All accounts") && table.contains("this version's code"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deployed_whose_code_is_not_what_governance_names() {
    let world = World::new().await;
    let registry = ops::deploy_registry(&world.account, &registry(world.account.address(), 0)).await.unwrap().0;
    let (provider_wallet, owner) = world.import(1).await;
    let (client_wallet, client) = world.import(2).await;
    let name = async |version, provider_code, channel_code| {
        let release = Change::Release(Release { version, provider_code, channel_code });
        ops::propose(&world.account, &registry, &release).await.unwrap().success().unwrap();
    };
    let address = registry.to_string();
    let register = |number: &'static str| ["host", "register", &address, "--number", number];
    // Nothing was named: said, and left to who is asked.
    let asked = world.fails(&provider_wallet, &register("0")).await;
    assert!(asked.contains("names no code for new providers"), "{asked}");
    assert!(asked.contains(&format!("The Registry {registry} is the one that you named")), "{asked}");
    let made = world.pay(&provider_wallet, &register("0")).await;
    let provider = made["provider"].as_str().unwrap();
    let open = ["channel", "open", provider, "5", "--client-key", "client.json"];
    let asked = world.fails(&client_wallet, &open).await;
    assert!(asked.contains("names no code for new channels"), "{asked}");
    assert!(asked.contains(&format!("The Registry {registry} is the provider's own choice")), "{asked}");
    // A configuration that believes in the same one stands behind it; one that believes in another refuses.
    let config = |registry: &str| {
        format!(
            "gateways = [\"http://127.0.0.1:9\"]\nchain = \"{}\"\nnetwork = -217\nregistry = \"{registry}\"\nchannel = \"\"\nclient_key_file = \"k\"\nreferences = \"r\"\nreference_signers = []\nlogs = []\nrequired_logs = 0\nrequired_witnesses = 0\nvoucher_step = 1\ndata = \"d\"\n[max_prices]\nprompt = 1\ncached = 1\ncompletion = 1\nreasoning = 1\n",
            world.url
        )
    };
    for (file, of, said) in [
        ("mine.toml", &address, "is the one that mine.toml believes in"),
        ("other.toml", &client, "nothing would be bought"),
    ] {
        std::fs::write(world.path(file), config(of)).unwrap();
        let asked = world.fails(&client_wallet, &[&open[..], &["--like", file, "--config", "new.toml"]].concat()).await;
        assert!(asked.contains(said) && !asked.contains("own choice"), "{asked}");
    }

    // Other code for Channels: refused before anything is asked, written or sent; Providers are not concerned.
    name(1, provider_code_hash(), [7; 32]).await;
    let before = world.balance(&client).await;
    let refused = world.fails(&client_wallet, &[open.as_slice(), &["--yes"]].concat()).await;
    let both = [hex::encode([7; 32]), hex::encode(channel_code_hash())];
    assert!(refused.contains("names release 1 for new Channels") && both.iter().all(|code| refused.contains(code)));
    assert!(
        refused.contains("use the Cocoon that belongs to that release") && !refused.contains("deposit"),
        "{refused}"
    );
    assert_eq!((world.balance(&client).await, world.path("client.json").exists()), (before, false));
    let asked = world.fails(&provider_wallet, &register("1")).await;
    assert!(asked.contains("names release 1 for new providers, whose code is this program's"), "{asked}");
    world.pay(&provider_wallet, &register("1")).await;

    // And the other way round.
    name(2, [8; 32], channel_code_hash()).await;
    let before = world.balance(&owner).await;
    let refused = world.fails(&provider_wallet, &[register("2").as_slice(), &["--yes"]].concat()).await;
    assert!(
        refused.contains("names release 2 for new Providers") && refused.contains(&hex::encode([8; 32])),
        "{refused}"
    );
    assert_eq!(world.balance(&owner).await, before);
    assert!(world.fails(&client_wallet, &open).await.contains("names release 2 for new channels"));
    world.pay(&client_wallet, &open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn governance_proposes_waits_and_executes() {
    let world = World::new().await;
    let (wallet, address) = world.import(1).await;
    let registry =
        ops::deploy_registry(&world.account, &registry(address.parse().unwrap(), 7_200)).await.unwrap().0.to_string();
    let image = "aa".repeat(32);
    let asked = world.fails(&wallet, &["registry", "propose", &registry, "allow", "--image", &image]).await;
    assert!(asked.contains("allow image aaaa") && asked.contains("after 2 h"), "{asked}");
    let proposed = world.pay(&wallet, &["registry", "propose", &registry, "allow", "--image", &image]).await;
    let id = proposed["proposals"][0].to_string();
    let early = world.fails(&wallet, &["registry", "execute", &registry, &id, "--yes"]).await;
    assert!(early.contains("waits until"), "{early}");
    let shown = world.json(&wallet, &["registry", "show", &registry]).await;
    assert_eq!((shown["images"].as_array().unwrap().len(), shown["proposals"].as_array().unwrap().len()), (1, 1));
    world.clock.advance(7_200);
    // Anyone may execute.
    let (other, _) = world.import(2).await;
    world.pay(&other, &["registry", "execute", &registry, &id]).await;
    let shown = world.json(&wallet, &["registry", "show", &registry]).await;
    assert_eq!((shown["images"].as_array().unwrap().len(), shown["proposals"].as_array().unwrap().len()), (2, 0));
    world.pay(&wallet, &["registry", "forbid", &registry, "--image", &image]).await;
    // Not governance: refused by the contract, and the reason is said.
    let output = world.run(&other, &["registry", "forbid", &registry, "--image", &image, "--yes", "--json"], "").await;
    assert!(!output.status.success());
    let payment: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(payment["failed"]["exit_code"], 100);
    world.pay(&wallet, &["registry", "propose", &registry, "time-lock", "60"]).await;
    world.pay(&wallet, &["registry", "cancel", &registry, "1"]).await;
    world.pay(&wallet, &["registry", "tighten", &registry, "--max-lifetime", "3600"]).await;
    assert_eq!(world.json(&wallet, &["registry", "show", &registry]).await["max_lifetime"], 3_600);
    let table = world.run(&wallet, &["registry", "show", &registry], "").await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("1 of 1") && table.contains("longest attestation"), "{table}");

    // It has years of rent, of which time takes its part; anybody adds what is missing.
    assert!(table.contains("lacks of a year's rent  nothing"), "{table}");
    let full = world.fails(&other, &["registry", "fund", &registry, "--yes"]).await;
    assert!(full.contains("more than a year's rent: name an amount"), "{full}");
    world.clock.advance(7 * 365 * DAY);
    let lacks = world.json(&wallet, &["registry", "show", &registry]).await["lacks_nanoton"].as_i64().unwrap();
    assert!(lacks > 10_000_000, "{lacks}");
    let asked = world.fails(&other, &["registry", "fund", &registry]).await;
    assert!(asked.contains("Nobody can take it out") && asked.contains(&Nanoton(lacks as u64).to_string()), "{asked}");
    assert_eq!(world.pay(&other, &["registry", "fund", &registry]).await["lacks_nanoton"], 0);
    let before = world.balance(&registry).await;
    world.pay(&other, &["registry", "fund", &registry, "1"]).await;
    let added = world.balance(&registry).await - before;
    assert!((990_000_000..1_000_000_000).contains(&added), "{added}");
    // What is no Registry gets nothing.
    assert!(world.fails(&other, &["registry", "fund", &address, "1", "--yes"]).await.contains("the Registry"));
}
