// Too large, wrongly signed, and gone.
import { PostToConnectionCommand } from "@aws-sdk/client-apigatewaymanagementapi";
import { client, show } from "./client.mjs";

const [endpoint, keyId, secret, ConnectionId] = process.argv.slice(2);
const api = client(endpoint, keyId, secret);
await show(api.send(new PostToConnectionCommand({ ConnectionId, Data: "x".repeat(131073) })));
await show(client(endpoint, keyId, "another secret").send(new PostToConnectionCommand({ ConnectionId, Data: "x" })));
await show(api.send(new PostToConnectionCommand({ ConnectionId: "zeYsWoCdtIv4VN8=", Data: "x" })));
