import { useMemo, useRef, useState } from "preact/hooks";
import type { Row, Stream } from "../api/types";
import type { Drawing } from "../chart/chart";
import { groups, heat, join, parameters, rangeOf, type Group, type Line, type Range } from "../lib/derived";
import { axis, clock, count, DASH, float, percent, short, stamp, toMillis } from "../lib/format";
import { useBindings } from "../lib/keyboard";
import { useAllLatest, useRecords } from "../lib/live";
import { format, go, route } from "../lib/route";
import { useCell } from "../lib/store";
import { streams } from "../node";
import { Icon } from "../ui/icon";
import { Empty, Failure } from "../ui/parts";
import { Plot } from "../ui/plot";
import { Search } from "../ui/search";
import { Table, type Column } from "../ui/table";
import { Rows } from "./rows";
import { Waiting } from "./waiting";

/** What is computed of whole sets of bars: heat maps of surfaces, the correlation of all symbols, risk. */
export function Surfaces() {
  const known = useCell(streams);
  const { query } = useCell(route);
  if (known === null) return <Waiting />;
  if (known instanceof Error) return <Failure title="The node does not list its streams" detail={known.message} />;
  const all = groups(known);
  const group = all.find((one) => one.name === query.stream) ?? all[0];
  if (!group) {
    return (
      <div class="alone">
        <Empty title="Nothing is derived from bars">
          A section such as <code>[[surface]]</code>, <code>[[spectrum]]</code> or <code>[[risk]]</code> of the node's
          configuration would fill this page.
        </Empty>
      </div>
    );
  }
  const choice = all.length > 1 && (
    <div class="segments" role="group" aria-label="Stream">
      {all.map((one) => (
        <button
          key={one.name}
          type="button"
          aria-pressed={one === group}
          onClick={() => go({ page: "surfaces", query: { stream: one.name } }, true)}
        >
          {one.name}
        </button>
      ))}
    </div>
  );
  return group.kind === "surface" ? (
    <Surface key={group.name} group={group} choice={choice} />
  ) : (
    <OfAll key={group.name} group={group} choice={choice} />
  );
}

/** One colour for each value, the number in it, and both sides of the scale below. */
function heatColumns(columns: string[], range: Range | null): Column<Line>[] {
  return columns.map((column) => ({
    id: column,
    title: column.replace(/^[a-z]+_/, ""),
    hint: column,
    width: "minmax(3.4rem, 1fr)",
    numeric: true,
    by: (line) => {
      const value = line.values[column];
      return value === null || value === undefined ? null : Number(value);
    },
    cell: (line) => {
      const value = line.values[column];
      const shade = heat(value, range);
      return (
        <span
          class={`heat ${shade?.side ?? ""}`}
          style={shade ? { "--part": `${Math.round(shade.part * 100)}%` } : undefined}
          title={`${column} of ${line.key}: ${float(value)}`}
        >
          {value === null || value === undefined ? DASH : short(Number(value))}
        </span>
      );
    },
  }));
}

function Scale({ range }: { range: Range | null }) {
  if (!range) return null;
  return (
    <div class="heat-scale" role="img" aria-label={`Colours from ${short(range.low)} to ${short(range.high)}`}>
      <span>{short(range.low)}</span>
      <i />
      <span>{short(range.high)}</span>
    </div>
  );
}

const BARS: Column<Line> = {
  id: "bars",
  title: "Bars",
  hint: "so many bars the row is of; a parameter that needs more is still learning",
  width: "4rem",
  numeric: true,
  by: (line) => line.bars,
  cell: (line) => count(line.bars),
};

function Surface({ group, choice }: { group: Group; choice: preact.ComponentChildren }) {
  const { item } = useCell(route);
  const [search, setSearch] = useState("");
  const field = useRef<HTMLInputElement>(null);
  const all = useAllLatest(group.streams.map((stream) => stream.name).join("\n"));
  const part = search.trim().toLowerCase();
  const columns = useMemo(() => parameters(group), [group.name]);
  const lines = useMemo(
    () =>
      join(
        all.rows.filter((row) => row.key.toLowerCase().includes(part)),
        (row) => row.key,
      ).sort((a, b) => (a.key < b.key ? -1 : 1)),
    [all.version, part],
  );
  const range = useMemo(() => rangeOf(lines, columns), [lines, columns]);
  const open = (to: string | null) => go({ page: "surfaces", item: to, query: { stream: group.name } });
  useBindings("Surfaces", [
    { key: "/", what: "Search", run: () => (field.current?.focus(), field.current?.select()) },
    { key: "Escape", what: "Close the symbol, or clear the search", run: () => (item ? open(null) : setSearch("")) },
  ]);
  const shown: Column<Line>[] = [
    {
      id: "key",
      title: "Symbol",
      width: "minmax(6rem, 1fr)",
      by: (line) => line.key,
      cell: (line) => (
        <span class="name" title={line.key}>
          {line.key}
        </span>
      ),
    },
    BARS,
    ...heatColumns(columns, range),
  ];
  return (
    <div class="hosts-page surfaces-page">
      <h1 class="quiet">Surfaces</h1>
      <section class="card list" aria-label={group.name}>
        <div class="bar">
          <Search field={field} what="symbols" value={search} onChange={setSearch} />
          {choice}
          <Scale range={range} />
          <span class="note">
            {group.name}: {count(lines.length)} symbols × {count(columns.length)} parameters
            {all.lost > 0 && `, ${count(all.lost)} records lost on the way here`}
          </span>
        </div>
        <Table
          label={group.name}
          testid="surface"
          fill
          rowHeight={26}
          rows={lines}
          columns={shown}
          rowKey={(line) => line.key}
          selected={item}
          onSelect={(line) => open(line.key)}
          empty={
            all.error ? (
              <Failure title="The surface could not be read" detail={all.error} />
            ) : part ? (
              <Empty title={`No symbol contains “${search.trim()}”`} />
            ) : (
              <Empty title="No bar has closed yet">A symbol appears when its first bar ends.</Empty>
            )
          }
        />
      </section>
      {item && (
        <section class="detail" aria-label="Symbol">
          <div class="detail-head">
            <h2 data-testid="key">{item}</h2>
            <a
              class="plain"
              href={format({ page: "surfaces", query: { stream: group.name } })}
              aria-label="Close the symbol"
              title="Close (Esc)"
            >
              <Icon name="close" />
            </a>
          </div>
          <OverTime key={`${group.name} ${item}`} group={group} name={item} columns={columns} />
        </section>
      )}
    </div>
  );
}

/** One symbol: time by parameter, newest first. */
function OverTime({ group, name, columns }: { group: Group; name: string; columns: string[] }) {
  const feed = useRecords(
    group.streams.map((stream) => stream.name),
    name,
  );
  const lines = useMemo(() => {
    const rows = group.streams.flatMap((stream) => feed.rows.get(stream.name)?.rows ?? []);
    return join(rows, (row) => row.ts).reverse();
  }, [feed.version]);
  const range = useMemo(() => rangeOf(lines, columns), [lines, columns]);
  const shown: Column<Line>[] = [
    {
      id: "ts",
      title: "Until (UTC)",
      width: "minmax(6.5rem, 1fr)",
      cell: (line) => (
        <span class="muted" title={stamp(line.ts)}>
          {clock(line.ts)}
        </span>
      ),
    },
    BARS,
    ...heatColumns(columns, range),
  ];
  return (
    <section class="card records" aria-label="Over time">
      <header>
        <h2>Over time</h2>
        <div class="note">newest first, {count(lines.length)} held</div>
      </header>
      <Table
        label={`${group.name} of ${name}`}
        testid="surface-time"
        fill
        rowHeight={26}
        rows={lines}
        columns={shown}
        rowKey={(line) => line.ts}
        empty={<Empty title={feed.loading ? "Reading the records" : `No row of ${name}`} />}
      />
    </section>
  );
}

/** A stream of all symbols together: its newest row in words, and how it went. */
function OfAll({ group, choice }: { group: Group; choice: preact.ComponentChildren }) {
  const stream = group.streams[0]!;
  const all = useAllLatest(stream.name);
  const newest = all.rows[0];
  return (
    <div class="surfaces-page whole">
      <h1 class="quiet">Surfaces</h1>
      <div class="bar">
        {choice}
        <span class="note">
          {stream.name}
          {newest && ` of ${newest.key}`}
        </span>
      </div>
      {newest ? (
        <>
          <State row={newest} />
          {group.kind === "risk" && <Risk stream={stream} name={newest.key} />}
          <Rows key={`${stream.name} ${newest.key}`} stream={measures(stream)} name={newest.key} />
        </>
      ) : (
        <Empty title={all.error ?? (all.loading ? "Reading the records" : "No bar has closed yet")} />
      )}
    </div>
  );
}

/** Measures first: the chart draws the first few. */
function measures(stream: Stream): Stream {
  const state = ["ready", "bars", "symbols"];
  const columns = stream.columns.filter((column) => !state.includes(column));
  return { ...stream, columns: [...columns, ...stream.columns.filter((column) => state.includes(column))] };
}

function State({ row }: { row: Row }) {
  const ready = Number(row.values.ready ?? 0) === 1;
  return (
    <p class={`state-line ${ready ? "" : "learning"}`} data-testid="derived-state">
      {ready
        ? `${count(Number(row.values.symbols))} symbols over the last ${count(Number(row.values.bars))} bars, until ${clock(row.ts)}`
        : `Still learning: ${count(Number(row.values.bars ?? 0))} bars so far, until ${clock(row.ts)}`}
    </p>
  );
}

/** Value at risk with its interval, and the expected shortfall: a pane for each level. */
function Risk({ stream, name }: { stream: Stream; name: string }) {
  const feed = useRecords([stream.name], name);
  const rows = (feed.rows.get(stream.name)?.rows ?? []).filter((row) => Number(row.values.ready) === 1);
  const labels = stream.columns.flatMap((column) => column.match(/^var_([\d_]+)$/)?.[1] ?? []);
  const drawing = useMemo((): Drawing => {
    const values = (column: string) =>
      rows.map((row) => {
        const value = row.values[column];
        return value === null || value === undefined ? null : Number(value);
      });
    return {
      count: rows.length,
      time_ms: (index) => toMillis(rows[index]?.ts ?? "0"),
      panes: labels.map((label) => ({
        label: `${label.replace("_", ".")} %`,
        weight: 1,
        format: axis(percent),
        series: [
          { kind: "line", values: values(`var_low_${label}`), ink: "series-4", width: 1, dash: true },
          { kind: "line", values: values(`var_high_${label}`), ink: "series-4", width: 1, dash: true },
          { kind: "line", values: values(`var_${label}`), ink: "series-4", width: 1.75 },
          { kind: "line", values: values(`shortfall_${label}`), ink: "series-2", width: 1.75 },
        ],
      })),
    };
  }, [feed.version]);
  const last = rows.at(-1);
  if (!rows.length) return null;
  return (
    <section class="card chart" aria-label="Value at risk">
      <dl class="ohlc" data-testid="risk">
        {labels.map((label) => (
          <div key={label}>
            <dt>VaR {label.replace("_", ".")} %</dt>
            <dd>
              {percent(Number(last?.values[`var_${label}`]))}{" "}
              <span class="muted">
                ({percent(Number(last?.values[`var_low_${label}`]))} to{" "}
                {percent(Number(last?.values[`var_high_${label}`]))})
              </span>
            </dd>
            <dt>shortfall</dt>
            <dd>{percent(Number(last?.values[`shortfall_${label}`]))}</dd>
          </div>
        ))}
      </dl>
      <Plot
        label={`Value at risk (solid, with its 95 % interval) and expected shortfall of ${name}`}
        class="candles"
        drawing={drawing}
        options={{ view_count: 160, record_px: 8, fit_least: 12, interactive: true, pad_right: 1 }}
      />
    </section>
  );
}
