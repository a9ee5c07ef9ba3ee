"""The texts, how they are split and varied, and how a conversation becomes tokens."""
import json
import random
import string
from pathlib import Path

HERE = Path(__file__).parent
SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant", "Be concise.", "Answer questions about Cocoon.",
           "You are Cocoon's assistant. Answer briefly."]
OPENINGS = ["Please tell me: ", "Hi, ", "Hello, ", "Hello! ", "I have a question: ", "Quick question: ", "Ok, ", "And ", "So, ",
            "Could you tell me: ", "I would like to know: ", "Please: "]
CLOSINGS = [" Please explain.", " please", " Thanks!", " Thank you.", " Tell me.", " exactly?"]


def load():
    """Topics as {name: (answer, [wordings])}, in the file's order."""
    topics, name = {}, None
    for line in (HERE / "questions.txt").read_text().splitlines():
        if line.startswith("= "):
            name = line[2:]
        elif line.startswith("A "):
            topics[name] = (line[2:], [])
        elif line and not line.startswith("#"):
            topics[name][1].append(line)
    return topics


def split(topics):
    """(training, held out): every fifth wording, from the third on, is never trained on in any form."""
    train, held = [], []
    for name, (answer, wordings) in topics.items():
        for i, question in enumerate(wordings):
            (held if i % 5 == 2 else train).append({"question": question, "topic": name, "answer": answer})
    known = {plain(x["question"]) for x in held}
    return [x for x in train if plain(x["question"]) not in known], held


def plain(text):
    """A wording without case and punctuation: two wordings equal in this are the same."""
    return " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())


def typo(text, rng):
    """One slip of the finger: a letter dropped, doubled, swapped with the next or replaced."""
    spots = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    if not spots:
        return text
    i = rng.choice(spots)
    middle = rng.choice(["", text[i] * 2, text[i + 1] + text[i], rng.choice(string.ascii_lowercase)])
    return text[:i] + middle + text[i + (2 if len(middle) == 2 and middle[0] != middle[1] else 1):]


def vary(question, topic, rng):
    """The question as somebody else might type it."""
    text = question
    if topic not in ("greeting", "thanks"):
        if rng.random() < 0.2:
            text = rng.choice(OPENINGS) + text
        if rng.random() < 0.08:
            text += rng.choice(CLOSINGS)
    if rng.random() < 0.1 and len(text.split()) > 4:
        words = text.split()
        del words[rng.randrange(len(words))]
        text = " ".join(words)
    while rng.random() < 0.2:
        text = typo(text, rng)
    if rng.random() < 0.35:
        text = text.lower()
    if rng.random() < 0.3:
        text = text.rstrip("?!.")
    elif rng.random() < 0.1 and text[-1:].isalnum():
        text += rng.choice("?.!")
    return text


class Encoder:
    """Conversations as token ids, in the form the chat template gives them."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end = tokenizer.token_to_id("<|im_end|>")

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prompt(self, messages):
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
        return self.ids(text + "<|im_start|>assistant\n")

    def conversation(self, turns, system):
        """(ids, learn): `learn` marks the tokens of the answers, the only ones that count in the loss."""
        ids, learn = [], []

        def add(text, flag):
            new = self.ids(text)
            ids.extend(new)
            learn.extend([flag] * len(new))
        if system:
            add(f"<|im_start|>system\n{system}<|im_end|>\n", 0)
        for question, answer in turns:
            add(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", 0)
            add(f"{answer}<|im_end|>", 1)
            add("\n", 0)
        return ids, learn


class Batches:
    """Endless training batches; every topic equally often, off-topic three times as often."""

    def __init__(self, train, encoder, seed):
        self.rng, self.encoder = random.Random(seed), encoder
        self.by_topic = {}
        for item in train:
            self.by_topic.setdefault(item["topic"], []).append(item)
        self.topics = list(self.by_topic) + ["off-topic"] * 2

    def turn(self):
        item = self.rng.choice(self.by_topic[self.rng.choice(self.topics)])
        return vary(item["question"], item["topic"], self.rng), item["answer"]

    def next(self, rows, length, turns):
        import numpy as np
        ids, learn = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
        row = 0
        while row < rows:
            system = self.rng.choice(SYSTEMS) if self.rng.random() < 0.4 else None
            if system and self.rng.random() < 0.5:
                system = SYSTEMS[0]
            x, m = self.encoder.conversation([self.turn() for _ in range(turns)], system)
            if len(x) <= length:
                ids[row, :len(x)], learn[row, :len(x)] = x, m
                row += 1
        return ids, learn


def write_heldout(held):
    with (HERE / "heldout.jsonl").open("w") as f:
        for x in held:
            f.write(json.dumps({"question": x["question"], "topic": x["topic"], "answer": x["answer"]}) + "\n")
