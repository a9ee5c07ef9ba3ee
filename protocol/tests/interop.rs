//! Cocoon's Oblivious HTTP against the `ohttp` crate, an implementation by others: each side of one with the other side of the other.

use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_protocol::Error;
use cocoon_protocol::sealed::oblivious::{Key, RESPONSE_NONCE_LEN, Request, ResponseKey};
use cocoon_protocol::sealed::{AnswerHead, InnerRequest, Receiver, RequestSealer};
use cocoon_protocol::statement::KeyStatement;
use futures::executor::block_on;
use futures::io::Cursor;
use futures::{AsyncReadExt, AsyncWriteExt};
use ohttp::hpke::{Aead, Kdf, Kem};
use ohttp::{ClientRequest, KeyConfig, Server, SymmetricSuite};

const NOW: UnixTime = UnixTime(1_000);

/// Nothing, one byte, both sides of a chunk's end, and many chunks.
const LENGTHS: [usize; 6] = [0, 1, 1 << 14, (1 << 14) + 1, 100_000, 1_500_000];

fn message(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn their_config() -> KeyConfig {
    KeyConfig::new(7, Kem::XWing, vec![SymmetricSuite::new(Kdf::HkdfSha256, Aead::Aes128Gcm)]).unwrap()
}

/// A message sealed by their client to our key, and what opens the answer to it.
fn seal_theirs(key_config: &[u8], plain: &[u8]) -> (Vec<u8>, impl FnOnce(Vec<u8>) -> std::io::Result<Vec<u8>> + use<>) {
    let (mut sealed, client) = (Vec::new(), ClientRequest::from_encoded_config(key_config).unwrap());
    let mut stream = client.encapsulate_stream(&mut sealed).unwrap();
    block_on(async {
        stream.write_all(plain).await.unwrap();
        stream.close().await.unwrap();
    });
    // The answer's source is named only when it is there, so what reads it starts from a source that can be set later.
    let source = std::sync::Arc::new(std::sync::Mutex::new(Cursor::new(Vec::new())));
    let mut response = stream.response(Source(source.clone())).unwrap();
    drop(stream);
    let open = move |answer: Vec<u8>| {
        *source.lock().unwrap() = Cursor::new(answer);
        let mut plain = Vec::new();
        block_on(response.read_to_end(&mut plain))?;
        Ok(plain)
    };
    (sealed, open)
}

struct Source(std::sync::Arc<std::sync::Mutex<Cursor<Vec<u8>>>>);

impl futures::AsyncRead for Source {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut *self.0.lock().unwrap()).poll_read(cx, buffer)
    }
}

/// What their server reads in a request, and the chunks of its answer, nonce first, then one for each piece and the final one.
fn serve_theirs(config: KeyConfig, sealed: &[u8], answer: &[&[u8]]) -> std::io::Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut request = Server::new(config).unwrap().decapsulate_stream(Cursor::new(sealed.to_vec()));
    let (mut plain, mut out, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    block_on(request.read_to_end(&mut plain))?;
    let mut response = request.response(&mut out).unwrap();
    let mut lengths = Vec::new();
    block_on(async {
        response.flush().await.unwrap();
        for piece in answer {
            response.write_all(piece).await.unwrap();
            lengths.push(piece.len());
        }
        response.close().await.unwrap();
    });
    drop(response);
    let mut rest = out.split_off(RESPONSE_NONCE_LEN);
    sent.push(out);
    for length in lengths {
        let prefix = if length + 16 < 64 {
            1
        } else if length + 16 < 1 << 14 {
            2
        } else {
            4
        };
        let tail = rest.split_off(prefix + length + 16);
        sent.push(std::mem::replace(&mut rest, tail));
    }
    sent.push(rest);
    Ok((plain, sent))
}

/// Our answer in the same form.
fn answer_ours(key: ResponseKey, answer: &[&[u8]]) -> Vec<Vec<u8>> {
    let (nonce, mut writer) = key.seal().unwrap();
    let mut sent = vec![nonce.to_vec()];
    let mut sealed = |seal: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), Error>| {
        let mut out = Vec::new();
        seal(&mut out).unwrap();
        sent.push(out);
    };
    for piece in answer {
        sealed(&mut |out| writer.chunk(piece, out));
    }
    let mut writer = Some(writer);
    sealed(&mut |out| writer.take().unwrap().finish(out));
    sent
}

fn open_ours(key: ResponseKey, answer: &[u8]) -> Result<Vec<u8>, Error> {
    let (nonce, chunks) = answer.split_first_chunk().ok_or(Error::Truncated)?;
    let (mut reader, mut plain) = (key.open(nonce)?, Vec::new());
    for piece in chunks.chunks(1_000) {
        reader.buffer().extend_from_slice(piece);
        while let Some(chunk) = reader.next_chunk()? {
            plain.extend_from_slice(&chunk);
        }
    }
    plain.extend_from_slice(&reader.finish()?);
    Ok(plain)
}

/// An answer in pieces of at most a chunk.
fn pieces(answer: &[u8]) -> Vec<&[u8]> {
    answer.chunks(1 << 14).collect()
}

#[test]
fn our_client_and_their_server() {
    for length in LENGTHS {
        let (mut config, plain) = (their_config(), message(length));
        let encoded = KeyConfig::encode(&config).unwrap();
        let (sealed, key) = Request::new(&encoded).unwrap().seal(&plain).unwrap();
        let (read, answer) = serve_theirs(config.clone(), &sealed, &pieces(&plain)).unwrap();
        assert!(read == plain, "{length} bytes");
        assert!(open_ours(key, &answer.concat()).unwrap() == plain, "{length} bytes");
        // Their client writes as many bytes for the same message.
        let theirs = ClientRequest::from_config(&mut config).unwrap();
        let mut out = Vec::new();
        let mut stream = theirs.encapsulate_stream(&mut out).unwrap();
        block_on(async {
            stream.write_all(&plain).await.unwrap();
            stream.close().await.unwrap();
        });
        drop(stream);
        assert_eq!(out.len(), sealed.len());
        assert_eq!(out[..7], sealed[..7]);
    }
}

#[test]
fn their_client_and_our_enclave() {
    for length in LENGTHS {
        let (key, plain) = (Key::generate(7).unwrap(), message(length));
        let (sealed, open) = seal_theirs(&key.config(), &plain);
        let (read, response) = key.open(&sealed).unwrap();
        assert!(read == plain, "{length} bytes");
        let answer = answer_ours(response, &pieces(&plain)).concat();
        assert!(open(answer).unwrap() == plain, "{length} bytes");
    }
}

#[test]
fn key_configurations_are_the_same_bytes() {
    let ours = Key::generate(3).unwrap().config();
    assert_eq!(KeyConfig::decode(&ours).unwrap().encode().unwrap(), ours);
    Request::new(&their_config().encode().unwrap()).unwrap();
}

#[test]
fn a_request_that_was_cut_off_or_rearranged_is_refused_by_both() {
    let (plain, chunk) = (message(40_000), 4 + (1 << 14) + 16);
    let (key, config) = (Key::generate(7).unwrap(), their_config());
    let (to_us, _) = seal_theirs(&key.config(), &plain);
    let (to_them, _) = Request::new(&config.encode().unwrap()).unwrap().seal(&plain).unwrap();
    let head = 7 + 1120;
    for end in
        [0, 6, 7, 100, head - 1, head, head + 1, head + chunk, head + 2 * chunk, to_us.len() - 17, to_us.len() - 1]
    {
        assert!(key.open(&to_us[..end]).is_err(), "{end} bytes");
        assert!(serve_theirs(config.clone(), &to_them[..end], &[]).is_err(), "{end} bytes");
    }
    let swap = |sealed: &[u8]| {
        let (first, second) = (head..head + chunk, head + chunk..head + 2 * chunk);
        [&sealed[..head], &sealed[second], &sealed[first], &sealed[head + 2 * chunk..]].concat()
    };
    assert!(matches!(key.open(&swap(&to_us)), Err(Error::NotAuthentic)));
    assert!(serve_theirs(config.clone(), &swap(&to_them), &[]).is_err());
    assert!(key.open(&to_us).is_ok() && serve_theirs(config, &to_them, &[]).is_ok());
}

#[test]
fn an_answer_that_was_cut_off_or_rearranged_is_refused_by_both() {
    let answer: [&[u8]; 3] = [b"first", b"second", b"third"];
    let ours = |alter: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let key = Key::generate(7).unwrap();
        let (sealed, open) = seal_theirs(&key.config(), b"request");
        let mut sent = answer_ours(key.open(&sealed).unwrap().1, &answer);
        alter(&mut sent);
        open(sent.concat()).ok()
    };
    let theirs = |alter: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let config = their_config();
        let (sealed, key) = Request::new(&config.encode().unwrap()).unwrap().seal(b"request").unwrap();
        let mut sent = serve_theirs(config, &sealed, &answer).unwrap().1;
        alter(&mut sent);
        open_ours(key, &sent.concat()).ok()
    };
    let both = |alter: &dyn Fn(&mut Vec<Vec<u8>>)| [ours(alter), theirs(alter)];
    assert_eq!(both(&|_| ()), [Some(answer.concat()), Some(answer.concat())]);
    for keep in 0..5 {
        assert_eq!(both(&|sent| sent.truncate(keep)), [None, None], "{keep} pieces");
    }
    for at in 0..5 {
        assert_eq!(both(&|sent| _ = sent[at].pop()), [None, None], "a byte less of piece {at}");
        assert_eq!(both(&|sent| sent[at][0] ^= 1), [None, None], "a bit of piece {at}");
    }
    for at in 1..4 {
        assert_eq!(both(&|sent| drop(sent.remove(at))), [None, None], "without piece {at}");
        assert_eq!(both(&|sent| sent.insert(at, sent[at].clone())), [None, None], "piece {at} twice");
    }
    assert_eq!(both(&|sent| sent.swap(1, 2)), [None, None]);
    assert_eq!(both(&|sent| sent.last_mut().unwrap().push(0)), [None, None], "a byte more");
}

fn read_binary_http(bytes: &[u8]) -> bhttp::Message {
    bhttp::Message::read_bhttp(&mut std::io::Cursor::new(bytes)).unwrap()
}

/// The layer above, with Binary HTTP by the `bhttp` crate on the other side.
#[test]
fn the_sealed_channel_is_chunked_ohttp_with_binary_http() {
    let receiver = Receiver::new();
    let epoch = receiver.rotate(NOW, 3_600, 60).unwrap();
    let mut message = bhttp::Message::request(
        b"POST".to_vec(),
        b"https".to_vec(),
        b"host".to_vec(),
        b"/v1/chat/completions".to_vec(),
    );
    message.put_header("Content-Type", "application/json");
    message.write_content(b"a prompt");
    let mut plain = Vec::new();
    message.write_bhttp(bhttp::Mode::KnownLength, &mut plain).unwrap();
    let (sealed, open) = seal_theirs(&epoch.key_config, &plain);
    let mut opened = receiver.open(&sealed, NOW).unwrap();
    assert_eq!(opened.request.path, "/v1/chat/completions");
    assert_eq!(opened.request.header("content-type"), Some("application/json"));
    assert_eq!(*opened.request.body, b"a prompt");
    let mut answer = opened.sealer.head(&AnswerHead { status: 200, headers: vec![("a".into(), "b".into())] }).unwrap();
    answer.extend(opened.sealer.data(&vec![b'x'; 50_000]).unwrap());
    answer.extend(opened.sealer.finish(&[("cocoon-receipt".into(), "r".into())]).unwrap());
    let answer = read_binary_http(&open(answer).unwrap());
    assert_eq!(answer.control().status().map(|status| status.code()), Some(200));
    assert_eq!(answer.header().get(b"a"), Some(&b"b"[..]));
    assert!(answer.content().len() > 50_000, "records are padded");
    assert_eq!(answer.trailer().get(b"cocoon-receipt"), Some(&b"r"[..]));

    let config = their_config();
    let statement = KeyStatement {
        evidence_id: EvidenceId(Digest::ZERO),
        key_config: config.encode().unwrap(),
        not_before: NOW,
        not_after: NOW,
    };
    let request = InnerRequest {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: b"a prompt".to_vec().into(),
    };
    let (sealed, opener) = RequestSealer::new(&statement).unwrap().seal(&request).unwrap();
    let mut answer = bhttp::Message::response(bhttp::StatusCode::OK);
    answer.put_trailer("cocoon-receipt", "r");
    let mut plain = Vec::new();
    answer.write_bhttp(bhttp::Mode::IndeterminateLength, &mut plain).unwrap();
    let (read, sent) = serve_theirs(config, &sealed, &[&plain]).unwrap();
    let read = read_binary_http(&read);
    assert_eq!(read.control().method(), Some(&b"POST"[..]));
    assert_eq!(read.content(), b"a prompt");
    block_on(async {
        let mut answer = opener.open(Cursor::new(sent.concat())).unwrap();
        assert_eq!(answer.head().await.unwrap().status, 200);
        assert_eq!(answer.next().await.unwrap(), None);
        assert_eq!(answer.finish().await.unwrap(), [("cocoon-receipt".to_owned(), "r".to_owned())]);
    });
}
