import { useMemo } from "preact/hooks";
import type { Feed, Status } from "../api/types";
import { TONES } from "../lib/episode";
import { axis, count, DASH, millis, nanos, percent, seconds, short, text } from "../lib/format";
import { lagMax, type Sample } from "../lib/history";
import { ledgerView } from "../lib/ledger";
import { format } from "../lib/route";
import { useCell } from "../lib/store";
import { history, status } from "../node";
import { Badge, Card, Empty, FeedDot } from "../ui/parts";
import { Plot } from "../ui/plot";
import { Table, type Column } from "../ui/table";
import { Waiting } from "./waiting";

export function Overview() {
  const now = useCell(status);
  if (!now) return <Waiting />;
  return (
    <>
      <h1 class="quiet">Overview</h1>
      <Tiles now={now} />
      <div class="split charts">
        <Throughput />
        <LatencyChart now={now} />
      </div>
      <div class="split ledger-feeds">
        <Ledger now={now} />
        <div class="stack">
          <Feeds now={now} />
          <Alerts now={now} />
        </div>
      </div>
    </>
  );
}

const DAY_MS = 86_400_000;

function Tiles({ now }: { now: Status }) {
  const busy = (now.shards ?? []).flatMap((shard) => (shard.busy === null ? [] : [shard.busy]));
  const lag_ms = lagMax(now);
  const tiles: [id: string, title: string, value: string, under: string][] = [
    ["events", "Events in", `${short(now.events?.rate)}/s`, `${count(now.events?.total)} in all`],
    ["results", "Results out", `${short(now.results?.rate)}/s`, `${count(now.results?.total)} in all`],
    ["p50", "Latency p50", nanos(now.latency_ns?.p50), `most ${nanos(now.latency_ns?.max)}`],
    ["p99", "Latency p99", nanos(now.latency_ns?.p99), `p99.9 ${nanos(now.latency_ns?.p99_9)}`],
    [
      "lag",
      "Watermark lag",
      millis(lag_ms),
      (lag_ms ?? 0) > DAY_MS ? "the feeds are of the past" : "the slowest shard",
    ],
    [
      "keys",
      "Keys",
      count(now.keys),
      `${now.shards ? `${now.shards.length} ${now.shards.length === 1 ? "shard" : "shards"}` : DASH}, busiest ${percent(busy.length ? Math.max(...busy) : null)}`,
    ],
    ["uptime", "Up for", seconds(now.uptime_s), now.version ? `version ${now.version}` : ""],
  ];
  return (
    <dl class="tiles">
      {tiles.map(([id, title, value, under]) => (
        <div key={id} data-testid={`tile-${id}`}>
          <dt>{title}</dt>
          <dd>
            <b>{value}</b>
            <span>{under}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** What is open; where nobody looks, zero alerts would be a claim, and this is not one. */
function Alerts({ now }: { now: Status }) {
  if (now.alerts) {
    const { open, held, problem, dropped } = now.alerts;
    const parts = (["high", "medium", "low"] as const).filter((name) => open[name] > 0);
    const kept_back = Object.values(held).reduce((sum, one) => sum + one, 0);
    const lost = Object.values(dropped).reduce((sum, one) => sum + one, 0);
    return (
      <Card title="Alerts" note={<a href={format({ page: "alerts" })}>all alerts</a>} class="alerts">
        <div class="under" data-testid="alerts">
          <p>
            {parts.length
              ? parts.map((name) => (
                  <Badge key={name} tone={TONES[name]}>
                    {count(open[name])} {name}
                  </Badge>
                ))
              : "Detectors run, and nothing is open."}
          </p>
          <p class="muted">
            {count(now.alerts.findings)} findings, {count(kept_back)} held back
            {lost > 0 && <span class="warn">, {count(lost)} lost for lack of room</span>}
          </p>
          {problem && <p class="bad">Not written down: {problem}</p>}
        </div>
      </Card>
    );
  }
  return (
    <Card title="Alerts" note={DASH} class="alerts">
      <p class="under" data-testid="alerts">
        {now.alerts === null || now.alerts === undefined
          ? "No detector runs on this node: nothing looks for anomalies, so that nothing is reported does not mean that nothing is wrong."
          : ""}
      </p>
    </Card>
  );
}

const FIVE_MINUTES = { view_count: 300, fit_least: 60, interactive: false, pad_right: 0 };

function useSamples(): readonly Sample[] {
  const held = useCell(history);
  return held.samples;
}

function Throughput() {
  const samples = useSamples();
  const newest = samples.at(-1)?.at_ms ?? 0;
  const drawing = useMemo(
    () => ({
      count: samples.length,
      time_ms: (index: number) => local(samples, index),
      panes: [
        {
          label: "Events in, per second",
          weight: 3,
          zero: true,
          format: axis(short),
          series: [
            { kind: "line" as const, values: samples.map((s) => s.events), ink: "series-1" as const, fill: true },
          ],
        },
        {
          label: "Results out, per second",
          weight: 2,
          zero: true,
          format: axis(short),
          series: [
            { kind: "line" as const, values: samples.map((s) => s.results), ink: "series-2" as const, fill: true },
          ],
        },
      ],
    }),
    [newest],
  );
  return (
    <Card title="Throughput" note="since this page was opened, at most five minutes">
      <Plot
        label="Events and results per second over the last five minutes"
        drawing={drawing}
        options={{ ...FIVE_MINUTES }}
        class="history"
      />
    </Card>
  );
}

const LATENCY_MEANS =
  "Of the last minute: from the arrival of a feed's bytes until everything that follows from them at once has been handed to the readers";

function LatencyChart({ now }: { now: Status }) {
  const samples = useSamples();
  const newest = samples.at(-1)?.at_ms ?? 0;
  const drawing = useMemo(
    () => ({
      count: samples.length,
      time_ms: (index: number) => local(samples, index),
      panes: [
        {
          label: "",
          weight: 3,
          log: true,
          format: axis(nanos),
          series: [
            { kind: "line" as const, values: samples.map((s) => s.p99_9), ink: "series-5" as const },
            { kind: "line" as const, values: samples.map((s) => s.p99), ink: "series-2" as const },
            { kind: "line" as const, values: samples.map((s) => s.p50), ink: "series-1" as const },
          ],
        },
        {
          label: "Watermark lag, slowest shard",
          weight: 2,
          zero: true,
          format: axis(millis),
          series: [{ kind: "line" as const, values: samples.map((s) => s.lag_ms), ink: "series-4" as const }],
        },
      ],
    }),
    [newest],
  );
  return (
    <Card
      title="Latency"
      note={
        <span class="legend" title={LATENCY_MEANS}>
          <i class="ink series-1" /> p50 <i class="ink series-2" /> p99 <i class="ink series-5" /> p99.9
        </span>
      }
    >
      {now.latency_ns ? (
        <Plot
          label="Latency percentiles and watermark lag over the last five minutes"
          drawing={drawing}
          options={{ ...FIVE_MINUTES }}
          class="history"
        />
      ) : (
        <Empty title="No latency to show">
          Nothing came in during the last minute that could be timed, or this node does not measure it.
        </Empty>
      )}
    </Card>
  );
}

/** The axis is the reader's own wall clock; the labels come out of UTC, so shift by the zone. */
function local(samples: readonly Sample[], index: number): number {
  const at = samples[index]?.at_ms ?? (samples[0]?.at_ms ?? 0) + index * 1_000;
  return at - new Date(at).getTimezoneOffset() * 60_000;
}

function Ledger({ now }: { now: Status }) {
  const view = ledgerView(now.ledger, now.causes ?? []);
  const note =
    view.balances === null ? (
      DASH
    ) : view.balances ? (
      <Badge tone="good">balances</Badge>
    ) : (
      <Badge tone="bad" title="Delivered less the sum of all causes is not zero: that is a fault of the node">
        does not balance
      </Badge>
    );
  return (
    <Card title="Ledger" note={note} class="ledger">
      {view.columns.length === 0 ? (
        <Empty title="No ledger yet">
          Each stage accounts here for every event it was given, by what became of it.
        </Empty>
      ) : (
        <div class="scroll">
          <table data-testid="ledger">
            <thead>
              <tr>
                <th scope="col">Events by cause</th>
                {view.columns.map((column) => (
                  <th key={column.stage} scope="col" class="numeric">
                    {column.stage}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              <tr class="sum">
                <th scope="row">delivered</th>
                {view.columns.map((column) => (
                  <td key={column.stage} class="numeric">
                    {count(column.delivered)}
                  </td>
                ))}
              </tr>
              {view.causes.map((cause) => (
                <tr key={cause}>
                  <th scope="row">{cause}</th>
                  {view.columns.map((column) => (
                    <td key={column.stage} class={`numeric ${column.by_cause[cause] ? "" : "nil"}`}>
                      {count(column.by_cause[cause] ?? 0)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
            <tfoot>
              <tr>
                <th scope="row">balance</th>
                {view.columns.map(({ stage, computed, stated }) => (
                  <td
                    key={stage}
                    class={`numeric ${computed === 0 && !stated ? "good" : computed === null ? "" : "bad"}`}
                  >
                    {count(computed)}
                    {stated !== null && computed !== null && stated !== computed ? ` (node says ${count(stated)})` : ""}
                  </td>
                ))}
              </tr>
            </tfoot>
          </table>
        </div>
      )}
    </Card>
  );
}

function refusals(feed: Feed): number | null {
  return feed.rejected === null ? null : Object.values(feed.rejected).reduce((a, b) => a + b, 0);
}

const FEED_COLUMNS: Column<Feed>[] = [
  {
    id: "source",
    title: "Source",
    width: "minmax(9rem, 1.6fr)",
    by: (feed) => feed.source,
    cell: (feed) => (
      <>
        <FeedDot feed={feed} />
        {feed.source}
      </>
    ),
  },
  {
    id: "peer",
    title: "Peer",
    width: "minmax(8.5rem, 1.2fr)",
    cell: (feed) => <span class="muted">{text(feed.peer)}</span>,
  },
  {
    id: "accepted",
    title: "Accepted",
    width: "minmax(7rem, 1fr)",
    numeric: true,
    by: (feed) => feed.accepted,
    cell: (feed) => count(feed.accepted),
  },
  {
    id: "rejected",
    title: "Refused",
    width: "minmax(5rem, .7fr)",
    numeric: true,
    by: refusals,
    cell: (feed) => {
      const causes = Object.entries(feed.rejected ?? {})
        .filter(([, n]) => n > 0)
        .map(([cause, n]) => `${cause} ${n}`);
      return (
        <span title={causes.join(", ") || undefined} class={causes.length ? "hinted" : ""}>
          {count(refusals(feed))}
        </span>
      );
    },
  },
  {
    id: "duplicates",
    title: "Doubles",
    hint: "Events that came twice and were taken once",
    width: "minmax(5rem, .6fr)",
    numeric: true,
    by: (feed) => feed.duplicates,
    cell: (feed) => count(feed.duplicates),
  },
  {
    id: "gaps",
    title: "Lost",
    hint: "Events in gaps: the source numbered them, nobody received them",
    width: "minmax(4rem, .5fr)",
    numeric: true,
    by: (feed) => feed.gaps,
    cell: (feed) => <span class={feed.gaps ? "warn" : ""}>{count(feed.gaps)}</span>,
  },
];

function feedsNote(feeds: Feed[]): string {
  const of = (which: (feed: Feed) => unknown) => feeds.filter(which).length;
  const finished = of((feed) => feed.finished && !feed.connected);
  return `${of((feed) => feed.connected)} of ${feeds.length} connected${finished ? `, ${finished} finished` : ""}`;
}

function Feeds({ now }: { now: Status }) {
  const feeds = now.feeds ?? [];
  const refused = new Map<string, number>();
  for (const feed of feeds)
    for (const [cause, n] of Object.entries(feed.rejected ?? {})) refused.set(cause, (refused.get(cause) ?? 0) + n);
  const causes = [...refused].filter(([, n]) => n > 0);
  const overflowed = feeds.reduce((sum, feed) => sum + (feed.overflowed ?? 0), 0);
  return (
    <Card title="Feeds" note={now.feeds ? feedsNote(feeds) : DASH}>
      <Table
        label="Feeds"
        testid="feeds"
        rows={feeds}
        columns={FEED_COLUMNS}
        rowKey={(feed) => feed.source}
        empty={
          <Empty title="No feed has connected">
            Send something: <code>tidegate publish</code>
          </Empty>
        }
      />
      {causes.length > 0 && (
        <p class="under">Refused: {causes.map(([cause, n], i) => `${i ? ", " : ""}${cause} ${count(n)}`)}</p>
      )}
      {overflowed > 0 && (
        <p class="under">{count(overflowed)} accepted under the overflow name: their source had used up its names.</p>
      )}
    </Card>
  );
}
