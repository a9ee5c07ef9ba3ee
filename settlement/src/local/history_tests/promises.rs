//! What a message that was taken did, held against what may happen.

use cocoon_attestation::types::{EnclaveKey, UnixTime};
use tycho_types::cell::{CellSlice, HashBytes};
use tycho_types::models::Account;

use super::parties::Known;
use super::{History, TON, UNLOCKS, WINDOW};
use crate::address::{Address, NetworkId};
use crate::amount::Nanoton;
use crate::cells::SettlementReceipt;
use crate::chain::StackValue;
use crate::contracts::channel;

impl History {
    /// What a message that was taken did, held against what may happen.
    pub(super) fn look(&mut self, to: Address, op: u32, mut body: CellSlice<'_>, paid: u64, account: &Option<Account>) {
        let at = self.provider_at.get(&to).copied();
        let place = self.place_at.get(&to).copied();
        match (op, at, place) {
            (0x4302_0001, Some(p), _) => {
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                let generation = body.load_u32().unwrap();
                body.load_u32().unwrap();
                let until = u64::from(body.load_u32().unwrap());
                body.load_u256().unwrap();
                let payer = Address::load(&mut body).unwrap();
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                enclave.generation = generation;
                if enclave.attested.is_none() {
                    assert_eq!(payer, self.providers[enclave.provider].owner, "a stranger brought a key");
                    assert!(!enclave.strangers, "an owner pays for no machine of a stranger's");
                    self.let_in.insert((p, key));
                    self.attested_again += usize::from(!enclave.ever.is_empty());
                }
                let since = enclave.attested.map_or(now - 600, |(since, _)| since);
                assert_eq!(enclave.attested.is_none(), generation == 0, "only a first verdict is of generation 0");
                enclave.attested = Some((since, until));
                enclave.ever.push((since, until));
                assert!(!enclave.void, "a void key was renewed");
            }
            (0x4302_0002, Some(_), _) => {
                body.load_u256().unwrap();
                let mut next = Some(body.load_reference_cloned().unwrap());
                while let Some(cell) = next {
                    let mut item = cell.as_slice().unwrap();
                    let key = EnclaveKey(item.load_u256().unwrap().0);
                    let enclave = self.enclaves.iter().find(|enclave| enclave.key == key).expect("a key that exists");
                    let (_, until) = enclave.attested.expect("an attested key");
                    assert!(self.now <= until + WINDOW && !enclave.void, "a claim was let through too late");
                    next = item.load_bit().unwrap().then(|| item.load_reference_cloned().unwrap());
                }
            }
            (0x4302_0007, Some(_), _) => {
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                let void = body.load_bit().unwrap();
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                enclave.void |= void;
                enclave.attested = enclave.attested.map(|(since, until)| (since, until.min(now)));
            }
            (0x4303_0001, _, Some(n)) => {
                assert!(!self.places[n].gone, "the model's clients take new salts");
                let now = self.now;
                self.places[n].opened.get_or_insert(now);
            }
            (0x4303_0002, _, Some(n)) => self.paid(n, account.as_ref().expect("a Channel"), paid),
            (0x4302_0008, Some(p), _) => {
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                let (_, until) = enclave.attested.take().expect("a known key");
                enclave.void = false;
                for asked in self.asked[p].iter().filter(|asked| **asked <= until) {
                    assert!(now > asked + UNLOCKS, "a key was forgotten before the stake behind it was free");
                }
                self.pruned += 1;
            }
            (0x4301_0008, ..) => {
                body.load_u64().unwrap();
                let index = u64::from(body.load_u8().unwrap());
                let result = self.stack(account.as_ref().expect("a Registry"), "anchor", &[StackValue::int(index)]);
                let (key, size) = (HashBytes(result[1].as_bytes32().unwrap()), result[3].as_u64().unwrap());
                let before = self.anchored.insert(index, (key, size));
                assert!(before.is_none_or(|(of, had)| of != key || had < size), "a log shrank");
            }
            (0x4302_0005, Some(p), _) => {
                body.load_u64().unwrap();
                let ends = self.enclaves.iter().filter(|enclave| enclave.provider == p);
                let last = ends.filter_map(|enclave| enclave.attested).map(|(_, until)| until).max().unwrap_or(0);
                self.unbonding[p] = (self.unbonding[p].0 + body.load_u64().unwrap(), last);
                self.asked[p].push(self.now);
            }
            (0x4302_0006, Some(p), _) => {
                let account = account.as_ref().expect("a Provider");
                let stake = self.ints(account, "stake", &[]);
                let (unbonding, backed) = self.unbonding[p];
                if unbonding > 0 && stake[1] == 0 {
                    // No receipt that it backed can be paid any more.
                    assert!(self.now > backed + WINDOW, "stake unlocked early");
                    self.unbonding[p].0 = 0;
                    self.unlocked += 1;
                }
                assert_eq!(self.unbonding[p].0, stake[1], "unbonding stake is as was asked for");
            }
            (0x4302_000a, Some(p), _) => {
                self.unbonding[p].0 = 0;
                body.load_u64().unwrap();
                let key = EnclaveKey(body.load_u256().unwrap().0);
                assert!(self.rogues.contains(&key), "an honest enclave was slashed");
                assert!(self.let_in.contains(&(p, key)), "a key cost a stake whose owner had not let it in");
                let channel = Address::load(&mut body).unwrap();
                let [first, second] = [(); 2].map(|()| self.shown(p, key, channel, &mut body));
                let falls = first.sequence <= second.sequence && first.total > second.total;
                assert!(falls || (first.sequence == second.sequence && first != second), "both receipts can be true");
                self.slashed += 1;
                let now = self.now;
                let enclave = self.enclaves.iter_mut().find(|enclave| enclave.key == key).expect("a key that exists");
                enclave.void = true;
                enclave.attested = enclave.attested.map(|(since, until)| (since, until.min(now)));
            }
            (0x4303_0006, _, Some(n)) => {
                // The client opens another one. What it sent ten days ago has long arrived.
                let (client, address) = (self.places[n].init.client, self.places[n].init.address());
                self.pending.retain(|(from, to), _| (*from, *to) != (client, address));
                self.open_another(n);
            }
            _ => {}
        }
    }

    /// One of the receipts that a report shows, which the reported key signed for this Provider.
    fn shown(&self, p: usize, key: EnclaveKey, channel: Address, report: &mut CellSlice<'_>) -> SettlementReceipt {
        let cell = report.load_reference_cloned().unwrap();
        let mut shown = cell.as_slice().unwrap();
        let receipt = SettlementReceipt {
            network: NetworkId::LOCAL,
            provider: self.providers[p].address(),
            channel,
            enclave_key: key,
            sequence: shown.load_u64().unwrap(),
            total: Nanoton(shown.load_u64().unwrap()),
            time: UnixTime(shown.load_u32().unwrap().into()),
        };
        let mut signature = [0; 64];
        shown.load_raw(&mut signature, 512).unwrap();
        receipt.verify(&signature, &key.0).expect("a receipt that the key signed");
        receipt
    }

    /// Nobody is paid twice for a total, or without an attestation that covers the receipt, or more than client and enclave
    /// signed for, by a voucher that had not expired at the receipt's time; and what is paid is what is recorded.
    pub(super) fn paid(&mut self, n: usize, account: &Account, mut amount: u64) {
        for (e, enclave) in self.enclaves.iter().enumerate() {
            if enclave.provider != self.places[n].provider {
                continue;
            }
            let paid = self.ints(account, "paid", &[StackValue::uint256(&enclave.key.0)])[0];
            let before = self.places[n].paid.get(&e).copied().unwrap_or(0);
            assert!(paid >= before, "a payment was taken back");
            if paid == before {
                continue;
            }
            let opened = self.places[n].opened.expect("an open Channel");
            let of = || self.signed(n, e);
            let covered = of().any(|known| {
                let time = known.receipt.time.0;
                known.receipt.total.0 >= paid
                    && of().any(|of| of.voucher.cap.0 >= paid && of.voucher.expiry.0 >= time)
                    && time + 600 >= opened
                    && enclave.ever.iter().any(|(since, until)| time >= *since && time <= *until)
            });
            assert!(covered, "{paid} were paid, and nothing signed covers it");
            self.places[n].paid.insert(e, paid);
            self.paid_claims += 1;
            amount = amount.checked_sub(paid - before).expect("less was paid than was recorded");
        }
        assert_eq!(amount, 0, "more was paid than the totals rose by");
    }

    /// The highest cap that a client ever promised to an enclave.
    pub(super) fn most(&self, n: usize, e: usize) -> u64 {
        self.signed(n, e).map(|known| known.voucher.cap.0).max().unwrap_or(0)
    }

    /// What was signed for this Channel by its client and this enclave.
    pub(super) fn signed(&self, n: usize, e: usize) -> impl Iterator<Item = &Known> {
        self.signed_for.get(&(n, e)).into_iter().flatten().map(|k| &self.known[*k])
    }

    /// Every client gets its money back, alone.
    pub(super) fn end(&mut self) {
        self.settle();
        for n in 0..self.places.len() {
            let address = self.places[n].init.address();
            let client = self.places[n].client;
            let Some(account) = self.account(&address) else { continue };
            assert!(!self.places[n].gone, "a deleted Channel is there again");
            let state = self.ints(&account, "state", &[]);
            let promised: u64 = (0..self.enclaves.len()).map(|e| self.most(n, e)).sum();
            let paid: u64 = self.places[n].paid.values().sum();
            assert!(paid <= promised, "{paid} were paid of {promised} promised");
            if state[0] == 2 {
                continue;
            }
            if state[0] == 0 {
                self.send(client, address, TON / 5, Some(channel::start_close(0).unwrap()), None);
                self.settle();
            }
            self.now += WINDOW;
            let before = Self::balance(self.account(&address).as_ref());
            // As much as pays for what rent has eaten up besides.
            self.send(client, address, TON / 5, Some(channel::finish_close(0).unwrap()), None);
            self.settle();
            let account = self.account(&address).expect("a closed Channel keeps its state");
            assert_eq!(self.ints(&account, "state", &[])[0], 2, "the client could not close");
            let kept = Self::balance(Some(&account));
            let most = u128::from(TON / 10);
            assert!(kept < most && (kept <= before || before < most), "{kept} of {before} stayed in a closed Channel");
        }
        self.settled_up();
        self.balanced();
    }
}
