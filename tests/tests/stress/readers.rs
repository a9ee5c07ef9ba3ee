//! Readers that are slow, that do not read, and that go away.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_protocol::sealed::request_id;
use cocoon_settlement::Nanoton;

use super::enclave::{DEADLINE, Enclave, in_turn, long, wordy};
use super::world::{Client, PRICES, Reply, Sealed, claims};

/// Nanoton for so many prompt and generated tokens, at prices of whole nanoton a token.
fn charge(prompt: u64, completion: u64) -> Nanoton {
    Nanoton((PRICES.prompt * prompt + PRICES.completion * completion) / 1_000_000)
}

/// Reads a little at a time.
fn slowly(mut stream: TcpStream, finished: &AtomicBool) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4_096]);
    while let length @ 1.. = stream.read(&mut piece).unwrap() {
        bytes.extend_from_slice(&piece[..length]);
        std::thread::sleep(Duration::from_millis(20));
    }
    finished.store(true, Ordering::Relaxed);
    bytes
}

#[test]
fn who_reads_slowly_or_not_at_all_holds_up_nobody_and_nothing_grows() {
    const TOKENS: u64 = 700;
    let _turn = in_turn();
    let enclave = Enclave::shared();
    let evidence = &enclave.evidence;
    let other = Client::new(evidence, 60);
    let ask = || {
        let answer = enclave.ask(other.chat(evidence, ""));
        (answer.json()["choices"][0]["message"]["content"].clone(), answer.receipt.unwrap().receipt.tokens.prompt)
    };
    let (alone, prompt) = ask();
    let before = enclave.resident();

    // Two and a half megabytes: the kernel takes some two of them for a reader that does not.
    let deaf = Client::new(evidence, 61);
    let unread = enclave.send(&deaf.chat(evidence, &(wordy(TOKENS) + r#","n":2"#)));
    let mut sealed = Client::new(evidence, 63).chat(evidence, &wordy(200));
    let stream = enclave.send(&sealed);
    let finished = Arc::new(AtomicBool::new(false));
    let reading = {
        let finished = finished.clone();
        std::thread::spawn(move || slowly(stream, &finished))
    };
    for _ in 0..5 {
        assert_eq!(ask().0, alone, "the answer to others is the one that they get alone");
    }
    assert_eq!(enclave.receipt(&deaf), None, "the answer that nobody reads has not ended");
    assert!(!finished.load(Ordering::Relaxed), "the slow reader is still reading");
    let grown = enclave.resident().saturating_sub(before);
    println!("{} KB more with one answer unread and one half read", grown >> 10);
    assert!(grown < 32 << 20, "{} MB more for two answers", grown >> 20);

    let answer = sealed.open(&Reply::parse(&reading.join().unwrap()));
    let receipt = answer.receipt.unwrap();
    assert_eq!(receipt.verify(&claims(evidence).enclave_key).unwrap().tokens.completion, 200);
    assert!(answer.body.ends_with(b"data: [DONE]\n\n"), "slow or not, it gets the whole answer");
    drop(unread);
    let receipt = enclave.receipt_after(&deaf, 0);
    assert_eq!(receipt.total, charge(prompt, 2 * TOKENS), "all of it was generated, read or not");
    // Whatever was kept for them is free for the next ones.
    let between = enclave.resident();
    for number in [64, 65] {
        let client = Client::new(evidence, number);
        let stream = enclave.send(&client.chat(evidence, &wordy(300)));
        assert_eq!(ask().0, alone);
        drop(stream);
        enclave.receipt_after(&client, 0);
    }
    let grown = enclave.resident().saturating_sub(between);
    println!("{} KB more after two more", grown >> 10);
    assert!(grown < 8 << 20, "{} MB more after the same again", grown >> 20);
}

/// What of an answer has been sealed so far, opened: the number of its tokens, each of which has scores.
fn scored_tokens(sealed: &mut Sealed, bytes: Vec<u8>) -> u64 {
    let opener = sealed.opener.take().expect("opened once");
    futures::executor::block_on(async {
        let mut answer = opener.open(futures::io::Cursor::new(bytes)).unwrap();
        assert_eq!(answer.head().await.unwrap().status, 200);
        let mut body = String::new();
        while let Ok(Some(piece)) = answer.next().await {
            body.push_str(std::str::from_utf8(&piece).unwrap());
        }
        body.matches(r#""top_logprobs":[]"#).count() as u64
    })
}

#[test]
fn who_goes_away_pays_for_what_came_and_what_was_on_its_way() {
    let _turn = in_turn();
    let enclave = Enclave::shared();
    let evidence = &enclave.evidence;
    let client = Client::new(evidence, 66);
    let first = enclave.ask(client.chat(evidence, "")).receipt.unwrap().receipt;
    let mut sealed = client.chat(evidence, &(long(900) + r#","logprobs":true"#));
    let mut stream = enclave.send(&sealed);
    let (mut frames, mut decoder, mut bytes) = (0, Decoder::new(), Vec::new());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    // The head, who speaks, and forty tokens. Whoever hangs up then still reads what was sent before that was noticed.
    let (mut piece, mut gone) = ([0; 4_096], false);
    loop {
        if frames >= 42 && !gone {
            stream.shutdown(Shutdown::Write).unwrap();
            gone = true;
        }
        let length = stream.read(&mut piece).unwrap();
        if length == 0 {
            assert!(gone, "it goes on for as long as somebody reads");
            break;
        }
        decoder.push(&piece[..length]);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let Frame::Sealed(sealed) = frame else { panic!("a receipt in the middle") };
            bytes.extend_from_slice(&sealed);
            frames += 1;
        }
    }
    drop(stream);
    let read = scored_tokens(&mut sealed, bytes);
    let receipt = enclave.receipt_after(&client, 1);
    let charged = receipt.total.checked_sub(first.settlement.receipt.total).unwrap();
    let charged = charged.checked_sub(charge(first.tokens.prompt, 0)).unwrap().0 / charge(0, 1).0;
    println!("{read} tokens read and {charged} charged");
    assert!(charged >= read && read >= 20, "{read} tokens came and {charged} are charged");
    // What was on its way: no more than waits for the host at most. What is charged is what the engine chose, to the token: see its own tests.
    assert!(charged <= read + 20, "{read} tokens came and {charged} are charged");
    // It has stopped: nothing is charged any more, and others are answered.
    enclave.ask(Client::new(evidence, 67).chat(evidence, "")).receipt.unwrap();
    assert_eq!(enclave.receipt(&client), Some(receipt));
}

/// A place in the queue costs nothing: whoever leaves it before the engine has begun pays for nothing, and whoever asked for several answers for
/// those that it has begun.
#[test]
fn who_leaves_the_queue_pays_for_what_was_begun_and_not_for_what_waits() {
    let _turn = in_turn();
    let enclave = Enclave::start("concurrent = 1\nwaiting = 40\n");
    let evidence = &enclave.evidence;
    let prompt = "word ".repeat(250);
    let ask = |client: &Client, prompts: usize, tokens: u64| {
        let body = serde_json::json!({"model": "cocoon-demo", "prompt": vec![prompt.as_str(); prompts], "max_tokens": tokens, "stream": true,
            "temperature": 0, "logprobs": 5, "logit_bias": {"0": -100, "2": -100}});
        client.seal(evidence, "POST", "/v1/completions", &body.to_string())
    };
    let one = enclave.ask(ask(&Client::new(evidence, 130), 1, 1)).receipt.unwrap().receipt.tokens.prompt;
    assert!(one > 200, "{one} tokens");

    // Eight answers, one after another, in front of everybody else.
    let first = Client::new(evidence, 131);
    let many = ask(&first, 8, 400);
    let running = request_id(&many.body).unwrap();
    let mut busy = enclave.send(&many);
    let mut some = [0; 2_000];
    busy.read_exact(&mut some).unwrap();
    let second = Client::new(evidence, 132);
    let waiting = ask(&second, 3, 100);
    let request = request_id(&waiting.body).unwrap();
    let stream = enclave.send(&waiting);
    enclave.accepted(&second, &request);
    std::thread::sleep(Duration::from_millis(50));
    drop(stream);
    assert_eq!(enclave.ended(&second, &request), None, "nothing was computed, and nothing is charged");
    assert_eq!(enclave.receipt_with(&first, &running), Err(202), "the queue was never empty meanwhile");

    drop(busy);
    let charged = enclave.ended(&first, &running).expect("what was begun is charged").total.0;
    println!("{charged} nanoton for what was begun of 8 prompts of {one} tokens");
    // At most half of the eight had begun, with all of their tokens.
    assert!(charged > charge(one, 0).0 && charged < charge(4 * one, 4 * 400).0, "{charged} nanoton");
    let generated =
        |begun: u64| charged.checked_sub(charge(begun * one, 0).0).filter(|left| left % charge(0, 1).0 == 0);
    assert!((1..=4).any(|begun| generated(begun).is_some()), "{charged} nanoton are for no whole prompts");
    enclave.ask(ask(&second, 1, 1)).receipt.expect("its reservation is free again");
}

/// What nobody has read is thoughts where the model thought, and has their price.
#[test]
fn thoughts_that_nobody_read_are_charged_as_thoughts() {
    let _turn = in_turn();
    let enclave = Enclave::thinking("");
    let evidence = &enclave.evidence;
    let prompt =
        enclave.ask(Client::new(evidence, 133).chat(evidence, r#","max_tokens":4"#)).receipt.unwrap().receipt.tokens;
    assert_eq!((prompt.completion, prompt.reasoning), (0, 4), "it does nothing but think");
    let mut client = Client::new(evidence, 134);
    client.voucher.prices.reasoning = 1_000 * client.voucher.prices.completion;
    let sealed = client.chat(evidence, &(wordy(900) + r#","n":4"#));
    let request = request_id(&sealed.body).unwrap();
    let mut stream = enclave.send(&sealed);
    // A little is read; the kernel takes some two megabytes of the rest, and more than as much is generated.
    stream.read_exact(&mut [0; 2_000]).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    drop(stream);
    let charged = enclave.ended(&client, &request).unwrap().total.0 - charge(prompt.prompt, 0).0;
    let thought = client.voucher.prices.reasoning / 1_000_000;
    println!("{} thoughts charged, and {} nanoton more", charged / thought, charged % thought);
    assert!(charged >= 5 * thought && charged <= 4 * 900 * thought, "{charged} nanoton");
    assert_eq!(charged % thought, 0, "something was charged at another price");
}

/// What nobody reads has a bound for each answer, whatever its tokens come with: beyond it the reader counts as gone, and pays for what was
/// generated until then.
#[test]
fn an_answer_that_nobody_reads_is_given_up_where_it_takes_too_much() {
    const TOKENS: u64 = 900;
    const CHOICES: u64 = 8;
    let _turn = in_turn();
    // One answer may have 768 KiB waiting, beside what the kernel takes for its reader.
    let enclave = Enclave::start("unread_mib = 4\n");
    let evidence = &enclave.evidence;
    let prompt = enclave.ask(Client::new(evidence, 68).chat(evidence, "")).receipt.unwrap().receipt.tokens.prompt;
    // As many bytes as a thousand tokens can be: 7,200 tokens with 21 scores each take 20 MB while they wait.
    let more = wordy(TOKENS) + &format!(r#","n":{CHOICES}"#);
    let before = enclave.resident();
    let unread: Vec<_> = [110, 111, 112]
        .into_iter()
        .map(|number| {
            let client = Client::new(evidence, number);
            let sealed = client.chat(evidence, &more);
            let request = request_id(&sealed.body).unwrap();
            (enclave.send(&sealed), client, request)
        })
        .collect();
    let mut most = 0;
    for (stream, client, request) in &unread {
        let deadline = Instant::now() + DEADLINE;
        let receipt = loop {
            most = most.max(enclave.resident().saturating_sub(before));
            match enclave.receipt_with(client, request) {
                Ok(receipt) => break receipt,
                Err(status) => assert!(status == 202 && Instant::now() < deadline, "status {status}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let generated = receipt.total.0.checked_sub(charge(prompt, 0).0).unwrap() / charge(0, 1).0;
        println!("{generated} tokens were generated");
        assert!(generated > 0 && generated < CHOICES * TOKENS, "{generated} tokens, as if somebody had read them");
        assert_eq!(receipt.sequence, 1);
        assert_eq!(stream.peek(&mut [0]).unwrap(), 1, "what came of it can still be read");
    }
    println!("{} KB more for three answers that nobody reads", most >> 10);
    assert!(most < 16 << 20, "{} MB more for three answers", most >> 20);
    // Others are answered whole meanwhile.
    let answer = enclave.ask(Client::new(evidence, 113).chat(evidence, &wordy(100)));
    assert!(answer.body.ends_with(b"data: [DONE]\n\n"));
}

/// A whole answer is kept until it is whole, so one that could take too much is refused before it costs anything.
#[test]
fn a_whole_answer_that_could_take_too_much_is_refused_and_streamed_it_is_not() {
    let _turn = in_turn();
    let enclave = Enclave::start("unread_mib = 4\n");
    let (evidence, client) = (&enclave.evidence, Client::new(&enclave.evidence, 114));
    let ask = |more: &str| enclave.ask(client.chat(evidence, more));
    // 768 KiB are 233 tokens of 21 scores.
    let refused = ask(r#","logprobs":true,"top_logprobs":20,"max_tokens":300"#);
    let error = &refused.json()["error"];
    assert_eq!((refused.head.status, error["param"].as_str()), (400, Some("logprobs")), "{error}");
    assert!(refused.receipt.is_none());
    for more in ["\"max_tokens\":200", "\"max_tokens\":300,\"stream\":true"] {
        let answer = ask(&format!(r#","logprobs":true,"top_logprobs":20,{more}"#));
        assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
}

/// Nobody has to say how long an answer may be: what is kept until it is whole ends where no more can be kept.
#[test]
fn a_whole_answer_without_a_limit_ends_where_no_more_can_be_kept() {
    let _turn = in_turn();
    let enclave = Enclave::start("unread_mib = 4\n");
    let (evidence, client) = (&enclave.evidence, Client::new(&enclave.evidence, 116));
    // As before: 768 KiB are 233 tokens of 21 scores.
    let scores = r#","logprobs":true,"top_logprobs":20"#;
    let short = enclave.ask(client.chat(evidence, scores));
    assert_eq!(short.json()["choices"][0]["finish_reason"], "stop", "whatever it could have become");
    let endless = enclave.ask(client.chat(evidence, &format!(r#"{scores},"logit_bias":{{"0":-100,"2":-100}}"#)));
    assert_eq!(endless.json()["choices"][0]["finish_reason"], "length");
    let receipt = endless.receipt.unwrap().receipt;
    assert_eq!((receipt.tokens.completion, receipt.finish_reason.as_str()), (233, "length"));
}

/// Tokens can be longer than was reckoned with: the answer ends there, with all its choices, and what is in it is charged.
#[test]
fn a_whole_answer_that_becomes_longer_than_reckoned_is_cut_and_charged() {
    let _turn = in_turn();
    // 256 KiB, or 32,768 tokens of 8 bytes.
    let enclave = Enclave::start("unread_mib = 0\n");
    let (evidence, client) = (&enclave.evidence, Client::new(&enclave.evidence, 117));
    let (token, length) = longest_token();
    assert!(length > 10, "no token is longer than reckoned with");
    let body = serde_json::json!({"model": "cocoon-demo", "prompt": vec!["the"; 64], "n": 8, "max_tokens": 64,
        "temperature": 0, "logit_bias": {token.to_string(): 100}});
    let answer = enclave.ask(client.seal(evidence, "POST", "/v1/completions", &body.to_string()));
    assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let choices = answer.json()["choices"].take();
    let choices = choices.as_array().unwrap();
    assert_eq!(choices.len(), 512);
    assert!(choices.iter().all(|choice| choice["finish_reason"] == "length"));
    let text = |choice: &serde_json::Value| choice["text"].as_str().unwrap().len() as u64;
    let kept = choices.iter().map(text).sum::<u64>();
    // But for what was on its way when no more could be kept.
    assert!((252 << 10..(256 << 10) + 100).contains(&kept), "{kept} bytes");
    let tokens = answer.receipt.unwrap().receipt.tokens.completion;
    assert!(tokens < 64 * 512 && tokens.abs_diff(kept / length) <= 1, "{tokens} tokens of {length} bytes charged");
}

/// The demo model's longest token that is a word or a part of one, and the length of its text in bytes.
fn longest_token() -> (u64, u64) {
    let tokenizer = std::fs::read(cocoon_tests::demo_model().join("tokenizer.json")).unwrap();
    let tokenizer: serde_json::Value = serde_json::from_slice(&tokenizer).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    // How a tokenizer writes a space before a word.
    let letters = |word: &str| word.strip_prefix('\u{120}').unwrap_or(word).chars().all(|c| c.is_ascii_alphabetic());
    let words = vocabulary.iter().filter(|(word, _)| letters(word));
    let (word, token) = words.max_by_key(|(word, _)| word.chars().count()).unwrap();
    (token.as_u64().unwrap(), word.chars().count() as u64)
}

/// Vectors are computed one after another: with nobody there to read them, no more are, and those that were are paid for.
#[test]
fn vectors_that_nobody_waits_for_are_not_computed_and_the_others_are_charged() {
    const INPUTS: u64 = 64;
    let _turn = in_turn();
    let enclave = Enclave::embedding("");
    let evidence = &enclave.evidence;
    let body = serde_json::json!({"model": "cocoon-demo", "input": vec!["who can read my prompt ".repeat(30); INPUTS as usize]});
    let seal = |client: &Client| client.seal(evidence, "POST", "/v1/embeddings", &body.to_string());
    let started = Instant::now();
    let whole = enclave.ask(seal(&Client::new(evidence, 118))).receipt.unwrap().receipt;
    let took = started.elapsed();
    let each = whole.tokens.prompt / INPUTS;
    assert_eq!((whole.tokens.prompt % INPUTS, whole.tokens.completion), (0, 0));

    let client = Client::new(evidence, 119);
    let sealed = seal(&client);
    let request = request_id(&sealed.body).unwrap();
    let stream = enclave.send(&sealed);
    while enclave.receipt_with(&client, &request) != Err(202) {
        assert!(started.elapsed() < DEADLINE, "the request was not opened");
    }
    std::thread::sleep(took / 4);
    drop(stream);
    let deadline = Instant::now() + DEADLINE;
    let charged = loop {
        match enclave.receipt_with(&client, &request) {
            Ok(receipt) => break receipt.total,
            Err(status) => assert!(status == 202 && Instant::now() < deadline, "status {status}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let computed = charged.0 / charge(each, 0).0;
    println!("{computed} of {INPUTS} vectors computed in a quarter of {took:?}");
    assert_eq!(charged, charge(computed * each, 0), "whole vectors");
    assert!((1..INPUTS).contains(&computed), "{computed} of {INPUTS} vectors");
    // Others are answered, and nothing more is charged.
    enclave.ask(seal(&Client::new(evidence, 120))).receipt.unwrap();
    assert_eq!(enclave.receipt(&client).map(|receipt| receipt.total), Some(charged));
}

/// Whatever a request for vectors is refused for is found before the first is computed, which nobody would pay for.
#[test]
fn vectors_that_would_be_refused_are_not_computed_first() {
    let _turn = in_turn();
    let enclave = Enclave::embedding("");
    let (evidence, client) = (&enclave.evidence, Client::new(&enclave.evidence, 135));
    let ask = |input: &serde_json::Value, more: &serde_json::Value| {
        let mut body = serde_json::json!({"model": "cocoon-demo", "input": input});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let sealed = client.seal(evidence, "POST", "/v1/embeddings", &body.to_string());
        let started = Instant::now();
        (enclave.ask(sealed), started.elapsed())
    };
    let none = serde_json::json!({});
    let long = serde_json::json!("who can read my prompt ".repeat(120));
    let mut inputs = vec![long; 63];
    let (whole, took) = ask(&inputs.clone().into(), &serde_json::json!({"dimensions": 128}));
    let paid = whole.receipt.expect("what is computed is paid for").receipt.settlement.receipt;
    let refused = |(answer, refused): (super::world::Answer, Duration), param: &str, least: &str| {
        let error = answer.json()["error"].take();
        assert_eq!((answer.head.status, error["param"].as_str()), (400, Some(param)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(least), "{error}");
        assert!(answer.receipt.is_none());
        println!("{took:?} for 63 vectors, {refused:?} for a refusal");
        assert!(refused < took / 3, "{refused:?}: something was computed");
    };
    refused(ask(&inputs.clone().into(), &serde_json::json!({"dimensions": 64})), "dimensions", "128");
    // The last one is a single token.
    inputs.push(serde_json::json!([5]));
    refused(ask(&inputs.into(), &none), "input", "one token");
    // As many texts as may be, and more tokens than may.
    let tokens = vec![serde_json::json!(vec![5; 1_000]); 301];
    refused(ask(&tokens.into(), &none), "input", "300000");
    assert_eq!(enclave.receipt(&client), Some(paid), "no refusal was charged");
    let many: Vec<_> = (0..2_048).map(|number| format!("text {number}")).collect();
    let (answer, _) = ask(&serde_json::json!(many), &none);
    assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(2_048));
    assert_eq!(answer.json()["data"][2_047]["index"], 2_047);
}

/// A host whose client hung up must not take another answer's receipt for the one that it waits for.
#[test]
fn a_receipt_is_given_out_for_a_request_only_once_that_has_ended() {
    let _turn = in_turn();
    let enclave = Enclave::shared();
    let (evidence, client) = (&enclave.evidence, Client::new(&enclave.evidence, 115));
    let unread = client.chat(evidence, &(wordy(700) + r#","n":2"#));
    let request = request_id(&unread.body).unwrap();
    enclave.ask(client.chat(evidence, "")).receipt.unwrap();
    assert_eq!(enclave.receipt_with(&client, &request), Err(404), "before it was sent, whatever else was charged");
    let stream = enclave.send(&unread);
    stream.peek(&mut [0]).unwrap();
    assert_eq!(enclave.receipt_with(&client, &request), Err(202));
    let other = enclave.ask(client.chat(evidence, "")).receipt.unwrap().receipt.settlement.receipt;
    assert_eq!(enclave.receipt(&client).unwrap(), other, "the other one has ended");
    assert_eq!(enclave.receipt_with(&client, &request), Err(202), "and this one has not");
    drop(stream);
    let deadline = Instant::now() + DEADLINE;
    let last = loop {
        match enclave.receipt_with(&client, &request) {
            Ok(receipt) => break receipt,
            Err(status) => assert!(status == 202 && Instant::now() < deadline, "status {status}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(last.sequence == 3 && last.total > other.total, "all are in it");
}
