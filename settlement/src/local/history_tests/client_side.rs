//! What clients do, and what enclaves sign for them.

use cocoon_attestation::types::UnixTime;

use super::parties::{Known, OWNERS, Place, STRANGER};
use super::{History, TON};
use crate::address::NetworkId;
use crate::amount::{Nanoton, Prices};
use crate::cells::{SettlementReceipt, Voucher};
use crate::contracts::{channel, provider};

impl History {
    /// One of the Channels that are there, or may be.
    pub(super) fn some_place(&mut self) -> usize {
        let of: Vec<usize> = (0..self.places.len()).filter(|n| !self.places[*n].gone).collect();
        of[self.random.below(of.len())]
    }

    /// A client opens another Channel in the place of one that is no longer, with a new salt.
    pub(super) fn open_another(&mut self, n: usize) {
        let mut init = self.places[n].init.clone();
        let (provider, client, seed) = (self.places[n].provider, self.places[n].client, self.places[n].seed);
        self.places[n].gone = true;
        init.salt = [0x80; 32];
        init.salt[..8].copy_from_slice(&(self.places.len() as u64).to_be_bytes());
        self.place_at.insert(init.address(), self.places.len());
        self.places.push(Place::new(init, provider, client, seed));
    }

    pub(super) fn top_up(&mut self) {
        let n = self.some_place();
        if self.frozen(&self.places[n].init.address()) {
            return self.open_another(n);
        }
        let (init, client) = (self.places[n].init.clone(), self.places[n].client);
        let value = [TON / 10, TON / 2, 2 * TON, 5 * TON, 1_000][self.random.below(5)];
        self.send(client, init.address(), value, Some(channel::top_up(0).unwrap()), Some(init.state_init()));
    }

    /// A client promises, an enclave works, and both sign.
    pub(super) fn serve(&mut self) {
        if self.enclaves.is_empty() {
            return;
        }
        let e = self.random.below(self.enclaves.len());
        let of: Vec<usize> = (0..self.places.len())
            .filter(|n| self.places[*n].provider == self.enclaves[e].provider && !self.places[*n].gone)
            .collect();
        let n = of[self.random.below(of.len())];
        // The enclave itself serves no longer than it is attested, unless it is broken.
        if self.enclaves[e].attested.is_none_or(|(_, until)| until < self.now) && !self.random.one_in(12) {
            return;
        }
        // A new promise, or the last one again, which may have expired by now: a broken enclave goes on all the same.
        let last = self.signed_for.get(&(n, e)).and_then(|of| of.last()).map(|k| &self.known[*k]);
        let last = last.map(|known| (known.voucher.cap.0, known.voucher.expiry));
        let again = last.filter(|_| self.random.one_in(3));
        let (cap, expiry) =
            again.unwrap_or_else(|| (self.most(n, e) + self.random.next() % (TON / 4), UnixTime(self.now + 3_600)));
        let (sequence, total) = self.enclaves[e].signed.get(&n).copied().unwrap_or((0, 0));
        let total = (total + self.random.next() % (TON / 5)).min(cap.max(total));
        self.enclaves[e].signed.insert(n, (sequence + 1, total));
        let (place, enclave) = (&self.places[n], &self.enclaves[e]);
        let voucher = Voucher {
            network: NetworkId::LOCAL,
            channel: place.init.address(),
            enclave_key: enclave.key,
            cap: Nanoton(cap),
            prices: Prices { prompt: 1, cached: 2, completion: 3, reasoning: 4 },
            expiry,
        };
        let receipt = SettlementReceipt {
            network: NetworkId::LOCAL,
            provider: place.init.provider,
            channel: place.init.address(),
            enclave_key: enclave.key,
            sequence: sequence + 1,
            total: Nanoton(total),
            time: UnixTime(self.now),
        };
        let (voucher_signature, receipt_signature) =
            (voucher.sign(&place.seed).unwrap(), receipt.sign(&enclave.seed).unwrap());
        self.signed_for.entry((n, e)).or_default().push(self.known.len());
        self.known.push(Known { channel: n, enclave: e, voucher, voucher_signature, receipt, receipt_signature });
    }

    pub(super) fn close(&mut self) {
        let n = self.some_place();
        let (address, p) = (self.places[n].init.address(), self.places[n].provider);
        let anyone = [self.places[n].client, STRANGER, OWNERS[p]][self.random.below(3)];
        match self.random.below(8) {
            0..3 => self.send(anyone, address, TON / 20, Some(channel::start_close(0).unwrap()), None),
            3..5 => self.send(anyone, address, TON / 20, Some(channel::finish_close(0).unwrap()), None),
            5 => {
                let body = provider::release_channel(0, &address).unwrap();
                self.send(OWNERS[p], self.providers[p].address(), TON / 20, Some(body), None);
            }
            _ => self.send(anyone, address, TON / 20, Some(channel::delete(0).unwrap()), None),
        }
    }
}
