/** A cluster of several groups: which slots each has, how each stands at each node, and what each node has of all of them. */
import { useMemo, useState } from "preact/hooks";
import type { Cluster, ClusterGroup, ClusterMember } from "../api/types";
import { bytes, count, DASH, millis, percent, short, text } from "../lib/format";
import {
  chosen,
  holds,
  hue,
  isMoving,
  loadOf,
  moving,
  nodeStanding,
  placeOf,
  replicaOf,
  segments,
  slotsText,
  SLOTS,
  trouble,
  type NodeLoad,
  type Wanted,
} from "../lib/groups";
import { Badge, Card, Empty, Meter } from "../ui/parts";
import { Table, type Column } from "../ui/table";

/** Rows of the map: a slot is two to three pixels wide on a desk. */
const MAP_COLUMNS = 512;
/** A label needs so many slots' room: on a desk, and on a phone. */
const LABEL_LEAST = 10;
const LABEL_LEAST_NARROW = 48;
/** With more groups than that the table scrolls by itself. */
const ROWS_WHOLE = 16;
const ROW_HEIGHT = 34;

function Swatch({ group }: { group: number }) {
  return <i class="swatch" style={`--hue:${hue(group)}`} aria-hidden="true" />;
}

export function GroupTiles({ state }: { state: Cluster }) {
  const { groups } = state;
  const own = state.members.find((member) => member.self);
  const load = own ? loadOf(state, own) : null;
  const led = groups.filter((group) => group.leader !== null).length;
  const minded = groups.filter((group) => trouble(state, group)).length;
  const lags = state.members.flatMap((member) => {
    const { lag } = loadOf(state, member);
    return lag ? [{ ...lag, node: member.node }] : [];
  });
  const most = lags.reduce<(typeof lags)[number] | null>(
    (most, lag) => (most && most.entries >= lag.entries ? most : lag),
    null,
  );
  const copies = groups.filter((group) => group.coming).length;
  const slots = Object.keys(state.moves ?? {}).length;
  const under_way = [
    copies ? `${copies} ${copies === 1 ? "copy" : "copies"}` : "",
    slots ? `${count(slots)} ${slots === 1 ? "slot" : "slots"}` : "",
  ].filter(Boolean);
  const share = load?.log_bytes == null ? null : load.log_bytes / state.log_bytes_max;
  const tiles: [id: string, title: string, value: string, under: string][] = [
    ["groups", "Groups", count(groups.length), `of ${count(SLOTS)} slots, on ${state.members.length} nodes`],
    ["led", "With a leader", `${led} of ${groups.length}`, minded ? `${minded} to mind` : "nothing to mind"],
    [
      "here",
      `Node ${state.node}, here`,
      load ? `leads ${load.leads.length}` : DASH,
      load ? `holds ${load.holds}, relays ${load.relays}` : "",
    ],
    [
      "lag",
      "Most behind",
      most === null ? DASH : short(most.entries),
      most === null
        ? ""
        : most.entries === 0
          ? "nobody lacks anything"
          : `entries, group ${most.group} at node ${most.node}`,
    ],
    ["moving", "Under way", under_way[0] ?? "nothing", under_way[1] ?? (under_way.length ? "" : "no copy moves")],
    ["log", "Logs here", bytes(load?.log_bytes), `${percent(share)} of what they may have`],
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

/** All slots, coloured by group, and the groups below it; one that is chosen in either is shown in both. */
export function Groups({ state }: { state: Cluster }) {
  const [selected, setSelected] = useState<number | null>(null);
  const group = state.groups.find((group) => group.group === selected) ?? null;
  const select = (number: number) => setSelected(number === selected ? null : number);
  return (
    <>
      <Card
        title="Shard map"
        note={`${count(SLOTS)} slots in ${state.groups.length} groups${state.moves && Object.keys(state.moves).length ? `, ${count(Object.keys(state.moves).length)} slots moving` : ""}`}
      >
        <SlotMap state={state} selected={group?.group ?? null} onSelect={select} />
        <Detail state={state} group={group} />
      </Card>
      <GroupTable state={state} selected={selected} onSelect={select} />
    </>
  );
}

function SlotMap({
  state,
  selected,
  onSelect,
}: {
  state: Cluster;
  selected: number | null;
  onSelect: (group: number) => void;
}) {
  // The map changes seldom, and is asked for every second.
  const drawn = JSON.stringify([state.slots, state.groups.map((group) => group.leader), state.moves ?? null]);
  const rows = useMemo(() => {
    const rows: ReturnType<typeof segments>[] = Array.from({ length: SLOTS / MAP_COLUMNS }, () => []);
    for (const segment of segments(state.slots, MAP_COLUMNS)) rows[segment.row]?.push(segment);
    return rows;
  }, [drawn]);
  const marks = useMemo(
    () => Object.entries(state.moves ?? {}).map(([slot, { to }]) => ({ slot: Number(slot), to })),
    [drawn],
  );
  return useMemo(
    () => (
      <div
        class={`slot-map ${selected === null ? "" : "picked"}`}
        role="img"
        aria-label={`${count(SLOTS)} slots coloured by ${state.groups.length} groups; the table below has the slots of each`}
        data-testid="slot-map"
        onClick={(event) => {
          const at = (event.target as HTMLElement).closest<HTMLElement>("[data-group]")?.dataset.group;
          if (at !== undefined) onSelect(Number(at));
        }}
      >
        {rows.map((row, number) => (
          <div class="line" key={number}>
            {row.map((segment) => {
              const { group, first, last, at, width } = segment;
              const leader = state.groups[group]?.leader ?? null;
              const of = first === last ? `slot ${count(first)}` : `slots ${count(first)} to ${count(last)}`;
              const led = leader === null ? "led by nobody" : `led by node ${leader}`;
              const size = width < LABEL_LEAST ? "bare" : width < LABEL_LEAST_NARROW ? "small" : "";
              return (
                <span
                  key={at}
                  class={`${size} ${group === selected ? "on" : ""} ${leader === null ? "bad" : ""}`}
                  data-group={group}
                  title={`group ${group}: ${of}, ${led}`}
                  style={`--hue:${hue(group)};left:${(100 * at) / MAP_COLUMNS}%;width:${(100 * width) / MAP_COLUMNS}%`}
                >
                  {size === "bare" ? "" : group}
                </span>
              );
            })}
            {marks
              .filter(({ slot }) => Math.floor(slot / MAP_COLUMNS) === number)
              .map(({ slot, to }) => (
                <i
                  key={slot}
                  class="mark"
                  title={`slot ${count(slot)} moves to group ${to}`}
                  style={`--hue:${hue(to)};left:${(100 * (slot % MAP_COLUMNS)) / MAP_COLUMNS}%`}
                />
              ))}
          </div>
        ))}
      </div>
    ),
    [rows, marks, selected],
  );
}

/** What is known of the chosen group, in words. */
function Detail({ state, group }: { state: Cluster; group: ClusterGroup | null }) {
  if (!group) {
    return (
      <p class="under" data-testid="group-detail">
        A group chosen here or in the table shows its slots and what is known of it.
      </p>
    );
  }
  const minded = trouble(state, group);
  const known = leading(group);
  const facts: [string, string][] = [
    ["slots", `${count(group.slots)}: ${slotsText(state.slots, group.group) || "none"}`],
    ["leader", group.leader === null ? "none" : `node ${group.leader}, epoch ${count(group.epoch)}`],
    ["in sync", `${nodes(group.isr)}; ${needed(group)}`],
    [
      "log",
      known ? `committed ${count(known.committed)} of ${count(known.end)}, lineage ${count(group.lineage)}` : DASH,
    ],
    ["events", count(known?.events)],
    ["digest", text(known?.digest)],
  ];
  if (group.eligible.length) facts.splice(3, 0, ["eligible", nodes(group.eligible)]);
  if (group.coming) {
    const member = state.members.find((member) => member.node === group.coming?.to);
    facts.push(["copy", member ? placeOf(group, member).title : `comes to node ${group.coming.to}`]);
  }
  return (
    <div class="under detail" role="status" data-testid="group-detail">
      <b>
        <Swatch group={group.group} /> Group {group.group}
      </b>
      {minded && <Badge tone={minded.tone}>{minded.says}</Badge>}
      <dl>
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function nodes(of: number[]): string {
  if (!of.length) return "no node";
  return `${of.length === 1 ? "node" : "nodes"} ${of.join(", ")}`;
}

function needed({ min_isr }: ClusterGroup): string {
  return `${min_isr} ${min_isr === 1 ? "is" : "are"} needed to commit`;
}

/** The replica of who leads, else any, the newest. */
function leading(group: ClusterGroup) {
  const led = group.leader === null ? undefined : replicaOf(group, group.leader);
  return led ?? [...group.replicas].sort((a, b) => b.committed - a.committed)[0];
}

function GroupTable({
  state,
  selected,
  onSelect,
}: {
  state: Cluster;
  selected: number | null;
  onSelect: (group: number) => void;
}) {
  const [wanted, setWanted] = useState<Wanted>({ kind: "all" });
  const rows = chosen(state, wanted);
  const slots = moving(state);
  const members = state.members;
  // Columns are of the nodes there are; what they show is of the row and of this moment.
  const columns = [...COMMON(state, slots), ...members.map((member) => nodeColumn(member))];
  const is = (other: Wanted) =>
    wanted.kind === other.kind && (wanted.kind !== "led" || other.kind !== "led" || wanted.node === other.node);
  const pick = (other: Wanted, name: string, many: number, tone = "") => (
    <button
      type="button"
      class={`pick ${many ? tone : ""}`}
      aria-pressed={is(other)}
      onClick={() => setWanted(is(other) ? { kind: "all" } : other)}
      key={name}
    >
      {name} <b>{count(many)}</b>
    </button>
  );
  const minded = state.groups.flatMap((group) => trouble(state, group) ?? []);
  const worst = minded.some((one) => one.tone === "bad") ? "bad" : "warn";
  const fill = state.groups.length > ROWS_WHOLE;
  return (
    <Card
      title="Groups"
      note="the log of each goes from its leader to those that follow"
      class={fill ? "groups-card" : ""}
    >
      <div class="picks" role="group" aria-label="Which groups are listed">
        {pick({ kind: "all" }, "all", state.groups.length)}
        {pick({ kind: "mind" }, "to mind", minded.length, worst)}
        {pick({ kind: "moving" }, "under way", state.groups.filter((group) => isMoving(state, group)).length)}
        {members.map(({ node }) =>
          pick({ kind: "led", node }, `led by ${node}`, state.groups.filter((group) => group.leader === node).length),
        )}
      </div>
      <Table
        label="Groups of the cluster"
        testid="cluster-groups"
        fill={fill}
        rows={rows}
        columns={columns}
        rowHeight={ROW_HEIGHT}
        rowKey={(group) => String(group.group)}
        selected={selected === null ? null : String(selected)}
        onSelect={(group) => onSelect(group.group)}
        empty={<Empty title="No group is like that now" />}
      />
    </Card>
  );
}

function COMMON(state: Cluster, slots: ReturnType<typeof moving>): Column<ClusterGroup>[] {
  const minded = (group: ClusterGroup) => trouble(state, group);
  return [
    {
      id: "group",
      title: "Group",
      width: "4.2rem",
      by: (group) => group.group,
      cell: (group) => {
        const found = minded(group);
        return (
          <span class="name" title={found?.says}>
            <Swatch group={group.group} />
            {group.group}
            {found && <em class={`alarm ${found.tone}`}>{" !"}</em>}
          </span>
        );
      },
    },
    {
      id: "slots",
      title: "Slots",
      hint: "Of 4,096, and how many of them are moving to another group",
      width: slots.size ? "minmax(8rem, .8fr)" : "minmax(4rem, .6fr)",
      numeric: true,
      by: (group) => group.slots,
      cell: (group) => {
        const moves = slots.get(group.group);
        const words = moves && [moves.leave ? `${moves.leave} leave` : "", moves.come ? `${moves.come} come` : ""];
        return (
          <span title={slotsText(state.slots, group.group)}>
            {count(group.slots)}
            {words && <em class="muted">, {words.filter(Boolean).join(", ")}</em>}
          </span>
        );
      },
    },
    {
      id: "leader",
      title: "Leader",
      width: "4.4rem",
      by: (group) => group.leader,
      cell: (group) => (group.leader === null ? <Badge tone="bad">none</Badge> : `node ${group.leader}`),
    },
    {
      id: "epoch",
      title: "Epoch",
      width: "3.6rem",
      numeric: true,
      by: (group) => group.epoch,
      cell: (group) => count(group.epoch),
    },
    {
      id: "in_sync",
      title: "In sync",
      hint: "Nodes in sync, of those that hold it",
      width: "3.8rem",
      by: (group) => group.isr.length,
      cell: (group) => {
        const all = state.members.filter(({ node }) => holds(group, node) && group.coming?.to !== node).length;
        const tone = group.isr.length < group.min_isr ? "bad" : group.isr.length < all ? "warn" : "";
        return (
          <span class={tone} title={`${nodes(group.isr)} in sync; ${needed(group)}`}>
            {group.isr.length} of {all}
          </span>
        );
      },
    },
    {
      id: "committed",
      title: "Committed",
      hint: "Offset below which its leader knows all to be committed",
      width: "minmax(5.4rem, .7fr)",
      numeric: true,
      by: (group) => leading(group)?.committed ?? null,
      cell: (group) => count(leading(group)?.committed),
    },
    {
      id: "end",
      title: "Log end",
      hint: "Offset behind the last entry of its leader",
      width: "minmax(5.4rem, .7fr)",
      numeric: true,
      by: (group) => leading(group)?.end ?? null,
      cell: (group) => count(leading(group)?.end),
    },
  ];
}

function nodeColumn(member: ClusterMember): Column<ClusterGroup> {
  const zone = member.zone ? `, zone ${member.zone}` : "";
  return {
    id: `node-${member.node}`,
    title: `Node ${member.node}`,
    hint: `How each group stands at node ${member.node}${zone}: who leads, and how many entries who follows lacks`,
    width: "minmax(7.6rem, 1fr)",
    by: (group) => placeOf(group, member).rank,
    cell: (group) => {
      const place = placeOf(group, member);
      return (
        <span class={`place ${place.kind} ${place.tone}`} title={place.title}>
          {place.share !== null && (
            <Meter share={place.share} tone={place.kind === "comes" ? "" : place.tone} label={place.title} />
          )}
          <span>{place.says}</span>
        </span>
      );
    },
  };
}

/** Nodes by zone: what each has of all groups. */
export function GroupNodes({ state }: { state: Cluster }) {
  const zones = new Map<string, ClusterMember[]>();
  for (const member of state.members) {
    const zone = member.zone ?? "";
    zones.set(zone, [...(zones.get(zone) ?? []), member]);
  }
  const named = [...zones.keys()].some((zone) => zone !== "");
  return (
    <Card title="Nodes" note={named ? `${zones.size} zones` : "each leads some groups and follows others"}>
      <div class="zones" data-testid="cluster-map">
        {[...zones]
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([zone, members]) => (
            <section key={zone} aria-label={zone ? `zone ${zone}` : "nodes"} style={`--wide:${members.length}`}>
              {named && <h3>{zone ? `zone ${zone}` : "in no zone"}</h3>}
              <div class="boxes">
                {members.map((member) => (
                  <NodeBox key={member.node} member={member} load={loadOf(state, member)} />
                ))}
              </div>
            </section>
          ))}
      </div>
    </Card>
  );
}

function NodeBox({ member, load }: { member: ClusterMember; load: NodeLoad }) {
  const { tone, says } = nodeStanding(member, load);
  const has = [
    `leads ${load.leads.length}`,
    `follows ${Math.max(0, load.holds - load.leads.length)}`,
    load.relays ? `relays ${load.relays}` : "",
    load.coming ? `${load.coming} to come` : "",
  ];
  return (
    <div class="node-box" data-node={member.node} data-tone={tone}>
      <b>
        <i class={`dot ${tone}`} />
        Node {member.node}
        {member.self && <Badge tone="faint">here</Badge>}
      </b>
      <span class={tone === "good" ? "" : tone}>{says}</span>
      <span>{has.filter(Boolean).join(", ")}</span>
      <span class="muted">{member.clients}</span>
    </div>
  );
}

interface Row {
  member: ClusterMember;
  load: NodeLoad;
}

const NODES: Column<Row>[] = [
  {
    id: "node",
    title: "Node",
    width: "6rem",
    by: ({ member }) => member.node,
    cell: ({ member }) => (
      <span class="name">
        {member.node}
        {member.self ? " (here)" : ""}
      </span>
    ),
  },
  {
    id: "zone",
    title: "Zone",
    width: "minmax(4.5rem, .6fr)",
    by: ({ member }) => member.zone,
    cell: ({ member }) => text(member.zone),
  },
  {
    id: "leads",
    title: "Leads",
    hint: "Groups that it leads",
    width: "minmax(3.6rem, .4fr)",
    numeric: true,
    by: ({ load }) => load.leads.length,
    cell: ({ load }) => <span title={load.leads.join(", ")}>{load.leads.length}</span>,
  },
  amount("holds", "Holds", "Groups of which it has a copy", ({ load }) => load.holds),
  amount("relays", "Relays", "Groups whose results it reads at others", ({ load }) => load.relays),
  {
    id: "out",
    title: "Not in sync",
    hint: "Groups that it holds and is not in sync in",
    width: "minmax(5.4rem, .6fr)",
    numeric: true,
    by: ({ load }) => load.out.length,
    cell: ({ load }) => (
      <span class={load.out.length ? "warn" : ""} title={load.out.join(", ")}>
        {load.out.length}
      </span>
    ),
  },
  {
    id: "lag",
    title: "Most behind",
    hint: "Most entries that it lacks of a leader's log, and in which group",
    width: "minmax(7.5rem, .8fr)",
    numeric: true,
    by: ({ load }) => load.lag?.entries ?? null,
    cell: ({ load }) => (load.lag ? `${count(load.lag.entries)} in ${load.lag.group}` : DASH),
  },
  {
    id: "heard",
    title: "Last word",
    hint: "Time since it said anything to this node",
    width: "minmax(5.5rem, .5fr)",
    numeric: true,
    by: ({ member }) => member.heard_ms,
    cell: ({ member }) => (
      <span class={!member.self && !member.connected ? "bad" : ""}>{member.self ? DASH : millis(member.heard_ms)}</span>
    ),
  },
  {
    id: "log",
    title: "Logs",
    hint: "Bytes of the logs of all groups that it holds",
    width: "minmax(5.5rem, .5fr)",
    numeric: true,
    by: ({ load }) => load.log_bytes,
    cell: ({ load }) => bytes(load.log_bytes),
  },
  {
    id: "events",
    title: "Events",
    hint: "Events its engines have",
    width: "minmax(6.5rem, .6fr)",
    numeric: true,
    by: ({ load }) => load.events,
    cell: ({ load }) => count(load.events),
  },
  {
    id: "incarnation",
    title: "Start",
    hint: "Which start of the node this is",
    width: "minmax(3.6rem, .4fr)",
    numeric: true,
    by: ({ member }) => member.incarnation,
    cell: ({ member }) => count(member.incarnation),
  },
  {
    id: "clients",
    title: "For feeds",
    width: "minmax(10rem, 1fr)",
    by: ({ member }) => member.clients,
    cell: ({ member }) => <span class="muted">{member.clients}</span>,
  },
];

function amount(id: string, title: string, hint: string, of: (row: Row) => number): Column<Row> {
  return { id, title, hint, width: "minmax(3.6rem, .4fr)", numeric: true, by: of, cell: (row) => count(of(row)) };
}

export function GroupMembers({ state }: { state: Cluster }) {
  const zoned = state.members.some((member) => member.zone);
  return (
    <Card title="Each node" note={`cluster ${state.cluster}`}>
      <Table
        label="Nodes of the cluster"
        testid="cluster-nodes"
        rows={state.members.map((member) => ({ member, load: loadOf(state, member) }))}
        columns={NODES.filter((column) => zoned || column.id !== "zone")}
        rowKey={({ member }) => String(member.node)}
      />
    </Card>
  );
}
