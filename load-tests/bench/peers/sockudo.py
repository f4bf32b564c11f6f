"""Sockudo, a server of Pusher's protocol.

Its guide for one node: everything in memory and local, no rate limiter, no metrics, room for all connections.
"""

import json
from pathlib import Path

from bench.machine import certificate, free_port
from bench.peers import CACHE, Peer, Running, output, spawn, upgrades

_BINARY = CACHE / "sockudo" / "bin" / "sockudo"
_KEY, _SECRET = "load-key", "only-load-tests-sign-with-this"


class Sockudo(Peer):
    """Sockudo."""

    name = "sockudo"
    note = "its pushes are signed, and it checks that"
    packages = {"crates.io": ["sockudo@5.2.0"]}
    scenarios = {"b", "c", "d", "e"}

    def version(self) -> str:
        """Like `5.2.0`."""
        return output([str(_BINARY), "--version"]).split()[-1]

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it."""
        return self._start(work, core, tls=False)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same over TLS."""
        return self._start(work, core, tls=True)

    def _start(self, work: Path, core: int, tls: bool) -> Running:
        port, pair = free_port(), certificate(work) if tls else None
        app = {"id": "load", "key": _KEY, "secret": _SECRET, "enabled": True, "enable_client_messages": False}
        app |= {"max_connections": 100_000, "max_client_events_per_second": 100_000}
        settings = {
            "host": "127.0.0.1",
            "port": port,
            "app_manager": {"driver": "memory", "array": {"apps": [app]}},
            "adapter": {"driver": "local"},
            "cache": {"driver": "memory"},
            "queue": {"driver": "memory"},
            "rate_limiter": {"enabled": False, "driver": "memory"},
            "metrics": {"enabled": False},
        }
        if pair:
            settings["ssl"] = {"enabled": True, "cert_path": str(pair[0]), "key_path": str(pair[1])}
        config = work / "sockudo.json"
        config.write_text(json.dumps(settings))
        command = [str(_BINARY), "--config", str(config)]
        path = f"/app/{_KEY}?protocol=7"
        ready = upgrades(port, path, tls)
        running = spawn(command, core, work / "sockudo.log", ready, work, {"RUST_LOG": "warn"})
        url = f"ws{'s' if pair else ''}://127.0.0.1:{port}{path}"
        client = ["--adapter", "pusher", "--url", url]
        publish = ["--publish-url", f"http://127.0.0.1:{port}/apps/load/events", "--sign-key", _KEY, "--sign-secret", _SECRET]
        running.targets = {letter: client for letter in "de"}
        running.targets["b"] = [*client, *publish]
        running.targets["c"] = [*client, *publish, "--channel", "all"]
        return running
