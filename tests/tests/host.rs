//! The host with the real enclave, contracts and client: receipts before acknowledgement, hang-ups, vouchers it refuses, a killed enclave.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cocoon_attestation::{Digest, EnclaveKey, UnixTime};
use cocoon_cli::data::DataDir;
use cocoon_cli::demo::search;
use cocoon_cli::network::{Network, Options, Tee};
use cocoon_cli::tap::Recorder;
use cocoon_cli::ui::{Output, Ui};
use cocoon_client::Appraised;
use cocoon_host::Status;
use cocoon_protocol::voucher::SignedVoucher;
use cocoon_protocol::wire;
use cocoon_settlement::account::Account;
use cocoon_settlement::cells::Voucher;
use cocoon_settlement::chain::Chain;
use cocoon_settlement::contracts::channel::ChannelInit;
use cocoon_settlement::contracts::{Change, Listed};
use cocoon_settlement::{Nanoton, NetworkId, ops};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioExecutor;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    network: Network,
    data: DataDir,
    _folder: tempfile::TempDir,
}

async fn world(tee: Tee) -> World {
    tapped_world(tee, None).await
}

async fn tapped_world(tee: Tee, tap: Option<Arc<Recorder>>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    let options = Options {
        enclave: cocoon_tests::enclave_binary(),
        model: cocoon_tests::demo_model(),
        tee,
        guest: String::new(),
        vm: None,
        tap,
        endorser: None,
        claims: None,
        lifetime: cocoon_cli::network::ATTESTATION_LIFETIME,
        ui: Ui::new(Output::Json),
    };
    World { network: Network::start(&data, options).await.unwrap(), data, _folder: folder }
}

impl World {
    async fn enclave(&self) -> Appraised {
        self.network.client.enclaves().await.unwrap().0.remove(0)
    }

    fn body(stream: bool) -> Vec<u8> {
        format!(r#"{{"model":"cocoon-demo","stream":{stream},"temperature":0,"messages":[{{"role":"user","content":"What is Cocoon?"}}]}}"#).into_bytes()
    }

    fn stored(&self, enclave: &EnclaveKey) -> (u64, Nanoton) {
        let receipt = self.network.host.store().receipt(&self.network.channel, enclave).unwrap();
        receipt.map_or((0, Nanoton(0)), |kept| (kept.receipt.sequence, kept.receipt.total))
    }

    /// Status and reason of the host's answer to a request with this voucher.
    async fn offered(&self, enclave: &Appraised, voucher: &SignedVoucher) -> (u16, String) {
        let client = &self.network.client;
        let call = client.seal(enclave, voucher.clone(), "POST", "/v1/chat/completions", Self::body(false)).unwrap();
        let request = Request::post(format!("{}{}", self.network.host.url(), wire::RELAY_PATH))
            .header(wire::ENCLAVE_HEADER, enclave.evidence_id.to_string())
            .header(wire::VOUCHER_HEADER, voucher.to_header())
            .body(Full::new(Bytes::from(call.body.clone())))
            .unwrap();
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        let response = http.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let reason = serde_json::from_slice::<wire::Refusal>(&body).map_or(String::new(), |refusal| refusal.error);
        (status, reason)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_is_stored_before_the_client_sees_the_end_with_either_cpu() {
    for tee in [Tee::Tdx, Tee::Snp] {
        let world = world(tee).await;
        let enclave = world.enclave().await;
        for round in 1..=3 {
            let body = World::body(round % 2 == 0);
            let answer =
                world.network.client.call("POST", "/v1/chat/completions", Some("cocoon-demo"), body).await.unwrap();
            let receipt = answer.finish().await.unwrap().unwrap().receipt.settlement.receipt;
            assert_eq!(world.stored(&enclave.claims.enclave_key), (receipt.sequence, receipt.total), "round {round}");
        }
        world.network.stop().await;
    }
}

/// The counter that says so: evidence is appraised once per enclave, and never per request, however often the list of enclaves is fetched.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_appraised_once_however_many_requests_there_are() {
    let world = world(Tee::Tdx).await;
    let client = &world.network.client;
    let asked = futures::future::join_all((0..60).map(|n| async move {
        if n % 7 == 0 {
            client.refresh();
        }
        let answer = client.call("POST", "/v1/chat/completions", Some("cocoon-demo"), World::body(n % 2 == 0)).await?;
        let status = answer.head().status;
        answer.finish().await.map(|receipt| (status, receipt.is_some()))
    }))
    .await;
    // The queue may have been full; then the answer says so, and is none.
    assert!(asked.iter().filter(|answer| matches!(answer, Ok((200, true)))).count() >= 16, "{asked:?}");
    for _ in 0..20 {
        client.refresh();
        let answer = client.call("POST", "/v1/chat/completions", None, World::body(false)).await.unwrap();
        answer.finish().await.unwrap().expect("a receipt");
    }
    assert_eq!(client.appraisals(), 1);
    world.network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_is_charged_for_what_was_generated() {
    let world = world(Tee::Tdx).await;
    let enclave = world.enclave().await;
    let mut answer = world
        .network
        .client
        .call("POST", "/v1/chat/completions", Some("cocoon-demo"), World::body(true))
        .await
        .unwrap();
    answer.next().await.unwrap().unwrap();
    drop(answer);
    let deadline = Instant::now() + 20 * SECOND;
    while world.stored(&enclave.claims.enclave_key).0 == 0 {
        assert!(Instant::now() < deadline, "no receipt after a hang-up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The client did not see that charge, and goes on all the same.
    let answer = world
        .network
        .client
        .call("POST", "/v1/chat/completions", Some("cocoon-demo"), World::body(false))
        .await
        .unwrap();
    let receipt = answer.finish().await.unwrap().unwrap().receipt;
    assert!(receipt.settlement.receipt.total > receipt.charge, "both answers are in the total");
    world.network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vouchers_that_do_not_fit_are_refused_with_the_reason() {
    let world = world(Tee::Tdx).await;
    let enclave = world.enclave().await;
    let good = world.network.client.voucher(&enclave).await.unwrap();
    let seed = world.data.secret("client-key").unwrap();
    type Alter = fn(&mut Voucher);
    let cases: [(Alter, &str); 6] = [
        (|voucher| voucher.network = NetworkId(-3), "another network"),
        (|voucher| voucher.enclave_key = EnclaveKey([9; 32]), "another enclave"),
        (|voucher| voucher.expiry = UnixTime(voucher.expiry.0 - 3_600), "expired"),
        (|voucher| voucher.prices.completion -= 1, "too little for completion"),
        (|voucher| voucher.channel.hash[0] ^= 1, "cannot be used"),
        (|voucher| voucher.cap = Nanoton(u64::MAX), "would be promised"),
    ];
    for (alter, reason) in cases {
        let mut voucher = good.voucher.clone();
        alter(&mut voucher);
        let signed = SignedVoucher::sign(voucher, &seed).unwrap();
        let (status, found) = world.offered(&enclave, &signed).await;
        assert_eq!(status, 402, "{reason}: {found}");
        assert!(found.contains(reason), "{found} should say: {reason}");
    }
    let forged = SignedVoucher::sign(good.voucher.clone(), &[9; 32]).unwrap();
    assert!(world.offered(&enclave, &forged).await.1.contains("not signed by the channel's client key"));

    // A channel of the same client with another provider.
    let config = world.network.client.config();
    let elsewhere = ChannelInit { provider: world.network.registry, ..config.channel.clone() };
    ops::open_channel(&world.network.client_account, &elsewhere, Nanoton(1_000_000_000))
        .await
        .unwrap()
        .success()
        .unwrap();
    let voucher = Voucher { channel: elsewhere.address(), ..good.voucher.clone() };
    let signed = SignedVoucher::sign(voucher, &seed).unwrap();
    assert!(world.offered(&enclave, &signed).await.1.contains("another provider"));

    assert_eq!(world.offered(&enclave, &good).await.0, 200, "the one they were all made from is taken");
    world.network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_enclave_comes_back_with_another_key_and_its_receipts_are_still_paid() {
    let world = world(Tee::Tdx).await;
    let first = world.enclave().await;
    let client: &Arc<_> = &world.network.client;
    client
        .call("POST", "/v1/chat/completions", Some("cocoon-demo"), World::body(false))
        .await
        .unwrap()
        .finish()
        .await
        .unwrap();
    let earned = world.stored(&first.claims.enclave_key).1;
    let pid = world.network.enclave_pid().unwrap();
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    let deadline = Instant::now() + 60 * SECOND;
    while world.network.enclave_pid().is_none_or(|now| now == pid) {
        assert!(Instant::now() < deadline, "the enclave does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.network.host.ready(60 * SECOND).await.unwrap();
    client.refresh();
    let answer = client.call("POST", "/v1/chat/completions", Some("cocoon-demo"), World::body(false)).await.unwrap();
    let second = answer.enclave().claims.enclave_key;
    answer.finish().await.unwrap().unwrap();
    assert_ne!(second, first.claims.enclave_key, "its key never left the memory of the first");
    let claim = world.network.host.claim_all().await.unwrap();
    assert_eq!(claim.items, 2);
    let paid = ops::channel_paid(world.network.chain.as_ref(), &world.network.channel, &first.claims.enclave_key)
        .await
        .unwrap();
    assert_eq!(paid.paid, earned);
    assert_eq!(world.network.host.claim_all().await.unwrap().items, 0, "nothing is claimed twice");
    world.network.stop().await;
}

/// The control of the demo's search: what host and gateway saw holds no plaintext, until somebody sends some past them.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_sent_in_the_clear_is_found_in_what_host_and_gateway_saw() {
    const PROMPT: &str = r#""role":"user","content":"What is Cocoon?""#;
    let recorder = Arc::new(Recorder::default());
    let world = tapped_world(Tee::Tdx, Some(recorder.clone())).await;
    let enclave = world.enclave().await;
    let answer = world.network.client.call("POST", "/v1/chat/completions", None, World::body(false)).await.unwrap();
    let (head, body, _) = answer.whole().await.unwrap();
    assert_eq!(head.status, 200);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let said = body["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let before = recorder.seen();
    assert!(before.len() > 10_000, "both saw traffic");
    if let Some(leak) = search::find(&before, &[PROMPT, &said]) {
        let around = &before[leak.offset.saturating_sub(40)..before.len().min(leak.offset + 60)];
        panic!("{leak:?}: {}", String::from_utf8_lossy(around));
    }

    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let host = world.network.host.announcement().unwrap().host_url;
    for target in [world.network.urls.gateway.clone(), host] {
        let seen = recorder.seen().len();
        let request = Request::post(format!("{target}{}", wire::RELAY_PATH))
            .header(wire::ENCLAVE_HEADER, enclave.evidence_id.to_string())
            .body(Full::new(Bytes::from(World::body(false))))
            .unwrap();
        let _ = http.request(request).await.unwrap().into_body().collect().await;
        let leak = search::find(&recorder.seen()[seen..], &[PROMPT]);
        assert!(leak.is_some(), "in clear to {target}");
    }
    world.network.stop().await;
}

fn signal(name: &str, pid: Option<u32>) {
    let pid = pid.expect("the guest is a process");
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// The enclave's process is halted while a request is on its way, so that its answer is open for as long as this test needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_image_is_withdrawn_finishes_what_it_has_begun_and_takes_nothing_new() {
    let world = world(Tee::Tdx).await;
    let network = &world.network;
    let enclave = world.enclave().await;
    let voucher = network.client.voucher(&enclave).await.unwrap();
    let host = &network.host;
    let Status::Ready(ready) = host.status() else { panic!("the host is ready") };
    assert_eq!(ready.image, network.references.image.digest);

    signal("-STOP", ready.pid);
    let client = network.client.clone();
    let body = World::body(true);
    let asked = tokio::spawn(async move {
        client.call("POST", "/v1/chat/completions", Some("cocoon-demo"), body).await?.finish().await
    });
    until("the request does not reach the host", || (host.open_answers() == 1).then_some(())).await;

    let chain = network.chain.clone() as Arc<dyn Chain>;
    let governance = Account::new(chain, world.data.secret("governance").unwrap()).unwrap();
    let next = Digest([7; 32]);
    let allow = Change::Allow(Listed::Image(next));
    ops::propose(&governance, &network.registry, &allow).await.unwrap().success().unwrap();
    ops::forbid(&governance, &network.registry, Listed::Image(ready.image)).await.unwrap().success().unwrap();
    let why = until("the host does not drain", || match host.status() {
        Status::Draining { why, .. } => Some(why),
        _ => None,
    })
    .await;
    assert!(why.contains(&ready.image.to_string()) && why.contains(&format!("launch {next} instead")), "{why}");
    assert_eq!(host.announcement().map(|announcement| announcement.evidence_id), None, "it is announced no more");
    let (status, reason) = world.offered(&enclave, &voucher).await;
    assert_eq!(status, 503);
    assert!(reason.contains("withdrawn"), "{reason}");

    signal("-CONT", ready.pid);
    let receipt = asked.await.unwrap().unwrap().unwrap().receipt.settlement.receipt;
    assert_eq!(world.stored(&enclave.claims.enclave_key), (receipt.sequence, receipt.total), "the open answer is paid");
    let why = until("the guest is not ended", || match host.status() {
        Status::Starting { why } => why,
        _ => None,
    })
    .await;
    assert!(why.contains("withdrawn"), "{why}");
    assert!(!std::path::Path::new(&format!("/proc/{}", ready.pid.unwrap())).exists(), "the guest runs no longer");

    let allow = Change::Allow(Listed::Image(ready.image));
    ops::propose(&governance, &network.registry, &allow).await.unwrap().success().unwrap();
    let again = host.ready(120 * SECOND).await.unwrap();
    assert_ne!(again.enclave_key, ready.enclave_key, "an image that is allowed again is launched again");
    world.network.stop().await;
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + 120 * SECOND;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
