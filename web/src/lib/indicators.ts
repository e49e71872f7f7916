import type { Stage, Stream } from "../api/types";

/** Where a column of values is drawn: over the candles, since it is a price, or in a pane of its own. */
export interface Placement {
  pane: string | "price";
  /** Drawn as columns around zero. */
  histogram: boolean;
  /** Fixed range and guide lines, where the measure has them. */
  range?: [number, number];
  guides?: number[];
}

export function placement(column: string): Placement {
  if (/^(sma|ema|vwap|bb)_/.test(column)) return { pane: "price", histogram: false };
  if (/^rsi_/.test(column)) return { pane: "RSI", histogram: false, range: [0, 100], guides: [30, 70] };
  if (/^macd_hist/.test(column)) return { pane: "MACD", histogram: true, guides: [0] };
  if (/^macd_/.test(column)) return { pane: "MACD", histogram: false, guides: [0] };
  return { pane: column, histogram: false };
}

/** Streams of values computed from `bars`: by the pipeline where it says, else by the name's ending. */
export function valuesOf(bars: Stream, streams: Stream[], stages: Stage[] | null): Stream[] {
  const values = streams.filter((stream) => stream.kind === "values");
  const sources = new Set((stages ?? []).filter((stage) => stage.stream === bars.name).map((stage) => stage.name));
  sources.add(bars.name);
  const fed = new Set(
    (stages ?? []).flatMap((stage) =>
      stage.stream && stage.upstream && sources.has(stage.upstream) ? [stage.stream] : [],
    ),
  );
  const by_stage = values.filter((stream) => fed.has(stream.name));
  if (by_stage.length) return by_stage;
  const known = new Set((stages ?? []).flatMap((stage) => (stage.upstream === null ? [] : [stage.stream])));
  const ending = bars.name.slice(bars.name.indexOf("."));
  return values.filter((stream) => !known.has(stream.name) && stream.name.slice(stream.name.indexOf(".")) === ending);
}

/** Columns that are switched on and off as one: the three lines of a band, say. */
export function groupOf(column: string): string {
  return /^(bb|macd)_/.exec(column)?.[1] ?? column;
}

/** What a reader sees before choosing: one of each sort, not everything at once. */
export function shownAtFirst(group: string): boolean {
  return /^(vwap$|ema_|rsi_|macd$)/.test(group);
}
