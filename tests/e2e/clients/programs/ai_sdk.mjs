// The AI SDK by its default provider `openai()`, which speaks /v1/responses.

import assert from "node:assert/strict";

import { openai } from "@ai-sdk/openai";
import { Output, embedMany, generateText, streamText, tool } from "ai";
import { z } from "zod";

import { MODEL, TEXT, runChecks } from "./checks.mjs";

const common = { maxRetries: 0, prompt: TEXT, maxOutputTokens: 32 };

async function generated() {
  assert((await generateText({ ...common, model: openai(MODEL) })).text);
}

async function streamed() {
  let text = "";
  for await (const part of streamText({ ...common, model: openai(MODEL) }).textStream) text += part;
  assert(text);
}

async function withASystemPrompt() {
  assert((await generateText({ ...common, model: openai(MODEL), system: "Answer shortly." })).text);
}

async function severalTurns() {
  const messages = [
    { role: "user", content: "one two" },
    { role: "assistant", content: "two three" },
    { role: "user", content: TEXT },
  ];
  assert((await generateText({ maxRetries: 0, model: openai(MODEL), messages, maxOutputTokens: 16 })).text);
}

async function afterAStoredResponse() {
  const first = await generateText({ ...common, model: openai(MODEL) });
  const previousResponseId = first.providerMetadata.openai.responseId;
  const providerOptions = { openai: { previousResponseId } };
  assert((await generateText({ ...common, model: openai(MODEL), providerOptions })).text);
}

async function aStructuredAnswer() {
  const { output } = await generateText({
    maxRetries: 0,
    model: openai(MODEL),
    prompt: "Name a city.",
    maxOutputTokens: 64,
    output: Output.object({ schema: z.object({ name: z.string() }) }),
  });
  assert.equal(typeof output.name, "string");
}

async function aTool() {
  const weather = tool({ description: "The weather.", inputSchema: z.object({ city: z.string() }) });
  const result = await generateText({ ...common, model: openai(MODEL), tools: { weather } });
  assert(result.text || result.toolCalls.length);
}

async function byChat() {
  assert((await generateText({ ...common, model: openai.chat(MODEL) })).text);
}

async function byCompletions() {
  assert((await generateText({ ...common, model: openai.completion(MODEL) })).text);
}

async function embeddings() {
  const { embeddings: vectors } = await embedMany({ model: openai.embedding(MODEL), values: [TEXT, "another"] });
  assert.equal(vectors.length, 2);
}

await runChecks([
  generated,
  streamed,
  withASystemPrompt,
  severalTurns,
  afterAStoredResponse,
  aStructuredAnswer,
  aTool,
  byChat,
  byCompletions,
  embeddings,
]);
