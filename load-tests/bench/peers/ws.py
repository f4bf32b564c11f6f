"""ws, the WebSocket library of Node.js, in a small program of the kind that one writes with it.

Its README: bufferutil beside it, no compression. Backends are called with undici's pooled client, as Node.js's own advice is.
"""

from pathlib import Path

from bench.machine import certificate, free_port
from bench.peers import CACHE, Peer, Running, node_version, npm_version, spawn, upgrades


class Ws(Peer):
    """A program on ws."""

    name = "ws"
    note = "a program of 50 lines, which checks nothing"
    packages = {"npm": ["ws", "bufferutil", "undici"]}
    scenarios = {"a", "b", "c", "d", "e"}

    def version(self) -> str:
        """Like `8.23.0 (Node.js 20.20.2)`."""
        return f"{npm_version(self.name, 'ws')} ({node_version()})"

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it."""
        return self._start(work, core, backend_port, tls=False)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same over TLS."""
        return self._start(work, core, backend_port, tls=True)

    def _start(self, work: Path, core: int, backend_port: int, tls: bool) -> Running:
        port, pair = free_port(), certificate(work) if tls else None
        command = ["node", "server.mjs", str(port), str(backend_port), *map(str, pair or ())]
        ready = upgrades(port, "/sub/ready", tls)
        running = spawn(command, core, work / f"{self.name}.log", ready, CACHE / self.name)
        client = ["--url", f"ws{'s' if pair else ''}://127.0.0.1:{port}/sub/c{{i}}"]
        publish = f"http://127.0.0.1:{port}/pub"
        running.targets = {letter: client for letter in "ade"}
        running.targets["b"] = [*client, "--publish-url", f"{publish}/c{{i}}"]
        running.targets["c"] = [*client, "--publish-url", f"{publish}/all"]
        return running
