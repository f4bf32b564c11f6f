"""How many instructions the gateway takes for a message, a push, a handshake and a proxied request, as callgrind counts them.

Time moves with the machine, instructions do not: the same binary takes the same number for the same work, give or take what
the scheduler makes of it (less than one in a hundred here). So this holds what a change costs before any benchmark can see it.
"""

import re
import subprocess
import urllib.parse

from wire import frame
from world import LIVEGATE, Gateway, chat, eventually, two_way

# In user space, for each. Whoever makes them fewer writes the new number here; whoever makes them more says why.
MESSAGE = 19_500
PUSH = 15_500
HANDSHAKE = 34_900
REQUEST = 26_000

# Between processors (a C library has several ways to copy), and how often the gateway went to sleep. On one machine the same
# binary stays within 0.01.
TOLERANCE = 0.08

# Fewer by more than this is no improvement: something was not counted.
UNLIKELY = 0.3

CONNECTIONS = 8
TEXT = '{"action":"ask","text":"' + "x" * 102 + '"}'


class Counted:
    """A gateway under callgrind, on one thread of its own."""

    def __init__(self, processes, text):
        folder = processes.folder()
        folder.mkdir(parents=True)
        self.counts = folder / "callgrind"
        callgrind = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self.counts}")
        self.gateway = processes(
            Gateway, text, folder, command=(*callgrind, LIVEGATE), env={"TOKIO_WORKER_THREADS": "1"})

    def control(self, *what):
        subprocess.run(["callgrind_control", *what, str(self.gateway.process.pid)], check=True, capture_output=True)

    def instructions(self, act, times):
        """Instructions for one of `times` acts, of which `act(n)` does n."""
        act(200)
        self.control("-i", "on")
        # What is counted is code that has been translated and caches that are filled.
        act(200)
        self.control("-z")
        act(times)
        self.control("-d")
        return eventually(self.total, "callgrind's counts") // times

    def total(self):
        """The last dump's."""
        dumps = sorted(self.counts.parent.glob("callgrind.*"), key=lambda path: int(path.suffix[1:]))
        found = dumps and re.search(r"^totals: (\d+)$", dumps[-1].read_text(), re.MULTILINE)
        return int(found.group(1)) if found else None


def check(name, counted, expected):
    # `pytest -rP` shows it.
    print(f"{name}: {counted} instructions")
    assert counted <= expected * (1 + TOLERANCE), f"{name} takes {counted} instructions, and took {expected}"
    assert counted >= expected * (1 - UNLIKELY), f"{name} takes only {counted} instructions, and took {expected}"


def in_rounds(act):
    """Acts in rounds, each of which is one act for every connection."""
    def run(times):
        for _ in range(times // CONNECTIONS):
            act()
    return run


def test_a_message_to_a_backend_and_back(processes, backend):
    counted = Counted(processes, chat(routes={"ask": two_way(backend.at("/ask"))}))
    backend.answer("/ask", body=TEXT)
    sockets = [counted.gateway.open() for _ in range(CONNECTIONS)]
    message = frame(1, TEXT)

    @in_rounds
    def act():
        for socket in sockets:
            socket.send(message)
        for socket in sockets:
            assert socket.message() == TEXT

    check("a message", counted.instructions(act, 2000), MESSAGE)


def test_a_push(processes):
    counted = Counted(processes, chat())
    sockets = [counted.gateway.open() for _ in range(CONNECTIONS)]
    pushes = []
    for socket in sockets:
        socket.says(action="whoami")
        target = f"/prod/@connections/{urllib.parse.quote(socket.message(), safe='')}"
        head = f"POST {target} HTTP/1.1\r\nHost: {counted.gateway.host}\r\nContent-Length: {len(TEXT)}\r\n\r\n"
        pushes.append((counted.gateway.wire(), (head + TEXT).encode()))

    @in_rounds
    def act():
        for publisher, push in pushes:
            publisher.send(push)
        for publisher, _ in pushes:
            assert publisher.response().status == 200
        for socket in sockets:
            assert socket.message() == TEXT

    check("a push", counted.instructions(act, 2000), PUSH)


def test_a_handshake(processes):
    counted = Counted(processes, chat())

    def act(times):
        for _ in range(times):
            with counted.gateway.open():
                pass

    check("a handshake", counted.instructions(act, 600), HANDSHAKE)


def test_a_request_to_a_backend_and_back(processes, backend):
    api = {
        "protocol": "http",
        "routes": {"ANY /{proxy+}": {"integration": backend.at("/{proxy}")}},
        "stages": {"http": {}},
    }
    counted = Counted(processes, chat(apis={"proxied": api}))
    backend.answer("/ask", body=TEXT)
    wires = [counted.gateway.wire() for _ in range(CONNECTIONS)]
    request = f"GET /http/ask HTTP/1.1\r\nHost: {counted.gateway.host}\r\n\r\n".encode()

    @in_rounds
    def act():
        for wire in wires:
            wire.send(request)
        for wire in wires:
            assert wire.response().body == TEXT.encode()

    check("a request", counted.instructions(act, 2000), REQUEST)
