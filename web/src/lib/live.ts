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
/** The lists are told at most this often; nobody reads faster. */
const LIST_EVERY_MS = 100;

export interface Names {
  /** What these names were searched for; the field may be ahead of it. */
  search: string;
  keys: Key[];
  /** All keys of the node. */
  total: number | null;
  error: string | null;
  done: boolean;
  /** There are more than a list can hold. */
  truncated: boolean;
}

/**
 * Names that contain `search`, page by page until all are here. Read again when the node comes back or knows more keys.
 * Keys of the `hosts` streams are left out: they have a page of their own, and the node's list does not tell them apart.
 */
export function useNames(search: string, hosts: string[]): Names & { retry: () => void } {
  const [names, set] = useState<Names>({ search, keys: [], total: null, error: null, done: false, truncated: false });
  const [attempt, setAttempt] = useState(0);
  const shown = useRef<string | null>(null);
  const now = useCell(link);
  const since = now.phase === "live" ? now.since_ms : 0;
  const known = useCell(status)?.keys ?? null;
  const settled = useSettled(known, 2_000);
  const elsewhere = useMembers(hosts, since, settled);
  useEffect(() => {
    if (!since) return;
    const abort = new AbortController();
    const load = async () => {
      let keys: Key[] = [];
      let after: string | undefined;
      try {
        do {
          const page = await rest.keys({ search, limit: NAMES_PAGE, after }, abort.signal);
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
  }, [search, since, settled, attempt]);
  const keys = useMemo(
    () => (elsewhere?.size ? names.keys.filter((key) => !elsewhere.has(key.name)) : names.keys),
    [names.keys, elsewhere],
  );
  return {
    ...names,
    keys: elsewhere ? keys : [],
    done: names.done && elsewhere !== null,
    retry: () => setAttempt((n) => n + 1),
  };
}

/** Names with a record in any of `streams`; null until known. What cannot be read is taken to be empty. */
function useMembers(streams: string[], since: number, settled: number | null): Set<string> | null {
  const [members, set] = useState<Set<string> | null>(streams.length ? null : new Set());
  const wanted = streams.join("\n");
  useEffect(() => {
    if (!since || !wanted) return;
    const abort = new AbortController();
    const found = new Set<string>();
    const load = async (stream: string) => {
      let after: string | undefined;
      do {
        const page = await rest.latest({ stream, limit: NAMES_PAGE, after }, abort.signal);
        for (const record of page.records) found.add(record.key);
        after = page.next ?? undefined;
      } while (after !== undefined && found.size < NAMES_MAX);
    };
    Promise.allSettled(wanted.split("\n").map(load)).then(() => abort.signal.aborted || set(found));
    return () => abort.abort();
  }, [wanted, since, settled]);
  return members;
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
  const newest = useMemo(() => new Cell(new Map<string, AnyRecord>()), [stream]);
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
 * confirmation, so that nothing lies between them; where both have a record, the higher revision stays. After a loss or a
 * reconnection the history is read again.
 */
export function useRecords(streams: string[], key: string | null): Feed {
  const wanted = streams.join("\n");
  const cell = useMemo(
    () => new Cell<Feed>({ bars: [], rows: new Map(), version: 0, error: null, loading: true }),
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
    const show = (error: string | null, loading: boolean) => {
      version += 1;
      cell.set({ bars: bars.bars, rows, version, error, loading });
    };
    const take = (records: AnyRecord[]): boolean => {
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
      try {
        const parts = await Promise.all(names.map((name) => rest.history(name, key, HISTORY_COUNT, abort.signal)));
        if (mine !== reading) return;
        bars = new BarSeries();
        rows = new Map(names.map((name) => [name, new RowSeries()]));
        for (const part of parts) take(part);
        take(waiting ?? []);
        waiting = null;
        show(null, false);
      } catch (error) {
        if (!abort.signal.aborted && mine === reading) show(words(error), false);
      }
    };
    const stop = socket.subscribe(
      { streams: names, keys: [key], from: "latest", conflate: "none", lag: 10_000, past_lag: "conflate" },
      {
        subscribed: () => void read(),
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

/** Rows of every key of a stream, newest each; for streams whose keys are compared with each other. */
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
        const old = newest.get(record.key);
        if (!old || isNewer(record, old)) newest.set(record.key, record);
      }
    };
    const stop = socket.subscribe(
      { streams: [stream], keys: "all", from: "snapshot", conflate: { every_ms: 500 }, past_lag: "conflate" },
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
