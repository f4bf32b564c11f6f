"""The demo as a newcomer meets it: two browsers that chat, and the examples that do the same job.

Page, rooms and socket are all reached at the one URL that is printed, the gateway's.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.parse

import pytest
from playwright.sync_api import expect, sync_playwright
from websockets.sync.client import connect

from backend import PATIENCE, Backend
from world import ARTEFACTS, ID, LIVEGATE, REPOSITORY, Client, Livegate, eventually, http_request

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


@pytest.fixture
def demo(processes, tmp_path):
    """Starts `livegate demo` in an empty folder; `url` is the one it prints."""
    def start():
        process = processes(Livegate, "demo", cwd=tmp_path, logs=tmp_path / f"demo-{os.urandom(4).hex()}.log")
        process.url = process.url_after("")
        return process
    return start


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens the chat as somebody, in a browser profile of their own; what a page did wrong fails the test."""
    contexts, errors = [], []

    def open_page(url, name, room="t", before=lambda page: None):
        context = chromium.new_context(viewport={"width": 1000, "height": 640})
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
        before(page)
        page.goto(f"{url}/?room={room}&name={urllib.parse.quote(name)}")
        expect(page.locator("#state")).to_have_attribute("data-state", "connected", timeout=PATIENCE * 1000)
        return page
    open_page.errors = errors
    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def say(page, text):
    page.fill("#text", text)
    page.click("#send")


def reads(page, sender, text):
    """Waits until the page shows this message of this sender."""
    message = page.locator(".message").filter(has=page.locator(".text", has_text=re.compile(f"^{re.escape(text)}$")))
    expect(message).to_have_count(1, timeout=PATIENCE * 1000)
    expect(message.locator(".from")).to_have_text(sender)


def sees(page, *names):
    expect(page.locator("#members li")).to_have_count(len(names), timeout=PATIENCE * 1000)
    for name in names:
        expect(page.locator("#members")).to_contain_text(name)


def test_the_demo_prints_one_url(demo):
    running = demo()
    assert running.url.startswith("http://127.0.0.1:")
    assert http_request(running.url, "GET", "/").status == 200
    assert running.terminate() == 0
    assert len(re.findall(r"https?://", "".join(running.rest()))) == 1


def test_the_demo_ignores_a_routes_file_and_taken_ports(demo, tmp_path):
    (tmp_path / "routes.toml").write_text("this is no TOML")
    first, second = demo(), demo()
    assert first.url != second.url
    for running in (first, second):
        assert http_request(running.url, "GET", "/").status == 200


def test_the_url_is_the_gateways(demo):
    the_page_comes_through_the_gateway(demo().url)


def test_the_rooms_are_told_to_whoever_asks(demo):
    the_rooms_are_listed(demo().url)


def test_the_built_in_file_teaches_a_mock_with_a_path_parameter(demo):
    hello = http_request(demo().url, "GET", "/hello/Ada%20%22L%22")
    assert (hello.status, hello.header("Content-Type")) == (200, "application/json")
    assert hello.json == {"hello": 'Ada "L"'}


def test_two_browsers_chat(demo, visit):
    url = demo().url
    ann, bob = visit(url, "ann"), visit(url, "bob")
    for page in (ann, bob):
        sees(page, "ann", "bob")
    say(ann, "hello bob")
    reads(bob, "ann", "hello bob")
    say(bob, "hello ann <b>& all</b>")
    reads(ann, "bob", "hello ann <b>& all</b>")
    ann.screenshot(path=ARTEFACTS / "demo.png", animations="disabled")
    assert (ARTEFACTS / "demo.png").stat().st_size > 5_000


def test_rooms_are_apart_and_leaving_is_seen(demo, visit):
    url = demo().url
    ann, bob, eve = visit(url, "ann"), visit(url, "bob"), visit(url, "eve", room="other")
    sees(ann, "ann", "bob")
    sees(eve, "eve")
    say(eve, "alone")
    reads(eve, "eve", "alone")
    bob.context.close()
    sees(ann, "ann")
    expect(ann.locator(".text", has_text="alone")).to_have_count(0)


def test_somebody_may_join_by_hand(demo, visit):
    url = demo().url
    ann, bob = visit(url, "ann"), visit(url, "bob", room="elsewhere")
    bob.fill("#name", "rob")
    bob.fill("#room", "t")
    bob.click("#join")
    for page in (ann, bob):
        sees(page, "ann", "rob")


def test_the_room_field_offers_the_rooms_that_there_are(demo, visit):
    url = demo().url
    visit(url, "ann", room="tea"), visit(url, "bob", room="tea"), visit(url, "cyd", room="<i>ice</i>")
    eve = visit(url, "eve", room="elsewhere")
    expect(eve.locator("#where")).to_have_text("# elsewhere")
    expect(eve.locator("#rooms option")).to_have_count(0)
    eve.focus("#room")
    offered = eve.locator("#rooms option")
    expect(offered).to_have_text(["tea · 2 members", "<i>ice</i> · 1 member", "elsewhere · 1 member"])
    assert eve.evaluate("[...document.getElementById('room').list.options].map((one) => one.value)") == [
        "tea", "<i>ice</i>", "elsewhere"]


def test_without_an_answer_the_room_field_offers_nothing(demo, visit):
    ann = visit(demo().url, "ann")
    ann.focus("#room")
    expect(ann.locator("#rooms option")).to_have_count(1)
    ann.focus("#name")
    ann.route("**/rooms", lambda route: route.fulfill(status=503, json={"message": "Service Unavailable"}))
    with ann.expect_response("**/rooms"):
        ann.focus("#room")
    expect(ann.locator("#rooms option")).to_have_count(0)
    expect(ann.locator("#notice")).to_be_hidden()


def test_the_socket_is_where_the_page_is_under_any_name(demo, visit):
    url = demo().url
    ann = visit(url, "ann")
    bob = visit(url.replace("127.0.0.1", "localhost"), "bob")
    say(bob, "hello from localhost")
    reads(ann, "bob", "hello from localhost")


def test_the_page_may_talk_to_no_other_origin(demo, visit):
    ann = visit(demo().url, "ann")
    refused = ann.evaluate("""(patience) => new Promise((resolve) => {
        addEventListener("securitypolicyviolation", (event) => resolve([event.effectiveDirective, event.blockedURI]));
        setTimeout(() => resolve(["nothing", ""]), patience);
        new WebSocket("wss://elsewhere.invalid/prod");
    })""", PATIENCE * 1000)
    assert refused[0] == "connect-src" and refused[1].startswith("wss://elsewhere.invalid")
    assert visit.errors and all("elsewhere.invalid" in error for error in visit.errors)
    visit.errors.clear()


def test_a_page_that_came_before_its_backend_asks_again(demo, visit):
    left = [503, 503]

    def away(route):
        if left:
            route.fulfill(status=left.pop(), json={"message": "Service Unavailable"})
        else:
            route.continue_()
    ann = visit(demo().url, "ann", before=lambda page: page.route("**/config.json", away))
    assert left == []
    sees(ann, "ann")


def test_the_page_comes_back_after_the_gateway_did(demo, visit):
    first = demo()
    ann = visit(first.url, "ann")
    sees(ann, "ann")
    first.terminate()
    expect(ann.locator("#state")).not_to_have_attribute("data-state", "connected", timeout=PATIENCE * 1000)
    second = demo()
    assert second.url == first.url
    expect(ann.locator("#state")).to_have_attribute("data-state", "connected", timeout=2 * PATIENCE * 1000)
    bob = visit(second.url, "bob")
    sees(ann, "ann", "bob")
    say(ann, "back again")
    reads(bob, "ann", "back again")


# What the demo and the examples have in common


PAGE = {"/": "text/html", "/chat.css": "text/css", "/chat.js": "text/javascript", "/config.json": "application/json",
        "/rooms": "application/json"}


def the_page_comes_through_the_gateway(url):
    for path, content_type in PAGE.items():
        answer = http_request(url, "GET", path)
        assert (answer.status, answer.header("Content-Type").split(";")[0]) == (200, content_type), path
        assert re.fullmatch(ID, answer.header("apigw-requestid")), path
        assert "connect-src 'self';" in answer.header("Content-Security-Policy"), path
    assert http_request(url, "GET", "/prod").status == 426
    # What is for the gateway alone is out of everybody else's reach.
    for method, path in [("POST", "/join"), ("POST", "/connect"), ("GET", "/join"), ("POST", "/rooms"), ("GET", "/x")]:
        answer = http_request(url, method, path)
        assert (answer.status, answer.json) == (404, {"message": "Not Found"}), (method, path)


def the_rooms_are_listed(url):
    """The fullest first, then by name, those that somebody is in, and fifty at most."""
    eventually(lambda: rooms(url) == [], "all rooms to be empty")
    with contextlib.ExitStack() as sockets:
        for number in reversed(range(52)):
            sockets.enter_context(join(url, "ann", f"room {number:02}"))
        sockets.enter_context(join(url, "bob", "room 51"))
        sockets.enter_context(join(url, "cyd", "\U0001f375 <tea>"))
        leaver = sockets.enter_context(join(url, "dan", "room 00"))
        assert rooms(url)[:3] == [("room 00", 2), ("room 51", 2), ("room 01", 1)]
        leaver.close()
        expected = [("room 51", 2), *((f"room {number:02}", 1) for number in range(49))]
        eventually(lambda: rooms(url) == expected, "the room that was left to fall back")
    eventually(lambda: rooms(url) == [], "all rooms to be empty")


def rooms(url):
    return [(one["room"], one["members"]) for one in http_request(url, "GET", "/rooms").json["rooms"]]


def join(url, who, room):
    """Somebody in a room, by the socket that the page would use."""
    config = http_request(url, "GET", "/config.json").json
    socket_url = urllib.parse.urljoin(f"{url}/", config["websocket_url"]).replace("http", "ws", 1)
    client = connect(socket_url, create_connection=Client, legacy=True, proxy=None, compression=None)
    client.says(action="join", name=who, room=room)
    joined = told(client, "joined")
    assert (joined["name"], joined["room"]) == (who, room)
    return client


def told(client, kind):
    """The next frame of this type."""
    while True:
        heard = json.loads(client.hears())
        if heard["type"] == kind:
            return heard


def member_list(client, *names):
    while sorted(told(client, "members")["members"]) != sorted(names):
        pass


# The examples


class Example:
    """An example's `run` with routes of its own, on free ports."""

    def __init__(self, name, folder):
        spare = Backend()
        spare.kill()
        text = (REPOSITORY / "examples" / name / "routes.toml").read_text()
        text = text.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:8081", "127.0.0.1:0")
        (folder / "routes.toml").write_text(text.replace("127.0.0.1:3000", spare.authority))
        self._output = open(folder / "output.log", "w+b")
        self.process = subprocess.Popen(
            [REPOSITORY / "examples" / name / "run"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._output, cwd=folder,
            env={**os.environ, "PORT": str(spare.port), "ROUTES": str(folder / "routes.toml"), "LIVEGATE": LIVEGATE,
                 "XDG_CACHE_HOME": str(REPOSITORY / "tests" / ".venv" / "cache")})
        self.printed = []

    def url_after(self, words):
        for line in self.process.stdout:
            self.printed.append(line.decode())
            if found := re.search(rf"^{words}.*?(http://\S+)", line.decode()):
                return found.group(1).rstrip("/")
        self._output.seek(0)
        raise AssertionError(f"it ended, having printed {self.printed}\n{self._output.read().decode()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=3 * PATIENCE)
        self.process.stdout.close()
        self._output.close()
        return code


@pytest.fixture
def example(tmp_path):
    started = []

    def start(name):
        started.append(Example(name, tmp_path))
        return started[-1]
    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["python-chat", "node-chat"])
def test_the_examples_do_the_same_job(example, name):
    running = example(name)
    gateway_url = running.url_after("listening on")
    url = running.url_after("chat page on")
    assert url == gateway_url
    the_page_comes_through_the_gateway(url)
    with join(url, "ann", "t") as ann, join(url, "bob", "t") as bob:
        member_list(ann, "ann", "bob")
        ann.says(action="message", text="hello bob")
        heard = told(bob, "message")
        assert (heard["from"], heard["text"]) == ("ann", "hello bob")
        bob.says(action="message", text="")
        assert "empty" in told(bob, "error")["message"]
        bob.close()
        member_list(ann, "ann")
    the_rooms_are_listed(url)
    assert running.stop() == 0
