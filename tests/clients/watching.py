"""What must not happen to who watches, and to those who are watched: found by people who tried."""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import threading
import urllib.parse

import pytest

from backend import Answer
from http_apis import pets
from status import TOKEN, act, look, path_of, shows
from tailing import watching
from world import LIVEGATE, chat, eventually, http_request, mock, run, two_way


def lines_of(path):
    with contextlib.suppress(FileNotFoundError):
        return pathlib.Path(path).read_text().splitlines()
    return []


def logged(path, **more):
    return {"format": "$context.eventType $context.status $context.requestId", "destination": str(path), **more}


# A destination that hangs stops nobody


@pytest.fixture
def unread():
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    yield writer
    for end in (reader, writer):
        os.close(end)


def test_a_gateway_whose_own_log_nobody_reads_goes_on_and_can_be_stopped(tmp_path, unread):
    (tmp_path / "routes.toml").write_text(chat(stage={"logging_level": "info"}))
    process = subprocess.Popen([LIVEGATE, "serve"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=unread)
    try:
        url = process.stdout.readline().decode().split()[-1]
        admin = process.stdout.readline().decode().split()[-1]
        # Each is a line of the log; a pipe holds some hundred of them.
        for _ in range(1000):
            assert http_request(url, "POST", "/prod/@connections/nobody").status == 400
        assert http_request(admin, "GET", "/healthz").status == 200
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_who_waits_for_a_log_is_let_go_when_the_gateway_stops(livegate, tmp_path):
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        gateway = livegate(stage={"access_log": logged(fifo, when_full="block", buffer="64KiB")})

        def push():
            with contextlib.suppress(OSError):
                while True:
                    gateway.push("nobody")

        threads = [threading.Thread(target=push, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: "calls wait for it" in gateway.logs())
        # Operators and signals are looked after all the same.
        assert gateway.admin("/healthz").status == 200
        assert gateway.terminate() == 0
        for thread in threads:
            thread.join(30)
    finally:
        os.close(reader)


# No line is lost


def test_a_call_that_a_reload_overtakes_has_its_line_in_the_old_log(livegate, backend, tmp_path):
    def routes(path):
        return chat(routes={"slow": two_way(backend.at("/slow"))}, stage={"access_log": logged(path)})

    go_on = threading.Event()
    backend.answers("/slow", lambda request: go_on.wait(30) and Answer(body="done"))
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    gateway = livegate(routes(old))
    with gateway.connect() as client:
        client.says(action="slow")
        backend.next("/slow")
        gateway.reload(routes(new))
        go_on.set()
        assert client.hears() == "done"
        eventually(lambda: any(line.startswith("MESSAGE 200") for line in lines_of(old)))
    eventually(lambda: any(line.startswith("DISCONNECT") for line in lines_of(new)))


def test_lines_are_counted_on_after_a_reload(livegate, tmp_path):
    path = tmp_path / "a.log"
    gateway = livegate(stage={"access_log": logged(path)})

    def counted(lines):
        return gateway.metric("livegate_access_log_lines_total", destination=str(path), outcome="written") == lines

    for number in range(1, 11):
        gateway.push("nobody")
        eventually(lambda: counted(number))
    gateway.reload(chat(stage={"access_log": logged(path, buffer="1MiB")}))
    for number in range(11, 16):
        gateway.push("nobody")
        eventually(lambda: counted(number))
    assert look(gateway, "/api/status")["access_logs"] == [
        {"destination": str(path), "written": 15, "dropped": 0, "failed": 0}]
    assert len(lines_of(path)) == 15


def test_a_log_that_cannot_be_opened_changes_nothing(livegate, tmp_path):
    path = tmp_path / "a.log"
    gateway = livegate(stage={"access_log": logged(path)})
    gateway.reload(chat(routes={"new": mock("new")}, stage={"access_log": logged("/no/such/folder/a.log")}))
    assert gateway.metric("livegate_config_ok") == 0
    with gateway.connect() as client:
        client.says(action="new")
        assert "Forbidden" in client.hears()
    eventually(lambda: len(lines_of(path)) >= 3)


class Half:
    """A backend that says a hundred bytes and sends four; then it hangs up, or holds the rest back."""

    def __init__(self, holds):
        self.holds, self.held = holds, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.serve, daemon=True).start()
        self.url = "http://127.0.0.1:%d/" % self.listener.getsockname()[1]

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self.listener.accept()
                taken.recv(65536)
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
                self.held.append(taken)

    def hang_up(self):
        for taken in self.held:
            taken.shutdown(socket.SHUT_RDWR)

    def stop(self):
        for one in [self.listener, *self.held]:
            one.close()


@pytest.fixture(params=[True, False], ids=["holds", "hangs up"])
def half(request):
    half = Half(request.param)
    yield half
    half.stop()


def test_an_answer_that_does_not_come_to_its_end_has_its_line(livegate, half, tmp_path):
    path = tmp_path / "a.log"
    log = {"format": "$context.status $context.responseLength $context.error.responseType $context.requestId",
           "destination": str(path)}
    api = pets({"GET /half": half.url}, stages={"shop": {"access_log": log}})
    gateway = livegate(apis={"pets": api}, gateway={"drain_timeout": "1s"})
    with socket.create_connection(gateway.address) as client:
        client.sendall(f"GET /shop/half HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n".encode())
        heard = b""
        while b"some" not in heard:
            piece = client.recv(65536)
            assert piece, heard
            heard += piece
        # One that is held back is cut off when the drain has waited long enough.
        if half.holds:
            assert gateway.terminate() == 0
        else:
            half.hang_up()
        while client.recv(65536):
            pass
    why = "-" if half.holds else "INTEGRATION_FAILURE"
    eventually(lambda: [line.split()[:3] for line in lines_of(path)] == [["200", "4", why]])


# Levels come back to where they were


def test_a_ping_that_waits_is_no_message(livegate):
    stage = {"ping_interval": "100ms", "pong_timeout": "60s", "slow_consumer_timeout": "none",
             "outbox": {"bytes": "64MiB", "messages": 10}}
    gateway = livegate(stage=stage)
    for _ in range(3):
        with gateway.open(receive_buffer=4096) as deaf:
            deaf.says(action="whoami")
            mine = deaf.message()
            eventually(lambda: gateway.push(mine, "x" * 100_000).status == 429)
            assert gateway.metric("livegate_outbox_messages") == look(gateway, path_of(mine))["outbox_messages"]
            assert gateway.request("DELETE", f"/prod/@connections/{mine}").status == 204
        eventually(lambda: gateway.metric("livegate_connections_open") == 0)
    eventually(lambda: (gateway.metric("livegate_outbox_messages"), gateway.metric("livegate_outbox_bytes")) == (0, 0))


# Secrets, and who may watch


@pytest.mark.parametrize("written", [
    'tracing = { endpoint = "ftp://x", headers = { x-team = "HUNTER2" } }',
    'tracing = { endpoint = "http://me:HUNTER2@x/", sample = 7 }',
    'tracing.endpoint = "ftp://x"\ntracing.headers.x-team = ["HUNTER2"]',
    'admin_token = "HUNTER2 HUNTER2"',
])
def test_reports_do_not_repeat_secrets(tmp_path, written):
    file = tmp_path / "routes.toml"
    file.write_text(f"[gateway]\n{written}\n")
    said = run("check", str(file))
    assert said.returncode == 1 and "HUNTER2" not in said.stdout + said.stderr


def test_a_query_of_an_integration_is_no_business_of_who_watches(livegate, backend):
    gateway = livegate(routes={"send": two_way(backend.at("/send?code=HUNTER2"))}, stage={"logging_level": "info"})
    backend.answer("/send", 200, "sent")
    with gateway.connect() as client:
        assert client.asks(action="send") == "sent"
    eventually(lambda: "message: integration" in gateway.logs())
    assert "HUNTER2" not in gateway.logs() + json.dumps(look(gateway, "/api/routes"))


def test_who_showed_no_token_watches_no_longer_once_there_is_one(livegate):
    gateway = livegate()
    with watching(gateway) as tail:
        gateway.write(chat(gateway={"admin_token": TOKEN}))
        assert tail.is_over()
    assert http_request(gateway.admin_url, "GET", "/api/status").status == 401


def test_playgrounds_have_sixteen_sockets_however_fast_they_are_asked_for(livegate, backend):
    go_on = threading.Event()
    backend.answers("/connect", lambda request: go_on.wait(30) and Answer())
    gateway = livegate(routes={"$connect": backend.at("/connect")})
    answers = []

    def open_one():
        # One that is opened is told of for as long as the gateway lives.
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(act(gateway, "/api/playground", {"api": "chat", "stage": "prod"}).status)

    assert act(gateway, "/api/playground", {"api": "chat", "stage": "prod", "headers": 5}).status == 400
    threads = [threading.Thread(target=open_one, daemon=True) for _ in range(24)]
    for thread in threads:
        thread.start()
    # Eight of them are told at once that there is no room.
    eventually(lambda: answers.count(503) == 8)
    assert gateway.metric("livegate_connections_open") == 0
    go_on.set()
    eventually(lambda: gateway.metric("livegate_connections_open") == 16)
    gateway.kill()
    for thread in threads:
        thread.join(30)


def test_a_large_message_of_the_playground_is_cut_into_frames(livegate, backend):
    gateway = livegate(routes={"echo": two_way(backend.at("/echo"))})
    backend.answers("/echo", lambda request: Answer(body=str(len(request.body))))
    parts = urllib.parse.urlsplit(gateway.admin_url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request("POST", "/api/playground", json.dumps({"api": "chat", "stage": "prod"}),
                       {"Content-Type": "application/json"})
    answer = connection.getresponse()
    opened = json.loads(answer.readline())["opened"]
    text = json.dumps({"action": "echo", "fill": "x" * 100_000})
    assert act(gateway, f"/api/playground/{opened['session']}/send", {"text": text}).status == 200
    assert json.loads(answer.readline())["frame"]["text"] == str(len(text))
    assert act(gateway, f"/api/playground/{opened['session']}/close", {"code": 4000, "reason": "x"}).status == 200
    assert json.loads(answer.readline())["closed"]["by"] == "you"
    connection.close()


@pytest.mark.parametrize("header", ["Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded"])
def test_whoever_comes_by_a_proxy_needs_a_token(livegate, header):
    gateway = livegate()
    asked = {header: "203.0.113.9"}
    assert http_request(gateway.admin_url, "GET", "/api/status", headers=asked).status == 403
    gateway.write(chat(gateway={"admin_token": TOKEN}))
    eventually(lambda: http_request(gateway.admin_url, "GET", "/api/status", headers=asked).status == 401)
    assert http_request(gateway.admin_url, "GET", "/api/status", headers={**asked, **shows(TOKEN)}).status == 200


# The gateway's own log


@pytest.mark.parametrize("data_trace", [True, False])
def test_bodies_are_in_the_log_only_if_they_are_asked_for_and_headers_never(livegate, backend, data_trace):
    backend.answers("/said", Answer(body="the-answer"))
    gateway = livegate(routes={"say": two_way(backend.at("/said"))},
                       stage={"logging_level": "info", "data_trace": data_trace})
    with gateway.connect("/prod?token=a-token", {"Authorization": "Bearer another-token"}) as client:
        client.says(action="say", text="the-message")
        assert client.hears() == "the-answer"
    eventually(lambda: "disconnect: " in gateway.logs())
    logs = gateway.logs()
    assert "message: " in logs
    assert ("the-message" in logs, "the-answer" in logs) == (data_trace, data_trace)
    assert "a-token" not in logs
    assert "another-token" not in logs


def test_a_routes_own_level_stands_in_place_of_its_stages(livegate):
    gateway = livegate(stage={"logging_level": "error"},
                       routes={"loud": {**mock("x"), "logging_level": "info"}, "quiet": mock("x")})
    with gateway.connect() as client:
        for action in ("quiet", "loud"):
            client.says(action=action)
            assert client.hears() == "x"
    eventually(lambda: "message: " in gateway.logs())
    assert '"route_key":"quiet"' not in gateway.logs()
    assert '"route_key":"loud"' in gateway.logs()
