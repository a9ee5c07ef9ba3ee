//! What a claim that was refused means for the next one of the same enclave in the same channel.
//!
//! A host whose enclave is broken, or whose client's channel cannot take another key, goes on serving and has a new receipt every minute.
//! Each would be refused like the one before, and cost its fees. So not the receipt alone is remembered but who earned it where, why it was
//! refused, how often in a row and what that has cost: the next claim waits, twice as long each time, is sent alone, and only where it
//! would bring more than all of that. Before a deadline the waits become shorter again. Whatever keeps being refused thus costs less than it has earned, and a few claims.

use cocoon_attestation::UnixTime;
use cocoon_settlement::Nanoton;

use crate::deadline::Deadline;

/// How long the first refusal is respected.
const FIRST: u64 = 3_600;
/// The longest that one is.
const LONGEST: u64 = 7 * 86_400;
/// A receipt that itself was refused is not claimed again earlier.
const SAME: u64 = 86_400;
/// Not even a deadline makes two attempts follow one another faster.
const SHORTEST: u64 = 600;

/// The last refusal of an enclave's receipt in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When it was.
    pub at: UnixTime,
    /// The contract's exit code; 0 where it took the claim and paid nothing.
    pub code: i32,
    /// Refusals for this reason, one after the other; 0 where it was never refused itself, only claims of several among which it was.
    pub count: u32,
    /// What all of them have cost in fees, whatever the reason.
    pub lost: Nanoton,
    /// Hash of the receipt.
    pub receipt: [u8; 32],
}

impl Refusal {
    /// The refusal after `before`, if there was one that nothing was paid since.
    pub fn after(before: Option<Self>, at: UnixTime, code: i32, fees: Nanoton, receipt: [u8; 32]) -> Self {
        let repeated = before.filter(|before| before.code == code).map_or(0, |before| before.count);
        let lost = before.map_or(Nanoton::ZERO, |before| before.lost).saturating_add(fees);
        Self { at, code, count: repeated.saturating_add(1), lost, receipt }
    }

    /// It was among several that were refused together, whichever of them was the reason: from now on it goes alone and must make up for its share
    /// of what that cost, but it waits no longer for it.
    pub fn among(before: Option<Self>, at: UnixTime, code: i32, share: Nanoton, receipt: [u8; 32]) -> Self {
        let count = before.map_or(0, |before| before.count);
        Self { count, ..Self::after(before, at, code, share, receipt) }
    }

    /// When a claim of this receipt is due again. Before a deadline there is room for more than one further attempt: where claims begin to press one
    /// is due, and from there on no wait takes more than half of the time that is left.
    pub fn next(&self, receipt: [u8; 32], deadline: &Deadline) -> UnixTime {
        if self.count == 0 {
            return self.at;
        }
        let doubled = 2_u64.saturating_pow(self.count.saturating_sub(1));
        let mut wait = FIRST.saturating_mul(doubled).min(LONGEST);
        if receipt == self.receipt {
            wait = wait.max(SAME);
        }
        let latest = if self.at < deadline.presses_from {
            deadline.presses_from.max(self.at.plus(SHORTEST))
        } else {
            let left = deadline.last.0.saturating_sub(self.at.0);
            self.at.plus((left / 2).max(SHORTEST))
        };
        self.at.plus(wait).min(latest).min(deadline.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const FAR: UnixTime = UnixTime(u64::MAX / 2);
    const ONE: [u8; 32] = [1; 32];
    const TWO: [u8; 32] = [2; 32];

    fn refused(count: u32) -> Refusal {
        Refusal { at: UnixTime(1_000_000), code: 133, count, lost: Nanoton(7), receipt: ONE }
    }

    /// Claims press for a day before this.
    fn deadline(last: UnixTime) -> Deadline {
        Deadline { last, presses_from: UnixTime(last.0 - 24 * HOUR) }
    }

    #[test]
    fn every_refusal_is_respected_twice_as_long_as_the_one_before_up_to_a_week() {
        for (count, hours) in [(1, 1), (2, 2), (3, 4), (4, 8), (7, 64), (8, 128), (9, 168), (40, 168), (u32::MAX, 168)]
        {
            let refusal = refused(count);
            assert_eq!(refusal.next(TWO, &deadline(FAR)), refusal.at.plus(hours * HOUR), "{count}");
        }
        // The receipt itself is no better after an hour.
        assert_eq!(refused(1).next(ONE, &deadline(FAR)), refused(1).at.plus(24 * HOUR));
        assert_eq!(refused(9).next(ONE, &deadline(FAR)), refused(9).at.plus(168 * HOUR));
    }

    #[test]
    fn one_attempt_is_due_where_claims_begin_to_press() {
        let refusal = refused(9);
        assert_eq!(refusal.next(ONE, &deadline(refusal.at.plus(30 * HOUR))), refusal.at.plus(6 * HOUR));
        // Whoever was refused a moment before waits ten minutes.
        assert_eq!(refusal.next(ONE, &deadline(refusal.at.plus(24 * HOUR + 1))), refusal.at.plus(600));
        // What is due anyhow is not put off until then.
        assert_eq!(refused(1).next(TWO, &deadline(refusal.at.plus(30 * HOUR))), refusal.at.plus(HOUR));
    }

    #[test]
    fn before_a_deadline_each_wait_leaves_room_for_a_second_attempt() {
        let refusal = refused(9);
        let next = |left: u64| refusal.next(ONE, &deadline(refusal.at.plus(left))).0 - refusal.at.0;
        assert_eq!((next(24 * HOUR), next(20 * HOUR), next(HOUR)), (12 * HOUR, 10 * HOUR, HOUR / 2));
        // Ten minutes at least, and nothing after the end.
        assert_eq!((next(1_201), next(1_199), next(600), next(599), next(0)), (600, 600, 600, 599, 0));
        let soon = refused(1);
        assert_eq!(soon.next(TWO, &deadline(soon.at.plus(24 * HOUR))), soon.at.plus(HOUR), "no wait becomes longer");
    }

    #[test]
    fn what_was_only_among_others_waits_for_nothing_and_counts_as_no_refusal() {
        let among = Refusal::among(None, UnixTime(100), 133, Nanoton(5), ONE);
        assert_eq!((among.count, among.lost, among.next(ONE, &deadline(FAR))), (0, Nanoton(5), UnixTime(100)));
        let refused = Refusal::after(Some(among), UnixTime(200), 133, Nanoton(7), ONE);
        assert_eq!((refused.count, refused.lost), (1, Nanoton(12)));
        // What was refused itself before is not forgiven.
        let again = Refusal::among(Some(refused), UnixTime(300), 137, Nanoton(1), ONE);
        assert_eq!((again.count, again.lost), (1, Nanoton(13)));
    }

    #[test]
    fn the_same_reason_counts_on_and_another_begins_anew_but_what_was_lost_stays_lost() {
        let first = Refusal::after(None, UnixTime(1), 133, Nanoton(10), ONE);
        let second = Refusal::after(Some(first), UnixTime(2), 133, Nanoton(20), TWO);
        let other = Refusal::after(Some(second), UnixTime(3), 137, Nanoton(30), TWO);
        assert_eq!((first.count, first.lost), (1, Nanoton(10)));
        assert_eq!((second.count, second.lost, second.receipt), (2, Nanoton(30), TWO));
        assert_eq!((other.count, other.code, other.lost), (1, 137, Nanoton(60)));
    }
}
