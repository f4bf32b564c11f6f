"""Pools of servers behind `[backends.*]`: who gets a call, what becomes of calls when a server is ill, and how servers
are spoken to (README.md, `[backends.<name>]`; contract/http-api.md section 2 for what clients see)."""

import itertools
import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from authority import Authority
from backend import listener_at
from servers import Server, free_port
from wire import is_readable
from world import chat, eventually, run, toml_key, two_way

BUSY = (503, b'{"message":"Service Unavailable"}')


@pytest.fixture
def server():
    """Starts servers: `server("a", health=500)`."""
    started = []

    def start(name="a", **how):
        started.append(Server(name, **how))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def three(server):
    return [server(name) for name in "abc"]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


def pool(*servers, uri="http://animals/call", routes=None, pool_of="animals", integration=None, **settings):
    """The parts of a routes.toml whose HTTP API `pets` leaves everything to the pool `animals`."""
    servers = [one if isinstance(one, str) else one.address for one in servers]
    integration = {"type": "http_proxy", "uri": uri, **(integration or {})}
    return {
        "routes": routes,
        "apis": {"pets": {"protocol": "http", "routes": {
            "ANY /call": {"integration": integration},
            "GET /quick": {"integration": {"type": "mock", "response": "quick"}},
        }}},
        "backends": {pool_of: {"servers": servers, **settings}},
    }


def call(gateway, method="GET", path="/call", body=None, headers=None):
    return gateway.request(method, path, body, headers)


def answered_by(gateway, method="GET"):
    answer = call(gateway, method)
    assert answer.status == 200, answer
    return answer.json["server"]


def who_answers(gateway, calls):
    return Counter(answered_by(gateway) for _ in range(calls))


class Calling:
    """Clients that call until they are told to stop, and what came of it. Every call has a number of its own."""

    def __init__(self, gateway, methods=("GET", "POST"), each=3):
        self._gateway, self._stop, self._numbers = gateway, threading.Event(), itertools.count()
        self._lock, self.answers = threading.Lock(), []
        self._threads = [threading.Thread(target=self._call, args=(method,)) for method in methods for _ in range(each)]

    def _call(self, method):
        while not self._stop.is_set():
            number = next(self._numbers)
            answer = self._gateway.request(method, f"/call?{number}", b"x" if method == "POST" else None)
            with self._lock:
                self.answers.append((method, number, answer.status))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, count=100):
        """Waits until so many more calls are over."""
        enough = len(self.answers) + count
        eventually(lambda: len(self.answers) >= enough, f"{enough} answers")

    def failed(self, method, since=0):
        return [answer for answer in self.answers[since:] if answer[0] == method and answer[2] != 200]


def has_news_of(gateway, server):
    """The log names a server when it is ejected or fails its checks."""
    return f'"server":"{server.address}"' in gateway.logs()


def seen_twice(method, *servers):
    """Calls that servers saw more than once."""
    seen = Counter(call["target"] for server in servers for call in server.calls if call["method"] == method)
    return {target: times for target, times in seen.items() if times > 1}


# Balance


def test_round_robin_is_even(livegate, three):
    gateway = livegate(**pool(*three, balance="round_robin"))
    assert who_answers(gateway, 30) == {"a": 10, "b": 10, "c": 10}


def test_round_robin_does_not_mind_who_is_busy(livegate, three):
    gateway = livegate(**pool(*three, balance="round_robin"))
    three[0].tell(hold=True)
    with ThreadPoolExecutor(12) as threads:
        answers = [threads.submit(call, gateway) for _ in range(12)]
        assert [len(one.wait_for_calls(4)) for one in three] == [4, 4, 4]
        three[0].tell(hold=False)
        assert {answer.result().status for answer in answers} == {200}


def test_equal_servers_take_turns_under_least_requests(livegate, three):
    gateway = livegate(**pool(*three))
    assert who_answers(gateway, 30) == {"a": 10, "b": 10, "c": 10}


def test_least_requests_spreads_and_spares_who_is_busy(livegate, three):
    gateway = livegate(**pool(*three, balance="least_requests"))
    for one in three:
        one.tell(hold=True)
    with ThreadPoolExecutor(9) as threads:
        answers = [threads.submit(call, gateway) for _ in range(9)]
        assert [len(one.wait_for_calls(3)) for one in three] == [3, 3, 3]
        three[1].tell(hold=False)
        three[2].tell(hold=False)
        eventually(lambda: sum(answer.done() for answer in answers) == 6)
        assert who_answers(gateway, 12) == {"b": 6, "c": 6}
        three[0].tell(hold=False)
        assert {answer.result().status for answer in answers} == {200}


def test_one_server_stands_without_a_list(livegate, server):
    parts = pool(server())
    parts["backends"]["animals"]["servers"] = parts["backends"]["animals"]["servers"][0]
    assert answered_by(livegate(**parts)) == "a"


def test_the_host_that_servers_see_is_the_pool(livegate, server):
    assert dict(call(livegate(**pool(server()))).json["headers"])["host"] == "animals"


# Servers that are ill


def test_a_server_that_is_killed_under_load_costs_next_to_nothing_and_gets_calls_again(livegate, three):
    gateway = livegate(**pool(*three, ejection={"failures": 3, "time": "500ms"}))
    victim = three[1]
    with Calling(gateway) as calling:
        victim.wait_for_calls(30)
        victim.kill()
        eventually(lambda: has_news_of(gateway, victim), "the ejection")
        ejected = len(calling.answers)
        calling.more(200)
        # What was begun before the ejection may still fail: of each client one call at most.
        settled = ejected + 6
        assert calling.failed("GET") == []
        assert len(calling.failed("POST")) <= 3
        assert calling.failed("POST", settled) == []
        before = len(victim.calls)
        victim.start()
        victim.wait_for_calls(before + 30)
        back = len(calling.answers)
        calling.more(100)
        assert calling.failed("GET") == [] and calling.failed("POST", back) == []
    assert seen_twice("POST", *three) == {}


def test_a_dead_server_costs_nobody_an_error(livegate, three):
    gateway = livegate(**pool(*three))
    three[0].kill()
    assert {call(gateway, method).status for method in ["POST", "GET", "PATCH"] * 10} == {200}


def test_all_dead_is_503_until_one_is_back(livegate, three):
    gateway = livegate(**pool(*three))
    for one in three:
        one.kill()
    for _ in range(12):
        answer = call(gateway)
        assert (answer.status, answer.body) == BUSY
    three[2].start()
    eventually(lambda: call(gateway).status == 200)
    assert who_answers(gateway, 6) == {"c": 6}


def test_ejection_none_goes_on_asking(livegate, three):
    three[0].tell(status=503)
    gateway = livegate(**pool(*three, balance="round_robin", ejection="none", retries=0))
    assert Counter(call(gateway, "POST").status for _ in range(30)) == {200: 20, 503: 10}


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_cannot_serve_is_ejected(livegate, three, status):
    three[0].tell(status=status)
    gateway = livegate(**pool(*three, ejection={"failures": 4, "time": "1m"}))
    assert Counter(call(gateway, "POST").status for _ in range(30)) == {200: 26, status: 4}
    assert len(three[0].calls) == 4


@pytest.mark.parametrize("status", [404, 429, 500])
def test_other_statuses_say_nothing_against_a_server(livegate, three, status):
    three[0].tell(status=status)
    gateway = livegate(**pool(*three, balance="round_robin", ejection={"failures": 1, "time": "1m"}))
    assert Counter(call(gateway).status for _ in range(30)) == {200: 20, status: 10}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_hangs_is_ejected_by_timeouts(livegate, three, method):
    three[0].tell(hold=True)
    gateway = livegate(**pool(*three, integration={"timeout": "300ms"}, ejection={"failures": 3, "time": "1m"}))
    answers = [call(gateway, method) for _ in range(30)]
    assert Counter(answer.status for answer in answers) == {200: 27, 503: 3}
    assert {answer.body for answer in answers if answer.status == 503} == {BUSY[1]}
    assert len(three[0].calls) == 3


def test_an_http_2_server_that_hangs_is_ejected_as_well(livegate, server):
    servers = [server(name, http2=True) for name in "abc"]
    servers[0].tell(hold=True)
    ejection = {"failures": 3, "time": "1m"}
    gateway = livegate(**pool(*servers, http2=True, integration={"timeout": "300ms"}, ejection=ejection))
    assert Counter(call(gateway).status for _ in range(30)) == {200: 27, 503: 3}


def test_a_server_that_hangs_is_ejected_by_messages_as_well(livegate, three):
    three[0].tell(hold=True)
    send = two_way("http://animals/send", timeout="300ms")
    gateway = livegate(**pool(*three, routes={"send": send}, ejection={"failures": 3, "time": "1m"}))
    with gateway.connect() as client:
        got = Counter(json.loads(client.asks(action="send")).get("message", "answered") for _ in range(30))
    assert got == {"answered": 27, "Endpoint request timed out": 3}
    assert len(three[0].calls) == 3


def test_a_server_that_hangs_is_ejected_by_upgrades_as_well(livegate, three):
    three[0].tell(hold=True)
    parts = pool(*three, ejection={"failures": 3, "time": "1m"})
    # To these servers an upgrade is a call like any other, which they answer with 200.
    parts["apis"]["pets"]["routes"]["GET /socket"] = {
        "integration": {"type": "http_proxy", "uri": "http://animals/socket", "timeout": "300ms"}, "upgrade": True}
    gateway = livegate(**parts)
    assert Counter(gateway.knock("/socket").status for _ in range(30)) == {200: 27, 503: 3}


def test_an_ejected_server_is_back_after_one_good_call(livegate, three):
    three[0].tell(status=503)
    gateway = livegate(**pool(*three, balance="round_robin", ejection={"failures": 1, "time": "200ms"}))
    for _ in range(3):
        call(gateway)
    three[0].tell(status=200)
    eventually(lambda: answered_by(gateway) == "a")
    assert who_answers(gateway, 30) == {"a": 10, "b": 10, "c": 10}


# Health checks


def test_a_server_whose_checks_fail_gets_no_calls_until_they_pass(livegate, three):
    gateway = livegate(**pool(*three, health={"path": "/healthz", "interval": "50ms"}))
    eventually(lambda: set(who_answers(gateway, 9)) == {"a", "b", "c"})
    three[1].tell(health=500)
    eventually(lambda: set(who_answers(gateway, 9)) == {"a", "c"})
    before = len(three[1].calls)
    three[1].wait_for_checks(3)
    assert who_answers(gateway, 30) == {"a": 15, "c": 15} and len(three[1].calls) == before
    three[1].tell(health=204)
    eventually(lambda: set(who_answers(gateway, 9)) == {"a", "b", "c"})


def test_the_first_check_decides_alone(livegate, three):
    three[1].tell(health=500)
    gateway = livegate(**pool(*three, health={"path": "/healthz", "interval": "1h"}))
    eventually(lambda: set(who_answers(gateway, 9)) == {"a", "c"})
    assert [one.checks for one in three] == [1, 1, 1]


def test_so_many_checks_in_a_row_take_a_server_out(livegate, three):
    health = {"path": "/healthz", "interval": "50ms", "unhealthy": 1_000_000}
    gateway = livegate(**pool(*three, health=health))
    three[1].wait_for_checks(1)
    three[1].tell(health=500)
    three[1].wait_for_checks(10)
    assert who_answers(gateway, 30) == {"a": 10, "b": 10, "c": 10}


def test_a_server_that_is_killed_and_idle_is_found_out_by_its_checks(livegate, three):
    gateway = livegate(**pool(*three, health={"path": "/healthz", "interval": "50ms"}))
    three[2].wait_for_checks(1)
    three[2].kill()
    eventually(lambda: has_news_of(gateway, three[2]))
    three[2].start()
    eventually(lambda: set(who_answers(gateway, 9)) == {"a", "b", "c"})


def test_when_all_checks_fail_the_servers_are_asked_all_the_same(livegate, three):
    for one in three:
        one.tell(health=500)
    gateway = livegate(**pool(*three, health={"path": "/healthz", "interval": "50ms"}))
    for one in three:
        one.wait_for_checks(2)
    assert sum(who_answers(gateway, 12).values()) == 12


# Retries


def test_only_what_can_be_done_twice_is_repeated(livegate, server):
    a, b = server("a", hangs_up=True), server("b", hangs_up=True)
    gateway = livegate(**pool(a, b, ejection="none", retry_budget=100))
    for number, method in enumerate(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"] * 4):
        answer = call(gateway, method, f"/call?{number}")
        assert answer.status == 503, method
    times = Counter(one["method"] for one in a.calls + b.calls)
    assert times == {"GET": 8, "HEAD": 8, "OPTIONS": 8, "PUT": 8, "DELETE": 8, "POST": 4, "PATCH": 4}


@pytest.mark.parametrize("ill", [{"hangs_up": True}, {"status": 502}, {"status": 503}, {"status": 504}])
def test_what_can_be_done_twice_is_answered_by_another_server(livegate, server, ill):
    a, b = server("a", **ill), server("b")
    gateway = livegate(**pool(a, b, balance="round_robin", ejection="none"))
    assert who_answers(gateway, 10) == {"b": 10}
    assert 0 < len(a.calls) <= 10


def test_a_put_is_repeated_with_its_body(livegate, server):
    a, b = server("a", hangs_up=True), server("b")
    gateway = livegate(**pool(a, b, balance="round_robin", ejection="none"))
    for number in range(6):
        answer = call(gateway, "PUT", body=f"body {number}")
        assert (answer.status, answer.json.get("body")) == (200, f"body {number}")
    assert len(a.calls) >= 3


def test_a_post_that_may_have_been_seen_is_answered_as_it_went(livegate, server):
    a, b = server("a", status=503), server("b")
    gateway = livegate(**pool(a, b, balance="round_robin", ejection="none"))
    answers = [call(gateway, "POST", f"/call?{number}", body="x") for number in range(10)]
    assert Counter(answer.status for answer in answers) == {200: 5, 503: 5}
    assert seen_twice("POST", a, b) == {}
    # The 503 is the server's own, not the gateway's.
    assert {answer.json["server"] for answer in answers} == {"a", "b"}


def test_retries_are_as_many_as_the_file_says(livegate, server):
    servers = [server(name, hangs_up=True) for name in "abcd"]
    for retries in (0, 2):
        gateway = livegate(**pool(*servers, ejection="none", retries=retries))
        before = sum(len(one.calls) for one in servers)
        assert call(gateway).status == 503
        assert sum(len(one.calls) for one in servers) - before == 1 + retries


def test_a_time_out_is_not_repeated(livegate, server):
    a, b = server("a", hold=True), server("b", hold=True)
    gateway = livegate(**pool(a, b, integration={"timeout": "300ms"}, ejection="none"))
    assert (call(gateway).status, len(a.calls) + len(b.calls)) == (503, 1)


# How many at a time


def test_above_max_connections_and_the_queue_is_503(livegate, server):
    a = server(hold=True)
    gateway = livegate(**pool(a, max_connections=2, queue={"requests": 3}))
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(call, gateway) for _ in range(6)]
        eventually(lambda: any(answer.done() for answer in answers))
        refused = next(answer.result() for answer in answers if answer.done())
        assert (refused.status, refused.body) == BUSY
        assert refused.header("Content-Type") == "application/json"
        assert len(a.wait_for_calls(2)) == 2
        a.tell(hold=False)
        assert Counter(answer.result().status for answer in answers) == {200: 5, 503: 1}
    assert len(a.calls) == 5


def test_max_connections_counts_all_servers_together(livegate, three):
    for one in three:
        one.tell(hold=True)
    gateway = livegate(**pool(*three, max_connections=2, queue={"requests": 0}))
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(call, gateway) for _ in range(3)]
        eventually(lambda: any(answer.done() for answer in answers))
        eventually(lambda: sum(len(one.calls) for one in three) == 2)
        for one in three:
            one.tell(hold=False)
        assert Counter(answer.result().status for answer in answers) == {200: 2, 503: 1}


# With one worker, whoever is answered after others knows that those were read and have their place.
ONE_WORKER = {"TOKIO_WORKER_THREADS": "1"}


def asking(gateway, path):
    """A client that has asked, and whose request was read."""
    client = gateway.wire()
    client.send(f"GET {path} HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n".encode())
    assert [call(gateway, path="/quick").body for _ in range(2)] == [b"quick"] * 2
    return client


def test_the_queue_is_first_come_first_served(livegate, server):
    a = server(hold=True)
    gateway = livegate(**pool(a, max_connections=1), env=ONE_WORKER)
    clients = [asking(gateway, f"/call?{number}") for number in range(8)]
    a.wait_for_calls(1)
    assert len(a.calls) == 1
    a.tell(hold=False)
    assert [client.response().status for client in clients] == [200] * 8
    assert [one["target"] for one in a.calls] == [f"/call?{number}" for number in range(8)]
    for client in clients:
        client.socket.close()


def test_who_waits_too_long_in_the_queue_gets_503(livegate, server):
    a = server(hold=True)
    gateway = livegate(**pool(a, max_connections=1, queue={"timeout": "200ms"}))
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(call, gateway)
        a.wait_for_calls(1)
        answer = call(gateway)
        assert (answer.status, answer.body) == BUSY
        a.tell(hold=False)
        assert first.result().status == 200
    assert len(a.calls) == 1


def test_who_leaves_the_queue_makes_room(livegate, server):
    a = server(hold=True)
    gateway = livegate(**pool(a, max_connections=1, queue={"requests": 1}), env=ONE_WORKER)
    with asking(gateway, "/call?first") as first:
        a.wait_for_calls(1)
        leaving = asking(gateway, "/call?leaving")
        answer = call(gateway)
        assert (answer.status, answer.body) == BUSY
        leaving.reset()

        def waiting():
            client = asking(gateway, "/call?last")
            if is_readable(client.socket):
                assert client.response().status == 503
                return client.socket.close()
            return client
        with eventually(waiting, "a place in the queue") as last:
            a.tell(hold=False)
            assert (first.response().status, last.response().status) == (200, 200)
    assert [one["target"] for one in a.calls] == ["/call?first", "/call?last"]


def test_a_message_that_finds_the_queue_full_gets_an_error_frame(livegate, server):
    a = server(hold=True)
    routes = {"send": two_way("http://animals/send")}
    gateway = livegate(**pool(a, routes=routes, max_connections=1, queue={"requests": 0}))
    with gateway.connect() as client:
        client.says(action="send")
        a.wait_for_calls(1)
        refused = json.loads(client.asks(action="send"))
        assert refused["message"] == "Internal server error" and refused["connectionId"]
        a.tell(hold=False)
        assert json.loads(client.hears())["server"] == "a"


# Connections to servers


@pytest.fixture
def clogged():
    """Starts addresses where a connection is neither taken nor refused."""
    sockets = []

    def start():
        listener = listener_at(free_port())
        listener.listen(0)
        sockets.append(listener)
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
            sockets.append(waiting)
        return "%s:%d" % listener.getsockname()

    yield start
    for one in sockets:
        one.close()


def test_a_server_that_takes_no_connection_is_passed_over_after_connect_timeout(livegate, server, clogged):
    gateway = livegate(**pool(clogged(), clogged(), clogged(), server(), balance="round_robin", ejection="none",
                              connect_timeout="100ms"))
    for method in ("GET", "POST") * 4:
        assert answered_by(gateway, method) == "a"


def test_a_tls_handshake_that_hangs_is_given_up_after_connect_timeout(livegate, server, authority):
    # They take connections, and say nothing.
    mute = [listener_at(free_port()) for _ in range(3)]
    addresses = ["%s:%d" % listener.getsockname() for listener in mute]
    gateway = livegate(**pool(*addresses, server(tls=authority.issue("127.0.0.1")), tls={"ca": str(authority.file)},
                              balance="round_robin", ejection="none", connect_timeout="100ms"))
    for _ in range(4):
        assert answered_by(gateway, "POST") == "a"
    for listener in mute:
        listener.close()


def test_connections_are_kept_and_closed_after_idle_timeout(livegate, server):
    a = server()
    timeouts = {"short": "200ms", "usual": "4s", "long": "1m"}
    routes = {f"GET /{name}": {"integration": f"http://{name}/{name}"} for name in timeouts}
    backends = {name: {"servers": [a.address], "idle_timeout": timeout} for name, timeout in timeouts.items()}
    gateway = livegate(apis={"pets": {"protocol": "http", "routes": routes}}, backends=backends)

    def connection(name):
        return call(gateway, path=f"/{name}").json["connection"]
    kept = {name: connection(name) for name in ("usual", "long", "short")}
    assert connection("long") == kept["long"] and connection("usual") == kept["usual"]
    a.wait_for_closed(kept["usual"])
    assert a.closed == [kept["short"], kept["usual"]]
    assert connection("long") == kept["long"] and connection("short") not in kept.values()


def test_a_connection_that_the_server_closed_is_not_used_again(livegate, server):
    a = server()
    gateway = livegate(**pool(a, idle_timeout="1m"))
    for _ in range(5):
        assert answered_by(gateway, "POST") == "a"
        a.kill()
        a.start()
    assert len(a.calls) == 5


def test_a_server_on_a_unix_socket(livegate, server, tmp_path):
    servers = [server("a", unix=tmp_path / "a.sock"), server("b", unix=tmp_path / "b.sock"), server("c")]
    gateway = livegate(**pool(*servers, ejection={"time": "200ms"}, health={"path": "/healthz", "interval": "50ms"}))
    assert who_answers(gateway, 30) == {"a": 10, "b": 10, "c": 10}
    servers[0].kill()
    assert {call(gateway, "POST").status for _ in range(12)} == {200}
    servers[0].start()
    eventually(lambda: answered_by(gateway) == "a")


# TLS


def test_tls_to_servers_with_an_authority_of_their_own(livegate, server, authority):
    servers = [server(name, tls=authority.issue("127.0.0.1")) for name in "ab"]
    health = {"path": "/healthz", "interval": "50ms"}
    gateway = livegate(**pool(*servers, tls={"ca": str(authority.file)}, health=health))
    for one in servers:
        one.wait_for_checks(2)
    assert who_answers(gateway, 10) == {"a": 5, "b": 5}


def test_files_are_looked_for_from_the_folder_of_routes_toml(livegate, server, authority, tmp_path):
    (tmp_path / "gateway-0").mkdir()
    (tmp_path / "gateway-0" / "ca.pem").write_bytes(authority.file.read_bytes())
    assert answered_by(livegate(**pool(server(tls=authority.issue("127.0.0.1")), tls={"ca": "ca.pem"}))) == "a"


@pytest.mark.parametrize("names, tls, is_good", [
    (["animals.internal"], {"server_name": "animals.internal"}, True),
    (["animals.internal"], {}, False),
    (["127.0.0.1"], {"server_name": "animals.internal"}, False),
    (["*.example.internal"], {"server_name": "animals.example.internal"}, True),
])
def test_a_certificate_must_have_the_name(livegate, server, authority, names, tls, is_good):
    a = server(tls=authority.issue(*names))
    gateway = livegate(**pool(a, tls={"ca": str(authority.file), **tls}))
    answer = call(gateway)
    assert answer.status == 200 if is_good else (answer.status, answer.body) == BUSY
    assert len(a.calls) == is_good


def test_a_socket_shows_the_name_of_its_pool(livegate, server, authority, tmp_path):
    a = server(unix=tmp_path / "a.sock", tls=authority.issue("animals"))
    assert answered_by(livegate(**pool(a, tls={"ca": str(authority.file)}))) == "a"


def test_a_server_of_another_authority_is_not_believed(livegate, server, authority, tmp_path):
    a = server(tls=Authority(tmp_path / "other").issue("127.0.0.1"))
    gateway = livegate(**pool(a, tls={"ca": str(authority.file)}))
    answer = call(gateway)
    assert (answer.status, answer.body, a.calls) == (*BUSY, [])


def test_a_server_may_ask_for_the_gateway_s_certificate(livegate, server, authority):
    a = server(tls=authority.issue("127.0.0.1"), client_ca=authority.file)
    ours = str(authority.issue("gateway.internal"))
    tls = {"ca": str(authority.file)}
    assert answered_by(livegate(**pool(a, tls={**tls, "certificate": ours, "key": ours}))) == "a"
    refused = call(livegate(**pool(a, tls=tls)))
    assert (refused.status, refused.body, len(a.calls)) == (*BUSY, 1)


def test_https_in_a_route_is_tls_to_a_pool_without_a_table(livegate, server, authority):
    a = server(tls=authority.issue("127.0.0.1"))
    gateway = livegate(**pool(a, uri="https://animals/call"), env={"SSL_CERT_FILE": str(authority.file)})
    assert answered_by(gateway) == "a"


def test_https_to_a_url_believes_what_the_machine_does(livegate, server, authority):
    a = server(tls=authority.issue("localhost"))
    parts = pool("127.0.0.1:1", uri=f"https://localhost:{a.port}/call")
    assert answered_by(livegate(**parts, env={"SSL_CERT_FILE": str(authority.file)})) == "a"
    refused = call(livegate(**parts))
    assert (refused.status, refused.body, len(a.calls)) == (*BUSY, 1)


def test_https_to_a_url_checks_the_name(livegate, server, authority):
    a = server(tls=authority.issue("localhost"))
    parts = pool("127.0.0.1:1", uri=f"https://127.0.0.1:{a.port}/call")
    refused = call(livegate(**parts, env={"SSL_CERT_FILE": str(authority.file)}))
    assert (refused.status, refused.body, a.calls) == (*BUSY, [])


def test_a_websocket_api_calls_https_backends(livegate, server, authority):
    a = server(tls=authority.issue("localhost"))
    at = f"https://localhost:{a.port}"
    routes = {"$connect": f"{at}/connect", "$disconnect": f"{at}/disconnect", "send": two_way(f"{at}/send")}
    gateway = livegate(routes=routes, env={"SSL_CERT_FILE": str(authority.file)})
    with gateway.connect() as client:
        got = json.loads(client.asks(action="send", text="hello"))
        assert (got["target"], got["body"]) == ("/send", '{"action":"send","text":"hello"}')
        assert dict(got["headers"])["host"] == f"localhost:{a.port}"
    assert [one["target"] for one in a.wait_for_calls(3)] == ["/connect", "/send", "/disconnect"]


def test_a_websocket_api_does_not_believe_a_backend_that_nobody_vouches_for(livegate, server, authority):
    a = server(tls=authority.issue("localhost"))
    at = f"https://localhost:{a.port}"
    gateway = livegate(routes={"send": two_way(f"{at}/send")})
    with gateway.connect() as client:
        assert json.loads(client.asks(action="send"))["message"] == "Internal server error"
    refused = livegate(routes={"$connect": f"{at}/connect"})
    assert refused.knock().status == 500
    assert a.calls == []


# HTTP/2


@pytest.mark.parametrize("is_secure", [False, True])
def test_http_2_to_servers(livegate, server, authority, is_secure):
    how = {"tls": authority.issue("127.0.0.1")} if is_secure else {}
    tls = {"tls": {"ca": str(authority.file)}} if is_secure else {}
    servers = [server(name, http2=True, **how) for name in "ab"]
    health = {"path": "/healthz", "interval": "50ms"}
    routes = {"send": two_way("http://animals/send")}
    gateway = livegate(**pool(*servers, http2=True, health=health, routes=routes, **tls))
    for one in servers:
        one.wait_for_checks(2)
    assert who_answers(gateway, 10) == {"a": 5, "b": 5}
    got = call(gateway, "POST", "/call?x=1", body="a body").json
    headers = dict(got["headers"])
    assert (got["method"], got["target"], got["body"]) == ("POST", "/call?x=1", "a body")
    assert (headers[":authority"], headers[":scheme"]) == ("animals", "https" if is_secure else "http")
    with gateway.connect() as client:
        got = json.loads(client.asks(action="send"))
        assert dict(got["headers"])["x-livegate-route-key"] == "send"


def test_calls_share_an_http_2_connection(livegate, server):
    a = server(http2=True, hold=True)
    gateway = livegate(**pool(a, http2=True))
    with ThreadPoolExecutor(10) as threads:
        first = threads.submit(call, gateway)
        a.wait_for_calls(1)
        others = [threads.submit(call, gateway) for _ in range(9)]
        a.wait_for_calls(10)
        a.tell(hold=False)
        assert len({answer.result().json["connection"] for answer in [first, *others]}) == 1


def test_an_http_2_server_that_is_killed_and_comes_back(livegate, server):
    servers = [server(name, http2=True) for name in "ab"]
    gateway = livegate(**pool(*servers, http2=True, ejection={"failures": 1, "time": "200ms"}))
    who_answers(gateway, 4)
    servers[0].kill()
    assert {call(gateway).status for _ in range(20)} == {200}
    servers[0].start()
    eventually(lambda: answered_by(gateway) == "a")


def test_http_2_calls_are_repeated_as_others_are(livegate, server):
    a, b = server("a", http2=True, hangs_up=True), server("b", http2=True)
    gateway = livegate(**pool(a, b, http2=True, balance="round_robin", ejection="none"))
    assert who_answers(gateway, 10) == {"b": 10} and len(a.calls) > 0
    for number in range(4):
        call(gateway, "POST", f"/call?{number}")
    assert seen_twice("POST", a, b) == {}


# WebSocket APIs


def test_a_websocket_api_uses_pools_for_all_its_routes(livegate, three):
    routes = {"$connect": "http://animals/connect", "$disconnect": "http://animals/disconnect",
              "send": two_way("http://animals/send")}
    gateway = livegate(**pool(*three, routes=routes, balance="round_robin"))
    with gateway.connect() as client:
        assert {json.loads(client.asks(action="send"))["server"] for _ in range(3)} == {"a", "b", "c"}
        three[0].kill()
        assert {json.loads(client.asks(action="send"))["server"] for _ in range(9)} == {"b", "c"}
        three[1].kill()
        assert {json.loads(client.asks(action="send"))["server"] for _ in range(9)} == {"c"}
    told = eventually(lambda: three[2].at("/disconnect"))
    assert dict(told[0]["headers"])["x-livegate-event-type"] == "DISCONNECT"
    assert sum(len(one.at("/connect")) for one in three) == 1


def test_disconnects_wait_for_a_pool_to_come_back(livegate, three):
    gateway = livegate(**pool(*three, routes={"$disconnect": "http://animals/disconnect"}))
    with gateway.connect() as client:
        client.whoami()
        for one in three:
            one.kill()
    eventually(lambda: gateway.metric("livegate_disconnect_retries_total") > 0)
    three[1].start()
    eventually(lambda: three[1].at("/disconnect"))
    assert gateway.metric("livegate_disconnects_lost_total") == 0


def test_a_message_is_never_sent_twice(livegate, server):
    a, b = server("a", hangs_up=True), server("b", hangs_up=True)
    gateway = livegate(**pool(a, b, routes={"send": two_way("http://animals/send")}, ejection="none"))
    with gateway.connect() as client:
        for _ in range(6):
            assert json.loads(client.asks(action="send"))["message"] == "Internal server error"
    assert len(a.calls) + len(b.calls) == 6


# Reload


def test_a_reload_that_changes_the_servers_loses_no_request(livegate, three):
    a, b, c = three
    gateway = livegate(**pool(a, b))
    with Calling(gateway) as calling:
        for servers in ([b, c], [c], [a, b, c], [a], [b, c]):
            gateway.reload(chat(**pool(*servers)))
            calling.more(60)
    assert calling.failed("GET") == calling.failed("POST") == []
    assert seen_twice("POST", *three) == seen_twice("GET", *three) == {}
    assert min(len(one.calls) for one in three) > 0


def test_a_server_that_was_taken_out_of_the_file_ends_what_it_has_begun(livegate, server):
    a, b = server("a"), server("b")
    gateway = livegate(**pool(a, idle_timeout="1m"))
    a.tell(hold=True)
    with ThreadPoolExecutor(1) as threads:
        begun = threads.submit(call, gateway)
        a.wait_for_calls(1)
        gateway.reload(chat(**pool(b)))
        assert who_answers(gateway, 3) == {"b": 3}
        a.tell(hold=False)
        assert begun.result().json["server"] == "a"
    assert len(a.calls) == 1
    a.wait_for_closed(1)


def test_a_reload_does_not_forget_who_is_ejected(livegate, three):
    three[0].tell(status=503)
    settings = {"ejection": {"failures": 1, "time": "1m"}, "balance": "round_robin"}
    gateway = livegate(**pool(*three, **settings))
    for _ in range(6):
        call(gateway)
    assert len(three[0].calls) == 1
    gateway.reload(chat(**pool(*three, retries=2, **settings)))
    assert set(who_answers(gateway, 12)) == {"b", "c"}
    assert len(three[0].calls) == 1


def test_a_reload_keeps_the_connections_of_servers_that_stay(livegate, server):
    a = server()
    gateway = livegate(**pool(a, idle_timeout="1m"))
    before = call(gateway).json["connection"]
    gateway.reload(chat(**pool(a, "127.0.0.1:1", idle_timeout="1m")))
    assert {call(gateway).json["connection"] for _ in range(3)} == {before}


def test_a_reload_stops_checks_of_servers_that_are_gone(livegate, server):
    a, b = server("a"), server("b")
    health = {"path": "/healthz", "interval": "50ms"}
    gateway = livegate(**pool(a, health=health))
    a.wait_for_checks(2)
    gateway.reload(chat(**pool(b, health=health)))
    b.wait_for_checks(1)
    # One may have been on its way.
    before = a.checks
    b.wait_for_checks(10)
    assert a.checks <= before + 1


# What `livegate check` says


def checked(tmp_path, **parts):
    (tmp_path / "routes.toml").write_text(chat(**parts))
    return run("check", cwd=tmp_path)


def test_check_of_a_good_pool_is_0(tmp_path):
    result = checked(tmp_path, **pool("127.0.0.1:3000", "[::1]:3000", "localhost:3000", "unix:/run/animals.sock"))
    assert result.returncode == 0 and "no problems" in result.stdout, result.stdout


@pytest.mark.parametrize("settings, words", [
    ({"servers": []}, ["empty"]),
    ({"servers": ["127.0.0.1"]}, ["127.0.0.1:80", "port"]),
    ({"servers": ["http://127.0.0.1:3000"]}, ["scheme"]),
    ({"servers": ["127.0.0.1:0"]}, ["65535"]),
    ({"servers": ["unix:run/animals.sock"]}, ["whole path"]),
    ({"servers": ["127.0.0.1:3000", "127.0.0.1:3000"]}, ["second time"]),
    ({"server": ["127.0.0.1:3000"]}, ["servers"]),
    ({"balance": "random"}, ["round_robin", "least_requests"]),
    ({"health": {"interval": "1s"}}, ["path"]),
    ({"health": {"path": "healthz"}}, ["/healthz"]),
    ({"health": {"path": "/healthz", "interval": "0s"}}, ["interval"]),
    ({"ejection": {"failures": 0}}, ["failures"]),
    ({"retries": 9}, ["0 to 5"]),
    ({"retry_budget": 101}, ["0 to 100"]),
    ({"max_connections": 0}, ["max_connections"]),
    ({"queue": {"requests": -1}}, ["requests"]),
    ({"queue": {"length": 5}}, ["requests"]),
    ({"tls": {"ca": "nowhere.pem"}}, ["nowhere.pem"]),
    ({"tls": {"ca": "routes.toml"}}, ["BEGIN CERTIFICATE"]),
    ({"tls": {"certificate": "nowhere.pem"}}, ["key"]),
    ({"tls": {"certificate": "nowhere.pem", "key": "nowhere-else.pem"}}, ["nowhere.pem"]),
    ({"tls": {"server_name": "https://animals"}}, ["scheme"]),
])
def test_check_says_what_is_wrong_with_a_pool(tmp_path, settings, words):
    parts = pool("127.0.0.1:3000")
    parts["backends"]["animals"].update(settings)
    if "server" in settings:
        del parts["backends"]["animals"]["servers"]
    result = checked(tmp_path, **parts)
    assert result.returncode == 1 and "routes.toml:" in result.stdout, result.stdout
    assert all(word in result.stdout for word in words), result.stdout


def test_check_reads_every_file_of_a_pool(tmp_path, authority):
    own, other = authority.issue("one"), authority.issue("two")
    no_key = tmp_path / "no-key.pem"
    no_key.write_text("-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n")
    good = {"ca": str(authority.file), "certificate": str(own), "key": str(own)}
    assert checked(tmp_path, **pool("127.0.0.1:1", tls=good)).returncode == 0
    for change, word in [({"key": str(authority.file)}, "private key"), ({"key": str(other)}, "animals"),
                         ({"certificate": str(no_key)}, "certificate"), ({"key": str(no_key)}, "private key")]:
        result = checked(tmp_path, **pool("127.0.0.1:1", tls={**good, **change}))
        assert result.returncode == 1 and word in result.stdout, result.stdout


@pytest.mark.parametrize("name, word", [
    ("Animals", "animals"), ("localhost", "machine"), ("127.0.0.1", "machine"), ("a b", "host"),
])
def test_check_says_what_cannot_name_a_pool(tmp_path, name, word):
    result = checked(tmp_path, **pool("127.0.0.1:3000", pool_of=name))
    assert result.returncode == 1 and word in result.stdout and toml_key(name) in result.stdout, result.stdout


def test_check_says_that_a_pool_takes_no_port(tmp_path):
    result = checked(tmp_path, **pool("127.0.0.1:3000", uri="http://animals:3000/call"))
    assert result.returncode == 1 and "leave out the port" in result.stdout, result.stdout


def test_check_warns_of_a_pool_that_no_route_names(tmp_path):
    result = checked(tmp_path, **pool("127.0.0.1:3000", uri="http://127.0.0.1:3000/call"))
    assert result.returncode == 0 and "no route names the pool `animals`" in result.stdout, result.stdout


@pytest.mark.parametrize("mistake", [{"uri": "http://animals:3000/call"}, {"tls": {"ca": "nowhere.pem"}}])
def test_check_does_not_say_that_nobody_names_a_pool_that_a_route_names(tmp_path, mistake):
    result = checked(tmp_path, **pool("127.0.0.1:3000", **mistake))
    assert result.returncode == 1 and "no route names" not in result.stdout, result.stdout


def test_check_knows_a_pool_with_a_slip_in_its_name(tmp_path):
    # ROUTES.md section 2: a backend that a route names must exist, and the nearest known name is shown.
    parts = pool("127.0.0.1:3000", uri="http://animels/call")
    parts["apis"]["pets"]["routes"]["GET /other"] = {"integration": "http://animals/call"}
    result = checked(tmp_path, **parts)
    assert "animels" in result.stdout and "animals" in result.stdout, result.stdout


def test_a_reload_with_a_bad_pool_changes_nothing(livegate, server):
    a = server()
    gateway = livegate(**pool(a))
    gateway.reload(chat(**pool(a, tls={"ca": "nowhere.pem"})))
    eventually(lambda: "nowhere.pem" in gateway.logs())
    assert answered_by(gateway) == "a"


def test_routes_shows_the_pool(tmp_path):
    (tmp_path / "routes.toml").write_text(chat(**pool("127.0.0.1:3000")))
    printed = run("routes", cwd=tmp_path)
    assert printed.returncode == 0 and "http://animals/call" in printed.stdout
