// The ladder of each model with its notes, pauses and history.
import { pathOf } from "./api.js";
import { history } from "./charts.js";
import { lacking, ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, money, rate, seconds, short, time } from "./format.js";
import { drainButton, pauseButton, resumeButton } from "./orders.js";

const LANES = ["urgent", "normal", "batch"];

export function create(page) {
  const view = { title: "Overview", said: "", failed: false };
  if (!page.can("ops:read")) {
    view.draw = () => h("p", {}, "This key lacks the scope ops:read, so it sees its own tenant's ", h("a", { href: "#/jobs" }, "jobs"), " only.");
    return view;
  }
  const charts = history(page);
  view.seen = charts.seen;
  view.close = charts.close;
  const order = ordering(view, page.redraw);
  view.draw = () => {
    const { sample } = page;
    if (!sample) return h("p", {}, "Waiting for the first sample…");
    const paused = sample.pauses ?? [];
    return [
      notes(sample),
      outcome(view),
      everything(page, sample, paused, order),
      sample.models.map((model) => ladder(page, model, paused, order)),
      lacking(page, "ops:write", "pausing and draining are disabled"),
      charts.draw(sample),
    ];
  };
  return view;
}

function notes(sample) {
  const items = sample.notes.slice(0, 50).map((note) => {
    const runbook = note.runbook && h("span", { class: "runbook" }, ` docs/operating/alerts/${note.runbook.replace(/^.*\//, "")}`);
    return h("li", { class: note.severity }, h("b", {}, note.severity), ` ${note.text}`, runbook);
  });
  return h("section", { "aria-labelledby": "notes", key: "notes" },
    h("h2", { id: "notes" }, "Notes"),
    items.length ? h("ul", { class: "notes" }, items) : h("p", {}, "Nothing needs you."));
}

function everything(page, sample, paused, order) {
  const dead = sample.dead_letters;
  const all = paused.find((pause) => pause.scope === "all");
  return h("section", { "aria-labelledby": "service", key: "service" },
    h("h2", { id: "service" }, "Service"),
    figures([
      ["Dead letters", h("a", { href: "#/dead-letters" }, count(dead.total)), `${count(dead.added)} in the last 10 minutes`],
      ["Cost today", money(sample.costs_today.attributed), `of ${count(sample.costs_today.requests)} requests (UTC)`],
      ["Rent today", money(sample.costs_today.rent), "of the workers' time, idle or not"],
      ["Redis memory", sample.redis.memory_share === null ? "no limit" : `${Math.round(sample.redis.memory_share * 100)} %`, `version ${sample.redis.version}`],
    ]),
    others(paused).map((pause) => pauseLine(page, pause, order)),
    sample.suspended && !all && h("p", { class: "paused" }, "Everything is suspended: no job is claimed."),
    !all && h("p", { class: "actions" }, pauseButton(page, "all", "everything", order)));
}

const others = (paused) => paused.filter((pause) => !pause.scope.startsWith("tier:"));

// Pauses of a tier stand at its rung, the others above the ladders.
function pauseLine(page, pause, order) {
  const since = pause.since ? ` since ${time(pause.since)}` : "";
  const until = pause.until ? `, until ${time(pause.until)}` : "";
  return h("p", { class: "paused", key: pause.scope }, `Paused: ${short(pause.scope, 200)} by ${short(pause.by)}${since}${until}: ${short(pause.reason, 300)} `, resumeButton(page, pause.scope, order));
}

function ladder(page, model, paused, order) {
  const rungs = [...model.tiers].reverse();
  const deepest = Math.max(1, ...rungs.map((tier) => tier.depth));
  const id = `model-${model.model}`;
  return h("section", { "aria-labelledby": id, key: id },
    h("h2", { id }, model.model),
    h("ol", { class: "ladder", "aria-label": `Tiers of ${model.model}, the top one first` },
      rungs.map((tier) => rung(page, model.model, tier, deepest, paused, order))),
    h("details", {}, h("summary", {}, "Lanes"), h("p", { class: "actions" }, LANES.map((lane) => pauseButton(page, `lane:${model.model}:${lane}`, `lane ${lane}`, order)))));
}

function rung(page, model, tier, deepest, paused, order) {
  const scope = `tier:${model}:${tier.tier}`;
  const pause = paused.find((one) => one.scope === scope);
  const lanes = Object.entries(tier.by_lane).filter(([, lane]) => lane.depth).map(([lane, { depth }]) => `${count(depth)} ${lane}`).join(", ");
  const jobsOf = `#/${pathOf(["jobs"], { model, tier: tier.tier, state: "queued" })}`;
  return h("li", { class: tier.workers ? "rung" : "rung dead", key: scope },
    h("h3", {}, tier.tier, " ", h("small", {}, tier.hardware)),
    h("p", { class: "states" }, states(tier, pause)),
    h("div", { class: "bar", "aria-hidden": "true" }, h("div", { style: { width: `${(100 * tier.depth) / deepest}%` } })),
    figures([
      ["Waiting", h("a", { href: jobsOf, "aria-label": `${count(tier.depth)} jobs that wait for ${tier.tier}` }, count(tier.depth)), lanes],
      ["Oldest", seconds(tier.oldest_age_s)],
      ["Expected wait", seconds(tier.expected_wait_s)],
      ["In flight", `${count(tier.held)} of ${count(tier.slots)}`, "slots"],
      ["Workers", count(tier.workers), tier.workers_not_ready ? `${count(tier.workers_not_ready)} not ready` : ""],
      ["Tokens/s", rate(tier.tokens_per_s)],
      ["Jobs/s", rate(tier.jobs_per_s)],
      ["Cost/h", money(tier.cost_per_hour), `${money(tier.price_per_hour)} a worker`],
    ]),
    pause ? pauseLine(page, pause, order) : null,
    h("p", { class: "actions" },
      !pause && pauseButton(page, scope, tier.tier, order),
      drainButton(page, { model, tier: tier.tier }, tier.tier, `Its ${count(tier.workers)} workers finish`, order)),
    h("ul", { class: "overflow" }, Object.entries(tier.overflow_in).map(([from, jobs]) => overflow(from, tier.tier, jobs))));
}

function states(tier, pause) {
  return [
    pause && h("b", { class: "paused" }, "paused"),
    !tier.workers && h("b", { class: "critical" }, "no live worker"),
    tier.shifted && h("b", { class: "warning" }, "shifted: higher tiers serve its jobs"),
    tier.breaker && tier.breaker !== "closed" && h("b", { class: "warning" }, `breaker ${tier.breaker.replace("_", " ")}`),
    tier.leases_lost ? h("b", { class: "warning" }, `${count(tier.leases_lost)} jobs of lost leases`) : null,
  ];
}

// The arrow moves with the number of jobs; the words beside it say the same.
function overflow(from, to, jobs) {
  const takes = `${Math.max(0.4, 3 - Math.log10(jobs + 1)).toFixed(1)}s`;
  return h("li", { key: from }, h("span", { class: "arrow", "aria-hidden": "true", style: { "--takes": takes } }, "↑"),
    `${count(jobs)} ${jobs === 1 ? "job a minute escalates" : "jobs a minute escalate"} from ${from} to ${to}`);
}

function figures(pairs) {
  return h("dl", { class: "figures" }, pairs.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, ` ${more}`) : null))));
}
