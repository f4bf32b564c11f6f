"""Many clients in one asyncio loop: raw frames over streams, a fraction of a `websockets` client's cost."""

import asyncio
import struct

from wire import CLOSE, CONTINUATION, PING, TEXT, frame, handshake


class Member:
    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    @classmethod
    async def join(cls, gateway, path="/prod"):
        reader, writer = await asyncio.open_connection(*gateway.address)
        writer.write(handshake(path, gateway.host))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return cls(reader, writer)

    def send(self, text):
        self._writer.write(frame(TEXT, text))

    async def hears(self):
        """The next text message; None for a Close, whose code is kept."""
        text = b""
        while True:
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size, = struct.unpack("!H", await self._reader.readexactly(2))
            elif size == 127:
                size, = struct.unpack("!Q", await self._reader.readexactly(8))
            payload, opcode = await self._reader.readexactly(size), first & 0xF
            if opcode == CLOSE:
                self.close_code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                self._writer.write(frame(CLOSE, payload))
                return None
            if opcode in (TEXT, CONTINUATION):
                text += payload
                if first & 0x80:
                    return text.decode()
            else:
                assert opcode == PING, opcode

    async def ended(self):
        assert await self.hears() is None
        return self.close_code

    def leave(self):
        self._writer.close()


async def swarm(gateway, count, at_once=64):
    """`count` members, joined a few at a time."""
    turn = asyncio.Semaphore(at_once)

    async def one():
        async with turn:
            return await Member.join(gateway)
    return await asyncio.gather(*(one() for _ in range(count)))


