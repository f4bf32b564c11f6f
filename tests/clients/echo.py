"""An echoing backend in a process of its own, for the tests that need speed: prints its port and answers every POST with its body."""

import asyncio


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self._transport, self._got = transport, b""

    def data_received(self, data):
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15:].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._got) < end + 4 + size:
                return
            body, self._got = self._got[end + 4:end + 4 + size], self._got[end + 4 + size:]
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, body))


async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
