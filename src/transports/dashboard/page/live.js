// What happens, as it happens: the tail of calls, pushes and frames, narrowed by the gateway before it is sent here.

import { ask, lines } from "./api.js";
import { field, h, remember, say, select, to } from "./dom.js";
import { bytes, clock, milliseconds, plural } from "./format.js";
import { lookAgain } from "./status.js";

export const title = "Live";

const MOST_ROWS = 500;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const TYPING_MS = 300;
const KINDS = ["connect", "message", "push", "disconnect", "request", "authorizer", "frame"];
const OUTCOMES = ["ok", "refused", "failed"];
const SAMPLES = [["", "every one"], ["0.1", "1 of 10"], ["0.01", "1 of 100"], ["0.001", "1 of 1000"]];
const NARROW = ["connection", "user", "route", "api", "stage"];

export function open(view, { query, signal }) {
  const filters = makeFilters(query, restart, explain);
  const state = h("p", { class: "pill", role: "status", "data-state": "wait" });
  const counts = h("p", { class: "hint" });
  const drops = h("p", { class: "notice", role: "status", hidden: true });
  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const explained = h("p", { class: "notice", role: "status", hidden: true });
  const pause = h("button", { type: "button", onclick: () => (paused ? resume() : hold("paused")) }, "Pause");
  const clear = h("button", { type: "button", class: "quiet", onclick: wipe }, "Clear");
  const rows = h("ol", { class: "tail", "aria-label": "Events, newest first" });
  const empty = h("p", { class: "empty" }, "Nothing yet. What matches the filters appears here the moment it happens.");
  view.append(
    h("div", { class: "head" }, h("h1", {}, "Live"), state, counts, h("div", { class: "actions end" }, pause, clear)),
    filters.element, notice, explained, drops,
    h("section", { class: "card flush" },
      h("div", { class: "event columns", "aria-hidden": "true" }, ["Time", "Kind", "Outcome", "Route", "Connection", "User", "Took", "Bytes"].map((words) => h("span", {}, words))),
      rows, empty));

  let waiting = []; // came since the last paint, or while paused
  let paused = false;
  let missed = 0; // came while paused and had no room
  let dropped = 0;
  let seen = 0;
  let painting = false;
  let asking = new AbortController();

  function hold(why) {
    paused = true;
    say(pause, "Resume");
    tell("wait", why);
  }
  function resume() {
    paused = false;
    missed = 0;
    say(pause, "Pause");
    tell("good", "watching");
    paint();
  }
  function wipe() {
    rows.replaceChildren();
    waiting = [];
    missed = seen = dropped = 0;
    drops.hidden = true;
    paint();
  }
  function tell(tone, words) {
    state.dataset.state = tone;
    say(state, words);
  }

  function take(event) {
    if (event.note !== undefined) return; // "watching": the answer itself says so
    if (event.dropped !== undefined) {
      dropped += event.dropped;
      say(drops, `${plural(dropped, "event")} came faster than this page could be told, and are missing here. Narrow the filters or take a sample.`);
      drops.hidden = false;
      return;
    }
    if (!filters.matches(event)) return;
    seen += 1;
    waiting.push(event);
    if (waiting.length > MOST_ROWS) {
      waiting.shift();
      if (paused) missed += 1;
    }
    if (!painting) {
      painting = true;
      requestAnimationFrame(paint);
    }
  }

  // Many events may come between two frames of the screen: they are drawn together.
  function paint() {
    painting = false;
    if (!paused && waiting.length) {
      const fresh = document.createDocumentFragment();
      for (const event of waiting.reverse()) fresh.append(draw(event, filters));
      waiting = [];
      rows.prepend(fresh);
      while (rows.childElementCount > MOST_ROWS) rows.lastElementChild.remove();
    }
    empty.hidden = rows.childElementCount > 0;
    const held = waiting.length + missed;
    say(counts, paused && held ? `${plural(held, "new event")} since` : plural(seen, "event"));
  }

  // The gateway sends payloads only of stages that agreed to it; without a word the page would look broken.
  function explain() {
    const silent = filters.wantsPayloads() ? filters.silent() : [];
    explained.hidden = silent.length === 0;
    say(explained, `No payloads are told of ${silent.join(", ")}: they may hold what is not for the eyes of operators. A stage agrees with data_trace = true.`);
  }

  rows.addEventListener("toggle", (event) => {
    // What is being read must not run away; the reader resumes.
    if (event.target.open && !paused) hold("paused while you read");
  }, { capture: true });

  function restart() {
    if (signal.aborted) return; // typed, and gone before the pause was over
    remember("live", filters.query());
    explain();
    asking.abort();
    asking = new AbortController();
    watch(AbortSignal.any([signal, asking.signal]));
  }

  async function watch(mine) {
    for (let failures = 0; !mine.aborted;) {
      if (!paused) tell("wait", "connecting…");
      try {
        for await (const event of lines(`api/tail?${filters.asked()}`, { signal: mine })) {
          if (mine.aborted) return;
          failures = 0;
          notice.hidden = true;
          if (event.note === "watching" && !paused) tell("good", "watching");
          take(event);
        }
      } catch (error) {
        if (mine.aborted) return;
        if (error.isGeneral) lookAgain();
        notice.hidden = !error.status || error.isGeneral;
        say(notice, error.message);
      }
      failures += 1;
      await backoff(failures, mine);
    }
  }

  // With jitter: sixteen dashboards that lost a gateway do not come back in one moment.
  async function backoff(failures, mine) {
    const due = Date.now() + Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures) * (0.5 + Math.random() / 2);
    while (!mine.aborted && (Date.now() < due || document.hidden)) {
      if (!paused) tell("bad", `reconnecting in ${Math.max(0, Math.ceil((due - Date.now()) / 1000))} s`);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
  restart();
}

// --- filters ----------------------------------------------------------------------------------------------

function makeFilters(query, changed, learned) {
  let timer = null;
  const typed = () => {
    clearTimeout(timer);
    timer = setTimeout(changed, TYPING_MS);
  };
  const inputs = Object.fromEntries(NARROW.map((name) => [name, h("input", { value: query[name] ?? "", spellcheck: "false", autocomplete: "off", list: `live-${name}`, oninput: typed })]));
  const offers = ["api", "stage", "route"].map((name) => h("datalist", { id: `live-${name}` }));
  const words = h("input", { type: "search", value: query.text ?? "", spellcheck: "false", oninput: typed });
  const sample = select(SAMPLES, SAMPLES.some(([key]) => key === query.sample) ? query.sample : "", { onchange: changed });
  const payload = h("input", { type: "checkbox", checked: query.payload === "true", onchange: changed });
  const boxes = (names, given) => names.map((name) => [name, h("input", { type: "checkbox", checked: given.includes(name), onchange: changed })]);
  const kinds = boxes(KINDS, query.kind ? query.kind.split(",") : []);
  const outcomes = boxes(OUTCOMES, query.outcome ? query.outcome.split(",") : []);
  const chips = (label, all) => h("fieldset", { class: "chips" }, h("legend", {}, label), all.map(([name, box]) => h("label", { class: "chip" }, box, name)));
  const labels = { connection: "Connection", user: "User", route: "Route", api: "API", stage: "Stage" };
  const more = h("details", { class: "more", open: NARROW.slice(1).some((name) => query[name]) || query.sample },
    h("summary", {}, "More filters"),
    h("div", { class: "filters" }, NARROW.slice(1).map((name) => field(labels[name], inputs[name])), field("Sample", sample)));
  let stages = [];
  const element = h("form", { class: "card tight", onsubmit: (event) => { event.preventDefault(); changed(); } },
    h("div", { class: "filters" }, field(labels.connection, inputs.connection), field("Has text", words)),
    h("div", { class: "filters" }, chips("Kinds", kinds), chips("Outcomes", outcomes),
      h("fieldset", { class: "chips" }, h("legend", {}, "Payloads"),
        h("label", { class: "chip", title: "only of stages with data_trace = true, cut at 4 KiB" }, payload, "show them"))),
    more, offers);

  // What can be chosen is only a help: without it everything can still be typed.
  ask("api/routes").then(({ apis }) => {
    const offer = (at, names) => offers[at].replaceChildren(...[...new Set(names)].slice(0, 500).map((name) => h("option", { value: name })));
    stages = apis.flatMap((one) => one.stages.map((stage) => ({ api: one.name, ...stage })));
    learned();
    offer(0, apis.map((one) => one.name));
    offer(1, apis.flatMap((one) => one.stages.map((stage) => stage.name)));
    offer(2, apis.flatMap((one) => one.stages.flatMap((stage) => stage.routes.map((route) => route.key))));
  }, () => {});

  const chosen = (all) => all.filter(([, box]) => box.checked).map(([name]) => name).join(",");
  const asked = () => ({
    ...Object.fromEntries(NARROW.map((name) => [name, inputs[name].value.trim()])),
    kind: chosen(kinds), outcome: chosen(outcomes), sample: sample.value, payload: payload.checked ? "true" : "",
  });
  return {
    element,
    query: () => ({ ...asked(), text: words.value.trim() }),
    asked: () => new URLSearchParams(Object.entries(asked()).filter(([, value]) => value)),
    wantsPayloads: () => payload.checked,
    /** The stages that may be seen here and do not let payloads be. */
    silent() {
      const { api, stage } = asked();
      const seen = stages.filter((one) => (!api || one.api === api) && (!stage || one.name === stage));
      return seen.filter((one) => !one.data_trace).map((one) => `${one.api} / ${one.name}`);
    },
    // The one filter that is the page's own: any field that has these letters.
    matches(event) {
      const wanted = words.value.trim().toLowerCase();
      return !wanted || Object.values(event).some((value) => value !== null && String(value).toLowerCase().includes(wanted));
    },
  };
}

// --- one event --------------------------------------------------------------------------------------------

const TONES = { ok: "good", refused: "wait", failed: "bad" };

function draw(event, filters) {
  const arrow = { in: "← ", out: "→ " }[event.direction] ?? "";
  const cell = (text, name) => h("span", { class: name }, text ?? "–");
  const summary = h("summary", { class: "event" },
    cell(clock(event.at, true), "when"),
    cell(arrow + event.kind, "kind"),
    h("span", { class: "result", "data-tone": TONES[event.outcome] }, [event.outcome, event.status].filter(Boolean).join(" ")),
    cell(event.authorizer ? `${event.authorizer} (authorizer)` : event.route, "route"),
    cell(event.connection, "who"), cell(event.user, "user"),
    cell(milliseconds(event.latency_ms), "took"), cell(bytes(event.bytes), "size"),
    event.error ? h("span", { class: "error", "data-tone": event.outcome === "ok" ? null : "bad" }, event.cause ? `${event.cause}: ${event.error}` : event.error) : null,
    event.payload ? cell(event.payload, "payload") : null);
  const details = h("details", {}, summary);
  // Five hundred rows, of which a few are opened: the rest of a row is made when it is.
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(all(event, filters));
  });
  return h("li", {}, details);
}

function all(event, filters) {
  const facts = Object.entries(event).filter(([name]) => name !== "payload").map(([name, value]) => {
    const shown = name === "at" ? new Date(value).toISOString() : value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
    return h("div", {}, h("dt", {}, name), h("dd", {}, shown));
  });
  const links = [];
  if (event.connection) links.push(h("a", { href: to(`connections/${event.connection}`) }, "This connection"));
  for (const name of ["connection", "user", "route"]) {
    if (event[name] && filters.query()[name] !== event[name]) links.push(h("a", { href: to("live", { ...filters.query(), [name]: event[name] }) }, `Only this ${name}`));
  }
  return h("div", { class: "whole" }, h("p", { class: "links" }, links), h("dl", { class: "facts narrow" }, facts),
    event.payload ? h("pre", { class: "report", tabindex: "0", role: "region", "aria-label": "Payload" }, pretty(event.payload)) : null);
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
