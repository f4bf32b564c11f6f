"""The demo's chat backend with Python's standard library and boto3.

An ordinary HTTP server: the gateway posts to /connect, /disconnect, /join and /message, and boto3's
`apigatewaymanagementapi` pushes back, exactly as it would from behind Amazon API Gateway. It does the same job as
../chat, and serves the same page.
"""

import json
import logging
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PORT = int(os.environ.get("PORT", "3000"))
WEBSOCKET_URL = "prod"  # as seen from the page: the gateway has both on the same host and port
PAGE = Path(__file__).resolve().parent.parent / "chat" / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/chat.css": ("chat.css", "text/css; charset=utf-8"),
    "/chat.js": ("chat.js", "text/javascript; charset=utf-8"),
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Strangers fill all of this, so all of it has a bound.
MAX_BODY_BYTES = 128 * 1024  # what the gateway lets through
MAX_ROOMS = 200
MAX_MEMBERS = 100
MAX_NAME = 32
MAX_TEXT = 1000
LISTED_ROOMS = 50
RECENT_MESSAGES = 50
RECENT_BYTES = 96 * 1024  # a push may have 128 KiB, and all recent messages travel in one
OUTBOX_FRAMES = 256
PARALLEL_PUSHES = 16

log = logging.getLogger("chat")
pushes = ThreadPoolExecutor(PARALLEL_PUSHES, thread_name_prefix="push")


class Refused(Exception):
    """Why a caller did not get what it asked for, in words for whoever typed it."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


@lru_cache(maxsize=8)
def gateway(endpoint):
    """One client for each stage; boto3's clients may be shared between threads, and retry by themselves."""
    config = Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=PARALLEL_PUSHES,
        proxies={},  # the gateway is near; a proxy meant for the internet would not find it
    )
    # The region is part of the signature only, so any will do.
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.client("apigatewaymanagementapi", endpoint_url=endpoint, region_name=region, config=config)


class Member:
    """A browser: what it still has to be told waits here, and one thread at a time sends it, so order is kept."""

    def __init__(self, connection_id, callback_url):
        self.id = connection_id
        self.name = ""
        # http://host/stage/@connections/id: the SDK adds the last two parts itself.
        self.endpoint = callback_url.split("/@connections/")[0]
        self.lock = threading.Lock()
        self.outbox = deque()
        self.sending = False

    def send(self, frame):
        with self.lock:
            if len(self.outbox) >= OUTBOX_FRAMES:
                log.warning("%s is %d frames behind; dropped one", self.id, OUTBOX_FRAMES)
                return
            self.outbox.append(frame)
            if self.sending:
                return
            self.sending = True
        pushes.submit(self.deliver)

    def deliver(self):
        while True:
            with self.lock:
                if not self.outbox:
                    self.sending = False
                    return
                frame = self.outbox.popleft()
            try:
                client = gateway(self.endpoint)
                client.post_to_connection(ConnectionId=self.id, Data=frame)
            except client.exceptions.GoneException:
                # The socket closed and its $disconnect is still on the way, or was lost.
                with self.lock:
                    self.outbox.clear()
                leave(self.id)
            except (BotoCoreError, ClientError) as error:
                log.warning("a push to %s failed and is dropped: %s", self.id, error)


class Room:
    def __init__(self):
        self.members = []
        self.recent = deque()
        self.recent_bytes = 0
        self.last_used = time.monotonic()

    def tell(self, message):
        frame = encode(message)
        for member in self.members:
            member.send(frame)

    def remember(self, message):
        self.recent.append(message)
        self.recent_bytes += len(encode(message))
        while len(self.recent) > RECENT_MESSAGES or self.recent_bytes > RECENT_BYTES:
            self.recent_bytes -= len(encode(self.recent.popleft()))


lock = threading.Lock()  # over the two below; held for decisions only, never while pushing
rooms = {}
room_of = {}  # connection id -> room name


def join(connection_id, callback_url, body):
    name = tidy(body, "name", MAX_NAME)
    room_name = tidy(body, "room", MAX_NAME)
    with lock:
        make_space(connection_id, room_name)
        member = remove(connection_id) or Member(connection_id, callback_url)
        member.name = name
        room = rooms.setdefault(room_name, Room())
        member.send(encode({"type": "joined", "room": room_name, "name": name, "recent": list(room.recent)}))
        room.members.append(member)
        room_of[connection_id] = room_name
        tell_members(room_name)


def say(connection_id, body):
    text = tidy(body, "text", MAX_TEXT)
    with lock:
        room = rooms.get(room_of.get(connection_id))
        if room is None:
            raise Refused(409, "join a room first")
        sender = next(member.name for member in room.members if member.id == connection_id)
        message = {"type": "message", "from": sender, "text": text, "at": time.time_ns() // 1_000_000}
        room.remember(message)
        room.tell(message)


def leave(connection_id):
    """Forgets a connection; one that is not here is fine."""
    with lock:
        remove(connection_id)


def list_rooms():
    """Where somebody is, the fullest room first: what the page offers to who looks for one."""
    with lock:
        used = [(name, len(room.members)) for name, room in rooms.items() if room.members]
    used.sort(key=lambda one: (-one[1], one[0]))
    return {"rooms": [{"room": name, "members": members} for name, members in used[:LISTED_ROOMS]]}


def make_space(connection_id, room_name):
    room = rooms.get(room_name)
    if room is not None:
        if len(room.members) >= MAX_MEMBERS and room_of.get(connection_id) != room_name:
            raise Refused(409, f"the room {room_name} is full ({MAX_MEMBERS} members); try another one")
    elif len(rooms) >= MAX_ROOMS:
        empty = [name for name, room in rooms.items() if not room.members]
        if not empty:
            raise Refused(409, f"there are {MAX_ROOMS} rooms already; join one that exists")
        del rooms[min(empty, key=lambda name: rooms[name].last_used)]


def remove(connection_id):
    room_name = room_of.pop(connection_id, None)
    if room_name is None:
        return None
    room = rooms[room_name]
    member = next(member for member in room.members if member.id == connection_id)
    room.members.remove(member)
    room.last_used = time.monotonic()
    tell_members(room_name)
    return member


def tell_members(room_name):
    room = rooms[room_name]
    room.tell({"type": "members", "room": room_name, "members": [member.name for member in room.members]})


def tidy(body, key, most):
    text = body.get(key) if isinstance(body, dict) else None
    if not isinstance(text, str):
        raise Refused(400, f"the message needs a text `{key}`")
    text = text.strip()
    if not text:
        raise Refused(400, f"the {key} is empty")
    if len(text) > most:
        raise Refused(400, f"the {key} has {len(text)} characters; {most} is the most")
    return text


def encode(message):
    # JSON may name half of a surrogate pair, UTF-8 cannot: it becomes a question mark.
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the gateway keeps its connections open
    disable_nagle_algorithm = True

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in FILES:
            name, content_type = FILES[path]
            self.respond(200, content_type, (PAGE / name).read_bytes())
        elif path == "/config.json":
            self.respond(200, "application/json", encode({"websocket_url": WEBSOCKET_URL}))
        elif path == "/rooms":
            self.respond(200, "application/json", encode(list_rooms()))
        else:
            self.refuse(404, f"there is no page {path} here; try /")

    def do_POST(self):
        try:
            self.call()
        except Refused as refused:
            self.refuse(refused.status, str(refused))

    def call(self):
        """What this answers becomes a frame to the caller, since the routes are two-way: nothing, or the error."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True  # since the body stays unread
            raise Refused(413, f"a message may have {MAX_BODY_BYTES} bytes")
        body = self.rfile.read(length)
        path = self.path.split("?")[0]
        if path not in ("/connect", "/disconnect", "/join", "/message"):
            raise Refused(404, f"there is no POST {path} here")
        connection_id = self.header("X-Livegate-Connection-Id")
        callback_url = self.header("X-Livegate-Callback-Url")
        if path == "/disconnect":
            leave(connection_id)  # may come twice, and for somebody who never joined
        elif path == "/join":
            join(connection_id, callback_url, parse(body))
        elif path == "/message":
            say(connection_id, parse(body))
        # And everybody may /connect. A backend that is choosier answers 401 or 403.
        self.respond(200, "application/json", b"")

    def header(self, name):
        value = self.headers.get(name)
        if not value:
            raise Refused(400, f"the header {name} is missing; call this through the gateway")
        return value

    def refuse(self, status, message):
        self.respond(status, "application/json", encode({"type": "error", "message": message}))

    def respond(self, status, content_type, body):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass  # the gateway has an access log; here only failures are worth a line


def parse(body):
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refused(400, f"the message is no JSON: {error}") from None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many browsers may come back at once


def stop(_signal, _frame):
    raise SystemExit(0)


def main():
    logging.basicConfig(format="chat: %(message)s")
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # Loopback only: whoever reaches this port is believed to be the gateway.
    with Server(("127.0.0.1", PORT), Handler) as server:
        print(f"chat backend on 127.0.0.1:{server.server_port}; its page is reached through the gateway", flush=True)
        try:
            server.serve_forever()
        finally:
            pushes.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    main()
