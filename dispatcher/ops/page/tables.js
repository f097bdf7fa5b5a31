// A table of rows that scrolls by itself where the window is narrow.
import { h } from "./dom.js";

// `columns`: a title and what to show of a row, each. The first one names the row.
export function table(label, rows, columns, keyOf) {
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label, key: label },
    h("table", {}, h("thead", {}, h("tr", {}, columns.map(([title]) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows.map((row) => h("tr", { key: keyOf(row) },
        columns.map(([, shown], place) => h(place ? "td" : "th", place ? {} : { scope: "row" }, shown(row))))))));
}
