import { isBar, isRow, type AnyRecord, type Bar, type Row } from "../api/types";

/** Orders decimal integers in strings without making them floats. */
export function compareTs(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

/**
 * The newest bars of one key, oldest first, one entry per bar: a forming bar is replaced by the next forming one and by its
 * closed self, a closed bar by a higher revision only.
 */
export class BarSeries {
  bars: Bar[] = [];

  constructor(readonly bars_max = 2_000) {}

  /** True if something changed. */
  take(records: AnyRecord[]): boolean {
    let changed = false;
    for (const record of records) {
      if (isBar(record) && this.#one(record)) changed = true;
    }
    if (this.bars.length > this.bars_max) this.bars.splice(0, this.bars.length - this.bars_max);
    return changed;
  }

  #one(bar: Bar): boolean {
    const { bars } = this;
    let at = bars.length;
    while (at > 0 && compareTs(bars[at - 1]!.ts_open, bar.ts_open) > 0) at -= 1;
    // Several bars by measure may open within one nanosecond: look at each that opened then.
    for (let same = at - 1; same >= 0 && bars[same]!.ts_open === bar.ts_open; same -= 1) {
      const held = bars[same]!;
      if (held.state === "forming") {
        bars[same] = bar;
        return true;
      }
      if (bar.state === "forming") return false; // older news: the bar has closed
      if (bar.rev > held.rev) {
        bars[same] = bar;
        return true;
      }
      if (bar.seq === held.seq || bar.rev > 0 || bar.ts === held.ts) return false; // known, or replaced since
    }
    bars.splice(at, 0, bar);
    return true;
  }
}

/** Rows of one key's values, by the end of the bar they belong to. */
export class RowSeries {
  rows: Row[] = [];
  #by_ts = new Map<string, Row>();

  constructor(readonly rows_max = 2_000) {}

  take(records: AnyRecord[]): boolean {
    let changed = false;
    for (const record of records) {
      if (!isRow(record)) continue;
      const last = this.rows.at(-1);
      if (last?.state === "forming" && last.ts !== record.ts) {
        this.#by_ts.delete(last.ts); // the end of a bar by measure moves while it forms
        this.rows.pop();
      }
      const held = this.#by_ts.get(record.ts);
      if (held) {
        if (held.state !== "forming" && record.state === "forming") continue;
        if (held.seq === record.seq && held.state === record.state && held.state !== "forming") continue;
        this.rows[this.rows.lastIndexOf(held)] = record;
      } else {
        let at = this.rows.length;
        while (at > 0 && compareTs(this.rows[at - 1]!.ts, record.ts) > 0) at -= 1;
        this.rows.splice(at, 0, record);
      }
      this.#by_ts.set(record.ts, record);
      changed = true;
    }
    while (this.rows.length > this.rows_max) this.#by_ts.delete(this.rows.shift()!.ts);
    return changed;
  }

  at(ts: string): Row | undefined {
    return this.#by_ts.get(ts);
  }
}
