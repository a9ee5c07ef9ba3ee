//! Registry: verifier keys and threshold, allowed images and models; takes verdicts.

use std::sync::LazyLock;

use cocoon_attestation::types::Digest;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes, Store};
use tycho_types::dict::Dict;
use tycho_types::models::StateInit;

use super::{Answer, Code, VERSION, body};
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::cells::{Signature, Verdict, store_hash};
use crate::chain::Chain;
use crate::error::Error;

static CODE: Code = LazyLock::new(|| super::embedded(include_bytes!("../../contracts/build/registry.boc")));

/// Most verifier keys a Registry holds.
pub const MAX_VERIFIERS: usize = 16;
/// Longest attestation any Registry allows, in seconds.
pub const MAX_LIFETIME: u32 = 604_800;

const OP_ATTEST: u32 = 0x4301_0001;
const OP_SET_VERIFIERS: u32 = 0x4301_0002;
const OP_SET_ALLOWED: u32 = 0x4301_0003;

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
        check(self.threshold, &self.verifiers)?;
        if self.max_lifetime == 0 || self.max_lifetime > MAX_LIFETIME {
            return Err(parameters(format!("an attestation lasts 1 to {MAX_LIFETIME} seconds")));
        }
        let mut b = CellBuilder::new();
        let context = Cell::empty_context();
        b.store_u8(VERSION)?;
        b.store_u32(self.network.0 as u32)?;
        self.governance.store(&mut b)?;
        b.store_u32(0)?;
        b.store_u8(self.threshold)?;
        b.store_u32(self.max_lifetime)?;
        verifier_dict(&self.verifiers)?.store_into(&mut b, context)?;
        for list in [&self.images, &self.models] {
            let mut dict = Dict::<HashBytes, bool>::new();
            for digest in list {
                dict.set(HashBytes(digest.0), true)?;
            }
            dict.store_into(&mut b, context)?;
        }
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

fn parameters(why: String) -> Error {
    Error::Malformed { what: "the parameters of a Registry", why }
}

fn check(threshold: u8, verifiers: &[[u8; 32]]) -> Result<(), Error> {
    if verifiers.len() > MAX_VERIFIERS || threshold == 0 || usize::from(threshold) > verifiers.len() {
        return Err(parameters(format!("take 1 to {MAX_VERIFIERS} verifiers and a threshold of at most their number")));
    }
    Ok(())
}

fn verifier_dict(verifiers: &[[u8; 32]]) -> Result<Dict<u8, HashBytes>, Error> {
    let mut dict = Dict::new();
    for (index, key) in (0u8..).zip(verifiers) {
        dict.set(index, HashBytes(*key))?;
    }
    Ok(dict)
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

/// Body by which governance replaces the verifiers; every verdict signed before becomes void.
pub fn set_verifiers(query_id: u64, threshold: u8, verifiers: &[[u8; 32]]) -> Result<Cell, Error> {
    check(threshold, verifiers)?;
    let dict = verifier_dict(verifiers)?;
    body(OP_SET_VERIFIERS, query_id, |b| {
        b.store_u8(threshold)?;
        dict.store_into(b, Cell::empty_context())
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

/// Body by which governance allows or forbids an image or a model.
pub fn set_allowed(query_id: u64, what: Listed, allowed: bool) -> Result<Cell, Error> {
    let (list, digest) = match what {
        Listed::Image(digest) => (0, digest),
        Listed::Model(digest) => (1, digest),
    };
    body(OP_SET_ALLOWED, query_id, |b| {
        b.store_u8(list)?;
        store_hash(b, &digest.0)?;
        b.store_bit(allowed)
    })
}

/// What a Registry holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryParams {
    /// The network whose verdicts it takes.
    pub network: NetworkId,
    /// Who may change it.
    pub governance: Address,
    /// Grows by one whenever the verifiers change.
    pub set_epoch: u32,
    /// Signatures that a verdict needs.
    pub threshold: u8,
    /// Longest attestation it takes, in seconds.
    pub max_lifetime: u32,
    /// Verifiers' Ed25519 keys by position.
    pub verifiers: Vec<[u8; 32]>,
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
    let (network, governance) = (NetworkId(answer.int32()?), answer.address()?);
    let (set_epoch, threshold, max_lifetime) = (answer.uint()?, answer.uint()?, answer.uint()?);
    let verifiers = Dict::<u8, HashBytes>::from(answer.dict()?);
    let verifiers = verifiers.values().map(|key| Ok(key?.0)).collect::<Result<_, Error>>()?;
    let mut lists = [Vec::new(), Vec::new()];
    for list in &mut lists {
        for digest in Dict::<HashBytes, bool>::from(answer.dict()?).keys() {
            list.push(Digest(digest?.0));
        }
    }
    let [images, models] = lists;
    Ok(RegistryParams { network, governance, set_epoch, threshold, max_lifetime, verifiers, images, models })
}

/// The least value an attestation must carry; a Provider short of rent wants more.
pub async fn attest_value(chain: &dyn Chain, registry: &Address) -> Result<Nanoton, Error> {
    Ok(Nanoton(Answer::get(chain, &CODE, registry, "attest_value", Vec::new()).await?.uint()?))
}
