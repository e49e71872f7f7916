/** Who talks to whom: a picture of so many hosts, and one host's own. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Traffic, TrafficEdge, TrafficHost } from "../api/types";
import { useAlerts, useTraffic } from "../lib/alerts";
import { standing, TONES } from "../lib/episode";
import { brief, count, short, stamp, when } from "../lib/format";
import { useBindings } from "../lib/keyboard";
import { format, go, route } from "../lib/route";
import { useCell } from "../lib/store";
import { arrange, nearest } from "../lib/talk";
import { Icon } from "../ui/icon";
import { Badge, Card, Empty, Failure } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { Flows } from "./evidence";

/** Hosts of the picture, on a wide screen and on a narrow one. */
const HOSTS = { wide: 40, narrow: 18 };
const NARROW_PX = 640;

/** Bytes, or flows where nothing was counted in bytes. */
const bytes = (n: number) => `${brief(n)}B`;

export function TrafficPage({ others }: { others: preact.ComponentChildren }) {
  const { item, query } = useCell(route);
  const frame = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.round(entry.contentRect.width)));
    observer.observe(frame.current!);
    return () => observer.disconnect();
  }, []);
  const limit = width && width < NARROW_PX ? HOSTS.narrow : HOSTS.wide;
  const answer = useTraffic(item, limit);
  const open = (to: string | null) => go({ page: "hosts", item: to, query });
  useBindings("Who talks to whom", [{ key: "Escape", what: "All hosts again", run: () => item && open(null) }]);
  const traffic = answer.value;
  return (
    <div class="traffic-page" ref={frame}>
      <div class="detail-head">
        {item && (
          <a class="plain" href={format({ page: "hosts", query })} aria-label="All hosts" title="All hosts (Esc)">
            <Icon name="back" />
          </a>
        )}
        <h2 data-testid="key">{item ?? "Who talks to whom"}</h2>
        {others}
        <span class="note" data-testid="traffic-note">
          {traffic &&
            `${count(traffic.hosts.length)} of ${count(traffic.hosts_total)} hosts, ${count(traffic.edges.length)} of ${count(traffic.edges_total)} pairs, ${count(traffic.flows)} flows`}
          {traffic && traffic.forgotten > 0 && `, ${count(traffic.forgotten)} hosts forgotten`}
        </span>
      </div>
      {!traffic ? (
        <div class="card">
          {answer.error ? (
            <Failure title="The traffic could not be read" detail={answer.error} onRetry={answer.ask} />
          ) : (
            <Empty title="Reading the traffic" />
          )}
        </div>
      ) : !traffic.hosts.length ? (
        <div class="card">
          <Empty title="No flow has ended yet">
            Exports of NetFlow, IPFIX or sFlow, or a capture given with <code>--traffic</code>, fill this page.
          </Empty>
        </div>
      ) : (
        <>
          {item && <HostFacts traffic={traffic} address={item} />}
          <Picture traffic={traffic} width={width} chosen={item} onOpen={open} />
          {item && <HostAlerts address={item} />}
          {item && traffic.recent && (
            <section class="card records" aria-label="Flows">
              <header>
                <h2>Its last flows</h2>
                <div class="note">{count(traffic.recent.length)} kept</div>
              </header>
              <Flows flows={traffic.recent} of={item} />
            </section>
          )}
          <Pairs traffic={traffic} chosen={item} />
        </>
      )}
    </div>
  );
}

function HostFacts({ traffic, address }: { traffic: Traffic; address: string }) {
  const host = traffic.hosts.find((one) => one.address === address);
  if (!host) return null;
  return (
    <dl class="tiles host-tiles">
      {(
        [
          ["opened", "Connections opened", count(host.opened), `${count(host.failed)} came to nothing`],
          ["taken", "Connections taken", count(host.taken), host.private ? "inside the site" : "outside the site"],
          ["out", "Sent", bytes(host.bytes_out), "bytes of payload"],
          ["in", "Received", bytes(host.bytes_in), "bytes of payload"],
          ["peers", "Peers", count(traffic.hosts_total - 1), "of those remembered"],
          ["last", "Last seen", stamp(host.last_ts).slice(11, 19), stamp(host.last_ts).slice(0, 10)],
          ["open", "Open alerts", count(host.alerts), host.alerts ? "it is accused" : "none accuses it"],
        ] as const
      ).map(([id, title, value, under]) => (
        <div key={id} data-testid={`host-${id}`}>
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

function HostAlerts({ address }: { address: string }) {
  const answer = useAlerts({ state: "all", entity: address });
  const alerts = answer.value?.alerts ?? [];
  if (!alerts.length) return null;
  return (
    <Card title="Alerts" note={`${count(alerts.length)} of this host`}>
      <ul class="host-alerts" data-testid="host-alerts">
        {alerts.slice(0, 20).map((one) => (
          <li key={one.id}>
            <Badge tone={TONES[one.severity]}>{one.severity}</Badge>
            <a href={format({ page: "alerts", item: one.id, query: { state: "all" } })}>{one.kind}</a>
            <span class="muted">
              {standing(one)}, score {one.score.toFixed(3)}, {when(one.last_ts)}
            </span>
          </li>
        ))}
      </ul>
    </Card>
  );
}

/** The names of a picture that are drawn: all of few, and of many those that matter. */
const NAMES_MAX = 26;

function Picture(props: { traffic: Traffic; width: number; chosen: string | null; onOpen: (to: string) => void }) {
  const { traffic, chosen, onOpen } = props;
  const width = Math.max(300, props.width - 2);
  const narrow = width < NARROW_PX;
  // Few hosts need little room.
  const height = Math.round(
    Math.min(560, Math.max(220, width * (narrow ? 1.2 : 0.5)), 150 + traffic.hosts.length * 16),
  );
  const names = traffic.hosts.map((host) => host.address).join("\n");
  const pairs = traffic.edges.map((edge) => `${edge.from} ${edge.to}`).join("\n");
  // Figures change all the time, and hosts stand still as long as they are the same.
  const places = useMemo(
    () =>
      arrange(
        traffic.hosts.map((host) => host.address),
        traffic.edges,
        width,
        height,
      ),
    [names, pairs, width, height],
  );
  const [focus, setFocus] = useState<string | null>(null);
  const [hover, setHover] = useState<string | null>(null);
  const nodes = useRef(new Map<string, SVGGElement>());
  const current = focus !== null && places.has(focus) ? focus : (chosen ?? traffic.hosts[0]?.address ?? null);
  useEffect(() => setHover(null), [names]);
  const onKeyDown = (event: KeyboardEvent, address: string) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onOpen(address);
      return;
    }
    const to = nearest(places, address, event.key);
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    if (to) {
      setFocus(to);
      nodes.current.get(to)?.focus();
    }
  };
  const lit = hover ?? focus;
  const near = new Set(
    traffic.edges.filter((edge) => edge.from === lit || edge.to === lit).flatMap((edge) => [edge.from, edge.to]),
  );
  const most = Math.max(1, ...traffic.hosts.map((host) => host.bytes_out + host.bytes_in));
  const radius = (host: TrafficHost) =>
    (narrow ? 0.7 : 1) * (5 + 11 * Math.sqrt(Math.log2(1 + host.bytes_out + host.bytes_in) / Math.log2(1 + most)));
  const heaviest = Math.max(1, ...traffic.edges.map((edge) => edge.bytes_out + edge.bytes_in));
  const named = new Set(traffic.hosts.slice(0, narrow ? 9 : NAMES_MAX).map((host) => host.address));
  const told = lit ? traffic.hosts.find((host) => host.address === lit) : undefined;
  return (
    <div class="card picture">
      <svg
        viewBox={`0 0 ${width} ${height}`}
        width={width}
        height={height}
        role="group"
        aria-label="Who talks to whom. Arrow keys go from host to host, Enter opens one."
        data-testid="picture"
      >
        <g class={`links ${lit ? "lit" : ""}`}>
          {traffic.edges.map((edge) => {
            const [a, b] = [places.get(edge.from), places.get(edge.to)];
            if (!a || !b) return null;
            const weight = Math.log2(2 + edge.bytes_out + edge.bytes_in) / Math.log2(2 + heaviest);
            const on = lit !== null && (edge.from === lit || edge.to === lit);
            return (
              <path
                key={`${edge.from} ${edge.to}`}
                d={curve(a, b)}
                class={`${edge.failed * 2 > edge.flows ? "failed" : ""} ${on ? "on" : ""}`}
                style={{ strokeWidth: 0.8 + 2.6 * weight }}
              />
            );
          })}
        </g>
        {traffic.hosts.map((host) => {
          const place = places.get(host.address);
          if (!place) return null;
          const r = radius(host);
          const tone = host.alerts ? "accused" : host.private ? "inside" : "outside";
          const dim = lit !== null && lit !== host.address && !near.has(host.address);
          return (
            <g
              key={host.address}
              ref={(element: SVGGElement | null) =>
                void (element ? nodes.current.set(host.address, element) : nodes.current.delete(host.address))
              }
              class={`host ${tone} ${dim ? "dim" : ""} ${host.address === chosen ? "chosen" : ""}`}
              transform={`translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})`}
              tabIndex={host.address === current ? 0 : -1}
              role="link"
              aria-label={`${host.address}, ${host.alerts ? `${host.alerts} open alerts, ` : ""}${count(host.opened)} opened, ${count(host.taken)} taken`}
              data-host={host.address}
              onClick={() => onOpen(host.address)}
              onFocus={() => setFocus(host.address)}
              onBlur={() => setFocus(null)}
              onMouseEnter={() => setHover(host.address)}
              onMouseLeave={() => setHover(null)}
              onKeyDown={(event) => onKeyDown(event, host.address)}
            >
              <circle class="reach" r={Math.max(r, 15)} />
              <circle class="ball" r={r} />
              {(named.has(host.address) || host.address === lit || near.has(host.address)) && (
                <text y={r + 13}>{host.address}</text>
              )}
            </g>
          );
        })}
      </svg>
      <p class="under key">
        <span>
          <i class="ball accused" /> accused
        </span>
        <span>
          <i class="ball inside" /> inside
        </span>
        <span>
          <i class="ball outside" /> outside
        </span>
        <span>
          <i class="line failed" /> most came to nothing
        </span>
        <span class="told" role="status">
          {told
            ? `${told.address}: ${count(told.opened)} opened, ${count(told.failed)} failed, ${count(told.taken)} taken, ${bytes(told.bytes_out)} out, ${bytes(told.bytes_in)} in`
            : "wider lines carried more"}
        </span>
      </p>
    </div>
  );
}

/** A line that bends to its left, so that the two directions of a pair lie beside each other. */
function curve(a: { x: number; y: number }, b: { x: number; y: number }): string {
  const [mx, my] = [(a.x + b.x) / 2 - (b.y - a.y) * 0.08, (a.y + b.y) / 2 + (b.x - a.x) * 0.08];
  return `M${a.x.toFixed(1)} ${a.y.toFixed(1)}Q${mx.toFixed(1)} ${my.toFixed(1)} ${b.x.toFixed(1)} ${b.y.toFixed(1)}`;
}

/** The same as a table, for those who read rather than look. */
function Pairs({ traffic, chosen }: { traffic: Traffic; chosen: string | null }) {
  const { query } = useCell(route);
  const host = (name: string) =>
    name === chosen ? <b>{name}</b> : <a href={format({ page: "hosts", item: name, query })}>{name}</a>;
  const columns: Column<TrafficEdge>[] = [
    { id: "from", title: "From", width: "minmax(8rem, 1fr)", by: (row) => row.from, cell: (row) => host(row.from) },
    { id: "to", title: "To", width: "minmax(8rem, 1fr)", by: (row) => row.to, cell: (row) => host(row.to) },
    {
      id: "services",
      title: "Services",
      width: "minmax(9rem, 1.2fr)",
      by: (row) => row.services[0] ?? "",
      cell: (row) => (
        <span title={row.services.join(", ")}>
          {row.services.join(", ")}
          {row.more_services && ", …"}
        </span>
      ),
    },
    {
      id: "flows",
      title: "Flows",
      width: "4.6rem",
      numeric: true,
      by: (row) => row.flows,
      cell: (row) => count(row.flows),
    },
    {
      id: "failed",
      title: "Failed",
      hint: "refused or never answered",
      width: "4.6rem",
      numeric: true,
      by: (row) => row.failed,
      cell: (row) => count(row.failed),
    },
    {
      id: "out",
      title: "Out",
      hint: "bytes",
      width: "4.8rem",
      numeric: true,
      by: (row) => row.bytes_out,
      cell: (row) => short(row.bytes_out),
    },
    {
      id: "in",
      title: "In",
      hint: "bytes",
      width: "4.8rem",
      numeric: true,
      by: (row) => row.bytes_in,
      cell: (row) => short(row.bytes_in),
    },
    {
      id: "last",
      title: "Last (UTC)",
      width: "7rem",
      by: (row) => row.last_ts,
      cell: (row) => <span class="muted">{when(row.last_ts)}</span>,
    },
  ];
  return (
    <section class="card records" aria-label="Pairs">
      <header>
        <h2>Pairs</h2>
        <div class="note">who opened what to whom</div>
      </header>
      <Table
        label="Pairs"
        testid="pairs"
        fill
        rowHeight={28}
        rows={traffic.edges}
        columns={columns}
        rowKey={(row) => `${row.from} ${row.to}`}
        empty={<Empty title="No pair of these hosts" />}
      />
    </section>
  );
}
