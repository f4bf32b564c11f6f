"""Socket.IO, in a small program of the kind that one writes with it.

Its guides for performance and memory: the ws engine with bufferutil, WebSocket as the only transport, and each client's
first request forgotten. Backends are called with undici's pooled client.
"""

from bench.peers import NodeProgram


class SocketIo(NodeProgram):
    """A program on Socket.IO."""

    name = "socketio"
    library = "socket.io"
    note = "a program of 50 lines, which checks nothing; its own protocol in WebSocket messages"
    packages = {"npm": ["socket.io", "bufferutil", "undici"]}
    ready_path = "/socket.io/?EIO=4&transport=websocket"

    def client(self, url: str) -> tuple[list[str], list[str]]:
        """A message is an event without a payload of its own."""
        return ["--adapter", "socket-io", "--url", f"{url}{self.ready_path}&name=c{{i}}"], ["--text", '42["m",""]']
