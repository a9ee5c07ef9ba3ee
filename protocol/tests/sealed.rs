//! The sealed channel end to end, and each thing that can be wrong with it.

use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_protocol::Error;
use cocoon_protocol::sealed::{
    AnswerHead, ENC_LEN, Field, HEADER_LEN, InnerRequest, Receiver, RequestSealer, ResponseOpener, request_id,
};
use cocoon_protocol::statement::KeyStatement;
use futures::executor::block_on;
use futures::io::Cursor;

const NOW: UnixTime = UnixTime(1_000);

fn statement(receiver: &Receiver) -> KeyStatement {
    let key = receiver.rotate(NOW, 3600, 60).unwrap();
    KeyStatement {
        evidence_id: EvidenceId(Digest::ZERO),
        key_config: key.key_config,
        not_before: key.not_before,
        not_after: key.not_after,
    }
}

fn request() -> InnerRequest {
    InnerRequest {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: b"a prompt".to_vec().into(),
    }
}

fn sealed(receiver: &Receiver) -> (Vec<u8>, ResponseOpener) {
    RequestSealer::new(&statement(receiver)).unwrap().seal(&request()).unwrap()
}

/// The answer's sealed pieces, as they leave the enclave one after another.
fn answer(receiver: &Receiver, sealed: &[u8]) -> Vec<Vec<u8>> {
    let mut sealer = receiver.open(sealed, NOW).unwrap().sealer;
    let head = AnswerHead { status: 200, headers: vec![("content-type".into(), "text/event-stream".into())] };
    vec![
        sealer.head(&head).unwrap(),
        sealer.data(b"first ").unwrap(),
        sealer.data(b"second").unwrap(),
        sealer.finish(&[("cocoon-receipt".into(), "r".into())]).unwrap(),
    ]
}

fn open(opener: ResponseOpener, bytes: Vec<u8>) -> Result<(Vec<u8>, Vec<Field>), Error> {
    block_on(async {
        let mut answer = opener.open(Cursor::new(bytes))?;
        assert_eq!(answer.head().await?.status, 200);
        let mut body = Vec::new();
        while let Some(piece) = answer.next().await? {
            body.extend_from_slice(&piece);
        }
        Ok((body, answer.finish().await?))
    })
}

#[test]
fn a_request_and_its_streamed_answer_come_through() {
    let receiver = Receiver::new();
    let sealer = RequestSealer::new(&statement(&receiver)).unwrap();
    let enc = sealer.enc();
    assert_eq!(enc.len(), ENC_LEN);
    let (sealed, opener) = sealer.seal(&request()).unwrap();
    assert_eq!(sealed[HEADER_LEN..HEADER_LEN + ENC_LEN], enc);
    assert_eq!(request_id(&sealed), Some(Digest::of(&[&enc])));
    assert_eq!(request_id(&sealed[..HEADER_LEN + ENC_LEN - 1]), None);
    let (body, trailer) = open(opener, answer(&receiver, &sealed).concat()).unwrap();
    assert_eq!(body, b"first second");
    assert_eq!(trailer, [("cocoon-receipt".to_owned(), "r".to_owned())]);
}

#[test]
fn the_enclave_sees_what_was_sealed() {
    let receiver = Receiver::new();
    let sealer = RequestSealer::new(&statement(&receiver)).unwrap();
    let enc = sealer.enc();
    let (sealed, _) = sealer.seal(&request()).unwrap();
    let opened = receiver.open(&sealed, NOW).unwrap();
    assert_eq!(opened.request, request());
    assert_eq!(opened.enc, enc);
    assert!(!format!("{opened:?}").contains("prompt"), "a request must not show its content");
}

#[test]
fn a_large_body_takes_several_chunks() {
    let receiver = Receiver::new();
    let large = InnerRequest { body: vec![b'x'; 300_000].into(), ..request() };
    let (sealed, opener) = RequestSealer::new(&statement(&receiver)).unwrap().seal(&large).unwrap();
    let opened = receiver.open(&sealed, NOW).unwrap();
    assert_eq!(opened.request.body.len(), 300_000);
    let mut sealer = opened.sealer;
    let mut bytes = sealer.head(&AnswerHead { status: 200, headers: Vec::new() }).unwrap();
    bytes.extend(sealer.data(&vec![b'y'; 100_000]).unwrap());
    bytes.extend(sealer.finish(&[]).unwrap());
    assert_eq!(open(opener, bytes).unwrap().0, vec![b'y'; 100_000]);
}

#[test]
fn requests_of_like_size_look_alike() {
    let receiver = Receiver::new();
    let statement = statement(&receiver);
    let length = |body: &[u8]| {
        let request = InnerRequest { body: body.to_vec().into(), ..request() };
        RequestSealer::new(&statement).unwrap().seal(&request).unwrap().0.len()
    };
    assert_eq!(length(b"yes"), length(&[b'x'; 4_000]));
    assert!(length(b"yes") < length(&[b'x'; 4_200]));
}

/// Sizes of the pieces of an answer with this head, one piece of data and this trailer; padded for long events or not.
fn sizes(head: AnswerHead, least: usize, data: usize, trailer: &[Field]) -> [usize; 3] {
    let receiver = Receiver::new();
    let (sealed, opener) = sealed(&receiver);
    let mut sealer = receiver.open(&sealed, NOW).unwrap().sealer;
    sealer.pad_to(least);
    let pieces =
        [sealer.head(&head).unwrap(), sealer.data(&vec![b'x'; data]).unwrap(), sealer.finish(trailer).unwrap()];
    block_on(async {
        let mut answer = opener.open(Cursor::new(pieces.concat())).unwrap();
        assert_eq!(answer.head().await.unwrap(), head);
        assert_eq!(answer.next().await.unwrap().unwrap().len(), data);
        assert_eq!(answer.finish().await.unwrap(), trailer);
    });
    pieces.map(|piece| piece.len())
}

#[test]
fn heads_tokens_and_ends_look_alike() {
    let head = |status, headers: &[(&str, &str)]| AnswerHead {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let receipt = |length| vec![("cocoon-receipt".to_owned(), "r".repeat(length))];
    let streamed = head(200, &[("content-type", "text/event-stream"), ("cocoon-receipt-id", "chatcmpl-0123456789ab")]);
    let expected = sizes(streamed.clone(), 0, 230, &receipt(700));
    assert_eq!(sizes(streamed.clone(), 0, 1, &receipt(700)), expected, "a short token");
    assert_eq!(sizes(streamed.clone(), 0, 504, &receipt(700)), expected, "a long one");
    assert_eq!(sizes(head(400, &[("content-type", "application/json")]), 0, 230, &[]), expected, "a refusal");
    assert_eq!(sizes(head(429, &[("retry-after", "1")]), 0, 230, &receipt(900)), expected, "a longer receipt");
    assert!(sizes(streamed.clone(), 0, 505, &receipt(700))[1] > expected[1]);
    let wide = sizes(streamed.clone(), 2_000, 1, &receipt(700));
    assert_eq!(wide, sizes(streamed, 2_000, 1_900, &receipt(700)));
    assert_eq!([wide[0], wide[2]], [expected[0], expected[2]]);
    assert!(wide[1] > 2_000);
}

#[test]
fn a_replayed_request_is_refused() {
    let receiver = Receiver::new();
    let (sealed, _) = sealed(&receiver);
    receiver.open(&sealed, NOW).unwrap();
    assert!(matches!(receiver.open(&sealed, NOW), Err(Error::Replayed)));
}

#[test]
fn a_truncated_answer_is_known_to_be_incomplete() {
    let receiver = Receiver::new();
    let pieces = {
        let (sealed, _) = sealed(&receiver);
        answer(&receiver, &sealed)
    };
    let lengths: Vec<usize> = pieces.iter().map(Vec::len).collect();
    for keep in 0..lengths.len() {
        let (sealed, opener) = sealed(&receiver);
        let bytes = answer(&receiver, &sealed)[..keep].concat();
        assert!(matches!(open(opener, bytes), Err(Error::Truncated)), "{keep} pieces of {}", lengths.len());
    }
}

#[test]
fn a_reordered_piece_is_refused() {
    let receiver = Receiver::new();
    let (sealed, opener) = sealed(&receiver);
    let mut pieces = answer(&receiver, &sealed);
    pieces.swap(1, 2);
    assert!(matches!(open(opener, pieces.concat()), Err(Error::NotAuthentic)));
}

#[test]
fn every_flipped_bit_of_an_answer_is_refused() {
    let receiver = Receiver::new();
    let length = {
        let (sealed, _) = sealed(&receiver);
        answer(&receiver, &sealed).concat().len()
    };
    for at in (0..length).step_by(37) {
        let (sealed, opener) = sealed(&receiver);
        let mut bytes = answer(&receiver, &sealed).concat();
        bytes[at] ^= 1;
        assert!(open(opener, bytes).is_err(), "byte {at}");
    }
}

#[test]
fn every_flipped_bit_of_a_request_is_refused() {
    let receiver = Receiver::new();
    let (sealed, _) = sealed(&receiver);
    for at in (0..sealed.len()).step_by(41) {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        assert!(receiver.open(&altered, NOW).is_err(), "byte {at}");
    }
    receiver.open(&sealed, NOW).expect("what was not authentic took no place in the replay guard");
}

#[test]
fn every_truncation_of_a_request_is_refused() {
    let receiver = Receiver::new();
    let (sealed, _) = sealed(&receiver);
    for end in (0..sealed.len()).step_by(13) {
        assert!(receiver.open(&sealed[..end], NOW).is_err(), "{end} bytes");
    }
}

#[test]
fn another_enclave_cannot_open_it() {
    let (receiver, other) = (Receiver::new(), Receiver::new());
    let (sealed, _) = sealed(&receiver);
    assert!(matches!(other.open(&sealed, NOW), Err(Error::UnknownKey)), "it has no key at all");
    other.rotate(NOW, 3600, 60).unwrap();
    assert!(matches!(other.open(&sealed, NOW), Err(Error::NotAuthentic)), "its key has the same identifier");
}

#[test]
fn an_answer_to_another_request_is_refused() {
    let receiver = Receiver::new();
    let statement = statement(&receiver);
    let (_, opener) = RequestSealer::new(&statement).unwrap().seal(&request()).unwrap();
    let (other, _) = RequestSealer::new(&statement).unwrap().seal(&request()).unwrap();
    assert!(matches!(open(opener, answer(&receiver, &other).concat()), Err(Error::NotAuthentic)));
}

#[test]
fn an_old_key_opens_for_its_overlap_and_no_longer() {
    let receiver = Receiver::new();
    let old = statement(&receiver);
    receiver.rotate(UnixTime(4_500), 3600, 60).unwrap();
    let seal = || RequestSealer::new(&old).unwrap().seal(&request()).unwrap().0;
    receiver.open(&seal(), UnixTime(NOW.0 + 3660)).unwrap();
    assert!(matches!(receiver.open(&seal(), UnixTime(NOW.0 + 3661)), Err(Error::UnknownKey)));
}
