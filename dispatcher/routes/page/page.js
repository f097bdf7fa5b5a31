// Loads this intake's own document. Where a key is required, it is asked for and stays in this page's memory.
const view = document.querySelector("rapi-doc");
const form = document.querySelector("#key");
const problem = document.querySelector("#problem");

if (matchMedia("(prefers-color-scheme: dark)").matches) view.setAttribute("theme", "dark");

async function show(key) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const answer = await fetch("openapi.json", { headers });
  const content = await answer.json();
  if (!answer.ok) {
    form.hidden = false;
    problem.textContent = key ? content.error.message : "";
    return;
  }
  form.hidden = true;
  await customElements.whenDefined("rapi-doc");
  await view.loadSpec(content);
  if (key) view.setApiKey("key", key);
  document.body.dataset.shown = content.info.version;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show(document.querySelector("#secret").value);
});
show("");
