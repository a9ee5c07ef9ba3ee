//! The client that TON's developers use, npm `@ton/ton` unmodified, deploys, sends and queries on a local chain.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cocoon_settlement::local::{Genesis, LocalChain, SystemClock, rpc};
use cocoon_settlement::wallet::Wallet;
use cocoon_settlement::{Nanoton, NetworkId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ton_tons_client_deploys_sends_and_queries_unmodified() {
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts");
    if !contracts.join("node_modules/@ton/ton").is_dir() {
        let missing = "settlement/contracts/node_modules is missing: run `make contracts-test` first";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("skipped: {missing}");
        return;
    }
    let giver = Wallet::new([1; 32], NetworkId::LOCAL).unwrap().address();
    let genesis = Genesis { accounts: vec![(giver, Nanoton::from_ton(100))], ..Genesis::default() };
    let chain = Arc::new(LocalChain::in_memory(genesis, Arc::new(SystemClock)).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/api/v2/jsonRPC", listener.local_addr().unwrap());
    tokio::spawn(rpc::serve(listener, chain.clone()));
    let output = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .args(["tests/network/client.mjs", &endpoint, &NetworkId::LOCAL.0.to_string()])
            .current_dir(contracts)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout.ends_with(b"ok\n"), "{error}");
    chain.check().unwrap();
}
