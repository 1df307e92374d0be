// Drives an OpenAI-compatible server with the official Node SDK, unmodified. Usage: check.mjs BASE_URL API_KEY MODEL
import assert from "node:assert/strict";
import OpenAI from "openai";

const [base, key, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base + "/v1", apiKey: key, maxRetries: 0, timeout: 20_000 });
const ask = { model, messages: [{ role: "user", content: "Why do dams have spillways?" }] };

const whole = await client.chat.completions.create(ask);
assert.equal(whole.choices[0].finish_reason, "stop");
const text = whole.choices[0].message.content;

let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(streamed, text, "a stream and a whole answer differ");

const embeddings = await client.embeddings.create({ model, input: ["one", "two"] });
assert.equal(embeddings.data.length, 2);
assert.ok(embeddings.data[0].embedding.length > 0);

const ids = [];
for await (const found of client.models.list()) ids.push(found.id);
assert.ok(ids.includes(model));

await assert.rejects(client.chat.completions.create({ ...ask, model: "no-such-model" }), (error) => error.status === 404);

for await (const _ of await client.chat.completions.create({ ...ask, stream: true })) break; // leaves in the middle
console.log("node sdk ok");
