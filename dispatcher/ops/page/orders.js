// Buttons that change something, wherever they stand.
import { post } from "./api.js";
import { action, lacking } from "./dialog.js";
import { h } from "./dom.js";
import { count } from "./format.js";

const DURATIONS = { label: "Until", values: [["", "it is resumed"], ["600", "10 minutes from now"], ["3600", "an hour from now"], ["86400", "a day from now"]] };

// `scope`: as the answers of the intake name it: all, tier:<model>:<tier>, lane:<model>:<lane>, tenant:<tenant>.
export function pauseButton(page, scope, title, order) {
  const question = {
    title: `Pause ${title}?`, action: "Pause", choices: DURATIONS, word: scope === "all" ? "everything" : null,
    lines: ["Jobs that wait stay in their queues, and no worker claims them. Those that run go on.", "New requests are still accepted, as far as the queues have room."],
  };
  const send = ({ reason, choice }) => post("v1/ops/pause", { scope, reason, ...(choice && { for_s: Number(choice) }) });
  return action(page, "ops:write", `Pause ${title}`, () => order(question, send, () => `Paused: ${title}.`));
}

export function resumeButton(page, scope, order) {
  const question = { title: `Resume ${scope}?`, lines: ["Its jobs are claimed again."], action: "Resume" };
  return action(page, "ops:write", `Resume ${scope}`, () => order(question, ({ reason }) => post("v1/ops/resume", { scope, reason }), () => `Resumed: ${scope}.`));
}

// `which`: {worker} or {model, tier}; `who`: who finishes, as the beginning of a sentence.
export function drainButton(page, which, title, who, order) {
  const question = { title: `Drain ${title}?`, lines: [`${who} the jobs they hold, claim no more, and end. What starts workers here may start others.`], action: "Drain", word: which.tier ?? null };
  const done = ({ workers }) => `${count(workers.length)} ${workers.length === 1 ? "worker drains" : "workers drain"}.`;
  return action(page, "ops:write", `Drain ${title}`, () => order(question, ({ reason }) => post("v1/ops/drain", { ...which, reason }), done));
}

// What is done to all jobs of a filter: counted first by the server, then confirmed with that count.
export function many(page, filter, order) {
  const chosen = Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== ""));
  if (!Object.keys(chosen).length) return h("p", { key: "many", class: "lacking" }, "Filter the jobs to cancel or purge all that the filter finds.");
  const choose = (word, title, lines) => order(
    async () => {
      const seen = await post(`v1/ops/${word}`, { filter: chosen, dry_run: true });
      return { title: `${title}?`, lines: [`${count(seen.chosen)} jobs: ${lines}`], action: `${title} (${count(seen.chosen)})`, word: String(seen.chosen) };
    },
    ({ reason }) => post(`v1/ops/${word}`, { filter: chosen, dry_run: false, reason }),
    (done) => `${count(done.done)} of ${count(done.chosen)} jobs: done.`,
  );
  return h("section", { "aria-labelledby": "many", key: "many" }, h("h2", { id: "many" }, "All jobs of this filter"),
    h("p", { class: "actions" },
      action(page, "ops:write", "Cancel them", () => choose("cancel", "Cancel them", "those that wait end at once, those that run are aborted.")),
      action(page, "ops:write", "Purge them", () => choose("purge", "Purge them", "those that wait are taken out of their queues."))),
    lacking(page, "ops:write", "changing jobs is disabled"));
}
