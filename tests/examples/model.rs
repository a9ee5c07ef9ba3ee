//! Writes a model with random weights into a folder, to try a shape by hand where the tests cannot: `model NAME FOLDER`.

use std::path::Path;

use cocoon_tests::models::{self, Layout, Shape};

const SHAPES: &[(&str, Shape)] = &[
    ("qwen3", Shape::Qwen3),
    ("qwen3-moe", Shape::Qwen3Moe(Layout::Released)),
    ("deepseek-v2", Shape::DeepSeekV2(Layout::Released)),
    ("deepseek-v3", Shape::DeepSeekV3(Layout::Released)),
    ("qwen3-gguf-q8", Shape::Qwen3GgufQ8),
    ("qwen3-gguf-q4", Shape::Qwen3GgufQ4),
    ("qwen3-moe-gguf", Shape::Qwen3MoeGguf),
    ("embedding", Shape::Embedding),
    ("large", Shape::Large),
];

fn main() -> std::io::Result<()> {
    let names = || SHAPES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let wrong = || std::io::Error::other(format!("usage: model NAME FOLDER, with a name of {}", names()));
    let mut args = std::env::args().skip(1);
    let (name, folder) = args.next().zip(args.next()).ok_or_else(wrong)?;
    let (_, shape) = SHAPES.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
    models::write(Path::new(&folder), *shape)
}
