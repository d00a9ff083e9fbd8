// Talks to the gateway: JSON in, errors as `ApiError` with what happened and what to do.

/** An answer that is an error, or no answer (`status` 0). */
export class ApiError extends Error {
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }

  /** From the text of an answer: our one JSON shape, or whatever a proxy in between wrote. */
  static from(status, text) {
    try {
      const { error } = JSON.parse(text);
      return new ApiError(status, error.message, error.hint);
    } catch {
      return new ApiError(status, `the server answered ${status}`, "try again, or look at its log");
    }
  }
}

export const AWAY = new ApiError(0, "the server does not answer", "it is asked again until it does");

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  } catch {
    throw AWAY;
  }
  if (!answer.ok) throw ApiError.from(answer.status, await answer.text());
  return answer;
}

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== ""));
const json = async (path) => (await ask(path)).json();

export const services = () => json("/page/services");
export const runs = () => json("/page/runs");
export const jobs = (wanted) => json(`/page/jobs?${query(wanted)}`);
export const results = (wanted) => json(`/page/results?${query(wanted)}`);
export const log = async (job) => (await ask(`/page/jobs/${encodeURIComponent(job)}/log`)).text();
export const retry = (job) => ask(`/page/jobs/${encodeURIComponent(job)}/retry`, { method: "POST" });
export const operate = (service, action) => ask(`/page/services/${encodeURIComponent(service)}/${action}`, { method: "POST" });
export const exportPath = (service, format) => `/page/export?${query({ service, format })}`;

/**
 * Send one file to a service; `onProgress(fraction)` while it goes. XMLHttpRequest, since fetch tells no progress.
 * Resolves to {name, key, size_bytes}; rejects with an `ApiError` if it is refused.
 */
export function upload(service, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file, file.name);
    request.upload.addEventListener("progress", (event) => onProgress(event.total ? event.loaded / event.total : 0));
    request.addEventListener("error", () => reject(AWAY));
    request.addEventListener("abort", () => reject(AWAY));
    request.addEventListener("load", () => {
      if (request.status !== 200) return reject(ApiError.from(request.status, request.responseText));
      const { uploaded, refused } = JSON.parse(request.responseText);
      if (uploaded.length) return resolve(uploaded[0]);
      const { message, hint } = refused.length ? refused[0].error : { message: "the file did not arrive", hint: "send it again" };
      return reject(new ApiError(400, message, hint));
    });
    request.open("POST", `/page/upload?${query({ service })}`);
    request.setRequestHeader("Accept", "application/json");
    request.send(form);
  });
}
