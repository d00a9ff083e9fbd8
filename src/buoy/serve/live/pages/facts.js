// Beside the picture: what is in it now, how many frames came and went, alerts, and which model looks.

import { byId, make } from "./dom.js";
import { duration, number } from "./format.js";

const FLAGS = { dark: "too dark", blurred: "blurred", frozen: "frozen: the very same picture for a while" };
const DROPS = {
  newer: "a newer one had come",
  sampling: "between samples",
  shut: "at the end",
  undecodable: "could not be decoded",
  failed: "could not be looked at",
  early: "before the stream had begun",
  full: "no room for them",
  late: "left out to catch up",
  "worker lost": "lost with the model's process",
};
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const KEPT_ALERTS = 5;
/** The latency shown is the middle of so many frames. */
const LAGS = 50;

export class Facts {
  choose(view) {
    this._lags = [];
    this._labels = view.labels;
    this._rates = view.per_second;
    byId("now").replaceChildren();
    byId("crossings").hidden = true;
    byId("flags").hidden = true;
    byId("alerts").replaceChildren();
    byId("alerts-panel").hidden = !view.spec.sinks.some(({ kind }) => kind === "webhook");
    byId("model-name").textContent = view.model.title || view.model.name;
    byId("model-version").textContent = view.model.title ? `${view.model.name} ${view.model.version}` : view.model.version;
    byId("model-about").textContent = view.labels.length ? `Looks for ${list(view.labels)}.` : "";
    byId("demo").hidden = view.model.maturity !== "demo";
    byId("downloads").replaceChildren(...["CSV", "NetCDF"].map((name) =>
      make("a", { href: `streams/${view.name}/series?window=1&format=${name.toLowerCase()}`, download: "" }, name)));
    if (view.latest) this._now(view.latest.found, view.latest.flags, view.latest.error);
    this.counts(view.counts);
  }

  view(view) {
    this._rates = view.per_second;
    if (byId("model-version").textContent === "") this.choose(view);
    this.counts(view.counts);
  }

  frame({ record, counts, lag_ms, crossings }) {
    const found = {};
    for (const { label } of record.detections ?? []) found[label] = (found[label] ?? 0) + 1;
    this._lags = [...this._lags, lag_ms].slice(-LAGS);
    this._now(found, record.input.frame.flags ?? [], record.error?.message);
    this._crossings(crossings);
    this.counts(counts);
  }

  alert({ raised, at }) {
    const item = make("li", {}, `Alert ${number(raised)} was sent `, make("time", { datetime: at }, `at ${CLOCK.format(Date.parse(at))}`));
    byId("alerts").prepend(item);
    [...byId("alerts").children].slice(KEPT_ALERTS).forEach((old) => old.remove());
    byId("alerts-panel").hidden = false;
    byId("announce").textContent = item.textContent;
  }

  counts({ received, processed, dropped, reconnects }) {
    const lost = Object.entries(dropped).filter(([, times]) => times > 0);
    const rate = (value) => (value ? ` (${value.toFixed(1)}/s)` : "");
    const rows = [
      ["Latency", this._lags.length ? duration(median(this._lags) / 1000) : "–"],
      ["Received", number(received) + rate(this._rates?.received)],
      ["Looked at", number(processed) + rate(this._rates?.processed)],
      ["Dropped", number(lost.reduce((sum, [, times]) => sum + times, 0))],
      ...lost.map(([reason, times]) => [DROPS[reason] ?? reason, number(times), "drop"]),
      ["Reconnects", number(reconnects)],
    ];
    byId("facts").replaceChildren(...rows.flatMap(([term, text, kind]) => [make("dt", { class: kind }, term), make("dd", { class: kind }, text)]));
  }

  _now(found, flags, error) {
    const items = Object.entries(found).sort((a, b) => b[1] - a[1]).map(([label, times]) => make("li", {},
      make("span", { class: `swatch class-${Math.max(0, this._labels.indexOf(label)) % 6}` }),
      make("span", { class: "name" }, label),
      make("span", { class: "many" }, number(times))));
    byId("now").replaceChildren(...(items.length ? items : [make("li", { class: "none" }, error ? "Not known" : "Nothing found")]));
    byId("flags").hidden = !error && !flags?.length;
    byId("flags").textContent = error ? `This frame could not be looked at: ${error}` : flags?.length ? `This frame is ${list(flags.map((flag) => FLAGS[flag] ?? flag))}, and does not count.` : "";
  }

  _crossings(crossings) {
    const lines = Object.entries(crossings?.lines ?? {}).map(([name, ways]) => [name, `${sum(ways.in)} in, ${sum(ways.out)} out`]);
    const regions = Object.entries(crossings?.regions ?? {}).map(([name, { now }]) => [name, `${sum(now)} now`]);
    const rows = [...lines, ...regions].map(([name, text]) => make("p", {}, make("span", {}, name), make("b", {}, text)));
    byId("crossings").hidden = !rows.length;
    byId("crossings").replaceChildren(...rows);
  }
}

const sum = (labels = {}) => Object.values(labels).reduce((total, times) => total + times, 0);

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

const list = (words) => (words.length > 8 ? `${words.slice(0, 7).join(", ")} and ${words.length - 7} more` : words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words.join(""));
