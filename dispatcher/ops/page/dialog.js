// A question before something is changed: what will happen, a reason for the audit list, and a second press.
import { h } from "./dom.js";

const dialog = document.getElementById("dialog");
let settle = () => {}; // the last question

// Resolve to {reason, choice, text}, or to null where it was called off. `word`: it must be typed, for what cannot be undone;
// `choices`: {label, values: [[value, title]]}; `input`: {label, value}; `noReason`: nothing is noted of it.
export function confirm({ title, lines, action, word, choices, input, noReason }) {
  settle(null);
  return new Promise((resolve) => {
    settle = resolve;
    const reason = h("input", { id: "reason", required: true, maxlength: "300", autocomplete: "off" });
    const typed = word && h("input", { id: "word", required: true, autocomplete: "off" });
    const chosen = choices && h("select", { id: "choice" }, choices.values.map(([value, text]) => h("option", { value }, text)));
    const entered = input && h("input", { id: "entered", value: input.value, autocomplete: "off" });
    const problem = h("p", { role: "alert" });
    const done = (event) => {
      event.preventDefault();
      if (word && typed.value.trim() !== word) {
        problem.textContent = `Type ${word} to confirm.`;
        typed.focus();
        return;
      }
      resolve({ reason: reason.value.trim(), choice: chosen?.value, text: entered?.value });
      dialog.close();
    };
    dialog.onclose = () => {
      if (dialog.open) return; // the event comes late: the next question is there
      dialog.replaceChildren();
      resolve(null);
    };
    dialog.replaceChildren(
      h("form", { onsubmit: done },
        h("h2", { id: "dialog-title" }, title),
        lines.map((line) => h("p", {}, line)),
        input && [h("label", { for: "entered" }, input.label), entered],
        noReason ? null : [h("label", { for: "reason" }, "Reason, for the audit list"), reason],
        choices && [h("label", { for: "choice" }, choices.label), chosen],
        word && [h("label", { for: "word" }, "Type ", h("b", {}, word), " to confirm"), typed],
        problem,
        h("p", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), h("button", { class: "danger" }, action)),
      ),
    );
    dialog.showModal();
    dialog.querySelector("input, button.danger").focus();
  });
}

// Return what asks a question, sends an order, and lets the view say what came of it.
export function ordering(view, again) {
  return async (question, send, done) => {
    try {
      const asked = typeof question === "function" ? await question() : question;
      const answer = asked && (await confirm(asked));
      if (!answer) return;
      [view.said, view.failed] = [done(await send(answer)), false];
    } catch (error) {
      [view.said, view.failed] = [error.message, true];
    }
    await again();
  };
}

// A button that is there for everybody, and says why where the key may not use it; the server refuses anyway.
export function action(page, scope, text, onclick, props = {}) {
  const why = page.can(scope) ? null : `this key lacks the scope ${scope}`;
  return h("button", { ...props, type: "button", "aria-disabled": why && "true", title: why, "aria-description": why, onclick: why ? () => {} : onclick }, text);
}

// One visible line for a view's disabled buttons.
export function lacking(page, scope, what) {
  return page.can(scope) ? null : h("p", { class: "lacking" }, `This key lacks the scope ${scope}: ${what}.`);
}

// What came of the last order: read aloud once.
export function outcome(view) {
  return h("p", { key: "outcome", class: view.failed ? "problem" : "done", role: "status" }, view.said ?? "");
}
