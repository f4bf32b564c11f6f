"""A socket that says exactly the bytes it is told, and shows the frames and answers that come back."""

import base64
import contextlib
import hashlib
import json
import os
import select
import socket
import struct
from dataclasses import dataclass

from backend import PATIENCE

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# The key and the accept value of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@dataclass
class Response:
    """An HTTP answer as it was on the wire."""

    status: int
    headers: list
    body: bytes

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """What an AWS client makes of it."""
        return self.status, self.header("x-amzn-ErrorType"), self.body.decode()


@dataclass
class Frame:
    fin: bool
    reserved: int
    opcode: int
    payload: bytes

    @property
    def close(self):
        """Code and reason of a Close frame; 1005 stands for none, as in RFC 6455."""
        assert self.opcode == CLOSE, self
        if not self.payload:
            return 1005, ""
        return struct.unpack("!H", self.payload[:2])[0], self.payload[2:].decode()


def frame(opcode, payload=b"", *, fin=True, masked=True, reserved=0):
    """The bytes of one client frame."""
    payload = payload.encode() if isinstance(payload, str) else payload
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    keys = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ keys).to_bytes(size, "big")


def close_frame(code, reason=""):
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


def fragments(opcode, *parts):
    """One message in several frames."""
    last = len(parts) - 1
    return [frame(CONTINUATION if index else opcode, part, fin=index == last) for index, part in enumerate(parts)]


def handshake(path="/prod", host="127.0.0.1", headers=(), without=(), method="GET", version="HTTP/1.1"):
    """The bytes of an upgrade request; `headers` replace those of the same name, `without` leaves some out."""
    plain = {"Host": host, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
    mine = {name.lower() for name, _ in headers} | {name.lower() for name in without}
    lines = [(name, value) for name, value in plain.items() if name.lower() not in mine] + list(headers)
    return "\r\n".join([f"{method} {path} {version}", *(f"{name}: {value}" for name, value in lines), "", ""]).encode("latin-1")


class Wire:
    def __init__(self, address, receive_buffer=None, source=None):
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer:
            # Before connecting, or the window has been offered already.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = ("[%s]:%d" if ":" in address[0] else "%s:%d") % address
        self._got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def upgrade(self, path="/prod", headers=()):
        """Asks for a WebSocket and returns itself, open."""
        self.send(handshake(path, self.host, headers))
        response = self.response()
        assert response.status == 101, response
        accept = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        assert response.header("Sec-WebSocket-Accept") == accept
        self.answer = response
        return self

    def response(self, to="GET"):
        """The next HTTP answer."""
        while b"\r\n\r\n" not in self._got:
            self._read_more()
        head, self._got = self._got.split(b"\r\n\r\n", 1)
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        response = Response(int(status_line.split()[1]), headers, b"")
        length = response.header("Content-Length")
        if response.status >= 200 and response.status not in (204, 304) and to != "HEAD":
            if response.header("Transfer-Encoding") == "chunked":
                while size := int(self._line(), 16):
                    response.body += self._take(size)
                    self._line()
                self._line()
            elif length is not None:
                response.body = self._take(int(length))
            else:
                response.body = self.rest()
        return response

    def frame(self):
        first, second = self._take(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack("!H", self._take(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self._take(8))[0]
        assert not second & 0x80, "a server does not mask"
        return Frame(bool(first & 0x80), first >> 4 & 7, first & 0xF, self._take(size))

    def message(self):
        """The next text message, put together from its frames; pongs and pings in between are passed over."""
        text = b""
        while True:
            got = self.frame()
            if got.opcode in (PING, PONG):
                continue
            assert got.opcode in (TEXT, CONTINUATION), got
            text += got.payload
            if got.fin:
                return text.decode()

    def rest(self):
        """Everything up to the end of the stream."""
        with contextlib.suppress(EOFError):
            while True:
                self._read_more()
        rest, self._got = self._got, b""
        return rest

    def ended(self):
        """Waits for the peer to end the stream; what it still sent is thrown away."""
        self.rest()
        return True

    def says(self, **fields):
        self.send(frame(TEXT, json.dumps(fields)))

    def reset(self):
        """Ends the connection with a RST, as a machine that lost power looks once it is back."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _take(self, size):
        while len(self._got) < size:
            self._read_more()
        taken, self._got = self._got[:size], self._got[size:]
        return taken

    def _line(self):
        while b"\r\n" not in self._got:
            self._read_more()
        line, self._got = self._got.split(b"\r\n", 1)
        return line

    def _read_more(self):
        try:
            more = self.socket.recv(1 << 18)
        except ConnectionError as lost:
            raise EOFError("the connection was reset") from lost
        if not more:
            raise EOFError("the stream ended")
        self._got += more


def is_readable(one, seconds=0):
    """Whether there is something to read, or the end. (`select` would refuse a file number above 1,023.)"""
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
