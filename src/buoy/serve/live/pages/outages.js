// The times without pictures, the latest first.

import { ask, of } from "./ask.js";
import { byId, make } from "./dom.js";
import { duration, moment } from "./format.js";

const SHOWN = 12;

export class Outages {
  choose(stream) {
    this._stream = stream;
    this.show([]);
  }

  async refresh() {
    const stream = this._stream;
    try {
      const { gaps } = await ask(of(stream, "gaps"));
      if (stream === this._stream) this.show(gaps);
    } catch { /* told by the live connection */ }
  }

  show(gaps) {
    const latest = [...gaps].reverse().slice(0, SHOWN);
    const rows = latest.map(({ begin, end, reason }) => make("li", { class: end ? null : "open" },
      make("time", { datetime: begin }, moment(Date.parse(begin) / 1000)),
      make("b", {}, end ? duration((Date.parse(end) - Date.parse(begin)) / 1000) : "goes on"),
      make("span", {}, reason)));
    if (gaps.length > SHOWN) rows.push(make("li", { class: "faint" }, `and ${gaps.length - SHOWN} before`));
    byId("outages").replaceChildren(...rows);
    byId("outages").hidden = !rows.length;
    byId("outages-none").hidden = rows.length > 0;
  }
}
