/**
 * The page of a real node that real feeds have filled: what it shows equals what the API says. Runs with `TIDEGATE_BIN`, the
 * program; the page is the one that was built into it.
 */
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { Bar, KeyPage, Row, Status } from "../src/api/types";
import { brief, clock, clockMillis, count, float, nanos, short } from "../src/lib/format";
import { Browser, complaints } from "./browser";
import { Node, Way } from "./node";

const BIN = process.env.TIDEGATE_BIN;
/** Of the market's events, how many are published at first. */
const [FIRST, ALL] = [200_000, 300_000];
const MARKET = ["generate", "market", "--symbols", "60", "--events", String(ALL)];

describe.skipIf(!BIN)("a real node", () => {
  const browser = new Browser();
  let node: Node;
  let page: Page;
  let heard: string[] = [];

  async function api<T>(path: string): Promise<T> {
    const response = await fetch(node.url + path);
    expect(response.ok, path).toBe(true);
    return (await response.json()) as T;
  }
  const history = async <T = Bar>(stream: string, key: string, limit = 600) =>
    (await api<{ records: T[] }>(`/v1/bars?stream=${stream}&key=${encodeURIComponent(key)}&limit=${limit}`)).records;
  /** Everything that was published has become results, and the status has heard of it. */
  const settled = () =>
    vi.waitFor(
      async (): Promise<Status> => {
        const before = await api<Status>("/v1/status");
        const status = await api<Status>("/v1/status");
        expect(status.events).toEqual({ total: before.events!.total, rate: 0 });
        expect(status.results!.total).toBe(before.results!.total);
        expect(status.shards!.map((shard) => shard.ring_depth)).toEqual(status.shards!.map(() => 0));
        expect(status.ledger!.map((stage) => stage.delivered)).toEqual(status.ledger!.map(() => status.events!.total));
        return status;
      },
      { timeout: 30_000, interval: 100 },
    );
  const open = (hash = "", base = node.url) => page.goto(`${base}/${hash}`);
  const live = () => page.locator(".app[data-phase=live]").waitFor();
  const cell = (table: string, key: string, column: string) =>
    page.getByTestId(table).locator(`.row[data-key="${key}"]`).locator(`[data-column="${column}"]`);
  const shownRows = (table: string) =>
    page
      .getByTestId(table)
      .locator(".row")
      .evaluateAll((rows) =>
        rows.map((one) =>
          Object.fromEntries(
            [...one.querySelectorAll<HTMLElement>("[data-column]")].map((c) => [
              c.dataset.column!,
              c.textContent ?? "",
            ]),
          ),
        ),
      );
  const sameBar = (shown: Record<string, string>, bar: Bar) => {
    expect(shown).toMatchObject({ open: bar.open, high: bar.high, low: bar.low, close: bar.close, volume: bar.volume });
    expect(shown).toMatchObject({ vwap: bar.vwap ?? "–", trades: count(bar.trades), rev: String(bar.rev) });
    expect(shown).toMatchObject({ state: bar.state, cause: bar.cause, missing: count(bar.missing) });
  };

  beforeAll(async () => {
    node = await Node.start(BIN!);
    // The network's day begins before the market's: in this order nothing is late.
    await node.publish("network", "generate", "network", "--events", "60000");
    await node.publish("market", ...MARKET, "--count", String(FIRST));
    await settled();
  });
  afterAll(async () => {
    const account = await node.stop();
    expect(account.imbalance).toBe(0);
  });
  beforeEach(async () => {
    page = await browser.page();
    heard = complaints(page);
  });
  afterEach(async () => {
    await browser.close();
    expect(heard, "the page's console").toEqual([]);
  });

  test("the overview says what the status says", async () => {
    const elsewhere: string[] = [];
    page.on("request", (request) => {
      if (!request.url().startsWith(node.url)) elsewhere.push(request.url());
    });
    const status = await settled();
    await open();
    await live();
    const tile = (name: string) => page.getByTestId(`tile-${name}`);
    await tile("events")
      .filter({ hasText: `${count(status.events!.total)} in all` })
      .waitFor();
    expect(await tile("results").innerText()).toContain(`${count(status.results!.total)} in all`);
    expect(await tile("keys").locator("b").innerText()).toBe(count(status.keys));
    expect(await tile("events").locator("b").innerText()).toBe(`${short(0)}/s`);
    // Percentiles are of the last minute, which began while the feeds were there; both sides are read until they agree.
    await expect
      .poll(async () => {
        const { latency_ns } = await api<Status>("/v1/status");
        const shown = await Promise.all(["p50", "p99"].map((name) => tile(name).locator("b").innerText()));
        return shown.join() === [nanos(latency_ns?.p50), nanos(latency_ns?.p99)].join();
      })
      .toBe(true);
    expect(status.latency_ns!.p50).toBeGreaterThan(0);

    const table = await page
      .getByTestId("ledger")
      .evaluate((one) => [...(one as HTMLTableElement).rows].map((r) => [...r.cells].map((c) => c.innerText)));
    const ledger = status.ledger!;
    expect(table[0]).toEqual(["Events by cause", ...ledger.map((entry) => entry.stage)]);
    expect(table[1]).toEqual(["delivered", ...ledger.map((entry) => count(entry.delivered))]);
    const causes = status.causes!.filter((cause) => ledger.some((entry) => entry.by_cause[cause]));
    expect(table.slice(2, -1).map((row) => row[0])).toEqual(causes);
    for (const [cause, ...cells] of table.slice(2, -1)) {
      expect(cells).toEqual(ledger.map((entry) => count(entry.by_cause[cause!])));
    }
    expect(table.at(-1)).toEqual(["balance", ...ledger.map(() => "0")]);
    expect(causes).toContain("late_amended");

    for (const feed of status.feeds!) {
      expect(feed.peer).toMatch(/^127\.0\.0\.1:\d+$/);
      expect(await cell("feeds", feed.source, "accepted").innerText()).toBe(count(feed.accepted));
      expect(await cell("feeds", feed.source, "peer").innerText()).toBe(feed.peer);
      expect(feed.finished).toBe(true);
      await cell("feeds", feed.source, "source").locator("[title=finished]").waitFor();
    }
    expect(await page.getByTestId("alerts").innerText()).toContain("No detector runs");
    expect(elsewhere).toEqual([]);
  });

  test("the pipeline shows every actor, thread and shard", async () => {
    await open("#/pipeline");
    const status = await settled();
    for (const id of [
      ...status.feeds!.map((feed) => `feed:${feed.source}`),
      ...status.shards!.map((shard) => `shard:${shard.shard}`),
      ...status.stages!.flatMap((stage) => [`stage:${stage.name}`, `stream:${stage.stream}`]),
    ]) {
      await page.getByTestId(id).waitFor();
    }
    const threads = page.getByTestId("threads").locator("li");
    expect(await threads.evaluateAll((all) => all.map((one) => (one as HTMLElement).dataset.thread))).toEqual(
      status.threads!.map((one) => one.thread),
    );
    for (const { busy, blocked, idle } of status.threads!) expect(busy! + blocked! + idle!).toBeCloseTo(1, 2);
    const [shard] = status.shards!;
    expect(await cell("shards", "0", "events").innerText()).toBe(count(shard!.events));
    expect(await cell("shards", "0", "outputs").innerText()).toBe(count(shard!.outputs));
    expect(await cell("shards", "0", "watermark").innerText()).toBe(clockMillis(shard!.watermark));
    const ring = (await cell("shards", "0", "ring").innerText()).replace(/\s/g, "");
    expect(ring).toBe(`0/${shard!.ring_capacity}`);
  });

  test("keys: the list is the API's, bars are shown to the digit, with their indicators", async () => {
    const listed = await api<KeyPage>("/v1/keys?stream=bars.1s&limit=1000");
    expect(listed.total).toBe(60);
    const key = listed.keys[0]!.name;
    await open(`#/keys/${encodeURIComponent(key)}?stream=bars.1s`);
    await page.getByTestId("key-count").filter({ hasText: "60 keys" }).waitFor();
    const names = await shownRows("keys");
    expect(names.map((row) => row.name)).toEqual(listed.keys.slice(0, names.length).map((one) => one.name));

    await page.getByTestId("records").locator(".row").first().waitFor();
    const bars = await history("bars.1s", key);
    const shown = await shownRows("records");
    expect(shown.length).toBeGreaterThan(3);
    const newest = bars.slice(-shown.length).reverse();
    shown.forEach((row, i) => (expect(row.ts_open).toBe(clock(newest[i]!.ts_open)), sameBar(row, newest[i]!)));

    const values = (await history<Row>("ind.1s", key, 1))[0]!.values;
    for (const name of ["rsi_14", "sma_20"]) {
      const chip = page.getByTestId(`chip-${name}`);
      if ((await chip.getAttribute("aria-pressed")) !== "true") await chip.click();
      await expect.poll(() => chip.locator("b").innerText()).toBe(brief(values[name]));
    }
  });

  test("amended bars are marked as such", async () => {
    const { keys } = await api<KeyPage>("/v1/keys?stream=bars.1m&limit=1000");
    let found: { key: string; bar: Bar } | null = null;
    for (const { name } of keys) {
      const bar = (await history("bars.1m", name, 40)).findLast((one) => one.state === "amended");
      if (bar) found = { key: name, bar };
      if (bar) break;
    }
    const { key, bar } = found!;
    await open(`#/keys/${encodeURIComponent(key)}?stream=bars.1m`);
    const line = page.getByTestId("records").locator(`.row[data-key^="${bar.ts_open} "]`);
    await page.getByTestId("records").locator(".row").first().waitFor();
    await page.getByTestId("records").focus();
    // Rows out of view do not exist: go down until it does.
    while ((await line.count()) === 0) await page.keyboard.press("PageDown");
    const cells = line.locator("[data-column]");
    const entries = await cells.evaluateAll((all) =>
      all.map((one) => [(one as HTMLElement).dataset.column!, one.textContent ?? ""]),
    );
    sameBar(Object.fromEntries(entries) as Record<string, string>, bar);
    expect(bar.rev).toBeGreaterThan(0);
    await page
      .getByText(/amended/)
      .first()
      .waitFor();
  });

  test("hosts: all of them, with what they did", async () => {
    const { keys } = await api<KeyPage>("/v1/keys?stream=hosts.1m&limit=1000");
    expect(keys.length).toBeGreaterThan(50);
    await open("#/hosts");
    await page.getByText(`hosts.1m: ${count(keys.length)} hosts`).waitFor();
    await page.getByTestId("hosts").getByRole("button", { name: "Unanswered" }).click();
    const { records } = await api<{ records: Row[] }>("/v1/latest?stream=hosts.1m&limit=1000");
    const most = Math.max(...records.map((row) => Number(row.values.unanswered)));
    const first = page.getByTestId("hosts").locator(".row").first();
    await expect.poll(() => first.locator("[data-column=unanswered]").innerText()).toBe(float(most));
    const host = records.find((row) => row.key === keys[0]!.name)!;
    await page.getByRole("searchbox", { name: "Search hosts" }).fill(host.key);
    for (const column of ["bytes_in", "bytes_out", "packets", "flows"]) {
      if (!(column in host.values)) continue;
      expect(await cell("hosts", host.key, column).innerText()).toBe(float(host.values[column]));
    }
  });

  test("subscribers: this page, and one over QUIC, with their addresses", async () => {
    const leave = node.subscribe("bars.1m", "--from", "latest");
    try {
      await open("#/keys");
      await live();
      await page.getByTestId("records").locator(".row").first().waitFor();
      await page.getByRole("link", { name: "Subscribers", exact: true }).click();
      const quic = page.getByTestId("subscribers").locator(".row").filter({ hasText: "quic" });
      await quic.waitFor();
      const { subscribers } = await api<Status>("/v1/status");
      const said = subscribers!.find((one) => one.kind === "quic")!;
      expect(said.peer).toMatch(/^127\.0\.0\.1:\d+$/);
      for (const [column, want] of [
        ["peer", said.peer],
        ["streams", "bars.1m"],
        ["policy", said.policy],
        ["conflated", count(said.conflated)],
        ["dropped", count(said.dropped)],
        ["lag", count(said.lag)],
      ]) {
        expect(await quic.locator(`[data-column=${column}]`).innerText(), column!).toBe(want);
      }
    } finally {
      await leave();
    }
  });

  test("after a cut it goes on where it was: nothing is read twice, nothing is missing", async () => {
    const way = new Way(node.url);
    const base = await way.listen();
    const read: string[] = [];
    page.on("request", (request) => {
      const { pathname } = new URL(request.url());
      if (pathname === "/v1/bars") read.push(request.url());
    });
    const asked: string[] = [];
    page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => asked.push(String(payload))));
    try {
      const { keys } = await api<KeyPage>("/v1/keys?stream=bars.1s&limit=1000");
      // One that trades in what is still to come.
      const key = keys[0]!.name;
      const before = (await history("bars.1s", key, 1))[0]!;
      await open(`#/keys/${encodeURIComponent(key)}?stream=bars.1s`, base);
      const newest = page.getByTestId("records").locator(".row").first().locator("[data-column=ts_open]");
      await newest.filter({ hasText: clock(before.ts_open) }).waitFor();
      const reads = read.length;
      expect(reads).toBeGreaterThan(0);

      way.cut();
      await page.getByTestId("banner").filter({ hasText: "Connection lost" }).waitFor();
      await node.publish("market", ...MARKET);
      const status = await settled();
      expect(status.feeds!.find((feed) => feed.source === "market")!.accepted).toBe(ALL);
      const after = (await history("bars.1s", key)).reverse();
      expect(BigInt(after[0]!.ts_open)).toBeGreaterThan(BigInt(before.ts_open));

      way.mend();
      await live();
      await newest.filter({ hasText: clock(after[0]!.ts_open) }).waitFor();
      const shown = await shownRows("records");
      shown.forEach((row, i) => (expect(row.ts_open).toBe(clock(after[i]!.ts_open)), sameBar(row, after[i]!)));
      expect(read.length).toBe(reads);
      const resumed = asked.filter((text) => text.includes('"sequence"'));
      expect(resumed.length).toBeGreaterThan(0);
      // The browser itself reports the refused connections; nothing else may be wrong.
      heard.splice(0, heard.length, ...heard.filter((line) => !/WebSocket|ERR_/.test(line)));
    } finally {
      await page.close();
      await way.close();
    }
  });

  test("the page of the API works without anything from elsewhere", async () => {
    const elsewhere: string[] = [];
    page.on("request", (request) => {
      if (!request.url().startsWith(node.url)) elsewhere.push(request.url());
    });
    await page.goto(`${node.url}/v1/docs#of-v1-keys`);
    const keys = page.locator("#of-v1-keys");
    await keys.getByRole("button", { name: "Ask" }).click();
    const answer = keys.locator("output pre");
    await answer.filter({ hasText: "200 OK" }).waitFor();
    const text = (await answer.innerText()).replace(/^.*\n/, "");
    expect(JSON.parse(text)).toEqual(await api("/v1/keys"));
    const { paths } = await api<{ paths: Record<string, unknown> }>("/v1/openapi.json");
    for (const path of Object.keys(paths)) {
      await page.locator("nav").getByRole("link", { name: path, exact: true }).waitFor();
    }
    expect(elsewhere).toEqual([]);
  });
});
