//! Until when a receipt is paid, and from when on its claim cannot wait.
//!
//! Two things end it. The Provider refuses claims of a key once its attestation is over for longer than the claim window; up to the last
//! second of the window it takes them. And where a client closes its Channel, anybody may finish that as soon as the delay is over, with which the
//! money is gone: a claim is safe up to the second before. A close that could be finished and is not still pays, but may end at any moment.

use std::time::Duration;

use cocoon_attestation::UnixTime;
use cocoon_settlement::contracts::ChannelStatus;

/// However short the window is, claims press for so long before a deadline.
const LEAST_NOTICE: u64 = 3_600;
/// Rounds of claims that fit in between at least, so that one can fail.
const LEAST_ROUNDS: u64 = 3;

/// The end of the time in which a receipt can be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The last second in which a claim is sure to be taken.
    pub last: UnixTime,
    /// From here on nothing waits for more any longer.
    pub presses_from: UnixTime,
}

impl Deadline {
    /// Of a key that is attested until `until`, at a Provider with this claim window and in a Channel of this status, as it looks `now` to a host
    /// that looks `every` so often.
    pub fn new(until: UnixTime, window: u32, status: ChannelStatus, now: UnixTime, every: Duration) -> Self {
        let window = u64::from(window);
        let notice = (window / 3).max(LEAST_NOTICE).max(every.as_secs().saturating_mul(LEAST_ROUNDS));
        let end = until.plus(window);
        let ending = |last: UnixTime| Self { last, presses_from: UnixTime(last.0.saturating_sub(notice)) };
        match status {
            ChannelStatus::Closing { at } if at > now => ending(end.min(UnixTime(at.0.saturating_sub(1)))),
            // Nothing is sure any more: the end of the window is all that is left, and each second may be the last.
            ChannelStatus::Closing { at } => Self { last: end, presses_from: at.min(ending(end).presses_from) },
            _ => ending(end),
        }
    }

    /// Whether no claim can be paid any more.
    pub fn is_over(&self, now: UnixTime) -> bool {
        now > self.last
    }

    /// Whether a claim must not wait to be worth more.
    pub fn presses(&self, now: UnixTime) -> bool {
        now >= self.presses_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);
    const HOUR: u64 = 3_600;
    const OPEN: ChannelStatus = ChannelStatus::Open;

    fn deadline(until: u64, window: u64, status: ChannelStatus) -> Deadline {
        Deadline::new(NOW.plus(until), u32::try_from(window).unwrap(), status, NOW, Duration::from_secs(60))
    }

    fn closing(after: u64) -> ChannelStatus {
        ChannelStatus::Closing { at: NOW.plus(after) }
    }

    #[test]
    fn the_last_third_of_the_window_presses_and_its_last_second_counts() {
        let deadline = deadline(HOUR, 72 * HOUR, OPEN);
        assert_eq!((deadline.last, deadline.presses_from), (NOW.plus(73 * HOUR), NOW.plus(49 * HOUR)));
        assert!(!deadline.is_over(deadline.last) && deadline.is_over(deadline.last.plus(1)));
        assert!(!deadline.presses(NOW.plus(49 * HOUR - 1)) && deadline.presses(NOW.plus(49 * HOUR)));
    }

    #[test]
    fn a_close_ends_it_the_second_before_it_can_be_finished_unless_the_window_ends_first() {
        let (early, late) =
            (deadline(HOUR, 72 * HOUR, closing(60 * HOUR)), deadline(HOUR, 72 * HOUR, closing(80 * HOUR)));
        assert_eq!((early.last, early.presses_from), (NOW.plus(60 * HOUR - 1), NOW.plus(36 * HOUR - 1)));
        assert_eq!(late, deadline(HOUR, 72 * HOUR, OPEN));
        assert_eq!(deadline(HOUR, 72 * HOUR, closing(1)).last, NOW);
    }

    #[test]
    fn a_close_that_nobody_has_finished_presses_and_still_pays() {
        for at in [NOW, UnixTime(NOW.0 - 5 * HOUR)] {
            let deadline = deadline(HOUR, 72 * HOUR, ChannelStatus::Closing { at });
            assert_eq!((deadline.last, deadline.presses_from), (NOW.plus(73 * HOUR), at));
        }
    }

    #[test]
    fn a_window_of_nothing_presses_for_an_hour_or_three_rounds_before_the_attestation_ends() {
        let none = deadline(10 * HOUR, 0, OPEN);
        assert_eq!((none.last, none.presses_from), (NOW.plus(10 * HOUR), NOW.plus(9 * HOUR)));
        let rarely = Deadline::new(NOW.plus(10 * HOUR), 0, OPEN, NOW, Duration::from_secs(2 * HOUR));
        assert_eq!((rarely.last, rarely.presses_from), (NOW.plus(10 * HOUR), NOW.plus(4 * HOUR)));
        // Nothing underflows or wraps.
        let odd = Deadline::new(UnixTime(5), 0, ChannelStatus::Closing { at: UnixTime(0) }, UnixTime(0), Duration::MAX);
        assert_eq!((odd.last, odd.presses_from), (UnixTime(5), UnixTime(0)));
        let far = Deadline::new(UnixTime(u64::MAX), u32::MAX, OPEN, NOW, Duration::ZERO);
        assert_eq!(far.last, UnixTime(u64::MAX));
    }
}
