"""The reports of interleaved rounds as medians, ranges, ratios and goals, in Markdown."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import growth
from bench.goals import GOALS, Goal
from bench.runs import Report
from bench.scenarios import FIGURES, SCENARIOS, WIDE, Figure, Wide

# The results of a scenario: its facts, its reports, the notes of its servers.
Section = dict[str, Any]
Results = dict[str, Section]

MISHAPS = ("failed", "lost", "errors", "dropped")
# The part of a fixed rate below which a run did not keep it.
KEPT_RATE = 0.99
# Percent of its core from which on the generator was the limit.
GENERATOR_LIMIT = 95
PLOTS = {
    "cpu": "CPU per message, by server",
    "latency": "Latency over load",
    "memory": "Memory over connections",
    "broadcast": "Time to the last delivery of a broadcast",
    "growth": "What a message costs as things grow",
}


@dataclass(frozen=True)
class Summary:
    """Several readings of one number."""

    median: float
    least: float
    most: float


def number(report: Report, name: str) -> float | None:
    """A number of a report; a point leads into an object."""
    value: Any = report
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def summary(reports: Iterable[Report], label: str, server: str, name: str) -> Summary | None:
    """What a server's reports with that label say, if any does."""
    chosen = (number(report, name) for report in reports if (report["label"], report["server"]) == (label, server))
    values = [value for value in chosen if value is not None]
    return Summary(statistics.median(values), min(values), max(values)) if values else None


def servers(reports: Iterable[Report], label: str, first: str = "raw") -> list[str]:
    """Who has a report with that label: the floor first, the gateway's kinds, then all others."""
    found = {report["server"] for report in reports if report["label"] == label}
    return sorted(found, key=lambda name: (name != first, name != "std", not name.startswith("livegate"), name))


def mishaps(report: Report) -> list[str]:
    """What of a run proves that its figures do not count."""
    name = f"{report['label']}/{report['server']}"
    found = [f"{name}: {count:.0f} {key}" for key in MISHAPS if (count := number(report, key))]
    asked = number(report, "rate_asked")
    for unit, rate in (("pushes", "deliveries_per_s"), ("requests", "requests_per_s"), ("messages", "msgs_per_s")):
        kept = number(report, rate)
        if asked and kept is not None and kept < asked * KEPT_RATE:
            found.append(f"{name}: {kept:.0f} {unit}/s of the {asked:.0f} asked for")
    for all_of, answered in (("held", "held_echoed"), ("sample", "sample_arrived"), ("asked", "all_echoed")):
        expected, got = number(report, all_of), number(report, answered)
        if expected is not None and got is not None and got < expected:
            found.append(f"{name}: {got:.0f} of {expected:.0f} answered at the end")
    return found


def scenario_of(label: str) -> str:
    """What stands before the first point of a label."""
    return label.partition(".")[0]


def section(name: str, data: Section) -> str:
    """A scenario's heading, how it came to be, and its tables."""
    facts, reports = data["facts"], data["reports"]
    rounds = "1 round" if facts["rounds"] == 1 else f"{facts['rounds']} rounds"
    once = f"{rounds} of {facts['duration']} s behind {facts['warmup']} s of warm-up"
    lines = [f"## {name}. {SCENARIOS[name]}" if len(name) == 1 else f"## {name}: {SCENARIOS[name]}", ""]
    lines += [f"`{facts['command']}`, commit {facts['commit']}, {facts['date']}: {once}.", ""]
    if name in WIDE:
        lines += _wide(WIDE[name], reports)
    if name == "growth":
        for curve in growth.CURVES:
            lines += _curve(curve, reports)
    for figure in FIGURES:
        if figure.scenario == name:
            lines += _figure(figure, data)
    if data.get("versions"):
        lines += ["Versions: " + ", ".join(f"{who} {what}" for who, what in sorted(data["versions"].items())) + ".", ""]
    wrong = [mishap for report in reports for mishap in mishaps(report)] + data.get("failures", [])
    stopped = sorted({report["stopped"] for report in reports if report.get("stopped")})
    lines += [f"It stopped because {reason}." for reason in stopped]
    lines += [
        f"Runs: {len(reports)}. Errors, failed, lost or dropped: {len(wrong)}.",
        *(f"- {mishap}" for mishap in wrong),
    ]
    return "\n".join(lines) + "\n"


def _figure(figure: Figure, data: Section) -> list[str]:
    reports, notes = data["reports"], data.get("notes", {})
    floor = summary(reports, figure.label, figure.floor, figure.field)
    ratio_of = f"÷ {figure.floor}" if floor else "÷"
    rows, limited = [], False
    for server in servers(reports, figure.label, figure.floor):
        seen = summary(reports, figure.label, server, figure.field)
        if not seen:
            continue
        ratio = f"{seen.median / floor.median:.2f}" if floor and floor.median else "–"
        rate = summary(reports, figure.label, server, figure.rate)
        busy = summary(reports, figure.label, server, "loadgen_cpu_pct")
        others = summary(reports, figure.label, server, "others_cpu_pct")
        mark = " *" if busy and busy.median > GENERATOR_LIMIT else ""
        limited |= bool(mark)
        cells = [server, digits(seen.median), f"{digits(seen.least)}–{digits(seen.most)}", ratio]
        cells += [f"{rate.median:,.0f}" if rate else "–", f"{busy.median:.0f} %{mark}" if busy else "–"]
        cells += [f"{others.median:.0f} %" if others else "–", notes.get(server, "")]
        rows.append("| " + " | ".join(cells) + " |")
    if not rows:
        return []
    head = f"| Server | Median | Range | {ratio_of} | Rate, /s | Generator busy | Others busy | Note |"
    lines = [f"**{figure.title}**", "", head, "|---|---:|---:|---:|---:|---:|---:|---|", *rows, ""]
    if limited:
        lines += [
            "\\* The generator was the limit: only the CPU says something about the server, rate and latency do not.",
            "",
        ]
    return lines


def _wide(wide: Wide, reports: list[Report]) -> list[str]:
    lines = ["| | Server | " + " | ".join(wide.columns) + " |", "|---|---|" + "---:|" * len(wide.columns)]
    for label, title in wide.labels.items():
        for server in servers(reports, label):
            seen = [summary(reports, label, server, name) for name in wide.columns.values()]
            cells = [_reading(one) for one in seen]
            lines.append(f"| {title} | {server} | " + " | ".join(cells) + " |")
    return [*lines, ""] if len(lines) > 2 else []


def _reading(one: Summary | None) -> str:
    if not one:
        return "–"
    if one.least == one.most:
        return digits(one.median)
    return f"{digits(one.median)} ({digits(one.least)}–{digits(one.most)})"


def _curve(curve: str, reports: list[Report]) -> list[str]:
    title, unit, name = growth.CURVES[curve]
    points = points_of(curve, reports)
    if not points:
        return []
    names = servers(reports, f"growth.{curve}.{points[0]}")
    lines = [
        f"**{title}: CPU ms per 1,000**",
        "",
        f"| {unit} | " + " | ".join(names) + " |",
        "|---:|" + "---:|" * len(names),
    ]
    for point in points:
        label = f"growth.{curve}.{point}"
        cells = [_reading(summary(reports, label, server, name)) for server in names]
        lines.append(f"| {point:,} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def points_of(curve: str, reports: list[Report]) -> list[int]:
    """Where a curve was measured."""
    prefix = f"growth.{curve}."
    return sorted({int(report["label"][len(prefix) :]) for report in reports if report["label"].startswith(prefix)})


def goals(results: Results) -> str:
    """Each goal, and what the latest run of its scenario made of it."""
    lines = ["| Figure | Beside | Goal | Strong | Moonshot | Measured | |", "|---|---|---:|---:|---:|---:|---|"]
    for goal in GOALS:
        data = results.get(scenario_of(goal.label))
        if not data:
            continue
        value = _measured(goal, data["reports"])
        bounds = [_bound(goal, bound) for bound in (goal.goal, goal.strong, goal.moonshot)]
        shown = "–" if value is None else digits(value)
        verdict = "not measured" if value is None else goal.verdict(round(value, 2))
        beside = f"÷ {goal.beside}" if goal.beside else "as it is"
        lines.append(f"| {goal.title} | {beside} | {' | '.join(bounds)} | {shown} | {verdict} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _bound(goal: Goal, bound: float | None) -> str:
    if bound is None:
        return "–"
    return f"≥ {bound:,.0f}" if goal.more_is_better else f"≤ {bound:g}"


def _measured(goal: Goal, reports: list[Report]) -> float | None:
    seen = summary(reports, goal.label, goal.server, goal.field)
    if not seen or not goal.beside:
        return seen.median if seen else None
    beside = summary(reports, goal.label, goal.beside, goal.field)
    return seen.median / beside.median if beside and beside.median else None


def digits(value: float) -> str:
    """As many digits as mean something."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}"


def document(results: Results, plots: list[str]) -> str:
    """RESULTS.md."""
    latest = max((data["facts"] for data in results.values()), key=lambda facts: facts["date"])
    lines = ["# Results", ""]
    lines += [
        "Written by `load-tests/run --write`; [README.md](README.md) says what is measured, and how to read it. Figures"
    ]
    lines += [
        "are compared within one scenario only: each has its own command, commit and day. All readings are in",
        "",
    ]
    lines[-2] += " [results.json](results.json),"
    lines[-1] = "and what was measured before in [RESULTS-2026.md](RESULTS-2026.md)."
    lines += ["", f"Machine: {latest['machine']}, {latest['limits']}, {latest['compiler']}, {latest['gateway']}."]
    lines += ["Server on core 0; generator and backend on core 1; loopback.", "", "## Goals", "", goals(results)]
    if plots:
        lines += ["## Plots", ""]
        for name in plots:
            lines += [f"![{PLOTS[name]}](plots/{name}.svg)", ""]
    text = "\n".join(lines).rstrip("\n") + "\n\n"
    return text + "\n".join(section(name, results[name]) for name in SCENARIOS if name in results)


def read_results(path: Path) -> Results:
    """What earlier runs left, if any."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_results(path: Path, results: Results) -> None:
    """Writes all readings, one report a line, so that a difference can be read."""
    parts = []
    for name in (name for name in SCENARIOS if name in results):
        data = results[name]
        head = {key: value for key, value in data.items() if key != "reports"}
        reports = ",\n".join("   " + json.dumps(report, sort_keys=True) for report in data["reports"])
        body = json.dumps(head, sort_keys=True, ensure_ascii=False)[:-1]
        parts.append(f' "{name}": {body}, "reports": [\n{reports}\n ]}}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")
