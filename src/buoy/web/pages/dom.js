// Makes elements. Text of any origin goes in as text nodes and attributes, never as markup: file names are hostile.

/** An element with attributes, listeners (`onclick: f`) and children; `null` and `false` children are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element of that id, which index.html has. */
export const byId = (id) => document.getElementById(id);

/** Run `task` once, in the next frame that is drawn (or soon, in a hidden tab), however often it is asked for. */
export function oncePerFrame(task) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => { asked = false; task(); };
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
}

/** Run `task` at once, then at most every `pause_ms` while it is asked for; never two at a time. */
export function atMostEvery(pause_ms, task) {
  let asked = false;
  let busy = false;
  const run = async () => {
    asked = false;
    busy = true;
    try {
      await task();
    } finally {
      setTimeout(() => { busy = false; if (asked) run(); }, pause_ms);
    }
  };
  return () => { if (busy) asked = true; else run(); };
}

/** A button that copies what `text()` gives; where the browser forbids that (plain HTTP), it selects `shown`. */
export function copyButton(text, shown) {
  const button = make("button", { type: "button", class: "quiet" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(shown);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}
