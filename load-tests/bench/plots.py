"""Plots of `results.json`, as SVG that is the same for the same readings and readable on light and dark pages.

`draw` makes an environment with matplotlib for it, and runs this file as a program there.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import growth, report
from bench.runs import Report, say
from bench.scenarios import LATENCY_SHARES

# Between black and white, and so readable on both.
INK = "#7d8590"
COLORS = ["#2f81f7", "#db6d28", "#3fb950", "#a371f7", "#d29922", "#f778ba", "#1b9e9e", "#8b5a2b", "#6e7681", "#e5534b"]
GATEWAY = "livegate"


def draw(folder: Path, results: Path) -> list[str]:
    """Draws what there are readings for into `plots`; the names of the plots there are."""
    python = _environment(folder / "target" / "plots")
    target = folder / "plots"
    if python:
        target.mkdir(exist_ok=True)
        # What is no longer measured is no longer shown.
        command = [str(python), "-B", "-m", "bench.plots", str(results), str(target)]
        if subprocess.run(command, cwd=folder).returncode != 0:
            say("the plots could not be drawn")
    return [name for name in report.PLOTS if (target / f"{name}.svg").exists()]


def _environment(folder: Path) -> Path | None:
    """The Python of an environment with matplotlib, which is made when it is first wanted."""
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if ready.exists():
        return python
    try:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "matplotlib"], check=True, capture_output=True)
    except (subprocess.CalledProcessError, OSError) as error:
        say(f"no new plots: matplotlib could not be installed ({error})")
        return None
    ready.touch()
    return python


def main(source: Path, target: Path) -> None:
    """Draws every plot that there are readings for."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({
        "svg.hashsalt": "livegate", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "savefig.transparent": True,
        "axes.grid": True, "grid.color": INK, "grid.alpha": 0.2, "axes.axisbelow": True,
    })  # fmt: skip
    results = report.read_results(source)
    drawings = {"cpu": _cpu, "latency": _latency, "memory": _memory, "broadcast": _broadcast, "growth": _growth}
    for name, drawing in drawings.items():
        file = target / f"{name}.svg"
        figure = drawing(results)
        if figure is None:
            file.unlink(missing_ok=True)
            continue
        figure.suptitle(report.PLOTS[name], color=INK)
        figure.savefig(file, metadata={"Date": None, "Creator": None}, bbox_inches="tight")


def _axes(columns: int, rows: int = 1, height: float = 3.2) -> tuple[Any, list[Any]]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(9, height * rows), squeeze=False, layout="constrained")
    return figure, list(axes.flat)


def _color(names: list[str]) -> Callable[[str], str]:
    """The gateway always has the first color, and everybody else one of their own."""
    others = sorted(name for name in names if name != GATEWAY)
    return lambda name: COLORS[0] if name == GATEWAY else COLORS[1 + others.index(name) % (len(COLORS) - 1)]


def _bars(axis: Any, reports: list[Report], label: str, name: str, title: str) -> None:
    found = [(who, report.summary(reports, label, who, name)) for who in report.servers(reports, label)]
    rows = sorted(((who, seen) for who, seen in found if seen), key=lambda row: -row[1].median)
    axis.barh([who for who, _ in rows], [seen.median for _, seen in rows],
              color=[COLORS[0] if who.startswith(GATEWAY) else INK for who, _ in rows],
              xerr=[[seen.median - seen.least for _, seen in rows], [seen.most - seen.median for _, seen in rows]],
              error_kw={"ecolor": COLORS[1], "elinewidth": 1})  # fmt: skip
    values = [seen.median for _, seen in rows]
    if values and max(values) > 20 * min(values):
        axis.set_xscale("log")
    axis.set_title(title, fontsize=10)
    axis.grid(axis="y", visible=False)


def _cpu(results: report.Results) -> Any:
    wanted = [
        ("a", "a", "server_cpu_ms_per_1k_msgs", "a. Message and reply, ms per 1,000"),
        ("b", "b", "server_cpu_ms_per_1k_deliveries", "b. Push, ms per 1,000"),
        ("c", "c", "server_cpu_ms_per_1k_deliveries", "c. Broadcast, ms per 1,000 deliveries"),
        ("f", "f", "server_cpu_ms_per_1k_requests", "f. HTTP request, ms per 1,000"),
    ]
    wanted = [one for one in wanted if one[0] in results]
    if not wanted:
        return None
    figure, axes = _axes(2, (len(wanted) + 1) // 2, 2.8)
    for axis, (scenario, label, name, title) in zip(axes, wanted, strict=False):
        _bars(axis, results[scenario]["reports"], label, name, title)
    for axis in axes[len(wanted) :]:
        axis.set_visible(False)
    return figure


def _latency(results: report.Results) -> Any:
    if "latency" not in results:
        return None
    reports = results["latency"]["reports"]
    names = report.servers(reports, f"latency.{LATENCY_SHARES[0]}")
    color = _color(names)
    figure, axes = _axes(3)
    quantiles = {"p50": "p50", "p99": "p99", "p99_9": "p99.9"}
    for axis, (key, title) in zip(axes, quantiles.items(), strict=True):
        for who in names:
            points = []
            for share in LATENCY_SHARES:
                seen = report.summary(reports, f"latency.{share}", who, f"latency_us.{key}")
                if seen:
                    points.append((share, seen.median))
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                color=color(who),
                label=who,
                linestyle=":" if who == "direct" else "-",
            )
        axis.set(xlabel="% of saturation", xticks=LATENCY_SHARES, yscale="log", title=f"{title}, µs")
    axes[0].legend()
    return figure


def _memory(results: report.Results) -> Any:
    if "d" not in results:
        return None
    reports = results["d"]["reports"]
    panels = [(label, title) for label, title in (("d", "plain"), ("d.tls", "TLS")) if report.servers(reports, label)]
    figure, axes = _axes(len(panels))
    color = _color(sorted({one["server"] for one in reports}))
    for axis, (label, title) in zip(axes, panels, strict=True):
        for who in report.servers(reports, label):
            runs = [one for one in reports if (one["label"], one["server"]) == (label, who)]
            steps = runs[0]["steps"]
            added = [[rss - one["server_rss_base_mib"] for rss in one["server_rss_mib"]] for one in runs]
            axis.plot([0, *steps], [0, *(sorted(values)[len(values) // 2] for values in zip(*added, strict=True))],
                      marker="o", color=color(who), label=who)  # fmt: skip
            axis.set_xticks([0, *steps], [_short(step) for step in (0, *steps)])
        axis.set(xlabel="idle connections", ylabel="MiB more than without", title=title)
        axis.legend()
    return figure


def _broadcast(results: report.Results) -> Any:
    if "c" not in results:
        return None
    figure, axes = _axes(1)
    _bars(axes[0], results["c"]["reports"], "c", "whole_us.p50", "to 5,000 connections, µs")
    return figure


def _growth(results: report.Results) -> Any:
    if "growth" not in results:
        return None
    reports = results["growth"]["reports"]
    curves = [curve for curve in growth.CURVES if report.points_of(curve, reports)]
    figure, axes = _axes(2, (len(curves) + 1) // 2, 2.6)
    color = _color(sorted({one["server"] for one in reports}))
    for axis, curve in zip(axes, curves, strict=False):
        title, unit, name = growth.CURVES[curve]
        points = report.points_of(curve, reports)
        for who in report.servers(reports, f"growth.{curve}.{points[0]}"):
            seen = [(point, report.summary(reports, f"growth.{curve}.{point}", who, name)) for point in points]
            found = [(point, one.median) for point, one in seen if one]
            axis.plot(*zip(*found, strict=True), marker="o", color=color(who), label=who)
        # What grows tenfold each time stands evenly; a curve that begins at 0 has no logarithm there.
        axis.set_xscale("linear" if len(points) < 3 else "symlog" if points[0] == 0 else "log")
        axis.set_xticks(points, [_short(point) for point in points])
        axis.minorticks_off()
        if curve == "payload":
            axis.set_yscale("log", base=2)
            axis.yaxis.set_major_formatter("{x:g}")
        else:
            axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
        axis.set(xlabel=unit, ylabel="CPU ms per 1,000")
        axis.set_title(title, fontsize=10)
        axis.legend()
    for axis in axes[len(curves) :]:
        axis.set_visible(False)
    return figure


def _short(number: int) -> str:
    """16,384 as 16K, and 18,000 as 18k."""
    if number >= 1024 and number % 1024 == 0:
        return f"{number // 1024}K"
    return f"{number // 1000}k" if number >= 1000 else str(number)


if __name__ == "__main__":
    # The variable would put a date into what is to be the same for the same readings.
    os.environ.pop("SOURCE_DATE_EPOCH", None)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
