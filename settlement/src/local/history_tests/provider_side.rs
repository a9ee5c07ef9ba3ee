//! What owners of Providers and their enclaves do.

use std::collections::BTreeMap;

use cocoon_attestation::types::{Digest, EnclaveKey, UnixTime};
use tycho_types::cell::{CellBuilder, HashBytes};

use super::parties::{Enclave, OWNERS, PAYER, STRANGER, person, public};
use super::{DAY, History, IMAGE, MODEL, TON};
use crate::address::NetworkId;
use crate::amount::Nanoton;
use crate::cells::{SettlementReceipt, Verdict};
use crate::contracts::provider::MAX_CLAIM_CHECKS;
use crate::contracts::{self, ClaimItem, provider, registry};

impl History {
    pub(super) fn attest(&mut self) {
        let fresh = self.enclaves.is_empty() || (self.enclaves.len() < 120 && self.random.one_in(8));
        if fresh {
            let n = self.enclaves.len() as u8;
            let seed = [n, 0x80].repeat(16).try_into().unwrap();
            let provider = self.random.below(2);
            let key = EnclaveKey(public(&seed));
            let (signed, attested, ever) = (BTreeMap::new(), None, Vec::new());
            let (strangers, void, generation) = (self.random.one_in(10), false, 0);
            self.enclaves.push(Enclave { seed, key, provider, strangers, signed, attested, ever, void, generation });
        }
        let e = if fresh { self.enclaves.len() - 1 } else { self.random.below(self.enclaves.len()) };
        let (epoch, threshold, lifetime, verifiers) = self.rules();
        let enclave = &self.enclaves[e];
        let first = enclave.attested.is_none();
        let mut verdict = Verdict {
            network: NetworkId::LOCAL,
            registry: self.registry,
            provider: self.providers[enclave.provider].address(),
            enclave_key: enclave.key,
            evidence_id: Digest([e as u8; 32]),
            image: IMAGE,
            model_root: MODEL,
            generation: if enclave.attested.is_some() { enclave.generation + 1 } else { 0 },
            until: UnixTime(self.now + lifetime - self.random.below(3) as u64),
            expiry: UnixTime(self.now + 3_600),
            set_epoch: epoch,
        };
        match self.random.below(16) {
            0 => verdict.generation = self.random.below(4) as u32,
            1 => verdict.until = UnixTime(self.now + lifetime + 10),
            2 => verdict.expiry = UnixTime(self.now - 1),
            3 => verdict.image = MODEL,
            4 => verdict.set_epoch = epoch.wrapping_sub(1),
            5 => verdict.provider = self.providers[1 - self.enclaves[e].provider].address(),
            _ => {}
        }
        // A verdict for the other Provider makes the key known there, which this model does not follow.
        if verdict.provider != self.providers[self.enclaves[e].provider].address() {
            verdict.network = NetworkId::MAINNET;
        }
        // Enough of them, from anywhere on; now and then one too few, one twice, or one that nobody knows.
        let from = self.random.below(verifiers.len());
        let mut signers: Vec<_> = (0..threshold).map(|n| verifiers[(from + n) % verifiers.len()]).collect();
        match self.random.below(8) {
            0 => drop(signers.pop()),
            1 => signers.insert(0, signers[0]),
            2 => signers[0].0 = 15,
            3 => signers[0].1 = [0x77; 32],
            _ => {}
        }
        let signatures: Vec<_> = signers.iter().map(|(n, seed)| (*n, verdict.sign(seed).unwrap())).collect();
        let body = registry::attest(0, &verdict, &signatures).unwrap();
        let value = [TON / 5, TON / 50, TON / 5][self.random.below(3)];
        let payer = match (first, self.enclaves[e].strangers) {
            (_, true) => STRANGER,
            (true, _) if !self.random.one_in(8) => OWNERS[self.enclaves[e].provider],
            _ => PAYER,
        };
        self.send(payer, self.registry, value, Some(body), None);
    }

    /// Old receipts and new, forged ones among them, with vouchers and without.
    pub(super) fn claim(&mut self) {
        if self.known.is_empty() {
            return;
        }
        // Old ones at times: of a key's former life, or of one that nobody claimed for long.
        let back = if self.random.one_in(20) { self.known.len() } else { 20 };
        let recent = self.known.len().saturating_sub(1 + self.random.below(back));
        let n = self.known[recent].channel;
        let of: Vec<usize> = (0..self.known.len()).filter(|k| self.known[*k].channel == n).collect();
        let count = 1 + if self.random.one_in(4) { self.random.below(8) } else { 0 };
        let mut items = Vec::new();
        for i in 0..count {
            let k = if i == 0 { recent } else { of[of.len() - 1 - self.random.below(of.len().min(30))] };
            let known = &self.known[k];
            let mut item = ClaimItem {
                voucher: known.voucher.clone(),
                voucher_signature: known.voucher_signature,
                receipt: known.receipt.clone(),
                receipt_signature: known.receipt_signature,
            };
            match self.random.below(40) {
                0 => item.receipt.total = Nanoton(item.receipt.total.0 + TON),
                1 => item.voucher.cap = Nanoton(item.voucher.cap.0 + TON),
                2 => item.receipt_signature[5] ^= 1,
                3 => item.receipt.time = UnixTime(item.receipt.time.0 + DAY),
                _ => {}
            }
            items.push((item, !self.random.one_in(3)));
        }
        let p = self.places[n].provider;
        // More than a claim may hold, which the bindings would not write.
        if self.random.one_in(60) {
            let many = items.iter().cycle().take(if items.len() > 5 { MAX_CLAIM_CHECKS } else { 6 });
            let first = many.fold(None, |next, (item, _)| Some(item.to_cell(true, next).unwrap()));
            let mut body = CellBuilder::new();
            body.store_u32(0x4302_0002).unwrap();
            body.store_u256(&HashBytes(self.places[n].init.address().hash)).unwrap();
            body.store_reference(first.unwrap()).unwrap();
            return self.send(OWNERS[p], self.providers[p].address(), TON, Some(body.build().unwrap()), None);
        }
        let mut left = MAX_CLAIM_CHECKS - items.len();
        let mut with_voucher = |wanted: bool| {
            let with = wanted && left > 0;
            left -= usize::from(with);
            with
        };
        let items: Vec<_> = items.iter().map(|(item, voucher)| (item, with_voucher(*voucher))).collect();
        let from = if self.random.one_in(20) { STRANGER } else { OWNERS[p] };
        let value = [TON / 20 * items.len() as u64, TON / 2, TON / 100][self.random.below(3)];
        self.send(from, self.providers[p].address(), value, Some(provider::claim(&items).unwrap()), None);
    }

    pub(super) fn provider_life(&mut self) {
        let p = self.random.below(2);
        let to = self.providers[p].address();
        let from = if self.random.one_in(6) { STRANGER } else { OWNERS[p] };
        let of: Vec<usize> = (0..self.enclaves.len()).filter(|e| self.enclaves[*e].provider == p).collect();
        let key = match of.len() {
            0 => EnclaveKey([9; 32]),
            len => self.enclaves[of[self.random.below(len)]].key,
        };
        let value = [TON / 20, TON / 20, TON / 500][self.random.below(3)];
        let body = match self.random.below(50) {
            0..10 => return self.send(from, to, 3 * TON, Some(provider::stake(0).unwrap()), None),
            10..11 => provider::unstake(0, Nanoton(self.random.next() % (2 * TON))).unwrap(),
            11..30 => provider::withdraw(0).unwrap(),
            30 => provider::revoke(0, &key, self.random.one_in(2), &person(from)).unwrap(),
            31..33 => return self.send(from, to, TON / 50, Some(contracts::fund(0).unwrap()), None),
            _ => provider::prune(0, &key).unwrap(),
        };
        self.send(from, to, value, Some(body), None);
    }

    /// A stranger shows two receipts of an enclave: honest ones mostly, at times of a broken one, or of a machine of its own.
    pub(super) fn slash(&mut self) {
        if self.known.is_empty() {
            return;
        }
        let k = self.random.below(self.known.len());
        let mut e = self.known[k].enclave;
        let n = self.known[k].channel;
        let mut at = self.enclaves[e].provider;
        let mut first = self.known[k].receipt.clone();
        let of = self.signed_for[&(n, e)].clone();
        let mut second = self.known[of[self.random.below(of.len())]].receipt.clone();
        match self.random.below(30) {
            // This one is broken: it signs a total that falls.
            0 => {
                let total = Nanoton(first.total.0 / 2);
                second = SettlementReceipt { sequence: first.sequence + 1, total, ..first.clone() };
            }
            // The stranger's own, or any that is let in elsewhere at most: it signs whatever the stranger wants.
            1..6 => {
                let own: Vec<usize> = (0..self.enclaves.len()).filter(|e| self.enclaves[*e].strangers).collect();
                match own.len() {
                    len if len > 0 && self.random.one_in(2) => e = own[self.random.below(len)],
                    _ => {}
                }
                at = if self.enclaves[e].strangers { self.random.below(2) } else { 1 - self.enclaves[e].provider };
                let (provider, enclave_key) = (self.providers[at].address(), self.enclaves[e].key);
                first = SettlementReceipt { provider, enclave_key, total: Nanoton(TON), ..first };
                second = SettlementReceipt { total: Nanoton(0), ..first.clone() };
                self.vain_reports += 1;
            }
            _ => {}
        }
        if first.sequence <= second.sequence && first.total > second.total {
            self.rogues.insert(first.enclave_key);
        }
        let seed = self.enclaves[e].seed;
        let signed = |receipt: &SettlementReceipt| receipt.sign(&seed).unwrap();
        let body = provider::slash(0, (&first, &signed(&first)), (&second, &signed(&second))).unwrap();
        self.send(STRANGER, self.providers[at].address(), TON / 20, Some(body), None);
    }
}
