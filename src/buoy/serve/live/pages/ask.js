// What the page asks the service for. Every address is relative to the page, so that it works below any path.

export class AskError extends Error {
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

/** The JSON at a relative address. Raises an `AskError`; its status is 0 when the service is away. */
export async function ask(address) {
  let answer;
  try {
    answer = await fetch(address, { headers: { Accept: "application/json" }, cache: "no-store" });
  } catch {
    throw new AskError(0, "The service is away");
  }
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch { /* a proxy's page */ }
  throw new AskError(answer.status, error.message ?? `The service answered ${answer.status}`, error.hint);
}

/** The address of something of a stream. */
export const of = (stream, what = "", query = {}) => {
  const parts = Object.entries(query).filter(([, value]) => value !== undefined).map((pair) => pair.map(encodeURIComponent).join("="));
  return `streams/${encodeURIComponent(stream)}${what && `/${what}`}${parts.length ? `?${parts.join("&")}` : ""}`;
};
