//! A JSON object from outside, taken apart field by field. What nobody took is refused by name.

use serde_json::{Map, Value};

use super::ApiError;

/// The fields that nobody has taken yet.
pub(super) struct Fields(Map<String, Value>);

/// How deep objects and lists may lie in one another.
pub(super) const MAX_DEPTH: usize = 64;

impl Fields {
    /// Reads a request body.
    pub(super) fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self::new(fields)),
            _ => Err(ApiError::invalid("body", "the body must be a JSON object")),
        }
    }

    /// Takes an object apart.
    pub(super) fn of(name: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(fields) => Ok(Self::new(fields)),
            _ => Err(ApiError::invalid(name, "must be an object")),
        }
    }

    fn new(mut fields: Map<String, Value>) -> Self {
        fields.retain(|_, value| !value.is_null());
        Self(fields)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::invalid(name, "must be a string")),
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(ApiError::invalid(name, "must be true or false")),
        }
    }

    /// A whole number in a range; with a fraction of zero too, as some clients write them.
    pub(super) fn integer(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let whole = value.as_f64().filter(|value| value.fract() == 0.0 && (0.0..9e15).contains(value));
        let number = value.as_u64().or(whole.map(|value| value as u64));
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None if most == u64::MAX => {
                Err(ApiError::invalid(name, format!("must be a whole number of at least {least}")))
            }
            None => Err(ApiError::invalid(name, format!("must be a whole number from {least} to {most}"))),
        }
    }

    pub(super) fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|value| (least..=most).contains(value)) {
            Some(number) => Ok(Some(number)),
            None if least == f64::MIN_POSITIVE => {
                Err(ApiError::invalid(name, format!("must be a number above 0 and at most {most}")))
            }
            None => Err(ApiError::invalid(name, format!("must be a number from {least} to {most}"))),
        }
    }

    /// Takes what changes nothing: parameters that never do, and others where they have the value that does not.
    pub(super) fn harmless(&mut self, always: &[&str], neutral: &[(&str, &str)]) {
        for name in always {
            self.0.remove(*name);
        }
        for (name, text) in neutral {
            let neutral: Option<Value> = serde_json::from_str(text).ok();
            if self.0.get(*name).is_some_and(|value| Some(value) == neutral.as_ref()) {
                self.0.remove(*name);
            }
        }
    }

    /// Refuses what is left, by its name behind `prefix`.
    pub(super) fn end(self, prefix: &str) -> Result<(), ApiError> {
        match self.0.keys().next() {
            Some(name) => Err(ApiError::unsupported(&format!("{prefix}{name}"))),
            None => Ok(()),
        }
    }
}

/// How deep a value goes.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
