// The page: who uses it, which view the URL names, and the one stream of samples that all views share.
import { ApiError, events, get, key } from "./api.js";
import { h, patch } from "./dom.js";
import { time } from "./format.js";
import * as audit from "./audit.js";
import * as deadLetters from "./dead_letters.js";
import * as job from "./job.js";
import * as jobs from "./jobs.js";
import * as overview from "./overview.js";
import * as settings from "./settings.js";
import * as tenants from "./tenants.js";
import * as workers from "./workers.js";

const VIEWS = { "": overview, jobs, job, "dead-letters": deadLetters, workers, tenants, settings, audit };
const MENU = [["", "Overview"], ["jobs", "Jobs"], ["dead-letters", "Dead letters"], ["workers", "Workers"], ["tenants", "Tenants"], ["settings", "Settings"], ["audit", "Audit"]];
const LONGEST_PAUSE_MS = 30000;
const ANNOUNCED_EACH_MS = 30000;
const SILENT_MS = 5000;
const byId = (id) => document.getElementById(id);

const page = {
  caller: null,
  sample: null,
  query: new URLSearchParams(),
  part: "",
  // Whether the key has a scope: it only says beforehand what the server would refuse.
  can: (scope) => {
    const scopes = page.caller?.scopes ?? [];
    return scopes.includes(scope) || (scope.startsWith("ops:") && scopes.includes("ops"));
  },
  redraw,
  go: (path, query = {}) => {
    const filled = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    const search = new URLSearchParams(filled).toString();
    location.hash = `#/${path}${search && `?${search}`}`;
  },
};

let view = null;
let name = "";
let isDrawing = false;

function redraw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    draw();
  });
}

function draw() {
  if (!view) return;
  patch(byId("nav"), h("ul", {}, MENU.map(([path, title]) => menuItem(path, title))));
  patch(byId("caller"), callerLine());
  document.title = `${view.title} · bitladder`;
  byId("main").className = page.isStale && page.can("ops:read") ? "stale" : "";
  patch(byId("main"), h("h1", { id: "title", tabindex: "-1" }, view.title), ...[view.draw()].flat(Infinity));
}

function menuItem(path, title) {
  const notes = path === "" && page.sample ? page.sample.notes.filter((note) => note.severity !== "info").length : 0;
  const isHere = path === name || (path === "jobs" && name === "job");
  return h("li", {}, h("a", { href: `#/${path}`, "aria-current": isHere ? "page" : null }, notes ? `${title} (${notes})` : title));
}

function callerLine() {
  if (!page.caller) return [];
  const { name: keyName, tenant, scopes } = page.caller;
  if (!keyName) return h("span", {}, "no key is required");
  return [h("span", { title: `tenant ${tenant}; scopes: ${scopes.join(", ")}` }, `key ${keyName}`), h("button", { onclick: forget }, "Forget the key")];
}

// The view that the URL names.
function route() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, ...rest] = path.split("/");
  view?.close?.();
  name = Object.hasOwn(VIEWS, first) ? first : "";
  page.part = rest.map(decoded).join("/");
  page.query = new URLSearchParams(search);
  view = VIEWS[name].create(page);
  patch(byId("main"));
  draw();
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// Whose key it is; without a valid one the page asks for it and shows nothing else.
async function enter() {
  try {
    page.caller = await get("v1/key");
  } catch (error) {
    if (error.status !== 401) {
      say(`${error.message}; tried again in a moment`, "stale");
      return setTimeout(enter, 3000);
    }
    return askForKey(key.get() ? error.message : "");
  }
  say("");
  route();
  return stream();
}

function askForKey(problem) {
  stop();
  key.set("");
  view?.close?.();
  page.caller = page.sample = view = null; // the next key may see less
  byId("news").textContent = "";
  byId("dialog").close();
  const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true, "aria-describedby": "key-problem" });
  const opened = (event) => {
    event.preventDefault();
    const typed = field.value.trim();
    if (/[^!-~]/.test(typed)) return askForKey("This is no API key: there is a space in it, or a character that is not ASCII.");
    key.set(typed);
    return enter();
  };
  const form = h("form", { class: "key", onsubmit: opened }, h("label", { for: "key" }, "API key"), field, h("button", {}, "Open"));
  byId("main").replaceChildren(
    h("h1", { id: "title" }, "This intake requires an API key"),
    h("p", {}, "It stays in this tab, and is sent to this intake alone. Operators' keys have the scope ops:read, and ops:write to change something."),
    form,
    h("p", { id: "key-problem", role: "alert" }, problem),
  );
  patch(byId("nav"));
  patch(byId("caller"));
  say("");
  field.focus();
}

function forget() {
  askForKey("");
}

// What the key may do can change while the page is open.
addEventListener("unhandledrejection", ({ reason }) => {
  if (reason instanceof ApiError && reason.status === 401) askForKey(reason.message);
});

// One stream for all views. A hidden tab has none.
let running = null;
let heardAt = null; // by the clock that nobody sets; null while no stream is open

function stop() {
  running?.abort();
  running = null;
  heardAt = null;
}

async function stream() {
  stop();
  if (!page.can("ops:read") || document.hidden) return;
  const mine = (running = new AbortController());
  let pause = 1000;
  while (running === mine) {
    let why = "the stream has ended";
    heardAt = performance.now();
    try {
      await events("v1/overview/stream", (event) => {
        if (running !== mine) return;
        heardAt = performance.now();
        pause = 1000;
        if (event.event === "sample") take(JSON.parse(event.data));
        else if (event.event === "problem") stale(JSON.parse(event.data).error.message);
      }, { signal: mine.signal });
    } catch (error) {
      why = error.message;
      if (error.status === 401) return askForKey(why);
    }
    if (running !== mine) return;
    heardAt = null;
    stale(why);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

function stale(why) {
  page.isStale = true;
  say(page.sample ? `stale since ${time(page.sample.at)}: ${why}` : why, "stale");
  redraw();
}

// A connection can die without a word: something comes each second.
setInterval(() => {
  const silent = heardAt === null ? 0 : performance.now() - heardAt;
  if (silent < SILENT_MS) return;
  stale("no sample comes");
  if (silent > 4 * SILENT_MS) stream();
}, 1000);

function take(sample) {
  announce(sample.notes, page.sample?.notes);
  page.sample = sample;
  page.isStale = false;
  say("live", "live");
  view?.seen?.(sample);
  redraw();
}

// A status is read aloud when it changes, so it changes only with the connection.
function say(text, kind = "") {
  const line = byId("connection");
  if (line.textContent !== text) line.textContent = text;
  line.className = kind;
}

let announcedAt = -Infinity;

// New warnings are read aloud, together and at most twice a minute.
function announce(notes, before) {
  const known = new Set((before ?? []).map((note) => note.text));
  const fresh = notes.filter((note) => note.severity !== "info" && !known.has(note.text));
  if (!before || !fresh.length || performance.now() - announcedAt < ANNOUNCED_EACH_MS) return;
  announcedAt = performance.now();
  byId("news").textContent = fresh.slice(0, 3).map((note) => note.text).join("; ");
}

// Without the stream, a view reads again by the clock.
setInterval(() => !document.hidden && page.caller && !page.can("ops:read") && view?.seen?.(), 5000);
addEventListener("visibilitychange", () => (document.hidden ? stop() : page.caller && stream()));
// Who goes to another view hears its name; who opens the page begins at its top.
addEventListener("hashchange", () => {
  if (!page.caller) return;
  route();
  byId("title").focus();
});
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  byId("main").focus();
};
enter();
