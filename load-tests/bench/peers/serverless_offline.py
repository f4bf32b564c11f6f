"""serverless-offline, which plays API Gateway's WebSocket APIs for the Serverless Framework on a developer's machine.

Its README: handlers run in its own process, which is its quickest way, without timers; the handler calls the backend
with undici's pooled client.
"""

from pathlib import Path

from bench.machine import free_port
from bench.peers import CACHE, Peer, Running, node_version, npm_version, spawn, upgrades


class ServerlessOffline(Peer):
    """serverless-offline."""

    name = "serverless-offline"
    note = "made for development, not for load"
    packages = {"npm": ["serverless", "serverless-offline", "undici"]}
    scenarios = {"a", "b", "e"}

    def version(self) -> str:
        """Like `13.9.0 (Node.js 20.20.2)`."""
        return f"{npm_version(self.name, self.name)} ({node_version()})"

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it, without what it would tell its makers."""
        port = free_port()
        command = ["node", "node_modules/serverless/bin/serverless.js", "offline", "start"]
        command += ["--websocketPort", str(port), "--httpPort", str(free_port()), "--lambdaPort", str(free_port())]
        environment = {
            "BACKEND_PORT": str(backend_port),
            "SLS_TELEMETRY_DISABLED": "1",
            "SLS_TRACKING_DISABLED": "1",
            "SLS_NOTIFICATIONS_MODE": "off",
            "NODE_ENV": "production",
        }
        ready = upgrades(port)
        running = spawn(command, core, work / f"{self.name}.log", ready, CACHE / self.name, environment)
        client = ["--url", f"ws://127.0.0.1:{port}/"]
        publish = ["--publish-url", f"http://127.0.0.1:{port}/@connections/{{id}}", "--ask", '{"action":"whoami"}']
        # It tells clients apart by the key of their handshake, which is the same for all of the generator's.
        one_by_one = [*client, "--open-concurrency", "1"]
        running.targets = {"a": one_by_one, "b": [*one_by_one, *publish], "e": client}
        return running
