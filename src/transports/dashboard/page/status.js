// The gateway's state, asked every other second and shared by all views.

import { ask, poll } from "./api.js";

const EVERY_MS = 2_000;
const changes = new EventTarget();
let skew = 0; // the gateway's clock less ours: ages are told by its clock

/** `status` is its last answer, `trouble` what went wrong with the last question. */
export const gateway = { status: null, trouble: null };

export const now = () => Date.now() + skew;
export const isReadOnly = () => gateway.status?.read_only ?? false;

/** Calls `see` after every answer or failure, and at once if there has been one. */
export function follow(signal, see) {
  changes.addEventListener("change", see, { signal });
  if (gateway.status || gateway.trouble) see();
}

let again = () => {};

export function start() {
  const signal = new AbortController().signal;
  again = poll(signal, EVERY_MS, look, (error) => {
    if (!error) return;
    gateway.trouble = error;
    changes.dispatchEvent(new Event("change"));
  });
}

async function look() {
  const status = await ask("api/status");
  skew = status.now - Date.now();
  gateway.status = status;
  gateway.trouble = null;
  changes.dispatchEvent(new Event("change"));
}

export const lookAgain = () => again();

/** Where the failures of a view's questions go: what concerns the whole page to the page, the rest into `element`. */
export function complaints(element) {
  return (error) => {
    const general = error?.isGeneral;
    if (general) lookAgain();
    element.hidden = !error || general;
    element.textContent = error && !general ? `The gateway refused this: ${error.message}` : "";
  };
}
