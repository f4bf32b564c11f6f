"""Servers for pools, each a process of its own that can be killed.

    server = Server("a")                 # at server.address, for `servers = […]`
    server.tell(health=500)              # how it behaves from now on, see `Behaviour`
    server.calls                         # what it was asked, also after it was killed

A process is told lines of JSON on its standard input and tells lines of JSON on its standard output: of each call
before it is answered, and of each connection's end.
"""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass

from backend import PATIENCE, listen_below_the_ephemeral_ports


@dataclass
class Behaviour:
    status: int = 200
    # What its health check is answered.
    health: int = 200
    # Calls are recorded and wait until this is false again.
    hold: bool = False
    # Calls are recorded and the connection closed in place of an answer.
    hangs_up: bool = False


# The side of the tests


class Server:
    """One process. Its answers are JSON: its name, and what it was asked."""

    def __init__(self, name, *, unix=None, tls=None, client_ca=None, http2=False, **behaviour):
        self.name = name
        self._how = {"name": name, "unix": unix and str(unix), "tls": tls and str(tls),
                     "client_ca": client_ca and str(client_ca), "http2": http2}
        self._behaviour = Behaviour(**behaviour)
        self._news = threading.Condition()
        self._calls, self._checks, self.closed, self._heard = [], 0, [], 0
        self.port = None if unix else free_port()
        self.address = f"unix:{unix}" if unix else f"127.0.0.1:{self.port}"
        self.start()

    def start(self):
        """Starts it, or starts it again where it was."""
        how = {**self._how, "port": self.port, "behaviour": asdict(self._behaviour)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(how)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline() or "{}") == {"listening": True}
        self._reading = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reading.start()

    def _read(self, process):
        for line in process.stdout:
            if not line.endswith("\n"):
                # It was killed in the middle of it.
                return
            told = json.loads(line)
            with self._news:
                if "call" in told:
                    self._calls.append(told["call"])
                elif "closed" in told:
                    self.closed.append(told["closed"])
                self._checks += "check" in told
                self._heard += "heard" in told
                self._news.notify_all()

    def tell(self, **behaviour):
        """From now on; it is so when this returns."""
        self._behaviour = Behaviour(**{**asdict(self._behaviour), **behaviour})
        enough = self._heard + 1
        self.process.stdin.write(json.dumps(asdict(self._behaviour)) + "\n")
        self.process.stdin.flush()
        self._wait(lambda: self._heard >= enough, "it to have heard")

    @property
    def calls(self):
        """Every call so far, checks of its health aside."""
        self._catch_up()
        return list(self._calls)

    @property
    def checks(self):
        """How often its health was asked for."""
        self._catch_up()
        return self._checks

    def _catch_up(self):
        """What was told before is known when this returns."""
        if self.process.poll() is None:
            self.tell()

    def at(self, path):
        return [call for call in self.calls if call["target"].split("?")[0] == path]

    def wait_for_calls(self, count):
        self._wait(lambda: len(self._calls) >= count, f"{count} calls")
        return list(self._calls)

    def wait_for_checks(self, more):
        """Waits for so many checks from now on."""
        enough = self.checks + more
        self._wait(lambda: self._checks >= enough, f"{more} checks")

    def wait_for_closed(self, connection):
        self._wait(lambda: connection in self.closed, f"the end of {connection}")

    def _wait(self, look, what):
        with self._news:
            assert self._news.wait_for(look, PATIENCE), \
                f"{self.name} waited {PATIENCE:.0f} s for {what}; it has {len(self._calls)} calls, {self.closed}"

    def kill(self):
        """SIGKILL. What it told before is read to the end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reading.join()
        self.process.stdin.close()
        self.process.stdout.close()


def free_port():
    """A port that no outgoing connection takes, neither now nor while the server is dead."""
    with listen_below_the_ephemeral_ports() as listener:
        return listener.getsockname()[1]


# The side of the process


class Serving:
    def __init__(self, how):
        self.how, self.name = how, how["name"]
        self.behaviour = Behaviour(**how["behaviour"])
        self.changed = asyncio.Condition()
        self.connections = 0

    async def run(self):
        how = self.how
        context = None
        if how["tls"]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(how["tls"])
            context.set_alpn_protocols(["h2"] if how["http2"] else ["http/1.1"])
            if how["client_ca"]:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(how["client_ca"])
        if how["unix"]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(how["unix"])
            await asyncio.start_unix_server(self.connection, how["unix"], ssl=context)
        else:
            await asyncio.start_server(self.connection, "127.0.0.1", how["port"], ssl=context, backlog=1024)
        say(listening=True)
        orders = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            async with self.changed:
                self.behaviour = Behaviour(**json.loads(line))
                self.changed.notify_all()
            say(heard=True)

    async def connection(self, reader, writer):
        self.connections += 1
        number = self.connections
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            await (self.http_2 if self.how["http2"] else self.http_1)(reader, writer, number)
        say(closed=number)
        writer.close()

    async def http_1(self, reader, writer, number):
        while line := await reader.readline():
            method, target, _ = line.decode().split()
            headers = []
            while (line := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers.append((name.lower(), value.strip()))
            given = dict(headers)
            body = b""
            if given.get("transfer-encoding") == "chunked":
                while size := int(await reader.readline(), 16):
                    body += await reader.readexactly(size)
                    await reader.readline()
                await reader.readline()
            elif length := int(given.get("content-length", 0)):
                body = await reader.readexactly(length)
            answer = await self.answer(method, target, headers, body, number)
            if answer is None:
                return
            status, text = answer
            head = f"HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
            writer.write(head.encode() + text)
            await writer.drain()

    async def http_2(self, reader, writer, number):
        import h2.config
        import h2.connection
        import h2.events

        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        writer.write(http.data_to_send())
        streams = {}

        async def answer(stream):
            headers, body = streams.pop(stream)
            given = dict(headers)
            got = await self.answer(given[":method"], given[":path"], headers, body, number)
            if got is None:
                return writer.close()
            status, text = got
            http.send_headers(stream, [(":status", str(status)), ("content-type", "application/json")])
            http.send_data(stream, text, end_stream=True)
            writer.write(http.data_to_send())

        while data := await reader.read(65536):
            for event in http.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    streams[event.stream_id] = [list(event.headers), b""]
                elif isinstance(event, h2.events.DataReceived):
                    streams[event.stream_id][1] += event.data
                    http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    asyncio.create_task(answer(event.stream_id))
            writer.write(http.data_to_send())

    async def answer(self, method, target, headers, body, number):
        """Status and body; None hangs up."""
        if target == "/healthz":
            say(check=True)
            return self.behaviour.health, b""
        call = {"method": method, "target": target, "headers": headers, "body": body.decode(), "connection": number}
        say(call=call)
        async with self.changed:
            await self.changed.wait_for(lambda: not self.behaviour.hold)
        if self.behaviour.hangs_up:
            return None
        return self.behaviour.status, json.dumps({"server": self.name, **call}).encode()


def say(**news):
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(Serving(json.loads(sys.argv[1])).run())
