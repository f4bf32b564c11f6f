// The demo's chat backend with Node's own HTTP server and the AWS SDK.
//
// An ordinary HTTP server: the gateway posts to /connect, /disconnect, /join and /message, and the SDK's
// `ApiGatewayManagementApiClient` pushes back, exactly as it would from behind Amazon API Gateway. It does the same
// job as ../chat, and serves the same page.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import {
  ApiGatewayManagementApiClient,
  GoneException,
  PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";

const PORT = Number(process.env.PORT ?? 3000);
const WEBSOCKET_URL = "prod"; // as seen from the page: the gateway has both on the same host and port
const PAGE = new URL("../chat/page/", import.meta.url);
const FILES = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/chat.css": ["chat.css", "text/css; charset=utf-8"],
  "/chat.js": ["chat.js", "text/javascript; charset=utf-8"],
};
const CONTENT_SECURITY_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

// Strangers fill all of this, so all of it has a bound.
const MAX_BODY_BYTES = 128 * 1024; // what the gateway lets through
const MAX_ROOMS = 200;
const MAX_MEMBERS = 100;
const MAX_NAME = 32;
const MAX_TEXT = 1000;
const LISTED_ROOMS = 50;
const RECENT_MESSAGES = 50;
const RECENT_BYTES = 96 * 1024; // a push may have 128 KiB, and all recent messages travel in one
const OUTBOX_FRAMES = 256;

/** Why a caller did not get what it asked for, in words for whoever typed it. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// --- pushing ----------------------------------------------------------------------------------------------

const clients = new Map(); // one for each stage; a backend has few

function gateway(endpoint) {
  let client = clients.get(endpoint);
  if (!client) {
    // The region is part of the signature only, so any will do. The SDK retries what may pass by itself.
    const region = process.env.AWS_REGION ?? "us-east-1";
    client = new ApiGatewayManagementApiClient({
      endpoint,
      region,
      maxAttempts: 3,
      requestHandler: { connectionTimeout: 2000, requestTimeout: 5000, httpAgent: { keepAlive: true, maxSockets: 16 } },
    });
    clients.set(endpoint, client);
  }
  return client;
}

/** A browser: what it still has to be told waits here and goes out one by one, so order is kept. */
class Member {
  constructor(id, callbackUrl) {
    this.id = id;
    this.name = "";
    // http://host/stage/@connections/id: the SDK adds the last two parts itself.
    this.endpoint = callbackUrl.split("/@connections/")[0];
    this.outbox = [];
    this.sending = false;
  }

  send(frame) {
    if (this.outbox.length >= OUTBOX_FRAMES) {
      console.error(`chat: ${this.id} is ${OUTBOX_FRAMES} frames behind; dropped one`);
      return;
    }
    this.outbox.push(frame);
    if (!this.sending) this.deliver();
  }

  async deliver() {
    this.sending = true;
    while (this.outbox.length) {
      try {
        const command = new PostToConnectionCommand({ ConnectionId: this.id, Data: this.outbox.shift() });
        await gateway(this.endpoint).send(command);
      } catch (error) {
        if (error instanceof GoneException) {
          // The socket closed and its $disconnect is still on the way, or was lost.
          this.outbox.length = 0;
          leave(this.id);
        } else {
          console.error(`chat: a push to ${this.id} failed and is dropped: ${error.name}: ${error.message}`);
        }
      }
    }
    this.sending = false;
  }
}

// --- rooms ------------------------------------------------------------------------------------------------

const rooms = new Map(); // name -> { members, recent, recentBytes, lastUsed }
const roomOf = new Map(); // connection id -> room name

function join(id, callbackUrl, body) {
  const name = tidy(body, "name", MAX_NAME);
  const roomName = tidy(body, "room", MAX_NAME);
  makeSpace(id, roomName);
  const member = remove(id) ?? new Member(id, callbackUrl);
  member.name = name;
  if (!rooms.has(roomName)) rooms.set(roomName, { members: [], recent: [], recentBytes: 0, lastUsed: Date.now() });
  const room = rooms.get(roomName);
  member.send(JSON.stringify({ type: "joined", room: roomName, name, recent: room.recent }));
  room.members.push(member);
  roomOf.set(id, roomName);
  tellMembers(roomName);
}

function say(id, body) {
  const text = tidy(body, "text", MAX_TEXT);
  const room = rooms.get(roomOf.get(id));
  if (!room) throw new Refused(409, "join a room first");
  const from = room.members.find((member) => member.id === id).name;
  const message = { type: "message", from, text, at: Date.now() };
  const bytes = (value) => Buffer.byteLength(JSON.stringify(value));
  room.recent.push(message);
  room.recentBytes += bytes(message);
  while (room.recent.length > RECENT_MESSAGES || room.recentBytes > RECENT_BYTES) {
    room.recentBytes -= bytes(room.recent.shift());
  }
  tell(room, message);
}

/** Forgets a connection; one that is not here is fine. */
function leave(id) {
  remove(id);
}

/** Where somebody is, the fullest room first: what the page offers to who looks for one. */
function listRooms() {
  const all = [...rooms].map(([room, { members }]) => ({ room, members: members.length }));
  const used = all.filter(({ members }) => members);
  used.sort((one, other) => other.members - one.members || (one.room < other.room ? -1 : 1));
  return { rooms: used.slice(0, LISTED_ROOMS) };
}

function makeSpace(id, roomName) {
  const room = rooms.get(roomName);
  if (room) {
    if (room.members.length >= MAX_MEMBERS && roomOf.get(id) !== roomName) {
      throw new Refused(409, `the room ${roomName} is full (${MAX_MEMBERS} members); try another one`);
    }
  } else if (rooms.size >= MAX_ROOMS) {
    const empty = [...rooms].filter(([, { members }]) => !members.length);
    if (!empty.length) throw new Refused(409, `there are ${MAX_ROOMS} rooms already; join one that exists`);
    const [oldest] = empty.reduce((one, other) => (other[1].lastUsed < one[1].lastUsed ? other : one));
    rooms.delete(oldest);
  }
}

function remove(id) {
  const roomName = roomOf.get(id);
  if (!roomOf.delete(id)) return null;
  const room = rooms.get(roomName);
  const [member] = room.members.splice(room.members.findIndex((one) => one.id === id), 1);
  room.lastUsed = Date.now();
  tellMembers(roomName);
  return member;
}

function tellMembers(roomName) {
  const room = rooms.get(roomName);
  tell(room, { type: "members", room: roomName, members: room.members.map(({ name }) => name) });
}

function tell(room, message) {
  const frame = JSON.stringify(message);
  for (const member of room.members) member.send(frame);
}

function tidy(body, key, most) {
  if (typeof body?.[key] !== "string") throw new Refused(400, `the message needs a text \`${key}\``);
  const text = body[key].trim();
  const characters = [...text].length;
  if (!characters) throw new Refused(400, `the ${key} is empty`);
  if (characters > most) throw new Refused(400, `the ${key} has ${characters} characters; ${most} is the most`);
  return text;
}

// --- HTTP -------------------------------------------------------------------------------------------------

async function answer(request, response) {
  const path = request.url.split("?")[0];
  if (request.method === "POST") {
    const body = await read(request);
    // What this answers becomes a frame to the caller, since the routes are two-way: nothing, or the error.
    call(path, request, body);
    return respond(response, 200, "application/json", "");
  }
  if (path === "/config.json") {
    return respond(response, 200, "application/json", JSON.stringify({ websocket_url: WEBSOCKET_URL }));
  }
  if (path === "/rooms") return respond(response, 200, "application/json", JSON.stringify(listRooms()));
  if (!Object.hasOwn(FILES, path)) throw new Refused(404, `there is no page ${path} here; try /`);
  const [name, contentType] = FILES[path];
  respond(response, 200, contentType, await readFile(new URL(name, PAGE)));
}

function call(path, request, body) {
  if (!["/connect", "/disconnect", "/join", "/message"].includes(path)) {
    throw new Refused(404, `there is no POST ${path} here`);
  }
  const id = header(request, "X-Livegate-Connection-Id");
  const callbackUrl = header(request, "X-Livegate-Callback-Url");
  if (path === "/disconnect") leave(id); // may come twice, and for somebody who never joined
  else if (path === "/join") join(id, callbackUrl, parse(body));
  else if (path === "/message") say(id, parse(body));
  // And everybody may /connect. A backend that is choosier answers 401 or 403.
}

function header(request, name) {
  const value = request.headers[name.toLowerCase()];
  if (!value) throw new Refused(400, `the header ${name} is missing; call this through the gateway`);
  return value;
}

async function read(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  if (bytes > MAX_BODY_BYTES) throw new Refused(413, `a message may have ${MAX_BODY_BYTES} bytes`);
  return Buffer.concat(chunks).toString("utf8");
}

function parse(body) {
  try {
    return JSON.parse(body);
  } catch (error) {
    throw new Refused(400, `the message is no JSON: ${error.message}`);
  }
}

function respond(response, status, contentType, body) {
  response.writeHead(status, {
    "Content-Type": contentType,
    "Content-Length": Buffer.byteLength(body),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
  });
  response.end(body);
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    if (!(error instanceof Refused)) console.error("chat:", error);
    const [status, message] = error instanceof Refused ? [error.status, error.message] : [500, "the chat stumbled"];
    respond(response, status, "application/json", JSON.stringify({ type: "error", message }));
  });
});
// The gateway keeps its connections open between messages; Node's five seconds would close them under its hands.
server.keepAliveTimeout = 120_000;

// Loopback only: whoever reaches this port is believed to be the gateway.
server.listen(PORT, "127.0.0.1", () => {
  console.log(`chat backend on 127.0.0.1:${server.address().port}; its page is reached through the gateway`);
});

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));
