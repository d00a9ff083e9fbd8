// The jobs of a service as a table, live; their logs; another try for a finished one.

import * as api from "./api.js";
import { byId, make, oncePerFrame } from "./dom.js";
import { baseName, count, duration, moment, STATES } from "./format.js";
import { tell } from "./notice.js";

const PAGE = 50;

export class Jobs {
  constructor(service) {
    this._service = service;
    this._jobs = new Map();
    this._live = new Set();
    this._limit = PAGE;
    this._next = null;
    this._visible = false;
    this._render = oncePerFrame(() => this._draw());
    byId("jobs-state").addEventListener("change", () => this.reset());
    byId("jobs-more").addEventListener("click", () => this._more());
    byId("log-close").addEventListener("click", () => byId("log").close());
  }

  /** Shown or not: what nobody sees is not fetched. */
  visible(on) {
    if (on && !this._visible) { this._visible = true; this.reset(); }
    this._visible = on;
  }

  /** Begin anew, for another service or state. */
  async reset() {
    if (!this._visible) return;
    this._jobs.clear();
    this._limit = PAGE;
    await this._fetch(null);
  }

  /** A job that has changed. */
  job(job) {
    if (!this._visible || job.service !== this._service()) return;
    this._live.add(job.id);
    if (this._fits(job)) this._jobs.set(job.id, job);
    else this._jobs.delete(job.id);
    this._render();
  }

  /** Show what a job wrote, in a dialog. */
  async openLog(name) {
    byId("log-title").textContent = `Log of ${name}`;
    byId("log-text").textContent = "…";
    byId("log").showModal();
    try {
      byId("log-text").textContent = (await api.log(name)) || "The job wrote nothing.";
    } catch (error) {
      byId("log-text").textContent = `${error.message}\n${error.hint ?? ""}`;
    }
  }

  _fits(job) {
    const state = byId("jobs-state").value;
    return state === "" || state === job.state;
  }

  async _fetch(before) {
    const service = this._service();
    const state = byId("jobs-state").value;
    if (!service) return;
    this._live.clear();
    try {
      const { jobs } = await api.jobs({ service, state, before, limit: PAGE });
      if (service !== this._service() || state !== byId("jobs-state").value) return;
      // what came live while this was asked for is newer
      jobs.filter((job) => !this._live.has(job.id)).forEach((job) => this._jobs.set(job.id, job));
      this._next = jobs.length === PAGE ? jobs.at(-1).id : null;
      this._draw();
    } catch (error) {
      tell(error);
    }
  }

  async _more() {
    this._limit += PAGE;
    if (this._next !== null && this._jobs.size < this._limit) await this._fetch(this._next);
    this._draw();
  }

  _draw() {
    const rows = byId("jobs-rows");
    const jobs = [...this._jobs.values()].sort((a, b) => b.id - a.id);
    const dropped = jobs.splice(this._limit + 2 * PAGE); // a flood of live ones
    dropped.forEach((job) => this._jobs.delete(job.id));
    if (dropped.length) this._next = jobs.at(-1).id;
    const shown = jobs.slice(0, this._limit);
    const known = new Map([...rows.children].map((row) => [row.dataset.version, row]));
    const focused = document.activeElement?.dataset.job;
    rows.replaceChildren(...shown.map((job) => known.get(version(job)) ?? this._row(job)));
    if (focused) rows.querySelector(`[data-job="${CSS.escape(focused)}"]`)?.focus();
    byId("jobs-more").hidden = this._next === null && jobs.length <= this._limit;
    byId("jobs-empty").hidden = jobs.length > 0;
    byId("jobs-empty").replaceChildren(make("h3", {}, "No jobs here"), make("p", {}, "Every file that arrives for the service becomes a job."));
  }

  _row(job) {
    const cell = (name, ...content) => make("td", { "data-name": name }, ...content);
    const failed = job.inputs_failed ? count(job.inputs_failed, "input failed", "inputs failed") : "";
    const over = job.state === "Failed" || job.state === "Succeeded";
    const button = (id, text, act) => make("button", { type: "button", class: "quiet", "data-job": `${id} ${job.name}`, onclick: act, "aria-label": `${text}: ${baseName(job.key)}` }, text);
    return make("tr", { "data-version": version(job), "data-state": STATES[job.state] },
      cell("State", make("span", { class: "pill" }, STATES[job.state])),
      cell("File", make("span", { class: "name", title: job.key }, baseName(job.key)), make("span", { class: "faint mono", title: job.name }, job.name)),
      cell("Came", moment(job.created)),
      cell("Took", duration(job.duration_s)),
      cell("Tries", String(job.attempt)),
      cell("Exit", job.exit_code === null ? "" : String(job.exit_code)),
      cell("What happened", job.reason || failed),
      make("td", { class: "actions" }, button("log", "Log", () => this.openLog(job.name)),
        over && (job.state === "Failed" || job.inputs_failed > 0) && button("retry", "Retry", () => this._retry(job))));
  }

  async _retry(job) {
    try {
      await api.retry(job.name);
    } catch (error) {
      tell(error);
    }
  }
}

/** Changes whenever a row must be drawn anew. */
const version = (job) => [job.name, job.state, job.attempt, job.finished, job.reason].join(" ");
