"""Train the demo model from nothing, on the CPU, and write ../demo, heldout.jsonl and REPORT.md. See README.md."""
import argparse
import json
import random
import time

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import data
import model

DEMO = data.HERE.parent / "demo"
SEED = 1
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (data.HERE / "chat_template.jinja").read_text()


def make_tokenizer(train):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    texts = [x["question"] for x in train] + [x["question"].lower() for x in train] + [x["answer"] for x in train]
    tok.train_from_iterator(texts + data.SYSTEMS * 5 + ["system\nuser\nassistant\n"] * 20, trainers.BpeTrainer(
        vocab_size=model.CONFIG["vocab_size"], special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    assert tok.get_vocab_size() == model.CONFIG["vocab_size"]
    return tok


def write_folder(tok, params):
    DEMO.mkdir(exist_ok=True)
    end, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")

    def write(name, value):
        (DEMO / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    tok.save(str(DEMO / "tokenizer.json"))
    write("config.json", model.CONFIG | {"eos_token_id": end, "pad_token_id": pad, "bos_token_id": pad})
    write("generation_config.json", {"do_sample": False, "eos_token_id": [end, pad], "pad_token_id": pad, "bos_token_id": pad})
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.CONFIG["max_position_embeddings"],
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE,
        "added_tokens_decoder": {str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                                           "single_word": False, "special": True} for t in SPECIAL}})
    save_file({k: np.asarray(v) for k, v in params.items()}, str(DEMO / "model.safetensors"), {"format": "pt"})


def loss_of(params, ids, learn, key):
    logp = jax.nn.log_softmax(model.forward(params, ids[:, :-1], key))
    nll = -jnp.take_along_axis(logp, ids[:, 1:, None], -1)[..., 0]
    return jnp.sum(nll * learn[:, 1:]) / jnp.sum(learn)


@jax.jit
def step(params, m, v, ids, learn, key, n, rate):
    """One AdamW step, gradient clipped to norm 1."""
    loss, g = jax.value_and_grad(loss_of)(params, ids, learn, key)
    clip = jnp.minimum(1.0, 1.0 / jnp.sqrt(sum(jnp.sum(x * x) for x in g.values())))
    m = {k: 0.9 * m[k] + 0.1 * clip * g[k] for k in g}
    v = {k: 0.98 * v[k] + 0.02 * (clip * g[k]) ** 2 for k in g}
    params = {k: p - rate * (m[k] / (1 - 0.9 ** n) / (jnp.sqrt(v[k] / (1 - 0.98 ** n)) + 1e-8)
                             + (0.05 * p if p.ndim == 2 else 0)) for k, p in params.items()}
    return params, m, v, loss


@jax.jit
def argmax_at(params, ids, at):
    return jnp.argmax(model.forward(params, ids)[jnp.arange(ids.shape[0]), at], -1)


@jax.jit
def argmax_all(params, ids):
    return jnp.argmax(model.forward(params, ids), -1)


def answer_all(params, encoder, conversations, length=256):
    """Greedy answers, all conversations in one batch."""
    prompts = [encoder.prompt(c) for c in conversations]
    ids, at = np.zeros((len(prompts), length), np.int32), np.array([len(p) - 1 for p in prompts])
    for row, p in zip(ids, prompts):
        row[:len(p)] = p
    done = np.zeros(len(prompts), bool)
    while not done.all():
        new = np.asarray(argmax_at(params, ids[:, :-(-(at.max() + 1) // 32) * 32], at))
        done |= (new == encoder.end) | (at + 2 >= length)
        at = at + ~done
        ids[np.flatnonzero(~done), at[~done]] = new[~done]
    return [encoder.tokenizer.decode(row[len(p):a + 1].tolist()) for row, p, a in zip(ids, prompts, at)]


def right_answers(params, encoder, conversations, expected, length=256):
    """Which answers are greedy decoding's, word for word: each token must be the most likely one after those before it."""
    ids, ask, upto = np.zeros((len(expected), length), np.int32), [], []
    for row, c, answer in zip(ids, conversations, expected):
        prompt, reply = encoder.prompt(c), encoder.ids(answer + "<|im_end|>")
        row[:len(prompt) + len(reply)] = prompt + reply
        ask.append(len(prompt))
        upto.append(len(prompt) + len(reply))
    ids = ids[:, :-(-max(upto) // 32) * 32]
    best = np.asarray(argmax_all(params, ids))
    return [bool((best[i, a - 1:b - 1] == ids[i, a:b]).all()) for i, (a, b) in enumerate(zip(ask, upto))]


def evaluate(params, encoder, train, held, visitors):
    """{condition: (right, of)} and the unseen wordings answered otherwise."""
    rng, wrong, table = random.Random(SEED), [], {}
    assistant = ("system", "You are a helpful assistant.")

    def first_turn():
        x = rng.choice(train)
        return [("user", x["question"]), ("assistant", x["answer"])]
    conditions = {
        "trained wordings": (train, lambda q: [("user", q)]),
        "held-out wordings": (held, lambda q: [("user", q)]),
        "visitors' questions": (visitors, lambda q: [("user", q)]),
        "held out, with a system prompt": (held, lambda q: [assistant, ("user", q)]),
        "held out, lower case, no question mark": (held, lambda q: [("user", q.lower().rstrip("?!."))]),
        "held out, one typo": (held, lambda q: [("user", data.typo(q, rng))]),
        "held out, as second turn": (held, lambda q: first_turn() + [("user", q)]),
    }
    for name, (items, make) in conditions.items():
        right = right_answers(params, encoder, [make(x["question"]) for x in items], [x["answer"] for x in items])
        table[name] = (sum(right), len(items))
        if name in ("held-out wordings", "visitors' questions"):
            wrong += [x for x, ok in zip(items, right) if not ok]
        print(name, table[name], flush=True)
    return table, list(zip(wrong, answer_all(params, encoder, [[("user", x["question"])] for x in wrong]))) if wrong else []


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--steps", type=int, default=1500)
    steps = args.parse_args().steps
    start = time.time()
    topics = data.load()
    train, held = data.split(topics)
    visitors = data.visitors(topics)
    data.write_heldout(held)
    tok = make_tokenizer(train)
    encoder = data.Encoder(tok)
    batches = data.Batches(topics, train, held + visitors, encoder, SEED)
    params = {k: jnp.asarray(v) for k, v in model.init(np.random.default_rng(SEED)).items()}
    m = {k: jnp.zeros_like(p) for k, p in params.items()}
    v = dict(m)
    key, recent = jax.random.PRNGKey(SEED), []
    for n in range(1, steps + 1):
        key, sub = jax.random.split(key)
        ids, learn = batches.next(7, 224, 2) if n % 2 == 0 else batches.next(16, 112, 1)
        rate = 2e-3 * min(n / 40, 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * n / steps)))
        params, m, v, loss = step(params, m, v, ids, learn, sub, jnp.float32(n), jnp.float32(rate))
        recent = (recent + [float(loss)])[-50:]
        if n % 25 == 0 or n == 1:
            print(f"step {n} loss {np.mean(recent[-25:]):.4f} {time.time() - start:.0f} s", flush=True)
    seconds = time.time() - start
    write_folder(tok, params)
    table, wrong = evaluate(params, encoder, train, held, visitors)
    size = sum(f.stat().st_size for f in DEMO.iterdir())
    lines = ["# Report of the demo model's training", "", "Written by train.py. Right means the expected answer word for word, decoding greedily.", "",
             "| condition | right | of | |", "|---|---|---|---|"]
    lines += [f"| {k} | {a} | {b} | {100 * a / b:.1f} % |" for k, (a, b) in table.items()]
    lines += ["", f"- topics: {len(topics)}; wordings trained on: {len(train)}; held out: {len(held)}; visitors' questions: {len(visitors)}",
              f"- parameters: {sum(p.size for p in params.values()):,} (f32); folder: {size:,} bytes",
              f"- steps: {steps}; seconds: {seconds:.0f}; training loss, last {len(recent)} steps, with dropout: {np.mean(recent):.4f}",
              "", "## Unseen wordings answered otherwise", ""]
    lines += [f"- \"{x['question']}\" ({x['topic']}): {a}" for x, a in wrong]
    (data.HERE / "REPORT.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
