// Wires the page together: the list of streams, the chosen one, and the live events that feed its parts.

import { ask, of } from "./ask.js";
import { byId, make } from "./dom.js";
import { Facts } from "./facts.js";
import { Hour } from "./hour.js";
import { Listening } from "./listening.js";
import { Outages } from "./outages.js";
import { Picture } from "./picture.js";
import { Scene } from "./scene.js";

const LIST_MS = 10_000;
const SERIES_MS = 15_000;

const picture = new Picture();
const scene = new Scene(picture);
const facts = new Facts();
const hour = new Hour();
const outages = new Outages();

let streams = [];
let chosen = null;
let listening = null;
let timers = [];

function link(state, word) {
  byId("link").dataset.state = state;
  byId("link").querySelector(".word").textContent = word;
}

function tell(error) {
  const box = byId("notice");
  if (error.status === 401) {
    box.replaceChildren(make("p", {}, make("b", {}, "The token is no longer accepted."), " "), make("a", { class: "button", href: "./" }, "Sign in"));
    box.hidden = false;
  }
  if (error.status === 0) link("away", "service is away");
}

/** The streams there are, with their states. */
async function list() {
  try {
    ({ streams } = await ask("streams"));
  } catch (error) {
    tell(error);
    return;
  }
  byId("notice").hidden = true;
  if (!chosen) link("live", "connected");
  byId("empty").hidden = streams.length > 0;
  byId("stage").hidden = streams.length === 0;
  byId("address").textContent = document.baseURI.split(/[?#]/)[0].replace(/[^/]*$/, "");
  drawTabs();
  const wanted = streams.find(({ name }) => name === nameInAddress()) ?? streams[0];
  if (wanted?.name !== chosen?.name) choose(wanted ?? null);
  else if (wanted) facts.view(wanted);
}

function drawTabs() {
  const nav = byId("streams");
  nav.hidden = streams.length < 2;
  const links = streams.map(({ name, state }) => make("a", { href: `#${name}`, "aria-current": name === nameInAddress() || (!nameInAddress() && name === streams[0].name) ? "page" : null },
    make("span", { class: "dot", "data-state": state }), name, make("span", { class: "visually-hidden" }, ` (${state})`)));
  const focused = [...nav.children].indexOf(document.activeElement);
  nav.replaceChildren(...links);
  if (focused >= 0) links[focused]?.focus();
}

const nameInAddress = () => decodeURIComponent(location.hash.slice(1));

function choose(view) {
  sleep();
  chosen = view;
  if (!view) return;
  document.title = `${view.name}: buoy live`;
  byId("title").textContent = `Live: ${view.name}`;
  picture.choose(view.name);
  scene.choose(view);
  facts.choose(view);
  outages.choose(view.name);
  if (!document.hidden) wake();
}

/** The page can be seen: listen, and look at what has happened meanwhile. */
function wake() {
  if (!chosen || listening) return;
  const { name } = chosen;
  listening = new Listening(name, {
    open() { link("live", "connected"); scene.connected(true); },
    away() { link("away", "connecting again"); scene.connected(false); },
    frame(event) { scene.frame(event); facts.frame(event); },
    state(event) { scene.state(event); facts.counts(event.counts); mark(event); },
    gap() { outages.refresh(); history(); },
    alert(event) { facts.alert(event); },
    counts(event) { facts.counts(event.counts); },
    missed() {},
  });
  history();
  outages.refresh();
  timers = [setInterval(history, SERIES_MS), setInterval(() => scene.tick(), 1000)];
}

/** Nobody looks: leave nothing open, so that many tabs cost the service nothing. */
function sleep() {
  listening?.close();
  listening = null;
  timers.forEach(clearInterval);
  picture.show(false);
}

function mark({ state }) {
  const view = streams.find(({ name }) => name === chosen?.name);
  if (view) view.state = state;
  drawTabs();
}

async function history() {
  const name = chosen?.name;
  try {
    const [series, { gaps }] = await Promise.all([ask(of(name, "series", { window: 1, since: new Date(Date.now() - 3_660_000).toISOString() })), ask(of(name, "gaps"))]);
    if (name !== chosen?.name) return;
    outages.show(gaps);
    hour.show(minutesOf(series.rows), gaps.map(({ begin, end }) => ({ begin: Date.parse(begin), end: end && Date.parse(end) })), chosen.labels);
  } catch (error) {
    tell(error);
  }
}

/** Rows of a label and a minute each, as minutes with all their labels. */
function minutesOf(rows) {
  const minutes = new Map();
  for (const row of rows) {
    const begin = Date.parse(row.time_utc);
    if (!minutes.has(begin)) minutes.set(begin, { begin, frames: row.frames, observed_s: row.seconds_observed, counts: {} });
    if (row.maxn !== null) minutes.get(begin).counts[row.taxon] = row.maxn;
  }
  return [...minutes.values()].sort((a, b) => a.begin - b.begin);
}

document.addEventListener("visibilitychange", () => (document.hidden ? sleep() : (list(), wake())));
addEventListener("hashchange", () => { list(); });
addEventListener("pagehide", sleep);
addEventListener("pageshow", (event) => event.persisted && wake());
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the stream
  byId("main").focus();
});
setInterval(() => !document.hidden && list(), LIST_MS);
// only after the page has loaded: a picture that never ends would keep the browser "loading" for ever
if (document.readyState === "complete") list();
else addEventListener("load", () => setTimeout(list), { once: true });
