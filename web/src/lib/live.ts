/** Records that follow the node while a component is on the page. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { rest, words } from "../api/rest";
import { isBar, isRow, type AnyRecord, type Bar, type Key, type Row } from "../api/types";
import { link, socket, status } from "../node";
import { BarSeries, compareTs, RowSeries } from "./bars";
import { Cell, useCell } from "./store";

/** Records of history that a chart starts with. */
export const HISTORY_COUNT = 600;
/** Names that are listed; beyond them a search must narrow. */
const NAMES_MAX = 20_000;
const NAMES_PAGE = 1_000;
/** Lists and charts are told at most this often; nobody reads faster. */
const LIST_EVERY_MS = 100;

export interface Names {
  /** What these names were searched for; the field may be ahead of it. */
  search: string;
  keys: Key[];
  /** All there are. */
  total: number | null;
  error: string | null;
  done: boolean;
  /** There are more than a list can hold. */
  truncated: boolean;
}

/**
 * Names with a record in `stream` that contain `search`, page by page until all are here. Read again when the node comes back or
 * has more of them.
 */
export function useNames(search: string, stream: string): Names & { retry: () => void } {
  const [names, set] = useState<Names>({ search, keys: [], total: null, error: null, done: false, truncated: false });
  const [attempt, setAttempt] = useState(0);
  const shown = useRef<string | null>(null);
  const now = useCell(link);
  const since = now.phase === "live" ? now.since_ms : 0;
  const said = useCell(status);
  const known = said?.stages?.find((stage) => stage.stream === stream)?.keys ?? said?.keys ?? null;
  const settled = useSettled(known, 2_000);
  useEffect(() => {
    if (!since) return;
    const abort = new AbortController();
    const load = async () => {
      let keys: Key[] = [];
      let after: string | undefined;
      try {
        do {
          const page = await rest.keys({ stream, search, limit: NAMES_PAGE, after }, abort.signal);
          keys = keys.concat(page.keys);
          after = page.next ?? undefined;
          const done = after === undefined || keys.length >= NAMES_MAX;
          // A new search shows its first page at once; a list that is read again stands still until all of it is here.
          if (!done && shown.current === search) continue;
          shown.current = search;
          set({ search, keys, total: page.total, error: null, done, truncated: done && after !== undefined });
          if (done) break;
        } while (after !== undefined);
      } catch (error) {
        if (!abort.signal.aborted) set((old) => ({ ...old, search, error: words(error), done: true }));
      }
    };
    const timer = setTimeout(load, search ? 120 : 0);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [search, stream, since, settled, attempt]);
  return { ...names, retry: () => setAttempt((n) => n + 1) };
}

/** The value once it has stood still for `ms`; the first one at once. */
export function useSettled<T>(value: T, ms: number): T {
  const [settled, set] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => set(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}

/** The newest record of each name in `names` (those in view), as often as the screen can show it. */
export function useLatest(stream: string | null, names: string[]): Map<string, AnyRecord> {
  const newest = useMemo(() => new Cell(new Map<string, AnyRecord>(), LIST_EVERY_MS), [stream]);
  useCell(newest);
  const wanted = names.join("\n");
  const since = useRef(0);
  useEffect(() => {
    if (!stream || !wanted) return;
    return socket.subscribe(
      {
        streams: [stream],
        keys: wanted.split("\n"),
        from: "snapshot",
        conflate: { every_ms: LIST_EVERY_MS },
        past_lag: "conflate",
      },
      {
        records(records) {
          const held = newest.get();
          for (const record of records) {
            if (!isBar(record) && !isRow(record)) continue;
            const old = held.get(record.key);
            if (!old || isNewer(record, old)) held.set(record.key, record);
          }
          newest.touch();
        },
        subscribed() {
          // Not when other rows came into view, but a node that was started anew may be at an earlier time.
          const now = link.get();
          if (now.phase === "live" && now.since_ms !== since.current) {
            newest.get().clear();
            since.current = now.since_ms;
          }
        },
      },
    );
  }, [stream, wanted, newest]);
  return newest.get();
}

/** Not an amendment of an earlier bar. */
export function isNewer(record: AnyRecord, old: AnyRecord): boolean {
  const start = (one: AnyRecord) => (isBar(one) ? one.ts_open : one.ts);
  return compareTs(start(record), start(old)) >= 0;
}

export interface Feed {
  bars: Bar[];
  rows: Map<string, RowSeries>;
  /** Grows with every change of what is held. */
  version: number;
  error: string | null;
  loading: boolean;
}

/**
 * History and what follows it, of one key in several streams. The live part is subscribed first and history read behind the
 * confirmation, so that nothing lies between them; where both have a record, the higher revision stays. After a reconnection the
 * subscription goes on behind the last record that is here; only after a loss, or when the node cannot go on from there, is the
 * history read again.
 */
export function useRecords(streams: string[], key: string | null): Feed {
  const wanted = streams.join("\n");
  const cell = useMemo(
    () => new Cell<Feed>({ bars: [], rows: new Map(), version: 0, error: null, loading: true }, LIST_EVERY_MS),
    [wanted, key],
  );
  useEffect(() => {
    if (!wanted || key === null) return;
    const names = wanted.split("\n");
    const abort = new AbortController();
    let bars = new BarSeries();
    let rows = new Map(names.map((name) => [name, new RowSeries()]));
    let version = 0;
    /** Live records since the confirmation, until history is here. */
    let waiting: AnyRecord[] | null = [];
    let reading = 0;
    /** Whether history and what followed are here without a hole. */
    let whole = false;
    /** The highest number of each stream; a key has one slot in all of them. */
    let numbers = new Map<string, number>();
    let slot: number | null = null;
    const show = (error: string | null, loading: boolean) => {
      version += 1;
      cell.set({ bars: bars.bars, rows, version, error, loading });
    };
    const take = (records: AnyRecord[]): boolean => {
      for (const { stream, seq, ...record } of records) {
        if (record.key !== key || seq === null || record.slot === null) continue;
        slot = record.slot;
        numbers.set(stream, Math.max(seq, numbers.get(stream) ?? 0));
      }
      let changed = bars.take(records.filter((record) => record.key === key));
      for (const [name, series] of rows) {
        const own = records.filter((record) => record.stream === name && record.key === key);
        if (own.length && series.take(own)) changed = true;
      }
      return changed;
    };
    const read = async () => {
      const mine = (reading += 1);
      waiting = [];
      whole = false;
      try {
        const parts = await Promise.all(names.map((name) => rest.history(name, key, HISTORY_COUNT, abort.signal)));
        if (mine !== reading) return;
        bars = new BarSeries();
        rows = new Map(names.map((name) => [name, new RowSeries()]));
        numbers = new Map();
        for (const part of parts) take(part);
        take(waiting ?? []);
        waiting = null;
        whole = true;
        show(null, false);
      } catch (error) {
        if (abort.signal.aborted || mine !== reading) return;
        waiting = null;
        show(words(error), false);
      }
    };
    const stop = socket.subscribe(
      { streams: names, keys: [key], from: "latest", conflate: "none", lag: 10_000, past_lag: "conflate" },
      {
        subscribed: (resumed) => void (resumed || read()),
        resume() {
          const at = String(slot);
          // What was never seen here begins with the first there was.
          const next = (name: string) => ({ [at]: (numbers.get(name) ?? 0) + 1 });
          if (slot === null || !whole) return null;
          return Object.fromEntries(names.map((name) => [name, next(name)]));
        },
        records(records) {
          waiting?.push(...records);
          if (take(records)) show(cell.get().error, cell.get().loading);
        },
        loss: () => void read(),
        error: (error) => show(error.message, false),
      },
    );
    return () => {
      stop();
      abort.abort();
    };
  }, [wanted, key, cell]);
  return useCell(cell);
}

/** Rows of every key of a stream, or of several by lines, newest each; for streams whose keys are compared with each other. */
export function useAllLatest(stream: string | null): {
  rows: Row[];
  version: number;
  error: string | null;
  loading: boolean;
  lost: number;
} {
  const cell = useMemo(
    () => new Cell({ rows: [] as Row[], version: 0, error: null as string | null, loading: true, lost: 0 }),
    [stream],
  );
  useEffect(() => {
    if (!stream) return;
    const abort = new AbortController();
    const newest = new Map<string, Row>();
    let [version, lost] = [0, 0];
    const show = (error: string | null, loading: boolean) => {
      version += 1;
      cell.set({ rows: [...newest.values()], version, error, loading, lost });
    };
    const take = (records: AnyRecord[]) => {
      for (const record of records) {
        if (!isRow(record)) continue;
        const place = `${record.stream} ${record.key}`;
        const old = newest.get(place);
        if (!old || isNewer(record, old)) newest.set(place, record);
      }
    };
    const stop = socket.subscribe(
      { streams: stream.split("\n"), keys: "all", from: "snapshot", conflate: { every_ms: 500 }, past_lag: "conflate" },
      {
        subscribed: () => {
          newest.clear();
          show(null, false);
        },
        records: (records) => {
          take(records);
          show(null, false);
        },
        loss: (count, cause) => {
          if (cause !== "conflated") lost += count;
        },
        error: (error) => show(error.message, false),
      },
    );
    return () => {
      stop();
      abort.abort();
    };
  }, [stream, cell]);
  return useCell(cell);
}
