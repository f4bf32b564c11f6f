"""HAProxy, as a proxy for HTTP.

Its manual's advice: one thread a core, `http-reuse always` so that connections to the backend are shared, no log.
"""

from pathlib import Path

from bench.machine import free_port
from bench.peers import Peer, Running, answers, output, spawn


class HAProxy(Peer):
    """HAProxy."""

    name = "haproxy"
    packages = {"debian": ["haproxy"]}
    scenarios = {"f"}

    def version(self) -> str:
        """Like `2.6.12`."""
        return output(["haproxy", "-v"]).split()[2].partition("-")[0]

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it without a master."""
        port = free_port()
        config = work / "haproxy.cfg"
        config.write_text(f"""
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 30s
    http-reuse always
frontend clients
    bind 127.0.0.1:{port} backlog 4096
    default_backend backend
backend backend
    server only 127.0.0.1:{backend_port}
""")
        running = spawn(["haproxy", "-db", "-f", str(config)], core, work / "haproxy.log", answers(port))
        running.targets = {"f": ["--url", f"http://127.0.0.1:{port}/tiny"]}
        return running
