//! Qwen3, dense and with experts, as transformers' `Qwen3ForCausalLM` and `Qwen3MoeForCausalLM` name its tensors.

use serde_json::{Value, json};

use super::weights::Tensor;
use super::{Layout, networks};

/// Sizes of a model, in values unless something else is said.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of the vector that goes from layer to layer.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of heads for queries.
    pub heads: usize,
    /// Number of heads for keys and for values.
    pub kv_heads: usize,
    /// Of one head.
    pub head: usize,
    /// Of the vector inside the feed-forward network, or of that of one expert.
    pub feed_forward: usize,
    /// Experts, if any.
    pub experts: Option<Experts>,
    /// Tokens of prompt and answer.
    pub context: usize,
}

/// Counts of experts in every layer.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    /// That there are.
    pub all: usize,
    /// That each token goes through.
    pub used: usize,
}

/// As in the released models, the heads together are wider than the hidden vector.
pub const TINY: Sizes =
    Sizes { hidden: 128, layers: 2, heads: 4, kv_heads: 2, head: 64, feed_forward: 256, experts: None, context: 1024 };

/// The same with experts.
pub const TINY_MOE: Sizes = Sizes { feed_forward: 64, experts: Some(Experts { all: 8, used: 2 }), ..TINY };

/// 105 million parameters: nearly all of them are read for every token, as in a model that is of use.
pub const BENCH: Sizes = Sizes {
    hidden: 768,
    layers: 12,
    heads: 12,
    kv_heads: 4,
    head: 64,
    feed_forward: 3072,
    experts: None,
    context: 4096,
};

/// Qwen3-8B's sizes, with a context that leaves room on the GPU.
pub const LARGE: Sizes = Sizes {
    hidden: 4096,
    layers: 36,
    heads: 32,
    kv_heads: 8,
    head: 128,
    feed_forward: 12_288,
    experts: None,
    context: 8_192,
};
/// And its vocabulary.
pub const LARGE_VOCABULARY: usize = 151_936;

/// What is added to a variance before it divides.
pub const EPSILON: f32 = 1e-6;
/// The base of rotary position embeddings.
pub const ROPE_BASE: f32 = 1_000_000.0;

impl Sizes {
    /// `config.json`.
    pub fn config(&self, vocabulary: usize) -> Value {
        let mut config = json!({
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head,
            "intermediate_size": self.feed_forward,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": EPSILON,
            "rope_theta": ROPE_BASE,
            "rope_scaling": null,
            "attention_bias": false,
            "tie_word_embeddings": false,
            "use_sliding_window": false,
            "sliding_window": null,
            "max_window_layers": self.layers,
            "torch_dtype": "bfloat16",
            "eos_token_id": 2,
        });
        if let Some(experts) = self.experts {
            config["architectures"] = json!(["Qwen3MoeForCausalLM"]);
            config["model_type"] = json!("qwen3_moe");
            config["moe_intermediate_size"] = json!(self.feed_forward);
            config["num_experts"] = json!(experts.all);
            config["num_experts_per_tok"] = json!(experts.used);
            config["norm_topk_prob"] = json!(true);
            config["decoder_sparse_step"] = json!(1);
            config["mlp_only_layers"] = json!([]);
        }
        config
    }

    /// All tensors of a model that continues text.
    pub fn tensors(&self, layout: Layout, vocabulary: usize) -> Vec<Tensor> {
        let mut tensors = self.transformer("model.", layout, vocabulary);
        tensors.push(Tensor::head("lm_head", vocabulary, self.hidden));
        tensors
    }

    /// All tensors of a model that embeds: no head, and names that begin one level further in.
    pub fn embedding_tensors(&self, vocabulary: usize) -> Vec<Tensor> {
        self.transformer("", Layout::Released, vocabulary)
    }

    fn transformer(&self, prefix: &str, layout: Layout, vocabulary: usize) -> Vec<Tensor> {
        let mut tensors = vec![
            Tensor::embedding(format!("{prefix}embed_tokens"), vocabulary, self.hidden),
            Tensor::norm(format!("{prefix}norm"), self.hidden),
        ];
        let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
        for layer in 0..self.layers {
            let name = |part: &str| format!("{prefix}layers.{layer}.{part}");
            tensors.extend([
                Tensor::norm(name("input_layernorm"), self.hidden),
                Tensor::norm(name("post_attention_layernorm"), self.hidden),
                Tensor::matrix(name("self_attn.q_proj"), queries, self.hidden),
                Tensor::matrix(name("self_attn.k_proj"), keys, self.hidden),
                Tensor::matrix(name("self_attn.v_proj"), keys, self.hidden),
                Tensor::matrix(name("self_attn.o_proj"), self.hidden, queries),
                Tensor::norm(name("self_attn.q_norm"), self.head),
                Tensor::norm(name("self_attn.k_norm"), self.head),
            ]);
            let Some(experts) = self.experts else {
                tensors.extend(networks::one(&name("mlp"), self.hidden, self.feed_forward));
                continue;
            };
            tensors.push(Tensor::matrix(name("mlp.gate"), experts.all, self.hidden));
            tensors.extend(networks::experts(
                &name("mlp.experts"),
                layout,
                experts.all,
                self.hidden,
                self.feed_forward,
            ));
        }
        tensors
    }
}
