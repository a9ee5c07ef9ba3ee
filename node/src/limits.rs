//! Nobody gets more of a node than its share.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use cocoon_attestation::UnixTime;
use cocoon_settlement::Address;
use cocoon_verifier::Appraisal;

/// What one provider or platform may have appraised, and how much may wait at all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bundles that are being verified at once; more are turned away with 503.
    pub queue: usize,
    /// Good evidence that one provider may bring at once.
    pub burst: u32,
    /// Seconds after which it may bring one more.
    pub seconds_each: u32,
    /// Authentic evidence, good or not, that one platform may bring at once.
    pub platform_burst: u32,
    /// Seconds after which it may bring one more.
    pub platform_seconds_each: u32,
    /// Whether a bundle over HTTP needs a stamp of work (`cocoon_protocol::work`).
    pub work: bool,
    /// How long the body of a request over HTTP may take.
    pub body: Duration,
    /// How old what the chain said may be when strangers' evidence is looked at.
    pub chain_age: Duration,
}

impl Default for Limits {
    /// 256 at once; of one provider 4,096, and one more every two seconds: 43,200 a day; of one platform 512, and one more every minute.
    fn default() -> Self {
        Self {
            queue: 256,
            burst: 4_096,
            seconds_each: 2,
            platform_burst: 512,
            platform_seconds_each: 60,
            work: true,
            body: Duration::from_secs(10),
            chain_age: Duration::from_secs(1),
        }
    }
}

/// Names of a kind that are remembered: whoever is not has a whole bucket.
const NAMES: usize = 10_000;

/// A bucket that fills by one every so many seconds.
#[derive(Clone, Copy, Default)]
struct Bucket {
    used: u32,
    since: UnixTime,
}

impl Bucket {
    fn filled(self, each: u64, now: UnixTime) -> Self {
        if self.used == 0 {
            return Self { used: 0, since: now };
        }
        let gained = now.0.saturating_sub(self.since.0) / each;
        let used = self.used.saturating_sub(u32::try_from(gained).unwrap_or(u32::MAX));
        Self { used, since: if used == 0 { now } else { self.since.plus(gained * each) } }
    }

    /// Takes one; else says how many seconds to wait.
    fn take(&mut self, burst: u32, each: u64, now: UnixTime) -> Result<(), u64> {
        *self = self.filled(each, now);
        if self.used >= burst {
            return Err(self.since.plus(each).0.saturating_sub(now.0).max(1));
        }
        self.used += 1;
        Ok(())
    }
}

/// A bucket for each name, and one for all that have no name or find no room.
struct Named<K> {
    own: HashMap<K, Bucket>,
    common: Bucket,
}

impl<K> Default for Named<K> {
    fn default() -> Self {
        Self { own: HashMap::new(), common: Bucket::default() }
    }
}

impl<K: Eq + Hash> Named<K> {
    fn take(&mut self, name: Option<K>, burst: u32, each: u32, now: UnixTime) -> Result<(), u64> {
        let each = u64::from(each.max(1));
        let Some(name) = name else { return self.common.take(burst, each, now) };
        if self.own.len() >= NAMES && !self.own.contains_key(&name) {
            self.own.retain(|_, bucket| bucket.filled(each, now).used > 0);
            if self.own.len() >= NAMES {
                return self.common.take(burst, each, now);
            }
        }
        self.own.entry(name).or_default().take(burst, each, now)
    }
}

/// Who brought how much.
#[derive(Default)]
pub(crate) struct Buckets {
    platforms: Named<String>,
    providers: Named<Address>,
}

impl Buckets {
    /// Takes one out of a platform's bucket and, for evidence that gets a verdict, one out of the provider's that it names. Nothing but such
    /// evidence counts against a provider: whoever has a platform of any sort can put any provider's name into what it signs.
    pub fn take(
        &mut self,
        platform: Option<String>,
        provider: Option<Address>,
        limits: &Limits,
        now: UnixTime,
    ) -> Result<(), u64> {
        self.platforms.take(platform, limits.platform_burst, limits.platform_seconds_each, now)?;
        match provider {
            Some(provider) => self.providers.take(Some(provider), limits.burst, limits.seconds_each, now),
            None => Ok(()),
        }
    }
}

/// What the vendor calls the platform that signed authentic evidence; not every one has a name.
pub(crate) fn platform(appraisal: &Appraisal) -> Option<String> {
    let name = |id: &str| appraisal.measurements.get(id).filter(|hex| hex.bytes().any(|digit| digit != b'0'));
    Some(name("tdx.piid").or_else(|| name("snp.chip-id"))?.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(number: u16) -> Option<Address> {
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        Some(Address { workchain: 0, hash })
    }

    #[test]
    fn a_bucket_empties_fills_again_and_is_its_providers_own() {
        let mut named = Named::default();
        let mut take = |name, at| named.take(name, 2, 10, UnixTime(at));
        assert_eq!(take(provider(1), 100), Ok(()));
        assert_eq!(take(provider(1), 104), Ok(()));
        assert_eq!(take(provider(1), 105), Err(5));
        assert_eq!(take(provider(2), 105), Ok(()));
        assert_eq!(take(provider(1), 110), Ok(()));
        assert_eq!(take(provider(1), 119), Err(1));
        assert_eq!(take(provider(1), 1_000), Ok(()));
        assert_eq!(take(provider(1), 1_000), Ok(()));
        assert!(take(provider(1), 1_000).is_err());
    }

    #[test]
    fn memory_is_bounded_who_finds_no_room_shares_and_room_comes_back() {
        let mut named = Named::default();
        for number in 0..NAMES as u16 {
            assert_eq!(named.take(provider(number), 2, 10, UnixTime(100)), Ok(()));
        }
        assert_eq!(named.take(provider(60_000), 2, 10, UnixTime(100)), Ok(()));
        assert_eq!(named.take(provider(60_001), 2, 10, UnixTime(100)), Ok(()));
        assert_eq!(named.take(provider(60_002), 2, 10, UnixTime(100)), Err(10));
        assert_eq!(named.own.len(), NAMES);
        assert_eq!(named.take(provider(60_003), 2, 10, UnixTime(110)), Ok(()));
        assert_eq!(named.own.len(), 1);
    }

    #[test]
    fn one_platform_fills_no_table_and_empties_nobodys_bucket() {
        let limits = Limits { burst: 4, platform_burst: 3, ..Limits::default() };
        let (mut buckets, now) = (Buckets::default(), UnixTime(100));
        let attacker = || Some("a".to_owned());
        // Evidence that gets no verdict, under as many names as it likes.
        for number in 0..3 {
            assert_eq!(buckets.take(attacker(), None, &limits, now), Ok(()), "{number}");
        }
        assert_eq!(buckets.take(attacker(), None, &limits, now), Err(60));
        assert!(buckets.providers.own.is_empty());
        // Under its victim's name with the right image it gets no further than its platform does, and the victim has some left.
        let later = now.plus(3 * 60);
        while buckets.take(attacker(), provider(1), &limits, later).is_ok() {}
        assert_eq!(buckets.take(Some("b".to_owned()), provider(1), &limits, later), Ok(()));
    }
}
