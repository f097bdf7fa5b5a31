// Workers, with what each serves and writes.
import { get } from "./api.js";
import { lacking, ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, rate, seconds, short, text, time } from "./format.js";
import { poll, table } from "./lists.js";
import { drainButton } from "./orders.js";

const SHOWN = 200;

export function create(page) {
  const view = { title: "Workers", said: "", failed: false };
  const workers = poll(page, () => get(`v1/workers?limit=${SHOWN}`));
  view.seen = workers.seen;
  const order = ordering(view, workers.again);
  view.draw = () => {
    if (workers.problem) return h("p", { class: "problem" }, workers.problem);
    if (!workers.data) return h("p", {}, "Reading…");
    const rows = workers.data.data.slice(0, SHOWN);
    return [
      outcome(view),
      h("p", {}, `${count(rows.length)} workers with a lease${workers.data.has_more ? "; there are more" : ""}.`),
      lacking(page, "ops:write", "draining is disabled"),
      table("Table of workers", rows, columns(page, order), (worker) => worker.name),
    ];
  };
  return view;
}

function columns(page, order) {
  return [
    ["Worker", (worker) => h("span", { title: worker.name }, short(worker.name, 30))],
    ["Model", (worker) => short(worker.model, 30)],
    ["Tier", (worker) => short(worker.tier, 30)],
    ["State", (worker) => text(worker.state)],
    ["Host, process", (worker) => `${text(worker.host)}, ${text(worker.pid)}`],
    ["Checkpoint", (worker) => short(worker.checkpoint, 50)],
    ["Jobs, slots", (worker) => `${count(worker.in_flight)} of ${count(worker.slots)}`],
    ["Tokens/s", (worker) => rate(worker.tokens_per_s)],
    ["Ready since", (worker) => time(worker.ready_since)],
    ["Seen", (worker) => (worker.seen_s === undefined ? "–" : `${seconds(worker.seen_s)} ago`)],
    ["Do", (worker) => drainButton(page, { worker: worker.name }, short(worker.name, 60), "It finishes", order)],
  ];
}
