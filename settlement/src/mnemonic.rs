//! TON's mnemonics of 24 words: the seed they stand for equals `@ton/crypto`'s `mnemonicToPrivateKey`. None with a password.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::error::Error;

/// Words of a mnemonic.
pub const WORDS: usize = 24;
/// Bytes of the longest one: no word of the list has more than eight letters.
pub const LONGEST: usize = 9 * WORDS - 1;
const LIST: &str = include_str!("../data/bip39-english.txt");
const ITERATIONS: u32 = 100_000;

/// Words that stand for a seed.
pub struct Mnemonic(Zeroizing<String>);

impl fmt::Debug for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mnemonic")
    }
}

impl Mnemonic {
    /// A new one, from the system's randomness.
    pub fn generate() -> Result<Self, Error> {
        let list: Vec<&str> = LIST.lines().collect();
        // One in 256 is a basic seed: this ends.
        loop {
            let mut random = Zeroizing::new([0; 2 * WORDS]);
            getrandom::fill(&mut *random).map_err(|error| Error::Execution(format!("no randomness: {error}")))?;
            let mut words = Zeroizing::new(String::with_capacity(9 * WORDS));
            for pair in random.as_chunks::<2>().0 {
                // The list's length is a power of two, so the remainder is uniform.
                let word = list.get(usize::from(u16::from_be_bytes(*pair)) % list.len()).copied();
                if !words.is_empty() {
                    words.push(' ');
                }
                words.push_str(word.unwrap_or_default());
            }
            let mnemonic = Self(words);
            if mnemonic.is_basic() {
                return Ok(mnemonic);
            }
        }
    }

    /// Reads words apart by any white space, in any case. An error names positions, never words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| Err(Error::Malformed { what: "a mnemonic", why });
        let text = Zeroizing::new(text.to_lowercase());
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() != WORDS {
            return wrong(format!("it has {} words and not {WORDS}", words.len()));
        }
        if let Some(at) = words.iter().position(|word| !LIST.lines().any(|known| known == *word)) {
            return wrong(format!("word {} is not in the list: look for a typing error", at + 1));
        }
        let mnemonic = Self(Zeroizing::new(words.join(" ")));
        if mnemonic.is_basic() {
            return Ok(mnemonic);
        }
        wrong(
            "these words are in the list but belong to no key, or to one with a password: compare each and their order"
                .into(),
        )
    }

    /// The words, apart by single spaces.
    pub fn words(&self) -> &str {
        &self.0
    }

    /// The Ed25519 seed.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        let long = self.derive("TON default seed", ITERATIONS);
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&long[..32]);
        seed
    }

    /// TON's checksum: a seed for use without a password.
    fn is_basic(&self) -> bool {
        self.derive("TON seed version", ITERATIONS / 256)[0] == 0
    }

    fn derive(&self, salt: &str, iterations: u32) -> Zeroizing<[u8; 64]> {
        let entropy = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, self.0.as_bytes()), b"");
        let mut out = Zeroizing::new([0; 64]);
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, salt.as_bytes(), entropy.as_ref(), &mut *out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `@ton/crypto` 3.3.0 (`mnemonicNew`, `mnemonicToPrivateKey`).
    const VECTORS: [(&str, &str); 2] = [
        (
            "medal motion then regular best grant rival chat gossip clap kid easily tank village category crystal sail achieve \
             ribbon pupil december advice day barely",
            "951e71e77728740269f3441b62e51a8be4f870149b4687d03889f632935d22a9",
        ),
        (
            "doll model hamster sadness put depart early cargo spoon wreck later craft goose know eight expect excess spin praise \
             mercy jealous exile virus foil",
            "7d2f823b67abfb6490389b21af981b1946ec2a03d799b276adc9f2e3414688cb",
        ),
    ];

    #[test]
    fn seeds_equal_ton_cryptos() {
        for (words, seed) in VECTORS {
            assert_eq!(hex::encode(*Mnemonic::parse(words).unwrap().seed()), seed);
            let shouted = words.to_uppercase().replace(' ', "\n  ");
            assert_eq!(Mnemonic::parse(&shouted).unwrap().words(), words);
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_words() {
        let words = VECTORS[0].0;
        for (text, expected) in [
            (words.replace("medal ", ""), "23 words"),
            (format!("{words} extra"), "25 words"),
            (words.replace("kid", "kidd"), "word 11"),
            (words.replace("kid", "tank"), "belong to no key"),
            (words.replacen("medal motion", "motion medal", 1), "belong to no key"),
            (String::new(), "0 words"),
        ] {
            let error = Mnemonic::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!["gossip", "kidd", "village"].iter().any(|word| error.contains(word)), "{error}");
        }
        assert_eq!(format!("{:?}", Mnemonic::parse(words).unwrap()), "Mnemonic");
    }

    #[test]
    fn a_new_one_can_be_read_again_and_is_new() {
        let (one, two) = (Mnemonic::generate().unwrap(), Mnemonic::generate().unwrap());
        assert_ne!(one.words(), two.words());
        assert_eq!(Mnemonic::parse(one.words()).unwrap().seed(), one.seed());
    }

    #[test]
    fn the_list_is_the_published_one() {
        let digest = cocoon_attestation::types::Digest::of(&[LIST.as_bytes()]);
        assert_eq!(LIST.lines().map(str::len).max(), Some(8));
        assert_eq!(digest.to_string(), "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda");
    }
}
