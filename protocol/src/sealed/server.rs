//! The enclave's side: keys of the current epochs, opening a request, sealing its answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocoon_attestation::{Digest, UnixTime};
use zeroize::Zeroizing;

use super::body::{self, MAX_DATA};
use super::oblivious::chunks::Writer;
use super::oblivious::{Key, RESPONSE_NONCE_LEN, ResponseKey};
use super::replay::ReplayGuard;
use super::{AnswerHead, ENC_LEN, Field, HEADER_LEN, InnerRequest, MAX_SEALED_REQUEST, binary_http};
use crate::Error;

/// The least length of an answer's head before it is sealed, in bytes.
const HEAD_FLOOR: usize = 128;
/// The least length of an answer's end before it is sealed, in bytes: a receipt takes some 750.
const END_FLOOR: usize = 1024;
/// Requests that one epoch remembers: with a key an hour, 290 requests a second.
const EPOCH_CAPACITY: usize = 1 << 20;

/// The public part of a key epoch, to be put into a key statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochKey {
    /// OHTTP key configuration (RFC 9458 section 3).
    pub key_config: Vec<u8>,
    /// First second of use.
    pub not_before: UnixTime,
    /// Last second in which a client may seal to it.
    pub not_after: UnixTime,
}

struct Epoch {
    /// Never the same twice, unlike the one byte that requests carry.
    serial: u64,
    id: u8,
    key: Arc<Key>,
    /// Requests are opened until then: a little longer than clients may seal.
    accept_until: UnixTime,
    guard: ReplayGuard,
}

/// Holds the private keys of the current epochs and opens requests sealed to them.
#[derive(Default)]
pub struct Receiver {
    epochs: Mutex<VecDeque<Epoch>>,
}

impl Receiver {
    /// A receiver without a key; call [`Self::rotate`] first.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Epoch>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new epoch. Clients may seal to its key for `lifetime` seconds; requests are opened for `overlap` seconds more.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn rotate(&self, now: UnixTime, lifetime: u64, overlap: u64) -> Result<EpochKey, Error> {
        let mut epochs = self.lock();
        epochs.retain(|epoch| epoch.accept_until >= now);
        let mut id = epochs.back().map_or(1, |epoch| epoch.id.wrapping_add(1));
        // Two live keys must not answer to one identifier.
        if epochs.len() > usize::from(u8::MAX) {
            return Err(Error::Crypto("256 keys are still in use: rotate less often"));
        }
        while epochs.iter().any(|epoch| epoch.id == id) {
            id = id.wrapping_add(1);
        }
        Ok(insert(&mut epochs, id, Key::generate(id)?, now, lifetime, overlap))
    }

    /// An epoch whose key is derived from `seed`, for test vectors.
    #[cfg(test)]
    pub(crate) fn derive(&self, seed: &[u8], now: UnixTime, lifetime: u64, overlap: u64) -> Result<EpochKey, Error> {
        Ok(insert(&mut self.lock(), 1, Key::derive(1, seed), now, lifetime, overlap))
    }

    /// Opens a sealed request. It is accepted once.
    ///
    /// # Errors
    /// Unknown key, altered bytes, truncation, replay, or no Binary HTTP inside.
    pub fn open(&self, sealed: &[u8], at: UnixTime) -> Result<Opened, Error> {
        self.open_if(sealed, at, |_, _| true)
    }

    /// Opens a sealed request. Only one that `authorised` finds good takes a place in the replay guard, so that nobody fills it for
    /// nothing; one that is not may be opened again, and must not be acted on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_if(
        &self,
        sealed: &[u8],
        at: UnixTime,
        authorised: impl FnOnce(&InnerRequest, &[u8]) -> bool,
    ) -> Result<Opened, Error> {
        if sealed.len() > MAX_SEALED_REQUEST {
            return Err(Error::TooLarge { what: "the sealed request", limit: MAX_SEALED_REQUEST });
        }
        let enc = sealed.get(HEADER_LEN..HEADER_LEN + ENC_LEN).ok_or(Error::Truncated)?.to_vec();
        let id = sealed[0];
        let (serial, key) = {
            let epochs = self.lock();
            let epoch = epochs.iter().find(|epoch| epoch.id == id && epoch.accept_until >= at);
            epoch.map(|epoch| (epoch.serial, epoch.key.clone())).ok_or(Error::UnknownKey)?
        };
        let (plain, response) = key.open(sealed)?;
        let plain = Zeroizing::new(plain);
        let inner = binary_http::read_request(&plain)?;
        let sealer = ResponseSealer::new(response)?;
        if authorised(&inner, &enc) {
            let mut epochs = self.lock();
            let epoch = epochs.iter_mut().find(|epoch| epoch.serial == serial).ok_or(Error::UnknownKey)?;
            epoch.guard.accept(&enc)?;
        }
        Ok(Opened { request: inner, enc, sealer })
    }

    /// Whether a request of this name ([`super::request_id`]) was accepted, as far back as keys are kept.
    pub fn accepted(&self, request: &Digest) -> bool {
        self.lock().iter().any(|epoch| epoch.guard.has(request))
    }

    #[cfg(test)]
    pub(crate) fn without_replay_guard(&self) {
        for epoch in self.lock().iter_mut() {
            epoch.guard = ReplayGuard::off();
        }
    }
}

fn insert(epochs: &mut VecDeque<Epoch>, id: u8, key: Key, now: UnixTime, lifetime: u64, overlap: u64) -> EpochKey {
    let key_config = key.config();
    let not_after = now.plus(lifetime);
    let serial = epochs.back().map_or(0, |epoch| epoch.serial + 1);
    epochs.push_back(Epoch {
        serial,
        id,
        key: Arc::new(key),
        accept_until: not_after.plus(overlap),
        guard: ReplayGuard::new(EPOCH_CAPACITY),
    });
    EpochKey { key_config, not_before: now, not_after }
}

/// A request that was opened, and what seals its answer.
pub struct Opened {
    /// The request.
    pub request: InnerRequest,
    /// The encapsulated key, to which the proof inside the request is bound.
    pub enc: Vec<u8>,
    /// Seals the answer.
    pub sealer: ResponseSealer,
}

/// Shows no content: a request is its prompt.
impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?})", self.request)
    }
}

/// Seals an answer piece by piece: head, body, end. Every call gives bytes to send on.
pub struct ResponseSealer {
    /// What stands before the first chunk, until it is sent.
    nonce: Option<[u8; RESPONSE_NONCE_LEN]>,
    writer: Writer,
    floor: usize,
}

impl ResponseSealer {
    fn new(key: ResponseKey) -> Result<Self, Error> {
        let (nonce, writer) = key.seal()?;
        Ok(Self { nonce: Some(nonce), writer, floor: body::FLOOR })
    }

    /// Pads every piece of the body that follows to at least so many bytes, where they hold more about each token than text. Pieces are never
    /// padded less than they are without this.
    pub fn pad_to(&mut self, least: usize) {
        self.floor = least.clamp(body::FLOOR, MAX_DATA);
    }

    /// Where to seal so many bytes to, after what has to stand before them.
    fn begin(&mut self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + RESPONSE_NONCE_LEN + 64);
        out.extend(self.nonce.take().into_iter().flatten());
        out
    }

    /// Status and headers of an answer of unknown length.
    ///
    /// # Errors
    /// The crypto library fails.
    pub fn head(&mut self, head: &AnswerHead) -> Result<Vec<u8>, Error> {
        let mut plain = binary_http::write_head(head);
        body::fill(&mut plain, HEAD_FLOOR);
        let mut out = self.begin(plain.len());
        self.writer.write(&plain, &mut out)?;
        Ok(out)
    }

    /// A piece of the body.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn data(&mut self, data: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = self.begin(data.len() + data.len() / 8 + self.floor);
        let mut plain = Vec::new();
        for piece in data.chunks(MAX_DATA) {
            plain.clear();
            body::write_record(&mut plain, piece, self.floor);
            self.writer.write(&plain, &mut out)?;
        }
        Ok(out)
    }

    /// The trailer and the final chunk, without which the client knows the answer to be incomplete.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn finish(mut self, trailer: &[Field]) -> Result<Vec<u8>, Error> {
        let plain = binary_http::write_end(trailer, END_FLOOR);
        let mut out = self.begin(plain.len());
        self.writer.write(&plain, &mut out)?;
        self.writer.finish(&mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::RequestSealer;
    use crate::statement::KeyStatement;
    use cocoon_attestation::{Digest, EvidenceId};

    const NOW: UnixTime = UnixTime(1_000);

    fn sealed(receiver: &Receiver) -> Vec<u8> {
        let key = receiver.rotate(NOW, 3_600, 60).unwrap();
        let statement = KeyStatement {
            evidence_id: EvidenceId(Digest::ZERO),
            key_config: key.key_config,
            not_before: key.not_before,
            not_after: key.not_after,
        };
        let request = InnerRequest {
            method: "GET".into(),
            path: "/v1/models".into(),
            headers: Vec::new(),
            body: Vec::new().into(),
        };
        RequestSealer::new(&statement).unwrap().seal(&request).unwrap().0
    }

    /// The control of the attack "a replayed request": with the guard off it succeeds.
    #[test]
    fn without_the_guard_a_replay_is_served() {
        let receiver = Receiver::new();
        let request = sealed(&receiver);
        receiver.without_replay_guard();
        receiver.open(&request, NOW).unwrap();
        receiver.open(&request, NOW).expect("the guard alone refuses a replay");
    }

    /// A host that asks for new keys again and again must not make the guard forget.
    #[test]
    fn no_number_of_rotations_lets_a_replay_through() {
        let receiver = Receiver::new();
        let request = sealed(&receiver);
        receiver.open(&request, NOW).unwrap();
        for _ in 1..=300 {
            let rotated = receiver.rotate(NOW, 3_600, 60);
            assert!(receiver.open(&request, NOW).is_err());
            if rotated.is_err() {
                return;
            }
        }
        panic!("more than 256 keys at once");
    }

    #[test]
    fn what_is_not_authorised_takes_no_place() {
        let receiver = Receiver::new();
        let request = sealed(&receiver);
        receiver.open_if(&request, NOW, |_, _| false).unwrap();
        receiver.open(&request, NOW).unwrap();
        assert!(matches!(receiver.open_if(&request, NOW, |_, _| true), Err(Error::Replayed)));
    }

    /// The sealed request of `docs/vectors/protocol.json`: written once, opened for ever.
    #[test]
    fn a_recorded_request_is_opened() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/protocol.json");
        let vectors: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let vector = &vectors["sealed_request"];
        let receiver = Receiver::new();
        let key = receiver.derive(&hex::decode(vector["key_seed"].as_str().unwrap()).unwrap(), NOW, 3_600, 60).unwrap();
        assert_eq!(hex::encode(key.key_config), vector["key_config"].as_str().unwrap());
        let sealed = hex::decode(vector["sealed"].as_str().unwrap()).unwrap();
        let request = receiver.open(&sealed, NOW).unwrap().request;
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/chat/completions"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(*request.body, vector["body"].as_str().unwrap().as_bytes());
    }

    #[test]
    fn a_key_from_a_seed_is_always_the_same() {
        let config = |seed: &[u8]| Receiver::new().derive(seed, NOW, 1, 1).unwrap().key_config;
        assert_eq!(config(&[7; 32]), config(&[7; 32]));
        assert_ne!(config(&[7; 32]), config(&[8; 32]));
    }
}
