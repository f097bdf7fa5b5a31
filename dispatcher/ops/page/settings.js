// Settings that change while all processes run: marks, slots, policies, prices; who changed them, when and why.
import { change, get } from "./api.js";
import { action, lacking, ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, short, time } from "./format.js";
import { poll, table } from "./lists.js";

const SHOWN = 200;
const PATH = "v1/settings";

export function create(page) {
  const view = { title: "Settings", said: "", failed: false };
  const words = (page.query.get("has") ?? "").toLowerCase();
  const settings = poll(page, () => get(PATH));
  const order = ordering(view, settings.again);
  view.seen = settings.seen;
  view.draw = () => {
    if (settings.problem) return h("p", { class: "problem" }, settings.problem);
    if (!settings.data) return h("p", {}, "Reading…");
    const { data, problem, revision } = settings.data;
    const rows = data.filter((row) => row.key.toLowerCase().includes(words));
    return [
      problem && h("p", { class: "problem" }, `What Redis has is refused: ${problem}`),
      outcome(view),
      search(page, words),
      h("p", {}, `${count(Math.min(rows.length, SHOWN))} of ${count(data.length)} settings that may change now; ${count(data.filter((row) => row.live).length)} are changed.`),
      lacking(page, "ops:write", "changing settings is disabled"),
      table("Table of settings", rows.slice(0, SHOWN), columns(page, revision, order), (row) => row.key),
    ];
  };
  return view;
}

function search(page, words) {
  const changed = (event) => {
    event.preventDefault();
    page.go("settings", { has: new FormData(event.target).get("has").trim() });
  };
  return h("form", { class: "search", role: "search", "aria-label": "Find settings", onsubmit: changed, key: "search", still: true },
    h("label", { for: "has" }, "Name has"), h("input", { id: "has", name: "has", value: words, autocomplete: "off" }), h("button", {}, "Filter"));
}

function columns(page, revision, order) {
  const done = ({ changes }) => changes.map((one) => `${one.key}: ${shown(one.old)} is now ${shown(one.new)}.`).join(" ");
  const set = (row) => order(
    { title: `Change ${row.key}?`, lines: ["All intakes and workers take it within seconds, if it fits the other settings."], input: { label: "Value, as JSON", value: JSON.stringify(row.value) }, action: "Change" },
    ({ reason, text }) => change(PATH, { set: { [row.key]: read(text) }, reason, revision }), done);
  const unset = (row) => order(
    { title: `Take the change of ${row.key} back?`, lines: [`It becomes ${shown(row.configured)}, as the other sources say.`], action: "Take back" },
    ({ reason }) => change(PATH, { unset: [row.key], reason, revision }), done);
  return [
    ["Setting", (row) => row.key], ["Value", (row) => shown(row.value)], ["Without the change", (row) => (row.live ? shown(row.configured) : "")], ["From", (row) => short(row.source, 60)],
    ["Changed", (row) => (row.live ? short(`${time(row.live.at)} by ${row.live.by}: ${row.live.reason}`, 160) : "")],
    ["Do", (row) => [
      action(page, "ops:write", "Change", () => set(row), { "aria-label": `Change ${row.key}` }), " ",
      row.live && action(page, "ops:write", "Take back", () => unset(row), { "aria-label": `Take back ${row.key}` }),
    ]],
  ];
}

const shown = (value) => short(JSON.stringify(value), 80);

// What is no JSON is a text: who means one, need not quote it.
function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
