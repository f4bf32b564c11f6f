"""nginx, as a proxy for HTTP.

Its guide for proxies: keep connections to the backend (`keepalive`, HTTP/1.1, no `Connection` header), and one worker a
core. It writes no access log, and adds no headers.
"""

import resource
from pathlib import Path

from bench.machine import free_port
from bench.peers import Peer, Running, answers, output, spawn

# It allocates 0.4 KiB for each connection that it may ever have: no more than the scenarios open.
_CONNECTIONS = 15_000


class Nginx(Peer):
    """nginx."""

    name = "nginx"
    packages = {"debian": ["nginx-light"]}
    scenarios = {"f"}

    def version(self) -> str:
        """Like `1.22.1`."""
        return output(["nginx", "-v"]).rpartition("/")[2]

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts a master and its worker."""
        port = free_port()
        running = run(work, core, port, self.name, _CONNECTIONS, f"""
    upstream backend {{
        server 127.0.0.1:{backend_port};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}""")
        running.targets = {"f": ["--url", f"http://127.0.0.1:{port}/tiny"]}
        return running


def run(work: Path, core: int, port: int, name: str, connections: int, http: str, module: str = "") -> Running:
    """Runs nginx with what stands in its `http` block."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    config = work / f"{name}.conf"
    config.write_text(f"""{module}
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {work}/{name}.pid;
error_log stderr;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
{http}
}}
""")
    return spawn(["nginx", "-p", str(work), "-c", str(config)], core, work / f"{name}.log", answers(port))
