"""NATS, a message broker.

Its guide has nothing to tune for one server: no compression of what is this small, room for all connections, no monitor.
"""

from pathlib import Path

from bench.machine import certificate, free_port
from bench.peers import Peer, Running, output, spawn, upgrades


class Nats(Peer):
    """The NATS server, its protocol in WebSocket messages."""

    name = "nats"
    note = "publishes over raw TCP, without an answer: less work"
    packages = {"debian": ["nats-server"]}
    scenarios = {"b", "c", "d", "e"}

    def version(self) -> str:
        """Like `2.9.10`."""
        return output(["nats-server", "-v"]).rpartition("v")[2]

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it with a port for publishers and one for clients."""
        return self._start(work, core, tls=False)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same with TLS for clients."""
        return self._start(work, core, tls=True)

    def _start(self, work: Path, core: int, tls: bool) -> Running:
        publish, port, security = free_port(), free_port(), "no_tls: true"
        if tls and (pair := certificate(work)):
            security = f'tls {{ cert_file: "{pair[0]}", key_file: "{pair[1]}" }}'
        config = work / "nats.conf"
        config.write_text(f"""
listen: "127.0.0.1:{publish}"
max_connections: 65536
websocket {{
    listen: "127.0.0.1:{port}"
    compression: false
    {security}
}}
""")
        ready = upgrades(port, "/", tls)
        running = spawn(["nats-server", "-c", str(config)], core, work / "nats.log", ready)
        client = ["--adapter", "nats", "--url", f"ws{'s' if tls else ''}://127.0.0.1:{port}/"]
        running.targets = {letter: client for letter in "de"}
        running.targets["b"] = [*client, "--publish-url", f"tcp://127.0.0.1:{publish}"]
        running.targets["c"] = [*running.targets["b"], "--channel", "all"]
        return running
