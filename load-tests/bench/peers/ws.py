"""ws, the WebSocket library of Node.js, in a small program of the kind that one writes with it.

Its README: bufferutil beside it, no compression. Backends are called with undici's pooled client, as Node.js's own advice is.
"""

from bench.peers import NodeProgram


class Ws(NodeProgram):
    """A program on ws."""

    name = library = "ws"
    note = "a program of 50 lines, which checks nothing"
    packages = {"npm": ["ws", "bufferutil", "undici"]}
    ready_path = "/sub/ready"

    def client(self, url: str) -> tuple[list[str], list[str]]:
        """Its channel is in its path."""
        return ["--url", f"{url}/sub/c{{i}}"], []
