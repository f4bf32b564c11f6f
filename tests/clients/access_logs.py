"""Access logs: every `$context` variable for every kind of call, lines that nobody can break, and destinations that fail,
hang, are moved away or not there (contract/websocket.md section 8, contract/http-api.md section 11)."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import threading
import time

import pytest

from authorizers import DENY, policy, statement
from backend import PATIENCE, Answer
from certificates import Authority, SecureGateway
from http_apis import ask, http_api, pets, proxy, refused, says
from http_peers import http_2
from issuers import an_issuer
from signing import BACKEND, KEY_ID, SECRET, management, signed
from throttles import bucket
from tls import DN, NAMES, WRITTEN_DN, with_tls
from usage import ACME, keys
from wire import close_frame
from world import ID, chat, eventually, mock, to, two_way

# What the contract lists for each kind of API, and what ours fill in besides.
EVERYWHERE = """
    apiId authenticate.error authenticate.latency authenticate.status authorize.error authorize.latency authorize.status
    authorizer.error authorizer.integrationLatency authorizer.integrationStatus authorizer.latency authorizer.principalId
    authorizer.requestId authorizer.status authorizer.tenant authorizer.claims authorizer.claims.sub domainName
    error.message error.messageString error.responseType extendedRequestId identity.accountId identity.apiKey
    identity.apiKeyId identity.caller identity.cognitoAuthenticationProvider identity.cognitoAuthenticationType
    identity.cognitoIdentityId identity.cognitoIdentityPoolId identity.principalOrgId identity.sourceIp identity.user
    identity.userAgent identity.userArn integration.error integration.integrationStatus integration.latency
    integration.requestId integration.status integrationLatency requestId requestTime requestTimeEpoch responseLatency
    responseLength dataProcessed routeKey stage status
""".split()
SOCKETS = EVERYWHERE + """
    connectedAt connectionId disconnectReason disconnectStatusCode error.validationErrorString eventType messageDirection
    messageId waf.error waf.latency waf.status
""".split()
REQUESTS = EVERYWHERE + """
    accountId awsEndpointRequestId awsEndpointRequestId2 customDomain.basePathMatched domainPrefix httpMethod
    identity.clientCert.clientCertPem identity.clientCert.issuerDN identity.clientCert.serialNumber
    identity.clientCert.subjectDN identity.clientCert.validity.notAfter identity.clientCert.validity.notBefore
    integrationErrorMessage integrationStatus path protocol
""".split()
AGENT = ("User-Agent", "mine/1 (test)")
LINES = "livegate_access_log_lines_total"


# A log that says everything


def everything(names, **stage):
    """A stage whose log is these variables with tabs between them, which no value can hold."""
    log = {"format": "\t".join(f"$context.{name}" for name in names), "destination": "file:access.log"}
    return {"access_log": log, **stage}


def plain(text):
    """A value as it was before it was escaped."""
    meant = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
    found = re.sub(rb'\\(x[0-9a-f]{2}|.)', lambda found: bytes.fromhex(found[1][1:].decode()) if found[1][:1] == b"x"
                   else meant.get(found[1], found[1]), text.encode())
    return found.decode()


class Log:
    """The lines of a log, as soon as they are there."""

    def __init__(self, gateway, names=None, name="access.log"):
        self.path, self._names, self._seen = gateway.folder / name, names, 0

    def text(self):
        return self.path.read_bytes().decode()

    def lines(self):
        whole = self.text().rpartition("\n")[0]
        # No other end of a line: `splitlines` would find some in a value.
        return whole.split("\n") if whole else []

    def wait(self, count):
        return eventually(lambda: len(self.lines()) >= count and self.lines(), f"{count} lines")

    def read(self, line):
        if self._names is None:
            return json.loads(line)
        values = line.split("\t")
        assert len(values) == len(self._names), line
        return dict(zip(self._names, map(plain, values)))

    def next(self):
        """The next line."""
        line = self.wait(self._seen + 1)[self._seen]
        self._seen += 1
        return self.read(line)

    def all(self, count):
        return [self.read(line) for line in self.wait(count)]


def is_line(line, **expected):
    """The line holds this and, for everything else, a dash; `…` is any number that makes sense."""
    expected = {name: str(value) for name, value in expected.items()}
    assert re.fullmatch(ID, line["requestId"]) and line["extendedRequestId"] == line["requestId"]
    epoch = int(line["requestTimeEpoch"])
    assert abs(epoch / 1000 - time.time()) < 60
    assert line["requestTime"] == time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(epoch // 1000))
    assert 0 <= int(line["responseLatency"]) < PATIENCE * 1000
    left = dict(line)
    for name in ("requestId", "extendedRequestId", "requestTime", "requestTimeEpoch", "responseLatency"):
        left.pop(name)
    found = {name: "…" if expected.get(name) == "…" and value.isdigit() else value for name, value in left.items()}
    assert found == {**dict.fromkeys(left, "-"), **expected}
    return True


def of_socket(gateway, event, route_key, connection_id, **more):
    """What every line of a connection holds."""
    return {"apiId": "chat", "stage": "prod", "domainName": gateway.host, "identity.sourceIp": "127.0.0.1",
            "identity.userAgent": AGENT[1], "eventType": event, "routeKey": route_key, "messageDirection": "IN",
            "connectionId": connection_id, "connectedAt": "…", "status": 200, "responseLength": 0, "dataProcessed": 0,
            **more}


def of_request(gateway, method, path, route_key, **more):
    """What every line of a request holds."""
    return {"apiId": "pets", "stage": "$default", "domainName": gateway.host, "accountId": "…",
            "domainPrefix": gateway.host.split(".")[0], "identity.sourceIp": "127.0.0.1",
            "identity.userAgent": AGENT[1], "httpMethod": method, "path": path, "protocol": "HTTP/1.1",
            "routeKey": route_key, "status": 200, "responseLength": 0, "dataProcessed": 0, **more}


def of_integration(status=200):
    """What a backend's answer adds."""
    return {"integration.status": status, "integration.integrationStatus": status, "integration.latency": "…",
            "integrationLatency": "…"}


def of_authorizer(status=200, authenticate=200, authorize=200):
    """What an authorizer adds."""
    found = {"authorizer.latency": "…", "authorizer.integrationLatency": "…", "authenticate.latency": "…"}
    found |= {"authorizer.status": status, "authorizer.integrationStatus": status, "authenticate.status": authenticate}
    return found | ({} if authorize is None else {"authorize.status": authorize, "authorize.latency": "…"})


def of_error(status, message, kind):
    """What a refusal adds."""
    return {"status": status, "error.message": message, "error.messageString": f'"{message}"', "error.responseType": kind}


@pytest.fixture
def sockets(livegate):
    """A WebSocket API whose log says everything."""
    def serve(**parts):
        stage = everything(SOCKETS, **parts.pop("stage", {}))
        gateway = livegate(stage=stage, **parts)
        gateway.log = Log(gateway, SOCKETS)
        return gateway
    return serve


@pytest.fixture
def requests(livegate):
    """An HTTP API whose log says everything."""
    def serve(routes, **parts):
        stage = everything(REQUESTS, **parts.pop("stage", {}))
        gateway = livegate(http_api(routes, stage=stage, **parts))
        gateway.log = Log(gateway, REQUESTS)
        return gateway
    return serve


def enters(gateway, **settings):
    """An open socket, its id, and the line of its handshake."""
    client = gateway.connect(user_agent_header=AGENT[1], **settings)
    line = gateway.log.next()
    return client, line["connectionId"], line


# Connections


def test_a_connect_without_a_route(sockets):
    gateway = sockets()
    client, mine, line = enters(gateway)
    with client:
        assert client.whoami() == mine
    assert is_line(line, **of_socket(gateway, "CONNECT", "$connect", mine))


def test_a_connect_that_a_backend_lets_in(sockets, backend):
    gateway = sockets(routes={"$connect": backend.at("/connect")})
    client, mine, line = enters(gateway)
    with client:
        told = backend.next("/connect")
        assert (told.connection_id, told.request_id) == (mine, line["requestId"])
    assert is_line(line, **of_socket(gateway, "CONNECT", "$connect", mine), **of_integration())


def test_a_connect_that_a_backend_refuses(sockets, backend):
    gateway = sockets(routes={"$connect": backend.at("/connect")})
    backend.answer("/connect", 418, "no")
    assert gateway.knock(headers=[AGENT]).status == 418
    line, told = gateway.log.next(), backend.next("/connect")
    assert is_line(line, **of_socket(gateway, "CONNECT", "$connect", told.connection_id, status=418), **of_integration(418))


def test_a_connect_whose_backend_is_dead(sockets, dead_backend):
    gateway = sockets(routes={"$connect": dead_backend.at("/connect")})
    status = gateway.knock(headers=[AGENT]).status
    line = gateway.log.next()
    mine, why = line["connectionId"], line["integration.error"]
    assert re.fullmatch(ID, mine) and "refused" in why
    expected = of_error(status, "Internal server error", "API_CONFIGURATION_ERROR")
    expected |= {"integration.error": why, "integration.latency": "…", "integrationLatency": "…"}
    assert is_line(line, **{**of_socket(gateway, "CONNECT", "$connect", mine), **expected})


def test_a_client_without_a_user_agent(sockets):
    gateway = sockets()
    assert gateway.knock().status == 101
    line = gateway.log.next()
    assert is_line(line, **{**of_socket(gateway, "CONNECT", "$connect", line["connectionId"]), "identity.userAgent": "-"})


def test_a_message_and_its_reply(sockets, backend):
    backend.answer("/echo", 201, "four")
    gateway = sockets(routes={"echo": two_way(backend.at("/echo"))})
    client, mine, _ = enters(gateway)
    with client:
        assert client.asks(action="echo") == "four"
        line, told = gateway.log.next(), backend.next("/echo")
    assert told.request_id == line["requestId"] and re.fullmatch(ID, line["messageId"])
    expected = of_socket(gateway, "MESSAGE", "echo", mine, status=201, messageId=line["messageId"], responseLength=4,
                         dataProcessed=len('{"action":"echo"}') + 4)
    assert is_line(line, **expected, **of_integration(201))


def test_a_message_whose_answer_is_not_for_the_client(sockets, backend):
    backend.answer("/tell", 200, "kept")
    gateway = sockets(routes={"tell": backend.at("/tell")})
    client, mine, _ = enters(gateway)
    with client:
        client.says(action="tell")
        line = gateway.log.next()
    expected = of_socket(gateway, "MESSAGE", "tell", mine, messageId=line["messageId"],
                         dataProcessed=len('{"action":"tell"}'))
    assert is_line(line, **expected, **of_integration())


def test_a_message_to_a_mock_has_no_integration(sockets):
    gateway = sockets()
    client, mine, _ = enters(gateway)
    with client:
        client.whoami()
        line = gateway.log.next()
    asked = '{"action":"whoami"}'
    assert is_line(line, **of_socket(gateway, "MESSAGE", "whoami", mine, messageId=line["messageId"],
                                     responseLength=len(mine), dataProcessed=len(asked) + len(mine)))


def test_a_message_that_no_route_is_for(sockets):
    gateway = sockets()
    client, mine, _ = enters(gateway)
    with client:
        told = client.asks(action="nothing")
        line = gateway.log.next()
    assert json.loads(told)["requestId"] == line["requestId"]
    sizes = {"responseLength": "…", "dataProcessed": "…"}
    expected = of_socket(gateway, "MESSAGE", "-", mine, messageId=line["messageId"])
    assert is_line(line, **{**expected, **of_error(403, "Forbidden", "ACCESS_DENIED"), **sizes})


def fails(gateway, client, mine, **expected):
    """The line of a message that failed; what the client was told counts as sent."""
    line = gateway.log.next()
    expected |= {"responseLength": "…", "dataProcessed": "…", "messageId": line["messageId"]}
    assert is_line(line, **{**of_socket(gateway, "MESSAGE", "send", mine), **expected})
    return line


def test_a_message_whose_backend_answers_with_an_error(sockets, backend):
    backend.answer("/send", 503, "busy")
    gateway = sockets(routes={"send": two_way(backend.at("/send"))})
    client, mine, _ = enters(gateway)
    with client:
        client.asks(action="send")
        fails(gateway, client, mine, status=503, **of_integration(503))


@pytest.mark.parametrize("what, status, message, kind", [
    ("is dead", 500, "Internal server error", "API_CONFIGURATION_ERROR"),
    ("hangs up", 500, "Internal server error", "API_CONFIGURATION_ERROR"),
    ("answers nonsense", 502, "Internal server error", "INTEGRATION_FAILURE"),
    ("is slow", 504, "Endpoint request timed out", "INTEGRATION_TIMEOUT"),
])
def test_a_message_whose_backend_does_not_answer(sockets, backend, dead_backend, what, status, message, kind):
    nonsense = what == "answers nonsense"
    backend.answer("/send", body='{"statusCode":9999}', raw=None if nonsense else b"")
    uri = dead_backend.at("/send") if what == "is dead" else backend.at("/send")
    gateway = sockets(routes={"send": two_way(uri, timeout="250ms", **({"payload": "event"} if nonsense else {}))})
    client, mine, _ = enters(gateway)
    with client, backend.holding("/send") if what == "is slow" else contextlib.nullcontext():
        client.asks(action="send")
        line = gateway.log.wait(2)[1]
        why = gateway.log.read(line)["integration.error"]
        assert len(why) > 5
        fails(gateway, client, mine, **{**of_error(status, message, kind), "integration.error": why,
                                        "integration.latency": "…", "integrationLatency": "…"})


def test_a_throttled_message(sockets, backend):
    gateway = sockets(routes={"send": {**two_way(backend.at("/send")), "throttle": bucket(1)}})
    client, mine, _ = enters(gateway)
    with client:
        client.says(action="send")
        gateway.log.next()
        client.asks(action="send")
        fails(gateway, client, mine, **of_error(429, "Too Many Requests", "THROTTLED"))


def test_a_disconnect_of_the_client(sockets, backend):
    gateway = sockets(routes={"$disconnect": backend.at("/disconnect")})
    backend.answer("/disconnect", 204)
    client, mine, _ = enters(gateway)
    with client:
        client.close(4001, "good bye")
    line, told = gateway.log.next(), backend.next("/disconnect")
    assert told.request_id == line["requestId"]
    expected = of_socket(gateway, "DISCONNECT", "$disconnect", mine, status=204, disconnectStatusCode=4001,
                         disconnectReason="good bye")
    assert is_line(line, **expected, **of_integration(204))


def test_a_disconnect_without_a_route_or_a_close_frame(sockets):
    gateway = sockets()
    with gateway.open(headers=[AGENT]) as wire:
        mine = gateway.log.next()["connectionId"]
        wire.reset()
    line = gateway.log.next()
    expected = of_socket(gateway, "DISCONNECT", "$disconnect", mine, disconnectStatusCode=1006)
    assert is_line(line, **{**expected, "disconnectReason": line["disconnectReason"]})


def test_a_disconnect_that_the_gateway_decided(sockets):
    gateway = sockets(stage={"idle_timeout": "1s"})
    client, mine, _ = enters(gateway)
    with client:
        assert client.closed() == (1001, "Going away")
    line = gateway.log.next()
    assert is_line(line, **of_socket(gateway, "DISCONNECT", "$disconnect", mine, disconnectStatusCode=1001,
                                     disconnectReason="Going away"))


def test_a_disconnect_that_its_backend_never_took(sockets, backend):
    gateway = sockets(routes={"$disconnect": backend.at("/disconnect")}, stage={"disconnect_retry": "1s"})
    backend.answer("/disconnect", 500)
    client, mine, _ = enters(gateway)
    client.close()
    line = gateway.log.next()
    assert len(backend.seen("/disconnect")) > 1
    # One line for all its tries.
    assert (line["eventType"], line["connectionId"], line["disconnectStatusCode"]) == ("DISCONNECT", mine, "1000")
    assert int(line["status"]) >= 500 and line["error.message"] != "-"
    assert len(gateway.log.lines()) == 2


# Pushes


def of_push(gateway, method, connection_id, is_there=True, **more):
    found = of_socket(gateway, "PUSH", f"{method} @connections", connection_id, messageDirection="OUT")
    return {**found, **({} if is_there else {"connectedAt": "-"}), **more}


def calls(gateway, method, connection_id, body=b"", headers=()):
    target = "/prod/@connections/" + connection_id.replace("=", "%3D")
    return ask(gateway, method, target, [AGENT, *headers], body)


def test_a_push(sockets):
    gateway = sockets()
    client, mine, _ = enters(gateway)
    with client:
        answer = calls(gateway, "POST", mine, "hello")
        assert (answer.status, client.hears()) == (200, "hello")
        line = gateway.log.next()
    assert answer.header("x-amzn-RequestId") == line["requestId"]
    assert is_line(line, **of_push(gateway, "POST", mine, dataProcessed=5))


def test_a_look_at_a_connection_and_its_deletion(sockets):
    gateway = sockets()
    client, mine, _ = enters(gateway)
    with client:
        answer = calls(gateway, "GET", mine)
        line = gateway.log.next()
        sizes = {"responseLength": line["responseLength"], "dataProcessed": line["dataProcessed"]}
        assert answer.status == 200 and is_line(line, **of_push(gateway, "GET", mine, **sizes))
        assert calls(gateway, "DELETE", mine).status == 204
        ends = [gateway.log.next(), gateway.log.next()]
    ends.sort(key=lambda line: line["eventType"])
    assert [line["eventType"] for line in ends] == ["DISCONNECT", "PUSH"]
    assert is_line(ends[1], **of_push(gateway, "DELETE", mine, status=204))


def test_a_push_to_nobody(sockets):
    gateway = sockets()
    gone = "AAAAAAAAAAAAAAA="
    assert calls(gateway, "POST", gone, "hello").status == 410
    line = gateway.log.next()
    assert (line["status"], line["connectionId"], line["connectedAt"]) == ("410", gone, "-")
    assert (line["eventType"], line["routeKey"]) == ("PUSH", "POST @connections")
    assert line["error.responseType"] != "-"


def test_a_push_to_what_is_no_id(sockets):
    gateway = sockets()
    assert calls(gateway, "POST", "no-id", "hello").status == 400
    line = gateway.log.next()
    assert (line["status"], line["connectionId"], line["connectedAt"]) == ("400", "no-id", "-")
    assert line["error.message"] == "Invalid connectionId: no-id"


def test_a_signed_push_and_an_unsigned_one(sockets):
    gateway = sockets(credentials=BACKEND, connections_api={"authorization": "aws_iam"},
                      gateway={"account_id": "123456789012"})
    client, mine, _ = enters(gateway)
    with client:
        management(f"{gateway.http_url}/prod").post_to_connection(ConnectionId=mine, Data=b"hello")
        assert client.hears() == "hello"
        line = gateway.log.next()
        who = {"identity.caller": "backend", "identity.user": "backend", "identity.accountId": "123456789012",
               "identity.userArn": "arn:aws:iam::123456789012:user/backend"}
        agent = line["identity.userAgent"]
        assert agent.startswith("Boto3/")
        assert is_line(line, **{**of_push(gateway, "POST", mine, dataProcessed=5), **who, "identity.userAgent": agent})
        assert calls(gateway, "POST", mine, "hello").status == 403
        line = gateway.log.next()
    assert (line["status"], line["connectionId"], line["identity.caller"]) == ("403", mine, "-")
    assert line["error.message"] != "-"
    # Whoever may not push learns nothing of a connection, and no more does the log.
    assert line["connectedAt"] == "-"


def test_a_throttled_push(sockets):
    gateway = sockets(connections_api={"authorization": "none", "throttle": bucket(1)})
    client, mine, _ = enters(gateway)
    with client:
        assert [calls(gateway, "POST", mine, "x").status for _ in range(2)] == [200, 429]
        gateway.log.next()
        assert (gateway.log.next())["error.responseType"] == "THROTTLED"


# Requests


def test_a_request_and_its_answer(requests, backend):
    backend.answer("/pets", 201, "four")
    gateway = requests({"POST /pets/{id}": proxy(backend.at("/pets"))})
    answer = ask(gateway, "POST", "/pets/a%20b?tag=1", [AGENT], "hello")
    line = gateway.log.next()
    assert (answer.status, answer.header("apigw-requestid")) == (201, line["requestId"])
    expected = of_request(gateway, "POST", "/pets/a%20b", "POST /pets/{id}", status=201, responseLength=4, dataProcessed=9)
    assert is_line(line, **expected, **of_integration(201), integrationStatus=201)


def test_a_request_to_a_mock_without_a_user_agent(requests):
    gateway = requests({"GET /pets": says("two dogs")})
    ask(gateway, "GET", "/pets")
    expected = of_request(gateway, "GET", "/pets", "GET /pets", responseLength=8, dataProcessed=8)
    assert is_line(gateway.log.next(), **{**expected, "identity.userAgent": "-"})


def test_a_request_that_no_route_is_for(requests):
    gateway = requests({"GET /pets": says()})
    answer = ask(gateway, "GET", "/none", [AGENT])
    line = gateway.log.next()
    sizes = {"responseLength": len(answer.body), "dataProcessed": len(answer.body)}
    expected = {**of_request(gateway, "GET", "/none", "-"), **of_error(404, "Not Found", "MISSING_ROUTE"), **sizes}
    assert is_line(line, **expected)


def test_a_throttled_request(requests):
    gateway = requests({"GET /pets": {**says(), "throttle": bucket(1)}})
    answers = [ask(gateway, "GET", "/pets", [AGENT]) for _ in range(2)]
    gateway.log.next()
    line = gateway.log.next()
    sizes = {"responseLength": len(answers[1].body), "dataProcessed": len(answers[1].body)}
    expected = of_request(gateway, "GET", "/pets", "GET /pets")
    assert is_line(line, **{**expected, **of_error(429, "Too Many Requests", "THROTTLED"), **sizes})


@pytest.mark.parametrize("what, kind", [
    ("is dead", "API_CONFIGURATION_ERROR"), ("hangs up", "API_CONFIGURATION_ERROR"),
    ("answers nonsense", "INTEGRATION_FAILURE"), ("is slow", "INTEGRATION_TIMEOUT"),
])
def test_a_request_whose_backend_does_not_answer(requests, backend, dead_backend, what, kind):
    nonsense = what == "answers nonsense"
    backend.answer("/pets", body='{"statusCode":9999}', raw=None if nonsense else b"")
    uri = dead_backend.at("/pets") if what == "is dead" else backend.at("/pets")
    gateway = requests({"GET /pets": proxy(uri, timeout="250ms", **({"payload": "event"} if nonsense else {}))})
    with backend.holding("/pets") if what == "is slow" else contextlib.nullcontext():
        answer = ask(gateway, "GET", "/pets", [AGENT])
    line = gateway.log.next()
    why = line["integration.error"]
    assert len(why) > 5 and line["integrationErrorMessage"] == why
    sizes = {"responseLength": len(answer.body), "dataProcessed": len(answer.body)}
    expected = {**of_request(gateway, "GET", "/pets", "GET /pets"), **of_error(answer.status, line["error.message"], kind)}
    assert is_line(line, **{**expected, **sizes, "integration.error": why, "integrationErrorMessage": why,
                            "integration.latency": "…", "integrationLatency": "…"})


def test_a_request_under_a_base_path(requests):
    gateway = requests({"GET /pets": says("x")}, api={"base_path": "/shop"})
    ask(gateway, "GET", "/shop/pets", [AGENT])
    line = gateway.log.next()
    assert (line["customDomain.basePathMatched"], line["status"]) == ("shop", "200")


def test_a_request_over_http_2_has_the_protocol_that_aws_shows(requests):
    gateway = requests({"GET /pets": says("x")})
    with http_2(gateway) as client:
        client.answered(client.asks("GET", "/pets", [("user-agent", AGENT[1])]))
    expected = of_request(gateway, "GET", "/pets", "GET /pets", responseLength=1, dataProcessed=1)
    assert is_line(gateway.log.next(), **expected)


def test_an_answer_that_flows_is_counted_to_its_end(requests, backend):
    backend.answer("/pets", body=b"x" * 300_000, chunked=True)
    gateway = requests({"GET /pets": proxy(backend.at("/pets"))})
    ask(gateway, "GET", "/pets", [AGENT])
    line = gateway.log.next()
    assert (line["responseLength"], line["dataProcessed"]) == ("300000", "300000")


def test_a_client_that_leaves_before_its_answer(requests, backend):
    gateway = requests({"GET /pets": proxy(backend.at("/pets"))})
    with backend.holding("/pets"):
        with gateway.wire() as wire:
            wire.send(f"GET /pets HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n".encode())
            backend.next("/pets")
        line = gateway.log.next()
    assert (line["status"], line["routeKey"], line["responseLength"]) == ("499", "GET /pets", "0")
    routes = [route for api in gateway.admin("/api/routes").json["apis"] for stage in api["stages"] for route in stage["routes"]]
    [pets] = [route for route in routes if route["key"] == "GET /pets"]
    # Nobody knows what the backend would have answered.
    assert (pets["calls"], pets["integration_errors"], pets["execution_errors"]) == (1, 0, 0)


def test_a_clients_certificate(processes, tmp_path):
    authority = Authority(tmp_path / "authority")
    ann = authority.issue(subject=DN)
    stage = everything(REQUESTS)
    text = chat(gateway=with_tls(authority.issue(*NAMES), tls={"client_ca": authority.file}),
                apis={"pets": pets({"GET /pets": says("x")}, {"$default": stage}, base_path="/shop")})
    gateway = processes(SecureGateway, text, processes.folder(), authority=authority, client=ann)
    assert gateway.request("GET", "/shop/pets").status == 200
    line = Log(gateway, REQUESTS).next()
    about = {name.removeprefix("identity.clientCert."): value for name, value in line.items() if "clientCert" in name}
    assert about["clientCertPem"].startswith("-----BEGIN CERTIFICATE-----\n") and about["subjectDN"] == WRITTEN_DN
    assert about["issuerDN"].startswith("CN=Test CA ")
    assert int(about["serialNumber"].replace(":", ""), 16) == ann.serial
    assert re.fullmatch(r"\w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} GMT", about["validity.notBefore"])
    assert re.fullmatch(r"\w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} GMT", about["validity.notAfter"])


# Who it is, and whether it may


class OfSockets:
    """Callers of a WebSocket API, by their handshakes."""

    def __init__(self, sockets, backend):
        self._serve, self._backend = sockets, backend

    def gateway(self, route, **parts):
        return self._serve(routes={"$connect": {**to(self._backend.at("/in")), **route}}, **parts)

    def line(self, gateway, *headers):
        gateway.knock(headers=[AGENT, *headers])
        while (line := gateway.log.next())["eventType"] == "DISCONNECT":
            # Of the caller before.
            pass
        return line, of_socket(gateway, "CONNECT", "$connect", line["connectionId"])


class OfRequests:
    """Callers of an HTTP API."""

    def __init__(self, requests, backend):
        self._serve, self._backend = requests, backend

    def gateway(self, route, **parts):
        return self._serve({"GET /pets": {**proxy(self._backend.at("/in")), **route}}, **parts)

    def line(self, gateway, *headers):
        ask(gateway, "GET", "/pets", [AGENT, *headers])
        line = gateway.log.next()
        sizes = {name: line[name] for name in ("responseLength", "dataProcessed")}
        status = {"integrationStatus": 200} if line["status"] == "200" else {}
        return line, {**of_request(gateway, "GET", "/pets", "GET /pets"), **sizes, **status}


@pytest.fixture(params=[OfSockets, OfRequests])
def door(request, backend):
    kind = "sockets" if request.param is OfSockets else "requests"
    return request.param(request.getfixturevalue(kind), backend)


@pytest.fixture
def issuer():
    with an_issuer() as issuer:
        yield issuer


def bearer(token):
    return "Authorization", f"Bearer {token}"


def test_a_caller_with_a_token(door, issuer):
    gateway = door.gateway({"authorizer": "tokens"}, authorizers={"tokens": issuer.authorizer()})
    line, expected = door.line(gateway, bearer(issuer.token(tenant="acme")))
    who = {"authorizer.principalId": "ann", "authorizer.claims.sub": "ann", "authorizer.claims": "null",
           "authorizer.tenant": "acme"}
    assert is_line(line, **{**expected, **of_integration(), **of_authorizer(), **who})


def test_a_caller_whose_token_is_not_believed(door, issuer):
    gateway = door.gateway({"authorizer": "tokens"}, authorizers={"tokens": issuer.authorizer()})
    line, expected = door.line(gateway, bearer(issuer.token(exp=1)))
    why = line["authorizer.error"]
    assert len(why) > 5 and line["authenticate.error"] == why
    told = {**of_error(401, "Unauthorized", "UNAUTHORIZED"), "authorizer.error": why, "authenticate.error": why}
    assert is_line(line, **{**expected, **of_authorizer(401, 401, None), **told})


def test_a_caller_whose_token_lacks_the_scope(door, issuer):
    gateway = door.gateway({"authorizer": "tokens", "authorization_scopes": ["write"]},
                           authorizers={"tokens": issuer.authorizer()})
    line, _ = door.line(gateway, bearer(issuer.token(scope="read")))
    assert (line["status"], line["authenticate.status"], line["authorize.status"]) == ("403", "200", "403")
    assert len(line["authorize.error"]) > 5 and line["authenticate.error"] == "-"


def test_a_caller_that_an_authorizer_knows(door, backend):
    backend.answer("/authorize", 200, policy(statement(), context={"tenant": "acme"}))
    gateway = door.gateway({"authorizer": "mine"}, authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    line, expected = door.line(gateway)
    who = {"authorizer.principalId": "user-42", "authorizer.tenant": "acme"}
    assert is_line(line, **{**expected, **of_integration(), **of_authorizer(), **who})


def test_a_caller_that_an_authorizer_denies(door, backend):
    backend.answer("/authorize", 200, DENY)
    gateway = door.gateway({"authorizer": "mine"}, authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    line, expected = door.line(gateway)
    why = line["authorizer.error"]
    assert len(why) > 5 and line["authorize.error"] == why and line["error.message"] != "-"
    told = {**of_error(403, line["error.message"], "ACCESS_DENIED"), "authorizer.error": why, "authorize.error": why}
    assert is_line(line, **{**expected, **of_authorizer(200, 200, 403), **told})


def test_a_caller_whose_authorizer_fails(door, backend):
    backend.answer("/authorize", 500, "broken")
    gateway = door.gateway({"authorizer": "mine"}, authorizers={"mine": {"type": "http", "uri": backend.at("/authorize")}})
    line, _ = door.line(gateway)
    assert (line["status"], line["error.responseType"]) == ("500", "AUTHORIZER_FAILURE")
    assert line["authorizer.integrationStatus"] == line["authorizer.status"] == "500"
    assert len(line["authorizer.error"]) > 5 and line["authorize.status"] == "500"
    assert line["integration.status"] == line["integrationLatency"] == "-"


def test_a_caller_whose_authorizer_is_dead(door, dead_backend):
    uri = dead_backend.at("/authorize")
    gateway = door.gateway({"authorizer": "mine"}, authorizers={"mine": {"type": "http", "uri": uri}})
    line, _ = door.line(gateway)
    assert (line["status"], line["error.responseType"]) == ("500", "AUTHORIZER_FAILURE")
    # Nothing was answered: this is what the gateway made of it.
    assert line["authorizer.integrationStatus"] == line["authorizer.status"] == "500"
    assert line["authorizer.latency"].isdigit() and len(line["authorizer.error"]) > 5


def test_a_caller_who_signs(door):
    caller = {"access_key_id": KEY_ID, "secret_access_key": SECRET,
              "allow": ["execute-api:Invoke chat/*", "execute-api:Invoke pets/*"]}
    gateway = door.gateway({"authorizer": "aws_iam"}, credentials={"ann": caller}, gateway={"account_id": "123456789012"})
    path = "/prod" if isinstance(door, OfSockets) else "/pets"
    line, _ = door.line(gateway, *signed("GET", gateway.http_url + path).items())
    assert {name: value for name, value in line.items() if name.startswith("identity.") and value != "-"} == {
        "identity.accountId": "123456789012", "identity.caller": "ann", "identity.user": "ann",
        "identity.userArn": "arn:aws:iam::123456789012:user/ann", "identity.sourceIp": "127.0.0.1",
        "identity.userAgent": AGENT[1]}
    line, _ = door.line(gateway)
    assert (line["status"], line["identity.caller"]) == ("403", "-")


def test_a_caller_with_an_api_key(door):
    gateway = door.gateway({"api_key_required": True}, usage_plans={"gold": {}}, api_keys=keys("acme"))
    line, expected = door.line(gateway, ("x-api-key", ACME))
    assert is_line(line, **{**expected, **of_integration(), "identity.apiKey": ACME, "identity.apiKeyId": "acme"})
    line, _ = door.line(gateway)
    assert (line["status"], line["error.responseType"], line["identity.apiKeyId"]) == ("403", "INVALID_API_KEY", "-")


def test_who_it_is_stays_with_the_connection(sockets, issuer, backend):
    gateway = sockets(routes={"$connect": {**to(backend.at("/in")), "authorizer": "tokens"}},
                      authorizers={"tokens": issuer.authorizer()})
    client, mine, _ = enters(gateway, headers=[bearer(issuer.token())])
    with client:
        client.whoami()
        message = gateway.log.next()
    disconnect = gateway.log.next()
    for line in (message, disconnect):
        assert line["authorizer.principalId"] == line["authorizer.claims.sub"] == "ann"
        # It was asked for the handshake.
        assert line["authorizer.status"] == line["authenticate.status"] == line["authorize.status"] == "-"


# Formats


CLF = r'(\S+) (\S+) (\S+) \[([^\]]+)\] "([^"]*)" (\d{3}) (\d+|-) (\S+)'


def test_the_format_json(livegate, backend):
    log = {"access_log": {"destination": "file:access.log"}}
    gateway = livegate(routes={"$connect": backend.at("/connect")}, stage=log,
                       apis={"pets": pets({"GET /pets": says("x")}, {"$default": log}, base_path="/shop")})
    with gateway.connect() as client:
        mine = client.whoami()
        gateway.push(mine, "x")
    gateway.request("GET", "/shop/pets")
    gateway.request("GET", "/shop/none")
    lines = {line.get("eventType") or line["routeKey"]: line for line in Log(gateway).all(6)}
    assert set(lines) == {"CONNECT", "MESSAGE", "PUSH", "DISCONNECT", "GET /pets", "-"}
    for line in lines.values():
        assert re.fullmatch(ID, line["requestId"]) and line["ip"] == "127.0.0.1" and line["user"] == "-"
    assert lines["MESSAGE"]["connectionId"] == lines["PUSH"]["connectionId"] == mine
    assert lines["GET /pets"]["path"] == "/pets"
    assert (lines["-"]["status"], lines["-"]["error"]) == ("404", "Not Found")


def test_the_format_clf(livegate):
    log = {"access_log": {"format": "clf", "destination": "file:access.log"}}
    gateway = livegate(stage=log, apis={"pets": pets({"GET /pets": says("four")}, {"$default": log}, base_path="/shop")})
    with gateway.connect() as client:
        mine = client.whoami()
    gateway.request("GET", "/shop/pets?q=%22")
    found = [re.fullmatch(CLF, line).groups() for line in Log(gateway).wait(4)]
    assert {line[0] for line in found} == {"127.0.0.1"}
    requests = {line[4]: line for line in found}
    assert f"MESSAGE whoami {mine}" in requests and f"DISCONNECT $disconnect {mine}" in requests
    of_pets = next(line for asked, line in requests.items() if asked.startswith("GET "))
    assert of_pets[4].endswith("/pets HTTP/1.1") and of_pets[5:7] == ("200", "4")


def test_a_format_with_braces_and_words_around_it(livegate):
    gateway = livegate(stage={"access_log": {
        "format": "<${context.routeKey}> ${context.status}ms, $context.apiId. $context.requestId!",
        "destination": "file:access.log"}})
    with gateway.connect() as client:
        client.whoami()
    assert re.fullmatch(rf"<whoami> 200ms, chat\. {ID}!", Log(gateway).wait(2)[1])


@pytest.mark.parametrize("log, words", [
    ({"format": "$context.status"}, ["access_log", "requestId"]),
    ({"format": "text"}, ["access_log", "`json`"]),
    ({"format": "$context.requestId $context.nope"}, ["access_log", "nope"]),
    ({"format": "$context.requestId $context.conectionId"}, ["did you mean", "connectionId"]),
    ({"format": "$context.requestId $request.body.x"}, ["access_log", "$request"]),
    ({"format": "$context.requestId\n$context.status"}, ["access_log", "line"]),
    ({"destination": "stdoutt"}, ["access_log.destination", "stdoutt", "`stdout`"]),
    ({"destination": "access.log"}, ["access_log.destination", "`file:access.log`"]),
    ({"destination": "https://logs.example.com/"}, ["access_log.destination", "`stdout`"]),
    ({"destination": "syslog://host:0"}, ["access_log.destination", "port"]),
    ({"destination": "/var/log/"}, ["access_log.destination", "access.log"]),
    ({"rotate_size": "big"}, ["access_log.rotate_size", "big"]),
    ({"rotate_every": "soon"}, ["access_log.rotate_every", "soon"]),
    ({"keep": -1}, ["access_log.keep"]),
    ({"when_full": "wait"}, ["access_log.when_full", "block"]),
    ({"buffer": "1B"}, ["access_log"]),
    ({"fromat": "json"}, ["access_log", "fromat", "format"]),
])
def test_what_cannot_be_is_refused(tmp_path, log, words):
    refused(tmp_path, chat(stage={"access_log": log}), *words)
    if "did you mean" not in words:
        refused(tmp_path, http_api({"GET /": says()}, stage={"access_log": log}), *words)


def test_a_variable_of_the_other_kind_of_api_is_refused(tmp_path):
    log = {"access_log": {"format": "$context.requestId $context.messageId"}}
    refused(tmp_path, http_api({"GET /": says()}, stage=log), "messageId")


def test_two_logs_of_one_file_must_agree(tmp_path):
    one, other = ({"access_log": {"destination": "file:access.log", "keep": keep}} for keep in (1, 2))
    refused(tmp_path, chat(stages={"one": one, "other": other}), "access.log")


def test_a_file_that_cannot_be_made_is_an_error_at_the_start(livegate):
    with pytest.raises(AssertionError, match="no-such-folder"):
        livegate(stage={"access_log": {"destination": "/no-such-folder/access.log"}})


# What strangers send


# Each as it may stand in a header, in a path, in a message or in a claim.
EVIL = ['"', '\\', '","status":"200', '"} {"requestId":"forged', "é\u2028\u2029\u0085", "$context.status ${context.stage}",
        "\x1b[31mred", "\x7f", "\t", "%0d%0a%22", "\\x0a\\n\\u000a", "'; --", "<script>", "\U0001F600"]
MORE_EVIL = ["\n", "\r\n", '\n{"requestId":"forged"}\n', "\x00", "\x0b\x0c", "\r"]
ALL_EVIL = "".join(EVIL + MORE_EVIL)


@pytest.fixture(params=["json", "clf", "template", "json template"])
def format(request):
    return {
        "template": '$context.requestId "$context.identity.userAgent" "$context.routeKey" "$context.authorizer.claims.evil"',
        "json template": '{"requestId":"$context.requestId","agent":"$context.identity.userAgent",'
                         '"route":"$context.routeKey","claim":"$context.authorizer.claims.evil"}',
    }.get(request.param, request.param)


def check_lines(log, format, count):
    """So many lines, each of them whole, and not a byte of them that a terminal or a reader could stumble over."""
    lines = log.wait(count)
    assert len(lines) == count
    for line in lines:
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", line), ascii(line)
        if format.startswith(("{", "json")):
            assert isinstance(json.loads(line), dict)
        elif format == "clf":
            assert re.fullmatch(r'\S+ \S+ \S+ \[[^\]]+\] "(?:[^"\\]|\\.)*" \d{3} \d+ \S+', line), line
        else:
            assert re.fullmatch(rf'{ID}(?: "(?:[^"\\]|\\.)*"){{3}}', line), line
    return lines


def test_nobody_breaks_a_line_by_a_header(livegate, format):
    gateway = livegate(stage={"access_log": {"format": format, "destination": "file:access.log"}})
    # Bytes that no header may have are refused before there is a call.
    sent = [text.encode() for text in EVIL if not re.search("[\x00-\x08\x0a-\x1f\x7f]", text)] + [b"\xff\xfe\x80"]
    for text in sent:
        with gateway.wire() as wire:
            key = b"dGhlIHNhbXBsZSBub25jZQ=="
            wire.send(b"GET /prod HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                      b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\nUser-Agent: a" + text + b"z\r\n\r\n")
            assert wire.response().status == 101
            wire.send(close_frame(1000))
            wire.ended()
    lines = check_lines(Log(gateway), format, 2 * len(sent))
    if "agent" in format and format.startswith("{"):
        shown = {json.loads(line)["agent"] for line in lines}
        assert {f"a{text}z" for text in EVIL if text.isascii() and text.isprintable()} <= shown


def test_nobody_breaks_a_line_by_a_message_or_a_reason(livegate, format):
    routes = {text: mock("x") for text in ('say "x"', 'back\\slash', 'a {"b":1}')}
    gateway = livegate(routes=routes, stage={"access_log": {"format": format, "destination": "file:access.log"}})
    with gateway.connect() as client:
        for action in [*routes, *EVIL, *MORE_EVIL]:
            client.asks(action=action)
        client.close(4000, '"\n\x1b\u2028')
    lines = check_lines(Log(gateway), format, 2 + len([*routes, *EVIL, *MORE_EVIL]))
    if format.startswith("{"):
        assert set(routes) <= {json.loads(line)["route"] for line in lines}


def test_nobody_breaks_a_line_by_a_reason_that_is_logged(livegate):
    reason = '"\n\r\x1b\u2028\\'
    for format in ("$context.requestId\t$context.disconnectReason",
                   '{"id":"$context.requestId","reason":"$context.disconnectReason"}'):
        gateway = livegate(stage={"access_log": {"format": format, "destination": "file:access.log"}})
        with gateway.connect() as client:
            client.close(4000, reason)
        line = Log(gateway).wait(2)[1]
        assert not re.search("[\x00-\x08\x0a-\x1f\u2028]", line)
        shown = json.loads(line)["reason"] if format.startswith("{") else plain(line.split("\t")[1])
        assert shown == reason


def test_nobody_breaks_a_line_by_a_path(livegate, format):
    stage = {"access_log": {"format": format.replace("routeKey", "path"), "destination": "file:access.log"}}
    gateway = livegate(http_api({"$default": says("x")}, stage=stage))
    paths = ["/%22", "/%0a%0d", "/a%22%2c%22status%22%3a%22200", "/%5c", "/%e2%80%a8", "/%1b%5b31m", "/%7f", "/%c2%85",
             "/'\"", "/%F0%9F%98%80", "/{\"}"]
    for path in paths:
        ask(gateway, "GET", path)
    lines = check_lines(Log(gateway), format, len(paths))
    if format.startswith("{"):
        # Paths are logged as they were on the wire.
        assert [json.loads(line)["route"] for line in lines] == paths


def test_nobody_breaks_a_line_by_a_claim(livegate, issuer, format):
    asks = {"integration": {"type": "mock"}, "authorizer": "tokens"}
    gateway = livegate(routes={"$connect": asks}, authorizers={"tokens": issuer.authorizer()},
                       stage={"access_log": {"format": format, "destination": "file:access.log"}})
    claims = [*EVIL, *MORE_EVIL, ALL_EVIL, [ALL_EVIL, 1], {ALL_EVIL: [ALL_EVIL]}, None, 1.5]
    for claim in claims:
        token = issuer.token(evil=claim, sub=claim if isinstance(claim, str) else "ann")
        assert gateway.knock(headers=[bearer(token)]).status == 101
    lines = check_lines(Log(gateway), format, 2 * len(claims))
    if format.startswith("{"):
        assert ALL_EVIL in {json.loads(line)["claim"] for line in lines}


def test_nobody_breaks_a_line_by_a_push(livegate, format):
    gateway = livegate(stage={"access_log": {"format": format, "destination": "file:access.log"}})
    for id in ("%0a", "%22%2c%22", "a%5c", "%e2%80%a8", "%00", "x" * 3000):
        ask(gateway, "POST", f"/prod/@connections/{id}", body=b"x")
    check_lines(Log(gateway), format, 6)


# Files


def talks(gateway, times=1, **fields):
    """So many messages, each answered; so a line was written for each of them."""
    with gateway.connect() as client:
        for _ in range(times):
            client.asks(action="whoami", **fields)


def ids(*texts):
    """The request ids of lines, in the order in which they stand."""
    return [re.search(ID, line)[0] for text in texts for line in text.splitlines()]


SHORT = {"format": "$context.requestId $context.eventType $context.status"}


def test_a_file_is_made_beside_routes_toml_and_added_to(livegate):
    stage = {"access_log": {**SHORT, "destination": "./logs.txt"}}
    gateway = livegate(stage=stage)
    log = Log(gateway, name="logs.txt")
    assert stat.S_IMODE(log.path.stat().st_mode) & 0o137 == 0
    talks(gateway)
    assert [line.split(" ", 1)[1] for line in log.wait(3)] == ["CONNECT 200", "MESSAGE 200", "DISCONNECT 200"]
    before = log.text()
    assert gateway.terminate() == 0
    assert log.text() == before


def test_a_file_that_is_there_is_added_to_behind_the_end_of_its_last_line(livegate, tmp_path):
    path = tmp_path / "access.log"
    path.write_text("before\nhalf a li")
    gateway = livegate(stage={"access_log": {**SHORT, "destination": str(path)}})
    talks(gateway)
    lines = eventually(lambda: path.read_text().count("\n") == 5 and path.read_text().splitlines())
    assert lines[:2] == ["before", "half a li"] and lines[2].endswith("CONNECT 200")


def test_a_file_is_put_aside_by_its_size(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:access.log", "rotate_size": "1KiB", "keep": 3}})
    talks(gateway, 400)
    assert gateway.terminate() == 0
    files = sorted(path.name for path in gateway.folder.glob("access.log*"))
    assert files == ["access.log", "access.log.1", "access.log.2", "access.log.3"]
    texts = [(gateway.folder / name).read_text() for name in ("access.log.3", "access.log.2", "access.log.1", "access.log")]
    assert all(len(text) <= 1024 and text.endswith("\n") for text in texts)
    found = ids(*texts)
    assert len(set(found)) == len(found)
    assert texts[-1].splitlines()[-1].endswith("DISCONNECT 200")


def test_no_line_is_lost_when_a_file_is_put_aside(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:access.log", "rotate_size": "4KiB", "keep": 1000}})
    threads = [threading.Thread(target=talks, args=(gateway, 200)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gateway.terminate() == 0
    found = ids(*(path.read_text() for path in gateway.folder.glob("access.log*")))
    assert len(found) == len(set(found)) == 4 * 202


def test_a_moved_file_is_begun_anew_after_a_sighup(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:access.log"}})
    log = Log(gateway)
    talks(gateway)
    log.wait(3)
    log.path.rename(gateway.folder / "moved.log")
    gateway.reload()
    eventually(log.path.exists, "the new file")
    talks(gateway, 2)
    log.wait(4)
    assert len(log.lines()) == 4 and len((gateway.folder / "moved.log").read_text().splitlines()) == 3


def test_a_moved_or_removed_file_is_noticed_without_a_signal(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:access.log"}})
    log = Log(gateway)
    log.path.rename(gateway.folder / "moved.log")
    eventually(lambda: talks(gateway) or log.path.exists(), "the new file")
    log.path.unlink()
    eventually(lambda: talks(gateway) or log.path.exists(), "another file")
    assert gateway.metric(LINES, outcome="failed") == gateway.metric(LINES, outcome="dropped") == 0


def test_nothing_is_lost_while_logs_are_moved_under_traffic(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:access.log"}})
    log, enough, said = Log(gateway), threading.Event(), []

    def talk():
        with gateway.connect() as client:
            while not enough.is_set():
                said.append(client.whoami())

    talking = threading.Thread(target=talk)
    talking.start()
    for number in range(5):
        log.wait(10)
        log.path.rename(gateway.folder / f"moved.{number}")
        gateway.signal(signal.SIGHUP)
        eventually(log.path.exists, "the new file")
    enough.set()
    talking.join()
    assert gateway.terminate() == 0
    found = ids(*(path.read_text() for path in [log.path, *gateway.folder.glob("moved.*")]))
    assert len(found) == len(set(found)) == len(said) + 2


def test_a_log_may_be_changed_by_a_reload(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:old.log"}})
    old, new = Log(gateway, name="old.log"), Log(gateway, name="new.log")
    with gateway.connect() as client:
        client.whoami()
        old.wait(2)
        gateway.reload(chat(stage={"access_log": {"format": "new $context.requestId", "destination": "file:new.log"}}))
        client.whoami()
        assert new.wait(1)[0].startswith("new ")
        gateway.reload(chat())
        client.whoami()
    assert gateway.terminate() == 0
    assert (len(old.lines()), len(new.lines())) == (2, 1)


def test_a_reload_with_a_file_that_cannot_be_made_changes_nothing(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:access.log"}})
    problems = gateway.metric("livegate_reloads_total", outcome="problems")
    gateway.reload(chat(stage={"access_log": {**SHORT, "destination": "/no-such-folder/access.log"}}))
    assert gateway.metric("livegate_reloads_total", outcome="problems") == problems + 1
    eventually(lambda: "no-such-folder" in gateway.logs())
    talks(gateway)
    Log(gateway).wait(3)


def test_stages_share_a_log(livegate):
    log = {"access_log": {"format": "$context.requestId $context.apiId $context.stage", "destination": "file:access.log"}}
    gateway = livegate(stages={"blue": log, "green": log},
                       apis={"pets": pets({"GET /pets": says("x")}, {"$default": log}, base_path="/shop")})
    for stage in ("blue", "green"):
        assert gateway.knock(f"/{stage}").status == 101
    gateway.request("GET", "/shop/pets")
    found = {line.split(" ", 1)[1] for line in Log(gateway).wait(5)}
    assert found == {"chat blue", "chat green", "pets $default"}


# stdout and stderr


def test_stdout(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "stdout"}})
    talks(gateway)
    assert [gateway.line().split(" ", 1)[1] for _ in range(3)] == ["CONNECT 200", "MESSAGE 200", "DISCONNECT 200"]
    eventually(lambda: gateway.metric(LINES, destination="stdout", outcome="written") == 3)


def test_stderr(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "stderr"}})
    talks(gateway)
    eventually(lambda: re.search(rf"^{ID} DISCONNECT 200$", gateway.logs(), re.M), "the last line")


# What goes wrong


def test_a_full_disk_costs_lines_and_nothing_else(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "/dev/full"}})
    talks(gateway, 50)
    eventually(lambda: gateway.metric(LINES, destination="/dev/full", outcome="failed") == 52)
    assert gateway.metric(LINES, outcome="written") == 0
    assert gateway.is_well()
    eventually(lambda: re.search("`/dev/full` lost lines", gateway.logs()), "the warning")
    # Once a second, however many there are.
    began = time.monotonic()
    talks(gateway, 500)
    told = len(re.findall("`/dev/full` lost lines", gateway.logs()))
    assert told <= 3 + time.monotonic() - began
    assert gateway.terminate() == 0


class Stalled:
    """A syslog over TCP that takes connections and never reads a byte."""

    def __init__(self):
        self._listener = socket.socket()
        # Before listening: what it lets wait in the kernel is little.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(100)
        self.port = self._listener.getsockname()[1]

    def accept(self):
        self._listener.settimeout(PATIENCE)
        return self._listener.accept()[0]

    def close(self):
        self._listener.close()


@pytest.fixture
def stalled():
    stalled = Stalled()
    yield stalled
    stalled.close()


def test_a_syslog_that_reads_nothing_costs_its_own_lines_alone(livegate, stalled):
    destination = f"syslog+tcp://127.0.0.1:{stalled.port}"
    long = {"format": "$context.requestId $context.identity.userAgent", "destination": destination, "buffer": "64KiB"}
    gateway = livegate(stages={"loud": {"access_log": long},
                               "prod": {"access_log": {**SHORT, "destination": "file:access.log"}}})
    lost = lambda: gateway.metric(LINES, destination=destination, outcome="dropped")
    with gateway.connect("/loud", user_agent_header="x" * 7000) as client:
        for _ in range(50):
            for _ in range(200):
                client.whoami()
            if lost():
                break
        assert lost() > 0
        # Whoever talks meanwhile is answered at once, and other logs are written.
        slowest = 0
        for _ in range(200):
            began = time.monotonic()
            client.whoami()
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1
    talks(gateway, 10)
    Log(gateway).wait(12)
    eventually(lambda: re.search(re.escape(f"`{destination}` lost lines"), gateway.logs()), "the warning")
    began = time.monotonic()
    assert gateway.terminate() == 0
    assert time.monotonic() - began < 2 * PATIENCE


def test_every_line_is_written_dropped_or_failed(livegate, stalled):
    destination = f"syslog+tcp://127.0.0.1:{stalled.port}"
    gateway = livegate(stage={"access_log": {"format": "$context.requestId $context.identity.userAgent",
                                             "destination": destination, "buffer": "64KiB"}})
    with gateway.connect(user_agent_header="x" * 7000) as client:
        for _ in range(1000):
            client.whoami()
        count = lambda *outcomes: sum(gateway.metric(LINES, destination=destination, outcome=one) for one in outcomes)
        # The buffer holds nine lines of these; all others have their outcome.
        eventually(lambda: 1001 - 10 <= count("written", "dropped", "failed") <= 1001)
        assert count("dropped") > 0


def test_with_block_nothing_is_lost(livegate, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    gateway = livegate(stage={"access_log": {
        "format": "$context.requestId $context.identity.userAgent", "destination": str(pipe), "buffer": "64KiB",
        "when_full": "block"}})
    count = 300
    talking = threading.Thread(target=lambda: talk_of_a_long_agent(gateway, count))
    talking.start()
    with open(pipe, "rb") as reader:
        lines = [reader.readline() for _ in range(count + 1)]
    talking.join()
    assert all(re.fullmatch(rf"{ID} x{{7000}}\n".encode(), line) for line in lines)
    assert gateway.metric(LINES, outcome="dropped") == gateway.metric(LINES, outcome="failed") == 0


def talk_of_a_long_agent(gateway, times):
    with gateway.connect(user_agent_header="x" * 7000) as client:
        for _ in range(times):
            client.whoami()


# Syslog


HEAD = r"<134>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z \S+ livegate \d+ access - "


def is_message(datagram, gateway, line):
    text = datagram.decode()
    assert re.fullmatch(HEAD + f"{ID} {line}", text), text
    assert f" livegate {gateway.process.pid} access " in text
    return True


EVENTS = ["CONNECT 200", "MESSAGE 200", "DISCONNECT 200"]


def test_a_syslog_over_udp(livegate):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE)
        port = receiver.getsockname()[1]
        gateway = livegate(stage={"access_log": {**SHORT, "destination": f"syslog://127.0.0.1:{port}"}})
        talks(gateway)
        for line in EVENTS:
            assert is_message(receiver.recv(65536), gateway, line)


def test_a_syslog_on_this_machine_that_comes_late_and_starts_again(livegate, tmp_path):
    path = tmp_path / "log"
    gateway = livegate(stage={"access_log": {**SHORT, "destination": f"syslog+unix:{path}"}})
    talks(gateway)
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(path))
            receiver.settimeout(PATIENCE)
            for line in EVENTS:
                assert is_message(receiver.recv(65536), gateway, line)
        path.unlink()
        talks(gateway)
    assert gateway.metric(LINES, outcome="dropped") == gateway.metric(LINES, outcome="failed") == 0


def messages(stream, count):
    """So many counted messages (RFC 6587)."""
    reader, found = stream.makefile("rb"), []
    while len(found) < count:
        length = b""
        while (digit := reader.read(1)).isdigit():
            length += digit
        assert digit == b" ", (length, digit)
        found.append(reader.read(int(length)))
    return found


def test_a_syslog_over_tcp_that_hangs_up(livegate):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        gateway = livegate(stage={"access_log": {**SHORT, "destination": f"syslog+tcp://127.0.0.1:{port}"}})
        for _ in range(2):
            talks(gateway)
            stream, _ = listener.accept()
            with stream:
                stream.settimeout(PATIENCE)
                assert all(map(lambda got, line: is_message(got, gateway, line), messages(stream, 3), EVENTS))
        assert gateway.metric(LINES, outcome="dropped") == gateway.metric(LINES, outcome="failed") == 0


def test_a_syslog_that_nobody_reaches_is_said_and_harms_nobody(livegate, dead_backend):
    destination = f"syslog+tcp://{dead_backend.authority}"
    gateway = livegate(stage={"access_log": {**SHORT, "destination": destination}})
    talks(gateway)
    eventually(lambda: re.search(re.escape(f"`{destination}`") + ".*refused", gateway.logs()), "the warning")
    assert gateway.is_well()
    assert gateway.terminate() == 0


# Metrics, and the end


def test_lines_are_counted_by_destination(livegate):
    gateway = livegate(stage={"access_log": {**SHORT, "destination": "file:access.log"}})
    talks(gateway, 10)
    destination = str(gateway.folder / "access.log")
    eventually(lambda: gateway.metric(LINES, destination=destination, outcome="written") == 12)
    assert gateway.metric(LINES, outcome="dropped") == gateway.metric(LINES, outcome="failed") == 0


def test_a_drain_lets_everything_out(livegate, backend):
    gateway = livegate(routes={"$disconnect": backend.at("/disconnect")},
                       stage={"access_log": {**SHORT, "destination": "file:access.log"}})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(50)]
        for client in clients:
            client.whoami()
        gateway.signal(signal.SIGTERM)
        for client in clients:
            client.closed()
    assert gateway.exit_code() == 0
    said = [line.split(" ")[1] for line in Log(gateway).lines()]
    assert {kind: said.count(kind) for kind in set(said)} == {"CONNECT": 50, "MESSAGE": 50, "DISCONNECT": 50}
    assert Log(gateway).text().endswith("\n")


def test_a_drain_waits_for_the_line_of_an_answer_that_flows(livegate, backend):
    backend.answers("/pets", Answer(body=b"x" * 100_000, chunked=True))
    stage = {"access_log": {"format": "$context.requestId $context.responseLength", "destination": "file:access.log"}}
    gateway = livegate(http_api({"GET /pets": proxy(backend.at("/pets"))}, stage=stage))
    with gateway.wire() as wire, backend.holding("/pets") as hold:
        wire.send(f"GET /pets HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n".encode())
        backend.next("/pets")
        gateway.signal(signal.SIGTERM)
        eventually(lambda: gateway.admin("/readyz").status == 503)
        hold.release()
        assert len(wire.response().body) == 100_000
    assert gateway.exit_code() == 0
    assert [line.split(" ")[1] for line in Log(gateway).lines()] == ["100000"]


def test_without_an_access_log_nothing_is_written(livegate):
    gateway = livegate()
    talks(gateway)
    assert gateway.metric(LINES) == 0
    assert sorted(path.name for path in gateway.folder.iterdir() if "log" in path.name) == ["stderr.log"]
