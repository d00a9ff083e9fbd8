// One file on its way: sending, sent, waiting, running, done or failed, each in words.

import { make } from "./dom.js";
import { number, size } from "./format.js";
import { summary } from "./overlay.js";

export class UploadRow {
  constructor(file, list) {
    this.after = 0;
    this._progress = make("progress", { max: "1", value: "0", "aria-label": `Sending ${file.name}` });
    this._word = make("span", { class: "word" }, "sending");
    this._detail = make("p", { class: "detail", hidden: true });
    this.element = make("li", { "data-state": "sending" },
      make("span", { class: "name", title: file.name }, file.name),
      make("span", { class: "faint size" }, size(file.size)),
      this._progress, this._word, this._detail);
    list.prepend(this.element);
  }

  progress(part) {
    this._progress.value = part;
  }

  /** The server did not answer; it is sent again. */
  again() {
    this._progress.value = 0;
    this._state("sending", "sent again as soon as the server answers");
  }

  sent() {
    this._progress.remove();
    this._state("sent", "sent");
  }

  refused(error) {
    this._progress.remove();
    this._state("failed", "refused");
    this._tell(error.message, error.hint);
  }

  job(job) {
    if (this._job && this._job.id > job.id) return;
    this._job = job;
    if (job.state === "Pending") this._state("waiting", "waiting");
    else if (job.state === "Running") this._state("running", "running");
    else if (job.state === "Succeeded" && !job.inputs_failed) this._state("done", this._found ?? "done");
    else {
      this._state("failed", job.inputs_failed > 1 ? `${number(job.inputs_failed)} inputs failed` : "failed");
      if (job.reason) this._tell(job.reason);
    }
  }

  /** What was found in it; a zip has several, of which the first that failed is told. */
  result(record, open) {
    this._results = (this._results ?? new Map()).set(record.output_key, record);
    if (record.result?.error) {
      this._tell(record.result.error.message, record.result.error.hint);
      return;
    }
    const findings = [...this._results.values()].flatMap((each) => each.result?.detections ?? []);
    this._found = `done: ${summary(findings)}`;
    if (this.element.dataset.state === "done") this._state("done", this._found);
    if (!this._open) {
      this._open = make("button", { type: "button", class: "quiet", onclick: () => open(record) }, "Show");
      this._word.after(this._open);
    }
  }

  _state(state, word) {
    this.element.dataset.state = state;
    this.element.classList.toggle("over", state === "done" || state === "failed");
    this._word.textContent = word;
  }

  _tell(message, hint = "") {
    this._detail.replaceChildren(make("b", {}, message), hint ? ` What to do: ${hint}` : "");
    this._detail.hidden = false;
  }
}
