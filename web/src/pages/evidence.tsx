/** Everything about one alert: why, on what it rests, what can be done. */
import { useMemo, useState } from "preact/hooks";
import { rest, words } from "../api/rest";
import type { AlertDetail, Flow, FoundRow, Row } from "../api/types";
import { useAlert } from "../lib/alerts";
import { against, heldBack, standing, technique, TONES } from "../lib/episode";
import { rowsDrawing } from "../lib/drawing";
import { DASH, clock, count, float, nanos, stamp, when } from "../lib/format";
import { format, route } from "../lib/route";
import { useCell } from "../lib/store";
import { streams } from "../node";
import { Icon } from "../ui/icon";
import { Badge, Card, Empty, Failure } from "../ui/parts";
import { Plot } from "../ui/plot";
import { Table, type Column } from "../ui/table";
import { HostLink } from "./alerts";
import { Rows } from "./rows";

export function Evidence({ id, onChanged }: { id: string; onChanged: () => void }) {
  const { query } = useCell(route);
  const answer = useAlert(id);
  const alert = answer.value;
  return (
    <section class="detail" aria-label="Alert">
      <div class="detail-head">
        <a
          class="plain back"
          href={format({ page: "alerts", query })}
          aria-label="Back to the list"
          title="Back to the list"
        >
          <Icon name="back" />
        </a>
        <h2 data-testid="alert-title">{alert ? alert.kind : id}</h2>
        {alert && <Badge tone={TONES[alert.severity]}>{alert.severity}</Badge>}
        <a class="plain" href={format({ page: "alerts", query })} aria-label="Close the alert" title="Close (Esc)">
          <Icon name="close" />
        </a>
      </div>
      {alert ? (
        <>
          <Facts alert={alert} />
          <Actions
            alert={alert}
            onSaid={() => {
              answer.ask();
              onChanged();
            }}
          />
          <Reasons alert={alert} />
          <Behind alert={alert} />
          <Proof alert={alert} />
        </>
      ) : (
        <div class="card">
          {answer.error ? (
            <Failure title="The alert could not be read" detail={answer.error} onRetry={answer.ask} />
          ) : (
            <Empty title="Reading the alert" />
          )}
        </div>
      )}
    </section>
  );
}

function Facts({ alert }: { alert: AlertDetail }) {
  const page = alert.technique && technique(alert.technique);
  const held = heldBack(alert);
  return (
    <div class="card facts">
      <p class="sentence" data-testid="sentence">
        {alert.method && !alert.series ? `${alert.method}, ` : ""}
        {alert.series ? "of " : alert.spoofed ? "against " : "by "}
        <b>
          <HostLink name={alert.entity} />
        </b>
        {alert.series && `, in ${alert.series.stream}`}
        {alert.spoofed && ", from made-up or many sources"}
        {!alert.spoofed && against(alert) && (
          <>
            {" "}
            against{" "}
            {alert.peer ? (
              <>
                <HostLink name={alert.peer} />
                {alert.port !== null && ` port ${alert.port}`}
              </>
            ) : (
              against(alert)
            )}
          </>
        )}
      </p>
      <dl>
        <div>
          <dt>Score</dt>
          <dd data-field="score">{alert.score.toFixed(3)}</dd>
        </div>
        <div>
          <dt>Seen</dt>
          <dd data-field="count">{alert.count === 1 ? "once" : `${count(alert.count)} times`}</dd>
        </div>
        <div>
          <dt>First</dt>
          <dd title={stamp(alert.first_ts)}>{when(alert.first_ts)}</dd>
        </div>
        <div>
          <dt>Last</dt>
          <dd title={stamp(alert.last_ts)}>{when(alert.last_ts)}</dd>
        </div>
        <div>
          <dt>State</dt>
          <dd data-field="state">{standing(alert)}</dd>
        </div>
        {alert.technique && (
          <div>
            <dt>ATT&CK</dt>
            <dd data-field="technique">
              {page ? (
                <a href={page} target="_blank" rel="noreferrer noopener">
                  {alert.technique}
                </a>
              ) : (
                alert.technique
              )}
            </dd>
          </div>
        )}
        <div>
          <dt>Name</dt>
          <dd>
            <code>{alert.id}</code>
          </dd>
        </div>
        {alert.group !== "other" && (
          <div>
            <dt>Group</dt>
            <dd>{alert.group}</dd>
          </div>
        )}
        {held && (
          <div>
            <dt>Held back</dt>
            <dd data-field="held">{held}</dd>
          </div>
        )}
      </dl>
      {alert.note && <p class="under">“{alert.note}”</p>}
    </div>
  );
}

function Actions({ alert, onSaid }: { alert: AlertDetail; onSaid: () => void }) {
  const [note, setNote] = useState("");
  const [said, setSaid] = useState<string | null>(null);
  const [failed, setFailed] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const say = async (verb: "ack" | "false-positive" | "suppress", more: object = {}) => {
    setBusy(true);
    try {
      const text = note.trim();
      const { said } = await rest.say(alert.id, verb, { ...(text && { note: text }), ...more });
      setSaid(said.trim());
      setFailed(null);
      setNote("");
      onSaid();
    } catch (error) {
      setFailed(words(error));
    }
    setBusy(false);
  };
  const settled = alert.status !== "open";
  return (
    <div class="card say">
      <div class="buttons">
        <input
          type="text"
          placeholder="A note, if you like"
          aria-label="Note"
          maxLength={500}
          value={note}
          onInput={(event) => setNote(event.currentTarget.value)}
        />
        {settled ? (
          <button
            type="button"
            disabled={busy}
            onClick={() => say(alert.status === "acknowledged" ? "ack" : "false-positive", { undo: true })}
          >
            Open again
          </button>
        ) : (
          <>
            <button type="button" disabled={busy} onClick={() => say("ack")} title="Somebody has seen it">
              Acknowledge
            </button>
            <button
              type="button"
              disabled={busy}
              onClick={() => say("false-positive")}
              title={`The same by ${alert.entity} must then reach a score of ${(1 - (1 - alert.score) / 2).toFixed(3)} to be told`}
            >
              False positive
            </button>
          </>
        )}
        <button
          type="button"
          disabled={busy}
          onClick={() => say("suppress", { for: "7d" })}
          title={`Not to hear of ${alert.kind} by ${alert.entity} for seven days`}
        >
          Suppress 7 days
        </button>
      </div>
      {said && (
        <p class="under" role="status" data-testid="said">
          {said}
        </p>
      )}
      {failed && (
        <p class="under bad" role="alert">
          {failed}
        </p>
      )}
    </div>
  );
}

function Reasons({ alert }: { alert: AlertDetail }) {
  const share = (seen: number, expected: number) => {
    const most = Math.max(Math.abs(seen), Math.abs(expected));
    return most > 0 ? [Math.abs(seen) / most, Math.abs(expected) / most] : [0, 0];
  };
  return (
    <Card title="Why" note="what was seen, against what stays unsuspicious">
      <table class="reasons" data-testid="reasons">
        <thead>
          <tr>
            <th>Measure</th>
            <th class="numeric">Seen</th>
            <th class="numeric">Expected</th>
            <th aria-hidden="true" />
          </tr>
        </thead>
        <tbody>
          {alert.features.map((reason) => {
            const [seen, expected] = share(reason.seen, reason.expected);
            return (
              <tr key={reason.name}>
                <th scope="row">{reason.name}</th>
                <td class="numeric">{float(reason.seen)}</td>
                <td class="numeric muted">{float(reason.expected)}</td>
                <td class="bars" aria-hidden="true">
                  <i class="seen" style={{ width: `${seen! * 100}%` }} />
                  <i class="expected" style={{ width: `${expected! * 100}%` }} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Card>
  );
}

/** The series or the flows that it rests on. */
function Behind({ alert }: { alert: AlertDetail }) {
  const known = useCell(streams);
  if (alert.series) {
    const { stream: name, key } = alert.series;
    const stream = Array.isArray(known) ? known.find((one) => one.name === name) : undefined;
    if (stream && alert.series.rows.length)
      return <Series alert={alert} series={alert.series} columns={stream.columns} />;
    if (stream) return <Rows stream={stream} name={key} />;
    return (
      <Card title="Series">
        <Empty title={`${name} of ${key}`}>This node no longer computes that stream.</Empty>
      </Card>
    );
  }
  if (alert.rows) return <FoundIn rows={alert.rows} />;
  return (
    <section class="card records" aria-label="Flows">
      <header>
        <h2>Flows behind it</h2>
        <div class="note">the newest of its time, {count(alert.flows.length)} kept</div>
      </header>
      <Flows flows={alert.flows} of={alert.entity} />
    </section>
  );
}

/** When each row was. */
function timeColumn<T extends { ts: string }>(): Column<T> {
  const cell = (row: T) => (
    <span class="muted" title={stamp(row.ts)}>
      {when(row.ts)}
    </span>
  );
  return { id: "ts", title: "Time (UTC)", width: "7rem", cell };
}

/** Rows of results that a rule was found in, newest first. */
function FoundIn({ rows }: { rows: FoundRow[] }) {
  const key = rows[0]?.key ?? "";
  const values = (row: FoundRow) =>
    Object.entries(row.values)
      .filter(([name, value]) => value !== null && !name.startsWith("ts_"))
      .map(([name, value]) => `${name} ${typeof value === "number" ? float(value) : value}`)
      .join("   ");
  const columns: Column<FoundRow>[] = [
    timeColumn(),
    { id: "stream", title: "Stream", width: "9rem", by: (row) => row.stream, cell: (row) => row.stream },
    {
      id: "values",
      title: "Values",
      width: "minmax(12rem, 1fr)",
      cell: (row) => <span title={values(row)}>{values(row)}</span>,
    },
  ];
  return (
    <section class="card records" aria-label="Rows">
      <header>
        <h2>Rows behind it</h2>
        <div class="note">
          the last of <a href={format({ page: "keys", item: key })}>{key}</a> in the streams that rules read
        </div>
      </header>
      <Table
        label="Rows"
        testid="found-in"
        fill
        rowHeight={28}
        rows={[...rows].reverse()}
        columns={columns}
        rowKey={(row) => `${row.stream} ${row.seq}`}
        empty={<Empty title="No row is kept" />}
      />
    </section>
  );
}

/** What is drawn of a stream, where it has it, in this order. */
const DRAWN = ["value", "expected", "score", "state", "deviation", "change_probability"];

/** The series as it was when the alert was made. */
function Series(props: { alert: AlertDetail; series: NonNullable<AlertDetail["series"]>; columns: string[] }) {
  const { alert, series, columns } = props;
  const rows = useMemo(
    () =>
      series.rows.map((row): Row => {
        const values = Object.fromEntries(columns.map((name, i) => [name, row.values[i] ?? null]));
        const head = { key: series.key, stream: series.stream, slot: null, seq: row.seq, ts: row.ts };
        return { ...head, state: "final", cause: null, values };
      }),
    [series, columns],
  );
  const [hover, setHover] = useState<number | null>(null);
  const drawn = DRAWN.filter((name) => columns.includes(name)).slice(0, 4);
  const drawing = useMemo(() => rowsDrawing(rows, drawn), [rows]);
  const found = rows.findIndex((row) => row.ts === alert.range.last_ts);
  const at = hover ?? (found < 0 ? rows.length - 1 : found);
  const row = rows[at];
  return (
    <div class="card chart series">
      <header>
        <h2>
          {series.stream} of {series.key}
        </h2>
        <div class="note">
          <a href={format({ page: "keys", item: series.key })}>the key as it is now</a>
        </div>
      </header>
      <dl class="ohlc" data-testid="legend">
        <div class="when">
          <dt>{at === found ? "found at" : "at"}</dt>
          <dd data-field="ts">{row ? clock(row.ts) : DASH}</dd>
        </div>
        {drawn.map((name) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd data-field={name}>{float(row?.values[name])}</dd>
          </div>
        ))}
      </dl>
      <Plot
        label={`${series.stream} of ${series.key}, as it was`}
        class="candles"
        drawing={drawing}
        options={{ view_count: 120, record_px: 6, fit_least: 12, interactive: true, pad_right: 1, onHover: setHover }}
      />
    </div>
  );
}

/** Flows, newest first. */
export function Flows({ flows, of }: { flows: Flow[]; of: string }) {
  const rows = [...flows].reverse();
  const host = (name: string) => (name === of ? <b>{name}</b> : <HostLink name={name} />);
  const columns: Column<Flow>[] = [
    timeColumn(),
    {
      id: "originator",
      title: "From",
      width: "minmax(7.5rem, 1fr)",
      by: (row) => row.originator,
      cell: (row) => host(row.originator),
    },
    {
      id: "responder",
      title: "To",
      width: "minmax(7.5rem, 1fr)",
      by: (row) => row.responder,
      cell: (row) => host(row.responder),
    },
    {
      id: "service",
      title: "Service",
      width: "6rem",
      by: (row) => row.responder_port,
      cell: (row) => `${row.protocol}/${row.responder_port}`,
    },
    {
      id: "state",
      title: "State",
      hint: "as Zeek's conn_state",
      width: "4.6rem",
      by: (row) => row.state,
      cell: (row) => row.state,
    },
    {
      id: "out",
      title: "Out",
      hint: "bytes of the originator",
      width: "5.5rem",
      numeric: true,
      by: (row) => row.bytes_out,
      cell: (row) => count(row.bytes_out),
    },
    {
      id: "in",
      title: "In",
      hint: "bytes of the responder",
      width: "5.5rem",
      numeric: true,
      by: (row) => row.bytes_in,
      cell: (row) => count(row.bytes_in),
    },
    {
      id: "took",
      title: "Took",
      width: "5rem",
      numeric: true,
      by: (row) => row.duration_ns,
      cell: (row) => (row.duration_ns === null ? DASH : nanos(row.duration_ns)),
    },
  ];
  return (
    <Table
      label="Flows"
      testid="flows"
      fill
      rowHeight={28}
      rows={rows}
      columns={columns}
      rowKey={(row) => `${row.id} ${row.ts} ${row.originator_port} ${row.responder_port}`}
      empty={<Empty title="Nothing is kept of it">The node was started since, or too much was found in between.</Empty>}
    />
  );
}

function Proof({ alert }: { alert: AlertDetail }) {
  const [copied, setCopied] = useState(false);
  if (!alert.replay || !alert.proof) {
    return (
      <Card title="Proof" class="proof">
        <p class="under">
          {alert.series &&
            `It was found in record ${count(Number(alert.range.last))} of its slot in ${alert.series.stream}; the same log gives the same record. `}
          Nothing can be judged again: {alert.no_replay ?? "it was not recorded"}.
        </p>
      </Card>
    );
  }
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(alert.replay!);
      setCopied(true);
    } catch {
      setCopied(false); // the text can be marked by hand
    }
  };
  return (
    <Card
      title="Proof"
      note={
        alert.input ? (
          <span title={alert.input.path}>{alert.input.path.split("/").at(-1)}</span>
        ) : (
          "the input is being judged"
        )
      }
      class="proof"
    >
      <p class="under">
        The score was reached after {count(Number(alert.proof.units))} units of the input; to the bit it is{" "}
        <code>{alert.proof.score_bits}</code>. Judge it again:
      </p>
      <div class="command">
        <code data-testid="replay">{alert.replay}</code>
        <button type="button" onClick={copy}>
          {copied ? "Copied" : "Copy"}
        </button>
      </div>
    </Card>
  );
}
