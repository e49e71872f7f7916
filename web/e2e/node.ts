/** A real node: `tidegate serve` on free ports, and `tidegate publish` and `subscribe` against it. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createConnection, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** What is served: as `serve` would without asking, but with bounds on lateness so that bars are amended, and hosts. */
const SERVED = [
  ...["--bars", "1s,1m", "--hosts", "1m", "--disorder", "10ms", "--horizon", "60s"],
  ...["--ind", "sma:20,ema:20,rsi:14,bb:20:2,macd:12:26:9"],
];

export interface Account {
  imbalance: number;
  events: number;
}

export class Node {
  private constructor(
    readonly bin: string,
    readonly url: string,
    readonly quic: string,
    readonly folder: string,
    /** Where it takes exports of flows. */
    readonly exports: string[],
    private readonly server: ChildProcess,
    private readonly lines: AsyncIterator<string>,
  ) {}

  static async start(bin: string, ...more: string[]): Promise<Node> {
    return this.startIn(await mkdtemp(join(tmpdir(), "tidegate-node-")), bin, ...more);
  }

  /** A node that takes tokens, and only those: [`Node.token`] issues them. */
  static async startAsking(bin: string, ...more: string[]): Promise<Node> {
    const folder = await mkdtemp(join(tmpdir(), "tidegate-node-"));
    await ran(bin, "token", "keygen", "--dir", folder);
    return this.startIn(folder, bin, "--token-key", join(folder, "token-key.pub.pem"), "--audience", "here", ...more);
  }

  private static async startIn(folder: string, bin: string, ...more: string[]): Promise<Node> {
    const free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    const server = spawn(bin, ["serve", ...free, "--data", folder, ...SERVED, ...more, "--json"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    // Whatever becomes of the tests, the node does not outlive them.
    process.once("exit", () => server.kill("SIGKILL"));
    const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) throw new Error(`${bin} serve ended before it listened`);
    const said = JSON.parse(first.value) as { http: string; listening: string; exports: string[] | null };
    return new Node(bin, said.http, said.listening, folder, said.exports ?? [], server, lines);
  }

  /** A bearer's token, or the file of one for `publish`. */
  async token(principal: string, ttl: string, ...more: string[]): Promise<string> {
    const key = join(this.folder, "token-key.pem");
    const of = ["--key", key, "--principal", principal, "--audience", "here", "--ttl", ttl];
    return (await ran(this.bin, "token", "issue", ...of, ...more)).trim();
  }

  /** What a command of the program says, which must end well. */
  run(...what: string[]): Promise<string> {
    return ran(this.bin, ...what);
  }

  /** Publishes until the node has it all in its log. */
  async publish(name: string, ...what: string[]): Promise<void> {
    const to = ["--server", this.quic, "--data", this.folder, "--name", name];
    const publisher = spawn(this.bin, ["publish", ...what, ...to, "--json"], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    const code = await ended(publisher);
    if (code !== 0) throw new Error(`tidegate publish ended with ${code}`);
  }

  /** Publishes until it is told to end. */
  publishing(name: string, ...what: string[]): () => Promise<void> {
    const to = ["--server", this.quic, "--data", this.folder, "--name", name];
    const publisher = spawn(this.bin, ["publish", ...what, ...to, "--json"], { stdio: "ignore" });
    return async () => {
      publisher.kill("SIGINT");
      await ended(publisher);
    };
  }

  /** A subscriber over QUIC, until it is told to end. */
  subscribe(...what: string[]): () => Promise<void> {
    const to = ["--server", this.quic, "--data", this.folder];
    const reader = spawn(this.bin, ["subscribe", ...what, ...to, "--output", "jsonl"], { stdio: "ignore" });
    return async () => {
      reader.kill("SIGINT");
      await ended(reader);
    };
  }

  /** Ends it in order; what it says of itself. */
  async stop(): Promise<Account> {
    this.server.kill("SIGINT");
    const last = await this.lines.next();
    const code = await ended(this.server);
    await rm(this.folder, { recursive: true, force: true });
    if (code !== 0 || last.done) throw new Error(`tidegate serve ended with ${code}`);
    return JSON.parse(last.value) as Account;
  }
}

/** What a command says that ends well. */
async function ran(bin: string, ...what: string[]): Promise<string> {
  const child = spawn(bin, what, { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  const code = await ended(child);
  if (code !== 0) throw new Error(`tidegate ${what.slice(0, 2).join(" ")} ended with ${code}`);
  return said;
}

function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((done, failed) => {
    child.once("error", failed);
    child.once("exit", done);
  });
}

/** A way to a node that can be cut and opened again, while the node goes on. */
export class Way {
  #server: Server;
  #open = true;
  #sockets = new Set<Socket>();

  constructor(to: string) {
    const { hostname, port } = new URL(to);
    this.#server = createServer((near) => {
      if (!this.#open) return void near.destroy();
      const far = createConnection({ host: hostname, port: Number(port) });
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.pipe(other);
        one.on("error", () => one.destroy());
        one.on("close", () => (this.#sockets.delete(one), other.destroy()));
      }
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((done, failed) => this.#server.once("error", failed).listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cut(): void {
    this.#open = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#open = true;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}
