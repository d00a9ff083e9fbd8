// A picture with its findings drawn over it: boxes in per cent of the picture, so that they stay true at every size.
// The boxes of a result are in pixels of the upright original; browsers turn pictures upright (EXIF) by themselves.

import { make } from "./dom.js";
import { baseName, count } from "./format.js";

/** As many as COLOURS in src/buoy/outputs/drawn.py; style.css has them as .class-0, .class-1, ... */
const COLOURS = 6;
/** With more boxes than this, a small picture shows their labels only for the one pointed at. */
const CROWDED = 8;

export const colourClass = (classId) => `class-${classId % COLOURS}`;

/**
 * The picture of a result with an empty overlay.
 * @param record a result as `/page/results` gives it; without a picture (posted to /job, not to a bucket) a frame of its size.
 */
export function makePicture(record, { lazy }) {
  const { width, height } = record.result.input;
  const overlay = make("div", { class: "overlay", "aria-hidden": "true" });
  const picture = make("div", { class: "picture" }, overlay);
  if (width && height) picture.style.setProperty("--ratio", width / height);
  if (record.picture) {
    const image = make("img", { alt: "", decoding: "async", loading: lazy ? "lazy" : "eager", draggable: "false" });
    picture.classList.add("loading");
    image.addEventListener("load", () => picture.classList.remove("loading"));
    image.addEventListener("error", () => {
      image.replaceWith(make("p", { class: "no-picture" }, "This browser cannot show the picture; the boxes are right."));
      picture.classList.remove("loading");
    });
    image.src = record.picture;
    picture.prepend(image);
  } else {
    picture.prepend(make("p", { class: "no-picture" }, `The picture of ${baseName(record.key)} was not kept`));
  }
  return picture;
}

/** Draw `findings` over the picture of a result, in place of what was drawn before. */
export function drawFindings(picture, record, findings) {
  const { width, height } = record.result.input;
  const overlay = picture.querySelector(".overlay");
  overlay.classList.toggle("crowded", findings.length > CROWDED);
  const boxes = findings.map((found, index) => makeBox(found, index, width, height));
  overlay.replaceChildren(...boxes.reverse()); // the best on top
}

/** What a screen reader says of a picture. */
export function spoken(record, findings) {
  const labels = new Map();
  findings.forEach(({ label }) => labels.set(label, (labels.get(label) ?? 0) + 1));
  const parts = [...labels].map(([label, times]) => `${times} ${label}`);
  return `${record.name}: ${parts.length ? parts.join(", ") : "nothing found"}`;
}

/** `3 fish, 1 crab`, or for many classes how many of how many. */
export function summary(findings) {
  if (!findings.length) return "nothing found";
  const labels = new Map();
  findings.forEach(({ label }) => labels.set(label, (labels.get(label) ?? 0) + 1));
  if (labels.size > 3) return `${count(findings.length, "object", "objects")} of ${labels.size} classes`;
  return [...labels].map(([label, times]) => `${times} ${label}`).join(", ");
}

function makeBox(found, index, width, height) {
  const [x1, y1, x2, y2] = found.box;
  const label = make("span", { class: "label" }, `${found.label} ${found.score.toFixed(2)}`);
  const box = make("div", { class: `box ${colourClass(found.class_id)}`, "data-index": index }, label);
  const noRoomAbove = y1 / height < 0.09;
  const noRoomBelow = y2 / height > 0.88;
  box.classList.toggle("label-below", noRoomAbove && !noRoomBelow);
  box.classList.toggle("label-inside", noRoomAbove && noRoomBelow);
  box.classList.toggle("at-right", x1 / width > 0.7);
  box.style.left = `${(100 * x1) / width}%`;
  box.style.top = `${(100 * y1) / height}%`;
  box.style.width = `${(100 * (x2 - x1)) / width}%`;
  box.style.height = `${(100 * (y2 - y1)) / height}%`;
  return box;
}
