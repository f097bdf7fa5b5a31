// Workers, with what each serves and writes.
import { get } from "./api.js";
import { lacking, ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, rate, short, text, time } from "./format.js";
import { poll, table } from "./lists.js";
import { drainButton } from "./orders.js";

const SHOWN = 200;

export function create(page) {
  const view = { title: "Workers", said: "", failed: false };
  const workers = poll(page, () => get("v1/workers"));
  view.seen = workers.seen;
  const order = ordering(view, workers.again);
  view.draw = () => {
    if (workers.problem) return h("p", { class: "problem" }, workers.problem);
    if (!workers.data) return h("p", {}, "Reading…");
    const rows = workers.data.data.slice(0, SHOWN);
    return [
      outcome(view),
      h("p", {}, `${count(rows.length)} of ${count(workers.data.total)} workers that have, or lately had, a lease.`),
      lacking(page, "ops:write", "draining is disabled"),
      table("Table of workers", rows, columns(page, order), (worker) => worker.worker),
    ];
  };
  return view;
}

function columns(page, order) {
  return [
    ["Worker", (worker) => short(worker.worker, 80)],
    ["State", (worker) => worker.state],
    ["Model", (worker) => short(worker.model, 30)],
    ["Tier", (worker) => short(worker.tier, 30)],
    ["Host, process", (worker) => `${text(worker.host)}, ${text(worker.pid)}`],
    ["Checkpoint", (worker) => h("span", { title: worker.checkpoint }, short(worker.checkpoint, 50))],
    ["Jobs, slots", (worker) => `${count(worker.in_flight)} of ${count(worker.slots)}`],
    ["Tokens/s", (worker) => rate(worker.tokens_per_s)],
    ["Ended", (worker) => count(worker.jobs)],
    ["Ready since", (worker) => time(worker.ready_since)],
    ["Version", (worker) => short(worker.version, 20)],
    ["Do", (worker) => drainButton(page, { worker: worker.worker }, short(worker.worker, 80), "It finishes", order)],
  ];
}
