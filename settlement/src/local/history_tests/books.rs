//! The books of the Registry and the Providers: what came to stay, and where everything else went.

use tycho_types::cell::CellSlice;
use tycho_types::models::Account;

use super::History;
use super::money::{BOUNCED, EXCESSES, Money, Out, REFUSED, SLASHED, WITHDRAWN};
use super::parties::{EVERYBODY, NOBODY, person};
use crate::address::Address;

const FUND: u32 = 0x4300_0001;
const ATTESTED: u32 = 0x4302_0001;
const REVOKE: u32 = 0x4302_0007;
/// What comes back from one contract to another may begin so.
const RICH_BOUNCED: u32 = 0xffff_fffe;

/// What one contract took and gave, in nanoton, over all of its life.
#[derive(Default)]
pub(super) struct Books {
    /// What came to stay: stake, rent that was paid, and what could not come back.
    kept: u128,
    /// What the owner took out.
    withdrawn: u128,
    /// Stake that was lost to reporters.
    rewarded: u128,
    /// Stake that was lost to nobody.
    burned: u128,
    rent: u128,
}

/// A message as it arrived.
pub(super) struct Incoming<'a> {
    pub from: Address,
    pub op: u32,
    pub bounce: bool,
    /// After the operation.
    pub body: CellSlice<'a>,
    /// Not refused.
    pub taken: bool,
}

impl History {
    /// The Registry or a Provider did something: what it sent went where it should, and it lost nothing but what it may lose by that.
    pub(super) fn booked(
        &mut self,
        at: Address,
        message: &Incoming<'_>,
        money: &Money,
        outs: &[Out],
        before: Option<&Account>,
    ) {
        let (from, op) = (message.from, message.op);
        // What rent left of what was there; what cannot bounce pays the rest of it with what it brings.
        let left = money.had.saturating_sub(money.rent);
        let owner = self.provider_at.get(&at).map(|p| self.providers[*p].owner);
        let goes = |to: Address, kind: u32| {
            let [out] = outs else { panic!("{} messages of {op:#x}", outs.len()) };
            assert!((out.to, out.op) == (to, kind), "{:#x} went to {} of {op:#x}", out.op, out.to);
        };
        // Before it come query id and key, and so many bits more.
        let payer = |between: u16| {
            let mut body = message.body;
            body.skip_first(64 + 256 + between, 0).unwrap();
            Address::load(&mut body).unwrap()
        };
        let (mut withdrawn, mut rewarded, mut burned) = (0, 0, 0);
        match (op, owner) {
            _ if !message.taken => {
                let back = |out: &Out| out.to == from && out.op >= RICH_BOUNCED;
                assert!(outs.len() <= 1 && outs.iter().all(back), "a refusal sent something else than what came");
            }
            (FUND, _) | (0x4302_0004, Some(_)) => assert!(outs.is_empty(), "{op:#x} sent something"),
            (0x4301_0002..=0x4301_0006 | 0x4301_0008, None) | (0x4302_0005 | 0x4302_0008, Some(_)) => {
                goes(from, EXCESSES);
            }
            (0x4301_0001, None) => assert_eq!(only(outs).op, ATTESTED),
            (0x4301_0007, None) => assert_eq!(only(outs).op, REVOKE),
            (BOUNCED, None) => {
                let out = only(outs);
                assert_eq!(out.op, REFUSED);
                assert!(EVERYBODY.iter().any(|n| person(*n) == out.to), "{} paid for nothing", out.to);
            }
            (ATTESTED, Some(_)) => goes(payer(96 + 256), EXCESSES),
            (REVOKE, Some(_)) => goes(payer(1), EXCESSES),
            (0x4302_0002 | 0x4302_0003, Some(_)) => {
                let out = only(outs);
                assert_eq!(out.op, if op == 0x4302_0002 { 0x4303_0002 } else { 0x4303_0005 });
                assert!(self.place_at.contains_key(&out.to), "{op:#x} went to {}", out.to);
            }
            (BOUNCED, Some(owner)) => goes(owner, REFUSED),
            (0x4302_0006, Some(owner)) => {
                goes(owner, WITHDRAWN);
                withdrawn = left.checked_sub(money.has).expect("an owner took something out");
                let stake = self.stake_of(&at, None);
                assert!(money.has >= left.min(stake), "{} are left where {stake} are stake", money.has);
            }
            (0x4302_000a, Some(_)) => {
                // All of the stake that is there: a fifth for who showed the receipts, rounded down, the rest for nobody.
                let held = self.stake_of(&at, before).min(left);
                rewarded = held / 5;
                burned = held - rewarded;
                let (last, first) = outs.split_last().expect("what came and a fifth");
                let said: Vec<_> = first.iter().map(|out| (out.to, out.op, out.value)).collect();
                assert!(said == [(NOBODY, SLASHED, burned)] || (burned == 0 && said.is_empty()), "{held} were lost");
                assert_eq!((last.to, last.op), (from, SLASHED));
                assert!(last.value < rewarded + money.came, "a reporter got more than a fifth of {held}");
            }
            _ => panic!("{op:#x} was taken at {at}"),
        }
        let lost = withdrawn + rewarded + burned;
        let gained = (money.has + lost).checked_sub(left).expect("nothing else is lost");
        // Only what makes a contract larger or is meant to stay leaves something, and what is refused and cannot come back, or is too little
        // to pay for its way.
        let may_gain = matches!(
            (op, owner),
            (FUND, _) | (ATTESTED | 0x4302_0004, Some(_)) | (0x4301_0002 | 0x4301_0003 | 0x4301_0008, None)
        );
        let may_gain = if message.taken { may_gain } else { !message.bounce || outs.is_empty() };
        assert!((may_gain && gained <= money.came) || gained == 0, "{gained} of a {op:#x} stayed at {at}");
        let books = self.books.get_mut(&at).expect("the books of a contract");
        books.kept += gained + (money.rent - (money.had - left));
        books.rent += money.rent;
        books.withdrawn += withdrawn;
        books.rewarded += rewarded;
        books.burned += burned;
    }

    /// Stake at a Provider, with what is unbonding: now, or in an account as it was.
    fn stake_of(&self, provider: &Address, before: Option<&Account>) -> u128 {
        let now = self.account(provider);
        let account = before.or(now.as_ref()).expect("a Provider");
        let stake = self.ints(account, "stake", &[]);
        u128::from(stake[0]) + u128::from(stake[1])
    }

    /// At the end: what came to stay at the Registry and each Provider is still there, less what rent took, what owners withdrew and
    /// what was lost of stake; and what was burned is where nobody is.
    pub(super) fn balanced(&self) {
        let mut burned = 0;
        for (at, books) in &self.books {
            let held = Self::balance(self.account(at).as_ref());
            let gone = books.rent + books.withdrawn + books.rewarded + books.burned;
            assert_eq!(books.kept, held + gone, "the books of {at} do not balance");
            assert!(books.burned >= 4 * books.rewarded, "more than a fifth of the stake of {at} went to reporters");
            burned += books.burned;
            if self.provider_at.contains_key(at) {
                let stake = self.stake_of(at, None);
                assert!(held + books.rent >= stake, "of {stake} that are stake at {at} only {held} are there");
            }
        }
        assert_eq!(
            self.credits.get(&(NOBODY, SLASHED)).copied().unwrap_or(0),
            burned,
            "what was burned went elsewhere"
        );
    }
}

/// The one message that was sent.
fn only(outs: &[Out]) -> &Out {
    let [out] = outs else { panic!("{} messages", outs.len()) };
    out
}
