//! Text to tokens and back, with the tokenizer of the model folder.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::{Model as _, Tokenizer as Inner};

use crate::Error;

/// The tokenizer of a model.
pub(crate) struct Tokenizer {
    inner: Inner,
    /// What each character of a byte-level vocabulary stands for; empty for other vocabularies.
    bytes: HashMap<char, u8>,
}

impl Tokenizer {
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let mut inner = Inner::from_file(path).map_err(|error| Error::Load(format!("{}: {error}", path.display())))?;
        // It would keep ten thousand words of everybody's prompts, and time would tell which.
        let mut model = inner.get_model().clone();
        model.resize_cache(0);
        inner.with_model(model);
        let text = std::fs::read_to_string(path).map_err(|_| Error::NoModel(path.to_owned()))?;
        let byte_level = text.contains("\"ByteLevel\"");
        Ok(Self { inner, bytes: if byte_level { byte_level_alphabet() } else { HashMap::new() } })
    }

    /// `special`: add what the tokenizer puts around a text on its own.
    pub(crate) fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        Ok(self.inner.encode_fast(text, special).map_err(|_| Error::Tokenizer)?.get_ids().to_vec())
    }

    /// Text of tokens, without special ones.
    pub(crate) fn decode(&self, tokens: &[u32]) -> String {
        self.inner.decode(tokens, true).unwrap_or_default()
    }

    /// One token as it is in the vocabulary, special ones too, and its bytes.
    pub(crate) fn piece(&self, token: u32) -> (String, Vec<u8>) {
        let text = self.inner.decode(&[token], false).unwrap_or_default();
        let raw = self.inner.id_to_token(token).unwrap_or_default();
        let bytes: Option<Vec<u8>> = raw.chars().map(|c| self.bytes.get(&c).copied()).collect();
        let bytes = match bytes {
            Some(bytes) if !bytes.is_empty() => bytes,
            _ => text.clone().into_bytes(),
        };
        (text, bytes)
    }

    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The tokens that the model of the tokenizer alone makes of a text: not normalized, and without tokens that were added.
    pub(crate) fn bare(&self, text: &str) -> Vec<u32> {
        self.inner.get_model().tokenize(text).unwrap_or_default().into_iter().map(|token| token.id).collect()
    }

    pub(crate) fn size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

/// GPT-2's table: printable Latin-1 stands for itself, the other bytes for the characters from U+0100 on.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| {
            let code = if printable(byte) {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            (char::from_u32(code).unwrap_or_default(), byte)
        })
        .collect()
}

/// Turns tokens into text as they come: what is half a character waits for its other half.
#[derive(Default)]
pub(crate) struct Decoder {
    tokens: Vec<u32>,
    /// Where the context of the next decoding begins.
    prefix: usize,
    /// Tokens whose text was given out.
    read: usize,
}

/// More tokens than any character has: what is still no text then is none.
const MAX_WAITING: usize = 16;

impl Decoder {
    /// The text that this token completes.
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> String {
        self.tokens.push(token);
        let before = tokenizer.decode(&self.tokens[self.prefix..self.read]);
        let now = tokenizer.decode(&self.tokens[self.prefix..]);
        if now.ends_with('\u{fffd}') && self.tokens.len() - self.read < MAX_WAITING {
            return String::new();
        }
        let text = now.get(before.len()..).unwrap_or_default().to_owned();
        self.prefix = self.read;
        self.read = self.tokens.len();
        text
    }

    /// What still waited when no more tokens came.
    pub(crate) fn flush(&mut self, tokenizer: &Tokenizer) -> String {
        let before = tokenizer.decode(&self.tokens[self.prefix..self.read]);
        let now = tokenizer.decode(&self.tokens[self.prefix..]);
        self.read = self.tokens.len();
        now.get(before.len()..).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
        Tokenizer::load(&folder.join("tokenizer.json")).unwrap()
    }

    #[test]
    fn what_comes_out_is_what_went_in_whatever_characters_the_tokens_cut() {
        let tokenizer = demo();
        for text in ["Only the enclave can read it.", "żółć — 日本語 🦋!", " two  spaces\n", "\u{fffd}"] {
            let tokens = tokenizer.encode(text, false).unwrap();
            let mut decoder = Decoder::default();
            let mut out: String = tokens.iter().map(|token| decoder.push(&tokenizer, *token)).collect();
            out += &decoder.flush(&tokenizer);
            assert_eq!(out, text);
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| tokenizer.piece(*token).1).collect();
            assert_eq!(bytes, text.as_bytes());
        }
    }

    #[test]
    fn half_a_character_at_the_end_is_shown_as_such() {
        let tokenizer = demo();
        let tokens = tokenizer.encode("🦋", false).unwrap();
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(&tokenizer, tokens[0]), "");
        assert_eq!(decoder.flush(&tokenizer), "\u{fffd}");
        assert_eq!(decoder.flush(&tokenizer), "");
    }
}
