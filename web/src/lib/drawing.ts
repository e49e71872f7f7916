import type { Candle, Drawing, Pane, Series } from "../chart/chart";
import type { Ink } from "../chart/palette";
import type { Bar, Row } from "../api/types";
import { axis, short, toMillis } from "./format";
import { placement } from "./indicators";
import { placesOf } from "./decimals";

const INKS: Ink[] = ["series-4", "series-2", "series-5", "series-6", "series-1", "series-3"];

export interface Overlay {
  column: string;
  /** The row that belongs to a bar, if it is known. */
  at: (bar: Bar) => Row | undefined;
}

/** Floats are for drawing only; what is written anywhere is the text as it came. */
function number(text: string | number | null | undefined): number | null {
  return text === null || text === undefined ? null : Number(text);
}

export const VWAP_INK: Ink = "series-3";

/** One ink per column, stable whatever else is shown. */
export function inkOf(column: string, columns: string[]): Ink {
  return INKS[Math.max(0, columns.indexOf(column)) % INKS.length]!;
}

/** Candles with VWAP and what lies over them, volume, and a pane for each further group of values. */
export function barsDrawing(bars: Bar[], overlays: Overlay[], all_columns: string[], vwap: boolean): Drawing {
  const candles: Candle[] = bars.map((bar) => ({
    open: Number(bar.open),
    high: Number(bar.high),
    low: Number(bar.low),
    close: Number(bar.close),
    forming: bar.state === "forming",
    amended: bar.state === "amended",
    missing: (bar.missing ?? 0) > 0,
  }));
  const over: Series[] = [];
  if (vwap) over.push({ kind: "line", values: bars.map((bar) => number(bar.vwap)), ink: VWAP_INK, width: 1.25 });
  const panes = new Map<string, Pane>();
  for (const { column, at } of overlays) {
    const where = placement(column);
    const values = bars.map((bar) => number(at(bar)?.values[column]));
    const ink = inkOf(column, all_columns);
    const series: Series = where.histogram
      ? { kind: "columns", values, ink: (i) => ((values[i] ?? 0) >= 0 ? "up" : "down"), alpha: 0.45 }
      : { kind: "line", values, ink, width: 1.25, dash: column.endsWith("_signal") };
    if (where.pane === "price") {
      over.push(series);
      continue;
    }
    let pane = panes.get(where.pane);
    if (!pane) {
      pane = { label: where.pane, weight: 1.3, series: [] };
      if (where.range) pane.range = where.range;
      if (where.guides) pane.guides = where.guides;
      panes.set(where.pane, pane);
    }
    // Columns first, so that lines are drawn over them.
    if (where.histogram) pane.series.unshift(series);
    else pane.series.push(series);
  }
  const last = bars.at(-1);
  const places = Math.min(8, placesOf(bars.slice(-50).map((bar) => bar.close)));
  const price: Pane = { label: "", weight: 4.6, series: [...over, { kind: "candles", candles }] };
  if (last) {
    price.tag = {
      value: Number(last.close),
      text: last.close,
      ink: Number(last.close) >= Number(last.open) ? "up" : "down",
    };
    const reach = Math.max(...candles.map((c) => Math.abs(c.high)));
    if (places > 4 || reach < 1) price.format = (value) => value.toFixed(Math.max(places, 4));
  }
  return {
    count: bars.length,
    time_ms: (index) => toMillis(bars[index]?.ts_open ?? "0"),
    panes: [
      price,
      {
        label: "Volume",
        weight: 1.2,
        zero: true,
        format: axis(short),
        series: [
          {
            kind: "columns",
            values: bars.map((bar) => number(bar.volume)),
            part: bars.map((bar) => number(bar.buy_volume)),
            ink: (i) => ((candles[i]?.close ?? 0) >= (candles[i]?.open ?? 0) ? "up" : "down"),
            alpha: 0.4,
          },
        ],
      },
      ...panes.values(),
    ],
  };
}

/** A pane for each column. */
export function rowsDrawing(rows: Row[], columns: string[]): Drawing {
  return {
    count: rows.length,
    time_ms: (index) => toMillis(rows[index]?.ts ?? "0"),
    panes: columns.map((column) => ({
      label: column,
      weight: 1,
      zero: rows.every((row) => (number(row.values[column]) ?? 0) >= 0),
      format: axis(short),
      series: [
        {
          kind: "line",
          values: rows.map((row) => number(row.values[column])),
          ink: inkOf(column, columns),
          fill: true,
        },
      ],
    })),
  };
}
