//! However requests race, and whatever is claimed meanwhile, no more is promised than the Channel can pay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use cocoon_host::Claimer;
use cocoon_host::claim::AT_ONCE;
use cocoon_host::reserve::{Reservation, Reservations};
use cocoon_host::store::Store;
use cocoon_settlement::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId, ops};

use crate::world::{AT, World, key, world};

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
    for at in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let (world, store, free) = owing(folder.path()).await;
        let chain = ClaimedMeanwhile { world: &world, store: &store, at, asked: AtomicUsize::new(0) };
        let voucher = world.promise(42, Nanoton(free.0 + TON));
        let serving = Some(key(42).enclave_key());
        let outcome = Reservations::default().reserve(&chain, &store, serving, &voucher, AT).await.unwrap();
        assert!(matches!(outcome, Reservation::Beyond { .. }), "claimed after question {at}: {outcome:?}");
        assert_eq!(chain.asked.into_inner(), 3, "two enclaves' payments and the Channel's money");
    }
}
