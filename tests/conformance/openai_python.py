"""The unmodified `openai` package, through the proxy: every call that Cocoon offers, and what a refusal looks like to a program."""
import json
import os

import openai

c = openai.OpenAI(base_url=os.environ["COCOON_PROXY"], api_key="unused", max_retries=0)
DEMO = "cocoon-demo"
ASK = [{"role": "user", "content": "Who can read my prompt?"}]
SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Riga", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
          "required": ["city", "days"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "forecast", "description": "Weather to come", "parameters": SCHEMA}}


def refused(kind, code, param, call):
    try:
        call()
    except kind as error:
        assert (error.code, error.param) == (code, param), (error.code, error.param)
        assert error.body["message"] and error.body["type"], error.body
        return
    raise AssertionError(f"not refused: {code}")


# Models.
assert DEMO in [m.id for m in c.models.list()]
assert c.models.retrieve(DEMO).id == DEMO
refused(openai.NotFoundError, "model_not_found", None, lambda: c.models.retrieve("gpt"))

# A chat, whole, with its receipt.
raw = c.chat.completions.with_raw_response.create(model=DEMO, messages=ASK, temperature=0)
whole = raw.parse()
text = whole.choices[0].message.content
assert whole.choices[0].finish_reason == "stop" and len(text) > 20, whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 10
receipt = raw.headers["cocoon-receipt-id"]
assert receipt == whole.id
proof = json.loads(c.with_options().get(f"/receipts/{receipt}", cast_to=str))
assert proof["tokens"]["completion"] == whole.usage.completion_tokens, proof

# The same streamed, with usage and log-probabilities.
said, scores, usage = "", [], None
for chunk in c.chat.completions.create(model=DEMO, messages=ASK, temperature=0, stream=True, logprobs=True, top_logprobs=2,
                                       stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        said += choice.delta.content or ""
        scores += choice.logprobs.content if choice.logprobs else []
assert said == text and usage.completion_tokens == whole.usage.completion_tokens
assert bytes(b for s in scores for b in s.bytes).decode() == text and all(len(s.top_logprobs) == 2 and s.logprob <= 0 for s in scores)

# Seeds, several choices, stop strings, limits, penalties.
warm = lambda seed: c.chat.completions.create(model=DEMO, messages=ASK, temperature=1.9, seed=seed, n=2, max_completion_tokens=12)
one, two, other = warm(1), warm(1), warm(2)
answers = lambda r: [choice.message.content for choice in r.choices]
assert answers(one) == answers(two) != answers(other) and len(set(answers(one))) == 2
assert {choice.finish_reason for choice in one.choices} <= {"length", "stop"}
stop = text[len(text) // 2:][:3]
cut = c.chat.completions.create(model=DEMO, messages=ASK, temperature=0, stop=[stop])
assert cut.choices[0].message.content == text[:text.index(stop)] and cut.choices[0].finish_reason == "stop"
c.chat.completions.create(model=DEMO, messages=ASK, top_p=0.5, presence_penalty=1, frequency_penalty=1, logit_bias={"5": -100},
                          max_tokens=5, user="u", extra_body={"min_p": 0.1, "top_k": 5, "repetition_penalty": 1.1})

# JSON that follows a schema.
form = {"type": "json_schema", "json_schema": {"name": "trip", "strict": True, "schema": SCHEMA}}
trip = json.loads(c.chat.completions.create(model=DEMO, messages=ASK, response_format=form, seed=3).choices[0].message.content)
assert trip["city"] in ("Riga", "Oslo") and 1 <= trip["days"] <= 9

# Tools: a call that must come, its result sent back, and streamed.
forced = {"type": "function", "function": {"name": "forecast"}}
called = c.chat.completions.create(model=DEMO, messages=ASK, tools=[TOOL], tool_choice=forced, seed=4).choices[0]
call = called.message.tool_calls[0]
assert called.finish_reason == "tool_calls" and call.function.name == "forecast"
assert json.loads(call.function.arguments)["city"] in ("Riga", "Oslo")
after = ASK + [called.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
assert c.chat.completions.create(model=DEMO, messages=after, tools=[TOOL], max_tokens=5).choices[0].message.content is not None
names, arguments = [], ""
for chunk in c.chat.completions.create(model=DEMO, messages=ASK, tools=[TOOL], tool_choice="required", seed=4, stream=True):
    for part in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
        names += [part.function.name] if part.function.name else []
        arguments += part.function.arguments or ""
assert names == ["forecast"] and json.loads(arguments)["days"] >= 1

# The older and the newer form.
old = c.completions.create(model=DEMO, prompt=["Cocoon is", "TON is"], max_tokens=4, temperature=0, logprobs=1, n=1)
assert len(old.choices) == 2 and old.usage.completion_tokens <= 8 and old.choices[0].logprobs.tokens
assert "".join(part.choices[0].text for part in c.completions.create(model=DEMO, prompt="Cocoon is", max_tokens=4, stream=True,
               temperature=0) if part.choices) == c.completions.create(model=DEMO, prompt="Cocoon is", max_tokens=4, temperature=0).choices[0].text
new = c.responses.create(model=DEMO, input="Who can read my prompt?", temperature=0)
assert new.output_text == text and new.status == "completed" and new.usage.output_tokens > 0
kinds, streamed = [], ""
for event in c.responses.create(model=DEMO, input="Who can read my prompt?", temperature=0, stream=True):
    kinds.append(event.type)
    streamed += event.delta if event.type == "response.output_text.delta" else ""
assert streamed == text and kinds[0] == "response.created" and kinds[-1] == "response.completed"

# Vectors.
if os.environ.get("COCOON_EMBEDDER"):
    vectors = c.embeddings.create(model=os.environ["COCOON_EMBEDDER"], input=["first text", "second text"]).data
    assert len(vectors) == 2 and len(vectors[0].embedding) > 8 and vectors[0].embedding != vectors[1].embedding

# Refusals.
refused(openai.NotFoundError, "model_not_found", None, lambda: c.chat.completions.create(model="gpt", messages=ASK))
refused(openai.BadRequestError, "unsupported_parameter", "web_search_options",
        lambda: c.chat.completions.create(model=DEMO, messages=ASK, extra_body={"web_search_options": {}}))
refused(openai.BadRequestError, "invalid_value", "temperature", lambda: c.chat.completions.create(model=DEMO, messages=ASK, temperature=3))
refused(openai.BadRequestError, "invalid_value", "messages[0].content", lambda: c.chat.completions.create(
    model=DEMO, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]}]))
refused(openai.BadRequestError, "context_length_exceeded", "messages",
        lambda: c.chat.completions.create(model=DEMO, messages=[{"role": "user", "content": "word " * 5000}]))
length = c.chat.completions.create(model=DEMO, messages=ASK, max_tokens=100_000, logit_bias={"0": -100, "2": -100}, temperature=0)
assert length.choices[0].finish_reason == "length", length.choices[0].finish_reason
print("openai python: passed")
