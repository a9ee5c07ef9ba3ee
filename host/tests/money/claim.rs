//! A host is paid what was both promised and earned, once; also for an enclave that no longer runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cocoon_attestation::dev::DevPlatform;
use cocoon_host::claim::{AT_ONCE, CLAIM_VALUE, FIRST_ITEM_FEE};
use cocoon_host::relay::Standing;
use cocoon_host::store::{Ended, Store};
use cocoon_host::{
    ClaimReport, ClaimRule, Claimer, DevEndorser, EnclaveLauncher, Error, Host, HostConfig, LaunchSpec, RunningEnclave,
};
use cocoon_protocol::receipt::SignedSettlementReceipt;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::cells::{SettlementReceipt, Voucher};
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::provider;
use cocoon_settlement::local::Clock;
use cocoon_settlement::{Nanoton, NetworkId, ops};

use crate::world::{AT, PRICES, Server, World, key, world, world_with_window};

const HOUR: u64 = 3_600;

/// Claims only what is worth 0.05 TON or presses.
const PATIENT: ClaimRule = ClaimRule {
    every: Duration::from_secs(60),
    least: Nanoton(50_000_000),
    max_age: Duration::from_secs(u64::MAX),
    again: false,
};

/// The same where nothing can be foreseen.
async fn blind_round_at(world: &World, store: &Store, seconds: u64, rule: &ClaimRule) -> ClaimReport {
    world.clock.advance(AT.plus(seconds).0 - world.clock.now().0);
    Claimer::new(world.blind(), world.provider).round(store, rule).await.unwrap()
}

/// What a process that starts at this many seconds does.
async fn round_at(world: &World, store: &Store, seconds: u64, rule: &ClaimRule) -> ClaimReport {
    world.clock.advance(AT.plus(seconds).0 - world.clock.now().0);
    Claimer::new(world.account.clone(), world.provider).round(store, rule).await.unwrap()
}

/// The enclave is gone and does not come back.
struct Gone;

impl EnclaveLauncher for Gone {
    fn launch(&self, spec: &LaunchSpec) -> Result<RunningEnclave, Error> {
        Err(Error::Launch { binary: "gone".into(), why: "gone".into(), log: spec.log.clone() })
    }
}

/// Claims twice with this promise and this total; gives what each round brought.
async fn claim_twice(folder: &Path, cap: Nanoton, total: Nanoton) -> [Nanoton; 2] {
    let world = world().await;
    let host = Host::start(HostConfig {
        network: NetworkId::LOCAL,
        provider: world.provider,
        registry: world.registry,
        chain: world.chain.clone(),
        account: world.account.clone(),
        owner_key: key(5),
        launcher: Arc::new(Gone),
        endorser: Arc::new(DevEndorser::new(DevPlatform::from_seed([7; 32]))),
        guest_config: folder.join("guest.toml"),
        model: folder.join("model"),
        model_names: vec!["demo".into()],
        prices: PRICES,
        node_urls: Vec::new(),
        gateway_urls: Vec::new(),
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        url: None,
        data: folder.join("host"),
        tap: None,
        claims: None,
    })
    .await
    .unwrap();
    world.earn(host.store(), 41, 41, cap, total);
    let paid = [host.claim_all().await.unwrap().paid, host.claim_all().await.unwrap().paid];
    host.shutdown().await;
    paid
}

/// One bad receipt does not keep a good one from its pay, is asked for once, and not again by a process that starts anew.
#[tokio::test]
async fn what_is_refused_costs_once_and_others_are_paid() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let path = folder.path().join("host.redb");
    let store = Store::open(&path).unwrap();
    let amount = Nanoton(300_000_000);
    world.earn(&store, 41, 41, amount, amount);
    world.earn(&store, 42, 99, amount, amount);
    let claimer = || Claimer::new(world.blind(), world.provider);
    let first = claimer().round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((first.items, first.paid), (1, amount));
    assert!(first.fees > Nanoton(20_000_000), "the batch, then each alone");
    drop(store);
    let store = Store::open(&path).unwrap();
    let second = claimer().round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((second.items, second.fees), (0, Nanoton(0)));
}

/// What would be refused is known before it is sent, and costs nothing; what it was to go with is claimed without it.
#[tokio::test]
async fn a_refused_batch_does_not_make_a_round_cost_more_than_it_brings() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    world.earn(&store, 41, 41, Nanoton(16_000_000), Nanoton(16_000_000));
    world.earn(&store, 42, 99, Nanoton(16_000_000), Nanoton(16_000_000));
    let before = world.account.balance().await.unwrap();
    let round = round_at(&world, &store, 0, &AT_ONCE).await;
    assert_eq!((round.items, round.paid, round.held.len()), (1, Nanoton(16_000_000), 1));
    assert!(round.fees > Nanoton(0) && round.paid > round.fees, "{round:?}");
    assert!(world.account.balance().await.unwrap() > before, "it is worth it");
    let refusal = round.held[0].refusal;
    assert_eq!((refusal.code, refusal.count, refusal.lost), (133, 1, Nanoton(0)));
}

/// Whatever the reason, and whoever it is who would refuse it: nobody pays to be told.
#[tokio::test]
async fn what_would_be_refused_costs_nothing() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    world.earn(&store, 41, 99, amount, amount);
    // Another wallet than the owner's, whom the Provider refuses.
    let other = Arc::new(cocoon_settlement::account::Account::new(world.chain.clone(), [6; 32]).unwrap());
    world.account.send(other.address(), Nanoton(1_000_000_000), None, None).await.unwrap().success().unwrap();
    for (account, code) in [(world.account.clone(), 133), (other, 100)] {
        let (chain, before) = (world.chain.as_ref(), account.balance().await.unwrap());
        let last = chain.transactions(&world.provider, 1).await.unwrap();
        let again = ClaimRule { again: true, ..AT_ONCE };
        let round = Claimer::new(account.clone(), world.provider).round(&store, &again).await.unwrap();
        assert_eq!((round.fees, round.held[0].refusal.code), (Nanoton(0), code));
        assert_eq!(chain.transactions(&world.provider, 1).await.unwrap(), last, "nothing was sent");
        assert_eq!(account.balance().await.unwrap(), before);
    }
}

/// Where it cannot be known before, a refusal is a bounded loss: one claim's fees, which whatever was in it must make up for before it is claimed again.
#[tokio::test]
async fn a_refused_batch_that_could_not_be_foreseen_costs_its_fees_once() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    world.earn(&store, 41, 41, Nanoton(16_000_000), Nanoton(16_000_000));
    world.earn(&store, 42, 99, Nanoton(16_000_000), Nanoton(16_000_000));
    let before = world.account.balance().await.unwrap();
    let claimer = Claimer::new(world.blind(), world.provider);
    let round = claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((round.items, round.paid), (0, Nanoton(0)));
    let lost = before.checked_sub(world.account.balance().await.unwrap()).unwrap();
    assert!(lost == round.fees && lost < Nanoton(15_000_000), "{lost}");
    let again = claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((again.items, again.fees), (0, Nanoton(0)), "the same batch is not sent again");
    // Neither was refused itself: the good one waits for nothing but to be worth its share of it too.
    for enclave in [41, 42] {
        assert_eq!(store.refusal(&world.channel, &key(enclave).enclave_key()).unwrap().unwrap().count, 0);
    }
    let more = Nanoton(22_000_000);
    store.keep_voucher(&world.promise(41, more)).unwrap();
    world.receive(&store, 41, 41, 2, more, AT);
    let paid = claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((paid.items, paid.paid), (1, more));
    assert_eq!(store.refusal(&world.channel, &key(41).enclave_key()).unwrap(), None);
}

/// Five enclaves of which each alone is hardly worth a claim, and one of them is broken.
#[tokio::test]
async fn the_good_ones_of_a_refused_batch_are_paid_and_only_the_bad_one_is_held_off() {
    for bad in 0..5_u8 {
        let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        for enclave in [43, 44, 45] {
            world.attest(key(enclave).enclave_key()).await;
        }
        for n in 0..5 {
            // The dearest are claimed first.
            let value = Nanoton(30_000_000 - u64::from(n));
            world.earn(&store, 41 + n, if n == bad { 99 } else { 41 + n }, value, value);
        }
        let claimer = Claimer::new(world.blind(), world.provider);
        let round = claimer.round(&store, &AT_ONCE).await.unwrap();
        for n in 0..5 {
            let enclave = key(41 + n).enclave_key();
            let refusal = store.refusal(&world.channel, &enclave).unwrap();
            let paid = ops::channel_paid(world.chain.as_ref(), &world.channel, &enclave).await.unwrap().paid;
            assert_eq!(
                (paid > Nanoton(0), refusal.is_some()),
                (n != bad, n == bad),
                "bad {bad}, item {n}: {refusal:?}"
            );
            assert!(refusal.is_none_or(|refusal| refusal.count == 1), "it was refused itself");
        }
        assert_eq!((round.items, round.held.len()), (4, 1));
        assert!(round.paid > round.fees, "{round:?}");
    }
}

/// What is held off is counted and named, also what will never be worth it; who asks for it has it claimed again.
#[tokio::test]
async fn what_is_held_off_is_reported_and_claimed_again_when_asked_for() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let (amount, small) = (Nanoton(300_000_000), Nanoton(20_000_000));
    world.earn(&store, 41, 99, amount, amount);
    world.earn(&store, 42, 42, small, small);
    let receipt = store.earned().unwrap().into_iter().find(|it| it.receipt.receipt.total == small).unwrap().receipt;
    store.refuse_among(&receipt, AT, 137, Nanoton(5_000_000)).unwrap();

    let first = blind_round_at(&world, &store, 0, &AT_ONCE).await;
    assert_eq!((first.items, first.waiting), (0, Nanoton(0)));
    assert!(first.fees > Nanoton(0), "{first:?}");
    let find = |report: &ClaimReport, value| *report.held.iter().find(|held| held.value == value).unwrap();
    let (bad, good) = (find(&first, amount), find(&first, small));
    assert_eq!((bad.channel, bad.enclave_key), (world.channel, key(41).enclave_key()));
    assert_eq!((bad.refusal.code, bad.refusal.count, bad.refusal.lost), (133, 1, first.fees));
    assert_eq!((bad.next, bad.least()), (AT.plus(24 * HOUR), Nanoton(15_000_000 + first.fees.0)));
    assert_eq!((good.refusal.code, good.refusal.count, good.next), (137, 0, AT));
    assert_eq!(good.least(), Nanoton(20_000_000), "it brings no more than that");

    // Nothing changes by looking again, and it is the same list.
    let second = blind_round_at(&world, &store, 1, &AT_ONCE).await;
    assert_eq!((second.fees, second.held.len()), (Nanoton(0), 2));
    assert_eq!((find(&second, amount), find(&second, small)), (bad, good));

    let again = ClaimRule { again: true, ..AT_ONCE };
    let third = blind_round_at(&world, &store, 2, &again).await;
    assert_eq!((third.items, third.paid, third.held.len()), (1, small, 1));
    assert_eq!((third.held[0].refusal.count, third.held[0].refusal.at), (2, AT.plus(2)));
    // It still has to bring more than it costs.
    let (folder, world) = (tempfile::tempdir().unwrap(), world_with_window(259_200).await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    world.earn(&store, 41, 41, FIRST_ITEM_FEE, FIRST_ITEM_FEE);
    let receipt = store.earned().unwrap().remove(0).receipt;
    store.refuse(&receipt, AT, 133, Nanoton(1)).unwrap();
    assert_eq!(round_at(&world, &store, 2, &again).await.fees, Nanoton(0));
}

/// A claim that no item is to blame for is not cut up.
#[tokio::test]
async fn what_is_refused_for_all_alike_is_asked_once() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    for enclave in [41, 42] {
        world.earn(&store, enclave, enclave, amount, amount);
    }
    // Another wallet than the owner's.
    let other = Arc::new(cocoon_settlement::account::Account::new(world.chain.clone(), [6; 32]).unwrap());
    world.account.send(other.address(), Nanoton(1_000_000_000), None, None).await.unwrap().success().unwrap();
    let server = Server::of(&world);
    server.blind.store(true, Ordering::SeqCst);
    let other = Arc::new(cocoon_settlement::account::Account::new(server, [6; 32]).unwrap());
    let round = Claimer::new(other, world.provider).round(&store, &AT_ONCE).await.unwrap();
    assert!(round.items == 0 && round.fees > Nanoton(0) && round.fees < Nanoton(12_000_000), "{round:?}");
    for enclave in [41, 42] {
        let refusal = store.refusal(&world.channel, &key(enclave).enclave_key()).unwrap().unwrap();
        assert_eq!((refusal.code, refusal.count), (100, 1));
    }
}

/// An enclave whose signatures are wrong goes on serving beside one whose are not, with a new receipt every half hour.
#[tokio::test]
async fn new_receipts_of_an_enclave_that_is_refused_cost_ever_less_often_and_less_than_they_earn() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let path = folder.path().join("host.redb");
    for enclave in [41, 42] {
        let voucher = world.promise_for(enclave, Nanoton(9_000_000_000), 80_000);
        Store::open(&path).unwrap().keep_voucher(&voucher).unwrap();
    }
    let mut refused_at = Vec::new();
    let mut paid = Nanoton::ZERO;
    // Twenty hours.
    for half_hour in 0..40_u64 {
        // A process of its own each time.
        let store = Store::open(&path).unwrap();
        let total = Nanoton(40_000_000 * (half_hour + 1));
        for (enclave, signer) in [(41, 41), (42, 99)] {
            world.receive(&store, enclave, signer, half_hour + 1, total, world.clock.now());
        }
        let claimer = Claimer::new(world.blind(), world.provider);
        let round = claimer.round(&store, &AT_ONCE).await.unwrap();
        assert!(round.items <= 1 && round.paid <= Nanoton(40_000_000), "{round:?}");
        paid = paid.saturating_add(round.paid);
        // One claim of the good one costs less than 0.012 TON.
        if round.fees > Nanoton(12_000_000) {
            refused_at.push(half_hour);
            let refusal = store.refusal(&world.channel, &key(42).enclave_key()).unwrap().unwrap();
            assert_eq!((refusal.code, refusal.count as usize), (133, refused_at.len()));
            assert!(refusal.lost < total, "{refusal:?}");
        }
        assert_eq!(store.refusal(&world.channel, &key(41).enclave_key()).unwrap(), None);
        world.clock.advance(1_800);
    }
    assert_eq!(refused_at, [0, 2, 6, 14, 30]);
    assert_eq!(paid, Nanoton(40 * 40_000_000), "the other was paid every time");
}

/// The Channel's close can be finished before the claim window ends: what would wait for the window must not wait so long.
#[tokio::test]
async fn what_a_client_closes_in_on_is_claimed_before_it_can_take_it_back() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(20_000_000);
    world.earn(&store, 41, 41, amount, amount);
    ops::start_close(&world.account, &world.channel).await.unwrap().success().unwrap();
    // Three days of delay, a day of notice. The window is open for 22 hours longer than the delay.
    let presses = 72 * HOUR - 1 - 24 * HOUR;
    let early = round_at(&world, &store, presses - 10, &PATIENT).await;
    assert_eq!((early.items, early.waiting), (0, amount));
    assert_eq!(round_at(&world, &store, presses, &PATIENT).await.paid, amount);
}

/// What was refused nine times would wait for a week.
#[tokio::test]
async fn what_was_refused_is_tried_more_than_once_before_a_close_can_be_finished() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    world.earn(&store, 41, 99, amount, amount);
    ops::start_close(&world.account, &world.channel).await.unwrap().success().unwrap();
    let receipt = store.earned().unwrap().remove(0).receipt;
    for _ in 0..9 {
        store.refuse(&receipt, AT, 133, Nanoton(1)).unwrap();
    }
    let (last, mut tried) = (72 * HOUR - 1, Vec::new());
    // Every ten minutes, to the last second.
    for seconds in (600..last).step_by(600).chain([last]) {
        if blind_round_at(&world, &store, seconds, &PATIENT).await.fees > Nanoton(0) {
            tried.push(seconds);
        }
    }
    let left: Vec<u64> = tried.iter().map(|at| (last - at).div_ceil(600)).collect();
    assert_eq!(left, [144, 72, 36, 18, 9, 4, 2, 1, 0], "in tens of minutes before the close can be finished");

    // One that is good after all is paid at the first of them, and by the second if something was wrong at the first.
    let (folder, world) = (tempfile::tempdir().unwrap(), world_with_window(259_200).await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    world.earn(&store, 41, 41, amount, amount);
    ops::start_close(&world.account, &world.channel).await.unwrap().success().unwrap();
    let receipt = store.earned().unwrap().remove(0).receipt;
    let first = last - 24 * HOUR;
    store.refuse(&receipt, AT.plus(first), 133, Nanoton(1)).unwrap();
    assert_eq!(round_at(&world, &store, first + 12 * HOUR - 10, &PATIENT).await.items, 0);
    assert_eq!(round_at(&world, &store, first + 12 * HOUR, &PATIENT).await.paid, amount);
}

/// The delay is over and nobody has taken the refund yet.
#[tokio::test]
async fn a_close_that_is_not_finished_is_claimed_from_at_once() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(20_000_000);
    ops::start_close(&world.account, &world.channel).await.unwrap().success().unwrap();
    world.clock.advance(72 * HOUR);
    world.renew(41, 1).await;
    store.keep_voucher(&world.promise_for(41, amount, 100 * HOUR)).unwrap();
    world.receive(&store, 41, 41, 1, amount, world.clock.now());
    assert_eq!(round_at(&world, &store, 72 * HOUR + 1, &PATIENT).await.paid, amount);
}

/// A Provider may have no window at all: what is earned must be claimed while its key is attested.
#[tokio::test]
async fn without_a_claim_window_the_last_hour_of_the_attestation_presses() {
    for (seconds, paid) in [(80_000 - HOUR - 1, 0), (80_000 - HOUR, 20_000_000), (80_000, 20_000_000), (80_001, 0)] {
        let (folder, world) = (tempfile::tempdir().unwrap(), world_with_window(0).await);
        let store = Store::open(&folder.path().join("host.redb")).unwrap();
        let amount = Nanoton(20_000_000);
        store.keep_voucher(&world.promise_for(41, amount, 100_000)).unwrap();
        world.receive(&store, 41, 41, 1, amount, AT);
        let round = round_at(&world, &store, seconds, &PATIENT).await;
        assert_eq!(round.paid, Nanoton(paid), "{seconds}");
        assert!(paid > 0 || round.fees == Nanoton(0), "{seconds}");
    }
}

/// Each receipt for itself is good for all that the Channel holds, and together they are not.
#[tokio::test]
async fn what_the_channel_cannot_pay_besides_is_not_claimed() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let much = Nanoton(20_000_000_000);
    for enclave in [41, 42] {
        world.earn(&store, enclave, enclave, much, much);
    }
    let round = round_at(&world, &store, 0, &AT_ONCE).await;
    assert_eq!((round.items, round.held.len()), (1, 0));
    assert!(round.paid > Nanoton(9_900_000_000), "{round:?}");
    assert_eq!(round_at(&world, &store, 1, &AT_ONCE).await.fees, Nanoton(0), "nothing is left to be paid from");
}

/// What others know of these claims costs nothing to find out.
#[tokio::test]
async fn nothing_is_sent_for_a_void_key_another_provider_or_what_was_paid_meanwhile() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    world.earn(&store, 41, 41, amount, amount);
    ops::revoke(&world.account, &world.provider, &key(41).enclave_key(), true).await.unwrap().success().unwrap();
    world.earn(&store, 42, 42, amount, amount);
    // By a process with a record of its own.
    let elsewhere = Store::open(&folder.path().join("other.redb")).unwrap();
    world.earn(&elsewhere, 42, 42, amount, amount);
    assert_eq!(round_at(&world, &elsewhere, 0, &AT_ONCE).await.paid, amount);
    let receipt = elsewhere.earned().unwrap().remove(0).receipt;
    store.refuse(&receipt, AT, 133, Nanoton(7)).unwrap();
    let round = round_at(&world, &store, 1, &AT_ONCE).await;
    assert_eq!((round.fees, round.waiting, round.held.len()), (Nanoton(0), Nanoton(0), 0));
    assert_eq!(store.refusal(&world.channel, &key(42).enclave_key()).unwrap(), None, "it was paid after all");

    let other = Claimer::new(world.account.clone(), world.registry);
    // Nothing of the record is that one's, whatever it is: its own terms are all that it asks for.
    assert!(other.round(&elsewhere, &AT_ONCE).await.is_err());
    let second = cocoon_settlement::contracts::ProviderInit {
        salt: [1; 32],
        ..ops::provider_terms(world.chain.as_ref(), &world.provider).await.unwrap()
    };
    let second = ops::deploy_provider(&world.account, &second).await.unwrap().0;
    world.receive(&elsewhere, 42, 42, 2, Nanoton(600_000_000), AT);
    elsewhere.keep_voucher(&world.promise(42, Nanoton(600_000_000))).unwrap();
    // It has attested the same key.
    let (first, mut world) = (world.provider, world);
    world.provider = second;
    world.attest(key(42).enclave_key()).await;
    let round = Claimer::new(world.account.clone(), second).round(&elsewhere, &AT_ONCE).await.unwrap();
    assert_eq!((round.fees, round.waiting), (Nanoton(0), Nanoton(0)));
    world.provider = first;
    assert_eq!(round_at(&world, &elsewhere, 2, &AT_ONCE).await.paid, Nanoton(300_000_000));
}

#[tokio::test]
async fn what_is_worth_little_is_claimed_once_it_has_waited_for_so_long() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let rule = ClaimRule { max_age: Duration::from_secs(6 * HOUR), ..PATIENT };
    let amount = Nanoton(20_000_000);
    world.earn(&store, 41, 41, amount, amount);
    for (seconds, paid) in [(60, 0), (6 * HOUR + 50, 0), (6 * HOUR + 60, 20_000_000)] {
        assert_eq!(round_at(&world, &store, seconds, &rule).await.paid, Nanoton(paid), "{seconds}");
    }
}

/// Six new vouchers are twelve signatures, of which one message takes ten.
#[tokio::test]
async fn more_signatures_than_one_message_takes_go_in_two() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    for enclave in 41..47 {
        if enclave > 42 {
            world.attest(key(enclave).enclave_key()).await;
        }
        world.earn(&store, enclave, enclave, amount, amount);
    }
    let round = round_at(&world, &store, 0, &AT_ONCE).await;
    assert_eq!((round.items, round.paid, round.held.len()), (6, Nanoton(6 * amount.0), 0));
}

/// A command beside a host that runs, or a host that is asked while it looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn rounds_that_run_at_once_claim_once() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Arc::new(Store::open(&folder.path().join("host.redb")).unwrap());
    let amount = Nanoton(300_000_000);
    world.earn(&store, 41, 41, amount, amount);
    let claimer = Arc::new(Claimer::new(world.account.clone(), world.provider));
    let mut rounds = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (claimer, store) = (claimer.clone(), store.clone());
        rounds.spawn(async move { claimer.round(&store, &AT_ONCE).await.unwrap() });
    }
    let rounds = rounds.join_all().await;
    assert_eq!(rounds.iter().filter(|round| round.fees > Nanoton(0)).count(), 1, "{rounds:?}");
    assert_eq!(rounds.iter().map(|round| round.paid).sum::<Nanoton>(), amount);
    assert_eq!(store.refusal(&world.channel, &key(41).enclave_key()).unwrap(), None);
}

/// The wallet that pays for claims is empty: nothing is held against receipts that nobody looked at.
#[tokio::test]
async fn a_wallet_that_cannot_pay_for_a_claim_costs_no_receipt_its_turn() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    world.earn(&store, 41, 41, amount, amount);
    // What a claim carries is there, and nothing for its own fees.
    let rich = cocoon_settlement::Address::basechain([7; 32]);
    let balance = async || world.account.balance().await.unwrap().0;
    let before = balance().await;
    world.account.send(rich, Nanoton(1), None, None).await.unwrap().success().unwrap();
    let after = balance().await;
    let rest = Nanoton(after - 51_000_000 - (before - after));
    world.account.send(rich, rest, None, None).await.unwrap().success().unwrap();
    assert!((50_000_000..52_000_000).contains(&balance().await), "{}", balance().await);
    let claimer = Claimer::new(world.account.clone(), world.provider);
    let error = claimer.round(&store, &AT_ONCE).await.unwrap_err().to_string();
    assert!(error.contains("exit code 37"), "{error}");
    assert_eq!(store.refusal(&world.channel, &key(41).enclave_key()).unwrap(), None);
}

/// Its owner retires the key of an enclave that goes on serving: what it earned before is paid all the same.
#[tokio::test]
async fn a_receipt_after_the_end_of_a_key_does_not_cost_the_ones_before() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let (chain, enclave) = (world.chain.as_ref(), key(41).enclave_key());
    let standing = Standing::default();
    let now = || world.clock.now();
    let unpaid = async || standing.unpaid(chain, &world.provider, &store, &enclave, now()).await.unwrap();
    assert_eq!(unpaid().await, None);
    let amount = Nanoton(300_000_000);
    world.earn(&store, 41, 41, Nanoton(900_000_000), amount);
    world.clock.advance(60);
    ops::revoke(&world.account, &world.provider, &enclave, false).await.unwrap().success().unwrap();
    world.receive(&store, 41, 41, 2, Nanoton(310_000_000), now().plus(1));
    world.receive(&store, 41, 41, 3, Nanoton(320_000_000), now().plus(2));
    world.clock.advance(60);
    let claimer = Claimer::new(world.account.clone(), world.provider);
    let first = claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((first.items, first.paid), (1, amount));
    let second = claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((second.items, second.fees), (0, Nanoton(0)), "nothing is claimed that is known to be refused");
}

#[tokio::test]
async fn a_key_that_is_not_paid_any_more_is_not_served() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let unpaid = async |seed: u8| {
        let (key, now) = (key(seed).enclave_key(), world.clock.now());
        // Each time from the chain.
        Standing::default().unpaid(world.chain.as_ref(), &world.provider, &store, &key, now).await.unwrap()
    };
    assert_eq!(unpaid(41).await, None);
    assert!(unpaid(43).await.unwrap().contains("not registered"));
    let revoke = async |seed: u8, void| {
        let key = key(seed).enclave_key();
        ops::revoke(&world.account, &world.provider, &key, void).await.unwrap().success().unwrap();
    };
    revoke(41, false).await;
    assert!(unpaid(41).await.unwrap().contains("retired"));
    revoke(41, true).await;
    assert!(unpaid(41).await.unwrap().contains("void"));
    world.clock.advance(80_001);
    assert!(unpaid(42).await.unwrap().contains("over"));
    // What was seen a moment ago holds no longer than the attestation.
    let standing = Standing::default();
    let at = async |time| {
        let key = key(42).enclave_key();
        standing.unpaid(world.chain.as_ref(), &world.provider, &store, &key, time).await.unwrap()
    };
    assert_eq!(at(AT.plus(80_000)).await, None);
    assert!(at(AT.plus(80_001)).await.is_some());
}

#[tokio::test]
async fn a_claim_brings_what_was_promised_and_earned_and_a_second_one_nothing() {
    for (cap, total) in [(300_000_000, 200_000_000), (200_000_000, 300_000_000)] {
        let folder = tempfile::tempdir().unwrap();
        let paid = claim_twice(folder.path(), Nanoton(cap), Nanoton(total)).await;
        assert_eq!(paid, [Nanoton(200_000_000), Nanoton(0)], "cap {cap}, total {total}");
    }
    // Less than a claim's fees: it waits.
    let folder = tempfile::tempdir().unwrap();
    let paid = claim_twice(folder.path(), Nanoton(300_000_000), Nanoton(14_000_000)).await;
    assert_eq!(paid, [Nanoton(0), Nanoton(0)]);
}

/// Sixteen enclaves are paid, and then the channel holds this for claims.
async fn sixteen_paid(world: &World, store: &Store, left: Nanoton) {
    let amount = Nanoton(30_000_000);
    for enclave in 41..57 {
        if enclave > 42 {
            world.attest(key(enclave).enclave_key()).await;
        }
        world.earn(store, enclave, enclave, amount, amount);
    }
    assert_eq!(round_at(world, store, 0, &AT_ONCE).await.items, 16);
    let available = ops::channel_state(world.chain.as_ref(), &world.channel).await.unwrap().available;
    let total = Nanoton(amount.0 + available.0 - left.0);
    store.keep_voucher(&world.promise(41, total)).unwrap();
    world.receive(store, 41, 41, 2, total, AT);
    assert_eq!(round_at(world, store, 0, &AT_ONCE).await.items, 1);
    let state = ops::channel_state(world.chain.as_ref(), &world.channel).await.unwrap();
    assert_eq!((state.keys, state.available), (16, left));
    world.attest(key(57).enclave_key()).await;
}

/// The seventeenth enclave has the channel hold back rent of sixteen more first.
#[tokio::test]
async fn a_further_enclave_is_not_claimed_for_what_its_rent_takes_first() {
    let left = Nanoton(20_000_000);
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    sixteen_paid(&world, &store, left).await;
    world.earn(&store, 57, 57, left, left);
    // Whether or not it can be foreseen.
    for account in [world.blind(), world.account.clone()] {
        let round = Claimer::new(account, world.provider).round(&store, &AT_ONCE).await.unwrap();
        assert_eq!((round.items, round.fees, round.held.len()), (0, Nanoton(0), 0));
        assert!(round.waiting < Nanoton(7_000_000), "what the channel could pay: {round:?}");
    }
    // What is left belongs to those that it knows.
    let more = ops::channel_paid(world.chain.as_ref(), &world.channel, &key(42).enclave_key()).await.unwrap().paid;
    let more = Nanoton(more.0 + left.0);
    store.keep_voucher(&world.promise(42, more)).unwrap();
    world.receive(&store, 42, 42, 2, more, AT);
    let round = Claimer::new(world.blind(), world.provider).round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((round.items, round.paid), (1, left));
    // Where it holds nothing at all for claims nothing is sent, and after a top-up everything is paid.
    let none = Claimer::new(world.blind(), world.provider).round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((none.fees, none.waiting, none.held.len()), (Nanoton(0), Nanoton(0), 0));
    ops::top_up(&world.account, &world.channel, Nanoton(40_000_000)).await.unwrap().success().unwrap();
    let round = Claimer::new(world.blind(), world.provider).round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((round.items, round.paid), (1, left));
}

/// Rent of months has come out of what a channel holds, which its get-method does not say yet.
#[tokio::test]
async fn what_rent_has_taken_since_is_foreseen() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world_with_window(7_776_000).await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let left = Nanoton(18_000_000);
    sixteen_paid(&world, &store, left).await;
    let more = ops::channel_paid(world.chain.as_ref(), &world.channel, &key(42).enclave_key()).await.unwrap().paid;
    let more = Nanoton(more.0 + left.0);
    store.keep_voucher(&world.promise(42, more)).unwrap();
    world.receive(&store, 42, 42, 2, more, AT);
    world.clock.advance(80 * 24 * HOUR);
    let round = Claimer::new(world.account.clone(), world.provider).round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((round.items, round.fees, round.waiting), (0, Nanoton(0), left), "{round:?}");
    ops::top_up(&world.account, &world.channel, Nanoton(30_000_000)).await.unwrap().success().unwrap();
    let round = Claimer::new(world.account.clone(), world.provider).round(&store, &AT_ONCE).await.unwrap();
    assert_eq!(round.paid, left);
}

/// On a network whose prices are others, claims cost more and must carry more.
#[tokio::test]
async fn what_claims_must_bring_and_carry_follows_the_networks_prices() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let asked = provider::claim_value(world.chain.as_ref(), &world.provider, 1).await.unwrap();
    assert_eq!(asked, CLAIM_VALUE, "the fees that are reckoned with are those of these prices");
    let server = Server::of(&world);
    server.dear.store(5, Ordering::SeqCst);
    let claimer = Claimer::new(world.over(&server), world.provider);
    let little = Nanoton(150_000_000);
    world.earn(&store, 41, 41, little, little);
    let round = claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((round.fees, round.waiting), (Nanoton(0), little));
    let enough = Nanoton(300_000_000);
    store.keep_voucher(&world.promise(41, enough)).unwrap();
    world.receive(&store, 41, 41, 2, enough, AT);
    assert_eq!(claimer.round(&store, &AT_ONCE).await.unwrap().paid, enough);
    let wallet = world.chain.transactions(&world.account.address(), 2).await.unwrap();
    assert_eq!(wallet[1].sent[0].value, Nanoton(5 * CLAIM_VALUE.0));
}

/// Begins a round and kills it as soon as its claim has left; gives the record as the next process finds it.
async fn killed(world: &World, server: &Arc<Server>, path: &Path) -> Store {
    server.holds.store(true, Ordering::SeqCst);
    let store = Arc::new(Store::open(path).unwrap());
    let claimer = Claimer::new(world.over(server), world.provider);
    let dying = tokio::spawn({
        let store = store.clone();
        async move { claimer.round(&store, &AT_ONCE).await }
    });
    while server.held.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());
    drop(Arc::try_unwrap(store).ok().unwrap());
    Store::open(path).unwrap()
}

/// The wallet has sent the claim on, and the Channel has not got it yet.
#[tokio::test]
async fn a_process_that_is_killed_while_its_claim_is_under_way_does_not_claim_again() {
    for wallet_ran in [true, false] {
        let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
        let (path, amount) = (folder.path().join("host.redb"), Nanoton(300_000_000));
        world.earn(&Store::open(&path).unwrap(), 41, 41, amount, amount);
        let server = Server::of(&world);
        server.wallet_ran.store(wallet_ran, Ordering::SeqCst);
        let store = killed(&world, &server, &path).await;
        // A later process, twice: nothing leaves.
        for seconds in [1, 2] {
            world.clock.advance(1);
            let claimer = Claimer::new(world.over(&server), world.provider);
            // What it sends it waits for.
            let round = tokio::time::timeout(Duration::from_secs(30), claimer.round(&store, &AT_ONCE)).await;
            let round = round.expect("it was sent again").unwrap();
            assert_eq!((round.items, round.fees, round.waiting), (0, Nanoton(0), amount), "{seconds}");
            assert_eq!(server.held.lock().unwrap().len(), 1, "it was sent again");
        }
        // Paid by the claim that was under way, of which the next round tells.
        server.let_through().await;
        let round = Claimer::new(world.over(&server), world.provider).round(&store, &AT_ONCE).await.unwrap();
        assert_eq!((round.items, round.paid, round.waiting), (1, amount, Nanoton(0)));
        assert!(round.fees > Nanoton(0) && round.fees < FIRST_ITEM_FEE);
        assert!(store.under_way().unwrap().is_empty());
        assert_eq!(store.refusal(&world.channel, &key(41).enclave_key()).unwrap(), None);
        assert_eq!(round_at(&world, &store, 9, &AT_ONCE).await, ClaimReport::default());
    }
}

/// It never arrived: once it cannot arrive any more it is claimed anew, and no sooner.
#[tokio::test]
async fn a_claim_that_never_arrived_is_made_again_when_it_cannot_arrive_any_more() {
    // Valid for a minute, and a minute more for the chain to tell; a quarter of an hour where it has told of a beginning, and never of an end.
    for (wallet_ran, last) in [(false, 120), (true, 960)] {
        let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
        let (path, amount) = (folder.path().join("host.redb"), Nanoton(300_000_000));
        world.earn(&Store::open(&path).unwrap(), 41, 41, amount, amount);
        let server = Server::of(&world);
        server.wallet_ran.store(wallet_ran, Ordering::SeqCst);
        let store = killed(&world, &server, &path).await;
        server.holds.store(false, Ordering::SeqCst);
        for (seconds, paid) in [(60, 0), (last - 5, 0), (last + 6, amount.0), (last + 7, 0)] {
            world.clock.advance(AT.plus(seconds).0 - world.clock.now().0);
            let round = Claimer::new(world.over(&server), world.provider).round(&store, &AT_ONCE).await.unwrap();
            assert_eq!((round.paid, round.items), (Nanoton(paid), usize::from(paid > 0)), "{wallet_ran} {seconds}");
        }
    }
}

/// It was refused while nobody looked: noted by the next process, once.
#[tokio::test]
async fn what_was_refused_while_the_process_was_dead_is_known_to_the_next_one() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let (path, amount) = (folder.path().join("host.redb"), Nanoton(300_000_000));
    world.earn(&Store::open(&path).unwrap(), 41, 99, amount, amount);
    let server = Server::of(&world);
    server.blind.store(true, Ordering::SeqCst);
    let store = killed(&world, &server, &path).await;
    let under_way = store.under_way().unwrap();
    server.let_through().await;
    let claimer = || Claimer::new(world.over(&server), world.provider);
    let round = claimer().round(&store, &AT_ONCE).await.unwrap();
    let refusal = store.refusal(&world.channel, &key(41).enclave_key()).unwrap().unwrap();
    assert_eq!((round.items, refusal.code, refusal.count, refusal.lost), (0, 133, 1, round.fees));
    assert!(round.fees > Nanoton(0));
    // One that died after it had noted this, and before it had noted that it had.
    store.begin(&under_way[0]).unwrap();
    claimer().round(&store, &AT_ONCE).await.unwrap();
    assert_eq!(store.refusal(&world.channel, &key(41).enclave_key()).unwrap(), Some(refusal));
}

/// A host serves many channels in its life: those that have ended leave what it works with, and are not asked about again.
#[tokio::test]
async fn what_can_never_be_paid_any_more_leaves_the_record_for_the_archive() {
    let (folder, mut world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    let first = world.channel;
    world.earn(&store, 41, 41, amount, amount);
    let second = cocoon_settlement::contracts::ChannelInit {
        salt: [1; 32],
        ..ops::channel_terms(world.chain.as_ref(), &first).await.unwrap()
    };
    ops::open_channel(&world.account, &second, Nanoton(1_000_000_000)).await.unwrap().success().unwrap();
    world.channel = second.address();
    world.earn(&store, 41, 41, amount, amount);
    let unearned = world.promise(42, amount);
    store.keep_voucher(&unearned).unwrap();
    assert_eq!(round_at(&world, &store, 0, &AT_ONCE).await.paid, Nanoton(2 * amount.0));
    // Something is left unpaid in the first, which its provider then gives up.
    store
        .keep_voucher(
            &SignedVoucher::sign(
                Voucher { channel: first, ..world.promise(41, Nanoton(400_000_000)).voucher },
                &[31; 32],
            )
            .unwrap(),
        )
        .unwrap();
    let enclave_key = key(41).enclave_key();
    let newest = SettlementReceipt {
        sequence: 2,
        total: Nanoton(310_000_000),
        ..store.receipt(&first, &enclave_key).unwrap().unwrap().receipt
    };
    let newest = SignedSettlementReceipt::sign(newest, &key(41)).unwrap();
    store.keep_receipt(&newest).unwrap();
    ops::release_channel(&world.account, &world.provider, &first).await.unwrap().success().unwrap();

    let server = Server::of(&world);
    let claimer = Claimer::new(world.over(&server), world.provider);
    let round = async || claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!(round().await, ClaimReport::default());
    assert!(!server.asked_about(&first).is_empty());
    let past = store.past(&first, &enclave_key).unwrap().unwrap();
    assert_eq!((past.ended, past.paid, &past.receipt), (Ended::ChannelClosed, amount, &newest));
    assert_eq!(past.voucher.unwrap().voucher.cap, Nanoton(400_000_000));
    assert!(store.receipt(&first, &enclave_key).unwrap().is_none() && store.vouchers(&first).unwrap().is_empty());
    assert!(store.paid(&first).unwrap().is_empty());
    // What is paid in full is not asked about, and what is archived not at all.
    round().await;
    assert_eq!(server.asked_about(&world.channel), [""; 0]);
    round().await;
    assert_eq!(server.asked_about(&first), [""; 0]);
    // What an enclave signed before is remembered there too.
    let falls = SettlementReceipt { sequence: 3, total: Nanoton(1), ..newest.receipt.clone() };
    let falls = SignedSettlementReceipt::sign(falls, &key(41)).unwrap();
    assert!(matches!(store.keep_receipt(&falls), Err(Error::Equivocation { .. })));

    // The key's end: a claim window after its attestation, and eight days more, in which it might be renewed.
    world.clock.advance(80_000 + 72 * HOUR + 8 * 24 * HOUR - 100);
    round().await;
    assert!(store.past(&world.channel, &enclave_key).unwrap().is_none());
    assert!(!store.vouchers(&world.channel).unwrap().is_empty());
    world.clock.advance(200);
    round().await;
    assert_eq!(store.past(&world.channel, &enclave_key).unwrap().unwrap().ended, Ended::KeyOver);
    // What was promised and never earned is forgotten with it.
    assert!(store.vouchers(&world.channel).unwrap().is_empty() && store.earned().unwrap().is_empty());
    assert_eq!(store.archived().unwrap().len(), 2);
}

/// A void key is never paid again, however much it has earned.
#[tokio::test]
async fn what_a_void_key_has_earned_is_archived_and_a_deleted_channel_is_not_asked_for_ever() {
    let (folder, world) = (tempfile::tempdir().unwrap(), world().await);
    let store = Store::open(&folder.path().join("host.redb")).unwrap();
    let amount = Nanoton(300_000_000);
    for enclave in [41, 42] {
        world.earn(&store, enclave, enclave, amount, amount);
    }
    ops::revoke(&world.account, &world.provider, &key(41).enclave_key(), true).await.unwrap().success().unwrap();
    assert_eq!(round_at(&world, &store, 0, &AT_ONCE).await.paid, amount);
    let past = store.past(&world.channel, &key(41).enclave_key()).unwrap().unwrap();
    assert_eq!((past.ended, past.paid), (Ended::KeyOver, Nanoton(0)));
    // A server that knows nothing of a channel that was served a moment ago is behind.
    let elsewhere = cocoon_settlement::Address::basechain([0x66; 32]);
    let enclave_key = key(42).enclave_key();
    let receipt = SettlementReceipt {
        channel: elsewhere,
        ..store.receipt(&world.channel, &enclave_key).unwrap().unwrap().receipt
    };
    let voucher = Voucher { channel: elsewhere, ..world.promise(42, amount).voucher };
    store.keep_voucher(&SignedVoucher::sign(voucher, &[31; 32]).unwrap()).unwrap();
    store.keep_receipt(&SignedSettlementReceipt::sign(receipt, &key(42)).unwrap()).unwrap();
    let old = 72 * HOUR + 8 * 24 * HOUR;
    for (seconds, archived) in [(1, false), (old, false), (old + 10, true)] {
        round_at(&world, &store, seconds, &AT_ONCE).await;
        let past = store.past(&elsewhere, &enclave_key).unwrap();
        assert_eq!(past.map(|past| past.ended), archived.then_some(Ended::ChannelDeleted), "{seconds}");
    }
}
