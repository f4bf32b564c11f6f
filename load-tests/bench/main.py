"""The command line: builds what is measured, runs the scenarios, and shows and writes what came out."""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import catalog, machine, plots, report
from bench.machine import Failure
from bench.million import GOAL
from bench.runs import Bench, interleave, say
from bench.scenarios import MOST_ROUNDS, RUN_ONLY_BY_NAME, SCENARIOS, cases
from bench.servers import Server

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent
# The server holds 19,000 sockets in a soak, and some files more.
WANTED_FILES = 19_500
MANY_FILES = {"d", "growth", "soak"}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    peers = ",".join(catalog.names())
    parser = argparse.ArgumentParser(
        prog="load-tests/run",
        description="Measures the gateway beside its floors and peers, in interleaved rounds; README.md is the manual.",
        epilog="Scenarios: " + "; ".join(f"{name}: {title}" for name, title in SCENARIOS.items()) + ".",
    )
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help="what to run; without any all but million")
    parser.add_argument("--scenario", metavar="LIST", help="the same, as a list with commas")
    parser.add_argument("--peers", metavar="LIST", default="", help=f"peers to install and measure as well, of {peers}")
    parser.add_argument(
        "--rounds", type=_count, default=5, metavar="N", help="rounds, each of which runs every server once [5]"
    )
    parser.add_argument("--duration", type=_count, default=4, metavar="S", help="measured seconds of a run [4]")
    parser.add_argument("--warmup", type=_count, default=1, metavar="S", help="seconds before them [1]")
    parser.add_argument("--soak-duration", type=_count, default=30, metavar="S", help="seconds of the soak [30]")
    parser.add_argument(
        "--connections", type=_count, default=GOAL, metavar="N", help="how many million tries to hold [1000000]"
    )
    parser.add_argument(
        "--write", action="store_true", help="write RESULTS.md, results.json and plots; the whole campaign does"
    )
    parser.add_argument("--no-write", action="store_true", help="write none of them")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="append the reports of all runs, a line of JSON each")
    parser.add_argument("--no-build", action="store_true", help="measure what was built before")
    parser.add_argument(
        "--livegate", type=Path, metavar="FILE", help="measure this binary, and build none of the gateway"
    )
    parser.add_argument(
        "--loadgen", type=Path, metavar="FILE", help="load with this binary, and build none of the generator"
    )
    options = parser.parse_args(arguments)
    names = options.scenarios + (options.scenario.split(",") if options.scenario else [])
    for name in names:
        if name not in SCENARIOS:
            parser.error(f"`{name}` is no scenario; there are {', '.join(SCENARIOS)}")
    options.whole = not names
    # In the order of the report, and each once.
    options.scenarios = [name for name in SCENARIOS if name in names or (not names and name not in RUN_ONLY_BY_NAME)]
    options.peers = [name for name in options.peers.split(",") if name]
    return options


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"`{text}` is no whole number")
    return int(text)


def main(arguments: list[str]) -> int:
    """Runs everything; 1 when any run saw an error."""
    options = parse(arguments)
    # A run that is told to end, ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options)
    except Failure as failure:
        print(f"load-tests/run: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _shown(options: argparse.Namespace) -> str:
    """The command that measures the same again; where binaries were and what was kept is nobody's business."""
    words = ["load-tests/run", *([] if options.whole else options.scenarios)]
    if options.peers:
        words += ["--peers", ",".join(options.peers)]
    if set(options.scenarios) - {"million"}:
        words += ["--rounds", str(options.rounds), "--duration", str(options.duration), "--warmup", str(options.warmup)]
    if "soak" in options.scenarios:
        words += ["--soak-duration", str(options.soak_duration)]
    if "million" in options.scenarios and options.connections != GOAL:
        words += ["--connections", str(options.connections)]
    return " ".join(words)


def _run(options: argparse.Namespace) -> int:
    machine.require_cores()
    open_files = machine.raise_open_files()
    if open_files < WANTED_FILES and MANY_FILES & set(options.scenarios):
        others = " ".join(name for name in options.scenarios if name not in MANY_FILES)
        raise Failure(f"d, growth and soak want 19,500 open files and the hard limit is {open_files}; take {others}")
    livegate, loadgen = _build(options)
    named = [catalog.find(name) for name in options.peers]
    for peer in named:
        say(f"installing {peer.name}")
        peer.install()
    installed = [peer for peer in catalog.installed() if {"f", "g"} & set(options.scenarios)]
    versions = {peer.name: peer.version() for peer in [*named, *installed]}
    for name, version in versions.items():
        say(f"{name} {version}")
    work = Path(tempfile.mkdtemp(prefix="load-tests-"))
    # Peers may run as users of their own.
    work.chmod(0o755)
    bench = Bench(
        livegate,
        loadgen,
        work,
        options.duration,
        options.warmup,
        options.soak_duration,
        options.connections,
        options.keep,
    )
    try:
        together = [name for name in options.scenarios if name not in MOST_ROUNDS]
        alone = [[name] for name in options.scenarios if name in MOST_ROUNDS]
        for names in ([together] if together else []) + alone:
            say(" ".join(names))
            interleave(bench, cases(bench, names, named, installed), _rounds(options, names[0]))
    finally:
        bench.close()
        shutil.rmtree(work, ignore_errors=True)
    facts = machine.facts(ROOT, open_files) | {"command": _shown(options), "gateway": _version(livegate)}
    if options.livegate:
        facts["commit"] += " (the gateway's binary was given, not built from it)"
    return _report(options, bench, facts, versions, [*named, *installed])


def _rounds(options: argparse.Namespace, scenario: str) -> int:
    rounds: int = options.rounds
    return min(rounds, MOST_ROUNDS.get(scenario, rounds))


def _build(options: argparse.Namespace) -> tuple[Path, Path]:
    livegate = options.livegate or ROOT / "target/release/livegate"
    loadgen = options.loadgen or HERE / "target/release/loadgen"
    if not options.no_build:
        for given, folder, extra in ((options.livegate, ROOT, ["--bin", "livegate"]), (options.loadgen, HERE, [])):
            if given:
                continue
            command = ["cargo", "build", "--release", "--quiet", "--manifest-path", str(folder / "Cargo.toml")]
            if subprocess.run([*command, "--target-dir", str(folder / "target"), *extra]).returncode != 0:
                raise Failure("the build failed")
    for binary in (livegate, loadgen):
        if not binary.is_file():
            raise Failure(f"there is no {binary.name}: leave out --no-build")
    return livegate.resolve(), loadgen.resolve()


def _version(livegate: Path) -> str:
    return subprocess.run([str(livegate), "--version"], capture_output=True, text=True).stdout.strip()


def _report(
    options: argparse.Namespace, bench: Bench, facts: dict[str, str], versions: dict[str, str], used: list[Server]
) -> int:
    results: report.Results = {}
    for name in options.scenarios:
        reports = [one for one in bench.reports if report.scenario_of(one["label"]) == name]
        seen = {one["server"] for one in reports}
        time = {"duration": options.soak_duration if name == "soak" else options.duration, "warmup": options.warmup}
        results[name] = {
            "facts": facts | time | {"rounds": _rounds(options, name)},
            "versions": {who: what for who, what in versions.items() if who in seen},
            "notes": {one["server"]: one["note"] for one in reports if one.get("note")},
            "failures": [
                failure for failure in bench.failures if report.scenario_of(failure.partition("/")[0]) == name
            ],
            "reports": reports,
        }
    for name, data in results.items():
        print(report.section(name, data))
    if goals := report.goals(results):
        print("## Goals\n\n" + goals)
    print(f"Machine: {facts['machine']}, {facts['limits']}, {facts['compiler']}.")
    print(f"Server on core 0; generator and backend on core 1. {facts['gateway']}, commit {facts['commit']}.")
    if (options.write or options.whole) and not options.no_write:
        path = HERE / "results.json"
        # A scenario that did not run now keeps what it had, with the facts of that run.
        all_results = report.read_results(path) | results
        report.write_results(path, all_results)
        (HERE / "RESULTS.md").write_text(report.document(all_results, plots.draw(HERE, path)))
        say("wrote RESULTS.md, results.json and what there is to plot")
    wrong = bench.failures or any(report.mishaps(one) for one in bench.reports)
    if wrong:
        say("a run saw errors: its figures do not count")
    return 1 if wrong else 0
