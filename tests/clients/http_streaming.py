"""Bodies that flow through an HTTP API, both ways, and what becomes of them when a side is slow, silent or gone."""

import http.client

import httpx
import pytest

from backend import PATIENCE, Answer
from http_peers import (
    MIB, TOO_LARGE, UNAVAILABLE, Client, Door, Task, broken, curl, http_2, most_memory, pets, time_passes, to)
from world import eventually

LONG = 300 * MIB
# What a long body may cost more than a short one: what the allocator keeps for each thread, whatever the length.
FEW = 24 * MIB


@pytest.fixture
def door():
    with Door() as door:
        yield door


@pytest.fixture
def gateway(livegate, door):
    """Every path of it leads to `door`."""
    return livegate(pets({"$default": door.at()}))


@pytest.fixture
def timed(livegate, door, request):
    """A gateway whose backend has 1.5 s, and a clock that ticks in a third of that."""
    silent = request.getfixturevalue("another_backend")
    with silent.holding("/silent"):
        yield livegate(pets({"$default": to(door.at(), timeout="1500ms"),
                             "GET /clock": to(silent.at("/silent"), timeout="500ms")}))


def asked(gateway, door, *arguments):
    """A client, its backend, and the request that the backend got."""
    client = Client(gateway).asks(*arguments)
    caller = door.caller()
    return client, caller, caller.request()


# Streams


def test_events_arrive_one_by_one(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/events")
    caller.begins([("Content-Type", "text/event-stream")])
    head = client.answer_head()
    assert head.status == 200 and head.header("Content-Type") == "text/event-stream"
    for number in range(5):
        event = b"data: %d\n\n" % number
        caller.sends_chunk(event)
        assert client.chunk() == event
    caller.sends_end()
    assert client.chunk() == b""


def test_events_arrive_one_by_one_in_a_real_client(gateway, door):
    def listen():
        with httpx.stream("GET", gateway.http_url + "/events", timeout=PATIENCE, trust_env=False) as answer:
            for line in filter(None, answer.iter_lines()):
                heard.append(line)

    heard = []
    listening = Task(listen)
    caller = door.caller()
    caller.request()
    caller.begins([("Content-Type", "text/event-stream")])
    for number in range(5):
        caller.sends_chunk(b"data: %d\n\n" % number)
        eventually(lambda: len(heard) == number + 1, "the event")
    caller.sends_end()
    listening.outcome()
    assert heard == [f"data: {number}" for number in range(5)]


def test_events_arrive_one_by_one_over_http_2(gateway, door):
    with http_2(gateway) as client:
        stream = client.asks("GET", "/events")
        caller = door.caller()
        caller.request()
        caller.begins([("Content-Type", "text/event-stream")])
        for number in range(5):
            caller.sends_chunk(b"%d" % number)
            client.until(lambda: stream.data.endswith(b"%d" % number))
        assert not stream.is_over
        caller.sends_end()
        assert client.answered(stream).data == b"01234"


def test_an_upload_arrives_piece_by_piece(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked")])
    client.sends_chunk(b"one")
    caller = door.caller()
    request = caller.request_head()
    assert request.header("Transfer-Encoding") == "chunked" and request.header("Content-Length") is None
    assert caller.chunk() == b"one"
    for piece in (b"two", b"three"):
        client.sends_chunk(piece)
        assert caller.chunk() == piece
    client.sends_end()
    assert caller.chunk() == b""
    caller.answers(b"done")
    assert client.response().body == b"done"


def test_both_directions_flow_at_once(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked")])
    client.sends_chunk(b"0")
    caller = door.caller()
    caller.request_head()
    caller.chunk()
    caller.begins()
    assert client.answer_head().status == 200
    for number in range(1, 5):
        client.sends_chunk(b"%d" % number)
        caller.sends_chunk(caller.chunk())
        assert client.chunk() == b"%d" % number
    client.sends_end()
    assert caller.chunk() == b""
    caller.sends_end()
    assert client.chunk() == b""


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_long_answer_costs_no_memory(gateway, door, version):
    def download(size):
        got = Task(curl, version, "-o", "/dev/null", "-w", "%{size_download} %{http_code}", gateway.http_url + "/long")
        caller = door.caller()
        caller.request()
        caller.lines("HTTP/1.1 200 OK", [("Content-Length", str(size)), ("Connection", "close")])
        piece = bytes(min(size, MIB))
        for _ in range(0, size, len(piece)):
            caller.send(piece)
        caller.socket.close()
        assert got.outcome() == f"{size} 200"
        return most_memory(gateway.process)

    little = download(10_000)
    assert download(LONG) - little < FEW


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("length", ["known", "unknown"])
def test_a_long_upload_costs_no_memory(livegate, door, tmp_path, version, length):
    gateway = livegate(pets({"$default": door.at()}, stage={"max_body": "none"}))

    def upload(size):
        file = tmp_path / str(size)
        with open(file, "wb") as sparse:
            sparse.truncate(size)
        chunked = ["-H", "Transfer-Encoding: chunked"] if length == "unknown" else []
        sent = Task(curl, version, "-T", str(file), *chunked, "-w", "%{http_code}", gateway.http_url + "/long")
        caller = door.caller()
        request = caller.request_head()
        if request.header("Content-Length") is not None:
            assert request.header("Content-Length") == str(size)
            caller.gulps(size)
        else:
            assert size == sum(len(piece) for piece in iter(caller.chunk, b"")) and caller.trailers() == []
        caller.answers(b"", [("Connection", "close")])
        caller.socket.close()
        assert sent.outcome() == "200"
        return most_memory(gateway.process)

    little = upload(10_000)
    assert upload(LONG // 2) - little < FEW


def test_a_client_that_does_not_read_holds_its_backend_back(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/long")
    before = most_memory(gateway.process)
    size = 64 * MIB
    caller.lines("HTTP/1.1 200 OK", [("Content-Length", str(size))])
    sending = Task(caller.send, bytes(size))
    head = client.answer_head()
    # A stranger is served meanwhile; what the gateway could hold, it would hold by now.
    other = Task(gateway.request, "GET", "/")
    second = door.caller()
    second.request()
    second.answers(b"served")
    assert other.outcome().body == b"served"
    client.gulps(int(head.header("Content-Length")))
    sending.outcome()
    assert most_memory(gateway.process) - before < FEW


# max_body


def test_a_body_above_10_mib_is_refused_by_its_length(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Content-Length", str(10 * MIB + 1))])
    answer = client.response()
    assert (answer.status, answer.body) == TOO_LARGE
    assert answer.header("Content-Type") == "application/json" and len(answer.header("apigw-requestid")) == 16
    assert door.nobody_else_called()


def test_a_body_of_10_mib_is_taken(gateway, door):
    sent = Task(gateway.request, "POST", "/", bytes(10 * MIB))
    caller = door.caller()
    assert len(caller.request().body) == 10 * MIB
    caller.answers(b"taken")
    assert sent.outcome().body == b"taken"


def test_a_body_above_max_body_is_refused_by_counting(livegate, door):
    gateway = livegate(pets({"$default": door.at()}, stage={"max_body": "10B"}))
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked")])
    client.sends_chunk(b"0123456789")
    caller = door.caller()
    caller.request_head()
    assert caller.chunk() == b"0123456789"
    client.sends_chunk(b"!")
    answer = client.response()
    assert (answer.status, answer.body) == TOO_LARGE
    # The backend must not take what it got for all of it.
    assert broken(caller.chunk)


def test_a_chunked_body_of_max_body_is_taken(livegate, door):
    gateway = livegate(pets({"$default": door.at()}, stage={"max_body": "10B"}))
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked")])
    client.sends_chunk(b"0123456789")
    client.sends_end()
    caller = door.caller()
    assert caller.request().body == b"0123456789"
    caller.answers(b"taken")
    assert client.response().body == b"taken"


@pytest.mark.parametrize("headers", [[], [("content-length", "11")]], ids=["counted", "declared"])
def test_a_body_above_max_body_is_refused_over_http_2(livegate, door, headers):
    gateway = livegate(pets({"$default": door.at()}, stage={"max_body": "10B"}))
    with http_2(gateway) as client:
        stream = client.asks("POST", "/", headers, b"0123456789!")
        client.answered(stream)
        assert (stream.status, stream.data) == TOO_LARGE


def test_none_lifts_max_body(livegate, door):
    gateway = livegate(pets({"$default": door.at()}, stage={"max_body": "none"}))
    sent = Task(gateway.request, "POST", "/", bytes(11 * MIB))
    caller = door.caller()
    assert len(caller.request().body) == 11 * MIB
    caller.answers(b"taken")
    assert sent.outcome().body == b"taken"


# Expect: 100-continue


def test_100_continue_comes_once_the_backend_is_asked(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Expect", "100-continue"), ("Content-Length", "5")])
    caller = door.caller()
    assert client.answer_head().status == 100
    client.send(b"hello")
    request = caller.request()
    assert request.body == b"hello" and request.header("Expect") is None
    caller.answers(b"thanks")
    assert client.response().body == b"thanks"


def test_no_100_continue_without_a_backend(livegate, dead_backend):
    gateway = livegate(pets({"$default": dead_backend.at("/")}))
    client = Client(gateway).asks("POST", "/", [("Expect", "100-continue"), ("Content-Length", "5")])
    answer = client.response()
    assert (answer.status, answer.body) == UNAVAILABLE


@pytest.mark.parametrize("attempt", range(10))
def test_no_100_continue_for_what_is_too_large(gateway, attempt):
    client = Client(gateway).asks("POST", "/", [("Expect", "100-continue"), ("Content-Length", str(11 * MIB))])
    answer = client.response()
    assert (answer.status, answer.body) == TOO_LARGE


@pytest.mark.parametrize("attempt", range(10))
def test_no_100_continue_without_a_route(livegate, door, attempt):
    gateway = livegate(pets({"GET /pets": door.at()}))
    client = Client(gateway).asks("POST", "/", [("Expect", "100-continue"), ("Content-Length", "5")])
    assert client.response().status == 404


def test_no_100_continue_while_the_request_waits_for_its_turn(livegate, door):
    gateway = livegate(pets({"$default": "http://animals/"},
                            backends={"animals": {"servers": door.authority, "max_connections": 1}}))
    first, caller, _ = asked(gateway, door, "GET", "/first")
    second = Client(gateway).asks("POST", "/second", [("Expect", "100-continue"), ("Content-Length", "5")])
    other = Client(gateway).asks("GET", "/nowhere/%2e%2e")
    other.response()
    assert second.has_heard_nothing()
    caller.answers(b"first")
    assert first.response().body == b"first"
    assert second.answer_head().status == 100
    second.send(b"hello")
    assert caller.request().body == b"hello"
    caller.answers(b"second")
    assert second.response().body == b"second"


def test_curl_waits_for_100_continue(gateway, door, tmp_path):
    (tmp_path / "body").write_bytes(bytes(MIB))
    sent = Task(curl, "-si", "--expect100-timeout", "30", "-H", "Expect: 100-continue",
                "--data-binary", f"@{tmp_path / 'body'}", gateway.http_url + "/")
    caller = door.caller()
    assert len(caller.request().body) == MIB
    caller.answers(b"taken")
    assert sent.outcome().startswith("HTTP/1.1 100 Continue") and sent.outcome().endswith("taken")


# Sides that leave


def test_a_client_that_leaves_ends_the_call(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/")
    client.socket.close()
    assert caller.ended()


def test_a_client_that_leaves_ends_the_call_that_has_its_whole_body(gateway, door):
    client, caller, request = asked(gateway, door, "POST", "/", [("Content-Length", "5")], b"hello")
    assert request.body == b"hello"
    client.socket.close()
    assert caller.ended()


def test_a_client_that_leaves_in_a_stream_ends_it(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/events")
    caller.begins([("Content-Type", "text/event-stream")])
    caller.sends_chunk(b"data: 1\n\n")
    assert client.answer_head().status == 200 and client.chunk()
    client.socket.close()
    assert caller.ended()


def test_a_client_that_leaves_in_its_upload_breaks_it(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked")])
    client.sends_chunk(b"beginning")
    caller = door.caller()
    caller.request_head()
    assert caller.chunk() == b"beginning"
    client.socket.close()
    assert broken(caller.chunk)


def test_a_reset_of_an_http_2_stream_ends_its_call_and_no_other(gateway, door):
    with http_2(gateway) as client:
        kept, left = client.asks("GET", "/kept"), client.asks("GET", "/left")
        callers = {}
        for caller in (door.caller(), door.caller()):
            callers[caller.request().path] = caller
        client.reset_stream(left)
        assert callers["/left"].ended()
        callers["/kept"].answers(b"still here")
        assert client.answered(kept).data == b"still here"


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_backend_that_leaves_in_a_stream_breaks_the_answer(gateway, door, framing):
    client, caller, _ = asked(gateway, door, "GET", "/")
    if framing == "chunked":
        caller.begins()
        caller.sends_chunk(b"half")
    else:
        caller.lines("HTTP/1.1 200 OK", [("Content-Length", "8")], b"half")
    head = client.answer_head()
    assert head.status == 200
    assert (client.chunk() if framing == "chunked" else client.takes(4)) == b"half"
    caller.socket.close()
    assert broken(client.chunk) if framing == "chunked" else broken(client.takes, 4)


def test_a_real_client_sees_that_an_answer_broke(gateway, door):
    got = Task(httpx.get, gateway.http_url + "/", timeout=PATIENCE, trust_env=False)
    caller = door.caller()
    caller.request()
    caller.begins()
    caller.sends_chunk(b"half")
    caller.socket.close()
    with pytest.raises(httpx.RemoteProtocolError):
        got.outcome()


def test_a_backend_that_leaves_in_a_stream_resets_the_http_2_stream(gateway, door):
    with http_2(gateway) as client:
        stream = client.asks("GET", "/")
        caller = door.caller()
        caller.request()
        caller.begins()
        caller.sends_chunk(b"half")
        client.until(lambda: stream.data == b"half")
        caller.socket.close()
        client.answered(stream)
        assert stream.reset is not None and not stream.is_over
        client.pings()


def test_a_backend_that_leaves_without_an_answer_is_503(gateway, door):
    client, caller, _ = asked(gateway, door, "POST", "/")
    caller.socket.close()
    answer = client.response()
    assert (answer.status, answer.body) == UNAVAILABLE


def test_an_answer_that_ends_with_its_connection_is_whole(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/")
    caller.lines("HTTP/1.1 200 OK", [("Content-Type", "text/plain")], b"all of it")
    caller.socket.close()
    assert client.answer_head().status == 200
    assert client.chunks() == (b"all of it", [])


def test_an_old_client_gets_a_stream_that_ends_with_its_connection(gateway, door):
    client = Client(gateway).asks("GET", "/", version="HTTP/1.0")
    caller = door.caller()
    caller.request()
    caller.begins()
    for piece in (b"one", b"two"):
        caller.sends_chunk(piece)
    caller.sends_end()
    head = client.answer_head()
    assert head.header("Transfer-Encoding") is None
    assert client.rest() == b"onetwo"


def test_an_answer_before_the_end_of_the_upload_arrives(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked")])
    client.sends_chunk(b"beginning")
    caller = door.caller()
    caller.request_head()
    assert caller.chunk() == b"beginning"
    caller.answers(b"no need for the rest", status="403 Forbidden")
    answer = client.response()
    assert (answer.status, answer.body) == (403, b"no need for the rest")


# Time


def test_a_silent_backend_is_503(livegate, door):
    gateway = livegate(pets({"$default": to(door.at(), timeout="100ms")}))
    client, caller, _ = asked(gateway, door, "GET", "/")
    answer = client.response()
    assert (answer.status, answer.body) == UNAVAILABLE
    assert answer.header("Content-Type") == "application/json" and len(answer.header("apigw-requestid")) == 16
    assert caller.ended()
    assert gateway.metric("livegate_execution_errors_total", api="pets", reason="timeout") == 1


def test_a_backend_that_sends_half_a_head_is_503(livegate, door):
    gateway = livegate(pets({"$default": to(door.at(), timeout="100ms")}))
    client, caller, _ = asked(gateway, door, "GET", "/")
    caller.send(b"HTTP/1.1 200 OK\r\nContent-")
    assert client.response().status == 503


def test_a_backend_that_nobody_reaches_is_503(livegate, dead_backend):
    gateway = livegate(pets({"$default": dead_backend.at("/")}))
    answer = gateway.request("GET", "/")
    assert (answer.status, answer.body) == UNAVAILABLE


def test_the_timeout_is_for_the_head_of_an_answer(timed, door):
    client, caller, _ = asked(timed, door, "GET", "/events")
    caller.begins()
    assert client.answer_head().status == 200
    for _ in range(4):
        time_passes(timed)
    caller.sends_chunk(b"late")
    assert client.chunk() == b"late"


def test_a_slow_upload_is_not_the_backends_fault(timed, door):
    client = Client(timed).asks("POST", "/", [("Content-Length", "5")])
    caller = door.caller()
    for letter in b"hello":
        client.send(bytes([letter]))
        time_passes(timed)
    assert caller.request().body == b"hello"
    caller.answers(b"at last")
    assert client.response().body == b"at last"


# Trailers


def test_trailers_of_a_request_arrive(gateway, door):
    client = Client(gateway).asks("POST", "/", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
    client.sends_chunk(b"body")
    client.sends_end([("X-Sum", "42")])
    request = door.caller().request()
    assert request.header("Trailer") == "X-Sum"
    assert (request.body, request.trailers) == (b"body", [("x-sum", "42")])


def test_trailers_of_an_answer_arrive_at_a_client_that_accepts_them(gateway, door):
    accepts = [("TE", "trailers, deflate;q=0.5"), ("Connection", "TE")]
    client, caller, request = asked(gateway, door, "GET", "/", accepts)
    assert request.header("TE") == "trailers"
    caller.begins([("Trailer", "X-Sum")])
    caller.sends_chunk(b"body")
    caller.sends_end([("X-Sum", "42")])
    assert client.answer_head().header("Trailer") == "X-Sum"
    assert client.chunks() == (b"body", [("x-sum", "42")])


def test_trailers_do_no_harm_to_a_client_that_does_not_ask_for_them(gateway, door):
    client, caller, request = asked(gateway, door, "GET", "/")
    assert request.header("TE") is None
    caller.begins([("Trailer", "X-Sum")])
    caller.sends_chunk(b"body")
    caller.sends_end([("X-Sum", "42")])
    assert client.response().body == b"body"


def test_trailers_go_both_ways_over_http_2(gateway, door):
    with http_2(gateway) as client:
        stream = client.asks("POST", "/", [("te", "trailers"), ("trailer", "x-sum")], b"body", end=False)
        client.send_headers(stream, [("x-sum", "42")], end=True)
        caller = door.caller()
        request = caller.request()
        assert (request.body, request.trailers) == (b"body", [("x-sum", "42")])
        caller.begins([("Trailer", "X-Total")])
        caller.sends_chunk(b"answer")
        caller.sends_end([("X-Total", "43")])
        client.answered(stream)
        assert stream.data == b"answer" and ("x-total", "43") in stream.trailers


# Answers without a body, and those that are not for the gateway


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body(gateway, door, status):
    client, caller, _ = asked(gateway, door, "GET", "/")
    caller.lines(f"HTTP/1.1 {status}", [("ETag", '"1"')])
    answer = client.answer_head()
    assert answer.status == int(status[:3]) and answer.header("ETag") == '"1"'
    assert answer.header("Transfer-Encoding") is None and answer.header("Content-Length") is None
    # Whatever came behind it would be taken for the next answer.
    client.asks("GET", "/next")
    caller.request()
    caller.answers(b"next")
    assert client.response().body == b"next"


def test_a_304_keeps_the_length_that_it_tells_of(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/")
    caller.lines("HTTP/1.1 304 Not Modified", [("ETag", '"1"'), ("Content-Length", "1234")])
    answer = client.answer_head()
    assert answer.status == 304 and answer.header("Content-Length") in ("1234", None)
    client.asks("GET", "/next")
    caller.request()
    caller.answers(b"next")
    assert client.response().body == b"next"


def test_the_answer_to_head_tells_the_length_and_has_no_body(gateway, door):
    client, caller, request = asked(gateway, door, "HEAD", "/")
    assert request.method == "HEAD"
    caller.lines("HTTP/1.1 200 OK", [("Content-Length", "1234"), ("Content-Type", "text/plain")])
    answer = client.answer_head()
    assert answer.header("Content-Length") == "1234" and answer.header("Content-Type") == "text/plain"
    client.asks("GET", "/next")
    caller.request()
    caller.answers(b"next")
    assert client.response().body == b"next"


def test_the_answer_to_head_over_http_2(gateway, door):
    with http_2(gateway) as client:
        stream = client.asks("HEAD", "/")
        caller = door.caller()
        caller.request()
        caller.lines("HTTP/1.1 200 OK", [("Content-Length", "1234")])
        client.answered(stream)
        assert stream.header("content-length") == "1234" and stream.data == b"" and stream.reset is None


def test_a_get_without_a_body_stays_one(gateway, door):
    _, _, request = asked(gateway, door, "GET", "/")
    assert request.header("Content-Length") is None and request.header("Transfer-Encoding") is None


def test_an_empty_post_says_so(gateway, door):
    _, _, request = asked(gateway, door, "POST", "/", [("Content-Length", "0")])
    assert request.header("Content-Length") == "0" and request.body == b""


def test_a_get_with_a_body_keeps_it(gateway, door):
    _, _, request = asked(gateway, door, "GET", "/", [("Content-Length", "5")], b"query")
    assert request.body == b"query"


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirects_are_the_clients_business(gateway, door, status):
    client, caller, _ = asked(gateway, door, "GET", "/")
    there = door.at("/elsewhere")
    caller.answers(b"elsewhere", [("Location", there)], status)
    answer = client.response()
    assert (answer.status, answer.header("Location"), answer.body) == (int(status[:3]), there, b"elsewhere")
    assert door.nobody_else_called()


def test_early_hints_are_dropped(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/")
    caller.lines("HTTP/1.1 103 Early Hints", [("Link", "</style.css>; rel=preload")])
    caller.answers(b"the answer")
    answer = client.response()
    assert (answer.status, answer.body, answer.header("Link")) == (200, b"the answer", None)


@pytest.mark.parametrize("status", ["418 I'm a teapot", "299 Fine", "599 Odd", "500 Broken", "401 Unauthorized"])
def test_any_status_is_passed_on(gateway, door, status):
    client, caller, _ = asked(gateway, door, "GET", "/")
    caller.answers(b"why", [("WWW-Authenticate", "Basic")], status)
    answer = client.response()
    assert (answer.status, answer.body, answer.header("WWW-Authenticate")) == (int(status[:3]), b"why", "Basic")


# Kept connections


def test_connections_to_backends_are_kept(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/1")
    caller.answers(b"1")
    assert client.response().body == b"1"
    for number in (b"2", b"3"):
        # Another client finds the same connection.
        client = Client(gateway).asks("POST", "/", [("Content-Length", "1")], number)
        caller.answers(caller.request().body)
        assert client.response().body == number
    assert door.nobody_else_called()


def test_connections_are_kept_after_streams(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/1")
    caller.begins()
    for piece in (b"one", b"two"):
        caller.sends_chunk(piece)
        client.answer_head() if piece == b"one" else None
        assert client.chunk() == piece
    caller.sends_end()
    assert client.chunk() == b"" and client.trailers() == []
    client.asks("GET", "/2")
    assert caller.request().path == "/2"
    caller.answers(b"2")
    assert client.response().body == b"2" and door.nobody_else_called()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_that_the_backend_closed_costs_nothing(gateway, door, method):
    for number in range(5):
        client = Client(gateway).asks(method, "/", [("Content-Length", "5")], b"hello")
        caller = door.caller()
        assert caller.request().body == b"hello"
        caller.answers(b"%d" % number)
        assert client.response().body == b"%d" % number
        caller.socket.close()


def test_a_stream_of_requests_survives_a_backend_that_restarts(livegate, backend):
    gateway = livegate(pets({"$default": backend.at("/")}))
    backend.answers("/", Answer(body="here"))
    for _ in range(5):
        assert gateway.request("POST", "/", b"x").body == b"here"
        backend.kill()
        backend.revive()


def test_a_backend_that_says_close_is_not_used_again(gateway, door):
    client, caller, _ = asked(gateway, door, "GET", "/")
    caller.answers(b"1", [("Connection", "close")])
    assert client.response().body == b"1"
    client.asks("GET", "/")
    second = door.caller()
    second.request()
    second.answers(b"2")
    assert client.response().body == b"2"


def test_pipelined_requests_are_answered_in_their_order(gateway, door):
    client = Client(gateway)
    client.asks("GET", "/1").asks("GET", "/2")
    caller = door.caller()
    assert caller.request().path == "/1"
    caller.answers(b"1")
    assert caller.request().path == "/2"
    caller.answers(b"2")
    assert [client.response().body, client.response().body] == [b"1", b"2"]


def test_a_standard_client_keeps_its_connection(gateway, door):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)
    connection.request("GET", "/")
    caller = door.caller()
    caller.request()
    caller.answers(b"1")
    assert connection.getresponse().read() == b"1"
    socket = connection.sock
    connection.request("GET", "/")
    caller.request()
    caller.answers(b"2")
    assert connection.getresponse().read() == b"2" and connection.sock is socket
    connection.close()


@pytest.mark.parametrize("settings", [{"payload": "event"}, {"request_parameters": {"overwrite:header.x": "$request.body.a"}},
                                      {"timeout": "200ms"}], ids=["event", "mapping", "proxied"])
def test_a_body_that_stops_coming_is_not_waited_for(livegate, door, settings):
    """Whether the gateway wants to have it as a whole, or the backend waits for the rest."""
    gateway = livegate(pets({"POST /": to(door.at(), **settings)}, stage={"handshake_timeout": "200ms"}))
    client = Client(gateway)
    client.send(f"POST / HTTP/1.1\r\nHost: {gateway.host}\r\nContent-Length: 5\r\n\r\nh".encode())
    answer = client.response()
    assert (answer.status, answer.body) == (408, b'{"message":"Request Timeout"}')
