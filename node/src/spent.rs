//! Stamps under which garbage came: nobody pays once and sends it again and again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cocoon_attestation::UnixTime;
use cocoon_protocol::work::{self, Stamp};

/// Most stamps that are remembered, some 30 bytes each. Making so many within the time that they count takes several processors.
const STAMPS: usize = 1 << 20;

/// Stamps by a part of their hash, and until when they count.
#[derive(Default)]
pub(crate) struct Spent(Mutex<HashMap<u64, UnixTime>>);

/// A part of the hash that is not zeros.
fn key(stamp: &Stamp) -> u64 {
    let [_, _, _, _, _, _, _, _, key @ ..] = stamp.hash().0;
    u64::from_be_bytes(std::array::from_fn(|n| key[n]))
}

impl Spent {
    /// Whether garbage came under a stamp before.
    pub fn has(&self, stamp: &Stamp) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key(stamp))
    }

    /// Remembers a stamp until it counts no more.
    pub fn spend(&self, stamp: &Stamp, now: UnixTime) {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() == spent.capacity() {
            spent.retain(|_, until| *until >= now);
        }
        if spent.len() < STAMPS {
            spent.insert(key(stamp), stamp.time.plus(work::LASTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_forgotten_when_it_counts_no_more() {
        let (spent, at) = (Spent::default(), UnixTime(1_000_000));
        let stamp = Stamp { bundle: cocoon_attestation::Digest::ZERO, time: at, number: 0 };
        spent.spend(&stamp, at);
        assert!(spent.has(&stamp) && !spent.has(&Stamp { number: 1, ..stamp }));
        let later = at.plus(10_000);
        for number in 0..10_000 {
            spent.spend(&Stamp { time: later, number, ..stamp }, later);
        }
        assert!(!spent.has(&stamp) && spent.has(&Stamp { time: later, ..stamp }));
        assert_eq!(spent.0.lock().unwrap().len(), 10_000);
    }
}
