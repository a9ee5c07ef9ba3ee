//! Registry: verifier keys and threshold, allowed images and models, log checkpoints; takes verdicts. What loosens it waits in a
//! time-lock, what tightens it acts at once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error as CellError;
use tycho_types::models::StateInit;

use super::events::Event;
use super::{Answer, Code, VERSION, body};
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::cells::{CheckpointAnchor, Signature, Verdict, load_hash, load_time, read_whole, store_hash};
use crate::chain::{Chain, StackValue};
use crate::error::Error;

static CODE: Code = LazyLock::new(|| super::embedded(include_bytes!("../../contracts/build/registry.boc")));

/// Most verifier keys a Registry holds.
pub const MAX_VERIFIERS: usize = 16;
/// Most images, and most models, that a Registry allows at a time.
pub const MAX_DIGESTS: u16 = 256;
/// Longest attestation any Registry allows, in seconds.
pub const MAX_LIFETIME: u32 = 604_800;

/// Longest time-lock, in seconds.
pub const MAX_TIME_LOCK: u32 = 7_776_000;

const OP_ATTEST: u32 = 0x4301_0001;
const OP_PROPOSE: u32 = 0x4301_0002;
const OP_EXECUTE: u32 = 0x4301_0003;
const OP_CANCEL: u32 = 0x4301_0004;
const OP_FORBID: u32 = 0x4301_0005;
const OP_TIGHTEN: u32 = 0x4301_0006;
const OP_REVOKE_KEY: u32 = 0x4301_0007;
const OP_ANCHOR: u32 = 0x4301_0008;

/// Representation hash of the Registry code of this version.
pub fn registry_code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// What a Registry starts with; its address follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryInit {
    /// The network whose verdicts it takes.
    pub network: NetworkId,
    /// Who may change it.
    pub governance: Address,
    /// Seconds that a change waits before it can be carried out; none: it acts at once.
    pub time_lock: u32,
    /// Signatures that a verdict needs.
    pub threshold: u8,
    /// Longest attestation it takes, in seconds.
    pub max_lifetime: u32,
    /// Verifiers' Ed25519 keys; a signature names one by its position.
    pub verifiers: Vec<[u8; 32]>,
    /// Image digests that may be attested.
    pub images: Vec<Digest>,
    /// Model roots that may be attested.
    pub models: Vec<Digest>,
}

impl RegistryInit {
    fn data(&self) -> Result<Cell, Error> {
        let verifiers: Verifiers = (0u8..=u8::MAX).zip(self.verifiers.iter().copied()).collect();
        check(self.threshold, &verifiers, self.verifiers.len())?;
        if self.max_lifetime == 0 || self.max_lifetime > MAX_LIFETIME {
            return Err(parameters(format!("an attestation lasts 1 to {MAX_LIFETIME} seconds")));
        }
        if self.time_lock > MAX_TIME_LOCK {
            return Err(parameters(format!("a time-lock lasts at most {MAX_TIME_LOCK} seconds")));
        }
        let mut b = CellBuilder::new();
        let context = Cell::empty_context();
        b.store_u8(VERSION)?;
        b.store_u32(self.network.0 as u32)?;
        b.store_u32(0)?;
        b.store_u8(self.threshold)?;
        b.store_u32(self.max_lifetime)?;
        for list in [&self.images, &self.models] {
            let count = u16::try_from(list.len()).ok().filter(|count| *count <= MAX_DIGESTS);
            b.store_u16(count.ok_or_else(|| parameters(format!("a list holds at most {MAX_DIGESTS} digests")))?)?;
        }
        verifier_dict(&verifiers)?.store_into(&mut b, context)?;
        for list in [&self.images, &self.models] {
            let mut dict = Dict::<HashBytes, ()>::new();
            for digest in list {
                dict.set(HashBytes(digest.0), ())?;
            }
            dict.store_into(&mut b, context)?;
        }
        let mut rare = CellBuilder::new();
        self.governance.store(&mut rare)?;
        rare.store_u32(self.time_lock)?;
        rare.store_zeros(RARE_ZEROS)?;
        b.store_reference(rare.build()?)?;
        Ok(b.build()?)
    }

    /// State to deploy it with.
    pub fn state_init(&self) -> Result<StateInit, Error> {
        Ok(super::state_init(&CODE, self.data()?))
    }

    /// Its address.
    pub fn address(&self) -> Result<Address, Error> {
        Ok(super::address_of(&CODE.repr_hash().0, CODE.repr_depth(), &self.data()?))
    }
}

/// Next id, number of proposals, no proposals, no anchors, no release.
const RARE_ZEROS: u16 = 32 + 8 + 1 + 1 + 32 + 256 + 256;

fn parameters(why: String) -> Error {
    Error::Malformed { what: "the parameters of a Registry", why }
}

/// Verifiers' Ed25519 keys by position. One that was dropped leaves a gap: the others keep their positions.
pub type Verifiers = BTreeMap<u8, [u8; 32]>;

fn check(threshold: u8, verifiers: &Verifiers, count: usize) -> Result<(), Error> {
    let beyond = verifiers.keys().any(|index| usize::from(*index) >= MAX_VERIFIERS);
    if beyond || count > MAX_VERIFIERS || threshold == 0 || usize::from(threshold) > count {
        return Err(parameters(format!("take 1 to {MAX_VERIFIERS} verifiers and a threshold of at most their number")));
    }
    let mut sorted: Vec<_> = verifiers.values().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(parameters("one verifier is listed twice".into()));
    }
    Ok(())
}

fn verifier_dict(verifiers: &Verifiers) -> Result<Dict<u8, HashBytes>, Error> {
    let mut dict = Dict::new();
    for (index, key) in verifiers {
        dict.set(index, HashBytes(*key))?;
    }
    Ok(dict)
}

fn read_verifiers(dict: &Dict<u8, HashBytes>) -> Result<Verifiers, CellError> {
    dict.iter().map(|entry| entry.map(|(index, key)| (index, key.0))).collect()
}

/// Body of an attestation: a verdict and signatures, each with the position of its verifier.
pub fn attest(query_id: u64, verdict: &Verdict, signatures: &[(u8, Signature)]) -> Result<Cell, Error> {
    let mut next: Option<Cell> = None;
    for (index, signature) in signatures.iter().rev() {
        let mut b = CellBuilder::new();
        b.store_u8(*index)?;
        b.store_raw(signature, 512)?;
        next.store_into(&mut b, Cell::empty_context())?;
        next = Some(b.build()?);
    }
    body(OP_ATTEST, query_id, |b| {
        b.store_reference(verdict.to_cell())?;
        next.store_into(b, Cell::empty_context())
    })
}

/// What governance allows or forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// An image digest.
    Image(Digest),
    /// A model root.
    Model(Digest),
}

impl Listed {
    fn store(&self, b: &mut CellBuilder) -> Result<(), CellError> {
        let (list, digest) = match self {
            Self::Image(digest) => (0, digest),
            Self::Model(digest) => (1, digest),
        };
        b.store_u8(list)?;
        store_hash(b, &digest.0)
    }

    fn load(s: &mut CellSlice<'_>) -> Result<Self, CellError> {
        match (s.load_u8()?, Digest(load_hash(s)?)) {
            (0, digest) => Ok(Self::Image(digest)),
            (1, digest) => Ok(Self::Model(digest)),
            _ => Err(CellError::InvalidData),
        }
    }
}

/// The code that new Providers and Channels should use. Those that exist keep theirs for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Grows with every release; 0: none was named.
    pub version: u32,
    /// Representation hash of the Provider's code.
    pub provider_code: [u8; 32],
    /// Representation hash of the Channel's code.
    pub channel_code: [u8; 32],
}

impl Release {
    /// Whether a Provider of this version's code is what governance wants new ones to be.
    ///
    /// # Errors
    /// It named other code. Nothing is wrong where it named none yet.
    pub fn check_provider(&self) -> Result<(), Error> {
        self.check("Providers", &self.provider_code, super::provider::provider_code_hash())
    }

    /// Whether a Channel of this version's code is what governance wants new ones to be.
    ///
    /// # Errors
    /// It named other code. Nothing is wrong where it named none yet.
    pub fn check_channel(&self) -> Result<(), Error> {
        self.check("Channels", &self.channel_code, super::channel::channel_code_hash())
    }

    fn check(&self, what: &'static str, named: &[u8; 32], ours: [u8; 32]) -> Result<(), Error> {
        if self.version == 0 || *named == ours {
            return Ok(());
        }
        Err(Error::OtherRelease { what, version: self.version, named: hex::encode(named), ours: hex::encode(ours) })
    }
}

/// What governance may loosen or replace, once the time-lock is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// New verifiers and threshold; every verdict signed before becomes void.
    Verifiers {
        /// Signatures that a verdict then needs.
        threshold: u8,
        /// Ed25519 keys by position.
        verifiers: Verifiers,
    },
    /// One more image or model.
    Allow(Listed),
    /// Longest attestation, in seconds.
    MaxLifetime(u32),
    /// Another governance.
    Governance(Address),
    /// Another time-lock, in seconds.
    TimeLock(u32),
    /// New code for Providers and Channels.
    Release(Release),
    /// None of these. A Registry takes any small cell from its governance as a proposal and reads it when it is carried out, which it then
    /// refuses: it waits until governance takes it back or it lapses.
    Unknown(Cell),
}

impl Change {
    /// A proposal as it waits, whatever it is.
    fn of_cell(cell: Cell) -> Self {
        read_whole(&cell, Self::load).unwrap_or(Self::Unknown(cell))
    }

    fn to_cell(&self) -> Result<Cell, Error> {
        let mut b = CellBuilder::new();
        match self {
            Self::Verifiers { threshold, verifiers } => {
                check(*threshold, verifiers, verifiers.len())?;
                b.store_u8(1)?;
                b.store_u8(*threshold)?;
                verifier_dict(verifiers)?.store_into(&mut b, Cell::empty_context())?;
            }
            Self::Allow(listed) => {
                b.store_u8(2)?;
                listed.store(&mut b)?;
            }
            Self::MaxLifetime(seconds) => {
                b.store_u8(3)?;
                b.store_u32(*seconds)?;
            }
            Self::Governance(address) => {
                b.store_u8(4)?;
                address.store(&mut b)?;
            }
            Self::TimeLock(seconds) => {
                b.store_u8(5)?;
                b.store_u32(*seconds)?;
            }
            Self::Release(release) => {
                b.store_u8(6)?;
                b.store_u32(release.version)?;
                store_hash(&mut b, &release.provider_code)?;
                store_hash(&mut b, &release.channel_code)?;
            }
            Self::Unknown(_) => return Err(parameters("this version does not know that change".into())),
        }
        Ok(b.build()?)
    }

    fn load(s: &mut CellSlice<'_>) -> Result<Self, CellError> {
        Ok(match s.load_u8()? {
            1 => {
                let threshold = s.load_u8()?;
                Self::Verifiers { threshold, verifiers: read_verifiers(&Dict::load_from(s)?)? }
            }
            2 => Self::Allow(Listed::load(s)?),
            3 => Self::MaxLifetime(s.load_u32()?),
            4 => Self::Governance(Address::load(s)?),
            5 => Self::TimeLock(s.load_u32()?),
            6 => Self::Release(Release {
                version: s.load_u32()?,
                provider_code: load_hash(s)?,
                channel_code: load_hash(s)?,
            }),
            _ => return Err(CellError::InvalidTag),
        })
    }
}

/// Body by which governance proposes a change; without a time-lock it acts at once.
pub fn propose(query_id: u64, change: &Change) -> Result<Cell, Error> {
    let change = change.to_cell()?;
    body(OP_PROPOSE, query_id, |b| b.store_reference(change))
}

/// Body by which anyone carries out a proposal whose time-lock is over.
pub fn execute(query_id: u64, id: u32) -> Result<Cell, Error> {
    body(OP_EXECUTE, query_id, |b| b.store_u32(id))
}

/// Body by which governance takes a proposal back.
pub fn cancel(query_id: u64, id: u32) -> Result<Cell, Error> {
    body(OP_CANCEL, query_id, |b| b.store_u32(id))
}

/// Body by which governance forbids an image or a model at once.
pub fn forbid(query_id: u64, what: Listed) -> Result<Cell, Error> {
    body(OP_FORBID, query_id, |b| what.store(b))
}

/// Body by which governance drops verifiers (by position), raises the threshold or shortens attestations, at once. Every verdict
/// signed before becomes void.
pub fn tighten(query_id: u64, drop: &[u8], threshold: u8, max_lifetime: u32) -> Result<Cell, Error> {
    let mut bits = 0u16;
    for index in drop {
        let bit = 1u16.checked_shl((*index).into());
        bits |= bit.ok_or_else(|| parameters(format!("there is no verifier {index}")))?;
    }
    body(OP_TIGHTEN, query_id, |b| {
        b.store_u16(bits)?;
        b.store_u8(threshold)?;
        b.store_u32(max_lifetime)
    })
}

/// Body by which governance revokes an enclave key at its Provider; `void` refuses its claims too.
pub fn revoke_key(query_id: u64, provider: &Address, key: &EnclaveKey, void: bool) -> Result<Cell, Error> {
    body(OP_REVOKE_KEY, query_id, |b| {
        provider.store(b)?;
        store_hash(b, &key.0)?;
        b.store_bit(void)
    })
}

/// Body that anchors a log's checkpoint, signed by the verifier at this position.
pub fn anchor(query_id: u64, index: u8, checkpoint: &CheckpointAnchor, signature: &Signature) -> Result<Cell, Error> {
    body(OP_ANCHOR, query_id, |b| {
        b.store_u8(index)?;
        b.store_reference(checkpoint.to_cell())?;
        b.store_raw(signature, 512)
    })
}

/// What a Registry holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryParams {
    /// The network whose verdicts it takes.
    pub network: NetworkId,
    /// Who may change it.
    pub governance: Address,
    /// Seconds that a change waits before it can be carried out.
    pub time_lock: u32,
    /// Grows by one whenever the verifiers change.
    pub set_epoch: u32,
    /// Signatures that a verdict needs.
    pub threshold: u8,
    /// Longest attestation it takes, in seconds.
    pub max_lifetime: u32,
    /// Verifiers' Ed25519 keys by position.
    pub verifiers: Verifiers,
    /// Image digests that may be attested.
    pub images: Vec<Digest>,
    /// Model roots that may be attested.
    pub models: Vec<Digest>,
}

/// Reads a Registry's parameters.
pub async fn params(chain: &dyn Chain, registry: &Address) -> Result<RegistryParams, Error> {
    let mut answer = Answer::get(chain, &CODE, registry, "params", Vec::new()).await?;
    if answer.uint::<u8>()? != VERSION {
        return Err(Error::Unexpected("params".into()));
    }
    let (network, governance, time_lock) = (NetworkId(answer.int32()?), answer.address()?, answer.uint()?);
    let (set_epoch, threshold, max_lifetime) = (answer.uint()?, answer.uint()?, answer.uint()?);
    let verifiers = read_verifiers(&Dict::from(answer.dict()?))?;
    let mut lists = [Vec::new(), Vec::new()];
    for list in &mut lists {
        for digest in Dict::<HashBytes, ()>::from(answer.dict()?).keys() {
            list.push(Digest(digest?.0));
        }
    }
    let [images, models] = lists;
    Ok(RegistryParams { network, governance, time_lock, set_epoch, threshold, max_lifetime, verifiers, images, models })
}

/// A change that waits for its time-lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What [`execute`] and [`cancel`] name.
    pub id: u32,
    /// From here on anyone may carry it out, for two weeks.
    pub not_before: UnixTime,
    /// What it changes.
    pub change: Change,
}

/// Reads the changes that wait, oldest first.
pub async fn proposals(chain: &dyn Chain, registry: &Address) -> Result<Vec<Proposal>, Error> {
    let mut answer = Answer::get(chain, &CODE, registry, "proposals", Vec::new()).await?;
    answer.uint::<u32>()?;
    let mut proposals = Vec::new();
    for entry in Dict::<u32, Waiting>::from(answer.dict()?).iter() {
        let (id, Waiting { not_before, change }) = entry?;
        proposals.push(Proposal { id, not_before, change: Change::of_cell(change) });
    }
    Ok(proposals)
}

struct Waiting {
    not_before: UnixTime,
    change: Cell,
}

impl<'a> Load<'a> for Waiting {
    fn load_from(s: &mut CellSlice<'a>) -> Result<Self, CellError> {
        Ok(Self { not_before: load_time(s)?, change: s.load_reference_cloned()? })
    }
}

/// Reads which code new Providers and Channels should use; version 0 if none was named.
pub async fn release(chain: &dyn Chain, registry: &Address) -> Result<Release, Error> {
    let mut answer = Answer::get(chain, &CODE, registry, "release", Vec::new()).await?;
    Ok(Release { version: answer.uint()?, provider_code: answer.bytes32()?, channel_code: answer.bytes32()? })
}

/// What a Registry's data say of its verifiers, at its start or later. With the events of its history, each in its turn, it says which
/// verifiers there were at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierSet {
    /// Grows by one whenever the verifiers change.
    pub epoch: u32,
    /// Signatures that a verdict needs.
    pub threshold: u8,
    /// Verifiers' Ed25519 keys by position.
    pub verifiers: Verifiers,
    time_lock: u32,
    next_id: u32,
    /// Changes that wait, as they were proposed: nobody has looked yet whether they are any.
    waiting: BTreeMap<u32, Cell>,
}

impl VerifierSet {
    /// Reads a Registry's data: those of its initial state, or those of now.
    ///
    /// # Errors
    /// They are not a Registry's of this version.
    pub fn of_data(data: &Cell) -> Result<Self, Error> {
        let read = |s: &mut CellSlice<'_>| {
            if s.load_u8()? != VERSION {
                return Err(CellError::InvalidTag);
            }
            s.load_u32()?;
            let (epoch, threshold) = (s.load_u32()?, s.load_u8()?);
            // Longest attestation; numbers of images and models.
            s.skip_first(32 + 16 + 16, 0)?;
            let verifiers = read_verifiers(&Dict::load_from(s)?)?;
            Dict::<HashBytes, ()>::load_from(s)?;
            Dict::<HashBytes, ()>::load_from(s)?;
            let rare = s.load_reference_cloned()?;
            let mut rare = rare.as_slice()?;
            Address::load(&mut rare)?;
            let (time_lock, next_id) = (rare.load_u32()?, rare.load_u32()?);
            rare.load_u8()?;
            let waiting = Dict::<u32, Waiting>::load_from(&mut rare)?;
            let waiting = waiting.iter().map(|entry| entry.map(|(id, waiting)| (id, waiting.change)));
            Ok(Self { epoch, threshold, verifiers, time_lock, next_id, waiting: waiting.collect::<Result<_, _>>()? })
        };
        let what = "the data of a Registry";
        read_whole(data, read).map_err(|why| Error::Malformed { what, why: why.to_string() })
    }

    /// What it is after an event that the Registry carried out.
    ///
    /// # Errors
    /// This Registry cannot have carried it out: its history is not all there.
    pub fn apply(&mut self, event: &Event) -> Result<(), Error> {
        let unknown = |id: &u32| Error::Malformed {
            what: "a Registry's whole history",
            why: format!("it carried out the proposal {id}, which nobody proposed"),
        };
        match event {
            Event::Propose { change } if self.time_lock == 0 => self.change(change)?,
            Event::Propose { change } => {
                self.waiting.insert(self.next_id, change.clone());
                self.next_id = self.next_id.wrapping_add(1);
            }
            Event::Execute { id } => {
                let change = self.waiting.remove(id).ok_or_else(|| unknown(id))?;
                self.change(&change)?;
            }
            Event::Cancel { id } => drop(self.waiting.remove(id).ok_or_else(|| unknown(id))?),
            Event::Tighten { drop, threshold } => {
                self.verifiers.retain(|index, _| drop.checked_shr((*index).into()).unwrap_or(0) & 1 == 0);
                self.threshold = *threshold;
                self.epoch = self.epoch.wrapping_add(1);
            }
            _ => {}
        }
        Ok(())
    }

    fn change(&mut self, change: &Cell) -> Result<(), Error> {
        match read_whole(change, Change::load)? {
            Change::Verifiers { threshold, verifiers } => {
                (self.threshold, self.verifiers) = (threshold, verifiers);
                self.epoch = self.epoch.wrapping_add(1);
            }
            Change::TimeLock(seconds) => self.time_lock = seconds,
            _ => {}
        }
        Ok(())
    }
}

/// The newest checkpoint of one verifier's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// The verifier's key.
    pub verifier: [u8; 32],
    /// SHA-256 of the log's C2SP origin line.
    pub origin: Digest,
    /// Number of leaves.
    pub tree_size: u64,
    /// Their root hash.
    pub root: Digest,
    /// When the checkpoint was made.
    pub time: UnixTime,
}

/// Reads the newest checkpoint that the verifier at this position anchored; `None` if there is none.
pub async fn anchored(chain: &dyn Chain, registry: &Address, index: u8) -> Result<Option<Anchored>, Error> {
    let mut answer = Answer::get(chain, &CODE, registry, "anchor", vec![StackValue::int(u64::from(index))]).await?;
    if !answer.boolean()? {
        return Ok(None);
    }
    Ok(Some(Anchored {
        verifier: answer.bytes32()?,
        origin: Digest(answer.bytes32()?),
        tree_size: answer.uint()?,
        root: Digest(answer.bytes32()?),
        time: UnixTime(answer.uint()?),
    }))
}

/// Most that a Registry with so many images and models, and so many proposals that wait, costs in rent. Bits and cells are those that the
/// contract itself reckons with.
pub fn rent(digests: usize, proposals: usize, seconds: u64) -> Nanoton {
    let [digests, proposals] = [digests, proposals].map(|count| u64::try_from(count).unwrap_or(u64::MAX).min(1 << 20));
    super::rent(52_000 + 600 * digests + 5_200 * proposals, 180 + 2 * digests + 34 * proposals, seconds)
}

/// The least value an attestation must carry; a Provider short of rent wants more.
pub async fn attest_value(chain: &dyn Chain, registry: &Address) -> Result<Nanoton, Error> {
    Ok(Nanoton(Answer::get(chain, &CODE, registry, "attest_value", Vec::new()).await?.uint()?))
}
