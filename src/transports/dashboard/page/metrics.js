// The metrics as Prometheus reads them, found by name. A plain link to /metrics could not bring the token.

import { poll, text } from "./api.js";
import { h, remember, say } from "./dom.js";
import { complaints } from "./status.js";

export const title = "Metrics";
const EVERY_MS = 5_000;

export function open(view, { query, signal }) {
  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const search = h("input", { type: "search", value: query.search ?? "", placeholder: "Part of a line", "aria-label": "Search the metrics", oninput: show });
  const shown = h("pre", { class: "report", tabindex: "0", role: "region", "aria-label": "Metrics" });
  let all = "";
  view.append(h("div", { class: "head" }, h("h1", {}, "Metrics"), h("a", { href: "metrics" }, "/metrics")), h("div", { class: "filters" }, search), notice, shown);

  function show() {
    remember("metrics", { search: search.value });
    const words = search.value.trim().toLowerCase();
    const found = all.split("\n").filter((line) => line.toLowerCase().includes(words)).join("\n");
    say(shown, all && !found ? "No line has this." : found);
  }
  poll(signal, EVERY_MS, async () => {
    all = await text("metrics", signal);
    show();
  }, complaints(notice));
}
