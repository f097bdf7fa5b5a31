// One job: where it is and why, each execution of it, its answer as it is written, what it cost.
import { events, get, pathOf, remove } from "./api.js";
import { action, ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, money, rate, seconds, short, text, time } from "./format.js";
import { poll } from "./lists.js";

const OPEN = ["queued", "running"];
const MAX_CHARS = 20000;

export function create(page) {
  const id = page.part;
  const view = { title: `Job ${short(id, 60)}`, said: "", failed: false };
  let path = pathOf(["v1", "jobs", id]);
  const load = async () => {
    const [job, why] = await Promise.all([get(path), get(`${path}/explain`)]);
    return { job, why };
  };
  const state = poll(page, () => load().catch((error) => {
    if (error.status !== 404 || !/%[0-9A-F]{2}/.test(id) || path.endsWith(`/${id}`)) throw error;
    path = `v1/jobs/${id}`; // its bytes are no text: answers name it as an URL does
    return load();
  }), 2);
  const answer = { text: "", isOpen: false, problem: "", stop: null };
  view.seen = () => (!state.data || OPEN.includes(state.data.job.status)) && state.seen();
  view.close = () => answer.stop?.abort();
  view.draw = () => {
    if (state.problem) return h("p", { class: "problem" }, state.problem);
    if (!state.data) return h("p", {}, "Reading…");
    const { job, why } = state.data;
    return [outcome(view), facts(job, why), orders(page, view, path, job, state), reasons(why), way(job, why), written(page, path, answer)];
  };
  return view;
}

function facts(job, why) {
  const cost = [money(job.cost ?? why.cost)];
  for (const [tier, sum] of Object.entries(why.costs_elsewhere)) cost.push(`${money(sum)} at ${tier}`);
  return section("State", pairs([
    ["State", job.status], ["Queue", job.queue], ["Tier", text(job.tier)], ["Enqueued", time(job.enqueued_at)], ["Attempts", count(job.attempts)], ["Worker", text(job.worker)],
    ["Place in its list", count(job.queue_position)], ["Expected wait", job.expected_wait_ms === undefined ? "–" : seconds(job.expected_wait_ms / 1000)],
    ["Waited", job.queue_ms === undefined ? "–" : seconds(job.queue_ms / 1000)], ["Ran", job.run_ms === undefined ? "–" : seconds(job.run_ms / 1000)],
    ["First token", typeof job.ttft_ms === "number" ? seconds(job.ttft_ms / 1000) : "–"], ["Tokens", job.usage ? `${count(job.usage.prompt_tokens)} in, ${count(job.usage.completion_tokens)} out` : "–"],
    ["Cost", cost.join("; ")], ["Tags", (job.tags ?? []).join(", ") || "–"], ["Metadata", job.metadata ? Object.entries(job.metadata).map(([name, value]) => `${name}: ${value}`).join(", ") : "–"],
    ["Error", job.error ? `${job.error.code ?? "error"}: ${job.error.message}` : "–"],
  ]));
}

function orders(page, view, path, job, state) {
  if (!OPEN.includes(job.status)) return null;
  const running = job.status === "running" ? "Its worker aborts it." : "It has not begun.";
  const question = { title: "Cancel this job?", lines: [running, "Who awaits it is answered at once."], action: "Cancel the job", noReason: true };
  const cancel = () => ordering(view, state.again)(question, () => remove(path), (done) => `Cancellation: ${done.cancellation}.`);
  return h("p", { class: "actions", key: "orders" }, action(page, "submit", "Cancel the job", cancel));
}

function reasons(why) {
  const features = Object.entries(why.features).map(([name, value]) => `${name} ${rate(value)}`).join(", ");
  const expected = why.expected && `${text(why.expected.tier)}, in ${seconds(why.expected.wait_s)}, after ${count(why.expected.jobs_ahead)} jobs`;
  return section("Why here", pairs([
    ["Floor", text(why.floor)], ["Reason", text(why.reason)], ["Policy", text(why.policy)], ["Entropy", why.entropy === null ? "–" : `${why.entropy.toFixed(2)} bits a byte`], ["Features", features || "–"],
    ["May be served by", why.allowed.join(", ") || "–"], ["Below its floor by", why.below_floor.join(", ") || "–"], ["Would be served by", expected ?? "–"],
  ]));
}

// Its way: submitted, each execution that came to nothing, and the tier that it escalated to.
function way(job, why) {
  const steps = [`${time(job.enqueued_at)}: queued for ${text(why.floor)}, lane ${text(why.lane)}`];
  for (const lost of why.executions.slice(0, 50)) {
    steps.push(`${time(lost.at)}: an execution at ${text(lost.tier)} by ${short(lost.worker)} came to nothing: ${text(lost.code)} ${short(lost.error, 300)}`);
  }
  if (why.overflowed_from) steps.push(`escalated from ${why.overflowed_from} to ${text(why.tier)}, which had room`);
  if (why.served_below_floor) steps.push(`served below its floor by ${text(why.tier)}: the request consented`);
  if (job.status === "running") steps.push(`claimed by ${text(job.worker)}`);
  else if (job.status !== "queued") steps.push(`${job.status} at ${text(why.tier)}`);
  return section("Executions and escalations", h("ol", {}, steps.map((step) => h("li", {}, step))));
}

function written(page, path, answer) {
  const watch = async () => {
    answer.stop = new AbortController();
    Object.assign(answer, { isOpen: true, text: "", problem: "" });
    page.redraw();
    try {
      await events(`${path}/stream`, (event) => {
        answer.text = (answer.text + textOf(event.data)).slice(-MAX_CHARS);
        page.redraw();
      }, { signal: answer.stop.signal });
    } catch (error) {
      if (error.name !== "AbortError") answer.problem = error.message;
    }
    answer.isOpen = false;
    page.redraw();
  };
  return section("Its answer", [
    h("p", {}, h("button", { type: "button", onclick: answer.isOpen ? () => answer.stop.abort() : watch }, answer.isOpen ? "Stop" : "Show its stream")),
    answer.problem && h("p", { class: "problem" }, answer.problem),
    answer.text && h("pre", { tabindex: "0", role: "region", "aria-label": "The answer as it is written" }, answer.text),
  ]);
}

// The text in one event of completions, chats, messages and responses.
function textOf(data) {
  if (data === "[DONE]") return "";
  try {
    const chunk = JSON.parse(data);
    const [choice] = chunk.choices ?? [];
    const part = choice?.text ?? choice?.delta?.content ?? (typeof chunk.delta === "string" ? chunk.delta : chunk.delta?.text);
    return part ?? (chunk.error ? `\n[${chunk.error.message}]` : "");
  } catch {
    return "";
  }
}

function section(title, ...content) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  return h("section", { "aria-labelledby": id, key: id }, h("h2", { id }, title), ...content);
}

// What is not known, or not yet, has no row.
function pairs(rows) {
  return h("dl", { class: "pairs" }, rows.filter(([, value]) => value !== "–").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
