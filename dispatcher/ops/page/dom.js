// Elements from plain functions. Text is only ever a text node, so what a tenant wrote cannot become markup.

// Characters that turn the text after them around are shown as what they are: a reason cannot rewrite the line it is in.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;

// h("a", {href: "#/", onclick: f}, "text", child): attributes, handlers as properties, false and null left out.
// `key` keeps an element the same among its siblings; `still` leaves its children to whoever made them.
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  element.handlers = [];
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name.startsWith("on")) {
      element[name] = value;
      element.handlers.push(name);
    } else if (name === "key" || name === "still" || name === "value" || name === "checked") {
      element[name] = value;
    } else if (name === "style") {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  const shown = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...shown.map((child) => (typeof child === "string" ? child.replace(TURNING, "\ufffd") : child)));
  return element;
}

// Make the children of `parent` like `wanted`. What is alike stays in place, and with it focus, selection and scroll.
export function patch(parent, ...wanted) {
  const keyed = new Map();
  for (const node of parent.childNodes) if (node.key !== undefined) keyed.set(node.key, node);
  let place = parent.firstChild;
  for (const next of wanted.flat(Infinity).filter(Boolean)) {
    const known = next.key === undefined ? (place?.key === undefined ? place : null) : keyed.get(next.key);
    if (!known || known.nodeName !== next.nodeName) {
      parent.insertBefore(next, place);
      continue;
    }
    if (known === place) place = place.nextSibling;
    else parent.insertBefore(known, place);
    if (known !== next) align(known, next);
  }
  while (place) {
    const rest = place.nextSibling;
    place.remove();
    place = rest;
  }
}

// `open` is the reader's own.
const KEPT = ["style", "open"];

function align(known, next) {
  if (known.nodeType === Node.TEXT_NODE) {
    if (known.nodeValue !== next.nodeValue) known.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...known.attributes]) if (!next.hasAttribute(name) && !KEPT.includes(name)) known.removeAttribute(name);
  for (const { name, value } of next.attributes) {
    if (name !== "style" && known.getAttribute(name) !== value) known.setAttribute(name, value);
  }
  if (known.style.cssText !== next.style.cssText) known.style.cssText = next.style.cssText;
  for (const name of known.handlers ?? []) known[name] = null;
  for (const name of next.handlers) known[name] = next[name];
  known.handlers = next.handlers;
  if (known.still || next.still) return;
  patch(known, ...next.childNodes);
  // After the children: a list's value is one of its options. What somebody types or chooses now is theirs.
  if ("value" in next && Object.hasOwn(next, "handlers") && known !== document.activeElement) {
    if (known.value !== next.value) known.value = next.value;
    if (known.checked !== next.checked) known.checked = next.checked;
  }
}
