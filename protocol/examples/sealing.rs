//! What sealing costs: a request of 2 KB, and bulk chunks; ours beside the `ohttp` crate and beside AES-128-GCM alone.
//!
//! `cargo run --release -p cocoon-protocol --example sealing`. One thread.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_protocol::sealed::oblivious::{Key, Request};
use cocoon_protocol::sealed::{InnerRequest, Receiver, RequestSealer};
use cocoon_protocol::statement::KeyStatement;
use futures::executor::block_on;
use futures::io::{AsyncReadExt, AsyncWriteExt, Cursor};
use ohttp::hpke::{Aead, Kdf, Kem};
use ohttp::{ClientRequest, KeyConfig, Server, SymmetricSuite};

const NOW: UnixTime = UnixTime(1_000);
const REQUEST: usize = 2_000;
const LARGE_REQUEST: usize = 900_000;
/// Bytes of one bulk conversation: few enough to stay in a cache, as what comes from a socket does.
const BULK: usize = 1 << 21;
/// Others use the machine: what counts is the best of so many tries.
const ROUNDS: usize = 40;

fn main() {
    println!("request of {REQUEST} bytes, microseconds      seal     open    both");
    requests("Cocoon, with Binary HTTP", cocoon_requests(REQUEST));
    requests("Cocoon, bytes only", oblivious_requests());
    requests("ohttp crate, bytes only", ohttp_requests());
    println!("\nbulk, GB/s                                seal     open");
    for (name, length) in [("16 KiB", 1 << 14), ("256 KiB", 1 << 18), ("1 MiB", 1 << 20)] {
        bulk(&format!("AES-128-GCM alone, {name} chunks"), BULK, best_of(|| bare_chunks(length)));
        bulk(&format!("Cocoon, {name} chunks"), BULK, best_of(|| cocoon_chunks(length)));
    }
    bulk("ohttp crate, 16 KiB chunks", BULK, best_of(ohttp_chunks));
    bulk("Cocoon, whole requests of 900 KB", LARGE_REQUEST, cocoon_requests(LARGE_REQUEST));
}

/// How long a run takes.
fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// The least times to seal and to open.
fn best_of(mut round: impl FnMut() -> (Duration, Duration)) -> (Duration, Duration) {
    (0..ROUNDS).map(|_| round()).reduce(|best, new| (best.0.min(new.0), best.1.min(new.1))).unwrap()
}

/// The least times to seal one and to open one, each done some times in a row.
fn best_of_many<S, O>(mut seal: impl FnMut() -> S, mut open: impl FnMut() -> O) -> (Duration, Duration) {
    fn many<T>(run: &mut impl FnMut() -> T) -> Duration {
        time(|| (0..20).for_each(|_| drop(black_box(run())))) / 20
    }
    best_of(|| (many(&mut seal), many(&mut open)))
}

fn requests(name: &str, (seal, open): (Duration, Duration)) {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!("{name:36} {:9.1} {:8.1} {:7.1}", micros(seal), micros(open), micros(seal + open));
}

fn bulk(name: &str, length: usize, (seal, open): (Duration, Duration)) {
    let rate = |time: Duration| length as f64 / time.as_secs_f64() / 1e9;
    println!("{name:36} {:9.2} {:8.2}", rate(seal), rate(open));
}

/// As client and enclave do it; the replay guard alone is left out, so that one request can be opened again.
fn cocoon_requests(length: usize) -> (Duration, Duration) {
    let receiver = Receiver::new();
    let key = receiver.rotate(NOW, 3_600, 60).unwrap();
    let statement = KeyStatement {
        evidence_id: EvidenceId(Digest::ZERO),
        key_config: key.key_config,
        not_before: key.not_before,
        not_after: key.not_after,
    };
    let request = InnerRequest {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: vec![b'x'; length].into(),
    };
    let seal = || RequestSealer::new(&statement).unwrap().seal(&request).unwrap().0;
    let sealed = seal();
    best_of_many(seal, || receiver.open_if(&sealed, NOW, |_, _| false).unwrap())
}

fn oblivious_requests() -> (Duration, Duration) {
    let (key, plain) = (Key::generate(1).unwrap(), vec![b'x'; REQUEST]);
    let config = key.config();
    let seal = || Request::new(&config).unwrap().seal(&plain).unwrap().0;
    let sealed = seal();
    best_of_many(seal, || key.open(&sealed).unwrap())
}

fn ohttp_requests() -> (Duration, Duration) {
    let suite = SymmetricSuite::new(Kdf::HkdfSha256, Aead::Aes128Gcm);
    let (config, plain) = (KeyConfig::new(1, Kem::XWing, vec![suite]).unwrap(), vec![b'x'; REQUEST]);
    let encoded = config.encode().unwrap();
    let seal = || {
        let (client, mut out) = (ClientRequest::from_encoded_config(&encoded).unwrap(), Vec::new());
        let mut stream = client.encapsulate_stream(&mut out).unwrap();
        block_on(async {
            stream.write_all(&plain).await.unwrap();
            stream.close().await.unwrap();
        });
        drop(stream);
        out
    };
    let (sealed, server) = (seal(), Server::new(config).unwrap());
    let open = || {
        let mut out = Vec::new();
        block_on(server.clone().decapsulate_stream(Cursor::new(&sealed)).read_to_end(&mut out)).unwrap();
        out
    };
    best_of_many(seal, open)
}

fn bare_chunks(length: usize) -> (Duration, Duration) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[1; 16]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let (mut chunk, mut plain) = (vec![0; length], vec![0; length]);
    let mut seal = || key.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut chunk).unwrap();
    let sealing = time(|| (0..BULK / length).for_each(|_| drop(black_box(seal()))));
    let tag = seal();
    let opening = time(|| {
        for _ in 0..BULK / length {
            key.open_separate_gather(nonce(), Aad::empty(), &chunk, tag.as_ref(), &mut plain).unwrap();
        }
    });
    (sealing, opening)
}

/// From and to the memory that a connection would be written from and read to.
fn cocoon_chunks(length: usize) -> (Duration, Duration) {
    let key = Key::generate(1).unwrap();
    let (request, client) = Request::new(&key.config()).unwrap().seal(b"").unwrap();
    let (nonce, mut writer) = key.open(&request).unwrap().1.seal().unwrap();
    let (plain, mut sealed) = (vec![b'x'; length], vec![vec![1; length + 64]; BULK / length]);
    sealed.iter_mut().for_each(Vec::clear);
    let sealing = time(|| sealed.iter_mut().for_each(|out| writer.chunk(&plain, out).unwrap()));
    let mut reader = client.open(&nonce).unwrap();
    let opening = time(|| {
        for chunk in &sealed {
            reader.buffer().extend_from_slice(chunk);
            black_box(reader.next_chunk().unwrap().unwrap());
        }
    });
    (sealing, opening)
}

fn ohttp_chunks() -> (Duration, Duration) {
    let suite = SymmetricSuite::new(Kdf::HkdfSha256, Aead::Aes128Gcm);
    let config = KeyConfig::new(1, Kem::XWing, vec![suite]).unwrap();
    let (plain, mut sealed) = (vec![b'x'; 1 << 14], vec![1; 2 * BULK]);
    sealed.clear();
    let client = ClientRequest::from_encoded_config(&config.encode().unwrap()).unwrap();
    let mut sender = client.encapsulate_stream(&mut sealed).unwrap();
    block_on(sender.flush()).unwrap();
    let sealing = time(|| (0..BULK / plain.len()).for_each(|_| block_on(sender.write_all(&plain)).unwrap()));
    block_on(sender.close()).unwrap();
    drop(sender);
    let mut receiver = Server::new(config).unwrap().decapsulate_stream(Cursor::new(&sealed));
    let mut out = vec![0; (1 << 14) + 16];
    let opening = time(|| while block_on(receiver.read(&mut out)).unwrap() > 0 {});
    (sealing, opening)
}
