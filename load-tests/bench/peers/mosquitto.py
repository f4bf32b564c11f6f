"""Mosquitto, an MQTT broker.

Its manual's advice for low latency and load: TCP without delay, nothing persisted, no log of connections, no statistics.
"""

from pathlib import Path

from bench.machine import certificate, free_port
from bench.peers import Peer, Running, output, spawn, upgrades


class Mosquitto(Peer):
    """Mosquitto, MQTT in WebSocket messages."""

    name = "mosquitto"
    note = "publishes over raw TCP with QoS 0, without an answer: less work"
    packages = {"debian": ["mosquitto"]}
    scenarios = {"b", "c", "d", "e"}

    def version(self) -> str:
        """Like `2.0.11`."""
        return output(["mosquitto", "-h"]).split()[2]

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it with a listener for publishers and one for clients."""
        return self._start(work, core, tls=False)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same with TLS for clients."""
        return self._start(work, core, tls=True)

    def _start(self, work: Path, core: int, tls: bool) -> Running:
        publish, port, files = free_port(), free_port(), ""
        if tls and (pair := certificate(work)):
            files = f"certfile {pair[0]}\nkeyfile {pair[1]}"
        config = work / "mosquitto.conf"
        # As root it would become another user, who may not read the key.
        config.write_text(f"""
user root
allow_anonymous true
persistence false
connection_messages false
log_type error
sys_interval 0
set_tcp_nodelay true
listener {publish} 127.0.0.1
listener {port} 127.0.0.1
protocol websockets
{files}
""")
        ready = upgrades(port, "/", tls, "mqtt")
        running = spawn(["mosquitto", "-c", str(config)], core, work / "mosquitto.log", ready)
        client = ["--adapter", "mqtt", "--url", f"ws{'s' if tls else ''}://127.0.0.1:{port}/"]
        running.targets = {letter: client for letter in "de"}
        running.targets["b"] = [*client, "--publish-url", f"tcp://127.0.0.1:{publish}"]
        running.targets["c"] = [*running.targets["b"], "--channel", "all"]
        return running
