//! Models with random weights: every shape that mistral.rs 0.8.1 and this workspace claim to serve, small enough to load in a test.
//!
//! What they say is noise, but noise that depends on every weight and every word of the prompt, and is the same every time. Their tokenizer is
//! the demo model's. No answer ends by chance: the tokens that end one always have the logit 0, and of hundreds of others one has more.
//!
//! What mistral.rs 0.8.1 cannot do with them, and so the guest cannot:
//! - Experts on a CPU as they are released, each expert by itself: `PackedExperts::new` (mistralrs-quant, `distributed/layers.rs`) takes all
//!   that is not stacked for absent. It loads, and the first token fails: "DummyLayer should not ever be present in forward pass!".
//! - DeepSeek on a CPU with heads as they are released (192 wide for keys, 128 for values): `attention/backends/cpu.rs` takes the width of
//!   values to be that of keys (`let dv = d`). It loads, and the first token fails.
//! - GGUF of DeepSeek: `GGUFArchitecture` knows no `deepseek2`, llama.cpp's name for V2 and V3. Of the shapes here it knows `qwen3` and
//!   `qwen3moe`.
//! - GGUF of Qwen3 with experts on a CPU: candle 0.10.2 has `indexed_moe_forward` for CUDA alone. It loads, and the first token panics.
//! - GGUF of a model that embeds: there is no such loader.
//! - DeepSeek-V2 with `topk_method: group_limited_greedy` (V2 and V2.5, not Lite), on any device: `MoeGate::forward` of `models/deepseek2.rs`
//!   chooses among the groups' mask rather than the scores, so every expert weighs 1. It answers, and the answer is wrong.
//!
//! [`Layout::Cpu`] goes round the first two. The others have no shape here but [`Shape::Qwen3MoeGguf`].

mod deepseek;
mod gguf;
mod networks;
mod qwen3;
mod safetensors;
mod weights;

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::demo_model;

/// How a model with experts is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As Qwen and DeepSeek release it: one tensor for each matrix of each expert; DeepSeek's values narrower than its keys. For GPUs.
    Released,
    /// So that mistral.rs 0.8.1 runs it on a CPU: the experts of a layer stacked, DeepSeek's values as wide as its keys.
    Cpu,
}

/// An architecture and a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Qwen3, dense, bfloat16 safetensors. Like Qwen3-8B.
    Qwen3,
    /// Qwen3 with experts, bfloat16 safetensors. Like Qwen3-30B-A3B.
    Qwen3Moe(Layout),
    /// DeepSeek-V2, bfloat16 safetensors: latent attention, softmax router, shared experts. Like DeepSeek-V2-Lite.
    DeepSeekV2(Layout),
    /// DeepSeek-V3 and R1, bfloat16 safetensors: compressed queries too, sigmoid router in groups with a correction bias.
    DeepSeekV3(Layout),
    /// Qwen3, its matrices in blocks of 8-bit integers.
    Qwen3GgufQ8,
    /// Qwen3, its matrices in blocks of 4-bit integers.
    Qwen3GgufQ4,
    /// Qwen3 with experts, its matrices in blocks of 8-bit integers. For GPUs.
    Qwen3MoeGguf,
    /// Qwen3-Embedding, bfloat16 safetensors: the last token's vector, normalised.
    Embedding,
    /// Qwen3 with 0.1 billion parameters, bfloat16 safetensors, 0.2 GB: for benchmarks.
    Bench,
    /// The sizes of Qwen3-8B, its vocabulary too, bfloat16 safetensors in parts, 16.4 GB: for benchmarks on a GPU.
    Large,
}

/// Writes a copy of the demo model whose template opens its thoughts. It never closes them.
///
/// # Errors
/// The folder cannot be written, or the demo model not read.
pub fn thinker(folder: &Path) -> io::Result<()> {
    const ANSWER: &str = r"<|im_start|>assistant\\n' }}";
    fs::create_dir_all(folder)?;
    for file in fs::read_dir(demo_model())? {
        let file = file?;
        let mut bytes = fs::read(file.path())?;
        if file.file_name() == "tokenizer_config.json" {
            let text = String::from_utf8(bytes).map_err(io::Error::other)?;
            if !text.contains(ANSWER) {
                return Err(io::Error::other("the demo model's template begins its answers otherwise"));
            }
            bytes = text.replace(ANSWER, r"<|im_start|>assistant\\n<think>\\n' }}").into_bytes();
        }
        fs::write(folder.join(file.file_name()), bytes)?;
    }
    Ok(())
}

/// Writes a model folder. The folder is made; files of those names in it are overwritten.
///
/// # Errors
/// The folder cannot be written, or the demo model not read.
pub fn write(folder: &Path, shape: Shape) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let demo = demo_model();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(demo.join(file), folder.join(file))?;
    }
    let vocabulary = vocabulary(&demo)?;
    if shape == Shape::Large {
        write_json(&folder.join("tokenizer.json"), &tokenizer_with(&demo, qwen3::LARGE_VOCABULARY)?)?;
        write_json(&folder.join("config.json"), &qwen3::LARGE.config(qwen3::LARGE_VOCABULARY))?;
        return safetensors::write_parts(folder, &qwen3::LARGE.tensors(Layout::Released, qwen3::LARGE_VOCABULARY));
    }
    let dense = |config: Value, tensors: Vec<weights::Tensor>| {
        write_json(&folder.join("config.json"), &config)?;
        safetensors::write(&folder.join("model.safetensors"), &tensors)
    };
    let qwen3 = |sizes: qwen3::Sizes, layout| dense(sizes.config(vocabulary), sizes.tensors(layout, vocabulary));
    let deepseek = |sizes: deepseek::Sizes, layout| {
        let config = sizes.config(layout, vocabulary);
        dense(config, sizes.tensors(layout, vocabulary))
    };
    let quantised = |sizes: qwen3::Sizes, quantisation| {
        let tokenizer = read_json(&demo.join("tokenizer.json"))?;
        gguf::write(&folder.join("model.gguf"), &sizes, &tokenizer, quantisation)
    };
    match shape {
        Shape::Qwen3 => qwen3(qwen3::TINY, Layout::Released),
        Shape::Bench | Shape::Large => qwen3(qwen3::BENCH, Layout::Released),
        Shape::Qwen3Moe(layout) => qwen3(qwen3::TINY_MOE, layout),
        Shape::DeepSeekV2(layout) => deepseek(deepseek::V2, layout),
        Shape::DeepSeekV3(layout) => deepseek(deepseek::V3, layout),
        Shape::Qwen3GgufQ8 => quantised(qwen3::TINY, gguf::Quantisation::Q8_0),
        Shape::Qwen3GgufQ4 => quantised(qwen3::TINY, gguf::Quantisation::Q4_0),
        Shape::Qwen3MoeGguf => quantised(qwen3::TINY_MOE, gguf::Quantisation::Q8_0),
        Shape::Embedding => {
            write_pooling(folder, qwen3::TINY.hidden)?;
            dense(qwen3::TINY.config(vocabulary), qwen3::TINY.embedding_tensors(vocabulary))
        }
    }
}

/// The demo model's tokenizer with words that nobody says, up to this number of tokens.
fn tokenizer_with(demo: &Path, vocabulary: usize) -> io::Result<Value> {
    let mut tokenizer = read_json(&demo.join("tokenizer.json"))?;
    let words = tokenizer["model"]["vocab"].as_object_mut();
    let words = words.ok_or_else(|| io::Error::other("the demo model's tokenizer.json lacks model.vocab"))?;
    for id in words.len()..vocabulary {
        words.insert(format!("\u{120}w{id:x}"), id.into());
    }
    Ok(tokenizer)
}

/// Number of tokens that the demo model knows.
fn vocabulary(demo: &Path) -> io::Result<usize> {
    let config = read_json(&demo.join("config.json"))?;
    let size = config["vocab_size"].as_u64().and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| io::Error::other("the demo model's config.json lacks vocab_size"))
}

/// What makes a folder an embedding model, as sentence-transformers lays it out and Qwen3-Embedding-0.6B has it.
fn write_pooling(folder: &Path, hidden: usize) -> io::Result<()> {
    let module = |number: usize, path: &str, name: &str| {
        json!({
            "idx": number, "name": number.to_string(), "path": path,
            "type": format!("sentence_transformers.models.{name}"),
        })
    };
    let modules =
        [module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"), module(2, "2_Normalize", "Normalize")];
    write_json(&folder.join("modules.json"), &json!(modules))?;
    fs::create_dir_all(folder.join("1_Pooling"))?;
    let pooling = json!({
        "word_embedding_dimension": hidden,
        "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": false,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false,
        "pooling_mode_lasttoken": true,
        "include_prompt": true,
    });
    write_json(&folder.join("1_Pooling/config.json"), &pooling)
}

fn read_json(path: &Path) -> io::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    fs::write(path, serde_json::to_vec_pretty(value)?)
}
