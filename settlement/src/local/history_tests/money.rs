//! Where the money of Channels goes, and what people get of it.

use tycho_types::models::{IntAddr, MsgInfo, Transaction};

use super::parties::{CLIENTS, EVERYBODY, NOBODY, OWNERS, STRANGER, person};
use super::{History, TON};
use crate::address::Address;

pub(super) const PAID: u32 = 0x4304_0001;
pub(super) const REFUND: u32 = 0x4304_0002;
pub(super) const REFUSED: u32 = 0x4304_0003;
pub(super) const WITHDRAWN: u32 = 0x4304_0004;
pub(super) const SLASHED: u32 = 0x4304_0005;
pub(super) const EXCESSES: u32 = 0xd532_76db;
/// What a message that comes back begins with.
pub(super) const BOUNCED: u32 = 0xffff_ffff;

/// What one Channel took and gave, in nanoton, over all of its life.
#[derive(Default)]
pub(super) struct Ledger {
    /// What deposits left there, their fees paid.
    deposited: u128,
    /// What receipts brought the owner.
    paid: u128,
    /// The value of the messages that paid them: also what was left of the gas money that came along.
    carried: u128,
    /// The value of refunds.
    refunded: u128,
    rent: u128,
}

/// A message that a contract sends.
pub(super) struct Out {
    pub to: Address,
    pub op: u32,
    /// What it says was paid, if it is a payment.
    pub amount: u64,
    pub value: u128,
}

/// What a transaction sends between accounts.
pub(super) fn outs(transaction: &Transaction) -> Vec<Out> {
    let mut outs = Vec::new();
    for message in transaction.iter_out_msgs() {
        let message = message.unwrap();
        let (MsgInfo::Int(info), mut body) = (&message.info, message.body) else { continue };
        let IntAddr::Std(to) = &info.dst else { panic!("a message to nowhere") };
        let op = body.load_u32().unwrap_or_default();
        let amount = if op == PAID { body.load_u64().unwrap() } else { 0 };
        outs.push(Out { to: to.clone().into(), op, amount, value: info.value.tokens.into() });
    }
    outs
}

/// The money of one transaction, in nanoton: held before, came along, held after, all fees that were collected here, rent among them.
pub(super) struct Money {
    pub had: u128,
    pub came: u128,
    pub has: u128,
    pub fees: u128,
    pub rent: u128,
}

impl History {
    /// A message of a contract's that arrived at a person's.
    pub(super) fn credit(&mut self, to: Address, op: u32, value: u128) {
        *self.credits.entry((to, op)).or_default() += value;
    }

    /// A Channel did something: what it lost went where it should.
    pub(super) fn channel_moved(&mut self, n: usize, from: Address, op: u32, taken: bool, money: &Money, outs: &[Out]) {
        let (owner, client) = (self.places[n].init.owner, self.places[n].init.client);
        let ledger = &mut self.places[n].ledger;
        ledger.rent += money.rent;
        if !taken {
            return;
        }
        match (op, outs) {
            (0x4303_0001, []) => ledger.deposited += money.came - (money.fees - money.rent),
            (0x4303_0002, [out]) => {
                assert!((out.to, out.op) == (owner, PAID), "{:#x} went to {} of a claim", out.op, out.to);
                let amount = u128::from(out.amount);
                assert!(money.has + money.rent + amount >= money.had, "a claim cost its Channel more than it paid");
                assert!(out.value >= amount, "{} arrive of {amount} that were paid", out.value);
                ledger.paid += amount;
                ledger.carried += out.value;
            }
            (0x4303_0003, [out]) => {
                assert!((out.to, out.op) == (from, EXCESSES), "{:#x} went to {} of a start", out.op, out.to);
                assert!(money.has + money.rent >= money.had, "the start of a close cost its Channel something");
            }
            (0x4303_0004..=0x4303_0006, [out]) => {
                assert!((out.to, out.op) == (client, REFUND), "{:#x} went to {} of a refund", out.op, out.to);
                assert!(out.value + money.has + money.rent >= money.had, "a refund is not all there was");
                assert!(money.has < u128::from(TON / 10), "{} stayed in a closed Channel", money.has);
                ledger.refunded += out.value;
            }
            _ => panic!("{op:#x} made a Channel send {} messages", outs.len()),
        }
    }

    /// At the end, when nothing is under way: nobody but owners was paid, nobody but clients was refunded, both got all that Channels
    /// sent, and a client got back everything that receipts under its own vouchers did not bring to the owner.
    pub(super) fn settled_up(&self) {
        assert_eq!(self.credits, self.sent, "what arrived is something else than what contracts sent to people");
        for ((to, op), credited) in &self.credits {
            let (people, sent): (&[u8], u128) = match *op {
                PAID => (&OWNERS, self.places.iter().filter(|p| p.init.owner == *to).map(|p| p.ledger.carried).sum()),
                REFUND => {
                    (&CLIENTS, self.places.iter().filter(|p| p.init.client == *to).map(|p| p.ledger.refunded).sum())
                }
                // What Providers and the Registry sent; the books say how much of it was theirs.
                WITHDRAWN => (&OWNERS, *credited),
                SLASHED if *to == NOBODY => continue,
                SLASHED => (&[STRANGER], *credited),
                EXCESSES | REFUSED | BOUNCED => (&EVERYBODY, *credited),
                _ => panic!("{to} got {credited} with {op:#x}"),
            };
            assert!(people.iter().any(|n| person(*n) == *to), "{to} got {credited} with {op:#x}");
            assert_eq!(*credited, sent, "{to} got something else than was sent with {op:#x}");
        }
        for (n, place) in self.places.iter().enumerate() {
            let ledger = &place.ledger;
            let covered: u64 = place.paid.values().sum();
            assert_eq!(
                ledger.paid,
                u128::from(covered),
                "Channel {n} paid something else than vouchers and receipts cover"
            );
            let held = Self::balance(self.account(&place.init.address()).as_ref());
            let back = ledger.refunded + held + ledger.rent;
            assert!(
                back + ledger.paid >= ledger.deposited,
                "of {} in Channel {n}, {} were paid and only {back} came back",
                ledger.deposited,
                ledger.paid
            );
        }
    }

    /// How often people got something with these words.
    pub(super) fn credited(&self, op: u32) -> usize {
        self.credits.keys().filter(|(_, of)| *of == op).count()
    }
}
