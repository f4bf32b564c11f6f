"""Answers that a stage compresses, from its `minimum_compression_size` on, for clients that accept it."""

import gzip
import json
import zlib

import brotli
import httpx
import pytest
import zstandard

from backend import PATIENCE, Answer
from http_peers import Client, Door, Task, broken, curl, http_2, mock, pets

TEXT = json.dumps([{"number": number, "name": "pet"} for number in range(500)]).encode()
JSON = {"Content-Type": "application/json"}
STAGE = {"minimum_compression_size": "100B"}


class Gzip:
    def __init__(self):
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def takes(self, data):
        return self._decoder.decompress(data)

    @property
    def is_over(self):
        return self._decoder.eof


class Brotli:
    def __init__(self):
        self._decoder = brotli.Decompressor()

    def takes(self, data):
        return self._decoder.process(data)

    @property
    def is_over(self):
        return self._decoder.is_finished()


class Zstandard:
    def __init__(self):
        self._decoder = zstandard.ZstdDecompressor().decompressobj()

    def takes(self, data):
        return self._decoder.decompress(data)

    @property
    def is_over(self):
        return self._decoder.eof


CODINGS = {"gzip": Gzip, "br": Brotli, "zstd": Zstandard}


@pytest.fixture
def door():
    with Door() as door:
        yield door


@pytest.fixture
def gateway(livegate, backend):
    return livegate(pets({"$default": backend.at("/")}, stage=STAGE))


@pytest.fixture
def piecewise(livegate, door):
    """A gateway whose backend answers piece by piece."""
    return livegate(pets({"$default": door.at()}, stage={**STAGE, "compress_event_streams": True}))


@pytest.fixture
def quiet(livegate, door):
    """The same, but event streams stay as they are."""
    return livegate(pets({"$default": door.at()}, stage=STAGE))


def decoded(answer):
    decoder = CODINGS[answer.header("Content-Encoding")]()
    body = decoder.takes(answer.body)
    assert decoder.is_over
    return body


def accepting(coding, **headers):
    return {"Accept-Encoding": coding, **headers}


def varies(answer):
    return [name.strip().lower() for name in (answer.header("Vary") or "").split(",") if name.strip()]


def is_plain(answer, body=TEXT):
    return answer.header("Content-Encoding") is None and answer.body == body


# What the client accepts


@pytest.mark.parametrize("coding", CODINGS)
def test_an_answer_is_compressed_as_the_client_accepts_it(gateway, backend, coding):
    backend.answer("/", 200, TEXT, JSON)
    answer = gateway.request("GET", "/", headers=accepting(coding))
    assert answer.header("Content-Encoding") == coding and len(answer.body) < len(TEXT) // 4
    assert decoded(answer) == TEXT
    assert answer.header("Content-Type") == "application/json" and "accept-encoding" in varies(answer)
    assert answer.header("Content-Length") in (str(len(answer.body)), None)


@pytest.mark.parametrize("accepted, coding", [
    ("gzip, deflate, br, zstd", "zstd"),
    ("gzip, deflate, br", "br"),
    ("gzip;q=1.0, br;q=0.5", "gzip"),
    ("br;q=0, gzip;q=0.1", "gzip"),
    ("*", "zstd"),
    ("*;q=0.1, br", "br"),
    ("GZIP", "gzip"),
    ("identity;q=0, gzip", "gzip"),
])
def test_the_coding_that_the_client_likes_best(gateway, backend, accepted, coding):
    backend.answer("/", 200, TEXT, JSON)
    answer = gateway.request("GET", "/", headers=accepting(accepted))
    assert answer.header("Content-Encoding") == coding and decoded(answer) == TEXT


@pytest.mark.parametrize("accepted", ["identity", "deflate", "", "gzip;q=0", "*;q=0", "identity, gzip;q=0.5"])
def test_otherwise_the_client_gets_it_as_it_is(gateway, backend, accepted):
    backend.answer("/", 200, TEXT, JSON)
    answer = gateway.request("GET", "/", headers=accepting(accepted))
    assert is_plain(answer)
    # A cache must not give this to others, nor theirs to this one.
    assert "accept-encoding" in varies(answer)


def test_a_client_that_says_nothing_gets_it_as_it_is(gateway, backend):
    backend.answer("/", 200, TEXT, JSON)
    client = Client(gateway).asks("GET", "/")
    assert is_plain(client.response())


def test_nothing_is_compressed_unless_a_stage_says_so(livegate, backend):
    gateway = livegate(pets({"$default": backend.at("/")}))
    backend.answer("/", 200, TEXT, JSON)
    answer = gateway.request("GET", "/", headers=accepting("gzip"))
    assert is_plain(answer) and varies(answer) == []


def test_curl_and_httpx_understand_it(gateway, backend):
    backend.answer("/", 200, TEXT, JSON)
    assert curl("--compressed", gateway.http_url + "/").encode() == TEXT
    answer = httpx.get(gateway.http_url + "/", timeout=PATIENCE, trust_env=False)
    assert answer.headers["Content-Encoding"] and answer.content == TEXT


def test_it_works_over_http_2(gateway, backend):
    backend.answer("/", 200, TEXT, JSON)
    with http_2(gateway) as client:
        stream = client.answered(client.asks("GET", "/", [("accept-encoding", "br")]))
        assert stream.header("content-encoding") == "br" and brotli.decompress(stream.data) == TEXT


def test_answers_of_mocks_are_compressed(livegate):
    gateway = livegate(pets({"$default": mock("x" * 1000, headers={"Content-Type": "text/plain"})}, stage=STAGE))
    assert decoded(gateway.request("GET", "/", headers=accepting("gzip"))) == b"x" * 1000


def test_the_backend_hears_what_the_client_accepts(gateway, backend):
    gateway.request("GET", "/", headers=accepting("br;q=0.7"))
    assert backend.next("/").header("Accept-Encoding") == "br;q=0.7"


def test_requests_are_not_decompressed(gateway, backend):
    sent = gzip.compress(TEXT)
    gateway.request("POST", "/", sent, {"Content-Encoding": "gzip"})
    request = backend.next("/")
    assert request.body == sent and request.header("Content-Encoding") == "gzip"


# What is left alone


@pytest.mark.parametrize("size, coding", [(99, None), (100, "gzip")])
def test_small_answers_stay_as_they_are(gateway, backend, size, coding):
    backend.answer("/", 200, b"x" * size, {"Content-Type": "text/plain"})
    assert gateway.request("GET", "/", headers=accepting("gzip")).header("Content-Encoding") == coding


def test_a_stage_may_compress_everything(livegate, backend):
    gateway = livegate(pets({"$default": backend.at("/")}, stage={"minimum_compression_size": "1B"}))
    backend.answer("/", 200, b"x" * 90, {"Content-Type": "text/plain"})
    assert decoded(gateway.request("GET", "/", headers=accepting("gzip"))) == b"x" * 90
    backend.answer("/", 200, b"", {"Content-Type": "text/plain"})
    answer = gateway.request("GET", "/", headers=accepting("gzip"))
    assert answer.body == b"" and answer.header("Content-Encoding") is None


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "identity"])
def test_nothing_is_compressed_twice(gateway, backend, coding):
    backend.answer("/", 200, TEXT, {**JSON, "Content-Encoding": coding, "ETag": '"1"'})
    answer = gateway.request("GET", "/", headers=accepting("gzip, br, zstd"))
    assert answer.header("Content-Encoding") == coding and answer.body == TEXT and answer.header("ETag") == '"1"'


@pytest.mark.parametrize("kind, is_compressed", [
    ("application/json; charset=utf-8", True), ("text/html", True), ("image/svg+xml", True),
    ("application/problem+json", True), ("application/javascript", True), ("APPLICATION/JSON", True),
    ("image/png", False), ("video/mp4", False), ("application/zip", False), ("application/octet-stream", False),
    ("font/woff2", False), (None, False), ("text/event-stream", False), ("application/grpc", False),
])
def test_only_what_gets_smaller_is_compressed(gateway, backend, kind, is_compressed):
    backend.answer("/", 200, TEXT, {"Content-Type": kind} if kind else {})
    answer = gateway.request("GET", "/", headers=accepting("gzip"))
    assert (answer.header("Content-Encoding") == "gzip") is is_compressed
    assert (decoded(answer) if is_compressed else answer.body) == TEXT


def test_no_transform_of_the_backend_counts(gateway, backend):
    backend.answer("/", 200, TEXT, {**JSON, "Cache-Control": "public, No-Transform"})
    assert is_plain(gateway.request("GET", "/", headers=accepting("gzip")))


def test_no_transform_of_the_client_counts(gateway, backend):
    backend.answer("/", 200, TEXT, JSON)
    assert is_plain(gateway.request("GET", "/", headers=accepting("gzip", **{"Cache-Control": "no-transform"})))


def test_a_part_stays_a_part(gateway, backend):
    backend.answer("/", 206, TEXT, {**JSON, "Content-Range": f"bytes 0-{len(TEXT) - 1}/100000"})
    answer = gateway.request("GET", "/", headers=accepting("gzip", Range=f"bytes=0-{len(TEXT) - 1}"))
    assert answer.status == 206 and is_plain(answer) and answer.header("Content-Range")


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_stay_without(gateway, backend, status):
    backend.answer("/", status, b"", JSON)
    answer = gateway.request("GET", "/", headers=accepting("gzip"))
    assert (answer.status, answer.body, answer.header("Content-Encoding")) == (status, b"", None)


def test_the_answer_to_head_has_no_body(quiet, door):
    client = Client(quiet).asks("HEAD", "/", [("Accept-Encoding", "gzip")])
    caller = door.caller()
    caller.request()
    caller.lines("HTTP/1.1 200 OK", [("Content-Type", "application/json"), ("Content-Length", "5000")])
    answer = client.answer_head()
    assert answer.status == 200 and answer.header("Transfer-Encoding") is None
    # GET would vary, so HEAD says so.
    assert "accept-encoding" in varies(answer)
    client.asks("GET", "/")
    caller.request()
    caller.answers(b"next")
    assert client.response().body == b"next"


@pytest.mark.parametrize("status", [200, 201, 400, 404, 500])
def test_answers_of_any_status_are_compressed(gateway, backend, status):
    backend.answer("/", status, TEXT, JSON)
    answer = gateway.request("GET", "/", headers=accepting("zstd"))
    assert answer.status == status and decoded(answer) == TEXT


# What the headers then say


@pytest.mark.parametrize("tag, wanted", [('"abc"', 'W/"abc"'), ('W/"abc"', 'W/"abc"')])
def test_a_compressed_answer_has_a_weak_tag(gateway, backend, tag, wanted):
    backend.answer("/", 200, TEXT, {**JSON, "ETag": tag})
    assert gateway.request("GET", "/", headers=accepting("gzip")).header("ETag") == wanted
    assert gateway.request("GET", "/", headers=accepting("identity")).header("ETag") == tag


def test_the_weak_tag_is_one_that_the_client_can_ask_about(gateway, backend):
    def answer(request):
        if '"abc"' in (request.header("If-None-Match") or ""):
            return Answer(304, b"", {"ETag": '"abc"'})
        return Answer(200, TEXT, {**JSON, "ETag": '"abc"'})

    backend.answers("/", answer)
    tag = gateway.request("GET", "/", headers=accepting("gzip")).header("ETag")
    again = gateway.request("GET", "/", headers=accepting("gzip", **{"If-None-Match": tag}))
    assert (again.status, again.header("ETag")) == (304, tag)


def test_vary_is_added_to_what_is_there(gateway, backend):
    backend.answer("/", 200, TEXT, {**JSON, "Vary": "Origin"})
    assert sorted(varies(gateway.request("GET", "/", headers=accepting("gzip")))) == ["accept-encoding", "origin"]


@pytest.mark.parametrize("vary", ["Accept-Encoding", "origin, ACCEPT-ENCODING", "*"])
def test_vary_is_not_said_twice(gateway, backend, vary):
    backend.answer("/", 200, TEXT, {**JSON, "Vary": vary})
    assert gateway.request("GET", "/", headers=accepting("gzip")).header("Vary") == vary


def test_what_was_said_about_the_bytes_is_gone(gateway, backend):
    backend.answer("/", 200, TEXT, {**JSON, "Accept-Ranges": "bytes", "Content-MD5": "x", "Digest": "sha-256=x"})
    answer = gateway.request("GET", "/", headers=accepting("gzip"))
    assert decoded(answer) == TEXT
    for name in ("Accept-Ranges", "Content-MD5", "Digest"):
        assert answer.header(name) is None


# Streams


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/event-stream"])
def test_compressed_pieces_arrive_as_they_come(piecewise, door, coding, kind):
    client = Client(piecewise).asks("GET", "/", [("Accept-Encoding", coding)])
    caller = door.caller()
    caller.request()
    caller.begins([("Content-Type", kind)])
    # Nobody knows the length of a stream, so it counts as long enough.
    assert client.answer_head().header("Content-Encoding") == coding
    decoder = CODINGS[coding]()
    for number in range(5):
        piece = b'{"number": %d}\n' % number
        caller.sends_chunk(piece)
        heard = b""
        while heard != piece:
            heard += decoder.takes(client.chunk())
            assert piece.startswith(heard)
    assert not decoder.is_over
    caller.sends_end()
    while rest := client.chunk():
        assert decoder.takes(rest) == b""
    assert decoder.is_over


def test_event_streams_stay_as_they_are(quiet, door):
    client = Client(quiet).asks("GET", "/", [("Accept-Encoding", "gzip, br, zstd")])
    caller = door.caller()
    caller.request()
    caller.begins([("Content-Type", "text/event-stream; charset=utf-8")])
    assert client.answer_head().header("Content-Encoding") is None
    for number in range(3):
        caller.sends_chunk(b"data: %d\n\n" % number)
        assert client.chunk() == b"data: %d\n\n" % number


@pytest.mark.parametrize("coding", CODINGS)
def test_a_long_answer_is_compressed_while_it_flows(piecewise, door, coding):
    whole = b"".join(b'{"number": %d}\n' % number for number in range(200_000))
    got = Task(piecewise.request, "GET", "/", headers=accepting(coding))
    caller = door.caller()
    caller.request()
    caller.answers(whole, [("Content-Type", "application/x-ndjson")])
    answer = got.outcome()
    assert len(answer.body) < len(whole) // 4 and decoded(answer) == whole


@pytest.mark.parametrize("coding", CODINGS)
def test_a_backend_that_leaves_breaks_a_compressed_answer(piecewise, door, coding):
    client = Client(piecewise).asks("GET", "/", [("Accept-Encoding", coding)])
    caller = door.caller()
    caller.request()
    caller.begins([("Content-Type", "text/plain")])
    caller.sends_chunk(b"half of it")
    assert client.answer_head().header("Content-Encoding") == coding
    decoder, heard = CODINGS[coding](), b""
    while heard != b"half of it":
        heard += decoder.takes(client.chunk())
    caller.socket.close()
    assert broken(client.chunks) and not decoder.is_over


def test_trailers_follow_a_compressed_answer(piecewise, door):
    client = Client(piecewise).asks("GET", "/", [("Accept-Encoding", "gzip"), ("TE", "trailers"), ("Connection", "TE")])
    caller = door.caller()
    caller.request()
    caller.begins([("Content-Type", "text/plain"), ("Trailer", "X-Sum")])
    caller.sends_chunk(TEXT)
    caller.sends_end([("X-Sum", "42")])
    assert client.answer_head().header("Content-Encoding") == "gzip"
    body, trailers = client.chunks()
    assert gzip.decompress(body) == TEXT and trailers == [("x-sum", "42")]
