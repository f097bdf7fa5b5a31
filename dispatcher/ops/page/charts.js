// History of the tiers as charts, read again while the page is open; the same figures as a table below them.
import { get } from "./api.js";
import { h } from "./dom.js";
import { count, money, rate, seconds, time } from "./format.js";

const RANGES = [["1h", "1 hour", 10], ["24h", "24 hours", 60], ["30d", "30 days", 600]];
const CHARTS = [
  ["depth", "Waiting jobs", count], ["oldest_age_s", "Age of the oldest job", seconds], ["in_flight", "Jobs in flight", count],
  ["tokens_per_s", "Tokens/s", rate], ["jobs_per_s", "Jobs/s", rate], ["workers", "Workers", count], ["cost_per_hour", "Cost/h", money],
];
// Readable on the light and on the dark ground; the dashes tell them apart without colour, and the seventh from the first.
const COLOURS = ["#2f7de1", "#c2660a", "#0d946b", "#9a52e0", "#dc3d3d", "#0b8ba8"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [4, 4], [1, 4]];
const colour = (number) => COLOURS[number % COLOURS.length];
const dash = (number) => DASHES[(number + Math.floor(number / COLOURS.length)) % DASHES.length];
const HEIGHT = 150;

export function history() {
  const state = { range: RANGES[0], at: 0, plots: [], data: null };
  const buttons = h("p", { class: "actions", role: "group", "aria-label": "Range of the history" });
  const said = h("p");
  const grid = h("div", { class: "charts" });
  const numbers = h("details", {}, h("summary", {}, "The same as a table"), h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of the history" }));
  const root = h("section", { key: "history", "aria-labelledby": "history" }, h("h2", { id: "history" }, "History"), buttons, said, grid, numbers);
  root.still = true;
  const again = async () => {
    state.at = performance.now();
    const { range } = state;
    try {
      const data = await get(`v1/overview/history?range=${range[0]}`);
      if (range !== state.range) return;
      state.data = data;
      said.textContent = "";
    } catch (error) {
      said.textContent = error.message;
      return;
    }
    show(state, grid, numbers.lastChild);
  };
  const chosen = (range) => {
    choose(range);
    buttons.children[RANGES.indexOf(range)].focus();
  };
  const choose = (range) => {
    state.range = range;
    buttons.replaceChildren(...RANGES.map((one) => h("button", { type: "button", "aria-pressed": String(one === range), onclick: () => chosen(one) }, one[1])));
    again();
  };
  choose(state.range);
  const fitted = () => state.data && show(state, grid, numbers.lastChild);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", fitted);
  // It has a width once it is in the page, and another one with the window's.
  let width = 0;
  const sized = new ResizeObserver(() => {
    if (grid.clientWidth === width) return;
    width = grid.clientWidth;
    fitted();
  });
  sized.observe(grid);
  return {
    draw: () => root,
    seen: () => performance.now() - state.at >= state.range[2] * 1000 && again(),
    close: () => {
      clear(state);
      dark.removeEventListener("change", fitted);
      sized.disconnect();
    },
  };
}

function clear(state) {
  for (const plot of state.plots) plot.destroy();
  state.plots = [];
}

// {at: [s], lines: [{name, depth: [], …}]}: a value for each moment, null where none is known.
function linesOf(data) {
  const lines = [];
  const eachS = (values) => values.map((value) => (value === null ? null : value / data.resolution_s));
  for (const { model, tiers } of data.models) {
    for (const tier of tiers) {
      const name = data.models.length > 1 ? `${model} ${tier.tier}` : tier.tier;
      lines.push({ ...tier, name, tokens_per_s: eachS(tier.tokens), jobs_per_s: eachS(tier.jobs) });
    }
  }
  // A young system's charts begin where it began.
  const first = Math.max(0, data.at.findIndex((_, index) => lines.some((line) => line.depth[index] !== null)));
  const fields = ["depth", ...CHARTS.map(([field]) => field)];
  const shown = lines.map((line) => ({ name: line.name, ...Object.fromEntries(fields.map((field) => [field, line[field].slice(first)])) }));
  return { at: data.at.slice(first), lines: shown };
}

function show(state, grid, table) {
  clear(state);
  if (!grid.clientWidth) return;
  const { at, lines } = linesOf(state.data);
  if (!lines.some((line) => known(line.depth).length)) return grid.replaceChildren(h("p", {}, "Nothing is kept of this time yet."));
  const figures = CHARTS.map(([field, title, format]) => figure(state, at, lines, field, title, format));
  grid.replaceChildren(...figures.map(({ element }) => element));
  for (const { plot } of figures) plot();
  table.replaceChildren(sums(lines));
}

function figure(state, at, lines, field, title, format) {
  const place = h("div", { role: "img", "aria-label": `Chart of ${title}; the table below has its figures` });
  const legend = h("div", { class: "legend", "aria-hidden": "true" });
  const label = (index) => {
    const when = index === null ? "" : `${time(at[index])}: `;
    legend.replaceChildren(when, ...lines.map((line, number) => h("span", { style: { "--line": colour(number) } }, `${line.name} ${format(index === null ? latest(line[field]) : line[field][index])}`)));
  };
  const element = h("figure", {}, h("figcaption", {}, title), place, legend);
  const plot = () => {
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue("--quiet"), grid: { stroke: style.getPropertyValue("--faint"), width: 1 }, ticks: { show: false } };
    const options = {
      width: place.clientWidth, height: HEIGHT, legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.05] } },
      axes: [{ ...axis, size: 26, values: (_, values) => values.map((value) => moment(value, at)) }, { ...axis, size: 60, values: (_, values) => values.map((value) => (format === count && value % 1 ? "" : format(value))) }],
      series: [{}, ...lines.map((line, number) => ({ label: line.name, stroke: colour(number), dash: dash(number), width: 2, points: { show: false } }))],
      hooks: { setCursor: [(chart) => label(chart.cursor.idx ?? null)] },
    };
    state.plots.push(new uPlot(options, [at, ...lines.map((line) => line[field])], place));
    label(null);
  };
  return { element, plot };
}

// The day, or the time of the day, by how much the chart spans.
function moment(value, at) {
  const [day, clock] = time(value).split(" ");
  const span = at.at(-1) - at[0];
  return span > 172800 ? day.slice(5) : span < 600 ? clock : clock.slice(0, 5);
}

const known = (values) => values.filter((value) => value !== null);
const latest = (values) => known(values).at(-1);

function sums(lines) {
  const cell = (format, values) => (known(values).length ? `${format(latest(values))} (${format(Math.min(...known(values)))} to ${format(Math.max(...known(values)))})` : "–");
  return h("table", {}, h("caption", {}, "The latest figure of each tier, and the lowest and highest of this range"),
    h("thead", {}, h("tr", {}, ["Tier", ...CHARTS.map(([, title]) => title)].map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, lines.map((line) => h("tr", {}, h("th", { scope: "row" }, line.name), CHARTS.map(([field, , format]) => h("td", {}, cell(format, line[field])))))));
}
