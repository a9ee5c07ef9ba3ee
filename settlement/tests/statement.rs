//! A statement accounts for every nanoton, over either implementation of the chain.

use std::sync::Arc;

use cocoon_attestation::types::UnixTime;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::{AccountState, BlockRef, Chain, GetResult, StackValue, Trace, TxSummary};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock, rpc};
use cocoon_settlement::statement::Statement;
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::wallet::{OutMessage, Wallet};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId};
use tycho_types::cell::{Cell, CellBuilder};

const START: UnixTime = UnixTime(1_790_000_000);

#[tokio::test]
async fn every_nanoton_is_explained_on_many_pages_and_over_the_network() {
    let giver = Wallet::new([1; 32], NetworkId::LOCAL).unwrap().address();
    let genesis = Genesis { accounts: vec![(giver, Nanoton::from_ton(1_000))], time: START };
    let clock = Arc::new(ManualClock::new(START));
    let chain = Arc::new(LocalChain::in_memory(genesis, clock.clone()).unwrap());
    let giver = Account::new(chain.clone(), [1; 32]).unwrap();
    let other = Account::new(chain.clone(), [2; 32]).unwrap();
    for round in 0..120 {
        clock.advance(round * 1_000);
        giver.send(other.address(), Nanoton(100_000_000), None, None).await.unwrap().success().unwrap();
    }
    let nobody =
        OutMessage { bounce: true, ..OutMessage::new(Address::basechain([9; 32]), Nanoton(5_000_000_000), None, None) };
    other.send_all(&[nobody]).await.unwrap();
    // Everything goes back; nothing is left behind.
    let all = OutMessage { everything: true, ..OutMessage::new(giver.address(), Nanoton::ZERO, None, None) };
    other.send_all(&[all]).await.unwrap().success().unwrap();
    assert_eq!(other.balance().await.unwrap(), Nanoton::ZERO);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/api/v2/jsonRPC", listener.local_addr().unwrap());
    tokio::spawn(rpc::serve(listener, chain.clone()));
    let client = Toncenter::new(&endpoint, None, NetworkId::LOCAL).unwrap();
    for (account, opening, entries) in [(&giver, 1_000, 121), (&other, 0, 123)] {
        let statement = Statement::read(&chain, &account.address()).await.unwrap();
        assert_eq!(statement, Statement::read(&client, &account.address()).await.unwrap());
        assert_eq!((statement.opening, statement.entries.len()), (Nanoton::from_ton(opening), entries));
        assert_eq!(statement.entries.last().unwrap().balance, statement.closing);
        assert_eq!(statement.closing, chain.account(&account.address()).await.unwrap().balance);
        let mut balance = 0_i128;
        for line in statement.to_csv().lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!((fields.len(), fields[9]), (10, "0"), "{line}");
            let [received, sent, fees, after] = [5, 6, 7, 8].map(|i: usize| fields[i].parse::<i128>().unwrap());
            balance += received - sent - fees;
            assert_eq!(balance, after, "{line}");
        }
        assert_eq!(balance, i128::from(statement.closing.0));
    }
    let statement = Statement::read(&chain, &other.address()).await.unwrap();
    let what: Vec<_> = statement.entries[119..].iter().map(|entry| entry.what.as_str()).collect();
    assert_eq!(what, ["transfer", "transfer", "returned", "transfer"]);
    let empty = Statement::read(&chain, &Address::basechain([44; 32])).await.unwrap();
    assert_eq!((empty.opening, empty.entries.len(), empty.closing), (Nanoton::ZERO, 0, Nanoton::ZERO));
}

/// What a chain answers, with transactions left out.
struct Forgetful {
    chain: Arc<LocalChain>,
    forgets: fn(&TxSummary) -> bool,
}

#[async_trait::async_trait]
impl Chain for Forgetful {
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
        self.chain.account(address).await
    }
    async fn send(&self, external: Cell) -> Result<[u8; 32], Error> {
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
        let mut page = self.chain.transactions_before(address, before, limit).await?;
        page.retain(|transaction| !(self.forgets)(transaction));
        Ok(page)
    }
    async fn trace(&self, message_hash: &[u8; 32]) -> Result<Option<Trace>, Error> {
        self.chain.trace(message_hash).await
    }
}

/// On a local chain too, where an account may have had something before its first transaction.
#[tokio::test]
async fn a_missing_transaction_is_an_error_and_never_an_opening_balance() {
    let giver = Wallet::new([1; 32], NetworkId::LOCAL).unwrap().address();
    let genesis = Genesis { accounts: vec![(giver, Nanoton::from_ton(1_000))], time: START };
    let clock = Arc::new(ManualClock::new(START));
    let chain = Arc::new(LocalChain::in_memory(genesis, clock.clone()).unwrap());
    let giver = Account::new(chain.clone(), [1; 32]).unwrap();
    let other = Account::new(chain.clone(), [2; 32]).unwrap();
    for round in 0..3 {
        clock.advance(round * 1_000);
        giver.send(other.address(), Nanoton(100_000_000), None, None).await.unwrap().success().unwrap();
        other.send(giver.address(), Nanoton(1_000_000), None, None).await.unwrap().success().unwrap();
    }
    type Forgets = fn(&TxSummary) -> bool;
    let forgets: [(Forgets, bool); 4] = [
        (|_| false, true),
        (|transaction| transaction.previous.is_none(), false),
        (|transaction| transaction.previous.is_some() && transaction.time == START, false),
        (|transaction| transaction.time < START.plus(1_001), false),
    ];
    for (forgets, good) in forgets {
        let forgetful = Forgetful { chain: chain.clone(), forgets };
        for account in [&giver, &other] {
            let read = Statement::read(&forgetful, &account.address()).await;
            assert_eq!(read.is_ok(), good, "{read:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains("is missing; ask an archive node"), "{error}");
            }
        }
    }
    // Only what was there from the beginning may open with something.
    let statement = Statement::read(&chain, &giver.address()).await.unwrap();
    assert_eq!(statement.opening, Nanoton::from_ton(1_000));
    let first = chain.transactions(&other.address(), 100).await.unwrap().pop().unwrap();
    assert!(!first.existed && first.previous.is_none());
    assert_eq!(Statement::read(&chain, &other.address()).await.unwrap().opening, Nanoton::ZERO);
}

/// Anybody can send what looks like the payment of a claim, or like a broken one.
#[tokio::test]
async fn nothing_counts_as_earned_that_did_not_come() {
    let address = |seed: u8| Wallet::new([seed; 32], NetworkId::LOCAL).unwrap().address();
    let genesis = Genesis { accounts: vec![(address(1), Nanoton::from_ton(10))], time: START };
    let chain = Arc::new(LocalChain::in_memory(genesis, Arc::new(ManualClock::new(START))).unwrap());
    let stranger = Account::new(chain.clone(), [1; 32]).unwrap();
    let owner = Account::new(chain.clone(), [2; 32]).unwrap();
    let sent = Nanoton(50_000_000);
    for (amount, extra) in [(Some(7_u64), 0), (Some(u64::MAX), 0), (Some(8), 24), (None, 0)] {
        let mut body = CellBuilder::new();
        body.store_u32(0x4304_0001).unwrap();
        if let Some(amount) = amount {
            body.store_u64(amount).unwrap();
        }
        body.store_zeros(extra).unwrap();
        let message =
            OutMessage { bounce: false, ..OutMessage::new(owner.address(), sent, Some(body.build().unwrap()), None) };
        stranger.send_all(&[message]).await.unwrap().success().unwrap();
    }
    let statement = Statement::read(&chain, &owner.address()).await.unwrap();
    let earned: Vec<Nanoton> = statement.entries.iter().map(|entry| entry.earned).collect();
    assert_eq!(earned, [Nanoton(7), sent, Nanoton(8), Nanoton::ZERO]);
    assert!(statement.entries.iter().all(|entry| entry.received == sent && entry.earned <= entry.received));
    assert!(statement.to_csv().lines().nth(2).unwrap().ends_with(",50000000"));
    let sender = Statement::read(&chain, &stranger.address()).await.unwrap();
    assert!(sender.entries.iter().all(|entry| entry.earned == Nanoton::ZERO), "who pays earns nothing");
}
