// The live events of the server. Browsers reconnect by themselves after a cut, but give up for good on an answer that
// is no stream (a proxy's 502, a 401): then this starts anew.

const AGAIN_MS = 2000;

/**
 * Listen for ever.
 * @param handlers {open(), away(), job(data), result(data), service(data)}; `open` is called at every (re)connection,
 *   and is the moment to fetch afresh whatever may have been missed.
 */
export function listen(handlers) {
  const source = new EventSource("/page/events");
  source.addEventListener("open", () => handlers.open());
  for (const name of ["job", "result", "service"]) {
    source.addEventListener(name, (event) => handlers[name](JSON.parse(event.data)));
  }
  source.addEventListener("error", () => {
    handlers.away();
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(handlers), AGAIN_MS);
  });
  addEventListener("pagehide", () => source.close(), { once: true });
}
