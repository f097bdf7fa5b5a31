// Numbers, times and sums as people read them. What is not known is a dash.

const NONE = "–";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value) {
  return isNumber(value) ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : NONE;
}

export function rate(value) {
  return isNumber(value) ? value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 }) : NONE;
}

export function money(value) {
  return isNumber(value) ? value.toLocaleString("en", { maximumSignificantDigits: 4 }) : NONE;
}

export function seconds(value) {
  if (!isNumber(value)) return NONE;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} days`;
}

export function time(at) {
  return isNumber(at) ? new Date(at * 1000).toLocaleString("sv") : NONE;
}

export const text = (value) => (value === null || value === undefined || value === "" ? NONE : String(value));

// Bound what others wrote; the whole stands in the element's title.
export const short = (value, length = 80) => {
  const whole = text(value);
  return whole.length > length ? `${whole.slice(0, length - 1).replace(/[\ud800-\udbff]$/, "")}…` : whole;
};
