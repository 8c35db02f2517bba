// Numbers, sizes and times as people read them.

const locale = "en";
const compactNumber = new Intl.NumberFormat(
  locale,
  { notation: "compact", maximumSignificantDigits: 3 },
);
const wholeNumber = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const dateTime = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(
  locale,
  { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false },
);

export const NONE = "–";
const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const count = (value) => (known(value) ? wholeNumber.format(value) : NONE);
export const compact = (value) => (known(value) ? compactNumber.format(value) : NONE);

/** Three significant digits, no exponent for what a rate or a latency may be. */
export function digits(value) {
  if (!known(value)) return NONE;
  if (Math.abs(value) >= 1000) return wholeNumber.format(value);
  return String(Number(value.toPrecision(3)));
}

/** A result, exact enough to compare two versions by. */
export const result = (value) => String(Number(value.toPrecision(6)));

export function bytes(value) {
  if (!known(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${digits(scaled)} ${units[unit]}`;
}

export function milliseconds(value) {
  if (!known(value)) return NONE;
  return value >= 1000 ? `${digits(value / 1000)} s` : `${digits(value)} ms`;
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

export function ago(text) {
  const then = Date.parse(text ?? "");
  if (Number.isNaN(then)) return NONE;
  const seconds = (Date.now() - then) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

export function when(text) {
  const then = Date.parse(text ?? "");
  return Number.isNaN(then) ? NONE : dateTime.format(then);
}

export const timeOfDay = (milliseconds) => clock.format(milliseconds);
export const percent = (fraction) => `${digits(fraction * 100)} %`;
