// A push as a backend would make it: the callback URL of a connection, and the commands for it, ready to be copied.

import { ask } from "./api.js";
import { copyButton, field, h, say, select, to } from "./dom.js";
import { complaints } from "./status.js";

const TYPING_MS = 300;
const AUTHORIZATIONS = [["aws_iam", "aws_iam: signed (SigV4)"], ["bearer", "a bearer token"], ["none", "none"]];

export function composer() {
  let url = "";
  let timer = null;
  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const complain = complaints(notice);
  const id = h("input", { spellcheck: "false", autocomplete: "off", placeholder: "7e8s-43WgB1PFu4=", oninput: () => { clearTimeout(timer); timer = setTimeout(look, TYPING_MS); } });
  const authorization = select(AUTHORIZATIONS, "aws_iam", { onchange: show });
  const message = h("textarea", { rows: "3", spellcheck: "false", oninput: show });
  message.value = '{"hello":"world"}';
  const about = h("p", { class: "hint", role: "status" });
  const curl = h("pre", { class: "report", tabindex: "0", role: "region", "aria-label": "curl" });
  const python = h("pre", { class: "report", tabindex: "0", role: "region", "aria-label": "Python" });
  const snippets = h("div", { hidden: true },
    h("div", { class: "head" }, h("h3", {}, "curl"), copyButton(() => curl.textContent)), curl,
    h("div", { class: "head" }, h("h3", {}, "Python, boto3"), copyButton(() => python.textContent)), python);

  async function look() {
    const wanted = id.value.trim();
    url = "";
    complain(null);
    if (wanted) {
      try {
        const one = await ask(`api/connections/${encodeURIComponent(wanted)}`);
        if (wanted !== id.value.trim()) return;
        url = one.callback_url;
        about.replaceChildren("A push to ", h("a", { href: to(`connections/${one.id}`) }, one.user ?? one.id), ` of ${one.api} / ${one.stage}, by ${url}`);
      } catch (error) {
        if (wanted !== id.value.trim()) return;
        if (error.status === 404) say(about, "No connection with this id is open: a push to it would be answered 410.");
        else complain(error);
      }
    } else {
      about.replaceChildren("The id of a connection, from the ", h("a", { href: to("connections") }, "connections"), " or from the X-Livegate-Connection-Id of a call.");
    }
    show();
  }

  function show() {
    snippets.hidden = !url;
    if (!url) return;
    say(curl, asCurl(url, message.value, authorization.value));
    say(python, asPython(url, message.value, authorization.value));
  }

  const element = h("section", { class: "card" },
    h("div", { class: "head" }, h("h2", {}, "Compose a push")),
    h("div", { class: "filters" }, field("Connection id", id), field("Authorization of connections_api", authorization)),
    field("Message", message), notice, about, snippets);
  look();
  return {
    element,
    choose(wanted) {
      id.value = wanted;
      look();
    },
  };
}

const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

// --data-raw, as --data would read a file for a message that begins with @.
function asCurl(url, message, authorization) {
  const proof = {
    aws_iam: ['--aws-sigv4 "aws:amz:us-east-1:execute-api"', '--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"'],
    bearer: ['-H "Authorization: Bearer $TOKEN"'],
    none: [],
  }[authorization];
  return ["curl -i -X POST", ...proof, `--data-raw ${quoted(message)}`, ...(authorization === "aws_iam" ? signable(url) : [quoted(url)])].join(" \\\n  ");
}

// curl signs the path as it is written, where SigV4 wants it encoded once more than it is sent: what is signed stands in the
// URL, what is sent in --request-target.
function signable(url) {
  const { origin, pathname } = new URL(url);
  const sent = pathname.split("/").map(decodeURIComponent);
  return [`--request-target ${quoted(sent.join("/"))}`, quoted(origin + sent.map(encodeURIComponent).join("/"))];
}

// A text of JSON is one of Python too.
function asPython(url, message, authorization) {
  const endpoint = url.replace(/\/@connections\/[^/]*$/, "");
  const id = decodeURIComponent(url.slice(endpoint.length + "/@connections/".length));
  const unsigned = authorization !== "aws_iam";
  return [
    "import boto3",
    ...(unsigned ? ["from botocore import UNSIGNED", "from botocore.config import Config"] : []),
    ...(authorization === "bearer" ? ["import os"] : []),
    "",
    "gateway = boto3.client(",
    '    "apigatewaymanagementapi",',
    `    endpoint_url=${JSON.stringify(endpoint)},`,
    `    region_name="us-east-1",${unsigned ? "" : "  # keys: from the environment, as ever"}`,
    ...(unsigned ? ["    config=Config(signature_version=UNSIGNED),"] : []),
    ")",
    ...(authorization === "bearer" ? [
      "gateway.meta.events.register(",
      '    "before-send", lambda request, **_: request.headers.__setitem__("Authorization", f"Bearer {os.environ[\'TOKEN\']}"))',
    ] : []),
    "gateway.post_to_connection(",
    `    ConnectionId=${JSON.stringify(id)},`,
    `    Data=${JSON.stringify(message)}.encode(),`,
    ")",
  ].join("\n");
}
