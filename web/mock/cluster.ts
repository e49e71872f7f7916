/** Made-up clusters: three nodes with one group, all well or with one of them gone; and five nodes in three zones with many groups. */
import type { Cluster, ClusterGroup, ClusterMember, GroupRelay, GroupReplica } from "../src/api/types";

function member(node: number, more: Partial<ClusterMember> = {}): ClusterMember {
  return {
    node,
    self: node === 2,
    peers: `10.0.0.${node}:7500`,
    clients: `10.0.0.${node}:7443`,
    zone: null,
    incarnation: node,
    fenced: false,
    connected: true,
    heard_ms: node === 2 ? null : 20,
    in_sync: true,
    eligible: false,
    status_age_ms: 120,
    role: node === 1 ? "leader" : "follower",
    epoch: 4,
    end: 48_211,
    committed: 48_210,
    log_bytes: 31_457_280,
    events: 1_203_441,
    digest: "00c0ffee00c0ffee",
    lag: node === 1 ? null : { entries: node - 2, bytes: 640 * (node - 2) },
    ...more,
  };
}

/** The one group of a cluster that has no other: what its nodes say. */
function only(members: ClusterMember[], isr: number[]): ClusterGroup {
  return {
    group: 0,
    slots: 4_096,
    leader: 1,
    epoch: 4,
    lineage: 1,
    min_isr: 2,
    isr,
    eligible: [],
    end: 48_211,
    committed: 48_210,
    events: 1_203_441,
    replicas: members.map((of) => ({
      node: of.node,
      role: of.role ?? "follower",
      epoch: of.epoch ?? 0,
      end: of.end ?? 0,
      committed: of.committed ?? 0,
      log_bytes: of.log_bytes ?? 0,
      events: of.events ?? 0,
      digest: of.digest ?? "",
      status_age_ms: of.status_age_ms ?? 0,
      lag: of.lag,
    })),
  };
}

const ALL = [member(1), member(2), member(3)];
const REST = [
  member(1),
  member(2),
  member(3, {
    connected: false,
    fenced: true,
    in_sync: false,
    heard_ms: 4_100,
    lag: { entries: 12_400, bytes: 8_100_000 },
  }),
];

export const WELL: Cluster = {
  cluster: "51ab90cd12ef7788",
  node: 2,
  role: "follower",
  leader: 1,
  epoch: 4,
  lineage: 1,
  revision: 12,
  min_isr: 2,
  isr: [1, 2, 3],
  eligible: [],
  consensus: { leader: 1, term: 7 },
  end: 48_211,
  committed: 48_210,
  digest: { value: "00c0ffee00c0ffee", offset: 48_210 },
  log_bytes: 31_457_280,
  log_bytes_max: 4_294_967_296,
  members: ALL,
  groups: [only(ALL, [1, 2, 3])],
  slots: [[0, 0]],
  changes: [
    {
      kind: "move",
      group: 0,
      epoch: 4,
      lineage: 1,
      from: 2,
      to: 1,
      reason: "node 2 handed over or was told to",
      age_ms: 61_000,
      time: "2026-01-05T14:39:00.000Z",
    },
    {
      kind: "joined",
      group: 0,
      epoch: 3,
      lineage: 1,
      from: null,
      to: 1,
      reason: "node 1 has everything",
      age_ms: 92_000,
      time: "2026-01-05T14:38:29.000Z",
    },
  ],
  warnings: [],
};

export const ONE_GONE: Cluster = {
  ...WELL,
  isr: [1, 2],
  members: REST,
  groups: [only(REST, [1, 2])],
  changes: [
    {
      kind: "left",
      group: 0,
      epoch: 4,
      lineage: 1,
      from: 3,
      to: null,
      reason: "node 3 did not answer and was given up",
      age_ms: 3_000,
      time: "2026-01-05T14:39:58.000Z",
    },
    ...WELL.changes,
  ],
  warnings: [
    { code: "one_more_loss", severity: "warn", text: "nodes 1 and 2 in sync: one more loss stops commits" },
    { code: "not_connected", severity: "warn", text: "node 3 cannot be reached from here" },
  ],
};

const NODES = 5;
const COPIES = 3;
const ZONES = ["east", "east", "north", "north", "west"];

/** Five nodes of which each holds three in five of so many groups; all well. */
export function several(count: number): Cluster {
  const at = (node: number) => ((node - 1) % NODES) + 1;
  const groups = Array.from({ length: count }, (_, group): ClusterGroup => {
    const leader = at(1 + group);
    const holders = Array.from({ length: COPIES }, (_, next) => at(leader + next)).sort();
    const end = 20_000 + 137 * group;
    const replica = (node: number): GroupReplica => ({
      node,
      role: node === leader ? "leader" : "follower",
      epoch: 2 + (group % 3),
      end,
      committed: end - 1,
      log_bytes: 4_194_304 + 65_536 * group,
      events: 90_000 + 1_021 * group,
      digest: `00c0ffee00c0f${(0x100 + group).toString(16)}`,
      status_age_ms: 210,
      lag: node === leader ? null : { entries: (group * 3 + node) % 5, bytes: 400 * ((group * 3 + node) % 5) },
    });
    const relay = (node: number): GroupRelay => ({
      node,
      from: holders.find((holder) => ZONES[holder - 1] === ZONES[node - 1]) ?? leader,
      caught_up: true,
      behind_ms: (group * 7 + node * 3) % 40,
      results: 5_000,
      skipped: 0,
      status_age_ms: 210,
    });
    const others = Array.from({ length: NODES }, (_, next) => next + 1).filter((node) => !holders.includes(node));
    const own = holders.includes(2) ? replica(2) : null;
    return {
      group,
      slots: Math.floor((4_096 * (group + 1)) / count) - Math.floor((4_096 * group) / count),
      leader,
      epoch: 2 + (group % 3),
      lineage: 1,
      min_isr: 2,
      isr: holders,
      eligible: [],
      end: own?.end ?? null,
      committed: own?.committed ?? null,
      events: own?.events ?? null,
      replicas: holders.map(replica),
      holders,
      relays: others.map(relay),
    };
  });
  const members = Array.from({ length: NODES }, (_, next) =>
    member(next + 1, { zone: ZONES[next] ?? null, in_sync: groups[0]!.isr.includes(next + 1), lag: null }),
  );
  const change = { lineage: 1, age_ms: 12_000, time: "2026-01-05T14:39:48.000Z" };
  return {
    ...WELL,
    isr: groups[0]!.isr,
    members,
    groups,
    slots: groups.map(({ group }) => [Math.floor((4_096 * group) / count), group]),
    changes: [3, 8].map((group) => ({
      ...change,
      ...{ kind: "move", group, epoch: 3, from: 5, to: 1, reason: "node 5 handed over or was told to" },
    })),
  };
}

/** The same with something of everything: a group without a leader, one behind, a copy and slots on their way, a slot that has moved. */
export function busy(count: number): Cluster {
  const state = several(count);
  const change = (group: number, change: (of: ClusterGroup) => Partial<ClusterGroup>) => {
    const of = state.groups[group]!;
    state.groups[group] = { ...of, ...change(of) };
  };
  change(2, () => ({ leader: null, isr: [] }));
  change(5, (of) => ({
    isr: of.isr.filter((node) => node !== 2),
    replicas: of.replicas.map((replica) =>
      replica.node === 2 ? { ...replica, lag: { entries: 5_210, bytes: 700_000 } } : replica,
    ),
  }));
  change(7, (of) => ({
    holders: [...of.holders!, 1].sort(),
    coming: { to: 1, from: 4, entries: 0, fetching: { have: 5_767_168, all: 14_680_064 }, problem: null },
  }));
  change(9, (of) => ({
    relays: of.relays!.map((relay, at) => (at ? relay : { ...relay, from: null, caught_up: false, behind_ms: null })),
  }));
  // One slot of group 0 is group 4's by now, and three more are to follow.
  const [first, ...rest] = state.slots;
  state.slots = [first!, [20, 4], [21, 0], ...rest];
  change(0, (of) => ({ slots: of.slots - 1 }));
  change(4, (of) => ({ slots: of.slots + 1 }));
  state.moves = { 22: { to: 4 }, 23: { to: 4 }, 40: { to: 6 } };
  state.warnings = [
    { code: "no_leader", severity: "bad", text: "group 2: nobody leads it: nothing is taken in" },
    { code: "one_more_loss", severity: "warn", text: "group 5: nodes 1 and 3 in sync: one more loss stops commits" },
  ];
  return state;
}
