//! How many bytes of answers may wait to be read, of each and of all together. The engine goes on at its own pace, so what nobody reads
//! has to be somewhere, and nobody else's answer may suffer for it.

use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that any answer may have waiting, whatever the others have.
const SHARE: usize = 256 << 10;
/// What one answer may take at most, as a part of what all have together.
const PART: usize = 8;

/// What waits, of all answers.
pub struct Unread {
    all: usize,
    /// Bytes beyond their share that answers have waiting.
    taken: Mutex<usize>,
}

/// Why no more may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The answer has all that one may have.
    Own,
    /// The others have the rest.
    All,
}

/// What waits of one answer. Dropping it lets others have it.
pub struct Waiting {
    of: Arc<Unread>,
    bytes: Mutex<usize>,
}

impl Unread {
    /// Answers may have so many bytes waiting together, beyond a share of 256 KiB each.
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all, taken: Mutex::default() })
    }

    /// The most that one answer may have waiting.
    pub fn most(&self) -> usize {
        self.all / PART + SHARE
    }

    /// An answer of which nothing waits.
    pub fn begin(self: &Arc<Self>) -> Waiting {
        Waiting { of: self.clone(), bytes: Mutex::default() }
    }
}

impl Waiting {
    /// Counts so many bytes more.
    ///
    /// # Errors
    /// That is more than there may be; then nothing is counted.
    pub fn add(&self, more: usize) -> Result<(), Full> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let after = bytes.saturating_add(more);
        if after > self.of.most() {
            return Err(Full::Own);
        }
        let beyond = after.saturating_sub(SHARE) - bytes.saturating_sub(SHARE);
        if beyond > 0 {
            let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
            if *taken + beyond > self.of.all {
                return Err(Full::All);
            }
            *taken += beyond;
        }
        *bytes = after;
        Ok(())
    }

    /// So many bytes do not wait any more.
    pub fn remove(&self, less: usize) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let after = bytes.saturating_sub(less);
        let beyond = bytes.saturating_sub(SHARE) - after.saturating_sub(SHARE);
        if beyond > 0 {
            *self.of.taken.lock().unwrap_or_else(PoisonError::into_inner) -= beyond;
        }
        *bytes = after;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.remove(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = 8 << 20;

    #[test]
    fn one_answer_has_a_bound_and_gives_back_what_it_had() {
        let unread = Unread::new(ALL);
        let one = unread.begin();
        assert_eq!((one.add(unread.most()), one.add(1)), (Ok(()), Err(Full::Own)));
        one.remove(10);
        assert_eq!((one.add(10), one.add(1)), (Ok(()), Err(Full::Own)));
        drop(one);
        assert_eq!(*unread.taken.lock().unwrap(), 0);
    }

    #[test]
    fn all_have_a_bound_and_nobody_can_take_anothers_share() {
        let unread = Unread::new(ALL);
        let greedy: Vec<_> = (0..PART).map(|_| unread.begin()).collect();
        assert!(greedy.iter().all(|one| one.add(unread.most()).is_ok()));
        let modest = unread.begin();
        assert_eq!((modest.add(SHARE), modest.add(1)), (Ok(()), Err(Full::All)), "all beyond shares is taken");
        greedy[0].remove(1);
        assert_eq!((modest.add(1), modest.add(1)), (Ok(()), Err(Full::All)));
        drop(greedy);
        assert_eq!(modest.add(ALL / PART - 1), Ok(()));
    }

    #[test]
    fn sums_agree_whatever_comes_and_goes() {
        let unread = Unread::new(ALL);
        let answers: Vec<_> = (0..20).map(|_| unread.begin()).collect();
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let (answer, size) = (&answers[(state >> 33) as usize % 20], (state >> 40) as usize % (1 << 20));
            match state >> 63 {
                0 => _ = answer.add(size).is_ok(),
                _ => answer.remove(size),
            }
            let bytes = answers.iter().map(|one| one.bytes.lock().unwrap().saturating_sub(SHARE)).sum::<usize>();
            assert_eq!(bytes, *unread.taken.lock().unwrap());
            assert!(bytes <= ALL);
        }
    }
}
