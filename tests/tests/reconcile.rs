//! What an auditor holds against the chain, one attack or accident after the other: what somebody hides is found, and nobody who is honest
//! is accused by what others do.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use cocoon_attestation::{Digest, UnixTime};
use cocoon_protocol::identity::SigningKey;
use cocoon_settlement::cells::SettlementReceipt;
use cocoon_settlement::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use cocoon_settlement::contracts::events::{self, Event};
use cocoon_settlement::contracts::{ClaimItem, provider};
use cocoon_settlement::wallet::OutMessage;
use cocoon_settlement::{Address, Error as ChainError, Nanoton, NetworkId, ops};
use cocoon_tests::fleet::history::{DAY, Renewal, START, enclave_seed};
use cocoon_tests::fleet::{self, FleetChain, FleetLog, History, Spec, chain, history};
use cocoon_transparency::replay::chain::{ChainInput, ChainResult, ReplayedLog, reconcile};
use cocoon_transparency::replay::report::{Findings, Report};
use cocoon_transparency::replay::{Finding, Job, Kind, LogInput, LogResult, State, replay};
use cocoon_transparency::{Error, Folder};
use cocoon_verifier::Verifier;
use tycho_types::cell::{Cell, CellBuilder};

const TEN_TON: Nanoton = Nanoton(10_000_000_000);
const CALL: Nanoton = Nanoton(100_000_000);

/// Three logs, replayed, and contracts without any attestation.
struct World {
    folder: tempfile::TempDir,
    history: History,
    replayed: Vec<(LogResult, State)>,
    fleet: FleetChain,
    /// Which verifier's which log is, as the auditor trusts it.
    verifiers: [Option<u8>; 3],
    channels: Vec<Address>,
}

fn spec(days: u64) -> Spec {
    Spec { enclaves: 10, days, faults: false, ..Spec::default() }
}

fn replayed(log: &FleetLog, witness: &str, state: State) -> (LogResult, State) {
    let source = Folder(log.folder.join("public"));
    let verifier = Verifier::default();
    let witnesses = [witness.to_owned()];
    let input = LogInput { source: &source, key: &log.key, witnesses: &witnesses, checkpoints: &[], from: 0 };
    let job = Job { jobs: 1, verifier: &verifier, progress: &|_, _| {}, stop: &false.into() };
    (replay(&input, &state, &job).unwrap(), state)
}

impl World {
    async fn new(days: u64) -> Self {
        let spec = spec(days);
        let folder = tempfile::tempdir().unwrap();
        let provider = chain::provider_of(spec.enclaves).unwrap();
        let history = history::make(folder.path(), &spec, provider, |_| {}).unwrap();
        let state = |n: usize| State::open(&folder.path().join(format!("{n}.redb"))).unwrap();
        let logs = &history.logs;
        let replayed = (0..fleet::NODES).map(|n| replayed(&logs[n], &logs[(n + 1) % 3].witness, state(n))).collect();
        let fleet = FleetChain::deploy(None, spec.enclaves).await.unwrap();
        Self { folder, history, replayed, fleet, verifiers: [Some(0), Some(1), Some(2)], channels: Vec::new() }
    }

    /// One in which everything was attested, as it should be.
    async fn attested(days: u64) -> Self {
        let mut world = Self::new(days).await;
        world.fleet.attest(&world.history, |_| {}).await.unwrap();
        world
    }

    async fn try_audit(&self, chain: &dyn Chain) -> Result<(ChainResult, Vec<Finding>), Error> {
        let sources: Vec<Folder> = self.history.logs.iter().map(|log| Folder(log.folder.join("public"))).collect();
        let logs = self.replayed.iter().zip(&sources).zip(self.verifiers);
        let logs: Vec<_> =
            logs.map(|(((result, state), source), verifier)| ReplayedLog { result, state, source, verifier }).collect();
        let (as_of, work) = (chain.head().await.unwrap().time, tempfile::tempdir().unwrap());
        let input = ChainInput {
            chain,
            registry: self.fleet.registry,
            logs: &logs,
            channels: &self.channels,
            as_of,
            work: work.path(),
            progress: &|_| {},
        };
        let mut findings = Findings::default();
        let result = reconcile(&input, &mut findings).await?;
        Ok((result, Report::new(UnixTime(1), Vec::new(), None, findings).unwrap().findings))
    }

    async fn audit_on(&self, chain: &dyn Chain) -> (ChainResult, Vec<Finding>) {
        self.try_audit(chain).await.unwrap()
    }

    async fn audit(&self) -> (ChainResult, Vec<Finding>) {
        self.audit_on(&*self.fleet.chain).await
    }

    fn renewal(&self, enclave: usize, day: u64) -> Renewal {
        let found = self.history.renewals.iter().find(|renewal| (renewal.enclave, renewal.day) == (enclave, day));
        found.unwrap().clone()
    }

    /// Brings one verdict before the Registry.
    async fn attest(&mut self, renewal: &Renewal, change: impl FnOnce(&mut cocoon_settlement::cells::Verdict)) {
        let next = self.fleet.next(renewal.enclave);
        let (mut verdict, _) = self.fleet.verdict(renewal, next).unwrap();
        let now = self.fleet.now();
        (verdict.until, verdict.expiry) = (now.plus(DAY), now.plus(3_600));
        change(&mut verdict);
        let signatures = FleetChain::signed(&verdict, &renewal.signers).unwrap();
        let report = ops::attest(self.fleet.owner(), &self.fleet.registry, &verdict, &signatures).await.unwrap();
        report.success().unwrap();
    }

    /// Sends a message that does not come back.
    async fn throw(&self, to: Address, body: Cell) {
        let message = OutMessage { bounce: false, ..OutMessage::new(to, CALL, Some(body), None) };
        self.fleet.client().send_all(&[message]).await.unwrap();
    }
}

fn kinds(findings: &[Finding]) -> BTreeMap<Kind, usize> {
    let mut kinds = BTreeMap::new();
    findings.iter().for_each(|finding| *kinds.entry(finding.kind).or_default() += 1);
    kinds
}

fn none(findings: &[Finding]) {
    assert!(findings.is_empty(), "{findings:#?}");
}

/// The item of a claim of one, as a cell.
fn item_cell(item: &ClaimItem) -> Cell {
    provider::claim(&[(item, true)]).unwrap().reference_cloned(0).unwrap()
}

fn claim_body(channel: &Address, item: Cell) -> Cell {
    let mut b = CellBuilder::new();
    b.store_u32(0x4302_0002).unwrap();
    b.store_raw(&channel.hash, 256).unwrap();
    b.store_reference(item).unwrap();
    b.build().unwrap()
}

fn settle_body(item: Cell, since: u64, until: u64) -> Cell {
    let mut b = CellBuilder::new();
    b.store_u32(0x4303_0002).unwrap();
    b.store_reference(item).unwrap();
    b.store_u32(since as u32).unwrap();
    b.store_u32(until as u32).unwrap();
    b.build().unwrap()
}

/// What is done to a page of an account's transactions.
type Lie<'a> = Box<dyn Fn(&Address, Vec<TxSummary>) -> Vec<TxSummary> + Send + Sync + 'a>;

/// A chain on which something happens just after an account was looked at, or whose server shows another history than there is.
struct Other<'a> {
    world: &'a World,
    lie: Lie<'a>,
    /// Accounts at which nothing happened yet.
    waiting: Mutex<Vec<Address>>,
}

impl<'a> Other<'a> {
    fn lying(world: &'a World, lie: impl Fn(&Address, Vec<TxSummary>) -> Vec<TxSummary> + Send + Sync + 'a) -> Self {
        Self { world, lie: Box::new(lie), waiting: Mutex::default() }
    }

    async fn happens(&self, address: &Address) {
        let world = self.world;
        let fleet = &world.fleet;
        if *address == fleet.registry {
            let renewal = world.renewal(1, 1);
            let (mut verdict, _) = fleet.verdict(&renewal, 9).unwrap();
            (verdict.until, verdict.expiry) = (fleet.now().plus(2 * DAY), fleet.now().plus(60));
            let signatures = FleetChain::signed(&verdict, &renewal.signers).unwrap();
            ops::attest(fleet.owner(), &fleet.registry, &verdict, &signatures).await.unwrap().success().unwrap();
        } else if *address == fleet.providers[0] {
            ops::stake(fleet.owner(), address, TEN_TON).await.unwrap().success().unwrap();
            fleet.pay(1, 1, Nanoton(5_000_000), fleet.now()).await.unwrap();
        } else if *address == fleet.channels[0] {
            ops::top_up(fleet.client(), address, TEN_TON).await.unwrap().success().unwrap();
        }
    }
}

#[async_trait]
impl Chain for Other<'_> {
    fn network(&self) -> NetworkId {
        self.world.fleet.chain.network()
    }
    async fn head(&self) -> Result<BlockRef, ChainError> {
        self.world.fleet.chain.head().await
    }
    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, ChainError> {
        self.world.fleet.chain.block(seqno).await
    }
    async fn account(&self, address: &Address) -> Result<AccountState, ChainError> {
        let state = self.world.fleet.chain.account(address).await;
        let place = self.waiting.lock().unwrap().iter().position(|waiting| waiting == address);
        if let Some(place) = place {
            self.waiting.lock().unwrap().swap_remove(place);
            self.happens(address).await;
        }
        state
    }
    async fn send(&self, external: Cell) -> Result<[u8; 32], ChainError> {
        self.world.fleet.chain.send(external).await
    }
    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, ChainError> {
        self.world.fleet.chain.run_get(address, method, args).await
    }
    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, ChainError> {
        let page = self.world.fleet.chain.transactions_before(address, before, limit).await?;
        Ok((self.lie)(address, page))
    }
    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, ChainError> {
        self.world.fleet.chain.trace(message_hash).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_cannot_be_hidden_behind_what_the_contracts_do_not_read() {
    let world = World::attested(2).await;
    let fleet = &world.fleet;
    // The only claims on the Channel: one with a bit, one with a reference behind the receipt's signature.
    for (n, bit) in [(1u64, true), (2, false)] {
        let item = fleet.item(3, n, Nanoton(n * 30_000_000), UnixTime(fleet.now().0 - 600 + n)).unwrap();
        let cell = item_cell(&item);
        let mut b = CellBuilder::new();
        b.store_slice(cell.as_slice().unwrap()).unwrap();
        if bit {
            b.store_bit_one().unwrap();
        } else {
            b.store_reference(Cell::default()).unwrap();
        }
        let body = claim_body(&fleet.channels[0], b.build().unwrap());
        fleet.owner().send(fleet.providers[0], CALL, Some(body), None).await.unwrap().success().unwrap();
    }
    fleet.set(fleet.now().plus(3_600));
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.channel_count, result.claims, result.receipts_followed), (1, 2, 2));
    assert_eq!(result.money.paid, 60_000_000);

    // What a contract carried out and nobody can read is found, and not passed over.
    let cut = |body: &Cell| {
        let slice = body.as_slice().unwrap();
        let mut b = CellBuilder::new();
        b.store_slice(slice.get_prefix(slice.size_bits(), 0)).unwrap();
        b.build().unwrap()
    };
    let chain = Other::lying(&world, |account, mut page| {
        for transaction in page.iter_mut().filter(|_| *account == world.fleet.providers[0]) {
            if let Ok(Some(Event::Claim { items, .. })) = events::carried_out(transaction)
                && items[0].receipt.sequence == 2
            {
                let message = transaction.received.as_mut().unwrap();
                message.body = message.body.as_ref().map(cut);
            }
        }
        page
    });
    let (_, findings) = world.audit_on(&chain).await;
    assert_eq!(kinds(&findings), BTreeMap::from([(Kind::UnreadableMessage, 1), (Kind::Unreconciled, 1)]));

    // And a server that keeps bodies to itself is no server to audit on.
    let chain = Other::lying(&world, |_, mut page| {
        page.iter_mut().filter_map(|transaction| transaction.received.as_mut()).for_each(|message| message.body = None);
        page
    });
    let error = world.try_audit(&chain).await.unwrap_err();
    assert!(matches!(error, Error::Chain(ChainError::Incomplete(_))), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_no_code_ran_for_accuse_nobody() {
    let mut world = World::attested(2).await;
    let now = world.fleet.now();
    let (provider, channel) = (world.fleet.providers[0], world.fleet.channels[0]);
    // A Channel that was never deployed, and that both a claim and the auditor name.
    let nowhere = world.fleet.channel_init(provider, [9; 32]).unwrap().address();
    let item = world.fleet.item(3, 1, Nanoton(30_000_000), UnixTime(now.0 - 600)).unwrap();
    world.throw(nowhere, settle_body(item_cell(&item), 0, u32::MAX.into())).await;
    let body = claim_body(&nowhere, item_cell(&item));
    world.fleet.owner().send(provider, CALL, Some(body), None).await.unwrap();
    world.channels = vec![nowhere, world.fleet.client().address(), channel];
    world.fleet.pay(3, 1, Nanoton(30_000_000), UnixTime(now.0 - 600)).await.unwrap();
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.channel_count, result.claims, result.receipts_followed), (1, 1, 1));

    // A Channel that is no more: a stranger sends it receipts that the enclave never signed, which would contradict the one that it did.
    ops::release_channel(world.fleet.owner(), &provider, &channel).await.unwrap().success().unwrap();
    world.fleet.set(now.plus(11 * DAY));
    ops::delete_channel(world.fleet.client(), &channel).await.unwrap().success().unwrap();
    for (number, total) in [(5, 10), (6, 5)] {
        let mut invented = world.fleet.item(3, number, Nanoton(total), UnixTime(now.0 - 500)).unwrap();
        invented.receipt_signature = [7; 64];
        world.throw(channel, settle_body(item_cell(&invented), 0, u32::MAX.into())).await;
    }
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.channel_count, result.claims, result.receipts_followed), (1, 1, 1));
    assert_eq!(result.providers[0].channels, 1, "whose Channel it was follows from what it was deployed with");

    // Opened anew where it stood, it knows nothing of what was paid: the same total is due again, and not too much.
    let init = world.fleet.channel_init(provider, chain::providers(1).unwrap()[0].salt).unwrap();
    assert_eq!(init.address(), channel);
    ops::open_channel(world.fleet.client(), &init, TEN_TON).await.unwrap().success().unwrap();
    let renewal = world.renewal(3, 1);
    world.attest(&renewal, |_| {}).await;
    world.fleet.pay(3, 7, Nanoton(40_000_000), world.fleet.now()).await.unwrap();
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.claims, result.receipts_followed, result.money.paid), (2, 2, 70_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_borrows_genuine_evidence_is_found() {
    let mut world = World::attested(2).await;
    let (mut borrowed, other) = (world.renewal(3, 1), FleetChain::key(5).unwrap());
    borrowed.enclave = 5;
    world.attest(&borrowed, |verdict| assert_eq!(verdict.enclave_key, other)).await;
    let (_, findings) = world.audit().await;
    let expected = BTreeMap::from([(Kind::VerdictWithoutLeaf, 2), (Kind::AttestationWithoutQuorum, 1)]);
    assert_eq!(kinds(&findings), expected);
    for finding in &findings {
        assert_eq!(finding.evidence_id, Some(borrowed.evidence_id));
    }
    let verdict = findings.iter().find(|finding| finding.kind == Kind::VerdictWithoutLeaf).unwrap();
    assert!(verdict.detail.contains(&Digest(other.0).to_string()), "{}", verdict.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_before_its_leaf_is_found() {
    let mut world = World::new(2).await;
    world.fleet.set(UnixTime(START + 3_600));
    let renewal = world.renewal(9, 1);
    world.attest(&renewal, |_| {}).await;
    // The same some minutes early only is how clocks differ.
    let renewal = world.renewal(8, 1);
    world.fleet.set(UnixTime(renewal.time.0 - 500));
    world.attest(&renewal, |_| {}).await;
    world.fleet.set(UnixTime(START + 3 * DAY));
    let (_, findings) = world.audit().await;
    let expected = BTreeMap::from([(Kind::VerdictWithoutLeaf, 2), (Kind::AttestationWithoutQuorum, 1)]);
    assert_eq!(kinds(&findings), expected);
    assert!(findings.iter().any(|finding| finding.detail.contains("only in leaf")), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verifiers_that_change_leave_what_they_signed_as_it_was() {
    let mut world = World::new(3).await;
    let registry = world.fleet.registry;
    let mut told = |_| {};
    // Day 0 by verifiers 0 and 1, and a forged verdict among them; then verifier 0 is dropped, and later two of two must sign.
    world.fleet.attest_day(&world.history, 0, &mut told).await.unwrap();
    let mut forged = world.renewal(3, 0);
    forged.evidence_id = Digest([0x66; 32]);
    world.attest(&forged, |_| {}).await;
    ops::tighten(world.fleet.governance(), &registry, &[0], 2, 172_800).await.unwrap().success().unwrap();
    let params = ops::registry_params(&*world.fleet.chain, &registry).await.unwrap();
    assert_eq!(params.verifiers.keys().copied().collect::<Vec<_>>(), [1, 2], "the others keep their places");
    world.fleet.set_epoch = 1;
    for renewal in world.history.renewals.iter_mut().filter(|renewal| renewal.day > 0) {
        renewal.signers = vec![2, 1];
    }
    world.fleet.attest_day(&world.history, 1, &mut told).await.unwrap();
    world.fleet.anchor_day(&world.history, 1, 1..3).await.unwrap();
    // The first comes back at another place, and then three must sign: what two signed before was enough then.
    let mut verifiers = params.verifiers;
    verifiers.insert(7, SigningKey::from_seed(&history::verdict_seed(0)).unwrap().public());
    let change = cocoon_settlement::contracts::Change::Verifiers { threshold: 3, verifiers };
    ops::propose(world.fleet.governance(), &registry, &change).await.unwrap().success().unwrap();
    world.fleet.set_epoch = 2;
    world.fleet.set(UnixTime(START + 3 * DAY));
    for enclave in 0..10 {
        let renewal = world.renewal(enclave, 2);
        let next = world.fleet.next(enclave);
        let (mut verdict, _) = world.fleet.verdict(&renewal, next).unwrap();
        (verdict.until, verdict.expiry) = (world.fleet.now().plus(DAY), world.fleet.now().plus(60));
        let mut signatures = FleetChain::signed(&verdict, &[0, 1, 2]).unwrap();
        signatures[0].0 = 7;
        let report = ops::attest(world.fleet.owner(), &registry, &verdict, &signatures).await.unwrap();
        report.success().unwrap();
    }
    let (result, findings) = world.audit().await;
    let expected = BTreeMap::from([(Kind::VerdictWithoutLeaf, 2), (Kind::AttestationWithoutQuorum, 1)]);
    assert_eq!(kinds(&findings), expected, "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.evidence_id == Some(Digest([0x66; 32]))));
    assert_eq!((result.verdicts_followed, result.verdicts_without_log), (20 + 20 + 30, 0));
    assert_eq!(result.verifiers.iter().map(|link| link.index).collect::<Vec<_>>(), [1, 2, 7]);
    assert_eq!((result.threshold, result.anchors_followed), (3, 2));

    // A history in which one of the changes is missing does not lead to the Registry's verifiers.
    let chain = Other::lying(&world, |account, page| {
        let kept = |tx: &TxSummary| !matches!(events::carried_out(tx), Ok(Some(Event::Tighten { .. })));
        page.into_iter().filter(|tx| *account != world.fleet.registry || kept(tx)).collect()
    });
    let (_, findings) = world.audit_on(&chain).await;
    assert_eq!(kinds(&findings)[&Kind::Unreconciled], 1, "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_nobodys_but_whose_the_auditor_says() {
    let mut world = World::new(2).await;
    for renewal in &mut world.history.renewals {
        renewal.signers = vec![0, 2];
    }
    // Verifier 2 shows no log and anchors in the name of verifier 0's, once what that log is and once what it never was.
    let (size, root) = {
        let (_, _, size, root) = world.history.heads.iter().find(|(day, node, ..)| (*day, *node) == (0, 0)).unwrap();
        (*size, *root)
    };
    let name = world.replayed[0].0.origin.clone();
    for day in 0..2 {
        world.fleet.attest_day(&world.history, day, |_| {}).await.unwrap();
        world.fleet.anchor_day(&world.history, day, 0..2).await.unwrap();
    }
    world.fleet.anchor(2, &name, size, &root).await.unwrap();
    world.fleet.anchor(2, &name, size + 1, &Digest([5; 32])).await.unwrap();
    let log = world.replayed.pop().unwrap();
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.verdicts_followed, result.verdicts_without_log), (20, 20));
    assert_eq!(result.anchors_followed, 4);
    assert_eq!(result.verifiers[2].log, None);
    // Nor does a log that the auditor binds to nobody back anything, whoever anchors it.
    world.verifiers = [None, Some(1), None];
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.verdicts_followed, result.verdicts_without_log, result.anchors_followed), (0, 40, 2));
    // With its own log at hand, what verifier 2 anchored is held against that one.
    world.verifiers = [Some(0), Some(1), Some(2)];
    world.replayed.push(log);
    let (_, findings) = world.audit().await;
    assert_eq!(kinds(&findings), BTreeMap::from([(Kind::AnchorDiffers, 2)]));
    let third = world.replayed[2].0.origin.clone();
    assert!(findings.iter().all(|finding| finding.log.as_ref() == Some(&third)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_log_accuses_nobody() {
    // The same fleet, a day longer: the logs of two days are the beginning of those of three.
    let world = World::attested(3).await;
    let older = World::new(2).await;
    let heads = |world: &World, day| -> Vec<_> {
        world.history.heads.iter().filter(|head| head.0 == day).map(|head| (head.2, head.3)).collect()
    };
    assert_eq!(heads(&world, 1), heads(&older, 1));
    let copies = World { fleet: world.fleet, ..older };
    let (result, findings) = copies.audit().await;
    assert_eq!(kinds(&findings), BTreeMap::from([(Kind::LaterThanLog, 3)]), "{findings:#?}");
    let logs: Vec<_> = findings.iter().filter_map(|finding| finding.log.clone()).collect();
    assert_eq!(logs, copies.replayed.iter().map(|(result, _)| result.origin.clone()).collect::<Vec<_>>());
    assert_eq!((result.attestations_later, result.verdicts_followed, result.anchors_followed), (10, 40, 6));
    assert_eq!(result.verdicts_without_log, 0);
    // A copy that its witnesses saw after all of that has no such excuse.
    let mut copies = copies;
    for (result, _) in &mut copies.replayed {
        result.witnesses[0].1 = UnixTime(START + 4 * DAY);
    }
    copies.fleet.set(UnixTime(START + 5 * DAY));
    let (_, findings) = copies.audit().await;
    let expected = BTreeMap::from([
        (Kind::VerdictWithoutLeaf, 20),
        (Kind::AnchorDiffers, 3),
        (Kind::AttestationWithoutQuorum, 10),
    ]);
    assert_eq!(kinds(&findings), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_checkpoint_cannot_be_believed_backs_and_accuses_nobody() {
    let mut world = World::attested(2).await;
    std::fs::write(world.history.logs[1].folder.join("public/checkpoint"), "no checkpoint").unwrap();
    let state = State::open(&world.folder.path().join("anew.redb")).unwrap();
    world.replayed[1] = replayed(&world.history.logs[1], &world.history.logs[2].witness, state);
    assert_eq!(world.replayed[1].0.findings[0].kind, Kind::BadCheckpoint);
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.verdicts_followed, result.verdicts_without_log, result.anchors_followed), (20, 20, 4));
}

/// A key that was forgotten and is attested anew has a new life, and each attestation its own verdicts.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_removed_and_attested_anew_has_a_new_life() {
    let mut world = World::new(2).await;
    let (provider, key) = (world.fleet.providers[0], FleetChain::key(3).unwrap());
    let renewal = world.renewal(3, 0);
    world.fleet.set(renewal.time.plus(60));
    let mut forged = renewal.clone();
    forged.evidence_id = Digest([0x66; 32]);
    world.attest(&forged, |_| {}).await;
    // Known until its attestation, a week, the claim window and a day are over.
    world.fleet.set(renewal.time.plus(60 + DAY + 11 * DAY + 60));
    ops::prune(world.fleet.client(), &provider, &key).await.unwrap().success().unwrap();
    let gap = UnixTime(world.fleet.now().0 + 60);
    world.fleet.set(gap.plus(DAY));
    let anew = Renewal { evidence_id: renewal.evidence_id, ..renewal.clone() };
    world.attest(&anew, |verdict| verdict.generation = 0).await;
    world.fleet.pay(3, 1, Nanoton(30_000_000), world.fleet.now()).await.unwrap();
    let (result, findings) = world.audit().await;
    let expected = BTreeMap::from([(Kind::VerdictWithoutLeaf, 2), (Kind::AttestationWithoutQuorum, 1)]);
    assert_eq!(kinds(&findings), expected, "the first life's verdicts are not the second's");
    assert!(findings.iter().all(|finding| finding.evidence_id == Some(forged.evidence_id)));
    assert_eq!(result.receipts_followed, 1);

    // What the contract refuses a server could show: a payment for a receipt from between the two lives.
    let between = world.fleet.item(3, 1, Nanoton(30_000_000), gap).unwrap();
    let chain = Other::lying(&world, |_, mut page| {
        for transaction in &mut page {
            if let Ok(Some(Event::Settle { .. })) = events::carried_out(transaction) {
                let body = settle_body(item_cell(&between), 0, u32::MAX.into());
                transaction.received.as_mut().unwrap().body = Some(body);
            }
        }
        page
    });
    let (_, findings) = world.audit_on(&chain).await;
    assert_eq!(kinds(&findings).get(&Kind::PayoutWithoutAttestation), Some(&1), "{findings:#?}");
    // And one without the second attestation.
    let chain = Other::lying(&world, |account, page| {
        let second = |tx: &TxSummary| {
            let event = events::carried_out(tx);
            matches!(event, Ok(Some(Event::Attested { evidence_id, .. })) if evidence_id == renewal.evidence_id)
        };
        page.into_iter().filter(|tx| *account != provider || !second(tx)).collect()
    });
    let (_, findings) = world.audit_on(&chain).await;
    let removed = findings.iter().find(|finding| finding.kind == Kind::PayoutWithoutAttestation).unwrap();
    assert!(removed.detail.contains("was removed"), "{}", removed.detail);
}

/// While the audit looks, the chain goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_during_an_audit_is_no_finding() {
    let world = World::attested(2).await;
    world.fleet.pay(3, 1, Nanoton(30_000_000), world.fleet.now()).await.unwrap();
    let fleet = &world.fleet;
    let waiting = vec![fleet.registry, fleet.providers[0], fleet.channels[0]];
    let chain = Other { world: &world, lie: Box::new(|_, page| page), waiting: Mutex::new(waiting) };
    let (result, findings) = world.audit_on(&chain).await;
    assert!(chain.waiting.lock().unwrap().is_empty(), "all of it happened");
    none(&findings);
    assert_eq!((result.attestations, result.attestations_later), (21, 1));
    // Seen again, all of it is followed.
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.attestations, result.attestations_later, result.claims), (21, 0, 2));
    assert_eq!((result.receipts_followed, result.money.deposited), (2, 60_000_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_cannot_both_be_true_are_found_wherever_they_show() {
    let world = World::attested(2).await;
    let (fleet, channel) = (&world.fleet, world.fleet.channels[0]);
    let time = UnixTime(fleet.now().0 - 600);
    // One number, one total, two times.
    fleet.pay(3, 2, Nanoton(30_000_000), time).await.unwrap();
    fleet.pay(3, 2, Nanoton(30_000_000), time.plus(1)).await.unwrap();
    // Out of order, and true.
    for (number, total) in [(1, 10_000_000), (4, 40_000_000), (3, 30_000_000)] {
        fleet.pay(4, number, Nanoton(total), time).await.unwrap();
    }
    let (_, findings) = world.audit().await;
    assert_eq!(kinds(&findings), BTreeMap::from([(Kind::DoubleClaim, 1), (Kind::ReceiptsContradict, 1)]));
    // What was shown to the Provider was never claimed.
    let seed = enclave_seed(7);
    let receipt = |sequence, total| SettlementReceipt {
        network: NetworkId::LOCAL,
        provider: fleet.providers[0],
        channel,
        enclave_key: FleetChain::key(7).unwrap(),
        sequence,
        total: Nanoton(total),
        time,
    };
    let (one, other) = (receipt(5, 7), receipt(6, 6));
    let (signed, other_signed) = (one.sign(&seed).unwrap(), other.sign(&seed).unwrap());
    let report = ops::slash(fleet.client(), &fleet.providers[0], (&one, &signed), (&other, &other_signed)).await;
    report.unwrap().success().unwrap();
    let (_, findings) = world.audit().await;
    assert_eq!(kinds(&findings), BTreeMap::from([(Kind::DoubleClaim, 1), (Kind::ReceiptsContradict, 2)]));
    assert!(findings.iter().any(|finding| finding.detail.contains("receipt 5 of 7 nanoton")), "{findings:#?}");
}

/// The Provider decides when it passes a claim on; the Channel pays it although the key was revoked meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_overtakes_a_claim_accuses_nobody() {
    let world = World::attested(2).await;
    let fleet = &world.fleet;
    let item = fleet.item(3, 1, Nanoton(30_000_000), UnixTime(fleet.now().0 - 600)).unwrap();
    let claim = provider::claim(&[(&item, true)]).unwrap();
    let void = provider::revoke(0, &FleetChain::key(3).unwrap(), true, &fleet.owner().address()).unwrap();
    let messages = [claim, void].map(|body| OutMessage::new(fleet.providers[0], CALL, Some(body), None));
    let report = fleet.owner().send_all(&messages).await.unwrap().success().unwrap();
    let place = |op: u32| {
        let is = |tx: &TxSummary| tx.received.as_ref().is_some_and(|message| message.op == Some(op));
        report.transactions.iter().position(is).unwrap()
    };
    assert!(place(0x4302_0002) < place(0x4302_0007) && place(0x4302_0007) < place(0x4303_0002), "it overtook it");
    let (result, findings) = world.audit().await;
    none(&findings);
    assert_eq!((result.claims, result.receipts_followed, result.providers[0].revocations), (1, 1, 1));
}
