//! The chain survives SIGKILL at any moment: whatever was acknowledged is there, and nothing is there by halves.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cocoon_settlement::account::Account;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::local::{Genesis, LocalChain};
use cocoon_settlement::wallet::Wallet;
use cocoon_settlement::{Address, Nanoton, NetworkId};

/// Set in the child process: the folder of the chain.
const CHILD: &str = "COCOON_TEST_CHAIN_DIR";
const GIVER: [u8; 32] = [1; 32];
const TO: Address = Address::basechain([7; 32]);

fn open(folder: &Path) -> Arc<LocalChain> {
    let giver = Wallet::new(GIVER, NetworkId::LOCAL).unwrap().address();
    let genesis = Genesis { accounts: vec![(giver, Nanoton::from_ton(1_000_000))], ..Genesis::default() };
    Arc::new(LocalChain::open(folder, genesis).unwrap())
}

/// Not a test of its own: what the child process runs until it is killed.
#[tokio::test]
async fn child_sends_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let giver = Account::new(open(folder.as_ref()), GIVER).unwrap();
    for _ in 0..100_000 {
        let report = giver.send(TO, Nanoton(1_000_000), None, None).await.unwrap().success().unwrap();
        println!("\nacknowledged {}", hex::encode(report.message));
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_continues_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..12u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_sends_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let message = |line: String| line.strip_prefix("acknowledged ").map(str::to_owned);
        acknowledged.push(lines.by_ref().find_map(message).unwrap());
        // Different moments within a block; which one does not matter for the outcome.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.filter_map(message));

        let chain = open(folder.path());
        chain.check().unwrap();
        let mut fees = Nanoton::ZERO;
        let mut sent = 0;
        for block_message in
            chain.transactions(&Wallet::new(GIVER, NetworkId::LOCAL).unwrap().address(), usize::MAX).await.unwrap()
        {
            let trace = chain.trace(&block_message.in_msg_hash).await.unwrap().unwrap();
            assert!(trace.finished && trace.transactions.len() == 2, "half a transfer is visible");
            fees = fees.checked_add(trace.transactions.iter().map(|transaction| transaction.fees).sum()).unwrap();
            sent += 1;
        }
        for message in &acknowledged {
            let hash = hex::decode(message).unwrap().try_into().unwrap();
            assert!(chain.trace(&hash).await.unwrap().is_some(), "an acknowledged transfer is gone");
        }
        assert!(sent >= acknowledged.len());
        let held: Nanoton = chain.balances().unwrap().into_iter().map(|(_, balance)| balance).sum();
        assert_eq!(held.checked_add(fees), Some(Nanoton::from_ton(1_000_000)));
    }
    assert!(acknowledged.len() >= 12);
}

#[tokio::test]
async fn a_reopened_chain_is_the_same_chain() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(folder.path());
    let giver = Account::new(chain.clone(), GIVER).unwrap();
    let report = giver.send(TO, Nanoton::from_ton(1), None, None).await.unwrap();
    let block = chain.block(1).await.unwrap().unwrap();
    let state = chain.account(&giver.address()).await.unwrap();
    drop((chain, giver));

    // Another beginning is ignored: the chain has one already.
    let chain = Arc::new(LocalChain::open(folder.path(), Genesis::default()).unwrap());
    assert_eq!(chain.block(1).await.unwrap(), Some(block));
    assert_eq!(chain.trace(&report.message).await.unwrap().unwrap().transactions, report.transactions);
    let giver = Account::new(chain.clone(), GIVER).unwrap();
    assert_eq!(chain.account(&giver.address()).await.unwrap(), state);
    giver.send(TO, Nanoton::from_ton(1), None, None).await.unwrap().success().unwrap();
}

#[test]
fn two_processes_cannot_use_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _chain = open(folder.path());
    let second = LocalChain::open(folder.path(), Genesis::default()).err().unwrap();
    assert!(second.to_string().contains("another process"), "{second}");
}
