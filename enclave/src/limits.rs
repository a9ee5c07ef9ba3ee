//! What one channel may ask of an enclave that others use too: answers at once, and tokens a minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cocoon_settlement::Address;

/// Why a request has to wait.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Too many answers of this channel are under way.
    #[error(
        "this channel has {running} answers under way and asks for {asked} more at once, where {most} may be: wait for one of them to end"
    )]
    Concurrent {
        /// Answers under way.
        running: usize,
        /// As many more were asked for.
        asked: usize,
        /// As many may be under way.
        most: usize,
    },
    /// Too many answers are running or waiting to be read, of all channels together.
    #[error("the enclave has as many answers open as it may: try again shortly")]
    Open,
    /// Too many tokens in too short a time.
    #[error("this channel has used its {limit} tokens a minute: try again in {seconds} s")]
    Rate {
        /// Tokens a minute.
        limit: u64,
        /// When there will be enough again.
        seconds: u64,
    },
}

impl Error {
    /// Seconds after which another try makes sense.
    pub fn retry_after(&self) -> u64 {
        match self {
            Self::Concurrent { .. } | Self::Open => 1,
            Self::Rate { seconds, .. } => *seconds,
        }
    }
}

struct Use {
    running: usize,
    /// Tokens that may be used at once; negative after an answer that was longer than what was left.
    left: f64,
    at: Instant,
}

/// Use of every channel that has asked lately.
pub struct Limits {
    open: usize,
    concurrent: usize,
    per_minute: u64,
    channels: Mutex<HashMap<Address, Use>>,
}

/// A request that counts, for as many answers as it has generated at once. Dropping it lets others in.
pub struct Entered<'a> {
    limits: &'a Limits,
    channel: Address,
    weight: usize,
}

/// Entries beyond which those that say nothing any more are removed.
const MANY: usize = 1_000;

impl Limits {
    /// At most so many answers at once, of all channels and of one, and tokens a minute of one (0: any number).
    pub fn new(open: usize, concurrent: usize, per_minute: u64) -> Self {
        Self { open, concurrent, per_minute, channels: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Use>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refilled(&self, entry: &Use, now: Instant) -> f64 {
        let most = self.per_minute as f64;
        let since = now.saturating_duration_since(entry.at);
        (entry.left + most * since.as_secs_f64() / 60.0).min(most)
    }

    /// How many of so many answers one request may have generated at once; the others wait for these.
    pub fn at_once(&self, answers: usize) -> usize {
        answers.min(self.concurrent).max(1)
    }

    /// Lets a request in that has so many answers generated at once: see [`Self::at_once`].
    ///
    /// # Errors
    /// The channel has to wait.
    pub fn enter(&self, channel: Address, weight: usize, now: Instant) -> Result<Entered<'_>, Error> {
        let mut channels = self.lock();
        if channels.len() >= MANY {
            channels.retain(|_, entry| {
                entry.running > 0 || now.saturating_duration_since(entry.at) < Duration::from_secs(60)
            });
        }
        if channels.values().map(|entry| entry.running).sum::<usize>() + weight > self.open {
            return Err(Error::Open);
        }
        let entry = channels.entry(channel).or_insert(Use { running: 0, left: self.per_minute as f64, at: now });
        entry.left = self.refilled(entry, now);
        entry.at = now;
        if entry.running + weight > self.concurrent {
            return Err(Error::Concurrent { running: entry.running, asked: weight, most: self.concurrent });
        }
        if self.per_minute > 0 && entry.left <= 0.0 {
            let seconds = (1.0 - entry.left) * 60.0 / self.per_minute as f64;
            return Err(Error::Rate { limit: self.per_minute, seconds: (seconds.ceil() as u64).max(1) });
        }
        entry.running += weight;
        Ok(Entered { limits: self, channel, weight })
    }
}

impl Entered<'_> {
    /// Tokens that the request has used.
    pub fn used(&self, tokens: u64) {
        if let Some(entry) = self.limits.lock().get_mut(&self.channel) {
            entry.left -= tokens as f64;
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.limits.lock().get_mut(&self.channel) {
            entry.running = entry.running.saturating_sub(self.weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(byte: u8) -> Address {
        Address { workchain: 0, hash: [byte; 32] }
    }

    #[test]
    fn a_channel_waits_for_its_own_requests_and_not_for_others() {
        let (limits, now) = (Limits::new(9, 2, 0), Instant::now());
        let first = limits.enter(channel(1), 1, now).unwrap();
        let _second = limits.enter(channel(1), 1, now).unwrap();
        assert_eq!(limits.enter(channel(1), 1, now).err(), Some(Error::Concurrent { running: 2, asked: 1, most: 2 }));
        limits.enter(channel(2), 1, now).unwrap();
        drop(first);
        limits.enter(channel(1), 1, now).unwrap();
    }

    /// One request for many answers takes the place of as many as it has at once, and never more than the channel may have.
    #[test]
    fn a_request_counts_for_its_answers() {
        let (limits, now) = (Limits::new(9, 4, 0), Instant::now());
        assert_eq!([0, 1, 4, 512].map(|answers| limits.at_once(answers)), [1, 1, 4, 4]);
        let three = limits.enter(channel(1), 3, now).unwrap();
        assert_eq!(limits.enter(channel(1), 2, now).err(), Some(Error::Concurrent { running: 3, asked: 2, most: 4 }));
        let one = limits.enter(channel(1), 1, now).unwrap();
        let _other = limits.enter(channel(2), 4, now).unwrap();
        assert_eq!(limits.enter(channel(3), 2, now).err(), Some(Error::Open), "eight of nine are taken");
        drop(three);
        limits.enter(channel(1), 3, now).unwrap();
        drop(one);
        assert_eq!(limits.lock().get(&channel(1)).map(|entry| entry.running), Some(0));
    }

    #[test]
    fn all_channels_together_have_a_bound() {
        let (limits, now) = (Limits::new(2, 9, 0), Instant::now());
        let first = limits.enter(channel(1), 1, now).unwrap();
        let _second = limits.enter(channel(2), 1, now).unwrap();
        assert_eq!(limits.enter(channel(3), 1, now).err(), Some(Error::Open));
        drop(first);
        limits.enter(channel(3), 1, now).unwrap();
    }

    #[test]
    fn tokens_come_back_with_time_and_the_refusal_says_when() {
        let (limits, now) = (Limits::new(9, 9, 600), Instant::now());
        limits.enter(channel(1), 1, now).unwrap().used(650);
        let refused = limits.enter(channel(1), 1, now).err().unwrap();
        assert_eq!(refused, Error::Rate { limit: 600, seconds: 6 });
        limits.enter(channel(2), 1, now).unwrap();
        let later = now + Duration::from_secs(refused.retry_after());
        limits.enter(channel(1), 1, later).unwrap();
    }

    #[test]
    fn channels_that_are_quiet_are_forgotten() {
        let (limits, now) = (Limits::new(9, 9, 600), Instant::now());
        for index in 0..MANY {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&index.to_le_bytes());
            limits.enter(Address { workchain: 0, hash }, 1, now).unwrap();
        }
        limits.enter(channel(255), 1, now + Duration::from_secs(61)).unwrap();
        assert_eq!(limits.lock().len(), 1);
    }
}
