"""As many connections as the machine holds: many gateways, and for each a process that holds its clients.

No process may open more files than its limit, and a connection is a file at either end. So each gateway has a process
of its own that holds its clients, until the goal is reached or memory is about to run out.
"""

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import configs, machine
from bench.machine import Failure
from bench.runs import Bench, say
from bench.servers import Livegate, Program

GOAL = 1_000_000
# What is left to everybody else on the machine.
SPARED_KIB = 1536 * 1024
# Files that a process needs for anything but clients.
OTHER_FILES = 800
# Connections of each gateway that are pushed to in the end.
SAMPLE = 20
# What a connection may cost the whole machine before it is known what it does cost.
EXPECTED_KIB = 20.0
SETTLE_SECONDS = 3
# May wait on loopback: the probes of all connections that were opened within some seconds.
PACKETS = 200_000
# Longer, and on a slow machine the first clients reach the idle timeout, which is 10 minutes by default.
ECHO_SECONDS = 150


@dataclass
class Part:
    """A gateway, and the process that holds its clients."""

    gateway: Program
    base_kib: int
    clients: subprocess.Popen[str]
    fate: dict[str, int] = field(default_factory=dict)

    def answer(self) -> dict[str, int]:
        """The next line of the process that holds the clients."""
        assert self.clients.stdout
        line = self.clients.stdout.readline()
        if not line:
            raise Failure("million: a process that held connections ended")
        self.fate = json.loads(line)
        return self.fate

    def ask(self, order: str) -> dict[str, int]:
        """Sends an order and waits for the answer; what was echoed is what that order had echoed."""
        before = self.fate["echoed"]
        assert self.clients.stdin
        self.clients.stdin.write(order + "\n")
        self.clients.stdin.flush()
        answer = self.answer()
        return answer | {"echoed": answer["echoed"] - before}


@dataclass(frozen=True)
class Million:
    """The run, for a gateway's binary."""

    binary: Path
    goal: int

    def run(self, bench: Bench, round_number: int) -> None:
        """Opens connections until the goal or the memory is reached, and has a sample and then all of them answer."""
        parts: list[Part] = []
        try:
            with machine.deep_loopback(PACKETS) as backlog:
                found = self._measure(bench, parts)
            bench.add("million", "livegate", round_number, found | {"netdev_max_backlog": backlog})
        finally:
            for part in parts:
                part.clients.kill()
            for part in parts:
                part.clients.wait()
                part.gateway.stop()

    def _measure(self, bench: Bench, parts: list[Part]) -> dict[str, Any]:
        share = machine.raise_open_files() - OTHER_FILES
        backend = bench.backend()
        before, start, stopped = machine.available_kib(), time.monotonic(), ""
        held = 0
        while held < self.goal:
            n = min(share, self.goal - held)
            each = (before - machine.available_kib()) / held if held else EXPECTED_KIB
            if machine.available_kib() - each * n < SPARED_KIB:
                stopped = f"less than {SPARED_KIB / 1024 / 1024} GiB of memory would have been left"
                break
            part = self._start(bench, backend.port, len(parts), n)
            parts.append(part)
            fate = part.answer()
            held += fate["opened"]
            say(f"  million: {held:,} connections, {machine.available_kib() // 1024:,} MiB left")
            if fate["failed"]:
                stopped = f"{fate['failed']} connections of one gateway did not open"
                break
        opening = time.monotonic() - start
        time.sleep(SETTLE_SECONDS)
        gateways = sum(machine.rss_kib(part.gateway.process.pid) - part.base_kib for part in parts)
        used = before - machine.available_kib()
        out: dict[str, Any] = {
            "held": held,
            "gateways": len(parts),
            "opened_in_s": round(opening, 1),
            "server_kib_per_conn": round(gateways / held, 2),
            "machine_kib_per_conn": round(used / held, 2),
            "stopped": stopped,
            **self._exchange(parts),
        }
        fates = [part.ask("fate") for part in parts]
        return out | {key: sum(fate[key] for fate in fates) for key in ("failed", "dropped")}

    def _start(self, bench: Bench, backend_port: int, number: int, connections: int) -> Part:
        # No listener for operators: fifty of them have no use.
        gateway = Livegate(self.binary, _file, name=f"livegate-million-{number}")
        running = gateway.start(bench.work, machine.SERVER_CORE, backend_port)
        base = machine.rss_kib(running.process.pid)
        command = ["hold", "--conns", str(connections), "--first-source", str(number + 1), *running.arguments("d")]
        return Part(running, base, bench.load(command))

    def _exchange(self, parts: list[Part]) -> dict[str, Any]:
        """Pushes to some connections of each gateway, then has all of them echo a message."""
        sample = arrived = 0
        for part in parts:
            every = max(1, part.fate["opened"] // SAMPLE)
            sample += -(-part.fate["opened"] // every)
            url = part.gateway.targets["b"][part.gateway.targets["b"].index("--publish-url") + 1]
            arrived += part.ask(f"push {every} {url}")["echoed"]
        say(f"  million: {arrived} of {sample} pushes arrived; now all of them echo")
        start, asked, echoed = time.monotonic(), 0, 0
        for part in parts:
            # Whoever has sent a message may cost more than whoever has not.
            if machine.available_kib() < SPARED_KIB * 2 // 3 or time.monotonic() - start > ECHO_SECONDS:
                break
            asked += part.fate["opened"]
            echoed += part.ask("echo 128")["echoed"]
        seconds = round(time.monotonic() - start, 1)
        return {
            "sample": sample,
            "sample_arrived": arrived,
            "asked": asked,
            "all_echoed": echoed,
            "echoed_in_s": seconds,
        }


def _file(place: configs.Place) -> str:
    return configs.websocket(place).replace('admin_listen = "127.0.0.1:0"', 'admin_listen = "none"')
