//! Nobody gets more of a node than its share.

use std::collections::HashMap;

use cocoon_attestation::UnixTime;
use cocoon_settlement::Address;

/// What one provider may have appraised, and how much may wait at all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bundles that wait or are appraised at once; more are turned away with 503.
    pub queue: usize,
    /// Authentic evidence that one provider may bring at once.
    pub burst: u32,
    /// Seconds after which it may bring one more.
    pub seconds_each: u32,
    /// Whether a bundle over HTTP needs a stamp of work (`cocoon_protocol::work`).
    pub work: bool,
}

impl Default for Limits {
    /// 256 at once; of one provider 4,096, and one more every two seconds: 43,200 a day.
    fn default() -> Self {
        Self { queue: 256, burst: 4_096, seconds_each: 2, work: true }
    }
}

/// Providers that are remembered: whoever is not has a whole burst.
const PROVIDERS: usize = 10_000;

/// A bucket for each provider that fills by one every so many seconds.
#[derive(Default)]
pub(crate) struct Buckets(HashMap<Address, (u32, UnixTime)>);

impl Buckets {
    /// Takes one out of a provider's bucket; else says how many seconds it must wait.
    pub fn take(&mut self, provider: Address, limits: &Limits, now: UnixTime) -> Result<(), u64> {
        let each = u64::from(limits.seconds_each.max(1));
        let refill = |(used, since): (u32, UnixTime)| {
            let gained = now.0.saturating_sub(since.0) / each;
            let used = used.saturating_sub(u32::try_from(gained).unwrap_or(u32::MAX));
            (used, since.plus(gained * each))
        };
        if self.0.len() >= PROVIDERS && !self.0.contains_key(&provider) {
            self.0.retain(|_, bucket| refill(*bucket).0 > 0);
            if self.0.len() >= PROVIDERS {
                return Err(each);
            }
        }
        let (used, since) = refill(self.0.get(&provider).copied().unwrap_or((0, now)));
        if used >= limits.burst {
            return Err(since.plus(each).0.saturating_sub(now.0).max(1));
        }
        self.0.insert(provider, (used + 1, if used == 0 { now } else { since }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(number: u16) -> Address {
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        Address { workchain: 0, hash }
    }

    #[test]
    fn a_bucket_empties_fills_again_and_is_its_providers_own() {
        let limits = Limits { burst: 2, seconds_each: 10, ..Limits::default() };
        let mut buckets = Buckets::default();
        let at = UnixTime;
        assert_eq!(buckets.take(provider(1), &limits, at(100)), Ok(()));
        assert_eq!(buckets.take(provider(1), &limits, at(104)), Ok(()));
        assert_eq!(buckets.take(provider(1), &limits, at(105)), Err(5));
        assert_eq!(buckets.take(provider(2), &limits, at(105)), Ok(()));
        assert_eq!(buckets.take(provider(1), &limits, at(110)), Ok(()));
        assert_eq!(buckets.take(provider(1), &limits, at(119)), Err(1));
        assert_eq!(buckets.take(provider(1), &limits, at(1_000)), Ok(()));
        assert_eq!(buckets.take(provider(1), &limits, at(1_000)), Ok(()));
        assert!(buckets.take(provider(1), &limits, at(1_000)).is_err());
    }

    #[test]
    fn memory_is_bounded_and_room_comes_back() {
        let limits = Limits { burst: 2, seconds_each: 10, ..Limits::default() };
        let mut buckets = Buckets::default();
        for number in 0..PROVIDERS as u16 {
            assert_eq!(buckets.take(provider(number), &limits, UnixTime(100)), Ok(()));
        }
        assert_eq!(buckets.take(provider(60_000), &limits, UnixTime(100)), Err(10));
        assert_eq!(buckets.take(provider(60_000), &limits, UnixTime(110)), Ok(()));
        assert_eq!(buckets.0.len(), 1);
    }
}
