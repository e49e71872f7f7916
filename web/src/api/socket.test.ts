import { beforeEach, describe, expect, it } from "vitest";
import { backoff_ms, Socket, type Credentials, type Link, type Surroundings } from "./socket";
import type { AnyRecord } from "./types";

class FakeSocket {
  readyState = 0;
  sent: string[] = [];
  onopen: () => void = () => {};
  onmessage: (event: { data: string }) => void = () => {};
  onclose: (event?: { code: number }) => void = () => {};
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.readyState = 3;
  }
  open(): void {
    this.readyState = 1;
    this.onopen();
  }
  say(message: unknown): void {
    this.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }
  drop(code = 1006): void {
    this.readyState = 3;
    this.onclose({ code });
  }
}

/** A world whose clock only moves when told. */
class World {
  now = 1_000;
  sockets: FakeSocket[] = [];
  timers: { at: number; run: () => void }[] = [];
  links: Link[] = [];
  token: string | null = null;
  said: unknown[] = [];
  credentials: Credentials = {
    token: () => this.token,
    authorized: (principal, expires_in_ms) => void this.said.push([principal, expires_in_ms]),
    refused: (error, shown) => void this.said.push(["refused", error.code, shown]),
    forbidden: (error) => void this.said.push(["forbidden", error.message]),
  };
  around: Surroundings = {
    open: () => {
      const made = new FakeSocket();
      this.sockets.push(made);
      return made as unknown as WebSocket;
    },
    now_ms: () => this.now,
    random: () => 0,
    after: (ms, run) => {
      const timer = { at: this.now + ms, run };
      this.timers.push(timer);
      return () => void (this.timers = this.timers.filter((one) => one !== timer));
    },
  };
  socket = new Socket("ws://node/v1/ws", this.around, this.credentials);
  constructor() {
    this.socket.onLink = (link) => this.links.push(link);
  }
  get last(): FakeSocket {
    return this.sockets.at(-1)!;
  }
  pass(ms: number): void {
    const until = this.now + ms;
    for (;;) {
      const due = this.timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.now = due.at;
      this.timers = this.timers.filter((timer) => timer !== due);
      due.run();
    }
    this.now = until;
  }
}

describe("back-off", () => {
  it("doubles from a quarter of a second to eight seconds", () => {
    expect([1, 2, 3, 4, 5, 6, 7, 50].map((n) => backoff_ms(n, 0))).toEqual([
      250, 500, 1000, 2000, 4000, 8000, 8000, 8000,
    ]);
  });
  it("spreads by at most a half", () => {
    expect(backoff_ms(4, 1)).toBe(1000);
  });
});

describe("socket", () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });

  it("subscribes again, and asks for status again, after a loss", () => {
    const heard: AnyRecord[] = [];
    let confirmed = 0;
    world.socket.status(1000);
    world.socket.subscribe(
      { streams: ["bars.1s"], keys: ["BTCUSD"], from: "latest" },
      { records: (records) => void heard.push(...records), subscribed: () => void (confirmed += 1) },
    );
    world.socket.connect();
    world.last.open();
    const first = world.last.sent;
    expect(first.map((text) => JSON.parse(text).op)).toEqual(["status", "subscribe"]);
    world.last.say({ op: "subscribed", id: 1 });
    world.last.say({ op: "data", id: 1, records: [{ key: "BTCUSD" }] });
    world.last.drop();
    expect(world.links.at(-1)).toMatchObject({ phase: "waiting", attempt: 1, retry_at_ms: 1250 });
    world.pass(250);
    world.last.open();
    expect(world.last.sent).toEqual(first);
    world.last.say({ op: "subscribed", id: 1 });
    expect(confirmed).toBe(2);
    expect(heard).toHaveLength(1);
  });

  it("goes on where it was, and begins anew where that cannot be", () => {
    const heard: unknown[] = [];
    let place: Record<string, Record<string, number>> | null = null;
    world.socket.subscribe(
      { streams: ["bars.1s"], keys: ["BTCUSD"], from: "latest" },
      {
        records: () => {},
        subscribed: (resumed) => void heard.push(resumed),
        resume: () => place,
        error: (error) => void heard.push(error.code),
      },
    );
    const asked = () => JSON.parse(world.last.sent.at(-1)!).from;
    const again = () => (world.last.drop(), world.pass(500), world.last.open());
    world.socket.connect();
    world.last.open();
    world.last.say({ op: "subscribed", id: 1, incarnation: "42" });
    again();
    expect(asked()).toBe("latest");
    world.last.say({ op: "subscribed", id: 1, incarnation: "42" });
    place = { "bars.1s": { 17: 4712 } };
    again();
    expect(asked()).toEqual({ sequence: 1, slots: place, incarnation: "42" });
    world.last.say({ op: "subscribed", id: 1, incarnation: "42" });
    for (const code of ["sequence_cut", "other_incarnation"]) {
      again();
      world.last.say({ op: "error", id: 1, code, message: "No." });
      expect(asked()).toBe("latest");
      world.last.say({ op: "subscribed", id: 1, incarnation: "43" });
    }
    again();
    world.last.say({ op: "error", id: 1, code: "busy", message: "No." });
    expect(heard).toEqual([false, false, true, false, false, "busy"]);
  });

  it("waits longer after each failure, and remembers since when it is without news", () => {
    world.socket.connect();
    world.last.open();
    world.last.say({ op: "pong", id: 0 });
    world.now = 5_000;
    world.last.drop();
    world.pass(250);
    world.last.drop();
    expect(world.links.at(-1)).toEqual({ phase: "waiting", attempt: 2, retry_at_ms: 5_750, lost_at_ms: 5_000 });
    world.pass(500);
    world.last.drop();
    expect(world.links.at(-1)).toMatchObject({ attempt: 3, retry_at_ms: 6_750, lost_at_ms: 5_000 });
  });

  it("does not go back to short waits before the server has said something", () => {
    world.socket.connect();
    for (const wait of [500, 1000]) {
      world.last.open();
      world.last.drop();
      expect((world.links.at(-1) as { retry_at_ms: number }).retry_at_ms - world.now).toBe(wait);
      world.pass(wait);
    }
    world.last.open();
    world.last.say({ op: "pong", id: 0 });
    world.last.drop();
    expect((world.links.at(-1) as { retry_at_ms: number }).retry_at_ms - world.now).toBe(250);
  });

  it("asks a silent server, and leaves one that does not answer", () => {
    world.socket.connect();
    world.last.open();
    world.pass(4_000);
    expect(JSON.parse(world.last.sent.at(-1)!)).toEqual({ op: "ping", id: 0 });
    world.last.say({ op: "pong", id: 0 });
    world.pass(8_000);
    expect(world.links.at(-1)!.phase).toBe("live");
    world.pass(4_000);
    expect(world.links.at(-1)!.phase).toBe("waiting");
    expect(world.sockets).toHaveLength(1);
    world.pass(500);
    expect(world.sockets).toHaveLength(2);
  });

  it("asks again for a subscription that the server ended, if it is still wanted", () => {
    world.socket.connect();
    world.last.open();
    const stop = world.socket.subscribe({ streams: ["bars.1s"], keys: "all", from: "latest" }, { records: () => {} });
    const asked = () => world.last.sent.filter((text) => JSON.parse(text).op === "subscribe").length;
    world.last.say({ op: "closed", id: 1, code: "lag", message: "too far behind" });
    expect(asked()).toBe(1);
    world.pass(1_000);
    expect(asked()).toBe(2);
    world.last.say({ op: "closed", id: 1, code: "lag", message: "too far behind" });
    stop();
    world.pass(1_000);
    expect(asked()).toBe(2);
  });

  it("ignores what is late or not JSON", () => {
    const heard: unknown[] = [];
    const stop = world.socket.subscribe(
      { streams: ["bars.1s"], keys: "all", from: "latest" },
      { records: (records) => void heard.push(records) },
    );
    world.socket.connect();
    world.last.open();
    world.last.say("<html>proxy</html>");
    stop();
    expect(JSON.parse(world.last.sent.at(-1)!)).toEqual({ op: "unsubscribe", id: 1 });
    world.last.say({ op: "data", id: 1, records: [] });
    expect(heard).toEqual([]);
  });

  it("tells a reader of losses and refusals", () => {
    const heard: unknown[] = [];
    world.socket.connect();
    world.last.open();
    world.socket.subscribe(
      { streams: ["nope"], keys: "all", from: "latest" },
      { records: () => {}, loss: (...what) => heard.push(what), error: (error) => heard.push(error.code) },
    );
    world.last.say({ op: "loss", id: 1, count: 12, cause: "dropped" });
    world.last.say({ op: "error", id: 1, code: "unknown_stream", message: "There is none." });
    expect(heard).toEqual([[12, "dropped"], "unknown_stream"]);
  });

  describe("with tokens", () => {
    const wanted = () => ({ streams: ["bars.1s"], keys: ["BTCUSD"], from: "latest" as const });
    const ops = () => world.last.sent.map((text) => JSON.parse(text).op);
    const refusal = { op: "error", code: "unauthorized", message: "show who you are first" };
    const subscribe = (reader = {}) => world.socket.subscribe(wanted(), { records: () => {}, ...reader });

    it("shows one first, and nothing where there is none", () => {
      world.socket.status(1000);
      world.socket.connect();
      world.last.open();
      expect(ops()).toEqual(["status"]);
      world.last.drop();
      world.token = "a.b.c";
      world.pass(500);
      world.last.open();
      expect(world.last.sent[0]).toBe('{"op":"auth","token":"a.b.c"}');
      expect(world.links.at(-1)).toMatchObject({ phase: "connecting" });
      world.last.say({ op: "authorized", principal: "desk", expires_in_ms: 300_000 });
      expect(world.said).toEqual([["desk", 300_000]]);
      expect(world.links.at(-1)).toMatchObject({ phase: "live" });
      expect(world.socket.url).not.toContain("a.b.c");
    });

    it("waits for a token when the node wants one, and then asks for what was refused", () => {
      world.socket.status(1000);
      subscribe();
      world.socket.connect();
      world.last.open();
      world.last.say(refusal);
      world.last.say({ ...refusal, id: 1 });
      expect(world.links.at(-1)).toEqual({ phase: "refused" });
      expect(world.said).toEqual([
        ["refused", "unauthorized", null],
        ["refused", "unauthorized", null],
      ]);
      world.token = "a.b.c";
      world.socket.present();
      world.last.say({ op: "authorized", principal: "desk", expires_in_ms: null });
      expect(world.links.at(-1)).toMatchObject({ phase: "live" });
      expect(ops()).toEqual(["status", "subscribe", "auth", "status", "subscribe"]);
    });

    it("does not come back by itself when it was not let in, but with another token", () => {
      world.token = "old";
      world.socket.connect();
      world.last.open();
      world.last.say({ op: "error", code: "expired", message: "the token has expired" });
      world.token = null;
      world.last.drop(4401);
      expect(world.links.at(-1)).toEqual({ phase: "refused" });
      expect(world.said).toEqual([["refused", "expired", "old"]]);
      world.pass(60_000);
      expect(world.sockets).toHaveLength(1);
      world.token = "new";
      world.socket.present();
      world.last.open();
      expect(world.sockets).toHaveLength(2);
      expect(world.last.sent[0]).toBe('{"op":"auth","token":"new"}');
    });

    it("goes on with what it has while a fresh token takes the place of the old", () => {
      let confirmed = 0;
      subscribe({ subscribed: () => void (confirmed += 1) });
      world.token = "old";
      world.socket.connect();
      world.last.open();
      world.last.say({ op: "authorized", principal: "desk", expires_in_ms: 1000 });
      world.last.say({ op: "subscribed", id: 1 });
      const links = world.links.length;
      world.token = "new";
      world.socket.present();
      world.last.say({ op: "authorized", principal: "desk", expires_in_ms: 300_000 });
      expect(ops()).toEqual(["auth", "subscribe", "auth"]);
      expect(world.links).toHaveLength(links);
      expect(confirmed).toBe(1);
    });

    it("stays on a connection that is good without the token that was refused", () => {
      world.token = "wrong";
      world.socket.connect();
      world.last.open();
      world.last.say({ op: "error", code: "unauthorized", message: "this server takes no tokens" });
      expect(world.links.at(-1)).toMatchObject({ phase: "connecting" });
      world.last.say({ op: "subscribed", id: 1 });
      expect(world.links.at(-1)).toMatchObject({ phase: "live" });
    });

    it("asks no more for what its holder may not have, until somebody else is there", () => {
      const errors: string[] = [];
      subscribe({ error: (error: { code: string }) => void errors.push(error.code) });
      world.token = "some";
      world.socket.connect();
      world.last.open();
      world.last.say({ op: "authorized", principal: "some", expires_in_ms: null });
      world.last.say({ op: "closed", id: 1, code: "forbidden", message: "`some` may not" });
      world.pass(5_000);
      expect(ops().filter((op) => op === "subscribe")).toHaveLength(1);
      expect(errors).toEqual(["forbidden"]);
      expect(world.said.at(-1)).toEqual(["forbidden", "`some` may not"]);
      const links = world.links.length;
      world.pass(1);
      world.last.say({ op: "authorized", principal: "all", expires_in_ms: null });
      // Somebody else: lists are read anew.
      expect(world.links.slice(links)).toMatchObject([{ phase: "live" }]);
      expect(ops().filter((op) => op === "subscribe")).toHaveLength(2);
    });
  });
});
