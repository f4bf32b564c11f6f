"""Where a request of an HTTP API goes, and what its backend gets (ROUTES.md sections 3 and 5)."""

import contextlib
import re
import subprocess

import httpx
import pytest
import requests

from backend import PATIENCE, query_of
from http_apis import REQUEST_ID, ask, http_api, is_error, lines_of, pets, proxy, says, says_its_key
from wire import handshake
from world import ID, chat, http_request

KEYS = ("GET /", "GET /pets", "POST /pets", "GET /pets/{id}", "ANY /pets/{id}", "GET /pets/mine", "GET /pets/{id}/toys",
        "GET /pets/{id}/{thing}", "GET /pets/mine/{thing}", "ANY /files/{proxy+}", "GET /files/{name}",
        "GET /files/old/{proxy+}", "HEAD /about", "GET /docs/", "OPTIONS /pets", "GET /v1.0/a:b_c-d~e")


@pytest.fixture
def gateway(livegate):
    return livegate(http_api(says_its_key(*KEYS)))


@pytest.mark.parametrize("method, path, key", [
    ("GET", "/", "GET /"), ("GET", "/pets", "GET /pets"), ("POST", "/pets", "POST /pets"),
    ("OPTIONS", "/pets", "OPTIONS /pets"),
    # A literal before a variable.
    ("GET", "/pets/mine", "GET /pets/mine"), ("GET", "/pets/7", "GET /pets/{id}"),
    ("GET", "/pets/mines", "GET /pets/{id}"), ("GET", "/pets/7/toys", "GET /pets/{id}/toys"),
    ("GET", "/pets/7/food", "GET /pets/{id}/{thing}"), ("GET", "/pets/mine/food", "GET /pets/mine/{thing}"),
    # A method of its own before ANY.
    ("POST", "/pets/7", "ANY /pets/{id}"), ("PUT", "/pets/7", "ANY /pets/{id}"), ("PATCH", "/pets/7", "ANY /pets/{id}"),
    ("DELETE", "/pets/mine", "ANY /pets/{id}"),
    # A full match before a greedy one, and of these the longer.
    ("GET", "/files/a", "GET /files/{name}"), ("DELETE", "/files/a", "ANY /files/{proxy+}"),
    ("GET", "/files/a/b/c", "ANY /files/{proxy+}"), ("GET", "/files/a/", "ANY /files/{proxy+}"),
    ("GET", "/files//a", "ANY /files/{proxy+}"), ("GET", "/files/old/a/b", "GET /files/old/{proxy+}"),
    ("GET", "/files/old/", "ANY /files/{proxy+}"),
    # Escapes that nobody needs are none, and `%2F` separates nothing.
    ("GET", "/%70ets", "GET /pets"), ("GET", "/pets/%6D%69ne", "GET /pets/mine"),
    ("GET", "/pets/a%2Fb", "GET /pets/{id}"), ("GET", "/pets/a%2fb/toys", "GET /pets/{id}/toys"),
    ("GET", "/v1.0/a:b_c-d~e", "GET /v1.0/a:b_c-d~e"), ("GET", "/docs/", "GET /docs/"),
    ("GET", "/pets?id=7", "GET /pets"), ("GET", "/pets?/../x", "GET /pets"),
])
def test_the_most_specific_route_answers(gateway, method, path, key):
    answer = ask(gateway, method, path)
    assert (answer.status, answer.body.decode()) == (200, key)


@pytest.mark.parametrize("method, path", [
    ("GET", "/nothing"), ("GET", "/Pets"), ("GET", "/pets/"), ("GET", "//pets"), ("GET", "/pets//"),
    ("GET", "/pets//toys"), ("GET", "/pets%2F7"), ("GET", "/pets/7/toys/"), ("GET", "/docs"), ("GET", "/files"),
    ("GET", "/files/"),
    # Never a 405.
    ("DELETE", "/pets"), ("POST", "/"), ("GET", "/about"), ("OPTIONS", "/"), ("PURGE", "/pets"),
])
def test_a_path_or_method_without_a_route_is_404(gateway, method, path):
    assert is_error(ask(gateway, method, path), 404, "Not Found")


def test_head_is_not_implied_by_get(gateway):
    assert ask(gateway, "HEAD", "/pets").status == 404
    answer = ask(gateway, "HEAD", "/about")
    assert (answer.status, answer.body) == (200, b"")


def test_a_greedy_root_matches_the_root_too(livegate):
    gateway = livegate(http_api({"ANY /{proxy+}": says("<${request.path.proxy}>")}))
    for path, proxied in [("/", ""), ("/a", "a"), ("/a/b/", "a/b/"), ("//a", "/a")]:
        answer = ask(gateway, "GET", path)
        assert (answer.status, answer.body.decode()) == (200, f"<{proxied}>"), path


def test_default_takes_what_no_other_route_does(livegate):
    gateway = livegate(http_api(says_its_key("$default", "GET /pets", "GET /files/{proxy+}")))
    for method, path, key in [("GET", "/pets", "GET /pets"), ("POST", "/pets", "$default"),
                              ("GET", "/files/a", "GET /files/{proxy+}"), ("GET", "/files", "$default"),
                              ("GET", "/pets/", "$default"), ("GET", "/", "$default"), ("GET", "//", "$default")]:
        assert ask(gateway, method, path).body.decode() == key, (method, path)


# What is refused


@pytest.mark.parametrize("path", [
    "/pets/.", "/pets/..", "/files/a/../b", "/files/%2e%2E/b", "/files/.%2e", "/files/a/%2e", "/../pets", "/..",
])
def test_dot_segments_are_refused_before_any_backend(livegate, backend, path):
    gateway = livegate(
        http_api({
            "$default": backend.at("/all"), "GET /pets/{id}": backend.at("/animals/{id}"),
            "GET /files/{proxy+}": backend.at("/blobs/{proxy}")
        }))
    assert is_error(ask(gateway, "GET", path), 400, "Bad Request")
    assert backend.seen_anywhere() == []


def test_connect_is_no_method_of_any_route(livegate, backend):
    """The gateway is no forward proxy: a backend's 200 would open a tunnel to it."""
    gateway = livegate(http_api({"ANY /pets": backend.at("/animals"), "$default": backend.at("/rest")}))
    for path in ("/pets", "/nothing"):
        assert ask(gateway, "CONNECT", path).status == 400, path
    assert backend.seen_anywhere() == []


def test_dots_within_a_segment_are_fine(livegate, backend):
    gateway = livegate(http_api({"GET /files/{proxy+}": backend.at("/blobs/{proxy}")}))
    for path in ("a..b", "...", ".hidden", "..a/b.."):
        assert ask(gateway, "GET", f"/files/{path}").status == 200
        backend.next(f"/blobs/{path}")


def test_a_request_id_is_in_every_answer_and_is_the_one_that_routes_see(livegate):
    gateway = livegate(http_api({"GET /id": says("${context.requestId}")}))
    ids = set()
    for _ in range(3):
        answer = gateway.request("GET", "/id")
        assert re.fullmatch(REQUEST_ID, answer.body.decode())
        assert lines_of(answer, "apigw-requestid") == [answer.body.decode()]
        ids.add(answer.body)
    assert len(ids) == 3


def test_a_backend_that_is_not_there_is_503(livegate, dead_backend):
    gateway = livegate(http_api({"GET /pets": dead_backend.at("/animals")}))
    assert is_error(gateway.request("GET", "/pets"), 503, "Service Unavailable")


def test_a_backend_cannot_take_the_request_id_for_itself(livegate, backend):
    backend.answer("/animals", 200, "hi", {"apigw-requestid": "mine"})
    gateway = livegate(http_api({"GET /pets": backend.at("/animals")}))
    [told] = lines_of(gateway.request("GET", "/pets"), "apigw-requestid")
    assert re.fullmatch(REQUEST_ID, told)


# What the backend gets


def test_path_variables_go_into_the_uri_as_they_were_on_the_wire(livegate, backend):
    gateway = livegate(
        http_api({
            "GET /pets/{id}/toys/{toy}": backend.at("/t/{toy}/of/{id}?who={id}"),
            "ANY /files/{proxy+}": backend.at("/blobs/{proxy}")
        }))
    for sent, got in [("/pets/7/toys/ball", "/t/ball/of/7?who=7"),
                      ("/pets/a%2Fb/toys/%70%20%c3%a9", "/t/%70%20%c3%a9/of/a%2Fb?who=a%2Fb"),
                      ("/pets/a+b;c=d/toys/x:y@z", "/t/x:y@z/of/a+b;c=d?who=a%2Bb%3Bc%3Dd"),
                      ("/pets/a&b=c/toys/x", "/t/x/of/a&b=c?who=a%26b%3Dc"), ("/files/a//b/", "/blobs/a//b/"),
                      ("/files/a%2Fb%3Fc%23d", "/blobs/a%2Fb%3Fc%23d")]:
        assert ask(gateway, "GET", sent).status == 200
        assert backend.next(got.split("?")[0]).target == got


def test_the_path_sent_is_the_uris_and_the_query_is_both(livegate, backend):
    gateway = livegate(
        http_api({
            "GET /pets": backend.at("/animals?kind=all&kind=x"), "POST /pets": backend.at("/animals"),
            "GET /root": f"http://{backend.authority}"
        }))
    ask(gateway, "GET", "/pets?tag=a&tag=b&text=h%C3%A9+y&kind=cat&flag")
    assert query_of(
        backend.next("/animals")) == {"kind": ["all", "x", "cat"], "tag": ["a", "b"], "text": ["hé y"], "flag": [""]}
    ask(gateway, "GET", "/pets")
    assert backend.next("/animals").target == "/animals?kind=all&kind=x"
    ask(gateway, "POST", "/pets?a=%26&b=+;c")
    assert backend.next("/animals").target == "/animals?a=%26&b=+;c"
    ask(gateway, "POST", "/pets?")
    assert backend.next("/animals").query == ""
    ask(gateway, "GET", "/root?a=1")
    assert backend.next("/").target == "/?a=1"


def test_default_appends_the_path(livegate, backend):
    gateway = livegate(http_api({"$default": backend.at("/base?x=1")}, stages={"$default": {}, "blue": {}}))
    for sent, got in [("/a/b", "/base/a/b?x=1"), ("/a%2Fb//c/?y=2", "/base/a%2Fb//c/?x=1&y=2"),
                      ("/blue/a/b", "/base/a/b?x=1"), ("/blues", "/base/blues?x=1")]:
        assert ask(gateway, "PATCH", sent).status == 200
        request = backend.next(got.split("?")[0])
        assert (request.method, request.target) == ("PATCH", got)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_backend_is_asked_with_the_clients_method_and_body(livegate, backend, method):
    gateway = livegate(http_api({"ANY /pets": backend.at("/animals")}))
    backend.answer("/animals", 418, "short", {"Content-Type": "text/tea", "X-Pot": "stout"})
    answer = ask(gateway, method, "/pets", [("Content-Type", "text/x"), ("X-Mine", "one")], "a body")
    request = backend.next("/animals")
    assert (request.method, request.text, request.header("Content-Type"),
            request.header("X-Mine")) == (method, "a body", "text/x", "one")
    assert request.header("Host") == backend.authority
    assert (answer.status, answer.body, answer.header("Content-Type"), answer.header("X-Pot")) == (418, b"short",
                                                                                                   "text/tea", "stout")


def test_integration_method_replaces_the_clients(livegate, backend):
    gateway = livegate(
        http_api({"ANY /a": proxy(backend.at("/a"), method="POST"), "ANY /b": proxy(backend.at("/b"), method="ANY")}))
    assert ask(gateway, "PUT", "/a").status == ask(gateway, "PUT", "/b").status == 200
    assert (backend.next("/a").method, backend.next("/b").method) == ("POST", "PUT")


def test_redirects_and_errors_of_the_backend_are_passed_on(livegate, backend):
    gateway = livegate(http_api({"GET /pets": backend.at("/animals")}))
    for status in (201, 301, 307, 401, 404, 405, 500, 503):
        backend.answer("/animals", status, "so", {"Location": "/elsewhere"})
        answer = gateway.request("GET", "/pets")
        assert (answer.status, answer.body, answer.header("Location")) == (status, b"so", "/elsewhere")


def test_a_long_query_reaches_the_backend(livegate, backend):
    """AWS counts the request line with the headers: 10,240 bytes for both."""
    gateway = livegate(http_api({"GET /pets": backend.at("/animals")}))
    assert ask(gateway, "GET", "/pets?q=" + 6000 * "x").status == 200
    assert backend.next("/animals").query == "q=" + 6000 * "x"


# Stages, base paths and hosts


def test_a_stage_stands_in_the_url_unless_it_is_the_default(livegate):
    gateway = livegate(
        http_api(
            {"GET /pets": says("${context.stage} ${stageVariables.color}"), "GET /": says("root of ${context.stage}")},
            stages={"$default": {"stage_variables": {"color": "none"}}, "blue": {"stage_variables": {"color": "b"}}}))
    for path, said in [("/pets", "$default none"), ("/blue/pets", "blue b"), ("/blue", "root of blue"),
                       ("/blue/", "root of blue"), ("/", "root of $default")]:
        answer = ask(gateway, "GET", path)
        assert (answer.status, answer.body.decode()) == (200, said), path
    for path in ("/Blue/pets", "/blues/pets", "/green/pets", "/blue/blue/pets", "/blue//pets"):
        assert is_error(ask(gateway, "GET", path), 404, "Not Found"), path


def test_a_stage_is_the_first_segment_and_an_empty_one_is_not_left_out(livegate):
    routes = {"$default": says("${context.stage} ${request.path}")}
    gateway = livegate(http_api(routes, stages={"$default": {}, "blue": {}}))
    for path, said in [("/blue/pets", "blue /pets"), ("/blue//pets", "blue //pets"),
                       ("//blue/pets", "$default //blue/pets")]:
        assert ask(gateway, "GET", path).body.decode() == said, path


def test_without_a_default_stage_there_is_nothing_beside_the_named_ones(livegate):
    gateway = livegate(http_api({"$default": says("here")}, stages={"prod": {}}))
    assert gateway.request("GET", "/prod/x").body == b"here"
    for path in ("/", "/x", "/production", "/pro"):
        assert is_error(gateway.request("GET", path), 404, "Not Found"), path


def test_stage_variables_choose_the_backend(livegate, backend, another_backend):
    gateway = livegate(
        http_api(
            {"GET /pets/{id}": "http://${stageVariables.host}/${stageVariables.part}/{id}?s=${stageVariables.part}"},
            stages={
                "blue": {"stage_variables": {"host": backend.authority, "part": "b"}},
                "green": {"stage_variables": {"host": another_backend.authority, "part": "g"}}
            }))
    assert gateway.request("GET", "/blue/pets/7").status == gateway.request("GET", "/green/pets/7").status == 200
    assert backend.next("/b/7").target == "/b/7?s=b"
    assert another_backend.next("/g/7").target == "/g/7?s=g"


def test_a_base_path_is_a_prefix_of_whole_segments(livegate, backend):
    gateway = livegate(
        http_api({"GET /pets": says("short"), "$default": says("short rest")},
                 apis={
                     "long": pets(
                         {
                             "GET /pets": says("long"), "GET /": says("long root"),
                             "ANY /to/{proxy+}": backend.at("/got/{proxy}")
                         },
                         base_path="/api/v1")
                 }))
    for path, said in [("/pets", "short"), ("/api/v1/pets", "long"), ("/api/v1", "long root"),
                       ("/api/v1/", "long root"), ("/api/v1x/pets", "short rest"), ("/api", "short rest")]:
        assert ask(gateway, "GET", path).body.decode() == said, path
    assert ask(gateway, "GET", "/api/v1/to/a/b").status == 200
    backend.next("/got/a/b")


def test_a_base_path_with_stages(livegate):
    gateway = livegate(
        http_api({"GET /pets": says("${context.stage} ${context.path}")},
                 api={"base_path": "/shop"},
                 stages={"$default": {}, "prod": {}}))
    assert gateway.request("GET", "/shop/prod/pets").body == b"prod /prod/pets"
    assert gateway.request("GET", "/shop/pets").body == b"$default /pets"
    assert is_error(gateway.request("GET", "/prod/pets"), 404, "Not Found")


@pytest.fixture
def hosts(livegate):
    return livegate(
        http_api({"GET /": says("exact")},
                 api={"domains": ["pets.example.com", "pets.example.org"]},
                 apis={
                     "wild": pets({"GET /": says("wildcard")}, domains=["*.example.com"]),
                     "mapped": pets({"GET /": says("mapped ${context.stage}")}, {"prod": {}, "test": {}},
                                    domains=[{"host": "rt.example.com", "stage": "prod", "base_path": "/v1"}])
                 }))


@pytest.mark.parametrize("host, path, said", [
    ("pets.example.com", "/", "exact"), ("PETS.Example.com", "/", "exact"), ("pets.example.org:8080", "/", "exact"),
    ("other.example.com", "/", "wildcard"), ("rt.example.com", "/v1", "mapped prod"),
    ("rt.example.com", "/v1/", "mapped prod"),
])
def test_the_host_chooses_the_api(hosts, host, path, said):
    answer = ask(hosts, "GET", path, host=host)
    assert (answer.status, answer.body.decode()) == (200, said)


@pytest.mark.parametrize("host", [
    "pets.example.net", "example.com", "a.b.example.com", "pets.example.com.evil.net", "127.0.0.1",
])
def test_an_unknown_host_is_403(hosts, host):
    assert is_error(ask(hosts, "GET", "/", host=host), 403, "Forbidden")


def test_a_known_host_without_the_path_is_404(hosts):
    for host, path in [("pets.example.com", "/x"), ("rt.example.com", "/v1/prod"), ("rt.example.com", "/v1/test")]:
        assert is_error(ask(hosts, "GET", path, host=host), 404, "Not Found")


def test_an_api_without_domains_answers_to_every_other_host(livegate):
    gateway = livegate(
        http_api({"$default": says("any")},
                 apis={"mine": pets({"$default": says("mine")}, domains=["pets.example.com"])}))
    for host, said in [("pets.example.com", "mine"), ("whoever.example", "any"), (gateway.host, "any")]:
        assert ask(gateway, "GET", "/x", host=host).body.decode() == said


# WebSocket and HTTP side by side


@pytest.fixture
def both(livegate, backend):
    """A WebSocket API's stages `prod` and `$default`-less HTTP API on one host and base path."""
    return livegate(
        chat(apis={
            "pets": pets({"GET /pets": says("pets"), "POST /prod": says("taken"), "GET /prod/pets": says("below")})
        }))


def test_both_kinds_of_api_share_a_host_and_a_base_path(both):
    with both.connect("/prod") as client:
        mine = client.whoami()
        assert re.fullmatch(ID, mine)
        assert both.request("GET", "/pets").body == b"pets"
        assert both.request("GET", "/prod/pets").body == b"below"
        assert both.push(mine, "pushed").status == 200 and client.hears() == "pushed"
        assert client.whoami() == mine


def test_the_sockets_path_is_426_unless_a_route_takes_it(both):
    plain = both.request("GET", "/prod")
    assert plain.status == 426 and plain.header("Upgrade").lower() == "websocket"
    assert both.request("POST", "/prod").body == b"taken"
    assert is_error(both.request("GET", "/elsewhere"), 404, "Not Found")


def test_an_upgrade_that_no_socket_and_no_route_takes_is_403(both):
    for path in ("/pets", "/nothing"):
        refused = both.knock(path)
        assert (refused.status, refused.body) == (403, b'{"message":"Forbidden"}'), path


def test_an_upgrade_where_only_http_apis_are_is_403(livegate):
    gateway = livegate(http_api({"$default": says("here")}))
    with gateway.wire() as wire:
        wire.send(handshake("/x", gateway.host))
        assert wire.response().status == 403


def test_connections_belong_to_websocket_apis(livegate):
    gateway = livegate(chat(apis={"pets": pets({"$default": says("pets")})}))
    with gateway.connect() as client:
        escaped = client.whoami().replace("=", "%3D")
        assert gateway.request("POST", f"/prod/@connections/{escaped}", b"hi").status == 200 and client.hears() == "hi"
    for path in ("/@connections/x", "/test/@connections/x", "/pets/@connections", "/%40connections/x"):
        for method in ("GET", "POST"):
            answer = gateway.request(method, path)
            assert (answer.status, answer.body) == (403, b'{"message":"Forbidden"}'), path


def test_connections_are_refused_where_only_http_apis_are(livegate):
    gateway = livegate(http_api({"$default": says("pets")}))
    assert gateway.request("POST", "/prod/@connections/abc").status == 403
    assert gateway.request("GET", "/prod?@connections").body == b"pets"


# Clients of several makes


def with_requests(url, headers, body):
    answer = requests.post(url, data=body, headers=headers, timeout=PATIENCE)
    return answer.status_code, answer.headers["x-answer"], answer.content


def with_httpx(url, headers, body, **versions):
    with httpx.Client(trust_env=False, timeout=PATIENCE, **versions) as client:
        answer = client.post(url, content=body, headers=headers)
        return answer.status_code, answer.headers["x-answer"], answer.content


def with_http_2(url, headers, body):
    return with_httpx(url, headers, body, http1=False, http2=True)


def with_curl(url, headers, body, *flags):
    lines = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    done = subprocess.run([
        "curl", "-sS", "--noproxy", "*", "--max-time",
        str(PATIENCE), *flags, *lines, "--data-binary", "@-", "-w", "\n%header{x-answer} %{http_code}", url
    ],
                          input=body,
                          capture_output=True,
                          check=True)
    said, _, told = done.stdout.rpartition(b"\n")
    header, code = told.decode().split()
    return int(code), header, said


def with_curl_over_http_2(url, headers, body):
    return with_curl(url, headers, body, "--http2-prior-knowledge")


@pytest.mark.parametrize("client", [with_requests, with_httpx, with_http_2, with_curl, with_curl_over_http_2])
def test_every_client_is_served_alike(livegate, backend, client):
    gateway = livegate(http_api({"POST /pets/{id}": backend.at("/animals/{id}")}))
    backend.answer("/animals/a%2Fb", 201, b"\x00answer\xff", {"X-Answer": "yes"}, chunked=True)
    body = bytes(range(256)) * 300
    headers = {"X-Mine": "one", "Content-Type": "application/octet-stream"}
    assert client(f"{gateway.http_url}/pets/a%2Fb?q=h%C3%A9&q=2", headers, body) == (201, "yes", b"\x00answer\xff")
    request = backend.next("/animals/a%2Fb")
    assert (request.method, request.body, request.header("X-Mine")) == ("POST", body, "one")
    assert query_of(request) == {"q": ["hé", "2"]}


def test_a_session_reuses_its_connection(livegate):
    gateway = livegate(http_api(says_its_key("GET /pets", "$default")))
    with contextlib.closing(requests.Session()) as session:
        session.trust_env = False
        for path, said in [("/pets", "GET /pets"), ("/x", "$default")] * 5:
            assert session.get(gateway.http_url + path, timeout=PATIENCE).text == said


def test_operators_listeners_serve_no_routes(livegate):
    gateway = livegate(http_api({"$default": says("pets")}))
    assert http_request(gateway.admin_url, "GET", "/pets").status == 404
