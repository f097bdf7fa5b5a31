// What the programs of Node share: named checks, run in order, each printed as a line of JSON.

import assert from "node:assert/strict";

export const MODEL = process.env.MODEL ?? "smollm2";
export const TEXT = "a paper clip holds pages together";

export async function waitFor(read, states, timeoutMs = 60_000) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const seen = await read();
    if (states.includes(seen.status)) return seen;
    assert(Date.now() < end, `still ${seen.status} after ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function runChecks(checks) {
  const wanted = process.argv.slice(2);
  let failed = false;
  for (const check of checks) {
    if (wanted.length && !wanted.includes(check.name)) continue;
    let error = "";
    try {
      await check();
    } catch (raised) {
      error = raised?.stack ?? String(raised);
      failed = true;
    }
    console.log(JSON.stringify({ check: check.name, error }));
  }
  process.exit(failed ? 1 : 0);
}
