"""What a message costs as one thing grows and all others stay: connections, routes, payload, a slow backend, cores."""

from functools import partial

from bench import configs
from bench.runs import Bench, Case, Load
from bench.servers import Floor, Livegate, Server

CONNECTIONS = (100, 1000, 5000, 10_000, 18_000)
ROUTES = (1, 10, 100, 1000, 10_000)
PAYLOADS = (16, 128, 1024, 4096, 16_384, 65_536, 131_072)
DELAYS_MS = (0, 5, 50, 500)
CORES = {1: "0", 2: "0,1"}

# Title, what grows, and the field of the reports that says what a message costs.
CURVES = {
    "connections": ("Message, 64 in flight among all connections", "connections", "server_cpu_ms_per_1k_msgs"),
    "pushed": ("Push to all connections in turn", "connections", "server_cpu_ms_per_1k_deliveries"),
    "routes": ("Message among routes", "routes", "server_cpu_ms_per_1k_msgs"),
    "payload": ("Message and reply of a size", "bytes", "server_cpu_ms_per_1k_msgs"),
    "delay": ("Message to a slow backend, 10,000 calls in flight", "ms of delay", "server_cpu_ms_per_1k_msgs"),
    "cores": ("Message, 64 clients", "cores of the gateway", "server_cpu_ms_per_1k_msgs"),
}


def cases(bench: Bench, peers: list[Server]) -> list[Case]:
    """All points of all curves."""
    gateway, time = Livegate(bench.livegate, configs.websocket), bench.time()
    raw, std = Floor(bench.loadgen, "raw", "gateway"), Floor(bench.loadgen, "std", "std-gateway")
    echo = ["echo", *time, "--expect"]
    all_cases: list[Case] = []
    for n in CONNECTIONS:
        messages = Load(f"growth.connections.{n}", [*echo, "128", "--conns", str(n), "--active", "64"])
        pushes = Load(f"growth.pushed.{n}", ["push", "--conns", str(n), "--publishers", "32", *time])
        for server in (raw, gateway):
            all_cases += [Case(server, "a", messages), Case(server, "b", pushes)]
    for n in ROUTES:
        text = f'{{"action":"r{n // 2}","data":""}}'
        load = Load(f"growth.routes.{n}", [*echo, "128", "--text", text])
        all_cases.append(Case(Livegate(bench.livegate, partial(configs.websocket_routes, n)), "a", load))
    for n in PAYLOADS:
        # Short enough for 16 bytes; it has no `action`, and goes to `$default` as all others do.
        load = Load(f"growth.payload.{n}", [*echo, str(n), "--bytes", str(n), "--text", '{"d":""}'])
        all_cases += [Case(server, "a", load) for server in (raw, std, gateway)]
    for n in DELAYS_MS:
        # More in flight on each than `raw` and `std` take: theirs is one message at a time.
        load = Load(f"growth.delay.{n}", [*echo, "128", "--conns", "1000", "--depth", "10"])
        options = ("--delay-ms", str(n)) if n else ()
        all_cases.append(Case(Livegate(bench.livegate, configs.many_calls), "a", load, backend=options))
    for n, cores in CORES.items():
        load = Load(f"growth.cores.{n}", [*echo, "128"])
        all_cases.append(Case(Livegate(bench.livegate, configs.websocket, cores=cores), "a", load))
    return all_cases
