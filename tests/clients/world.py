"""A real gateway in its own process, and real clients for it."""

import contextlib
import copy
import http.client
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from backend import PATIENCE
from wire import Response, Wire, handshake

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LIVEGATE = os.environ.get("LIVEGATE", str(REPOSITORY / "target" / "release" / "livegate"))
ARTEFACTS = REPOSITORY / "tests" / "artefacts"

# contract/websocket.md section 0.
ID = r"[A-Za-z0-9_-]{15}="


def eventually(look, what="the condition"):
    """For what nothing announces: looks again and again until `look` gives something true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}; last seen: {found!r}"
        time.sleep(0.01)
    return found


def toml(table, path=()):
    """A nested dict as TOML."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [f"[{'.'.join(toml_key(part) for part in path)}]"] if path else []
    lines += [f"{toml_key(key)} = {toml_value(value)}" for key, value in plain.items()]
    lines += [toml(value, (*path, key)) for key, value in inner.items()]
    return "\n".join(lines) + "\n"


def toml_key(key):
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def toml_value(value):
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def to(uri, **settings):
    """A one-way route to an HTTP backend."""
    return {"integration": {"type": "http_proxy", "uri": uri, **settings}}


def two_way(uri, **settings):
    return {**to(uri, **settings), "route_response": True}


def mock(response="", **settings):
    return {"integration": {"type": "mock", "response": response, **settings}, "route_response": True}


def chat(routes=None, stage=None, stages=None, api=None, connections_api=None, gateway=None, apis=None, **tables):
    """routes.toml with one WebSocket API `chat`, one stage `prod`, and whatever a test adds to them."""
    return toml({
        "gateway": {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain_timeout": "4s", **(gateway or {})},
        "apis": {
            "chat": {
                "protocol": "websocket",
                "route_selection_expression": "$request.body.action",
                **(api or {}),
                "routes": {
                    # Lets a client learn its own id without a backend.
                    "whoami": mock("${context.connectionId}"),
                    **{key: {"integration": value} if isinstance(value, str) else value for key, value in (routes or {}).items()},
                },
                "stages": stages or {"prod": stage or {}},
                "connections_api": connections_api or {"authorization": "none"},
            },
            **(apis or {}),
        },
        **tables,
    })


class Client(ClientConnection):
    """A `websockets` client with the words the tests use."""

    def says(self, **fields):
        self.send(json.dumps(fields, separators=(",", ":")))

    def hears(self):
        return self.recv(timeout=PATIENCE)

    def asks(self, **fields):
        self.says(**fields)
        return self.hears()

    def whoami(self):
        return self.asks(action="whoami")

    def closed(self):
        """Waits for the end; code and reason of the gateway's Close frame, 1006 without one."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.hears()
        return self.close_code, self.close_reason


class Livegate:
    """One process of the gateway, and what it prints."""

    def __init__(self, *arguments, env=None, cwd=None, logs, command=(LIVEGATE,), pass_fds=()):
        self._logs = logs
        self._stderr = open(logs, "wb")
        self.process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr,
            pass_fds=pass_fds, cwd=cwd, env={**os.environ, "RUST_BACKTRACE": "1", **(env or {})})
        self._lines = queue.SimpleQueue()
        self.printed = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.decode())
        self._lines.put(None)

    def line(self):
        """The next line of its standard output."""
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"it printed nothing more within {PATIENCE:.0f} s, after {self.printed}") from None
        if line is None:
            raise AssertionError(f"it ended with {self.process.wait()}, having printed {self.printed}\n{self.logs()}")
        self.printed.append(line)
        return line.rstrip("\n")

    def rest(self):
        """What else it printed, once it has ended."""
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.printed.append(line)
        return self.printed

    def url_after(self, words):
        """The URL in the next line that begins with `words`."""
        while True:
            if found := re.match(re.escape(words) + r".*?(https?://[^\s]+)", self.line()):
                return found.group(1).rstrip("/")

    def logs(self):
        return pathlib.Path(self._logs).read_text(errors="replace")

    def signal(self, number):
        os.kill(self.process.pid, number)

    def terminate(self):
        """SIGTERM, and the exit code that follows."""
        self.signal(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self):
        return self.process.wait(timeout=3 * PATIENCE)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._stderr.close()


class Gateway(Livegate):
    """`livegate serve` with a file of its own."""

    # The address that clients come from.
    source = None

    def __init__(self, text, folder, *, linked=False, env=None, logs=None, **process):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "routes.toml"
        # Behind a link into another folder, the file changes without the watched folder changing.
        self.file = folder / "elsewhere" / "real.toml" if linked else config
        self.write(text)
        if linked:
            config.symlink_to(self.file)
        super().__init__("serve", "--config", str(config), env=env, cwd=folder,
                         logs=logs or folder / "stderr.log", **process)
        try:
            self.http_url = self.url_after("listening on")
            self.admin_url = self.url_after("admin listening on")
        except AssertionError:
            self.kill()
            raise
        self.ws_url = self.http_url.replace("http", "ws", 1)
        self.host = urllib.parse.urlsplit(self.http_url).netloc
        self.port = urllib.parse.urlsplit(self.http_url).port
        self.address = ("127.0.0.1", self.port)

    # Its file

    def write(self, text):
        """Replaces the file as editors do, by a rename."""
        self.file.parent.mkdir(exist_ok=True)
        draft = self.file.with_suffix(".draft")
        draft.write_text(text)
        draft.rename(self.file)

    def reload(self, text=None):
        """Writes `text`, if there is one, sends SIGHUP and waits until the gateway has counted it."""
        before = self.metric("livegate_reloads_total")
        if text is not None:
            self.write(text)
        self.signal(signal.SIGHUP)
        eventually(lambda: self.metric("livegate_reloads_total") > before, "the reload to be counted")

    # Its clients

    def connect(self, path="/prod", headers=None, **settings):
        settings = {"compression": None, "ping_interval": None, "max_size": None, "max_queue": None, **settings}
        return connect(
            self.ws_url + path, additional_headers=headers, create_connection=Client, legacy=True,
            proxy=None, open_timeout=PATIENCE, close_timeout=PATIENCE, **settings)

    def seen_from(self, source):
        """The same gateway, to clients that come from another address of this machine."""
        seen = copy.copy(self)
        seen.source = source
        return seen

    def wire(self, **settings):
        """A bare TCP connection."""
        return Wire(self.address, **{"source": self.source, **settings})

    def open(self, path="/prod", headers=(), **settings):
        """A WebSocket whose every frame the test writes itself."""
        return self.wire(**settings).upgrade(path, headers)

    def knock(self, path="/prod", headers=(), **settings) -> Response:
        """The answer to an upgrade request, whatever it is."""
        with self.wire() as wire:
            wire.send(handshake(path, self.host, headers, **settings))
            return wire.response()

    def request(self, method, path, body=None, headers=None) -> Response:
        """One HTTP request on a connection of its own."""
        return http_request(self.http_url, method, path, body, headers)

    def push(self, connection_id, data="", stage="prod"):
        path = f"/{stage}/@connections/{urllib.parse.quote(connection_id, safe='')}"
        return self.request("POST", path, data.encode() if isinstance(data, str) else data)

    def delete(self, connection_id, stage="prod"):
        return self.request("DELETE", f"/{stage}/@connections/{urllib.parse.quote(connection_id, safe='')}")

    # Its operators

    def admin(self, path) -> Response:
        return http_request(self.admin_url, "GET", path)

    def metric(self, name, **labels):
        """The sum of all samples of `name` that carry these labels; 0 when there are none."""
        total = 0.0
        for line in self.admin("/metrics").body.decode().splitlines():
            found = re.match(r"([a-z_]+)(?:\{(.*)\})? ([^ ]+)$", line)
            if found and found.group(1) == name:
                given = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found.group(2) or ""))
                if labels.items() <= given.items():
                    total += float(found.group(3))
        return total

    def is_well(self):
        """A stranger connects and is answered."""
        with self.connect() as client:
            assert re.fullmatch(ID, client.whoami())
        assert self.process.poll() is None
        return True


def http_request(url, method, path, body=None, headers=None):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Response(answer.status, answer.getheaders(), answer.read())


def run(*arguments, cwd=None, env=None):
    """Runs one command of the binary to its end."""
    return subprocess.run([LIVEGATE, *arguments], cwd=cwd, env={**os.environ, **(env or {})},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=3 * PATIENCE)
