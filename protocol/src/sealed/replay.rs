//! Each encapsulated key is accepted once per key epoch.

use std::collections::HashSet;

use cocoon_attestation::Digest;

use crate::Error;

/// Remembers the encapsulated keys of one epoch, in bounded memory.
pub struct ReplayGuard {
    seen: HashSet<Digest>,
    capacity: usize,
    #[cfg(test)]
    off: bool,
}

impl ReplayGuard {
    /// A guard for at most `capacity` requests; 40 bytes each, roughly.
    pub fn new(capacity: usize) -> Self {
        Self {
            seen: HashSet::new(),
            capacity,
            #[cfg(test)]
            off: false,
        }
    }

    /// A guard that refuses nothing: the control of the tests.
    #[cfg(test)]
    pub(super) fn off() -> Self {
        Self { off: true, ..Self::new(0) }
    }

    /// Whether the key with this digest was accepted.
    pub fn has(&self, digest: &Digest) -> bool {
        self.seen.contains(digest)
    }

    /// Accepts an encapsulated key the first time.
    ///
    /// # Errors
    /// [`Error::Replayed`] the second time; [`Error::EpochFull`] when no more can be remembered.
    pub fn accept(&mut self, enc: &[u8]) -> Result<(), Error> {
        #[cfg(test)]
        if self.off {
            return Ok(());
        }
        let digest = Digest::of(&[enc]);
        if self.seen.contains(&digest) {
            return Err(Error::Replayed);
        }
        if self.seen.len() >= self.capacity {
            return Err(Error::EpochFull);
        }
        self.seen.insert(digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_once_and_memory_is_bounded() {
        let mut guard = ReplayGuard::new(2);
        assert!(!guard.has(&Digest::of(&[b"a"])));
        guard.accept(b"a").unwrap();
        assert!(guard.has(&Digest::of(&[b"a"])));
        assert!(matches!(guard.accept(b"a"), Err(Error::Replayed)));
        guard.accept(b"b").unwrap();
        assert!(matches!(guard.accept(b"c"), Err(Error::EpochFull)));
        assert!(matches!(guard.accept(b"a"), Err(Error::Replayed)), "a full guard still knows what it saw");
    }
}
