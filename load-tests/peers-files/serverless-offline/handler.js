// What a Lambda function behind a WebSocket API would do: pass the message on, and return the answer.
const { Pool } = require("undici");

const pool = new Pool(`http://127.0.0.1:${process.env.BACKEND_PORT}`, { connections: 64 });

exports.connect = async () => ({ statusCode: 200 });

exports.message = async (event) => {
  const { body } = await pool.request({
    method: "POST",
    path: "/",
    headers: { connectionid: event.requestContext.connectionId },
    body: event.body,
  });
  return { statusCode: 200, body: await body.text() };
};
