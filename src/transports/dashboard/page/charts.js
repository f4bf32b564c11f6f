// Charts over time, drawn by uPlot: one cursor for all of them, and a legend that is read and clicked like a list of buttons.

import uPlot from "./uplot.js";
import { h, say, set } from "./dom.js";

const HEIGHT = 190;
const AXIS_WIDTH = 62;

// Custom properties may be written as light-dark(…), which a canvas cannot read; the colour of an element is what it came to.
const probe = h("span", { hidden: true });
document.body.append(probe);

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/**
 * A card with a chart: `lines` are `[{ label, tone }]`, `unit` writes a value. `show(window, columns)` draws, with
 * `window` as `{ from, until, times }` in seconds and a column of numbers or nulls for each line.
 */
export function chart({ title, lines, unit, least, area, links, signal }) {
  const empty = h("p", { class: "empty", hidden: true }, "Nothing measured in this time yet.");
  const canvas = h("div", { class: "plot", role: "img" }, empty);
  const when = h("span", { class: "when", "aria-hidden": "true" });
  const values = lines.map(() => h("b"));
  const entries = lines.map((line, at) => h("button", { type: "button", class: "series", "aria-pressed": "true", onclick: () => toggle(at) },
    h("i", { class: `swatch ${line.tone}` }), h("span", {}, line.label), values[at]));
  const element = h("section", { class: "card chart" },
    h("div", { class: "head" }, h("h2", {}, title), when),
    canvas,
    h("div", { class: "legend", role: "group", "aria-label": `Lines of ${title}` }, entries),
    h("p", { class: "links" }, links));
  let plot = null;
  let data = null;
  let seen = null;

  function toggle(at) {
    const shown = entries[at].getAttribute("aria-pressed") !== "true";
    set(entries[at], "aria-pressed", String(shown));
    plot?.setSeries(at + 1, { show: shown });
  }

  // Under the cursor, or the latest without one.
  function read() {
    const at = plot?.cursor.idx ?? null;
    lines.forEach((_, line) => say(values[line], unit(at === null ? latest(data[line + 1]) : data[line + 1][at])));
    say(when, at === null ? "" : timeOfDay(data[0][at], 1));
  }

  function show(window, columns) {
    seen = window;
    data = [window.times, ...columns];
    empty.hidden = columns.some((column) => column.some((value) => value !== null));
    if (plot) plot.setData(data);
    else plot = draw();
    read();
    set(canvas, "aria-label", `${title}: ${lines.map((line, at) => `${line.label} ${unit(latest(columns[at]))}`).join(", ")}`);
  }

  function draw() {
    const axis = { stroke: () => colour("--muted"), font: "12px system-ui, sans-serif", grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false } };
    const options = {
      width: canvas.clientWidth,
      height: HEIGHT,
      padding: [12, 26, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "dashboard" }, drag: { x: false, y: false }, y: false, points: { size: 7 } },
      scales: {
        x: { range: () => [seen.from, seen.until] },
        y: { range: (_, low, high) => [0, Math.max((high ?? 0) * 1.1, least)] },
      },
      axes: [
        { ...axis, space: 70, size: 26, values: (_, splits, at, space, step) => splits.map((time) => timeOfDay(time, step)) },
        { ...axis, size: AXIS_WIDTH, space: 36, values: (_, splits) => splits.map(unit) },
      ],
      series: [{}, ...lines.map(({ label, tone }) => ({
        label,
        stroke: () => colour(`--${tone}`),
        fill: area ? () => colour(`--${tone}-soft`) : null,
        width: 1.75,
        points: { show: true, size: 5, fill: () => colour(`--${tone}`), filter: lonely },
      }))],
      hooks: { setCursor: [read] },
    };
    return new uPlot(options, data, canvas);
  }

  const watch = new ResizeObserver(() => plot?.setSize({ width: canvas.clientWidth, height: HEIGHT }));
  watch.observe(canvas);
  const repaint = () => plot?.redraw();
  addEventListener("theme", repaint);
  signal.addEventListener("abort", () => {
    watch.disconnect();
    removeEventListener("theme", repaint);
    plot?.destroy();
  });
  return { element, show };
}

// A value between two gaps has no line to be on: it gets a dot.
function lonely(plot, line) {
  const column = plot.data[line];
  const found = [];
  column.forEach((value, at) => {
    if (value !== null && (column[at - 1] ?? null) === null && (column[at + 1] ?? null) === null) found.push(at);
  });
  return found;
}

const latest = (column) => column.findLast((value) => value !== null) ?? null;

function timeOfDay(time, step) {
  const date = new Date(time * 1000);
  const text = [date.getHours(), date.getMinutes(), ...(step < 60 ? [date.getSeconds()] : [])];
  return text.map((part) => String(part).padStart(2, "0")).join(":");
}
