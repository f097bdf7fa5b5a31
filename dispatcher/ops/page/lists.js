// What a view lists: how it is asked for, and the table that it is shown in.
import { h } from "./dom.js";

// What a view asks for beside the stream: at its start, after an order, and every few samples.

export function poll(page, load, everyS = 5) {
  const state = { data: null, problem: null, at: 0 };
  state.again = async () => {
    state.at = performance.now(); // goes on when the clock is set
    try {
      state.data = await load();
      state.problem = null;
    } catch (error) {
      if (error.status === 401) throw error;
      state.problem = error.message;
    }
    page.redraw();
  };
  state.seen = () => performance.now() - state.at >= everyS * 1000 && state.again();
  state.again();
  return state;
}

// `columns`: a title and what to show of a row, each. The first one names the row.
export function table(label, rows, columns, keyOf) {
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label, key: label },
    h("table", {}, h("thead", {}, h("tr", {}, columns.map(([title]) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows.map((row) => h("tr", { key: keyOf(row) },
        columns.map(([, shown], place) => h(place ? "td" : "th", place ? {} : { scope: "row" }, shown(row))))))));
}
