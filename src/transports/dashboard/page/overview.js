// How it goes: the numbers of this moment, the last minutes or hours as charts, and what the gateway runs on.

import { ask, poll } from "./api.js";
import { chart } from "./charts.js";
import { choice, h, list, remember, row, say, set, table, to } from "./dom.js";
import { bytes, clock, count, percent, plural, rate, seconds, span, stamp } from "./format.js";
import { complaints, follow, gateway, now } from "./status.js";

export const title = "Overview";

// How often a range is asked anew: about once for each of its steps.
const RANGES = { "5m": ["5 min, live", 1_000], "15m": ["15 min", 3_000], "1h": ["1 h", 10_000], "6h": ["6 h", 30_000], "24h": ["24 h", 60_000] };
const LENGTHS = { "5m": 300, "15m": 900, "1h": 3_600, "6h": 21_600, "24h": 86_400 };

const live = (query) => to("live", query);
const metric = (name) => h("a", { href: to("metrics", { search: name }) }, "/metrics");

// Where the calls behind each cause are seen: errors begin with the name of their gateway response.
const CAUSES = [
  ["throttled", "throttled", { outcome: "refused", text: "throttled" }],
  ["denied", "denied", { outcome: "refused" }],
  ["client", "client", { outcome: "refused" }],
  ["integration", "backend answered 4xx, 5xx", { outcome: "refused,failed" }],
  ["unreachable", "backend unreachable", { outcome: "failed", text: "API_CONFIGURATION_ERROR" }],
  ["timeout", "timeout", { outcome: "failed", text: "INTEGRATION_TIMEOUT" }],
  ["bad_answer", "bad answer", { outcome: "failed", text: "INTEGRATION_FAILURE" }],
  ["authorizer", "authorizer failed", { outcome: "failed", kind: "authorizer" }],
  ["internal", "internal", { outcome: "failed", text: "DEFAULT_5XX" }],
];

export function open(view, { query, signal }) {
  let range = Object.hasOwn(RANGES, query.range ?? "") ? query.range : "5m";
  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const tiles = makeTiles();
  const charts = makeCharts(signal);
  const facts = makeFacts();
  view.append(
    h("div", { class: "head" }, h("h1", {}, "Overview"),
      choice("Range", Object.entries(RANGES).map(([key, [words]]) => [key, words]), range, (chosen) => {
        range = chosen;
        remember("overview", { range });
        restart();
      })),
    notice, tiles.element, charts.element, facts.element);

  follow(signal, () => {
    if (!gateway.status) return;
    tiles.show(gateway.status);
    facts.show(gateway.status);
  });

  // A range brings its own pace, and so its own poll.
  let asking = new AbortController();
  function restart() {
    asking.abort();
    asking = new AbortController();
    const mine = AbortSignal.any([signal, asking.signal]);
    const chosen = range;
    poll(mine, RANGES[chosen][1], async () => {
      const seen = await ask(`api/overview?range=${chosen}`, { signal: mine });
      if (!mine.aborted) charts.show(seen, LENGTHS[chosen]);
    }, complaints(notice));
  }
  restart();
}

function makeTiles() {
  const tiles = [
    ["Connections", "open now", (status) => count(status.connections), to("connections")],
    ["Messages in", "from clients", (status) => rate(status.rates.messages_in), live({ kind: "message" })],
    ["Messages out", "to clients", (status) => rate(status.rates.messages_out), live({ kind: "frame" })],
    ["Pushes", "by backends", (status) => rate(status.rates.pushes), live({ kind: "push" })],
    ["Requests", "of HTTP APIs", (status) => rate(status.rates.requests), live({ kind: "request" })],
    ["Errors", "refused or failed", (status) => rate(status.rates.errors), live({ outcome: "refused,failed" }), (status) => status.rates.errors >= 1],
    ["Latency p50", "half are faster", (status) => seconds(status.latency.p50), to("routes", { sort: "p50" })],
    ["p95", "19 of 20", (status) => seconds(status.latency.p95), to("routes", { sort: "p95" })],
    ["p99", "99 of 100", (status) => seconds(status.latency.p99), to("routes", { sort: "p99" })],
  ].map(([label, hint, value, href, isBad]) => {
    const number = h("b");
    const element = h("a", { class: "tile", href }, h("span", {}, label), number, h("small", {}, hint));
    return { element, show(status) { say(number, value(status)); set(element, "data-tone", isBad?.(status) ? "bad" : null); } };
  });
  return {
    element: h("section", { class: "tiles", "aria-label": "Now, over the last 10 seconds" }, tiles.map((one) => one.element)),
    show: (status) => tiles.forEach((one) => one.show(status)),
  };
}

function makeCharts(signal) {
  const drawn = [
    [chart({
      title: "Connections", unit: count, least: 4, area: true, signal, lines: [{ label: "open", tone: "c1" }],
      links: [h("a", { href: to("connections") }, "Connections"), h("a", { href: live({ kind: "connect,disconnect" }) }, "Opens and closes, live"), metric("livegate_connections_open")],
    }), ["connections"]],
    [chart({
      title: "Messages", unit: rate, least: 1, signal, lines: [{ label: "in", tone: "c1" }, { label: "out", tone: "c2" }],
      links: [h("a", { href: to("routes", { sort: "rate" }) }, "By route"), h("a", { href: live({ kind: "message,frame" }) }, "Live"), metric("livegate_messages_total")],
    }), ["messages_in", "messages_out"]],
    [chart({
      title: "Pushes and requests", unit: rate, least: 1, signal, lines: [{ label: "pushes", tone: "c3" }, { label: "requests", tone: "c4" }],
      links: [h("a", { href: live({ kind: "push" }) }, "Pushes, live"), h("a", { href: live({ kind: "request" }) }, "Requests, live"), metric("livegate_pushes_total")],
    }), ["pushes", "requests"]],
    [chart({
      title: "Latency", unit: seconds, least: 0.001, signal, lines: [{ label: "p50", tone: "c2" }, { label: "p95", tone: "c4" }, { label: "p99", tone: "c5" }],
      links: [h("a", { href: to("routes", { sort: "p99" }) }, "The slowest routes"), metric("latency_seconds")],
    }), ["p50", "p95", "p99"]],
    [chart({
      title: "Errors by cause", unit: rate, least: 1, signal, lines: CAUSES.map(([, label], at) => ({ label, tone: `c${at + 1}` })),
      links: ["Live: ", CAUSES.map(([key, , query]) => h("a", { href: live(query) }, key.replace("_", " "))),
        h("a", { href: to("routes", { sort: "errors" }) }, "By route"), metric("errors_total"), metric("livegate_refusals_total")],
    }), CAUSES.map(([key]) => `errors.${key}`)],
  ];
  drawn.at(-1)[0].element.classList.add("wide");
  return {
    element: h("div", { class: "charts" }, drawn.map(([one]) => one.element)),
    show(seen, length) {
      const { series, step } = seen;
      const until = (series.time.at(-1) ?? Math.floor(now() / 1000) - step) + step;
      const window = { times: series.time, from: until - length, until };
      for (const [one, names] of drawn) {
        one.show(window, names.map((name) => {
          const [first, second] = name.split(".");
          return (second ? series[first]?.[second] : series[first]) ?? series.time.map(() => null);
        }));
      }
    },
  };
}

// --- what the gateway runs on -----------------------------------------------------------------------------

const SERVERS = [
  { label: "Server", class: "mono break", show: (one) => one.address },
  { label: "Backend", class: "mono break pair", show: (one) => one.backend },
  { label: "State", show: (one, cell) => { set(cell, "data-tone", { healthy: "good", ejected: "bad" }[one.state]); return one.state; } },
  { label: "Busy", class: "number", title: "connections with a call on them, of the whole backend", show: (one) => count(one.busy) },
  { label: "Idle", class: "number", show: (one) => count(one.idle) },
  { label: "Waiting", class: "number", title: "calls that wait for a connection", show: (one, cell) => { set(cell, "data-tone", one.waiting ? "wait" : null); return count(one.waiting); } },
];

const LOGS = [
  { label: "Destination", class: "mono break", show: (one) => one.destination },
  { label: "Written", class: "number", show: (one) => count(one.written) },
  { label: "Dropped", class: "number", show: (one, cell) => { set(cell, "data-tone", one.dropped ? "bad" : null); return count(one.dropped); } },
  { label: "Failed", class: "number", show: (one, cell) => { set(cell, "data-tone", one.failed ? "bad" : null); return count(one.failed); } },
];

function makeFacts() {
  const process = h("dl", { class: "facts" });
  const file = h("dl", { class: "facts" });
  const servers = table("Backends", SERVERS);
  const noServers = h("p", { class: "hint" }, "No backend has been called yet.");
  const logs = table("Access logs and traces", LOGS);
  const noLogs = h("p", { class: "hint" }, "No stage has an access log, and no tracing is set up.");
  const element = h("div", { class: "charts" },
    h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "Process")), process, h("p", { class: "links" }, metric("process_"))),
    h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "State and file")), file,
      h("p", { class: "links" }, h("a", { href: to("routes") }, "Routes"), h("a", { href: "readyz" }, "/readyz"), metric("reload"))),
    h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "Backends")), servers.element, noServers, h("p", { class: "links" }, metric("livegate_backend_"))),
    h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "Access logs and traces")), logs.element, noLogs,
      h("p", { class: "links" }, metric("livegate_access_log_lines_total"), metric("livegate_spans_total"))));

  function show(status) {
    const { process: used, reload } = status;
    describe(process, used === null ? [["Figures", "not known on this system"], ["Version", status.version]] : [
      ["CPU", `${percent(used.cpu_percent)} now, ${span(used.cpu_seconds)} in all`],
      ["Memory", bytes(used.resident_bytes)],
      ["Open files", `${count(used.open_files)} of ${count(used.max_open_files)}`, used.open_files > 0.8 * used.max_open_files ? "bad" : null],
      ["Threads", count(used.threads)],
      ["Up", `${span(used.uptime_seconds)}, since ${stamp(status.started_at)}`],
      ["Version", status.version],
    ]);
    describe(file, [
      ["State", status.status === "ready" ? "ready" : status.reasons.map((one) => one.message).join("; ") || "not ready", status.status === "ready" ? "good" : "wait"],
      ["Warnings", status.warnings.map((one) => one.message).join("; ") || "none", status.warnings.length ? "wait" : null],
      ["File", reload.file],
      ["Last reload", reload.outcome === "ok" ? "good" : `had problems, at ${clock(reload.last_attempt_at)}`, reload.outcome === "ok" ? "good" : "bad"],
      ["Served since", `${stamp(reload.last_good_at)}, ${span((now() - reload.last_good_at) / 1000)} ago; ${plural(reload.count, "reload")}`],
      ["Listening on", status.listeners.join("  ")],
    ]);
    const every = status.backends.flatMap((backend) => backend.servers.map((server) => ({ ...server, backend: backend.name, busy: backend.busy, idle: backend.idle, waiting: backend.waiting })));
    list(servers.body, every, (one) => `${one.backend} ${one.address}`, () => row(SERVERS));
    servers.element.hidden = every.length === 0;
    noServers.hidden = every.length > 0;
    const written = [...status.access_logs, ...(status.tracing ? [{ destination: "traces (spans)", written: status.tracing.exported, ...status.tracing }] : [])];
    list(logs.body, written, (one) => one.destination, () => row(LOGS));
    logs.element.hidden = written.length === 0;
    noLogs.hidden = written.length > 0;
  }
  return { element, show };
}

/** Fills a <dl> with `[name, text, tone]`, where only what is different changes. */
export function describe(element, facts) {
  list(element, facts, ([name]) => name, ([name]) => {
    const value = h("dd");
    return { element: h("div", {}, h("dt", {}, name), value), show: ([, text, tone]) => { say(value, text); set(value, "data-tone", tone); } };
  });
}
