//! OpenAI's API inside the seal, as far as the engine does what is asked. What would be ignored is refused by name, never swallowed.
//!
//! - [`chat`], [`completions`], [`responses`]: requests, read into one [`Generate`]. - [`tools`]: what models may call.
//! - [`answer`]: what they said, in the shape that was asked for.

pub mod answer;
pub mod chat;
pub mod completions;
mod error;
mod fields;
pub mod request;
pub mod responses;
#[cfg(test)]
mod tests;
pub mod tools;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub use answer::Answer;
pub use error::ApiError;
pub use request::{Calls, Embed, Generate, Input, Style};
pub use tools::{Piece, Splitter};

/// One model, as `/v1/models` lists it.
pub fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "cocoon"})
}

/// The list of models.
pub fn models<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    json!({"object": "list", "data": names.map(model).collect::<Vec<_>>()}).to_string().into_bytes()
}

/// Vectors, as `/v1/embeddings` gives them, in parts that follow one another.
pub fn embeddings(model: &str, vectors: &[Vec<f32>], base64: bool, tokens: u64) -> impl Iterator<Item = Vec<u8>> {
    let write = move |vector: &[f32]| -> Value {
        if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        } else {
            vector.into()
        }
    };
    let head = json!({"object": "list", "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}});
    let head = head.to_string();
    let open = format!(r#"{},"data":["#, head.strip_suffix('}').unwrap_or(&head));
    let items = vectors.iter().enumerate().map(move |(index, vector)| {
        let comma = if index > 0 { "," } else { "" };
        let item = json!({"object": "embedding", "index": index, "embedding": write(vector)});
        format!("{comma}{item}").into_bytes()
    });
    std::iter::once(open.into_bytes()).chain(items).chain(std::iter::once(b"]}".to_vec()))
}
