//! DeepSeek-V2 and V3, as their releases' own `modeling_deepseek.py` names tensors and settings.

use serde_json::{Value, json};

use super::weights::Tensor;
use super::{Layout, networks};

/// Which of the two: they differ in how tokens are routed to experts, and V2-Lite does not compress queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V3,
}

/// Sizes of a model, in values unless something else is said.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    version: Version,
    hidden: usize,
    /// Number of layers; the first has one network rather than experts.
    layers: usize,
    heads: usize,
    /// Of compressed queries, where they are compressed.
    query_rank: Option<usize>,
    /// Of keys and values compressed together.
    kv_rank: usize,
    /// Of that part of a head of a query or key that knows no position.
    still: usize,
    /// Of that part which does.
    rotary: usize,
    feed_forward: usize,
    expert_feed_forward: usize,
    experts: usize,
    experts_used: usize,
    experts_shared: usize,
    groups: usize,
    groups_used: usize,
    /// Tokens of prompt and answer.
    context: usize,
}

/// Like DeepSeek-V2-Lite.
pub const V2: Sizes = Sizes {
    version: Version::V2,
    hidden: 128,
    layers: 3,
    heads: 4,
    query_rank: None,
    kv_rank: 64,
    still: 32,
    rotary: 16,
    feed_forward: 256,
    expert_feed_forward: 64,
    experts: 8,
    experts_used: 2,
    experts_shared: 2,
    groups: 1,
    groups_used: 1,
    context: 1024,
};

/// Like DeepSeek-V3 and R1.
pub const V3: Sizes =
    Sizes { version: Version::V3, query_rank: Some(96), experts_shared: 1, groups: 4, groups_used: 2, ..V2 };

impl Sizes {
    /// Size of a head of a value.
    fn value(&self, layout: Layout) -> usize {
        match layout {
            Layout::Released => self.still,
            Layout::Cpu => self.still + self.rotary,
        }
    }

    /// `config.json`.
    pub fn config(&self, layout: Layout, vocabulary: usize) -> Value {
        let v3 = self.version == Version::V3;
        json!({
            "architectures": [if v3 { "DeepseekV3ForCausalLM" } else { "DeepseekV2ForCausalLM" }],
            "model_type": if v3 { "deepseek_v3" } else { "deepseek_v2" },
            "vocab_size": vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "q_lora_rank": self.query_rank,
            "kv_lora_rank": self.kv_rank,
            "qk_nope_head_dim": self.still,
            "qk_rope_head_dim": self.rotary,
            "v_head_dim": self.value(layout),
            "intermediate_size": self.feed_forward,
            "moe_intermediate_size": self.expert_feed_forward,
            "n_routed_experts": self.experts,
            "n_shared_experts": self.experts_shared,
            "num_experts_per_tok": self.experts_used,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "n_group": self.groups,
            "topk_group": self.groups_used,
            "topk_method": if v3 { "noaux_tc" } else { "greedy" },
            "scoring_func": if v3 { "sigmoid" } else { "softmax" },
            "norm_topk_prob": v3,
            "routed_scaling_factor": if v3 { 2.5 } else { 1.0 },
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000,
            "rope_scaling": {
                "type": "yarn",
                "factor": 4,
                "original_max_position_embeddings": self.context / 4,
                "beta_fast": 32,
                "beta_slow": 1,
                "mscale": if v3 { 1.0 } else { 0.707 },
                "mscale_all_dim": if v3 { 1.0 } else { 0.707 },
            },
            "attention_bias": false,
            "tie_word_embeddings": false,
            "torch_dtype": "bfloat16",
            "eos_token_id": 2,
        })
    }

    /// All tensors.
    pub fn tensors(&self, layout: Layout, vocabulary: usize) -> Vec<Tensor> {
        let mut tensors = vec![
            Tensor::embedding("model.embed_tokens", vocabulary, self.hidden),
            Tensor::norm("model.norm", self.hidden),
            Tensor::head("lm_head", vocabulary, self.hidden),
        ];
        for layer in 0..self.layers {
            tensors.extend(self.attention(layout, layer));
            tensors.extend(self.network(layout, layer));
        }
        tensors
    }

    fn attention(&self, layout: Layout, layer: usize) -> Vec<Tensor> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let (queries, value) = (self.heads * (self.still + self.rotary), self.value(layout));
        let mut tensors = vec![
            Tensor::norm(name("input_layernorm"), self.hidden),
            Tensor::norm(name("post_attention_layernorm"), self.hidden),
            Tensor::matrix(name("self_attn.kv_a_proj_with_mqa"), self.kv_rank + self.rotary, self.hidden),
            Tensor::norm(name("self_attn.kv_a_layernorm"), self.kv_rank),
            Tensor::matrix(name("self_attn.kv_b_proj"), self.heads * (self.still + value), self.kv_rank),
            Tensor::matrix(name("self_attn.o_proj"), self.hidden, self.heads * value),
        ];
        match self.query_rank {
            None => tensors.push(Tensor::matrix(name("self_attn.q_proj"), queries, self.hidden)),
            Some(rank) => tensors.extend([
                Tensor::matrix(name("self_attn.q_a_proj"), rank, self.hidden),
                Tensor::norm(name("self_attn.q_a_layernorm"), rank),
                Tensor::matrix(name("self_attn.q_b_proj"), queries, rank),
            ]),
        }
        tensors
    }

    fn network(&self, layout: Layout, layer: usize) -> Vec<Tensor> {
        let network = format!("model.layers.{layer}.mlp");
        if layer == 0 {
            return networks::one(&network, self.hidden, self.feed_forward).into();
        }
        let inner = self.expert_feed_forward;
        let mut tensors = vec![Tensor::matrix(format!("{network}.gate"), self.experts, self.hidden)];
        if self.version == Version::V3 {
            tensors.push(Tensor::bias(format!("{network}.gate.e_score_correction_bias"), self.experts));
        }
        tensors.extend(networks::experts(&format!("{network}.experts"), layout, self.experts, self.hidden, inner));
        tensors.extend(networks::one(&format!("{network}.shared_experts"), self.hidden, self.experts_shared * inner));
        tensors
    }
}
