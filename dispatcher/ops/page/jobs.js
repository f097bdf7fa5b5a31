// Jobs, newest first, by filters that stand in the URL.
import { get, pathOf } from "./api.js";
import { ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, money, seconds, short, text, time } from "./format.js";
import { poll } from "./lists.js";
import { many } from "./orders.js";

const STATES = ["queued", "running", "finished", "failed", "cancelled", "expired"];
const LANES = ["urgent", "normal", "batch"];
const FILTERS = [
  ["state", "State", STATES], ["model", "Model"], ["tier", "Tier"], ["lane", "Lane", LANES], ["tenant", "Tenant"], ["tag", "Tag"],
  ["batch", "Batch"], ["key", "Idempotency key"], ["error", "Error code"], ["older_than", "Older than (s)"],
];
const ROWS_EACH = 50;
const MAX_ROWS = 300;

export function create(page) {
  const filter = Object.fromEntries(FILTERS.map(([name]) => [name, page.query.get(name) ?? ""]));
  const view = { title: "Jobs", said: "", failed: false };
  let more = [];
  let cursor = null;
  let left = 0;
  const first = poll(page, () => get(pathOf(["v1", "jobs"], { ...filter, limit: ROWS_EACH })));
  // The first rows are read anew while nobody has gone on from them.
  view.seen = () => cursor === null && first.seen();
  const goOn = async () => {
    const next = await get(pathOf(["v1", "jobs"], { ...filter, limit: ROWS_EACH, after: cursor ?? first.data.next_cursor })).catch((error) => ({ problem: error.message }));
    if (next.problem) {
      [view.said, view.failed] = [next.problem, true];
    } else {
      more = [...more, ...next.data];
      left = Math.max(0, first.data.data.length + more.length - MAX_ROWS);
      cursor = next.has_more ? next.next_cursor : false;
    }
    page.redraw();
  };
  view.draw = () => [form(page, filter), search(page), outcome(view), list(page, first, more, left, cursor, goOn), many(page, filter, ordering(view, first.again))];
  return view;
}

function form(page, filter) {
  const changed = (event) => {
    event.preventDefault();
    page.go("jobs", Object.fromEntries([...new FormData(event.target)].map(([name, value]) => [name, value.trim()])));
  };
  const fields = FILTERS.map(([name, title, choices]) => h("div", {}, h("label", { for: `filter-${name}` }, title), field(name, filter[name], choices)));
  return h("form", { class: "filters", role: "search", "aria-label": "Filter jobs", onsubmit: changed, key: "filters", still: true }, fields,
    h("div", { class: "actions" }, h("button", {}, "Filter"), h("a", { href: "#/jobs" }, "Clear")));
}

function field(name, value, choices) {
  const id = `filter-${name}`;
  if (!choices) return h("input", { id, name, value, autocomplete: "off" });
  return h("select", { id, name }, h("option", { value: "" }, "any"), choices.map((choice) => h("option", { value: choice, selected: choice === value }, choice)));
}

function search(page) {
  const opened = (event) => {
    event.preventDefault();
    const id = new FormData(event.target).get("id").trim();
    if (id) page.go(pathOf(["job", id]));
  };
  return h("form", { class: "search", onsubmit: opened, key: "search", still: true }, h("label", { for: "job-id" }, "Job id"),
    h("input", { id: "job-id", name: "id", autocomplete: "off" }), h("button", {}, "Show the job"));
}

function list(page, first, more, left, cursor, goOn) {
  if (first.problem) return h("p", { class: "problem" }, first.problem);
  if (!first.data) return h("p", {}, "Reading…");
  const rows = [...first.data.data, ...more].slice(left);
  const hasMore = cursor === null ? first.data.has_more : cursor !== false;
  const { looked_at: looked, counts, counted } = first.data;
  const sums = counts && `${Object.entries(counts).map(([state, jobs]) => `${count(jobs)} ${state.replaceAll("_", " ")}`).join(", ")}: ${counted}, whatever else is filtered.`;
  return h("section", { "aria-label": "Jobs", key: "list" },
    sums && h("p", {}, sums),
    h("p", {}, `${count(rows.length)} shown${typeof looked === "number" ? `, of ${count(looked)} looked at` : ""}, newest first${hasMore ? "; there are more" : ""}${left ? `; the first ${count(left)} are left out here` : ""}.`),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of jobs" }, table(rows)),
    hasMore && h("p", {}, h("button", { type: "button", onclick: goOn }, "Load more")));
}

function table(rows) {
  const titles = ["Job", "State", "Model", "Tier", "Lane", "Tenant", "Tags", "Created", "Age", "Tries", "Worker", "Error", "Cost"];
  return h("table", {}, h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, rows.map((row) => h("tr", { key: row.id }, cells(row)))));
}

function cells(row) {
  const tier = row.tier && row.tier !== row.floor ? `${text(row.floor)} → ${row.tier}` : text(row.tier ?? row.floor);
  const tags = (row.tags ?? []).join(", ");
  return [
    h("th", { scope: "row" }, h("a", { href: `#/${pathOf(["job", row.id])}`, title: row.id }, short(row.id, 40))),
    h("td", { class: row.state }, row.state), h("td", {}, short(row.model, 30)), h("td", {}, short(tier, 40)), h("td", {}, short(row.lane)),
    h("td", { title: row.tenant }, short(row.tenant, 30)), h("td", { title: tags }, short(tags, 30)), h("td", {}, time(row.created_at)), h("td", {}, seconds(row.age_s)),
    h("td", {}, count(row.attempts)), h("td", { title: row.worker }, short(row.worker, 24)),
    h("td", { title: row.error?.message }, row.error ? short(`${row.error.code ?? "error"}: ${row.error.message}`, 60) : ""), h("td", {}, money(row.cost)),
  ];
}
