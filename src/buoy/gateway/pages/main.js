// Wires the page together: the chosen service, the views, and the live events that feed them.

import { byId, atMostEvery } from "./dom.js";
import { Counters } from "./counters.js";
import { Gallery } from "./gallery.js";
import { Jobs } from "./jobs.js";
import { listen } from "./live.js";
import { clearNotice, linkState, notice } from "./notice.js";
import { idOf } from "./records.js";
import { Runs } from "./runs.js";
import { Services } from "./services.js";
import { Uploads } from "./upload.js";

const VIEWS = ["pictures", "jobs", "services", "runs"];

const chosen = () => services.chosen;
const jobs = new Jobs(chosen);
const runs = new Runs();
const gallery = new Gallery((job) => jobs.openLog(job));
const counters = new Counters(chosen);
const uploads = new Uploads(chosen, (record) => gallery.open(idOf(record)));
const services = new Services((name) => {
  gallery.choose(name);
  counters.reset();
  jobs.reset();
  uploads.release();
});

/** A zip may have more results than are told live. */
const refreshAnew = atMostEvery(1000, () => gallery.refresh({ anew: true }));

listen({
  open() {
    linkState("live");
    clearNotice("away");
    services.refresh();
    if (chosen()) {
      gallery.refresh();
      counters.refresh();
      jobs.reset();
    }
    uploads.resume();
  },
  away() {
    linkState("away");
    notice("away", "The server is away.", "Files and results are safe; this page goes on as soon as it is back.");
    uploads.pause();
  },
  job(job) {
    uploads.job(job);
    counters.job(job);
    jobs.job(job);
    if (job.finished && job.key.endsWith(".zip") && job.service === chosen()) refreshAnew();
  },
  result(record) {
    uploads.result(record);
    gallery.add(record);
  },
  service() {
    services.refresh();
  },
});

function showView(event) {
  const wanted = location.hash.replace("#/", "");
  const view = VIEWS.includes(wanted) ? wanted : "pictures";
  VIEWS.forEach((name) => { byId(name).hidden = name !== view; });
  byId("chooser").classList.toggle("aside", view === "services" || view === "runs");
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  jobs.visible(view === "jobs");
  runs.visible(view === "runs");
  if (event) scrollTo(0, 0);
}

addEventListener("hashchange", showView);
// a page taken out of the back/forward cache has lost its live connection
addEventListener("pageshow", (event) => event.persisted && location.reload());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the view
  byId("main").focus();
});
showView();
