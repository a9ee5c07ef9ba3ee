//! AES-128-GCM with a counted nonce: messages 0, 1, 2 and so on under one key, each opened only in its turn. HPKE (RFC 9180 section
//! 5.2) and the chunks of an answer (draft-ietf-ohai-chunked-ohttp) count in the same way.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::Error;

/// Length of a key, in bytes.
pub(super) const KEY_LEN: usize = 16;
/// Length of the tag after a ciphertext, in bytes.
pub(super) const TAG_LEN: usize = 16;

const SEAL: Error = Error::Crypto("AES-128-GCM did not seal");

/// One direction of one conversation.
pub(super) struct Sequence {
    key: LessSafeKey,
    base_nonce: [u8; NONCE_LEN],
    next: u64,
}

impl Sequence {
    /// Starts at message 0. No two sequences may have both key and nonce in common.
    pub(super) fn new(key: &[u8; KEY_LEN], base_nonce: [u8; NONCE_LEN]) -> Result<Self, Error> {
        let key = UnboundKey::new(&AES_128_GCM, key).map_err(|_| Error::Crypto("no AES-128-GCM key"))?;
        Ok(Self { key: LessSafeKey::new(key), base_nonce, next: 0 })
    }

    /// The base nonce xor the number of the message.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.base_nonce;
        for (byte, count) in nonce.iter_mut().rev().zip(self.next.to_be_bytes().iter().rev()) {
            *byte ^= count;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// No nonce is used twice: sealing stops before the count would start again.
    fn advance(&mut self) -> Result<(), Error> {
        self.next = self.next.checked_add(1).ok_or(Error::Crypto("too many chunks under one key"))?;
        Ok(())
    }

    /// Appends the next message to `out`, sealed.
    pub(super) fn seal(&mut self, aad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let nonce = self.nonce();
        self.advance()?;
        let start = out.len();
        out.reserve(plain.len() + TAG_LEN);
        out.extend_from_slice(plain);
        let sealed = out.get_mut(start..).ok_or(SEAL)?;
        match self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), sealed) {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => {
                out.truncate(start);
                return Err(SEAL);
            }
        }
        Ok(())
    }

    /// Opens the next message where it lies, and gives it without its tag.
    pub(super) fn open<'a>(&mut self, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], Error> {
        let plain = self.key.open_in_place(self.nonce(), Aad::from(aad), sealed).map_err(|_| Error::NotAuthentic)?;
        self.advance()?;
        Ok(plain)
    }

    /// Opens the next message and appends it to `plain`; nothing of it if it is not authentic.
    pub(super) fn open_into(&mut self, aad: &[u8], sealed: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        let length = sealed.len().checked_sub(TAG_LEN).ok_or(Error::NotAuthentic)?;
        let (sealed, tag) = sealed.split_at(length);
        let start = plain.len();
        plain.resize(start + length, 0);
        let opened = match plain.get_mut(start..) {
            Some(out) => self.key.open_separate_gather(self.nonce(), Aad::from(aad), sealed, tag, out).is_ok(),
            None => false,
        };
        if !opened {
            plain.truncate(start);
            return Err(Error::NotAuthentic);
        }
        self.advance()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence() -> Sequence {
        Sequence::new(&[1; KEY_LEN], [2; NONCE_LEN]).unwrap()
    }

    #[test]
    fn messages_open_in_their_turn_and_a_failure_does_not_count() {
        let mut sealing = sequence();
        let sealed = [&b"first"[..], b"second"].map(|plain| {
            let mut out = Vec::new();
            sealing.seal(b"aad", plain, &mut out).unwrap();
            out
        });
        let (mut opening, mut plain) = (sequence(), Vec::new());
        assert!(opening.open_into(b"aad", &sealed[1], &mut plain).is_err(), "out of turn");
        assert!(opening.open(b"", &mut sealed[0].clone()).is_err(), "other associated data");
        assert!(opening.open_into(b"aad", b"short", &mut plain).is_err());
        assert!(plain.is_empty());
        opening.open_into(b"aad", &sealed[0], &mut plain).unwrap();
        assert_eq!(opening.open(b"aad", &mut sealed[1].clone()).unwrap(), b"second");
        assert_eq!(plain, b"first");
    }

    #[test]
    fn the_count_never_starts_again() {
        let mut sealing = Sequence { next: u64::MAX, ..sequence() };
        assert!(sealing.seal(b"", b"", &mut Vec::new()).is_err());
    }
}
