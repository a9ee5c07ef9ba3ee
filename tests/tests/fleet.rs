//! A fleet's history with faults at known places: a replay finds every one of them and nothing else, from the library and from the
//! command, over files and over HTTP, at once and after having been stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use cocoon_attestation::{Digest, UnixTime};
use cocoon_settlement::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use cocoon_settlement::contracts::events::{self, Event};
use cocoon_settlement::local::{LocalChain, rpc};
use cocoon_settlement::{Address, Error as ChainError, Nanoton, NetworkId, contracts};
use cocoon_tests::fleet::{self, Expected, FleetChain, FleetLog, History, Spec, chain, history};
use cocoon_transparency::replay::chain::{ChainInput, ChainResult, ReplayedLog, reconcile};
use cocoon_transparency::replay::report::{Findings, Report};
use cocoon_transparency::replay::{Job, Kind, LogInput, LogResult, State, parts_of, replay};
use cocoon_transparency::{Error, Folder, Leaf, Log, Part, Source as _, layout};
use cocoon_verifier::{Appraisal, Verifier};
use tycho_types::cell::Cell;

struct World {
    folder: tempfile::TempDir,
    history: History,
}

fn world(spec: &Spec) -> World {
    let folder = tempfile::tempdir().unwrap();
    let provider = chain::provider_of(spec.enclaves).unwrap();
    let history = history::make(folder.path(), spec, provider, |_| {}).unwrap();
    World { folder, history }
}

fn files(log: &FleetLog) -> Folder {
    Folder(log.folder.join("public"))
}

/// Replays one log; `stop_at` ends it behind so many leaves.
fn replay_one(world: &World, n: usize, state: &State, jobs: usize, stop_at: u64) -> Result<LogResult, Error> {
    let logs = &world.history.logs;
    let witnesses: Vec<String> =
        logs.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, log)| log.witness.clone()).collect();
    let source = files(&logs[n]);
    let (verifier, stop) = (Verifier::default(), AtomicBool::new(false));
    let progress = |done: u64, _: u64| stop.store(done >= stop_at, Ordering::Relaxed);
    let input = LogInput {
        source: &source,
        key: &logs[n].key,
        witnesses: &witnesses,
        checkpoints: &logs[n].checkpoints,
        from: 0,
    };
    replay(&input, state, &Job { jobs, verifier: &verifier, progress: &progress, stop: &stop })
}

fn replay_all(world: &World, work: &Path, jobs: usize) -> Vec<(LogResult, State)> {
    let one = |n: usize| {
        let state = State::open(&work.join(format!("{n}.redb"))).unwrap();
        (replay_one(world, n, &state, jobs, u64::MAX).unwrap(), state)
    };
    (0..fleet::NODES).map(one).collect()
}

fn report(replayed: &[(LogResult, State)], chain: Option<ChainResult>, findings: Findings) -> Report {
    let logs = replayed.iter().map(|(result, state)| (result.origin.clone(), result.clone(), state));
    Report::new(UnixTime(1), logs.collect(), chain, findings).unwrap()
}

fn exactly(report: &Report, world: &World, expected: &[Expected]) {
    let (unexpected, missed) = fleet::compare(report, &world.history.logs, expected);
    assert!(unexpected.is_empty() && missed.is_empty(), "not expected: {unexpected:#?}\nmissed: {missed:#?}");
    assert_eq!(report.findings.len(), expected.len());
}

async fn reconciled<'a>(
    world: &World,
    replayed: &'a [(LogResult, State)],
    fleet: &FleetChain,
    chain: &dyn Chain,
) -> (ChainResult, Findings) {
    let sources: Vec<Folder> = world.history.logs.iter().map(files).collect();
    let log = |(result, state): &'a (LogResult, State)| {
        let n = world.history.logs.iter().position(|log| log.key == result.key).unwrap();
        ReplayedLog { result, state, source: &sources[n], verifier: Some(n as u8) }
    };
    let logs: Vec<_> = replayed.iter().map(log).collect();
    let as_of = chain.head().await.unwrap().time;
    let work = tempfile::tempdir().unwrap();
    let input = ChainInput {
        chain,
        registry: fleet.registry,
        logs: &logs,
        channels: &[],
        as_of,
        work: work.path(),
        progress: &|_| {},
    };
    let mut findings = Findings::default();
    let result = reconcile(&input, &mut findings).await.unwrap();
    (result, findings)
}

async fn on_chain(world: &World, spec: &Spec) -> (FleetChain, Vec<Expected>) {
    let mut fleet = FleetChain::deploy(None, spec.enclaves).await.unwrap();
    fleet.attest(&world.history, |_| {}).await.unwrap();
    let mut expected = fleet.claim(&world.history, &[0, 3, 7], spec.faults).await.unwrap();
    expected.extend(world.history.expected.iter().cloned());
    if spec.faults {
        expected.extend(world.history.expected_on_chain.iter().cloned());
    }
    (fleet, expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_nothing_else() {
    let spec = Spec { enclaves: 80, ..Spec::default() };
    let world = world(&spec);
    let work = tempfile::tempdir().unwrap();
    let replayed = replay_all(&world, work.path(), 2);
    for (n, (result, state)) in replayed.iter().enumerate() {
        assert!(result.whole, "the hashes of log {n} hold together");
        assert_eq!(result.replayed, result.size);
        assert_eq!(result.witnesses.len(), 2);
        assert_eq!(state.enclaves().unwrap(), 80);
        assert!(result.size > 256, "more than a tile");
    }
    exactly(&report(&replayed, None, Findings::default()), &world, &world.history.expected);

    let (fleet, expected) = on_chain(&world, &spec).await;
    let (result, findings) = reconciled(&world, &replayed, &fleet, &*fleet.chain).await;
    assert_eq!(result.attestations, fleet.attestations);
    assert_eq!((result.claims, result.receipts_followed), (7, 6));
    assert_eq!(result.money.paid, 3 * 70_000_000);
    assert_eq!(result.money.deposited, 50_000_000_000);
    assert_eq!(result.anchors_followed, 3 * spec.days);
    assert_eq!(result.verdicts_without_log, 0);
    assert!(result.money.held > 0 && result.stake > 0);
    exactly(&report(&replayed, Some(result), findings), &world, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_wrong_nothing_is_found() {
    let spec = Spec { faults: false, ocsp: true, ..Spec::default() };
    let world = world(&spec);
    let work = tempfile::tempdir().unwrap();
    let replayed = replay_all(&world, work.path(), 1);
    let (fleet, expected) = on_chain(&world, &spec).await;
    assert!(expected.is_empty());
    let (result, findings) = reconciled(&world, &replayed, &fleet, &*fleet.chain).await;
    let report = report(&replayed, Some(result), findings);
    exactly(&report, &world, &[]);
    assert_eq!((report.exit_code, report.outcome.as_str()), (0, "nothing"));
}

#[test]
fn a_replay_that_was_stopped_goes_on_and_comes_to_the_same() {
    let spec = Spec { enclaves: 160, days: 5, ..Spec::default() };
    let world = world(&spec);
    let work = tempfile::tempdir().unwrap();
    let (whole, whole_state) = replay_all(&world, work.path(), 2).remove(1);
    let state = State::open(&work.path().join("stopped.redb")).unwrap();
    let stopped = replay_one(&world, 1, &state, 2, 256);
    assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
    let resumed = AtomicU64::new(u64::MAX);
    let source = files(&world.history.logs[1]);
    let input =
        LogInput { source: &source, key: &world.history.logs[1].key, witnesses: &[], checkpoints: &[], from: 0 };
    let progress = |done: u64, _: u64| {
        resumed.fetch_min(done, Ordering::Relaxed);
    };
    let (verifier, stop) = (Verifier::default(), AtomicBool::new(false));
    let again =
        replay(&input, &state, &Job { jobs: 1, verifier: &verifier, progress: &progress, stop: &stop }).unwrap();
    assert!(resumed.load(Ordering::Relaxed) > 256, "it began anew: {resumed:?}");
    assert_eq!(again.totals, whole.totals);
    assert_eq!(again.root, whole.root);
    let findings = |state: &State| {
        let mut all = Vec::new();
        state.findings(|finding| all.push(finding)).unwrap();
        all
    };
    assert_eq!(findings(&state), findings(&whole_state));
    // And once more, with nothing new.
    let once_more = replay_one(&world, 1, &state, 2, u64::MAX).unwrap();
    assert_eq!(once_more.totals, whole.totals);
    assert_eq!(findings(&state), findings(&whole_state));
}

#[test]
fn a_log_that_changes_behind_a_replay_is_found_out() {
    let spec = Spec { enclaves: 160, days: 3, faults: false, ..Spec::default() };
    let world = world(&spec);
    let state = State::open(&world.folder.path().join("state.redb")).unwrap();
    let first = replay_one(&world, 0, &state, 1, u64::MAX).unwrap();
    assert!(first.findings.is_empty());
    // The same log with other leaves from the start: its key signs what it likes.
    let other = Spec { enclaves: 170, ..spec };
    let other = self::world(&other);
    let shown = replay_one(&other, 0, &state, 1, u64::MAX).unwrap();
    let kinds: Vec<Kind> = shown.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::SplitView]);
    assert_eq!(shown.findings[0].evidence.len(), 2, "both checkpoints");
    assert_eq!(shown.totals.leaves, shown.size, "all of it is replayed anew");
    // Back again: neither is forgotten.
    let back = replay_one(&world, 0, &state, 1, u64::MAX).unwrap();
    assert_eq!(back.findings.len(), 1);
    assert_eq!(back.findings[0].kind, Kind::SplitView);
}

/// What is done to a page of an account's transactions.
type Lie = Box<dyn Fn(&Address, Vec<TxSummary>) -> Vec<TxSummary> + Send + Sync>;

/// A chain that shows another history than the one that happened: what the contracts never do, a server can say.
struct Lying {
    inner: Arc<LocalChain>,
    lie: Lie,
}

#[async_trait]
impl Chain for Lying {
    fn network(&self) -> NetworkId {
        self.inner.network()
    }
    async fn head(&self) -> Result<BlockRef, ChainError> {
        self.inner.head().await
    }
    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, ChainError> {
        self.inner.block(seqno).await
    }
    async fn account(&self, address: &Address) -> Result<AccountState, ChainError> {
        self.inner.account(address).await
    }
    async fn send(&self, external: Cell) -> Result<[u8; 32], ChainError> {
        self.inner.send(external).await
    }
    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, ChainError> {
        self.inner.run_get(address, method, args).await
    }
    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, ChainError> {
        let page = self.inner.transactions_before(address, before, limit).await?;
        Ok((self.lie)(address, page))
    }
    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, ChainError> {
        self.inner.trace(message_hash).await
    }
}

fn event(transaction: &TxSummary) -> Option<Event> {
    events::carried_out(transaction).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_should_not_have_moved_is_found() {
    let spec = Spec { faults: false, ..Spec::default() };
    let world = world(&spec);
    let work = tempfile::tempdir().unwrap();
    let replayed = replay_all(&world, work.path(), 2);
    let (fleet, _) = on_chain(&world, &spec).await;
    let key = FleetChain::key(3).unwrap();
    let kinds = async |lie: Lie| {
        let chain = Lying { inner: fleet.chain.clone(), lie };
        let (_, findings) = reconciled(&world, &replayed, &fleet, &chain).await;
        findings.counts().clone()
    };
    let (provider, registry, channel) = (fleet.providers[0], fleet.registry, fleet.channels[0]);

    // An attestation that never was: two payments rest on it. All of its value went on, so that balances say nothing of it.
    let found = kinds(Box::new(move |account, page| {
        let never = |tx: &TxSummary| matches!(event(tx), Some(Event::Attested { key: of, .. }) if of == key);
        page.into_iter().filter(|tx| *account != provider || !never(tx)).collect()
    }))
    .await;
    // What an attestation does not need goes back, so that no balance tells of it.
    assert_eq!(found, BTreeMap::from([(Kind::PayoutWithoutAttestation, 2)]));

    // A payment whose message ends too early: it is found, and the audit goes on.
    let found = kinds(Box::new(move |account, mut page| {
        if *account == channel {
            for tx in page.iter_mut().filter(|tx| matches!(event(tx), Some(Event::Settle { .. }))) {
                for sent in &mut tx.sent {
                    let mut body = tycho_types::cell::CellBuilder::new();
                    body.store_u32(0x4304_0001).unwrap();
                    sent.body = Some(body.build().unwrap());
                }
            }
        }
        page
    }))
    .await;
    assert!(found.keys().eq([&Kind::UnreadableMessage]) && found[&Kind::UnreadableMessage] > 0, "{found:?}");

    // Verdicts that never were.
    let found = kinds(Box::new(move |account, page| {
        let never =
            |tx: &TxSummary| matches!(event(tx), Some(Event::Attest { verdict, .. }) if verdict.enclave_key == key);
        page.into_iter().filter(|tx| *account != registry || !never(tx)).collect()
    }))
    .await;
    assert_eq!(found, BTreeMap::from([(Kind::AttestationWithoutQuorum, spec.days)]));

    // One of the two signatures is another cell's.
    let found = kinds(Box::new(move |account, mut page| {
        if *account == registry {
            for tx in &mut page {
                if let Some(Event::Attest { verdict, mut signatures }) = event(tx)
                    && verdict.enclave_key == key
                    && verdict.generation == 1
                {
                    signatures[1].1[0] ^= 1;
                    let body = contracts::registry::attest(0, &verdict, &signatures).unwrap();
                    tx.received.as_mut().unwrap().body = Some(body);
                }
            }
        }
        page
    }))
    .await;
    assert_eq!(found, BTreeMap::from([(Kind::AttestationWithoutQuorum, 1)]));

    // A revocation that the payments came after.
    for (void, expected) in [(true, 2), (false, 2)] {
        let owner = fleet.owner().address();
        let found = kinds(Box::new(move |account, mut page| {
            // Behind the key's last renewal, and in front of the receipts that were paid.
            let renewal = |tx: &TxSummary| matches!(event(tx), Some(Event::Attested { key: of, .. }) if of == key);
            let claim =
                |tx: &TxSummary| matches!(event(tx), Some(Event::Claim { items, .. }) if items[0].enclave_key == key);
            if *account == provider
                && page.iter().any(claim)
                && let Some(at) = page.iter().position(renewal)
            {
                let mut revocation = page[at].clone();
                revocation.time = revocation.time.plus(20);
                (revocation.value_in, revocation.value_out, revocation.fees) = Default::default();
                revocation.sent.clear();
                let body = contracts::provider::revoke(0, &key, void, &owner).unwrap();
                revocation.received.as_mut().unwrap().body = Some(body);
                page.insert(at + 1, revocation);
            }
            page
        }))
        .await;
        assert_eq!(found, BTreeMap::from([(Kind::RevokedReceipt, expected)]), "void: {void}");
    }

    // A payment of what a later claim paid.
    let found = kinds(Box::new(move |account, mut page| {
        let paid = |tx: &TxSummary| matches!(event(tx), Some(Event::Settle { items }) if items[0].0.enclave_key == key);
        let claims: Vec<usize> = page.iter().enumerate().filter(|(_, tx)| paid(tx)).map(|(at, _)| at).collect();
        if let (true, [later, first]) = (*account == channel, claims.as_slice()) {
            page[*first].sent = page[*later].sent.clone();
        }
        page
    }))
    .await;
    assert_eq!(found, BTreeMap::from([(Kind::PaidTooMuch, 1)]));

    // What really can happen: a receipt that an earlier one contradicts, and receipts from before a revocation.
    let last = UnixTime(fleet.now().0 - 86_400);
    fleet.revoke(3, false).await.unwrap();
    fleet.pay(3, 3, Nanoton(10_000_000), last).await.unwrap();
    fleet.pay(3, 4, Nanoton(80_000_000), last).await.unwrap();
    let (_, findings) = reconciled(&world, &replayed, &fleet, &*fleet.chain).await;
    assert_eq!(findings.counts(), &BTreeMap::from([(Kind::ReceiptsContradict, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn anchors_and_missing_logs_are_told_apart_from_faults() {
    let spec = Spec { faults: false, ..Spec::default() };
    let (world, other) = (world(&spec), world(&Spec { enclaves: 21, ..spec.clone() }));
    let work = tempfile::tempdir().unwrap();
    let mut replayed = replay_all(&world, work.path(), 2);
    let (fleet, _) = on_chain(&world, &spec).await;
    // Without one of the logs half of the verdicts cannot be followed, which is no finding.
    let third = replayed.remove(1);
    let (result, findings) = reconciled(&world, &replayed, &fleet, &*fleet.chain).await;
    assert_eq!(findings.counts().len(), 0, "{:?}", findings.counts());
    assert_eq!(result.verdicts_without_log, fleet.attestations);
    let told = report(&replayed, Some(result), findings);
    assert_eq!(told.counts, BTreeMap::from([(Kind::VerdictsNotFollowed.name().to_owned(), 1)]));
    assert_eq!(told.exit_code, 10);
    replayed.insert(1, third);
    // The logs that somebody shows are not those whose checkpoints were anchored.
    let elsewhere = tempfile::tempdir().unwrap();
    let shown = replay_all(&other, elsewhere.path(), 2);
    let (_, findings) = reconciled(&other, &shown, &fleet, &*fleet.chain).await;
    assert_eq!(findings.counts()[&Kind::AnchorDiffers], 3 * spec.days);
}

fn cocoon(work: &Path, args: &[&str]) -> Output {
    let binary = cocoon_tests::cocoon_binary();
    Command::new(binary).args(args).env("XDG_DATA_HOME", work).env_remove("COCOON_CHAIN").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command over a node's own HTTP interface for the files, and a chain's for the rest; then a page and its JSON.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_finds_the_same_over_http_and_writes_a_report() {
    let spec = Spec { enclaves: 80, ..Spec::default() };
    let world = world(&spec);
    let (fleet, expected) = on_chain(&world, &spec).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let chain_url = format!("http://{}", listener.local_addr().unwrap());
    let serving: Arc<_> = fleet.chain.clone();
    tokio::spawn(rpc::serve(listener, serving));
    let mut config =
        format!("registry = \"{}\"\nchain = \"{chain_url}\"\nnetwork = {}\n", fleet.registry, fleet.chain.network().0);
    for (n, log) in world.history.logs.iter().enumerate() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        config += &format!(
            "[[logs]]\nurl = \"{url}\"\nkey = \"{}\"\nwitness = \"{}\"\nverifier = {n}\n",
            log.key, log.witness
        );
        let source = files(log);
        let file = move |uri: axum::http::Uri| async move {
            match source.read(uri.path().trim_start_matches('/')).unwrap() {
                Some(bytes) => Ok(bytes),
                None => Err(axum::http::StatusCode::NOT_FOUND),
            }
        };
        let router = axum::Router::new().fallback(axum::routing::get(file));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let path = world.folder.path().join("auditor.toml");
    std::fs::write(&path, config).unwrap();
    let fork = world.folder.path().join("fork.note");
    std::fs::write(&fork, &world.history.logs[2].checkpoints[0]).unwrap();
    let out = world.folder.path().join("out");
    let args = ["audit", "replay", "--config", path.to_str().unwrap(), "--checkpoint", fork.to_str().unwrap()];
    let with_report = [&args[..], &["--report", out.to_str().unwrap(), "--json"]].concat();
    let work = world.folder.path().join("work");
    let (first, again) = tokio::task::block_in_place(|| (cocoon(&work, &with_report), cocoon(&work, &args)));
    assert_eq!(first.status.code(), Some(30), "{}", text(&first.stderr));
    assert_eq!(again.status.code(), Some(30), "{}", text(&again.stderr));
    let report: Report = serde_json::from_slice(&first.stdout).unwrap();
    exactly(&report, &world, &expected);
    follows_the_schema("report", &serde_json::from_slice(&first.stdout).unwrap());
    let file: Report = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(file, report);
    for kind in expected.iter().map(|fault| fault.kind.name()) {
        assert!(text(&again.stdout).contains(kind), "{kind}: {}", text(&again.stdout));
    }
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    page(&html);
    // The commands beside the findings carry the chain that was asked, and name the leaf.
    assert!(html.contains(&format!("--chain {chain_url}")), "no command names {chain_url}");
    for (n, log) in world.history.logs.iter().enumerate() {
        let origin = cocoon_transparency::replay::origin(&log.key);
        assert!(html.contains(&format!("--verifier {n}={origin}")), "no command says whose log {origin} is");
    }
    let leaf = report.findings.iter().find(|finding| finding.kind == Kind::ResultDiffers).unwrap().leaf.unwrap();
    assert!(html.contains(&format!("cocoon audit bundle --leaf {leaf} ")), "no command names leaf {leaf}");
    assert!(html.contains("base-uri &#39;none&#39;") || html.contains("base-uri 'none'"));

    // One evidence of it, by the command that the report names.
    let differs = report.findings.iter().find(|finding| finding.kind == Kind::ResultDiffers).unwrap();
    let id = differs.evidence_id.unwrap().to_string();
    let log = world.history.logs.iter().find(|log| log.key.starts_with(differs.log.as_deref().unwrap())).unwrap();
    let single = cocoon(
        &work,
        &["audit", "bundle", &id, log.folder.to_str().unwrap(), "--log-key", &log.key, "--out", out.to_str().unwrap()],
    );
    assert_eq!(single.status.code(), Some(20), "{}", text(&single.stderr));
    assert!(text(&single.stdout).contains("THE TWO DIFFER"), "{}", text(&single.stdout));
    let bundle = out.join("bundle.cbor");
    let verify = [
        "verify",
        "bundle",
        bundle.to_str().unwrap(),
        "--policy",
        out.join("policy.toml").to_str().unwrap(),
        "--at",
        &differs.time.unwrap().0.to_string(),
    ]
    .map(str::to_owned);
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();
    assert_ne!(cocoon(&work, &verify).status.code(), Some(0));

    // The monitor, once: alerts as JSON lines, the same exit code.
    let watch = cocoon(&work, &[&["audit", "watch", "--once"][..], &args[2..]].concat());
    assert_eq!(watch.status.code(), Some(30), "{}", text(&watch.stderr));
    let alerts: Vec<serde_json::Value> =
        text(&watch.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(alerts.len(), expected.len());
    alerts.iter().for_each(|alert| follows_the_schema("alert", alert));
    assert!(alerts.iter().all(|alert| alert["schema"] == "cocoon/audit-alert/v1"));
}

/// What the command writes is as `docs/schemas/audit.schema.json` says.
fn follows_the_schema(what: &str, value: &serde_json::Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/audit.schema.json");
    let schema: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let part = &schema["$defs"][what];
    assert!(part.is_object(), "{what}");
    let faults = cocoon_tests::schema::faults(&schema, part, value, what);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_schema_names_every_kind() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas/audit.schema.json");
    let schema: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let named: std::collections::BTreeSet<_> =
        schema["$defs"]["kind"]["enum"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    assert_eq!(named, Kind::ALL.iter().map(|kind| kind.name()).collect());
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/auditor.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for kind in Kind::ALL {
        assert!(guide.contains(&format!("`{}`", kind.name())), "the guide does not say what {} is", kind.name());
    }
}

/// The page is well-formed, and needs nothing but itself.
fn page(html: &str) {
    let body = html.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    // Without scripts and with every element closed, it is XML too.
    let document = roxmltree::Document::parse(body).expect("well-formed");
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["script", "link", "img", "iframe", "object", "base", "form"].contains(&name), "<{name}>");
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!key.starts_with("on") && key != "src" && key != "style", "{name} {key}");
            assert!(key != "href" || value.starts_with('#'), "{name} {key}={value}");
        }
    }
    let ids: Vec<&str> = document.descendants().filter_map(|node| node.attribute("id")).collect();
    for target in document.descendants().filter_map(|node| node.attribute("href")) {
        assert!(ids.contains(&&target[1..]), "{target} leads nowhere");
    }
    let style = document.descendants().find(|node| node.has_tag_name("style")).and_then(|node| node.text()).unwrap();
    assert!(!style.contains("url(") && !style.contains("@import"), "the style fetches something");
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
}

/// A log of one leaf of a fleet's log, altered, with all that it names.
fn altered(world: &World, alter: impl FnOnce(&mut Leaf, &mut Appraisal)) -> (LogResult, State) {
    let source = files(&world.history.logs[0]);
    let bytes = source.read(&layout::entries(0, 256)).unwrap().unwrap_or_else(|| {
        let partial = (1..256).find_map(|width| source.read(&layout::entries(0, width)).unwrap());
        partial.expect("entries")
    });
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let entry = &bytes[2..2 + length];
    let mut leaf = Leaf::from_cbor(entry).unwrap();
    let mut recorded: Appraisal =
        serde_json::from_slice(&leaf.appraisal.bytes(|digest| source.part(digest).ok()).unwrap()).unwrap();
    alter(&mut leaf, &mut recorded);
    leaf.appraisal = Part::Inline(serde_json::to_vec(&recorded).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(folder.path(), "one.example", [1; 32]).unwrap();
    for digest in parts_of(&leaf.to_cbor()).parts {
        log.add_parts([(digest, source.part(&digest).unwrap().as_slice())]).unwrap();
    }
    log.append(vec![leaf.to_cbor()]).unwrap();
    log.publish(&log.head().unwrap(), &[]).unwrap();
    let state = State::in_memory().unwrap();
    let (verifier, stop) = (Verifier::default(), AtomicBool::new(false));
    let source = Folder(folder.path().join("public"));
    let input = LogInput { source: &source, key: log.vkey(), witnesses: &[], checkpoints: &[], from: 0 };
    let job = Job { jobs: 1, verifier: &verifier, progress: &|_, _| {}, stop: &stop };
    (replay(&input, &state, &job).unwrap(), state)
}

#[test]
fn a_verdict_is_confirmed_by_outcomes_and_never_by_what_a_leaf_says_of_its_verifier() {
    let world = world(&Spec { enclaves: 10, days: 2, faults: false, ..Spec::default() });
    type Alter = fn(&mut Leaf, &mut Appraisal);
    let old: Alter = |leaf, _| leaf.verifier = "cocoon-verifier 0.0.9".into();
    let words: Alter = |leaf, recorded| {
        leaf.verifier = "cocoon-verifier 0.0.9".into();
        recorded.reason = "in other words".into();
    };
    let same_words: Alter = |_, recorded| recorded.reason = "in other words".into();
    let outcome: Alter = |leaf, recorded| {
        leaf.verifier = "cocoon-verifier 0.0.9".into();
        leaf.outcome = cocoon_verifier::Outcome::Refused;
        recorded.outcome = cocoon_verifier::Outcome::Refused;
    };
    let half: Alter = |leaf, recorded| {
        leaf.verifier = "cocoon-verifier 0.0.9".into();
        recorded.outcome = cocoon_verifier::Outcome::Refused;
    };
    let unreadable: Alter = |leaf, recorded| {
        leaf.verifier = "cocoon-verifier 9.0.0".into();
        leaf.outcome = cocoon_verifier::Outcome::Refused;
        recorded.reason = "said otherwise".into();
    };
    for (what, alter, expected, confirmed) in [
        ("as it is", (|_, _| {}) as Alter, None, true),
        ("an older version with the same words", old, None, true),
        ("an older version in other words", words, Some(Kind::ResultOfOtherVersion), true),
        ("the same version in other words", same_words, Some(Kind::ResultDiffers), true),
        ("another outcome, said to be an older version's", outcome, Some(Kind::ResultDiffers), false),
        ("another outcome in the appraisal alone", half, Some(Kind::ResultDiffers), true),
        ("another outcome in the leaf alone, and other words", unreadable, Some(Kind::ResultDiffers), false),
    ] {
        let (result, state) = altered(&world, alter);
        let mut found = Vec::new();
        state.findings(|finding| found.push(finding)).unwrap();
        assert!(result.whole && result.findings.is_empty(), "{what}");
        assert_eq!(found.iter().map(|finding| finding.kind).collect::<Vec<_>>(), Vec::from_iter(expected), "{what}");
        let all = state.all_logged(10).unwrap().unwrap();
        assert_eq!(all.iter().map(|(_, logged)| logged.confirmed).collect::<Vec<_>>(), [confirmed], "{what}");
    }
}

#[test]
fn what_a_log_says_stays_text() {
    let mut world = world(&Spec { enclaves: 10, days: 2, faults: false, ..Spec::default() });
    let hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&";
    let work = tempfile::tempdir().unwrap();
    let mut replayed = replay_all(&world, work.path(), 1);
    world.history.expected.clear();
    let (result, _) = &mut replayed[0];
    result.totals.nodes.add(hostile);
    result.totals.verifiers.add(hostile);
    result.totals.tcb.add(hostile);
    result.totals.advisories.add(hostile);
    result.origin = hostile.into();
    let mut findings = Findings::default();
    let mut finding =
        cocoon_transparency::replay::Finding::new(Kind::MalformedLeaf, hostile).in_log(hostile).of(Digest([1; 32]));
    finding.evidence.push(hostile.into());
    findings.add(finding);
    let report = report(&replayed, None, findings);
    let html = cocoon_cli::audit::html::page(&report);
    page(&html);
    assert!(!html.contains("<script") && !html.contains("<img"), "markup got through");
    assert!(html.contains("&lt;script&gt;alert(1)"));
}
