"""TLS on the listeners: certificates and their rotation, mutual TLS, what leads in and what stays out."""

import contextlib
import datetime
import http.client
import http.server
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading

import httpx
import pytest
from cryptography import x509
from hyperframe.frame import GoAwayFrame
from playwright.sync_api import sync_playwright
from websockets.exceptions import WebSocketException

from backend import PATIENCE, Answer
from certificates import DAY, Authority, SecureGateway, https_request
from demo import FLAGS
from signing import BACKEND, management
from wire import CLOSE, TEXT, close_frame, frame
from world import chat, eventually, http_request, mock, run, to, two_way

NAMES = ("localhost", "127.0.0.1")
BOTH = ["127.0.0.1:0", "http://127.0.0.1:0"]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def secure(processes, authority):
    """Starts `livegate serve` with TLS: `secure(pair, …, client_ca=…)`, and the parts of `chat`."""
    def serve(*pairs, client=None, gateway=None, tls=None, **parts):
        pairs = pairs or [authority.issue(*NAMES)]
        text = chat(gateway=with_tls(*pairs, tls=tls, **(gateway or {})), **parts)
        return processes(SecureGateway, text, processes.folder(), authority=authority, client=client)
    return serve


def with_tls(*pairs, tls=None, **gateway):
    return {**gateway, "tls": {"certificates": [pair.entry for pair in pairs], **(tls or {})}}


def pages(routes, **api):
    """An HTTP API beside the chat."""
    return {"pages": {"protocol": "http", "routes": routes, **api}}


def refused(gateway, **settings):
    """Whether there is no handshake, or none that outlives its first word: in TLS 1.3 a client learns it there."""
    try:
        with gateway.handshake(**settings) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return not tls.recv(1)
    except (ssl.SSLError, ConnectionError):
        return True


# What is printed, and what is spoken


def test_the_listener_says_https(secure):
    gateway = secure()
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+", gateway.http_url)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", gateway.admin_url)


def test_requests_and_sockets_come_over_tls(secure):
    gateway = secure(apis=pages({"GET /hello": plain("hello")}))
    assert gateway.request("GET", "/hello").body == b"hello"
    with gateway.connect() as client:
        identity = client.whoami()
        assert gateway.push(identity, "pushed").status == 200
        assert client.hears() == "pushed"


def test_sockets_come_over_http_2_too(secure):
    gateway = secure(**HELLO)
    with gateway.http2() as connection:
        streams = [connection.open_websocket() for _ in range(5)]
        for stream in streams:
            connection.send(stream, frame(TEXT, '{"action":"hello"}'))
        for stream in streams:
            assert connection.data(stream) == b"\x81\x05hello"
        assert connection.status(connection.ask("GET", "/hello")) == 200
        assert gateway.metric("livegate_connections_open", api="chat") == 5


def test_large_bodies_and_messages_are_whole(secure, backend):
    backend.answers("/echo", lambda request: Answer(body=request.body))
    gateway = secure(apis=pages({"POST /echo": {"integration": backend.at("/echo")}}),
                     routes={"$default": two_way(backend.at("/echo"))})
    body = bytes(range(256)) * 4096 * 4
    assert gateway.request("POST", "/echo", body).body == body
    with httpx.Client(verify=gateway.trust(), http2=True, timeout=PATIENCE) as client:
        assert client.post(f"{gateway.http_url}/echo", content=body).content == body
    with gateway.connect() as client:
        message = "x" * 32_000
        client.send(message)
        assert client.hears() == message


def test_a_listener_without_tls_stands_beside_it(secure):
    gateway = secure(gateway={"listen": BOTH}, apis=pages({"GET /hello": plain("hello")}))
    beside = [line for line in gateway.printed if line.startswith("listening on http://")]
    url = beside[0].split()[-1]
    assert http_request(url, "GET", "/hello").body == b"hello"
    assert gateway.request("GET", "/hello").body == b"hello"
    # Neither speaks the other's language.
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises((ssl.SSLError, ConnectionError)), socket.create_connection(("127.0.0.1", port), PATIENCE) as tcp:
        gateway.trust().wrap_socket(tcp, server_hostname="localhost").close()


def plain(text, **settings):
    return {"integration": {"type": "mock", "response": text, **settings}}


@pytest.mark.parametrize("offered, agreed", [
    (["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["h2"], "h2"), (None, None)])
def test_alpn_agrees_on_the_best_that_both_speak(secure, offered, agreed):
    gateway = secure()
    with gateway.handshake(context=gateway.trust(alpn=offered)) as tls:
        assert tls.selected_alpn_protocol() == agreed


def test_a_client_that_speaks_only_another_protocol_is_turned_away(secure):
    gateway = secure()
    assert refused(gateway, context=gateway.trust(alpn=["h3"]))
    assert gateway.is_well()


@pytest.mark.parametrize("flag, version", [("--http1.1", "1.1"), ("--http2", "2")])
def test_curl_speaks_both(secure, authority, flag, version):
    gateway = secure(apis=pages({"GET /hello": plain("hello ${context.protocol}")}))
    asked = subprocess.run(
        ["curl", "--silent", "--show-error", flag, "--cacert", authority.file, "--write-out", "\n%{http_version}",
         f"{gateway.http_url}/hello"], capture_output=True, text=True, timeout=2 * PATIENCE)
    # contract/http-api.md section 11: HTTP/1.1 even for h2.
    assert asked.stdout == f"hello HTTP/1.1\n{version}", asked.stderr


VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def only(context, version):
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


@pytest.mark.parametrize("version", VERSIONS)
def test_tls_1_2_and_1_3_are_spoken(secure, version):
    gateway = secure(apis=pages({"GET /hello": plain("hello")}))
    context = only(gateway.trust(), version)
    assert gateway.request("GET", "/hello", context=context).body == b"hello"
    with gateway.handshake(context=context) as tls:
        assert tls.version() == f"TLSv{version}"


def test_the_minimum_version_is_kept_and_follows_the_file(secure, authority):
    pair = authority.issue(*NAMES)
    gateway = secure(pair, tls={"minimum_version": "1.3"})
    old, new = only(gateway.trust(), "1.2"), only(gateway.trust(), "1.3")
    assert refused(gateway, context=old) and not refused(gateway, context=new)
    gateway.reload(chat(gateway=with_tls(pair)))
    assert not refused(gateway, context=old) and not refused(gateway, context=new)
    gateway.reload(chat(gateway=with_tls(pair, tls={"minimum_version": "1.3"})))
    assert refused(gateway, context=old)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_history(secure):
    gateway = secure()
    context = gateway.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        gateway.handshake(context=context)


# Which certificate


@pytest.mark.parametrize("asked, shown", [
    ("one.example.com", "one"), ("ONE.example.com", "one"), ("two.example.com", "two"), ("also.example.com", "two"),
    ("any.example.org", "wild"), ("exact.example.org", "exact"), ("a.any.example.org", "one"), ("example.org", "one"),
    ("nobody.test", "one"), (None, "one")])
def test_the_name_asked_for_chooses_the_certificate(secure, authority, asked, shown):
    pairs = {
        "one": authority.issue("one.example.com"), "two": authority.issue("two.example.com", "also.example.com"),
        "wild": authority.issue("*.example.org"), "exact": authority.issue("exact.example.org")}
    gateway = secure(*pairs.values())
    assert gateway.shows(asked) == pairs[shown].serial


def test_the_client_can_check_what_it_is_shown(secure, authority):
    rsa, ec = authority.issue(*NAMES, kind="rsa"), authority.issue(*NAMES)
    gateway = secure(ec, rsa)

    def able_to(ciphers):
        context = only(gateway.trust(), "1.2")
        context.set_ciphers(ciphers)
        return context
    assert gateway.shows(context=able_to("ECDHE-RSA-AES128-GCM-SHA256")) == rsa.serial
    assert gateway.shows(context=able_to("ECDHE-ECDSA-AES128-GCM-SHA256")) == ec.serial


def test_certificates_come_with_those_that_lead_to_the_authority(secure, authority, tmp_path):
    pair = authority.issue(*NAMES)
    chain = pathlib.Path(pair.cert)
    chain.write_text(chain.read_text() + pathlib.Path(authority.file).read_text())
    gateway = secure(pair)
    shown = subprocess.run(["openssl", "s_client", "-showcerts", "-connect", gateway.host], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=2 * PATIENCE).stdout
    assert shown.count("BEGIN CERTIFICATE") == 2


# Clients' certificates

DN = {"C": "CH", "O": "Example, Inc.", "CN": "ann"}
WRITTEN_DN = r"C=CH,O=Example\, Inc.,CN=ann"
WHO = {"GET /who": plain("${context.identity.clientCert.subjectDN}")}


def test_a_client_without_a_certificate_stays_out(secure, authority):
    ann = authority.issue(subject=DN)
    gateway = secure(tls={"client_ca": authority.file}, client=ann, apis=pages(WHO))
    assert gateway.request("GET", "/who").body.decode() == WRITTEN_DN
    failed = gateway.metric("livegate_handshake_errors_total")
    assert refused(gateway, context=authority.trust())
    eventually(lambda: gateway.metric("livegate_handshake_errors_total") == failed + 1)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("rule", ["required", "optional"])
def test_a_bad_certificate_is_worse_than_none(secure, authority, tmp_path, rule, version):
    stranger = Authority(tmp_path / "strangers").issue(subject=DN)
    old = authority.issue(subject=DN, valid=-DAY / 2)
    gateway = secure(tls={"client_ca": authority.file, "client_auth": rule}, apis=pages(WHO))
    for pair in (stranger, old):
        assert refused(gateway, context=only(authority.trust(pair), version))
    assert refused(gateway, context=only(authority.trust(), version)) == (rule == "required")


def test_where_it_is_optional_both_are_served(secure, authority):
    gateway = secure(tls={"client_ca": authority.file, "client_auth": "optional"}, apis=pages(WHO))
    assert gateway.request("GET", "/who").body == b""
    ann = authority.trust(authority.issue(subject=DN))
    assert gateway.request("GET", "/who", context=ann).body.decode() == WRITTEN_DN


def test_it_is_seen_over_http_2(secure, authority):
    gateway = secure(tls={"client_ca": authority.file}, apis=pages(WHO))
    with httpx.Client(verify=authority.trust(authority.issue(subject=DN)), http2=True, timeout=PATIENCE) as client:
        answer = client.get(f"{gateway.http_url}/who")
        assert (answer.http_version, answer.text) == ("HTTP/2", WRITTEN_DN)


@pytest.mark.parametrize("form", ["1.0", "2.0"])
def test_the_event_shows_the_clients_certificate(secure, authority, backend, form):
    backend.answer("/event", 200, '{"statusCode": 200}')
    ann = authority.issue(subject=DN)
    gateway = secure(tls={"client_ca": authority.file}, client=ann, apis=pages({
        "GET /event": to(backend.at("/event"), payload="event", payload_format=form)}))
    assert gateway.request("GET", "/event").status == 200
    context = backend.next("/event").json["requestContext"]
    shown = context["authentication"]["clientCert"] if form == "2.0" else context["identity"]["clientCert"]
    assert set(shown) == {"clientCertPem", "subjectDN", "issuerDN", "serialNumber", "validity"}
    assert x509.load_pem_x509_certificate(shown["clientCertPem"].encode()) == ann.certificate
    assert shown["subjectDN"] == WRITTEN_DN and shown["issuerDN"].startswith("CN=Test CA ")
    assert int(shown["serialNumber"].replace(":", ""), 16) == ann.serial
    times = ann.certificate.not_valid_before_utc, ann.certificate.not_valid_after_utc
    for key, moment in zip(("notBefore", "notAfter"), times):
        said = datetime.datetime.strptime(shown["validity"][key], "%b %d %H:%M:%S %Y GMT")
        assert said.replace(tzinfo=datetime.UTC) == moment


def test_without_one_the_event_shows_none(secure, authority, backend):
    backend.answer("/event", 200, '{"statusCode": 200}')
    gateway = secure(tls={"client_ca": authority.file, "client_auth": "optional"}, apis=pages({
        "GET /event": to(backend.at("/event"), payload="event")}))
    gateway.request("GET", "/event")
    assert "authentication" not in backend.next("/event").json["requestContext"]


def test_websockets_show_theirs_too(secure, authority):
    gateway = secure(tls={"client_ca": authority.file})
    with gateway.connect(client=authority.issue(subject=DN)) as client:
        assert client.whoami()
    with pytest.raises((OSError, EOFError, WebSocketException)):
        gateway.connect()


def test_other_authorities_count_from_the_next_handshake_on(secure, authority, tmp_path):
    others = Authority(tmp_path / "others")
    ann, eve = authority.issue(subject=DN), others.issue(subject={"CN": "eve"})
    ca = tmp_path / "clients.pem"
    ca.write_text(pathlib.Path(authority.file).read_text())
    gateway = secure(tls={"client_ca": str(ca)}, apis=pages(WHO), client=ann)
    with gateway.connect() as client:
        assert refused(gateway, context=authority.trust(eve))
        ca.write_text(pathlib.Path(others.file).read_text())
        eventually(lambda: not refused(gateway, context=authority.trust(eve)))
        assert refused(gateway, context=authority.trust(ann))
        assert client.whoami()


# Sessions


def session_of(gateway, context, **settings):
    """A first connection, up to the ticket for the next: TLS 1.3 sends it behind the handshake."""
    with gateway.handshake(context=context, **settings) as tls:
        assert not tls.session_reused
        assert ask_on(tls, "/who").status == 200
        return tls.session


def ask_on(tls, path):
    tls.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = http.client.HTTPResponse(tls)
    answer.begin()
    answer.text = answer.read().decode()
    return answer


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed(secure, version):
    gateway = secure(apis=pages(WHO))
    context = only(gateway.trust(), version)
    session = session_of(gateway, context)
    with gateway.handshake(context=context, session=session) as tls:
        assert tls.session_reused and ask_on(tls, "/who").status == 200


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_is_still_the_same_clients(secure, authority, version):
    gateway = secure(tls={"client_ca": authority.file, "client_auth": "optional"}, apis=pages(WHO))
    context = only(authority.trust(authority.issue(subject=DN)), version)
    with gateway.handshake(context=context, session=session_of(gateway, context)) as tls:
        assert tls.session_reused and ask_on(tls, "/who").text == WRITTEN_DN


@pytest.mark.parametrize("version", VERSIONS)
def test_nobody_resumes_what_would_be_refused_now(secure, authority, tmp_path, version):
    ann, pair = authority.issue(subject=DN), authority.issue(*NAMES)
    gateway = secure(pair, tls={"client_ca": authority.file}, apis=pages(WHO))
    context = only(authority.trust(ann), version)
    session = session_of(gateway, context)
    others = Authority(tmp_path / "others")
    gateway.reload(chat(gateway=with_tls(pair, tls={"client_ca": others.file}), apis=pages(WHO)))
    assert refused(gateway, context=context, session=session)


# Other certificates, while people are busy


class Busy:
    """Clients of every kind that keep talking, and what went wrong for them."""

    def __init__(self, gateway):
        self.gateway, self.failures, self.done = gateway, [], {}
        self._stop, self._threads = threading.Event(), []
        with contextlib.ExitStack() as opening:
            self.sockets = [opening.enter_context(gateway.connect()) for _ in range(10)]
            self._sockets = opening.pop_all()

    def __enter__(self):
        for kind, work in {"anew": self._anew, "kept": self._kept, "h2": self._h2, "talk": self._talk}.items():
            self.done[kind] = 0
            self._threads.append(threading.Thread(target=self._keep_on, args=(kind, work)))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(3 * PATIENCE)
        self._sockets.close()

    def more(self):
        """Waits until everybody has been served again."""
        before = dict(self.done)
        eventually(lambda: self.failures or all(self.done[kind] > before[kind] for kind in before), "everybody's turn")

    def _keep_on(self, kind, work):
        try:
            for answer in work():
                assert answer == "hello", answer
                self.done[kind] += 1
                # Bounded, not paced: whoever waits for an event has the processor.
                if self._stop.wait(0.002):
                    return
        except Exception as error:
            self.failures.append((kind, self.done[kind], repr(error)))

    def _anew(self):
        while True:
            yield self.gateway.request("GET", "/hello").body.decode()

    def _kept(self):
        connection = http.client.HTTPSConnection(*self.gateway.address, timeout=PATIENCE, context=self.gateway.trust())
        connection.connect()
        connection.auto_open = 0
        with contextlib.closing(connection):
            while True:
                connection.request("GET", "/hello")
                yield connection.getresponse().read().decode()

    def _h2(self):
        with httpx.Client(verify=self.gateway.trust(), http2=True, timeout=PATIENCE) as client:
            while True:
                yield client.get(f"{self.gateway.http_url}/hello").text

    def _talk(self):
        while True:
            for client in self.sockets:
                yield client.asks(action="hello")


HELLO = {"routes": {"hello": mock("hello")}, "apis": pages({"GET /hello": plain("hello")})}


def rename_into(new, old):
    for mine, theirs in ((new.cert, old.cert), (new.key, old.key)):
        pathlib.Path(mine).rename(theirs)


def write_into(new, old):
    for mine, theirs in ((new.cert, old.cert), (new.key, old.key)):
        with open(theirs, "r+b") as out:
            out.write(pathlib.Path(mine).read_bytes())
            out.truncate()


@pytest.mark.parametrize("replace", [rename_into, write_into])
def test_replaced_files_are_served_and_nobody_is_disturbed(secure, authority, replace):
    pair = authority.issue(*NAMES)
    gateway = secure(pair, **HELLO)
    assert gateway.shows() == pair.serial
    with Busy(gateway) as busy:
        for _ in range(5):
            busy.more()
            new = authority.issue(*NAMES)
            replace(new, pair)
            eventually(lambda: gateway.shows() == new.serial, "the new certificate")
            busy.more()
    assert busy.failures == []
    assert gateway.metric("livegate_reloads_total", outcome="ok") >= 5
    assert gateway.metric("livegate_handshake_errors_total") == 0


def test_other_files_are_served_and_nobody_is_disturbed(secure, authority):
    gateway = secure(authority.issue(*NAMES), **HELLO)
    with Busy(gateway) as busy:
        for number in range(5):
            new = authority.issue(*NAMES)
            text = chat(gateway=with_tls(new), **HELLO)
            gateway.reload(text) if number % 2 else gateway.write(text)
            eventually(lambda: gateway.shows() == new.serial, "the new certificate")
            busy.more()
    assert busy.failures == []


def test_a_link_may_lead_to_the_next_certificate(secure, authority):
    """As certbot does it: the files stay, the link moves on."""
    live = authority.folder / "live"
    live.mkdir()
    old, new = authority.issue(*NAMES), authority.issue(*NAMES)

    def link(pair):
        for name, target in (("cert.pem", pair.cert), ("key.pem", pair.key)):
            draft = live / "draft"
            draft.symlink_to(target)
            draft.rename(live / name)
    link(old)
    linked = type(old)(str(live / "cert.pem"), str(live / "key.pem"), old.certificate)
    gateway = secure(linked)
    assert gateway.shows() == old.serial
    link(new)
    eventually(lambda: gateway.shows() == new.serial)


def test_a_mounted_folder_may_be_swapped_as_a_whole(secure, authority, tmp_path):
    """As Kubernetes does it: `tls.crt` leads through the link `..data`, which is replaced."""
    mounted = tmp_path / "mounted"

    def fill(name, pair):
        (mounted / name).mkdir(parents=True)
        shutil.copy(pair.cert, mounted / name / "tls.crt")
        shutil.copy(pair.key, mounted / name / "tls.key")
        (mounted / "..data_tmp").symlink_to(name)
        (mounted / "..data_tmp").rename(mounted / "..data")
    old, new, newest = (authority.issue(*NAMES) for _ in range(3))
    fill("..2024_1", old)
    for name in ("tls.crt", "tls.key"):
        (mounted / name).symlink_to(f"..data/{name}")
    gateway = secure(type(old)(str(mounted / "tls.crt"), str(mounted / "tls.key"), old.certificate))
    assert gateway.shows() == old.serial
    for name, pair in (("..2024_2", new), ("..2024_3", newest)):
        fill(name, pair)
        eventually(lambda: gateway.shows() == pair.serial)


def folder_of(folder, pair):
    """Copies of both files, in a folder of their own."""
    folder.mkdir()
    shutil.copy(pair.cert, folder / "tls.crt")
    shutil.copy(pair.key, folder / "tls.key")
    return folder


def test_a_link_to_a_folder_may_lead_to_the_next_one(secure, authority, tmp_path):
    """As deployments do it: `current` leads to the release that is served."""
    old, new = authority.issue(*NAMES), authority.issue(*NAMES)
    current, draft = tmp_path / "current", tmp_path / "draft"
    current.symlink_to(folder_of(tmp_path / "release-1", old))
    gateway = secure(type(old)(str(current / "tls.crt"), str(current / "tls.key"), old.certificate))
    assert gateway.shows() == old.serial
    draft.symlink_to(folder_of(tmp_path / "release-2", new))
    draft.rename(current)
    eventually(lambda: gateway.shows() == new.serial, "the new certificate")


def test_a_replaced_folder_is_followed(secure, authority, tmp_path):
    old, new, newest = (authority.issue(*NAMES) for _ in range(3))
    current = folder_of(tmp_path / "current", old)
    gateway = secure(type(old)(str(current / "tls.crt"), str(current / "tls.key"), old.certificate))
    current.rename(tmp_path / "old")
    folder_of(tmp_path / "new", new).rename(current)
    gateway.reload()
    assert gateway.shows() == new.serial
    # Whether or not the folder's own change is noticed, from here on its files are. An edit comes in between, so that
    # nothing is still on its way when they change.
    before = gateway.metric("livegate_reloads_total", outcome="ok")
    gateway.write(gateway.file.read_text() + "# edited\n")
    eventually(lambda: gateway.metric("livegate_reloads_total", outcome="ok") > before, "the edit to be noticed")
    rename_into(newest, type(old)(str(current / "tls.crt"), str(current / "tls.key"), new.certificate))
    eventually(lambda: gateway.shows() == newest.serial, "the newest certificate")


@pytest.mark.parametrize("broken, word", [
    (lambda pair, other: pathlib.Path(pair.cert).write_text("no certificate"), "no certificate in it"),
    (lambda pair, other: shutil.copy(other.key, pair.key), "is not that of the first certificate"),
    (lambda pair, other: pathlib.Path(pair.key).unlink(), "cannot be read"),
], ids=["nonsense", "wrong key", "missing"])
def test_a_broken_file_changes_nothing_and_is_reported(secure, authority, broken, word):
    pair, new = authority.issue(*NAMES), authority.issue(*NAMES)
    gateway = secure(pair, **HELLO)
    with gateway.connect() as client:
        broken(pair, authority.issue(*NAMES))
        eventually(lambda: gateway.metric("livegate_reloads_total", outcome="problems") >= 1)
        eventually(lambda: word in gateway.logs())
        assert gateway.shows() == pair.serial and client.asks(action="hello") == "hello"
        assert gateway.request("GET", "/hello").body == b"hello"
        rename_into(new, pair)
        eventually(lambda: gateway.shows() == new.serial)
        assert client.asks(action="hello") == "hello"


def test_sessions_outlive_the_certificate(secure, authority):
    pair, new = authority.issue(*NAMES), authority.issue(*NAMES)
    gateway = secure(pair, apis=pages(WHO))
    context = gateway.trust()
    session = session_of(gateway, context)
    rename_into(new, pair)
    eventually(lambda: gateway.shows() == new.serial)
    with gateway.handshake(context=context, session=session) as tls:
        assert tls.session_reused and ask_on(tls, "/who").status == 200


def test_tls_may_come_and_go_with_the_file(secure, authority):
    pair = authority.issue(*NAMES)
    gateway = secure(pair, **HELLO)

    def now_at(scheme):
        while not (line := gateway.line()).startswith(f"listening on {scheme}://"):
            pass
        return int(line.rsplit(":", 1)[1])
    with gateway.connect() as client:
        gateway.reload(chat(**HELLO))
        assert http_request(f"http://127.0.0.1:{now_at('http')}", "GET", "/hello").body == b"hello"
        gateway.reload(chat(gateway=with_tls(pair), **HELLO))
        gateway.address = ("127.0.0.1", now_at("https"))
        assert gateway.request("GET", "/hello").body == b"hello"
        assert client.asks(action="hello") == "hello"


def test_tls_may_come_to_the_port_that_is_listened_on(livegate, authority, dead_backend):
    """The address does not change, so what clients know does not either; the new file must not be refused for it."""
    listen = {"listen": dead_backend.authority}
    gateway = livegate(gateway=listen, **HELLO)
    gateway.reload(chat(gateway=with_tls(authority.issue(*NAMES), **listen), **HELLO))
    assert gateway.metric("livegate_reloads_total", outcome="ok") == 1, gateway.logs()
    assert https_request(gateway.address, authority.trust(), "GET", "/hello").body == b"hello"


# Handshakes that lead nowhere

GARBAGE = {
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": bytes(range(256)) * 8,
    "a record too long": b"\x16\x03\x01\xff\xff" + b"\x00" * 70_000,
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "an empty hello": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("said", GARBAGE)
def test_garbage_is_cut_and_counted(secure, said):
    gateway = secure(**HELLO)
    with gateway.connect() as client, gateway.wire() as wire:
        # The gateway may have hung up before all of it was sent.
        with contextlib.suppress(OSError):
            wire.send(GARBAGE[said])
            wire.socket.shutdown(socket.SHUT_WR)
            wire.ended()
        eventually(lambda: gateway.metric("livegate_handshake_errors_total") == 1)
        assert client.asks(action="hello") == "hello"
    assert gateway.request("GET", "/hello").status == 200


HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize("begun", [b"", HALF_A_HELLO], ids=["nothing", "half a hello"])
def test_a_handshake_that_does_not_go_on_is_cut_and_counted(secure, begun):
    soon = {"handshake_timeout": "500ms"}
    gateway = secure(stage=soon, apis=pages({"GET /hello": plain("hello")}, stages={"$default": soon}))
    with contextlib.ExitStack() as open_ones:
        wires = [open_ones.enter_context(gateway.wire()) for _ in range(50)]
        for wire in wires:
            wire.send(begun)
        assert gateway.request("GET", "/hello").body == b"hello"
        for wire in wires:
            assert wire.ended()
    eventually(lambda: gateway.metric("livegate_handshake_errors_total") == 50)


def test_a_hello_without_its_last_byte_has_no_more_time(secure):
    gateway = secure(stage={"handshake_timeout": "500ms"})
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = gateway.trust().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    with gateway.wire() as wire:
        wire.send(hello[:-1])
        assert wire.ended()
    eventually(lambda: gateway.metric("livegate_handshake_errors_total") == 1)


def test_many_that_stall_keep_nobody_out(secure):
    gateway = secure(stage={"handshake_timeout": "1m"}, **HELLO)
    with contextlib.ExitStack() as stalled:
        for _ in range(500):
            stalled.enter_context(gateway.wire()).send(b"\x16\x03\x01\x02\x00\x01")
        with gateway.connect() as client:
            assert client.asks(action="hello") == "hello"
        assert gateway.request("GET", "/hello").body == b"hello"
    eventually(lambda: gateway.metric("livegate_handshake_errors_total") == 500)


# Ends


def test_an_answer_ends_with_close_notify(secure):
    """RFC 8446 section 6.1: without it a client cannot tell the end from an attack."""
    gateway = secure(**HELLO)
    with gateway.secure_wire() as wire:
        wire.send(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert wire.response().body == b"hello"
        assert wire.rest() == b""


def test_a_socket_ends_with_close_notify(secure):
    gateway = secure(**HELLO)
    with gateway.secure_wire().upgrade() as wire:
        wire.says(action="hello")
        assert wire.message() == "hello"
        wire.send(frame(CLOSE, b"\x03\xe8"))
        assert wire.frame().close[0] == 1000
        assert wire.rest() == b""


def test_a_socket_that_breaks_the_rules_hears_why(secure):
    gateway = secure(stage={"max_frame": "1KiB", "max_message": "1KiB"})
    with gateway.secure_wire().upgrade() as wire:
        wire.send(frame(TEXT, "x" * 500_000))
        assert wire.frame().close[0] == 1009


def test_a_lost_socket_is_told_to_the_backend(secure, backend):
    gateway = secure(routes={"$disconnect": to(backend.at("/disconnect"))})
    with gateway.secure_wire().upgrade() as wire:
        wire.reset()
    assert backend.next("/disconnect").header("X-Livegate-Disconnect-Code") == "1006"


@pytest.mark.parametrize("last_word", ["nothing", "close"])
def test_a_client_that_does_not_read_is_let_go(secure, backend, last_word):
    """The end of a TLS stream takes a write, which must not wait for ever either."""
    gateway = secure(routes={"$disconnect": to(backend.at("/disconnect"))},
                     stage={"outbox": {"bytes": "64KiB", "messages": 1024}, "slow_consumer_timeout": "500ms"})
    with gateway.secure_wire().upgrade() as wire:
        wire.says(action="whoami")
        identity, statuses = wire.message(), set()
        eventually(lambda: statuses.add(gateway.push(identity, "x" * 32_000).status) or 429 in statuses, "a 429")
        if last_word == "close":
            wire.send(close_frame(1000))
        told = backend.next("/disconnect").header("X-Livegate-Disconnect-Code")
        assert told in ("1008", "1000") and statuses == {200, 429}
        assert gateway.metric("livegate_connections_open") == 0


# Where backends are told to push


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_backends_are_told_https(secure, backend, host):
    gateway = secure(routes={
        "$connect": to(backend.at("/connect")), "event": to(backend.at("/event"), payload="event")})
    authority = f"{host}:{gateway.port}"
    with gateway.secure_wire() as wire:
        wire.host = authority
        wire.upgrade()
        told = backend.next("/connect")
        assert told.header("X-Livegate-Callback-Url").startswith(f"https://{authority}/prod/@connections/")
        assert told.header("X-Forwarded-Proto") == "https" and told.header("X-Forwarded-Port") == str(gateway.port)
        wire.says(action="event")
        assert backend.next("/event").json["requestContext"]["domainName"] == authority


def test_a_forged_host_leads_to_the_gateway_all_the_same(secure, backend):
    gateway = secure(routes={"$connect": to(backend.at("/connect"))})
    with gateway.secure_wire() as wire:
        wire.host = "evil.example"
        wire.upgrade()
        assert backend.next("/connect").header("X-Livegate-Callback-Url").startswith(f"{gateway.http_url}/prod/")


def test_a_domain_of_the_api_is_its_own_callback(secure, authority, backend):
    pair = authority.issue("chat.example.com", *NAMES)
    gateway = secure(pair, routes={"$connect": to(backend.at("/connect"))}, api={"domains": ["chat.example.com"]})
    for port, shown in ((":9443", ":9443"), (":443", ""), ("", "")):
        with gateway.secure_wire(name="chat.example.com") as wire:
            wire.host = f"chat.example.com{port}"
            wire.upgrade()
            told = backend.next("/connect").header("X-Livegate-Callback-Url")
            assert told.startswith(f"https://chat.example.com{shown}/prod/@connections/")


def test_the_listener_beside_it_tells_http(secure, backend):
    gateway = secure(gateway={"listen": BOTH}, routes={"$connect": to(backend.at("/connect"))})
    url = next(line for line in gateway.printed if line.startswith("listening on http://")).split()[-1]
    gateway.address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
    with gateway.open():
        told = backend.next("/connect")
        assert told.header("X-Livegate-Callback-Url").startswith(f"{url}/prod/@connections/")
        assert told.header("X-Forwarded-Proto") == "http"


def test_callback_url_may_name_a_proxy_in_front(secure, backend):
    gateway = secure(gateway={"callback_url": "https://push.example.com:443/ws"},
                     routes={"$connect": to(backend.at("/connect"))})
    with gateway.secure_wire() as wire:
        wire.host = "rt.example.com"
        wire.upgrade()
        told = backend.next("/connect").header("X-Livegate-Callback-Url")
        assert told.startswith("https://push.example.com/ws/prod/@connections/")


def test_awss_own_client_pushes_over_tls(secure, authority, backend, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", authority.file)
    gateway = secure(routes={"$connect": to(backend.at("/connect"))}, credentials=BACKEND,
                     connections_api={"authorization": "aws_iam"})
    with gateway.connect() as client:
        endpoint = backend.next("/connect").header("X-Livegate-Callback-Url").split("/@connections")[0]
        assert endpoint == f"{gateway.http_url}/prod"
        api, identity = management(endpoint), client.whoami()
        api.post_to_connection(ConnectionId=identity, Data=b"over TLS")
        assert client.hears() == "over TLS"
        assert api.get_connection(ConnectionId=identity)["Identity"]["SourceIp"] == "127.0.0.1"
        api.delete_connection(ConnectionId=identity)
        assert client.closed() == (1000, "Connection Closed Normally")


def test_pushes_may_come_over_http_2(secure):
    gateway = secure()
    with gateway.connect() as client, httpx.Client(verify=gateway.trust(), http2=True, timeout=PATIENCE) as pusher:
        identity = client.whoami()
        for number in range(20):
            answer = pusher.post(f"{gateway.http_url}/prod/@connections/{identity}", content=f"push {number}")
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert client.hears() == f"push {number}"


@pytest.mark.parametrize("http2", [False, True])
def test_an_http_backend_learns_of_tls(secure, backend, http2):
    gateway = secure(apis=pages({"GET /it": {"integration": backend.at("/it")}}))
    with httpx.Client(verify=gateway.trust(), http2=http2, timeout=PATIENCE) as client:
        assert client.get(f"{gateway.http_url}/it").status_code == 200
    told = backend.next("/it")
    assert told.header("X-Forwarded-Proto") == "https" and told.header("X-Forwarded-Port") == str(gateway.port)
    assert "proto=https" in told.header("Forwarded") and f"host=\"{gateway.host}\"" in told.header("Forwarded")


# Drain


def test_a_drain_tells_sockets_and_ends_with_0(secure, backend):
    gateway = secure(routes={"$disconnect": to(backend.at("/disconnect"))})
    with contextlib.ExitStack() as clients:
        over_http_1 = [clients.enter_context(gateway.connect()) for _ in range(3)]
        over_http_2 = clients.enter_context(gateway.http2())
        stream = over_http_2.open_websocket()
        gateway.signal(signal.SIGTERM)
        assert over_http_2.data(stream) == b"\x88\x0c\x03\xe9Going away"
        over_http_2.send(stream, close_frame(1001))
        assert over_http_2.until(GoAwayFrame).error_code == 0 and over_http_2.ended()
        for client in over_http_1:
            assert client.closed() == (1001, "Going away")
    assert gateway.exit_code() == 0
    assert [backend.next("/disconnect").header("X-Livegate-Disconnect-Code") for _ in range(4)] == ["1001"] * 4


def test_a_drain_says_goaway_and_answers_what_was_asked(secure, backend):
    gateway = secure(apis=pages({"GET /slow": {"integration": backend.at("/slow")}}))
    backend.answer("/slow", 200, "at last")
    with gateway.http2() as busy, gateway.http2() as idle, backend.holding("/slow") as hold:
        stream = busy.ask("GET", "/slow")
        backend.next("/slow")
        gateway.signal(signal.SIGTERM)
        assert idle.until(GoAwayFrame).error_code == 0
        assert busy.until(GoAwayFrame).error_code == 0
        hold.release()
        assert busy.status(stream) == 200 and busy.data(stream) == b"at last"
        assert idle.ended() and busy.ended()
    assert gateway.exit_code() == 0


def test_a_drain_closes_kept_connections(secure):
    gateway = secure(**HELLO)
    with gateway.secure_wire() as wire:
        wire.send(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.response().body == b"hello"
        gateway.signal(signal.SIGTERM)
        assert wire.rest() == b""
    assert gateway.exit_code() == 0


@pytest.mark.parametrize("begun", ["handshake", "http/2"])
def test_a_drain_waits_for_no_stranger_who_says_nothing(secure, begun):
    gateway = secure(stage={"handshake_timeout": "1m"}, **HELLO)
    with gateway.wire() as stalled, gateway.http2() as silent:
        if begun == "handshake":
            silent.socket.close()
            stalled.send(b"\x16\x03\x01\x02\x00\x01")
        else:
            stalled.socket.close()
            # It has been served, and takes no more notice of anything.
            assert silent.status(silent.ask("GET", "/hello")) == 200
        assert gateway.request("GET", "/hello").status == 200
        assert gateway.terminate() == 0
    assert "the drain ended before" not in gateway.logs()


# A browser

PAGE = """<!doctype html><script>
const told = [];
function tell(text) { told.push(text); }
fetch('/hello').then(answer => answer.text()).then(text => {
  tell(`fetch ${text}`);
  const events = new EventSource('/events');
  events.onmessage = event => { tell(`event ${event.data}`); if (event.data === 'two') events.close(); };
  const socket = new WebSocket(`wss://${location.host}/prod`);
  socket.onopen = () => socket.send('{"action":"hello"}');
  socket.onmessage = event => tell(`message ${event.data}`);
  socket.onclose = event => tell(`closed ${event.code}`);
  socket.onerror = () => tell('error');
  window.leave = () => socket.close(1000);
});
</script>"""


class Streaming(http.server.ThreadingHTTPServer):
    """Sends one event, and the second once it may."""

    def __init__(self):
        streaming, self.may_go_on = self, threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b"data: one\n\n")
                streaming.may_go_on.wait(3 * PATIENCE)
                self.wfile.write(b"data: two\n\n")

            def log_message(self, *_):
                pass
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self):
        self.may_go_on.set()
        self.shutdown()
        self.server_close()


@pytest.fixture
def streaming():
    server = Streaming()
    yield server
    server.stop()


def test_a_browser_has_everything_over_one_http_2_connection(secure, backend, streaming, tmp_path):
    backend.answer("/page", 200, PAGE, {"Content-Type": "text/html"})
    backend.answer("/connect", 200, '{"statusCode": 200}')
    routes = {"hello": mock("hello"), "$connect": to(backend.at("/connect"), payload="event")}
    gateway = secure(routes=routes, apis=pages({
        "GET /page": {"integration": backend.at("/page")}, "GET /hello": plain("hello"),
        "GET /events": {"integration": f"http://127.0.0.1:{streaming.server_port}/"}}))
    log = tmp_path / "net-log.json"
    flags = [*FLAGS, "--ignore-certificate-errors", f"--log-net-log={log}", "--net-log-capture-mode=IncludeSensitive"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"https://localhost:{gateway.port}/page")
        heard = "['fetch hello', 'event one', 'message hello'].every(text => told.includes(text))"
        page.wait_for_function(heard)
        streaming.may_go_on.set()
        page.wait_for_function("told.includes('event two')")
        page.evaluate("leave()")
        page.wait_for_function("told.includes('closed 1000')")
        assert "error" not in page.evaluate("told")
        protocols = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.nextHopProtocol)")
        assert protocols and set(protocols) == {"h2"}
        browser.close()
    # RFC 8441: the handshake had no key, and the browser's own notes show an extended CONNECT.
    headers = {name.lower() for name in backend.next("/connect").json["headers"]}
    assert "sec-websocket-version" in headers and "sec-websocket-key" not in headers
    assert re.search(r'":protocol: websocket"', log.read_text())


# What `check` says


def checked(folder, *pairs, tls=None, **gateway):
    (folder / "routes.toml").write_text(chat(gateway=with_tls(*pairs, tls=tls, **gateway)))
    return run("check", cwd=folder)


def test_a_good_table_passes_and_paths_begin_beside_the_file(tmp_path):
    Authority(tmp_path).issue(*NAMES, file="mine")
    for folder in (tmp_path, tmp_path / "authority"):
        folder.mkdir(exist_ok=True)
    (tmp_path / "routes.toml").write_text(chat(gateway={"tls": {
        "certificates": [{"cert": "mine.pem", "key": "mine.key"}], "client_ca": "ca.pem"}}))
    found = run("check", str(tmp_path / "routes.toml"), cwd="/")
    assert (found.returncode, "warning" in found.stdout) == (0, False), found.stdout


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_an_encrypted_key_is_a_problem(tmp_path, authority, form, kind):
    pair = authority.issue(*NAMES, kind=kind, password=b"secret", form=form)
    found = checked(tmp_path, pair)
    assert found.returncode == 1 and "is encrypted" in found.stdout, found.stdout


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_key_may_be_written_in_any_usual_form(secure, authority, form, kind):
    pair = authority.issue(*NAMES, kind=kind, form=form)
    assert secure(pair).shows() == pair.serial


def test_a_missing_file_is_a_problem_with_its_place(tmp_path, authority):
    pair = authority.issue(*NAMES)
    pathlib.Path(pair.key).unlink()
    found = checked(tmp_path, pair)
    assert found.returncode == 1 and re.search(r"routes\.toml:\d+:\d+", found.stdout), found.stdout
    assert f"`{pair.key}` cannot be read" in found.stdout


def test_a_key_of_another_certificate_is_a_problem(tmp_path, authority):
    pair = authority.issue(*NAMES)
    shutil.copy(authority.issue(*NAMES).key, pair.key)
    found = checked(tmp_path, pair)
    assert found.returncode == 1 and "is not that of the first certificate" in found.stdout, found.stdout


@pytest.mark.parametrize("times, word", [
    ({"valid": -DAY / 2}, "has expired"), ({"since": DAY, "valid": 2 * DAY}, "is valid from")])
def test_a_certificate_out_of_its_time_is_a_warning(tmp_path, authority, times, word):
    found = checked(tmp_path, authority.issue(*NAMES, **times))
    assert found.returncode == 0 and "warning" in found.stdout and word in found.stdout, found.stdout


def test_a_certificate_without_a_name_is_a_warning(tmp_path, authority):
    found = checked(tmp_path, authority.issue(subject={"CN": "localhost"}))
    assert found.returncode == 0 and "names no host" in found.stdout, found.stdout


@pytest.mark.parametrize("tls, word", [
    ({"client_auth": "required"}, "client_ca"), ({"client_ca": "none.pem"}, "none.pem"),
    ({"minimum_version": "1.1"}, "1.2"), ({"certificate": []}, "certificates"),
    ({"certificates": []}, "no certificate")])
def test_what_cannot_be_meant_is_a_problem(tmp_path, authority, tls, word):
    found = checked(tmp_path, authority.issue(*NAMES), tls=tls)
    assert found.returncode == 1 and word in found.stdout, found.stdout


def test_an_https_address_needs_the_table(tmp_path):
    (tmp_path / "routes.toml").write_text(chat(gateway={"listen": "https://127.0.0.1:0"}))
    found = run("check", cwd=tmp_path)
    assert found.returncode == 1 and "[gateway.tls]" in found.stdout, found.stdout


def test_every_problem_is_said_at_once_and_no_secret(tmp_path, authority):
    good, locked, lost = authority.issue(*NAMES), authority.issue(*NAMES, password=b"x"), authority.issue(*NAMES)
    pathlib.Path(lost.cert).unlink()
    secret = pathlib.Path(good.key).read_text().splitlines()[1]
    pathlib.Path(good.key).write_text("-----BEGIN PRIVATE KEY-----\n" + secret[:-5] + "!\n-----END PRIVATE KEY-----\n")
    found = checked(tmp_path, good, locked, lost)
    assert found.returncode == 1
    for word in ("is damaged", "is encrypted", "cannot be read"):
        assert word in found.stdout, found.stdout
    assert secret[:20] not in found.stdout + found.stderr


def test_serve_does_not_start_with_a_certificate_that_will_not_do(tmp_path, authority):
    pair = authority.issue(*NAMES)
    pathlib.Path(pair.cert).write_text("")
    (tmp_path / "routes.toml").write_text(chat(gateway=with_tls(pair)))
    started = run("serve", cwd=tmp_path)
    assert started.returncode == 1 and "has no certificate in it" in started.stderr
