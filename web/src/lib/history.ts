import type { Status } from "../api/types";

/** What the overview's charts draw. Null where the node did not say. */
export interface Sample {
  at_ms: number;
  events: number | null;
  results: number | null;
  p50: number | null;
  p99: number | null;
  p99_9: number | null;
  lag_ms: number | null;
}

/** Five minutes at one a second. */
const SAMPLES_MAX = 300;
/** A hole longer than this is drawn as a hole. */
const HOLE_MS = 3_500;

/** The last minutes of the node's status, as far as this page was there to hear them. */
export class History {
  samples: Sample[] = [];

  push(status: Status, at_ms: number): void {
    const last = this.samples.at(-1);
    if (last && at_ms - last.at_ms < 500) return; // a burst after a stall says nothing new
    if (last && at_ms - last.at_ms > HOLE_MS) this.#add(hole(last.at_ms + 1));
    this.#add({
      at_ms,
      events: status.events?.rate ?? null,
      results: status.results?.rate ?? null,
      p50: status.latency_ns?.p50 ?? null,
      p99: status.latency_ns?.p99 ?? null,
      p99_9: status.latency_ns?.p99_9 ?? null,
      lag_ms: lagMax(status),
    });
  }

  #add(sample: Sample): void {
    this.samples.push(sample);
    if (this.samples.length > SAMPLES_MAX) this.samples.shift();
  }
}

function hole(at_ms: number): Sample {
  return { at_ms, events: null, results: null, p50: null, p99: null, p99_9: null, lag_ms: null };
}

/** The watermark lag of the slowest shard, or null when no shard says. */
export function lagMax(status: Status): number | null {
  const known = (status.shards ?? []).flatMap((shard) => (shard.lag_ms === null ? [] : [shard.lag_ms]));
  return known.length ? Math.max(...known) : null;
}
