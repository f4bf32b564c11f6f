"""The demo as a newcomer meets it: two browsers that chat, and the examples that do the same job."""

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
from world import ARTEFACTS, LIVEGATE, REPOSITORY, Client, Livegate, http_request

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
    """Opens the chat as somebody, in a browser profile of their own; a page's errors fail the test."""
    contexts, errors = [], []

    def open_page(url, name, room="t"):
        context = chromium.new_context(viewport={"width": 1000, "height": 640})
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/?room={room}&name={urllib.parse.quote(name)}")
        expect(page.locator("#state")).to_have_attribute("data-state", "connected", timeout=PATIENCE * 1000)
        return page
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
    page = http_request(running.url, "GET", "/")
    assert page.status == 200 and page.header("Content-Type").startswith("text/html")
    assert running.terminate() == 0
    assert len(re.findall(r"https?://", "".join(running.rest()))) == 1


def test_the_demo_ignores_a_routes_file_and_taken_ports(demo, tmp_path):
    (tmp_path / "routes.toml").write_text("this is no TOML")
    first, second = demo(), demo()
    assert first.url != second.url
    for running in (first, second):
        assert http_request(running.url, "GET", "/").status == 200


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


def told(client, kind):
    """The next frame of this type."""
    while True:
        heard = json.loads(client.hears())
        if heard["type"] == kind:
            return heard


def member_list(client, *names):
    while sorted(told(client, "members")["members"]) != sorted(names):
        pass


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["python-chat", "node-chat"])
def test_the_examples_do_the_same_job(example, name):
    running = example(name)
    websocket_url = running.url_after("listening on").replace("http", "ws", 1) + "/prod"
    page_url = running.url_after("chat page on")
    assert http_request(page_url, "GET", "/config.json").json == {"websocket_url": websocket_url}
    assert http_request(page_url, "GET", "/").status == 200

    def join(who):
        client = connect(websocket_url, create_connection=Client, legacy=True, proxy=None, compression=None)
        client.says(action="join", name=who, room="t")
        assert told(client, "joined")["name"] == who
        return client
    with join("ann") as ann, join("bob") as bob:
        member_list(ann, "ann", "bob")
        ann.says(action="message", text="hello bob")
        heard = told(bob, "message")
        assert (heard["from"], heard["text"]) == ("ann", "hello bob")
        bob.says(action="message", text="")
        assert "empty" in told(bob, "error")["message"]
        bob.close()
        member_list(ann, "ann")
    assert running.stop() == 0
