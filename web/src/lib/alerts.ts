/** Alerts and traffic, read again whenever the node says that something has changed. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { rest, words } from "../api/rest";
import type { AlertDetail, AlertList, AlertQuery, Traffic } from "../api/types";
import { link, status } from "../node";
import { Cell, useCell } from "./store";

/** Answers that are awaited; a node that finds something all the time is asked this often. */
const EVERY_MS = 700;
/** Flows go on without any alert changing. */
const TRAFFIC_EVERY_MS = 5_000;

export interface Answer<T> {
  value: T | null;
  error: string | null;
}

/** What in the status says that alerts have changed. */
function useChanges(): string {
  const now = useCell(status)?.alerts;
  const { phase } = useCell(link);
  // A node that came back is asked again.
  return now ? `${phase} ${now.revision}` : phase;
}

/** Asks now, when `again` changes (not more often than every so often), and when it is told to. */
function useAsked<T>(
  ask: ((signal: AbortSignal) => Promise<T>) | null,
  what: string,
  again: string | number,
): Answer<T> & { ask: () => void } {
  const cell = useMemo(() => new Cell<Answer<T>>({ value: null, error: null }), [what]);
  const [asked, setAsked] = useState(0);
  const runner = useMemo(() => {
    let [wanted, running, last_ms] = [false, false, -Infinity];
    const abort = new AbortController();
    const run = async (): Promise<void> => {
      if (running) return void (wanted = true);
      running = true;
      const wait_ms = last_ms + EVERY_MS - performance.now();
      if (wait_ms > 0) await new Promise((done) => setTimeout(done, wait_ms));
      wanted = false;
      last_ms = performance.now();
      try {
        if (!abort.signal.aborted && ask) cell.set({ value: await ask(abort.signal), error: null });
      } catch (error) {
        if (!abort.signal.aborted) cell.set({ value: cell.get().value, error: words(error) });
      }
      running = false;
      if (wanted && !abort.signal.aborted) await run();
    };
    return { run, abort };
  }, [cell]);
  useEffect(() => () => runner.abort.abort(), [runner]);
  useEffect(() => {
    if (ask) void runner.run();
  }, [runner, again, asked]);
  return { ...useCell(cell), ask: () => setAsked((n) => n + 1) };
}

export function useAlerts(query: AlertQuery): Answer<AlertList> & { ask: () => void } {
  const changes = useChanges();
  return useAsked((signal) => rest.alerts(query, signal), JSON.stringify(query), changes);
}

export function useAlert(id: string): Answer<AlertDetail> & { ask: () => void } {
  const changes = useChanges();
  return useAsked((signal) => rest.alert(id, signal), id, changes);
}

export function useTraffic(host: string | null, limit: number): Answer<Traffic> & { ask: () => void } {
  const changes = useChanges();
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setTurn((n) => n + 1), TRAFFIC_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return useAsked((signal) => rest.traffic(host, limit, signal), `${host} ${limit}`, `${changes} ${turn}`);
}
