// Listens to a stream's events while the page can be seen. Browsers reconnect by themselves, but give up for good on an
// answer that is no stream (a proxy's 502, a 401): then this starts anew.

import { of } from "./ask.js";

const AGAIN_MS = 2000;
const EVENTS = ["frame", "state", "gap", "alert", "counts", "missed"];

export class Listening {
  /** @param handlers {open(), away(), frame(data), state(data), gap(data), alert(data), counts(data), missed(data)} */
  constructor(stream, handlers) {
    this._stream = stream;
    this._handlers = handlers;
    this._over = false;
    this._start();
  }

  close() {
    this._over = true;
    clearTimeout(this._again);
    this._source?.close();
  }

  _start() {
    if (this._over) return;
    const source = new EventSource(of(this._stream, "events"));
    this._source = source;
    source.addEventListener("open", () => this._handlers.open());
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => !this._over && this._handlers[name](JSON.parse(event.data)));
    }
    source.addEventListener("error", () => {
      if (this._over) return;
      this._handlers.away();
      if (source.readyState === EventSource.CLOSED) this._again = setTimeout(() => this._start(), AGAIN_MS);
    });
  }
}
