"""What every test may ask for, and what is shown of the gateway when one fails."""

import itertools
import pathlib
import resource
import sys
import urllib.parse

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from backend import Answer, Backend
from world import ARTEFACTS, Gateway, chat, to, two_way


def pytest_configure():
    # Thousands of sockets, here and in the gateway that inherits the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ARTEFACTS.mkdir(exist_ok=True)


@pytest.fixture
def backend():
    backend = Backend()
    yield backend
    backend.stop()


@pytest.fixture
def another_backend():
    backend = Backend()
    yield backend
    backend.stop()


@pytest.fixture
def dead_backend():
    """A URL's worth of backend that nobody answers."""
    backend = Backend()
    backend.kill()
    yield backend
    backend.stop()


@pytest.fixture
def processes(request, tmp_path):
    """Starts the binary; every process is ended and its log looked through when the test is over."""
    started, number = [], itertools.count()

    def start(kind, *arguments, **settings):
        process = kind(*arguments, **settings)
        started.append(process)
        return process

    start.folder = lambda: tmp_path / f"gateway-{next(number)}"
    request.node.started = started
    yield start
    for process in started:
        process.kill()
    for process in started:
        assert "panicked at" not in process.logs()


@pytest.fixture
def livegate(processes):
    """Starts `livegate serve`: `livegate(routes={…}, stage={…})`, or with the text of a whole file."""
    def serve(text=None, *, linked=False, env=None, **parts):
        return processes(Gateway, text or chat(**parts), processes.folder(), linked=linked, env=env)
    return serve


class Farewells:
    """A gateway that tells of every disconnect, as raw headers or as an event."""

    def __init__(self, livegate, backend, payload):
        self.livegate, self.backend, self.payload = livegate, backend, payload

    def gateway(self, **parts):
        routes = {"$disconnect": to(self.backend.at("/disconnect"), payload=self.payload),
                  "echo": two_way(self.backend.at("/echo")), **parts.pop("routes", {})}
        self.backend.answers("/echo", lambda request: Answer(body=request.body))
        return self.livegate(routes=routes, **parts)

    def told(self):
        """Code and reason of the next `$disconnect`."""
        request = self.backend.next("/disconnect")
        if self.payload == "event":
            context = request.json["requestContext"]
            return context["disconnectStatusCode"], context["disconnectReason"]
        assert request.header("X-Livegate-Event-Type") == "DISCONNECT" and request.body == b""
        reason = request.header("X-Livegate-Disconnect-Reason") or ""
        return int(request.header("X-Livegate-Disconnect-Code")), urllib.parse.unquote(reason)


@pytest.fixture(params=["raw", "event"])
def world(request, livegate, backend):
    return Farewells(livegate, backend, request.param)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for process in getattr(item, "started", []):
            report.sections.append(("livegate's log", process.logs()[-8000:]))
