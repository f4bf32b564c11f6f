"""The operator's dashboard in a real browser, against a gateway with clients: what it shows, what it does, and to whom."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest
from playwright.sync_api import expect

from backend import PATIENCE, Answer
from demo import chromium  # noqa: F401 (a fixture)
from wire import TEXT, frame, handshake
from world import ARTEFACTS, chat, eventually, http_request, mock, run, to, two_way

VIEWS = ["overview", "routes", "connections", "live", "playground", "metrics"]
TOKEN = "an-operators-token"
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
BAD = chat(routes={"send": "http://127.0.0.1:3000/send"}).replace('integration = "http', 'rout_response = true\nintegration = "http')


@pytest.fixture
def browse(chromium):  # noqa: F811
    """Opens a view of a gateway's dashboard. Errors of the page, breaches of its policy and questions to others fail the test."""
    contexts, wrong = [], []
    expect.set_options(timeout=PATIENCE * 1000)

    def open_page(gateway, view="overview", width=1280, ready=True, **settings):
        context = chromium.new_context(viewport={"width": width, "height": 800}, **settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"{error}\n{error.stack}"))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        page.on("request", lambda request: wrong.append(f"asked {request.url}")
                if not request.url.startswith((gateway.admin_url + "/", "data:")) else None)
        page.goto(f"{gateway.admin_url}/#/{view}")
        if ready:
            expect(page.locator("#state")).to_have_text("ready")
            expect(page.locator("h1")).to_be_visible()
        return page
    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def go(page, view):
    """Another view, by the address bar."""
    page.evaluate("(hash) => { location.hash = hash; }", f"#/{view}")
    expect(page.locator("h1")).to_be_visible()


def shoot(page, name, whole=True):
    page.screenshot(path=ARTEFACTS / f"dashboard-{name}.png", full_page=whole, animations="disabled")


def exactly(text):
    return re.compile(f"^{re.escape(text)}$")


def tile(page, label):
    return page.locator(".tile").filter(has=page.locator("span", has_text=exactly(label))).locator("b")


def fact(page, name):
    return page.locator(".facts > div").filter(has=page.locator("dt", has_text=exactly(name))).locator("dd").first


def rows(page, caption):
    return page.get_by_role("region", name=caption, exact=True).locator("tbody tr")


def cell(row, label):
    return row.locator(f"[data-label='{label}']")


def button(scope, text):
    return scope.get_by_role("button", name=text, exact=True)


# The page


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (360, "dark")])
def test_every_view_fits_and_keeps_to_its_policy(livegate, browse, width, scheme):
    gateway = livegate(stage={"data_trace": True})
    with gateway.connect() as client:
        identity = client.whoami()
        page = browse(gateway, width=width, color_scheme=scheme)
        for view in [*VIEWS, f"connections/{identity}"]:
            go(page, view)
            if view == "overview":
                expect(page.locator(".plot canvas")).to_have_count(5)
            if view.startswith("connections"):
                expect(page.get_by_text(identity, exact=True).first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            shoot(page, f"{view.split('/')[0] if view in VIEWS else 'connection'}-{width}")


def test_the_page_is_the_gateways_own_and_cannot_be_framed(livegate):
    gateway = livegate()
    kinds = {"/": "text/html", "/dashboard.js": "text/javascript", "/dashboard.css": "text/css", "/uplot.js": "text/javascript",
             "/uplot.css": "text/css", "/favicon.svg": "image/svg+xml"}
    for path, kind in kinds.items():
        answer = gateway.admin(path)
        assert (answer.status, answer.header("Content-Type").split(";")[0]) == (200, kind), path
        policy = answer.header("Content-Security-Policy")
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy


def test_every_module_that_is_imported_is_there(livegate):
    gateway = livegate()
    seen, wanted = set(), ["dashboard.js"]
    while wanted:
        name = wanted.pop()
        seen.add(name)
        answer = gateway.admin(f"/{name}")
        assert answer.status == 200, name
        found = re.findall(r'^import .* from "\./([\w.]+)";', answer.body.decode(), re.M)
        wanted += [one for one in found if one not in seen]
    assert {"uplot.js", "live.js", "playground.js"} <= seen


def test_the_theme_is_chosen_and_kept(livegate, browse):
    page = browse(livegate(), color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) == light
    page.click("#theme")
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.locator("#theme")).to_have_text("Theme: dark")
    assert page.evaluate(ground) != light


# Overview


def test_the_overview_counts_what_happens(livegate, backend, browse):
    backend.answers("/echo", lambda request: Answer(body=request.body))
    gateway = livegate(routes={"echo": two_way(backend.at("/echo"))})
    page = browse(gateway)
    expect(tile(page, "Connections")).to_have_text("0")
    with gateway.connect() as client, gateway.connect() as other:
        other.whoami()
        expect(tile(page, "Connections")).to_have_text("2")
        expect(page.locator(".chart", has_text="Connections").first.locator(".series b").first).to_have_text("2")

        def moves():
            client.asks(action="echo")
            return tile(page, "Messages in").text_content() not in ("0/s", "")
        eventually(moves, "the rate of messages to be shown")
        expect(tile(page, "Latency p50")).to_contain_text(re.compile("µs|ms"))
        tile(page, "Connections").click()
        expect(rows(page, "Connections")).to_have_count(2)


def test_a_range_is_part_of_the_address(livegate, browse):
    page = browse(livegate())
    button(page, "1 h").click()
    assert page.url.endswith("#/overview?range=1h")
    page.reload()
    expect(button(page, "1 h")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".plot canvas")).to_have_count(5)


def test_a_line_can_be_hidden_by_keyboard(livegate, browse):
    page = browse(livegate())
    line = page.locator(".series", has_text="p95")
    line.focus()
    page.keyboard.press("Enter")
    expect(line).to_have_attribute("aria-pressed", "false")


def test_backends_and_process_are_shown(livegate, backend, browse):
    backend.answer("/say", body=b"said")
    gateway = livegate(routes={"say": two_way("http://pool/say")}, backends={"pool": {"servers": [backend.authority]}})
    with gateway.connect() as client:
        client.asks(action="say")
        page = browse(gateway)
        server = rows(page, "Backends").filter(has_text=backend.authority)
        expect(cell(server, "Backend")).to_contain_text("pool")
        expect(fact(page, "Memory")).to_contain_text("iB")
        expect(fact(page, "State")).to_have_text("ready")


# Routes and reloads


def test_a_failed_reload_is_told_as_check_tells_it(livegate, browse):
    gateway = livegate()
    page = browse(gateway, "routes")
    expect(page.locator(".problems")).to_be_hidden()
    gateway.reload(BAD)
    expect(page.locator(".banner")).to_contain_text("problems")
    page.locator(".banner a").click()
    report = page.locator(".problems pre")
    expect(report).to_contain_text("route_response")
    assert report.text_content() == gateway.admin("/api/status").json["reload"]["report"]
    assert "rout_response" in run("check", str(gateway.file)).stdout
    shoot(page, "reload")
    gateway.reload(chat(routes={"more": mock("more")}))
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator(".problems")).to_be_hidden()
    expect(rows(page, "Routes").filter(has_text="more")).to_have_count(1)


def test_a_thousand_routes_are_filtered_and_ordered(livegate, browse):
    gateway = livegate(routes={f"route-{number}": mock(str(number)) for number in range(1200)})
    with gateway.connect() as client:
        client.asks(action="route-1199")
        page = browse(gateway, "routes")
        expect(rows(page, "Routes")).to_have_count(200)
        page.get_by_role("button", name=re.compile("^Show .* more$")).click()
        expect(rows(page, "Routes")).to_have_count(400)
        page.get_by_label("Filter").fill("route-119")
        expect(rows(page, "Routes")).to_have_count(11)
        page.get_by_label("Order").select_option(label="by rate")
        first = rows(page, "Routes").first
        expect(cell(first, "Route")).to_have_text("route-1199")
        expect(cell(first, "Rate")).to_contain_text("1 in all")
        assert "search=route-119" in page.url and "sort=rate" in page.url
        cell(first, "Route").locator("a").click()
        expect(page.get_by_label("Route", exact=True)).to_have_value("route-1199")


# Connections


def test_connections_are_paged_and_found(livegate, browse):
    gateway = livegate()
    clients = [gateway.connect() for _ in range(60)]
    try:
        page = browse(gateway, "connections")
        listed = rows(page, "Connections")
        expect(listed).to_have_count(50)
        newest = listed.first.locator("th").text_content()
        button(page, "Older").click()
        expect(listed).to_have_count(10)
        assert "after=" in page.url
        expect(button(page, "Older")).to_be_disabled()
        oldest = listed.last.locator("th").text_content()
        button(page, "Newer").click()
        expect(listed).to_have_count(50)
        expect(listed.first.locator("th")).to_have_text(newest)
        page.get_by_label("Search").fill(oldest)
        expect(listed).to_have_count(1)
        page.get_by_role("search").locator("select").select_option("user")
        expect(page.get_by_text("No connection matches this.")).to_be_visible()
        page.get_by_role("search").locator("select").select_option("address")
        page.get_by_label("Search").fill("127.0.0.1")
        expect(page.get_by_text("60 of 60 open")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Search")).to_have_value("127.0.0.1")
    finally:
        for client in clients:
            client.close()


def test_a_connection_is_described(livegate, browse):
    gateway = livegate()
    with gateway.connect(headers={"User-Agent": HOSTILE}) as client:
        identity = client.whoami()
        page = browse(gateway, f"connections/{identity}")
        expect(fact(page, "User agent")).to_have_text(HOSTILE)
        expect(fact(page, "Last route")).to_have_text("whoami")
        expect(fact(page, "From it")).to_contain_text("1 message,")
        client.whoami()
        expect(fact(page, "From it")).to_contain_text("2 messages,")
        assert page.title() != "owned" and page.locator("main img").count() == 0


def test_an_operator_sends_to_a_connection(livegate, browse):
    gateway = livegate(stage={"binary": True})
    with gateway.connect() as client:
        page = browse(gateway, f"connections/{client.whoami()}")
        page.get_by_label("Message").fill("zoë <b>")
        button(page, "Send").click()
        assert client.hears() == "zoë <b>"
        expect(page.locator(".outcome").first).to_contain_text("Sent at")
        button(page, "Binary, as base64").click()
        page.get_by_label("Message").fill("AP8=")
        button(page, "Send").click()
        assert client.hears() == b"\x00\xff"


def test_an_operator_closes_a_connection_once_asked_again(livegate, browse):
    gateway = livegate()
    with gateway.connect() as client:
        page = browse(gateway, f"connections/{client.whoami()}")
        page.get_by_label("Code").select_option(label="another")
        page.get_by_label("Number").fill("4001")
        page.get_by_label("Reason").fill("moved")
        button(page, "Close…").click()
        expect(page.get_by_role("dialog")).to_contain_text("4001 “moved”")
        page.keyboard.press("Escape")
        client.whoami()
        button(page, "Close…").click()
        button(page, "Close it").click()
        assert client.closed() == (4001, "moved")
        expect(page.get_by_text("It was closed;")).to_be_visible()
        expect(page.get_by_label("Message")).to_be_disabled()


def test_a_connection_that_never_was(livegate, browse):
    page = browse(livegate(), "connections/AAAAAAAAAAAAAAA=")
    expect(page.get_by_text("No connection with this id is open")).to_be_visible()


# Live


def watching(page):
    expect(page.locator("main .pill")).to_have_text("watching")
    return page.locator(".tail li")


def test_the_tail_shows_what_one_connection_does(livegate, browse):
    gateway = livegate()
    with gateway.connect() as client, gateway.connect() as other:
        identity = client.whoami()
        page = browse(gateway, f"connections/{identity}")
        page.get_by_role("link", name="Watch it live").click()
        page.get_by_label("message", exact=True).check()
        events = watching(page)
        other.whoami()
        client.whoami()
        expect(events).to_have_count(1)
        expect(events.first).to_contain_text(identity)
        expect(events.first.locator(".result")).to_contain_text("ok")
        events.first.locator("summary").click()
        for text in ("whoami", "127.0.0.1", "chat", "prod", "latency_ms"):
            expect(events.first.locator(".facts")).to_contain_text(text)
        expect(page.locator("main .pill")).to_have_text("paused while you read")
        client.whoami()
        expect(page.get_by_text("1 new event since")).to_be_visible()
        expect(events).to_have_count(1)
        button(page, "Resume").click()
        expect(events).to_have_count(2)
        shoot(page, "events")
        button(page, "Clear").click()
        expect(events).to_have_count(0)


def test_payloads_need_the_stages_leave(livegate, browse):
    gateway = livegate()
    with gateway.connect() as client:
        page = browse(gateway, "live?payload=true&kind=message")
        expect(page.get_by_text("No payloads are told of chat / prod")).to_be_visible()
        events = watching(page)
        client.asks(action="whoami", secret="hidden")
        expect(events).to_have_count(1)
        expect(events.first.locator(".payload")).to_have_count(0)
        assert "hidden" not in page.locator("main").inner_text()


def test_payloads_are_text_and_nothing_else(livegate, browse):
    gateway = livegate(stage={"data_trace": True})
    with gateway.connect() as client:
        page = browse(gateway, "live?payload=true&kind=message")
        events = watching(page)
        client.asks(action="whoami", text=HOSTILE)
        expect(events.first.locator(".payload")).to_contain_text("<img src=x")
        events.first.locator("summary").click()
        expect(events.first.locator("pre")).to_contain_text("<img src=x")
        assert page.title() != "owned" and page.locator("main img").count() == 0


def test_refusals_are_found_by_their_cause(livegate, browse):
    gateway = livegate(stage={"throttle": {"rate": 1, "burst": 1}})
    page = browse(gateway, "live?outcome=refused&text=route_throttle")
    events = watching(page)
    with gateway.connect() as client:
        for _ in range(5):
            client.says(action="whoami")
        expect(events.first.locator(".error")).to_contain_text("route_throttle")


def test_the_list_has_an_end(livegate, browse):
    gateway = livegate()
    page = browse(gateway, "live?kind=message")
    events = watching(page)
    with gateway.connect() as client:
        for _ in range(700):
            client.whoami()
        expect(events).to_have_count(500)


def test_the_tail_comes_back(livegate, browse):
    gateway = livegate()
    page = browse(gateway)
    left = [503, 503]

    def away(route):
        if left:
            route.fulfill(status=left.pop(), json={"message": "16 watch already"})
        else:
            route.continue_()
    page.route("**/api/tail?*", away)
    go(page, "live?kind=message")
    expect(page.get_by_text("16 watch already")).to_be_visible()
    events = watching(page)
    expect(page.get_by_text("16 watch already")).to_be_hidden()
    with gateway.connect() as client:
        client.whoami()
        expect(events).to_have_count(1)


def test_the_page_tells_when_nobody_answers(livegate, browse):
    gateway = livegate()
    page = browse(gateway)
    gateway.terminate()
    expect(page.locator("#state")).to_have_text("no answer")
    expect(page.locator(".banner")).to_contain_text("does not answer")
    expect(tile(page, "Connections")).to_be_visible()


# Playground


def connected(page):
    button(page, "Connect").click()
    expect(page.locator(".talk .pill")).to_have_text("open")


def send(page, text):
    page.locator(".talk").get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def test_the_playground_is_a_client_like_any_other(livegate, backend, browse):
    backend.answers("/echo", lambda request: Answer(body=request.body))
    gateway = livegate(routes={"$connect": to(backend.at("/connect")), "$disconnect": to(backend.at("/disconnect")),
                               "echo": two_way(backend.at("/echo"))})
    page = browse(gateway, "playground?query=room%3Dtea")
    page.get_by_label("Token", exact=True).fill("t0ken")
    page.get_by_label("Headers, one a line").fill("X-One: 1\nX-Two: zwei: 2")
    connected(page)
    asked = backend.next("/connect")
    assert (asked.query, asked.header("Authorization")) == ("room=tea", "Bearer t0ken")
    assert (asked.header("X-One"), asked.header("X-Two")) == ("1", "zwei: 2")
    assert "t0ken" not in page.url
    send(page, '{"action":"echo","text":"<b>hello</b>"}')
    came = page.locator(".frame.in")
    expect(came.locator("pre")).to_have_text('{"action":"echo","text":"<b>hello</b>"}')
    expect(came.locator(".took")).to_contain_text("after it was sent")
    page.keyboard.press("ArrowUp")
    expect(page.locator(".talk").get_by_label("Message")).to_have_value('{"action":"echo","text":"<b>hello</b>"}')
    # The socket outlives a look at another view.
    go(page, "connections")
    expect(rows(page, "Connections")).to_have_count(1)
    go(page, "playground")
    expect(page.locator(".talk .pill")).to_have_text("open")
    expect(came).to_have_count(1)
    shoot(page, "frames")
    page.get_by_label("Reason").fill("enough")
    button(page, "Close the socket").click()
    expect(page.get_by_text("closed by you with 1000")).to_be_visible()
    told = backend.next("/disconnect")
    assert told.header("X-Livegate-Disconnect-Code") == "1000"


def test_the_playground_shows_a_refusal(livegate, backend, browse):
    backend.answer("/connect", status=403, body=b"not you")
    page = browse(livegate(routes={"$connect": to(backend.at("/connect"))}), "playground")
    button(page, "Connect").click()
    expect(page.locator(".talk .pill")).to_have_text("refused with 403")
    expect(button(page, "Connect")).to_be_enabled()


def test_the_playground_shows_who_else_closed(livegate, browse):
    gateway = livegate()
    page = browse(gateway, "playground")
    connected(page)
    send(page, '{"action":"whoami"}')
    identity = page.locator(".frame.in pre").text_content()
    assert gateway.delete(identity).status == 204
    expect(page.locator(".talk .pill")).to_have_text(re.compile("^closed with 1"))


def test_leaving_the_page_ends_its_socket(livegate, browse):
    gateway = livegate()
    page = browse(gateway, "playground")
    connected(page)
    assert gateway.metric("livegate_connections_open") == 1
    page.close()
    eventually(lambda: gateway.metric("livegate_connections_open") == 0, "the socket to be closed")


SIGNED = {"AWS_ACCESS_KEY_ID": "AKIDLOCAL", "AWS_SECRET_ACCESS_KEY": "local-secret"}


@pytest.mark.parametrize("authorization", ["none", "aws_iam"])
@pytest.mark.parametrize("tool", ["curl", "Python"])
def test_the_composed_push_works_as_it_is(livegate, browse, authorization, tool):
    allow = ["execute-api:ManageConnections chat/prod/*"]
    keys = {"access_key_id": SIGNED["AWS_ACCESS_KEY_ID"], "secret_access_key": SIGNED["AWS_SECRET_ACCESS_KEY"], "allow": allow}
    gateway = livegate(connections_api={"authorization": authorization}, credentials={"backend": keys})
    message = "it's \"quoted\" $HOME\nzoë \\n"
    with gateway.connect() as client:
        page = browse(gateway, f"connections/{client.whoami()}")
        page.get_by_role("link", name="Compose a push to it").click()
        page.get_by_label("Authorization of connections_api").select_option(authorization)
        push = page.locator(".card", has_text="Compose a push")
        push.get_by_label("Message").fill(message)
        command = page.get_by_role("region", name=tool, exact=True).text_content()
        line = ["bash", "-c", command] if tool == "curl" else [sys.executable, "-c", command]
        ran = subprocess.run(line, env={**os.environ, **SIGNED}, capture_output=True, text=True, timeout=3 * PATIENCE)
        assert ran.returncode == 0, ran.stderr
        assert client.hears() == message, ran.stdout


# Who may


def test_the_token_is_asked_for_and_kept_in_the_tab(livegate, browse):
    gateway = livegate(gateway={"admin_token": TOKEN})
    page = browse(gateway, "routes", ready=False)
    field = page.get_by_label("Token")
    field.fill("another")
    button(page, "Sign in").click()
    expect(page.get_by_text("The gateway does not take this token.")).to_be_visible()
    shoot(page, "token")
    field.fill(TOKEN)
    page.keyboard.press("Enter")
    expect(rows(page, "Routes").filter(has_text="whoami")).to_have_count(1)
    page.reload()
    expect(rows(page, "Routes").filter(has_text="whoami")).to_have_count(1)
    assert page.context.cookies() == []
    go(page, "metrics?search=livegate_connections_open")
    expect(page.get_by_role("region", name="Metrics")).to_contain_text('livegate_connections_open{api="chat",stage="prod"} 0')
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()


def test_a_dashboard_that_only_looks(livegate, browse):
    gateway = livegate(gateway={"admin_read_only": True})
    with gateway.connect() as client:
        identity = client.whoami()
        page = browse(gateway, f"connections/{identity}")
        expect(page.get_by_text("This dashboard is read-only").first).to_be_visible()
        for control in (page.get_by_label("Message"), button(page, "Send"), button(page, "Close…")):
            expect(control).to_be_disabled()
        go(page, "playground")
        expect(button(page, "Connect")).to_be_disabled()
        expect(page.locator("#mode")).to_have_text("read-only")
        refused = http_request(gateway.admin_url, "POST", f"/api/connections/{identity}/close", json.dumps({"code": 1000}),
                               {"Content-Type": "application/json"})
        assert refused.status == 403 and "read-only" in refused.json["message"]
        client.whoami()


def test_a_name_that_points_here_is_refused_with_a_word(livegate, browse):
    gateway = livegate()
    page = browse(gateway)
    page.route("**/api/status", lambda route: route.fulfill(status=403, json={"message": f"for this machine alone {HOSTILE}"}))
    expect(page.get_by_text("Not from here")).to_be_visible()
    expect(page.locator(".gate pre")).to_have_text(f"for this machine alone {HOSTILE}")
    page.unroute("**/api/status")
    button(page, "Try again").click()
    expect(tile(page, "Connections")).to_be_visible()


def test_a_drain_is_told(livegate, backend, browse):
    gateway = livegate(routes={"slow": two_way(backend.at("/slow"))}, gateway={"drain_timeout": "8s"})
    with gateway.connect() as client, backend.holding("/slow"):
        page = browse(gateway)
        client.says(action="slow")
        backend.next("/slow")
        gateway.signal(signal.SIGTERM)
        expect(page.locator("#state")).to_have_text(re.compile("draining|no answer"))


# All at once

CROWD = 18_000


@pytest.fixture
def crowd():
    """Opens a crowd of sockets, and resets them all at the end, so that no port has to wait for another test."""
    sockets = []

    def come(gateway, count):
        hello = handshake("/prod", gateway.host)
        for _ in range(count):
            one = socket.create_connection(gateway.address)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(hello)
            sockets.append(one)
        for one in sockets:
            assert one.recv(4096).startswith(b"HTTP/1.1 101 ")
        return sockets
    yield come
    for one in sockets:
        one.close()


@pytest.mark.timeout(240)
def test_a_crowd_a_storm_and_a_failed_reload(livegate, browse, crowd):
    gateway = livegate(stage={"throttle": {"rate": 1_000_000, "burst": 1_000_000}})
    clients = crowd(gateway, CROWD)
    page = browse(gateway)
    expect(tile(page, "Connections")).to_have_text("18,000")
    go(page, "connections")
    expect(page.get_by_text("18,000 of 18,000 open").or_(page.get_by_text("18,000 open")).first).to_be_visible()
    expect(rows(page, "Connections")).to_have_count(50)
    shoot(page, "crowd-connections")
    # To the very last page, as somebody's script would go through them.
    oldest = page.evaluate("""async () => {
        let query = "", last = null;
        do {
            const part = await (await fetch(`/api/connections?limit=500${query}`)).json();
            last = part.connections.at(-1).id;
            query = `&after=${part.next}`;
            if (!part.next) return last;
        } while (true);
    }""")
    page.get_by_label("Search").fill(oldest)
    expect(rows(page, "Connections")).to_have_count(1)
    # A storm that a throttle turns away, while the file on disk is wrong.
    gateway.reload(chat(stage={"throttle": {"rate": 10, "burst": 10}}))
    gateway.reload(BAD)
    go(page, "overview")
    stop = threading.Event()

    def storm():
        said = frame(TEXT, '{"action":"whoami"}')
        while not stop.is_set():
            for one in clients[:200]:
                one.sendall(said)
            for one in clients[:200]:
                one.recv(65536)

    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    try:
        expect(page.locator(".banner")).to_contain_text("problems")
        eventually(lambda: gateway.metric("livegate_refusals_total", cause="route_throttle") > 5000)
        expect(tile(page, "Errors")).not_to_have_text("0/s")
        shoot(page, "storm-1280")
        narrow = browse(gateway, "overview", width=360, ready=False, color_scheme="dark")
        expect(tile(narrow, "Connections")).to_have_text("18,000")
        expect(tile(narrow, "Errors")).not_to_have_text("0/s")
        shoot(narrow, "storm-360")
        go(page, "routes")
        expect(page.get_by_text("rout_response").first).to_be_visible()
        shoot(page, "storm-routes")
        go(page, "live?outcome=refused")
        expect(page.get_by_text("route_throttle").first).to_be_visible()
        shoot(page, "storm-live", whole=False)
    finally:
        stop.set()
        thread.join(30)
