// Pushes to a connection, describes it, closes it, and finds it gone.
import { DeleteConnectionCommand, GetConnectionCommand, PostToConnectionCommand } from "@aws-sdk/client-apigatewaymanagementapi";
import { client, show } from "./client.mjs";

const [endpoint, keyId, secret, ConnectionId, text] = process.argv.slice(2);
const api = client(endpoint, keyId, secret);
await show(api.send(new PostToConnectionCommand({ ConnectionId, Data: text })));
await show(api.send(new GetConnectionCommand({ ConnectionId })));
await show(api.send(new DeleteConnectionCommand({ ConnectionId })));
await show(api.send(new PostToConnectionCommand({ ConnectionId, Data: "late" })));
