"""Drives an OpenAI-compatible server with the official Python SDK, unmodified. Usage: check.py BASE_URL API_KEY MODEL"""

import sys

import openai

base, key, model = sys.argv[1:4]
client = openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=0, timeout=20)
ask = dict(model=model, messages=[{"role": "user", "content": "Why do dams have spillways?"}])

whole = client.chat.completions.create(**ask)
assert whole.choices[0].finish_reason == "stop", whole
text = whole.choices[0].message.content
assert text and whole.usage.completion_tokens > 0

parts, last = [], None
for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask):
    if chunk.choices:
        parts.append(chunk.choices[0].delta.content or "")
    last = chunk
assert "".join(parts) == text, ("a stream and a whole answer differ", parts, text)
assert last.usage.completion_tokens == whole.usage.completion_tokens

floats = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
base64 = client.embeddings.create(model=model, input=["one", "two"])  # the SDK asks for base64 and decodes it
assert len(floats.data) == 2
for a, b in zip(floats.data, base64.data):
    assert all(abs(x - y) < 1e-6 for x, y in zip(a.embedding, b.embedding, strict=True))

assert model in [m.id for m in client.models.list()]
assert client.models.retrieve(model).id == model
done = client.completions.create(model=model, prompt="Once", max_tokens=5)
assert done.usage.completion_tokens <= 5

try:
    client.chat.completions.create(model="no-such-model", messages=ask["messages"])
    raise AssertionError("an unknown model was served")
except openai.NotFoundError as error:
    assert error.status_code == 404 and "no-such-model" in str(error), error
try:
    client.chat.completions.create(model=model, messages="not a list")
    raise AssertionError("a bad body was served")
except openai.BadRequestError as error:
    assert error.param == "messages", error

with client.chat.completions.create(stream=True, **ask) as stream:
    for chunk in stream:
        break  # leaves in the middle
print("python sdk ok", openai.__version__)
