//! Endorsements that stand beside bundles, as logs keep them.

use std::fmt;
use std::sync::Arc;

use cocoon_attestation::Digest;
use cocoon_attestation::bundle::MAX_BYTES;

use crate::cache::Cache;
use crate::tdx::Collateral;

/// Most endorsements of a place that are kept, and most bytes of them.
const PARTS: (usize, usize) = (16_384, 64 << 20);
/// Most collateral of a place that is kept read, and most bytes of its JSON: read, it takes about as much again.
const COLLATERAL: (usize, usize) = (256, 32 << 20);

/// A place where the endorsements of detached bundles are found by their SHA-256, and what was read there: each is asked for once, until
/// it is forgotten for others.
///
/// It stands for one place alone. What another place has is missing here if this one lost it, so what comes of a log's bundles does not
/// depend on which logs were read before.
pub struct Beside<'a> {
    lookup: Lookup<'a>,
    parts: Cache<Vec<u8>>,
    collateral: Cache<Read>,
}

type Lookup<'a> = Box<dyn Fn(&Digest) -> Option<Vec<u8>> + Sync + Send + 'a>;

/// Collateral, and how many bytes it has as JSON.
pub(crate) struct Read {
    pub(crate) collateral: Collateral,
    pub(crate) len: usize,
}

impl<'a> Beside<'a> {
    /// A place where `lookup` finds an endorsement by its SHA-256; what it finds is hashed, and is nothing if it is something else.
    pub fn new(lookup: impl Fn(&Digest) -> Option<Vec<u8>> + Sync + Send + 'a) -> Self {
        Self {
            lookup: Box::new(lookup),
            parts: Cache::weighing(PARTS.0, PARTS.1, Vec::len),
            collateral: Cache::weighing(COLLATERAL.0, COLLATERAL.1, |read| read.len),
        }
    }

    /// The bytes of this SHA-256.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Vec<u8>> {
        (self.lookup)(digest).filter(|bytes| Digest::of(&[bytes]) == *digest)
    }

    /// The same, kept. What is longer than a whole bundle may be can be part of none.
    pub(crate) fn part(&self, digest: &Digest) -> Option<Arc<Vec<u8>>> {
        let fresh = || self.find(digest).filter(|bytes| bytes.len() <= MAX_BYTES).map(Arc::new).ok_or(());
        self.parts.get_or(&digest.0, |_| true, fresh).ok()
    }

    /// Collateral that can be read, kept.
    pub(crate) fn collateral(&self, digest: &Digest) -> Option<Arc<Read>> {
        let fresh = || {
            let json = self.find(digest).filter(|json| json.len() <= MAX_BYTES).ok_or(())?;
            let collateral = Collateral::from_json(&json).map_err(drop)?;
            Ok::<_, ()>(Arc::new(Read { collateral, len: json.len() }))
        };
        self.collateral.get_or(&digest.0, |_| true, fresh).ok()
    }
}

impl fmt::Debug for Beside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}
