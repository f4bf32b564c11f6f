// A gateway as one writes it with Socket.IO: each event `m` is POSTed to the backend and its answer emitted; POST /pub/NAME
// emits to the client that connected with `?name=NAME`, POST /pub/all to all of them.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { Server } from "socket.io";
import { Pool } from "undici";

const [port, backend, cert, key] = process.argv.slice(2);
const pool = new Pool(`http://127.0.0.1:${backend}`, { connections: 64 });

function publish(request, response) {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    const name = request.url.slice("/pub/".length);
    (name === "all" ? io : io.to(name)).emit("m", body);
    response.end();
  });
}

const listener = cert
  ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, publish)
  : http.createServer(publish);
const io = new Server(listener, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  socket.join(socket.handshake.query.name);
  // The first request of each client would be kept for nobody.
  socket.conn.request = null;
  socket.on("m", async (message) => {
    try {
      const { body } = await pool.request({ method: "POST", path: "/", body: message });
      socket.emit("m", await body.text());
    } catch {
      socket.disconnect(true);
    }
  });
});

listener.listen({ host: "127.0.0.1", port: Number(port), backlog: 4096 });
