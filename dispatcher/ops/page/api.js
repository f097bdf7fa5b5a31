// Requests to the intake that served this page, with the key that was typed, which this tab alone keeps.

const KEPT = "bitladder.key";

export const key = {
  get: () => sessionStorage.getItem(KEPT) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEPT, text) : sessionStorage.removeItem(KEPT)),
};

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// Paths have no slash before them: the page may lie below a proxy's prefix.
export async function call(method, path, body, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: options.signal };
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...sent, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "the intake does not answer");
  }
  if (answer.ok) return answer;
  const problem = (await answer.json().catch(() => null))?.error;
  throw new ApiError(answer.status, problem?.code ?? null, problem?.message ?? `the intake answered ${answer.status}`);
}

export const get = async (path, options) => (await call("GET", path, undefined, options)).json();
export const post = async (path, body) => (await call("POST", path, body)).json();
export const change = async (path, body) => (await call("PATCH", path, body)).json();
export const remove = async (path) => (await call("DELETE", path)).json();

// Path of parts and query, everything quoted; what is empty is left out of the query.
export function pathOf(parts, query = {}) {
  const filled = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(filled).toString();
  return parts.map(encodeURIComponent).join("/") + (search && `?${search}`);
}

// Server-sent events over fetch, which unlike EventSource can send a key; `seen` takes each {event, data, id}.
export async function events(path, seen, options) {
  const answer = await call("GET", path, undefined, { headers: { Accept: "text/event-stream" }, ...options });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const event = { event: "message", data: "", id: "" };
      for (const line of part.split("\n")) {
        const [, name, content] = line.match(/^(event|data|id): ?(.*)$/) ?? [];
        if (name) event[name] = name === "data" && event.data ? `${event.data}\n${content}` : content;
      }
      if (event.data) seen(event);
    }
  }
}
