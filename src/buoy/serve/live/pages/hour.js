// The last hour as a chart of our own: the most animals in one frame of each minute. Where nothing was observed there is
// a hatched hole, never a zero.

import { byId, make } from "./dom.js";
import { number } from "./format.js";

const MINUTES = 60;
const MINUTE_MS = 60_000;
const SHOWN_LABELS = 6;
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const HINT = "Point at a minute to read it; with the keyboard, the arrows.";
const PAD = { left: 34, right: 8, top: 10, bottom: 26 };

const svg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

export class Hour {
  constructor() {
    this._box = byId("chart");
    this._minutes = [];
    this._gaps = [];
    this._labels = [];
    new ResizeObserver(() => this._width !== this._box.clientWidth && this._draw()).observe(this._box);
  }

  /**
   * @param minutes [{begin (ms), frames, observed_s, counts: {label: most}}], in order; minutes that are absent were not observed.
   * @param gaps [{begin, end}] in ms.
   * @param labels of the model, in the order of its classes.
   */
  show(minutes, gaps, labels) {
    this._minutes = minutes.filter((minute) => minute.frames > 0);
    this._gaps = gaps;
    this._labels = labels;
    this._draw();
  }

  _draw() {
    const end = Math.ceil(Date.now() / MINUTE_MS) * MINUTE_MS;
    const begin = end - MINUTES * MINUTE_MS;
    const minutes = this._minutes.filter((minute) => minute.begin >= begin);
    const most = new Map();
    for (const { counts } of minutes) {
      for (const [label, value] of Object.entries(counts)) most.set(label, Math.max(most.get(label) ?? 0, value));
    }
    const seen = [...most].filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]).map(([label]) => label);
    const shown = seen.slice(0, SHOWN_LABELS);
    this._drawChart({ begin, end, minutes, shown, top: Math.max(4, ...[...most.values()].map((value) => value + 0.5)) });
    this._drawLegend(shown, seen.length - shown.length, most);
    this._drawTable(minutes, seen);
  }

  _drawChart({ begin, end, minutes, shown, top }) {
    const width = Math.max(280, this._box.clientWidth);
    const height = width < 560 ? 190 : 230;
    this._width = this._box.clientWidth;
    const step = niceStep(top);
    const ceiling = Math.ceil(top / step) * step;
    const x = (moment) => PAD.left + ((moment - begin) / (end - begin)) * (width - PAD.left - PAD.right);
    const y = (value) => height - PAD.bottom - (value / ceiling) * (height - PAD.top - PAD.bottom);
    const inside = { top: y(ceiling), height: y(0) - y(ceiling) };
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0", "aria-label": spoken(minutes, shown) });
    root.append(svg("defs", {}, svg("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 7 }))));
    for (const [from, to] of holes(begin, Math.min(Date.now(), end), minutes, this._gaps)) {
      const place = { x: x(from), y: inside.top, width: Math.max(1, x(to) - x(from)), height: inside.height };
      root.append(svg("rect", { class: "hole-edge", ...place }), svg("rect", { class: "hole", ...place }));
    }
    for (let value = 0; value <= ceiling; value += step) {
      root.append(svg("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }));
      const text = svg("text", { x: PAD.left - 7, y: y(value) + 4, "text-anchor": "end" });
      text.textContent = number(value);
      root.append(text);
    }
    const every = (width < 560 ? 15 : 10) * MINUTE_MS;
    for (let moment = Math.ceil(begin / every) * every; moment <= end; moment += every) {
      if (width < 560 && (x(moment) > width - 24 || x(moment) < PAD.left + 14)) continue; // no room for all of it
      const anchor = x(moment) > width - 24 ? "end" : x(moment) < PAD.left + 14 ? "start" : "middle";
      const text = svg("text", { x: x(moment), y: height - 6, "text-anchor": anchor });
      text.textContent = CLOCK.format(moment);
      root.append(text);
    }
    for (const label of [...shown].reverse()) {
      const colour = `class-${Math.max(0, this._labels.indexOf(label)) % 6}`;
      for (const run of runs(minutes, label)) {
        const points = run.flatMap(({ begin: at, value }) => [`${x(at)},${y(value)}`, `${x(Math.min(at + MINUTE_MS, end))},${y(value)}`]);
        const line = `M${points.join("L")}`;
        const last = run.at(-1);
        const under = `${line}L${x(last.begin + MINUTE_MS)},${y(0)}L${x(run[0].begin)},${y(0)}Z`;
        root.append(svg("path", { class: `under ${colour}`, d: under }), svg("path", { class: "casing", d: line }), svg("path", { class: `line ${colour}`, d: line }));
      }
    }
    const cursor = svg("line", { class: "cursor", y1: inside.top, y2: y(0), visibility: "hidden" });
    root.append(cursor);
    const readout = make("p", { class: "readout faint" }, HINT);
    this._point(root, { begin, end, minutes, shown, x, cursor, readout, width });
    this._box.replaceChildren(root, readout);
  }

  /** One minute in words: the one pointed at, or chosen with the arrow keys. */
  _point(root, { begin, end, minutes, shown, x, cursor, readout, width }) {
    let at = null;
    const tell = (moment) => {
      at = Math.min(Math.max(moment, begin), end - MINUTE_MS);
      const middle = x(at + MINUTE_MS / 2);
      cursor.setAttribute("x1", middle);
      cursor.setAttribute("x2", middle);
      cursor.setAttribute("visibility", "visible");
      const minute = minutes.find((each) => each.begin === at);
      const found = shown.map((label) => `${label} ${minute?.counts[label] ?? 0}`).join(", ") || "nothing found";
      const effort = minute && minute.observed_s < 59 ? ` (${Math.round(minute.observed_s)} s observed)` : "";
      readout.textContent = `${CLOCK.format(at)}: ${minute ? found + effort : "not observed"}`;
    };
    root.addEventListener("pointermove", (event) => {
      const box = root.getBoundingClientRect();
      const part = ((event.clientX - box.left) / box.width) * width;
      const moment = begin + ((part - PAD.left) / (width - PAD.left - PAD.right)) * (end - begin);
      tell(Math.floor(moment / MINUTE_MS) * MINUTE_MS);
    });
    root.addEventListener("pointerleave", () => {
      cursor.setAttribute("visibility", "hidden");
      readout.textContent = HINT;
    });
    root.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      readout.setAttribute("aria-live", "polite");
      tell((at ?? end - MINUTE_MS) + by * MINUTE_MS);
    });
  }

  _drawLegend(shown, hidden, most) {
    const items = shown.map((label) => make("li", {}, make("span", { class: `swatch class-${Math.max(0, this._labels.indexOf(label)) % 6}` }), `${label}, at most ${number(most.get(label))}`));
    if (hidden > 0) items.push(make("li", { class: "faint" }, `${hidden} more in the table`));
    if (!shown.length) items.push(make("li", { class: "faint" }, this._minutes.length ? "Nothing has been found in this time" : "Nothing was observed in this time"));
    byId("legend").replaceChildren(...items, make("li", { class: "faint" }, make("span", { class: "hatched" }), "not observed"));
  }

  _drawTable(minutes, seen) {
    const head = make("tr", {}, make("th", { scope: "col" }, "Minute"), make("th", { scope: "col" }, "Observed (s)"), ...seen.map((label) => make("th", { scope: "col" }, label)));
    const rows = [...minutes].reverse().map(({ begin, observed_s, counts }) => make("tr", {},
      make("td", {}, CLOCK.format(begin)), make("td", {}, observed_s.toFixed(0)), ...seen.map((label) => make("td", {}, String(counts[label] ?? 0)))));
    byId("table").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }
}

/** Times in which nothing was observed: minutes without frames, and gaps, joined where they touch. */
function holes(begin, end, minutes, gaps) {
  const known = new Set(minutes.map((minute) => minute.begin));
  const found = gaps.map((gap) => [Math.max(begin, gap.begin), Math.min(end, gap.end ?? end)]);
  const current = Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS; // its frames are not all here yet
  for (let at = begin; at < Math.min(end, current); at += MINUTE_MS) if (!known.has(at)) found.push([at, at + MINUTE_MS]);
  const joined = [];
  for (const [from, to] of found.filter(([a, b]) => b > a).sort((a, b) => a[0] - b[0])) {
    const last = joined.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else joined.push([from, to]);
  }
  return joined;
}

/** Values of a label in minutes that follow each other without a hole. */
function runs(minutes, label) {
  const found = [];
  for (const minute of minutes) {
    const point = { begin: minute.begin, value: minute.counts[label] ?? 0 };
    const last = found.at(-1)?.at(-1);
    if (last && minute.begin - last.begin === MINUTE_MS) found.at(-1).push(point);
    else found.push([point]);
  }
  return found;
}

function spoken(minutes, shown) {
  const parts = shown.map((label) => `${label} at most ${Math.max(...minutes.map(({ counts }) => counts[label] ?? 0))}`);
  return `Chart of the last hour, ${minutes.length} minutes observed: ${parts.join(", ") || "nothing found"}. Arrow keys go through the minutes; the table below has the same.`;
}

function niceStep(top) {
  const rough = top / 5;
  const magnitude = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  return [1, 2, 5, 10].map((each) => each * magnitude).find((each) => each >= rough) ?? 1;
}
