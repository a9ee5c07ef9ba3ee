//! Deterministic CBOR (RFC 8949 section 4.2.1): every value has exactly one encoding, and no other is read.
//!
//! Digests and signatures are taken over these bytes, so a second encoding of the same value would be a second identity.

pub use ciborium::Value;

pub use crate::in_place::InPlace;

use crate::Error;

/// Encodes a value; map entries are put into the order of their encoded keys.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a Vec cannot fail, and a Value holds nothing that CBOR cannot express.
    let _ = ciborium::into_writer(&sorted(value), &mut out);
    out
}

/// Decodes bytes that hold one value and nothing else, and refuses every encoding but the deterministic one.
pub fn decode(what: &'static str, bytes: &[u8]) -> Result<Value, Error> {
    let value: Value = ciborium::from_reader(bytes).map_err(|error| Error::Cbor { what, detail: error.to_string() })?;
    check_keys(&value).map_err(|detail| Error::Cbor { what, detail: detail.into() })?;
    if encode(&value) != bytes {
        return Err(Error::Cbor {
            what,
            detail: "not the shortest form, unsorted keys, or bytes behind the value".into(),
        });
    }
    Ok(value)
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Map(entries) => {
            let mut entries: Vec<_> =
                entries.iter().map(|(key, value)| (encode(key), (key.clone(), sorted(value)))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Map(entries.into_iter().map(|(_, entry)| entry).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Tag(tag, inner) => Value::Tag(*tag, Box::new(sorted(inner))),
        other => other.clone(),
    }
}

/// Keys are scalars, so that comparing them costs little however deep the value is, and stand once.
fn check_keys(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Map(entries) => {
            if !entries.iter().all(|(key, _)| matches!(key, Value::Integer(_) | Value::Text(_) | Value::Bytes(_))) {
                return Err("a map has a key that is neither number nor string");
            }
            let mut keys: Vec<_> = entries.iter().map(|(key, _)| encode(key)).collect();
            keys.sort();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err("a map has a key twice");
            }
            entries.iter().try_for_each(|(_, value)| check_keys(value))
        }
        Value::Array(items) => items.iter().try_for_each(check_keys),
        Value::Tag(_, inner) => check_keys(inner),
        _ => Ok(()),
    }
}

/// A map with integer keys while it is being read: every key is taken once, and what nobody took is refused.
pub struct Fields {
    what: &'static str,
    entries: Vec<(Value, Value)>,
}

impl Fields {
    /// Decodes deterministic CBOR that holds one map.
    pub fn decode(what: &'static str, bytes: &[u8]) -> Result<Self, Error> {
        Self::new(what, decode(what, bytes)?)
    }

    /// Takes a value that must be a map.
    pub fn new(what: &'static str, value: Value) -> Result<Self, Error> {
        match value {
            Value::Map(entries) => Ok(Self { what, entries }),
            _ => Err(Error::Field { what, detail: "must be a map".into() }),
        }
    }

    /// An error about this structure.
    pub fn error(&self, detail: impl Into<String>) -> Error {
        Error::Field { what: self.what, detail: detail.into() }
    }

    /// The value at `key`, if the key is there.
    pub fn take(&mut self, key: u64) -> Option<Value> {
        let at = self.entries.iter().position(|(found, _)| *found == Value::from(key))?;
        Some(self.entries.remove(at).1)
    }

    /// The text at `key`.
    pub fn text(&mut self, key: u64) -> Result<String, Error> {
        match self.take(key) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.error(format!("field {key} must be there and be text"))),
        }
    }

    /// The bytes at `key`.
    pub fn bytes(&mut self, key: u64) -> Result<Vec<u8>, Error> {
        match self.take(key) {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => Err(self.error(format!("field {key} must be there and be a byte string"))),
        }
    }

    /// Exactly `N` bytes at `key`.
    pub fn array<const N: usize>(&mut self, key: u64) -> Result<[u8; N], Error> {
        let bytes = self.bytes(key)?;
        bytes.try_into().map_err(|bytes: Vec<u8>| self.error(format!("field {key} has {N} bytes, not {}", bytes.len())))
    }

    /// The unsigned integer at `key`.
    pub fn uint(&mut self, key: u64) -> Result<u64, Error> {
        match self.take(key) {
            Some(Value::Integer(number)) => number.try_into().ok(),
            _ => None,
        }
        .ok_or_else(|| self.error(format!("field {key} must be there and be an unsigned integer")))
    }

    /// The items of the array at `key`.
    pub fn items(&mut self, key: u64) -> Result<Vec<Value>, Error> {
        match self.take(key) {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(self.error(format!("field {key} must be there and be an array"))),
        }
    }

    /// Refuses whatever was not taken.
    pub fn finish(self) -> Result<(), Error> {
        match self.entries.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.error(format!("unknown field {key:?}"))),
        }
    }
}

/// Builds a map with integer keys.
pub fn map(entries: impl IntoIterator<Item = (u64, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(hex_text: &str) -> String {
        decode("test", &hex::decode(hex_text).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn only_the_deterministic_encoding_is_read() {
        // {0: 1, 1: h'02'}
        let good = hex::decode("a20001014102").unwrap();
        assert_eq!(encode(&decode("test", &good).unwrap()), good);
        assert!(refused("a20141020001").contains("unsorted"), "keys out of order");
        assert!(refused("a2000118014102").contains("shortest"), "key 1 in two bytes");
        assert!(refused("a2000100014102").contains("deterministic"), "trailing byte");
        assert!(refused("a200010002").contains("twice"), "duplicate key");
        assert!(refused(&("a1".repeat(200) + &"00".repeat(201))).contains("neither number nor string"), "maps as keys");
        assert!(refused("bf0001014102ff").contains("shortest"), "indefinite length");
        assert!(refused("a2000101").contains("deterministic"), "cut short");
        assert!(refused("5bffffffffffffffff00").contains("deterministic"), "absurd length");
    }
}
