//! What a claim that was refused means for the next one of the same enclave in the same channel.
//!
//! A host whose enclave is broken, or whose client's channel cannot take another key, goes on serving and has a new receipt every minute.
//! Each would be refused like the one before, and cost its fees. So not the receipt alone is remembered but who earned it where, why it was
//! refused, how often in a row and what that has cost: the next claim waits, twice as long each time, is sent alone, and only where it
//! would bring more than all of that. Whatever keeps being refused thus costs less than it has earned, and a few claims.

use cocoon_attestation::UnixTime;
use cocoon_settlement::Nanoton;

/// How long the first refusal is respected.
const FIRST: u64 = 3_600;
/// The longest that one is.
const LONGEST: u64 = 7 * 86_400;
/// A receipt that itself was refused is not claimed again earlier.
const SAME: u64 = 86_400;

/// The last refusal of an enclave's receipt in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When it was.
    pub at: UnixTime,
    /// The contract's exit code; 0 where it took the claim and paid nothing.
    pub code: i32,
    /// Refusals for this reason, one after the other.
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

    /// Whether a claim of this receipt must wait at this time. `deadline` is the last second in which it can be paid: in the last
    /// `window / 3` before it, in which nothing waits for more any longer, one more attempt is due.
    pub fn holds(&self, receipt: [u8; 32], now: UnixTime, deadline: UnixTime, window: u64) -> bool {
        let last = deadline.0.saturating_sub(window / 3);
        if now.0 > last && self.at.0 <= last {
            return false;
        }
        let doubled = 2_u64.saturating_pow(self.count.saturating_sub(1));
        let mut wait = FIRST.saturating_mul(doubled).min(LONGEST);
        if receipt == self.receipt {
            wait = wait.max(SAME);
        }
        now < self.at.plus(wait)
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

    #[test]
    fn every_refusal_is_respected_twice_as_long_as_the_one_before_up_to_a_week() {
        for (count, hours) in [(1, 1), (2, 2), (3, 4), (4, 8), (7, 64), (8, 128), (9, 168), (40, 168), (u32::MAX, 168)]
        {
            let refusal = refused(count);
            let held = |after: u64| refusal.holds(TWO, refusal.at.plus(after), FAR, 0);
            assert!(held(hours * HOUR - 1) && !held(hours * HOUR), "{count}");
        }
        // The receipt itself is no better after an hour.
        let refusal = refused(1);
        assert!(refusal.holds(ONE, refusal.at.plus(24 * HOUR - 1), FAR, 0));
        assert!(!refusal.holds(ONE, refusal.at.plus(24 * HOUR), FAR, 0));
    }

    #[test]
    fn one_attempt_is_left_for_the_end_of_the_window() {
        let (refusal, window) = (refused(9), 72 * HOUR);
        let deadline = refusal.at.plus(30 * HOUR);
        let held = |refusal: &Refusal, after: u64| refusal.holds(ONE, UnixTime(1_000_000 + after), deadline, window);
        assert!(held(&refusal, 6 * HOUR) && !held(&refusal, 6 * HOUR + 1));
        // That was it.
        let last = Refusal::after(Some(refusal), refusal.at.plus(6 * HOUR + 1), 133, Nanoton(1), ONE);
        assert!(held(&last, 6 * HOUR + 2) && held(&last, 30 * HOUR));
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
