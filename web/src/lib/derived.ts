/** Streams that are derived from whole sets of bars: which there are, and what colour a value has. */
import type { Row, Stream } from "../api/types";

export interface Group {
  /** `surface.rsi`, `corr.spectrum`, `risk.var`. */
  name: string;
  kind: "surface" | "spectrum" | "risk";
  /** More than one where a surface has many parameters. */
  streams: Stream[];
}

const KINDS: [string, Group["kind"]][] = [
  ["surface.", "surface"],
  ["corr.", "spectrum"],
  ["risk.", "risk"],
];

/** What is derived, in the order of the node; further streams of a surface are behind its first. */
export function groups(streams: Stream[]): Group[] {
  const found = new Map<string, Group>();
  for (const stream of streams) {
    const kind = KINDS.find(([prefix]) => stream.name.startsWith(prefix))?.[1];
    if (!kind) continue;
    const name = kind === "surface" ? stream.name.replace(/\.\d+$/, "") : stream.name;
    const group = found.get(name);
    if (group) group.streams.push(stream);
    else found.set(name, { name, kind, streams: [stream] });
  }
  return [...found.values()];
}

/** The parameters of a surface, in the order of its streams. */
export function parameters(group: Group): string[] {
  return group.streams.flatMap((stream) => stream.columns.filter((column) => column !== "bars"));
}

export interface Line {
  key: string;
  ts: string;
  bars: number | null;
  values: Record<string, string | number | null>;
}

/** Rows of a surface's streams that belong together, by what `by` says of them. */
export function join(rows: Row[], by: (row: Row) => string): Line[] {
  const lines = new Map<string, Line>();
  for (const row of rows) {
    const { bars, ...values } = row.values;
    const line = lines.get(by(row));
    const known = bars === null || bars === undefined ? null : Number(bars);
    if (!line) lines.set(by(row), { key: row.key, ts: row.ts, bars: known, values });
    // Parts of one surface close together; while one is ahead its columns are the newer ones.
    else Object.assign(line.values, values);
  }
  return [...lines.values()];
}

export interface Range {
  low: number;
  high: number;
  /** Whether values lie on both sides of zero, so that zero is where colours turn. */
  signed: boolean;
}

/** From the least to the largest of the middle 98 %, so that one odd value does not pale all others. */
export function rangeOf(lines: Line[], columns: string[]): Range | null {
  const values: number[] = [];
  for (const line of lines) {
    for (const column of columns) {
      const value = line.values[column];
      if (value !== null && value !== undefined && Number.isFinite(Number(value))) values.push(Number(value));
    }
  }
  if (!values.length) return null;
  values.sort((a, b) => a - b);
  const at = (share: number) => values[Math.round(share * (values.length - 1))]!;
  const [low, high] = [at(0.01), at(0.99)];
  if (low < 0 && high > 0) {
    const reach = Math.max(-low, high);
    return { low: -reach, high: reach, signed: true };
  }
  return { low, high, signed: false };
}

/**
 * How strongly a cell is coloured, and on which side: 0 to 1 of `--heat-high` above the middle, of `--heat-low` below it. Blue and
 * orange are told apart by all who see colours at all, and a cell says its number besides.
 */
export function heat(
  value: number | string | null | undefined,
  range: Range | null,
): { side: "low" | "high"; part: number } | null {
  if (value === null || value === undefined || !range || !Number.isFinite(Number(value))) return null;
  const reach = range.high - range.low;
  const place = reach > 0 ? Math.min(1, Math.max(0, (Number(value) - range.low) / reach)) : 0.5;
  return place >= 0.5 ? { side: "high", part: place * 2 - 1 } : { side: "low", part: 1 - place * 2 };
}
