//! What governance, verifiers and those who only disturb do.

use cocoon_attestation::types::{Digest, UnixTime};
use tycho_types::cell::CellBuilder;

use super::parties::{GOVERNANCE, STRANGER, public};
use super::{DAY, History, START, TON, VERIFIERS};
use crate::address::NetworkId;
use crate::cells::CheckpointAnchor;
use crate::contracts::{Change, Listed, registry};

impl History {
    pub(super) fn govern(&mut self) {
        let from = if self.random.one_in(5) { STRANGER } else { GOVERNANCE };
        let (_, threshold, lifetime, verifiers) = self.rules();
        let body = match self.random.below(24) {
            0..8 => {
                let first = VERIFIERS.start + self.random.below(4) as u8;
                let verifiers = (0..4).map(|n| (n, public(&[first + n; 32]))).collect();
                let changes = [
                    Change::Allow(Listed::Image(Digest([self.random.below(8) as u8; 32]))),
                    Change::MaxLifetime(DAY as u32),
                    Change::TimeLock(3_600),
                    Change::Verifiers { threshold: 2, verifiers },
                ];
                registry::propose(0, &changes[self.random.below(4)]).unwrap()
            }
            8..16 => registry::execute(0, self.some_proposal()).unwrap(),
            16..18 => registry::cancel(0, self.some_proposal()).unwrap(),
            18..20 => registry::forbid(0, Listed::Image(Digest([self.random.below(8) as u8; 32]))).unwrap(),
            20 => {
                // At times looser, which is refused.
                let drop = if self.random.one_in(2) { vec![verifiers[0].0] } else { Vec::new() };
                let (threshold, lifetime) = (threshold as i64, lifetime as i64);
                let threshold = threshold + [0, 0, 0, 0, 1, -1][self.random.below(6)];
                let lifetime = lifetime + [0, 0, -600, 60][self.random.below(4)];
                registry::tighten(0, &drop, threshold as u8, lifetime as u32).unwrap()
            }
            _ if self.enclaves.is_empty() => return,
            _ => {
                let enclave = &self.enclaves[self.random.below(self.enclaves.len())];
                let (provider, key) = (self.providers[enclave.provider].address(), enclave.key);
                registry::revoke_key(0, &provider, &key, self.random.one_in(2)).unwrap()
            }
        };
        let value = [TON / 5, TON / 100][self.random.below(2)];
        self.send(from, self.registry, value, Some(body), None);
    }

    /// One of the newest proposals, carried out or not, or one that may come.
    fn some_proposal(&mut self) -> u32 {
        let registry = self.account(&self.registry).expect("a Registry");
        let next = self.ints(&registry, "proposals", &[])[0];
        (next + 2).saturating_sub(self.random.below(20) as u64) as u32
    }

    /// A verifier's checkpoint, of a log that grew or did not.
    pub(super) fn anchor(&mut self) {
        let (_, _, _, verifiers) = self.rules();
        let (index, seed) = verifiers[self.random.below(verifiers.len())];
        let checkpoint = CheckpointAnchor {
            network: NetworkId::LOCAL,
            registry: self.registry,
            origin: Digest(public(&seed)),
            tree_size: self.now - START + self.random.below(2_000) as u64,
            root: Digest([7; 32]),
            time: UnixTime(self.now),
        };
        let signed_by = if self.random.one_in(10) { [0x77; 32] } else { seed };
        let signature = checkpoint.sign(&signed_by).unwrap();
        let body = registry::anchor(0, index, &checkpoint, &signature).unwrap();
        self.send(STRANGER, self.registry, TON / 5, Some(body), None);
    }

    /// Bytes that mean nothing, from anyone to anything.
    pub(super) fn noise(&mut self) {
        let to = match self.random.below(3) {
            0 => self.registry,
            1 => self.providers[self.random.below(2)].address(),
            _ => self.places[self.random.below(self.places.len())].init.address(),
        };
        let mut b = CellBuilder::new();
        b.store_u32(0x4300_0000 | (self.random.next() as u32 & 0x0007_000f)).unwrap();
        for _ in 0..self.random.below(12) {
            b.store_u64(self.random.next()).unwrap();
        }
        let value = self.random.next() % TON;
        self.send(STRANGER, to, value, Some(b.build().unwrap()), None);
    }
}
