//! The network client says of a chain what the chain says of itself, and pays on it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cocoon_attestation::types::UnixTime;
use cocoon_settlement::account::Account;
use cocoon_settlement::chain::{Chain, EXIT_NO_STATE, StackValue};
use cocoon_settlement::local::{Genesis, LocalChain, ManualClock, rpc};
use cocoon_settlement::toncenter::{BackOff, Options, Timer, Toncenter};
use cocoon_settlement::wallet::{OutMessage, Wallet};
use cocoon_settlement::{Address, Error, Nanoton, NetworkId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const START: UnixTime = UnixTime(1_790_000_000);
const GIVER: [u8; 32] = [1; 32];

/// A served chain and a client of each version of the API.
async fn served() -> (Arc<LocalChain>, [Arc<Toncenter>; 2]) {
    let giver = Wallet::new(GIVER, NetworkId::LOCAL).unwrap().address();
    let genesis = Genesis { accounts: vec![(giver, Nanoton::from_ton(100))], time: START };
    let chain = Arc::new(LocalChain::in_memory(genesis, Arc::new(ManualClock::new(START))).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(rpc::serve(listener, chain.clone()));
    let client =
        |path: &str| Arc::new(Toncenter::new(&format!("http://{address}/api/{path}"), None, NetworkId::LOCAL).unwrap());
    (chain, [client("v2/jsonRPC"), client("v3")])
}

#[tokio::test]
async fn both_implementations_give_the_same_answers() {
    for version in 0..2 {
        let (chain, clients) = served().await;
        same_answers(chain, clients[version].clone()).await;
    }
}

async fn same_answers(chain: Arc<LocalChain>, client: Arc<Toncenter>) {
    client.check_network().await.unwrap();
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
        let newest = chain.transactions(&address, 2).await.unwrap();
        assert_eq!(client.transactions(&address, 2).await.unwrap(), newest);
        let before = newest.first().map(|newest| (newest.lt, newest.hash));
        let older = chain.transactions_before(&address, before, 5).await.unwrap();
        assert_eq!(client.transactions_before(&address, before, 5).await.unwrap(), older);
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
    let (_, clients) = served().await;
    for client in clients {
        same_refusals(client).await;
    }
}

async fn same_refusals(client: Arc<Toncenter>) {
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
    let (_, [client, _]) = served().await;
    let unknown = Toncenter::new(
        &format!("{client:?}").replace("Toncenter(local at ", "").replace("api/v2/jsonRPC)", "nothing"),
        None,
        NetworkId::LOCAL,
    );
    let error = unknown.unwrap().head().await.unwrap_err();
    assert!(matches!(error, Error::Api { .. }) && error.to_string().contains("404"), "{error}");
}

/// What a scripted server answers: status, `Retry-After`, body. The last answer is given for ever.
type Script = Vec<(u16, Option<u32>, Value)>;

/// Serves a script at any path; what it was asked is in the list.
async fn scripted(script: Script) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, script) = (asked.clone(), Arc::new(script));
    let handler = async move |request: axum::extract::Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let number = {
            let mut log = log.lock().unwrap();
            log.push(format!("{} {}", parts.uri, String::from_utf8_lossy(&body)));
            log.len() - 1
        };
        let (status, after, body) = script[number.min(script.len() - 1)].clone();
        let mut response = axum::http::Response::builder().status(status);
        if let Some(after) = after {
            response = response.header("retry-after", after.to_string());
        }
        response.body(axum::body::Body::from(body.to_string())).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    (url, asked)
}

/// Fast, so that a test does not wait; the same number of attempts.
fn options(now: u64) -> Options {
    let ms = Duration::from_millis;
    let back_off = BackOff { first: ms(1), most: ms(2), timeout: ms(2_000), ..BackOff::default() };
    Options { back_off, clock: Arc::new(ManualClock::new(UnixTime(now))), ..Options::default() }
}

fn head_v3(seqno: u32, time: u64, network: i32) -> Value {
    json!({ "first": {}, "last": { "seqno": seqno, "root_hash": "MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM=",
                                   "gen_utime": time.to_string(), "global_id": network } })
}

#[tokio::test]
async fn a_busy_api_is_asked_again_as_it_wishes_and_given_up_in_the_end() {
    let busy = |after| (429, after, json!({ "error": "Ratelimit exceed" }));
    let (url, asked) = scripted(vec![busy(Some(0)), (503, None, json!({})), (200, None, head_v3(7, 1_000, -3))]).await;
    let client = Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(1_000)).unwrap();
    assert_eq!(client.head().await.unwrap().seqno, 7);
    assert_eq!(asked.lock().unwrap().len(), 3);

    let (url, asked) = scripted(vec![busy(Some(0))]).await;
    let client = Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(1_000)).unwrap();
    let error = client.head().await.unwrap_err().to_string();
    assert!(error.contains("429") && error.contains("5 times") && error.contains("masterchainInfo"), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 5);
}

/// A lower bound of what passed: waits only ever get longer.
#[tokio::test]
async fn an_api_that_names_a_wait_is_not_asked_before_it_is_over() {
    let account = Address::basechain([8; 32]);
    let v3 = json!({ "accounts": [] });
    let v2 = json!({ "ok": true, "result": { "state": "uninitialized", "balance": "0" } });
    for (version, answer) in [("v3", v3), ("v2/jsonRPC", v2)] {
        let busy = (429, Some(1), json!({ "error": "Ratelimit exceed" }));
        let (url, asked) = scripted(vec![busy, (200, None, answer)]).await;
        let client = Toncenter::with_options(&format!("{url}/api/{version}"), NetworkId::TESTNET, options(0)).unwrap();
        let began = std::time::Instant::now();
        // What it says in the end does not matter here.
        let _ = client.account(&account).await;
        assert!(began.elapsed() >= Duration::from_secs(1), "{version} was asked again at once");
        assert_eq!(asked.lock().unwrap().len(), 2, "{version}");
    }
}

/// Time that passes when somebody waits for it, and only then.
#[derive(Default)]
struct Counted {
    now: Mutex<Duration>,
    waits: Mutex<Vec<Duration>>,
}

#[async_trait::async_trait]
impl Timer for Counted {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    async fn wait(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
        self.waits.lock().unwrap().push(time);
    }
}

impl Counted {
    fn waits(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.waits.lock().unwrap())
    }
}

/// A client with the usual back-off, and its time.
fn counted(url: &str, spacing: Duration) -> (Toncenter, Arc<Counted>) {
    let timer = Arc::new(Counted::default());
    let options = Options {
        clock: Arc::new(ManualClock::new(UnixTime(1_000))),
        timer: timer.clone(),
        spacing: Some(spacing),
        ..Options::default()
    };
    (Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options).unwrap(), timer)
}

#[tokio::test]
async fn an_api_gets_exactly_the_time_it_asks_for_and_no_more_than_half_a_minute() {
    let secs = Duration::from_secs;
    let busy = |after| (429, after, json!({ "error": "Ratelimit exceed" }));
    let good = || (200, None, head_v3(7, 1_000, -3));
    for (asked, waited) in [(1, 1), (7, 7), (30, 30), (31, 30), (86_400, 30), (u32::MAX, 30)] {
        let (url, log) = scripted(vec![busy(Some(asked)), good()]).await;
        let (client, timer) = counted(&url, Duration::ZERO);
        assert_eq!(client.head().await.unwrap().seqno, 7);
        assert_eq!((timer.waits(), log.lock().unwrap().len()), (vec![secs(waited)], 2), "Retry-After: {asked}");
    }
    // Without a wish: a random part of half a second, a second, two, four.
    let (url, log) = scripted(vec![busy(None)]).await;
    let (client, timer) = counted(&url, Duration::ZERO);
    client.head().await.unwrap_err();
    let (waits, bounds) = (timer.waits(), [500, 1_000, 2_000, 4_000].map(Duration::from_millis));
    assert_eq!((waits.len(), log.lock().unwrap().len()), (4, 5));
    assert!(waits.iter().zip(bounds).all(|(wait, most)| *wait <= most), "{waits:?}");
    assert!(waits.iter().sum::<Duration>() > Duration::ZERO);
}

/// The other form of the header is a date, by the clock of whoever sends it, which says in `Date` what that shows.
#[tokio::test]
async fn an_api_may_name_the_time_as_a_date() {
    let after = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (date, waited) in [
        ("Sun, 06 Nov 1994 08:49:20 GMT", 17),
        ("Sun, 06 Nov 1994 07:00:00 GMT", 30),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun, 06 Nov 1994 09:00:00 GMT", 0),
    ] {
        let asked = Arc::new(Mutex::new(0));
        let count = asked.clone();
        let handler = async move || {
            let mut count = count.lock().unwrap();
            *count += 1;
            let response = axum::http::Response::builder();
            match *count {
                1 => response.status(429).header("retry-after", after).header("date", date).body("{}".to_owned()),
                _ => response.body(head_v3(7, 1_000, -3).to_string()),
            }
            .unwrap()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
        let (client, timer) = counted(&url, Duration::ZERO);
        assert_eq!(client.head().await.unwrap().seqno, 7);
        let waits = timer.waits();
        assert_eq!(waits.iter().sum::<Duration>(), Duration::from_secs(waited), "{date}");
        assert_eq!(*asked.lock().unwrap(), 2);
    }
}

#[tokio::test]
async fn a_wait_that_an_api_names_holds_for_every_question_and_for_the_pace() {
    let secs = Duration::from_secs;
    let busy = (503, Some(10), json!({}));
    let script = [vec![busy; 5], vec![(200, None, head_v3(7, 1_000, -3))]].concat();
    let (url, log) = scripted(script).await;
    let (client, timer) = counted(&url, secs(1));
    client.head().await.unwrap_err();
    assert_eq!((timer.waits(), log.lock().unwrap().len()), (vec![secs(10); 4], 5));
    // Given up; what is asked next waits for the last wish all the same, and what comes then keeps the pace.
    assert_eq!(client.head().await.unwrap().seqno, 7);
    assert_eq!(timer.waits(), [secs(10)]);
    client.head().await.unwrap();
    client.head().await.unwrap();
    assert_eq!(timer.waits(), [secs(1), secs(1)]);
    *timer.now.lock().unwrap() += secs(5);
    client.head().await.unwrap();
    assert_eq!(timer.waits(), [], "it was idle for longer than that");
}

#[tokio::test]
async fn an_old_block_and_one_that_goes_back_and_another_network_are_refused() {
    let at = |script: Script| async {
        let (url, _) = scripted(script).await;
        Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(2_000)).unwrap()
    };
    let client = at(vec![(200, None, head_v3(7, 1_940, -3))]).await;
    assert!(client.head().await.is_ok(), "60 s are not too old");
    let error = at(vec![(200, None, head_v3(7, 1_939, -3))]).await.head().await.unwrap_err().to_string();
    assert!(error.contains("61 s old"), "{error}");

    // A server that lags behind another of the same name is asked again; one that stays back is refused.
    let ok = |seqno| (200, None, head_v3(seqno, 2_000, -3));
    let client = at(vec![ok(9), ok(8), ok(10)]).await;
    assert_eq!(client.head().await.unwrap().seqno, 9);
    assert_eq!(client.head().await.unwrap().seqno, 10);
    let client = at(vec![ok(9), ok(8)]).await;
    client.head().await.unwrap();
    let error = client.head().await.unwrap_err().to_string();
    assert!(error.contains("newest block is 8") && error.contains("shown 9"), "{error}");

    let client = at(vec![(200, None, head_v3(7, 2_000, -239))]).await;
    let error = client.check_network().await.unwrap_err().to_string();
    assert!(error.contains("it is mainnet, and you named testnet"), "{error}");
}

/// A real trace, as the local chain's index tells it.
async fn real_trace() -> Value {
    let (chain, [_, client]) = served().await;
    let payer = Account::new(client, GIVER).unwrap();
    let report = payer.send(Address::basechain([7; 32]), Nanoton(1), None, None).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut connection = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(rpc::serve(listener, chain));
    let get = format!("GET /api/v3/traces?msg_hash={} HTTP/1.0\r\n\r\n", hex::encode(report.message));
    connection.write_all(get.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The same trace, in which transactions from this one on (by their order) are guesses about blocks to come.
fn emulated_from(trace: &Value, from: usize) -> Value {
    let mut changed = trace.clone();
    let trace = &mut changed["traces"][0];
    let order = trace["transactions_order"].as_array().unwrap().clone();
    for hash in &order[from..] {
        trace["transactions"][hash.as_str().unwrap()]["emulated"] = json!(true);
    }
    changed
}

#[tokio::test]
async fn a_trace_is_finished_when_all_of_it_is_in_blocks() {
    let ask = async |answer: Value| {
        let (url, _) = scripted(vec![(200, None, answer)]).await;
        let client = Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(0)).unwrap();
        client.trace(&[1; 32]).await.unwrap()
    };
    let whole = real_trace().await;
    let known = ask(whole.clone()).await.unwrap();
    assert!(known.finished && known.transactions.len() > 1);
    let with = |path: &str, value: Value| {
        let mut changed = whole.clone();
        *changed.pointer_mut(&format!("/traces/0{path}")).unwrap() = value;
        changed
    };
    for (path, value) in [
        ("/is_incomplete", json!(true)),
        ("/trace_info/trace_state", json!("pending")),
        ("/trace_info/pending_messages", json!(1)),
    ] {
        let trace = ask(with(path, value)).await.unwrap();
        assert!(!trace.finished, "{path}");
        assert_eq!(trace.transactions, known.transactions, "{path}");
    }
    let half = ask(emulated_from(&whole, 1)).await.unwrap();
    assert!(!half.finished);
    assert_eq!(half.transactions, known.transactions[..1], "what is only a guess has not happened");
    assert_eq!(ask(emulated_from(&whole, 0)).await, None);
}

#[tokio::test]
async fn a_message_whose_answer_got_lost_is_looked_for_and_only_the_same_bytes_are_sent_again() {
    let request = Wallet::new(GIVER, NetworkId::TESTNET).unwrap().request(0, START, &[], true).unwrap();
    let arrived = real_trace().await;
    let none = json!({ "traces": [] });
    let refused = json!({ "error": "LITE_SERVER_UNKNOWN: cannot apply external message: exitcode=133" });
    // Lost, sent again, refused as a replay: the first had arrived.
    let (url, asked) =
        scripted(vec![(503, None, json!({})), (500, None, refused.clone()), (200, None, arrived.clone())]).await;
    let client = Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(0)).unwrap();
    assert_eq!(client.send(request.clone()).await.unwrap(), request.repr_hash().0);
    let asked = asked.lock().unwrap().clone();
    assert!(
        asked[0].starts_with("/api/v3/message") && asked[0] == asked[1] && asked[2].contains("/traces"),
        "{asked:?}"
    );

    // Its block is a moment ahead of what is asked for its trace.
    for before in [vec![none.clone()], vec![none.clone(), emulated_from(&arrived, 0), none.clone()]] {
        let lost = vec![(503, None, json!({})), (500, None, refused.clone())];
        let seen = before.into_iter().chain([arrived.clone()]).map(|trace| (200, None, trace));
        let (url, _) = scripted(lost.into_iter().chain(seen).collect()).await;
        let client = Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(0)).unwrap();
        assert_eq!(client.send(request.clone()).await.unwrap(), request.repr_hash().0);
    }

    // No trace of it, or only a guess of what it would do, or no answer: nobody knows, and nobody says that it was refused.
    let silent = (500, None, json!({ "error": "the index is away" }));
    for (trace, questions) in [((200, None, none), 5), ((200, None, emulated_from(&arrived, 0)), 5), (silent, 1)] {
        let (url, asked) = scripted(vec![(503, None, json!({})), (500, None, refused.clone()), trace]).await;
        let client = Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(0)).unwrap();
        let error = client.send(request.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Api { .. }) && error.to_string().contains("may still arrive"), "{error}");
        assert_eq!(asked.lock().unwrap().len(), 2 + questions);
    }

    // What is refused at once was taken in by nobody.
    let (url, _) = scripted(vec![(500, None, refused)]).await;
    let client = Toncenter::with_options(&format!("{url}/api/v3"), NetworkId::TESTNET, options(0)).unwrap();
    assert!(matches!(client.send(request).await, Err(Error::NotAccepted { exit_code: 133, .. })));
}

#[tokio::test]
async fn whatever_a_server_answers_the_error_names_the_question() {
    let nonsense = [
        json!(null),
        json!([]),
        json!({}),
        json!({ "ok": true, "result": {} }),
        json!({ "ok": false, "error": "no" }),
        json!({ "last": { "seqno": -1, "root_hash": "!", "gen_utime": "x" }, "blocks": [{}], "accounts": [{ "status": "active" }],
                "transactions": [{}], "traces": [{ "transactions_order": ["x"], "transactions": {} }], "exit_code": 0, "gas_used": 1,
                "stack": [{ "type": "cell", "value": "!" }] }),
    ];
    let account = Address::basechain([1; 32]);
    for answer in nonsense {
        for version in ["v2/jsonRPC", "v3"] {
            let (url, _) = scripted(vec![(200, None, answer.clone())]).await;
            let client =
                Toncenter::with_options(&format!("{url}/api/{version}"), NetworkId::TESTNET, options(0)).unwrap();
            let empty = answer == json!({}) || answer == json!([]) || answer.is_null();
            assert!(client.head().await.is_err(), "head: {answer}");
            assert!(client.account(&account).await.is_err(), "account: {answer}");
            assert!(client.block(3).await.is_err(), "block: {answer}");
            assert!(client.run_get(&account, "seqno", Vec::new()).await.is_err(), "get: {answer}");
            assert!(client.transactions(&account, 3).await.is_err(), "transactions: {answer}");
            assert!(client.check_network().await.is_err(), "network: {answer}");
            if version == "v3" {
                assert!(client.trace(&[1; 32]).await.is_err(), "trace: {answer}");
            }
            assert!(!empty || client.head().await.is_err());
        }
    }
}
