//! A stamp of work on what is sent to a verifier node: whoever sends garbage pays more for it than the node does.
//!
//! A number of 64 bits such that `SHA-256("cocoon-work-v1" || SHA-256(bundle) || time || number)` begins with [`BITS`] zero bits, time and
//! number in eight bytes each, big-endian. The header [`HEADER`] carries number, time and the bundle's SHA-256: so a node knows that the work was
//! done before it reads a bundle, and which bundle it was done for. A stamp counts for [`LASTS`] seconds, so that no store of them is ever worth
//! much.

use cocoon_attestation::{Digest, UnixTime};

/// Zero bits that are asked for: 65,536 hashes on average, about ten times what a node spends on the worst bundle.
pub const BITS: u32 = 16;
/// The header that carries the stamp.
pub const HEADER: &str = "cocoon-work";
/// Seconds by which a stamp's time may differ from the chain's.
pub const LASTS: u64 = 600;

const DOMAIN: &[u8] = b"cocoon-work-v1";

/// Work that was done for a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// SHA-256 of the bundle.
    pub bundle: Digest,
    /// When it was begun, by the chain's time.
    pub time: UnixTime,
    /// What makes the hash begin with zeros.
    pub number: u64,
}

impl Stamp {
    /// Does the work.
    pub fn make(bundle: &[u8], time: UnixTime) -> Self {
        let bundle = Digest::of(&[bundle]);
        let stamp = |number| Self { bundle, time, number };
        (0..=u64::MAX).map(stamp).find(Self::is_enough).unwrap_or(stamp(0))
    }

    /// What the header says of it.
    pub fn to_header(&self) -> String {
        format!("{} {} {}", self.number, self.time.0, self.bundle)
    }

    /// The stamp in a header; `None` if there is none, or too little work in it.
    pub fn from_header(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let (number, time, bundle) = (parts.next()?, parts.next()?, parts.next()?);
        let (number, time, bundle) = (number.parse().ok()?, UnixTime(time.parse().ok()?), bundle.parse().ok()?);
        let stamp = Self { bundle, time, number };
        (parts.next().is_none() && stamp.is_enough()).then_some(stamp)
    }

    /// Whether it counts at a time.
    pub fn counts_at(&self, now: UnixTime) -> bool {
        self.time.0.abs_diff(now.0) <= LASTS
    }

    /// The hash that begins with zeros; every stamp has its own.
    pub fn hash(&self) -> Digest {
        let (time, number) = (self.time.0.to_be_bytes(), self.number.to_be_bytes());
        Digest::of(&[DOMAIN, self.bundle.as_bytes(), &time, &number])
    }

    fn is_enough(&self) -> bool {
        let Digest(hash) = self.hash();
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]).leading_zeros() >= BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_for_one_bundle_at_one_time_and_is_not_guessed() {
        let at = UnixTime(1_790_000_000);
        let stamp = Stamp::make(b"bundle", at);
        assert!(stamp.is_enough() && stamp.bundle == Digest::of(&[b"bundle"]));
        assert!((0..stamp.number).all(|lower| !Stamp { number: lower, ..stamp }.is_enough()));
        assert!(!Stamp { bundle: Digest::of(&[b"bundlf"]), ..stamp }.is_enough());
        assert!(!Stamp { time: at.plus(1), ..stamp }.is_enough());
        assert!(stamp.counts_at(at.plus(LASTS)) && stamp.counts_at(UnixTime(at.0 - LASTS)));
        assert!(!stamp.counts_at(at.plus(LASTS + 1)) && !stamp.counts_at(UnixTime(at.0 - LASTS - 1)));
        let header = stamp.to_header();
        assert_eq!(Stamp::from_header(&header), Some(stamp));
        let of_another = Stamp { number: stamp.number + 1, ..stamp }.to_header();
        for bad in ["", "1", "  ", "1 2", "1 2 x", &format!("{header} "), &format!("{header} 1"), &of_another] {
            assert_eq!(Stamp::from_header(bad), None, "{bad}");
        }
        // The vector of `docs/protocol.md`.
        assert_eq!(stamp.number, 5_131);
    }
}
