// Numbers, sizes and times as people read them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });
const NOTHING = "–";

const absent = (value) => value === null || value === undefined || Number.isNaN(value);
const digits = (value) => (Math.abs(value) >= 100 ? whole : Math.abs(value) >= 10 ? tenths : hundredths).format(value);

export const count = (value) => (absent(value) ? NOTHING : whole.format(value));
export const rate = (value) => (absent(value) ? NOTHING : `${digits(value)}/s`);
export const percent = (value) => (absent(value) ? NOTHING : `${tenths.format(value)} %`);

export function seconds(value) {
  if (absent(value)) return NOTHING;
  if (value === 0) return "0 ms";
  if (value < 0.001) return `${whole.format(value * 1e6)} µs`;
  return value < 1 ? `${digits(value * 1000)} ms` : `${digits(value)} s`;
}

export const milliseconds = (value) => (absent(value) ? NOTHING : value < 1 && value === Math.round(value) ? "<1 ms" : seconds(value / 1000));

export function bytes(value) {
  if (absent(value)) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit === 0 ? whole.format(value) : digits(value)} ${units[unit]}`;
}

/** A span of time by its two largest units. */
export function span(value) {
  if (absent(value)) return NOTHING;
  const left = Math.max(0, Math.floor(value));
  const units = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, length]) => left >= length);
  if (first < 0) return "0 s";
  const [name, length] = units[first];
  const [next, smaller] = units[first + 1] ?? [null, 1];
  const rest = next ? Math.floor((left % length) / smaller) : 0;
  return `${Math.floor(left / length)} ${name}${rest ? ` ${rest} ${next}` : ""}`;
}

const two = (value) => String(value).padStart(2, "0");

/** The time of day; with `fraction`, to the millisecond. */
export function clock(ms, fraction = false) {
  const date = new Date(ms);
  const text = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return fraction ? `${text}.${String(date.getMilliseconds()).padStart(3, "0")}` : text;
}

/** Date and time of day. */
export function stamp(ms) {
  if (absent(ms)) return NOTHING;
  const date = new Date(ms);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(ms)}`;
}

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
