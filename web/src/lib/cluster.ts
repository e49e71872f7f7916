/** What the cluster's page says of a node, and what its chart draws. */
import type { Cluster, ClusterMember } from "../api/types";
import { loadOf } from "./groups";

/** How a node stands, in a colour and a few words. */
export function standing(state: Cluster, member: ClusterMember): { tone: "good" | "warn" | "bad"; says: string } {
  if (!member.connected)
    return { tone: "bad", says: member.fenced ? "given up: it does not answer" : "does not answer" };
  // Of the first group, which other nodes hold: it counts for nothing there, and lacks nothing.
  if (member.role === "relay") return { tone: "good", says: "relays it" };
  if (member.role === "fenced") return { tone: "bad", says: "fenced itself: it has something else" };
  if (member.node === state.leader) return { tone: "good", says: "leads" };
  if (member.in_sync) return { tone: "good", says: "follows, in sync" };
  return { tone: "warn", says: member.eligible ? "has everything, not in sync" : "catches up" };
}

/** How many entries each node was behind at a moment. */
export interface Lags {
  at_ms: number;
  entries: ReadonlyMap<number, number>;
}

/** Five minutes at one a second. */
const SAMPLES_MAX = 300;

/** One more moment; the oldest goes. A leader has no line; with several groups that of a node is the most that it lacks in any. */
export function lags(before: readonly Lags[], state: Cluster, at_ms: number): readonly Lags[] {
  const of = (member: ClusterMember) => (state.groups.length > 1 ? loadOf(state, member).lag : member.lag);
  const known = state.members.flatMap((member): [number, number][] => {
    const lag = of(member);
    return lag ? [[member.node, lag.entries]] : [];
  });
  return [...before.slice(-(SAMPLES_MAX - 1)), { at_ms, entries: new globalThis.Map(known) }];
}
