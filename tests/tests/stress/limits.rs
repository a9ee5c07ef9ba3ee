//! Channels that ask for more than their share, and a queue that is full.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::enclave::{DEADLINE, Enclave, in_turn, long, reply};
use super::world::{Answer, Client};

/// Seconds that a refusal asks to wait; checks that it is one for asking too much, and cost nothing.
fn wait(answer: &Answer, code: &str) -> u64 {
    assert_eq!(answer.head.status, 429, "{}", String::from_utf8_lossy(&answer.body));
    let error = &answer.json()["error"];
    assert_eq!((error["code"].as_str(), error["type"].as_str()), (Some(code), Some("rate_limit_error")));
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 20) && error["param"].is_null());
    assert!(answer.receipt.is_none() && answer.settlement.is_none(), "a refusal is free");
    let after = answer.head.headers.iter().find(|(name, _)| name == "retry-after").expect("retry-after");
    let seconds = after.1.parse().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "wait {seconds} s");
    seconds
}

/// Asks as a client should that is told to wait, and must be answered in the end.
fn answered(enclave: &Enclave, client: &Client, code: &str) {
    for _ in 0..10 {
        let answer = enclave.ask(client.chat(&enclave.evidence, r#","max_tokens":4"#));
        if answer.head.status == 200 {
            return;
        }
        std::thread::sleep(Duration::from_secs(wait(&answer, code)));
    }
    panic!("it waited as often as it was told to, and is still refused");
}

/// A request under way: its answer has begun, and is read no further.
fn begun(enclave: &Enclave, client: &Client) -> TcpStream {
    let stream = enclave.send(&client.chat(&enclave.evidence, &long(400)));
    // The head of the HTTP response may come before the request is let in; the sealed head, after.
    let mut seen = [0; 200];
    while stream.peek(&mut seen).unwrap() < seen.len() {
        std::thread::sleep(Duration::from_millis(1));
    }
    stream
}

#[test]
fn a_channel_with_its_share_of_requests_running_waits_and_others_do_not() {
    let _turn = in_turn();
    let enclave = Enclave::start("channel_concurrent = 2\n");
    let (greedy, modest) = (Client::new(&enclave.evidence, 70), Client::new(&enclave.evidence, 71));
    let mut running = vec![begun(&enclave, &greedy), begun(&enclave, &greedy)];
    let third = enclave.ask(greedy.chat(&enclave.evidence, ""));
    assert_eq!(wait(&third, "rate_limit_exceeded"), 1);
    assert_eq!(enclave.ask(modest.chat(&enclave.evidence, "")).head.status, 200, "another channel is let in");
    running.pop();
    answered(&enclave, &greedy, "rate_limit_exceeded");
}

#[test]
fn a_full_queue_says_so_and_takes_requests_again() {
    let _turn = in_turn();
    // One that runs and nine that wait: as many as two channels may have.
    let enclave = Enclave::start("concurrent = 1\nwaiting = 9\nchannel_concurrent = 5\n");
    let clients = [72, 73].map(|number| Client::new(&enclave.evidence, number));
    let running: Vec<TcpStream> = clients.iter().cycle().take(10).map(|client| begun(&enclave, client)).collect();
    let late = Client::new(&enclave.evidence, 74);
    assert_eq!(wait(&enclave.ask(late.chat(&enclave.evidence, "")), "busy"), 1);
    assert_eq!(enclave.receipt(&late), None);
    drop(running);
    answered(&enclave, &late, "busy");
}

/// Of 512 answers that one request asks for, no more are in the queue at once than its channel may have: others find room, and it gets them all.
#[test]
fn a_request_for_many_answers_leaves_room_in_the_queue() {
    let _turn = in_turn();
    // Ten places, of which one channel may have four.
    let enclave = Enclave::start("concurrent = 1\nwaiting = 9\nchannel_concurrent = 4\n");
    let (greedy, modest) = (Client::new(&enclave.evidence, 77), Client::new(&enclave.evidence, 78));
    let many = |tokens: u64| {
        let body = json!({"model": "cocoon-demo", "prompt": vec!["the"; 64], "n": 8, "max_tokens": tokens, "temperature": 0,
            "logit_bias": {"0": -100, "2": -100}});
        greedy.seal(&enclave.evidence, "POST", "/v1/completions", &body.to_string())
    };
    let others_find_room = || {
        for _ in 0..3 {
            let answer = enclave.ask(modest.chat(&enclave.evidence, r#","max_tokens":1,"n":4"#));
            assert_eq!(answer.head.status, 200, "others find room");
        }
    };
    // Four long answers at a time, each of which keeps its place long enough to be seen there: the channel has no more room, and others have.
    let stream = enclave.send(&many(400));
    let deadline = Instant::now() + DEADLINE;
    let refused = loop {
        let answer = enclave.ask(greedy.chat(&enclave.evidence, r#","max_tokens":1"#));
        if answer.head.status != 200 {
            break answer;
        }
        assert!(Instant::now() < deadline, "it is never refused anything");
    };
    assert_eq!(wait(&refused, "rate_limit_exceeded"), 1);
    others_find_room();
    drop(stream);
    answered(&enclave, &greedy, "rate_limit_exceeded");
    // Short ones: there are places for all of them in the end, while others are answered.
    let mut sealed = many(4);
    let mut stream = enclave.send(&sealed);
    others_find_room();
    let answer = sealed.open(&reply(&mut stream));
    assert_eq!(answer.json()["choices"].as_array().map(Vec::len), Some(512));
    assert_eq!(answer.receipt.unwrap().receipt.tokens.completion, 512 * 4, "each of them was generated");
}

#[test]
fn a_request_for_many_vectors_takes_one_place() {
    let _turn = in_turn();
    let enclave = Enclave::embedding("concurrent = 1\nwaiting = 1\nchannel_concurrent = 1\n");
    let client = Client::new(&enclave.evidence, 79);
    let body = json!({"model": "cocoon-demo", "input": vec!["who can read it"; 64]});
    let answer = enclave.ask(client.seal(&enclave.evidence, "POST", "/v1/embeddings", &body.to_string()));
    assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(64));
}

#[test]
fn a_channel_that_used_up_its_tokens_waits_as_long_as_it_is_told() {
    // Four tokens a second.
    let enclave = Enclave::start("channel_tokens_per_minute = 240\n");
    let (greedy, modest) = (Client::new(&enclave.evidence, 75), Client::new(&enclave.evidence, 76));
    let ask = |client: &Client, tokens: u64| {
        let more = format!(r#","max_tokens":{tokens},"logit_bias":{{"0":-100,"2":-100}}"#);
        enclave.ask(client.chat(&enclave.evidence, &more))
    };
    // What is used counts when an answer has ended, so one is let in while anything is left.
    let used = ask(&greedy, 250).receipt.expect("the first is let in").receipt;
    assert_eq!(used.tokens.completion, 250);
    let refused = ask(&greedy, 1);
    let seconds = wait(&refused, "rate_limit_exceeded");
    assert_eq!(enclave.receipt(&greedy), Some(used.settlement.receipt), "the refusal is not charged");
    assert_eq!(ask(&modest, 1).head.status, 200, "another channel has its own tokens");
    std::thread::sleep(Duration::from_secs(seconds));
    assert_eq!(ask(&greedy, 1).head.status, 200, "after {seconds} s, as it was told");
}
