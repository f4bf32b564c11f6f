"""What becomes of headers on their way through an HTTP API: those of one hop, those that say who asks, and the rest."""

import re
import signal

import httpx
import pytest
import requests

from backend import PATIENCE
from http_peers import UNAVAILABLE, Client, Door, Task, curl, http_2, mock, pets, refuses
from world import eventually

TRACE = r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}"
PROXY = {"trusted_proxies": ["127.0.0.0/8"]}
# A request's line and headers, with the empty line behind them (AWS's quota).
HEAD = 10_240


@pytest.fixture
def door():
    with Door() as door:
        yield door


@pytest.fixture
def gateway(livegate, door):
    return livegate(pets({"$default": door.at()}))


@pytest.fixture
def behind_a_proxy(livegate, door):
    """The tests themselves are its trusted proxy."""
    return livegate(pets({"$default": door.at()}, gateway=PROXY))


def arrives(gateway, door, *headers, method="GET", path="/", body=b""):
    """The request that the backend gets when a client sends one with these headers."""
    client = Client(gateway).asks(method, path, headers, body)
    caller = door.caller()
    request = caller.request()
    caller.answers(b"", [("Connection", "close")])
    assert client.response().status == 200
    return request


def comes_back(gateway, door, *headers, body=b"body", status="200 OK"):
    """The answer that a client gets when the backend sends one with these headers."""
    client = Client(gateway).asks("GET", "/")
    caller = door.caller()
    caller.request()
    caller.answers(body, headers, status)
    return client.response()


# Headers of one hop


@pytest.mark.parametrize("name, value", [
    ("Connection", "keep-alive"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("TE", "gzip"),
    ("Upgrade", "h2c"),
])
def test_hop_by_hop_headers_of_a_request_are_dropped(gateway, door, name, value):
    request = arrives(gateway, door, (name, value), ("X-Kept", "yes"))
    assert request.header(name) is None and request.header("X-Kept") == "yes"


def test_headers_that_connection_names_are_dropped(gateway, door):
    request = arrives(gateway, door, ("Connection", "X-Secret, keep-alive"), ("Connection", "x-other"),
                      ("X-Secret", "1"), ("X-Other", "2"), ("X-Secrets", "3"))
    assert request.header("X-Secret") is None and request.header("X-Other") is None
    assert request.header("X-Secrets") == "3" and "secret" not in (request.header("Connection") or "").lower()


@pytest.mark.parametrize("options", ["content-length", "keep-alive, Content-Length"])
def test_connection_may_not_name_the_length(gateway, door, options):
    # Without it, the body would be taken for the next request.
    client = Client(gateway).asks("POST", "/", [("Content-Length", "5"), ("Connection", options)], b"hello")
    caller = door.caller()
    assert caller.request().body == b"hello"
    caller.answers(b"fine")
    assert client.response().body == b"fine"


def test_connection_may_not_name_the_encoding(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked"), ("Connection", "transfer-encoding")])
    client.sends_chunk(b"hello")
    client.sends_end()
    assert door.caller().request().body == b"hello"


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "Forwarded", "Via",
                                  "X-Amzn-Trace-Id", "Host"])
def test_connection_may_not_name_who_asks(gateway, door, name):
    request = arrives(gateway, door, ("Connection", f"{name}, close"))
    assert request.header(name)


@pytest.mark.parametrize("name, value", [
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Authenticate", "Basic"),
    ("Proxy-Connection", "close"),
    ("Upgrade", "h2c"),
])
def test_hop_by_hop_headers_of_an_answer_are_dropped(gateway, door, name, value):
    answer = comes_back(gateway, door, (name, value), ("X-Kept", "yes"))
    assert answer.header(name) is None and answer.header("X-Kept") == "yes" and answer.body == b"body"


def test_headers_that_connection_of_an_answer_names_are_dropped(gateway, door):
    answer = comes_back(gateway, door, ("Connection", "X-Secret, Content-Length"), ("X-Secret", "1"), ("X-Kept", "2"))
    assert answer.header("X-Secret") is None and answer.header("X-Kept") == "2"
    assert (answer.header("Content-Length"), answer.body) == ("4", b"body")


def test_close_of_a_backend_is_not_for_the_client(gateway, door):
    client = Client(gateway).asks("GET", "/")
    caller = door.caller()
    caller.request()
    caller.answers(b"1", [("Connection", "close")])
    assert client.response().header("Connection") is None
    client.asks("GET", "/")
    second = door.caller()
    second.request()
    second.answers(b"2")
    assert client.response().body == b"2"


def test_close_of_a_client_is_not_for_the_backend(gateway, door):
    client = Client(gateway).asks("GET", "/", [("Connection", "close")])
    caller = door.caller()
    assert caller.request().header("Connection") is None
    caller.answers(b"1")
    assert client.response().header("Connection") == "close" and client.ended()
    other = Client(gateway).asks("GET", "/")
    caller.request()
    caller.answers(b"2")
    assert other.response().body == b"2"


# Whom the backend hears of


def test_the_backend_is_asked_under_its_own_name(gateway, door):
    assert arrives(gateway, door).header("Host") == door.authority


def test_a_pool_is_asked_under_its_name(livegate, door):
    gateway = livegate(pets({"$default": "http://animals/"}, backends={"animals": {"servers": door.authority}}))
    assert arrives(gateway, door).header("Host") == "animals"


def test_via_tells_of_the_gateway(gateway, door):
    assert arrives(gateway, door).header("Via") == "HTTP/1.1 AmazonAPIGateway"


def test_via_stands_behind_that_of_earlier_proxies(gateway, door):
    assert arrives(gateway, door, ("Via", "1.0 fred")).header("Via") == "1.0 fred, HTTP/1.1 AmazonAPIGateway"


def test_the_way_of_a_request_is_told_in_both_kinds(gateway, door):
    request = arrives(gateway, door)
    assert request.header("X-Forwarded-For") == "127.0.0.1"
    assert request.header("X-Forwarded-Proto") == "http"
    assert request.header("X-Forwarded-Port") == str(gateway.port)
    assert request.header("Forwarded") == f'by=127.0.0.1;for=127.0.0.1;host="{gateway.host}";proto=http'


SPOOFED = [
    ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Host", "bank.example"), ("X-Forwarded-Prefix", "/admin"), ("X-Forwarded-Server", "inside"),
    ("X_Forwarded_For", "203.0.113.8"), ("Forwarded", "for=203.0.113.9;proto=https"),
]


def test_strangers_say_nothing_about_their_way(gateway, door):
    request = arrives(gateway, door, *SPOOFED)
    assert request.header("X-Forwarded-For") == "127.0.0.1"
    assert request.header("X-Forwarded-Proto") == "http"
    assert request.header("X-Forwarded-Port") == str(gateway.port)
    assert "203.0.113" not in str(request.headers) and "bank" not in str(request.headers)
    assert not {"x-forwarded-prefix", "x-forwarded-server", "x_forwarded_for"} & set(request.names)


def test_a_trusted_proxy_is_believed_and_added(behind_a_proxy, door):
    request = arrives(behind_a_proxy, door, ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"),
                      ("X-Forwarded-Port", "8443"))
    assert request.header("X-Forwarded-For") == "203.0.113.7, 127.0.0.1"
    assert request.header("X-Forwarded-Proto") == "https"
    assert request.header("X-Forwarded-Port") == "8443"
    first, last = request.header("Forwarded").split(", ")
    assert first == "for=203.0.113.7;proto=https"
    assert last == f'by=127.0.0.1;for=127.0.0.1;host="{behind_a_proxy.host}";proto=http'


def test_forwarded_of_a_trusted_proxy_is_believed_and_extended(behind_a_proxy, door):
    request = arrives(behind_a_proxy, door, ("Forwarded", 'for="[2001:db8::1]:4711";proto=https'))
    assert request.header("X-Forwarded-For") == "2001:db8::1, 127.0.0.1"
    assert request.header("X-Forwarded-Proto") == "https"
    assert request.header("Forwarded").startswith('for="[2001:db8::1]:4711";proto=https, by=127.0.0.1;for=127.0.0.1;')


def test_addresses_are_believed_from_the_end(livegate):
    # What the client itself wrote stands in front of what the proxy added.
    gateway = livegate(pets({"$default": mock("${context.identity.sourceIp}")}, gateway=PROXY))
    said = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7, 127.0.0.9"}
    assert gateway.request("GET", "/", headers=said).body == b"203.0.113.7"
    assert gateway.request("GET", "/").body == b"127.0.0.1"


def test_strangers_addresses_do_not_count(livegate):
    gateway = livegate(pets({"$default": mock("${context.identity.sourceIp}")}))
    assert gateway.request("GET", "/", headers={"X-Forwarded-For": "203.0.113.7"}).body == b"127.0.0.1"


def test_no_client_sets_headers_of_the_gateway(gateway, door):
    request = arrives(gateway, door, ("X-Livegate-Authorizer-Sub", "root"), ("x-livegate-api", "other"),
                      ("X_Livegate_Connection_Id", "me"), ("X-Livegat", "kept"))
    assert request.header("X-Livegat") == "kept"
    for name in ("X-Livegate-Authorizer-Sub", "X_Livegate_Connection_Id"):
        assert request.header(name) is None
    assert request.header("X-Livegate-Api") in (None, "pets")


def test_a_trace_id_is_added(gateway, door):
    first, second = (arrives(gateway, door).header("X-Amzn-Trace-Id") for _ in range(2))
    assert re.fullmatch(TRACE, first) and re.fullmatch(TRACE, second) and first != second


def test_a_clients_trace_id_is_kept(gateway, door):
    trace = "Root=1-67891233-abcdef012345678912345678;Parent=463ac35c9f6413ad;Sampled=1"
    assert arrives(gateway, door, ("X-Amzn-Trace-Id", trace)).header("X-Amzn-Trace-Id") == trace


# The rest


def test_other_headers_go_both_ways_as_they_are(gateway, door):
    sent = [("User-Agent", "me"), ("Accept", "*/*"), ("Cookie", "a=1; b=2"), ("Authorization", "Basic eDp5"),
            ("X-Empty", ""), ("X-Latin", "caf\xe9"), ("Content-Type", "text/odd;charset=x"), ("If-None-Match", '"1"'),
            ("Origin", "https://app.example.com"), ("Range", "bytes=0-1")]
    request = arrives(gateway, door, *sent)
    for name, value in sent:
        assert request.header(name) == value, name


def test_headers_of_an_answer_come_back_as_they_are(gateway, door):
    sent = [("Server", "mine"), ("Date", "Sat, 01 Jan 2000 00:00:00 GMT"), ("ETag", '"1"'), ("X-Empty", ""),
            ("X-Latin", "caf\xe9"), ("Cache-Control", "no-store"), ("Content-Type", "text/odd")]
    answer = comes_back(gateway, door, *sent)
    for name, value in sent:
        assert answer.header(name) == value, name
    assert not [name for name, _ in answer.headers if name.lower().startswith("x-amz")]
    assert re.fullmatch(r"[A-Za-z0-9_-]{15}=", answer.header("apigw-requestid"))


def test_nothing_is_added_that_names_the_gateway(gateway, door):
    assert comes_back(gateway, door).header("Server") is None


def test_an_answers_date_stands_there_once(gateway, door):
    answer = comes_back(gateway, door, ("Date", "Sat, 01 Jan 2000 00:00:00 GMT"))
    assert [value for name, value in answer.headers if name.lower() == "date"] == ["Sat, 01 Jan 2000 00:00:00 GMT"]


def test_a_backends_request_id_is_not_the_gateways(gateway, door):
    answer = comes_back(gateway, door, ("Apigw-Requestid", "spoofed"))
    assert "spoofed" not in answer.header("apigw-requestid")


def test_headers_that_stand_twice_stay_two(gateway, door):
    request = arrives(gateway, door, ("X-Twice", "1"), ("X-Twice", "2"))
    assert [value for name, value in request.headers if name.lower() == "x-twice"] == ["1", "2"]


@pytest.mark.parametrize("client", ["raw", "requests", "httpx", "http2"])
def test_two_cookies_are_set(gateway, door, client):
    cookies = ["a=1; Path=/; HttpOnly", "b=2, with a comma"]
    if client == "http2":
        with http_2(gateway) as connection:
            stream = connection.asks("GET", "/")
            caller = door.caller()
            caller.request()
            caller.answers(b"", [("Set-Cookie", cookie) for cookie in cookies])
            connection.answered(stream)
            assert [value for name, value in stream.headers if name == "set-cookie"] == cookies
        return
    url = gateway.http_url + "/"
    get = {"raw": lambda: gateway.request("GET", "/"), "requests": lambda: requests.get(url, timeout=PATIENCE),
           "httpx": lambda: httpx.get(url, timeout=PATIENCE, trust_env=False)}
    got = Task(get[client])
    caller = door.caller()
    caller.request()
    caller.answers(b"", [("Set-Cookie", cookie) for cookie in cookies])
    answer = got.outcome()
    if client == "raw":
        assert [value for name, value in answer.headers if name.lower() == "set-cookie"] == cookies
    elif client == "requests":
        assert answer.raw.headers.getlist("set-cookie") == cookies
    else:
        assert answer.headers.get_list("set-cookie") == cookies


def test_cookies_of_http_2_become_one_header(gateway, door):
    # RFC 9113 section 8.2.3: HTTP/2 clients may split them.
    with http_2(gateway) as client:
        client.asks("GET", "/", [("cookie", "a=1"), ("cookie", "b=2")])
        request = door.caller().request()
        assert [value for name, value in request.headers if name.lower() == "cookie"] == ["a=1; b=2"]


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!",
    b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody",
    b"HTTP/1.1 200 OK\r\nX-Bad\x00: 1\r\nContent-Length: 0\r\n\r\n",
    b"HELLO\r\n\r\n",
    b"\r\n\r\n\r\n",
])
def test_an_answer_that_is_no_http_is_503(gateway, door, answer):
    client = Client(gateway).asks("GET", "/")
    caller = door.caller()
    caller.request()
    caller.send(answer)
    caller.socket.close()
    got = client.response()
    assert (got.status, got.body) in [UNAVAILABLE, (500, b'{"message":"Internal Server Error"}')]


@pytest.mark.parametrize("head", [
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n X-Folded: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Bad: \x01\r\n\r\n",
])
def test_what_could_be_read_in_two_ways_reaches_no_backend(gateway, door, head):
    client = Client(gateway)
    client.send(head)
    assert client.answer_head().status == 400
    assert door.nobody_else_called()


def test_a_length_beside_chunks_is_not_passed_on(gateway, door):
    client = Client(gateway)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5\r\nhello\r\n0\r\n\r\n")
    caller = door.caller()
    request = caller.request()
    assert request.body == b"hello" and request.header("Content-Length") is None
    caller.answers(b"fine")
    # RFC 9112 section 6.1: whoever stands in between may have believed the other.
    answer = client.response()
    assert answer.body == b"fine" and answer.header("Connection") == "close" and client.ended()


# What is too much


def head_of(gateway, size):
    """A request of which the head has exactly so many bytes, in some lines."""
    lines = f"GET / HTTP/1.1\r\nHost: {gateway.host}\r\n"
    while size - len(lines) - 2 > 2000:
        lines += f"X-Fill: {'x' * 990}\r\n"
    lines += "X-Last: "
    return (lines + "y" * (size - len(lines) - 4) + "\r\n\r\n").encode()


def test_10240_bytes_of_head_are_taken(gateway, door):
    client = Client(gateway)
    client.send(head_of(gateway, HEAD))
    caller = door.caller()
    caller.request()
    caller.answers(b"fine")
    assert client.response().body == b"fine"


def test_more_than_10240_bytes_of_head_are_431(gateway, door):
    client = Client(gateway)
    client.send(head_of(gateway, HEAD + 1))
    assert client.answer_head().status == 431 and door.nobody_else_called()


@pytest.mark.parametrize("name", ["requests", "curl"])
def test_clients_see_the_431(gateway, name):
    if name == "curl":
        assert curl("-o", "/dev/null", "-w", "%{http_code}", "-H", "X-Fill: " + "x" * 12_000, gateway.http_url) == "431"
    else:
        assert requests.get(gateway.http_url, headers={"X-Fill": "x" * 12_000}, timeout=PATIENCE).status_code == 431


def test_many_bytes_of_head_are_431_over_http_2(gateway, door):
    with http_2(gateway) as client:
        stream = client.asks("GET", "/", [(f"x-fill-{number}", "x" * 1000) for number in range(17)])
        client.answered(stream)
        assert stream.status == 431 and door.nobody_else_called()
        # The connection is none the worse.
        stream = client.asks("GET", "/")
        caller = door.caller()
        caller.request()
        caller.answers(b"fine")
        assert client.answered(stream).data == b"fine"


@pytest.mark.parametrize("target", ["/" + "a" * 8000, "/a?" + "b" * 8000])
def test_a_long_url_is_taken_as_long_as_the_head_is(gateway, door, target):
    client = Client(gateway).asks("GET", target)
    caller = door.caller()
    assert caller.request().target == target
    caller.answers(b"fine")
    assert client.response().body == b"fine"
    with http_2(gateway) as client:
        stream = client.asks("GET", target)
        assert caller.request().target == target
        caller.answers(b"fine")
        assert client.answered(stream).data == b"fine"


# Drain


def test_drain_lets_a_request_in_flight_finish(livegate, door):
    gateway = livegate(pets({"$default": door.at()}))
    client = Client(gateway).asks("GET", "/")
    caller = door.caller()
    caller.request()
    gateway.signal(signal.SIGTERM)
    eventually(lambda: refuses(gateway), "no more connections")
    caller.answers(b"in time")
    answer = client.response()
    assert (answer.status, answer.body, answer.header("Connection")) == (200, b"in time", "close")
    assert client.ended() and gateway.exit_code() == 0


def test_operators_are_answered_while_a_drain_waits(livegate, door):
    # A probe of /healthz that fails has the gateway killed in the middle of its drain.
    gateway = livegate(pets({"$default": door.at()}))
    client = Client(gateway).asks("GET", "/")
    caller = door.caller()
    caller.request()
    gateway.signal(signal.SIGTERM)
    eventually(lambda: refuses(gateway), "no more connections")
    for _ in range(20):
        assert [gateway.admin(path).status for path in ("/healthz", "/readyz", "/metrics")] == [200, 503, 200]
    caller.answers(b"in time")
    assert client.response().body == b"in time" and gateway.exit_code() == 0


def test_drain_lets_a_stream_finish(livegate, door):
    gateway = livegate(pets({"$default": door.at()}))
    client = Client(gateway).asks("GET", "/")
    caller = door.caller()
    caller.request()
    caller.begins()
    caller.sends_chunk(b"one")
    assert client.answer_head().status == 200 and client.chunk() == b"one"
    gateway.signal(signal.SIGTERM)
    eventually(lambda: refuses(gateway), "no more connections")
    caller.sends_chunk(b"two")
    assert client.chunk() == b"two"
    caller.sends_end()
    assert client.chunks() == (b"", []) and client.ended() and gateway.exit_code() == 0


def test_drain_lets_an_upload_finish(livegate, door):
    gateway = livegate(pets({"$default": door.at()}))
    client = Client(gateway).asks("POST", "/", [("Content-Length", "10")], b"hello")
    caller = door.caller()
    caller.request_head()
    assert caller.takes(5) == b"hello"
    gateway.signal(signal.SIGTERM)
    eventually(lambda: refuses(gateway), "no more connections")
    client.send(b"world")
    assert caller.takes(5) == b"world"
    caller.answers(b"taken")
    assert client.response().body == b"taken" and gateway.exit_code() == 0


def test_drain_closes_connections_that_wait(livegate):
    gateway = livegate(pets({"$default": mock("here")}))
    client = Client(gateway).asks("GET", "/")
    assert client.response().body == b"here"
    gateway.signal(signal.SIGTERM)
    assert client.ended() and gateway.exit_code() == 0


def test_drain_ends_in_time_with_a_stream_that_does_not(livegate, door):
    gateway = livegate(pets({"$default": door.at()}, gateway={"drain_timeout": "1s"}))
    client = Client(gateway).asks("GET", "/")
    caller = door.caller()
    caller.request()
    caller.begins()
    assert client.answer_head().status == 200
    gateway.signal(signal.SIGTERM)
    assert gateway.exit_code() == 0
    # Nobody may take what came for the whole answer.
    with pytest.raises(EOFError):
        client.chunk()
