"""Pushpin, a reverse proxy that turns WebSocket messages into HTTP requests and publishes what it is POSTed.

From its notes on a million connections: room for all of them, and client buffers of 4 KiB; the limit of 2,500 messages
a second is raised. It runs with its own zurl, as the one that Debian starts as a service is everybody's.
"""

from pathlib import Path

from bench.machine import certificate, free_port
from bench.peers import Peer, Running, output, spawn, upgrades

_LIB = "/usr/lib/pushpin"


class Pushpin(Peer):
    """Pushpin, WebSocket-over-HTTP to the backend."""

    name = "pushpin"
    note = "Debian's package is years old"
    packages = {"debian": ["pushpin", "condure", "zurl"]}
    # Not d: it takes minutes for 18,000 handshakes, and refuses some of them.
    scenarios = {"a", "b", "c", "e", "f"}

    def version(self) -> str:
        """Like `1.36.0`."""
        return output(["pushpin", "--version"]).split()[-1]

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts its four programs."""
        return self._start(work, core, backend_port, tls=False)

    def tls_start(self, work: Path, core: int, backend_port: int) -> Running:
        """The same with TLS for clients."""
        return self._start(work, core, backend_port, tls=True)

    def _start(self, work: Path, core: int, backend_port: int, tls: bool) -> Running:
        port, publish = free_port(), free_port()
        folder = work / "pushpin"
        certificates = folder / "runner" / "certs"
        certificates.mkdir(parents=True, exist_ok=True)
        ports = f"http_port=127.0.0.1:{port}"
        if tls and (pair := certificate(work)):
            ports = f"https_ports=127.0.0.1:{port}"
            for file, kind in zip(pair, ("crt", "key"), strict=True):
                (certificates / f"default_{port}.{kind}").write_bytes(file.read_bytes())
        (folder / "routes").write_text(f"*,path_beg=/tiny 127.0.0.1:{backend_port}\n* 127.0.0.1:{backend_port},over_http\n")
        config = folder / "pushpin.conf"
        config.write_text(_config(folder, ports, publish))
        ready = upgrades(port, "/sub/ready", tls)
        running = spawn(["pushpin", "--merge-output", f"--config={config}"], core, work / "pushpin.log", ready)
        http, ws = ("https", "wss") if tls else ("http", "ws")
        base = ["--adapter", "pushpin", "--url", f"{ws}://127.0.0.1:{port}/sub/c{{i}}"]
        plain = ["--url", f"{ws}://127.0.0.1:{port}/echo"]
        to = ["--publish-url", f"http://127.0.0.1:{publish}/publish/"]
        running.targets = {letter: plain for letter in "ae"}
        running.targets["b"] = [*base, *to]
        running.targets["c"] = ["--adapter", "pushpin", "--channel", "all", "--url", f"{ws}://127.0.0.1:{port}/sub/all", *to]
        running.targets["f"] = ["--url", f"{http}://127.0.0.1:{port}/tiny"]
        return running


def _config(folder: Path, ports: str, publish: int) -> str:
    """Debian's settings, save for what the module's sentence says, and sockets that are this run's own."""
    return f"""
[global]
include={_LIB}/internal.conf
rundir={folder}
ipc_prefix=load-
port_offset=0

[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
{ports}
logdir={folder}
log_level=1
client_buffer_size=4096
client_maxconn=20000
condure_bin=condure
zurl_bin=zurl

[proxy]
routesfile=routes
debug=false
auto_cross_origin=false
accept_x_forwarded_protocol=false
set_x_forwarded_protocol=
sig_iss=pushpin
sig_key=load-test
zurl_out_specs=ipc://{folder}/load-zurl-in
zurl_out_stream_specs=ipc://{folder}/load-zurl-in-stream
zurl_in_specs=ipc://{folder}/load-zurl-out
updates_check=off

[handler]
push_in_spec=ipc://{folder}/load-push-in
push_in_sub_specs=ipc://{folder}/load-push-in-sub
push_in_http_addr=127.0.0.1
push_in_http_port={publish}
stats_spec=ipc://{folder}/load-stats
command_spec=ipc://{folder}/load-command
message_rate=1000000
message_hwm=1000000
message_wait=5000
id_cache_ttl=60
connection_subscription_max=20
subscription_linger=60
"""
