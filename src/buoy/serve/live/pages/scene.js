// The picture with what must be said over it: whether it is live, since when it is not, and why.

import { byId, make } from "./dom.js";
import { duration } from "./format.js";

const WORDS = { live: "live", connecting: "connecting", gap: "no picture", refused: "refused", ended: "ended", away: "not connected", late: "late", frozen: "frozen" };
const OUTAGES = {
  connecting: "Waiting for the camera",
  gap: "No picture from the camera",
  refused: "This stream cannot be opened",
  ended: "This stream has ended",
  away: "The connection to the service is lost",
  late: "Nothing new has come",
};
/** States in which there is a picture to look at. That it is frozen is said beside it. */
const MOVES = ["live", "frozen"];
/** A frame that is not followed by another within this time is old, whatever the state says. */
const LATE_MS = 6000;
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export class Scene {
  constructor(picture) {
    this._picture = picture;
    this._connected = true;
    this._scene = byId("scene");
    const full = byId("full");
    full.hidden = !document.fullscreenEnabled;
    full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : this._scene.requestFullscreen()));
    document.addEventListener("fullscreenchange", () => {
      full.setAttribute("aria-pressed", String(Boolean(document.fullscreenElement)));
      full.textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
    });
  }

  choose(view) {
    this._every_ms = view.spec.every_s * 1000;
    this._told = "";
    this._frozen = Boolean(view.latest?.flags.includes("frozen"));
    byId("place").textContent = [view.spec.station, view.spec.camera].filter(Boolean).join(", ") || view.name;
    byId("taken").textContent = "";
    if (view.latest) this._picture.size(view.latest.width, view.latest.height);
    this._framed_at = view.latest ? Date.now() : null;
    this.state(view);
  }

  connected(yes) {
    this._connected = yes;
    this.tick();
  }

  state({ state, reason, since }) {
    if (state === "live" && this._state !== "live") this._framed_at = Date.now();
    this._state = state;
    this._reason = reason;
    this._since = Date.parse(since);
    this.tick();
  }

  frame({ record, lag_ms }) {
    const { frame, width, height } = record.input;
    this._framed_at = Date.now();
    const frozen = Boolean(frame.flags?.includes("frozen"));
    const told = frozen === this._frozen;
    this._frozen = frozen;
    this._captured = Date.parse(frame.captured);
    this._picture.size(width, height);
    byId("taken").textContent = `${CLOCK.format(this._captured)}, looked at ${duration(lag_ms / 1000)} later`;
    if (!told || !MOVES.includes(this._shown)) this.tick();
    this._picture.describe(spoken(record));
  }

  /** What is true by now: called every second, as silence is told by nobody. */
  tick() {
    const state = this._now();
    const moves = MOVES.includes(state);
    this._shown = state;
    this._scene.dataset.state = state;
    byId("state-word").textContent = WORDS[state];
    this._scene.classList.toggle("old", !moves);
    if (!moves) byId("now").replaceChildren(make("li", { class: "none" }, "Not known now"));
    byId("outage").hidden = moves;
    if (!moves) this._tell(state);
    else this._told = "";
    this._picture.show(moves || state === "late" || (state === "connecting" && this._connected));
  }

  _now() {
    if (!this._connected) return "away";
    if (this._state !== "live") return this._state;
    const patience = Math.max(LATE_MS, 2.5 * this._every_ms);
    return Date.now() - (this._framed_at ?? Date.now()) > patience ? "late" : this._frozen ? "frozen" : "live";
  }

  _tell(state) {
    const since = state === "late" || state === "away" ? (this._framed_at ?? this._since) : this._since;
    const reason = { late: "The camera is connected, but no frame has been looked at.", away: "Trying again by itself." }[state] ?? sentence(this._reason);
    const spent = (Date.now() - since) / 1000;
    const text = state === "ended" ? `at ${CLOCK.format(since)}` : `since ${CLOCK.format(since)}, ${long(spent)}`;
    byId("outage-since").textContent = Number.isFinite(spent) ? text : "";
    if (this._told === state + reason) return; // a screen reader hears it once
    this._told = state + reason;
    byId("outage-what").textContent = OUTAGES[state];
    byId("outage-why").textContent = reason;
  }
}

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "").replace(/\.\.$/, ".");

function long(seconds) {
  if (seconds < 100) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return duration(seconds);
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

function spoken({ detections = [], input }) {
  const many = new Map();
  detections.forEach(({ label }) => many.set(label, (many.get(label) ?? 0) + 1));
  return `Live picture of ${input.frame.stream}: ${[...many].map(([label, times]) => `${times} ${label}`).join(", ") || "nothing found"}`;
}
