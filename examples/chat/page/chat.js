// The demo chat's browser side: one socket, reconnected with backoff, and what arrives on it put on the page.
// Text of other people only ever becomes textContent, never markup.

const $ = (id) => document.getElementById(id);
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const HANDSHAKE_MS = 10_000;
const MOST_MESSAGES = 500; // older ones leave the page
const MOST_WAITING = 20; // typed while there is no connection

let websocketUrl;
let socket = null;
let failures = 0; // in a row; decides how long to wait
let timer = null; // the countdown to the next try
let wanted = null; // {name, room} once somebody pressed Join: asked for again after each reconnect
let asking = false; // a join is on its way and not answered yet
let joined = null; // {name, room} as the server confirmed it on this socket
let members = null; // the last list on this socket
let waiting = []; // texts to send once joined
let last = { from: null, at: 0 }; // to draw messages in a row as one

// --- the connection ---------------------------------------------------------------------------------------

async function connect() {
  clearInterval(timer);
  timer = null;
  show("connecting", "connecting…");
  try {
    websocketUrl ??= await findSocket();
  } catch {
    return retry();
  }
  if (socket) return; // pressed twice while the configuration was on its way
  const mine = new WebSocket(websocketUrl);
  socket = mine;
  const slow = setTimeout(() => mine.close(), HANDSHAKE_MS);
  mine.onopen = () => {
    clearTimeout(slow);
    show("connected", "connected");
    if (wanted) join();
  };
  mine.onmessage = (event) => socket === mine && receive(event.data);
  mine.onclose = () => {
    clearTimeout(slow);
    if (socket !== mine) return; // closed on purpose, or replaced
    lose();
    retry();
  };
}

// On the page's own host and port, whatever those are. Not every browser takes an http:// URL for a socket yet.
async function findSocket() {
  const { websocket_url } = await get("config.json");
  const url = new URL(websocket_url, location);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`); // the gateway is there, the backend is not
  return answer.json();
}

function lose() {
  socket = null;
  asking = false;
  joined = null;
  members = null;
}

// Exponential backoff with jitter: after a restart of the gateway its clients come back spread out, not all at once.
function retry() {
  const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures);
  failures += 1;
  const due = Date.now() + ceiling * (0.5 + Math.random() / 2);
  const tick = () => {
    const seconds = Math.ceil((due - Date.now()) / 1000);
    if (seconds <= 0) return connect();
    show("reconnecting", `reconnecting in ${seconds} s`);
  };
  clearInterval(timer);
  timer = setInterval(tick, 250);
  tick();
}

function disconnect() {
  clearInterval(timer);
  timer = null;
  const old = socket;
  lose();
  old?.close(1000);
  show("closed", "closed");
}

function show(state, text) {
  const element = $("state");
  if (element.dataset.state !== state) element.dataset.state = state;
  if (element.textContent !== text) element.textContent = text;
  $("toggle").textContent = { connected: "Disconnect", connecting: "Cancel", reconnecting: "Reconnect now" }[state] ?? "Connect";
}

$("toggle").onclick = () => {
  const state = $("state").dataset.state;
  if (state === "connected" || state === "connecting") return disconnect();
  failures = 0;
  connect();
};

// The network came back, or the reader did: no reason to sit out the countdown.
const hurry = () => timer && !document.hidden && connect();
addEventListener("online", hurry);
document.addEventListener("visibilitychange", hurry);

// --- what we say ------------------------------------------------------------------------------------------

function say(message) {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

function join() {
  asking = say({ action: "join", ...wanted });
}

$("who").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  const room = $("room").value.trim();
  if (!name || !room) return complain("Both a name and a room are needed.");
  complain("");
  wanted = { name, room };
  if ($("state").dataset.state === "closed") connect();
  else join();
  $("text").focus();
};

$("compose").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  if (!wanted) {
    complain("Join a room first, then everybody in it can read you.");
    return $("name").focus();
  }
  if (!joined || !say({ action: "message", text })) {
    if (waiting.length >= MOST_WAITING) return complain("There is no connection; this message has to wait.");
    waiting.push(text);
    complain("There is no connection at the moment; your message goes out when it is back.");
  }
  $("text").value = "";
};

// Where others are, with how many. It is offered and no more: without an answer, one types.
$("room").onfocus = async () => {
  try {
    const { rooms } = await get("rooms");
    $("rooms").replaceChildren(...rooms.map(suggestion));
  } catch {
    $("rooms").replaceChildren();
  }
};

function suggestion({ room, members }) {
  // Some browsers show the text alone, so the name is in it too.
  const option = element("option", "", `${room} · ${members} ${members === 1 ? "member" : "members"}`);
  option.value = room;
  return option;
}

// --- what we are told -------------------------------------------------------------------------------------

function receive(data) {
  let told;
  try {
    told = JSON.parse(data);
  } catch {
    return;
  }
  if (told.type === "joined") return enter(told);
  if (told.type === "members") return told.room === joined?.room && list(told.members);
  if (told.type === "message") return joined && put(told);
  // The demo's own errors have a type; the gateway's frames ({"message": "Forbidden", …}) have none.
  if (told.message) complain(told.message);
  if (!asking) return;
  // The join was refused: whoever was in a room still is in that one.
  asking = false;
  wanted = joined;
}

function enter({ name, room, recent }) {
  joined = { name, room };
  wanted = joined;
  asking = false;
  members = null;
  failures = 0;
  complain("");
  $("where").textContent = `# ${room}`;
  $("greeting").textContent = "Nothing said here so far";
  $("invitation").textContent = "Say hello, or open a second tab to have somebody to talk to.";
  $("join").textContent = "Change";
  document.body.classList.add("inside");
  $("second").href = `?room=${encodeURIComponent(room)}`;
  document.title = `${room} · Livegate chat`;
  keep(name, room);
  $("messages").replaceChildren();
  last = { from: null, at: 0 };
  recent.forEach((message) => put(message));
  $("messages").scrollTop = $("messages").scrollHeight;
  for (const text of waiting.splice(0)) say({ action: "message", text });
}

function list(names) {
  const before = members;
  members = names;
  const own = names.indexOf(joined.name);
  $("members").replaceChildren(
    ...names.map((name, index) => {
      const item = element("li", index === own ? "own" : "");
      item.append(avatar(name), element("span", "who", name));
      return item;
    }),
  );
  $("count").textContent = names.length ? `· ${names.length}` : "";
  if (!before) return;
  for (const name of without(names, before)) note(`${name} joined`);
  for (const name of without(before, names)) note(`${name} left`);
}

// Two people may have the same name, so this counts: what is in `all` beyond what `some` has.
function without(all, some) {
  const left = [...some];
  return all.filter((name) => {
    const place = left.indexOf(name);
    if (place >= 0) left.splice(place, 1);
    return place < 0;
  });
}

function put({ from, text, at }) {
  const own = from === joined.name;
  const again = from === last.from && at - last.at < 120_000;
  last = { from, at };
  const item = element("li", `message${own ? " own" : ""}${again ? " again" : ""}`);
  const meta = element("div", "meta");
  const when = new Date(at);
  const time = element("time", "", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = when.toISOString();
  time.title = when.toLocaleString();
  meta.append(element("span", "from", from), time);
  item.append(avatar(from), meta, element("div", "text", text));
  append(item);
}

function note(text) {
  last = { from: null, at: 0 };
  append(element("li", "note", text));
}

function append(item) {
  const log = $("messages");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(item);
  if (log.childElementCount > MOST_MESSAGES) log.firstElementChild.remove();
  // Who scrolled up to read is left there.
  if (atEnd || item.classList.contains("own")) log.scrollTop = log.scrollHeight;
}

function complain(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function avatar(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  const made = element("span", "avatar", letters.map((word) => [...word][0]).join("").toUpperCase());
  let hue = 0;
  for (const character of name) hue = (hue * 31 + character.codePointAt(0)) % 360;
  made.style.setProperty("--hue", hue);
  made.setAttribute("aria-hidden", "true");
  return made;
}

// --- who we are -------------------------------------------------------------------------------------------

// The room stays in the address, to be shared; the name only if it was there, else with this tab.
function keep(name, room) {
  const url = new URL(location);
  url.searchParams.set("room", room);
  if (url.searchParams.has("name")) url.searchParams.set("name", name);
  history.replaceState(null, "", url);
  try {
    sessionStorage.setItem("name", name);
  } catch {
    // Storage may be switched off; then a reload means a new name.
  }
}

function remembered() {
  try {
    return sessionStorage.getItem("name");
  } catch {
    return null;
  }
}

function randomName() {
  const one = (words) => words[Math.floor(Math.random() * words.length)];
  const first = "Brave Bright Calm Clever Curious Gentle Happy Jolly Kind Lively Lucky Merry Nimble Quiet Swift Witty";
  const second = "Badger Beaver Crane Dolphin Falcon Finch Fox Hare Heron Lynx Marten Otter Owl Robin Seal Wren";
  return `${one(first.split(" "))} ${one(second.split(" "))}`;
}

const asked = new URLSearchParams(location.search);
$("name").value = asked.get("name") || remembered() || randomName();
$("room").value = asked.get("room") || "lobby";
$("second").href = `?room=${encodeURIComponent($("room").value)}`;
$("name").focus();
$("name").select();
// An address that says both who and where needs no further question.
if (asked.get("name") && asked.get("room")) wanted = { name: $("name").value, room: $("room").value };
connect();
