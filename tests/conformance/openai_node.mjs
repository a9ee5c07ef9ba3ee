// The unmodified `openai` package of npm, through the proxy.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.env.COCOON_PROXY, apiKey: 'unused', maxRetries: 0 });
const model = 'cocoon-demo';
const messages = [{ role: 'user', content: 'Who can read my prompt?' }];
const schema = { type: 'object', properties: { city: { enum: ['Riga', 'Oslo'] } }, required: ['city'], additionalProperties: false };

const listed = [];
for await (const each of client.models.list()) listed.push(each.id);
assert.ok(listed.includes(model));

const { data: whole, response } = await client.chat.completions.create({ model, messages, temperature: 0 }).withResponse();
const text = whole.choices[0].message.content;
assert.ok(text.length > 20 && whole.choices[0].finish_reason === 'stop');
assert.equal(response.headers.get('cocoon-receipt-id'), whole.id);
const receipt = await client.get(`/receipts/${whole.id}`);
assert.equal(receipt.tokens.completion, whole.usage.completion_tokens);

let said = '';
for await (const chunk of await client.chat.completions.create({ model, messages, temperature: 0, stream: true })) said += chunk.choices[0]?.delta?.content ?? '';
assert.equal(said, text);

const runner = client.chat.completions.stream({ model, messages, temperature: 0 });
assert.equal((await runner.finalChatCompletion()).choices[0].message.content, text);

const tools = [{ type: 'function', function: { name: 'forecast', parameters: schema } }];
const called = await client.chat.completions.create({ model, messages, tools, tool_choice: 'required', seed: 5 });
assert.ok(['Riga', 'Oslo'].includes(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments).city));

const formed = await client.chat.completions.create({ model, messages, seed: 5,
    response_format: { type: 'json_schema', json_schema: { name: 'trip', strict: true, schema } } });
assert.ok(['Riga', 'Oslo'].includes(JSON.parse(formed.choices[0].message.content).city));

const answered = await client.responses.create({ model, input: 'Who can read my prompt?', temperature: 0 });
assert.equal(answered.output_text, text);
let kinds = [];
for await (const event of await client.responses.create({ model, input: 'Who can read my prompt?', temperature: 0, stream: true })) kinds.push(event.type);
assert.equal(kinds.at(-1), 'response.completed');

const old = await client.completions.create({ model, prompt: 'Cocoon is', max_tokens: 4, temperature: 0 });
assert.ok(old.choices[0].text.length > 0);
if (process.env.COCOON_EMBEDDER) {
    const vectors = await client.embeddings.create({ model: process.env.COCOON_EMBEDDER, input: ['first text', 'second text'] });
    assert.ok(vectors.data.length === 2 && vectors.data[0].embedding.length > 8);
}
await assert.rejects(client.chat.completions.create({ model, messages, store: true }),
    (error) => error instanceof OpenAI.BadRequestError && error.code === 'unsupported_parameter' && error.param === 'store');
await assert.rejects(client.chat.completions.create({ model: 'gpt', messages }), (error) => error instanceof OpenAI.NotFoundError);
console.log('openai node: passed');
