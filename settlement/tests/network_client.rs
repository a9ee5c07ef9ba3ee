//! The network client says of a chain what the chain says of itself, and pays on it.

use std::sync::Arc;

use cocoon_attestation::types::UnixTime;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::{Chain, EXIT_NO_STATE, StackValue};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock, rpc};
use cocoon_settlement::toncenter::Toncenter;
use cocoon_settlement::wallet::{OutMessage, Wallet};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId};
use tokio::net::TcpListener;

const START: UnixTime = UnixTime(1_790_000_000);
const GIVER: [u8; 32] = [1; 32];

async fn served() -> (Arc<LocalChain>, Arc<Toncenter>) {
    let giver = Wallet::new(GIVER, NetworkId::LOCAL).unwrap().address();
    let genesis = Genesis { accounts: vec![(giver, Nanoton::from_ton(100))], time: START };
    let chain = Arc::new(LocalChain::in_memory(genesis, Arc::new(ManualClock::new(START))).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/api/v2/jsonRPC", listener.local_addr().unwrap());
    tokio::spawn(rpc::serve(listener, chain.clone()));
    (chain, Arc::new(Toncenter::new(&endpoint, None, NetworkId::LOCAL).unwrap()))
}

#[tokio::test]
async fn both_implementations_give_the_same_answers() {
    let (chain, client) = served().await;
    let payer = Account::new(client.clone(), GIVER).unwrap();
    let to = Address::basechain([7; 32]);
    let report = payer.send(to, Nanoton::from_ton(1), None, None).await.unwrap().success().unwrap();
    assert_eq!(report.transactions, chain.trace(&report.message).await.unwrap().unwrap().transactions);
    let bounced =
        OutMessage { bounce: true, ..OutMessage::new(Address::basechain([9; 32]), Nanoton(1_000_000_000), None, None) };
    let bounced = payer.send_all(&[bounced]).await.unwrap();
    assert_eq!(bounced.aborted, Some((Address::basechain([9; 32]), EXIT_NO_STATE)));
    assert_eq!(bounced.transactions, chain.trace(&bounced.message).await.unwrap().unwrap().transactions);

    assert_eq!(client.head().await.unwrap(), chain.head().await.unwrap());
    assert_eq!(client.block(1).await.unwrap(), chain.block(1).await.unwrap());
    assert_eq!(client.block(99).await.unwrap(), None);
    for address in [payer.address(), to, Address::basechain([8; 32])] {
        assert_eq!(client.account(&address).await.unwrap(), chain.account(&address).await.unwrap());
        assert_eq!(client.transactions(&address, 2).await.unwrap(), chain.transactions(&address, 2).await.unwrap());
    }
    for method in ["seqno", "get_public_key", "get_extensions", "no_such_method"] {
        let direct = chain.run_get(&payer.address(), method, Vec::new()).await.unwrap();
        assert_eq!(client.run_get(&payer.address(), method, Vec::new()).await.unwrap(), direct, "{method}");
    }
    let key = chain.run_get(&payer.address(), "get_public_key", Vec::new()).await.unwrap().stack;
    assert_eq!(key, [StackValue::uint256(&payer.wallet().public_key())]);
}

#[tokio::test]
async fn refusals_arrive_as_the_same_errors() {
    let (_, client) = served().await;
    let payer = Account::new(client.clone(), GIVER).unwrap();
    payer.send(Address::basechain([7; 32]), Nanoton(1), None, None).await.unwrap();
    let stale = payer.wallet().request(0, START.plus(60), &[], false).unwrap();
    let refused = client.send(stale).await;
    assert!(
        matches!(refused, Err(Error::NotAccepted { account, exit_code: 133 }) if account == payer.address()),
        "{refused:?}"
    );
    let nobody = Address::basechain([8; 32]);
    let missing = client.run_get(&nobody, "seqno", Vec::new()).await;
    assert!(matches!(missing, Err(Error::NotDeployed(address)) if address == nobody), "{missing:?}");
    assert_eq!(client.trace(&[0; 32]).await.unwrap(), None);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_used_is_named() {
    let remote = Toncenter::new("https://example.org/api/v2/jsonRPC", None, NetworkId::TESTNET).err().unwrap();
    assert!(remote.to_string().contains("TLS"), "{remote}");
    let (_, client) = served().await;
    let unknown = Toncenter::new(
        &format!("{client:?}").replace("Toncenter(local at ", "").replace("api/v2/jsonRPC)", "nothing"),
        None,
        NetworkId::LOCAL,
    );
    let error = unknown.unwrap().head().await.unwrap_err();
    assert!(matches!(error, Error::Api { .. }) && error.to_string().contains("404"), "{error}");
}
