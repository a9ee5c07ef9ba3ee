//! The local chain executes transfers as TON does: fees, replay protection, bounces, storage, conservation of value.

use std::sync::Arc;

use cocoon_attestation::types::UnixTime;
use cocoon_settlement::account::{Account, EXIT_NOT_SENT};
use cocoon_settlement::chain::{Chain, EXIT_NO_STATE};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::wallet::{OutMessage, Version, Wallet};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId};
use proptest::prelude::*;

const START: UnixTime = UnixTime(1_790_000_000);
const GIVER: [u8; 32] = [1; 32];

fn address(seed: [u8; 32]) -> Address {
    Wallet::new(seed, NetworkId::LOCAL).unwrap().address()
}

fn chain_with(balance: Nanoton) -> (Arc<LocalChain>, Arc<ManualClock>, Account) {
    let clock = Arc::new(ManualClock::new(START));
    let genesis = Genesis { accounts: vec![(address(GIVER), balance)], time: START };
    let chain = Arc::new(LocalChain::in_memory(genesis, clock.clone()).unwrap());
    let giver = Account::new(chain.clone(), GIVER).unwrap();
    (chain, clock, giver)
}

/// Transactions, gas and balances of TON's own emulator (`@ton/sandbox` 0.41.0, same parameters) for the same messages at the same times.
#[tokio::test]
async fn transfers_cost_what_they_cost_on_ton() {
    let (chain, clock, giver) = chain_with(Nanoton::from_ton(100));
    let to = Address::basechain([7; 32]);
    let one = Nanoton::from_ton(1);
    let cost = async |message| {
        let report = giver.send_all(&[message]).await.unwrap();
        (report.transactions.len(), report.gas_used, giver.balance().await.unwrap().0)
    };
    let plain = || OutMessage::new(to, one, None, None);
    assert_eq!(cost(plain()).await, (2, 4_939, 98_994_120_000), "deploys the wallet");
    assert_eq!(cost(plain()).await, (2, 4_939, 97_991_042_000), "transfer");
    assert_eq!(chain.account(&to).await.unwrap().balance, Nanoton::from_ton(2));
    clock.advance(365 * 86_400);
    assert_eq!(cost(plain()).await, (2, 4_939, 96_980_255_157), "with a year's rent");
    let bounced = OutMessage { bounce: true, ..OutMessage::new(Address::basechain([9; 32]), one, None, None) };
    assert_eq!(cost(bounced).await, (3, 5_717, 96_976_465_957), "bounced");
}

#[tokio::test]
async fn an_account_without_code_pays_rent_however_it_came_to_be() {
    let clock = Arc::new(ManualClock::new(START));
    let [first, sent] = [[5; 32], [7; 32]].map(Address::basechain);
    let accounts = vec![(address(GIVER), Nanoton::from_ton(100)), (first, Nanoton::from_ton(1))];
    let chain = Arc::new(LocalChain::in_memory(Genesis { accounts, time: START }, clock.clone()).unwrap());
    let giver = Account::new(chain.clone(), GIVER).unwrap();
    giver.send(sent, Nanoton::from_ton(1), None, None).await.unwrap();
    clock.advance(365 * 86_400);
    for to in [first, sent] {
        giver.send(to, Nanoton::from_ton(1), None, None).await.unwrap();
    }
    let [first, sent] = [chain.account(&first).await.unwrap(), chain.account(&sent).await.unwrap()];
    assert_eq!(first.balance, sent.balance);
    assert_eq!(Nanoton::from_ton(2).checked_sub(sent.balance), Some(Nanoton(290_165)));
}

#[tokio::test]
async fn history_is_kept_per_account_and_per_message() {
    let (chain, _, giver) = chain_with(Nanoton::from_ton(100));
    let to = Address::basechain([7; 32]);
    let first = giver.send(to, Nanoton::from_ton(1), None, None).await.unwrap();
    let second = giver.send(to, Nanoton::from_ton(1), None, None).await.unwrap();
    let own = [second.transactions[0].clone(), first.transactions[0].clone()];
    assert_eq!(chain.transactions(&giver.address(), 10).await.unwrap(), own);
    assert_eq!(chain.transactions(&giver.address(), 1).await.unwrap(), own[..1]);
    assert_eq!(own[0].out_msg_hashes, [second.transactions[1].in_msg_hash]);
    let trace = chain.trace(&first.message).await.unwrap().unwrap();
    assert!(trace.finished);
    assert_eq!(trace.transactions, first.transactions);
    assert_eq!(chain.trace(&[0; 32]).await.unwrap(), None);
}

#[tokio::test]
async fn a_replayed_or_expired_or_forged_request_is_refused_and_costs_nothing() {
    let (chain, clock, giver) = chain_with(Nanoton::from_ton(10));
    giver.send(Address::basechain([7; 32]), Nanoton(1), None, None).await.unwrap();
    let message = OutMessage::new(Address::basechain([8; 32]), Nanoton(1_000), None, None);
    let until = START.plus(60);
    let request = giver.wallet().request(1, until, std::slice::from_ref(&message), false).unwrap();
    chain.send(request.clone()).await.unwrap();
    let before = giver.balance().await.unwrap();

    let code = |result: Result<[u8; 32], Error>| match result {
        Err(Error::NotAccepted { exit_code, .. }) => exit_code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(chain.send(request).await), 133, "a used sequence number");
    let forger = Wallet::new([2; 32], NetworkId::TESTNET).unwrap();
    let foreign = forger.request(0, until, std::slice::from_ref(&message), true).unwrap();
    assert_eq!(code(chain.send(foreign).await), -1003, "an account without money");
    clock.advance(61);
    let expired = giver.wallet().request(2, until, &[message], false).unwrap();
    assert_eq!(code(chain.send(expired).await), 136, "its time is over");
    assert_eq!(giver.balance().await.unwrap(), before);
    assert_eq!(chain.transactions(&giver.address(), 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_v4r2_wallet_deploys_itself_sends_and_refuses_replay() {
    let (chain, _, giver) = chain_with(Nanoton::from_ton(10));
    let wallet = || Wallet::with_version([2; 32], NetworkId::LOCAL, Version::V4R2).unwrap();
    giver.send(wallet().address(), Nanoton::from_ton(5), None, None).await.unwrap();
    let account = Account::with_wallet(chain.clone(), wallet());
    let to = |i: u8| Address::basechain([i; 32]);
    for round in 1..=2 {
        let messages: Vec<_> = (1..=4).map(|i| OutMessage::new(to(i), Nanoton(1_000), None, None)).collect();
        account.send_all(&messages).await.unwrap().success().unwrap();
        for i in 1..=4 {
            assert_eq!(chain.account(&to(i)).await.unwrap().balance, Nanoton(round * 1_000));
        }
    }
    let used = wallet().request(1, START.plus(60), &[], false).unwrap();
    assert!(matches!(chain.send(used).await, Err(Error::NotAccepted { exit_code: 33, .. })));
}

#[tokio::test]
async fn value_sent_to_a_missing_contract_comes_back() {
    let (chain, _, giver) = chain_with(Nanoton::from_ton(10));
    let nobody = Address::basechain([9; 32]);
    let message = OutMessage { bounce: true, ..OutMessage::new(nobody, Nanoton::from_ton(1), None, None) };
    let report = giver.send_all(&[message]).await.unwrap();
    assert_eq!(report.aborted, Some((nobody, EXIT_NO_STATE)));
    assert_eq!(report.transactions.len(), 3);
    assert_eq!(chain.account(&nobody).await.unwrap().balance, Nanoton::ZERO);
    let lost = Nanoton::from_ton(10).checked_sub(giver.balance().await.unwrap()).unwrap();
    assert_eq!(lost, report.fees);
}

#[tokio::test]
async fn a_message_that_the_wallet_cannot_pay_is_reported() {
    let (_, _, giver) = chain_with(Nanoton::from_ton(1));
    let to = Address::basechain([7; 32]);
    let refused = giver.send(to, Nanoton::from_ton(2), None, None).await;
    assert!(matches!(refused, Err(Error::Funds { .. })), "{refused:?}");
    // Enough for the value, not for the fees on top of it.
    let report = giver.send(to, Nanoton::from_ton(1), None, None).await.unwrap();
    assert_eq!(report.aborted, Some((giver.address(), EXIT_NOT_SENT)));
}

#[tokio::test]
async fn many_messages_leave_with_one_signature() {
    let (chain, _, giver) = chain_with(Nanoton::from_ton(100));
    let to = |i: u8| Address::basechain([i; 32]);
    let messages: Vec<_> = (0..100).map(|i| OutMessage::new(to(i), Nanoton(i.into()), None, None)).collect();
    let report = giver.send_all(&messages).await.unwrap().success().unwrap();
    assert_eq!(report.transactions.len(), 101);
    for i in 1..100 {
        assert_eq!(chain.account(&to(i)).await.unwrap().balance, Nanoton(i.into()));
    }
}

#[tokio::test]
async fn storage_is_charged_by_time() {
    let (chain, clock, giver) = chain_with(Nanoton::from_ton(10));
    let to = Address::basechain([7; 32]);
    giver.send(to, Nanoton(1), None, None).await.unwrap();
    let cost = async |days: u64| {
        clock.advance(days * 86_400);
        giver.send(to, Nanoton(1), None, None).await.unwrap().transactions[0].fees.0
    };
    let (now, year, two) = (cost(0).await, cost(365).await, cost(730).await);
    let rent = year - now;
    assert!(rent > 1_000_000, "a wallet's rent for a year was {rent} nanoton");
    assert!((2 * rent).abs_diff(two - now) <= 1, "rent is not linear in time: {rent}, {}", two - now);
    assert_eq!(chain.head().await.unwrap().time, START.plus(1_095 * 86_400));
}

#[tokio::test]
async fn the_beacon_moves_on_while_nothing_happens() {
    let (chain, _, _) = chain_with(Nanoton::from_ton(1));
    let genesis = chain.head().await.unwrap();
    assert_eq!((genesis.seqno, genesis.time), (0, START));
    assert_eq!(chain.tick(START.plus(4)).unwrap(), genesis);
    let next = chain.tick(START.plus(5)).unwrap();
    assert_eq!((next.seqno, next.time), (1, START.plus(5)));
    assert_eq!(chain.block(1).await.unwrap(), Some(next));
    assert_eq!(chain.block(2).await.unwrap(), None);
    let (other, _, _) = chain_with(Nanoton::from_ton(1));
    assert_ne!(other.head().await.unwrap().root_hash, genesis.root_hash, "a block's hash was predictable");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is sent: balances and fees add up to what there was at the beginning.
    #[test]
    fn value_is_conserved(steps in prop::collection::vec((0u8..4, 0u8..8, 0u64..4_000_000_000, any::<bool>(), 0u64..100_000_000), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::new(ManualClock::new(START));
            let parties = [[1; 32], [2; 32], [3; 32], [4; 32]];
            let total = Nanoton::from_ton(4 * 5);
            let accounts = parties.map(|seed| (address(seed), Nanoton::from_ton(5))).to_vec();
            let chain = Arc::new(LocalChain::in_memory(Genesis { accounts, time: START }, clock.clone()).unwrap());
            let parties = parties.map(|seed| Account::new(chain.clone(), seed).unwrap());
            let mut fees = Nanoton::ZERO;
            for (from, to, value, bounce, wait) in steps {
                clock.advance(wait);
                let destination = parties.get(to as usize).map_or(Address::basechain([to; 32]), Account::address);
                let message = OutMessage { bounce, ..OutMessage::new(destination, Nanoton(value), None, None) };
                match parties[from as usize].send_all(&[message]).await {
                    Ok(report) => fees = fees.checked_add(report.fees).unwrap(),
                    Err(Error::Funds { .. } | Error::NotAccepted { .. } | Error::NotDeployed(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            let held: Nanoton = chain.balances().unwrap().into_iter().map(|(_, balance)| balance).sum();
            assert_eq!(held.checked_add(fees), Some(total));
            chain.check().unwrap();
        });
    }
}
