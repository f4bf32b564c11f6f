"""HTTP APIs in a file, and backends and clients whose every byte and frame the test writes itself."""

import contextlib
import datetime
import http.client
import ipaddress
import pathlib
import re
import socket
import ssl
import subprocess
import threading
import types

import h2.config
import h2.connection
import h2.events
import h2.settings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backend import PATIENCE, Request, listen_below_the_ephemeral_ports
from wire import Response, Wire, frame
from world import http_request, toml

MIB = 1 << 20
UNAVAILABLE = (503, b'{"message":"Service Unavailable"}')
TOO_LARGE = (413, b'{"message":"Request Entity Too Large"}')


def pets(routes, stage=None, gateway=None, stages=None, apis=None, **tables):
    """routes.toml with one HTTP API `pets`, one stage `$default`, and whatever a test adds to them."""
    routes = {key: {"integration": value} if isinstance(value, str) else value for key, value in routes.items()}
    return toml({
        "gateway": {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain_timeout": "4s", **(gateway or {})},
        "apis": {"pets": {"protocol": "http", "routes": routes, "stages": stages or {"$default": stage or {}}},
                 **(apis or {})},
        **tables,
    })


def to(uri, **settings):
    """A route to an HTTP backend."""
    return {"integration": {"type": "http_proxy", "uri": uri, **settings}}


def mock(response, **settings):
    return {"integration": {"type": "mock", "response": response, **settings}}


def most_memory(process):
    """The most memory that a process ever had, in bytes."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024


def curl(*arguments):
    """What curl prints."""
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", "--max-time", "60", *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


class Task(threading.Thread):
    """A call that runs beside the test, which may ask for its outcome."""

    def __init__(self, function, *arguments, **settings):
        super().__init__(daemon=True)
        self._call = lambda: function(*arguments, **settings)
        self._error = None
        self.start()

    def run(self):
        try:
            self._outcome = self._call()
        except BaseException as error:
            self._error = error

    def outcome(self):
        self.join(3 * PATIENCE)
        assert not self.is_alive(), "it is still running"
        if self._error:
            raise self._error
        return self._outcome


class Talk(Wire):
    """HTTP/1.1 by hand, from either side."""

    def __init__(self, peer):
        self.socket = peer
        self.socket.settimeout(PATIENCE)
        self._got = b""

    def lines(self, first, headers=(), body=b""):
        """Sends a head, and a body that is ready."""
        lines = [first, *(f"{name}: {value}" for name, value in headers)]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def sends_chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def sends_end(self, trailers=()):
        self.send(b"0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers) + b"\r\n")

    def head(self):
        """The next head: its first line, and its headers."""
        while b"\r\n\r\n" not in self._got:
            self._read_more()
        head, self._got = self._got.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        return first, [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def chunk(self):
        """The data of the next chunk; empty at the end."""
        data = self._take(int(self._line(), 16))
        if data:
            assert self._line() == b""
        return data

    def trailers(self):
        """What follows the last chunk."""
        trailers = []
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            trailers.append((name.lower(), value.strip()))
        return trailers

    def chunks(self):
        """A whole chunked body, and its trailers."""
        body = b""
        while data := self.chunk():
            body += data
        return body, self.trailers()

    def takes(self, size):
        """Exactly so many bytes, as they come."""
        return self._take(size)

    def gulps(self, size):
        """Reads so many bytes and forgets them."""
        size -= len(self._got)
        self._got = b""
        buffer = bytearray(MIB)
        while size > 0:
            got = self.socket.recv_into(buffer, min(size, MIB))
            if not got:
                raise EOFError("the stream ended")
            size -= got

    def has_heard_nothing(self):
        """Nothing has come so far."""
        self.socket.setblocking(False)
        try:
            return self._got == b"" and self.socket.recv(1, socket.MSG_PEEK) is None
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)


class Client(Talk):
    """A client of the gateway."""

    def __init__(self, gateway):
        super().__init__(socket.create_connection(gateway.address, timeout=PATIENCE))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = gateway.host

    def asks(self, method, path, headers=(), body=b"", version="HTTP/1.1"):
        self.lines(f"{method} {path} {version}", [("Host", self.host), *headers], body)
        return self

    def answer_head(self):
        first, headers = self.head()
        return Response(int(first.split()[1]), headers, b"")


class Caller(Talk):
    """The gateway, as its backend sees it."""

    def request(self):
        first, headers = self.head()
        method, target, _ = first.split()
        request = Request(method, target, headers, b"")
        if request.header("Transfer-Encoding") == "chunked":
            request.body, request.trailers = self.chunks()
        elif length := request.header("Content-Length"):
            request.body = self.takes(int(length))
        return request

    def request_head(self):
        """A request of which the body is still to come."""
        first, headers = self.head()
        return Request(*first.split()[:2], headers, b"")

    def answers(self, body=b"", headers=(), status="200 OK"):
        self.lines(f"HTTP/1.1 {status}", [*headers, ("Content-Length", str(len(body)))], body)

    def begins(self, headers=(), status="200 OK"):
        """The head of an answer in chunks."""
        self.lines(f"HTTP/1.1 {status}", [*headers, ("Transfer-Encoding", "chunked")])


class Door:
    """Where the gateway calls; the test takes each connection and answers on it when it likes."""

    def __init__(self):
        self._listener = listen_below_the_ephemeral_ports()
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]
        self.authority = f"127.0.0.1:{self.port}"
        self._callers = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        for caller in self._callers:
            with contextlib.suppress(OSError):
                caller.close()

    def at(self, path="/"):
        return f"http://{self.authority}{path}"

    def tcp(self):
        peer, _ = self._listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._callers.append(peer)
        return peer

    def caller(self):
        """The next connection."""
        return Caller(self.tcp())

    def caller_http_2(self, tls=None):
        peer = self.tcp()
        if tls:
            peer.settimeout(PATIENCE)
            peer = tls.wrap_socket(peer, server_side=True)
            assert peer.selected_alpn_protocol() == "h2"
            self._callers.append(peer)
        return Http2(peer, is_client=False)

    def nobody_else_called(self):
        """Every connection so far was taken."""
        self._listener.setblocking(False)
        try:
            self._listener.accept()
        except BlockingIOError:
            return True
        finally:
            self._listener.settimeout(PATIENCE)
        return False


class Stream:
    """What came on one stream of HTTP/2."""

    def __init__(self, number):
        self.number = number
        self.headers = None
        self.data = b""
        self.trailers = None
        self.is_over = False
        self.reset = None
        # Bytes that came and were not acknowledged.
        self.owed = 0

    def header(self, name):
        values = [value for key, value in self.headers or [] if key == name]
        return ", ".join(values) if values else None

    @property
    def status(self):
        return int(self.header(":status"))


class Http2:
    """One HTTP/2 connection, from either side, that does nothing unless the test lets it."""

    def __init__(self, peer, is_client=True, acknowledges=True):
        self.socket = peer
        self.socket.settimeout(PATIENCE)
        self.acknowledges = acknowledges
        self.streams = {}
        self.settings = {}
        self.goodbye = None
        self.pongs = 0
        self._arrived = []
        self._read = b""
        self._preface = b"" if is_client else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=is_client, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self.connection.initiate_connection()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        if data := self.connection.data_to_send():
            self.socket.sendall(data)

    def turn(self):
        """Reads once; False at the end of the connection."""
        data = self.socket.recv(1 << 18)
        if not data:
            return False
        self._read += data
        while frame := self._next_frame():
            for event in self.connection.receive_data(frame):
                self._note(event)
        self.flush()
        return True

    def _next_frame(self):
        """The bytes of the next frame, once they are all there; the library would lose what follows a GOAWAY."""
        if self._preface:
            size = len(self._preface)
        elif len(self._read) < 9:
            return b""
        else:
            size = 9 + int.from_bytes(self._read[:3], "big")
        if len(self._read) < size:
            return b""
        self._preface = b""
        frame, self._read = self._read[:size], self._read[size:]
        return frame

    def until(self, look):
        while not (found := look()):
            assert self.turn(), f"the connection ended first; {self.goodbye}"
        return found

    def ended(self):
        """Waits for the end of the connection."""
        while self.turn():
            pass
        return True

    def _note(self, event):
        number = getattr(event, "stream_id", None)
        stream = self.streams.setdefault(number, Stream(number)) if number else None
        match event:
            case h2.events.RequestReceived():
                stream.headers = list(event.headers)
                self._arrived.append(stream)
            case h2.events.ResponseReceived():
                stream.headers = list(event.headers)
            case h2.events.DataReceived():
                stream.data += event.data
                if self.acknowledges:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                else:
                    stream.owed += event.flow_controlled_length
            case h2.events.TrailersReceived():
                stream.trailers = list(event.headers)
            case h2.events.StreamEnded():
                stream.is_over = True
            case h2.events.StreamReset():
                stream.reset = event.error_code
            case h2.events.RemoteSettingsChanged():
                self.settings.update({code: change.new_value for code, change in event.changed_settings.items()})
            case h2.events.PingAckReceived():
                self.pongs += 1
            case h2.events.ConnectionTerminated():
                self.goodbye = event
                self._stays_open()

    def _stays_open(self):
        """A GOAWAY leaves open streams alone (RFC 9113 section 6.8); the library calls the connection closed."""
        state = h2.connection.ConnectionState
        self.connection.state_machine.state = (
            state.CLIENT_OPEN if self.connection.config.client_side else state.SERVER_OPEN)

    def says_goodbye(self, last):
        """Sends a GOAWAY; streams up to `last` are still answered."""
        self.connection.close_connection(last_stream_id=last.number)
        self._stays_open()
        self.flush()

    def send_data(self, stream, data, end=False):
        """As much at a time as the other side's window takes."""
        sent = 0
        while sent < len(data):
            room = min(self.connection.local_flow_control_window(stream.number),
                       self.connection.max_outbound_frame_size)
            if room <= 0:
                assert self.turn(), "the connection ended while data was sent"
                continue
            piece = data[sent:sent + room]
            sent += len(piece)
            self.connection.send_data(stream.number, piece, end_stream=end and sent == len(data))
            self.flush()
        if end and not data:
            self.connection.end_stream(stream.number)
            self.flush()

    def send_headers(self, stream, headers, end=False):
        self.connection.send_headers(stream.number, headers, end_stream=end)
        self.flush()

    def reset_stream(self, stream, code=8):
        self.connection.reset_stream(stream.number, error_code=code)
        self.flush()

    # As a client

    def asks(self, method, path, headers=(), body=b"", end=True, authority="localhost", scheme="http"):
        stream = Stream(self.connection.get_next_available_stream_id())
        self.streams[stream.number] = stream
        pseudo = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
        self.send_headers(stream, [*pseudo, *headers], end=end and not body)
        if body:
            self.send_data(stream, body, end=end)
        return stream

    def answered(self, stream):
        """Waits for the whole answer."""
        self.until(lambda: stream.is_over or stream.reset is not None)
        return stream

    def acknowledge(self, stream):
        self.connection.acknowledge_received_data(stream.owed, stream.number)
        stream.owed = 0
        self.flush()

    def pings(self):
        """A ping there and back: all that was on its way is here."""
        pongs = self.pongs
        self.connection.ping(b"12345678")
        self.flush()
        self.until(lambda: self.pongs > pongs)

    def room_after_a_ping(self, stream):
        """How much the other side takes now that it has seen all that was sent so far."""
        self.pings()
        return self.connection.local_flow_control_window(stream.number)

    # As a backend

    def request(self):
        """The next request that came, whole."""
        stream = self.request_head()
        self.until(lambda: stream.is_over)
        return stream

    def request_head(self):
        self.until(lambda: self._arrived)
        return self._arrived.pop(0)

    def answers(self, stream, body=b"", headers=(), status=200, trailers=None):
        self.send_headers(stream, [(":status", str(status)), *headers], end=not body and trailers is None)
        if body:
            self.send_data(stream, body, end=trailers is None)
        if trailers is not None:
            self.send_headers(stream, trailers, end=True)


class StreamSocket(Wire):
    """WebSocket frames on one stream of HTTP/2 (RFC 8441)."""

    def __init__(self, connection, path, headers=(), authority="localhost"):
        self.connection = connection
        # A client must not ask before it knows that it may.
        code = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
        connection.until(lambda: connection.settings.get(code) == 1)
        headers = [(":protocol", "websocket"), ("sec-websocket-version", "13"), *headers]
        self.stream = connection.asks("CONNECT", path, headers, end=False, authority=authority)
        connection.until(lambda: self.stream.headers or self.stream.reset is not None)

    @property
    def _got(self):
        return self.stream.data

    @_got.setter
    def _got(self, rest):
        self.stream.data = rest

    def send(self, data):
        self.connection.send_data(self.stream, data)

    def sends(self, opcode, payload):
        self.send(frame(opcode, payload))

    def _read_more(self):
        stream, had = self.stream, len(self.stream.data)
        self.connection.until(lambda: len(stream.data) > had or stream.is_over or stream.reset is not None)
        if len(stream.data) == had:
            raise EOFError("the stream ended")


def http_2(gateway, tls=None, **settings):
    """An HTTP/2 client; without TLS by prior knowledge."""
    peer = socket.create_connection(gateway.address, timeout=PATIENCE)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        tls.set_alpn_protocols(["h2", "http/1.1"])
        peer = tls.wrap_socket(peer, server_hostname="localhost")
        assert peer.selected_alpn_protocol() == "h2"
    return Http2(peer, **settings)


def self_signed(folder, name="localhost"):
    """A certificate and key for this machine, as files, and TLS contexts of both sides."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256()))
    folder.mkdir(parents=True, exist_ok=True)
    cert, pem = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    client = ssl.create_default_context(cafile=cert)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, pem)
    server.set_alpn_protocols(["h2"])
    return types.SimpleNamespace(cert=str(cert), key=str(pem), client=client, server=server)


def refuses(gateway):
    """Whether nobody listens for clients any more."""
    try:
        socket.create_connection(gateway.address, timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def time_passes(gateway, path="/clock"):
    """Waits as long as the timeout of a route whose backend is silent: for what only the clock can show."""
    assert http_request(gateway.http_url, "GET", path).status == 503


def broken(function, *arguments):
    """Whether reading an answer shows that its end is missing."""
    try:
        function(*arguments)
    except (EOFError, http.client.HTTPException, ConnectionError):
        return True
    return False
