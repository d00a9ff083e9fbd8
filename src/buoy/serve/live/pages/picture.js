// The live picture, as the service draws it. It is asked for while it can be seen and frames come; a picture that is not
// of now is never shown as if it were.

import { byId, make } from "./dom.js";
import { of } from "./ask.js";

const WIDTHS = [480, 640, 960, 1280, 1920];
const AGAIN_MS = 1500;

export class Picture {
  constructor() {
    this._frame = byId("frame");
    this._stream = "";
    this._on = false;
  }

  /** Show a stream, whose pictures are in these proportions if that is known. */
  choose(stream) {
    this._stop();
    this._stream = stream;
    this._frame.style.removeProperty("--ratio");
    this._frame.style.removeProperty("--ratio-number");
    this._frame.parentElement.style.removeProperty("--ratio-number");
  }

  /** The original's size, in pixels. */
  size(width, height) {
    if (!width || !height) return;
    this._frame.style.setProperty("--ratio", `${width} / ${height}`);
    this._frame.style.setProperty("--ratio-number", String(width / height));
    this._image?.setAttribute("width", width);
    this._image?.setAttribute("height", height);
  }

  /** Whether pictures are to be shown now. */
  show(on) {
    if (on === this._on) return;
    if (on) this._start();
    else this._stop();
  }

  /** What a screen reader says of it. */
  describe(text) {
    this._image?.setAttribute("alt", text);
  }

  _start() {
    this._on = true;
    const wanted = this._frame.clientWidth * Math.min(devicePixelRatio, 2);
    const width = WIDTHS.find((each) => each >= wanted) ?? WIDTHS.at(-1);
    const image = make("img", { alt: "", decoding: "async", draggable: "false" });
    image.addEventListener("load", () => this._frame.classList.remove("waiting"));
    image.addEventListener("error", () => {
      if (image === this._image) this._again = setTimeout(() => { this._stop(); this._start(); }, AGAIN_MS);
    });
    this._image = image;
    this._frame.classList.add("waiting");
    this._frame.replaceChildren(image);
    image.src = of(this._stream, "mjpeg", { width, at: undefined });
  }

  _stop() {
    this._on = false;
    clearTimeout(this._again);
    this._image?.removeAttribute("src"); // which ends the request
    this._image = null;
    this._frame.classList.remove("waiting");
    this._frame.replaceChildren();
  }
}
