import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Chart } from "../chart/chart";
import { isBar, isRow, type AnyRecord, type Bar, type Key, type Stream } from "../api/types";
import { placesOf } from "../lib/decimals";
import { barsDrawing, inkOf, VWAP_INK } from "../lib/drawing";
import { brief, clock, count, DASH, float, split, stamp, text } from "../lib/format";
import { groupOf, shownAtFirst, valuesOf } from "../lib/indicators";
import { useBindings } from "../lib/keyboard";
import { useLatest, useNames, useRecords, useSettled } from "../lib/live";
import { format, go, route } from "../lib/route";
import { useCell } from "../lib/store";
import { recall } from "../lib/theme";
import { status, streams } from "../node";
import { Search } from "../ui/search";
import { Icon } from "../ui/icon";
import { Badge, Decimal, Empty, Failure } from "../ui/parts";
import { Plot } from "../ui/plot";
import { Table, type Column } from "../ui/table";
import { Rows } from "./rows";
import { Waiting } from "./waiting";

/** Streams the page can show, candles first. */
function choices(known: Stream[]): Stream[] {
  const rank = { bars: 0, values: 1, integers: 2, hosts: 3 };
  return known.filter((stream) => stream.kind !== "hosts").sort((a, b) => rank[a.kind] - rank[b.kind]);
}

export function Keys() {
  const known = useCell(streams);
  if (known === null) return <Waiting />;
  if (known instanceof Error) return <Failure title="The node does not list its streams" detail={known.message} />;
  const shown = choices(known);
  if (!shown.length) {
    return (
      <div class="alone">
        <Empty title="No stream of keys">
          This node computes no bars and no values. Its configuration names the streams.
        </Empty>
      </div>
    );
  }
  return <Browser all={known} shown={shown} />;
}

function Browser({ all, shown }: { all: Stream[]; shown: Stream[] }) {
  const { item, query } = useCell(route);
  const [search, setSearch] = useState(query.search ?? "");
  const field = useRef<HTMLInputElement>(null);
  const stream = shown.find((one) => one.name === query.stream) ?? shown[0]!;
  // One list for all streams of a kind, so that turning to another does not change it: those that the finest has.
  const names = useNames(search.trim(), (stream.kind === "bars" ? shown[0]! : stream).name);
  const bars_only = shown.filter((one) => one.kind === "bars");
  const selectable = bars_only.length ? shown : all;

  const open = (to: { item?: string | null; stream?: string }, replace = true) =>
    go(
      { page: "keys", item: to.item === undefined ? item : to.item, query: { stream: to.stream ?? query.stream } },
      replace,
    );
  const move = (by: number) => {
    const at = names.keys.findIndex((key) => key.name === item);
    const to = names.keys[at < 0 ? 0 : Math.min(names.keys.length - 1, Math.max(0, at + by))];
    if (to) open({ item: to.name });
  };
  const turn = (by: number) => {
    const at = shown.indexOf(stream);
    open({ stream: shown[(at + by + shown.length) % shown.length]!.name });
  };
  // A wide screen has room for a chart at once: show the first key rather than nothing.
  const first = names.keys[0]?.name;
  useEffect(() => {
    if (!item && first && matchMedia("(min-width: 60rem)").matches) open({ item: first });
  }, [item, first]);

  useBindings("Keys", [
    { key: "/", what: "Search", run: () => (field.current?.focus(), field.current?.select()) },
    { key: "j", what: "Next key", run: () => move(1) },
    { key: "k", what: "Key before", run: () => move(-1) },
    { key: "]", what: "Next stream", run: () => turn(1) },
    { key: "[", what: "Stream before", run: () => turn(-1) },
    {
      key: "Escape",
      what: "Back to the list, or clear the search",
      run: () => (matchMedia("(max-width: 59.99rem)").matches && item ? open({ item: null }) : setSearch("")),
    },
  ]);

  return (
    <div class={`browser ${item ? "with-item" : ""}`}>
      <h1 class="quiet">Keys</h1>
      <section class="card list" aria-label="List of keys">
        <Search
          field={field}
          what="keys"
          value={search}
          onChange={setSearch}
          onEnter={() => {
            const first = names.keys[0];
            if (first) open({ item: first.name }, false);
            return first !== undefined;
          }}
        />
        <KeyList
          names={names}
          stream={stream}
          selected={item}
          search={search}
          onOpen={(name) => open({ item: name }, false)}
        />
      </section>
      <section class="detail" aria-label="Chart">
        {item === null ? (
          <div class="alone">
            <Empty title="Choose a key" />
          </div>
        ) : (
          <>
            <div class="detail-head">
              <a
                class="plain back"
                href={format({ page: "keys", query: { stream: query.stream } })}
                aria-label="Back to the list"
              >
                <Icon name="back" />
              </a>
              <h2 data-testid="key">{item}</h2>
              <div class="segments" role="group" aria-label="Stream">
                {selectable.map((one) => (
                  <button
                    key={one.name}
                    type="button"
                    aria-pressed={one.name === stream.name}
                    onClick={() => open({ stream: one.name })}
                  >
                    {one.name}
                  </button>
                ))}
              </div>
            </div>
            {stream.kind === "bars" ? (
              <Bars key={`${stream.name} ${item}`} stream={stream} all={all} name={item} />
            ) : (
              <Rows key={`${stream.name} ${item}`} stream={stream} name={item} />
            )}
          </>
        )}
      </section>
    </div>
  );
}

function KeyList(props: {
  names: ReturnType<typeof useNames>;
  stream: Stream;
  selected: string | null;
  search: string;
  onOpen: (name: string) => void;
}) {
  const { names, stream } = props;
  const [view, setView] = useState({ first: 0, end: 0 });
  const in_view = useMemo(() => names.keys.slice(view.first, view.end).map((key) => key.name), [names.keys, view]);
  const settled = useSettled(in_view.join("\n"), 120);
  const wanted = useMemo(() => (settled ? settled.split("\n") : []), [settled]);
  const latest = useLatest(stream.name, wanted);
  const places = placesOf(in_view.map((name) => closeOf(latest.get(name))));
  const columns: Column<Key>[] = [
    {
      id: "name",
      title: "Key",
      width: "minmax(0, 1fr)",
      cell: (key) => (
        <span class="name" title={key.name}>
          {key.name}
        </span>
      ),
    },
    ...(stream.kind === "bars"
      ? [
          {
            id: "close",
            title: "Close",
            width: "minmax(6.5rem, auto)",
            numeric: true,
            cell: (key: Key) => {
              const bar = latest.get(key.name);
              return (
                <span class={bar && isBar(bar) ? direction(bar) : "muted"}>
                  <Decimal text={closeOf(bar)} places={places} />
                </span>
              );
            },
          },
          {
            id: "volume",
            title: "Volume",
            width: "5.5rem",
            numeric: true,
            cell: (key: Key) => {
              const bar = latest.get(key.name);
              return <span class="muted">{bar && isBar(bar) ? bar.volume : DASH}</span>;
            },
          },
        ]
      : stream.columns.slice(0, 2).map((name) => ({
          id: name,
          title: name,
          width: "6rem",
          numeric: true,
          cell: (key: Key) => {
            const row = latest.get(key.name);
            return row && isRow(row) ? float(row.values[name]) : DASH;
          },
        }))),
  ];
  const { total } = names;
  return (
    <>
      <Table
        label="Keys"
        testid="keys"
        fill
        rowHeight={30}
        rows={names.keys}
        columns={columns}
        rowKey={(key) => key.name}
        selected={props.selected}
        onSelect={(key) => props.onOpen(key.name)}
        onView={(first, end) => setView((old) => (old.first === first && old.end === end ? old : { first, end }))}
        empty={
          names.error ? (
            <Failure title="The list could not be read" detail={names.error} onRetry={names.retry} />
          ) : !names.done || names.search !== props.search.trim() ? (
            <Empty title="Reading the list" />
          ) : names.search ? (
            <Empty title={`No key contains “${names.search}”`}>Upper and lower case do not matter.</Empty>
          ) : (
            <Empty title="No key yet">The first event of a key puts it here.</Empty>
          )
        }
      />
      <p class="list-foot" role="status" data-testid="key-count">
        {total === null && !names.done
          ? DASH
          : !names.done
            ? `${count(names.keys.length)} so far`
            : names.truncated
              ? `First ${count(names.keys.length)}${total === null ? "" : ` of ${count(total)}`}: search to narrow`
              : `${count(names.keys.length)} ${names.keys.length === 1 ? "key" : "keys"}${names.search ? " found" : ""}`}
      </p>
    </>
  );
}

function closeOf(record: AnyRecord | undefined): string | null {
  return record && isBar(record) ? record.close : null;
}

/** Compared as numbers, for a colour only. */
function direction(bar: Bar): string {
  const by = Number(bar.close) - Number(bar.open);
  return by > 0 ? "up" : by < 0 ? "down" : "";
}

const STORED = "tidegate.shown";

function useShown(groups: string[]): [Set<string>, (group: string) => void] {
  const [chosen, set] = useState<Record<string, boolean>>(() => {
    try {
      return JSON.parse(recall.get(STORED) ?? "{}") as Record<string, boolean>;
    } catch {
      return {};
    }
  });
  const shown = new Set(groups.filter((group) => chosen[group] ?? shownAtFirst(group)));
  const toggle = (group: string) => {
    const next = { ...chosen, [group]: !shown.has(group) };
    set(next);
    recall.set(STORED, JSON.stringify(next));
  };
  return [shown, toggle];
}

function Bars({ stream, all, name }: { stream: Stream; all: Stream[]; name: string }) {
  const stages = useCell(status)?.stages ?? null;
  const values = valuesOf(stream, all, stages);
  const wanted = values.map((one) => one.name).join("\n");
  const feed = useRecords([stream.name, ...(wanted ? wanted.split("\n") : [])], name);
  const chart = useRef<Chart>(null);
  const [hover, setHover] = useState<number | null>(null);

  const columns = values.flatMap((one) => one.columns.map((column) => ({ stream: one.name, column })));
  const all_columns = columns.map((one) => one.column);
  const groups = ["vwap", ...new Set(all_columns.map(groupOf))];
  const [shown, toggle] = useShown(groups);
  const shown_columns = columns.filter(({ column }) => shown.has(groupOf(column)));

  const drawing = useMemo(
    () =>
      barsDrawing(
        feed.bars,
        shown_columns.map(({ stream: from, column }) => ({ column, at: (bar) => feed.rows.get(from)?.at(bar.ts) })),
        all_columns,
        shown.has("vwap"),
      ),
    [feed.version, [...shown].join(), wanted],
  );

  useBindings("Chart", [
    { key: "+", what: "Zoom in", run: () => chart.current?.zoom(1 / 1.4) },
    { key: "-", what: "Zoom out", run: () => chart.current?.zoom(1.4) },
    { key: "0", what: "Newest bar", run: () => chart.current?.latest() },
    { key: "ArrowLeft", what: "Crosshair to the bar before, with Shift: scroll", run: () => chart.current?.step(-1) },
    { key: "ArrowRight", what: "Crosshair to the next bar", run: () => chart.current?.step(1) },
  ]);

  if (feed.error && !feed.bars.length) {
    return (
      <div class="card">
        <Failure title={`No bars of ${name}`} detail={feed.error} />
      </div>
    );
  }
  const newest = feed.bars.length - 1;
  const bar = feed.bars[hover !== null && hover <= newest ? hover : newest];
  // Values are computed when a bar closes: under no crosshair, the newest there are.
  const rowOf = (from: string) => {
    const rows = feed.rows.get(from);
    return hover === null ? rows?.rows.at(-1) : bar && rows?.at(bar.ts);
  };
  return (
    <>
      <div class="card chart">
        <Legend bar={bar} hovered={hover !== null} />
        <div class="chips" role="group" aria-label="Lines">
          {groups.map((group) => {
            const own = group === "vwap" ? [] : columns.filter(({ column }) => groupOf(column) === group);
            return (
              <button
                key={group}
                type="button"
                class="chip"
                aria-pressed={shown.has(group)}
                onClick={() => toggle(group)}
                data-testid={`chip-${group}`}
              >
                {group === "vwap" ? (
                  <span class="value">
                    <i class={`ink ${VWAP_INK}`} /> vwap <b>{text(bar?.vwap)}</b>
                  </span>
                ) : !shown.has(group) ? (
                  <span class="value" title={own.map(({ column }) => column).join(", ")}>
                    {group}
                  </span>
                ) : (
                  own.map(({ stream: from, column }) => (
                    <span key={column} class="value">
                      <i class={`ink ${/hist$/.test(column) ? "hist" : inkOf(column, all_columns)}`} /> {column}{" "}
                      <b title={float(rowOf(from)?.values[column])}>{brief(rowOf(from)?.values[column])}</b>
                    </span>
                  ))
                )}
              </button>
            );
          })}
          <span class="zoom">
            <button
              type="button"
              class="plain"
              aria-label="Zoom out"
              title="Zoom out (-)"
              onClick={() => chart.current?.zoom(1.4)}
            >
              <Icon name="minus" />
            </button>
            <button
              type="button"
              class="plain"
              aria-label="Zoom in"
              title="Zoom in (+)"
              onClick={() => chart.current?.zoom(1 / 1.4)}
            >
              <Icon name="plus" />
            </button>
            <button
              type="button"
              class="plain"
              aria-label="Newest bar"
              title="Newest bar (0)"
              onClick={() => chart.current?.latest()}
            >
              <Icon name="latest" />
            </button>
          </span>
        </div>
        {feed.bars.length ? (
          <Plot
            label={`Candles of ${name}, ${stream.name}`}
            testid="candles"
            class="candles"
            drawing={drawing}
            handle={chart}
            options={{ view_count: 160, record_px: 8, interactive: true, pad_right: 2, onHover: setHover }}
          />
        ) : (
          <div class="plot candles">
            {feed.loading ? (
              <Empty title="Reading the bars" />
            ) : (
              <Empty title={`No bar of ${name} yet`}>An interval without a trade has no bar.</Empty>
            )}
          </div>
        )}
        <p class="marks">
          <span>
            <i class="mark forming" /> forming
          </span>
          <span>
            <i class="mark amended" /> amended after it closed
          </span>
          <span>
            <i class="mark missing" /> its feed is known to have lost events
          </span>
          <span>
            <i class="mark bought" /> volume, the part that was bought is darker
          </span>
        </p>
      </div>
      <Records bars={feed.bars} version={feed.version} />
    </>
  );
}

function Legend({ bar, hovered }: { bar: Bar | undefined; hovered: boolean }) {
  const parts: [string, string | null | undefined][] = [
    ["open", bar?.open],
    ["high", bar?.high],
    ["low", bar?.low],
    ["close", bar?.close],
    ["volume", bar?.volume],
    ["trades", bar ? count(bar.trades) : undefined],
  ];
  return (
    <dl class="ohlc" data-testid="legend" data-hovered={hovered}>
      <div class="when">
        <dt>{hovered ? "at" : "newest"}</dt>
        <dd data-field="ts_open" title={bar ? `opened ${stamp(bar.ts_open)} UTC` : undefined}>
          {bar ? clock(bar.ts_open) : DASH}
        </dd>
      </div>
      {parts.map(([label, value]) => (
        <div key={label}>
          <dt>{label}</dt>
          <dd data-field={label} class={label === "close" && bar ? direction(bar) : ""}>
            {text(value)}
          </dd>
        </div>
      ))}
      <div class="state">
        <dt>state</dt>
        <dd data-field="state">{bar ? <State bar={bar} /> : DASH}</dd>
      </div>
    </dl>
  );
}

function State({ bar }: { bar: Bar }) {
  const missing = bar.missing ?? 0;
  return (
    <>
      <Badge tone={bar.state === "amended" ? "warn" : bar.state === "forming" ? "faint" : ""}>{bar.state}</Badge>
      {bar.rev > 0 && (
        <Badge tone="warn" title={`revision ${bar.rev}`}>
          rev {bar.rev}
        </Badge>
      )}
      {bar.cause && bar.cause !== "watermark" && <span class="muted"> {bar.cause}</span>}
      {missing > 0 && (
        <Badge tone="bad" title="events its source is known to have lost while the bar was open">
          {count(missing)} missing
        </Badge>
      )}
    </>
  );
}

/** Characters of a column of decimals that align at the point, with a little air. */
function widest(texts: (string | null)[], places: number): number {
  const whole = Math.max(0, ...texts.map((text) => (text === null ? 0 : split(text)[0].length)));
  return Math.max(8, whole + (places ? places + 1 : 0) + 1);
}

function Records({ bars, version }: { bars: Bar[]; version: number }) {
  const rows = useMemo(() => [...bars].reverse(), [version]);
  const near = rows.slice(0, 200);
  const price = placesOf(near.flatMap((bar) => [bar.open, bar.high, bar.low, bar.close]));
  const volume = placesOf(near.map((bar) => bar.volume));
  const vwap = placesOf(near.map((bar) => bar.vwap));
  const decimal = (id: "open" | "high" | "low" | "close" | "volume" | "vwap", places: number): Column<Bar> => ({
    id,
    title: id === "vwap" ? "VWAP" : id[0]!.toUpperCase() + id.slice(1),
    width: `minmax(${widest(
      near.map((bar) => bar[id]),
      places,
    )}ch, 1fr)`,
    numeric: true,
    cell: (bar) => <Decimal text={bar[id]} places={places} />,
  });
  const columns: Column<Bar>[] = [
    {
      id: "ts_open",
      title: "Opened (UTC)",
      width: "minmax(6.3rem, 1fr)",
      cell: (bar) => <span title={`${stamp(bar.ts_open)} to ${stamp(bar.ts)}`}>{clock(bar.ts_open)}</span>,
    },
    decimal("open", price),
    decimal("high", price),
    decimal("low", price),
    decimal("close", price),
    decimal("volume", volume),
    decimal("vwap", vwap),
    { id: "trades", title: "Trades", width: "3.6rem", numeric: true, cell: (bar) => count(bar.trades) },
    { id: "rev", title: "Rev", width: "2rem", numeric: true, cell: (bar) => bar.rev },
    {
      id: "state",
      title: "State",
      width: "4.9rem",
      cell: (bar) => (
        <Badge tone={bar.state === "amended" ? "warn" : bar.state === "forming" ? "faint" : ""}>{bar.state}</Badge>
      ),
    },
    { id: "cause", title: "Cause", width: "5.2rem", cell: (bar) => <span class="muted">{text(bar.cause)}</span> },
    {
      id: "missing",
      title: "Missing",
      width: "3.8rem",
      numeric: true,
      cell: (bar) => <span class={bar.missing ? "bad" : "muted"}>{count(bar.missing)}</span>,
    },
  ];
  return (
    <section class="card records" aria-label="Records">
      <header>
        <h2>Records</h2>
        <div class="note">newest first, {count(bars.length)} held</div>
      </header>
      <Table
        label="Records"
        testid="records"
        fill
        rowHeight={28}
        rows={rows}
        columns={columns}
        rowKey={(bar) => `${bar.ts_open} ${bar.ts}`}
      />
    </section>
  );
}
