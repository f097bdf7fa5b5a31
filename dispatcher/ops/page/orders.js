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
    lines: [scope.startsWith("tier:") ? "Its workers claim nothing more. Higher tiers serve those of its jobs that may go up, the others wait." : "Its jobs wait, and no worker claims them.",
      "What runs goes on. New requests are still accepted."],
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

const ALL = {
  cancel: ["Cancel them", "Those that wait end at once, those that run are aborted by their workers. Who awaits one is answered at once."],
  purge: ["Purge them", "Those that wait are cancelled, and who awaits one is answered at once. Those that run go on."],
  move: ["Move them up", "Those that wait and may be served there go to the end of that tier's queue."],
};

// What is done to all jobs of a filter: counted first by the server, then confirmed with that count. Jobs that come in
// between are left alone: the server knows by `confirm` what was counted.
export function many(page, filter, order) {
  const chosen = Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== ""));
  if (!Object.keys(chosen).length) return h("p", { key: "many", class: "lacking" }, "Filter the jobs to cancel, purge or move all that the filter takes.");
  if (chosen.state) chosen.state = [chosen.state];
  if (chosen.older_than) chosen.older_than = Number(chosen.older_than);
  const tiers = (page.sample?.models ?? []).filter((model) => !chosen.model || model.model === chosen.model).flatMap((model) => model.tiers.map(({ tier }) => tier)).slice(1);
  const button = (word, to) => {
    const [verb, what] = ALL[word];
    const title = to ? `${verb} to ${to}` : verb;
    const send = (more) => post(`v1/ops/${word}`, { filter: chosen, ...(to && { to }), ...more });
    let confirm;
    const ask = async () => {
      const counted = await send({ dry_run: true });
      const jobs = `${count(counted.count)}${counted.has_more ? ", and more after them" : ""}`;
      const where = Object.entries(counted.by_queue).slice(0, 20).map(([queue, number]) => `${count(number)} in ${queue}`).join(", ");
      confirm = counted.confirm;
      return { title: `${title}?`, lines: [`Jobs: ${jobs}${where && ` (${where})`}.`, what], action: `${title} (${count(counted.count)})`, word: String(counted.count) };
    };
    const done = ({ results }) => `${title}: ${Object.entries(results).map(([result, jobs]) => `${count(jobs)} ${result}`).join(", ") || "no jobs"}.`;
    return action(page, "ops:write", title, () => order(ask, ({ reason }) => send({ confirm, dry_run: false, reason }), done));
  };
  return h("section", { "aria-labelledby": "all-of-them", key: "many" }, h("h2", { id: "all-of-them" }, "All jobs of this filter"),
    h("p", { class: "actions" }, button("cancel"), button("purge"), [...new Set(tiers)].slice(0, 10).map((tier) => button("move", tier))),
    lacking(page, "ops:write", "changing jobs is disabled"));
}
