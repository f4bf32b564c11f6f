"""Finds the peers, each of which is a module of `bench.peers` with one class."""

import importlib
import pkgutil
import shutil
from pathlib import Path
from typing import Any

from bench.machine import Failure

# With what HTTP is compared also unasked, where the machine has it.
DEFAULT = ("nginx", "haproxy")


def names() -> list[str]:
    """All peers there are."""
    folder = Path(__file__).parent / "peers"
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules([str(folder)]))


def find(name: str) -> Any:
    """The peer of this name."""
    if name not in names():
        raise Failure(f"`{name}` is no peer; there are {', '.join(names()) or 'none'}")
    module = importlib.import_module("bench.peers." + name.replace("-", "_"))
    for found in vars(module).values():
        if isinstance(found, type) and getattr(found, "name", None) == name:
            return found()
    raise Failure(f"bench/peers has no class for `{name}`")


def installed() -> list[Any]:
    """Those for HTTP that are installed."""
    return [find(name) for name in DEFAULT if name in names() and shutil.which(name)]
