"""CORS (contract/http-api.md section 8), and what real browsers make of it."""

import json

import pytest

from backend import PATIENCE, Backend
from demo import chromium  # noqa: F401 (a fixture)
from http_apis import EventStream, ask, checked, http_api, is_error, lines_of, refused, says
from world import chat

APP = "https://app.example.com"
ALL = {
    "allow_origins": [APP, "http://localhost:3000"], "allow_methods": ["GET", "PUT"],
    "allow_headers": ["x-mine", "content-type"], "expose_headers": ["x-total", "x-page"], "max_age": "1h",
    "allow_credentials": True
}


def with_cors(settings, routes=None):
    return http_api(routes or {"GET /pets": says("pets")}, api={"cors": settings})


def preflight(gateway, path="/pets", origin=APP, method="PUT", headers=()):
    return ask(gateway, "OPTIONS", path, [("Origin", origin), ("Access-Control-Request-Method", method), *headers])


def said(answer):
    """What an answer says about CORS, without the prefix that all of it has; no header comes twice."""
    prefix = "access-control-"
    names = [name.lower() for name, _ in answer.headers if name.lower().startswith(prefix)]
    assert len(names) == len(set(names)), names
    return {name.removeprefix(prefix): answer.header(name) for name in names}


FROM_ALL = {
    "allow-origin": APP, "allow-methods": "GET,PUT", "allow-headers": "x-mine,content-type", "max-age": "3600",
    "allow-credentials": "true", "expose-headers": "x-total,x-page"
}

# Preflights


def test_a_preflight_is_answered_with_everything_that_is_configured(livegate):
    answer = preflight(livegate(with_cors(ALL)), headers=[("Access-Control-Request-Headers", "x-mine")])
    assert (answer.status, answer.body) == (204, b"")
    assert said(answer) == FROM_ALL


def test_what_is_not_configured_is_not_said(livegate):
    answer = preflight(livegate(with_cors({"allow_origins": APP})))
    assert (answer.status, said(answer)) == (204, {"allow-origin": APP})


def test_stars_stay_stars(livegate):
    gateway = livegate(
        with_cors({
            "allow_origins": "*", "allow_methods": ["*"], "allow_headers": ["*"], "expose_headers": ["*"],
            "max_age": "0s"
        }))
    assert said(preflight(gateway)) == {
        "allow-origin": "*", "allow-methods": "*", "allow-headers": "*", "expose-headers": "*", "max-age": "0"
    }
    assert said(ask(gateway, "GET", "/pets", [("Origin", "null")])) == {"allow-origin": "*", "expose-headers": "*"}


def test_preflights_reach_no_backend_and_need_no_route(livegate, backend):
    gateway = livegate(
        with_cors(
            ALL,
            {"ANY /pets": backend.at("/animals"), "$default": backend.at("/rest"), "OPTIONS /own": backend.at("/own")}))
    for path in ("/pets", "/own", "/nothing/at/all"):
        answer = preflight(gateway, path)
        assert (answer.status, said(answer)) == (204, FROM_ALL), path
    assert backend.seen_anywhere() == []
    without = livegate(with_cors(ALL))
    assert preflight(without, "/nothing").status == 204


def test_a_preflight_of_another_origin_gets_no_word_about_cors(livegate):
    gateway = livegate(with_cors(ALL))
    for origin in ("https://evil.example.com", "http://app.example.com", f"{APP}:8443", f"{APP}.evil.com",
                   "https://example.com", "null", f"{APP}/", "https://*", "*", "http://localhost",
                   "http://localhost:30000", ""):
        answer = preflight(gateway, origin=origin)
        assert (answer.status, answer.body, said(answer)) == (204, b"", {}), origin


@pytest.mark.parametrize("method, headers", [
    ("OPTIONS", [("Origin", APP)]), ("OPTIONS", [("Access-Control-Request-Method", "PUT")]), ("OPTIONS", []),
    ("GET", [("Origin", APP), ("Access-Control-Request-Method", "PUT")]),
])
def test_anything_else_is_an_ordinary_request(livegate, backend, method, headers):
    backend.answer("/animals", 200, "asked")
    gateway = livegate(with_cors(ALL, {"ANY /pets": backend.at("/animals")}))
    assert ask(gateway, method, "/pets", headers).body == b"asked"
    assert backend.next("/animals").method == method
    assert is_error(ask(gateway, method, "/nothing", headers), 404, "Not Found")


def test_without_cors_preflights_are_ordinary_requests(livegate, backend):
    backend.answer("/animals", 200, "mine", {"Access-Control-Allow-Origin": "https://backends.own"})
    gateway = livegate(http_api({"OPTIONS /pets": backend.at("/animals"), "GET /pets": backend.at("/animals")}))
    for method in ("OPTIONS", "GET"):
        answer = ask(gateway, method, "/pets", [("Origin", APP), ("Access-Control-Request-Method", "PUT")])
        assert (answer.status, answer.body, said(answer)) == (200, b"mine", {"allow-origin": "https://backends.own"})
    assert preflight(gateway, "/nothing").status == 404


# Origins


@pytest.mark.parametrize("allowed, origin", [
    (APP, APP), (APP, "https://APP.example.com"), ("https://App.Example.com", APP),
    ("http://localhost:3000", "http://localhost:3000"), ("https://*", "https://whoever.example:8443"),
    ("http://*", "http://localhost:3000"),
])
def test_an_allowed_origin_is_echoed_as_it_came(livegate, allowed, origin):
    gateway = livegate(with_cors({"allow_origins": [allowed]}))
    assert said(preflight(gateway, origin=origin)) == said(ask(gateway, "GET", "/pets",
                                                               [("Origin", origin)])) == {"allow-origin": origin}


@pytest.mark.parametrize("allowed, origin", [
    ("https://*", "http://a.example"), ("http://*", "https://a.example"), ("https://*", "null"),
    ("https://*", "https-evil://a.example"), ("https://*", "https://"), ("https://*", "https://a.example/path"),
])
def test_a_scheme_allows_its_own_origins_only(livegate, allowed, origin):
    gateway = livegate(with_cors({"allow_origins": [allowed]}))
    fine = allowed.replace("*", "fine.example")
    assert said(preflight(gateway, origin=fine)) == {"allow-origin": fine}
    assert said(preflight(gateway, origin=origin)) == said(ask(gateway, "GET", "/pets", [("Origin", origin)])) == {}


# Other answers


def test_answers_get_the_gateways_word_in_place_of_the_backends(livegate, backend):
    theirs = {
        f"Access-Control-{name}": "theirs"
        for name in ("Allow-Origin", "Allow-Credentials", "Expose-Headers", "Allow-Methods", "Max-Age", "X")
    }
    backend.answer("/animals", 201, "pets", {**theirs, "X-Total": "5"})
    gateway = livegate(with_cors(ALL, {"GET /pets": backend.at("/animals")}))
    answer = ask(gateway, "GET", "/pets", [("Origin", APP)])
    assert said(answer) == {"allow-origin": APP, "allow-credentials": "true", "expose-headers": "x-total,x-page"}
    assert (answer.status, answer.body, answer.header("X-Total")) == (201, b"pets", "5")
    for headers in ([("Origin", "https://evil.example.com")], []):
        answer = ask(gateway, "GET", "/pets", headers)
        assert (answer.status, answer.body, said(answer)) == (201, b"pets", {}), headers


def test_the_origin_reaches_the_backend(livegate, backend):
    gateway = livegate(with_cors(ALL, {"GET /pets": backend.at("/animals")}))
    ask(gateway, "GET", "/pets", [("Origin", APP)])
    assert backend.next("/animals").header("Origin") == APP


def test_the_gateways_errors_can_be_read_by_pages_too(livegate, backend, dead_backend):
    gateway = livegate(
        with_cors(
            ALL, {
                "GET /dead": dead_backend.at("/"), "POST /function": {
                    "integration": {"type": "http_proxy", "uri": backend.at("/function"), "payload": "event"}
                }
            }))
    backend.answer("/function", 500)
    for method, path, status, text in [("GET", "/nothing", 404, "Not Found"),
                                       ("GET", "/dead", 503, "Service Unavailable"),
                                       ("POST", "/function", 500, "Internal Server Error"),
                                       ("GET", "/a/../b", 400, "Bad Request")]:
        answer = ask(gateway, method, path, [("Origin", APP)])
        assert is_error(answer, status, text)
        assert said(answer) == {"allow-origin": APP, "allow-credentials": "true", "expose-headers": "x-total,x-page"}
        assert said(ask(gateway, method, path, [("Origin", "https://evil.example.com")])) == {}


def test_caches_learn_that_the_origin_matters(livegate, backend):
    backend.answer("/animals", 200, "", {"Vary": "Accept"})
    gateway = livegate(with_cors(ALL, {"GET /pets": backend.at("/animals")}))
    for headers in ([("Origin", APP)], [("Origin", "https://evil.example.com")], []):
        varies = {
            word.strip().lower()
            for line in lines_of(ask(gateway, "GET", "/pets", headers), "Vary")
            for word in line.split(",")
        }
        assert varies == {"accept", "origin"}


def test_a_function_cannot_speak_about_cors_either(livegate, backend):
    gateway = livegate(
        with_cors(ALL,
                  {"GET /pets": {"integration": {"type": "http_proxy", "uri": backend.at("/f"), "payload": "event"}}}))
    backend.answer("/f", 200, '{"statusCode":200,"headers":{"access-control-allow-origin":"*"}}')
    assert said(ask(gateway, "GET", "/pets", [("Origin", "https://evil.example.com")])) == {}
    assert said(ask(gateway, "GET", "/pets", [("Origin", APP)]))["allow-origin"] == APP


# `livegate check`


@pytest.mark.parametrize("settings, words", [
    ({"allow_origins": "*", "allow_credentials": True}, ["*", "allow_credentials"]),
    ({"allow_origins": [APP + "/"]}, [f"write `{APP}`"]), ({"allow_origins": ["app.example.com"]}, [f"`{APP}`"]),
    ({"allow_origins": ["https://*.example.com"]}, ["no origin"]), ({"allow_origins": ["null"]}, ["null"]),
    ({"allow_methods": ["GET"]}, ["allow_origins"]),
    ({"allow_origins": APP, "allow_methods": ["get"]}, ["write `GET`"]),
    ({"allow_origins": APP, "allow_methods": ["ANY"]}, ["write `*`"]),
    ({"allow_origins": APP, "allow_headers": ["x y"]}, ["x y"]),
    ({"allow_origins": APP, "allow_headers": ["x-*"]}, ["x-*"]), ({"allow_origins": APP, "max_age": "25h"}, ["24h"]),
    ({"allow_origins": APP, "max_age": "1500ms"}, ["whole seconds"]),
    ({"allow_origins": APP, "max_age": 3600}, ["max_age"]), ({"allow_origin": APP}, ["did you mean `allow_origins`?"]),
])
def test_bad_settings_are_refused(tmp_path, settings, words):
    refused(tmp_path, with_cors(settings), "routes.toml:", *words)


def test_good_settings_are_not(tmp_path):
    for settings in (ALL, {"allow_origins": "*"}, {"allow_origins": APP,
                                                   "max_age": "24h"}, {"allow_origins": APP, "max_age": "none"}):
        code, report = checked(tmp_path, with_cors(settings))
        assert code == 0, report


def test_websocket_apis_have_no_cors(tmp_path):
    refused(tmp_path, chat(api={"cors": {"allow_origins": APP}}), "cors", "leave it out")


# A real browser


@pytest.fixture
def site():
    """Where a page comes from: another origin than the gateway's."""
    site = Backend()
    site.answer("/", 200, "<!doctype html><title>page</title>", {"Content-Type": "text/html"})
    yield site
    site.stop()


@pytest.fixture
def page_at(chromium):  # noqa: F811
    contexts = []

    def visit(url):
        context = chromium.new_context()
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.goto(url)
        return page

    yield visit
    for context in contexts:
        context.close()


FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        const [total, secret] = ["x-total", "x-secret"].map(name => answer.headers.get(name));
        return { status: answer.status, text: await answer.text(), total, secret };
    } catch (error) {
        return { error: error.name };
    }
}"""


def fetch(page, url, **options):
    return page.evaluate(FETCH, [url, options])


def api_for(site, backend, **more):
    cors = {
        "allow_origins": [f"http://{site.authority}"], "allow_methods": ["PUT"],
        "allow_headers": ["x-mine", "content-type"], "expose_headers": ["x-total"], "max_age": "1m",
        "allow_credentials": True, **more
    }
    return with_cors(cors, {"ANY /pets": backend.at("/animals"), "GET /login": backend.at("/login")})


PUT = {
    "method": "PUT", "headers": {"x-mine": "1", "content-type": "application/json"}, "body": '{"name":"Rex"}',
    "credentials": "include"
}


def test_a_page_of_an_allowed_origin_fetches_with_a_preflight_and_credentials(livegate, backend, site, page_at):
    gateway = livegate(api_for(site, backend))
    backend.answer("/login", 200, "welcome", {"Set-Cookie": "session=abc; HttpOnly"})
    backend.answer("/animals", 201, "made", {"X-Total": "5", "X-Secret": "6"})
    page = page_at(site.at("/"))
    assert fetch(page, f"{gateway.http_url}/login", credentials="include")["text"] == "welcome"
    got = fetch(page, f"{gateway.http_url}/pets", **PUT)
    assert got == {"status": 201, "text": "made", "total": "5", "secret": None}
    [request] = backend.seen("/animals")
    assert (request.method, request.json, request.header("X-Mine"),
            request.header("Cookie")) == ("PUT", {"name": "Rex"}, "1", "session=abc")
    assert fetch(page, f"{gateway.http_url}/nothing", credentials="include")["status"] == 404


def test_a_page_of_another_origin_is_kept_out(livegate, backend, site, page_at):
    gateway = livegate(api_for(site, backend))
    stranger = page_at(f"http://localhost:{site.port}/")
    assert fetch(stranger, f"{gateway.http_url}/pets", **PUT) == {"error": "TypeError"}
    assert backend.seen("/animals") == []
    # Without a preflight the request is made, but the page may not read the answer.
    assert fetch(stranger, f"{gateway.http_url}/pets") == {"error": "TypeError"}
    assert backend.next("/animals").method == "GET"


@pytest.mark.parametrize("more", [
    {"allow_methods": ["PATCH"]}, {"allow_headers": ["x-other"]}, {"allow_credentials": False},
])
def test_what_is_not_allowed_fails_from_an_allowed_origin_too(livegate, backend, site, page_at, more):
    gateway = livegate(api_for(site, backend, **more))
    page = page_at(site.at("/"))
    assert fetch(page, f"{gateway.http_url}/pets", **PUT) == {"error": "TypeError"}
    assert backend.seen("/animals") == []


def test_stars_let_any_page_in_without_credentials(livegate, backend, site, page_at):
    gateway = livegate(
        with_cors({"allow_origins": "*", "allow_methods": ["*"], "allow_headers": ["*"]},
                  {"ANY /pets": backend.at("/animals")}))
    page = page_at(f"http://localhost:{site.port}/")
    assert fetch(page, f"{gateway.http_url}/pets", **{**PUT, "credentials": "omit"})["status"] == 200
    assert fetch(page, f"{gateway.http_url}/pets", **PUT) == {"error": "TypeError"}
    assert [request.method for request in backend.seen("/animals")] == ["PUT"]


@pytest.fixture
def stream():
    stream = EventStream()
    yield stream
    stream.stop()


LISTEN = """url => {
    window.heard = [];
    window.source = new EventSource(url, { withCredentials: true });
    const note = event => window.heard.push([event.type, event.data, event.lastEventId]);
    window.source.onopen = () => window.heard.push(["opened"]);
    window.source.onerror = () => window.heard.push(["failed"]);
    window.source.onmessage = note;
    window.source.addEventListener("pet", note);
}"""


def hears(page, count):
    page.wait_for_function(f"window.heard.length >= {count}")
    return page.evaluate("window.heard")


@pytest.mark.parametrize("stage", [{}, {"minimum_compression_size": "1KiB"}])
def test_an_event_source_hears_event_by_event(livegate, site, stream, page_at, stage):
    gateway = livegate(
        http_api({"GET /events": stream.uri},
                 stage=stage,
                 api={"cors": {"allow_origins": [f"http://{site.authority}"], "allow_credentials": True}}))
    page = page_at(site.at("/"))
    page.evaluate(LISTEN, f"{gateway.http_url}/events")
    expected = [["opened"]]
    assert hears(page, 1) == expected
    # Each is said only once the one before was heard, so none waits for another.
    for number in range(1, 6):
        text = json.dumps({"number": number})
        stream.event(text, name="pet" if number % 2 else None, number=number)
        expected.append(["pet" if number % 2 else "message", text, str(number)])
        assert hears(page, len(expected)) == expected
    page.evaluate("window.source.close()")


def test_an_event_source_of_another_origin_fails(livegate, stream, site, page_at):
    gateway = livegate(http_api({"GET /events": stream.uri}, api={"cors": {"allow_origins": [APP]}}))
    page = page_at(site.at("/"))
    page.evaluate(LISTEN, f"{gateway.http_url}/events")
    assert hears(page, 1) == [["failed"]]
