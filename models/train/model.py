"""Qwen3's forward pass in JAX, with Hugging Face's tensor names. Linear weights are [out, in]."""
import jax
import jax.numpy as jnp
import numpy as np

CONFIG = dict(
    architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_act="silu", hidden_size=192, intermediate_size=512,
    num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2, head_dim=32, vocab_size=704,
    max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=10000.0, rope_scaling=None, attention_bias=False,
    attention_dropout=0.0, tie_word_embeddings=True, use_sliding_window=False, sliding_window=None, max_window_layers=4,
    initializer_range=0.02, torch_dtype="float32", use_cache=True)


def init(rng: np.random.Generator):
    c, p = CONFIG, {}
    h, d, i = c["hidden_size"], c["head_dim"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d

    def linear(name, out, inp, scale=1.0):
        p[name] = (rng.standard_normal((out, inp)) * scale / np.sqrt(inp)).astype(np.float32)
    p["model.embed_tokens.weight"] = (rng.standard_normal((c["vocab_size"], h)) * 0.05).astype(np.float32)
    for n in range(c["num_hidden_layers"]):
        a = f"model.layers.{n}."
        linear(a + "self_attn.q_proj.weight", q, h)
        linear(a + "self_attn.k_proj.weight", kv, h)
        linear(a + "self_attn.v_proj.weight", kv, h)
        linear(a + "self_attn.o_proj.weight", h, q, 0.35)
        linear(a + "mlp.gate_proj.weight", i, h)
        linear(a + "mlp.up_proj.weight", i, h)
        linear(a + "mlp.down_proj.weight", h, i, 0.35)
        for norm, size in (("self_attn.q_norm", d), ("self_attn.k_norm", d), ("input_layernorm", h),
                           ("post_attention_layernorm", h)):
            p[a + norm + ".weight"] = np.ones(size, np.float32)
    p["model.norm.weight"] = np.ones(h, np.float32)
    return p


def norm(x, w):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + CONFIG["rms_norm_eps"]) * w


def rope(x):
    """Rotate [batch, time, head, dim] by position, halves as Hugging Face pairs them."""
    d = x.shape[-1]
    angle = np.arange(x.shape[1])[:, None] * CONFIG["rope_theta"] ** (-np.arange(0, d, 2) / d)[None]
    cos, sin = jnp.asarray(np.cos(angle), jnp.float32)[None, :, None], jnp.asarray(np.sin(angle), jnp.float32)[None, :, None]
    a, b = x[..., : d // 2], x[..., d // 2:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def drop(x, key, rate):
    return x if key is None else jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def forward(p, ids, key=None, rate=0.1):
    """Logits [batch, time, vocab]. `key` switches dropout on."""
    c = CONFIG
    b, t = ids.shape
    heads, kv, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    keys = [None] * (2 * c["num_hidden_layers"]) if key is None else list(jax.random.split(key, 2 * c["num_hidden_layers"]))
    causal = jnp.tril(jnp.ones((t, t), bool))
    x = p["model.embed_tokens.weight"][ids]
    for n in range(c["num_hidden_layers"]):
        w = lambda name: p[f"model.layers.{n}.{name}.weight"]
        y = norm(x, w("input_layernorm"))
        q = rope(norm((y @ w("self_attn.q_proj").T).reshape(b, t, heads, d), w("self_attn.q_norm")))
        k = rope(norm((y @ w("self_attn.k_proj").T).reshape(b, t, kv, d), w("self_attn.k_norm")))
        v = (y @ w("self_attn.v_proj").T).reshape(b, t, kv, d)
        q = q.reshape(b, t, kv, heads // kv, d)
        s = jnp.einsum("btkgd,bskd->bkgts", q, k) / np.sqrt(d)
        s = jax.nn.softmax(jnp.where(causal, s, -1e30), -1)
        o = jnp.einsum("bkgts,bskd->btkgd", s, v).reshape(b, t, heads * d)
        x = x + drop(o @ w("self_attn.o_proj").T, keys[2 * n], rate)
        y = norm(x, w("post_attention_layernorm"))
        y = (jax.nn.silu(y @ w("mlp.gate_proj").T) * (y @ w("mlp.up_proj").T)) @ w("mlp.down_proj").T
        x = x + drop(y, keys[2 * n + 1], rate)
    return norm(x, p["model.norm.weight"]) @ p["model.embed_tokens.weight"].T
