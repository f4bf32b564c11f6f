"""What is aimed at, as data: each goal is a ratio to another server of the same run, or a figure as it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A figure of the gateway, and how far down it should be (`more_is_better`: up)."""

    title: str
    label: str
    field: str
    beside: str
    goal: float
    strong: float | None = None
    moonshot: float | None = None
    server: str = "livegate"
    more_is_better: bool = False

    def verdict(self, value: float) -> str:
        """How far the value got."""
        for name, bound in (("moonshot", self.moonshot), ("strong", self.strong), ("reached", self.goal)):
            if bound is not None and (value >= bound if self.more_is_better else value <= bound):
                return name
        return "MISSED"


_MESSAGES = "server_cpu_ms_per_1k_msgs"
_HANDSHAKES = "server_cpu_ms_per_1k_handshakes"
_KIB = "server_kib_per_conn"

# `beside` is empty where the figure itself is the goal. "Below the floor" is written as 0.99 times it.
GOALS = [
    Goal("a. Message to a backend and back, CPU", "a", _MESSAGES, "raw", 1.6, 1.35, 0.99),
    Goal("a. One client, p50", "a.one", "latency_us.p50", "raw", 1.5, 1.2, 1.0),
    Goal("b. Push, CPU", "b", "server_cpu_ms_per_1k_deliveries", "raw", 1.35, 1.15, 0.99),
    Goal("c. Broadcast, CPU per delivery", "c", "server_cpu_ms_per_1k_deliveries", "raw", 1.15, 1.05, 0.85),
    Goal("d. Memory of an idle connection, KiB", "d", _KIB, "", 4.0, 2.5, 1.9),
    Goal("d. The same over TLS, KiB", "d.tls", _KIB, "", 16.0, 10.0, 5.0),
    Goal("e. Handshake, CPU", "e", _HANDSHAKES, "raw", 1.15, 1.05, 1.0),
    Goal("e. Handshake over TLS, CPU", "e.tls", _HANDSHAKES, "std", 1.15, 1.05, 0.85),
    Goal("f. HTTP request, CPU", "f", "server_cpu_ms_per_1k_requests", "nginx", 1.1, 0.95, 0.75),
    Goal("i. Admission by HTTP, CPU", "i", _MESSAGES, "livegate-plain", 1.15, server="livegate-http"),
    Goal("i. Admission by token, CPU", "i", _MESSAGES, "livegate-plain", 1.15, server="livegate-jwt"),
    Goal("j. Everything written down, CPU", "j", _MESSAGES, "livegate-plain", 1.05, server="livegate-watched"),
    Goal("Connections on one machine", "million", "held", "", 200_000, 1_000_000, more_is_better=True),
    Goal("A gateway's own memory for each of them, KiB", "million", _KIB, "", 4.0, 4.0, 4.0),
]
