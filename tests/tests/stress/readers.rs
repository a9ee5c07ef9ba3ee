//! Readers that are slow, that do not read, and that go away.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cocoon_protocol::frame::{Decoder, Frame};
use cocoon_settlement::Nanoton;

use super::enclave::{Enclave, in_turn, long, parsed, wordy};
use super::world::{Client, PRICES, Sealed, claims};

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

    let answer = sealed.open(&parsed(&reading.join().unwrap()));
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

/// What of an answer has been sealed so far, opened: the number of its pieces of text.
fn pieces_of_text(sealed: &mut Sealed, bytes: Vec<u8>) -> u64 {
    let opener = sealed.opener.take().expect("opened once");
    futures::executor::block_on(async {
        let mut answer = opener.open(futures::io::Cursor::new(bytes)).unwrap();
        assert_eq!(answer.head().await.unwrap().status, 200);
        let mut body = String::new();
        while let Ok(Some(piece)) = answer.next().await {
            body.push_str(std::str::from_utf8(&piece).unwrap());
        }
        body.matches(r#""content":""#).count() as u64 - body.matches(r#""content":"""#).count() as u64
    })
}

#[test]
fn who_goes_away_pays_for_what_came_and_a_few_tokens_more() {
    let _turn = in_turn();
    let enclave = Enclave::shared();
    let evidence = &enclave.evidence;
    let client = Client::new(evidence, 66);
    let first = enclave.ask(client.chat(evidence, "")).receipt.unwrap().receipt;
    let mut sealed = client.chat(evidence, &long(900));
    let mut stream = enclave.send(&sealed);
    let (mut frames, mut decoder, mut bytes) = (0, Decoder::new(), Vec::new());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    // The head, who speaks, and forty pieces of text.
    while frames < 42 {
        let mut piece = [0; 4_096];
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "it goes on for as long as somebody reads");
        decoder.push(&piece[..length]);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let Frame::Sealed(sealed) = frame else { panic!("a receipt in the middle") };
            bytes.extend_from_slice(&sealed);
            frames += 1;
        }
    }
    drop(stream);
    let read = pieces_of_text(&mut sealed, bytes);
    let receipt = enclave.receipt_after(&client, 1);
    let charged = receipt.total.checked_sub(first.settlement.receipt.total).unwrap();
    let charged = charged.checked_sub(charge(first.tokens.prompt, 0)).unwrap().0 / charge(0, 1).0;
    println!("{read} tokens read and {charged} charged");
    assert!(charged >= read && read >= 20, "{read} tokens came and {charged} are charged");
    assert!(charged <= read + 50, "{read} tokens came and {charged} are charged");
    // It has stopped: nothing is charged any more, and others are answered.
    enclave.ask(Client::new(evidence, 67).chat(evidence, "")).receipt.unwrap();
    assert_eq!(enclave.receipt(&client), Some(receipt));
}
