// A client to try things with. The gateway opens the socket itself, inside, as a browser's WebSocket can set no headers.

import { ask, lines } from "./api.js";
import { choice, field, h, outcome, remember, say, select, set } from "./dom.js";
import { bytes, clock, milliseconds, plural } from "./format.js";
import { closing } from "./connections.js";
import { composer } from "./push.js";
import { complaints, follow, gateway, isReadOnly } from "./status.js";

export const title = "Playground";
const MOST_FRAMES = 300;
const MOST_HISTORY = 50;

let kept = null; // the socket stays open, and its frames listed, while one looks at another page

export function open(view, { query, signal }) {
  kept ??= build();
  view.append(kept.element);
  kept.arrive(query, signal);
}

function build() {
  const push = composer();
  const talk = makeTalk();
  const connect = makeConnect(talk);
  const locked = h("p", { class: "notice", hidden: true }, "This dashboard is read-only (`admin_read_only = true`): no socket can be opened here. Commands for a push can still be composed.");
  const element = h("div", { class: "view" }, h("div", { class: "head" }, h("h1", {}, "Playground")), locked,
    h("div", { class: "two" }, connect.element, talk.element, push.element));
  return {
    element,
    arrive(query, signal) {
      connect.arrive(query);
      if (query.connection) push.choose(query.connection);
      follow(signal, () => {
        if (!gateway.status) return;
        locked.hidden = !isReadOnly();
        connect.lock(isReadOnly());
        talk.lock(isReadOnly());
      });
    },
  };
}

// --- opening ----------------------------------------------------------------------------------------------

function makeConnect(talk) {
  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const complain = complaints(notice);
  const stage = select([], "", { required: true, onchange: note });
  const search = h("input", { spellcheck: "false", placeholder: "room=tea&debug=1", oninput: note });
  const headers = h("textarea", { rows: "2", spellcheck: "false", placeholder: "X-Name: value" });
  const token = h("input", { type: "password", autocomplete: "off", spellcheck: "false" });
  const place = select([["header", "in Authorization: Bearer"], ["query", "as a query parameter"]], "header", { onchange: () => { parameter.hidden = place.value !== "query"; } });
  const name = h("input", { value: "token", spellcheck: "false" });
  const parameter = field("Parameter", name);
  parameter.hidden = true;
  const protocols = h("input", { spellcheck: "false", placeholder: "chat, v2", oninput: note });
  const said = outcome();
  const button = h("button", { type: "submit" }, "Connect");
  const cancel = h("button", { type: "button", class: "quiet", hidden: true, onclick: talk.abandon }, "Cut off");
  const form = h("fieldset", { class: "bare" },
    h("form", { class: "stack", onsubmit: submit },
      field("API and stage", stage),
      field("Query", search),
      h("div", { class: "filters" }, field("Token", token), field("Sent", place), parameter),
      field("Headers, one a line", headers),
      field("Subprotocols, with commas", protocols),
      notice,
      h("div", { class: "actions" }, button, cancel, said.element)));
  const element = h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "Connect")), form);

  // Neither the token nor the headers: an address is shared, and they may be secrets.
  function note() {
    const [api, name] = chosen();
    remember("playground", { api, stage: name, query: search.value, subprotocols: protocols.value });
  }
  const chosen = () => (stage.value ? JSON.parse(stage.value) : ["", ""]);

  async function arrive(query) {
    if (query.query !== undefined) search.value = query.query;
    if (query.subprotocols !== undefined) protocols.value = query.subprotocols;
    try {
      const { apis } = await ask("api/routes");
      const stages = apis.filter((one) => one.protocol === "websocket").flatMap((one) => one.stages.map((each) => [JSON.stringify([one.name, each.name]), `${one.name} / ${each.name}`]));
      const before = query.api ? JSON.stringify([query.api, query.stage ?? ""]) : stage.value;
      stage.replaceChildren(...stages.map(([key, words]) => h("option", { value: key }, words)));
      stage.value = stages.some(([key]) => key === before) ? before : stages[0]?.[0] ?? "";
      if (!stages.length) said.bad("There is no WebSocket API to connect to.");
    } catch (error) {
      complain(error);
    }
  }

  function read() {
    const pairs = [];
    for (const line of headers.value.split("\n").filter((one) => one.trim())) {
      const [, key, value] = line.match(/^\s*([^\s:]+)\s*:\s*(.*?)\s*$/) ?? [];
      if (!key) throw new Error(`\`${line.trim()}\` is no header; write it like Name: value`);
      pairs.push([key, value]);
    }
    const query = new URLSearchParams();
    if (token.value && place.value === "header") pairs.push(["Authorization", `Bearer ${token.value}`]);
    if (token.value && place.value === "query") query.set(name.value || "token", token.value);
    const [api, stageName] = chosen();
    return {
      api, stage: stageName, headers: pairs,
      query: [search.value.replace(/^\?/, ""), query.toString()].filter(Boolean).join("&"),
      subprotocols: protocols.value.split(",").map((one) => one.trim()).filter(Boolean),
    };
  }

  async function submit(event) {
    event.preventDefault();
    said.clear();
    complain(null);
    let wanted;
    try {
      wanted = read();
    } catch (error) {
      return said.bad(error.message);
    }
    button.disabled = true;
    cancel.hidden = false;
    try {
      await talk.hold(wanted, said);
    } catch (error) {
      said.bad(`Not connected: ${error.message}`);
    }
    button.disabled = false;
    cancel.hidden = true;
  }
  return { element, arrive, lock: (is) => { form.disabled = is; } };
}

// --- talking ----------------------------------------------------------------------------------------------

function makeTalk() {
  const state = h("p", { class: "pill", role: "status", "data-state": "idle" }, "not connected");
  const frames = h("ol", { class: "frames", tabindex: "0", role: "log", "aria-label": "Frames" });
  const empty = h("p", { class: "empty" }, "Connect, and the frames of both directions are listed here.");
  let kind = "text";
  const text = h("textarea", { rows: "3", spellcheck: "false", placeholder: '{"action":"…"}', "aria-describedby": "playground-keys", onkeydown: keyed });
  const said = outcome();
  const close = closing();
  const send = h("fieldset", { class: "bare", disabled: true },
    h("form", { class: "stack", onsubmit: submit },
      choice("What is sent", [["text", "Text"], ["base64", "Binary, as base64"]], kind, (chosen) => { kind = chosen; }),
      field("Message", text), h("small", { id: "playground-keys", class: "hint" }, "Enter sends, Shift+Enter is a new line, ↑ and ↓ at its ends bring back what was sent."),
      h("div", { class: "actions" }, h("button", { type: "submit" }, "Send"), said.element)),
    h("form", { class: "stack closing", onsubmit: end }, close.fields, h("div", { class: "actions" }, h("button", { type: "submit", class: "quiet" }, "Close the socket"), close.said.element)));
  const element = h("section", { class: "card talk" }, h("div", { class: "head" }, h("h2", {}, "Socket"), state,
    h("button", { type: "button", class: "quiet end", onclick: () => { frames.replaceChildren(); empty.hidden = false; } }, "Clear")), frames, empty, send);

  let session = null;
  let asking = null;
  let locked = false;
  let leaving = false; // by us
  let asked = []; // sent and not answered: `{ at }` when the gateway has told the time
  const history = [];
  let place = 0;

  const permit = () => { send.disabled = locked || session === null; };
  function tell(tone, words) {
    state.dataset.state = tone;
    say(state, words);
  }

  /** Opens a socket and lists its frames until it ends. */
  async function hold(wanted, about) {
    asking = new AbortController();
    tell("wait", "connecting…");
    let ended = false;
    try {
      for await (const line of lines("api/playground", { body: wanted, signal: asking.signal })) {
        if (line.opened) {
          session = line.opened.session;
          asked = [];
          leaving = false;
          tell("good", "open");
          about.good(`Opened in ${milliseconds(line.opened.ms)}.`);
          note("good", `opened by ${wanted.api} / ${wanted.stage} in ${milliseconds(line.opened.ms)}`, line.opened.headers);
          permit();
          text.focus();
        } else if (line.refused) {
          ended = true;
          const how = line.refused.status === null ? "not answered" : `refused with ${line.refused.status}`;
          tell("bad", how);
          about.bad(`The handshake was ${how}.`);
          note("bad", how, line.refused.headers, line.refused.body);
        } else if (line.frame) {
          receive(line.frame);
        } else if (line.closed) {
          ended = true;
          const { code, reason } = line.closed;
          const by = leaving ? "you" : line.closed.by; // the gateway answers a close frame with one
          tell("idle", `closed with ${code ?? "no code"}`);
          about.clear();
          note(by === "you" ? "good" : "wait", `closed by ${by} with ${code ?? "no code"}${reason && ` “${reason}”`}`);
        }
      }
    } catch (error) {
      if (!asking.signal.aborted) {
        tell("bad", "lost");
        throw error;
      }
    } finally {
      session = null;
      permit();
    }
    if (!ended) {
      tell("idle", asking.signal.aborted ? "cut off" : "lost");
      about.clear();
      note("wait", asking.signal.aborted ? "cut off by you, without a close frame" : "the gateway ended the stream");
    }
  }

  function add(item) {
    empty.hidden = true;
    const atEnd = frames.scrollHeight - frames.scrollTop - frames.clientHeight < 40;
    frames.append(item);
    while (frames.childElementCount > MOST_FRAMES) frames.firstElementChild.remove();
    if (atEnd) frames.scrollTop = frames.scrollHeight;
  }

  function note(tone, words, headers = [], body = "") {
    add(h("li", { class: "note", "data-tone": tone }, h("p", {}, h("time", {}, clock(Date.now(), true)), words),
      headers.length || body ? h("details", {}, h("summary", {}, plural(headers.length, "header")), h("pre", { class: "report" }, headers.map(([key, value]) => `${key}: ${value}`).join("\n") + (body && `\n\n${body}`))) : null));
  }

  function frame(direction, at, size, content, isBinary) {
    const took = h("b", { class: "took" });
    const time = h("time", {}, clock(at, true));
    add(h("li", { class: `frame ${direction}` },
      h("p", { class: "meta" }, h("span", { class: "unseen" }, direction === "in" ? "received " : "sent "), time, `${bytes(size)}${isBinary ? " binary, as base64" : ""}`, took),
      h("pre", {}, content)));
    return { time, took };
  }

  function receive(came) {
    const isBinary = came.text === null || came.text === undefined;
    const shown = frame("in", came.at, came.bytes, isBinary ? came.base64 : came.text, isBinary);
    const question = asked.shift();
    if (!question) return;
    // The frame may be here before the answer that tells when the question was sent: both are the gateway's times.
    question.told.then((sentAt) => say(shown.took, sentAt === null ? "" : `${milliseconds(Math.max(0, came.at - sentAt))} after it was sent`));
  }

  async function submit(event) {
    event?.preventDefault();
    const content = kind === "base64" ? text.value.replace(/\s/g, "") : text.value;
    if (session === null) return;
    said.clear();
    history.push(text.value);
    if (history.length > MOST_HISTORY) history.shift();
    place = history.length;
    text.value = "";
    const size = kind === "base64" ? Math.floor(content.replace(/=+$/, "").length * 3 / 4) : new TextEncoder().encode(content).length;
    const shown = frame("out", Date.now(), size, content, kind === "base64");
    const answer = ask(`api/playground/${encodeURIComponent(session)}/send`, { body: { [kind]: content } });
    const question = { told: answer.then(({ at }) => at, () => null) };
    asked = [question]; // the latest: frames answer what was sent last, as far as anybody can know
    try {
      const { at } = await answer;
      say(shown.time, clock(at, true));
    } catch (error) {
      asked = asked.filter((one) => one !== question);
      say(shown.took, "not sent");
      said.bad(`Not sent: ${error.message}`);
    }
  }

  function keyed(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      return submit();
    }
    const back = event.key === "ArrowUp" && text.selectionStart === 0 && text.selectionEnd === 0;
    const forth = event.key === "ArrowDown" && text.selectionStart === text.value.length;
    if (!(back || forth) || !history.length) return;
    event.preventDefault();
    place = Math.min(history.length, Math.max(0, place + (back ? -1 : 1)));
    text.value = history[place] ?? "";
    const caret = back ? 0 : text.value.length;
    text.setSelectionRange(caret, caret);
  }

  async function end(event) {
    event.preventDefault();
    const chosen = close.value();
    if (!chosen || session === null) return;
    leaving = true;
    try {
      await ask(`api/playground/${encodeURIComponent(session)}/close`, { body: chosen });
    } catch (error) {
      leaving = false;
      close.said.bad(`Not closed: ${error.message}`);
    }
  }
  return { element, hold, abandon: () => asking?.abort(), lock: (is) => { locked = is; permit(); } };
}
