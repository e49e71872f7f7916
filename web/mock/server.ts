/**
 * A stand-in for a node: speaks the gateway's contract over HTTP and WebSocket, with made-up, repeatable data. The clock is
 * the caller's (`advance`), or real time with `live`.
 */
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import type { Duplex } from "node:stream";
import { WebSocketServer, type WebSocket } from "ws";
import type {
  AnyRecord,
  ApiError,
  ClientMessage,
  Cluster,
  FromSequence,
  ServerMessage,
  Status,
  Stream,
  Subscribe,
} from "../src/api/types";
import * as market from "./market.ts";

export interface MockOptions {
  symbols?: number;
  hosts?: number;
  /** Seconds of history at the start. */
  started_s?: number;
  /** Ten steps a second by the wall clock. */
  live?: boolean;
  /** Folder of the built page, served at `/`. */
  dist?: string;
  /** What it says of its cluster; without it, it stands alone. */
  cluster?: Cluster;
  /** Changes a status before it is sent, to show the page something unusual. */
  shape?: (status: Status) => Status;
}

/** What a page that is served with care allows: nothing but its own files. */
export const CONTENT_SECURITY_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const BARS: Record<string, number> = { "bars.1s": 1, "bars.1m": 60 };
const VALUES: Record<string, string> = { "ind.1s": "bars.1s", "ind.1m": "bars.1m" };
const HOSTS: Record<string, number> = { "hosts.1m": 60 };
const RATE = 198_000;
/** Not the engine's order, so that a page with an order of its own would be found out. */
const CAUSES = ["late_amended", "cancelled", "applied", "cancel_unmatched", "other_kind", "late_dropped"];

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Of each path; any other is refused, as the gateway does. */
const PARAMETERS: Record<string, string[]> = {
  "/v1/keys": ["stream", "search", "prefix", "limit", "after"],
  "/v1/latest": ["stream", "key", "limit", "after"],
  "/v1/bars": ["stream", "key", "limit"],
};

interface Client {
  socket: WebSocket;
  id: number;
  subscriptions: Map<number, { request: Subscribe; last_sent_ms: number }>;
  status_every_ms: number;
  status_sent_ms: number;
  delivered: number;
}

class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly detail: ApiError,
  ) {
    super(detail.message);
  }
}

export class Mock {
  readonly names: string[];
  readonly hosts: string[];
  /** Milliseconds of event time since the opening. */
  now_ms: number;
  requests: string[] = [];
  readonly incarnation = String(process.hrtime.bigint());
  shape: (status: Status) => Status;
  cluster: Cluster | null;

  #http: Server | null = null;
  #sockets = new WebSocketServer({ noServer: true });
  #clients = new Set<Client>();
  #timer: NodeJS.Timeout | null = null;
  #id_next = 1;

  constructor(readonly options: MockOptions = {}) {
    this.names = market.symbols(options.symbols ?? 2_000);
    this.hosts = market.hostNames(options.hosts ?? 420);
    this.now_ms = (options.started_s ?? 600) * 1000;
    this.cluster = options.cluster ?? null;
    this.shape = options.shape ?? ((status) => status);
    if (options.live) this.#timer = setInterval(() => this.advance(100), 100).unref();
  }

  async listen(port = 0): Promise<string> {
    this.#http = createServer((request, response) => this.handle(request, response));
    this.#http.on("upgrade", this.upgrade);
    await new Promise<void>((done, failed) => {
      this.#http!.once("error", failed).listen(port, "127.0.0.1", done);
    });
    return `http://127.0.0.1:${this.port}`;
  }

  get port(): number {
    return (this.#http!.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer);
    for (const client of this.#clients) client.socket.terminate();
    const http = this.#http;
    this.#http = null;
    if (http) {
      http.closeAllConnections();
      await new Promise((done) => http.close(done));
    }
  }

  /** Moves the event time on and sends what became due. */
  advance(ms: number): void {
    const before_ms = this.now_ms;
    this.now_ms += ms;
    for (const client of this.#clients) {
      if (client.status_every_ms && this.now_ms - client.status_sent_ms >= client.status_every_ms) this.#status(client);
      for (const [id, subscription] of client.subscriptions) {
        const { conflate } = subscription.request;
        const every_ms = typeof conflate === "object" ? conflate.every_ms : 0;
        if (this.now_ms - subscription.last_sent_ms < every_ms) continue;
        const from_ms = Math.min(before_ms, subscription.last_sent_ms);
        subscription.last_sent_ms = this.now_ms;
        this.#send(client, id, this.#changes(subscription.request, from_ms));
      }
    }
  }

  handle = (request: IncomingMessage, response: ServerResponse, next?: () => void): void => {
    const url = new URL(request.url ?? "/", "http://mock");
    if (!url.pathname.startsWith("/v1/")) {
      if (next) next();
      else void this.#file(url.pathname, response);
      return;
    }
    this.requests.push(url.pathname + url.search);
    try {
      json(response, 200, this.#answer(url.pathname, url.searchParams));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      json(response, error.status, { error: error.detail });
    }
  };

  upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    if (new URL(request.url ?? "/", "http://mock").pathname !== "/v1/ws") return; // the development server's own
    this.#sockets.handleUpgrade(request, socket, head, (opened) => this.#accept(opened));
  };

  streams(): Stream[] {
    return [
      ...Object.entries(BARS).map(([name, s]) => ({
        name,
        kind: "bars" as const,
        columns: ["open", "high", "low", "close", "volume", "buy_volume", "notional", "vwap", "trades"],
        width_ns: String(BigInt(s) * market.SECOND),
      })),
      ...Object.keys(VALUES).map((name) => ({ name, kind: "values" as const, columns: market.INDICATORS })),
      ...(this.hosts.length
        ? Object.entries(HOSTS).map(([name, s]) => ({
            name,
            kind: "hosts" as const,
            columns: market.HOST_COLUMNS,
            width_ns: String(BigInt(s) * market.SECOND),
          }))
        : []),
    ];
  }

  /** The last `limit` records of one key, oldest first. */
  history(stream: string, key: string, limit: number): AnyRecord[] {
    const now_s = this.now_ms / 1000;
    const width_s = this.#width(stream);
    const last = Math.floor(now_s / width_s);
    if (stream in BARS) {
      const first = Math.max(0, last - limit + 1);
      return range(first, last).map((index) => market.barAt(key, stream, width_s, index, now_s));
    }
    const first = Math.max(0, last - limit);
    if (last === 0) return [];
    if (stream in VALUES) return market.indicatorRows(key, stream, width_s, first, last - 1);
    return range(first, last - 1).map((index) => market.hostRow(key, stream, width_s, index));
  }

  status(): Status {
    const s = this.now_ms / 1000;
    const rate = Math.round(RATE + 24_000 * Math.sin(s / 7) + 9_000 * Math.sin(s / 2.3));
    const total = Math.round(RATE * s - 168_000 * (Math.cos(s / 7) - 1));
    const results = Math.round(total / 61);
    const watermark = String(market.OPENING + BigInt(Math.max(0, this.now_ms - 100)) * 1_000_000n);
    const late = Math.round(total / 4_100);
    const other = this.hosts.length ? Math.round(total * 0.18) : 0;
    const bars = {
      stage: "bars.1s",
      delivered: total,
      by_cause: {
        applied: total - late - Math.round(late / 6) - Math.round(late / 40) - other,
        late_amended: late,
        cancelled: Math.round(late / 6),
        cancel_unmatched: Math.round(late / 40),
        other_kind: other,
        late_dropped: 0,
      },
      imbalance: 0,
    };
    return this.shape({
      version: "0.1.0",
      uptime_s: Math.floor(s),
      cluster: this.cluster && {
        node: this.cluster.node,
        nodes: this.cluster.members.length,
        role: this.cluster.role,
        leader: this.cluster.leader,
        epoch: this.cluster.epoch,
        in_sync: this.cluster.isr.length,
        min_isr: this.cluster.min_isr,
        warnings: this.cluster.warnings.length,
        bad: this.cluster.warnings.some((warning) => warning.severity === "bad"),
      },
      events: { total, rate },
      results: { total: results, rate: Math.round(rate / 61) },
      keys: this.names.length + this.hosts.length,
      threads: ["tg-ingest", "tg-shard-0", "tg-shard-1", "tg-egress"].map((thread, i) => {
        const busy = Number((0.37 + 0.12 * Math.sin(s / 6 + i)).toFixed(3));
        const blocked = i === 0 ? 0.021 : 0;
        return { thread, busy, blocked, idle: Number((1 - busy - blocked).toFixed(3)) };
      }),
      latency_ns: {
        p50: 61_000 + Math.round(6_000 * Math.sin(s / 5)),
        p99: 214_000 + Math.round(30_000 * Math.sin(s / 3)),
        p99_9: 690_000 + Math.round(240_000 * Math.abs(Math.sin(s / 11))),
        max: 2_310_000,
        samples: 60_000,
      },
      shards: [0, 1].map((shard) => ({
        shard,
        phase: "running",
        events: Math.round(total / 2) + (shard ? 0 : total % 2 ? -1 : 0),
        outputs: Math.round(results / 2),
        watermark,
        lag_ms: 100 + Math.round(14 * Math.abs(Math.sin(s / 4 + shard))),
        ring_depth: Math.round(2_600 + 2_200 * Math.sin(s / 3 + shard * 2)),
        ring_capacity: 65_536,
        busy: Number((0.37 + 0.12 * Math.sin(s / 6 + shard + 1)).toFixed(3)),
        blocked: 0,
        panics: 0,
        restarts: 0,
      })),
      feeds: [
        {
          source: "demo.market",
          peer: "127.0.0.1:51820",
          accepted: total - other,
          duplicates: 12,
          gaps: 1,
          rejected: { out_of_range: 3, malformed: 1 },
          connected: true,
          sequence: total - other,
        },
        ...(this.hosts.length
          ? [
              {
                source: "demo.network",
                peer: null,
                accepted: other,
                duplicates: 0,
                gaps: 0,
                rejected: {},
                connected: true,
                sequence: other,
              },
            ]
          : []),
      ],
      subscribers: [
        {
          id: 1,
          peer: "127.0.0.1:40112",
          kind: "quic",
          streams: ["bars.1s"],
          policy: "disconnect past 10000",
          delivered: Math.round(results * 0.6),
          conflated: 0,
          dropped: 0,
          lag: Math.round(8 + 8 * Math.sin(s)),
        },
        {
          id: 2,
          peer: "127.0.0.1:40118",
          kind: "sse",
          streams: ["bars.1m", "ind.1m"],
          policy: "drop_oldest past 1000",
          delivered: Math.round(results * 0.01),
          conflated: 0,
          dropped: 37,
          lag: 611,
        },
        ...[...this.#clients].map((client) => ({
          id: 100 + client.id,
          peer: "127.0.0.1",
          kind: "ws",
          streams: [...new Set([...client.subscriptions.values()].flatMap((x) => x.request.streams))],
          policy: "conflate past 10000",
          delivered: client.delivered,
          conflated: 0,
          dropped: 0,
          lag: 0,
        })),
      ],
      causes: CAUSES,
      alerts: null,
      ledger: [
        bars,
        { stage: "bars.1m", delivered: total, by_cause: { ...bars.by_cause }, imbalance: 0 },
        ...(this.hosts.length
          ? [
              {
                stage: "hosts.1m",
                delivered: total,
                by_cause: { applied: other, other_kind: total - other },
                imbalance: 0,
              },
            ]
          : []),
      ],
      stages: [
        { name: "bars.1s", upstream: "feed", stream: "bars.1s", outputs: Math.round(results * 0.48) },
        { name: "bars.1m", upstream: "bars.1s", stream: "bars.1m", outputs: Math.round(results * 0.02) },
        { name: "ind.1s", upstream: "bars.1s", stream: "ind.1s", outputs: Math.round(results * 0.48) },
        { name: "ind.1m", upstream: "bars.1m", stream: "ind.1m", outputs: Math.round(results * 0.02) },
        ...(this.hosts.length
          ? [{ name: "hosts.1m", upstream: "feed", stream: "hosts.1m", outputs: Math.round(other / 900) }]
          : []),
      ].map((stage) => ({ ...stage, keys: this.#keysOf(stage.stream).length })),
    });
  }

  #width(stream: string): number {
    return BARS[stream] ?? BARS[VALUES[stream] ?? ""] ?? HOSTS[stream] ?? 1;
  }

  #keysOf(stream: string): string[] {
    return stream in HOSTS ? this.hosts : this.names;
  }

  #stream(name: string | null): string {
    const allowed = this.streams().map((stream) => stream.name);
    if (name && allowed.includes(name)) return name;
    throw new Refusal(404, { code: "unknown_stream", message: `There is no stream ${JSON.stringify(name)}.`, allowed });
  }

  #answer(path: string, query: URLSearchParams): unknown {
    const allowed = PARAMETERS[path] ?? [];
    for (const name of query.keys()) {
      if (!allowed.includes(name))
        throw new Refusal(400, { code: "unknown_parameter", message: `There is no parameter ${name}.`, allowed });
    }
    const limit = Number(query.get("limit") ?? 100);
    const most = path === "/v1/bars" ? 5_000 : 1_000;
    if (!Number.isInteger(limit) || limit < 1 || limit > most) {
      throw new Refusal(400, { code: "bad_parameter", message: `limit must be from 1 to ${most}.` });
    }
    const after = query.get("after");
    switch (path) {
      case "/v1/health":
      case "/v1/ready":
        return { ok: true };
      case "/v1/status":
        return this.status();
      case "/v1/cluster":
        if (this.cluster) return this.cluster;
        throw new Refusal(404, { code: "no_cluster", message: "this server is no node of a cluster" });
      case "/v1/streams":
        return { streams: this.streams() };
      case "/v1/keys": {
        const part = (query.get("search") ?? "").toLowerCase();
        const prefix = query.get("prefix") ?? "";
        const stream = query.get("stream");
        const known = stream === null ? [...this.names, ...this.hosts] : this.#keysOf(this.#stream(stream));
        const fits = (name: string) => name.toLowerCase().includes(part) && name.startsWith(prefix);
        const all = known.filter(fits).sort();
        const { page, next } = paged(all, after, limit);
        return { keys: page.map((name) => ({ name, slot: market.hash(name) % 4096 })), total: known.length, next };
      }
      case "/v1/latest": {
        const stream = this.#stream(query.get("stream"));
        const key = query.get("key");
        if (key !== null) return { stream, key, record: this.history(stream, this.#key(key), 1).at(-1) ?? null };
        const { page, next } = paged(this.#keysOf(stream), after, limit);
        return { stream, records: page.flatMap((name) => this.history(stream, name, 1)), next };
      }
      case "/v1/bars": {
        const stream = this.#stream(query.get("stream"));
        const key = this.#key(query.get("key"));
        const known = this.#keysOf(stream).includes(key);
        return { stream, key, records: known ? this.history(stream, key, limit) : [] };
      }
      default:
        throw new Refusal(404, { code: "not_found", message: `There is nothing at ${path}.` });
    }
  }

  #key(name: string | null): string {
    if (name && (this.names.includes(name) || this.hosts.includes(name))) return name;
    throw new Refusal(404, { code: "unknown_key", message: `There is no key ${JSON.stringify(name)}.` });
  }

  #accept(socket: WebSocket): void {
    const client: Client = {
      socket,
      id: this.#id_next++,
      subscriptions: new Map(),
      status_every_ms: 0,
      status_sent_ms: 0,
      delivered: 0,
    };
    this.#clients.add(client);
    socket.on("close", () => this.#clients.delete(client));
    socket.on("error", () => this.#clients.delete(client));
    socket.on("message", (data) => {
      try {
        this.#take(client, JSON.parse(String(data)) as ClientMessage);
      } catch (error) {
        const detail = error instanceof Refusal ? error.detail : { code: "malformed", message: String(error) };
        say(client, { op: "error", ...detail });
      }
    });
  }

  #take(client: Client, message: ClientMessage): void {
    switch (message.op) {
      case "ping":
        say(client, { op: "pong", id: message.id });
        break;
      case "status":
        client.status_every_ms = message.every_ms;
        if (message.every_ms) this.#status(client);
        break;
      case "unsubscribe":
        client.subscriptions.delete(message.id);
        say(client, { op: "unsubscribed", id: message.id });
        break;
      case "subscribe": {
        try {
          for (const stream of message.streams) this.#stream(stream);
        } catch (error) {
          if (error instanceof Refusal) say(client, { op: "error", id: message.id, ...error.detail });
          return;
        }
        const { from } = message;
        if (typeof from === "object" && "sequence" in from && from.incarnation !== this.incarnation) {
          const detail = { code: "other_incarnation", message: "The mock was started anew." };
          say(client, { op: "error", id: message.id, ...detail, allowed: [this.incarnation] });
          return;
        }
        client.subscriptions.set(message.id, { request: message, last_sent_ms: this.now_ms });
        say(client, {
          op: "subscribed",
          id: message.id,
          lag: message.lag ?? 10_000,
          incarnation: this.incarnation,
        });
        if (typeof from === "object" && "sequence" in from) this.#send(client, message.id, this.#since(message, from));
        const back = from === "snapshot" ? 1 : typeof from === "object" && "lookback" in from ? from.lookback : 0;
        if (back) {
          const first = message.streams.flatMap((stream) =>
            this.#matching(stream, message.keys).flatMap((key) => this.history(stream, key, back)),
          );
          this.#send(client, message.id, first);
        }
        for (const stream of message.streams) say(client, { op: "live", id: message.id, stream });
        break;
      }
    }
  }

  /** What follows given numbers. */
  #since(request: Subscribe, from: FromSequence): AnyRecord[] {
    return request.streams.flatMap((stream) =>
      this.#matching(stream, request.keys)
        .flatMap((key) => this.history(stream, key, 256))
        .filter((record) => record.seq! >= (from.slots?.[stream]?.[String(record.slot)] ?? from.sequence)),
    );
  }

  /** What of a subscription changed since `from_ms`: bars that closed or were amended, and those that form. */
  #changes(request: Subscribe, from_ms: number): AnyRecord[] {
    const [from_s, now_s] = [from_ms / 1000, this.now_ms / 1000];
    return request.streams.flatMap((stream) => {
      const width_s = this.#width(stream);
      const [first, last] = [Math.floor(from_s / width_s), Math.floor(now_s / width_s)];
      return this.#matching(stream, request.keys).flatMap((key): AnyRecord[] => {
        if (stream in VALUES) return last > first ? market.indicatorRows(key, stream, width_s, first, last - 1) : [];
        if (stream in HOSTS) return range(first, last - 1).map((index) => market.hostRow(key, stream, width_s, index));
        const closed = range(first, last - 1).flatMap((index) => {
          // An amendment comes two bars after the close: the bar is sent again.
          const earlier = index >= 2 ? [market.barAt(key, stream, width_s, index - 2, now_s)] : [];
          return [
            ...earlier.filter((bar) => bar.state === "amended"),
            market.barAt(key, stream, width_s, index, now_s),
          ];
        });
        return this.active(key) ? [...closed, market.barAt(key, stream, width_s, last, now_s)] : closed;
      });
    });
  }

  /** Whether `key` traded in this tenth of a second. */
  active(key: string): boolean {
    return market.draw(market.hash(key), Math.floor(this.now_ms / 100), 20) < 0.6;
  }

  #matching(stream: string, keys: string[] | "all"): string[] {
    const names = this.#keysOf(stream);
    if (keys === "all") return names;
    const exact = new Set(keys.filter((key) => !key.endsWith("*")));
    const prefixes = keys.filter((key) => key.endsWith("*")).map((key) => key.slice(0, -1));
    return names.filter((name) => exact.has(name) || prefixes.some((prefix) => name.startsWith(prefix)));
  }

  #send(client: Client, id: number, records: AnyRecord[]): void {
    if (!records.length) return;
    client.delivered += records.length;
    say(client, { op: "data", id, records });
  }

  #status(client: Client): void {
    client.status_sent_ms = this.now_ms;
    say(client, { op: "status", status: this.status() });
  }

  async #file(path: string, response: ServerResponse): Promise<void> {
    const name = normalize(path === "/" ? "/index.html" : path);
    try {
      const body = await readFile(join(this.options.dist ?? "/nonexistent", name));
      response.writeHead(200, {
        "content-type": TYPES[extname(name)] ?? "application/octet-stream",
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
      });
      response.end(body);
    } catch {
      json(response, 404, { error: { code: "not_found", message: `There is nothing at ${path}.` } });
    }
  }
}

function say(client: Client, message: ServerMessage): void {
  client.socket.send(JSON.stringify(message));
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json; charset=utf-8" });
  response.end(JSON.stringify(body));
}

function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
}

function paged(all: string[], after: string | null, limit: number): { page: string[]; next: string | null } {
  const start = after === null ? 0 : all.findIndex((name) => name > after);
  const page = start < 0 ? [] : all.slice(start, start + limit);
  return { page, next: start >= 0 && start + limit < all.length ? page.at(-1)! : null };
}
