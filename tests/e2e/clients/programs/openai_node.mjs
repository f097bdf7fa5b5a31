// openai-node over every call that the intake has.

import assert from "node:assert/strict";

import OpenAI, { toFile } from "openai";

import { MODEL, TEXT, runChecks, waitFor } from "./checks.mjs";

const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: TEXT }];

async function all(events) {
  const seen = [];
  for await (const event of events) seen.push(event);
  return seen;
}

async function models() {
  const ids = (await all(client.models.list())).map((model) => model.id);
  assert(ids.includes(MODEL));
  assert.equal((await client.models.retrieve(MODEL)).object, "model");
}

async function completions() {
  const answer = await client.completions.create({ model: MODEL, prompt: TEXT, max_tokens: 8 });
  const chunks = await all(
    await client.completions.create({ model: MODEL, prompt: TEXT, max_tokens: 8, stream: true }),
  );
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join(""), answer.choices[0].text);
}

async function chat() {
  const answer = await client.chat.completions.create({ model: MODEL, messages, max_tokens: 8 });
  const stream_options = { include_usage: true };
  const chunks = await all(
    await client.chat.completions.create({ model: MODEL, messages, max_tokens: 8, stream: true, stream_options }),
  );
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.equal(text, answer.choices[0].message.content);
  assert(chunks.at(-1).usage.completion_tokens);
}

async function embeddings() {
  const answer = await client.embeddings.create({ model: MODEL, input: [TEXT, "another"] });
  assert.equal(answer.data.length, 2);
  assert(answer.data[0].embedding.length > 0);
}

async function responses() {
  const answer = await client.responses.create({ model: MODEL, input: TEXT, max_output_tokens: 16 });
  assert(answer.output_text);
  assert.equal((await client.responses.retrieve(answer.id)).output_text, answer.output_text);
}

async function responsesStream() {
  const events = await all(
    await client.responses.create({ model: MODEL, input: TEXT, max_output_tokens: 16, stream: true }),
  );
  assert.equal(events[0].type, "response.created");
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, number) => number),
  );
  const text = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
  const ended = events.at(-1).response;
  assert.equal(text.join(""), ended.output[0].content[0].text);
}

async function responsesInTheBackground() {
  const answer = await client.responses.create({
    model: MODEL,
    input: TEXT,
    max_output_tokens: 16,
    background: true,
  });
  const ended = await waitFor(() => client.responses.retrieve(answer.id), ["completed", "incomplete"]);
  assert(ended.output_text);
}

async function responsesResumed() {
  const stream = await client.responses.create({
    model: MODEL,
    input: TEXT.repeat(4),
    max_output_tokens: 32,
    background: true,
    stream: true,
  });
  const begun = [];
  for await (const event of stream) {
    begun.push(event);
    if (event.sequence_number >= 4) break;
  }
  const rest = await all(
    await client.responses.retrieve(begun[0].response.id, {
      stream: true,
      starting_after: begun.at(-1).sequence_number,
    }),
  );
  const numbers = [...begun, ...rest].map((event) => event.sequence_number);
  assert.deepEqual(
    numbers,
    numbers.map((_, number) => number),
  );
}

async function responsesChained() {
  const first = await client.responses.create({ model: MODEL, input: "one two three", max_output_tokens: 8 });
  const second = await client.responses.create({
    model: MODEL,
    input: "four",
    previous_response_id: first.id,
    max_output_tokens: 8,
  });
  assert(second.usage.input_tokens > first.usage.input_tokens);
  assert((await all(client.responses.inputItems.list(second.id))).length > 0);
}

async function responsesCancelledAndDeleted() {
  const answer = await client.responses.create({
    model: MODEL,
    input: TEXT,
    max_output_tokens: 2000,
    background: true,
  });
  await client.responses.cancel(answer.id);
  await client.responses.delete(answer.id);
  await assert.rejects(client.responses.retrieve(answer.id), OpenAI.NotFoundError);
}

async function filesAndBatches() {
  const line = (number) =>
    JSON.stringify({
      custom_id: `line-${number}`,
      method: "POST",
      url: "/v1/chat/completions",
      body: { model: MODEL, messages, max_tokens: 4 },
    });
  const text = Array.from({ length: 20 }, (_, number) => line(number)).join("\n");
  const file = await client.files.create({ file: await toFile(Buffer.from(text), "in.jsonl"), purpose: "batch" });
  assert.equal(await (await client.files.content(file.id)).text(), text);
  const batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
  const ended = await waitFor(() => client.batches.retrieve(batch.id), ["completed", "failed", "expired"]);
  assert.equal(ended.status, "completed");
  assert.equal(ended.request_counts.completed, 20);
  const answers = (await (await client.files.content(ended.output_file_id)).text()).trim().split("\n");
  assert.equal(answers.length, 20);
  assert((await all(client.batches.list())).some((other) => other.id === batch.id));
  assert((await client.files.delete(file.id)).deleted);
}

async function batchesCancelled() {
  const line = JSON.stringify({
    custom_id: "only",
    method: "POST",
    url: "/v1/chat/completions",
    body: { model: MODEL, messages, max_tokens: 2000 },
  });
  const file = await client.files.create({ file: await toFile(Buffer.from(line), "in.jsonl"), purpose: "batch" });
  const batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
  await client.batches.cancel(batch.id);
  await waitFor(() => client.batches.retrieve(batch.id), ["cancelled"]);
}

async function errorsHaveTheirClasses() {
  await assert.rejects(client.completions.create({ model: "no-such-model", prompt: "x" }), OpenAI.NotFoundError);
  await assert.rejects(client.responses.retrieve("resp_unknown"), OpenAI.NotFoundError);
  await assert.rejects(client.batches.retrieve("batch_unknown"), OpenAI.NotFoundError);
}

await runChecks([
  models,
  completions,
  chat,
  embeddings,
  responses,
  responsesStream,
  responsesInTheBackground,
  responsesResumed,
  responsesChained,
  responsesCancelledAndDeleted,
  filesAndBatches,
  batchesCancelled,
  errorsHaveTheirClasses,
]);
