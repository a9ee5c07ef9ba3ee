"""The unmodified `openai` package streams an answer through the proxy: pip install openai, cocoon up, then run this."""
import os
from openai import OpenAI
client = OpenAI(base_url=os.environ.get("COCOON_PROXY", "http://127.0.0.1:8787/v1"), api_key="unused")
question = [{"role": "user", "content": "Who can read my prompt?"}]
answer = ""
for chunk in client.chat.completions.create(model="cocoon-demo", messages=question, stream=True):
    answer += (text := chunk.choices[0].delta.content or "" if chunk.choices else "")
    print(text, end="", flush=True)
assert answer.strip(), "the stream held no text"
