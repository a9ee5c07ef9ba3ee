//! The GGUF format, version 3, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>: settings, names and places of tensors, tensors.
//! Tensors are named as llama.cpp names them. mistral.rs 0.8.1 reads the tokenizer that is in the file: its loader passes over the path that
//! `with_tokenizer_json` gives it.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::qwen3::{EPSILON, ROPE_BASE, Sizes};
use super::weights::{self, BLOCK, Tensor};

/// How matrices are written. What has one dimension, and the router of experts, stays as floats.
#[derive(Clone, Copy, Debug)]
pub enum Quantisation {
    /// 8.5 bits a value.
    Q8_0,
    /// 4.5 bits a value.
    Q4_0,
}

/// Tensors begin at multiples of this, in bytes.
const ALIGNMENT: usize = 32;

/// `ggml_type` of floats.
const F32: u32 = 0;

impl Quantisation {
    /// `ggml_type` of GGML.
    fn kind(self) -> u32 {
        match self {
            Self::Q8_0 => 8,
            Self::Q4_0 => 2,
        }
    }

    /// `general.file_type` of GGUF: mostly this.
    fn file(self) -> u32 {
        match self {
            Self::Q8_0 => 7,
            Self::Q4_0 => 2,
        }
    }

    /// The bytes of a tensor, and their `ggml_type`.
    fn encode(self, tensor: &Tensor) -> (u32, Vec<u8>) {
        let values: Vec<f32> = tensor.values().collect();
        if tensor.shape.len() == 1 || tensor.name.ends_with("ffn_gate_inp.weight") {
            return (F32, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
        debug_assert!(
            tensor.shape.last().is_some_and(|row| row % BLOCK == 0),
            "{}: a row is no whole blocks",
            tensor.name
        );
        let mut bytes = Vec::new();
        for block in values.chunks(BLOCK) {
            match self {
                Self::Q8_0 => weights::q8_0(block, &mut bytes),
                Self::Q4_0 => weights::q4_0(block, &mut bytes),
            }
        }
        (self.kind(), bytes)
    }
}

/// Settings, one after the other.
#[derive(Default)]
struct Settings {
    count: u64,
    bytes: Vec<u8>,
}

impl Settings {
    /// Types of values, as GGUF numbers them.
    const U32: u32 = 4;
    const I32: u32 = 5;
    const F32: u32 = 6;
    const TEXT: u32 = 8;
    const ARRAY: u32 = 9;

    fn put(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.count += 1;
        self.bytes.extend(texted(key));
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value);
    }

    fn number(&mut self, key: &str, value: usize) {
        self.put(key, Self::U32, &(value as u32).to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.put(key, Self::F32, &value.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.put(key, Self::TEXT, &texted(value));
    }

    /// Values of one type, each as it is written alone.
    fn array(&mut self, key: &str, kind: u32, values: &[Vec<u8>]) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.concat());
        self.put(key, Self::ARRAY, &bytes);
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        let values: Vec<Vec<u8>> = values.iter().map(|value| texted(value)).collect();
        self.array(key, Self::TEXT, &values);
    }
}

/// A length (u64) and so many bytes.
fn texted(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// Writes a Qwen3, with experts or without, and a `tokenizer.json`.
///
/// # Errors
/// The file cannot be written, or that is no tokenizer.
pub fn write(path: &Path, sizes: &Sizes, tokenizer: &Value, quantisation: Quantisation) -> io::Result<()> {
    let mut settings = settings(sizes, quantisation);
    let vocabulary = put_tokenizer(&mut settings, tokenizer)
        .ok_or_else(|| io::Error::other("the tokenizer is no byte-pair encoding with numbers from 0 on"))?;
    let tensors = tensors(sizes, vocabulary);
    let (mut places, mut data) = (Vec::new(), Vec::new());
    for tensor in &tensors {
        let (kind, bytes) = quantisation.encode(tensor);
        places.extend(texted(&tensor.name));
        places.extend((tensor.shape.len() as u32).to_le_bytes());
        // The dimension whose neighbours lie side by side comes first here.
        places.extend(tensor.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        places.extend(kind.to_le_bytes());
        places.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(settings.count.to_le_bytes());
    file.extend(settings.bytes);
    file.extend(places);
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file.extend(data);
    fs::write(path, file)
}

fn settings(sizes: &Sizes, quantisation: Quantisation) -> Settings {
    let architecture = if sizes.experts.is_some() { "qwen3moe" } else { "qwen3" };
    let own = |key: &str| format!("{architecture}.{key}");
    let mut settings = Settings::default();
    settings.text("general.architecture", architecture);
    settings.text("general.name", "noise");
    settings.number("general.file_type", quantisation.file() as usize);
    settings.number("general.quantization_version", 2);
    settings.number("general.alignment", ALIGNMENT);
    settings.number(&own("context_length"), sizes.context);
    settings.number(&own("embedding_length"), sizes.hidden);
    settings.number(&own("block_count"), sizes.layers);
    settings.number(&own("feed_forward_length"), sizes.feed_forward);
    settings.number(&own("attention.head_count"), sizes.heads);
    settings.number(&own("attention.head_count_kv"), sizes.kv_heads);
    settings.number(&own("attention.key_length"), sizes.head);
    settings.number(&own("attention.value_length"), sizes.head);
    settings.float(&own("attention.layer_norm_rms_epsilon"), EPSILON);
    settings.float(&own("rope.freq_base"), ROPE_BASE);
    if let Some(experts) = sizes.experts {
        settings.number(&own("expert_count"), experts.all);
        settings.number(&own("expert_used_count"), experts.used);
        settings.number(&own("expert_feed_forward_length"), sizes.feed_forward);
    }
    settings
}

/// Writes a tokenizer of byte pairs as llama.cpp does for Qwen. Gives the number of its tokens.
fn put_tokenizer(settings: &mut Settings, tokenizer: &Value) -> Option<usize> {
    /// `tokenizer.ggml.token_type`.
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;

    let vocabulary = tokenizer["model"]["vocab"].as_object()?;
    let mut tokens = vec![String::new(); vocabulary.len()];
    for (token, number) in vocabulary {
        tokens.get_mut(number.as_u64()? as usize)?.clone_from(token);
    }
    let mut kinds = vec![NORMAL; tokens.len()];
    for special in tokenizer["added_tokens"].as_array()? {
        *kinds.get_mut(special["id"].as_u64()? as usize)? = CONTROL;
    }
    let pair = |pair: &Value| Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?));
    let merges = tokenizer["model"]["merges"].as_array()?.iter().map(pair).collect::<Option<Vec<_>>>()?;
    let end = tokens.iter().position(|token| token == "<|im_end|>")?;

    settings.text("tokenizer.ggml.model", "gpt2");
    settings.text("tokenizer.ggml.pre", "qwen2");
    settings.texts("tokenizer.ggml.tokens", &tokens);
    let kinds: Vec<Vec<u8>> = kinds.iter().map(|kind| kind.to_le_bytes().to_vec()).collect();
    settings.array("tokenizer.ggml.token_type", Settings::I32, &kinds);
    settings.texts("tokenizer.ggml.merges", &merges);
    settings.number("tokenizer.ggml.eos_token_id", end);
    Some(tokens.len())
}

fn tensors(sizes: &Sizes, vocabulary: usize) -> Vec<Tensor> {
    let (hidden, inner) = (sizes.hidden, sizes.feed_forward);
    let (queries, keys) = (sizes.heads * sizes.head, sizes.kv_heads * sizes.head);
    let mut tensors = vec![
        Tensor::embedding("token_embd", vocabulary, hidden),
        Tensor::norm("output_norm", hidden),
        Tensor::head("output", vocabulary, hidden),
    ];
    for layer in 0..sizes.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        tensors.extend([
            Tensor::norm(name("attn_norm"), hidden),
            Tensor::norm(name("ffn_norm"), hidden),
            Tensor::matrix(name("attn_q"), queries, hidden),
            Tensor::matrix(name("attn_k"), keys, hidden),
            Tensor::matrix(name("attn_v"), keys, hidden),
            Tensor::matrix(name("attn_output"), hidden, queries),
            Tensor::norm(name("attn_q_norm"), sizes.head),
            Tensor::norm(name("attn_k_norm"), sizes.head),
        ]);
        match sizes.experts {
            None => tensors.extend([
                Tensor::matrix(name("ffn_gate"), inner, hidden),
                Tensor::matrix(name("ffn_up"), inner, hidden),
                Tensor::matrix(name("ffn_down"), hidden, inner),
            ]),
            Some(experts) => tensors.extend([
                Tensor::matrix(name("ffn_gate_inp"), experts.all, hidden),
                Tensor::matrices(name("ffn_gate_exps"), experts.all, inner, hidden),
                Tensor::matrices(name("ffn_up_exps"), experts.all, inner, hidden),
                Tensor::matrices(name("ffn_down_exps"), experts.all, hidden, inner),
            ]),
        }
    }
    tensors
}
