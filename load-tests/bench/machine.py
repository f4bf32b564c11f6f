"""What the machine is, and what it grants: cores, open files, ports, memory, certificates."""

import os
import random
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

SERVER_CORE = 0
LOAD_CORE = 1

# Debian keeps servers where an ordinary user's PATH does not look.
os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Failure(Exception):
    """Something that ends the whole run, told to the user as it is."""


def require_cores() -> None:
    """Fails unless the server can have one core and the generator another."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0) or shutil.which("taskset") is None:
        raise Failure("cores 0 and 1 are wanted: one for the server, one for the generator")


def raise_open_files() -> int:
    """Raises the limit of open files to what is granted, for this process and all that it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def pinned(cores: str, command: list[str]) -> list[str]:
    """The command, on these cores only."""
    return ["taskset", "-c", cores, *command]


def free_port() -> int:
    """A port on which nobody listens, below those that the kernel gives to clients."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def available_kib() -> int:
    """The memory that the whole machine has left."""
    return _meminfo("MemAvailable")


def rss_kib(pid: int) -> int:
    """The resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    # The name in brackets may hold anything: what counts stands behind the last one.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def deep_loopback(packets: int) -> Iterator[int]:
    """Lets so many packets wait on loopback, where that is allowed (to root); gives what is then in force.

    The keep-alive probes of connections that were opened together go out together. Where only 1,000 packets may wait,
    most of them are dropped, and the kernel takes thousands of connections for dead.
    """
    setting = Path("/proc/sys/net/core/netdev_max_backlog")
    before = setting.read_text().strip()
    with suppress(PermissionError):
        setting.write_text(str(max(packets, int(before))))
    try:
        yield int(setting.read_text())
    finally:
        with suppress(PermissionError):
            setting.write_text(before)


def certificate(work: Path) -> tuple[Path, Path] | None:
    """A certificate for localhost with its key (P-256, as public CAs issue them), or nothing without openssl."""
    if shutil.which("openssl") is None:
        return None
    cert, key = work / "cert.pem", work / "key.pem"
    if not cert.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run([*command, "-out", str(cert), "-keyout", str(key)], check=True, capture_output=True)
    return cert, key


def facts(root: Path, open_files: int) -> dict[str, str]:
    """What a reader needs to know of the machine and of the source."""
    processor = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory = round(_meminfo("MemTotal") / 1024 / 1024)
    kernel = os.uname().release.partition("-")[0]
    return {
        "machine": f"{os.cpu_count()} cores ({processor}), {memory} GiB, Linux {kernel}, {_system()}",
        "limits": f"{open_files} open files a process",
        "compiler": " ".join(_output(["rustc", "--version"]).split()[:2]),
        "commit": _commit(root),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _meminfo(key: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))


def _system() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "unknown"


def _commit(root: Path) -> str:
    commit = _output(["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"]) or "unknown"
    changed = _output(
        ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.lock"]
    )
    return commit + (" and uncommitted changes" if changed else "")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
