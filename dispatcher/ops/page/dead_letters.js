// Dead letters by error, with what can be done about all of one error.
import { get, pathOf, post } from "./api.js";
import { action, lacking, ordering, outcome } from "./dialog.js";
import { h } from "./dom.js";
import { count, short, text, time } from "./format.js";
import { poll } from "./lists.js";

const SHOWN = 100;

export function create(page) {
  const code = page.query.get("code") ?? "";
  const view = { title: code ? `Dead letters: ${short(code, 60)}` : "Dead letters", said: "", failed: false };
  const all = poll(page, () => get("v1/dead-letters?limit=1"));
  const some = poll(page, () => get(pathOf(["v1", "dead-letters"], { code, limit: SHOWN })));
  view.seen = () => {
    all.seen();
    some.seen();
  };
  // What is said before is counted by the server at that moment, not what this page has seen.
  const ordered = ordering(view, () => Promise.all([all.again(), some.again()]));
  const order = (word, choice, title) => ordered(
    async () => {
      const { chosen } = await post(`v1/dead-letters/${word}`, { ...choice, dry_run: true });
      const lines = word === "release" ? "are queued again, with all their attempts and a new deadline." : "are taken out for good.";
      return { title, lines: [`${count(chosen)} jobs ${lines}`], action: `${word === "release" ? "Release" : "Drop"} ${count(chosen)}`, word: word === "drop" ? String(chosen) : null };
    },
    ({ reason }) => post(`v1/dead-letters/${word}`, { ...choice, reason }),
    (done) => `${count((done.released ?? done.dropped).length)} of ${count(done.chosen)} ${word === "release" ? "released" : "dropped"}.`,
  );
  view.draw = () => {
    const problem = all.problem ?? some.problem;
    if (problem) return h("p", { class: "problem" }, problem);
    if (!all.data || !some.data) return h("p", {}, "Reading…");
    return [outcome(view), groups(page, all.data, order), lacking(page, "ops:write", "releasing and dropping are disabled"), entries(page, some.data, code, order)];
  };
  return view;
}

function groups(page, data, order) {
  const rows = Object.entries(data.by_code).sort(([, left], [, right]) => right - left).slice(0, 50);
  return h("section", { "aria-labelledby": "by-error", key: "groups" },
    h("h2", { id: "by-error" }, `By error: ${count(data.total)} in all`),
    rows.length ? h("table", {}, h("thead", {}, h("tr", {}, ["Error", "Jobs", "Do"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows.map(([code, jobs]) => h("tr", { key: code },
        h("th", { scope: "row" }, h("a", { href: `#/${pathOf(["dead-letters"], { code })}` }, short(code, 60))), h("td", {}, count(jobs)),
        h("td", { class: "actions" }, both(page, { code }, `all with ${short(code, 60)}`, order)))))) : h("p", {}, "There are none."));
}

function both(page, choice, what, order) {
  return [
    action(page, "ops:write", "Release", () => order("release", choice, `Release ${what}?`), { "aria-label": `Release ${what}` }), " ",
    action(page, "ops:write", "Drop", () => order("drop", choice, `Drop ${what}?`), { "aria-label": `Drop ${what}` }),
  ];
}

function entries(page, data, code, order) {
  if (!data.data.length) return null;
  const titles = ["Job", "Since", "Error", "Message", "Queue", "Attempts", "Do"];
  return h("section", { "aria-labelledby": "latest", key: "entries" },
    h("h2", { id: "latest" }, `The latest ${count(data.data.length)} of ${count(data.total)}${code ? " with this error" : ""}`),
    code ? h("p", {}, h("a", { href: "#/dead-letters" }, "Show all errors")) : null,
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of dead letters" },
      h("table", {}, h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", {}, data.data.map((entry) => h("tr", { key: entry.id },
          h("th", { scope: "row" }, h("a", { href: `#/${pathOf(["job", entry.id])}`, title: entry.id }, short(entry.id, 40))), h("td", {}, time(entry.dead_lettered_at)),
          h("td", {}, short(entry.code, 40)), h("td", { title: entry.error?.message }, short(entry.error?.message, 90)), h("td", {}, short(entry.queue, 60)), h("td", {}, text(entry.attempts)),
          h("td", { class: "actions" }, both(page, { ids: [entry.id] }, short(entry.id, 40), order))))))));
}
