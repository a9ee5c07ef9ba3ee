//! One entry of a log: what was appraised, with what result, when and by whom. Schema: `docs/schemas/log-leaf.cddl`.

use std::borrow::Cow;

use cocoon_attestation::cbor::{self, Fields, Value};
use cocoon_attestation::{Bundle, Digest, EvidenceId, UnixTime};
use cocoon_verifier::{Appraisal, Outcome};

use crate::Error;

const VERSION: u64 = 1;
/// Longest entry of C2SP tlog-tiles, which gives its length 16 bits.
pub const MAX_ENTRY: usize = 65_535;
/// What is longer stands beside the tree.
const MAX_INLINE: usize = 16_384;
/// Longest text of a leaf, in bytes: what is longer is cut.
const MAX_TEXT: usize = 1_024;

/// A part of a leaf: inside it, or beside the tree under its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The bytes themselves.
    Inline(Vec<u8>),
    /// Their SHA-256.
    Shared(Digest),
}

impl Part {
    /// Decides where bytes stand: what does not fit into the leaf is put into `shared`.
    fn new(bytes: Vec<u8>, shared: &mut Vec<(Digest, Vec<u8>)>) -> Self {
        if bytes.len() <= MAX_INLINE { Self::Inline(bytes) } else { Self::beside(bytes, shared) }
    }

    fn beside(bytes: Vec<u8>, shared: &mut Vec<(Digest, Vec<u8>)>) -> Self {
        let digest = Digest::of(&[&bytes]);
        shared.push((digest, bytes));
        Self::Shared(digest)
    }

    fn value(&self) -> Value {
        match self {
            Self::Inline(bytes) => Value::Bytes(bytes.clone()),
            // A text, so that the two cannot be taken for one another.
            Self::Shared(digest) => Value::from(digest.to_string()),
        }
    }

    fn read(fields: &mut Fields, key: u64) -> Result<Self, cocoon_attestation::Error> {
        match fields.take(key) {
            Some(Value::Bytes(bytes)) if bytes.len() <= MAX_INLINE => Ok(Self::Inline(bytes)),
            Some(Value::Text(text)) => Ok(Self::Shared(text.parse()?)),
            _ => Err(fields.error(format!("field {key} is neither bytes nor a SHA-256"))),
        }
    }

    /// The bytes; `lookup` finds those that stand beside the tree, and need not check them.
    ///
    /// # Errors
    /// The part is not there, or not what its name says.
    pub fn bytes(&self, lookup: impl Fn(&Digest) -> Option<Vec<u8>>) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Self::Inline(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Shared(digest) => {
                let bytes = lookup(digest).ok_or(Error::Part(*digest, "is not there"))?;
                if Digest::of(&[&bytes]) != *digest {
                    return Err(Error::Part(*digest, "has another SHA-256"));
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

/// A leaf carries, or names by SHA-256, all that is needed to repeat the appraisal offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The evidence that was appraised.
    pub evidence_id: EvidenceId,
    /// What came of it: the appraisal's outcome, or refused where [`Leaf::refusal`] says why.
    pub outcome: Outcome,
    /// The bundle's CBOR with references to its endorsements ([`Bundle::to_detached`]).
    pub bundle: Part,
    /// The appraisal as JSON, schema `cocoon/appraisal/v1`, as [`Appraisal::recorded`] leaves it.
    pub appraisal: Part,
    /// Why the node gave no verdict although the appraisal accepted: what it asked of the chain, not of the evidence.
    pub refusal: Option<String>,
    /// The time for which it was appraised.
    pub time: UnixTime,
    /// Name of the verifier node.
    pub node: String,
    /// What appraised: name and version of the verifier.
    pub verifier: String,
    /// SHA-256 of the policy document (TOML) that it was appraised under, a shared part.
    pub policy: Digest,
    /// SHA-256 of the reference values (TOML), a shared part, if there were any.
    pub references: Option<Digest>,
}

impl Leaf {
    /// A leaf of a bundle and its appraisal, and what must stand beside the tree for it. Policy and reference values are named only:
    /// who appends adds them once.
    pub fn new(
        bundle: &Bundle,
        appraisal: &Appraisal,
        time: UnixTime,
        policy: Digest,
    ) -> (Self, Vec<(Digest, Vec<u8>)>) {
        let (detached, mut shared) = bundle.to_detached();
        // An appraisal is made of texts and numbers alone.
        let json = serde_json::to_vec(&appraisal.clone().recorded()).unwrap_or_default();
        // Whoever is accepted is accepted again and again, and with the same words. A refusal may never be met a second time.
        let appraised = match appraisal.outcome {
            Outcome::Accepted => Part::beside(json, &mut shared),
            _ => Part::new(json, &mut shared),
        };
        let leaf = Self {
            evidence_id: bundle.evidence_id(),
            outcome: appraisal.outcome,
            bundle: Part::new(detached, &mut shared),
            appraisal: appraised,
            refusal: None,
            time,
            node: String::new(),
            verifier: String::new(),
            policy,
            references: None,
        };
        (leaf, shared)
    }

    /// Deterministic CBOR, at most [`MAX_ENTRY`] bytes.
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut entries = vec![
            (0, Value::from(VERSION)),
            (1, Value::Bytes(self.evidence_id.0.0.to_vec())),
            (2, self.bundle.value()),
            (3, self.appraisal.value()),
            (4, Value::from(self.time.0)),
            (5, Value::from(cut(&self.node))),
            (6, Value::from(cut(&self.verifier))),
            (7, Value::Bytes(self.policy.0.to_vec())),
        ];
        if let Some(references) = &self.references {
            entries.push((8, Value::Bytes(references.0.to_vec())));
        }
        if let Some(refusal) = &self.refusal {
            entries.push((9, Value::from(cut(refusal))));
        }
        entries.push((10, Value::from(u64::from(self.outcome.exit_code()))));
        cbor::encode(&cbor::map(entries))
    }

    /// Reads deterministic CBOR.
    ///
    /// # Errors
    /// Another version, or fields that are absent, unknown, too long or of another type.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_ENTRY {
            return Err(Error::Leaf(format!("it has {} bytes, more than {MAX_ENTRY}", bytes.len())));
        }
        Self::read(bytes).map_err(|error| Error::Leaf(error.to_string()))
    }

    fn read(bytes: &[u8]) -> Result<Self, cocoon_attestation::Error> {
        let mut fields = Fields::decode("a log leaf", bytes)?;
        if fields.uint(0)? != VERSION {
            return Err(fields.error("its version is not 1"));
        }
        let digest = |fields: &mut Fields, key| fields.array(key).map(Digest);
        let mut leaf = Self {
            evidence_id: EvidenceId(digest(&mut fields, 1)?),
            outcome: outcome(&mut fields)?,
            bundle: Part::read(&mut fields, 2)?,
            appraisal: Part::read(&mut fields, 3)?,
            refusal: None,
            time: UnixTime(fields.uint(4)?),
            node: fields.text(5)?,
            verifier: fields.text(6)?,
            policy: digest(&mut fields, 7)?,
            references: None,
        };
        leaf.references = match fields.take(8) {
            None => None,
            Some(Value::Bytes(bytes)) => Some(Digest::from_slice(&bytes)?),
            Some(_) => return Err(fields.error("field 8 is not a SHA-256")),
        };
        leaf.refusal = match fields.take(9) {
            None => None,
            Some(Value::Text(text)) => Some(text),
            Some(_) => return Err(fields.error("field 9 is not a text")),
        };
        if [Some(&leaf.node), Some(&leaf.verifier), leaf.refusal.as_ref()]
            .into_iter()
            .flatten()
            .any(|text| text.len() > MAX_TEXT)
        {
            return Err(fields.error("a text is longer than 1024 bytes"));
        }
        fields.finish()?;
        Ok(leaf)
    }

    /// The bundle with its endorsements.
    ///
    /// # Errors
    /// A shared part is not there, or the bundle is of other evidence than the leaf names.
    pub fn open_bundle(&self, lookup: impl Fn(&Digest) -> Option<Vec<u8>>) -> Result<Bundle, Error> {
        let detached = self.bundle.bytes(&lookup)?;
        let right = |digest: &Digest| lookup(digest).filter(|bytes| Digest::of(&[bytes]) == *digest);
        let bundle = Bundle::from_cbor_with(&detached, right).map_err(|error| Error::Leaf(error.to_string()))?;
        if bundle.evidence_id() != self.evidence_id {
            return Err(Error::Leaf("its bundle is of other evidence than it names".into()));
        }
        Ok(bundle)
    }
}

fn outcome(fields: &mut Fields) -> Result<Outcome, cocoon_attestation::Error> {
    let code = fields.uint(10)?;
    let all = [Outcome::Accepted, Outcome::Refused, Outcome::Invalid, Outcome::Malformed];
    let known = all.into_iter().find(|outcome| u64::from(outcome.exit_code()) == code);
    known.ok_or_else(|| fields.error("field 10 is no outcome"))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// The SHA-256 of every part beside the tree that a leaf refers to directly: endorsements are named by the bundle.
pub fn shared_parts(leaf: &Leaf) -> impl Iterator<Item = Digest> + '_ {
    let named = [&leaf.bundle, &leaf.appraisal].into_iter().filter_map(|part| match part {
        Part::Inline(_) => None,
        Part::Shared(digest) => Some(*digest),
    });
    named.chain([leaf.policy]).chain(leaf.references)
}

/// Splits a bundle of entries (C2SP tlog-tiles): each behind its length in 16 bits, big-endian.
///
/// # Errors
/// The bytes end within an entry, or hold another number of entries than `count`.
pub fn read_entries(mut bundle: &[u8], count: u64) -> Result<Vec<&[u8]>, Error> {
    let short = || Error::Leaf("a bundle of entries ends within one".into());
    let mut out = Vec::new();
    while !bundle.is_empty() {
        let (length, rest) = bundle.split_first_chunk::<2>().ok_or_else(short)?;
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(short)?;
        out.push(entry);
        bundle = rest;
    }
    if out.len() as u64 != count {
        return Err(Error::Leaf(format!("a bundle of entries holds {} of them, not {count}", out.len())));
    }
    Ok(out)
}
