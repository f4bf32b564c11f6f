"""HTTP APIs for the tests: a routes.toml with one, requests as they stand on the wire, and streams of events."""

import contextlib
import queue
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from backend import PATIENCE
from world import run, toml

# contract/http-api.md section 2: 16 characters, the last of them `=`.
REQUEST_ID = r"[A-Za-z0-9_-]{15}="


def http_api(routes, stage=None, stages=None, api=None, gateway=None, apis=None, **tables):
    """routes.toml with one HTTP API `pets`; without stages it has `$default`, which stands in no URL."""
    if stages is None:
        stages = {"$default": stage} if stage is not None else {}
    return toml({
        "gateway": {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain_timeout": "4s", **(gateway or {})},
        "apis": {"pets": pets(routes, stages, **(api or {})), **(apis or {})}, **tables,
    })


def pets(routes, stages=None, **settings):
    """The table of an HTTP API; a text in place of a route is its integration's URL."""
    written = {key: {"integration": value} if isinstance(value, str) else value for key, value in routes.items()}
    return {"protocol": "http", **settings, "routes": written, **({"stages": stages} if stages else {})}


def proxy(uri, **settings):
    return {"integration": {"type": "http_proxy", "uri": uri, **settings}}


def says(response="", **settings):
    """A route that answers by itself."""
    return {"integration": {"type": "mock", "response": response, **settings}}


def says_its_key(*keys):
    """Routes that answer with their own route key."""
    return {key: says("${context.routeKey}") for key in keys}


def ask(gateway, method, target, headers=(), body=b"", host=None):
    """One request, written as it stands here: no client tidies its target, headers may come twice."""
    body = body.encode() if isinstance(body, str) else body
    lines = [
        f"{method} {target} HTTP/1.1", f"Host: {host or gateway.host}", *(f"{name}: {value}" for name, value in headers)
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with gateway.wire() as wire:
        wire.send("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        return wire.response(to=method)


def lines_of(message, name):
    """The values of a header, one for each line of it."""
    return [value for key, value in message.headers if key.lower() == name.lower()]


def is_error(response, status, message):
    """An answer of the gateway itself, as contract/http-api.md section 2 words it."""
    assert (response.status, response.body.decode()) == (status, f'{{"message":"{message}"}}')
    assert response.header("Content-Type") == "application/json"
    assert re.fullmatch(REQUEST_ID, response.header("apigw-requestid"))
    assert [name for name, _ in response.headers if name.lower().startswith("x-amzn-")] == []
    return True


def checked(folder, text):
    """What `livegate check` says about a file: its exit code and its report."""
    (folder / "routes.toml").write_text(text)
    done = run("check", cwd=folder)
    return done.returncode, done.stdout


def refused(folder, text, *words):
    """`livegate check` refuses the file and says all of these words."""
    code, report = checked(folder, text)
    assert code == 1, report
    for word in words:
        assert word in report, f"{word!r} is not in\n{report}"
    return report


class EventStream:
    """A backend whose answer is an event stream that goes on for as long as the test has something to say."""
    def __init__(self):
        self._texts = queue.SimpleQueue()
        stream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.flush()
                with contextlib.suppress(OSError):
                    while (text := stream._texts.get()) is not None:
                        self.wfile.write(text.encode())
                        self.wfile.flush()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}/events"
        self._serving = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._serving.start()

    def event(self, data, name=None, number=None):
        head = (f"event: {name}\n" if name else "") + (f"id: {number}\n" if number else "")
        self._texts.put(f"{head}data: {data}\n\n")

    def end(self):
        self._texts.put(None)

    def stop(self):
        self.end()
        self._server.shutdown()
        self._serving.join(PATIENCE)
        self._server.server_close()
