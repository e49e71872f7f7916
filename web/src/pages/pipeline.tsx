import { useEffect, useRef, useState } from "preact/hooks";
import type { Shard, Status, Thread } from "../api/types";
import { clockMillis, count, DASH, millis, percent, short, stamp, text } from "../lib/format";
import { graphOf, type Box } from "../lib/pipeline";
import { useCell } from "../lib/store";
import { status } from "../node";
import { Badge, Card, Empty, FeedDot, Meter } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { Waiting } from "./waiting";

export function Pipeline() {
  const now = useCell(status);
  if (!now) return <Waiting />;
  return (
    <>
      <h1 class="quiet">Pipeline</h1>
      <Card title="Actors" note="from the feeds to the streams; every shard runs all operators on its own keys">
        <Graph now={now} />
      </Card>
      <Threads threads={now.threads ?? null} />
      <Card title="Shards" note={now.shards ? count(now.shards.length) : DASH}>
        <Table
          label="Shards"
          testid="shards"
          rows={now.shards ?? []}
          columns={SHARD_COLUMNS}
          rowKey={(s) => String(s.shard)}
          empty={<Empty title="No shard is running" />}
        />
      </Card>
    </>
  );
}

/** What each thread does with its time, in the order in which events pass them. */
function Threads({ threads }: { threads: Thread[] | null }) {
  return (
    <Card
      title="Threads"
      note={
        <span class="legend">
          <i class="ink part busy" /> busy <i class="ink part blocked" /> blocked by a full ring{" "}
          <i class="ink part idle" /> idle
        </span>
      }
    >
      {threads?.length ? (
        <ul class="threads" data-testid="threads">
          {threads.map((one) => (
            <li key={one.thread} data-thread={one.thread}>
              <b>{one.thread}</b>
              <span
                class="parts"
                role="img"
                aria-label={`${percent(one.busy)} busy, ${percent(one.blocked)} blocked, ${percent(one.idle)} idle`}
              >
                {(["busy", "blocked"] as const).map((part) =>
                  one[part] ? <i key={part} class={part} style={{ width: `${one[part] * 100}%` }} /> : null,
                )}
              </span>
              <span class="numeric" data-column="busy">
                {percent(one.busy)}
              </span>
              <span class={`numeric ${one.blocked ? "warn" : "muted"}`} data-column="blocked">
                {one.blocked ? `${percent(one.blocked)} blocked` : ""}
              </span>
            </li>
          ))}
        </ul>
      ) : (
        <Empty title="The node does not say what its threads do" />
      )}
    </Card>
  );
}

const ROW = 86;
const BOX_HEIGHT = 72;
const COLUMN_GAP = 56;
/** Narrower than this per column, the graph is written as a list. */
const COLUMN_LEAST = 128;

function Graph({ now }: { now: Status }) {
  const graph = graphOf(now);
  const host = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => entry && setWidth(entry.contentRect.width));
    observer.observe(host.current!);
    return () => observer.disconnect();
  }, []);
  const columns = graph.columns.length;
  const box_width = columns ? (width - COLUMN_GAP * (columns - 1)) / columns : 0;
  const narrow = box_width < COLUMN_LEAST;
  const height = graph.rows * ROW - (ROW - BOX_HEIGHT);
  const left = (box: Box) => box.column * (box_width + COLUMN_GAP);
  const top = (box: Box) => box.row * ROW;
  const find = new Map(graph.boxes.map((box) => [box.id, box]));
  return (
    <div ref={host} class={`graph ${narrow ? "narrow" : ""}`} data-testid="graph">
      {columns === 0 && <Empty title="The node does not describe its pipeline" />}
      {!narrow && (
        <div class="titles">
          {graph.columns.map((column) => (
            <h3 key={column.title} style={{ width: `${box_width}px` }}>
              {column.title}
              {column.left_out > 0 && <span class="muted"> and {column.left_out} more</span>}
            </h3>
          ))}
        </div>
      )}
      <div class="field" style={narrow ? {} : { height: `${height}px` }}>
        {!narrow && width > 0 && (
          <svg width={width} height={height} aria-hidden="true">
            {graph.edges.map(({ from, to }) => {
              const [a, b] = [find.get(from)!, find.get(to)!];
              const [x0, y0] = [left(a) + box_width, top(a) + BOX_HEIGHT / 2];
              const [x1, y1] = [left(b), top(b) + BOX_HEIGHT / 2];
              const middle = (x0 + x1) / 2;
              return <path key={`${from}>${to}`} d={`M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}`} />;
            })}
          </svg>
        )}
        {graph.boxes.map((box, i) => (
          <>
            {narrow && (i === 0 || graph.boxes[i - 1]!.column !== box.column) && (
              <h3 key={`title-${box.column}`}>{graph.columns[box.column]!.title}</h3>
            )}
            <div
              key={box.id}
              class={`box ${box.kind}`}
              data-testid={box.id}
              style={
                narrow
                  ? {}
                  : { left: `${left(box)}px`, top: `${top(box)}px`, width: `${box_width}px`, height: `${BOX_HEIGHT}px` }
              }
            >
              <Inside box={box} now={now} />
            </div>
          </>
        ))}
      </div>
    </div>
  );
}

function Inside({ box, now }: { box: Box; now: Status }) {
  if (box.kind === "feed") {
    const feed = now.feeds?.find((one) => one.source === box.name);
    return (
      <>
        <b title={box.name}>
          <FeedDot feed={feed} />
          {box.name}
        </b>
        <span>{count(feed?.accepted)} accepted</span>
        <span class={feed?.gaps ? "warn" : ""}>
          {feed?.gaps == null ? DASH : feed.gaps ? `${count(feed.gaps)} lost in gaps` : "nothing lost"}
        </span>
      </>
    );
  }
  if (box.kind === "shard") {
    const shard = now.shards?.find((one) => String(one.shard) === box.name);
    return (
      <>
        <b>
          <i class={`dot ${phaseTone(shard?.phase)}`} title={text(shard?.phase)} />
          shard {box.name}
          <em title="share of its time in the last seconds">{percent(shard?.busy)}</em>
        </b>
        <Meter share={shard?.busy ?? null} tone={busyTone(shard?.busy)} label={`Shard ${box.name} busy`} />
        <span>
          lag {millis(shard?.lag_ms)}{" "}
          <span class="right" title="events waiting in the ring">
            ring {short(shard?.ring_depth)}
          </span>
        </span>
      </>
    );
  }
  const stage =
    box.kind === "stage"
      ? now.stages?.find((one) => one.name === box.name)
      : now.stages?.find((one) => one.stream === box.name);
  if (box.kind === "stage") {
    const entry = now.ledger?.find((one) => one.stage === box.name);
    return (
      <>
        <b title={box.name}>{box.name}</b>
        <span>reads {text(stage?.upstream)}</span>
        <span>{entry ? `${count(entry.delivered)} in` : `${count(stage?.outputs)} out`}</span>
      </>
    );
  }
  const readers = now.subscribers?.filter((one) => one.streams?.includes(box.name)).length;
  return (
    <>
      <b title={box.name}>{box.name}</b>
      <span>{count(stage?.outputs)} results</span>
      <span>{readers === undefined ? DASH : `${count(readers)} ${readers === 1 ? "subscriber" : "subscribers"}`}</span>
    </>
  );
}

function phaseTone(phase: string | null | undefined): string {
  return phase == null ? "" : phase === "running" ? "good" : /fail|panic|stop/.test(phase) ? "bad" : "warn";
}

function busyTone(busy: number | null | undefined): string {
  return busy == null ? "" : busy > 0.9 ? "bad" : busy > 0.7 ? "warn" : "good";
}

const SHARD_COLUMNS: Column<Shard>[] = [
  { id: "shard", title: "Shard", width: "4.5rem", by: (s) => s.shard, cell: (s) => s.shard },
  {
    id: "phase",
    title: "Phase",
    width: "minmax(6rem, .8fr)",
    by: (s) => s.phase,
    cell: (s) => <Badge tone={phaseTone(s.phase)}>{text(s.phase)}</Badge>,
  },
  {
    id: "busy",
    title: "Busy",
    hint: "Share of the thread's time in the last seconds; the rest it waited",
    width: "minmax(8rem, 1.2fr)",
    by: (s) => s.busy,
    cell: (s) => (
      <span class="with-meter">
        <Meter share={s.busy} tone={busyTone(s.busy)} label={`Shard ${s.shard} busy`} />
        <span>{percent(s.busy)}</span>
      </span>
    ),
  },
  {
    id: "ring",
    title: "Ring",
    hint: "Records waiting, of the ring's room",
    width: "minmax(10rem, 1.4fr)",
    by: (s) => s.ring_depth,
    cell: (s) => (
      <span class="with-meter">
        <Meter
          share={s.ring_depth !== null && s.ring_capacity ? s.ring_depth / s.ring_capacity : null}
          label={`Shard ${s.shard} ring`}
        />
        <span>
          {count(s.ring_depth)}
          <span class="muted"> / {count(s.ring_capacity)}</span>
        </span>
      </span>
    ),
  },
  {
    id: "lag",
    title: "Watermark lag",
    width: "minmax(6.5rem, .8fr)",
    numeric: true,
    by: (s) => s.lag_ms,
    cell: (s) => millis(s.lag_ms),
  },
  {
    id: "watermark",
    title: "Watermark",
    width: "minmax(8.5rem, 1fr)",
    numeric: true,
    cell: (s) => <span title={stamp(s.watermark)}>{clockMillis(s.watermark)}</span>,
  },
  {
    id: "events",
    title: "Events",
    width: "minmax(7rem, 1fr)",
    numeric: true,
    by: (s) => s.events,
    cell: (s) => count(s.events),
  },
  {
    id: "outputs",
    title: "Results",
    width: "minmax(6rem, .8fr)",
    numeric: true,
    by: (s) => s.outputs,
    cell: (s) => count(s.outputs),
  },
  {
    id: "panics",
    title: "Panics",
    width: "4.5rem",
    numeric: true,
    by: (s) => s.panics,
    cell: (s) => <span class={s.panics ? "bad" : ""}>{count(s.panics)}</span>,
  },
  {
    id: "restarts",
    title: "Restarts",
    width: "5rem",
    numeric: true,
    by: (s) => s.restarts,
    cell: (s) => <span class={s.restarts ? "warn" : ""}>{count(s.restarts)}</span>,
  },
];
