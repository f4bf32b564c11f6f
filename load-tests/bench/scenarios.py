"""What is measured: for each scenario its figures, and the runs that they come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import configs, growth
from bench.configs import ACCESS_KEY, API_KEY, SECRET_KEY, TOKEN
from bench.million import Million
from bench.runs import Bench, Case, Load, Report, Runnable
from bench.servers import Floor, Livegate, Running, Server
from bench.storm import Storm

# In the order of the report. `million` takes all of the memory, and runs only when it is named.
SCENARIOS = {
    "a": "Message to an HTTP backend and its reply back",
    "b": "Push to one of 1,000 connections",
    "c": "Broadcast to 5,000 connections",
    "d": "Memory of an idle connection",
    "e": "Handshakes",
    "f": "HTTP requests passed on",
    "g": "Memory of an idle HTTP client",
    "h": "HTTP requests among many routes",
    "i": "What admission adds to a message",
    "j": "What writing everything down adds to a message",
    "latency": "Latency below saturation",
    "growth": "What a message costs as things grow",
    "soak": "18,000 held sockets under load",
    "storm": "All clients back at once after a restart",
    "million": "Many gateways on one machine",
}
RUN_ONLY_BY_NAME = {"million"}
# Whatever --rounds says: the one takes ten minutes a round, the others prove something or do not.
MOST_ROUNDS = {"growth": 3, "soak": 1, "million": 1}

CPU_MESSAGES = "server_cpu_ms_per_1k_msgs"
CPU_PUSHES = "server_cpu_ms_per_1k_deliveries"
CPU_REQUESTS = "server_cpu_ms_per_1k_requests"


@dataclass(frozen=True)
class Figure:
    """A number of the reports with one label; `floor` is the server that the others are divided by."""

    label: str
    title: str
    field: str
    rate: str = ""
    floor: str = "raw"

    @property
    def scenario(self) -> str:
        """What stands before the first point of a label."""
        return self.label.partition(".")[0]


LATENCY_SHARES = (25, 50, 75)

FIGURES = [
    Figure("a", "64 clients, CPU ms per 1,000 messages", CPU_MESSAGES, "msgs_per_s"),
    Figure("a.one", "One client, p50 in µs", "latency_us.p50", "msgs_per_s"),
    Figure("b", "CPU ms per 1,000 pushes", CPU_PUSHES, "deliveries_per_s"),
    Figure("c", "CPU ms per 1,000 deliveries", CPU_PUSHES, "deliveries_per_s"),
    Figure("c", "Time to the last delivery, p50 in µs", "whole_us.p50", "deliveries_per_s"),
    Figure("d", "KiB of the server's own memory", "server_kib_per_conn"),
    Figure("d.echoed", "KiB after each has echoed 32,000 bytes", "server_kib_per_conn"),
    Figure("d.tls", "KiB over TLS", "server_kib_per_conn", floor="std"),
    Figure("e", "CPU ms per 1,000 handshakes", "server_cpu_ms_per_1k_handshakes", "handshakes_per_s"),
    Figure(
        "e.tls", "CPU ms per 1,000 handshakes over TLS", "server_cpu_ms_per_1k_handshakes", "handshakes_per_s", "std"
    ),
    Figure("f", "64 clients, CPU ms per 1,000 requests", CPU_REQUESTS, "requests_per_s", "nginx"),
    Figure("f.half", "At half of that rate, p50 in µs", "latency_us.p50", "requests_per_s", "nginx"),
    Figure("f.half", "At half of that rate, p99 in µs", "latency_us.p99", "requests_per_s", "nginx"),
    Figure("g", "KiB for a client that asked once", "server_kib_per_conn", floor="nginx"),
    Figure("h", "CPU ms per 1,000 requests", CPU_REQUESTS, "requests_per_s", "livegate-10"),
    Figure("i", "CPU ms per 1,000 messages", CPU_MESSAGES, "msgs_per_s", "livegate-plain"),
    Figure("j", "CPU ms per 1,000 messages", CPU_MESSAGES, "msgs_per_s", "livegate-plain"),
    Figure("soak", "p99 of a push in µs, at 10,000 a second", "delivery_us.p99", "deliveries_per_s", ""),
]


@dataclass(frozen=True)
class Wide:
    """A table with a row for each label and server, and several fields beside each other."""

    labels: dict[str, str]
    columns: dict[str, str]


WIDE = {
    "latency": Wide(
        {f"latency.{share}": f"{share} %" for share in LATENCY_SHARES},
        {
            "rate, /s": "rate_asked",
            "p50, µs": "latency_us.p50",
            "p99, µs": "latency_us.p99",
            "p99.9, µs": "latency_us.p99_9",
            "own p50, µs": "own_us.p50",
            "own p99, µs": "own_us.p99",
            "own p99.9, µs": "own_us.p99_9",
            "generator late, p99": "late_us.p99",
            "generator busy, %": "loadgen_cpu_pct",
        },
    ),
    "storm": Wide(
        {"storm": "10,000"},
        {
            "first to last back, ms": "back_ms",
            "handshake p50, µs": "handshake_us.p50",
            "handshake p99, µs": "handshake_us.p99",
            "CPU ms per 1,000 clients": "server_cpu_ms_per_1k_handshakes",
            "errors": "errors",
        },
    ),
    "million": Wide(
        {"million": "all"},
        {
            "held": "held",
            "gateways": "gateways",
            "opened in, s": "opened_in_s",
            "KiB of a gateway for each": "server_kib_per_conn",
            "KiB of the machine for each, both ends": "machine_kib_per_conn",
            "pushes to a sample": "sample",
            "arrived": "sample_arrived",
            "then asked to echo": "asked",
            "echoed": "all_echoed",
        },
    ),
}


def cases(bench: Bench, names: list[str], peers: list[Server], default_peers: list[Server]) -> list[Runnable]:
    """All runs of one round; `default_peers` are those that are installed anyway, for HTTP only."""
    builders: dict[str, Callable[[Bench, list[Server]], Sequence[Runnable]]] = {
        "a": _messages,
        "b": _pushes,
        "c": _broadcasts,
        "d": _memory,
        "e": _handshakes,
        "f": _http,
        "g": _http_memory,
        "h": _http_routes,
        "i": _admission,
        "j": _watched,
        "latency": _latency,
        "growth": growth.cases,
        "soak": _soak,
        "storm": _storm,
        "million": lambda bench, _: [Million(bench.livegate, bench.connections)],
    }
    http_peers = peers + [peer for peer in default_peers if peer.name not in {peer.name for peer in peers}]
    return [case for name in names for case in builders[name](bench, http_peers if name in ("f", "g") else peers)]


def _able(peers: list[Server], scenario: str) -> list[Server]:
    return [peer for peer in peers if scenario in getattr(peer, "scenarios", set())]


def _livegate(bench: Bench) -> Livegate:
    return Livegate(bench.livegate, configs.websocket)


def _raw(bench: Bench) -> Floor:
    return Floor(bench.loadgen, "raw", "gateway", "the floor")


def _std(bench: Bench, kind: str, tls: bool = False) -> Floor:
    return Floor(bench.loadgen, "std", kind, tls=tls)


def _expect(server: Server) -> list[str]:
    """Peers answer in frames of their own making: only of ours is the length known."""
    return ["--expect", "128"] if isinstance(server, Livegate | Floor) else []


def _messages(bench: Bench, peers: list[Server]) -> list[Runnable]:
    servers: list[Server] = [_raw(bench), _std(bench, "std-gateway"), _livegate(bench), *_able(peers, "a")]
    return [
        Case(server, "a", Load(label, ["echo", "--conns", conns, *_expect(server), *bench.time()]))
        for label, conns in (("a", "64"), ("a.one", "1"))
        for server in servers
    ]


def _pushes(bench: Bench, peers: list[Server]) -> list[Runnable]:
    load = Load("b", ["push", "--conns", "1000", "--publishers", "32", *bench.time()])
    signed = replace(load, command=[*load.command, "--sign-key", ACCESS_KEY, "--sign-secret", SECRET_KEY])
    servers: list[Server] = [_raw(bench), _livegate(bench), *_able(peers, "b")]
    gateway = Livegate(bench.livegate, configs.signed, "livegate-signed", "each push with a SigV4 signature, checked")
    return [*(Case(server, "b", load) for server in servers), Case(gateway, "b", signed)]


def _broadcasts(bench: Bench, peers: list[Server]) -> list[Runnable]:
    load = Load("c", ["broadcast", "--conns", "5000", *bench.time()])
    servers: list[Server] = [_raw(bench), *_able(peers, "c")]
    return [Case(server, "c", load) for server in servers]


def _memory(bench: Bench, peers: list[Server]) -> list[Runnable]:
    command = ["memory", "--steps", "5000,10000,18000"]
    echoed = Load("d.echoed", [*command, "--echo", "32000"])
    servers: list[Server] = [_raw(bench), _livegate(bench), *_able(peers, "d")]
    plain: list[Runnable] = [Case(server, "d", Load("d", command)) for server in servers]
    after: list[Runnable] = [Case(server, "d", echoed) for server in (_raw(bench), _livegate(bench))]
    return plain + after + _over_tls(bench, peers, "d", Load("d.tls", command))


def _handshakes(bench: Bench, peers: list[Server]) -> list[Runnable]:
    load = Load("e", ["churn", *bench.time()])
    servers: list[Server] = [_raw(bench), _livegate(bench), *_able(peers, "e")]
    plain: list[Runnable] = [Case(server, "e", load) for server in servers]
    return plain + _over_tls(bench, peers, "e", Load("e.tls", load.command))


def _over_tls(bench: Bench, peers: list[Server], target: str, load: Load) -> list[Runnable]:
    servers: list[Server] = [_std(bench, "ws-echo", tls=True), Livegate(bench.livegate, configs.websocket, tls=True)]
    servers += [OverTls(peer) for peer in _able(peers, target) if hasattr(peer, "tls_start")]
    return [Case(server, target, load) for server in servers]


@dataclass(frozen=True)
class OverTls:
    """A peer that speaks TLS."""

    peer: Any

    @property
    def name(self) -> str:
        """As in plain."""
        return str(self.peer.name)

    @property
    def note(self) -> str:
        """As in plain."""
        return str(self.peer.note)

    def start(self, work: Path, core: int, backend_port: int) -> Running:
        """Starts it so that it does."""
        running: Running = self.peer.tls_start(work, core, backend_port)
        return running


def _http(bench: Bench, peers: list[Server]) -> list[Runnable]:
    command = ["http", "--conns", "64", "--expect", "128", *bench.time()]

    def at_half(report: Report) -> list[Load]:
        return [Load("f.half", [*command, "--rate", str(int(report["requests_per_s"] / 2))])]

    gateway = Livegate(bench.livegate, configs.proxy, path="/tiny", http=True)
    servers: list[Server] = [*_able(peers, "f"), _std(bench, "std-proxy"), gateway]
    return [Case(server, "f", Load("f", command), at_half) for server in servers]


def _http_memory(bench: Bench, peers: list[Server]) -> list[Runnable]:
    # A kept connection gives its buffers back after 2 s without a request.
    load = Load("g", ["memory", "--steps", "5000,10000", "--settle", "6"])
    gateway = Livegate(bench.livegate, configs.proxy, path="/tiny", http=True)
    # HAProxy wants two open files for a client, also for one that rests: more than many a machine grants.
    servers: list[Server] = [*(peer for peer in peers if peer.name == "nginx"), _std(bench, "std-proxy"), gateway]
    return [Case(server, "f", load) for server in servers]


def _http_routes(bench: Bench, peers: list[Server]) -> list[Runnable]:
    kinds = ["--path=/items{i}/4711", "--path=/files{i}/a/b/c.txt", "--path=/corner/orders{i}"]
    command = ["http", "--conns", "64", "--expect", "128", *kinds, *bench.time(), "--spread"]
    few, many = partial(configs.http_routes, 10), partial(configs.http_routes, 10_000)
    variants = (("livegate-10", few, "2"), ("livegate-10000", many, "2"), ("livegate-10000-all", many, "2000"))
    return [
        Case(Livegate(bench.livegate, config, name, path="/list{i}", http=True), "f", Load("h", [*command, spread]))
        for name, config, spread in variants
    ]


def _admission(bench: Bench, peers: list[Server]) -> list[Runnable]:
    headers = ["--header", f"X-Api-Key: {API_KEY}", "--header", f"Authorization: Bearer {TOKEN}"]
    load = Load("i", ["echo", "--conns", "64", "--expect", "128", *headers, *bench.time()])
    variants = (("plain", configs.websocket), ("http", configs.admitted_by_http), ("jwt", configs.admitted_by_jwt))
    return [
        Case(Livegate(bench.livegate, config, f"livegate-{name}", path="/prod?user={i}"), "a", load)
        for name, config in variants
    ]


def _watched(bench: Bench, peers: list[Server]) -> list[Runnable]:
    load = Load("j", ["echo", "--conns", "64", "--expect", "128", *bench.time()])
    gateways = (
        Livegate(bench.livegate, configs.websocket, "livegate-plain"),
        Livegate(bench.livegate, configs.watched, "livegate-watched", "to a pipe that is read", read_output=True),
        Livegate(bench.livegate, configs.watched_file, "livegate-file"),
    )
    return [Case(gateway, "a", load) for gateway in gateways]


def _latency(bench: Bench, peers: list[Server]) -> list[Runnable]:
    """Each at shares of its own saturation; beside the gateway the same rates straight to the backend."""

    def below(report: Report, direct: bool) -> list[Load]:
        loads = []
        for share in LATENCY_SHARES:
            rate = str(int(report["msgs_per_s"] * share / 100))
            command = ["echo", "--conns", "256", "--own", "--rate", rate, *bench.time()]
            loads.append(Load(f"latency.{share}", command))
            if direct:
                command = ["http", "--conns", "64", "--bytes", "128", "--rate", rate, *bench.time()]
                loads.append(Load(f"latency.{share}", command, direct=True))
        return loads

    saturated = Load("latency.full", ["echo", "--conns", "64", *bench.time()])
    servers: list[Server] = [_raw(bench), _std(bench, "std-gateway"), _livegate(bench), *_able(peers, "a")]
    return [
        Case(server, "a", saturated, partial(below, direct=server.name == "livegate"), backend=("--service-time",))
        for server in servers
    ]


def _soak(bench: Bench, peers: list[Server]) -> list[Runnable]:
    command = ["push", "--conns", "1000", "--publishers", "64", "--rate", "10000", "--held", "18000"]
    time = ["--duration", str(bench.soak_duration), "--warmup", str(bench.warmup)]
    return [Case(_livegate(bench), "b", Load("soak", [*command, *time]))]


def _storm(bench: Bench, peers: list[Server]) -> list[Runnable]:
    return [Storm(server) for server in (_raw(bench), _livegate(bench))]
