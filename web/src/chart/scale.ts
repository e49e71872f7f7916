/** Arithmetic of axes, without a canvas. */

/** A round step so that about `count` of them fill `span`: 1, 2 or 5 times a power of ten. */
export function niceStep(span: number, count: number): number {
  if (!(span > 0) || !(count > 0)) return 1;
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const lead = rough / power;
  return (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10) * power;
}

/** Round values within `[low, high]`, with the digits they need behind the point. */
export function ticks(low: number, high: number, count: number): { values: number[]; places: number } {
  if (!(high > low)) return { values: [], places: 0 };
  const step = niceStep(high - low, count);
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const values: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) values.push(i * step);
  return { values, places: Math.min(places, 12) };
}

/** Powers of ten within the range, and 2 and 5 between them where there are few. */
export function logTicks(low: number, high: number): number[] {
  const out: number[] = [];
  const wide = Math.log10(high / low) > 2.2;
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
    for (const lead of wide ? [1] : [1, 2, 5]) {
      const value = lead * 10 ** e;
      if (value >= low * 0.999 && value <= high * 1.001) out.push(value);
    }
  }
  return out;
}

/** Least and greatest of what is there; null when nothing is. */
export function extent(values: Iterable<number | null | undefined>): [number, number] | null {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null || value === undefined || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

const STEPS_MS = [
  100, 250, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1_800e3, 3_600e3, 7_200e3, 14_400e3,
  21_600e3, 43_200e3, 86_400e3, 172_800e3, 604_800e3, 2_592_000e3,
];

/**
 * Places of time labels on an axis of records, not of time: a label stands at the first record at or behind each round
 * instant. The step is the least that leaves `apart` records between labels, judged by the middle spacing.
 */
export function timeTicks(
  times: (index: number) => number,
  first: number,
  last: number,
  apart: number,
): { index: number; ms: number; step_ms: number }[] {
  if (last <= first) return [];
  const spacing = (times(last) - times(first)) / (last - first);
  const step_ms = STEPS_MS.find((step) => step >= spacing * apart * 0.999) ?? STEPS_MS.at(-1)!;
  const out: { index: number; ms: number; step_ms: number }[] = [];
  let before = Math.floor((times(first) - spacing) / step_ms);
  for (let index = first; index <= last; index += 1) {
    const slot = Math.floor(times(index) / step_ms);
    if (slot !== before && index - (out.at(-1)?.index ?? -Infinity) >= apart * 0.7) {
      const round = slot * step_ms;
      // The record right behind a round instant stands for it; one after a hole says its own time.
      out.push({ index, ms: times(index) - round <= spacing * 1.5 ? round : times(index), step_ms });
    }
    before = slot;
  }
  return out;
}

/** A label for a round instant, in UTC: a date at midnight, seconds only where they matter. */
export function timeLabel(ms: number, step_ms: number): string {
  const iso = new Date(ms).toISOString();
  if (step_ms >= 86_400e3 || iso.slice(11, 23) === "00:00:00.000") return iso.slice(5, 10);
  if (step_ms >= 60e3) return iso.slice(11, 16);
  if (step_ms >= 1e3) return iso.slice(11, 19);
  return iso.slice(14, 23).replace(/0{1,2}$/, "");
}

/** The part of the records that is on the screen; fractions are allowed. */
export interface View {
  from: number;
  to: number;
}

/** Zooms by `factor` about the record at `at`, and keeps the view inside what there is. */
export function zoomed(view: View, at: number, factor: number, total: number, least = 12): View {
  const width = view.to - view.from;
  const wanted = Math.min(Math.max(width * factor, least), Math.max(total * 1.05, least));
  const share = width > 0 ? (at - view.from) / width : 1;
  const from = at - wanted * share;
  return clamped({ from, to: from + wanted }, total);
}

/** Keeps at least a third of the view over records. */
export function clamped(view: View, total: number): View {
  const width = view.to - view.from;
  const spare = width / 3;
  const shift = view.to > total + spare ? total + spare - view.to : view.to < spare ? spare - view.to : 0;
  return { from: view.from + shift, to: view.to + shift };
}
