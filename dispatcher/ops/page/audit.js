// Who changed what, newest first.
import { get } from "./api.js";
import { h } from "./dom.js";
import { count, short, text, time } from "./format.js";
import { poll, table } from "./lists.js";

const SHOWN = 100;

export function create(page) {
  const orders = poll(page, () => get(`v1/ops/audit?limit=${SHOWN}`));
  return {
    title: "Audit",
    seen: orders.seen,
    draw: () => {
      if (orders.problem) return h("p", { class: "problem" }, orders.problem);
      if (!orders.data) return h("p", {}, "Reading…");
      return [
        h("p", {}, `The latest ${count(orders.data.data.length)} orders, newest first${orders.data.has_more ? "; bitladder audit shows more" : ""}.`),
        table("Table of orders", orders.data.data, COLUMNS, (order) => order.id),
      ];
    },
  };
}

const COLUMNS = [
  ["When", (order) => time(order.at)],
  ["Who", (order) => short(order.by, 60)],
  ["Order", (order) => short(order.what, 40)],
  ["On", (order) => h("span", { title: order.on }, short(order.on, 120))],
  ["Reason", (order) => h("span", { title: order.reason }, short(text(order.reason), 200))],
  ["Result", (order) => short(typeof order.result === "string" ? order.result : JSON.stringify(order.result), 120)],
];
