"""Peers: other servers that do what the gateway does, each a module with one class, installed by name when asked for."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bench.machine import Failure, certificate, free_port, pinned

HERE = Path(__file__).resolve().parents[2]
# What is installed for the load tests alone; Cargo and git both expect nothing else to live there.
CACHE = HERE / "target" / "peers"
# Programs and settings that are no Python.
FILES = HERE / "peers-files"
_POLICY = Path("/usr/sbin/policy-rc.d")
_PATIENCE_SECONDS = 30
_PAUSE_SECONDS = 0.02

Probe = Callable[[], bool]


@dataclass
class Running:
    """A peer that runs, and what the generator is told of it in each scenario."""

    processes: list[subprocess.Popen[bytes]]
    targets: dict[str, list[str]] = field(default_factory=dict)

    @property
    def pids(self) -> list[int]:
        """All that do the work; their descendants count by themselves."""
        return [process.pid for process in self.processes]

    def arguments(self, scenario: str) -> list[str]:
        """URLs, adapter and channel."""
        return self.targets[scenario]

    def stop(self) -> None:
        """Ends it, by process id, with all that it started itself."""
        for process in reversed(self.processes):
            _end(process)


class Peer(ABC):
    """A server of somebody else's."""

    name: ClassVar[str]
    # What is not like for like, shown beside its row.
    note: ClassVar[str] = ""
    # By registry: `debian`, `npm` (packages of peers-files/NAME/package.json) and `crates.io`.
    packages: ClassVar[dict[str, list[str]]] = {}
    scenarios: ClassVar[set[str]] = set()

    def install(self) -> None:
        """Installs what is missing of `packages`."""
        if debian := self.packages.get("debian"):
            install_debian(debian)
        if "npm" in self.packages:
            install_npm(self.name)
        for crate in self.packages.get("crates.io", []):
            install_crate(crate)

    @abstractmethod
    def version(self) -> str:
        """What is installed."""

    @abstractmethod
    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it on one core, and waits until it answers."""


class NodeProgram(Peer):
    """A peer that is a small program of ours on a library of npm's, plain or with TLS."""

    library: ClassVar[str]
    scenarios = {"a", "b", "c", "d", "e"}

    def version(self) -> str:
        """Like `8.23.0 (Node.js 20.20.2)`."""
        return f"{npm_version(self.name, self.library)} ({node_version()})"

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it."""
        return self._start(work, core, backend_port, None)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same over TLS."""
        return self._start(work, core, backend_port, certificate(work))

    def _start(self, work: Path, core: int, backend_port: int, pair: tuple[Path, Path] | None) -> Running:
        port = free_port()
        command = ["node", "server.mjs", str(port), str(backend_port), *map(str, pair or ())]
        ready = upgrades(port, self.ready_path, pair is not None)
        running = spawn(command, core, work / f"{self.name}.log", ready, CACHE / self.name)
        client, message = self.client(f"{'wss' if pair else 'ws'}://127.0.0.1:{port}")
        publish = f"http://127.0.0.1:{port}/pub"
        running.targets = {letter: client for letter in "de"}
        running.targets["a"] = [*client, *message]
        running.targets["b"] = [*client, "--publish-url", f"{publish}/c{{i}}"]
        running.targets["c"] = [*client, "--publish-url", f"{publish}/all"]
        return running

    ready_path: ClassVar[str]

    @abstractmethod
    def client(self, url: str) -> tuple[list[str], list[str]]:
        """What the generator is told of its clients, and besides of their messages."""


def spawn(
    command: list[str],
    core: int,
    log: Path,
    ready: Probe,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Running:
    """Starts a program on this core, with what it says in `log`, and waits until it is ready."""
    with log.open("wb") as output:
        # In a session of its own, so that a key that interrupts the run does not end it behind the run's back.
        process = subprocess.Popen(
            pinned(str(core), command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
    running = Running([process])
    try:
        _wait(process, ready, Path(command[0]).name, log)
    except BaseException:
        running.stop()
        raise
    return running


def _wait(process: subprocess.Popen[bytes], ready: Probe, name: str, log: Path) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            state = "ended" if process.poll() is not None else f"does not answer after {_PATIENCE_SECONDS} s"
            raise Failure(f"{name} {state}:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(_PAUSE_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills it: nothing that was measured has state worth an orderly end, and 18,000 sockets take their time."""
    # Found before the first of them is gone: then nobody knows any more whose they were. Some lead groups of their own.
    family = [process.pid, *_descendants(process.pid)]
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + _PATIENCE_SECONDS
    # Until they are gone they would disturb the next run.
    while any(_lives(pid) for pid in family) and time.monotonic() < end:
        time.sleep(_PAUSE_SECONDS)


def _descendants(root: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            parents[int(folder.name)] = int(fields[1])
    found, more = [], [root]
    while more:
        more = [pid for pid, parent in parents.items() if parent in more]
        found += more
    return found


def _lives(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` behind the name, state and parent first; none when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return []


def answers(port: int, path: str = "/") -> Probe:
    """Whether the port answers a GET, whatever it says."""
    return lambda: _first_line(port, path, "", False).startswith("HTTP/1.1 ")


def upgrades(port: int, path: str = "/", tls: bool = False, protocol: str = "") -> Probe:
    """Whether the port accepts a WebSocket."""
    headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    headers += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    headers += f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return lambda: " 101 " in _first_line(port, path, headers, tls)


def _first_line(port: int, path: str, headers: str, tls: bool) -> str:
    """The first line of the answer to a GET; nothing when there is none."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as plain:
        stream = plain
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            stream = context.wrap_socket(plain, server_hostname="localhost")
        stream.settimeout(2)
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n".encode())
        return stream.recv(4096).partition(b"\r\n")[0].decode(errors="replace")
    return ""


def output(command: list[str]) -> str:
    """What a command prints, on either stream: some servers tell their version on the one, some on the other."""
    found = subprocess.run(command, capture_output=True, text=True)
    return (found.stdout + found.stderr).strip()


def install_debian(packages: list[str]) -> None:
    """Installs packages of Debian's that are missing; none of them starts its service, now or at the next boot."""
    missing = [package for package in packages if not debian_version(package)]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Failure(f"{', '.join(missing)} is not installed; as root on Debian: {' '.join(command)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        for attempt in (command, ["apt-get", "update", "-qq"], command):
            done = subprocess.run(attempt, env=environment, capture_output=True, text=True)
            if done.returncode == 0 and attempt is command:
                break
        else:
            raise Failure(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    if Path("/run/systemd/system").exists():
        for package in missing:
            # Most packages here have no service of their own name, and then there is nothing to disable.
            subprocess.run(["systemctl", "disable", "--now", package], capture_output=True)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian asks policy-rc.d before it starts a service; a machine that has one already keeps its own rule."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\n# A load test installs servers, which it starts itself.\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def debian_version(package: str) -> str:
    """The version of an installed package, or nothing."""
    if shutil.which("dpkg-query") is None:
        return ""
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package]
    state, _, version = subprocess.run(command, capture_output=True, text=True).stdout.partition(" ")
    return version if state == "installed" else ""


def install_npm(name: str) -> None:
    """Installs a program of peers-files, with the packages that its lock file names, into the cache."""
    if shutil.which("npm") is None:
        raise Failure(f"{name} needs Node.js 20 and npm")
    source, target = FILES / name, CACHE / name
    lock, done = source / "package-lock.json", target / "node_modules" / ".installed-from"
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        shutil.copy(file, target)
    if done.exists() and done.read_bytes() == lock.read_bytes():
        return
    # What bufferutil needs natively is in its package: no install script has anything to do.
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    found = subprocess.run(command, cwd=target, capture_output=True, text=True)
    if found.returncode != 0:
        raise Failure(f"npm ci failed for {name}:\n{(found.stdout + found.stderr)[-2000:]}")
    shutil.copy(lock, done)


def npm_version(name: str, package: str) -> str:
    """The version of an installed package of a program."""
    return str(json.loads((CACHE / name / "node_modules" / package / "package.json").read_text())["version"])


def node_version() -> str:
    """Like `Node.js 20.20.2`."""
    return "Node.js " + output(["node", "--version"]).lstrip("v")


def install_crate(spec: str) -> None:
    """Installs the binary of a crate, written `name@version`, into the cache."""
    crate, _, version = spec.partition("@")
    root = CACHE / crate
    if (root / "bin" / crate).exists():
        return
    command = ["cargo", "install", crate, "--version", version, "--locked", "--root", str(root), "--quiet"]
    if subprocess.run(command).returncode != 0:
        raise Failure(f"cargo install {crate} --version {version} failed")
