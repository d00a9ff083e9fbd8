// The batch runs of this machine: how far each is, asked for while somebody looks.

import * as api from "./api.js";
import { byId, make } from "./dom.js";
import { DEMO, number } from "./format.js";
import { tell } from "./notice.js";

const EVERY_MS = 2000;
/** A run that goes on is looked at by its command every few seconds. */
const SILENT_S = 60;
const WORD = { running: "running", paused: "paused", cancelled: "cancelled", done: "done" };
const KIND = { running: "running", paused: "waiting", cancelled: "failed", done: "done" };

export class Runs {
  constructor() {
    this._visible = false;
    this._shown = "";
    this._next = 0;
  }

  /** Ask again and again as long as the view is there to be seen. */
  visible(yes) {
    this._visible = yes;
    clearTimeout(this._next);
    if (yes) this._ask();
  }

  async _ask() {
    if (!document.hidden) {
      try {
        const { runs } = await api.runs();
        const text = JSON.stringify(runs);
        if (text !== this._shown) this._show(runs);
        this._shown = text;
      } catch (error) {
        if (error.status) tell(error); // that the server is away is said by the live connection
      }
    }
    if (this._visible) this._next = setTimeout(() => this._ask(), EVERY_MS);
  }

  _show(runs) {
    const empty = make("div", { class: "empty" }, make("h3", {}, "No run yet"),
      make("p", {}, "buoy batch run MODEL SOURCE --out PLACE looks at a whole bucket or folder; its progress is shown here."));
    byId("run-list").replaceChildren(...(runs.length ? runs.map(card) : [empty]));
  }
}

/** One run. */
function card(run) {
  const silent = run.state === "running" && run.age_s > SILENT_S;
  const name = make("h2", {}, run.run);
  const bar = make("progress", { max: Math.max(1, run.objects), value: run.done, "aria-label": `progress of ${run.run}` });
  const failures = Object.entries(run.failures_by_class ?? {});
  const fates = ["changed", "deleted"].filter((fate) => run.counts?.[fate]).map((fate) => [fate, run.counts[fate]]);
  return make("article", { class: "service run", "data-run": run.run },
    make("p", { class: "operation", "data-state": silent ? "waiting" : KIND[run.state] ?? "running" },
      make("span", { class: "pill" }, silent ? "nobody looks after it" : WORD[run.state] ?? run.state),
      make("span", { class: "faint" }, silent ? `last seen ${span(run.age_s)} ago: give the same command again` : run.reason || run.waits || "")),
    name,
    run.maturity === "demo" && make("p", { class: "badge demo" }, DEMO),
    make("p", { class: "run-bar" }, bar, make("b", {}, `${number(run.done)} of ${number(run.objects)}`), " objects"),
    make("dl", {},
      row("Rate", run.objects_per_s ? `${run.objects_per_s} objects/s` : "", run.state === "running"),
      row("Left", run.eta_s && `${span(run.eta_s.p10)} to ${span(run.eta_s.p90)}`, run.state === "running"),
      row("Workers", number(run.workers?.length ?? 0), run.state === "running"),
      row("Failed", [...failures, ...fates].map(([what, many]) => `${number(many)} ${what}`).join(", ")),
      row("Retries", Object.entries(run.retries ?? {}).map(([what, many]) => `${number(many)} ${what}`).join(", ")),
      row("Busy", run.efficiency != null && `${Math.round(run.efficiency * 100)} % of ${span(run.paid_s)} of workers`),
      row("Wasted", run.wasted_percent ? `${run.wasted_percent} % of the work` : ""),
      row("Source", run.source), row("Place", run.place)));
}

function row(title, value, wanted = true) {
  if (!wanted || !value) return null;
  return [make("dt", {}, title), make("dd", {}, value)];
}

/** Seconds as people say them. */
function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
