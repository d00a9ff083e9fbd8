// The filter over the results: a chip for each label (and for nothing found, failed), and the lowest score.

import { byId, make, oncePerFrame } from "./dom.js";
import { number } from "./format.js";
import { colourClass } from "./overlay.js";
import { tally } from "./records.js";

export class Filters {
  /** @param onChange called after every change, at most once per frame. */
  constructor(onChange) {
    this.filter = { hiddenLabels: new Set(), minScore: 0, none: true, failed: true };
    this._changed = oncePerFrame(onChange);
    this._chips = new Map();
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("score").addEventListener("input", (event) => {
      this.filter.minScore = Number(event.target.value);
      byId("score-number").textContent = this.filter.minScore.toFixed(2);
      this._changed();
    });
    byId("score").value = 0; // browsers keep the value over a reload
  }

  /** Back to everything, for another service. */
  reset() {
    Object.assign(this.filter, { hiddenLabels: new Set(), minScore: 0, none: true, failed: true });
    byId("score").value = 0;
    byId("score-number").textContent = "0.00";
    this._chips.clear();
    byId("chips").querySelectorAll(".chip").forEach((chip) => chip.remove());
  }

  /** Show the chips and their counts for these results. */
  render(list) {
    const { labels, none, failed } = tally(list, this.filter);
    byId("filters").hidden = list.length === 0;
    for (const { label, class_id, count } of labels) {
      this._chip(`label:${label}`, label, count, colourClass(class_id), !this.filter.hiddenLabels.has(label), (on) => {
        if (on) this.filter.hiddenLabels.delete(label);
        else this.filter.hiddenLabels.add(label);
      });
    }
    if (none || this._chips.has("none")) {
      this._chip("none", "nothing found", none, "plain", this.filter.none, (on) => { this.filter.none = on; });
    }
    if (failed || this._chips.has("failed")) {
      this._chip("failed", "failed", failed, "bad", this.filter.failed, (on) => { this.filter.failed = on; });
    }
  }

  _chip(id, text, count, colour, on, set) {
    let chip = this._chips.get(id);
    if (!chip) {
      const box = make("input", { type: "checkbox", onchange: () => { set(box.checked); this._changed(); } });
      const counter = make("span", { class: "chip-count" });
      const element = make("label", { class: `chip ${colour}` }, box, make("span", { class: "chip-text" }, text), counter);
      box.checked = on;
      chip = { counter };
      this._chips.set(id, chip);
      byId("chips").insertBefore(element, this._place(id));
      element.dataset.chip = id;
    }
    chip.counter.textContent = number(count);
  }

  /** Labels first, then nothing found, then failed, however late one of them appears. */
  _place(id) {
    const after = id === "failed" ? [] : id === "none" ? ["failed"] : ["none", "failed"];
    return [...byId("chips").children].find((chip) => after.includes(chip.dataset.chip)) ?? null;
  }
}
