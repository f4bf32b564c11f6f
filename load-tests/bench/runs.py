"""Runs: a fresh server, a load, a report; and rounds of them, every other one backwards."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench import machine
from bench.machine import Failure, pinned
from bench.servers import Program, Server, spawn

Report = dict[str, Any]


@dataclass
class Bench:
    """What all runs share: the binaries, a folder for what they write, the backends, and the reports so far."""

    livegate: Path
    loadgen: Path
    work: Path
    duration: int
    warmup: int
    soak_duration: int
    connections: int
    keep: Path | None = None
    reports: list[Report] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _backends: dict[tuple[str, ...], Program] = field(default_factory=dict)

    def backend(self, options: tuple[str, ...] = ()) -> Program:
        """The backend with these options, which is started when it is first wanted."""
        if options not in self._backends:
            command = [str(self.loadgen), "backend", "--port", "0", "--answer", "128", *options]
            log = self.work / f"backend-{len(self._backends)}.log"
            self._backends[options] = spawn(command, str(machine.LOAD_CORE), log)
        return self._backends[options]

    def time(self) -> list[str]:
        """How long a run is."""
        return ["--duration", str(self.duration), "--warmup", str(self.warmup)]

    def load(self, command: list[str]) -> subprocess.Popen[str]:
        """Starts the generator on its core."""
        command = pinned(str(machine.LOAD_CORE), [str(self.loadgen), *command])
        return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)

    def add(self, label: str, server: str, round_number: int, report: Report) -> Report:
        """Keeps a report."""
        report = {**report, "label": label, "server": server, "round": round_number}
        self.reports.append(report)
        if self.keep:
            with self.keep.open("a") as file:
                file.write(json.dumps(report) + "\n")
        return report

    def close(self) -> None:
        """Ends the backends."""
        for backend in self._backends.values():
            backend.stop()


@dataclass(frozen=True)
class Load:
    """One command of the generator, and the label under which its report goes."""

    label: str
    command: list[str]
    # Sent straight to the backend, by plain HTTP, as what a gateway adds to.
    direct: bool = False


@dataclass(frozen=True)
class Case:
    """A server and its load; `then` are further loads on the same server, which the first one's report decides."""

    server: Server
    target: str
    load: Load
    then: Callable[[Report], list[Load]] | None = None
    backend: tuple[str, ...] = ()

    def run(self, bench: Bench, round_number: int) -> None:
        """Starts the server afresh, so that none inherits the memory of a run before, and loads it."""
        backend = bench.backend(self.backend)
        running = self.server.start(bench.work, machine.SERVER_CORE, backend.port)
        try:
            arguments, pids = running.arguments(self.target), running.pids
            first = self._load(bench, round_number, self.load, arguments, pids, backend)
            for load in self.then(first) if self.then else []:
                self._load(bench, round_number, load, arguments, pids, backend)
        finally:
            running.stop()

    def _load(
        self, bench: Bench, round_number: int, load: Load, arguments: list[str], pids: list[int], backend: Program
    ) -> Report:
        server = "direct" if load.direct else self.server.name
        say(f"  {load.label}/{server}")
        if load.direct:
            arguments, pids = ["--url", f"http://127.0.0.1:{backend.port}/message"], []
        command = [*load.command, *arguments, "--helper-pid", str(backend.process.pid)]
        if pids:
            command += ["--pid", ",".join(map(str, pids))]
        generator = bench.load(command)
        try:
            output, _ = generator.communicate()
        finally:
            generator.kill()
        if generator.returncode != 0:
            raise Failure(f"{load.label}/{server} failed")
        found = json.loads(output.splitlines()[-1])
        note = "the same rates straight to the backend" if load.direct else self.server.note
        return bench.add(load.label, server, round_number, found | ({"note": note} if note else {}))


class Runnable(Protocol):
    """Something that runs once a round."""

    def run(self, bench: Bench, round_number: int) -> None:
        """Runs, and adds what came out to the reports."""
        ...


def interleave(bench: Bench, cases: Sequence[Runnable], rounds: int) -> None:
    """Runs every case once a round; every other one backwards, so that no server is blamed for a slower machine."""
    for number in range(1, rounds + 1):
        for done, case in enumerate(cases if number % 2 else reversed(cases)):
            say(f"round {number} of {rounds}, {done + 1} of {len(cases)}")
            try:
                case.run(bench, number)
            except Failure as failure:
                # An hour of other runs is not thrown away for it; the run as a whole fails in the end.
                say(f"  {failure}")
                bench.failures.append(str(failure))


def say(text: str) -> None:
    """Shows progress, beside what is printed as the result."""
    print(text, file=sys.stderr, flush=True)
