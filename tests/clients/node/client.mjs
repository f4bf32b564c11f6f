// The @connections client of AWS's SDK for JavaScript, and one line of JSON for each call.
import { ApiGatewayManagementApiClient } from "@aws-sdk/client-apigatewaymanagementapi";

export function client(endpoint, accessKeyId, secretAccessKey) {
  return new ApiGatewayManagementApiClient({
    endpoint,
    region: "us-east-1",
    credentials: { accessKeyId, secretAccessKey },
    maxAttempts: 1,
  });
}

export async function show(call) {
  let shown;
  try {
    const answer = await call;
    shown = { status: answer.$metadata.httpStatusCode, requestId: answer.$metadata.requestId, identity: answer.Identity };
  } catch (error) {
    if (!error.$metadata) throw error;
    shown = { name: error.name, status: error.$metadata.httpStatusCode };
  }
  console.log(JSON.stringify(shown));
}
