// Tenants: what each has waiting and running, and what its requests have cost.
import { get } from "./api.js";
import { lacking, ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, money, short } from "./format.js";
import { poll, table } from "./lists.js";
import { pauseButton } from "./orders.js";

const SHOWN = 200;
const DAYS = [1, 7, 30];

export function create(page) {
  const days = DAYS.includes(Number(page.query.get("days"))) ? Number(page.query.get("days")) : 7;
  const view = { title: "Tenants and costs", said: "", failed: false };
  const tenants = page.can("ops:read") ? poll(page, () => get("v1/tenants")) : null;
  const order = ordering(view, () => tenants.again());
  const costs = ["tenant", "tier"].map((by) => [by, poll(page, () => get(`v1/costs?by=${by}&days=${days}`), 30)]);
  view.seen = () => {
    tenants?.seen();
    for (const [, cost] of costs) cost.seen();
  };
  view.draw = () => [
    outcome(view),
    tenants && part("waiting", "Jobs now", tenants, (data) => [
      h("p", {}, `${count(Math.min(data.data.length, SHOWN))} of ${count(data.total)} tenants with a key, jobs or costs of today (${data.day}, UTC).`),
      lacking(page, "ops:write", "pausing a tenant is disabled"),
      table("Table of tenants", data.data.slice(0, SHOWN), tenantColumns(page, order), (row) => row.tenant),
    ]),
    h("p", { key: "days" }, "Costs of ", DAYS.map((day) => [h("a", { href: `#/tenants?days=${day}`, "aria-current": day === days ? "true" : null }, day === 1 ? "today" : `${day} days`), " "]), "(UTC, today included)"),
    costs.map(([by, cost]) => part(`by-${by}`, `Costs by ${by}`, cost, (data) => [
      table(`Table of costs by ${by}`, data.data.slice(0, SHOWN), [...NAMED[by], ...COST], (row) => `${row.tenant} ${row.model} ${row.tier}`),
      h("p", {}, `In all: ${money(data.total.attributed)} of ${count(data.total.requests)} requests, ${data.since} to ${data.until}.`),
    ])),
  ];
  return view;
}

const NAMED = {
  tenant: [["Tenant", (row) => h("span", { title: row.tenant }, short(row.tenant || "(rent)", 60))]],
  tier: [["Tier", (row) => short(row.tier, 40)], ["Model", (row) => short(row.model, 40)]],
};
const COST = [
  ["Requests", (row) => count(row.requests)], ["Tokens", (row) => count(row.tokens)], ["Cost", (row) => money(row.attributed)], ["Rent", (row) => money(row.rent)],
  ["All on the top tier", (row) => money(row.all_on_top_tier)], ["Saved a request", (row) => money(row.saving_per_request)],
];
const tenantColumns = (page, order) => [
  ["Tenant", (row) => h("a", { href: `#/jobs?${new URLSearchParams({ tenant: row.tenant })}`, title: row.tenant }, short(row.tenant, 60))],
  ["Waiting", (row) => count(row.waiting)], ["Running", (row) => count(row.running)], ["Limit", (row) => count(row.limit)], ["Weight", (row) => count(row.weight)],
  ["Cost today", (row) => money(row.cost_today)], ["Jobs today", (row) => count(row.jobs_today)], ["Tokens today", (row) => count(row.tokens_today)],
  ["Keys", (row) => short(row.keys.join(", "), 60)], ["Do", (row) => pauseButton(page, `tenant:${row.tenant}`, row.tenant, order)],
];

function part(id, title, state, shown) {
  return h("section", { "aria-labelledby": id, key: id }, h("h2", { id }, title), state.problem ? h("p", { class: "problem" }, state.problem) : state.data ? shown(state.data) : h("p", {}, "Reading…"));
}
