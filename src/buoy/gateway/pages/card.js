// One result in the gallery: the picture with its findings, or what went wrong and what to do.

import { make } from "./dom.js";
import { baseName } from "./format.js";
import { drawFindings, makePicture, spoken, summary } from "./overlay.js";
import { findingsShown, kindOf } from "./records.js";

/** A list item for a result; `open` is called when it is chosen, `openLog(job)` for a failure. */
export function makeCard(record, { open, openLog }) {
  const kind = kindOf(record);
  const card = { record, element: make("li", { class: `card ${kind}` }) };
  if (kind === "failed" || kind === "gone") {
    card.element.append(failure(record, openLog));
    return card;
  }
  card.picture = makePicture(record, { lazy: true });
  card.summary = make("span", { class: "faint" });
  card.button = make("button", { type: "button", class: "open", onclick: open }, card.picture);
  const name = make("span", { class: "name", title: record.name }, baseName(record.name));
  card.element.append(card.button, make("p", { class: "caption", "aria-hidden": "true" }, name, card.summary));
  return card;
}

/** Draw what the filter lets through. */
export function updateCard(card, filter) {
  if (!card.picture) return;
  const findings = findingsShown(card.record, filter);
  drawFindings(card.picture, card.record, findings);
  card.summary.textContent = summary(findings);
  card.button.setAttribute("aria-label", spoken(card.record, findings));
}

function failure(record, openLog) {
  const error = record.result?.error ?? {
    message: "the result cannot be read: it was deleted, or is not JSON",
    hint: "run the job again from the list of jobs",
  };
  return make("div", { class: "failure" },
    make("p", { class: "name", title: record.name }, baseName(record.name)),
    make("p", { class: "message" }, error.message),
    error.hint && make("p", { class: "hint" }, `What to do: ${error.hint}`),
    make("p", { class: "actions" },
      make("button", { type: "button", class: "quiet", onclick: () => openLog(record.job) }, "Log"),
      record.result && make("a", { class: "button quiet", href: record.output, target: "_blank", rel: "noopener" }, "Record")));
}
