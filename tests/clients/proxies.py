"""What stands in front of a gateway: nginx with X-Forwarded-For or the PROXY protocol, unix sockets, several listeners,
several gateways on one port, and systemd (README.md `[gateway]`; ROUTES.md section 1 and 5)."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
import ssl
import struct
import subprocess
import sys

import pytest
from websockets.sync.client import unix_connect

from authority import Authority
from backend import PATIENCE
from servers import free_port
from signing import BACKEND
from wire import Wire
from world import LIVEGATE, Client, Gateway, Livegate, chat, eventually, mock, run, to

# Proxies connect from 127.0.0.1, which the gateway trusts; their clients have addresses of their own.
TRUSTED, CLIENT, STRANGER = "127.0.0.1", "127.0.0.9", "127.0.0.66"
FORGED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "4443",
          "X-Forwarded-Host": "forged.example", "Forwarded": "for=203.0.113.7;proto=https;host=forged.example"}

# Debian has it in libnginx-mod-stream.
STREAM = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def nginx(tmp_path):
    """Starts nginx: `nginx("http", "…{port}…")` with the inside of its `http` or `stream` block; gives its port."""
    started = []

    def start(kind, inside):
        folder = tmp_path / f"nginx-{len(started)}"
        folder.mkdir()
        port = free_port()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        (folder / "nginx.conf").write_text(f"""
            daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
            {f"load_module {STREAM};" if kind == "stream" else ""}
            events {{ }}
            {kind} {{
                {places + "access_log off;" if kind == "http" else ""}
                {inside.replace("{port}", str(port))}
            }}""")
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        log = (folder / "start.log").open("wb")
        process = subprocess.Popen([binary, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        started.append((process, log))

        def accepts():
            assert process.poll() is None, (folder / "start.log").read_text() + (folder / "error.log").read_text()
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                return True
        eventually(accepts, "nginx to accept")
        return port

    yield start
    for process, log in started:
        process.terminate()
        process.wait(timeout=PATIENCE)
        log.close()


def reverse_proxy(to_gateway, listen="127.0.0.1:{port}", more=""):
    """nginx as most people write it in front of a WebSocket server."""
    return f"""
        map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
        server {{
            listen {listen};
            {more}
            location / {{
                proxy_pass http://{to_gateway};
                proxy_http_version 1.1;
                proxy_set_header Host $http_host;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $connection_upgrade;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto $scheme;
            }}
        }}"""


def stream_proxy(to_gateway):
    return f"server {{ listen 127.0.0.1:{{port}}; proxy_pass {to_gateway}; proxy_protocol on; }}"


def parts(backend, gateway=None, trusted=(f"{TRUSTED}/32",), **more):
    """An HTTP API whose events and requests the backend sees, and a WebSocket API that tells it of `$connect`."""
    backend.answer("/event", body='{"statusCode": 200, "body": "ok"}')
    backend.answer("/connect", body='{"statusCode": 200}')
    event = {"type": "http_proxy", "uri": backend.at("/event"), "payload": "event"}
    return {
        "gateway": {"trusted_proxies": list(trusted), **(gateway or {})},
        "routes": {"$connect": to(backend.at("/connect"), payload="event"), "echo": mock("${request.body.text}")},
        "connections_api": {"authorization": "aws_iam"}, "credentials": BACKEND,
        "apis": {"pets": {"protocol": "http", "routes": {
            "GET /event": {"integration": event},
            "GET /event1": {"integration": {**event, "payload_format": "1.0"}},
            "GET /plain": {"integration": backend.at("/plain")},
        }}},
        **more,
    }


def ask(port, path, headers=None, source=CLIENT, tls=None):
    """One request from `source`."""
    with Talk(port, source, tls) as talk:
        talk.send(get(path, **(headers or {})))
        return talk.response()


class Talk(Wire):
    """A bare connection from an address of the test's choice, over TLS if there is a context."""

    def __init__(self, port, source=CLIENT, tls=None, first=b""):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))
        self.host, self._got = f"127.0.0.1:{port}", b""
        self.socket.sendall(first)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")


def get(path, **headers):
    """The bytes of a request."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def trusting(authority):
    return ssl.create_default_context(cafile=str(authority.file))


def connect_from(gateway, port, source=CLIENT, **settings):
    """A WebSocket through whatever listens at `port`."""
    gateway.ws_url = f"ws://127.0.0.1:{port}"
    return gateway.connect(source_address=(source, 0), **settings)


def source_of_connect(backend):
    return backend.next("/connect").json["requestContext"]["identity"]["sourceIp"]


# nginx as an HTTP proxy


def test_the_client_behind_nginx_is_known(livegate, backend, nginx):
    gateway = livegate(**parts(backend))
    port = nginx("http", reverse_proxy(gateway.host))
    assert ask(port, "/event").body == b"ok"
    event = backend.next("/event").json
    assert event["requestContext"]["http"]["sourceIp"] == CLIENT
    assert event["headers"]["x-forwarded-for"] == f"{CLIENT}, {TRUSTED}"
    assert event["headers"]["x-forwarded-proto"] == "http"
    assert ask(port, "/event1").body == b"ok"
    assert backend.next("/event").json["requestContext"]["identity"]["sourceIp"] == CLIENT


def test_the_scheme_that_nginx_spoke_is_known(livegate, backend, nginx, authority):
    gateway = livegate(**parts(backend))
    file = authority.issue("localhost")
    secure = f"ssl_certificate {file}; ssl_certificate_key {file};"
    port = nginx("http", reverse_proxy(gateway.host, "127.0.0.1:{port} ssl", secure))
    assert ask(port, "/event", tls=trusting(authority)).body == b"ok"
    headers = backend.next("/event").json["headers"]
    assert (headers["x-forwarded-proto"], headers["x-forwarded-port"]) == ("https", "443")
    ask(port, "/plain", tls=trusting(authority))
    plain = backend.next("/plain")
    assert plain.header("X-Forwarded-Proto") == "https"
    assert f"for={CLIENT};proto=https" in plain.header("Forwarded")


def test_a_websocket_through_nginx(livegate, backend, nginx):
    gateway = livegate(**parts(backend))
    port = nginx("http", reverse_proxy(gateway.host))
    with connect_from(gateway, port) as client:
        assert client.asks(action="echo", text="through") == "through"
        large = "x" * 30_000
        assert [client.asks(action="echo", text=text) for text in ("1", large, "2")] == ["1", large, "2"]
        assert source_of_connect(backend) == CLIENT
        client.close(3000, "bye")
    eventually(lambda: gateway.metric("livegate_connections_open") == 0)


def test_a_websocket_through_nginx_is_told_why_it_is_closed(livegate, backend, nginx):
    gateway = livegate(**parts(backend))
    with connect_from(gateway, nginx("http", reverse_proxy(gateway.host))) as client:
        client.send(b"binary")
        assert client.closed()[0] == 1003


def test_a_handshake_that_is_refused_is_refused_through_nginx(livegate, backend, nginx):
    gateway = livegate(**parts(backend))
    backend.answer("/connect", body='{"statusCode": 403}')
    with Talk(nginx("http", reverse_proxy(gateway.host))) as talk:
        talk.send(get("/prod", Upgrade="websocket", Connection="Upgrade", **{
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}))
        assert talk.response().status == 403


def test_what_a_client_of_nginx_forges_changes_nothing(livegate, backend, nginx):
    gateway = livegate(**parts(backend))
    port = nginx("http", reverse_proxy(gateway.host))
    # What nginx passes on of other kinds of headers is its operator's affair.
    forged = {"X-Forwarded-For": "203.0.113.7, 127.0.0.1"}
    ask(port, "/event", forged)
    assert backend.next("/event").json["requestContext"]["http"]["sourceIp"] == CLIENT
    with connect_from(gateway, port, headers=forged):
        assert source_of_connect(backend) == CLIENT


@pytest.mark.parametrize("trusted", [[], [f"{TRUSTED}/32"], ["10.0.0.0/8"]])
def test_what_a_stranger_forges_changes_nothing(livegate, backend, trusted):
    gateway = livegate(**parts(backend, trusted=trusted))
    assert ask(gateway.port, "/event", FORGED, STRANGER).body == b"ok"
    event = backend.next("/event").json
    assert event["requestContext"]["http"]["sourceIp"] == STRANGER
    headers = event["headers"]
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == (STRANGER, "http")
    assert headers["x-forwarded-port"] == str(gateway.port)
    ask(gateway.port, "/plain", FORGED, STRANGER)
    shown = json.dumps(backend.next("/plain").headers)
    assert STRANGER in shown and "203.0.113.7" not in shown and "forged" not in shown and "4443" not in shown
    with connect_from(gateway, gateway.port, STRANGER, headers=FORGED):
        event = backend.next("/connect").json
        assert event["requestContext"]["identity"]["sourceIp"] == STRANGER
        assert "203.0.113.7" not in json.dumps(event) and "forged" not in json.dumps(event)


def test_proxies_behind_proxies_are_walked_to_the_first_stranger(livegate, backend):
    gateway = livegate(**parts(backend, trusted=["127.0.0.0/8", "10.0.0.0/8"]))
    for forwarded, source in [
        ("198.51.100.4, 10.1.1.1, 10.2.2.2", "198.51.100.4"), ("6.6.6.6, 198.51.100.4, 10.1.1.1", "198.51.100.4"),
        ("10.9.9.9, 10.1.1.1", "10.9.9.9"), ("nonsense, 10.1.1.1", "10.1.1.1"), ("2001:db8::7", "2001:db8::7"),
    ]:
        ask(gateway.port, "/event", {"X-Forwarded-For": forwarded}, TRUSTED)
        event = backend.next("/event").json
        assert event["requestContext"]["http"]["sourceIp"] == source, forwarded
        assert event["headers"]["x-forwarded-for"] == f"{forwarded}, {TRUSTED}"


def test_forwarded_counts_as_well(livegate, backend):
    gateway = livegate(**parts(backend))
    ask(gateway.port, "/event", {"Forwarded": 'for="[2001:db8::7]:4711";proto=https'}, TRUSTED)
    event = backend.next("/event").json
    assert event["requestContext"]["http"]["sourceIp"] == "2001:db8::7"
    assert event["headers"]["x-forwarded-proto"] == "https"


def test_nginx_in_front_of_a_unix_socket(livegate, backend, nginx, tmp_path):
    gateway = livegate(**parts(backend, {"listen": [f"unix:{tmp_path}/gateway.sock", "127.0.0.1:0"]}))
    port = nginx("http", reverse_proxy(f"unix:{tmp_path}/gateway.sock:"))
    assert ask(port, "/event").body == b"ok"
    assert backend.next("/event").json["requestContext"]["http"]["sourceIp"] == CLIENT
    with connect_from(gateway, port) as client:
        assert client.asks(action="echo", text="through") == "through"
        assert source_of_connect(backend) == CLIENT


# The PROXY protocol

PROXIED = {"proxy_protocol": True}
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source, port=40000):
    return f"PROXY TCP4 {source} 127.0.0.1 {port} 443\r\n".encode()


def v2(source, destination="127.0.0.1", more=b""):
    family, kind = (socket.AF_INET6, 0x21) if ":" in source else (socket.AF_INET, 0x11)
    if family == socket.AF_INET6:
        destination = "::1"
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    body = addresses + struct.pack("!HH", 40000, 443) + more
    return V2_SIGNATURE + bytes([0x21, kind]) + struct.pack("!H", len(body)) + body


V2_LOCAL = V2_SIGNATURE + b"\x20\x00\x00\x00"


@pytest.mark.skipif(not STREAM.exists(), reason="needs Debian's libnginx-mod-stream")
def test_nginx_says_the_source_in_version_1(livegate, backend, nginx):
    gateway = livegate(**parts(backend, PROXIED))
    port = nginx("stream", stream_proxy(gateway.host))
    assert ask(port, "/event").body == b"ok"
    event = backend.next("/event").json
    assert (event["requestContext"]["http"]["sourceIp"], event["headers"]["x-forwarded-for"]) == (CLIENT, CLIENT)
    with connect_from(gateway, port) as client:
        assert client.asks(action="echo", text="through") == "through"
        assert source_of_connect(backend) == CLIENT


@pytest.mark.skipif(not STREAM.exists(), reason="needs Debian's libnginx-mod-stream")
def test_tls_through_nginx_behind_a_proxy_header(livegate, backend, nginx, authority):
    file = str(authority.issue("localhost"))
    gateway = livegate(**parts(backend, {**PROXIED, "tls": {"certificates": [{"cert": file, "key": file}]}}))
    port = nginx("stream", stream_proxy(gateway.host))
    assert ask(port, "/event", tls=trusting(authority)).body == b"ok"
    event = backend.next("/event").json
    assert (event["requestContext"]["http"]["sourceIp"], event["headers"]["x-forwarded-proto"]) == (CLIENT, "https")


@pytest.mark.parametrize("header, source", [
    (v1("198.51.100.4"), "198.51.100.4"),
    (b"PROXY TCP6 2001:db8::7 ::1 40000 443\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", TRUSTED),
    (v2("198.51.100.4"), "198.51.100.4"),
    (v2("2001:db8::7"), "2001:db8::7"),
    (v2("198.51.100.4", more=b"\x01\x00\x02h2\x04\x00\x00"), "198.51.100.4"),
    (V2_LOCAL, TRUSTED),
])
def test_both_versions_of_the_header(livegate, backend, header, source):
    gateway = livegate(**parts(backend, PROXIED))
    with Talk(gateway.port, TRUSTED, first=header) as talk:
        # It counts for every request of the connection.
        for _ in range(2):
            talk.send(get("/event"))
            assert talk.response().body == b"ok"
            assert backend.next("/event").json["requestContext"]["http"]["sourceIp"] == source


def test_a_header_in_pieces_and_one_with_a_request_behind_it(livegate, backend):
    gateway = livegate(**parts(backend, PROXIED))
    for header in (v1("198.51.100.4"), v2("198.51.100.4")):
        with Talk(gateway.port, TRUSTED) as talk:
            talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(header)):
                talk.send(header[at:at + 1])
            talk.send(get("/event"))
            assert talk.response().body == b"ok"
        with Talk(gateway.port, TRUSTED, first=header + get("/event")) as talk:
            assert talk.response().body == b"ok"
        assert {backend.next("/event").json["requestContext"]["http"]["sourceIp"] for _ in range(2)} == {"198.51.100.4"}


def test_tls_behind_a_header_of_version_2(livegate, backend, authority):
    file = str(authority.issue("localhost"))
    gateway = livegate(**parts(backend, {**PROXIED, "tls": {"certificates": [{"cert": file, "key": file}]}}))
    with Talk(gateway.port, TRUSTED, trusting(authority), first=v2("198.51.100.4")) as talk:
        talk.send(get("/event"))
        assert talk.response().body == b"ok"
    event = backend.next("/event").json
    assert event["requestContext"]["http"]["sourceIp"] == "198.51.100.4"
    assert event["headers"]["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("beginning", [
    get("/event"),
    b"PROXY TCP4 198.51.100.4 127.0.0.1 40000\r\n" + get("/event"),
    b"PROXY TCP4 198.51.100.400 127.0.0.1 40000 443\r\n" + get("/event"),
    b"PROXY " + b"x" * 200 + b"\r\n" + get("/event"),
    V2_SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12) + get("/event"),
    V2_SIGNATURE + b"\x21\x11\x00\x04" + bytes(4) + get("/event"),
])
def test_a_trusted_peer_without_a_good_header_is_dropped_without_a_word(livegate, backend, beginning):
    gateway = livegate(**parts(backend, PROXIED))
    with Talk(gateway.port, TRUSTED, first=beginning) as talk:
        assert talk.rest() == b""
    assert backend.seen_anywhere() == []
    assert gateway.metric("livegate_handshake_errors_total") == 1


def test_tls_without_a_header_is_dropped(livegate, backend, authority):
    file = str(authority.issue("localhost"))
    gateway = livegate(**parts(backend, {**PROXIED, "tls": {"certificates": [{"cert": file, "key": file}]}}))
    with pytest.raises(OSError):
        Talk(gateway.port, TRUSTED, trusting(authority))


@pytest.mark.parametrize("header", [v1("198.51.100.4"), v2("198.51.100.4")])
def test_a_stranger_s_header_is_taken_for_http_and_refused(livegate, backend, header):
    gateway = livegate(**parts(backend, PROXIED))
    with Talk(gateway.port, STRANGER, first=header + get("/event")) as talk:
        assert talk.response().status == 400
        assert talk.ended()
    assert backend.seen_anywhere() == []


def test_a_stranger_needs_no_header(livegate, backend):
    gateway = livegate(**parts(backend, PROXIED))
    assert ask(gateway.port, "/event", FORGED, STRANGER).body == b"ok"
    assert backend.next("/event").json["requestContext"]["http"]["sourceIp"] == STRANGER


def test_without_proxy_protocol_a_header_is_refused_from_anybody(livegate, backend):
    gateway = livegate(**parts(backend))
    with Talk(gateway.port, TRUSTED, first=v1("198.51.100.4") + get("/event")) as talk:
        assert talk.response().status == 400
    assert backend.seen_anywhere() == []


def test_what_a_client_behind_the_header_forges_changes_nothing(livegate, backend):
    gateway = livegate(**parts(backend, PROXIED))
    with Talk(gateway.port, TRUSTED, first=v1("198.51.100.4")) as talk:
        talk.send(get("/event", **FORGED))
        assert talk.response().body == b"ok"
    event = backend.next("/event").json
    assert event["requestContext"]["http"]["sourceIp"] == "198.51.100.4"
    assert "203.0.113.7" not in json.dumps(event)


def test_a_header_that_does_not_come_is_not_waited_for(livegate, backend):
    settings = parts(backend, PROXIED, stage={"handshake_timeout": "300ms"})
    # The most patient stage counts.
    settings["apis"]["pets"]["stages"] = {"$default": {"handshake_timeout": "300ms"}}
    gateway = livegate(**settings)
    with Talk(gateway.port, TRUSTED, first=b"PROXY TCP4 198.51.") as talk:
        assert talk.rest() == b""


def test_operators_need_no_header(livegate, backend):
    assert livegate(**parts(backend, PROXIED)).admin("/healthz").status == 200


def test_proxy_protocol_needs_somebody_to_trust(tmp_path):
    (tmp_path / "routes.toml").write_text(chat(gateway={"proxy_protocol": True}))
    checked = run("check", cwd=tmp_path)
    assert checked.returncode == 1 and "trusted_proxies" in checked.stdout


@pytest.mark.parametrize("more", [{}, PROXIED])
def test_behind_a_proxy_pushes_cannot_go_unsigned(tmp_path, more):
    (tmp_path / "routes.toml").write_text(chat(gateway={"trusted_proxies": ["127.0.0.1/32"], **more}))
    checked = run("check", cwd=tmp_path)
    assert checked.returncode == 1 and "authorization" in checked.stdout, checked.stdout


# Unix sockets


def over_unix(path, request):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        wire = Wire.__new__(Wire)
        wire.socket, wire._got = client, b""
        wire.send(request)
        return wire.response()


def test_a_websocket_over_a_unix_socket(livegate, tmp_path):
    path = tmp_path / "gateway.sock"
    gateway = livegate(gateway={"listen": [f"unix:{path}", "127.0.0.1:0"]})
    settings = {"create_connection": Client, "compression": None, "legacy": True}
    with unix_connect(str(path), "ws://localhost/prod", **settings) as client:
        mine = client.whoami()
        assert gateway.push(mine, "over TCP").status == 200 and client.hears() == "over TCP"


def test_a_gateway_may_listen_on_sockets_alone(processes, tmp_path):
    path, admin = tmp_path / "gateway.sock", tmp_path / "admin.sock"
    (tmp_path / "routes.toml").write_text(chat(gateway={"listen": f"unix:{path}", "admin_listen": f"unix:{admin}"}))
    gateway = processes(Livegate, "serve", cwd=tmp_path, logs=tmp_path / "stderr.log")
    assert (gateway.line(), gateway.line()) == (f"listening on unix:{path}", f"admin listening on unix:{admin}")
    assert over_unix(admin, get("/healthz")).status == 200
    assert over_unix(path, get("/prod")).status == 426
    assert gateway.terminate() == 0
    assert not path.exists() and not admin.exists()


def test_a_stale_socket_file_is_replaced(livegate, tmp_path):
    path = tmp_path / "gateway.sock"
    listen = {"listen": [f"unix:{path}", "127.0.0.1:0"]}
    killed = livegate(gateway=listen)
    killed.kill()
    assert path.is_socket()
    livegate(gateway=listen)
    assert over_unix(path, get("/prod")).status == 426


def test_a_socket_in_use_is_a_problem(livegate, tmp_path):
    path = tmp_path / "gateway.sock"
    listen = {"listen": [f"unix:{path}", "127.0.0.1:0"], "admin_listen": "127.0.0.1:0"}
    livegate(gateway=listen)
    (tmp_path / "routes.toml").write_text(chat(gateway=listen))
    served = run("serve", cwd=tmp_path)
    assert served.returncode == 1 and str(path) in served.stdout + served.stderr
    assert over_unix(path, get("/prod")).status == 426


def test_a_file_that_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "gateway.sock"
    path.write_text("precious")
    (tmp_path / "routes.toml").write_text(chat(gateway={"listen": f"unix:{path}"}))
    served = run("serve", cwd=tmp_path)
    assert served.returncode == 1 and str(path) in served.stdout + served.stderr
    assert path.read_text() == "precious"


def test_a_socket_file_goes_with_its_listener(livegate, tmp_path):
    one, two = tmp_path / "one.sock", tmp_path / "two.sock"
    gateway = livegate(gateway={"listen": ["127.0.0.1:0", f"unix:{one}"]})
    gateway.reload(chat(gateway={"listen": ["127.0.0.1:0", f"unix:{two}"]}))
    eventually(lambda: not one.exists())
    assert over_unix(two, get("/prod")).status == 426
    assert gateway.is_well()


# Listeners


def test_every_listener_serves(livegate, tmp_path, authority):
    file = str(authority.issue("localhost"))
    path = tmp_path / "gateway.sock"
    gateway = livegate(gateway={
        "listen": ["http://127.0.0.1:0", "127.0.0.1:0", "[::1]:0", f"unix:{path}"],
        "tls": {"certificates": [{"cert": file, "key": file}]}})
    lines = [line.strip().removeprefix("listening on ") for line in gateway.printed[:-1]]
    assert [line.split("://")[0] for line in lines] == ["http", "https", "https", f"unix:{path}"]
    assert ask(gateway.port, "/prod").status == 426
    assert ask(int(lines[1].rsplit(":", 1)[1]), "/prod", tls=trusting(authority)).status == 426
    with socket.create_connection(("::1", int(lines[2].rsplit(":", 1)[1])), PATIENCE) as tcp:
        with trusting(authority).wrap_socket(tcp, server_hostname="localhost") as client:
            client.sendall(get("/prod"))
            assert client.recv(65536).startswith(b"HTTP/1.1 426 ")
    assert over_unix(path, get("/prod")).status == 426


def test_two_gateways_share_a_port(livegate):
    port = free_port()
    shared = {"listen": f"127.0.0.1:{port}", "reuse_port": True}
    gateways = [livegate(gateway=shared, routes={"who": mock(name)}) for name in ("one", "two")]
    gateways[0].ws_url = f"ws://127.0.0.1:{port}"

    def who():
        with gateways[0].connect() as client:
            return client.asks(action="who")
    # The kernel deals connections out by a hash of their addresses.
    eventually(lambda: {who() for _ in range(20)} == {"one", "two"})
    assert gateways[0].terminate() == 0
    assert {who() for _ in range(20)} == {"two"}


def test_without_reuse_port_the_second_does_not_start(livegate, tmp_path):
    gateway = livegate(gateway={"reuse_port": True})
    (tmp_path / "routes.toml").write_text(chat(gateway={"listen": gateway.host}))
    served = run("serve", cwd=tmp_path)
    assert served.returncode == 1 and gateway.host in served.stdout + served.stderr


# systemd

# What systemd does between fork and exec: the sockets from 3 on, and the id of the process that they are for.
PASS = """
import os, sys
passed = [int(number) for number in sys.argv[1].split(",")]
for place, number in enumerate(passed, 3):
    os.dup2(number, place)
    os.close(number)
os.environ |= {"LISTEN_FDS": str(len(passed)), "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def activated(processes):
    """Starts `livegate serve` with listening sockets that somebody else opened."""
    def start(*sockets, **parts):
        # Above the places where they are going.
        high = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 100) for one in sockets]
        command = [sys.executable, "-c", PASS, ",".join(map(str, high)), LIVEGATE]
        try:
            return processes(Gateway, chat(**parts), processes.folder(), command=command, pass_fds=high)
        finally:
            for number in high:
                os.close(number)
    return start


def listening():
    return socket.create_server(("127.0.0.1", 0))


def test_sockets_of_systemd_are_served(activated, tmp_path):
    path = tmp_path / "gateway.sock"
    with listening() as tcp, listening() as admin, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        at, admin_at = ("%s:%d" % one.getsockname() for one in (tcp, admin))
        gateway = activated(unix, tcp, admin, gateway={"listen": [at, f"unix:{path}"], "admin_listen": admin_at})
        assert (gateway.host, gateway.admin_url) == (at, f"http://{admin_at}")
        assert gateway.is_well() and over_unix(path, get("/prod")).status == 426
        assert gateway.terminate() == 0
        # The file is systemd's, which goes on listening.
        assert path.is_socket()


def test_clients_that_come_between_two_gateways_wait(activated):
    with listening() as tcp:
        parts = {"gateway": {"listen": "%s:%d" % tcp.getsockname()}}
        gateway = activated(tcp, **parts)
        assert gateway.is_well() and gateway.terminate() == 0
        with Talk(tcp.getsockname()[1], TRUSTED, first=get("/prod")) as talk:
            activated(tcp, **parts)
            assert talk.response().status == 426


def test_a_passed_socket_stays_over_a_reload(activated):
    with listening() as tcp:
        parts = {"gateway": {"listen": "%s:%d" % tcp.getsockname()}}
        gateway = activated(tcp, **parts)
        gateway.reload(chat(**parts, routes={"say": mock("new")}))
        with gateway.connect() as client:
            assert client.asks(action="say") == "new"


def test_a_passed_socket_that_the_file_does_not_name_is_said_so(activated):
    with listening() as tcp, listening() as other:
        gateway = activated(tcp, other, gateway={"listen": "%s:%d" % tcp.getsockname()})
        eventually(lambda: "%s:%d" % other.getsockname() in gateway.logs())
        assert gateway.is_well()


def test_sockets_for_another_process_are_left_alone(livegate):
    assert livegate(env={"LISTEN_FDS": "1", "LISTEN_PID": "1"}).is_well()


@pytest.fixture
def notified(tmp_path):
    """Where a service says how far it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify.sock"))
        told.settimeout(PATIENCE)
        yield told


def next_news(notified):
    return dict(line.split("=", 1) for line in notified.recv(4096).decode().splitlines())


def test_systemd_is_told_how_far_the_gateway_is(livegate, notified):
    gateway = livegate(env={"NOTIFY_SOCKET": notified.getsockname()})
    assert next_news(notified) == {"READY": "1"}
    gateway.reload(chat(routes={"say": mock("new")}))
    reloading = next_news(notified)
    # Type=notify-reload wants to know when it began.
    assert reloading["RELOADING"] == "1" and int(reloading["MONOTONIC_USEC"]) > 0
    assert next_news(notified) == {"READY": "1"}
    # A file that is wrong is over with as well.
    gateway.reload("nonsense")
    seen = [next_news(notified), next_news(notified)]
    assert (seen[0]["RELOADING"], seen[1]) == ("1", {"READY": "1"})
    assert gateway.terminate() == 0
    notified.setblocking(False)
    rest = []
    with contextlib.suppress(BlockingIOError):
        while True:
            rest.append(next_news(notified))
    # The watched file changed as well, so that there may have been one more reload.
    assert rest[-1] == {"STOPPING": "1"}


def test_a_gateway_that_does_not_start_is_never_ready(notified, livegate, tmp_path):
    (tmp_path / "routes.toml").write_text(chat(gateway={"listen": livegate().host}))
    served = run("serve", cwd=tmp_path, env={"NOTIFY_SOCKET": notified.getsockname()})
    assert served.returncode == 1
    notified.setblocking(False)
    with pytest.raises(BlockingIOError):
        notified.recv(4096)


def test_without_anybody_to_tell_it_starts_all_the_same(livegate, tmp_path):
    assert livegate(env={"NOTIFY_SOCKET": str(tmp_path / "nobody.sock")}).is_well()
