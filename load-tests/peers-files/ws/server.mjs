// A gateway as one writes it with ws: each message is POSTed to the backend and its answer sent back; POST /pub/NAME
// sends to the client that connected to /sub/NAME, POST /pub/all to all of them.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { Pool } from "undici";
import { WebSocketServer } from "ws";

const [port, backend, cert, key] = process.argv.slice(2);
const pool = new Pool(`http://127.0.0.1:${backend}`, { connections: 64 });
const clients = new Map();

function publish(request, response) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    const name = request.url.slice("/pub/".length);
    if (name === "all") {
      for (const client of server.clients) client.send(body, { binary: false });
    } else {
      clients.get(name)?.send(body, { binary: false });
    }
    response.end();
  });
}

const listener = cert
  ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, publish)
  : http.createServer(publish);
const server = new WebSocketServer({ server: listener });

server.on("connection", (socket, request) => {
  const name = request.url.slice("/sub/".length);
  clients.set(name, socket);
  socket.on("error", () => {});
  socket.on("close", () => clients.delete(name));
  socket.on("message", async (message) => {
    try {
      const { body } = await pool.request({ method: "POST", path: "/", body: message });
      socket.send(await body.text());
    } catch {
      socket.close(1011);
    }
  });
});

listener.listen({ host: "127.0.0.1", port: Number(port), backlog: 4096 });
