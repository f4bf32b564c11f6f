"""A backend that records every request and answers as it is told."""

import contextlib
import json
import random
import socket
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

# How long any test waits for something that should happen at once.
PATIENCE = 10.0


@dataclass
class Request:
    method: str
    target: str
    headers: list
    body: bytes

    @property
    def path(self):
        return self.target.split("?", 1)[0]

    @property
    def query(self):
        return self.target.partition("?")[2]

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def names(self):
        return sorted({name.lower() for name, _ in self.headers})

    def header(self, name):
        """The header's value, several joined as HTTP joins them, or None."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def connection_id(self):
        return self.header("X-Livegate-Connection-Id")

    @property
    def request_id(self):
        return self.header("X-Livegate-Request-Id")


@dataclass
class Answer:
    status: int = 200
    body: bytes | str = b""
    headers: dict = field(default_factory=dict)
    chunked: bool = False
    # Bytes to send in place of an answer, perhaps none, before hanging up.
    raw: bytes | None = None

    def encode(self):
        if self.raw is not None:
            return self.raw
        body = self.body.encode() if isinstance(self.body, str) else self.body
        lines = [f"HTTP/1.1 {self.status} Answer"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in halves(body) if part) + b"0\r\n\r\n"
        elif self.status >= 200 and self.status not in (204, 304):
            lines.append(f"Content-Length: {len(body)}")
        else:
            body = b""
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def halves(body):
    return body[: len(body) // 2], body[len(body) // 2 :]


class Backend:
    """Answers 200 with an empty body until `answer` or `hold` says otherwise."""

    def __init__(self):
        self._lock = threading.Condition()
        self._requests = []
        self._taken = set()
        self._answers = {}
        self._holds = {}
        self._running = {}
        self._peers = set()
        self.most_at_once = {}
        self._listener = listen_below_the_ephemeral_ports()
        self.port = self._listener.getsockname()[1]
        self.authority = f"127.0.0.1:{self.port}"
        self._start()

    def at(self, path):
        return f"http://{self.authority}{path}"

    # What it answers

    def answer(self, path, status=200, body=b"", headers=None, *, chunked=False, raw=None):
        """From now on, every request for `path` gets this."""
        self.answers(path, Answer(status, body, headers or {}, chunked, raw))

    def answers(self, path, *answers):
        """One after the other; the last one stays. A function is asked with the request."""
        with self._lock:
            self._answers[path] = list(answers)

    @contextlib.contextmanager
    def holding(self, path):
        """Requests for `path` are recorded and then wait until the block ends, or `release()` is called."""
        hold = Hold()
        with self._lock:
            self._holds[path] = hold
        try:
            yield hold
        finally:
            with self._lock:
                self._holds.pop(path, None)
            hold.release()

    # What it saw

    def seen_anywhere(self):
        with self._lock:
            return list(self._requests)

    def seen(self, path):
        with self._lock:
            return [request for request in self._requests if request.path == path]

    def next(self, path):
        """The next request for `path` that no call of `next` has had yet."""
        return self._wait(lambda: self._take(path), f"a request for {path}")

    def wait_for(self, path, count=1):
        """All requests for `path`, once there are at least `count`."""
        def enough():
            found = [request for request in self._requests if request.path == path]
            return found if len(found) >= count else None
        return self._wait(enough, f"{count} requests for {path}")

    def _take(self, path):
        for index, request in enumerate(self._requests):
            if request.path == path and index not in self._taken:
                self._taken.add(index)
                return request
        return None

    def _wait(self, look, what):
        deadline = time.monotonic() + PATIENCE
        with self._lock:
            while (found := look()) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    counts = {}
                    for request in self._requests:
                        counts[request.path] = counts.get(request.path, 0) + 1
                    raise AssertionError(f"the backend waited {PATIENCE:.0f} s for {what}; it has {counts}")
                self._lock.wait(left)
            return found

    # Its life

    def kill(self):
        """Stops listening and cuts every connection, as a process that dies."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        # The port is free once the accepting thread has let go of the listener.
        self._accepting.join()
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def revive(self):
        """Listens again on the same port."""
        self._listener = listener_at(self.port)
        self._start()

    def stop(self):
        self.kill()
        with self._lock:
            holds = list(self._holds.values())
        for hold in holds:
            hold.release()

    def _start(self):
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def _accept(self, listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._peers.add(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        try:
            with peer, peer.makefile("rb") as reader:
                while (request := read_request(reader)) is not None:
                    answer = self._answer(request)
                    peer.sendall(answer.encode())
                    if answer.raw is not None:
                        return
        except OSError:
            pass
        finally:
            with self._lock:
                self._peers.discard(peer)

    def _answer(self, request):
        path = request.path
        with self._lock:
            self._requests.append(request)
            self._running[path] = self._running.get(path, 0) + 1
            self.most_at_once[path] = max(self.most_at_once.get(path, 0), self._running[path])
            hold = self._holds.get(path)
            self._lock.notify_all()
        if hold is not None:
            hold.wait()
        with self._lock:
            script = self._answers.get(path) or [Answer()]
            answer = script.pop(0) if len(script) > 1 else script[0]
        if callable(answer):
            answer = answer(request)
        with self._lock:
            self._running[path] -= 1
        return answer


class Hold:
    """Lets held requests go, all of them or a few at a time."""

    def __init__(self):
        self._allowed = 0
        self._open = False
        self._turn = threading.Condition()

    def release(self, count=None):
        with self._turn:
            if count is None:
                self._open = True
            else:
                self._allowed += count
            self._turn.notify_all()

    def wait(self):
        with self._turn:
            self._turn.wait_for(lambda: self._open or self._allowed > 0)
            if not self._open:
                self._allowed -= 1


def read_request(reader):
    line = reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split()
    headers = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").rstrip("\r\n").partition(":")
        headers.append((name, value.strip()))
    lower = {name.lower(): value for name, value in headers}
    if lower.get("transfer-encoding", "").lower() == "chunked":
        body = read_chunks(reader)
    else:
        body = reader.read(int(lower.get("content-length", 0)))
    return Request(method, target, headers, body)


def read_chunks(reader):
    body = b""
    while size := int(reader.readline(), 16):
        body += reader.read(size)
        reader.readline()
    reader.readline()
    return body


def listen_below_the_ephemeral_ports():
    """A port that no outgoing connection can take while the backend is dead."""
    while True:
        with contextlib.suppress(OSError):
            return listener_at(random.randrange(20_000, 32_000))


def listener_at(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def query_of(request):
    return urllib.parse.parse_qs(request.query, keep_blank_values=True)
