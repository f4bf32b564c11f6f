"""A restart: the server is killed under all its clients, started again, and all of them come back at once."""

import json
from dataclasses import dataclass

from bench import machine
from bench.machine import Failure
from bench.runs import Bench, say
from bench.servers import Floor, Livegate

CLIENTS = 10_000


@dataclass(frozen=True)
class Storm:
    """A server whose clients all come back at once."""

    server: Livegate | Floor

    def run(self, bench: Bench, round_number: int) -> None:
        """Kills the server, starts it where it was, and waits until every client has had an echo."""
        say(f"  storm/{self.server.name}")
        backend = bench.backend()
        # A port of its own from the start: the second server cannot be told to take any free one.
        port = machine.free_port()
        running = self.server.start(bench.work, machine.SERVER_CORE, backend.port, port)
        generator = bench.load(["storm", "--conns", str(CLIENTS), *running.arguments("e")])
        try:
            assert generator.stdout
            if not generator.stdout.readline():
                raise Failure(f"storm/{self.server.name}: the clients did not connect")
            running.stop()
            running = self.server.start(bench.work, machine.SERVER_CORE, backend.port, port)
            line = generator.stdout.readline()
            if generator.wait() != 0 or not line:
                raise Failure(f"storm/{self.server.name} failed")
            cpu = machine.cpu_seconds(running.process.pid)
        finally:
            generator.kill()
            running.stop()
        # From the new server's start on, the echoes included that prove that everybody is there.
        cost = {"server_cpu_ms_per_1k_handshakes": round(cpu * 1e6 / CLIENTS, 2)}
        bench.add("storm", self.server.name, round_number, json.loads(line) | cost)
