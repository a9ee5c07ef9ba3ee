//! Which enclaves are announced. In memory: hosts announce again long before an entry expires.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cocoon_attestation::{EvidenceId, UnixTime};
use cocoon_protocol::wire::Announcement;

use crate::Error;
use crate::admission::Admitted;

/// Most enclaves in the directory.
pub const MAX_ENCLAVES: usize = 4096;
/// Most bytes of announcements in the directory.
pub const MAX_DIRECTORY: usize = 256 << 20;
/// Most bytes of announcements in one list. Clients read 16 MiB.
pub const MAX_LIST: usize = 8 << 20;

struct Entry {
    until: Instant,
    /// When it was signed.
    time: UnixTime,
    size: usize,
    announcement: Announcement,
}

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<EvidenceId, Entry>,
    bytes: usize,
}

pub(crate) struct Directory {
    expiry: Duration,
    entries: Mutex<Entries>,
    /// Where the next list begins, so that one that cannot hold all shows another part each time.
    lists: AtomicUsize,
}

impl Directory {
    pub fn new(expiry: Duration) -> Self {
        Self { expiry, entries: Mutex::default(), lists: AtomicUsize::new(0) }
    }

    fn current(&self) -> MutexGuard<'_, Entries> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        entries.by_id.retain(|_, entry| now < entry.until);
        entries.bytes = entries.by_id.values().map(|entry| entry.size).sum();
        entries
    }

    /// Lists an enclave for as long as its announcement counts from when it was signed: sent again by anybody, it lasts no longer.
    pub fn put(&self, admitted: Admitted, now: UnixTime) -> Result<(), Error> {
        let Admitted { id, time, announcement, size } = admitted;
        let mut entries = self.current();
        let known = entries.by_id.get(&id);
        if known.is_some_and(|known| time <= known.time) {
            return Err(Error::Stale);
        }
        let bytes = entries.bytes - known.map_or(0, |known| known.size) + size;
        if bytes > MAX_DIRECTORY || (entries.by_id.len() >= MAX_ENCLAVES && known.is_none()) {
            return Err(Error::Full);
        }
        let left = self.expiry.saturating_sub(Duration::from_secs(now.0.saturating_sub(time.0)));
        entries.by_id.insert(id, Entry { until: Instant::now() + left, time, size, announcement });
        entries.bytes = bytes;
        Ok(())
    }

    pub fn host_url(&self, id: &EvidenceId) -> Option<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.by_id.get(id).filter(|entry| Instant::now() < entry.until);
        entry.map(|entry| entry.announcement.host_url.clone())
    }

    /// Enclaves of a model, as many as a list holds.
    pub fn list(&self, model: Option<&str>) -> Vec<Announcement> {
        let entries = self.current();
        let serves = |entry: &&Entry| model.is_none_or(|model| entry.announcement.models.iter().any(|m| m == model));
        let mut found: Vec<&Entry> = entries.by_id.values().filter(serves).collect();
        let whole: usize = found.iter().map(|entry| entry.size).sum();
        if whole > MAX_LIST {
            let first = self.lists.fetch_add(1, Ordering::Relaxed) % found.len();
            found.rotate_left(first);
        }
        let mut left = MAX_LIST;
        let fits = |entry: &&Entry| {
            let fits = entry.size <= left;
            left = left.saturating_sub(entry.size);
            fits
        };
        found.into_iter().take_while(fits).map(|entry| entry.announcement.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.current().by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_attestation::Digest;
    use cocoon_settlement::{Address, Prices};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn of(number: u16, time: UnixTime, size: usize) -> Admitted {
        let id = EvidenceId(Digest::of(&[&number.to_be_bytes()]));
        let announcement = Announcement {
            evidence_id: id.to_string(),
            host_url: format!("http://host:{number}"),
            models: vec!["small".into()],
            provider: Address::basechain([1; 32]),
            prices: Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 },
            bundle: String::new(),
            key_statement: String::new(),
        };
        Admitted { id, time, announcement, size }
    }

    #[test]
    fn an_older_word_replaces_no_newer_one_and_lasts_no_longer_than_it_counts() {
        let directory = Directory::new(Duration::from_secs(60));
        directory.put(of(1, NOW, 1), NOW).unwrap();
        for old in [NOW, UnixTime(NOW.0 - 1)] {
            assert!(matches!(directory.put(of(1, old, 1), NOW), Err(Error::Stale)));
        }
        directory.put(of(1, NOW.plus(1), 1), NOW.plus(1)).unwrap();
        assert_eq!(directory.len(), 1);
        // Signed a minute ago, and sent only now.
        directory.put(of(2, UnixTime(NOW.0 - 60), 1), NOW).unwrap();
        assert_eq!((directory.len(), directory.host_url(&of(2, NOW, 1).id)), (1, None));
    }

    #[test]
    fn the_directory_is_bounded_in_entries_and_in_bytes() {
        let directory = Directory::new(Duration::from_secs(60));
        for number in 0..128 {
            directory.put(of(number, NOW, 2 << 20), NOW).unwrap();
        }
        assert!(matches!(directory.put(of(128, NOW, 1), NOW), Err(Error::Full)));
        // In place of itself it may stay, and a smaller one makes room.
        directory.put(of(0, NOW.plus(1), (2 << 20) - 1), NOW).unwrap();
        directory.put(of(128, NOW, 1), NOW).unwrap();
        let directory = Directory::new(Duration::from_secs(60));
        for number in 0..4_096 {
            directory.put(of(number, NOW, 1), NOW).unwrap();
        }
        assert!(matches!(directory.put(of(4_096, NOW, 1), NOW), Err(Error::Full)));
        directory.put(of(4_095, NOW.plus(1), 1), NOW).unwrap();
    }

    #[test]
    fn a_list_that_cannot_hold_all_shows_all_in_turn() {
        let directory = Directory::new(Duration::from_secs(60));
        for number in 0..16 {
            directory.put(of(number, NOW, 1 << 20), NOW).unwrap();
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..16 {
            let list = directory.list(Some("small"));
            assert_eq!(list.len(), 8);
            seen.extend(list.into_iter().map(|announcement| announcement.host_url));
        }
        assert_eq!(seen.len(), 16);
        assert!(directory.list(Some("large")).is_empty());
    }
}
