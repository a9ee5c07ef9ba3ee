"""Ask the shipped folder as an engine would: its own chat template, its weights, and a second forward pass in numpy
that shares no code with model.py. Prints how many held-out questions it answers word for word.

python check.py [QUESTION]"""
import json
import sys
from pathlib import Path

import jinja2
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

TRAIN = Path(__file__).parent
DEMO = TRAIN.parent / "demo"
CONFIG = json.loads((DEMO / "config.json").read_text())
W = load_file(DEMO / "model.safetensors")
TOKENIZER = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
TEMPLATE = jinja2.Environment().from_string(json.loads((DEMO / "tokenizer_config.json").read_text())["chat_template"])
STOP = json.loads((DEMO / "generation_config.json").read_text())["eos_token_id"]


def rms(x, weight):
    return x / np.sqrt((x ** 2).mean(axis=-1, keepdims=True) + CONFIG["rms_norm_eps"]) * weight


class Sequence:
    """One token at a time, with a key and value cache."""

    def __init__(self):
        self.keys = [[] for _ in range(CONFIG["num_hidden_layers"])]
        self.values = [[] for _ in range(CONFIG["num_hidden_layers"])]
        self.position = 0

    def rotate(self, heads):
        half = CONFIG["head_dim"] // 2
        turn = np.exp(1j * self.position / CONFIG["rope_theta"] ** (np.arange(half) / half))
        z = (heads[:, :half] + 1j * heads[:, half:]) * turn
        return np.concatenate([z.real, z.imag], axis=1)

    def step(self, token):
        dim, group = CONFIG["head_dim"], CONFIG["num_attention_heads"] // CONFIG["num_key_value_heads"]
        x = W["model.embed_tokens.weight"][token].astype(np.float64)
        for n in range(CONFIG["num_hidden_layers"]):
            def weight(name):
                return W[f"model.layers.{n}.{name}.weight"]
            y = rms(x, weight("input_layernorm"))
            q, k, v = ((weight(f"self_attn.{s}_proj") @ y).reshape(-1, dim) for s in "qkv")
            q = self.rotate(rms(q, weight("self_attn.q_norm")))
            self.keys[n].append(self.rotate(rms(k, weight("self_attn.k_norm"))))
            self.values[n].append(v)
            heads = []
            for h in range(len(q)):
                score = np.array([key[h // group] @ q[h] for key in self.keys[n]]) / np.sqrt(dim)
                share = np.exp(score - score.max())
                heads.append((share / share.sum()) @ np.array([value[h // group] for value in self.values[n]]))
            x = x + weight("self_attn.o_proj") @ np.concatenate(heads)
            y = rms(x, weight("post_attention_layernorm"))
            gate = weight("mlp.gate_proj") @ y
            x = x + weight("mlp.down_proj") @ (gate / (1 + np.exp(-gate)) * (weight("mlp.up_proj") @ y))
        self.position += 1
        return W["model.embed_tokens.weight"] @ rms(x, W["model.norm.weight"])


def answer(messages, limit=200):
    sequence, out = Sequence(), []
    for token in TOKENIZER.encode(TEMPLATE.render(messages=messages, add_generation_prompt=True), add_special_tokens=False).ids:
        logits = sequence.step(token)
    while len(out) < limit and (token := int(logits.argmax())) not in STOP:
        out.append(token)
        logits = sequence.step(token)
    return TOKENIZER.decode(out)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(answer([{"role": "user", "content": " ".join(sys.argv[1:])}]))
        sys.exit()
    cases = [json.loads(line) for line in (TRAIN / "heldout.jsonl").read_text().splitlines()]
    right = sum(answer([{"role": "user", "content": c["question"]}]) == c["answer"] for c in cases)
    print(f"{right} of {len(cases)} held-out questions answered word for word")
