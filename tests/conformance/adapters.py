"""LangChain's and LiteLLM's OpenAI adapters, unmodified, through the proxy."""
import json
import os
from typing import Literal

import litellm
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

BASE, DEMO, QUESTION = os.environ["COCOON_PROXY"], "cocoon-demo", "Who can read my prompt?"




@tool
def forecast(city: Literal["Riga", "Oslo"]) -> str:
    """Weather to come."""
    return f"sun in {city}"


chat = ChatOpenAI(model=DEMO, base_url=BASE, api_key="unused", temperature=0, max_retries=0)
answer = chat.invoke(QUESTION)
assert len(answer.content) > 20 and answer.usage_metadata["output_tokens"] > 5, answer
assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == answer.content
called = chat.bind_tools([forecast], tool_choice="forecast", strict=True).invoke(QUESTION)
assert called.tool_calls and called.tool_calls[0]["name"] == "forecast", called
wanted = {"title": "Trip", "type": "object", "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["days"],
          "additionalProperties": False}
assert 1 <= chat.with_structured_output(wanted, method="json_schema").invoke(QUESTION)["days"] <= 9
if os.environ.get("COCOON_EMBEDDER"):
    embedder = OpenAIEmbeddings(model=os.environ["COCOON_EMBEDDER"], base_url=BASE, api_key="unused", check_embedding_ctx_length=False)
    one = embedder.embed_query("a query")
    assert len(one) > 8
    # In requests of a thousand texts, as the adapter sends them by itself.
    many = embedder.embed_documents([f"document {number}" for number in range(1200)] + ["a query"])
    assert len(many) == 1201 and many[0] != many[1] and max(abs(a - b) for a, b in zip(many[-1], one)) < 1e-5

ask = dict(model=f"openai/{DEMO}", api_base=BASE, api_key="unused", messages=[{"role": "user", "content": QUESTION}], temperature=0)
whole = litellm.completion(**ask)
assert whole.choices[0].message.content == answer.content and whole.usage.completion_tokens > 5
assert "".join(part.choices[0].delta.content or "" for part in litellm.completion(stream=True, **ask)) == answer.content
form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": wanted}}
assert json.loads(litellm.completion(response_format=form, **ask).choices[0].message.content)["days"] >= 1
try:
    litellm.completion(**{**ask, "model": "openai/gpt-nothing"})
except litellm.NotFoundError:
    pass
else:
    raise AssertionError("an unknown model was served")
print("langchain and litellm: passed")
