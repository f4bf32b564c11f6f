// The page's frame: which view is shown, who may see it, and what everybody should know (banners, state, theme).

import { token } from "./api.js";
import { field, h, list, say, set, to } from "./dom.js";
import { clock, span } from "./format.js";
import { follow, gateway, lookAgain, now, start } from "./status.js";
import * as connections from "./connections.js";
import * as live from "./live.js";
import * as metrics from "./metrics.js";
import * as overview from "./overview.js";
import * as playground from "./playground.js";
import * as routes from "./routes.js";

const views = { overview, routes, connections, live, playground, metrics };
const $ = (id) => document.getElementById(id);
const forever = new AbortController().signal;

// --- which view -------------------------------------------------------------------------------------------

let leave = null; // ends what the view shown now has running
let moved = false; // by a link inside the page, after which the focus follows

function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [name, ...rest] = path.split("/").map(decoded);
  return { name: Object.hasOwn(views, name) ? name : "overview", rest, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

function openView() {
  closeView();
  const { name, rest, query } = here();
  const controller = new AbortController();
  leave = () => controller.abort();
  for (const link of document.querySelectorAll("nav a")) set(link, "aria-current", link.hash === `#/${name}` ? "page" : null);
  document.title = `${views[name].title} · Livegate`;
  views[name].open($("view"), { rest, query, signal: controller.signal });
  scrollTo(0, 0);
  if (moved) $("view").focus({ preventScroll: true });
}

document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // the hash is the view's
  $("view").focus();
};

function closeView() {
  leave?.();
  leave = null;
  $("view").replaceChildren();
}

addEventListener("hashchange", () => {
  moved = true;
  if (leave) openView();
});

// --- who may see it ---------------------------------------------------------------------------------------

let gate = null; // what stands in place of the view: "token", "forbidden", "silent", or nothing

function look() {
  const { status, trouble } = gateway;
  const wanted = trouble?.status === 401 ? "token" : trouble?.status === 403 ? "forbidden" : trouble && !status ? "silent" : null;
  if (wanted !== gate) {
    gate = wanted;
    if (gate) {
      closeView();
      $("view").append(gates[gate]());
      $("view").querySelector("input")?.focus();
    }
  } else if (gate === "silent") {
    say($("view").querySelector("#why"), trouble.message);
  }
  if (!gate && !leave) openView();
  frame();
}

const gates = {
  token() {
    const input = h("input", { type: "password", autocomplete: "current-password", required: true, spellcheck: "false", id: "token" });
    const complaint = h("p", { class: "outcome", role: "alert", "data-tone": "bad" }, token.get() ? "The gateway does not take this token." : "");
    const submit = (event) => {
      event.preventDefault();
      const text = input.value.trim();
      // Anything else cannot stand in a header, and so is no token of the gateway's.
      if (!/^[\x21-\x7e]+$/.test(text)) return say(complaint, "A token has only letters, digits and signs, without spaces.");
      token.keep(text);
      gate = "asked"; // so that a second 401 builds this form anew, with its complaint
      lookAgain();
    };
    return h("form", { class: "gate", onsubmit: submit },
      h("h1", {}, "Who is there?"),
      h("p", {}, "This gateway shows its dashboard to holders of its ", h("code", {}, "admin_token"), "."),
      field("Token", input, "Kept in this tab until it is closed, and sent to this gateway alone."),
      complaint,
      h("button", { type: "submit" }, "Sign in"));
  },
  forbidden() {
    return h("section", { class: "gate", role: "alert" },
      h("h1", {}, "Not from here"),
      h("p", {}, "The gateway answers this dashboard with 403:"),
      h("pre", {}, gateway.trouble.message),
      h("p", {}, "Without an ", h("code", {}, "admin_token"), " it is for this machine alone, by a loopback address such as ", h("code", {}, "http://127.0.0.1:8081"),
        ". To use it from elsewhere, set ", h("code", {}, "[gateway] admin_token"), " and put TLS in front, or forward the port with ", h("code", {}, "ssh -L"), "."),
      h("button", { type: "button", onclick: lookAgain }, "Try again"));
  },
  silent() {
    return h("section", { class: "gate", role: "alert" },
      h("h1", {}, "No answer"),
      h("p", {}, "The gateway's admin listener does not answer: ", h("span", { id: "why" }, gateway.trouble.message), "."),
      h("p", {}, "The page goes on asking every two seconds."));
  },
};

$("forget").onclick = () => {
  token.forget();
  lookAgain();
};

// --- what everybody should know ---------------------------------------------------------------------------

function frame() {
  const { status, trouble } = gateway;
  set($("forget"), "hidden", token.get() && !trouble ? null : "");
  set($("mode"), "hidden", status?.read_only ? null : "");
  const [state, words] = trouble
    ? [trouble.status === 401 ? "wait" : "bad", { 401: "signed out", 403: "refused" }[trouble.status] ?? "no answer"]
    : status.status === "ready" ? ["good", "ready"] : ["wait", status.reasons.some(({ code }) => code === "draining") ? "draining" : "not ready"];
  $("state").dataset.state = state;
  say($("state"), words);
  list($("banners"), gate ? [] : banners(status, trouble), (one) => one.key, banner);
  if (status) {
    say($("foot"), `Livegate ${status.version} · up ${span((now() - status.started_at) / 1000)} · ${status.listeners.join(" · ")}`);
  }
}

function banners(status, trouble) {
  const shown = [];
  if (trouble && !trouble.status) {
    shown.push({ key: "silent", tone: "bad", text: `The gateway does not answer: ${trouble.message}. What is shown is from ${clock(status.now)}.` });
  } else if (trouble) {
    shown.push({ key: "trouble", tone: "bad", text: `The gateway's state cannot be read: ${trouble.message}` });
  }
  for (const { code, message } of status?.reasons ?? []) shown.push({ key: `reason ${code}`, tone: "wait", text: message });
  const failed = status?.reload.outcome === "problems";
  if (failed) {
    const since = span((now() - status.reload.last_good_at) / 1000);
    shown.push({ key: "reload", tone: "bad", text: `The last reload of ${status.reload.file} had problems; what is served was loaded ${since} ago.`, href: to("routes"), link: "See the problems" });
  }
  for (const { code, message } of status?.warnings ?? []) {
    if (!(failed && code === "reload_failed")) shown.push({ key: `warning ${code}`, tone: "wait", text: message });
  }
  return shown;
}

function banner(one) {
  const text = h("span");
  return {
    element: h("p", { class: "banner", "data-tone": one.tone }, text, one.href && h("a", { href: one.href }, one.link)),
    show: ({ text: words }) => say(text, words),
  };
}

// --- theme ------------------------------------------------------------------------------------------------

const THEMES = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };

function dress(theme) {
  document.documentElement.dataset.theme = theme;
  say($("theme"), THEMES[theme]);
  dispatchEvent(new Event("theme")); // for the charts, which paint their colours
}

$("theme").onclick = () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
  localStorage.setItem("livegate-theme", next);
  dress(next);
};

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));
const kept = localStorage.getItem("livegate-theme");
dress(Object.hasOwn(THEMES, kept ?? "") ? kept : "auto");

follow(forever, look);
start();
