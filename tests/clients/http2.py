"""HTTP/2 from clients and to backends, and connections that are upgraded: by HTTP/1.1, and as streams (RFC 8441)."""

import re
import signal
import subprocess
import threading

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from backend import PATIENCE, Answer
from http_peers import (
    MIB, UNAVAILABLE, Client, Door, StreamSocket, Task, broken, curl, http_2, mock, most_memory, pets, self_signed, to)
from wire import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame, handshake
from world import ID, chat, eventually

UPGRADE = {"upgrade": True}


@pytest.fixture
def door():
    with Door() as door:
        yield door


@pytest.fixture
def gateway(livegate, door):
    return livegate(pets({"$default": door.at()}))


@pytest.fixture
def certificate(tmp_path):
    return self_signed(tmp_path / "certificates")


@pytest.fixture
def secure(livegate, backend, certificate):
    """A gateway that speaks TLS; it leads to `backend`."""
    gateway = livegate(pets({"$default": backend.at("/")}, gateway={
        "tls": {"certificates": [{"cert": certificate.cert, "key": certificate.key}]}}))
    assert gateway.http_url.startswith("https://")
    return gateway


def to_http_2(livegate, door, stage=None, **pool):
    """A gateway whose backend speaks HTTP/2."""
    return livegate(pets({"$default": "http://animals/"}, stage=stage,
                         backends={"animals": {"servers": door.authority, "http2": True, **pool}}))


# Clients


def test_curl_by_prior_knowledge(livegate, backend):
    gateway = livegate(pets({"$default": backend.at("/")}))
    backend.answers("/", lambda request: Answer(body=request.body))
    printed = curl("--http2-prior-knowledge", "-d", "hello", "-w", " %{http_version}", gateway.http_url + "/")
    assert printed == "hello 2"


def test_curl_over_tls(secure, backend, certificate):
    backend.answer("/", 200, "hello")
    for version, wanted in (("--http2", "2"), ("--http1.1", "1.1")):
        printed = curl(version, "--cacert", certificate.cert, "-w", " %{http_version}", secure.http_url + "/")
        assert printed == f"hello {wanted}"


def test_httpx_over_tls(secure, backend, certificate):
    backend.answers("/", lambda request: Answer(body=request.body, headers={"X-Answer": "yes"}))
    with httpx.Client(http2=True, verify=certificate.client, timeout=PATIENCE, trust_env=False) as client:
        for number in range(20):
            answer = client.post(secure.http_url + "/", content=b"%d" % number)
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert answer.content == b"%d" % number and answer.headers["x-answer"] == "yes"
    request = backend.next("/")
    assert request.header("X-Forwarded-Proto") == "https"
    assert request.header("X-Forwarded-Port") == str(secure.port)
    assert request.header("Forwarded").endswith(";proto=https")


def test_alpn_chooses(secure, certificate):
    with http_2(secure, tls=certificate.client) as client:
        assert client.answered(client.asks("GET", "/", scheme="https")).status == 200


@pytest.mark.parametrize("body", ["mock", "backend"])
def test_h2load_sees_no_error(livegate, backend, body):
    routes = {"mock": mock("hello"), "backend": backend.at("/")}
    gateway = livegate(pets({"$default": routes[body]}))
    backend.answer("/", 200, "hello")
    requests = 5000 if body == "mock" else 2000
    done = subprocess.run(["h2load", "-n", str(requests), "-c", "4", "-m", "50", "-t", "1", gateway.http_url + "/"],
                          capture_output=True, text=True, timeout=60)
    assert f"{requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done.stdout
    assert f"status codes: {requests} 2xx" in done.stdout
    assert gateway.metric("livegate_requests_total", api="pets", status="2xx") == requests


def test_nghttp_uploads_and_downloads(livegate, backend, tmp_path):
    gateway = livegate(pets({"$default": backend.at("/")}))
    backend.answers("/", lambda request: Answer(body=request.body))
    (tmp_path / "body").write_bytes(b"0123456789" * 100_000)
    done = subprocess.run(["nghttp", "-d", str(tmp_path / "body"), gateway.http_url + "/"],
                          capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stdout == (tmp_path / "body").read_bytes(), done.stderr


def test_headers_of_a_stream_become_those_of_a_request(gateway, door):
    with http_2(gateway) as client:
        stream = client.asks("GET", "/a/b?c=d", [("x-one", "1"), ("accept", "*/*")], authority=gateway.host)
        caller = door.caller()
        request = caller.request()
        assert request.target == "/a/b?c=d"
        assert (request.header("X-One"), request.header("Accept")) == ("1", "*/*")
        assert request.header("Host") == door.authority
        assert request.header("Via").endswith(" AmazonAPIGateway")
        assert request.header("Forwarded") == f'by=127.0.0.1;for=127.0.0.1;host="{gateway.host}";proto=http'
        assert not [name for name in request.names if name.startswith(":")]
        caller.answers(b"body", [("X-Two", "2"), ("Connection", "X-Gone"), ("X-Gone", "1"), ("Keep-Alive", "1")])
        client.answered(stream)
        assert (stream.status, stream.data, stream.header("x-two")) == (200, b"body", "2")
        for name in ("connection", "keep-alive", "x-gone", "transfer-encoding"):
            assert stream.header(name) is None
        assert len(stream.header("apigw-requestid")) == 16


def test_what_is_no_route_is_404(livegate, door):
    gateway = livegate(pets({"GET /pets": door.at()}))
    with http_2(gateway) as client:
        stream = client.answered(client.asks("GET", "/nowhere"))
        assert (stream.status, stream.data) == (404, b'{"message":"Not Found"}')


@pytest.mark.parametrize("headers", [
    [("connection", "x-a")], [("transfer-encoding", "chunked")], [("X-Upper", "1")], [("te", "gzip")],
    [(":odd", "1")], [("x-line", "a\r\nb: c")],
])
def test_headers_that_http_2_forbids_reach_no_backend(gateway, door, headers):
    # RFC 9113 section 8.2: such a request is malformed.
    with http_2(gateway) as client:
        stream = client.asks("GET", "/", headers)
        client.until(lambda: stream.reset is not None or stream.headers or client.goodbye)
        assert stream.reset is not None or client.goodbye or stream.status == 400
    assert door.nobody_else_called()


def test_a_body_longer_than_its_length_breaks_the_request(gateway, door):
    # RFC 9113 section 8.1.1.
    with http_2(gateway) as client:
        stream = client.asks("POST", "/", [("content-length", "3")], end=False)
        caller = door.caller()
        caller.request_head()
        client.send_data(stream, b"hello", end=True)
        client.until(lambda: stream.reset is not None or stream.headers or client.goodbye)
        assert stream.reset is not None or client.goodbye or stream.status >= 400
        assert broken(caller.takes, 5)


# Many streams


def test_many_streams_are_answered_at_once(livegate, backend):
    gateway = livegate(pets({"ANY /{proxy+}": backend.at("/held")}))
    backend.answers("/held", lambda request: Answer(body=request.query))
    with http_2(gateway) as client, backend.holding("/held") as hold:
        streams = [client.asks("GET", f"/?{number}") for number in range(200)]
        backend.wait_for("/held", 200)
        assert backend.most_at_once["/held"] == 200
        hold.release()
        for number, stream in enumerate(streams):
            assert client.answered(stream).data == b"%d" % number


def test_streams_end_in_any_order(gateway, door):
    with http_2(gateway) as client:
        streams = {f"/{number}": client.asks("GET", f"/{number}") for number in range(5)}
        callers = {}
        for _ in streams:
            caller = door.caller()
            callers[caller.request().path] = caller
        for path in reversed(streams):
            callers[path].answers(path.encode())
            assert client.answered(streams[path]).data == path.encode()
            assert sum(stream.is_over for stream in streams.values()) == 5 - int(path[1:])


def test_uploads_of_two_streams_mix(gateway, door):
    with http_2(gateway) as client:
        streams = {path: client.asks("POST", path, end=False) for path in ("/1", "/2")}
        callers = {}
        for _ in streams:
            caller = door.caller()
            callers[caller.request_head().path] = caller
        for piece in (b"a", b"b", b"c"):
            for path, stream in streams.items():
                client.send_data(stream, piece, end=piece == b"c")
                assert callers[path].chunk() == piece
        for path, stream in streams.items():
            assert callers[path].chunk() == b""
            callers[path].answers(path.encode())
            assert client.answered(stream).data == path.encode()


# Flow control


def test_a_slow_reader_holds_its_stream_back_and_no_other(gateway, door):
    with http_2(gateway, acknowledges=False) as client:
        # Room on the connection, so that only the stream's own window is full.
        client.connection.increment_flow_control_window(MIB)
        client.flush()
        slow = client.asks("GET", "/slow")
        caller = door.caller()
        caller.request()
        before, size = most_memory(gateway.process), 64 * MIB
        caller.lines("HTTP/1.1 200 OK", [("Content-Length", str(size)), ("Connection", "close")])
        sending = Task(caller.send, bytes(size))
        client.until(lambda: len(slow.data) == 65_535)
        quick = client.asks("GET", "/quick")
        second = door.caller()
        second.request()
        second.answers(b"quick")
        assert client.answered(quick).data == b"quick"
        client.pings()
        assert len(slow.data) == 65_535
        # Most of it is still with the backend, not in the gateway.
        assert most_memory(gateway.process) - before < size // 2
        client.acknowledge(slow)
        client.until(lambda: len(slow.data) > 65_535)
        client.reset_stream(slow)
        assert broken(sending.outcome)


def test_a_slow_reader_gets_everything(gateway, door):
    with http_2(gateway, acknowledges=False) as client:
        stream = client.asks("GET", "/")
        caller = door.caller()
        caller.request()
        whole = b"".join(b"%07d\n" % number for number in range(MIB // 8))
        sending = Task(caller.answers, whole)
        while not stream.is_over:
            client.until(lambda: stream.owed >= 32_768 or stream.is_over)
            if not stream.is_over:
                client.acknowledge(stream)
        sending.outcome()
        assert stream.data == whole


def test_a_slow_backend_holds_an_upload_back(livegate, door):
    gateway = livegate(pets({"$default": door.at()}, stage={"max_body": "none"}))
    size = 64 * MIB
    with http_2(gateway) as client:
        upload = client.asks("POST", "/", [("content-length", str(size))], end=False)
        caller = door.caller()
        caller.request_head()
        # Nobody reads it at the backend: what is on the way, in sockets above all, is bounded.
        sent = 0
        while sent < size // 2 and (room := client.room_after_a_ping(upload)):
            client.send_data(upload, bytes(room))
            sent += room
        assert sent < size // 2
        rest = Task(caller.gulps, size)
        client.send_data(upload, bytes(size - sent), end=True)
        rest.outcome()
        caller.answers(b"taken")
        assert client.answered(upload).data == b"taken"


# Drain


def test_goaway_on_drain_and_what_is_in_flight_finishes(livegate, door):
    gateway = livegate(pets({"$default": door.at()}))
    with http_2(gateway) as client:
        stream = client.asks("GET", "/")
        caller = door.caller()
        caller.request()
        caller.begins()
        caller.sends_chunk(b"one")
        client.until(lambda: stream.data == b"one")
        gateway.signal(signal.SIGTERM)
        client.until(lambda: client.goodbye)
        assert client.goodbye.error_code == 0
        caller.sends_chunk(b"two")
        caller.sends_end()
        client.until(lambda: stream.is_over)
        assert stream.data == b"onetwo" and stream.reset is None
        assert client.ended()
    assert gateway.exit_code() == 0


def test_goaway_on_drain_for_an_idle_connection(livegate):
    gateway = livegate(pets({"$default": mock("here")}))
    with http_2(gateway) as client:
        assert client.answered(client.asks("GET", "/")).data == b"here"
        gateway.signal(signal.SIGTERM)
        assert client.ended() and client.goodbye.error_code == 0
    assert gateway.exit_code() == 0


# HTTP/2 to backends


def test_a_backend_is_spoken_to_in_http_2(livegate, door):
    gateway = to_http_2(livegate, door)
    client = Client(gateway).asks("POST", "/a?b=c", [("Content-Length", "5"), ("X-One", "1"), ("Connection", "x-gone"),
                                                     ("X-Gone", "1")], b"hello")
    caller = door.caller_http_2()
    stream = caller.request()
    assert (stream.header(":method"), stream.header(":path"), stream.data) == ("POST", "/a?b=c", b"hello")
    assert (stream.header(":scheme"), stream.header(":authority")) == ("http", "animals")
    assert stream.header("x-one") == "1" and stream.header("x-forwarded-for") == "127.0.0.1"
    for name in ("host", "connection", "x-gone", "transfer-encoding", "upgrade", "te"):
        assert stream.header(name) is None
    caller.answers(stream, b"answer", [("x-two", "2"), ("set-cookie", "a=1"), ("set-cookie", "b=2")])
    answer = client.response()
    assert (answer.status, answer.body, answer.header("X-Two")) == (200, b"answer", "2")
    assert [value for name, value in answer.headers if name.lower() == "set-cookie"] == ["a=1", "b=2"]


def test_calls_share_a_connection_to_an_http_2_backend(livegate, door):
    gateway = to_http_2(livegate, door)
    clients = [Client(gateway).asks("GET", "/0")]
    caller = door.caller_http_2()
    streams = [caller.request()]
    for number in range(1, 20):
        clients.append(Client(gateway).asks("GET", f"/{number}"))
        streams.append(caller.request())
    for stream in reversed(streams):
        caller.answers(stream, stream.header(":path").encode())
    assert [client.response().body for client in clients] == [b"/%d" % number for number in range(20)]
    assert door.nobody_else_called()


def test_an_http_2_backend_over_tls(livegate, door, certificate):
    gateway = livegate(pets({"$default": "https://animals/"}, backends={
        "animals": {"servers": door.authority, "http2": True, "tls": {"ca": certificate.cert}}}))
    client = Client(gateway).asks("GET", "/")
    caller = door.caller_http_2(certificate.server)
    stream = caller.request()
    assert (stream.header(":scheme"), stream.header(":authority")) == ("https", "animals")
    caller.answers(stream, b"secure")
    assert client.response().body == b"secure"


def test_bodies_flow_to_and_from_an_http_2_backend(livegate, door):
    gateway = to_http_2(livegate, door)
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked")])
    client.sends_chunk(b"0")
    caller = door.caller_http_2()
    stream = caller.request_head()
    caller.until(lambda: stream.data == b"0")
    caller.send_headers(stream, [(":status", "200")])
    assert client.answer_head().status == 200
    for number in (b"1", b"2", b"3"):
        client.sends_chunk(number)
        caller.until(lambda: stream.data.endswith(number))
        caller.send_data(stream, number)
        assert client.chunk() == number
    client.sends_end()
    caller.until(lambda: stream.is_over)
    caller.send_data(stream, b"", end=True)
    assert client.chunk() == b""


def test_trailers_go_both_ways_through_http_2_alone(livegate, door):
    # As gRPC does it: nobody announces them.
    gateway = to_http_2(livegate, door)
    with http_2(gateway) as client:
        headers = [("te", "trailers"), ("content-type", "application/grpc")]
        call = client.asks("POST", "/pets.Pets/Get", headers, b"\0\0\0\0\0", end=False)
        caller = door.caller_http_2()
        stream = caller.request_head()
        assert stream.header("te") == "trailers"
        client.send_headers(call, [("x-sum", "42")], end=True)
        caller.until(lambda: stream.is_over)
        assert ("x-sum", "42") in stream.trailers
        caller.answers(stream, b"\0\0\0\0\0", [("content-type", "application/grpc")], trailers=[("grpc-status", "0")])
        client.answered(call)
        assert call.data == b"\0\0\0\0\0" and ("grpc-status", "0") in call.trailers


def test_an_answer_of_trailers_alone_arrives(livegate, door):
    gateway = to_http_2(livegate, door)
    with http_2(gateway) as client:
        call = client.asks("POST", "/", [("te", "trailers")])
        caller = door.caller_http_2()
        stream = caller.request()
        caller.answers(stream, headers=[("grpc-status", "5")])
        client.answered(call)
        assert call.header("grpc-status") == "5" and call.is_over


def test_early_hints_of_an_http_2_backend_are_dropped(livegate, door):
    gateway = to_http_2(livegate, door)
    client = Client(gateway).asks("GET", "/")
    caller = door.caller_http_2()
    stream = caller.request()
    caller.send_headers(stream, [(":status", "103"), ("link", "</a>; rel=preload")])
    caller.answers(stream, b"the answer")
    answer = client.response()
    assert (answer.status, answer.body, answer.header("Link")) == (200, b"the answer", None)


def test_goaway_of_a_backend_costs_nothing(livegate, door):
    gateway = to_http_2(livegate, door)
    for number in range(3):
        client = Client(gateway).asks("POST", "/", [("Content-Length", "1")], b"x")
        caller = door.caller_http_2()
        stream = caller.request()
        caller.says_goodbye(stream)
        caller.answers(stream, b"%d" % number)
        assert client.response().body == b"%d" % number
        # The gateway has read the GOAWAY when it ends the connection.
        assert caller.ended()


def test_a_reset_of_a_backends_stream_is_503(livegate, door):
    gateway = to_http_2(livegate, door)
    client = Client(gateway).asks("POST", "/")
    caller = door.caller_http_2()
    caller.reset_stream(caller.request(), code=2)
    answer = client.response()
    assert (answer.status, answer.body) == UNAVAILABLE
    client.asks("GET", "/")
    caller.answers(caller.request(), b"fine")
    assert client.response().body == b"fine"


def test_a_reset_in_the_midst_of_an_answer_breaks_it(livegate, door):
    gateway = to_http_2(livegate, door)
    client = Client(gateway).asks("GET", "/")
    caller = door.caller_http_2()
    stream = caller.request()
    caller.send_headers(stream, [(":status", "200")])
    caller.send_data(stream, b"half")
    assert client.answer_head().status == 200 and client.chunk() == b"half"
    caller.reset_stream(stream, code=2)
    assert broken(client.chunk)


def test_a_client_that_leaves_resets_the_backends_stream_and_no_other(livegate, door):
    gateway = to_http_2(livegate, door)
    leaving = Client(gateway).asks("GET", "/leaving")
    caller = door.caller_http_2()
    left = caller.request()
    staying = Client(gateway).asks("GET", "/staying")
    kept = caller.request()
    leaving.socket.close()
    caller.until(lambda: left.reset is not None)
    caller.answers(kept, b"still here")
    assert staying.response().body == b"still here"


def test_a_silent_http_2_backend_is_503(livegate, door):
    gateway = livegate(pets({"$default": to("http://animals/", timeout="100ms")},
                            backends={"animals": {"servers": door.authority, "http2": True}}))
    client = Client(gateway).asks("GET", "/")
    caller = door.caller_http_2()
    stream = caller.request()
    answer = client.response()
    assert (answer.status, answer.body) == UNAVAILABLE
    caller.until(lambda: stream.reset is not None)


def test_a_long_answer_of_an_http_2_backend(livegate, door):
    gateway = to_http_2(livegate, door)
    got = Task(gateway.request, "GET", "/")
    caller = door.caller_http_2()
    whole = b"".join(b"%07d\n" % number for number in range(MIB // 2))
    caller.answers(caller.request(), whole)
    assert got.outcome().body == whole


def test_a_backend_that_does_not_speak_http_2_is_503(livegate, door):
    gateway = to_http_2(livegate, door)
    client = Client(gateway).asks("POST", "/")
    caller = door.caller()
    assert caller.head() == ("PRI * HTTP/2.0", [])
    caller.answers(b"what?", status="400 Bad Request")
    caller.socket.close()
    answer = client.response()
    assert (answer.status, answer.body) == UNAVAILABLE


def test_a_backend_may_take_few_streams_at_a_time(livegate, door):
    gateway = to_http_2(livegate, door)
    first = Client(gateway).asks("GET", "/0")
    caller = door.caller_http_2()
    caller.connection.update_settings({3: 1})  # MAX_CONCURRENT_STREAMS
    caller.flush()
    stream = caller.request()
    caller.until(lambda: caller.connection.local_settings.max_concurrent_streams == 1)
    second = Client(gateway).asks("GET", "/1")
    caller.answers(stream, b"0")
    assert first.response().body == b"0"
    caller.answers(caller.request(), b"1")
    assert second.response().body == b"1"


# WebSockets as streams: a managed API


def test_a_managed_websocket_over_http_2(livegate):
    gateway = livegate(chat(routes={"echo": {**mock("${request.body.text}"), "route_response": True}}))
    with http_2(gateway) as client:
        socket = StreamSocket(client, "/prod")
        assert socket.stream.status == 200 and socket.stream.header("sec-websocket-accept") is None
        socket.says(action="echo", text="hello")
        assert socket.message() == "hello"
        socket.says(action="whoami")
        connection_id = socket.message()
        assert re.fullmatch(ID, connection_id)
        assert gateway.push(connection_id, "pushed").status == 200
        assert socket.message() == "pushed"
        socket.send(frame(PING, b"there?"))
        assert (pong := socket.frame()).opcode == PONG and pong.payload == b"there?"
        socket.send(close_frame(1000, "bye"))
        assert socket.frame().close[0] == 1000
        client.answered(socket.stream)
        assert gateway.push(connection_id, "late").status == 410


def test_many_websockets_on_one_connection(livegate):
    gateway = livegate(chat())
    with http_2(gateway) as client:
        sockets = [StreamSocket(client, "/prod") for _ in range(20)]
        ids = []
        for socket in sockets:
            socket.says(action="whoami")
        for socket in sockets:
            ids.append(socket.message())
        assert len(set(ids)) == 20
        for connection_id, socket in reversed(list(zip(ids, sockets))):
            gateway.push(connection_id, f"to {connection_id}")
            assert socket.message() == f"to {connection_id}"
        assert gateway.metric("livegate_connections_open", api="chat") == 20


def test_a_reset_stream_is_a_lost_websocket(livegate, backend):
    gateway = livegate(chat(routes={"$disconnect": backend.at("/disconnect")}))
    with http_2(gateway) as client:
        socket, other = StreamSocket(client, "/prod"), StreamSocket(client, "/prod")
        socket.says(action="whoami")
        connection_id = socket.message()
        client.reset_stream(socket.stream)
        told = backend.next("/disconnect")
        assert told.connection_id == connection_id and told.header("X-Livegate-Disconnect-Code") == "1006"
        other.says(action="whoami")
        assert re.fullmatch(ID, other.message())


def test_a_delete_closes_the_stream(livegate):
    gateway = livegate(chat())
    with http_2(gateway) as client:
        socket = StreamSocket(client, "/prod")
        socket.says(action="whoami")
        gateway.delete(socket.message())
        assert socket.frame().close == (1000, "Connection Closed Normally")


def test_connect_is_refused_over_http_2_too(livegate, backend):
    gateway = livegate(chat(routes={"$connect": backend.at("/connect")}))
    backend.answer("/connect", 401, "who are you?")
    with http_2(gateway) as client:
        socket = StreamSocket(client, "/prod")
        client.answered(socket.stream)
        assert (socket.stream.status, socket.stream.data) == (401, b"who are you?")
        # An ordinary refusal: the connection goes on.
        backend.answer("/connect", 200)
        assert StreamSocket(client, "/prod").stream.status == 200


def test_a_subprotocol_over_http_2(livegate, backend):
    gateway = livegate(chat(routes={"$connect": backend.at("/connect")}))
    backend.answer("/connect", 200, b"", {"Sec-WebSocket-Protocol": "chat.v2"})
    with http_2(gateway) as client:
        socket = StreamSocket(client, "/prod", [("sec-websocket-protocol", "chat.v1, chat.v2")])
        assert socket.stream.header("sec-websocket-protocol") == "chat.v2"


def test_drain_closes_streams_with_1001(livegate):
    gateway = livegate(chat())
    with http_2(gateway) as client:
        socket = StreamSocket(client, "/prod")
        gateway.signal(signal.SIGTERM)
        assert socket.frame().close == (1001, "Going away")
        socket.send(close_frame(1001))
        assert client.ended()
    assert gateway.exit_code() == 0


# Upgraded connections that a backend speaks itself


@pytest.fixture
def echo():
    """A WebSocket server that says back what it hears; `close CODE REASON` closes, `path` tells what was asked for."""
    def talk(socket):
        try:
            for message in socket:
                if isinstance(message, str) and message.startswith("close"):
                    _, code, reason = message.split(" ", 2)
                    socket.close(int(code), reason)
                elif message == "path":
                    socket.send(socket.request.path)
                elif message == "headers":
                    headers = socket.request.headers.raw_items()
                    socket.send("\n".join(f"{name.lower()}: {value}" for name, value in headers))
                else:
                    socket.send(message)
        except ConnectionClosed:
            pass
        closes.append((socket.close_code, socket.close_reason))

    closes = []
    with serve(talk, "127.0.0.1", 0, max_size=None, subprotocols=["chat.v2"],
               select_subprotocol=lambda socket, offered: "chat.v2" if "chat.v2" in offered else None) as server:
        server.closes = closes
        server.port = server.socket.getsockname()[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def carrying(livegate, echo):
    return livegate(carried(echo))


def carried(echo, stage=None, **parts):
    routes = {"GET /ws/{proxy+}": {"integration": f"http://127.0.0.1:{echo.port}/socket/{{proxy}}", **UPGRADE},
              "GET /plain": mock("plain")}
    return pets(routes, stage=stage, **parts)


def socket_of(gateway, path="/ws/a", **settings):
    return connect(gateway.ws_url + path, proxy=None, open_timeout=PATIENCE, close_timeout=PATIENCE, max_size=None,
                   ping_interval=None, **settings)


def closed(socket):
    """Waits for the end of a WebSocket; 1006 if nobody said goodbye."""
    with pytest.raises(ConnectionClosed):
        while True:
            socket.recv(timeout=PATIENCE)
    return socket.close_code or 1006, socket.close_reason or ""


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("message", ["text \N{SNOWMAN}", b"\0binary\xff", "", "x" * MIB, bytes(4 * MIB)],
                         ids=["text", "binary", "empty", "1 MiB", "4 MiB"])
def test_messages_are_carried(carrying, message, compression):
    with socket_of(carrying, compression=compression) as socket:
        socket.send(message)
        assert socket.recv(timeout=PATIENCE) == message


def test_many_messages_stay_in_their_order(carrying):
    with socket_of(carrying) as socket:
        for number in range(500):
            socket.send(str(number))
        assert [socket.recv(timeout=PATIENCE) for _ in range(500)] == [str(number) for number in range(500)]


def test_a_message_in_fragments_is_carried(carrying):
    with socket_of(carrying) as socket:
        socket.send(["one, ", "two, ", "three"])
        assert socket.recv(timeout=PATIENCE) == "one, two, three"


def test_pings_are_the_backends(carrying):
    with socket_of(carrying) as socket:
        assert socket.ping().wait(PATIENCE)


def test_path_and_query_reach_the_backend(carrying):
    with socket_of(carrying, "/ws/a/b%2Fc?d=e") as socket:
        socket.send("path")
        assert socket.recv(timeout=PATIENCE) == "/socket/a/b%2Fc?d=e"


def test_headers_of_a_handshake_reach_the_backend(carrying, echo):
    said = {"X-One": "1", "X-Livegate-Api": "fake", "X-Forwarded-For": "203.0.113.7"}
    with socket_of(carrying, additional_headers=said, origin="https://app.example.com") as socket:
        assert len(socket.response.headers["apigw-requestid"]) == 16
        socket.send("headers")
        headers = socket.recv(timeout=PATIENCE).split("\n")
    host = f"host: 127.0.0.1:{echo.port}"
    for line in ("x-one: 1", "origin: https://app.example.com", host, "x-forwarded-for: 127.0.0.1"):
        assert line in headers, headers
    assert "x-livegate-api: fake" not in headers


def test_a_subprotocol_is_the_backends_choice(carrying):
    with socket_of(carrying, subprotocols=["chat.v1", "chat.v2"]) as socket:
        assert socket.subprotocol == "chat.v2"


def test_close_codes_of_a_client_reach_the_backend(carrying, echo):
    with socket_of(carrying) as socket:
        socket.close(4321, "client's reason")
    assert eventually(lambda: echo.closes, "the close") == [(4321, "client's reason")]


def test_close_codes_of_a_backend_reach_the_client(carrying):
    with socket_of(carrying) as socket:
        socket.send("close 4567 backend's reason")
        assert closed(socket) == (4567, "backend's reason")


def test_a_client_that_is_lost_is_lost_for_the_backend(carrying, echo):
    with carrying.wire() as wire:
        wire.upgrade("/ws/a")
    assert eventually(lambda: echo.closes, "the end")[0][0] in (None, 1006)


def test_a_backend_that_is_lost_is_lost_for_the_client(livegate, door):
    gateway = livegate(pets({"GET /ws": {"integration": door.at("/ws"), **UPGRADE}}))
    client, caller = upgraded(gateway, door)
    caller.send(b"half a frame")
    caller.socket.close()
    assert client.rest() == b"half a frame"


def upgraded(gateway, door, protocol="websocket", path="/ws"):
    """Both ends of a connection that speaks `protocol` now."""
    client = Client(gateway)
    client.send(handshake(path, gateway.host, [("Upgrade", protocol)]))
    caller = door.caller()
    request = caller.request()
    assert request.header("Upgrade") == protocol and "upgrade" in request.header("Connection").lower()
    headers = [("Connection", "Upgrade"), ("Upgrade", protocol), ("X-Answer", "yes")]
    caller.lines("HTTP/1.1 101 Switching Protocols", headers, b"first")
    answer = client.answer_head()
    assert (answer.status, answer.header("Upgrade"), answer.header("X-Answer")) == (101, protocol, "yes")
    assert "upgrade" in answer.header("Connection").lower()
    # What the backend said right behind its 101.
    assert client.takes(5) == b"first"
    return client, caller


@pytest.mark.parametrize("protocol", ["websocket", "tcp-over-http"])
def test_any_bytes_flow_after_the_101(livegate, door, protocol):
    gateway = livegate(pets({"GET /ws": {"integration": door.at("/ws"), **UPGRADE}}))
    client, caller = upgraded(gateway, door, protocol)
    client.send(b"\0\1\2")
    assert caller.takes(3) == b"\0\1\2"
    caller.send(b"\3\4")
    assert client.takes(2) == b"\3\4"


def test_the_end_of_one_side_leaves_the_other_its_say(livegate, door):
    gateway = livegate(pets({"GET /ws": {"integration": door.at("/ws"), **UPGRADE}}))
    client, caller = upgraded(gateway, door)
    client.send(b"the question")
    client.socket.shutdown(1)
    assert caller.rest() == b"the question"
    caller.send(b"the answer")
    caller.socket.close()
    assert client.rest() == b"the answer"


def test_a_backend_that_refuses_is_heard(livegate, door):
    gateway = livegate(pets({"GET /ws": {"integration": door.at("/ws"), **UPGRADE}}))
    client = Client(gateway)
    client.send(handshake("/ws", gateway.host))
    caller = door.caller()
    caller.request()
    caller.answers(b"not you", [("X-Why", "because")], "403 Forbidden")
    answer = client.response()
    assert (answer.status, answer.body, answer.header("X-Why")) == (403, b"not you", "because")
    # It is still HTTP that is spoken here.
    client.asks("GET", "/nowhere")
    assert client.response().status == 404


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive", None])
def test_an_upgrade_with_a_body_is_an_ordinary_request(livegate, door, connection):
    """Else its backend would take the next request on the connection for the body that was announced."""
    gateway = livegate(pets({"ANY /ws": {"integration": door.at("/ws"), **UPGRADE}}))
    client = Client(gateway)
    headers = [("Upgrade", "h2c"), ("Content-Length", "5")] + ([("Connection", connection)] if connection else [])
    client.asks("POST", "/ws", headers, b"hello")
    caller = door.caller()
    request = caller.request()
    assert (request.method, request.body, request.header("Upgrade")) == ("POST", b"hello", None)
    caller.answers(b"no", status="404 Not Found")
    assert client.response().body == b"no"
    client.asks("GET", "/ws")
    assert caller.request().method == "GET"
    caller.answers(b"yes")
    assert client.response().body == b"yes"


def test_a_real_client_sees_a_refusal(carrying):
    with pytest.raises(InvalidStatus) as refused:
        socket_of(carrying, "/plain")
    assert refused.value.response.status_code == 403


def test_a_backend_that_nobody_reaches_cannot_be_upgraded(livegate, dead_backend):
    gateway = livegate(pets({"GET /ws": {"integration": dead_backend.at("/ws"), **UPGRADE}}))
    answer = gateway.knock("/ws")
    assert (answer.status, answer.body) == UNAVAILABLE


def test_a_silent_backend_cannot_be_upgraded(livegate, door):
    gateway = livegate(pets({"GET /ws": {**to(door.at("/ws"), timeout="100ms"), **UPGRADE}}))
    answer = gateway.knock("/ws")
    assert (answer.status, answer.body) == UNAVAILABLE


def test_without_upgrade_the_route_is_an_ordinary_one(livegate, backend):
    gateway = livegate(pets({"GET /ws": {"integration": backend.at("/ws"), **UPGRADE},
                             "GET /plain": backend.at("/plain")}))
    backend.answer("/ws", 200, "no socket")
    assert gateway.request("GET", "/ws").body == b"no socket"
    answer = gateway.knock("/plain")
    assert (answer.status, answer.body) == (403, b'{"message":"Forbidden"}')
    assert backend.seen("/plain") == []


def test_an_upgrade_goes_to_a_pool(livegate, echo):
    gateway = livegate(pets({"GET /ws": {"integration": "http://sockets/socket", **UPGRADE}},
                            backends={"sockets": {"servers": [f"127.0.0.1:{echo.port}"]}}))
    with socket_of(gateway, "/ws") as socket:
        socket.send("hello")
        assert socket.recv(timeout=PATIENCE) == "hello"


# Their limits and figures


def test_idle_upgraded_connections_are_closed(livegate, echo):
    gateway = livegate(carried(echo, stage={"idle_timeout": "300ms"}))
    with socket_of(gateway) as socket:
        socket.send("hello")
        assert socket.recv(timeout=PATIENCE) == "hello"
        assert closed(socket)[0] == 1006
    eventually(lambda: echo.closes, "the backend's end")


@pytest.mark.parametrize("side", ["client", "backend"])
def test_busy_upgraded_connections_are_not_idle(livegate, door, side):
    gateway = livegate(pets({"GET /{path}": {"integration": door.at("/"), **UPGRADE}}, stage={"idle_timeout": "1s"}))
    busy = upgraded(gateway, door)
    idle, _ = upgraded(gateway, door, path="/idle")
    speaker, listener = busy if side == "client" else reversed(busy)
    over = Task(idle.ended)
    # As long as the idle one lives and a while longer.
    while over.is_alive():
        speaker.send(b".")
        assert listener.takes(1) == b"."
        over.join(0.05)
    over.outcome()
    for _ in range(10):
        speaker.send(b".")
        assert listener.takes(1) == b"."


def test_upgraded_connections_do_not_live_for_ever(livegate, door):
    gateway = livegate(pets({"GET /ws": {"integration": door.at("/ws"), **UPGRADE}}, stage={"max_duration": "300ms"}))
    client, caller = upgraded(gateway, door)

    def keeps_talking():
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                client.send(b".")
                caller.send(caller.takes(1))
                client.takes(1)

    keeps_talking()
    assert client.ended()


def test_none_lifts_their_limits(livegate, echo):
    gateway = livegate(carried(echo, stage={"idle_timeout": "none", "max_duration": "none"}))
    with socket_of(gateway) as socket:
        socket.send("hello")
        assert socket.recv(timeout=PATIENCE) == "hello"


def test_upgraded_connections_are_counted(carrying, echo):
    assert carrying.metric("livegate_connections_open", api="pets") == 0
    with socket_of(carrying) as socket, socket_of(carrying) as other:
        for each in (socket, other):
            each.send("hello")
            assert each.recv(timeout=PATIENCE) == "hello"
        assert carrying.metric("livegate_connections_open", api="pets", stage="$default") == 2
        assert carrying.metric("livegate_requests_total", api="pets", status="1xx") == 2
    eventually(lambda: carrying.metric("livegate_connections_open", api="pets") == 0, "the end of both")


def test_a_stage_that_a_reload_removes_ends_them(livegate, echo):
    gateway = livegate(carried(echo, stages={"prod": {}, "test": {}}))
    with socket_of(gateway, "/prod/ws/a") as kept, socket_of(gateway, "/test/ws/a") as removed:
        gateway.reload(carried(echo, stages={"prod": {}}))
        closed(removed)
        kept.send("hello")
        assert kept.recv(timeout=PATIENCE) == "hello"


def test_drain_ends_them(carrying):
    with socket_of(carrying) as socket:
        socket.send("hello")
        assert socket.recv(timeout=PATIENCE) == "hello"
        carrying.signal(signal.SIGTERM)
        closed(socket)
    assert carrying.exit_code() == 0


# The same as streams of HTTP/2


def test_messages_are_carried_over_http_2(carrying):
    with http_2(carrying) as client:
        socket = StreamSocket(client, "/ws/a?b=c")
        assert socket.stream.status == 200 and socket.stream.header("sec-websocket-accept") is None
        assert socket.stream.header("upgrade") is None and socket.stream.header("connection") is None
        socket.sends(TEXT, "hello")
        assert socket.message() == "hello"
        socket.sends(BINARY, bytes(MIB))
        assert (got := socket.frame()).opcode == BINARY and got.payload == bytes(MIB)
        socket.sends(TEXT, "path")
        assert socket.message() == "/socket/a?b=c"
        socket.sends(TEXT, "close 4567 bye")
        assert socket.frame().close == (4567, "bye")


def test_close_codes_reach_the_backend_over_http_2(carrying, echo):
    with http_2(carrying) as client:
        socket = StreamSocket(client, "/ws/a")
        socket.send(close_frame(4321, "bye"))
        assert socket.frame().opcode == CLOSE
        client.send_data(socket.stream, b"", end=True)
        assert eventually(lambda: echo.closes, "the close") == [(4321, "bye")]


def test_the_end_of_a_stream_ends_the_backends_connection(carrying, echo):
    with http_2(carrying) as client:
        socket, other = StreamSocket(client, "/ws/a"), StreamSocket(client, "/ws/b")
        client.reset_stream(socket.stream)
        eventually(lambda: len(echo.closes) == 1, "the end")
        other.sends(TEXT, "still here")
        assert other.message() == "still here"


def test_carried_and_ordinary_streams_share_a_connection(carrying):
    with http_2(carrying) as client:
        socket = StreamSocket(client, "/ws/a")
        assert client.answered(client.asks("GET", "/plain")).data == b"plain"
        socket.sends(TEXT, "hello")
        assert socket.message() == "hello"
        assert carrying.metric("livegate_connections_open", api="pets") == 1
        refused = StreamSocket(client, "/plain")
        client.answered(refused.stream)
        assert refused.stream.status == 403


def test_an_idle_stream_is_closed_and_its_connection_is_not(livegate, echo):
    gateway = livegate(carried(echo, stage={"idle_timeout": "300ms"}))
    with http_2(gateway) as client:
        socket = StreamSocket(client, "/ws/a")
        client.answered(socket.stream)
        assert client.answered(client.asks("GET", "/plain")).data == b"plain"


def test_a_connect_of_another_kind_reaches_nobody(carrying, echo):
    # A proxy for everybody's TCP is the last thing this shall be.
    with http_2(carrying) as client:
        stream = client.asks("CONNECT", "/", end=True)
        client.until(lambda: stream.headers or stream.reset is not None or client.goodbye)
        assert stream.reset is not None or client.goodbye or stream.status >= 400
    answer = Client(carrying)
    answer.send(f"CONNECT 127.0.0.1:{echo.port} HTTP/1.1\r\nHost: 127.0.0.1:{echo.port}\r\n\r\n".encode())
    assert answer.answer_head().status >= 400
