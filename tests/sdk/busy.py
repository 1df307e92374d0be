"""A full gateway answers 429 with Retry-After, and the SDK's own retry gets through. Usage: busy.py BASE_URL KEY MODEL"""

import sys
import threading
import time

import openai

base, key, model = sys.argv[1:4]
ask = dict(model=model, messages=[{"role": "user", "content": "Why do dams have spillways?"}])
held, leave = threading.Event(), threading.Event()


def hold():
    client = openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=0)
    with client.chat.completions.create(stream=True, max_tokens=100000, extra_body={"ignore_eos": True}, **ask) as stream:
        for _ in stream:
            held.set()
            if leave.is_set():
                return


holder = threading.Thread(target=hold)
holder.start()
assert held.wait(20)
client = openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=0)
started = time.monotonic()
try:
    client.chat.completions.create(**ask)
    raise AssertionError("the only seat is held")
except openai.RateLimitError as error:
    assert error.response.headers["retry-after"].isdigit()
    assert error.response.headers["content-type"] == "application/problem+json"
    assert error.response.json()["type"] == "urn:forebay:problem:queue-timeout", error.response.text
threading.Timer(0.5, leave.set).start()  # the seat comes free while the SDK waits to try again
assert client.with_options(max_retries=5).chat.completions.create(**ask).choices[0].message.content
holder.join()

try:
    client.with_options(timeout=0.05).chat.completions.create(max_tokens=100000, extra_body={"ignore_eos": True}, **ask)
    raise AssertionError("the timeout did not hold")
except openai.APITimeoutError:
    pass
print("python sdk ok: 429, retry, timeout")
