// Sends files to the chosen service: dropped anywhere, chosen, or pasted; three at a time, each with its progress, and
// after that with the state of its job. While the server is away the queue waits.

import * as api from "./api.js";
import { byId } from "./dom.js";
import { filesOf } from "./dropped.js";
import { count } from "./format.js";
import { announce, tell } from "./notice.js";
import { UploadRow } from "./upload_row.js";

const AT_ONCE = 3;
const TRIES = 5;
/** Rows of finished files that stay in the list. */
const KEPT_ROWS = 60;
/** Jobs that are remembered for uploads whose answer comes later than their job. */
const RECENT = 300;

export class Uploads {
  /**
   * @param service gives the name of the chosen service, '' if there is none, `null` if that is not known yet.
   * @param openResult called with a record when a finished file is chosen.
   */
  constructor(service, openResult) {
    this._service = service;
    this._openResult = openResult;
    this._held = [];
    this._waiting = [];
    this._sending = 0;
    this._paused = false;
    this._rows = new Map();
    this._total = { files: 0, sent: 0, refused: 0 };
    this._latestJob = 0;
    this._recent = new Map();
    byId("files").addEventListener("change", (event) => {
      this.send([...event.target.files]);
      event.target.value = "";
    });
    byId("uploads-clear").addEventListener("click", () => this._clear());
    this._takeDrops();
    addEventListener("beforeunload", (event) => (this._sending || this._waiting.length) && event.preventDefault());
    document.addEventListener("paste", (event) => this.send([...(event.clipboardData?.files ?? [])]));
  }

  /** Queue files for the chosen service. */
  send(files) {
    const service = this._service();
    if (!files.length) return;
    if (service === null) {
      this._held.push(...files);
      return;
    }
    if (!service) {
      tell(new api.ApiError(400, "There is no service to send files to", "See Services for how to add one."));
      return;
    }
    if (!this._waiting.length && !this._sending) this._total = { files: 0, sent: 0, refused: 0 };
    this._waiting.push(...files.map((file) => ({ file, service, tries: 0 })));
    this._total.files += files.length;
    byId("uploads").hidden = false;
    announce(`Sending ${count(files.length, "file", "files")}`);
    this._next();
    this._summarise();
  }

  /** A service has been chosen: files that came before that go to it. */
  release() {
    this.send(this._held.splice(0));
  }

  /** The server is away: nothing is sent until `resume`. */
  pause() { this._paused = true; }

  resume() {
    this._paused = false;
    this._next();
  }

  /** A job has changed: if it is that of a file sent from here, show its state. */
  job(job) {
    this._latestJob = Math.max(this._latestJob, job.id);
    const id = `${job.service}/${job.key}`;
    const row = this._rows.get(id);
    if (row && job.id > row.after) row.job(job);
    this._recent.delete(id);
    this._recent.set(id, job);
    if (this._recent.size > RECENT) this._recent.delete(this._recent.keys().next().value);
  }

  /** A result has come: what was found is told beside its file. */
  result(record) {
    this._rows.get(`${record.service}/${record.key}`)?.result(record, this._openResult);
  }

  _next() {
    while (!this._paused && this._sending < AT_ONCE && this._waiting.length) this._one(this._waiting.shift());
  }

  async _one(item) {
    this._sending += 1;
    item.row ??= new UploadRow(item.file, byId("uploads-list"));
    item.row.after = this._latestJob;
    try {
      const { key } = await api.upload(item.service, item.file, (part) => item.row.progress(part));
      this._sent(item, `${item.service}/${key}`);
    } catch (error) {
      this._failed(item, error);
    }
    this._sending -= 1;
    this._next();
    this._summarise();
  }

  /** Its job may have started, or even ended, before the answer to the upload came. */
  _sent(item, id) {
    this._total.sent += 1;
    item.row.sent();
    this._rows.set(id, item.row);
    const job = this._recent.get(id);
    if (job && job.id > item.row.after) item.row.job(job);
    const done = [...byId("uploads-list").querySelectorAll("[data-state=done]")]; // the latest first
    done.slice(KEPT_ROWS).forEach((element) => element.remove());
  }

  _failed(item, error) {
    item.tries += 1;
    if (error.status === 0 && item.tries < TRIES) {
      item.row.again();
      this._waiting.unshift(item);
      this._paused = true; // until the live connection stands again, or a while has passed
      setTimeout(() => this.resume(), 1000 * item.tries);
      return;
    }
    this._total.refused += 1;
    item.row.refused(error);
    announce(`${item.file.name} was refused: ${error.message}`);
    if (error.status === 401) tell(error);
  }

  _summarise() {
    const { files, sent, refused } = this._total;
    const over = sent + refused === files;
    const parts = [over ? `${count(sent, "file", "files")} sent` : `Sending ${sent} of ${count(files, "file", "files")}`];
    if (refused) parts.push(`${refused} refused`);
    byId("uploads-title").textContent = parts.join(", ");
    byId("uploads-all").value = files ? (sent + refused) / files : 0;
    byId("uploads-all").hidden = over;
    if (over && files) announce(parts.join(", "));
  }

  _clear() {
    byId("uploads-list").querySelectorAll(".over").forEach((element) => element.remove());
    byId("uploads").hidden = byId("uploads-list").children.length === 0;
    if (byId("uploads").hidden) byId("files").focus();
  }

  _takeDrops() {
    const cover = byId("drop-cover");
    let depth = 0;
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    const over = (step) => (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = Math.max(0, depth + step);
      byId("drop-service").textContent = this._service();
      cover.hidden = depth === 0;
    };
    document.addEventListener("dragenter", over(1));
    document.addEventListener("dragleave", over(-1));
    document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    document.addEventListener("drop", async (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = 0;
      cover.hidden = true;
      this.send(await filesOf(event.dataTransfer));
    });
  }
}
