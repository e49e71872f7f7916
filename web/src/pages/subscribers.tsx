import type { Subscriber } from "../api/types";
import { count, DASH, text } from "../lib/format";
import { useCell } from "../lib/store";
import { status } from "../node";
import { Badge, Card, Empty } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { Waiting } from "./waiting";

const COLUMNS: Column<Subscriber>[] = [
  {
    id: "id",
    title: "Id",
    width: "4.5rem",
    by: (s) => (/^\d+$/.test(String(s.id)) ? Number(s.id) : s.id),
    cell: (s) => s.id,
  },
  { id: "kind", title: "By", width: "4.5rem", by: (s) => s.kind, cell: (s) => <Badge tone="">{s.kind}</Badge> },
  { id: "peer", title: "Peer", width: "minmax(9rem, 1fr)", by: (s) => s.peer, cell: (s) => text(s.peer) },
  {
    id: "streams",
    title: "Streams",
    width: "minmax(9rem, 1.5fr)",
    by: (s) => (s.streams ? s.streams.join(" ") : null),
    cell: (s) => <span title={s.streams?.join(", ")}>{s.streams ? s.streams.join(", ") || "none" : DASH}</span>,
  },
  {
    id: "policy",
    title: "Policy",
    hint: "What happens when it falls behind",
    width: "minmax(9rem, 1fr)",
    by: (s) => s.policy,
    cell: (s) => text(s.policy),
  },
  {
    id: "lag",
    title: "Lag",
    hint: "Records it has yet to take",
    width: "minmax(4.5rem, .5fr)",
    numeric: true,
    by: (s) => s.lag,
    cell: (s) => count(s.lag),
  },
  {
    id: "delivered",
    title: "Delivered",
    width: "minmax(6.5rem, .7fr)",
    numeric: true,
    by: (s) => s.delivered,
    cell: (s) => count(s.delivered),
  },
  {
    id: "conflated",
    title: "Conflated",
    hint: "Records replaced by a newer one of the same key before they were sent",
    width: "minmax(6rem, .6fr)",
    numeric: true,
    by: (s) => s.conflated,
    cell: (s) => count(s.conflated),
  },
  {
    id: "dropped",
    title: "Dropped",
    width: "minmax(5.5rem, .6fr)",
    numeric: true,
    by: (s) => s.dropped,
    cell: (s) => <span class={s.dropped ? "bad" : ""}>{count(s.dropped)}</span>,
  },
];

export function Subscribers() {
  const now = useCell(status);
  if (!now) return <Waiting />;
  const rows = now.subscribers ?? [];
  const total = now.subscribers_total ?? rows.length;
  const dropped = rows.reduce((sum, row) => sum + (row.dropped ?? 0), 0);
  return (
    <>
      <h1 class="quiet">Subscribers</h1>
      <Card
        title="Subscribers"
        class="whole"
        note={
          now.subscribers
            ? `${count(total)} connected${total > rows.length ? `, ${count(rows.length)} of them listed` : ""}, ${dropped ? `${count(dropped)} records dropped` : "nothing dropped"}`
            : DASH
        }
      >
        <Table
          label="Subscribers"
          testid="subscribers"
          fill
          rows={rows}
          columns={COLUMNS}
          rowKey={(s) => String(s.id)}
          empty={
            now.subscribers ? (
              <Empty title="Nobody reads">
                Try <code>tidegate subscribe bars.1s</code>
              </Empty>
            ) : (
              <Empty title="The node does not say who reads" />
            )
          }
        />
      </Card>
    </>
  );
}
