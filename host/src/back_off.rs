//! How long to wait before something that ended is started again: longer each time, and from the start once it has lived for a while.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// The waits between lives.
#[derive(Clone, Debug)]
pub struct BackOff(Duration);

impl Default for BackOff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl BackOff {
    /// How long to wait after a life of this length.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived > LONGEST {
            self.0 = FIRST;
        }
        let wait = self.0;
        self.0 = (self.0 * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew_after_a_long_life() {
        let mut back_off = BackOff::default();
        let waits: Vec<u128> = (0..10).map(|_| back_off.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(back_off.after(LONGEST * 2), FIRST);
        assert_eq!(back_off.after(LONGEST), FIRST * 2, "a life as long as the longest wait is no long one");
    }
}
