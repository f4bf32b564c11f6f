// Who is connected: found by id, user, address or route, a page at a time; and one connection with all that is known of it.

import { ask, poll } from "./api.js";
import { choice, connectionLink, field, h, list, outcome, remember, row, say, select, set, table, to } from "./dom.js";
import { bytes, clock, count, plural, span, stamp } from "./format.js";
import { describe } from "./overview.js";
import { complaints, follow, gateway, isReadOnly, now } from "./status.js";

export const title = "Connections";
const LIST_EVERY_MS = 4_000;
const ONE_EVERY_MS = 2_000;
const PAGE = 50;
const TYPING_MS = 250; // a search per pause, not per letter: each looks through every connection

export function open(view, { rest, query, signal }) {
  if (rest[0]) openOne(view, rest[0], signal);
  else openList(view, query, signal);
}

// --- the list ---------------------------------------------------------------------------------------------

const FIELDS = [["any", "anything"], ["id", "connection id"], ["user", "user"], ["address", "address"], ["route", "last route"]];
const ago = (ms) => (ms ? `${span((now() - ms) / 1000)} ago` : "–");

const COLUMNS = [
  { label: "Connection", class: "mono", show: (one, cell) => { if (!cell.firstChild) cell.append(connectionLink(one.id)); } },
  { label: "User", class: "break", show: (one) => one.user ?? "–" },
  { label: "Address", class: "mono break pair", show: (one) => one.address },
  { label: "Stage", show: (one) => `${one.api} / ${one.stage}` },
  { label: "Connected", class: "number", show: (one) => span((now() - one.connected_at) / 1000) },
  { label: "Active", class: "number", show: (one) => ago(one.last_active_at) },
  { label: "Last route", class: "mono break", show: (one) => one.last_route ?? "–" },
  { label: "In", class: "number", title: "messages from it", show: (one) => count(one.messages_in) },
  { label: "Out", class: "number", title: "messages to it", show: (one) => count(one.messages_out) },
  { label: "Queued", class: "number", title: "in its outbox, not yet handed to the socket", show: (one, cell) => {
    set(cell, "data-tone", one.outbox_bytes ? "wait" : null);
    return one.outbox_bytes ? bytes(one.outbox_bytes) : "0";
  } },
  { label: "Last error", class: "break pair", show: (one, cell) => {
    set(cell, "data-tone", one.last_error ? "bad" : null);
    return one.last_error ? one.last_error.text : "–";
  } },
];

function openList(view, query, signal) {
  let after = query.after ?? "";
  let shown = null; // the cursor of the page that is seen: until the next one is, `next` is not of it
  let next = null;
  const trail = []; // the cursors of the pages before this one
  let timer = null;

  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const search = h("input", { type: "search", value: query.search ?? "", spellcheck: "false", autocomplete: "off", placeholder: "7e8s-43WgB1PFu4=", oninput: typed });
  const where = select(FIELDS, FIELDS.some(([key]) => key === query.field) ? query.field : "any", { onchange: restart });
  const found = h("p", { class: "hint", role: "status" });
  const listed = table("Connections", COLUMNS);
  const empty = h("p", { class: "empty" });
  const newest = h("button", { type: "button", class: "quiet", onclick: restart }, "Newest");
  const newer = h("button", { type: "button", class: "quiet", onclick: () => turn(trail.pop()) }, "Newer");
  const older = h("button", { type: "button", class: "quiet", onclick: () => shown === after && trail.push(after) && turn(next) }, "Older");
  view.append(
    h("div", { class: "head" }, h("h1", {}, "Connections"), found),
    h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); restart(); } }, field("Search", search), field("In", where)),
    notice,
    h("section", { class: "card" }, listed.element, empty),
    h("nav", { class: "pager", "aria-label": "Pages of connections" }, newest, newer, older));
  listed.element.hidden = true;

  function typed() {
    clearTimeout(timer);
    timer = setTimeout(restart, TYPING_MS);
  }
  function restart() {
    clearTimeout(timer);
    trail.length = 0;
    turn("");
  }
  function turn(cursor) {
    if (signal.aborted) return;
    after = cursor ?? "";
    remember("connections", { search: search.value, field: where.value === "any" ? "" : where.value, after });
    look();
  }

  const look = poll(signal, LIST_EVERY_MS, async () => {
    const asked = new URLSearchParams({ search: search.value.trim(), field: where.value, limit: PAGE, ...(after && { after }) });
    const cursor = after;
    const answer = await ask(`api/connections?${asked}`, { signal });
    if (cursor !== after) return; // turned the page meanwhile; that one is asked next
    shown = cursor;
    next = answer.next;
    list(listed.body, answer.connections, (one) => one.id, () => row(COLUMNS));
    listed.element.hidden = answer.connections.length === 0;
    empty.hidden = answer.connections.length > 0;
    say(empty, answer.total === 0 ? "Nobody is connected." : after ? "No more of them." : "No connection matches this.");
    const searched = search.value.trim() !== "";
    say(found, searched ? `${answer.matched === null ? "some" : count(answer.matched)} of ${count(answer.total)} open` : `${count(answer.total)} open, newest first`);
    newest.disabled = !after;
    newer.disabled = trail.length === 0;
    older.disabled = next === null;
  }, complaints(notice));
}

// --- one of them ------------------------------------------------------------------------------------------

function openOne(view, id, signal) {
  const notice = h("p", { class: "notice", role: "alert", hidden: true });
  const gone = h("p", { class: "notice", role: "status", hidden: true });
  const [who, traffic, limits] = [0, 1, 2].map(() => h("dl", { class: "facts" }));
  const identity = h("pre", { class: "report", tabindex: "0", role: "region", "aria-label": "What the authorizer said" });
  const noIdentity = h("p", { class: "hint" }, "No authorizer said anything about it.");
  const send = sendForm(id);
  const close = closeForm(id);
  const locked = () => h("p", { class: "notice", hidden: true }, "This dashboard is read-only (`admin_read_only = true`): nothing can be sent or closed here.");
  view.append(
    h("div", { class: "head" }, h("p", { class: "crumb" }, h("a", { href: to("connections") }, "Connections"), " /"), h("h1", { class: "mono break" }, id)),
    h("p", { class: "links big" }, h("a", { href: to("live", { connection: id }) }, "Watch it live"), h("a", { href: to("playground", { connection: id }) }, "Compose a push to it")),
    notice, gone,
    h("div", { class: "charts" },
      card("Who", who), card("Traffic", traffic),
      card("Send to it", locked(), send.element), card("Close it", locked(), close.element),
      card("Limits", limits), card("Identity", noIdentity, identity)));
  const notes = view.querySelectorAll(".card > .notice");

  // A connection that is gone, or a dashboard that may only look, leaves nothing to press.
  function lock() {
    for (const note of notes) note.hidden = !isReadOnly();
    for (const form of [send.element, close.element]) form.disabled = isReadOnly() || !gone.hidden;
  }
  follow(signal, () => gateway.status && lock());

  poll(signal, ONE_EVERY_MS, async () => {
    let one;
    try {
      one = await ask(`api/connections/${encodeURIComponent(id)}`, { signal });
    } catch (error) {
      if (error.status !== 404) throw error;
      if (gone.hidden) {
        const known = who.childElementCount > 0;
        say(gone, known ? `It was closed; what is shown is from ${clock(now())}.` : "No connection with this id is open: it was closed, or never opened.");
        gone.hidden = false;
        lock();
      }
      return;
    }
    gone.hidden = true;
    lock();
    show(one);
  }, complaints(notice));

  function show(one) {
    describe(who, [
      ["User", one.user ?? "–"],
      ["Address", one.address],
      ["Stage", `${one.api} / ${one.stage}`],
      ["Connected", `${stamp(one.connected_at)}, ${span((now() - one.connected_at) / 1000)} ago`],
      ["Last active", ago(one.last_active_at)],
      ["Last route", one.last_route ?? "–"],
      ["Domain name", one.domain_name],
      ["Callback URL", one.callback_url],
      ["User agent", one.user_agent ?? "–"],
    ]);
    const bounds = one.limits ?? {}; // none once a reload has removed the stage
    const expires = one.identity?.expires_at;
    const full = one.outbox_bytes / bounds.outbox_bytes;
    describe(traffic, [
      ["From it", `${plural(one.messages_in, "message")}, ${bytes(one.bytes_in)}`],
      ["To it", `${plural(one.messages_out, "message")}, ${bytes(one.bytes_out)}`],
      ["Outbox", `${plural(one.outbox_messages, "message")}, ${bytes(one.outbox_bytes)}`, full > 0.8 ? "bad" : one.outbox_bytes ? "wait" : null],
      ["Being answered", plural(one.in_flight, "call")],
      ["Last error", one.last_error ? `${clock(one.last_error.at)} ${one.last_error.text}` : "none", one.last_error ? "bad" : null],
    ]);
    describe(limits, [
      ["Outbox", one.limits ? `${plural(bounds.outbox_messages, "message")}, ${bytes(bounds.outbox_bytes)}` : "–"],
      ["Idle", bounds.idle_timeout_seconds ? `closed after ${span(bounds.idle_timeout_seconds)}` : "no limit"],
      ["Duration", bounds.max_duration_seconds ? `closed ${span(bounds.max_duration_seconds)} after it opened, at ${clock(one.connected_at + bounds.max_duration_seconds * 1000)}` : "no limit"],
      ["Token", expires ? `expires ${stamp(expires)}, in ${span((expires - now()) / 1000)}` : "does not expire"],
      ["API key", one.identity?.api_key_id ?? "none"],
    ]);
    const said = one.identity?.authorizer ?? null;
    identity.hidden = said === null;
    noIdentity.hidden = said !== null;
    if (said !== null) say(identity, JSON.stringify(said, null, 2));
  }
}

const card = (name, ...content) => h("section", { class: "card" }, h("div", { class: "head" }, h("h2", {}, name)), content);

function sendForm(id) {
  let kind = "text";
  const text = h("textarea", { rows: "4", spellcheck: "false", required: true });
  const said = outcome();
  const submit = async (event) => {
    event.preventDefault();
    said.clear();
    try {
      await ask(`api/connections/${encodeURIComponent(id)}/send`, { body: { [kind]: kind === "base64" ? text.value.replace(/\s/g, "") : text.value } });
      said.good(`Sent at ${clock(now())}.`);
    } catch (error) {
      said.bad(error.status === 429 ? "Its outbox is full: it reads slower than it is written to." : `Not sent: ${error.message}`);
    }
  };
  const element = h("fieldset", { class: "bare" }, h("form", { class: "stack", onsubmit: submit },
    choice("What is sent", [["text", "Text"], ["base64", "Binary, as base64"]], kind, (chosen) => { kind = chosen; }),
    field("Message", text), h("div", { class: "actions" }, h("button", { type: "submit" }, "Send"), said.element)));
  return { element };
}

export const CLOSE_CODES = [[1000, "1000 normal"], [1001, "1001 going away"], [1008, "1008 policy"], [1011, "1011 error"], [1012, "1012 restart"], [1013, "1013 try again later"], ["", "another"]];

/** A close code and a reason that fits into its frame; `value()` gives both, or complains and gives null. */
export function closing() {
  const code = select(CLOSE_CODES, "1000", { onchange: () => { other.hidden = code.value !== ""; } });
  const number = h("input", { type: "number", min: "1000", max: "4999", value: "4000" });
  const other = field("Number", number, "1000 to 1003, 1007 to 1014, or 3000 to 4999");
  other.hidden = true;
  const reason = h("input", { maxlength: "123", spellcheck: "false" });
  const said = outcome();
  return {
    fields: h("div", { class: "filters" }, field("Code", code), other, field("Reason", reason)),
    said,
    value() {
      said.clear();
      const length = new TextEncoder().encode(reason.value).length;
      if (length > 123) {
        said.bad(`A reason has at most 123 bytes; this one has ${length}.`);
        return null;
      }
      return { code: Number(code.value || number.value), reason: reason.value };
    },
  };
}

function closeForm(id) {
  const form = closing();
  const question = h("p");
  const dialog = h("dialog", { "aria-label": "Close the connection" }, question,
    h("div", { class: "actions" },
      h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, "Close it"),
      h("button", { type: "button", class: "quiet", onclick: () => dialog.close("") }, "Leave it open")));
  dialog.addEventListener("close", async () => {
    if (dialog.returnValue !== "yes") return;
    try {
      await ask(`api/connections/${encodeURIComponent(id)}/close`, { body: form.value() });
      form.said.good("Closed.");
    } catch (error) {
      form.said.bad(`Not closed: ${error.message}`);
    }
  });
  const submit = (event) => {
    event.preventDefault();
    const chosen = form.value();
    if (!chosen) return;
    say(question, `Close ${id} with ${chosen.code}${chosen.reason && ` “${chosen.reason}”`}? Its client sees this and may come back.`);
    dialog.returnValue = "";
    dialog.showModal();
  };
  return {
    element: h("fieldset", { class: "bare" }, h("form", { class: "stack", onsubmit: submit }, form.fields,
      h("div", { class: "actions" }, h("button", { type: "submit", class: "danger" }, "Close…"), form.said.element)), dialog),
  };
}
