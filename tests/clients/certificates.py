"""Certificates for tests, a gateway that is spoken to over TLS, and a client of HTTP/2 that shows every frame.

    authority = Authority(folder)
    pair = authority.issue("localhost", "127.0.0.1")     # what a [[gateway.tls.certificates]] entry says
    authority.trust()                                    # an ssl.SSLContext that believes this authority alone
"""

import contextlib
import datetime
import http.client
import ipaddress
import os
import secrets
import socket
import ssl
from dataclasses import dataclass

import hpack
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame

from backend import PATIENCE
from wire import Response, Wire
from world import Client, Gateway

DAY = datetime.timedelta(days=1)
ATTRIBUTES = {"C": NameOID.COUNTRY_NAME, "O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME}


@dataclass
class Pair:
    """A certificate and its key, as files and as what a handshake shows."""

    cert: str
    key: str
    certificate: x509.Certificate

    @property
    def entry(self):
        return {"cert": self.cert, "key": self.key}

    @property
    def serial(self):
        return self.certificate.serial_number


class Authority:
    """A CA of its own, whose files stand in `folder`."""

    def __init__(self, folder, name="Test CA"):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = distinguished({"CN": f"{name} {secrets.token_hex(4)}"})
        self._own = self._sign(self._name, self._key.public_key(), [], DAY, -DAY, is_ca=True)
        self.file = str(folder / "ca.pem")
        (folder / "ca.pem").write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def issue(self, *names, file=None, subject=None, kind="ec", valid=DAY, since=-DAY, password=None, form="PKCS8"):
        """A certificate for these hosts or, with a `subject`, for a client; `file` is what its files are called."""
        key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
        certificate = self._sign(distinguished(subject or {}), key.public_key(), names, valid, since)
        file = file or secrets.token_hex(4)
        pair = Pair(str(self.folder / f"{file}.pem"), str(self.folder / f"{file}.key"), certificate)
        locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        form = getattr(serialization.PrivateFormat, form)
        with open(pair.cert, "wb") as out:
            out.write(certificate.public_bytes(serialization.Encoding.PEM))
        with open(pair.key, "wb") as out:
            out.write(key.private_bytes(serialization.Encoding.PEM, form, locked))
        # The gateway warns of a key that everybody can read.
        os.chmod(pair.key, 0o600)
        return pair

    def trust(self, client=None, alpn=None):
        """What a client trusts who trusts this authority alone; `client` is the pair it shows."""
        context = ssl.create_default_context(cafile=self.file)
        if client:
            context.load_cert_chain(client.cert, client.key)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def _sign(self, subject, public_key, names, valid, since, *, is_ca=False):
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public_key)
            .serial_number(x509.random_serial_number()).not_valid_before(now + since).not_valid_after(now + valid)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False))
        if is_ca:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        if names:
            alternatives = [alternative(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def distinguished(attributes):
    return x509.Name([x509.NameAttribute(ATTRIBUTES[name], value) for name, value in attributes.items()])


def alternative(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class SecureGateway(Gateway):
    """A gateway whose first listener speaks TLS; its clients trust `authority`, and show `client` if there is one."""

    def __init__(self, text, folder, *, authority, client=None, **settings):
        self.authority, self.client = authority, client
        super().__init__(text, folder, **settings)

    def trust(self, **settings):
        return self.authority.trust(**{"client": self.client, **settings})

    def connect(self, path="/prod", headers=None, *, client=None, **settings) -> Client:
        context = self.trust(client=client or self.client)
        # This client reads in one thread and writes in another, on one OpenSSL object, which is made for one thread at a
        # time. Under TLS 1.3 it lost about one handshake in 500 so, when a session ticket came while it wrote; TLS 1.2
        # sends none after the handshake. The other clients here speak TLS 1.3.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return super().connect(path, headers, ssl=context, **settings)

    def request(self, method, path, body=None, headers=None, *, context=None):
        return https_request(self.address, context or self.trust(), method, path, body, headers)

    def handshake(self, name="localhost", context=None, session=None, **settings):
        """A connection after its TLS handshake."""
        context = context or self.trust()
        context.check_hostname = False
        # The end of a stream shall be a real one: without close_notify, reading raises.
        tcp = socket.create_connection(self.address, timeout=PATIENCE)
        try:
            return context.wrap_socket(
                tcp, server_hostname=name, session=session, suppress_ragged_eofs=False, **settings)
        except BaseException:
            tcp.close()
            raise

    def shows(self, name="localhost", context=None):
        """The serial number of the certificate that a new client sees."""
        with self.handshake(name, context) as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number

    def secure_wire(self, **settings):
        return SecureWire(self.handshake(**settings), "%s:%d" % self.address)

    def http2(self, **settings):
        return Http2(self.handshake(context=self.trust(alpn=["h2"]), **settings), "localhost:%d" % self.port)


class SecureWire(Wire):
    """A `Wire` over a connection that is there already."""

    def __init__(self, connected, host):
        self.socket, self.host, self._got = connected, host, b""


def https_request(address, context, method, path, body=None, headers=None):
    connection = http.client.HTTPSConnection(*address, timeout=PATIENCE, context=context)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Response(answer.status, answer.getheaders(), answer.read())


class Http2:
    """One HTTP/2 connection, frame by frame. (The library h2 takes a GOAWAY for the end of everything.)"""

    def __init__(self, connected, authority):
        assert connected.selected_alpn_protocol() == "h2"
        self.socket, self.authority, self.frames = connected, authority, []
        self._encoder, self._decoder, self._next, self._got = hpack.Encoder(), hpack.Decoder(), 1, b""
        self.settings = None
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._write(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**30}))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, method, path, headers=(), *, end=True):
        """Begins a request and returns its stream."""
        stream, self._next = self._next, self._next + 2
        head = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path), *headers]
        self._write(HeadersFrame(stream, self._encoder.encode(head), flags=["END_HEADERS"] + ["END_STREAM"] * end))
        return stream

    def open_websocket(self, path="/prod"):
        """RFC 8441: an extended CONNECT, once the server's settings allow it."""
        self.settings = self.settings or self.until(SettingsFrame).settings
        assert self.settings.get(SettingsFrame.ENABLE_CONNECT_PROTOCOL) == 1
        stream = self.ask("CONNECT", path, [(":protocol", "websocket"), ("sec-websocket-version", "13")], end=False)
        assert self.status(stream) == 200
        return stream

    def send(self, stream, data):
        self._write(DataFrame(stream, data))

    def until(self, kind, stream=0):
        """The next frame of this kind on this stream; the others wait for their turn."""
        while True:
            for frame in self.frames:
                if isinstance(frame, kind) and frame.stream_id == stream:
                    self.frames.remove(frame)
                    return frame
            self.read()

    def status(self, stream):
        return int(dict(self._decoder.decode(self.until(HeadersFrame, stream).data))[":status"])

    def data(self, stream):
        return self.until(DataFrame, stream).data

    def read(self):
        head = self._take(9)
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(self._take(length)))
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._write(SettingsFrame(0, flags=["ACK"]))
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            self._write(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        self.frames.append(frame)

    def ended(self):
        """Waits for a clean end of the connection."""
        with contextlib.suppress(EOFError):
            while True:
                self.read()
        return True

    def _take(self, size):
        while len(self._got) < size:
            if not (got := self.socket.recv(65536)):
                raise EOFError(f"the connection ended after {self.frames}")
            self._got += got
        taken, self._got = self._got[:size], self._got[size:]
        return taken

    def _write(self, frame):
        self.socket.sendall(frame.serialize())
