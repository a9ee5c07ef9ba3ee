//! Blocks: what happened, chained by hashes.

use cocoon_attestation::types::{Digest, UnixTime};

use crate::address::{Address, NetworkId};
use crate::chain::BlockRef;
use crate::error::Error;

/// Separates block hashes from every other hash.
const DOMAIN: &[u8] = b"cocoon-local-block-v1";

/// Account (workchain, hash) and logical time, big-endian: orders an account's transactions.
pub(super) type TxKey = [u8; 41];

/// A block. Its root hash is the SHA-256 of its encoding, which names every transaction and every changed account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub seqno: u32,
    pub time: u32,
    /// Root hash of the block before; zero in block 0.
    pub previous: Digest,
    /// Fresh randomness, so that nobody can compute a block's hash before it exists, be it empty.
    pub rand_seed: [u8; 32],
    pub start_lt: u64,
    pub end_lt: u64,
    /// Transactions in order of execution, with their hashes.
    pub transactions: Vec<(TxKey, [u8; 32])>,
    /// Hashes of the new states of changed accounts, by address.
    pub accounts: Vec<([u8; 33], [u8; 32])>,
}

impl Block {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + 73 * self.transactions.len() + 65 * self.accounts.len());
        out.extend_from_slice(DOMAIN);
        out.extend_from_slice(&NetworkId::LOCAL.0.to_be_bytes());
        out.extend_from_slice(&self.seqno.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(self.previous.as_bytes());
        out.extend_from_slice(&self.rand_seed);
        out.extend_from_slice(&self.start_lt.to_be_bytes());
        out.extend_from_slice(&self.end_lt.to_be_bytes());
        out.extend_from_slice(&(self.transactions.len() as u32).to_be_bytes());
        for (key, hash) in &self.transactions {
            out.extend_from_slice(key);
            out.extend_from_slice(hash);
        }
        out.extend_from_slice(&(self.accounts.len() as u32).to_be_bytes());
        for (address, hash) in &self.accounts {
            out.extend_from_slice(address);
            out.extend_from_slice(hash);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader(bytes);
        if reader.take(DOMAIN.len())? != DOMAIN || reader.array::<4>()? != NetworkId::LOCAL.0.to_be_bytes() {
            return Err(malformed("another format or network"));
        }
        let block = Self {
            seqno: u32::from_be_bytes(reader.array()?),
            time: u32::from_be_bytes(reader.array()?),
            previous: Digest(reader.array()?),
            rand_seed: reader.array()?,
            start_lt: u64::from_be_bytes(reader.array()?),
            end_lt: u64::from_be_bytes(reader.array()?),
            transactions: reader.pairs()?,
            accounts: reader.pairs()?,
        };
        if reader.0.is_empty() { Ok(block) } else { Err(malformed("trailing bytes")) }
    }

    pub fn reference(&self) -> BlockRef {
        let root_hash = Digest::of(&[&self.encode()]);
        BlockRef { seqno: self.seqno, root_hash, time: UnixTime(self.time.into()) }
    }
}

pub(super) fn address_key(address: &Address) -> [u8; 33] {
    cocoon_attestation::types::ProviderAddress::from(*address).0
}

pub(super) fn tx_key(address: &Address, lt: u64) -> TxKey {
    let mut key = [0; 41];
    key[..33].copy_from_slice(&address_key(address));
    key[33..].copy_from_slice(&lt.to_be_bytes());
    key
}

pub(super) fn tx_key_account(key: &TxKey) -> Address {
    let [workchain, rest @ ..] = key;
    let mut hash = [0; 32];
    hash.copy_from_slice(&rest[..32]);
    Address { workchain: *workchain as i8, hash }
}

fn malformed(why: &str) -> Error {
    Error::Malformed { what: "a block of the local chain", why: why.into() }
}

type Pairs<const A: usize, const B: usize> = Vec<([u8; A], [u8; B])>;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("truncated"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn pairs<const A: usize, const B: usize>(&mut self) -> Result<Pairs<A, B>, Error> {
        let count = u32::from_be_bytes(self.array()?);
        (0..count).map(|_| Ok((self.array()?, self.array()?))).collect()
    }
}
