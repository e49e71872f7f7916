/** A made-up cluster: three nodes, all well, or with one of them gone. */
import type { Cluster, ClusterMember } from "../src/api/types";

function member(node: number, more: Partial<ClusterMember> = {}): ClusterMember {
  return {
    node,
    self: node === 2,
    peers: `10.0.0.${node}:7500`,
    clients: `10.0.0.${node}:7443`,
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
  members: [member(1), member(2), member(3)],
  changes: [
    {
      kind: "move",
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
  members: [
    member(1),
    member(2),
    member(3, {
      connected: false,
      fenced: true,
      in_sync: false,
      heard_ms: 4_100,
      lag: { entries: 12_400, bytes: 8_100_000 },
    }),
  ],
  changes: [
    {
      kind: "left",
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
