// Tells people what they must know: a notice on top, the state of the connection, and words for screen readers.

import { byId, make } from "./dom.js";

const LINK = { live: "live", away: "server is away", connecting: "connecting" };
const QUIET_MS = 3000;

export function linkState(state) {
  byId("link").dataset.state = state;
  byId("link").querySelector(".word").textContent = LINK[state];
}

/** Show a notice until `clearNotice` or another one; `kind` is away, error or signin. */
export function notice(kind, message, hint = "") {
  const box = byId("notice");
  if (!box.hidden && box.dataset.kind === kind && box.dataset.message === message) return;
  box.dataset.kind = kind;
  box.dataset.message = message;
  const close = make("button", { type: "button", class: "quiet", "aria-label": "Close this notice", onclick: () => { box.hidden = true; } }, "✕");
  const action = kind === "signin" ? make("a", { class: "button", href: "/" }, "Sign in") : kind === "error" && close;
  box.replaceChildren(...[make("p", {}, make("b", {}, message), hint && ` ${hint}`), action].filter(Boolean));
  box.hidden = false;
}

/** Take away the notice, if it is of that kind. */
export function clearNotice(kind) {
  const box = byId("notice");
  if (box.dataset.kind === kind) box.hidden = true;
}

/** Show an error of `api.js`. That the server is away is told by the live connection already. */
export function tell(error) {
  if (error.status === 0) return;
  if (error.status === 401) notice("signin", "You are not signed in.", "The session has ended, or the server is a new one.");
  else if (error.status !== undefined) notice("error", `${error.message}.`, error.hint);
  else throw error;
}

let said_at = 0;
let waiting = null;

/** Let a screen reader say it: the latest of what comes within a few seconds. */
export function announce(text) {
  clearTimeout(waiting);
  const wait_ms = Math.max(0, said_at + QUIET_MS - Date.now());
  waiting = setTimeout(() => { said_at = Date.now(); byId("announce").textContent = text; }, wait_ms);
}
