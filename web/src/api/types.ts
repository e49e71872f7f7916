/**
 * The gateway's contract, as the page reads it. Times are integer nanoseconds since 1970 in strings, prices and sizes are
 * decimal strings; `null` is "not known" and must reach the reader as such.
 */

export type StreamKind = "bars" | "values" | "hosts" | "integers";

export interface Stream {
  name: string;
  kind: StreamKind;
  columns: string[];
  width_ns?: string | null;
}

export interface Key {
  name: string;
  slot: number | null;
}

export interface KeyPage {
  keys: Key[];
  /** All keys of the node, or of the stream that was asked for, whatever is searched for. Null if not all may be read. */
  total: number | null;
  next: string | null;
}

export type RecordState = "forming" | "final" | "amended";

interface RecordHead {
  key: string;
  stream: string;
  slot: number | null;
  seq: number | null;
  ts: string;
  time?: string;
  state: RecordState;
  cause: string | null;
}

export interface Bar extends RecordHead {
  ts_open: string;
  open: string;
  high: string;
  low: string;
  close: string;
  volume: string;
  buy_volume: string | null;
  notional: string | null;
  vwap: string | null;
  trades: number;
  rev: number;
  closed?: boolean;
  missing: number | null;
}

export interface Row extends RecordHead {
  ts_open?: string;
  rev?: number;
  values: Record<string, number | string | null>;
}

/** A late trade that its stream sets aside instead of amending the bar. */
export interface LateTrade extends Omit<RecordHead, "state"> {
  state: "late";
  late: { ts: string; price: string; size: string };
}

export type AnyRecord = Bar | Row | LateTrade;

export function isBar(record: AnyRecord): record is Bar {
  return "open" in record;
}

export function isRow(record: AnyRecord): record is Row {
  return "values" in record;
}

export interface Shard {
  shard: number;
  phase: string | null;
  events: number | null;
  outputs: number | null;
  watermark: string | null;
  lag_ms: number | null;
  ring_depth: number | null;
  ring_capacity: number | null;
  busy: number | null;
  blocked?: number | null;
  panics: number | null;
  restarts: number | null;
}

export interface Feed {
  source: string;
  peer: string | null;
  accepted: number | null;
  duplicates: number | null;
  gaps: number | null;
  rejected: Record<string, number> | null;
  overflowed?: number | null;
  connected: boolean | null;
  /** It said that it has no more. */
  finished?: boolean | null;
  sequence: number | null;
}

export interface Subscriber {
  id: number | string;
  peer: string | null;
  kind: string | null;
  streams: string[] | null;
  policy: string | null;
  delivered: number | null;
  conflated: number | null;
  dropped: number | null;
  lag: number | null;
}

export interface LedgerEntry {
  stage: string;
  delivered: number | null;
  by_cause: Record<string, number>;
  imbalance: number | null;
}

export interface Stage {
  name: string;
  upstream: string | null;
  stream: string | null;
  outputs: number | null;
  /** Keys with a record in its stream. */
  keys?: number | null;
}

/** What part of its time a thread of the node spends how; the three make one. */
export interface Thread {
  thread: string;
  busy: number | null;
  blocked: number | null;
  idle: number | null;
}

export interface Latency {
  p50: number | null;
  p99: number | null;
  p99_9: number | null;
  max: number | null;
  /** How many these are of. */
  samples?: number | null;
}

/** The cluster in a few words. */
export interface ClusterBrief {
  node: number;
  nodes: number;
  role: string | null;
  leader: number | null;
  epoch: number;
  in_sync: number;
  min_isr: number;
  warnings: number;
  /** Whether one of them is that something does not work. */
  bad: boolean;
}

export interface ClusterMember {
  node: number;
  self: boolean;
  peers: string;
  clients: string;
  /** What fails together with it, if anybody said so. */
  zone: string | null;
  incarnation: number;
  fenced: boolean;
  connected: boolean;
  heard_ms: number | null;
  in_sync: boolean;
  eligible: boolean;
  status_age_ms: number | null;
  role: string | null;
  epoch: number | null;
  end: number | null;
  committed: number | null;
  log_bytes: number | null;
  events: number | null;
  digest: string | null;
  /** Null for the leader, and while the leader does not know. */
  lag: { entries: number; bytes: number } | null;
}

/** What a node said last of its replica of a group. */
export interface GroupReplica {
  node: number;
  role: string;
  epoch: number;
  end: number;
  committed: number;
  log_bytes: number;
  events: number;
  digest: string;
  status_age_ms: number;
  /** Null for the leader, and while the leader does not know. */
  lag: { entries: number; bytes: number } | null;
}

/** How a node has the results of a group that others hold. */
export interface GroupRelay {
  node: number;
  from: number | null;
  /** Null: a node of an earlier version, which does not say. */
  caught_up: boolean | null;
  behind_ms: number | null;
  results: number;
  skipped: number;
  status_age_ms: number;
}

/** A copy of a group that is on its way. */
export interface GroupCopy {
  to: number;
  from: number | null;
  entries: number | null;
  fetching: { have: number; all: number } | null;
  problem: string | null;
}

/** A part of the slots, with a log of its own. */
export interface ClusterGroup {
  group: number;
  slots: number;
  leader: number | null;
  epoch: number;
  lineage: number;
  min_isr: number;
  isr: number[];
  eligible: number[];
  /** As this node has it; null where it does not hold the group. */
  end: number | null;
  committed: number | null;
  events: number | null;
  replicas: GroupReplica[];
  /** Absent where every node holds every group. */
  holders?: number[];
  relays?: GroupRelay[];
  coming?: GroupCopy;
}

export interface ClusterChange {
  kind: string;
  group: number;
  epoch: number;
  lineage: number;
  from: number | null;
  to: number | null;
  reason: string;
  age_ms: number;
  time: string | null;
}

/** The cluster as the node that serves this page sees it. */
export interface Cluster {
  cluster: string;
  node: number;
  role: string | null;
  leader: number | null;
  epoch: number;
  lineage: number;
  revision: number;
  min_isr: number;
  isr: number[];
  eligible: number[];
  consensus: { leader: number | null; term: number };
  end: number | null;
  committed: number | null;
  digest: { value: string; offset: number } | null;
  log_bytes: number | null;
  log_bytes_max: number;
  members: ClusterMember[];
  /** By number; what stands beside them is of the first. */
  groups: ClusterGroup[];
  /** Where runs of slots of one group begin, and of which. */
  slots: [first: number, group: number][];
  /** Slots on their way to another group, where the node says so. */
  moves?: Record<string, { from?: number; to: number }>;
  /** The newest first. */
  changes: ClusterChange[];
  warnings: { code: string; severity: "bad" | "warn"; text: string }[];
}

export interface Status {
  version: string | null;
  uptime_s: number | null;
  events: { total: number | null; rate: number | null } | null;
  results: { total: number | null; rate: number | null } | null;
  keys: number | null;
  latency_ns: Latency | null;
  threads?: Thread[] | null;
  shards: Shard[] | null;
  feeds: Feed[] | null;
  subscribers: Subscriber[] | null;
  /** The list may be cut. */
  subscribers_total?: number | null;
  /** Names of what may become of an event, in the engine's order. */
  causes?: string[] | null;
  ledger: LedgerEntry[] | null;
  /** Null on a node that stands alone. */
  cluster?: ClusterBrief | null;
  /** Null: nothing in the node looks for anything. */
  alerts?: AlertCounts | null;
  stages: Stage[] | null;
}

export type Severity = "low" | "medium" | "high";

/** What detectors, rules and streams found, and what became of it. */
export interface AlertCounts {
  /** Goes up when anything of the alerts changes. */
  revision: number;
  findings: number;
  told: { new: number; worse: number };
  held: Record<string, number>;
  open: Record<Severity, number>;
  kept: number;
  forgotten: number;
  datagrams: number;
  packets: number;
  flows: number;
  queues: Record<string, { depth: number; capacity: number }>;
  dropped: Record<string, number>;
  sent: number;
  /** Why alerts are not written down at present. */
  problem: string | null;
}

/** An episode: what one entity does that one detector sees. */
export interface Alert {
  id: string;
  kind: string;
  entity: string;
  spoofed: boolean;
  severity: Severity;
  score: number;
  technique: string | null;
  method: string;
  peer: string | null;
  port: number | null;
  features: { name: string; seen: number; expected: number }[];
  range: { first: string; last: string; first_ts: string; last_ts: string };
  proof: { input: string; units: string; at_end: boolean; ts: string; score_bits: string } | null;
  first_ts: string;
  last_ts: string;
  count: number;
  group: string;
  /** The severity it was last told at; null: held back. */
  told: Severity | null;
  held: Record<string, number>;
  status: "open" | "acknowledged" | "false-positive";
  note: string | null;
}

export interface AlertList {
  alerts: Alert[];
  total: number;
  held: { day: string; group: string; held: Record<string, number> }[];
}

export interface AlertQuery {
  state?: "open" | "all" | "held" | undefined;
  min_severity?: Severity | undefined;
  entity?: string | undefined;
}

export interface Flow {
  id: number;
  ts: string;
  duration_ns: number | null;
  originator: string;
  originator_port: number;
  responder: string;
  responder_port: number;
  protocol: string;
  state: string;
  history: string;
  bytes_out: number;
  bytes_in: number;
  packets_out: number;
  packets_in: number;
}

export interface AlertDetail extends Alert {
  input: { path: string; digest: string; program: string; units: string } | null;
  /** The command that reaches the score again. */
  replay: string | null;
  /** Why there is none. */
  no_replay?: string | null;
  /** The stream and key that it was found in. */
  series: { stream: string; key: string; rows: { seq: number; ts: string; values: (number | null)[] }[] } | null;
  /** What a rule over results was found in: rows of one key, oldest first. */
  rows: FoundRow[] | null;
  /** The score that the feedback of this alert demands. */
  required: number | null;
  flows: Flow[];
}

/** A row of a stream of results, by its columns. */
export interface FoundRow {
  stream: string;
  key: string;
  seq: number;
  ts: string;
  values: Record<string, number | string | null>;
}

export interface TrafficHost {
  address: string;
  private: boolean;
  /** Open alerts it is accused in. */
  alerts: number;
  opened: number;
  taken: number;
  failed: number;
  bytes_out: number;
  bytes_in: number;
  first_ts: string;
  last_ts: string;
}

export interface TrafficEdge {
  from: string;
  to: string;
  flows: number;
  failed: number;
  bytes_out: number;
  bytes_in: number;
  last_ts: string;
  services: string[];
  more_services: boolean;
}

export interface Traffic {
  hosts: TrafficHost[];
  hosts_total: number;
  edges: TrafficEdge[];
  edges_total: number;
  flows: number;
  forgotten: number;
  /** The last flows of the host that was asked for. */
  recent?: Flow[];
}

export type Conflation = "none" | "latest" | { every_ms: number };

export interface Subscribe {
  op: "subscribe";
  id: number;
  streams: string[];
  keys: string[] | "all";
  from: "latest" | "snapshot" | { lookback: number } | FromSequence;
  conflate?: Conflation;
  lag?: number;
  past_lag?: "conflate" | "drop_oldest" | "disconnect";
}

/** Numbers to go on with: of all slots of all streams, and of some where they differ. */
export interface FromSequence {
  sequence: number;
  slots?: Record<string, Record<string, number>>;
  /** The start of the node that the numbers are of. */
  incarnation?: string;
  /** What if records from there on are no longer kept. */
  cut?: "error" | "loss";
}

export type ClientMessage =
  | { op: "auth"; token: string }
  | Subscribe
  | { op: "unsubscribe"; id: number }
  | { op: "ping"; id: number }
  | { op: "status"; every_ms: number };

export type ServerMessage =
  | { op: "authorized"; principal: string; expires_in_ms: number | null }
  | { op: "subscribed"; id: number; lag?: number; incarnation?: string }
  | { op: "live"; id: number; stream: string }
  | { op: "unsubscribed"; id: number }
  | { op: "data"; id: number; records: AnyRecord[]; past?: boolean; conflated?: number }
  | { op: "loss"; id: number; count: number; cause: string; stream?: string; exact?: boolean }
  | { op: "closed"; id: number; code: string; message: string }
  | { op: "pong"; id: number }
  | { op: "status"; status: Status }
  | ({ op: "error"; id?: number } & ApiError);

export interface ApiError {
  code: string;
  message: string;
  allowed?: string[];
}
