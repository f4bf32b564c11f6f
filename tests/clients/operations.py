"""What operators do: the commands, health and metrics, reload and drain (ROUTES.md section 1)."""

import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend import Answer
from wire import CLOSE, TEXT, frame
from world import LIVEGATE, chat, eventually, http_request, mock, run, two_way

GOOD = chat(routes={"send": "http://127.0.0.1:3000/send"})
BAD = '''
[apis.chat]
protocol = "websocket"
route_selection_expression = "$request.body.action"

[apis.chat.routes.send]
integration = { type = "http_proxy", uri = "http://127.0.0.1:3000/send", timeout = "45 parsecs" }
rout_response = true

[apis.chat.routes.other]
integration = "not a url"

[apis.chat.stages.prod]
'''


# Commands


def test_check_of_a_good_file_is_0(tmp_path):
    (tmp_path / "routes.toml").write_text(GOOD)
    checked = run("check", str(tmp_path / "routes.toml"))
    assert checked.returncode == 0, checked.stdout


def test_check_looks_at_routes_toml_of_the_current_folder(tmp_path):
    (tmp_path / "routes.toml").write_text(GOOD)
    assert run("check", cwd=tmp_path).returncode == 0
    (tmp_path / "routes.toml").write_text(BAD)
    assert run("check", cwd=tmp_path).returncode == 1


def test_check_shows_every_problem_with_its_place_and_line_and_what_would_do(tmp_path):
    (tmp_path / "routes.toml").write_text(BAD)
    checked = run("check", str(tmp_path / "routes.toml"))
    assert checked.returncode == 1
    for line, column, there, help in [(7, None, "45 parsecs", "5s"), (8, 1, "rout_response", "route_response"), (11, None, "not a url", "http")]:
        assert re.search(rf"routes\.toml:{line}:{column or '[0-9]+'}", checked.stdout), checked.stdout
        assert there in checked.stdout and help in checked.stdout
    assert 'timeout = "45 parsecs"' in checked.stdout


@pytest.mark.parametrize("text, word", [
    ("[apis.chat\n", "routes.toml:1"),
    ('[gateway]\nlisten = 5\n', "listen"),
    (GOOD.replace('"http://127.0.0.1:3000/send"', '{ type = "htp_proxy", uri = "http://127.0.0.1:3000/send" }'), "http_proxy"),
    (GOOD + "[gatway]\n", "gateway"),
    (GOOD.replace("/send", "/${env.LIVEGATE_TEST_UNSET}"), "LIVEGATE_TEST_UNSET"),
    (GOOD.replace("/send", "/${stageVariables.nope}"), "nope"),
])
def test_check_of_a_bad_file_is_1(tmp_path, text, word):
    (tmp_path / "routes.toml").write_text(text)
    checked = run("check", str(tmp_path / "routes.toml"))
    assert checked.returncode == 1 and word in checked.stdout, checked.stdout


def test_check_without_the_secrets(tmp_path):
    (tmp_path / "routes.toml").write_text(GOOD.replace("/send", "/${env.LIVEGATE_TEST_UNSET}"))
    assert run("check", "--allow-unset-env", cwd=tmp_path).returncode == 0
    assert run("check", cwd=tmp_path, env={"LIVEGATE_TEST_UNSET": "send"}).returncode == 0


def test_check_of_a_file_that_is_not_there_is_1(tmp_path):
    checked = run("check", str(tmp_path / "none.toml"))
    assert checked.returncode == 1 and "none.toml" in checked.stdout + checked.stderr


@pytest.mark.parametrize("arguments", [["check", "--nope"], ["nope"], ["serve", "--config"], []])
def test_wrong_usage_is_2(arguments):
    assert run(*arguments).returncode == 2


def test_routes_prints_the_table(tmp_path):
    (tmp_path / "routes.toml").write_text(chat(routes={"$connect": "http://127.0.0.1:3000/connect", "send": two_way("http://127.0.0.1:3000/send")},
                                               stages={"blue": {}, "green": {}}))
    printed = run("routes", cwd=tmp_path)
    assert printed.returncode == 0
    for word in ("chat", "blue", "green", "$connect", "send", "whoami", "http://127.0.0.1:3000/send", "mock"):
        assert word in printed.stdout, printed.stdout


def test_routes_of_a_bad_file_is_1(tmp_path):
    (tmp_path / "routes.toml").write_text(BAD)
    assert run("routes", cwd=tmp_path).returncode == 1


def test_schema_is_json_schema():
    printed = run("schema")
    schema = json.loads(printed.stdout)
    assert printed.returncode == 0 and "json-schema.org" in schema["$schema"]
    assert {"gateway", "apis", "credentials"} <= set(schema["properties"])


def test_help_names_the_commands():
    printed = run("--help")
    assert printed.returncode == 0
    for command in ("serve", "check", "routes", "schema", "demo"):
        assert command in printed.stdout


def test_serve_of_a_bad_file_is_1_with_the_report(tmp_path):
    (tmp_path / "routes.toml").write_text(BAD)
    served = run("serve", cwd=tmp_path)
    assert served.returncode == 1
    assert "routes.toml:8:1" in served.stdout + served.stderr and "route_response" in served.stdout + served.stderr
    assert "listening on" not in served.stdout


def test_serve_on_an_address_in_use_fails(livegate, tmp_path):
    gateway = livegate()
    (tmp_path / "routes.toml").write_text(chat(gateway={"listen": gateway.host}))
    served = run("serve", cwd=tmp_path)
    assert served.returncode != 0 and gateway.host in served.stdout + served.stderr


def test_authorization_none_needs_loopback(tmp_path):
    (tmp_path / "routes.toml").write_text(chat(gateway={"listen": "0.0.0.0:0"}))
    checked = run("check", cwd=tmp_path)
    assert checked.returncode == 1 and "loopback" in checked.stdout


def test_several_listeners_print_a_line_each(livegate):
    gateway = livegate(gateway={"listen": ["127.0.0.1:0", "127.0.0.1:0"]})
    assert [line.split(" http")[0] for line in gateway.printed] == ["listening on", "listening on", "admin listening on"]


def test_env_variables_are_filled_in(livegate):
    gateway = livegate(routes={"say": mock("it is ${env.LIVEGATE_TEST_WORD}")}, env={"LIVEGATE_TEST_WORD": "so"})
    with gateway.connect() as client:
        assert client.asks(action="say") == "it is so"


# Health and metrics


def test_a_running_gateway_is_healthy_and_ready(livegate):
    gateway = livegate()
    assert gateway.admin("/healthz").status == gateway.admin("/readyz").status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_clients_do_not_see_what_operators_see(livegate, path):
    assert livegate().request("GET", path).status == 404


def test_metrics_follow_what_happens(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect"), "send": two_way(backend.at("/send"))})
    backend.answers("/connect", Answer(200), Answer(403))
    backend.answer("/send", 200, "hi")
    with gateway.connect() as client:
        mine = client.whoami()
        assert client.asks(action="send") == "hi"
        assert gateway.push(mine, "pushed").status == 200 and client.hears() == "pushed"
        assert gateway.knock().status == 403
        assert gateway.metric("livegate_connections_open", api="chat", stage="prod") == 1
        assert gateway.metric("livegate_messages_total", direction="in") == 2
        eventually(lambda: gateway.metric("livegate_messages_total", direction="out") == 3)
        assert gateway.metric("livegate_connects_total") == 2
        assert gateway.metric("livegate_pushes_total", outcome="ok") == 1
        assert gateway.metric("livegate_integration_latency_seconds_count") >= 1
    text = gateway.admin("/metrics").body.decode()
    for name in set(re.findall(r"^(livegate_\w+?)(?:_bucket|_sum|_count)?(?:\{| )", text, re.MULTILINE)):
        assert f"# HELP {name} " in text and f"# TYPE {name} " in text, name


# Reload


def test_sighup_brings_the_new_routes_to_open_sockets(livegate, backend, another_backend):
    backend.answer("/send", 200, "old")
    another_backend.answer("/send", 200, "new")
    gateway = livegate(routes={"send": two_way(backend.at("/send"))}, linked=True)
    with gateway.connect() as client:
        assert client.asks(action="send") == "old"
        gateway.reload(chat(routes={"send": two_way(another_backend.at("/send"))}))
        assert client.asks(action="send") == "new"


def test_a_changed_file_is_noticed(livegate):
    gateway = livegate(routes={"say": mock("old")})
    with gateway.connect() as client:
        gateway.write(chat(routes={"say": mock("new")}))
        eventually(lambda: client.asks(action="say") == "new")


def test_a_changed_file_is_noticed_beside_a_busy_one(livegate):
    gateway = livegate(routes={"say": mock("old")})
    busy = gateway.folder / "busy.log"
    with gateway.connect() as client:
        gateway.write(chat(routes={"say": mock("new")}))
        eventually(lambda: busy.write_text("line") and client.asks(action="say") == "new")


def test_an_edit_right_after_the_start_is_noticed(livegate):
    gateway = livegate(routes={"say": mock("old")})
    gateway.write(chat(routes={"say": mock("new")}))
    with gateway.connect() as client:
        eventually(lambda: client.asks(action="say") == "new")


def test_a_reader_that_left_does_not_end_the_gateway(livegate, tmp_path):
    config = tmp_path / "piped.toml"
    config.write_text(chat(routes={"say": mock("old")}))
    reader, writer = os.pipe()
    process = subprocess.Popen([LIVEGATE, "serve", "--config", str(config)], stdout=writer, stderr=writer)
    os.close(writer)
    with open(reader) as lines:
        admin = next(line for line in lines if line.startswith("admin listening on")).split()[-1]
    config.write_text(chat(routes={"say": mock("new")}))
    counted = 'livegate_reloads_total{outcome="ok"} 1'
    eventually(lambda: counted in http_request(admin, "GET", "/metrics").body.decode())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_a_file_written_in_place_is_noticed(livegate):
    gateway = livegate(routes={"say": mock("old")})
    with gateway.connect() as client:
        gateway.file.write_text(chat(routes={"say": mock("new")}))
        eventually(lambda: client.asks(action="say") == "new")


def test_a_removed_stage_goes_away_and_tells_the_old_backend(livegate, backend, another_backend):
    stages = {"blue": {"stage_variables": {"backend": backend.authority}}, "green": {"stage_variables": {"backend": backend.authority}}}
    moved = {"green": {"stage_variables": {"backend": another_backend.authority}}}
    routes = {"$disconnect": "http://${stageVariables.backend}/disconnect"}
    gateway = livegate(routes=routes, stages=stages)
    with gateway.connect("/blue") as blue, gateway.connect("/green") as green:
        mine = blue.whoami()
        gateway.reload(chat(routes=routes, stages=moved))
        assert blue.closed() == (1001, "Going away")
        told = backend.next("/disconnect")
        assert (told.connection_id, told.header("X-Livegate-Disconnect-Code")) == (mine, "1001")
        assert gateway.knock("/blue").status == 403
        other = green.whoami()
    assert another_backend.next("/disconnect").connection_id == other


def test_limits_of_open_sockets_change_with_the_file(livegate):
    gateway = livegate()
    with gateway.open() as wire:
        wire.says(action="whoami")
        wire.message()
        gateway.reload(chat(stage={"max_message": "1KiB", "max_frame": "1KiB"}))
        wire.send(frame(TEXT, b"x" * 1025))
        got = wire.frame()
        assert got.opcode == CLOSE and got.close[0] == 1009


def test_an_idle_timeout_reaches_open_sockets(livegate):
    gateway = livegate()
    with gateway.connect() as client:
        client.whoami()
        gateway.reload(chat(stage={"idle_timeout": "1s"}))
        assert client.closed() == (1001, "Going away")


def test_a_bad_file_changes_nothing_and_is_counted(livegate):
    gateway = livegate(routes={"say": mock("old")})
    with gateway.connect() as client:
        before = gateway.metric("livegate_reloads_total", outcome="problems")
        gateway.reload(BAD)
        assert gateway.metric("livegate_reloads_total", outcome="problems") > before
        assert client.asks(action="say") == "old"
        assert gateway.is_well() and gateway.admin("/readyz").status == 200
        eventually(lambda: "rout_response" in gateway.logs())
        gateway.reload(chat(routes={"say": mock("new")}))
        eventually(lambda: client.asks(action="say") == "new")


def test_a_changed_listener_opens_the_new_address(livegate, another_backend):
    # A port that is free: its backend has just let go of it.
    another_backend.kill()
    gateway = livegate()
    with gateway.connect() as client:
        gateway.reload(chat(gateway={"listen": another_backend.authority}))
        assert gateway.url_after("listening on") == f"http://{another_backend.authority}"
        client.whoami()
        gateway.address, gateway.ws_url = ("127.0.0.1", another_backend.port), f"ws://{another_backend.authority}"
        assert gateway.is_well()


def test_a_listener_that_cannot_be_bound_is_a_problem(livegate, backend):
    gateway = livegate()
    gateway.reload(chat(gateway={"listen": backend.authority}, routes={"say": mock("new")}))
    assert gateway.is_well()
    assert gateway.metric("livegate_reloads_total", outcome="problems") >= 1
    with gateway.connect() as client:
        assert "Forbidden" in client.asks(action="say")


# Drain


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drained_gateway_ends_with_0(livegate, backend, number):
    gateway = livegate(routes={"$disconnect": backend.at("/disconnect")})
    with gateway.connect() as client:
        mine = client.whoami()
        gateway.signal(number)
        assert client.closed() == (1001, "Going away")
    told = backend.next("/disconnect")
    assert (told.connection_id, told.header("X-Livegate-Disconnect-Code")) == (mine, "1001")
    assert gateway.exit_code() == 0


def test_while_it_drains_it_is_not_ready_and_lets_nobody_in(livegate, backend):
    gateway = livegate(routes={"send": two_way(backend.at("/send"))}, gateway={"drain_timeout": "20s"})
    backend.answer("/send", 200, "answered")
    with gateway.connect() as client, backend.holding("/send") as hold:
        client.says(action="send")
        backend.next("/send")
        gateway.signal(signal.SIGTERM)
        eventually(lambda: gateway.admin("/readyz").status == 503)
        assert gateway.admin("/healthz").status == 200
        with pytest.raises((ConnectionError, EOFError)):
            eventually(lambda: gateway.knock() and None)
        hold.release()
        assert client.hears() == "answered"
        assert client.closed()[0] == 1001
    assert gateway.exit_code() == 0


def test_drain_delay_keeps_serving_but_unready(livegate):
    gateway = livegate(gateway={"drain_delay": "2s", "drain_timeout": "2s"})
    gateway.signal(signal.SIGTERM)
    eventually(lambda: gateway.admin("/readyz").status == 503)
    assert gateway.is_well()
    assert gateway.exit_code() == 0


def test_a_disconnect_is_retried_while_draining(livegate, backend):
    backend.answers("/disconnect", Answer(503), Answer(503), Answer(200))
    gateway = livegate(routes={"$disconnect": backend.at("/disconnect")})
    with gateway.connect() as client:
        gateway.signal(signal.SIGTERM)
        assert client.closed()[0] == 1001
    assert gateway.exit_code() == 0
    assert len({request.request_id for request in backend.wait_for("/disconnect", 3)}) == 1


def test_what_a_drain_cannot_deliver_is_logged_as_lost(livegate, dead_backend):
    gateway = livegate(routes={"$disconnect": dead_backend.at("/disconnect")}, gateway={"drain_timeout": "2s"})
    with gateway.connect() as client:
        gateway.signal(signal.SIGTERM)
        assert client.closed()[0] == 1001
    assert gateway.exit_code() == 0
    eventually(lambda: re.search("lost|given up|gave up", gateway.logs()))


def test_a_handshake_that_ends_during_a_drain_is_told_to_go(livegate, backend):
    routes = {"$connect": backend.at("/connect"), "$disconnect": backend.at("/disconnect")}
    gateway = livegate(routes=routes, gateway={"drain_timeout": "20s"})
    with ThreadPoolExecutor() as pool, backend.holding("/connect") as hold:
        knocking = pool.submit(gateway.open)
        backend.next("/connect")
        gateway.signal(signal.SIGTERM)
        eventually(lambda: gateway.admin("/readyz").status == 503)
        hold.release()
        assert knocking.result().frame().close[0] == 1001
    assert backend.next("/disconnect").header("X-Livegate-Disconnect-Code") == "1001"
    assert gateway.exit_code() == 0


def test_a_client_that_ignores_the_close_of_a_drain_loses_no_disconnect(livegate, backend):
    routes = {"send": two_way(backend.at("/send")), "$disconnect": backend.at("/disconnect")}
    gateway = livegate(routes=routes, gateway={"drain_timeout": "1s"})
    wire = gateway.open()
    with backend.holding("/send"):
        wire.send(frame(TEXT, b'{"action":"send"}'))
        backend.next("/send")
        assert gateway.terminate() == 0
    eventually(lambda: backend.seen("/disconnect") or re.search("lost", gateway.logs()))


def test_a_second_signal_ends_it_at_once(livegate, backend):
    gateway = livegate(routes={"send": two_way(backend.at("/send"))}, gateway={"drain_timeout": "60s"})
    with gateway.connect() as client, backend.holding("/send"):
        client.says(action="send")
        backend.next("/send")
        gateway.signal(signal.SIGTERM)
        eventually(lambda: gateway.admin("/readyz").status == 503)
        gateway.signal(signal.SIGTERM)
        gateway.process.wait(timeout=2)
