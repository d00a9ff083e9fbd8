// Numbers, times and names as people read them.

const NUMBER = new Intl.NumberFormat("en");
const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** What stands wherever results of such weights are shown. */
export const DEMO = "demo weights: draw no conclusions";

export const number = (value) => NUMBER.format(value);

/** `3 fishes` would be wrong for half of all labels: the noun is given in both forms. */
export const count = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(0)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** Seconds since 1970: the time of day if it is today, else with the date. */
export function moment(seconds) {
  if (!seconds) return "";
  const when = new Date(seconds * 1000);
  return (when.toDateString() === new Date().toDateString() ? CLOCK : DAY).format(when);
}

/** The last part of a key or path. */
export const baseName = (key) => key.slice(key.lastIndexOf("/") + 1);

/** What OSCAR calls a state, in the words of this page. */
export const STATES = { Pending: "waiting", Running: "running", Succeeded: "done", Failed: "failed" };
