//! Who is there, and what they signed.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use cocoon_attestation::types::EnclaveKey;

use super::money::Ledger;
use crate::address::Address;
use crate::cells::{SettlementReceipt, Signature, Voucher};
use crate::contracts::ChannelInit;

pub(super) fn public(seed: &[u8; 32]) -> [u8; 32] {
    Ed25519KeyPair::from_seed_unchecked(seed).unwrap().public_key().as_ref().try_into().unwrap()
}

pub(super) fn person(n: u8) -> Address {
    Address::basechain([0xf0 + n; 32])
}

pub(super) const GOVERNANCE: u8 = 0;
pub(super) const PAYER: u8 = 1;
pub(super) const STRANGER: u8 = 2;
pub(super) const OWNERS: [u8; 2] = [3, 4];
pub(super) const CLIENTS: [u8; 3] = [5, 6, 7];
pub(super) const EVERYBODY: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
/// Where what is burned goes.
pub(super) const NOBODY: Address = Address::basechain([0; 32]);

pub(super) struct Enclave {
    pub seed: [u8; 32],
    pub key: EnclaveKey,
    pub provider: usize,
    /// On a machine of the stranger's: genuine evidence, and whatever it signs. Its Provider's owner never pays for it.
    pub strangers: bool,
    /// What it last signed, by channel: sequence and total.
    pub signed: BTreeMap<usize, (u64, u64)>,
    /// Its attestation: from when on receipts are paid, and until when.
    pub attested: Option<(u64, u64)>,
    /// All of them: a claim that was let through may arrive after the next one.
    pub ever: Vec<(u64, u64)>,
    /// Declared void, or slashed.
    pub void: bool,
    pub generation: u32,
}

/// A promise or a receipt that really was signed by whom it should be.
pub(super) struct Known {
    pub channel: usize,
    pub enclave: usize,
    pub voucher: Voucher,
    pub voucher_signature: Signature,
    pub receipt: SettlementReceipt,
    pub receipt_signature: Signature,
}

pub(super) struct Place {
    pub init: ChannelInit,
    pub provider: usize,
    pub client: u8,
    pub seed: [u8; 32],
    /// By enclave, and never forgotten, whatever the contracts forget.
    pub paid: BTreeMap<usize, u64>,
    pub opened: Option<u64>,
    pub ledger: Ledger,
    /// Deleted, or frozen: the client opened another one, with a new salt.
    pub gone: bool,
}

impl Place {
    pub fn new(init: ChannelInit, provider: usize, client: u8, seed: [u8; 32]) -> Self {
        let (paid, opened, ledger) = (BTreeMap::new(), None, Ledger::default());
        Self { init, provider, client, seed, paid, opened, ledger, gone: false }
    }
}
