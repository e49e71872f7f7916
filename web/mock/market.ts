/**
 * A made-up market that is a pure function of (seed, key, time): any bar can be computed alone, so the mock keeps no history
 * and two runs agree to the last digit.
 */
import type { Bar, Row } from "../src/api/types";

export const SECOND = 1_000_000_000n;
/** 2026-01-05T14:30:00Z. */
export const OPENING = 1_767_623_400n * SECOND;

/** xmur3-like string hash, then one splitmix step per draw. */
export function hash(text: string): number {
  let h = 0x9e3779b9;
  for (let i = 0; i < text.length; i += 1) h = Math.imul(h ^ text.charCodeAt(i), 0x85ebca6b);
  return mix(h);
}

function mix(x: number): number {
  let h = x >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x45d9f3b);
  h = Math.imul(h ^ (h >>> 16), 0x45d9f3b);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A number in [0, 1) that depends on all its arguments. */
export function draw(seed: number, index: number, what: number): number {
  return mix(mix(seed + Math.imul(index, 0x9e3779b1)) + Math.imul(what, 0x85ebca77)) / 2 ** 32;
}

const SECTORS = ["TECH", "BANK", "OILS", "PHRM", "AUTO", "FOOD", "TELE", "MINE"];

export function symbols(count: number): string[] {
  const known = ["BTCUSD", "BTCEUR", "ETHUSD", "ETHBTC", "SOLUSD", "DOGEUSD"];
  const made = Array.from({ length: Math.max(0, count - known.length) }, (_, i) => {
    const n = Math.floor(i / SECTORS.length);
    const letter = (k: number) => String.fromCharCode(65 + (k % 26));
    return `${SECTORS[i % SECTORS.length]}${letter(Math.floor(n / 26))}${letter(n)}`;
  });
  return [...known, ...made].slice(0, count).sort();
}

export function hostNames(count: number): string[] {
  const desk = (i: number) => `10.0.${Math.floor(i / 200) + 1}.${(i % 200) + 10}`;
  return Array.from({ length: count }, (_, i) => desk(i)).sort();
}

/** An exact decimal of `units` in 10^-places, without trailing zeros beyond `keep`. */
export function decimal(units: bigint, places: number, keep = 0): string {
  const digits = (units < 0n ? -units : units).toString().padStart(places + 1, "0");
  const whole = digits.slice(0, digits.length - places);
  let rest = places ? digits.slice(digits.length - places) : "";
  while (rest.length > keep && rest.endsWith("0")) rest = rest.slice(0, -1);
  return `${units < 0n ? "-" : ""}${whole}${rest ? `.${rest}` : ""}`;
}

interface Symbol {
  seed: number;
  base: number;
  places: number;
}

const REAL: Record<string, [number, number]> = {
  BTCUSD: [64_000, 1],
  BTCEUR: [59_000, 1],
  ETHUSD: [3_150, 2],
  ETHBTC: [0.0492, 6],
  SOLUSD: [142, 2],
  DOGEUSD: [0.1234, 5],
};

export function symbolOf(name: string): Symbol {
  const seed = hash(name);
  const real = REAL[name];
  return real
    ? { seed, base: real[0], places: real[1] }
    : { seed, base: 8 + 192 * draw(seed, 0, 1) ** 2 * 3, places: 2 };
}

/** Price in units of 10^-places at `t` bars of one second since the opening; smooth, with noise on each second. */
function price(symbol: Symbol, t: number): bigint {
  const { seed, base, places } = symbol;
  let walk = 0;
  for (let k = 0; k < 6; k += 1) {
    const period = 11 * 2.7 ** k * (0.8 + 0.4 * draw(seed, k, 2));
    walk += 0.0004 * 1.75 ** k * Math.sin((2 * Math.PI * t) / period + 6.28 * draw(seed, k, 3));
  }
  const step = Math.floor(t * 4);
  walk += 0.0007 * (draw(seed, step, 4) - 0.5);
  return BigInt(Math.max(1, Math.round(base * (1 + walk) * 10 ** places)));
}

/** The bar `index` of `width_s` seconds, as it stands at `until_s` seconds after the opening. */
export function barAt(name: string, stream: string, width_s: number, index: number, until_s: number): Bar {
  const symbol = symbolOf(name);
  const { seed, places } = symbol;
  const from = index * width_s;
  const to = Math.min(from + width_s, Math.max(until_s, from + width_s / 100));
  const closed = until_s >= from + width_s;
  const points = 9;
  let [open, high, low, close] = [0n, 0n, 1n << 62n, 0n];
  for (let k = 0; k < points; k += 1) {
    const p = price(symbol, from + ((to - from) * k) / (points - 1) - (k === points - 1 ? 1e-6 : 0));
    if (k === 0) open = p;
    if (p > high) high = p;
    if (p < low) low = p;
    close = p;
  }
  const share = (to - from) / width_s;
  const busy = (0.35 + draw(seed, index, 5) ** 3 * 3) * (1 + 0.8 * Math.sin(index / 9 + seed));
  const trades = Math.max(1, Math.round(Math.abs(busy) * share * 60 * width_s));
  const late = closed && until_s >= from + width_s * 3 && draw(seed, index, 7) < 0.035;
  const extra = late ? 1 : 0;
  const size = BigInt(Math.round((trades + extra) * (0.4 + draw(seed, index, 6)) * 1e4));
  const bought = (size * BigInt(Math.round(250 + 500 * draw(seed, index, 8)))) / 1000n;
  const middle = (open + high + low + close) / 4n;
  const missing = draw(seed, index, 9) < 0.012 ? Math.ceil(draw(seed, index, 10) * 40) : 0;
  const ts_open = OPENING + BigInt(Math.round(from * 1000)) * 1_000_000n;
  const ts = ts_open + BigInt(Math.round(width_s * 1000)) * 1_000_000n;
  return {
    key: name,
    stream,
    slot: seed % 4096,
    seq: index * 2 + 1 + extra,
    ts_open: String(ts_open),
    ts: String(ts),
    time: iso(ts),
    open: decimal(open, places, places),
    high: decimal(high, places, places),
    low: decimal(low, places, places),
    close: decimal(close, places, places),
    volume: decimal(size, 4),
    buy_volume: decimal(bought, 4),
    notional: decimal(size * middle, 4 + places),
    vwap: decimal(middle * 1000n, places + 3),
    trades: trades + extra,
    rev: extra,
    state: closed ? (late ? "amended" : "final") : "forming",
    closed,
    cause: closed ? (late ? (draw(seed, index, 11) < 0.3 ? "cancel" : "late") : "watermark") : null,
    missing,
  };
}

function iso(ts: bigint): string {
  return new Date(Number(ts / 1_000_000n)).toISOString();
}

export const INDICATORS = [
  "rsi_14",
  "ema_20",
  "macd_12_26_9",
  "macd_signal",
  "macd_hist",
  "bb_mid",
  "bb_upper",
  "bb_lower",
];
const WARM_UP = 60;

/** Indicators of bars `first..=last` in one sweep. Undefined values are null, as the engine has them until it saw enough. */
export function indicatorRows(name: string, stream: string, width_s: number, first: number, last: number): Row[] {
  const rows: Row[] = [];
  const from = Math.max(0, first - WARM_UP);
  const alpha = (n: number) => 2 / (n + 1);
  let [ema20, fast, slow, signal, gain, loss, before] = [0, 0, 0, 0, 0, 0, Number.NaN];
  const closes: number[] = [];
  for (let index = from; index <= last; index += 1) {
    const bar = barAt(name, "", width_s, index, (index + 1) * width_s);
    const close = Number(bar.close);
    closes.push(close);
    if (Number.isNaN(before)) [ema20, fast, slow] = [close, close, close];
    else {
      ema20 += alpha(20) * (close - ema20);
      fast += alpha(12) * (close - fast);
      slow += alpha(26) * (close - slow);
      gain += (Math.max(0, close - before) - gain) / 14;
      loss += (Math.max(0, before - close) - loss) / 14;
    }
    signal += alpha(9) * (fast - slow - signal);
    before = close;
    if (index < first) continue;
    const window = closes.slice(-20);
    const mid = window.reduce((a, b) => a + b, 0) / window.length;
    const deviation = Math.sqrt(window.reduce((a, b) => a + (b - mid) ** 2, 0) / window.length);
    const known = (need: number, value: number) => (index + 1 >= need ? value : null);
    rows.push({
      key: name,
      stream,
      slot: bar.slot,
      seq: index + 1,
      ts: bar.ts,
      time: bar.time!,
      state: "final",
      cause: "watermark",
      values: {
        rsi_14: known(15, gain + loss === 0 ? 50 : (100 * gain) / (gain + loss)),
        ema_20: known(20, ema20),
        macd_12_26_9: known(26, fast - slow),
        macd_signal: known(34, signal),
        macd_hist: known(34, fast - slow - signal),
        bb_mid: known(20, mid),
        bb_upper: known(20, mid + 2 * deviation),
        bb_lower: known(20, mid - 2 * deviation),
      },
    });
  }
  return rows;
}

export const HOST_COLUMNS = [
  "packets",
  "bytes_in",
  "bytes_out",
  "flows",
  "peers",
  "ports",
  "unanswered",
  "resets",
  "names",
  "bytes_p50",
  "bytes_p99",
  "regularity",
  "missing",
];

export function hostRow(name: string, stream: string, width_s: number, index: number): Row {
  const seed = hash(name);
  const u = (what: number) => draw(seed, index, what);
  const heavy = 1 + 40 * draw(seed, 0, 1) ** 6;
  const scanning = seed % 97 === 3;
  const flows = Math.round((4 + 30 * u(2)) * heavy) + (scanning ? 900 : 0);
  const packets = Math.round(flows * (6 + 20 * u(3)));
  const ts_open = OPENING + BigInt(index * width_s) * SECOND;
  const ts = ts_open + BigInt(width_s) * SECOND;
  const peers = scanning ? 254 : Math.min(flows, Math.round(2 + 12 * u(4) * heavy ** 0.5));
  return {
    key: name,
    stream,
    slot: seed % 4096,
    seq: index + 1,
    ts_open: String(ts_open),
    ts: String(ts),
    time: iso(ts),
    state: "final",
    cause: "watermark",
    values: {
      packets,
      bytes_in: Math.round(packets * (120 + 900 * u(5))),
      bytes_out: Math.round(packets * (80 + 500 * u(6))),
      flows,
      peers,
      ports: scanning ? 1021 : Math.round(1 + 7 * u(7)),
      unanswered: scanning ? 850 : Math.round(2 * u(8) ** 4),
      resets: Math.round(3 * u(9) ** 5) + (scanning ? 40 : 0),
      names: Math.round(12 * u(10) ** 2),
      bytes_p50: Math.round(90 + 400 * u(11)),
      bytes_p99: Math.round(900 + 560 * u(12)),
      regularity: Math.round(1000 * u(13)),
      missing: 0,
    },
  };
}
