//! What was authenticated once and need not be again: bounded, and never a stand-in for anything but the very bytes of its key.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// Entries by a SHA-256 of what they rest on; one that does not count is made anew. The oldest goes first.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    inner: Mutex<Inner<T>>,
    most: usize,
    /// Most bytes in all, and how many an entry has.
    budget: usize,
    weigh: fn(&T) -> usize,
}

#[derive(Debug)]
struct Inner<T> {
    entries: HashMap<[u8; 32], Arc<T>>,
    order: VecDeque<[u8; 32]>,
    /// Bytes of all entries.
    weight: usize,
}

impl<T> Cache<T> {
    /// A cache of at most so many entries, each of a size that whoever makes them bounds.
    pub(crate) fn new(most: usize) -> Self {
        Self::weighing(most, usize::MAX, |_| 0)
    }

    /// A cache of at most so many entries, and at most so many bytes of them.
    pub(crate) fn weighing(most: usize, budget: usize, weigh: fn(&T) -> usize) -> Self {
        let inner = Inner { entries: HashMap::new(), order: VecDeque::new(), weight: 0 };
        Self { inner: Mutex::new(inner), most, budget, weigh }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing in here can be left half done by a panic.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The entry under a key if it still counts.
    pub(crate) fn get(&self, key: &[u8], counts: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let key = <[u8; 32]>::try_from(key).ok()?;
        let found = self.lock().entries.get(&key).cloned();
        found.filter(|found| counts(found))
    }

    /// Keeps an entry under a key, instead of the one that is there.
    pub(crate) fn keep(&self, key: &[u8], entry: Arc<T>) {
        let Ok(key) = <[u8; 32]>::try_from(key) else { return };
        let weight = (self.weigh)(&entry);
        if weight > self.budget {
            return;
        }
        let mut inner = self.lock();
        match inner.entries.insert(key, entry) {
            None => inner.order.push_back(key),
            Some(replaced) => inner.weight -= (self.weigh)(&replaced),
        }
        inner.weight += weight;
        while inner.order.len() > self.most || inner.weight > self.budget {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(gone) = inner.entries.remove(&oldest) {
                inner.weight -= (self.weigh)(&gone);
            }
        }
    }

    /// The entry under a key if it still counts, or else a fresh one, which is kept. Failures are never kept.
    pub(crate) fn get_or<E>(
        &self,
        key: &[u8],
        counts: impl Fn(&T) -> bool,
        fresh: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        if let Some(found) = self.get(key, counts) {
            return Ok(found);
        }
        let entry = fresh()?;
        self.keep(key, entry.clone());
        Ok(entry)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(cache: &Cache<u32>, key: u8, value: u32) -> u32 {
        *cache.get_or(&[key; 32], |_| true, || Ok::<_, ()>(Arc::new(value))).expect("a value")
    }

    #[test]
    fn an_entry_is_found_under_its_own_key_only() {
        let cache = Cache::new(4);
        assert_eq!(get(&cache, 1, 10), 10);
        assert_eq!(get(&cache, 1, 11), 10);
        assert_eq!(get(&cache, 2, 20), 20);
    }

    #[test]
    fn an_entry_that_no_longer_counts_is_made_anew() {
        let cache = Cache::new(4);
        get(&cache, 1, 10);
        let fresh = cache.get_or(&[1; 32], |value| *value > 10, || Ok::<_, ()>(Arc::new(11)));
        assert_eq!(fresh.map(|value| *value), Ok(11));
        assert_eq!((get(&cache, 1, 12), cache.len()), (11, 1));
    }

    #[test]
    fn failures_are_not_kept_and_the_size_is_bounded() {
        let cache = Cache::new(3);
        assert_eq!(cache.get_or(&[1; 32], |_| true, || Err("no")), Err("no"));
        assert_eq!(cache.len(), 0);
        for key in 0..10 {
            get(&cache, key, key.into());
        }
        assert_eq!(cache.len(), 3);
        assert_eq!((get(&cache, 9, 0), get(&cache, 0, 77)), (9, 77));
    }

    #[test]
    fn bytes_are_bounded_as_entries_are() {
        let cache: Cache<Vec<u8>> = Cache::weighing(100, 30, Vec::len);
        let keep = |key: u8, bytes: usize| cache.keep(&[key; 32], Arc::new(vec![0; bytes]));
        let kept = |key: u8| cache.get(&[key; 32], |_| true).map(|bytes| bytes.len());
        keep(1, 10);
        keep(2, 10);
        keep(3, 10);
        assert_eq!((kept(1), kept(2), kept(3)), (Some(10), Some(10), Some(10)));
        keep(4, 11);
        assert_eq!((kept(1), kept(2), kept(3), kept(4)), (None, None, Some(10), Some(11)));
        // One that is larger than all may be together drives nothing out.
        keep(5, 31);
        assert_eq!((kept(3), kept(4), kept(5)), (Some(10), Some(11), None));
        // One in the place of another counts once.
        keep(3, 19);
        assert_eq!((kept(3), kept(4), cache.len()), (Some(19), Some(11), 2));
    }
}
