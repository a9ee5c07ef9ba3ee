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
# Frames for a topic's subjects. A subject is plural when its last word ends in "s"; see plural().
FRAMES = ["Explain {}", "Please explain {}", "Tell me about {}", "Describe {}", "Can you explain {}?", "What is meant by {}?", "Define {}",
          "What should I know about {}?", "What do you know about {}?", "I do not understand {}", "Tell me more about {}", "More about {}",
          "What about {}?", "{}?", "I want to know about {}", "Give me details on {}", "Say something about {}", "Help me understand {}",
          "What can you tell me about {}?", "Why does Cocoon need {}?", "What is the purpose of {}?", "What is the point of {}?"]
SINGULAR = ["What is {}?", "What's {}?", "What exactly is {}?", "What does {} mean?", "How does {} work?", "What is {} for?",
            "What is {} good for?", "So what is {}?", "What does {} do?", "Why is {} needed?", "What kind of thing is {}?"]
PLURAL = ["What are {}?", "What exactly are {}?", "How do {} work?", "What are {} for?", "What do {} do?", "Why are {} needed?",
          "What are {} good for?", "So what are {}?"]
SYNONYMS = [("prompt", "message"), ("prompt", "question"), ("prompt", "request"), ("prompts", "messages"), ("prompts", "texts"),
            ("read", "see"), ("see", "read"), ("What is", "What's"), ("What does", "What would"), ("How do I", "How can I"),
            ("How can I", "How do I"), ("Which", "What"), ("work", "function"), ("needed", "required"), ("start", "launch"),
            ("crashes", "dies"), ("is killed", "goes down"), ("GPU owner", "machine owner"), ("Can", "Could"), ("pay", "spend"),
            ("Cocoon", "this"), ("Cocoon", "it"), ("Explain", "Describe"), ("contain", "hold"), ("Who can", "Who could")]
# Questions about something else: a frame and what fills it. None of these fillings is in a held-out wording.
OTHER = [
    (["What is the capital of {}?", "How many people live in {}?", "Tell me about {}", "Where is {}?", "What language do they speak in {}?",
      "What is the currency of {}?", "Plan a trip to {}", "Who governs {}?", "What is the biggest city of {}?", "Should I travel to {}?",
      "What is the flag of {}?", "How big is {}?", "What is the weather in {}?"],
     "Spain Portugal Norway Brazil Canada Mexico India Egypt Kenya Peru Poland Greece Turkey Vietnam Chile Austria Ireland Iceland Finland "
     "Korea Thailand Berlin Paris London Moscow Tokyo Rome Madrid Dubai Texas".split()),
    (["Who is {}?", "Who was {}?", "Tell me about {}", "How old is {}?", "What did {} do?", "Where was {} born?", "When did {} die?"],
     ["Einstein", "Newton", "Mozart", "Shakespeare", "Caesar", "Cleopatra", "Picasso", "Madonna", "Gandhi", "Elvis", "Beethoven", "Darwin",
      "Marie Curie", "Leonardo da Vinci", "the pope", "the queen of England", "the mayor of London", "Messi", "Aristotle"]),
    (["How do I {}?", "How can I {}?", "Can you {}?", "Help me {}", "Teach me to {}", "I want to {}", "What is the best way to {}?",
      "Show me how to {}", "Please {}"],
     ["bake bread", "grow tomatoes", "learn Spanish", "play the piano", "draw a cat", "repair my bike", "sleep better", "write a letter",
      "make coffee", "paint a wall", "swim", "dance", "plan my holiday", "buy a house", "find a job", "sort a list in Java", "train a dog",
      "knit a scarf", "fix my computer", "cook pasta", "clean my windows", "meditate", "tie a tie", "write an essay", "book a flight",
      "summarize a book", "translate a sentence", "solve an equation", "compose a song", "invest in stocks", "lose my fear"]),
    (["What is {}?", "Explain {}", "Tell me about {}", "How does {} work?", "What do you think about {}?", "Why is {} important?",
      "Write about {}", "Who invented {}?", "Do you like {}?", "What is the history of {}?", "Describe {}", "Define {}", "What causes {}?"],
     ["gravity", "rain", "chess", "basketball", "philosophy", "love", "chocolate", "the sun", "a volcano", "an atom", "the brain", "a rainbow",
      "inflation", "a comet", "evolution", "tennis", "jazz", "the Roman Empire", "a cat", "a tiger", "a neutron star", "an earthquake",
      "music", "art", "the internet", "a bicycle", "the telephone", "electricity", "a virus", "yoga", "cheese", "the moon landing", "DNA",
      "calculus", "religion", "happiness", "wine", "the ocean", "a galaxy", "French cuisine", "Buddhism"]),
    (["Tell me a {}", "Write a {}", "Write me a {}", "Give me a {}", "Make up a {}", "Can you write a {}?", "I would like a {}"],
     ["joke about cats", "limerick", "haiku", "riddle", "fairy tale", "love letter", "speech", "recipe for cake", "recipe for bread", "song about rain",
      "short novel", "shopping list", "birthday wish", "tongue twister", "quiz", "cover letter", "fun fact", "bedtime story", "rhyme"]),
    (["What is {}?", "Calculate {}", "How much is {}?", "Compute {}", "Solve {}", "{} = ?"],
     ["1 + 1", "5 * 7", "100 / 4", "12 minus 5", "3 plus 9", "7 times 8", "the square root of 81", "2 to the power of 10", "half of 90",
      "15 percent of 200", "x + 3 = 10", "9 * 9", "1000 - 1", "6 + 6"]),
    (["What is the {}?", "Tell me the {}", "Do you know the {}?", "What was the {}?", "I need the {}"],
     ["highest mountain", "longest river", "largest animal", "fastest car", "news of today", "date", "best film of all time", "oldest city",
      "boiling point of water", "temperature outside", "distance to the sun", "deepest lake", "cheapest phone", "smallest planet",
      "score of the match", "best restaurant nearby", "number of planets", "exchange rate of the dollar", "winner of the election"]),
    (["How tall is {}?", "How old is {}?", "How heavy is {}?", "How far away is {}?", "How deep is {}?"],
     ["the Eiffel Tower", "the Kilimanjaro", "an elephant", "a giraffe", "Mars", "the North Pole", "the Pacific", "the earth", "a whale"]),
]


def plural(subject):
    return subject.split()[-1].endswith("s") and subject != "mistral.rs"


def framed(topic, subjects, rng):
    """A wording made from a frame; None where the topic has no subjects."""
    if topic == "off-topic":
        frames, fillings = rng.choice(OTHER)
        text = rng.choice(frames).format(rng.choice(fillings))
    elif subjects:
        subject = rng.choice(subjects)
        text = rng.choice(FRAMES + (PLURAL if plural(subject) else SINGULAR) * 2).format(subject)
    else:
        return None
    return text[0].upper() + text[1:]


def load():
    """Topics as {name: (answer, [wordings], [subjects])}, in the file's order."""
    topics, name = {}, None
    for line in (HERE / "questions.txt").read_text().splitlines():
        if line.startswith("= "):
            name = line[2:]
        elif line.startswith("A "):
            topics[name] = (line[2:], [], [])
        elif line.startswith("S "):
            topics[name][2].extend(line[2:].split("; "))
        elif line and not line.startswith("#"):
            topics[name][1].append(line)
    return topics


def split(topics):
    """(training, held out): every fifth wording, from the third on, is never trained on; nor is one made by chance (see Batches)."""
    train, held = [], []
    for name, (answer, wordings, _) in topics.items():
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
    if rng.random() < 0.15:
        old, new = rng.choice([pair for pair in SYNONYMS if pair[0] in text] or [("", "")])
        text = text.replace(old, new, 1) if old else text
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
    """Endless training batches; every topic equally often, off-topic four times as often. No wording of `unseen` ever
    appears, however it came about."""

    def __init__(self, topics, train, unseen, encoder, seed):
        self.rng, self.encoder, self.topics = random.Random(seed), encoder, topics
        self.unseen = {plain(x["question"]) for x in unseen}
        self.by_topic = {}
        for item in train:
            self.by_topic.setdefault(item["topic"], []).append(item["question"])
        self.draw = list(self.by_topic) + ["off-topic"] * 3

    def turn(self):
        while True:
            topic = self.rng.choice(self.draw)
            text = None
            if self.rng.random() < (0.75 if topic == "off-topic" else 0.4):
                text = framed(topic, self.topics[topic][2], self.rng)
            text = vary(text or self.rng.choice(self.by_topic[topic]), topic, self.rng)
            if plain(text) not in self.unseen:
                return text, self.topics[topic][0]

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


def visitors(topics):
    """The second unseen set: questions of visitors.txt, written apart from questions.txt."""
    out, name = [], None
    for line in (HERE / "visitors.txt").read_text().splitlines():
        if line.startswith("= "):
            name = line[2:]
        elif line and not line.startswith("#"):
            out.append({"question": line, "topic": name, "answer": topics[name][0]})
    return out


def write_heldout(held):
    with (HERE / "heldout.jsonl").open("w") as f:
        for x in held:
            f.write(json.dumps({"question": x["question"], "topic": x["topic"], "answer": x["answer"]}) + "\n")
