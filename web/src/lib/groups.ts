/** What the cluster's page says of several groups: how each stands at each node, which slots it has, what is to be minded. */
import type { Cluster, ClusterGroup, ClusterMember, GroupReplica } from "../api/types";
import { bytes, count, DASH, millis, short } from "./format";

export const SLOTS = 4_096;
/** Entries behind that fill a bar: from here on the node warns of it too. */
const LAG_FULL = 4_096;

export type Tone = "good" | "warn" | "bad" | "faint" | "";

/** How a group stands at a node. */
export interface Place {
  kind: "leads" | "follows" | "out" | "comes" | "relays" | "gone" | "none";
  tone: Tone;
  /** A few words, and all that is known. */
  says: string;
  title: string;
  /** How full the bar is; null for none. */
  share: number | null;
  /** Worse is more. */
  rank: number;
}

export function holds(group: ClusterGroup, node: number): boolean {
  return group.holders === undefined || group.holders.includes(node);
}

export function replicaOf(group: ClusterGroup, node: number): GroupReplica | undefined {
  return group.replicas.find((replica) => replica.node === node);
}

/** A bar that shows one entry as well as thousands: a logarithm, up to what is worth a warning. */
export function lagShare(entries: number): number {
  return Math.min(1, Math.log2(1 + Math.max(0, entries)) / Math.log2(1 + LAG_FULL));
}

/** How far a copy is, as a share of the snapshot that it fetches; null before or behind that. */
export function copyShare(group: ClusterGroup): number | null {
  const fetching = group.coming?.fetching;
  return fetching && fetching.all > 0 ? Math.min(1, fetching.have / fetching.all) : null;
}

export function placeOf(group: ClusterGroup, member: ClusterMember): Place {
  const { node } = member;
  const name = `group ${group.group} at node ${node}`;
  const gone = !member.connected && !member.self;
  if (group.leader === node) {
    const says = gone ? "led, gone" : "leads";
    const since = `leads since epoch ${group.epoch}`;
    const title = `${name}: ${since}${gone ? ", and does not answer" : ""}`;
    return { kind: "leads", tone: gone ? "bad" : "good", says, title, share: null, rank: gone ? 5 : 0 };
  }
  const { coming } = group;
  if (coming?.to === node) {
    const share = copyShare(group);
    const how = coming.fetching
      ? `${bytes(coming.fetching.have)} of a snapshot of ${bytes(coming.fetching.all)}`
      : coming.entries === null
        ? "begins"
        : `${count(coming.entries)} entries are there`;
    const place = coming.from === null ? "" : ` in place of node ${coming.from}`;
    const title = `${name}: a copy comes${place}: ${coming.problem ? `waits: ${coming.problem}` : how}`;
    const says = coming.problem ? "waits" : share === null ? "comes" : `comes ${Math.floor(share * 100)} %`;
    return { kind: "comes", tone: coming.problem ? "warn" : "", says, title, share, rank: coming.problem ? 3 : 1 };
  }
  const relay = group.relays?.find((relay) => relay.node === node);
  if (!holds(group, node)) {
    if (gone)
      return { kind: "gone", tone: "faint", says: "gone", title: `${name}: does not answer`, share: null, rank: 2 };
    if (!relay)
      return { kind: "none", tone: "faint", says: DASH, title: `${name}: nothing is known`, share: null, rank: 0 };
    const base = { kind: "relays" as const, share: null };
    if (relay.from === null) {
      const title = `${name}: finds no node to relay it from, its readers wait`;
      return { ...base, tone: "bad", says: "no source", title, rank: 5 };
    }
    const late = relay.behind_ms === null ? "" : `, ${millis(relay.behind_ms)} of event time behind the leader`;
    if (relay.caught_up === false) {
      const title = `${name}: reads what was before at node ${relay.from}`;
      return { ...base, tone: "warn", says: `reads ${relay.from}`, title, rank: 3 };
    }
    const lost = relay.skipped ? `; ${count(relay.skipped)} results no holder had any more` : "";
    const title = `${name}: relays it from node ${relay.from}${late}${lost}`;
    return { ...base, tone: "faint", says: `relays ${relay.from}`, title, rank: 0.5 };
  }
  const replica = replicaOf(group, node);
  const lag = replica?.lag ?? null;
  const lacks = lag === null ? "how far is not known" : `lacks ${count(lag.entries)} entries, ${bytes(lag.bytes)}`;
  if (gone) {
    return {
      kind: "gone",
      tone: "bad",
      says: "gone",
      title: `${name}: does not answer; it ${lacks} at last`,
      share: null,
      rank: 6,
    };
  }
  const share = lag === null ? null : lagShare(lag.entries);
  const behind = lag === null ? "" : short(lag.entries);
  if (group.isr.includes(node)) {
    const title = `${name}: in sync, ${lacks}`;
    const says = lag === null || lag.entries === 0 ? "in sync" : `${behind} behind`;
    return { kind: "follows", tone: "good", says, title, share, rank: 1 + (share ?? 0) };
  }
  const says = group.eligible.includes(node) ? "eligible" : lag === null ? "catches up" : `out ${behind}`;
  const what = group.eligible.includes(node) ? "not in sync, and has everything that counts" : "not in sync";
  return { kind: "out", tone: "warn", says, title: `${name}: ${what}; ${lacks}`, share, rank: 4 + (share ?? 0) };
}

/** What is not as it should be in a group, in words; null when all is. */
export function trouble(state: Cluster, group: ClusterGroup): { tone: "warn" | "bad"; says: string } | null {
  if (group.leader === null) return { tone: "bad", says: "nobody leads it" };
  const leader = state.members.find((member) => member.node === group.leader);
  if (leader && !leader.connected && !leader.self) return { tone: "bad", says: "its leader does not answer" };
  if (group.isr.length < group.min_isr) {
    return { tone: "bad", says: `${group.isr.length} in sync, ${group.min_isr} are needed` };
  }
  const places = state.members.map((member) => placeOf(group, member));
  const worst = places.reduce((worst, place) => (place.rank > worst.rank ? place : worst), places[0]!);
  // It goes on nevertheless.
  if (worst && (worst.tone === "warn" || worst.tone === "bad")) return { tone: "warn", says: worst.title };
  return null;
}

/** Runs of slots, both ends included, by group. A map that is not known has none. */
export function runs(slots: readonly [first: number, group: number][]): [first: number, last: number, group: number][] {
  return slots.map(([first, group], at) => [first, (slots[at + 1]?.[0] ?? SLOTS) - 1, group]);
}

export function slotsText(slots: readonly [number, number][], group: number, most = 6): string {
  const own = runs(slots).filter((run) => run[2] === group);
  const named = own
    .slice(0, most)
    .map(([first, last]) => (first === last ? count(first) : `${count(first)} to ${count(last)}`));
  return named.join(", ") + (own.length > most ? `, and ${own.length - most} more runs` : "");
}

/** A part of a row of the map. */
export interface Segment {
  row: number;
  /** In the row, and how wide. */
  at: number;
  width: number;
  group: number;
  /** The run that it is of. */
  first: number;
  last: number;
}

/** The runs as they lie in rows of so many slots. */
export function segments(slots: readonly [number, number][], columns: number): Segment[] {
  const found: Segment[] = [];
  for (const [first, last, group] of runs(slots)) {
    for (let from = first; from <= last;) {
      const row = Math.floor(from / columns);
      const end = Math.min(last, (row + 1) * columns - 1);
      found.push({ row, at: from - row * columns, width: end - from + 1, group, first, last });
      from = end + 1;
    }
  }
  return found;
}

/** A colour of its own for each group: neighbours differ by the golden angle. */
export function hue(group: number): number {
  return Math.round((205 + group * 137.508) % 360);
}

/** Slots that leave each group and come to it. */
export function moving(state: Cluster): Map<number, { leave: number; come: number }> {
  const found = new Map<number, { leave: number; come: number }>();
  const of = (group: number) => {
    const known = found.get(group) ?? { leave: 0, come: 0 };
    found.set(group, known);
    return known;
  };
  const all = runs(state.slots);
  for (const [slot, move] of Object.entries(state.moves ?? {})) {
    const run = all.find(([first, last]) => first <= Number(slot) && Number(slot) <= last);
    if (!run) continue;
    of(run[2]).leave += 1;
    of(move.to).come += 1;
  }
  return found;
}

/** What a node has of all groups. */
export interface NodeLoad {
  leads: number[];
  holds: number;
  /** Groups that it holds and is not in sync in. */
  out: number[];
  relays: number;
  coming: number;
  events: number | null;
  log_bytes: number | null;
  /** Most entries behind, and in which group. */
  lag: { entries: number; bytes: number; group: number } | null;
}

export function loadOf(state: Cluster, member: ClusterMember): NodeLoad {
  const { node } = member;
  const own = state.groups.flatMap((group) => replicaOf(group, node) ?? []);
  const sum = (of: (replica: GroupReplica) => number) =>
    own.length ? own.reduce((all, replica) => all + of(replica), 0) : null;
  let lag: NodeLoad["lag"] = null;
  for (const group of state.groups) {
    const found = replicaOf(group, node)?.lag;
    if (found && (lag === null || found.entries > lag.entries)) lag = { ...found, group: group.group };
  }
  // A copy that comes is counted as such until it is there.
  const held = state.groups.filter((group) => holds(group, node) && group.coming?.to !== node);
  return {
    leads: state.groups.filter((group) => group.leader === node).map((group) => group.group),
    holds: held.length,
    out: held.filter((group) => !group.isr.includes(node)).map((group) => group.group),
    relays: state.groups.filter((group) => group.relays?.some((relay) => relay.node === node)).length,
    coming: state.groups.filter((group) => group.coming?.to === node).length,
    events: sum((replica) => replica.events),
    log_bytes: sum((replica) => replica.log_bytes),
    lag,
  };
}

/** How a node stands over all groups. */
export function nodeStanding(member: ClusterMember, load: NodeLoad): { tone: "good" | "warn" | "bad"; says: string } {
  if (!member.connected && !member.self) {
    return { tone: "bad", says: member.fenced ? "given up: it does not answer" : "does not answer" };
  }
  if (load.out.length) {
    const which =
      load.out.length > 4
        ? `${load.out.length} groups`
        : `group${load.out.length > 1 ? "s" : ""} ${load.out.join(", ")}`;
    return { tone: "warn", says: `not in sync in ${which}` };
  }
  return { tone: "good", says: load.holds ? "in sync in all it holds" : "holds none" };
}

/** What the table shows. */
export type Wanted = { kind: "all" } | { kind: "mind" } | { kind: "moving" } | { kind: "led"; node: number };

/** Whether anything of a group is on its way. */
export function isMoving(state: Cluster, group: ClusterGroup): boolean {
  return group.coming !== undefined || moving(state).has(group.group);
}

export function chosen(state: Cluster, wanted: Wanted): ClusterGroup[] {
  switch (wanted.kind) {
    case "all":
      return state.groups;
    case "mind":
      return state.groups.filter((group) => trouble(state, group));
    case "moving": {
      const slots = moving(state);
      return state.groups.filter((group) => group.coming !== undefined || slots.has(group.group));
    }
    case "led":
      return state.groups.filter((group) => group.leader === wanted.node);
  }
}
