import { WebSocket } from "ws";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Bar, KeyPage, ServerMessage } from "../src/api/types";
import { barAt, decimal, symbols } from "./market";
import { Mock } from "./server";

describe("mock", () => {
  const mock = new Mock({ symbols: 40, hosts: 5 });
  let base = "";
  const read = async <T>(path: string): Promise<T> => (await fetch(base + path)).json() as Promise<T>;
  beforeAll(async () => {
    base = await mock.listen();
  });
  afterAll(() => mock.close());

  it("is the same each time", () => {
    expect(barAt("BTCUSD", "bars.1s", 1, 7, 100)).toEqual(barAt("BTCUSD", "bars.1s", 1, 7, 100));
    expect(new Set(symbols(2_000)).size).toBe(2_000);
    expect([decimal(12_340n, 3), decimal(-5n, 2), decimal(100n, 2, 2), decimal(7n, 0)]).toEqual([
      "12.34",
      "-0.05",
      "1.00",
      "7",
    ]);
  });
  it("pages keys without gap or double", async () => {
    const names: string[] = [];
    let after = "";
    for (;;) {
      const page = await read<KeyPage>(`/v1/keys?limit=7${after && `&after=${after}`}`);
      names.push(...page.keys.map((key) => key.name));
      if (!page.next) break;
      after = page.next;
    }
    expect(names).toEqual([...new Set(names)].sort());
    expect(names).toHaveLength(45);
  });
  it("refuses with the names that are allowed", async () => {
    const response = await fetch(`${base}/v1/bars?stream=nope&key=BTCUSD`);
    expect(response.status).toBe(404);
    expect((await fetch(`${base}/v1/keys?stream=bars.2s`)).status).toBe(404);
    expect((await fetch(`${base}/v1/keys?sort=up`)).status).toBe(400);
    expect((await fetch(`${base}/v1/keys?limit=1001`)).status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { code: "unknown_stream", allowed: ["bars.1s", "bars.1m", "ind.1s", "ind.1m", "hosts.1m"] },
    });
  });
  it("sends over the WebSocket what it answers over HTTP", async () => {
    const socket = new WebSocket(`${base.replace("http", "ws")}/v1/ws`);
    const got = new Map<string, Bar>();
    await new Promise<void>((done, failed) => {
      socket.onerror = failed;
      socket.onopen = () =>
        socket.send(
          JSON.stringify({ op: "subscribe", id: 3, streams: ["bars.1s"], keys: ["BTC*"], from: { lookback: 3 } }),
        );
      socket.onmessage = (event) => {
        const message = JSON.parse(String(event.data)) as ServerMessage;
        if (message.op === "subscribed") mock.advance(100);
        if (message.op !== "data") return;
        for (const record of message.records as Bar[]) got.set(`${record.key} ${record.ts_open}`, record);
        if (got.size < 8) mock.advance(1_000);
        else done();
      };
    });
    socket.close();
    const { records } = await read<{ records: Bar[] }>("/v1/bars?stream=bars.1s&key=BTCUSD&limit=2");
    const both = records.filter((record) => got.get(`BTCUSD ${record.ts_open}`)?.state === record.state);
    expect(both.length).toBeGreaterThan(0);
    for (const record of both) expect(got.get(`BTCUSD ${record.ts_open}`)).toEqual(record);
    expect([...got.keys()].filter((key) => key.startsWith("ETH"))).toEqual([]);
  });
});
