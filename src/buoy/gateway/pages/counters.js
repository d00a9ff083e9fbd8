// How many jobs wait, run, are done, have failed, and how fast they go.

import * as api from "./api.js";
import { atMostEvery, byId, make } from "./dom.js";
import { number, STATES } from "./format.js";
import { announce, tell } from "./notice.js";

/** Jobs that end within this time of each other are one run, of which the speed is told. */
const GAP_S = 5;
const REMEMBERED = 1000;

export class Counters {
  constructor(service) {
    this._service = service;
    this._ends = [];
    this._seen = new Set();
    this._numbers = {};
    this._rate = make("p", { class: "rate faint" });
    const tiles = Object.entries(STATES).map(([state, word]) => {
      this._numbers[state] = make("dd", {}, "0");
      return make("div", { class: "counter", "data-state": word }, make("dt", {}, word), this._numbers[state]);
    });
    byId("counters").append(make("dl", {}, ...tiles), this._rate);
    this.refresh = atMostEvery(400, () => this._fetch());
  }

  /** Begin anew, for another service. */
  reset() {
    this._ends = [];
    this._seen.clear();
    this._rate.textContent = "";
    this.refresh();
  }

  job(job) {
    if (job.service !== this._service()) return;
    if (job.finished && !this._seen.has(`${job.id}/${job.finished}`)) {
      this._seen.add(`${job.id}/${job.finished}`);
      if (this._seen.size > 2 * REMEMBERED) this._seen.clear();
      if (job.finished - (this._ends.at(-1) ?? 0) > GAP_S) this._ends = [];
      this._ends.push(job.finished);
      this._ends.sort((a, b) => a - b);
      this._ends.splice(0, this._ends.length - REMEMBERED);
      this._tellRate();
    }
    this.refresh();
  }

  _tellRate() {
    const ends = this._ends;
    const took_s = ends.at(-1) - ends[0];
    const rate = (ends.length - 1) / took_s;
    const text = rate >= 10 ? rate.toFixed(0) : rate.toFixed(1);
    this._rate.textContent = ends.length > 2 && took_s > 0 ? `${text} files/s over the last ${number(ends.length)}` : "";
  }

  async _fetch() {
    const service = this._service();
    if (!service) return;
    try {
      const { counts } = await api.jobs({ service, limit: 1 });
      if (service !== this._service()) return;
      Object.entries(this._numbers).forEach(([state, element]) => {
        element.textContent = number(counts[state] ?? 0);
        element.parentElement.classList.toggle("some", counts[state] > 0);
      });
      const busy = counts.Pending + counts.Running;
      byId("counters").classList.toggle("busy", busy > 0);
      const told = Object.entries(STATES).map(([state, word]) => `${counts[state] ?? 0} ${word}`).join(", ");
      if (this._told !== undefined && this._told !== told) announce(told);
      this._told = told;
    } catch (error) {
      tell(error);
    }
  }
}
