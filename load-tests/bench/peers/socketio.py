"""Socket.IO, in a small program of the kind that one writes with it.

Its guides for performance and memory: the ws engine with bufferutil, WebSocket as the only transport, and each client's
first request forgotten. Backends are called with undici's pooled client.
"""

from pathlib import Path

from bench.machine import certificate, free_port
from bench.peers import CACHE, Peer, Running, node_version, npm_version, spawn, upgrades

_PATH = "/socket.io/?EIO=4&transport=websocket"


class SocketIo(Peer):
    """A program on Socket.IO."""

    name = "socketio"
    note = "a program of 50 lines, which checks nothing; its own protocol in WebSocket messages"
    packages = {"npm": ["socket.io", "bufferutil", "undici"]}
    scenarios = {"a", "b", "c", "d", "e"}

    def version(self) -> str:
        """Like `4.8.4 (Node.js 20.20.2)`."""
        return f"{npm_version(self.name, 'socket.io')} ({node_version()})"

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it."""
        return self._start(work, core, backend_port, tls=False)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same over TLS."""
        return self._start(work, core, backend_port, tls=True)

    def _start(self, work: Path, core: int, backend_port: int, tls: bool) -> Running:
        port, pair = free_port(), certificate(work) if tls else None
        command = ["node", "server.mjs", str(port), str(backend_port), *map(str, pair or ())]
        running = spawn(command, core, work / f"{self.name}.log", upgrades(port, _PATH, tls), CACHE / self.name)
        scheme, publish = "wss" if pair else "ws", f"http://127.0.0.1:{port}/pub"
        client = ["--adapter", "socket-io", "--url", f"{scheme}://127.0.0.1:{port}{_PATH}&name=c{{i}}"]
        running.targets = {letter: client for letter in "de"}
        running.targets["a"] = [*client, "--text", '42["m",""]']
        running.targets["b"] = [*client, "--publish-url", f"{publish}/c{{i}}"]
        running.targets["c"] = [*client, "--publish-url", f"{publish}/all"]
        return running
