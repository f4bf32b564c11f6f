"""A Prometheus that scrapes real gateways: docs/metrics.md, and the rules and the dashboard of examples/monitoring."""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import time
import urllib.parse

import pytest

from authorizers import ALLOW
from backend import PATIENCE, Answer
from http_apis import ask, pets, proxy, says
from issuers import an_issuer
from servers import free_port
from wire import Wire, close_frame
from world import REPOSITORY, Livegate, chat, eventually, http_request, to, two_way

MONITORING = REPOSITORY / "examples" / "monitoring"
KEY = "the-key-of-acme-0123456789"
TOKEN = "a-token-of-operators-0123456789"


# What documents and examples say


class Metric:
    """A row of the table in docs/metrics.md."""

    def __init__(self, name, kind, labels, counts):
        self.name, self.kind, self.counts = name, kind, counts
        self.labels = set() if labels == "none" else {label.split("=")[0] for label in labels.split(", ")}

    @property
    def series(self):
        """The names of its series, each with its labels."""
        if self.kind == "histogram":
            return {f"{self.name}_bucket": self.labels | {"le"}, f"{self.name}_sum": self.labels, f"{self.name}_count": self.labels}
        return {self.name: self.labels}


METRICS = [Metric(*row) for row in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+?) \| ([^|]+?) \|$",
                                              (REPOSITORY / "docs" / "metrics.md").read_text(), re.MULTILINE)]
SERIES = {name: labels for metric in METRICS for name, labels in metric.series.items()}

# What Prometheus itself knows about a target, and puts on all of its series.
OF_PROMETHEUS = {name: set() for name in ("up", "scrape_duration_seconds", "scrape_samples_scraped")}
OF_TARGETS = {"job", "instance"}

# Only a gateway that orders certificates has these; acme.py looks at them.
OF_CERTIFICATES = {"livegate_certificate_orders_total", "livegate_certificate_expiration_timestamp_seconds"}

DASHBOARD = json.loads((MONITORING / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
VARIABLES = DASHBOARD["templating"]["list"]


def dashboard_expressions():
    """Where each expression of grafana.json stands, and the expression as Grafana would ask it."""
    found = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
    found += [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"] if "expr" in note]
    # A variable looks for the values of a label: `label_values(selector, label)`.
    found += [(one["name"], re.fullmatch(r"label_values\((.*), \w+\)", one["query"]["query"]).group(1))
              for one in VARIABLES if one["type"] == "query"]
    return [(place, filled_in(expression)) for place, expression in found]


def filled_in(expression):
    expression = expression.replace("$__rate_interval", "1m")
    for one in VARIABLES:
        expression = re.sub(rf"\${one['name']}\b", ".*", expression)
    assert "$" not in expression, expression
    return expression


GROUPED = r"\b(?:by|without|on|ignoring|group_left|group_right) *\(([^)]*)\)"


def names_in(expression):
    """The metrics that an expression asks for."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    bare = re.sub(GROUPED, "", re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare))
    words = re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)
    return {word for word in words if word not in ("and", "or", "unless", "bool", "offset")}


def mistakes_in(expression, recorded):
    """What an expression asks for that nobody has: metrics, labels of a metric, and values of labels that docs list."""
    known = {**SERIES, **OF_PROMETHEUS, **recorded}
    names = names_in(expression)
    for name in names - set(known):
        yield f"no metric is named {name}"
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
        for label, values in re.findall(r'(\w+)[=!]~?"([^"]*)"', matchers):
            if label not in known.get(name, set()) | OF_TARGETS:
                yield f"{name} has no label {label}"
            elif label in ("outcome", "cause", "reason", "direction", "state", "status") and name in SERIES:
                listed = next(metric.counts + str(metric.labels) for metric in METRICS if name in metric.series)
                yield from (f"no {label} of {name} is {value} by docs/metrics.md" for value in values.split("|")
                            if value != ".*" and not re.search(rf"\b{re.escape(value)}\b", listed))
    there = set().union(OF_TARGETS, *(known.get(name, set()) for name in names), *re.findall(r'label_replace\(.*?, "(\w+)"', expression))
    for grouped in re.findall(GROUPED, expression):
        yield from (f"nothing here has a label {label}" for label in re.findall(r"\w+", grouped) if label not in there)


def test_the_expressions_of_these_tests_are_read_rightly():
    assert names_in('sum by (api) (rate(a_total{x="b_c"}[5m])) / ignoring (cause) group_left () d:e:f > 0.5 and up') == {"a_total", "d:e:f", "up"}
    assert list(mistakes_in('sum by (api, code) (rate(livegate_pushes_total{outcome="full|lost", cod="1"}[5m]))', {})) == [
        "no outcome of livegate_pushes_total is lost by docs/metrics.md",
        "livegate_pushes_total has no label cod",
        "nothing here has a label code"]
    assert list(mistakes_in("livegate_nothing > 0", {})) == ["no metric is named livegate_nothing"]


# The worlds


def faster(folder):
    """A copy of the examples in which nobody waits for the next scrape."""
    shutil.copytree(MONITORING, folder)
    text = (folder / "prometheus.yml").read_text()
    for written, instead in [("scrape_interval: 10s", "scrape_interval: 100ms"), ("evaluation_interval: 15s", "evaluation_interval: 200ms")]:
        assert text.count(written) == 1, written
        text = text.replace(written, instead)
    (folder / "prometheus.yml").write_text(text)


# A new target is taken up after five seconds; without this it may be ten.
AT_ONCE = "--scrape.discovery-reload-interval=100ms"


class Prometheus:
    """Debian's Prometheus with the examples' configuration, faster and with other targets."""

    def __init__(self, folder, *gateways, token=None):
        faster(folder)
        self.targets = [urllib.parse.urlsplit(gateway.admin_url).netloc for gateway in gateways]
        text = (folder / "prometheus.yml").read_text()
        assert text.count('["127.0.0.1:8081"]') == 1
        text = text.replace('["127.0.0.1:8081"]', json.dumps(self.targets))
        if token:
            text += f"    authorization: {{ credentials: {token} }}\n"
        (folder / "prometheus.yml").write_text(text)
        self._logs = folder / "prometheus.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        with open(self._logs, "wb") as logs:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                 f"--web.listen-address={self.url.removeprefix('http://')}", AT_ONCE], stdout=logs, stderr=logs)
        eventually(self.is_ready, "Prometheus")

    def is_ready(self):
        assert self.process.poll() is None, self.logs()
        with contextlib.suppress(ConnectionError):
            return http_request(self.url, "GET", "/-/ready").status == 200

    def logs(self):
        return self._logs.read_text(errors="replace")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, path, **parameters):
        return http_request(self.url, "GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}").json

    def query(self, expression):
        answer = self.ask("query", query=expression)
        assert answer["status"] == "success", f"{expression}\n{answer}"
        return answer["data"]["result"]

    def value(self, expression):
        """The only sample of an expression, or None."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def health(self):
        """Each target's health and its last error."""
        return {target["labels"]["instance"]: (target["health"], target["lastError"]) for target in self.ask("targets")["data"]["activeTargets"]}

    def are_up(self):
        return {health for health, _ in self.health().values()} == {"up"}

    def names(self):
        return set(self.ask("label/__name__/values")["data"])

    def rules(self):
        """Every rule, once each has been evaluated."""
        def evaluated():
            rules = [rule for group in self.ask("rules")["data"]["groups"] for rule in group["rules"]]
            return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None
        return eventually(evaluated, "the rules to be evaluated")

    def alerts(self):
        return {(alert["labels"]["alertname"], alert["state"]) for alert in self.ask("alerts")["data"]["alerts"]}


@pytest.fixture
def prometheus(processes, tmp_path):
    """Starts Prometheus: `prometheus(gateway)`."""
    return lambda *gateways, **settings: processes(Prometheus, tmp_path / "prometheus", *gateways, **settings)


@pytest.fixture
def issuer():
    with an_issuer() as issuer:
        yield issuer


def everything(backend, dead_backend, issuer):
    """A routes.toml in which everything that is measured is there."""
    stage = {"detailed_metrics": True, "access_log": {"format": "json", "destination": "file:access.log"}}
    return chat(
        routes={"$connect": backend.at("/connect"), "$disconnect": to(dead_backend.at("/disconnect")),
                "send": two_way(backend.at("/send")), "failing": two_way(backend.at("/failing")), "broken": two_way(dead_backend.at("/broken"))},
        stage={**stage, "disconnect_retry": "1s"},
        gateway={"tracing": {"endpoint": backend.at(""), "sample": 1.0}},
        apis={"pets": pets({
            "ANY /pets/{id}": proxy("http://animals/pets"), "GET /dead": proxy(dead_backend.at("/dead")),
            "GET /seldom": {**says("seldom"), "throttle": {"rate": 0.001, "burst": 1}},
            "GET /token": {**says("in"), "authorizer": "users"}, "GET /asked": {**says("in"), "authorizer": "custom"},
            "GET /key": {**says("in"), "api_key_required": True}}, stages={"$default": stage})},
        backends={"animals": {"servers": [backend.authority]}},
        authorizers={"users": issuer.authorizer(), "custom": {"type": "http", "uri": backend.at("/authorize"), "ttl": "1m",
                                                              "identity_source": ["$request.header.Authorization"]}},
        usage_plans={"gold": {}}, api_keys={"acme": {"value": KEY, "usage_plan": "gold"}})


@pytest.fixture
def busy(livegate, backend, dead_backend, issuer):
    """A gateway to which everything has happened that clients and backends can do, with a client that is still there."""
    gateway = livegate(everything(backend, dead_backend, issuer))
    backend.answers("/connect", Answer(200), Answer(200), Answer(403))
    backend.answer("/send", 200, "sent")
    backend.answer("/failing", 500, "failed")
    backend.answer("/authorize", body=ALLOW)
    backend.answer("/pets", 200, "a pet")
    with gateway.connect() as stays:
        with gateway.connect() as client:
            mine = client.whoami()
            for action in ("send", "failing", "broken", "nobody knows"):
                client.asks(action=action)
            assert gateway.push(mine, "pushed").status == 200 and client.hears() == "pushed"
        assert gateway.knock().status == 403
        eventually(lambda: gateway.push(mine).status == 410)
        bearer = [("Authorization", f"Bearer {issuer.token()}")]
        asked = [ask(gateway, method, target, headers, body).status for method, target, headers, body in [
            ("POST", "/pets/1", [], "a body"), ("GET", "/none", [], ""), ("GET", "/dead", [], ""),
            ("GET", "/seldom", [], ""), ("GET", "/seldom", [], ""), ("GET", "/token", bearer, ""), ("GET", "/token", [], ""),
            ("GET", "/asked", [("Authorization", "me")], ""), ("GET", "/asked", [("Authorization", "me")], ""),
            ("GET", "/key", [("x-api-key", KEY)], ""), ("GET", "/key", [], "")]]
        assert asked == [200, 404, 503, 200, 429, 200, 401, 200, 200, 200, 403]
        assert stays.whoami()
        yield gateway


# Scraping


RAISED = """
livegate_connections_open{api="chat"}
livegate_connects_total{outcome="opened"}
livegate_connects_total{outcome="refused"}
livegate_connections_closed_total{code="1000"}
livegate_messages_total{direction="in"}
livegate_messages_total{direction="out"}
livegate_bytes_total{direction="in"}
livegate_bytes_total{direction="out"}
livegate_requests_total{status="2xx"}
livegate_requests_total{status="4xx"}
livegate_requests_total{status="5xx"}
livegate_request_latency_seconds_count{api="pets"}
livegate_data_processed_bytes_total{api="pets"}
livegate_pushes_total{outcome="ok"}
livegate_pushes_total{outcome="gone"}
livegate_push_latency_seconds_count{api="chat"}
livegate_integration_latency_seconds_count{api="chat"}
livegate_integration_latency_seconds_count{api="pets"}
livegate_integration_errors_total{api="chat"}
livegate_execution_errors_total{api="chat", reason="unreachable"}
livegate_execution_errors_total{api="pets", reason="unreachable"}
livegate_client_errors_total{api="chat"}
livegate_client_errors_total{api="pets"}
livegate_refusals_total{cause="route_throttle"}
livegate_refusals_total{cause="unauthorized"}
livegate_refusals_total{cause="api_key"}
livegate_authorizer_key_fetches_total{authorizer="users", outcome="ok"}
livegate_authorizer_cache_total{authorizer="custom", outcome="hit"}
livegate_authorizer_cache_total{authorizer="custom", outcome="miss"}
livegate_authorizer_cache_entries{authorizer="custom"}
livegate_disconnect_retries_total{api="chat"}
livegate_disconnects_lost_total{api="chat"}
livegate_route_calls_total{api="chat", route="send"}
livegate_route_calls_total{api="pets", route="ANY /pets/{id}"}
livegate_route_client_errors_total{route="GET /seldom"}
livegate_route_integration_errors_total{route="failing"}
livegate_route_execution_errors_total{route="broken"}
livegate_route_latency_seconds_count{route="send"}
livegate_backend_servers{backend="animals", state="healthy"}
livegate_access_log_lines_total{outcome="written"}
livegate_spans_total{outcome="exported"}
livegate_config_ok
livegate_last_reload_timestamp_seconds{outcome="ok"}
livegate_build_info
process_resident_memory_bytes
process_open_fds
process_max_fds
process_start_time_seconds
process_threads
""".split("\n")[1:-1]


def test_prometheus_scrapes_what_the_documents_list_with_the_labels_that_they_list(prometheus, busy):
    watching = prometheus(busy)
    eventually(watching.are_up, "the gateway to be up")
    missing = lambda: set(SERIES) - watching.names() - OF_CERTIFICATES
    with contextlib.suppress(AssertionError):
        eventually(lambda: not missing())
    assert missing() == set()
    strangers = {name for name in watching.names() - set(SERIES) if name.startswith(("livegate_", "process_"))}
    assert strangers == set(), "they are in no document"
    for sample in watching.query('{__name__=~"(livegate|process)_.*"}'):
        name = sample["metric"].pop("__name__")
        assert set(sample["metric"]) - OF_TARGETS == SERIES[name], name


def test_what_happened_is_what_prometheus_sees(prometheus, busy):
    watching = prometheus(busy)
    still_zero = lambda: [one for one in RAISED if not watching.value(f"sum({one})")]
    with contextlib.suppress(AssertionError):
        eventually(lambda: not still_zero())
    assert still_zero() == []


def test_several_gateways_are_told_apart(prometheus, livegate):
    one, two = livegate(), livegate()
    watching = prometheus(one, two)
    eventually(watching.are_up)
    with one.connect() as client, two.connect() as another, two.connect() as third:
        assert client.whoami() and another.whoami() and third.whoami()
        counted = lambda: {sample["metric"]["instance"]: sample["value"][1] for sample in watching.query("livegate_connections_open")}
        eventually(lambda: counted() == dict(zip(watching.targets, ["1", "2"])), "the connections of both")
    two.kill()
    eventually(lambda: ("LivegateDown", "pending") in watching.alerts())
    assert watching.health()[watching.targets[0]] == ("up", "")


def test_with_a_token_only_who_shows_it_may_scrape(prometheus, livegate):
    gateway = livegate(gateway={"admin_token": TOKEN})
    assert gateway.admin("/metrics").status == 401
    watching = prometheus(gateway, token=TOKEN)
    eventually(watching.are_up)
    assert watching.value("livegate_config_ok") == 1


def test_without_the_token_the_target_is_down_and_says_why(prometheus, livegate):
    watching = prometheus(livegate(gateway={"admin_token": TOKEN}), token="another-token-0123456789")
    errors = lambda: [error for health, error in watching.health().values() if health == "down"]
    assert "401" in eventually(errors)[0]


def test_a_reload_with_problems_is_an_alert_until_it_is_mended(prometheus, livegate):
    gateway = livegate()
    watching = prometheus(gateway)
    eventually(watching.are_up)
    gateway.reload("[apis.chat]\nprotocol = 5\n")
    eventually(lambda: ("LivegateReloadFailed", "pending") in watching.alerts())
    gateway.reload(chat())
    eventually(lambda: "LivegateReloadFailed" not in dict(watching.alerts()))


def test_slow_scrapers_hinder_nobody(livegate):
    # So many stages that a scrape is longer than what the system holds for a socket.
    gateway = livegate(stages={f"stage{number}": {} for number in range(200)})
    whole = len(gateway.admin("/metrics").body)
    assert whole > 1_000_000
    with contextlib.ExitStack() as scrapers:
        admin = ("127.0.0.1", urllib.parse.urlsplit(gateway.admin_url).port)
        slow = [scrapers.enter_context(Wire(admin, receive_buffer=2048)) for _ in range(30)]
        for wire in slow:
            wire.send(f"GET /metrics HTTP/1.1\r\nHost: {wire.host}\r\n\r\n".encode())
        for _ in range(5):
            # They read a byte each while everybody else reads everything.
            assert all(len(wire.socket.recv(1)) == 1 for wire in slow)
            assert abs(len(gateway.admin("/metrics").body) - whole) < whole / 100
            assert gateway.admin("/healthz").status == 200
        with gateway.connect("/stage7") as client:
            assert client.whoami()


# What clients send never becomes a label


def test_whoever_comes_adds_no_series(livegate, issuer, backend, dead_backend):
    gateway = livegate(everything(backend, dead_backend, issuer))
    strangers_try(gateway, issuer, 0, 5)
    before = series(gateway)
    strangers_try(gateway, issuer, 1_000, 5_000)
    assert series(gateway) - before == set()
    assert gateway.metric("livegate_client_errors_total") >= 10_000
    # Nothing that they said is in a label.
    assert "stranger" not in gateway.admin("/metrics").body.decode()


def strangers_try(gateway, issuer, first, count):
    """Paths, hosts, keys, tokens, methods, connection ids, route names and close codes that nobody else would think of."""
    numbers = range(first, first + count)
    kept = http.client.HTTPConnection(*gateway.address, timeout=PATIENCE)
    with contextlib.closing(kept):
        for number in numbers:
            kept.request("GET" if number % 2 else f"STRANGER{number}", f"/stranger{number}", headers={"Host": f"stranger{number}.example"})
            assert (answer := kept.getresponse()).status in (403, 404, 405, 501) and answer.read() is not None
            kept.request("GET", "/key", headers={"x-api-key": f"stranger-key-{number:08}", "User-Agent": f"stranger{number}"})
            assert (answer := kept.getresponse()).status == 403 and answer.read()
            kept.request("POST", f"/prod/@connections/stranger{number:07}%3D")
            assert (answer := kept.getresponse()).status in (400, 410) and answer.read() is not None
        for number in list(numbers)[:100]:
            token = issuer.token(header={"kid": f"stranger{number}"})
            kept.request("GET", "/token", headers={"Authorization": f"Bearer {token}"})
            assert (answer := kept.getresponse()).status == 401 and answer.read()
    with gateway.connect() as client:
        for number in numbers:
            assert "Forbidden" in client.asks(action=f"stranger{number}")
    for number in list(numbers)[:200]:
        assert gateway.knock(f"/stranger{number}").status in (403, 404)
        with gateway.open() as wire:
            wire.send(close_frame(3000 + number % 2000, f"stranger{number}"))
            assert wire.ended()


def series(gateway):
    """Every series of `/metrics`, without its value."""
    return {line.rpartition(" ")[0] for line in gateway.admin("/metrics").body.decode().splitlines() if not line.startswith("#")}


# Rules and dashboard


def promtool(*arguments, given=None):
    done = subprocess.run(["promtool", *map(str, arguments)], input=given, capture_output=True, text=True, timeout=6 * PATIENCE)
    return done.returncode, done.stdout + done.stderr


def test_promtool_finds_nothing_to_say_about_the_metrics(busy):
    assert promtool("check", "metrics", given=busy.admin("/metrics").body.decode()) == (0, "")


@pytest.mark.parametrize("what, file", [("config", "prometheus.yml"), ("rules", "rules.yml"), ("rules", "alerts.yml")])
def test_promtool_accepts_the_examples(what, file):
    code, said = promtool("check", what, MONITORING / file)
    assert code == 0 and "SUCCESS" in said, said


def test_alerts_fire_when_they_should():
    code, said = promtool("test", "rules", MONITORING / "alerts_test.yml")
    assert code == 0, said


def test_every_alert_is_shown_to_fire_and_to_keep_quiet():
    tests = (MONITORING / "alerts_test.yml").read_text()
    for name in alerts():
        assert re.search(rf"alertname: {name}, eval_time: \w+, exp_alerts: \[\]", tests), f"{name} is never quiet"
        assert re.search(rf"alertname: {name}\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels", tests), f"{name} never fires"


def test_every_alert_has_a_line_that_says_what_to_do():
    table = dict(re.findall(r"^\| `(Livegate\w+)` \| (\w+) \| [^|]{20,} \| [^|]{5,} \|$", (MONITORING / "README.md").read_text(), re.MULTILINE))
    assert table == alerts()


def alerts():
    """The severity of each alert of alerts.yml."""
    found = dict(re.findall(r"- alert: (\w+)\n(?:(?!      - ).*\n)*? +labels: \{ severity: (\w+) \}", (MONITORING / "alerts.yml").read_text()))
    assert len(found) > 30 and set(found.values()) == {"critical", "warning", "info"}
    return found


def test_every_rule_works_and_asks_for_what_there_is(prometheus, busy):
    watching = prometheus(busy)
    eventually(watching.are_up)
    rules = watching.rules()
    recorded = {rule["name"]: {"api", "stage", "cause"} for rule in rules if rule["type"] == "recording"}
    assert len(rules) == len(alerts()) + 9 and len(recorded) == 5
    for rule in rules:
        assert rule["health"] == "ok", rule
        assert list(mistakes_in(rule["query"], recorded)) == [], rule["query"]
        if rule["type"] == "alerting":
            assert rule["duration"] > 0 and rule["labels"]["severity"]
            assert {"summary", "description"} <= set(rule["annotations"]), rule["name"]
            by_stage = SERIES.keys() & {name for name in names_in(rule["query"]) if "stage" in SERIES.get(name, ())}
            said = rule["annotations"]["summary"] + rule["annotations"]["description"]
            assert not by_stage or "{{ $labels.api }}/{{ $labels.stage }}" in said, f"{rule['name']} says not where"
            if "{{ $labels.instance }}" not in rule["annotations"].get("dashboard", ""):
                assert rule["name"] in ("LivegateAbsent", "LivegateVersionsDiffer"), f"{rule['name']} links to no page"


def test_every_expression_of_the_dashboard_works_and_asks_for_what_there_is(prometheus, busy):
    watching = prometheus(busy)
    eventually(watching.are_up)
    for place, expression in dashboard_expressions():
        assert list(mistakes_in(expression, {})) == [], f"{place}: {expression}"
        # Parsed alone, and asked as Grafana asks it.
        assert watching.ask("format_query", query=expression)["status"] == "success", f"{place}: {expression}"
        watching.query(expression)
        now = time.time()
        ranged = watching.ask("query_range", query=expression, start=now - 60, end=now, step=15)
        assert ranged["status"] == "success", f"{place}: {ranged}"


def test_the_dashboard_shows_what_happened(prometheus, busy):
    watching = prometheus(busy)
    eventually(watching.are_up)
    # Nobody ordered a certificate; and what happened before the first scrape has no rate.
    shown = [(place, expression.replace("[1m]", "[10s]")) for place, expression in dashboard_expressions()
             if not place.startswith("Certificate") and " > 0" not in expression]
    empty = lambda: [(place, expression) for place, expression in shown if not watching.query(expression)]
    with contextlib.suppress(AssertionError):
        eventually(lambda: not empty())
    assert empty() == []


def test_the_dashboard_asks_for_every_metric():
    asked = set().union(*(names_in(expression) for _, expression in dashboard_expressions()))
    assert [metric.name for metric in METRICS if not asked & set(metric.series)] == []


def test_the_dashboard_is_one_that_grafana_takes():
    assert DASHBOARD["uid"] and DASHBOARD["title"] == "Livegate" and DASHBOARD["refresh"] == "10s"
    assert "__inputs" not in DASHBOARD and "id" not in DASHBOARD
    assert [(one["type"], one["name"]) for one in VARIABLES] == [
        ("datasource", "datasource"), ("query", "job"), ("query", "instance"), ("query", "api"), ("query", "stage")]
    assert all(one["label"] and one["description"] for one in VARIABLES)
    for row in ("Overview", "Latency", "Errors by cause", "WebSocket", "Pushes", "HTTP", "Backends", "Admission", "Process", "Telemetry itself"):
        assert row in ROWS
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        fields = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not fields & taken and max(x for x, _ in fields) < 24, panel["title"]
        taken |= fields


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_a_panel_has_a_unit_a_description_and_legends(panel):
    assert panel["fieldConfig"]["defaults"]["unit"] and panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    refs = [target["refId"] for target in panel["targets"]]
    assert refs and len(set(refs)) == len(refs)
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] and target["legendFormat"], target
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", target["expr"])))) - {"le"}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"le"} <= grouped, "the legend names what is added up"
        assert 'job=~"$job", instance=~"$instance"' in target["expr"], "a panel shows the gateways that were chosen"


# The script


@pytest.fixture
def running(processes, tmp_path):
    """Starts `run` for a gateway."""
    def start(gateway, **environment):
        environment = {"ADMIN": urllib.parse.urlsplit(gateway.admin_url).netloc, "PORT": str(free_port()),
                       "XDG_CACHE_HOME": str(tmp_path / "cache"), **environment}
        faster(tmp_path / "monitoring")
        return processes(Livegate, AT_ONCE, command=(str(tmp_path / "monitoring" / "run"),), cwd=tmp_path, logs=tmp_path / "run.log", env=environment)
    return start


def scrapes(url, gateway):
    """Whether that Prometheus has this gateway, and it alone, for a target, and reaches it."""
    with contextlib.suppress(ConnectionError, json.JSONDecodeError):
        targets = http_request(url, "GET", "/api/v1/targets").json["data"]["activeTargets"]
        return [(target["scrapeUrl"], target["health"]) for target in targets] == [(gateway.admin_url + "/metrics", "up")]


def test_run_starts_a_prometheus_that_scrapes(running, livegate):
    gateway = livegate()
    run = running(gateway)
    url = run.url_after("Prometheus on")
    assert url.startswith("http://127.0.0.1:")
    eventually(lambda: scrapes(url, gateway), "the gateway to be scraped")
    rules = [rule["name"] for group in http_request(url, "GET", "/api/v1/rules").json["data"]["groups"] for rule in group["rules"]]
    assert set(alerts()) < set(rules)
    assert run.terminate() == 0


def test_run_shows_the_token_of_a_file(running, livegate, tmp_path):
    gateway = livegate(gateway={"admin_token": TOKEN})
    (tmp_path / "token").write_text(TOKEN + "\n")
    url = running(gateway, TOKEN_FILE="token").url_after("Prometheus on")
    eventually(lambda: scrapes(url, gateway), "the gateway to be scraped")
