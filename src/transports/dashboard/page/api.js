// What the page asks the gateway: JSON, lines of JSON, and the token that goes with both.

const TOKEN_KEY = "livegate-admin-token";
const PATIENCE_MS = 10_000;

// In sessionStorage and not in a cookie: cookies ignore ports and would go to every client-facing listener of the host too.
export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY),
  keep: (text) => sessionStorage.setItem(TOKEN_KEY, text),
  forget: () => sessionStorage.removeItem(TOKEN_KEY),
};

/** What the gateway refused, by its status; 0 when it did not answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** About the page as a whole (who may see it, whether anybody is there), not about one question. */
  get isGeneral() {
    return this.status === 0 || this.status === 401 || this.status === 403;
  }
}

async function call(path, body, signal) {
  const headers = {};
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    const method = body === undefined ? "GET" : "POST";
    answer = await fetch(path, { method, headers, body: JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, error.name === "TimeoutError" ? "it did not answer within 10 s" : "it cannot be reached");
  }
  if (answer.ok) return answer;
  throw new Refused(answer.status, (await reason(answer)) || `it answered ${answer.status}`);
}

// A proxy in front may answer in anything.
async function reason(answer) {
  try {
    const { message } = JSON.parse(await answer.text());
    return typeof message === "string" ? message : null;
  } catch {
    return null;
  }
}

const patient = (signal) => AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)].filter(Boolean));

/** The answer's JSON: of a GET, or of a POST if there is a body. */
export async function ask(path, { body, signal } = {}) {
  const answer = await call(path, body, patient(signal));
  try {
    return await answer.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "its answer broke off or is no JSON");
  }
}

export async function text(path, signal) {
  return (await call(path, undefined, patient(signal))).text();
}

/** An answer of one JSON object a line, line by line for as long as it goes on. */
export async function* lines(path, { body, signal } = {}) {
  const answer = await call(path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    // Empty lines only keep the connection open.
    for (const line of whole) if (line.trim()) yield JSON.parse(line);
  }
}

/**
 * Calls `look` now and then `pause` ms after it is through, again and again until `signal`; not while nobody looks at the tab.
 * Gives back a function that looks at once.
 */
export function poll(signal, pause, look, complain) {
  let timer = null;
  let busy = false;
  let hurried = false;
  async function round() {
    clearTimeout(timer);
    if (signal.aborted || document.hidden) return;
    if (busy) {
      hurried = true;
      return;
    }
    busy = true;
    try {
      await look();
      complain?.(null);
    } catch (error) {
      if (!signal.aborted && error.name !== "AbortError") complain?.(error);
    }
    busy = false;
    if (signal.aborted) return;
    timer = setTimeout(round, hurried ? 0 : pause);
    hurried = false;
  }
  document.addEventListener("visibilitychange", round, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  round();
  return round;
}
