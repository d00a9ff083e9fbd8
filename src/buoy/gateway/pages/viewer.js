// The large view: one picture with its findings, the list of them, and the record behind it. Arrow keys turn pages.

import { byId, make } from "./dom.js";
import { DEMO, baseName } from "./format.js";
import { colourClass, drawFindings, makePicture, spoken } from "./overlay.js";
import { findingsShown, idOf } from "./records.js";

const WORMS = "https://www.marinespecies.org/aphia.php?p=taxdetails&id=";

/** What the parameters of a detector are called here; others go by their own names. */
const PARAMETERS = { score: "Score at least", iou: "Overlap at most", max_detections: "At most", size: "Network input", fit: "Fitted by" };

export class Viewer {
  /** @param onClosed called with the id of the result that was shown last. */
  constructor(onClosed) {
    this._dialog = byId("viewer");
    this._records = [];
    this._at = 0;
    this._dialog.addEventListener("close", () => {
      byId("viewer-picture").replaceChildren();
      onClosed(idOf(this._records[this._at]));
    });
    this._dialog.addEventListener("keydown", (event) => this._key(event));
    byId("viewer-close").addEventListener("click", () => this._dialog.close());
    byId("viewer-previous").addEventListener("click", () => this._turn(-1));
    byId("viewer-next").addEventListener("click", () => this._turn(1));
    byId("viewer-size").addEventListener("click", () => this._fullSize(!this._dialog.classList.contains("full-size")));
  }

  /** Show `records[at]`; turning goes through `records`. */
  open(records, at, filter) {
    this._records = records;
    this._filter = filter;
    this._show(at);
    this._dialog.showModal();
    byId("viewer-next").focus();
  }

  _key(event) {
    if (event.target.id === "viewer-picture" && this._dialog.classList.contains("full-size")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this._turn(step);
  }

  _turn(step) {
    const at = this._at + step;
    if (at >= 0 && at < this._records.length) this._show(at);
  }

  _fullSize(on) {
    this._dialog.classList.toggle("full-size", on);
    byId("viewer-size").setAttribute("aria-pressed", String(on));
    byId("viewer-picture").toggleAttribute("tabindex", on);
    if (!on) return;
    byId("viewer-picture").tabIndex = 0;
    byId("viewer-picture").querySelector("[data-index='0']")?.scrollIntoView({ block: "center", inline: "center" });
  }

  _show(at) {
    this._at = at;
    this._fullSize(false);
    const record = this._records[at];
    const findings = findingsShown(record, this._filter);
    const picture = makePicture(record, { lazy: false });
    picture.style.setProperty("--width", `${record.result.input.width}px`);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", spoken(record, findings));
    drawFindings(picture, record, findings);
    picture.querySelector(".overlay").classList.remove("crowded");
    byId("viewer-name").textContent = baseName(record.name);
    byId("viewer-place").textContent = `${at + 1} of ${this._records.length}`;
    byId("viewer-previous").disabled = at === 0;
    byId("viewer-next").disabled = at === this._records.length - 1;
    byId("viewer-picture").replaceChildren(picture);
    byId("viewer-side").replaceChildren(...this._side(record, findings, picture));
    byId("viewer-side").scrollTop = 0;
  }

  _side(record, findings, picture) {
    const { model, input, detections, parameters } = record.result;
    const hidden = (detections ?? []).length - findings.length;
    const json = make("pre", { tabindex: "0" }, JSON.stringify(record.result, null, 2));
    const name = baseName(record.output_key);
    return [
      model.maturity === "demo" && make("p", { class: "badge demo" }, DEMO),
      findings.length ? table(findings, picture) : make("p", {}, hidden ? "Nothing passes the filter." : "Nothing found."),
      hidden > 0 && findings.length > 0 && make("p", { class: "faint" }, `${hidden} more hidden by the filter`),
      make("dl", {},
        ...row("Picture", `${input.width} × ${input.height} px`),
        ...row("Model", `${model.name} ${model.version}`),
        ...Object.entries(parameters ?? {}).flatMap(([key, value]) => row(PARAMETERS[key] ?? key.replaceAll("_", " "), plain(value)))),
      make("p", { class: "actions" },
        make("a", { class: "button", href: record.output, download: name }, "JSON"),
        record.picture && make("a", { class: "button", href: record.picture, download: baseName(record.key) }, "Picture")),
      make("details", {}, make("summary", {}, "Record"), json),
    ].filter(Boolean);
  }
}

const row = (term, text) => [make("dt", {}, term), make("dd", {}, text)];

const plain = (value) => (Array.isArray(value) ? value.join(" × ") : typeof value === "object" ? JSON.stringify(value) : String(value));

/** The findings as rows; the one pointed at, or in focus, stands out in the picture. */
function table(findings, picture) {
  const rows = findings.map((found, index) => {
    const light = (on) => () => {
      picture.querySelector(`[data-index="${index}"]`)?.classList.toggle("lit", on);
      picture.querySelector(".overlay").classList.toggle("one-lit", on);
    };
    return make("tr", { tabindex: "0", onmouseenter: light(true), onmouseleave: light(false), onfocus: light(true), onblur: light(false) },
      make("td", {}, make("span", { class: `swatch ${colourClass(found.class_id)}` }), taxon(found)),
      make("td", { class: "number" }, found.score.toFixed(3)),
      make("td", { class: "number" }, found.box.map((side) => Math.round(side)).join(", ")));
  });
  const head = make("tr", {}, make("th", { scope: "col" }, "Label"), make("th", { scope: "col" }, "Score"), make("th", { scope: "col" }, "Box (px)"));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

/** The label, linked to the World Register of Marine Species where the class has its number. */
function taxon(found) {
  const id = Number(found.taxon?.aphia_id);
  if (!Number.isInteger(id)) return found.label;
  return make("a", { href: WORMS + id, target: "_blank", rel: "noopener noreferrer", title: `AphiaID ${id} in WoRMS` }, found.label);
}
