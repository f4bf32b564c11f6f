"""The servers of this package: the gateway, and the floors that say what a gateway adds to the protocols themselves."""

import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from bench import machine
from bench.configs import Place
from bench.machine import Failure, pinned

WHOAMI = '{"action":"whoami"}'
_LISTENING = re.compile(rb"listening on (https?)://127\.0\.0\.1:(\d+)")
_PATIENCE_SECONDS = 20


class Running(Protocol):
    """A server that runs."""

    @property
    def pids(self) -> list[int]:
        """All processes that do the work; their descendants count by themselves."""
        ...

    def arguments(self, scenario: str) -> list[str]:
        """What the generator is told of it: URLs, adapter, channel."""
        ...

    def stop(self) -> None:
        """Ends it, by process id."""
        ...


class Server(Protocol):
    """Something that can be started and loaded; peers are the same kind of thing."""

    @property
    def name(self) -> str:
        """How its rows are called."""
        ...

    @property
    def note(self) -> str:
        """What is to be known beside its rows."""
        ...

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it on one core, and waits until it answers."""
        ...


@dataclass
class Program:
    """A process of this package's own, which says where it listens."""

    process: subprocess.Popen[bytes]
    scheme: str
    port: int
    targets: dict[str, list[str]] = field(default_factory=dict)
    reader: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> list[int]:
        """The one process that does the work."""
        return [self.process.pid]

    def arguments(self, scenario: str) -> list[str]:
        """What the generator is told of it."""
        return self.targets[scenario]

    def stop(self) -> None:
        """Kills it: nothing that was measured has state worth an orderly end, and 18,000 sockets take their time."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        if self.reader:
            self.reader.wait()


def spawn(command: list[str], cores: str, log: Path, read_output: bool = False) -> Program:
    """Starts a program on these cores and waits for the line that says where it listens.

    Its standard output stays open in a pipe until the end, because a process that cannot print any more may stop;
    with `read_output` another process takes what comes, on the generator's core.
    """
    with log.open("wb") as errors:
        command = pinned(cores, command)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
    assert process.stdout
    found = _wait_for_port(process.stdout)
    if not found:
        process.kill()
        process.wait()
        raise Failure(f"{log.stem} did not start:\n{log.read_text(errors='replace')[-2000:]}")
    program = Program(process, *found)
    if read_output:
        reader = pinned(str(machine.LOAD_CORE), ["cat"])
        program.reader = subprocess.Popen(reader, stdin=process.stdout, stdout=subprocess.DEVNULL)
    return program


def _wait_for_port(output: IO[bytes]) -> tuple[str, int] | None:
    selector = selectors.DefaultSelector()
    selector.register(output, selectors.EVENT_READ)
    seen, end = b"", time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        if not selector.select(timeout=1):
            continue
        more = os.read(output.fileno(), 4096)
        if not more:
            return None
        seen += more
        # The first line is the clients' listener; it counts once it is whole.
        if (found := _LISTENING.search(seen)) and b"\n" in seen[found.end() :]:
            return found[1].decode(), int(found[2])
    return None


@dataclass(frozen=True)
class Livegate:
    """The gateway, with one of the files of `configs`, and else as it is shipped."""

    binary: Path
    config: Callable[[Place], str]
    name: str = "livegate"
    note: str = ""
    path: str = "/prod"
    http: bool = False
    tls: bool = False
    read_output: bool = False
    cores: str | None = None

    def start(self, work: Path, core: int, backend_port: int, port: int = 0) -> Program:
        """Starts it; with `port` where it was before."""
        cert = machine.certificate(work) if self.tls else None
        file = work / f"{self.name}.toml"
        file.write_text(self.config(Place(work, backend_port, port, cert)))
        # The file holds a secret of no value; without this the gateway warns of readers.
        file.chmod(0o600)
        command = [str(self.binary), "serve", "--config", str(file)]
        program = spawn(command, self.cores or str(core), work / f"{self.name}.log", self.read_output)
        host, tls = f"127.0.0.1:{program.port}", "s" if self.tls else ""
        if self.http:
            program.targets = {"f": ["--url", f"http://{host}{self.path}"]}
            return program
        url = ["--url", f"ws{tls}://{host}{self.path}"]
        publish = f"http{tls}://{host}{self.path.partition('?')[0]}/@connections/{{id}}"
        program.targets = {letter: url for letter in "ade"}
        program.targets["b"] = [*url, "--publish-url", publish, "--ask", WHOAMI]
        return program


@dataclass(frozen=True)
class Floor:
    """A server of the generator's binary that does as little as the protocols allow."""

    loadgen: Path
    name: str
    kind: str
    note: str = ""
    tls: bool = False

    def start(self, work: Path, core: int, backend_port: int, port: int = 0) -> Program:
        """Starts it; with `port` where it was before."""
        command = [str(self.loadgen), "floor", self.kind, "--port", str(port), "--backend", f"127.0.0.1:{backend_port}"]
        if self.tls and (pair := machine.certificate(work)):
            command += ["--cert", str(pair[0]), "--key", str(pair[1])]
        program = spawn(command, str(core), work / f"{self.name}.log")
        host = f"127.0.0.1:{program.port}"
        url = ["--url", f"ws{'s' if self.tls else ''}://{host}/"]
        program.targets = {letter: url for letter in "ade"}
        program.targets["b"] = [*url, "--publish-url", f"http://{host}/@connections/{{id}}", "--ask", WHOAMI]
        program.targets["c"] = [*url, "--publish-url", f"http://{host}/broadcast"]
        program.targets["f"] = ["--url", f"http://{host}/tiny"]
        return program
