"""nchan, the publish-subscribe module of nginx.

Its guide: raise the limits of connections and of shared memory; channels store no messages, as nobody comes back for
them. For a message and its reply it has `nchan_publisher_upstream_request`, with kept connections as nginx's guide wants.
"""

from pathlib import Path

from bench.machine import certificate, free_port
from bench.peers import Peer, Running, debian_version, output
from bench.peers.nginx import run

# Below the 20,000 open files that many a machine grants.
_CONNECTIONS = 19_500


class Nchan(Peer):
    """nginx with nchan."""

    name = "nchan"
    note = "in a, the reply goes through a channel that the client listens to"
    packages = {"debian": ["nginx-light", "libnginx-mod-nchan"]}
    scenarios = {"a", "b", "c", "d", "e"}

    def version(self) -> str:
        """Like `1.3.6 (nginx 1.22.1)`."""
        module = debian_version("libnginx-mod-nchan").partition(":")[2].partition("+")[0]
        return f"{module} (nginx {output(['nginx', '-v']).rpartition('/')[2]})"

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts a master and its worker."""
        return self._start(work, core, backend_port, tls=False)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same over TLS."""
        return self._start(work, core, backend_port, tls=True)

    def _start(self, work: Path, core: int, backend_port: int, tls: bool) -> Running:
        port, listeners = free_port(), ""
        ws_port = port
        if tls and (pair := certificate(work)):
            ws_port = free_port()
            listeners = f"""listen 127.0.0.1:{ws_port} ssl backlog=4096;
        ssl_certificate {pair[0]};
        ssl_certificate_key {pair[1]};
        # The default of 16k stays with every connection that is upgraded.
        ssl_buffer_size 4k;"""
        http = f"""
    nchan_shared_memory_size 512M;
    nchan_store_messages off;
    upstream backend {{
        server 127.0.0.1:{backend_port};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        {listeners}
        location ~ ^/sub/(\\w+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
        location ~ ^/pub/(\\w+)$ {{ nchan_publisher http; nchan_channel_id $1; }}
        location ~ ^/echo/(\\w+)$ {{
            nchan_pubsub websocket;
            nchan_channel_id $1;
            nchan_publisher_upstream_request /upstream;
        }}
        location = /upstream {{
            internal;
            proxy_pass http://backend/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}"""
        module = "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;"
        running = run(work, core, port, self.name, _CONNECTIONS, http, module)
        base, publish = f"ws{'s' if tls else ''}://127.0.0.1:{ws_port}", f"http://127.0.0.1:{port}/pub"
        one = ["--url", f"{base}/sub/c{{i}}"]
        running.targets = {letter: one for letter in "de"}
        running.targets["a"] = ["--url", f"{base}/echo/c{{i}}"]
        running.targets["b"] = [*one, "--publish-url", f"{publish}/c{{i}}"]
        running.targets["c"] = ["--url", f"{base}/sub/all", "--publish-url", f"{publish}/all"]
        return running
