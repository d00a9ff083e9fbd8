// The services: which one is chosen, what it is, and the list of all with their FDL.

import * as api from "./api.js";
import { byId, copyButton, make } from "./dom.js";
import { DEMO, baseName } from "./format.js";
import { tell } from "./notice.js";


export class Services {
  /** @param onChosen called with the name when another service is chosen (by the list, or as the first known). */
  constructor(onChosen) {
    this._onChosen = onChosen;
    this._all = [];
    this.chosen = null;
    byId("service").addEventListener("change", (event) => this.choose(event.target.value));
  }

  /** Choose a service by name. */
  choose(name) {
    this.chosen = name;
    byId("service").value = name;
    if (name) history.replaceState(null, "", `?${new URLSearchParams({ service: name })}${location.hash}`);
    this._describe();
    this._onChosen(name);
  }

  async refresh() {
    try {
      this._all = await api.services();
    } catch (error) {
      tell(error);
      return;
    }
    byId("service").replaceChildren(...this._all.map(({ name }) => make("option", { value: name }, name)));
    byId("chooser").hidden = this._all.length === 0;
    this._list();
    const known = this._all.some(({ name }) => name === this.chosen);
    if (known) {
      byId("service").value = this.chosen;
      this._describe();
    } else {
      const remembered = this._all.find(({ name }) => name === new URLSearchParams(location.search).get("service"));
      const next = (remembered ?? this._all[0])?.name ?? "";
      if (next !== this.chosen) this.choose(next);
    }
  }

  _describe() {
    const service = this._all.find(({ name }) => name === this.chosen);
    byId("about").replaceChildren(...(service ? facts(service) : []));
    byId("drop").classList.toggle("closed", !service?.input?.length);
    byId("drop-model").textContent = modelName(service) || "the model";
    byId("drop-folder").hidden = !service?.folder;
    if (service?.folder) {
      const path = make("code", {}, service.folder);
      byId("drop-folder").replaceChildren("Or copy them into ", path, " ", copyButton(() => service.folder, path));
    }
  }

  _list() {
    const empty = make("div", { class: "empty" }, make("h3", {}, "No service yet"),
      make("p", {}, "buoy up registers the FDL files of the folder fdl/ at its start; buoy fdl writes one for a model."));
    byId("service-list").replaceChildren(...(this._all.length ? this._all.map(card) : [empty]));
  }
}

/** A model may be named by its folder. */
const modelName = (service) => baseName((service?.model || service?.name || "").replace(/\/+$/, ""));

/** Task and maturity in a line. */
function facts(service) {
  const badge = service.maturity === "demo" ? make("span", { class: "badge demo" }, DEMO)
    : service.maturity && make("span", { class: "badge" }, `${service.maturity} weights`);
  const model = service.model && `${service.task || "?"} · model ${modelName(service)}`;
  const live = service.exposed && make("a", { href: service.exposed.path, target: "_blank", rel: "noopener" }, "its own page");
  return [make("span", { class: "faint" }, model || "a script of its own"), badge, live, service.fault && make("span", { class: "badge demo" }, service.fault)].filter(Boolean);
}

const STATE = { ready: "running", degraded: "partly running", init: "starting", pending: "starting", failed: "fails", stopped: "stopped" };
const KIND = { ready: "done", failed: "failed", stopped: "waiting" };

/** How an exposed service is, the way to its page, and what can be done with it. */
function operation(service) {
  const { state, reason, active_instances: number = 0, path } = service.exposed;
  const button = (action, label) => {
    const ask = async (event) => {
      event.target.disabled = true;
      try {
        await api.operate(service.name, action);
      } catch (error) {
        event.target.disabled = false;
        tell(error);
      }
    };
    return make("button", { type: "button", class: "quiet", "data-action": action, onclick: ask }, label);
  };
  const instances = number > 1 && `${number} instances`;
  return make("p", { class: "operation", "data-state": KIND[state] ?? "running" },
    make("span", { class: "pill" }, STATE[state] ?? state),
    make("span", { class: "faint" }, [instances, reason].filter(Boolean).join(" · ")),
    state !== "stopped" && make("a", { class: "button", href: path, target: "_blank", rel: "noopener" }, "Open"),
    state === "stopped" ? button("start", "Start") : [button("restart", "Restart"), button("stop", "Stop")]);
}

const runs = ({ exposed, warm }) => exposed ? "all the time: it answers requests at its own address"
  : warm ? "warm: a resident worker keeps the weights in memory" : "its script, started for every file";

function card(service) {
  const fdl = make("pre", { tabindex: "0" }, service.fdl);
  const row = (term, value) => value && [make("dt", {}, term), make("dd", {}, value)];
  const path = service.folder && make("code", {}, service.folder);
  return make("article", { class: "service" },
    make("header", {}, make("h2", {}, service.name), ...facts(service)),
    service.exposed && operation(service),
    make("dl", {},
      row("Drop files into", path && [path, " ", copyButton(() => service.folder, path)]),
      row("Input", lines(service.input)), row("Output", lines(service.output)),
      row("Image", service.image), row("CPU", service.cpu), row("Memory", service.memory),
      row("Runs", runs(service)), row("Address", service.exposed && make("code", {}, service.exposed.path)),
      row("Labels", service.labels?.length > 1 && service.labels.join(", "))),
    make("details", {}, make("summary", {}, "FDL"), make("p", { class: "actions" }, copyButton(() => service.fdl, fdl)), fdl));
}

const lines = (paths) => [paths ?? []].flat().join(", ");
