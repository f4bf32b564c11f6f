"""A small ACME CA (RFC 8555) that believes nothing: it checks every signature and nonce, and calls back before it signs.

    ca = AcmeServer(folder)      # serves at ca.directory; ca.file is the CA certificate that all of it is signed by
    ca.calls_back_at(port)       # where the gateway listens; until this is said, validations wait
    ca.stop()
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import http.server
import ipaddress
import itertools
import json
import secrets
import socket
import ssl
import threading
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from backend import PATIENCE

ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


class Refused(Exception):
    """An answer with a problem document."""

    def __init__(self, kind, detail, status=400):
        super().__init__(detail)
        self.status = status
        self.problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}


@dataclass
class Order:
    number: int
    account: str
    domains: list
    status: str = "pending"
    authorizations: list = field(default_factory=list)
    chain: str = ""


@dataclass
class Authorization:
    domain: str
    token: str
    status: str = "pending"
    # The one challenge that was answered, and what was wrong with the answer.
    tried: str = ""
    error: dict = None


class AcmeServer:
    def __init__(self, folder, lifetime=datetime.timedelta(days=90)):
        self.lifetime = lifetime
        # Knobs: how many of the next orders are refused, with which problem; how many nonces are called bad.
        self.refuse_orders = 0
        self.refuse_with = Refused("serverInternal", "the CA has a bad day", 500)
        self.refuse_nonces = 0
        # What accounts must be bound to, as key id -> key, when there is any.
        self.external_accounts = {}
        self.offers = ["http-01", "tls-alpn-01", "dns-01"]
        # What happened.
        self.orders, self.issued, self.contacts = [], [], {}
        self._accounts, self._nonces, self._authorizations = {}, set(), []
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._port, self._port_known, self._stopping = None, threading.Event(), threading.Event()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test CA {secrets.token_hex(4)}")])
        self._ca = self._sign(self._name, self._key.public_key(), [], is_ca=True, lifetime=datetime.timedelta(days=1))
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(pem(self._ca))
        self._serve(folder)

    def calls_back_at(self, port):
        """Where validations go, in place of ports 443 and 80."""
        self._port = port
        self._port_known.set()

    def forget_accounts(self):
        with self._lock:
            self._accounts.clear()

    def stop(self):
        self._stopping.set()
        self._port_known.set()
        self._server.shutdown()
        self._server.server_close()

    # Certificates

    def _sign(self, subject, public_key, names, *, is_ca=False, lifetime):
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public_key)
            .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False))
        if is_ca:
            usage = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                                   "encipher_only", "decipher_only"], False)
            certificate = certificate.add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True)
        else:
            certificate = certificate.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return certificate.sign(self._key, hashes.SHA256())

    def _serve(self, folder):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        own = self._sign(x509.Name([]), key.public_key(), names, lifetime=datetime.timedelta(days=1))
        file = folder / "acme-server.pem"
        file.write_bytes(pem(own) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self._server.daemon_threads = True
        # The handshake belongs to the connection's own thread.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self._server.server_port}"
        self.directory = f"{self.url}/directory"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    # What may be asked

    def nonce(self):
        with self._lock:
            nonce = secrets.token_urlsafe(16)
            self._nonces.add(nonce)
            return nonce

    def describe(self):
        paths = {"newNonce": "/nonce", "newAccount": "/account", "newOrder": "/order"}
        meta = {"termsOfService": f"{self.url}/terms", "externalAccountRequired": bool(self.external_accounts)}
        return {**{name: self.url + path for name, path in paths.items()}, "meta": meta}

    def answer(self, path, body):
        """Status, headers and body for a signed request."""
        url = self.url + path
        header, payload, account = self._verify(url, body)
        with self._lock:
            _, kind, *number = path.split("/")
            number = int(number[0]) if number else None
            if kind == "account" and number is None:
                return self._new_account(url, header["jwk"], payload)
            if account is None:
                raise Refused("malformed", "only newAccount is signed by a bare key")
            match kind:
                case "account":
                    self.contacts[account] = payload.get("contact", [])
                    return 200, {}, {"status": "valid", "contact": self.contacts[account]}
                case "order" if number is None:
                    return self._new_order(account, payload)
                case "order":
                    return 200, {}, self._order(self._own(account, number))
                case "authorization":
                    return 200, {}, self._authorization(number)
                case "challenge":
                    return self._challenge(account, number, path.split("/")[3])
                case "finalize":
                    return self._finalize(self._own(account, number), payload)
                case "certificate":
                    return 200, {"Content-Type": "application/pem-certificate-chain"}, self._own(account, number).chain
        raise Refused("malformed", "there is nothing here", 404)

    def _verify(self, url, body):
        """The header, the payload and the account, after everything that RFC 8555 section 6 wants checked."""
        jws = json.loads(body)
        header = json.loads(decoded(jws["protected"]))
        with self._lock:
            fresh = header.get("nonce") in self._nonces
            self._nonces.discard(header.get("nonce"))
            if self.refuse_nonces > 0:
                self.refuse_nonces -= 1
                fresh = False
            if not fresh:
                raise Refused("badNonce", "this nonce is not one of ours, or was used")
            if header.get("alg") != "ES256":
                raise Refused("badSignatureAlgorithm", "sign with ES256")
            if header.get("url") != url:
                raise Refused("unauthorized", f"signed for {header.get('url')}, sent to {url}", 401)
            if ("jwk" in header) == ("kid" in header):
                raise Refused("malformed", "either jwk or kid")
            account = header.get("kid")
            if account is not None and account not in self._accounts:
                raise Refused("accountDoesNotExist", "no such account")
            jwk = header["jwk"] if account is None else self._accounts[account]
        signature = decoded(jws["signature"])
        if len(signature) != 64:
            raise Refused("malformed", "an ES256 signature has 64 bytes")
        numbers = [int.from_bytes(decoded(jwk[name]), "big") for name in ("x", "y")]
        signed = f"{jws['protected']}.{jws['payload']}".encode()
        try:
            ec.EllipticCurvePublicNumbers(*numbers, ec.SECP256R1()).public_key().verify(
                encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")),
                signed, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            raise Refused("malformed", "the signature does not fit") from None
        return header, json.loads(decoded(jws["payload"]) or "{}"), account

    def _new_account(self, url, jwk, payload):
        if not payload.get("termsOfServiceAgreed"):
            raise Refused("userActionRequired", "the terms were not agreed to", 403)
        if self.external_accounts:
            self._check_binding(url, jwk, payload.get("externalAccountBinding"))
        account = f"{self.url}/account/{next(self._numbers)}"
        self._accounts[account], self.contacts[account] = jwk, payload.get("contact", [])
        return 201, {"Location": account}, {"status": "valid", "contact": self.contacts[account]}

    def _check_binding(self, url, jwk, binding):
        if binding is None:
            raise Refused("externalAccountRequired", "bind the account to an external one", 403)
        header = json.loads(decoded(binding["protected"]))
        key = self.external_accounts.get(header["kid"], secrets.token_bytes())
        mac = hmac.digest(key, f"{binding['protected']}.{binding['payload']}".encode(), "sha256")
        same = {name: json.loads(decoded(binding["payload"])).get(name) == jwk.get(name) for name in ("kty", "crv", "x", "y")}
        if header["alg"] != "HS256" or header["url"] != url or not all(same.values()) or not hmac.compare_digest(mac, decoded(binding["signature"])):
            raise Refused("unauthorized", "the external account binding does not fit", 403)

    def _new_order(self, account, payload):
        if self.refuse_orders > 0:
            self.refuse_orders -= 1
            raise self.refuse_with
        order = Order(len(self.orders), account, [identifier["value"] for identifier in payload["identifiers"]])
        for domain in order.domains:
            order.authorizations.append(len(self._authorizations))
            self._authorizations.append(Authorization(domain, secrets.token_urlsafe(24)))
        self.orders.append(order)
        return 201, {"Location": f"{self.url}/order/{order.number}"}, self._order(order)

    def _own(self, account, number):
        if number >= len(self.orders) or self.orders[number].account != account:
            raise Refused("unauthorized", "not your order", 403)
        return self.orders[number]

    def _order(self, order):
        states = {self._authorizations[number].status for number in order.authorizations}
        if order.status == "pending" and "invalid" in states:
            order.status = "invalid"
        elif order.status == "pending" and states == {"valid"}:
            order.status = "ready"
        found = {
            "status": order.status,
            "identifiers": [{"type": "dns", "value": domain} for domain in order.domains],
            "authorizations": [f"{self.url}/authorization/{number}" for number in order.authorizations],
            "finalize": f"{self.url}/finalize/{order.number}",
        }
        return {**found, "certificate": f"{self.url}/certificate/{order.number}"} if order.status == "valid" else found

    def _authorization(self, number):
        found = self._authorizations[number]
        return {"status": found.status, "identifier": {"type": "dns", "value": found.domain},
                "challenges": [self._describe_challenge(number, kind) for kind in self.offers]}

    def _describe_challenge(self, number, kind):
        found = self._authorizations[number]
        status = found.status if found.tried == kind else "pending"
        error = {"error": found.error} if found.error and found.tried == kind else {}
        return {"type": kind, "url": f"{self.url}/challenge/{number}/{kind}", "token": found.token, "status": status, **error}

    def _challenge(self, account, number, kind):
        authorization = self._authorizations[number]
        if not authorization.tried:
            authorization.tried = kind
            key_authorization = f"{authorization.token}.{thumbprint(self._accounts[account])}"
            threading.Thread(target=self._validate, args=(authorization, kind, key_authorization), daemon=True).start()
        return 200, {}, self._describe_challenge(number, kind)

    # Calling back

    def _validate(self, authorization, kind, key_authorization):
        self._port_known.wait()
        if self._stopping.is_set():
            return
        try:
            seek = {"tls-alpn-01": self._seek_in_tls, "http-01": self._seek_in_http}[kind]
            problem = seek(authorization, key_authorization)
        except (OSError, http.client.HTTPException) as error:
            problem = f"no answer: {error}"
        with self._lock:
            authorization.status = "invalid" if problem else "valid"
            authorization.error = Refused("unauthorized", problem, 403).problem if problem else None

    def _seek_in_tls(self, authorization, key_authorization):
        """RFC 8737, section 3."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE) as tcp:
            with context.wrap_socket(tcp, server_hostname=authorization.domain) as tls:
                protocol, shown = tls.selected_alpn_protocol(), x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
        if protocol != "acme-tls/1":
            return f"the protocol is {protocol}"
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if list(names) != [x509.DNSName(authorization.domain)]:
            return f"the certificate is for {names}"
        try:
            proof = shown.extensions.get_extension_for_oid(ACME_IDENTIFIER)
        except x509.ExtensionNotFound:
            return "the certificate has no acmeIdentifier"
        if not proof.critical or proof.value.value != b"\x04\x20" + hashlib.sha256(key_authorization.encode()).digest():
            return "the acmeIdentifier is another one"

    def _seek_in_http(self, authorization, key_authorization):
        """RFC 8555, section 8.3."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            path = f"/.well-known/acme-challenge/{authorization.token}"
            connection.request("GET", path, headers={"Host": authorization.domain})
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status != 200 or body.rstrip() != key_authorization:
            return f"the answer is {answer.status} {body!r}"

    def _finalize(self, order, payload):
        if self._order(order)["status"] != "ready":
            raise Refused("orderNotReady", f"the order is {order.status}", 403)
        request = x509.load_der_x509_csr(decoded(payload["csr"]))
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if not request.is_signature_valid or sorted(names.get_values_for_type(x509.DNSName)) != sorted(order.domains):
            raise Refused("badCSR", "the request is for other names")
        certificate = self._sign(x509.Name([]), request.public_key(), list(names), lifetime=self.lifetime)
        self.issued.append(certificate)
        order.chain, order.status = (pem(certificate) + pem(self._ca)).decode(), "valid"
        return 200, {"Location": f"{self.url}/order/{order.number}"}, self._order(order)


def handler(ca):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A client that keeps its connection and leaves without a word.
        timeout = 60

        def do_HEAD(self):
            self._send(200, {}, b"")

        def do_GET(self):
            self._send(200, {}, ca.describe()) if self.path == "/directory" else self._send(404, {}, b"")

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                if self.headers["Content-Type"] != "application/jose+json":
                    raise Refused("malformed", "send application/jose+json", 415)
                answer = ca.answer(self.path, body)
            except Refused as refused:
                answer = refused.status, {"Content-Type": "application/problem+json"}, refused.problem
            self._send(*answer)

        def _send(self, status, headers, body):
            body = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Replay-Nonce": ca.nonce(), **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self):
            # A client that does not trust us breaks the handshake off; that is its right.
            try:
                super().handle()
            except OSError:
                pass

        def finish(self):
            try:
                super().finish()
            except OSError:
                pass

        def log_message(self, *_):
            pass

    return Handler


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def thumbprint(jwk):
    canonical = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
