// Small words for the document. Whatever the gateway tells (names, payloads, reasons) may be hostile: it becomes text
// nodes and attribute values here, and nowhere in this page markup.

/** An element: `h("a", { href: "#/live", onclick: look }, "Live")`. Attributes that are null or false are left out. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "selected") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets a text only if it is another one, so that what a reader has selected stays selected. */
export function say(element, text) {
  const words = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== words) element.textContent = words;
  return element;
}

export function set(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

const lists = new WeakMap();

/**
 * Brings `parent`'s children in line with `items`: `make(item)` builds `{ element, show }` once for each key, `show(item)`
 * is called every time. Elements stay what they are, and with them focus, selection and scroll.
 */
export function list(parent, items, key, make) {
  const before = lists.get(parent) ?? new Map();
  const after = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    if (after.has(name)) continue;
    const one = before.get(name) ?? make(item);
    one.show?.(item);
    after.set(name, one);
    if (one.element === place) place = place.nextElementSibling;
    else parent.insertBefore(one.element, place);
  }
  for (const [name, one] of before) if (!after.has(name)) one.element.remove();
  lists.set(parent, after);
}

/** The address of a view of this page; what is empty is left out. */
export function to(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  const text = new URLSearchParams(kept).toString();
  return `#/${path.split("/").map(encodeURIComponent).join("/")}${text && `?${text}`}`;
}

/** Makes the address bar say what is seen, without a new entry in the history. */
export const remember = (path, query) => history.replaceState(null, "", to(path, query));

export const connectionLink = (id, ...words) => h("a", { href: to(`connections/${id}`), class: "mono" }, words.length ? words : id);

export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", {}, label), control, hint && h("small", {}, hint));
}

export function select(options, value, attributes = {}) {
  const element = h("select", attributes, options.map(([key, words]) => h("option", { value: key }, words)));
  element.value = value;
  return element;
}

/** One of a few, as buttons in a row. */
export function choice(label, options, value, choose) {
  const buttons = options.map(([key, words]) => h("button", { type: "button", "aria-pressed": String(key === value), onclick: () => pick(key) }, words));
  function pick(key) {
    options.forEach(([one], at) => set(buttons[at], "aria-pressed", String(one === key)));
    choose(key);
  }
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

/** A table of named columns, in a box that scrolls by itself; on a phone each row is a card. */
export function table(caption, columns) {
  const body = h("tbody");
  const heads = columns.map((column) => h("th", { scope: "col", class: column.class, title: column.title }, column.label));
  const element = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), body));
  return { element, body, heads };
}

/** A row for `table`: the cells of the columns, filled by each column's `show(cell, item)`. */
export function row(columns, attributes = {}) {
  const cells = columns.map((column, at) => h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: column.class, "data-label": column.label }));
  return {
    element: h("tr", attributes, cells),
    show(item) {
      columns.forEach((column, at) => {
        const shown = column.show(item, cells[at]);
        if (shown !== undefined) say(cells[at], shown);
      });
    },
  };
}

/** A line that tells what came of an action, to screen readers too. */
export function outcome() {
  const element = h("p", { class: "outcome", role: "status" });
  return {
    element,
    good: (text) => { element.dataset.tone = "good"; say(element, text); },
    bad: (text) => { element.dataset.tone = "bad"; say(element, text); },
    clear: () => say(element, ""),
  };
}

export function copyButton(text) {
  const button = h("button", { type: "button", class: "quiet", onclick: copy }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      say(button, "Copied");
    } catch {
      // Without TLS and off loopback there is no clipboard; the text can still be selected.
      say(button, "Select it by hand");
    }
    setTimeout(() => say(button, "Copy"), 2000);
  }
  return button;
}
