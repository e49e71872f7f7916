/** How things are written. One rule above all: what is not known is a dash, and a decimal string is shown as it came. */

export const DASH = "–";

const GROUP = "\u202f"; // narrow no-break space: digits stay one word, and no locale's comma is mistaken for a point

/** A whole number with its digits in groups of three. */
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const text = String(Math.trunc(value));
  return /e/.test(text) ? text : text.replace(/\B(?=(\d{3})+$)/g, GROUP);
}

const SCALES: [number, string][] = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

/** Three significant digits with a unit prefix: 222 M, 4.05 k, 17. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  for (const [scale, letter] of SCALES) {
    if (size >= scale * 0.9995) return `${three(value / scale)}${GROUP}${letter}`;
  }
  return Number.isInteger(value) ? String(value) : three(value);
}

function three(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

const POWERS: [number, string][] = [
  [2 ** 40, "TiB"],
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
];

/** Bytes with a binary prefix: 17 B, 4.05 MiB. */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  for (const [scale, unit] of POWERS) {
    if (value >= scale * 0.9995) return `${three(value / scale)}${GROUP}${unit}`;
  }
  return `${Math.round(value)}${GROUP}B`;
}

/** Nanoseconds as a person says them: 850 ns, 56.2 µs, 1.07 ms, 2.5 s. */
export function nanos(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (size < 999.5) return `${Math.round(value)}${GROUP}ns`;
  if (size < 999.5e3) return `${three(value / 1e3)}${GROUP}µs`;
  if (size < 999.5e6) return `${three(value / 1e6)}${GROUP}ms`;
  return seconds(value / 1e9);
}

export function millis(value: number | null | undefined): string {
  return value === null || value === undefined ? DASH : nanos(value * 1e6);
}

/** 4.2 s, 3 m 05 s, 2 h 14 m, 3 d 04 h. */
export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  if (value < 59.95) return `${Number.isInteger(value) ? value : three(value)}${GROUP}s`;
  const whole = Math.round(value);
  const pad = (n: number) => String(n).padStart(2, "0");
  if (whole < 3_600) return `${Math.floor(whole / 60)}${GROUP}m ${pad(whole % 60)}${GROUP}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3_600)}${GROUP}h ${pad(Math.floor((whole % 3_600) / 60))}${GROUP}m`;
  return `${Math.floor(whole / 86_400)}${GROUP}d ${pad(Math.floor((whole % 86_400) / 3_600))}${GROUP}h`;
}

/** A share from 0 to 1. */
export function percent(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const whole = value * 100;
  return `${whole > 0 && whole < 9.95 ? whole.toFixed(1) : Math.round(whole)}${GROUP}%`;
}

/** A float that the node computed: at most six digits behind the point, no trailing zeros. */
export function float(value: number | string | null | undefined): string {
  if (value === null || value === undefined) return DASH;
  if (typeof value === "string") return value;
  if (!Number.isFinite(value)) return DASH;
  if (Number.isInteger(value)) return count(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-4 || size >= 1e15) ? value.toExponential(4) : String(Number(value.toFixed(6)));
}

/** For axes: the same, without digits that say nothing. */
export function axis(format: (value: number) => string): (value: number) => string {
  return (value) => format(value).replace(/\.0+(?=\D|$)/, "");
}

/** Seven significant digits of a float, for where room is short. */
export function brief(value: number | string | null | undefined): string {
  return typeof value === "number" && Number.isFinite(value) && !Number.isInteger(value)
    ? float(Number(value.toPrecision(7)))
    : float(value);
}

/** Any text that came as text: itself, or a dash. */
export function text(value: string | null | undefined): string {
  return value === null || value === undefined || value === "" ? DASH : value;
}

/** Nanoseconds since 1970 in a string, cut to milliseconds for drawing. Exact parts stay in the string. */
export function toMillis(ts: string): number {
  return Number(ts.length > 6 ? ts.slice(0, -6) : "0");
}

/** `14:30:05`, with the fraction only as far as it is not zero. UTC, as everything in event time. */
export function clock(ts: string | null | undefined): string {
  if (!ts || !/^\d+$/.test(ts)) return DASH;
  const iso = new Date(Math.floor(toMillis(ts) / 1000) * 1000).toISOString();
  return iso.slice(11, 19) + fraction(ts);
}

/** The same, cut to milliseconds: for where it changes faster than one can read. */
export function clockMillis(ts: string | null | undefined): string {
  return clock(ts).slice(0, 12);
}

/** `2026-01-05 14:30:05.1`. */
export function stamp(ts: string | null | undefined): string {
  if (!ts || !/^\d+$/.test(ts)) return DASH;
  const iso = new Date(Math.floor(toMillis(ts) / 1000) * 1000).toISOString();
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)}${fraction(ts)}`;
}

/** `14:30:05` of today, `01-05 14:30` of this year, `2025-01-05` of any other: for lists of what may be of any time. */
export function when(ts: string | null | undefined, now_ms = Date.now()): string {
  const text = stamp(ts);
  if (text === DASH) return text;
  const today = new Date(now_ms).toISOString();
  if (text.slice(0, 10) === today.slice(0, 10)) return text.slice(11, 19);
  return text.slice(0, 4) === today.slice(0, 4) ? text.slice(5, 16) : text.slice(0, 10);
}

function fraction(ts: string): string {
  const nanos = ts.padStart(9, "0").slice(-9).replace(/0+$/, "");
  return nanos ? `.${nanos}` : "";
}

/** Splits a decimal string so that a column can align its points. Joined again, the parts are the string. */
export function split(decimal: string): [whole: string, rest: string] {
  const point = decimal.indexOf(".");
  return point < 0 ? [decimal, ""] : [decimal.slice(0, point), decimal.slice(point)];
}
