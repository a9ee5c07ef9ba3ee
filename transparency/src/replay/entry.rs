//! A leaf read in place: a replay opens millions, and copies none of them.

use cocoon_attestation::cbor::InPlace;
use cocoon_attestation::{Digest, EvidenceId, UnixTime};
use cocoon_verifier::Outcome;

use crate::leaf::{Leaf, Part};

/// A part of a leaf, in place.
#[derive(Clone, Copy)]
pub(super) enum PartRef<'a> {
    Inline(&'a [u8]),
    Shared(Digest),
}

/// A leaf, in place.
pub(super) struct Entry<'a> {
    pub evidence_id: EvidenceId,
    pub bundle: PartRef<'a>,
    pub appraisal: PartRef<'a>,
    pub time: UnixTime,
    pub node: &'a str,
    pub verifier: &'a str,
    pub policy: Digest,
    pub references: Option<Digest>,
    pub refusal: Option<&'a str>,
    pub outcome: Outcome,
}

impl<'a> Entry<'a> {
    /// Reads what [`Leaf::to_cbor`] writes. `None` is left to [`Leaf::from_cbor`], which says what is wrong or reads it after all.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > crate::MAX_ENTRY {
            return None;
        }
        let mut reader = InPlace::new(bytes);
        let mut left = reader.map()?;
        let mut key = |reader: &mut InPlace<'a>, wanted: u64| {
            let mut ahead = *reader;
            if ahead.uint()? != wanted {
                return None;
            }
            left = left.checked_sub(1)?;
            *reader = ahead;
            Some(())
        };
        key(&mut reader, 0)?;
        if reader.uint()? != 1 {
            return None;
        }
        key(&mut reader, 1)?;
        let evidence_id = EvidenceId(Digest(reader.array_of()?));
        key(&mut reader, 2)?;
        let bundle = part(&mut reader)?;
        key(&mut reader, 3)?;
        let appraisal = part(&mut reader)?;
        key(&mut reader, 4)?;
        let time = UnixTime(reader.uint()?);
        key(&mut reader, 5)?;
        let node = reader.text()?;
        key(&mut reader, 6)?;
        let verifier = reader.text()?;
        key(&mut reader, 7)?;
        let policy = Digest(reader.array_of()?);
        let references = match key(&mut reader, 8) {
            Some(()) => Some(Digest(reader.array_of()?)),
            None => None,
        };
        let refusal = match key(&mut reader, 9) {
            Some(()) => Some(reader.text()?),
            None => None,
        };
        key(&mut reader, 10)?;
        let code = reader.uint()?;
        let all = [Outcome::Accepted, Outcome::Refused, Outcome::Invalid, Outcome::Malformed];
        let outcome = all.into_iter().find(|outcome| u64::from(outcome.exit_code()) == code)?;
        let long = [Some(node), Some(verifier), refusal].into_iter().flatten().any(|text| text.len() > 1_024);
        if left != 0 || !reader.is_empty() || long {
            return None;
        }
        Some(Self { evidence_id, bundle, appraisal, time, node, verifier, policy, references, refusal, outcome })
    }

    /// The same of a leaf that was read without haste.
    pub fn of(leaf: &'a Leaf) -> Self {
        let part = |part: &'a Part| match part {
            Part::Inline(bytes) => PartRef::Inline(bytes),
            Part::Shared(digest) => PartRef::Shared(*digest),
        };
        Self {
            evidence_id: leaf.evidence_id,
            bundle: part(&leaf.bundle),
            appraisal: part(&leaf.appraisal),
            time: leaf.time,
            node: &leaf.node,
            verifier: &leaf.verifier,
            policy: leaf.policy,
            references: leaf.references,
            refusal: leaf.refusal.as_deref(),
            outcome: leaf.outcome,
        }
    }
}

fn part<'a>(reader: &mut InPlace<'a>) -> Option<PartRef<'a>> {
    let mut ahead = *reader;
    if let Some(bytes) = ahead.bytes() {
        *reader = ahead;
        return (bytes.len() <= 16_384).then_some(PartRef::Inline(bytes));
    }
    let text = reader.text()?;
    // Upper-case digits would be another encoding of the same digest.
    let digest: Digest = text.parse().ok()?;
    (digest.to_string() == text).then_some(PartRef::Shared(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        Leaf {
            evidence_id: EvidenceId(Digest([1; 32])),
            outcome: Outcome::Refused,
            bundle: Part::Inline(vec![2; 6_000]),
            appraisal: Part::Shared(Digest([0xab; 32])),
            refusal: Some("no such block".into()),
            time: UnixTime(1_790_000_000),
            node: "node.example/log".into(),
            verifier: "cocoon-verifier 0.1.0".into(),
            policy: Digest([3; 32]),
            references: Some(Digest([4; 32])),
        }
    }

    fn same(entry: &Entry<'_>, leaf: &Leaf) {
        let other = Entry::of(leaf);
        assert_eq!((entry.evidence_id, entry.time, entry.outcome), (other.evidence_id, other.time, other.outcome));
        assert_eq!((entry.node, entry.verifier, entry.refusal), (other.node, other.verifier, other.refusal));
        assert_eq!((entry.policy, entry.references), (other.policy, other.references));
        for (a, b) in [(entry.bundle, other.bundle), (entry.appraisal, other.appraisal)] {
            match (a, b) {
                (PartRef::Inline(a), PartRef::Inline(b)) => assert_eq!(a, b),
                (PartRef::Shared(a), PartRef::Shared(b)) => assert_eq!(a, b),
                _ => panic!("another kind of part"),
            }
        }
    }

    #[test]
    fn it_reads_what_leaves_write() {
        let whole = leaf();
        let bare = Leaf { refusal: None, references: None, bundle: Part::Shared(Digest([9; 32])), ..leaf() };
        for leaf in [whole, bare] {
            same(&Entry::read(&leaf.to_cbor()).expect("a leaf"), &leaf);
        }
    }

    #[test]
    fn it_reads_nothing_that_the_reader_of_leaves_does_not_read_alike() {
        let bytes = leaf().to_cbor();
        let mut read = 0;
        for at in (0..bytes.len()).filter(|at| *at < 100 || bytes.len() - at < 300) {
            for flip in [1, 2, 4, 32, 128] {
                let mut altered = bytes.clone();
                altered[at] ^= flip;
                if let Some(entry) = Entry::read(&altered) {
                    same(&entry, &Leaf::from_cbor(&altered).unwrap_or_else(|error| panic!("byte {at}: {error}")));
                    read += 1;
                }
            }
        }
        assert!(read > 300, "{read}");
        assert!((0..bytes.len()).all(|end| Entry::read(&bytes[..end]).is_none()));
        assert!(Entry::read(&[bytes.as_slice(), &[0]].concat()).is_none());
    }
}
