//! What a replay can find, and how grave it is.

use cocoon_attestation::{Digest, UnixTime};
use serde::{Deserialize, Serialize};

/// How grave a finding is; the gravest decides the exit code of `cocoon audit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gravity {
    /// To be explained, and nobody has lost anything by it.
    Note,
    /// Something that was recorded or paid should not have been.
    Wrong,
    /// A log does not hold together: nothing that rests on it can be believed.
    Broken,
}

impl Gravity {
    /// Exit code: 10, 20, 30.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Note => 10,
            Self::Wrong => 20,
            Self::Broken => 30,
        }
    }

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Wrong => "wrong",
            Self::Broken => "broken",
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $gravity:ident, $title:literal;)*) => {
        /// What was found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every kind, the gravest last.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Stable name, as in JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// How grave it is.
            pub fn gravity(self) -> Gravity {
                match self {
                    $(Self::$kind => Gravity::$gravity,)*
                }
            }

            /// What it means, in one sentence.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$kind => $title,)*
                }
            }
        }
    };
}

kinds! {
    /// Another version of the verifier made the recorded result.
    ResultOfOtherVersion, "result-of-other-version", Note,
        "Another version of the verifier recorded the same outcome in other words.";
    /// A leaf is dated before one that stands in front of it.
    TimeGoesBack, "time-goes-back", Note, "A leaf is dated more than an hour before one that stands in front of it.";
    /// Witnesses that were named did not cosign.
    NotCosigned, "not-cosigned", Note, "A witness that was named did not cosign the log's newest checkpoint.";
    /// A total was claimed again.
    DoubleClaim, "double-claim", Note, "A receipt was claimed that had been paid before; the contract paid nothing for it.";
    /// A log, a copy of it, or the chain could not be read.
    Unreachable, "unreachable", Note, "A log or the chain could not be read, so nothing can be said about it.";
    /// Another copy, or a client, has a newer checkpoint.
    StaleCheckpoint, "stale-checkpoint", Note, "The log signed a longer tree than the one that was read: this copy is old, or the log shows it an old one.";
    /// A line that bears a witness's name is not the witness's.
    BadCosignature, "bad-cosignature", Note, "A signature that bears the name of a witness is not the witness's; anybody who copies a checkpoint can add one.";
    /// A policy, or reference values, that this version does not understand.
    DocumentNotRead, "document-not-read", Note, "A leaf names a policy or reference values that this version cannot read, so its evidence was not appraised again.";
    /// Verdicts of verifiers whose logs are not at hand.
    VerdictsNotFollowed, "verdicts-not-followed", Note, "Verdicts on the chain could not be followed to a leaf, because the logs of their verifiers were not read.";
    /// Attestations of verifier sets that are no more.
    SetNotKnown, "set-not-known", Note, "An attestation was signed by a verifier set whose keys this chain's history does not show.";
    /// The copy of a log ends too early.
    LaterThanLog, "later-than-log", Note,
        "The chain holds attestations or checkpoints that are later than this copy of the log, and the copy does not hold what they rest on.";
    /// The recorded result cannot be had again.
    ResultDiffers, "result-differs", Wrong, "The evidence comes to another outcome than the one recorded, or the same version of the verifier to other details.";
    /// A verifier signed for what it never logged.
    VerdictWithoutLeaf, "verdict-without-leaf", Wrong, "A verifier signed a verdict for evidence that its log does not hold as accepted.";
    /// The log is not the one whose checkpoint its verifier anchored.
    AnchorDiffers, "anchor-differs", Wrong, "A log does not continue a checkpoint that its own verifier anchored in the Registry.";
    /// Too few verdicts have a leaf behind them.
    AttestationWithoutQuorum, "attestation-without-quorum", Wrong,
        "An enclave was attested on-chain although fewer verifiers than the threshold had accepted its evidence.";
    /// A claim was paid for a key that no attestation covers.
    PayoutWithoutAttestation, "payout-without-attestation", Wrong, "A claim was paid on a receipt that no attestation covers.";
    /// A claim was paid for a key that had been revoked.
    RevokedReceipt, "revoked-receipt", Wrong, "A claim was paid on a receipt of an enclave that had been revoked by then.";
    /// More was paid than receipts say.
    PaidTooMuch, "paid-too-much", Wrong, "A claim was paid more than its receipts and vouchers say.";
    /// An enclave signed two receipts that cannot both be true.
    ReceiptsContradict, "receipts-contradict", Wrong, "An enclave signed two receipts that cannot both be true.";
    /// Something that the chain's history does not explain.
    Unreconciled, "unreconciled", Wrong, "What an account holds or did is not what its transactions say.";
    /// A message that was carried out and that nobody can read.
    UnreadableMessage, "unreadable-message", Wrong, "A contract carried out a message that cannot be read, so what it did is not known.";
    /// A contract with code that is not this version's.
    UnknownCode, "unknown-code", Wrong, "A contract does not hold the code of this version, so it may do anything.";
    /// A part that a leaf names is not there.
    PartMissing, "part-missing", Broken, "A leaf names a part that is not there or is not what its name says.";
    /// An entry that is no leaf.
    MalformedLeaf, "malformed-leaf", Broken, "An entry is no leaf, or contradicts itself.";
    /// A leaf that the checkpoint promises is not there.
    MissingLeaf, "missing-leaf", Broken, "A leaf that the checkpoint promises is not there, or is not the one in the tree.";
    /// A tile of hashes is not what its leaves make it.
    TileDiffers, "tile-differs", Broken, "A file of tree hashes is not what the leaves make it.";
    /// The tree is not the one that was signed.
    RootDiffers, "root-differs", Broken, "The leaves make another tree than the one that the log signed.";
    /// The checkpoint cannot be believed.
    BadCheckpoint, "bad-checkpoint", Broken, "The log's checkpoint is missing or not signed by the log's key.";
    /// Two histories.
    SplitView, "split-view", Broken, "The log signed two checkpoints, neither of which continues the other.";
}

/// Longest detail of a finding, in bytes: much of it may be what somebody else wrote.
pub const MOST_DETAIL: usize = 2_048;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// How grave.
    pub gravity: Gravity,
    /// The log that it is about: its origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The leaf that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf: Option<u64>,
    /// The evidence that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence_id: Option<Digest>,
    /// The transaction that it is about, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// When it happened, as far as that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<UnixTime>,
    /// What it is about, where that is none of the above: a witness, or the root of another tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// What exactly was found; what is longer than [`MOST_DETAIL`] bytes is cut.
    pub detail: String,
    /// What proves it, where it is not a leaf or a transaction: checkpoints, for example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

impl Finding {
    /// A finding of a kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MOST_DETAIL {
            detail.truncate(detail.floor_char_boundary(MOST_DETAIL - 3));
            detail += "...";
        }
        Self {
            kind,
            gravity: kind.gravity(),
            log: None,
            leaf: None,
            evidence_id: None,
            transaction: None,
            time: None,
            about: None,
            detail,
            evidence: Vec::new(),
        }
    }

    /// About a leaf.
    pub fn at_leaf(mut self, leaf: u64) -> Self {
        self.leaf = Some(leaf);
        self
    }

    /// About evidence.
    pub fn of(mut self, evidence_id: Digest) -> Self {
        self.evidence_id = Some(evidence_id);
        self
    }

    /// At a time.
    pub fn dated(mut self, time: UnixTime) -> Self {
        self.time = Some(time);
        self
    }

    /// In a transaction.
    pub fn in_transaction(mut self, hash: &[u8; 32]) -> Self {
        self.transaction = Some(Digest(*hash).to_string());
        self
    }

    /// About something that has a name.
    pub fn about(mut self, name: impl Into<String>) -> Self {
        self.about = Some(name.into());
        self
    }

    /// What makes it this finding and no other, however often it is found and whatever the log has grown to meanwhile.
    pub fn identity(&self) -> Digest {
        let mut name = self.kind.name().to_owned();
        let mut part = |part: Option<String>| {
            name.push('\n');
            name += &part.unwrap_or_default();
        };
        part(self.log.clone());
        part(self.leaf.map(|leaf| leaf.to_string()));
        part(self.evidence_id.map(|id| id.to_string()));
        part(self.transaction.clone());
        part(self.about.clone());
        let named = self.leaf.is_some() || self.evidence_id.is_some() || self.transaction.is_some();
        part((!named && self.about.is_none()).then(|| self.detail.clone()));
        Digest::of(&[name.as_bytes()])
    }

    /// In a log.
    pub fn in_log(mut self, origin: &str) -> Self {
        self.log = Some(origin.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_the_same_whatever_the_log_has_grown_to_and_its_detail_is_bounded() {
        let split = |other: &str, size: u64| Finding::new(Kind::SplitView, size.to_string()).in_log("x").about(other);
        assert_eq!(split("a", 1).identity(), split("a", 2).identity());
        assert_ne!(split("a", 1).identity(), split("b", 1).identity());
        assert_ne!(split("a", 1).identity(), split("a", 1).in_log("y").identity());
        let bare = |detail: &str| Finding::new(Kind::Unreconciled, detail);
        assert_ne!(bare("one").identity(), bare("two").identity());
        assert_eq!(bare("one").at_leaf(1).identity(), bare("two").at_leaf(1).identity());
        let long = Finding::new(Kind::MalformedLeaf, "\u{e9}".repeat(1 << 20));
        assert!(long.detail.len() <= MOST_DETAIL && long.detail.ends_with("..."), "{}", long.detail.len());
    }

    #[test]
    fn kinds_are_named_as_in_json_and_the_gravest_come_last() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert!(kind.title().ends_with('.'));
        }
        assert!(Kind::ALL.windows(2).all(|pair| pair[0].gravity() <= pair[1].gravity()));
    }
}
