//! Amounts of money: whole nanotons, never floats, never wrapping.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An amount in nanoton (10^-9 TON).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanoton(pub u64);

impl Nanoton {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Nanotons in one TON.
    pub const PER_TON: u64 = 1_000_000_000;

    /// Whole TON. Panics in constants and tests that name more TON than 64 bits of nanoton hold.
    pub const fn from_ton(ton: u64) -> Self {
        Self(ton * Self::PER_TON)
    }

    /// The sum, unless it leaves 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, unless it is negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The product, unless it leaves 64 bits.
    pub fn checked_mul(self, factor: u64) -> Option<Self> {
        self.0.checked_mul(factor).map(Self)
    }

    /// The difference, or nothing if it would be negative.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or the largest amount.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// Saturates: a sum of real balances stays far below 2^64 (all TON there is are 2^62.3 nanoton).
impl Sum for Nanoton {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}

/// Exact, without trailing zeros: `1.5 TON`.
impl fmt::Display for Nanoton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::PER_TON, self.0 % Self::PER_TON);
        if rest == 0 {
            return write!(f, "{whole} TON");
        }
        let digits = format!("{rest:09}");
        write!(f, "{whole}.{} TON", digits.trim_end_matches('0'))
    }
}

/// `1.5`, `1.5 TON`: at most nine decimals, no sign, no exponent.
impl FromStr for Nanoton {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed =
            || Error::Malformed { what: "an amount in TON", why: format!("`{text}`; write for example 1.5") };
        let number = text.strip_suffix("TON").unwrap_or(text).trim();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(malformed());
        }
        let whole: u64 = whole.parse().map_err(|_| malformed())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| malformed())?;
        whole.checked_mul(Self::PER_TON).and_then(|nano| nano.checked_add(fraction)).map(Self).ok_or_else(malformed)
    }
}

/// What one kind of token costs, in nanoton per 1,000,000 tokens, for each of the four kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prices {
    /// Prompt tokens not served from a cache.
    pub prompt: u64,
    /// Prompt tokens served from a cache.
    pub cached: u64,
    /// Generated tokens without reasoning.
    pub completion: u64,
    /// Generated reasoning tokens.
    pub reasoning: u64,
}

impl Prices {
    /// Charge for one request: the exact sum of tokens times price, divided by 1,000,000 and rounded up once.
    pub fn charge(&self, prompt: u64, cached: u64, completion: u64, reasoning: u64) -> Result<Nanoton, Error> {
        const RANGE: Error = Error::Arithmetic("a charge of more than 2^64 - 1 nanoton");
        let terms =
            [(prompt, self.prompt), (cached, self.cached), (completion, self.completion), (reasoning, self.reasoning)];
        let mut sum: u128 = 0;
        for (tokens, price) in terms {
            sum = sum.checked_add(u128::from(tokens) * u128::from(price)).ok_or(RANGE)?;
        }
        u64::try_from(sum.div_ceil(1_000_000)).map(Nanoton).map_err(|_| RANGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_exact_both_ways() {
        for (text, nano) in [("0 TON", 0), ("1.5 TON", 1_500_000_000), ("0.000000001 TON", 1), ("3 TON", 3_000_000_000)]
        {
            assert_eq!(Nanoton(nano).to_string(), text);
            assert_eq!(text.parse::<Nanoton>().unwrap(), Nanoton(nano));
        }
        for bad in ["", "-1", "1.", ".5", "1.0000000001", "1e3", "18446744074", "1,5"] {
            assert!(bad.parse::<Nanoton>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_charge_is_rounded_up_once() {
        let prices = Prices { prompt: 1, cached: 1, completion: 1, reasoning: 1 };
        assert_eq!(prices.charge(1, 1, 1, 1).unwrap(), Nanoton(1));
        assert_eq!(prices.charge(0, 0, 0, 0).unwrap(), Nanoton(0));
        assert_eq!(prices.charge(1_000_000, 0, 0, 1).unwrap(), Nanoton(2));
        let dear = Prices { prompt: u64::MAX, ..prices };
        assert!(matches!(dear.charge(u64::MAX, 0, 0, 0), Err(Error::Arithmetic(_))));
        let four = Prices { prompt: u64::MAX, cached: u64::MAX, completion: u64::MAX, reasoning: u64::MAX };
        assert!(matches!(four.charge(u64::MAX, u64::MAX, u64::MAX, u64::MAX), Err(Error::Arithmetic(_))));
    }
}
