//! OpenAI's error objects.

use cocoon_settlement::Nanoton;
use serde_json::json;

/// An OpenAI error object with its HTTP status. The message never quotes content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status inside the seal.
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: &'static str,
    /// The parameter at fault.
    pub param: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
    /// The least cap with which a voucher would do.
    pub least_cap: Option<Nanoton>,
    /// Seconds after which it is worth another try.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// A request that is wrong in itself.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::other(400, "invalid_request_error", "invalid_value", message) }
    }

    /// A parameter that this enclave would have to ignore.
    pub fn unsupported(name: &str) -> Self {
        // The name comes from outside: only its beginning, and only plain characters.
        let name: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-[]".contains(*c)).take(64).collect();
        let message = format!("this enclave cannot honour the parameter '{name}': leave it out");
        Self { param: Some(name), ..Self::other(400, "invalid_request_error", "unsupported_parameter", message) }
    }

    /// Another kind of refusal.
    pub fn other(status: u16, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), least_cap: None, retry_after: None }
    }

    /// The JSON body.
    pub fn body(&self) -> Vec<u8> {
        let mut error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code});
        if let Some(least) = self.least_cap {
            error["least_cap_nanoton"] = least.0.into();
        }
        json!({ "error": error }).to_string().into_bytes()
    }
}
