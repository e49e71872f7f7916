import { useMemo, useRef, useState } from "preact/hooks";
import type { Row, Stream } from "../api/types";
import { clock, count, DASH, float, stamp } from "../lib/format";
import { useBindings } from "../lib/keyboard";
import { useAllLatest } from "../lib/live";
import { format, go, route } from "../lib/route";
import { useCell } from "../lib/store";
import { status, streams } from "../node";
import { Search } from "../ui/search";
import { Icon } from "../ui/icon";
import { Empty, Failure } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { Rows } from "./rows";
import { TrafficPage } from "./traffic";
import { Waiting } from "./waiting";

const HINTS: Record<string, string> = {
  packets: "in both directions",
  flows: "flows that started in the window",
  peers: "distinct peers; ≈ where it is an estimate (standard error 3.25 %)",
  ports: "distinct service ports; ≈ where it is an estimate (standard error 3.25 %)",
  unanswered: "connections asked for less those answered in the same window",
  resets: "records with RST in either direction",
  names: "distinct names looked up; ≈ where it is an estimate (standard error 3.25 %)",
  bytes_p50: "bytes that half of its records do not pass: packets of a capture, directions of flows of a log",
  bytes_p99: "bytes that 99 of 100 of its records do not pass",
  regularity:
    "how evenly connections it opened follow each other: 1,000 as a clock, about 500 by chance, less in bunches, 0 for too few",
  missing: "events the source is known to have lost while the window was open",
};

/** Counted exactly up to so many, and estimated above. */
const EXACT_MAX: Record<string, number> = { peers: 32, ports: 32, names: 32 };

const NOT_LISTED = /^(ts_open|frame_first|frame_last)$/;

export function Hosts() {
  const known = useCell(streams);
  const { query } = useCell(route);
  const now = useCell(status);
  const looks = Boolean(now?.alerts);
  // Whether the node knows who talks to whom its first status says: the other view would ask for records of a host that may have none.
  if (known === null || (query.view === "traffic" && now === null)) return <Waiting />;
  if (known instanceof Error) return <Failure title="The node does not list its streams" detail={known.message} />;
  const shown = known.filter((stream) => stream.kind === "hosts");
  if (looks && (query.view === "traffic" || !shown.length)) {
    return <TrafficPage others={shown.length > 0 && <Views view="traffic" stream={shown[0]!.name} />} />;
  }
  if (!shown.length) {
    return (
      <div class="alone">
        <Empty title="No stream of hosts">
          This node computes no host windows. A feed of packets or flows and a stream such as <code>hosts.1m</code>{" "}
          would fill this page.
        </Empty>
      </div>
    );
  }
  return <List shown={shown} />;
}

/** Between what a stream says of hosts and who talks to whom, where the node knows both. */
function Views({ view, stream }: { view: "traffic" | "windows"; stream: string }) {
  return (
    <div class="segments" role="group" aria-label="View">
      {(["windows", "traffic"] as const).map((name) => (
        <button
          key={name}
          type="button"
          aria-pressed={name === view}
          onClick={() => go({ page: "hosts", query: name === "traffic" ? { view: name } : {} }, true)}
        >
          {name === "traffic" ? "who talks to whom" : stream}
        </button>
      ))}
    </div>
  );
}

function List({ shown }: { shown: Stream[] }) {
  const looks = Boolean(useCell(status)?.alerts);
  const { item, query } = useCell(route);
  const [search, setSearch] = useState("");
  const field = useRef<HTMLInputElement>(null);
  const stream = shown.find((one) => one.name === query.stream) ?? shown[0]!;
  const all = useAllLatest(stream.name);
  const part = search.trim().toLowerCase();
  const rows = useMemo(
    () => all.rows.filter((row) => row.key.toLowerCase().includes(part)).sort((a, b) => (a.key < b.key ? -1 : 1)),
    [all.version, part],
  );
  const columns = useMemo(
    (): Column<Row>[] => [
      {
        id: "key",
        title: "Host",
        width: "minmax(9rem, 1.4fr)",
        by: (row) => row.key,
        cell: (row) => (
          <span class="name" title={row.key}>
            {row.key}
          </span>
        ),
      },
      {
        id: "ts",
        title: "Window until",
        hint: "UTC",
        width: "minmax(6.5rem, .8fr)",
        by: (row) => row.ts,
        cell: (row) => (
          <span class="muted" title={stamp(row.ts)}>
            {clock(row.ts)}
          </span>
        ),
      },
      ...stream.columns
        .filter((name) => !NOT_LISTED.test(name))
        .map((name): Column<Row> => ({
          id: name,
          title: `${name[0]!.toUpperCase()}${name.slice(1).replace("_", " ")}`,
          ...(HINTS[name] && { hint: HINTS[name] }),
          width: "minmax(6rem, 1fr)",
          numeric: true,
          by: (row) => {
            const value = row.values[name];
            return value === null || value === undefined ? null : Number(value);
          },
          cell: (row) => {
            const value = row.values[name];
            const estimated = Number(value ?? 0) > (EXACT_MAX[name] ?? Infinity);
            return value === null || value === undefined ? DASH : `${estimated ? "≈" : ""}${float(value)}`;
          },
        })),
    ],
    [stream.columns],
  );
  const open = (to: string | null, replace = false) =>
    go({ page: "hosts", item: to, query: { stream: query.stream } }, replace);
  useBindings("Hosts", [
    { key: "/", what: "Search", run: () => (field.current?.focus(), field.current?.select()) },
    { key: "Escape", what: "Close the host, or clear the search", run: () => (item ? open(null) : setSearch("")) },
  ]);
  return (
    <div class="hosts-page">
      <h1 class="quiet">Hosts</h1>
      <section class="card list" aria-label="Hosts">
        <div class="bar">
          <Search field={field} what="hosts" value={search} onChange={setSearch} />
          {looks && <Views view="windows" stream={stream.name} />}
          {shown.length > 1 && (
            <div class="segments" role="group" aria-label="Stream">
              {shown.map((one) => (
                <button
                  key={one.name}
                  type="button"
                  aria-pressed={one.name === stream.name}
                  onClick={() => go({ page: "hosts", item, query: { stream: one.name } }, true)}
                >
                  {one.name}
                </button>
              ))}
            </div>
          )}
          <span class="note">
            {stream.name}: {count(all.rows.length)} {all.rows.length === 1 ? "host" : "hosts"}
            {all.lost > 0 && `, ${count(all.lost)} records lost on the way here`}
          </span>
        </div>
        <Table
          label="Hosts"
          testid="hosts"
          fill
          rows={rows}
          columns={columns}
          rowKey={(row) => row.key}
          selected={item}
          onSelect={(row) => open(row.key)}
          empty={
            all.error ? (
              <Failure title="The hosts could not be read" detail={all.error} />
            ) : part ? (
              <Empty title={`No host contains “${search.trim()}”`} />
            ) : (
              <Empty title="No window has closed yet">A host appears when its first window ends.</Empty>
            )
          }
        />
      </section>
      {item && (
        <section class="detail" aria-label="Host">
          <div class="detail-head">
            <h2 data-testid="key">{item}</h2>
            <a
              class="plain"
              href={format({ page: "hosts", query: { stream: query.stream } })}
              aria-label="Close the host"
              title="Close (Esc)"
            >
              <Icon name="close" />
            </a>
          </div>
          <Rows key={`${stream.name} ${item}`} stream={stream} name={item} />
        </section>
      )}
    </div>
  );
}
