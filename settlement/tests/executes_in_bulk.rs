//! Many external messages fit into one block, each with its own outcome.

use std::sync::Arc;

use cocoon_attestation::types::UnixTime;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock};
use cocoon_settlement::wallet::{OutMessage, Wallet};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId};

#[tokio::test]
async fn a_block_takes_what_is_accepted_and_names_what_is_not() {
    let start = UnixTime(1_790_000_000);
    let wallets: Vec<Wallet> = (1..=120u8).map(|i| Wallet::new([i; 32], NetworkId::LOCAL).unwrap()).collect();
    let accounts = wallets.iter().map(|wallet| (wallet.address(), Nanoton::from_ton(1))).collect();
    let chain = LocalChain::in_memory(Genesis { accounts, time: start }, Arc::new(ManualClock::new(start))).unwrap();
    let to = Address::basechain([7; 32]);
    let request = |wallet: &Wallet, seqno| {
        let message = OutMessage::new(to, Nanoton(1_000_000), None, None);
        // Ten messages each: more than one block takes.
        wallet.request(seqno, start.plus(60), &vec![message; 10], true).unwrap()
    };
    let mut requests: Vec<_> = wallets.iter().map(|wallet| request(wallet, 0)).collect();
    requests[50] = request(&wallets[50], 1);
    let results = chain.submit(requests).unwrap();
    for (i, result) in results.iter().enumerate() {
        match result {
            Err(Error::NotAccepted { exit_code: 133, .. }) if i == 50 => {}
            Ok(message) if i != 50 => {
                let trace = chain.trace(message).await.unwrap().unwrap();
                assert!(trace.finished && trace.transactions.len() == 11);
            }
            other => panic!("{i}: {other:?}"),
        }
    }
    assert_eq!(chain.head().await.unwrap().seqno, 2, "1,309 transactions are two blocks");
    assert!(chain.account(&to).await.unwrap().balance > Nanoton(1_189 * 1_000_000));
    chain.check().unwrap();
}
