// The results of one service as far as they are loaded: latest first, in pages, and what a filter lets through.

import * as api from "./api.js";

const PAGE = 100;
/** Pages that one "show more" looks through for something that the filter lets through. */
const PAGES_AT_ONCE = 10;

/** What one result is known by: the object it stands in. A retried job replaces it. */
export const idOf = (record) => `${record.output_bucket}/${record.output_key}`;

/** found | none | failed | gone: what a result says. */
export function kindOf(record) {
  if (!record.result) return "gone";
  if (record.result.error) return "failed";
  return record.result.detections?.length ? "found" : "none";
}

export class Records {
  constructor() {
    this.reset("");
  }

  /** Forget everything; what is on its way for another service is dropped when it comes. */
  reset(service) {
    this.service = service;
    this.list = [];
    this.byId = new Map();
    this.next = null;
    this.loaded = false;
  }

  /** Take in a result that came live: it comes first, and takes the place of the one it replaces. */
  add(record) {
    if (record.service !== this.service) return;
    if (this.byId.has(idOf(record))) this.list.splice(this._indexOf(record), 1);
    this._insert([record], 0);
  }

  /** Fetch the latest page, after a connection: merged, or all anew where there is a gap to what is known. */
  async refresh({ anew = false } = {}) {
    const service = this.service;
    const page = await api.results({ service, limit: PAGE });
    if (service !== this.service) return;
    const fresh = page.results.filter((record) => !this.byId.has(idOf(record)));
    if (!this.loaded || anew || (fresh.length === page.results.length && fresh.length > 0)) {
      this.reset(service);
      this._insert(page.results, 0);
      this.next = page.next;
      this.loaded = true;
      return;
    }
    page.results.forEach((record) => this.byId.has(idOf(record)) && this._replace(record));
    this._insert(fresh, 0);
  }

  /** Fetch older pages until the filter lets `wanted` through, or there is no more; at most a few pages. */
  async older(filter, wanted) {
    const service = this.service;
    for (let page = 0; page < PAGES_AT_ONCE && this.next !== null; page += 1) {
      const found = await api.results({ service, limit: PAGE, before: this.next });
      if (service !== this.service) return;
      this._insert(found.results.filter((record) => !this.byId.has(idOf(record))), this.list.length);
      this.next = found.next;
      if (this.matching(filter).length >= wanted) return;
    }
  }

  matching(filter) {
    return this.list.filter((record) => passes(record, filter));
  }

  _insert(records, at) {
    this.list.splice(at, 0, ...records);
    records.forEach((record) => this.byId.set(idOf(record), record));
  }

  _replace(record) {
    this.list[this._indexOf(record)] = record;
    this.byId.set(idOf(record), record);
  }

  _indexOf(record) {
    const id = idOf(record);
    return this.list.findIndex((known) => idOf(known) === id);
  }
}

/** The findings that a filter lets through, in the order of the result (the best first). */
export function findingsShown(record, filter) {
  const detections = record.result?.detections ?? [];
  return detections.filter((found) => found.score >= filter.minScore && !filter.hiddenLabels.has(found.label));
}

/** Whether a result is shown: with something left in it, or as one without findings, or as a failure. */
export function passes(record, filter) {
  const kind = kindOf(record);
  if (kind === "found") return findingsShown(record, filter).length > 0;
  return kind === "none" ? filter.none : filter.failed;
}

/** Labels with their class and how many findings have them, above the score; and how many results have none or failed. */
export function tally(list, filter) {
  const labels = new Map();
  const kinds = { found: 0, none: 0, failed: 0, gone: 0 };
  for (const record of list) {
    kinds[kindOf(record)] += 1;
    for (const { label, class_id, score } of record.result?.detections ?? []) {
      if (!labels.has(label)) labels.set(label, { label, class_id, count: 0 });
      if (score >= filter.minScore) labels.get(label).count += 1;
    }
  }
  const sorted = [...labels.values()].sort((a, b) => a.class_id - b.class_id);
  return { labels: sorted, none: kinds.none, failed: kinds.failed + kinds.gone };
}
