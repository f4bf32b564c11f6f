// What is served, and how it goes with each route: stages, routes with their last minute, and the report of a reload that failed.

import { ask, poll } from "./api.js";
import { field, h, list, remember, row, say, select, set, table, to } from "./dom.js";
import { clock, count, plural, rate, seconds, span, stamp } from "./format.js";
import { complaints, follow, gateway, now } from "./status.js";

export const title = "Routes";
const EVERY_MS = 3_000;
const PAGE = 200; // rows drawn at once; more come by a button, so that thousands of routes cost nothing

const link = (cell, words, href) => {
  if (!cell.firstElementChild) cell.append(h("a", {}));
  say(cell.firstElementChild, words);
  set(cell.firstElementChild, "href", href);
};
const number = { class: "number" };
const NO_BREAK = "\u00a0"; // behind the arrow, which would else stand alone in its line
const failures = (route) => route.integration_errors + route.execution_errors;

const STAGES = [
  { label: "Stage", show: (one, cell) => link(cell, `${one.api} / ${one.name}`, to("routes", { api: one.api, stage: one.name })) },
  { label: "Protocol", show: (one) => one.protocol },
  { label: "Addresses", class: "mono break pair", show: (one) => one.addresses.join("  ") || "–" },
  { label: "Connections", ...number, show: (one, cell) => link(cell, count(one.connections), to("connections")) },
  { label: "Opened", ...number, show: (one, cell) => link(cell, count(one.opens), to("live", { kind: "connect", api: one.api, stage: one.name })) },
  { label: "Detailed metrics", show: (one) => (one.detailed_metrics ? "yes" : "no") },
  { label: "Closed, by code", class: "break roomy", show: (one) => closes(one.closes) },
];

function closes(codes) {
  const all = Object.entries(codes).sort(([, one], [, other]) => other - one);
  return all.map(([code, times]) => `${code} × ${count(times)}`).join(", ") || "–";
}

const ROUTES = [
  { key: "key", label: "Route", class: "mono break", text: (one) => one.key, show: (one, cell) => link(cell, one.key, to("live", { api: one.api, stage: one.stage, route: one.key })) },
  { key: "stage", label: "Stage", text: (one) => `${one.api} / ${one.stage}`, show: (one) => `${one.api} / ${one.stage}` },
  { key: "authorizer", label: "Authorizer", text: (one) => one.authorizer ?? "", show: (one) => [one.authorizer, one.api_key && "API key"].filter(Boolean).join(", ") || "–" },
  { key: "integration", label: "Integration", class: "mono break dim roomy", text: (one) => one.integration, show: (one) => one.integration.replace(" ", NO_BREAK) },
  { key: "rate", label: "Rate", ...number, title: "calls a second in the last minute; below, since the start", by: (one) => one.rate, show: (one, cell) => stacked(cell, rate(one.rate), `${count(one.calls)} in all`) },
  { key: "errors", label: "Errors", ...number, title: "of the backend and of calling it; below, since the start", by: (one) => one.error_rate * 1e9 + failures(one), show: (one, cell) => {
    set(cell, "data-tone", one.error_rate > 0 ? "bad" : null);
    const parts = [[one.integration_errors, "backend"], [one.execution_errors, "calling it"], [one.client_errors, "client"]];
    stacked(cell, rate(one.error_rate), parts.filter(([times]) => times).map(([times, whose]) => `${count(times)} ${whose}`).join(", ") || "none");
  } },
  { key: "throttled", label: "Throttled", ...number, title: "turned away now; below, since the start and the limit", by: (one) => one.throttled_rate * 1e9 + one.throttled, show: (one, cell) => {
    set(cell, "data-tone", one.throttled_rate > 0 ? "bad" : null);
    stacked(cell, rate(one.throttled_rate), [one.throttled ? `${count(one.throttled)} in all` : "", one.throttle ? `limit ${one.throttle}` : "no limit"].filter(Boolean).join(", "));
  } },
  { key: "p50", label: "p50", ...number, title: "half of the last minute's calls were faster", by: (one) => one.p50 ?? -1, show: (one) => seconds(one.p50) },
  { key: "p95", label: "p95", ...number, by: (one) => one.p95 ?? -1, show: (one) => seconds(one.p95) },
  { key: "p99", label: "p99", ...number, by: (one) => one.p99 ?? -1, show: (one) => seconds(one.p99) },
];

function stacked(cell, first, second) {
  if (!cell.firstElementChild) cell.append(h("span"), h("small"));
  say(cell.firstElementChild, first);
  set(cell.firstElementChild, "class", first === "0/s" ? "still" : null);
  say(cell.lastElementChild, second);
}

export function open(view, { query, signal }) {
  let sort = ROUTES.some((column) => column.key === query.sort) ? query.sort : "";
  let api = query.api ?? "";
  let stage = query.stage ?? "";
  let most = PAGE;
  let routes = [];
  let stages = null;

  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const reload = makeReload(signal);
  const search = h("input", { type: "search", value: query.search ?? "", placeholder: "Part of a key, integration, authorizer", spellcheck: "false", oninput: narrow });
  const where = select([["", "every stage"]], "", { onchange: pick });
  const order = select([["", "as in the file"], ...ROUTES.map((column) => [column.key, `by ${column.label.toLowerCase()}`])], sort, { onchange: () => arrange(order.value) });
  const stageTable = table("Stages", STAGES);
  const routeTable = table("Routes", ROUTES);
  const found = h("p", { class: "hint", role: "status" });
  const more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => { most += PAGE; show(); } });
  ROUTES.forEach((column, at) => {
    routeTable.heads[at].replaceChildren(h("button", { type: "button", onclick: () => arrange(sort === column.key ? "" : column.key) }, column.label));
  });
  view.append(
    h("div", { class: "head" }, h("h1", {}, "Routes"), reload.line), reload.element, notice,
    h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "Stages")), stageTable.element),
    h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "Routes"), found),
      h("div", { class: "filters" }, field("Filter", search), field("Stage", where), field("Order", order)),
      routeTable.element, more));

  function narrow() {
    most = PAGE;
    note();
    show();
  }
  function pick() {
    [api, stage] = where.value ? JSON.parse(where.value) : ["", ""];
    narrow();
  }
  function arrange(key) {
    sort = key;
    order.value = key;
    narrow();
  }
  const note = () => remember("routes", { search: search.value, api, stage, sort });

  function show() {
    if (!stages) return;
    list(stageTable.body, stages, (one) => `${one.api}\n${one.name}`, () => row(STAGES));
    const choices = [["", "every stage"], ...stages.map((one) => [JSON.stringify([one.api, one.name]), `${one.api} / ${one.name}`])];
    if (where.options.length !== choices.length || choices.some(([key], at) => where.options[at].value !== key)) {
      where.replaceChildren(...choices.map(([key, words]) => h("option", { value: key }, words)));
    }
    where.value = api ? JSON.stringify([api, stage]) : "";

    const words = search.value.trim().toLowerCase();
    const matching = routes.filter((one) => (!api || one.api === api) && (!stage || one.stage === stage)
      && [one.key, one.integration, one.authorizer ?? ""].some((text) => text.toLowerCase().includes(words)));
    const column = ROUTES.find((one) => one.key === sort);
    if (column) matching.sort(column.by ? (one, other) => column.by(other) - column.by(one) : (one, other) => column.text(one).localeCompare(column.text(other)));
    routeTable.heads.forEach((head, at) => set(head, "aria-sort", ROUTES[at].key === sort ? (ROUTES[at].by ? "descending" : "ascending") : null));
    list(routeTable.body, matching.slice(0, most), (one) => `${one.api}\n${one.stage}\n${one.key}`, () => row(ROUTES));
    say(found, routes.length === 0 ? "The file has no routes." : matching.length === routes.length ? plural(routes.length, "route") : `${count(matching.length)} of ${plural(routes.length, "route")}`);
    more.hidden = matching.length <= most;
    say(more, `Show ${count(Math.min(PAGE, matching.length - most))} more`);
  }

  poll(signal, EVERY_MS, async () => {
    const { apis } = await ask("api/routes", { signal });
    stages = apis.flatMap((one) => one.stages.map((each) => ({ ...each, api: one.name, protocol: one.protocol })));
    routes = stages.flatMap((one) => one.routes.map((route) => ({ ...route, api: one.api, stage: one.name })));
    show();
  }, complaints(notice));
}

function makeReload(signal) {
  const line = h("p", { class: "hint" });
  const words = h("p");
  const report = h("pre", { class: "report", tabindex: "0", role: "region", "aria-label": "Problems of the last reload" });
  const element = h("section", { class: "card problems", hidden: true }, h("div", { class: "head" }, h("h2", {}, "Problems of the last reload")), words, report);
  follow(signal, () => {
    const last = gateway.status?.reload;
    if (!last) return;
    const since = span((now() - last.last_good_at) / 1000);
    say(line, `${last.file}, served since ${stamp(last.last_good_at)} (${since})`);
    element.hidden = last.outcome === "ok";
    say(words, `At ${clock(last.last_attempt_at)} the file was read and not taken. What is served was loaded ${since} ago and stays until the file is good; this is what \`livegate check\` says:`);
    say(report, last.report ?? "");
  });
  return { line, element };
}
