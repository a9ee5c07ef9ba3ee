//! A running enclave renews its attestation again and again, and nobody who asks it all the while is turned away.

use std::time::{Duration, Instant};

use cocoon_cli::data::DataDir;
use cocoon_cli::network::{Network, Options, Tee};
use cocoon_cli::ui::{Output, Ui};

/// Seconds that an attestation lasts here: renewed after 40, or up to ten later, as a host looks every ten seconds.
const LIFETIME: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn two_renewals_fail_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    let options = Options {
        enclave: cocoon_tests::enclave_binary(),
        model: cocoon_tests::demo_model(),
        tee: Tee::Tdx,
        guest: String::new(),
        vm: None,
        tap: None,
        endorser: None,
        claims: None,
        lifetime: LIFETIME,
        ui: Ui::new(Output::Json),
    };
    let network = Network::start(&data, options).await.unwrap();
    let client = &network.client;
    let body = br#"{"model":"cocoon-demo","max_tokens":4,"messages":[{"role":"user","content":"What is Cocoon?"}]}"#;
    let (started, mut evidence, mut asked, mut longest) = (Instant::now(), Vec::new(), 0, Duration::ZERO);
    while evidence.len() < 3 {
        // Each request looks at the list anew, so that none escapes the moment of a renewal behind what was remembered.
        client.refresh();
        let begun = Instant::now();
        let answer = client.call("POST", "/v1/chat/completions", Some("cocoon-demo"), body.to_vec()).await;
        let answer = answer.unwrap_or_else(|error| panic!("after {:?}: {error}", started.elapsed()));
        let id = answer.enclave().evidence_id;
        assert_eq!(answer.head().status, 200);
        answer.finish().await.unwrap_or_else(|error| panic!("after {:?}: {error}", started.elapsed())).expect("paid");
        longest = longest.max(begun.elapsed());
        asked += 1;
        if evidence.last() != Some(&id) {
            assert!(!evidence.contains(&id), "evidence of old again");
            evidence.push(id);
        }
        assert!(started.elapsed() < Duration::from_secs(6 * LIFETIME), "no second renewal");
    }
    println!("{asked} requests over {:?}, two renewals; the longest took {longest:?}", started.elapsed());
    // It was never launched anew: a renewal keeps the key.
    let enclaves = client.enclaves().await.unwrap().0;
    let key = enclaves[0].claims.enclave_key;
    let record = cocoon_settlement::ops::enclave_record(&*network.chain, &network.provider, &key).await.unwrap();
    assert_eq!(record.unwrap().generation, 2);
    network.stop().await;
}
