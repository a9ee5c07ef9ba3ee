//! However requests race, and whatever is claimed meanwhile, no more is promised than the Channel can pay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use cocoon_host::Claimer;
use cocoon_host::claim::AT_ONCE;
use cocoon_host::reserve::{Reservation, Reservations};
use cocoon_host::store::Store;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_settlement::cells::Voucher;
use cocoon_settlement::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId, ops};

use crate::world::{AT, Server, World, key, world};

const TON: u64 = 1_000_000_000;
/// What the enclave before, 41, has earned and not been paid.
const OWED: Nanoton = Nanoton(3 * TON);

/// A Channel of ten Toncoin of which three are owed, a record, and what is left to promise to enclave 42.
async fn owing(folder: &std::path::Path) -> (World, Store, Nanoton) {
    let world = world().await;
    let store = Store::open(&folder.join("host.redb")).unwrap();
    world.earn(&store, 41, 41, OWED, OWED);
    let free = left(&world).await.checked_sub(OWED).unwrap();
    (world, store, free)
}

async fn left(world: &World) -> Nanoton {
    ops::channel_state(world.chain.as_ref(), &world.channel).await.unwrap().available
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_thousand_requests_that_race_promise_no_more_than_the_channel_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (world, store, free) = owing(folder.path()).await;
    let (world, store, reservations) = (Arc::new(world), Arc::new(store), Arc::new(Reservations::default()));
    // Caps from 0.012 to 12 Toncoin, out of order: 7 and 1,000 have no common divisor.
    let caps: Vec<Nanoton> = (0..1_000).map(|n| Nanoton(12_000_000 * (1 + n * 7 % 1_000))).collect();
    let ask = async |world: &World, store: &Store, reservations: &Reservations, cap| {
        let (chain, serving) = (world.chain.as_ref(), Some(key(42).enclave_key()));
        reservations.reserve(chain, store, serving, &world.promise(42, cap), AT).await.unwrap()
    };
    let mut racing = tokio::task::JoinSet::new();
    for cap in caps.clone() {
        let (world, store, reservations) = (world.clone(), store.clone(), reservations.clone());
        racing.spawn(async move {
            let (chain, serving) = (world.chain.as_ref(), Some(key(42).enclave_key()));
            let voucher = world.promise(42, cap);
            (cap, reservations.reserve(chain, &store, serving, &voucher, AT).await.unwrap())
        });
    }
    let claiming = {
        let (world, store) = (world.clone(), store.clone());
        tokio::spawn(async move {
            Claimer::new(world.account.clone(), world.provider).round(&store, &AT_ONCE).await.unwrap().paid
        })
    };
    let outcomes = racing.join_all().await;
    assert_eq!(claiming.await.unwrap(), OWED);
    assert_eq!(outcomes.len(), 1_000);
    for (cap, outcome) in &outcomes {
        assert!(*outcome != Reservation::Kept || *cap <= free, "{cap} of {free} was promised");
        assert!(matches!(outcome, Reservation::Kept | Reservation::Beyond { .. }));
    }
    // What is on disk is what was kept, and the Channel can pay it.
    let kept = store.vouchers_of(&world.channel, &key(42).enclave_key()).unwrap();
    let most = kept.iter().map(|kept| kept.voucher.cap).max().unwrap();
    let told = outcomes.iter().filter(|(_, outcome)| *outcome == Reservation::Kept).map(|(cap, _)| *cap).max();
    assert_eq!((Some(most), left(&world).await), (told, free));
    // Once nothing moves any more, exactly what fits is taken.
    for cap in caps {
        let outcome = ask(&world, &store, &reservations, cap).await;
        assert_eq!(outcome == Reservation::Kept, cap <= free, "{cap} of {free}: {outcome:?}");
    }
}

/// A chain on which what is owed is claimed right after its reader's `at`-th question.
struct ClaimedMeanwhile<'a> {
    world: &'a World,
    store: &'a Store,
    at: usize,
    asked: AtomicUsize,
}

#[async_trait]
impl Chain for ClaimedMeanwhile<'_> {
    fn network(&self) -> NetworkId {
        self.world.chain.network()
    }
    async fn head(&self) -> Result<BlockRef, Error> {
        self.world.chain.head().await
    }
    async fn block(&self, seqno: u32) -> Result<Option<BlockRef>, Error> {
        self.world.chain.block(seqno).await
    }
    async fn account(&self, address: &Address) -> Result<AccountState, Error> {
        self.world.chain.account(address).await
    }
    async fn send(&self, external: tycho_types::cell::Cell) -> Result<[u8; 32], Error> {
        self.world.chain.send(external).await
    }
    async fn run_get(&self, address: &Address, method: &str, args: Vec<StackValue>) -> Result<GetResult, Error> {
        let answer = self.world.chain.run_get(address, method, args).await;
        if self.asked.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            let claimer = Claimer::new(self.world.account.clone(), self.world.provider);
            assert_eq!(claimer.round(self.store, &AT_ONCE).await.unwrap().paid, OWED);
        }
        answer
    }
    async fn transactions_before(
        &self,
        address: &Address,
        before: Option<(u64, [u8; 32])>,
        limit: usize,
    ) -> Result<Vec<TxSummary>, Error> {
        self.world.chain.transactions_before(address, before, limit).await
    }
    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        self.world.chain.trace(message_hash).await
    }
}

#[tokio::test]
async fn money_that_a_claim_takes_between_two_questions_is_not_promised_again() {
    for at in 1..=4 {
        let folder = tempfile::tempdir().unwrap();
        let (world, store, free) = owing(folder.path()).await;
        let chain = ClaimedMeanwhile { world: &world, store: &store, at, asked: AtomicUsize::new(0) };
        let voucher = world.promise(42, Nanoton(free.0 + TON));
        let serving = Some(key(42).enclave_key());
        let outcome = Reservations::default().reserve(&chain, &store, serving, &voucher, AT).await.unwrap();
        assert!(matches!(outcome, Reservation::Beyond { .. }), "claimed after question {at}: {outcome:?}");
        assert_eq!(chain.asked.into_inner(), 4, "the Channel's money, two enclaves' payments, and the money again");
    }
}

#[tokio::test]
async fn an_enclave_that_the_channel_has_not_paid_yet_is_promised_what_its_rent_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (world, store) = (world().await, Store::open(&folder.path().join("host.redb")).unwrap());
    // Sixteen are paid, and the seventeenth takes rent for sixteen more.
    let amount = Nanoton(20_000_000);
    for enclave in 41..57 {
        if enclave > 42 {
            world.attest(key(enclave).enclave_key()).await;
        }
        world.earn(&store, enclave, enclave, amount, amount);
    }
    let claimer = Claimer::new(world.account.clone(), world.provider);
    assert_eq!(claimer.round(&store, &AT_ONCE).await.unwrap().items, 16);
    let available = left(&world).await;
    let most = ops::channel_state(world.chain.as_ref(), &world.channel).await.unwrap().available_with(1).unwrap();
    let step = available.checked_sub(most).unwrap();
    assert!((13_000_000..13_200_000).contains(&step.0), "{step}");
    let ask = async |enclave: u8, cap| {
        let (reservations, serving) = (Reservations::default(), Some(key(enclave).enclave_key()));
        let voucher = world.promise(enclave, cap);
        reservations.reserve(world.chain.as_ref(), &store, serving, &voucher, AT).await.unwrap()
    };
    assert!(matches!(ask(57, Nanoton(most.0 + 1)).await, Reservation::Beyond { available, .. } if available == most));
    // One that it has paid takes nothing.
    let known = Nanoton(amount.0 + available.0);
    assert!(matches!(ask(42, Nanoton(known.0 + 1)).await, Reservation::Beyond { .. }));
    assert_eq!(ask(57, most).await, Reservation::Kept);
    // It is really paid: the promise was good.
    world.attest(key(57).enclave_key()).await;
    world.receive(&store, 57, 57, 1, most, AT);
    let round = claimer.round(&store, &AT_ONCE).await.unwrap();
    assert_eq!((round.items, round.paid, left(&world).await), (1, most, Nanoton(0)));
}

#[tokio::test]
async fn what_is_known_to_be_paid_is_not_asked_for_each_promise() {
    let folder = tempfile::tempdir().unwrap();
    let (world, store, free) = owing(folder.path()).await;
    let server = Server::of(&world);
    let reservations = Reservations::default();
    let ask = async |cap| {
        let (voucher, serving) = (world.promise(42, cap), Some(key(42).enclave_key()));
        reservations.reserve(server.as_ref(), &store, serving, &voucher, AT).await.unwrap()
    };
    // It fits, whatever was paid: the money alone is looked at.
    assert_eq!(ask(Nanoton(TON)).await, Reservation::Kept);
    assert_eq!(server.asked_about(&world.channel), ["state"]);
    // It does not fit by what is remembered: each is asked once, and remembered.
    assert!(matches!(ask(Nanoton(free.0 + 1)).await, Reservation::Beyond { .. }));
    let asked = server.asked_about(&world.channel);
    assert_eq!((asked.len(), asked.iter().filter(|method| *method == "paid").count()), (4, 2));
    Claimer::new(world.account.clone(), world.provider).round(&store, &AT_ONCE).await.unwrap();
    assert_eq!(store.paid(&world.channel).unwrap()[&key(41).enclave_key()], OWED);
    server.asked_about(&world.channel);
    assert_eq!(ask(free).await, Reservation::Kept);
    assert_eq!(server.asked_about(&world.channel), ["state"]);
}

#[tokio::test]
async fn a_channel_that_the_chain_does_not_answer_about_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (world, store) = (world().await, Store::open(&folder.path().join("host.redb")).unwrap());
    let terms = ops::channel_terms(world.chain.as_ref(), &world.channel).await.unwrap();
    let second = cocoon_settlement::contracts::ChannelInit { salt: [1; 32], ..terms };
    ops::open_channel(&world.account, &second, Nanoton(TON)).await.unwrap().success().unwrap();
    let server = Server::of(&world);
    *server.silent_about.lock().unwrap() = Some(world.channel);
    let reservations = Reservations::default();
    let ask = async |channel| {
        let voucher = Voucher { channel, ..world.promise(42, Nanoton(TON / 2)).voucher };
        let voucher = SignedVoucher::sign(voucher, &[31; 32]).unwrap();
        reservations.reserve(server.as_ref(), &store, Some(key(42).enclave_key()), &voucher, AT).await.unwrap()
    };
    tokio::select! {
        _ = ask(world.channel) => panic!("the chain does not answer"),
        () = tokio::time::sleep(std::time::Duration::from_secs(30)) => panic!("the other channel waits for it"),
        other = async {
            // The first has its turn, and waits.
            while server.asked.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            ask(second.address()).await
        } => assert_eq!(other, Reservation::Kept),
    }
}
