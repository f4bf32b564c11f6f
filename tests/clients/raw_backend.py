"""A backend that keeps the bytes it gets, reads them as strictly as RFC 9112 allows, and answers with any bytes."""

import array
import contextlib
import fcntl
import re
import socket
import termios
import threading
from dataclasses import dataclass

from backend import listen_below_the_ephemeral_ports
from smuggling_cases import BROKEN
from world import eventually

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
FIRST_LINE = re.compile(rb"(%s) ([\x21-\x7e]+) HTTP/1\.1" % TOKEN)
FIELD = re.compile(rb"(%s): ?([\t\x20-\x7e\x80-\xff]*)" % TOKEN)
OF_ONE_HOP = {b"connection", b"upgrade", b"keep-alive", b"proxy-connection", b"expect"}
# RFC 9110 section 6.5.1: for framing, routing, access, and what says how the content is to be read.
NO_TRAILERS = {b"content-length", b"transfer-encoding", b"host", b"authorization", b"content-type", b"connection",
               b"upgrade", b"te",
               b"trailer", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-livegate-api",
               b"content-encoding", b"via"}


@dataclass
class Seen:
    method: str
    target: str
    fields: list
    body: bytes | str
    trailers: list
    bytes: bytes

    @property
    def what(self):
        return self.method, self.target, self.body

    def values(self, name):
        return [value for key, value in self.fields if key == name.lower().encode()]


class RawBackend:
    """Answers every request with its method, target and body, unless `plays` says what to do for its path."""

    def __init__(self):
        self._lock = threading.Condition()
        self._listener = listen_below_the_ephemeral_ports()
        self.port = self._listener.getsockname()[1]
        self.authority = f"127.0.0.1:{self.port}"
        self.seen = []
        # What no gateway may ever send.
        self.violations = []
        # By path: a function of the socket and the request, called with its head (early) or when it is whole;
        # it returns whether the connection goes on.
        self.plays = {}
        self.early = {}
        self._peers = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def at(self, path):
        return f"http://{self.authority}{path}"

    def stop(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in list(self._peers):
            peer.hang_up()

    def settled(self):
        """Waits until everything that was sent here has been read, and every request is whole or broken off."""
        # Connections are accepted in order: behind this one, all earlier ones are known.
        with socket.create_connection(("127.0.0.1", self.port)) as fence:
            ours = fence.getsockname()
            eventually(lambda: any(peer.address == ours for peer in list(self._peers)), "the fence to be accepted")
            eventually(lambda: all(peer.is_quiet() for peer in list(self._peers)),
                       "the backend to have read everything")
        with self._lock:
            return list(self.seen)

    def note(self, seen):
        with self._lock:
            self.seen.append(seen)
            self._lock.notify_all()

    def _accept(self):
        while True:
            try:
                peer, address = self._listener.accept()
            except OSError:
                return
            peer = Peer(self, peer, address)
            self._peers.add(peer)
            threading.Thread(target=peer.run, daemon=True).start()

    def forget(self, peer):
        self._peers.discard(peer)


class Peer:
    def __init__(self, backend, connection, address):
        self.backend, self.socket, self.address = backend, connection, address
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""
        self.reading = False
        self.between = True

    def hang_up(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def is_quiet(self):
        if not (self.reading and self.between):
            return False
        waiting = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, waiting)
        return waiting[0] == 0

    def run(self):
        try:
            while self.one():
                pass
        except EOFError:
            pass
        except OSError:
            pass
        finally:
            self.socket.close()
            self.backend.forget(self)

    def one(self):
        backend = self.backend
        head = self.until(b"\r\n\r\n")
        if head is None:
            if self.got:
                backend.violations.append(("half a head", self.got[:500]))
            return False
        self.between = False
        seen, length, is_chunked = self.understand(head)
        if seen is None:
            # Whatever follows cannot be told from a request.
            return False
        path = seen.target.split("?", 1)[0]
        early = backend.early.get(path)
        try:
            if early is not None and not early(self.socket, seen):
                backend.note(seen)
                return False
            seen.body, seen.trailers = self.chunks() if is_chunked else (self.take(length), [])
        except EOFError:
            seen.body = BROKEN
            backend.note(seen)
            raise
        forbidden = {name for name, _ in seen.trailers} & NO_TRAILERS
        if forbidden:
            backend.violations.append(("trailers", forbidden))
        backend.note(seen)
        if early is not None:
            self.between = True
            return True
        play = backend.plays.get(path)
        if play is not None:
            goes_on = play(self.socket, seen)
        else:
            body = f"{seen.method} {seen.target[:200]}\n".encode() + seen.body
            answer = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), b"X-Method: " + seen.method[:200].encode(),
                      b"X-Target: " + seen.target[:200].encode()]
            self.socket.sendall(b"\r\n".join(answer) + b"\r\n\r\n" + (body if seen.method != "HEAD" else b""))
            goes_on = True
        self.between = True
        return goes_on

    def understand(self, head):
        """The request, if it is one that cannot be misread; anything else is written down."""
        complaints = []
        first, *lines = head.split(b"\r\n")
        fields = []
        found = FIRST_LINE.fullmatch(first)
        if not found:
            complaints.append("first line")
        for line in lines:
            field = FIELD.fullmatch(line)
            if not field:
                complaints.append(f"line {line[:100]!r}")
            else:
                fields.append((field.group(1).lower(), field.group(2)))
        target = found.group(2) if found else b""
        names = [name for name, _ in fields]
        lengths = [value for name, value in fields if name == b"content-length"]
        codings = [value for name, value in fields if name == b"transfer-encoding"]
        if [value for name, value in fields if name == b"host"] != [self.backend.authority.encode()]:
            complaints.append("not exactly one Host, and ours")
        if lengths and codings:
            complaints.append("both Content-Length and Transfer-Encoding")
        if len(lengths) > 1 or any(not re.fullmatch(rb"[0-9]{1,18}", value) for value in lengths):
            complaints.append(f"Content-Length {lengths}")
        if codings not in ([], [b"chunked"]):
            complaints.append(f"Transfer-Encoding {codings}")
        of_one_hop = set(names) & OF_ONE_HOP - ({b"connection", b"upgrade"} if target == b"/tunnel" else set())
        if of_one_hop:
            complaints.append(f"headers of another hop: {of_one_hop}")
        if not {b"via", b"x-forwarded-for"} <= set(names):
            complaints.append("does not say who asks")
        if b"hidden" not in target and b"hidden" in head.lower():
            complaints.append("hidden bytes in the head")
        if complaints:
            self.backend.violations.append((complaints, head[:2000]))
            return None, 0, False
        seen = Seen(found.group(1).decode(), target.decode(), fields, b"", [], head)
        return seen, int(lengths[0]) if lengths else 0, bool(codings)

    def chunks(self):
        body, trailers = bytearray(), []
        while True:
            size = self.line()
            if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
                self.backend.violations.append(("chunk size", size[:100]))
                raise EOFError
            if int(size, 16) == 0:
                break
            body += self.take(int(size, 16))
            if self.take(2) != b"\r\n":
                self.backend.violations.append(("chunk end", bytes(body[-100:])))
                raise EOFError
        while line := self.line():
            field = FIELD.fullmatch(line)
            if not field:
                self.backend.violations.append(("trailer", line[:100]))
                raise EOFError
            trailers.append((field.group(1).lower(), field.group(2)))
        return bytes(body), trailers

    def until(self, end):
        while end not in self.got:
            if not self.more():
                return None
        found, self.got = self.got.split(end, 1)
        return found

    def line(self):
        found = self.until(b"\r\n")
        if found is None:
            raise EOFError
        return found

    def take(self, size):
        pieces, missing = [], size
        while len(self.got) < missing:
            pieces.append(self.got)
            missing -= len(self.got)
            self.got = b""
            if not self.more():
                raise EOFError
        pieces.append(self.got[:missing])
        self.got = self.got[missing:]
        return b"".join(pieces)

    def more(self):
        self.reading = True
        try:
            more = self.socket.recv(1 << 16)
        except ConnectionError:
            more = b""
        self.reading = False
        self.got += more
        return bool(more)
