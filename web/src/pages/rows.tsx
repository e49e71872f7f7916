import { useMemo, useRef, useState } from "preact/hooks";
import type { Row, Stream } from "../api/types";
import type { Chart } from "../chart/chart";
import { rowsDrawing } from "../lib/drawing";
import { clock, count, DASH, float, stamp, text } from "../lib/format";
import { useRecords } from "../lib/live";
import { Empty, Failure } from "../ui/parts";
import { Plot } from "../ui/plot";
import { Table, type Column } from "../ui/table";

/** Columns that are addresses or marks, not measures. */
const NOT_DRAWN = /^(ts_open|frame_first|frame_last|missing)$/;

/** One key of a stream of named numbers: a pane for each measure, and the records themselves. */
export function Rows({ stream, name }: { stream: Stream; name: string }) {
  const feed = useRecords([stream.name], name);
  const chart = useRef<Chart>(null);
  const [hover, setHover] = useState<number | null>(null);
  const rows = feed.rows.get(stream.name)?.rows ?? [];
  const drawn = stream.columns.filter((column) => !NOT_DRAWN.test(column)).slice(0, 6);
  const drawing = useMemo(() => rowsDrawing(rows, drawn), [feed.version]);
  const reversed = useMemo(() => [...rows].reverse(), [feed.version]);
  if (feed.error && !rows.length) {
    return (
      <div class="card">
        <Failure title={`Nothing of ${name}`} detail={feed.error} />
      </div>
    );
  }
  const row = rows[hover !== null && hover < rows.length ? hover : rows.length - 1];
  const columns: Column<Row>[] = [
    {
      id: "ts",
      title: "Until (UTC)",
      width: "minmax(7.5rem, 1fr)",
      cell: (one) => <span title={stamp(one.ts)}>{clock(one.ts)}</span>,
    },
    ...stream.columns
      .filter((column) => !/^(ts_open|frame_first|frame_last)$/.test(column))
      .map((column): Column<Row> => ({
        id: column,
        title: column,
        width: "minmax(6.5rem, 1fr)",
        numeric: true,
        cell: (one) => float(one.values[column]),
      })),
    { id: "cause", title: "Cause", width: "6.5rem", cell: (one) => <span class="muted">{text(one.cause)}</span> },
  ];
  return (
    <>
      <div class="card chart">
        <dl class="ohlc" data-testid="legend">
          <div class="when">
            <dt>{hover === null ? "newest" : "at"}</dt>
            <dd>{row ? clock(row.ts) : DASH}</dd>
          </div>
          {drawn.map((column) => (
            <div key={column}>
              <dt>{column}</dt>
              <dd data-field={column}>{float(row?.values[column])}</dd>
            </div>
          ))}
        </dl>
        {rows.length ? (
          <Plot
            label={`${stream.name} of ${name}`}
            class="candles"
            drawing={drawing}
            handle={chart}
            options={{
              view_count: 160,
              record_px: 8,
              fit_least: 12,
              interactive: true,
              pad_right: 1,
              onHover: setHover,
            }}
          />
        ) : (
          <div class="plot candles">
            <Empty title={feed.loading ? "Reading the records" : `No record of ${name} in ${stream.name}`} />
          </div>
        )}
      </div>
      <section class="card records" aria-label="Records">
        <header>
          <h2>Records</h2>
          <div class="note">newest first, {count(rows.length)} held</div>
        </header>
        <Table
          label="Records"
          testid="records"
          fill
          rowHeight={28}
          rows={reversed}
          columns={columns}
          rowKey={(one) => one.ts}
        />
      </section>
    </>
  );
}
