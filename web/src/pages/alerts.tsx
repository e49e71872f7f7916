import { useMemo, useRef, useState } from "preact/hooks";
import type { Alert, AlertQuery, Severity } from "../api/types";
import { useAlerts } from "../lib/alerts";
import { against, heldBack, isAddress, standing, TONES } from "../lib/episode";
import { count, DASH, stamp, when } from "../lib/format";
import { useBindings } from "../lib/keyboard";
import { format, go, route } from "../lib/route";
import { useCell } from "../lib/store";
import { status } from "../node";
import { Search } from "../ui/search";
import { Badge, Empty, Failure } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { Evidence } from "./evidence";
import { Waiting } from "./waiting";

const STATES = [
  ["open", "Open"],
  ["held", "Held back"],
  ["all", "All"],
] as const;
const SEVERITIES = [
  ["", "Any severity"],
  ["medium", "Medium and high"],
  ["high", "High"],
] as const;

export function Alerts() {
  const now = useCell(status);
  if (!now) return <Waiting />;
  if (!now.alerts) {
    return (
      <div class="alone">
        <Empty title="No detector runs on this node">
          Nothing looks for attacks or anomalies, so that nothing is reported does not mean that nothing is wrong.{" "}
          <code>tidegate serve --flows 127.0.0.1:2055</code> takes exports of flows; <code>--anomaly volume</code> and{" "}
          <code>--regime hmm:2</code> look at bars.
        </Empty>
      </div>
    );
  }
  return <List />;
}

function List() {
  const { item, query } = useCell(route);
  const [search, setSearch] = useState("");
  const field = useRef<HTMLInputElement>(null);
  const counts = useCell(status)?.alerts;
  const state = STATES.find(([name]) => name === query.state)?.[0] ?? "open";
  const severity = SEVERITIES.find(([name]) => name === query.severity)?.[0] ?? "";
  const wanted: AlertQuery = {
    state,
    min_severity: (severity || undefined) as Severity | undefined,
    entity: query.entity || undefined,
  };
  const answer = useAlerts(wanted);
  const part = search.trim().toLowerCase();
  const alerts = answer.value?.alerts ?? [];
  const rows = useMemo(
    () =>
      alerts.filter((one) =>
        [one.kind, one.entity, one.peer, one.method, one.technique, one.id].some((text) =>
          text?.toLowerCase().includes(part),
        ),
      ),
    [alerts, part],
  );
  const open = (to: string | null, change: Record<string, string | undefined> = {}, replace = false) =>
    go({ page: "alerts", item: to, query: { ...query, ...change } }, replace);
  useBindings("Alerts", [
    { key: "/", what: "Search", run: () => (field.current?.focus(), field.current?.select()) },
    { key: "Escape", what: "Close the alert, or clear the search", run: () => (item ? open(null) : setSearch("")) },
  ]);
  const columns = useMemo(
    (): Column<Alert>[] => [
      {
        id: "severity",
        title: "Severity",
        width: "5.2rem",
        by: (row) => ["low", "medium", "high"].indexOf(row.severity),
        cell: (row) => <Badge tone={TONES[row.severity]}>{row.severity}</Badge>,
      },
      {
        id: "kind",
        title: "Kind",
        width: "minmax(8rem, 1fr)",
        by: (row) => row.kind,
        cell: (row) => (
          <span class="name" title={row.method ? `${row.kind} (${row.method})` : row.kind}>
            {row.kind}
          </span>
        ),
      },
      {
        id: "entity",
        title: "By",
        hint: "who is accused; the victim where sources are made up",
        width: "minmax(8rem, 1fr)",
        by: (row) => row.entity,
        cell: (row) => <span title={row.entity}>{row.entity}</span>,
      },
      {
        id: "against",
        title: "Against",
        width: "minmax(9rem, 1.2fr)",
        by: against,
        cell: (row) => <span title={against(row)}>{against(row) || DASH}</span>,
      },
      {
        id: "score",
        title: "Score",
        hint: "0.80 at the detector's threshold, 0.95 at four times it",
        width: "4.2rem",
        numeric: true,
        by: (row) => row.score,
        cell: (row) => row.score.toFixed(3),
      },
      {
        id: "count",
        title: "Seen",
        hint: "findings counted into this alert",
        width: "4.2rem",
        numeric: true,
        by: (row) => row.count,
        cell: (row) => count(row.count),
      },
      {
        id: "last",
        title: "Last seen",
        hint: "UTC, by the time of the traffic",
        width: "7rem",
        by: (row) => Number(BigInt(row.last_ts) / 1_000_000n),
        cell: (row) => (
          <span class="muted" title={stamp(row.last_ts)}>
            {when(row.last_ts)}
          </span>
        ),
      },
      {
        id: "state",
        title: "State",
        width: "minmax(7rem, .7fr)",
        by: standing,
        cell: (row) => (
          <span title={heldBack(row) && `findings held back: ${heldBack(row)}`}>
            {standing(row)}
            {row.told !== null && heldBack(row) && <span class="muted"> +held</span>}
          </span>
        ),
      },
    ],
    [],
  );
  const held = answer.value?.held ?? [];
  return (
    <div class={`alerts-page ${item ? "with-item" : ""}`}>
      <h1 class="quiet">Alerts</h1>
      <section class="card list" aria-label="Alerts">
        <div class="bar">
          <Search field={field} what="alerts" value={search} onChange={setSearch} />
          <div class="segments" role="group" aria-label="State">
            {STATES.map(([name, title]) => (
              <button
                key={name}
                type="button"
                aria-pressed={name === state}
                onClick={() => open(item, { state: name === "open" ? undefined : name }, true)}
              >
                {title}
              </button>
            ))}
          </div>
          <div class="segments" role="group" aria-label="Severity">
            {SEVERITIES.map(([name, title]) => (
              <button
                key={name}
                type="button"
                aria-pressed={name === severity}
                onClick={() => open(item, { severity: name || undefined }, true)}
              >
                {title}
              </button>
            ))}
          </div>
          {query.entity && (
            <button type="button" class="chip" onClick={() => open(item, { entity: undefined }, true)}>
              by {query.entity} ×
            </button>
          )}
          <span class="note" data-testid="alert-count">
            {answer.value ? `${count(rows.length)} of ${count(answer.value.total)}` : DASH}
          </span>
        </div>
        {counts?.problem && (
          <p class="problem" role="alert">
            Alerts are shown and not written down: {counts.problem}
          </p>
        )}
        <Table
          label="Alerts"
          testid="alerts-table"
          fill
          rows={rows}
          columns={columns}
          rowKey={(row) => row.id}
          rowClass={(row) => (standing(row) === "open" ? "" : "settled")}
          selected={item}
          onSelect={(row) => open(row.id)}
          empty={
            answer.error ? (
              <Failure title="The alerts could not be read" detail={answer.error} onRetry={answer.ask} />
            ) : part ? (
              <Empty title={`No alert contains “${search.trim()}”`} />
            ) : !answer.value ? (
              <Empty title="Reading the alerts" />
            ) : state === "open" ? (
              <Empty title="Nothing is open">Detectors run. What was seen to, or held back, is under “All”.</Empty>
            ) : (
              <Empty title={state === "held" ? "Nothing was held back" : "There is no alert"} />
            )
          }
        />
        {held.length > 0 && (
          <p class="list-foot" data-testid="held">
            Findings held back on {held.at(-1)!.day} ({held.at(-1)!.group}):{" "}
            {Object.entries(held.at(-1)!.held)
              .filter(([, n]) => n > 0)
              .map(([reason, n]) => `${reason} ${count(n)}`)
              .join(", ")}
            {held.length > 1 && `; ${count(held.length)} days and groups in all`}
          </p>
        )}
      </section>
      {item && <Evidence key={item} id={item} onChanged={answer.ask} />}
    </div>
  );
}

/** A host's name, leading to what is known of it. */
export function HostLink({ name }: { name: string }) {
  if (!isAddress(name)) return <>{name}</>;
  return <a href={format({ page: "hosts", item: name, query: { view: "traffic" } })}>{name}</a>;
}
