//! The safetensors format, <https://github.com/huggingface/safetensors>: the length of a header (u64), the header in JSON, the values.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::weights::{Tensor, bf16};

/// Bytes of a bfloat16.
const WIDTH: usize = 2;

/// Writes tensors as bfloat16, as Qwen and DeepSeek release them.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, tensors: &[Tensor]) -> io::Result<()> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + tensor.len() * WIDTH;
        let entry = json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [begin, end]});
        header.insert(tensor.name.clone(), entry);
        begin = end;
    }
    let mut header = serde_json::to_vec(&Value::Object(header))?;
    // So that the values are aligned: the engine maps the file.
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut bytes = Vec::new();
    for tensor in tensors {
        bytes.clear();
        bytes.extend(tensor.values().flat_map(|value| bf16(value).to_le_bytes()));
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Tensors of a part, about as large as the parts of released models.
const PART: usize = 50;

/// The same in several files, named as released models' are, written side by side.
///
/// # Errors
/// As [`write`].
pub fn write_parts(folder: &Path, tensors: &[Tensor]) -> io::Result<()> {
    let parts = tensors.len().div_ceil(PART);
    std::thread::scope(|scope| {
        let writers: Vec<_> = tensors
            .chunks(PART)
            .enumerate()
            .map(|(at, part)| {
                let path = folder.join(format!("model-{:05}-of-{parts:05}.safetensors", at + 1));
                scope.spawn(move || write(&path, part))
            })
            .collect();
        writers.into_iter().try_for_each(|writer| {
            writer.join().unwrap_or_else(|_| Err(io::Error::other("a writer of a part of the model died")))
        })
    })
}
