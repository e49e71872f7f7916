/** The cluster as this node sees it: who leads, who holds the log, how far each is, what happened, what to mind. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { rest, words } from "../api/rest";
import type { Cluster as State, ClusterChange, ClusterMember } from "../api/types";
import type { Ink } from "../chart/palette";
import { lags, standing, type Lags } from "../lib/cluster";
import { axis, bytes, count, DASH, millis, percent, short, text } from "../lib/format";
import { useCell } from "../lib/store";
import { status } from "../node";
import { Badge, Card, Empty, Failure } from "../ui/parts";
import { Plot } from "../ui/plot";
import { Table, type Column } from "../ui/table";
import { GroupMembers, GroupNodes, Groups, GroupTiles } from "./groups";
import { Waiting } from "./waiting";

const ASK_EVERY_MS = 1_000;
const INKS: Ink[] = ["series-2", "series-4", "series-3", "series-5", "series-6", "series-1"];

type Known = { state: State; samples: readonly Lags[] } | { error: unknown } | null;

/** Asks again and again for as long as the page is open. */
function useCluster(wanted: boolean): [Known, () => void] {
  const [known, setKnown] = useState<Known>(null);
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    if (!wanted) return;
    const stop = new AbortController();
    let timer = 0;
    let samples: readonly Lags[] = [];
    const ask = async () => {
      try {
        const state = await rest.cluster(stop.signal);
        samples = lags(samples, state, Date.now());
        setKnown({ state, samples });
      } catch (error) {
        if (stop.signal.aborted) return;
        setKnown({ error });
      }
      timer = window.setTimeout(ask, ASK_EVERY_MS);
    };
    void ask();
    return () => (stop.abort(), clearTimeout(timer));
  }, [wanted, attempt]);
  return [known, () => setAttempt(attempt + 1)];
}

export function Cluster() {
  const now = useCell(status);
  const member = now ? now.cluster != null : null;
  const [known, again] = useCluster(member === true);
  if (member === null) return <Waiting />;
  if (!member) {
    return (
      <div class="alone">
        <Empty title="This node stands alone">
          It holds its log by itself. <code>tidegate cluster init</code> makes a cluster.
        </Empty>
      </div>
    );
  }
  if (known === null) return <Waiting />;
  if ("error" in known) {
    return (
      <div class="alone">
        <Failure title="How the cluster is cannot be told" detail={words(known.error)} onRetry={again} />
      </div>
    );
  }
  const { state, samples } = known;
  const several = state.groups.length > 1;
  return (
    <>
      <h1 class="quiet">Cluster</h1>
      <Warnings state={state} />
      {several ? <GroupTiles state={state} /> : <Tiles state={state} />}
      {several ? <GroupNodes state={state} /> : <Map state={state} />}
      {several && <Groups state={state} />}
      <div class="split cluster-parts">
        <Lag state={state} samples={samples} several={several} />
        <Changes state={state} several={several} />
      </div>
      {several ? <GroupMembers state={state} /> : <Members state={state} />}
    </>
  );
}

function Warnings({ state }: { state: State }) {
  return (
    <div class="warnings" role="status" data-testid="cluster-warnings">
      {state.warnings.length === 0 ? (
        <p class="good">
          {state.groups.length > 1
            ? `Each of ${state.groups.length} groups is in sync wherever it is held`
            : "All nodes hold the log"}
          : {spare(state)} may be lost and feeds go on.
        </p>
      ) : (
        state.warnings.map(({ code, severity, text }) => (
          <p key={code} class={severity} data-code={code}>
            <Badge tone={severity}>{severity === "bad" ? "trouble" : "note"}</Badge> {text}
          </p>
        ))
      )}
    </div>
  );
}

/** Nodes that may be lost, whichever these are. */
function spare(state: State): number {
  return Math.min(...state.groups.map((group) => group.isr.length - group.min_isr));
}

function Tiles({ state }: { state: State }) {
  const behind = state.members.flatMap((member) => (member.lag ? [member.lag] : []));
  const most = behind.length ? Math.max(...behind.map((lag) => lag.entries)) : null;
  const most_bytes = behind.length ? Math.max(...behind.map((lag) => lag.bytes)) : null;
  const share = state.log_bytes === null ? null : state.log_bytes / state.log_bytes_max;
  const tiles: [id: string, title: string, value: string, under: string][] = [
    [
      "leader",
      "Leader",
      state.leader === null ? "none" : `node ${state.leader}`,
      `this is node ${state.node}, ${text(state.role)}`,
    ],
    ["epoch", "Epoch", count(state.epoch), `lineage ${count(state.lineage)}`],
    ["isr", "In sync", `${state.isr.length} of ${state.members.length}`, `${state.min_isr} are needed to commit`],
    ["committed", "Committed", count(state.committed), `entries, of ${count(state.end)}`],
    [
      "lag",
      "Most behind",
      most === null ? DASH : `${short(most)}`,
      most === null ? "" : `entries, ${bytes(most_bytes)}`,
    ],
    ["log", "Log", bytes(state.log_bytes), `${percent(share)} of what it may have`],
  ];
  return (
    <dl class="tiles six">
      {tiles.map(([id, title, value, under]) => (
        <div key={id} data-testid={`tile-${id}`}>
          <dt>{title}</dt>
          <dd>
            <b>{value}</b>
            <span title={under}>{under}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** The leader on the left, a line to each of the others: how far it is, and whether it stands. */
function Map({ state }: { state: State }) {
  const leader = state.members.find((member) => member.node === state.leader);
  const others = state.members.filter((member) => member !== leader);
  return (
    <Card title="Nodes" note="the log goes from the leader to all others">
      <div class="nodes" data-testid="cluster-map">
        <div class="lead">
          {leader ? <Box state={state} member={leader} /> : <p class="bad box-none">nobody leads</p>}
        </div>
        <ul>
          {others.map((member) => {
            const { tone } = standing(state, member);
            return (
              <li key={member.node} data-node={member.node}>
                <span class={`wire ${tone}`} aria-hidden="true">
                  <em>{member.lag ? behindText(member.lag.entries) : ""}</em>
                </span>
                <Box state={state} member={member} />
              </li>
            );
          })}
        </ul>
      </div>
    </Card>
  );
}

function behindText(entries: number): string {
  return entries === 0 ? "has everything" : `${short(entries)} behind`;
}

function Box({ state, member }: { state: State; member: ClusterMember }) {
  const { tone, says } = standing(state, member);
  return (
    <div class={`node-box ${member.node === state.leader ? "leader" : ""}`} data-node={member.node} data-tone={tone}>
      <b>
        <i class={`dot ${tone}`} />
        Node {member.node}
        {member.self && <Badge tone="faint">here</Badge>}
      </b>
      <span class={tone === "good" ? "" : tone}>{says}</span>
      <span class="muted">{member.clients}</span>
    </div>
  );
}

function Lag({ state, samples, several }: { state: State; samples: readonly Lags[]; several: boolean }) {
  // With several groups nearly every node follows somebody.
  const followers = state.members.filter((member) => several || member.node !== state.leader);
  const ink = (node: number): Ink =>
    INKS[state.members.findIndex((member) => member.node === node) % INKS.length] ?? "series-1";
  const drawing = useMemo(
    () => ({
      count: samples.length,
      time_ms: (index: number) => {
        const at = samples[index]?.at_ms ?? 0;
        return at - new Date(at).getTimezoneOffset() * 60_000;
      },
      panes: [
        {
          label: several ? "Entries behind the leader, the most in any group" : "Entries behind the leader",
          weight: 1,
          zero: true,
          format: axis(short),
          series: state.members.map(({ node }) => ({
            kind: "line" as const,
            values: samples.map((sample) => sample.entries.get(node) ?? null),
            ink: ink(node),
          })),
        },
      ],
    }),
    [samples, several],
  );
  return (
    <Card
      title="Replication lag"
      note={
        <span class="legend">
          {followers.map(({ node }) => (
            <span key={node}>
              <i class={`ink ${ink(node)}`} /> node {node}
            </span>
          ))}
        </span>
      }
      class="lag-card"
    >
      <Plot
        label="Entries that each node is behind the leader, since this page was opened"
        drawing={drawing}
        options={{ view_count: 300, fit_least: 60, interactive: false, pad_right: 0 }}
        class="history"
      />
    </Card>
  );
}

const KINDS: Record<string, [what: string, tone: string]> = {
  fail_over: ["fail-over", "warn"],
  move: ["move", "good"],
  leaderless: ["no leader", "bad"],
  elected: ["leader again", "good"],
  loss: ["declared loss", "bad"],
  joined: ["in sync", "good"],
  left: ["left", "warn"],
  copy: ["copy", ""],
  slot: ["slot moved", "good"],
};

const node = (number: number | null) => (number === null ? DASH : `node ${number}`);

const GROUP_OF: Column<ClusterChange> = {
  id: "group",
  title: "Group",
  width: "3.5rem",
  numeric: true,
  cell: (change) => change.group,
};

const CHANGES: Column<ClusterChange>[] = [
  {
    id: "time",
    title: "Time",
    width: "6.5rem",
    cell: (change) => <span title={text(change.time)}>{change.time?.slice(11, 19) ?? millis(change.age_ms)}</span>,
  },
  {
    id: "kind",
    title: "What",
    width: "7.5rem",
    cell: (change) => {
      const [what, tone] = KINDS[change.kind] ?? [change.kind, ""];
      return <Badge tone={tone}>{what}</Badge>;
    },
  },
  { id: "from", title: "From", width: "4.5rem", cell: (change) => node(change.from) },
  { id: "to", title: "To", width: "4.5rem", cell: (change) => node(change.to) },
  {
    id: "reason",
    title: "Why",
    width: "minmax(12rem, 1fr)",
    cell: (change) => <span title={change.reason}>{change.reason}</span>,
  },
  { id: "epoch", title: "Epoch", width: "4rem", numeric: true, cell: (change) => count(change.epoch) },
];

const CHANGES_OF_GROUPS = [CHANGES[0]!, GROUP_OF, ...CHANGES.slice(1)];

function Changes({ state, several }: { state: State; several: boolean }) {
  return (
    <Card title="Moves and fail-overs" note="since this node was started, UTC" class="whole">
      <Table
        label="Moves and fail-overs"
        testid="cluster-changes"
        fill
        rows={state.changes}
        columns={several ? CHANGES_OF_GROUPS : CHANGES}
        rowKey={(change) => `${change.group}.${change.epoch}.${change.kind}.${change.from}.${change.to}.${change.time}`}
        empty={<Empty title="Nothing has changed since this node was started" />}
      />
    </Card>
  );
}

const MEMBERS: Column<ClusterMember>[] = [
  {
    id: "node",
    title: "Node",
    width: "6rem",
    by: (m) => m.node,
    cell: (m) => (
      <span class="name">
        {m.node}
        {m.self ? " (here)" : ""}
      </span>
    ),
  },
  { id: "zone", title: "Zone", width: "minmax(4rem, .4fr)", by: (m) => m.zone, cell: (m) => text(m.zone) },
  { id: "role", title: "Role", width: "5.5rem", by: (m) => m.role, cell: (m) => text(m.role) },
  {
    id: "in_sync",
    title: "In sync",
    hint: "Counts for what is committed",
    width: "5.5rem",
    by: (m) => Number(m.in_sync),
    cell: (m) => (
      <Badge tone={m.in_sync || m.role === "relay" ? "good" : m.eligible ? "warn" : "bad"}>
        {m.in_sync ? "yes" : m.role === "relay" ? "relays" : m.eligible ? "eligible" : "no"}
      </Badge>
    ),
  },
  number("incarnation", "Start", "Which start of the node this is", (m) => m.incarnation),
  number("end", "Log end", "Offset behind its last entry", (m) => m.end),
  number("committed", "Committed", "Offset below which it knows all to be committed", (m) => m.committed),
  number("lag", "Behind", "Entries of the leader's log that it lacks", (m) => m.lag?.entries ?? null),
  {
    id: "lag_bytes",
    title: "Bytes behind",
    width: "minmax(6.5rem, .6fr)",
    numeric: true,
    by: (m) => m.lag?.bytes ?? null,
    cell: (m) => bytes(m.lag?.bytes),
  },
  {
    id: "heard",
    title: "Last word",
    hint: "Time since it said anything to this node",
    width: "minmax(5.5rem, .5fr)",
    numeric: true,
    by: (m) => m.heard_ms,
    cell: (m) => <span class={!m.self && !m.connected ? "bad" : ""}>{m.self ? DASH : millis(m.heard_ms)}</span>,
  },
  {
    id: "log",
    title: "Log",
    width: "minmax(5.5rem, .5fr)",
    numeric: true,
    by: (m) => m.log_bytes,
    cell: (m) => bytes(m.log_bytes),
  },
  number("events", "Events", "Events its engine has", (m) => m.events),
  {
    id: "digest",
    title: "Digest",
    hint: "Of all inputs below what is committed: equal where that is equal",
    width: "minmax(10.5rem, 1fr)",
    cell: (m) => <code>{text(m.digest)}</code>,
  },
];

function number(
  id: string,
  title: string,
  hint: string,
  of: (member: ClusterMember) => number | null,
): Column<ClusterMember> {
  return { id, title, hint, width: "minmax(5.5rem, .6fr)", numeric: true, by: of, cell: (member) => count(of(member)) };
}

function Members({ state }: { state: State }) {
  return (
    <Card title="Each node" note={`cluster ${state.cluster}`}>
      <Table
        label="Nodes of the cluster"
        testid="cluster-nodes"
        rows={state.members}
        columns={MEMBERS.filter((column) => column.id !== "zone" || state.members.some((member) => member.zone))}
        rowKey={(member) => String(member.node)}
      />
    </Card>
  );
}
