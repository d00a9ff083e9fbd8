// The results as a gallery, latest first. Only as many cards are made as are shown; each is made once.

import * as api from "./api.js";
import { makeCard, updateCard } from "./card.js";
import { byId, make, oncePerFrame } from "./dom.js";
import { Filters } from "./filters.js";
import { count, number } from "./format.js";
import { tell } from "./notice.js";
import { findingsShown, idOf, kindOf, Records } from "./records.js";
import { Viewer } from "./viewer.js";

const STEP = 48;
const FORMATS = [["json", "JSON lines"], ["csv", "CSV"], ["coco", "COCO"]];

export class Gallery {
  /** @param openLog called with a job's name. */
  constructor(openLog) {
    this.records = new Records();
    this._openLog = openLog;
    this._cards = new Map();
    this._shown = STEP;
    this.render = oncePerFrame(() => this._render());
    this._filters = new Filters(() => { this._shown = STEP; this._filterChanged = true; this._render(); });
    this._viewer = new Viewer((id) => this._cards.get(id)?.button?.focus());
    byId("more").addEventListener("click", () => this._more());
  }

  /** Show the results of another service. */
  async choose(service) {
    this.records.reset(service);
    this._filters.reset();
    this._cards.clear();
    this._shown = STEP;
    byId("gallery").replaceChildren();
    byId("gallery").setAttribute("aria-busy", "true");
    byId("empty").hidden = true;
    byId("downloads").replaceChildren(byId("downloads-title"), ...FORMATS.map(([format, name]) =>
      make("a", { class: "button quiet", href: api.exportPath(service, format), download: "" }, name)));
    if (service) await this.refresh();
    else this._tellEmpty([]);
  }

  /** Fetch what may have been missed. */
  async refresh(options) {
    try {
      await this.records.refresh(options);
      this.render();
    } catch (error) {
      tell(error);
    }
  }

  /** A result that came live. */
  add(record) {
    this.records.add(record);
    this.render();
  }

  /** Open the large view of a result, if it is loaded. */
  open(id) {
    const found = this._viewable().findIndex((record) => idOf(record) === id);
    if (found >= 0) this._viewer.open(this._viewable(), found, this._filters.filter);
  }

  _viewable() {
    return this.records.matching(this._filters.filter).filter((record) => ["found", "none"].includes(kindOf(record)));
  }

  async _more() {
    const filter = this._filters.filter;
    const before = byId("gallery").children.length;
    this._shown += STEP;
    byId("more").disabled = true;
    try {
      if (this.records.matching(filter).length < this._shown) await this.records.older(filter, this._shown);
    } catch (error) {
      tell(error);
    }
    byId("more").disabled = false;
    this._render();
    byId("gallery").children[before]?.querySelector("button")?.focus({ preventScroll: true });
  }

  _render() {
    const { records } = this;
    const { filter } = this._filters;
    const list = byId("gallery");
    this._filters.render(records.list);
    const matching = records.matching(filter);
    const wanted = matching.slice(0, this._shown).map((record) => this._card(record));
    const kept = new Set(wanted.map((card) => card.element));
    [...list.children].forEach((element) => kept.has(element) || element.remove());
    wanted.forEach((card, index) => {
      if (list.children[index] !== card.element) list.insertBefore(card.element, list.children[index] ?? null);
    });
    this._filterChanged = false;
    list.setAttribute("aria-busy", String(!records.loaded));
    byId("more").hidden = matching.length <= this._shown && records.next === null;
    byId("downloads").hidden = records.list.length === 0;
    this._summarise(matching);
    this._tellEmpty(matching);
  }

  /** The card of a result, made when it is first shown, drawn again when the filter or the result has changed. */
  _card(record) {
    const id = idOf(record);
    let card = this._cards.get(id);
    if (card?.record !== record) {
      card?.element.remove();
      card = makeCard(record, { open: () => this.open(id), openLog: this._openLog });
      this._cards.set(id, card);
      updateCard(card, this._filters.filter);
    } else if (this._filterChanged) {
      updateCard(card, this._filters.filter);
    }
    return card;
  }

  _summarise(matching) {
    const { list, next } = this.records;
    const findings = matching.reduce((sum, record) => sum + findingsShown(record, this._filters.filter).length, 0);
    const some = matching.length < list.length ? `${number(matching.length)} of ` : "";
    const pictures = `${next === null ? "" : "the latest "}${count(list.length, "picture", "pictures")}`;
    byId("results-summary").textContent = list.length ? `${some}${pictures}, ${count(findings, "object", "objects")}` : "";
  }

  _tellEmpty(matching) {
    const { list, loaded, service } = this.records;
    byId("empty").hidden = (service && !loaded) || matching.length > 0;
    if (byId("empty").hidden) return;
    byId("gallery").setAttribute("aria-busy", "false");
    const [title, text] = !service
      ? ["No service yet", "buoy up registers the FDL files of the folder fdl/ at its start; buoy fdl writes one for a model."]
      : list.length
      ? ["Nothing passes the filter", "Tick another label, or lower the score."]
      : ["No results yet", "Drop a few pictures on this page: the first results appear within seconds, with a box around everything that was found."];
    byId("empty").replaceChildren(make("h3", {}, title), make("p", {}, text));
  }
}
