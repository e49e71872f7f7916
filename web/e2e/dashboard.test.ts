/**
 * The built page in a real browser: what it shows equals what the API says. Against the mock, or with `TIDEGATE_URL` against
 * a node that is running (what needs a say in the data is then left out).
 */
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Mock } from "../mock/server";
import type { Bar, KeyPage, Row, Status, Stream } from "../src/api/types";
import { brief, clock, clockMillis, count, nanos } from "../src/lib/format";
import { Browser, complaints } from "./browser";

const REAL = process.env.TIDEGATE_URL?.replace(/\/$/, "");
const browser = new Browser();
/** The page hears of the node once a second, and the machine may be busy. */
const SOON = { timeout: 15_000 };

let mock: Mock;
let base = "";
let page: Page;
let heard: string[] = [];

async function api<T>(path: string): Promise<T> {
  const response = await fetch(base + path);
  expect(response.ok, path).toBe(true);
  return (await response.json()) as T;
}

const streams = async () => (await api<{ streams: Stream[] }>("/v1/streams")).streams;
const history = async <T = Bar>(stream: string, key: string, limit = 600) =>
  (await api<{ records: T[] }>(`/v1/bars?stream=${stream}&key=${encodeURIComponent(key)}&limit=${limit}`)).records;

const open = (hash = "") => page.goto(`${base}/${hash}`);
const live = () => page.locator(".app[data-phase=live]").waitFor();
const field = (name: string) => page.getByTestId("legend").locator(`[data-field=${name}]`);
const row = (table: string, key: string) => page.getByTestId(table).locator(`.row[data-key="${key}"]`);
const cell = (table: string, key: string, column: string) => row(table, key).locator(`[data-column="${column}"]`);

async function start(wishes: Parameters<Browser["page"]>[0] = {}): Promise<void> {
  page = await browser.page(wishes);
  heard = complaints(page);
}

beforeAll(async () => {
  mock = new Mock({ dist: "dist" });
  base = REAL ?? (await mock.listen());
});
afterAll(() => mock.close());
beforeEach(() => start());
afterEach(async () => {
  await browser.close();
  expect(heard, "the page's console").toEqual([]);
});

describe("any node", () => {
  test("shows its pages without a complaint, and fetches nothing from elsewhere", async () => {
    const elsewhere: string[] = [];
    page.on("request", (request) => {
      if (!request.url().startsWith(base) && !request.url().startsWith("data:")) elsewhere.push(request.url());
    });
    await open();
    await live();
    await page.getByTestId("tile-events").waitFor();
    for (const name of ["Pipeline", "Keys", "Hosts", "Alerts", "Subscribers", "Overview"]) {
      await page.getByRole("link", { name, exact: true }).click();
      await page
        .getByRole("heading", { level: 1 })
        .or(page.locator(".alone .title"))
        .first()
        .waitFor({ state: "attached" });
      // The heading may still be that of the page before.
      await expect.poll(() => page.locator("nav a[aria-current=page]").innerText(), SOON).toBe(name);
    }
    expect(elsewhere).toEqual([]);
  });

  test("shows closed bars as the API has them, to the digit", async () => {
    const stream = (await streams()).find((one) => one.kind === "bars")!;
    const { records } = await api<{ records: Bar[] }>(`/v1/latest?stream=${stream.name}&limit=1`);
    const key = records[0]!.key;
    await open(`#/keys/${encodeURIComponent(key)}?stream=${stream.name}`);
    await page.getByTestId("records").locator(".row").first().waitFor();
    const shown = await page
      .getByTestId("records")
      .locator(".row")
      .evaluateAll((rows) =>
        rows.map((one) =>
          Object.fromEntries(
            [...one.querySelectorAll<HTMLElement>("[data-column]")].map((c) => [c.dataset.column!, c.textContent]),
          ),
        ),
      );
    const said = await history(stream.name, key);
    let compared = 0;
    for (const one of shown) {
      const bar = said.find(
        (b) => clock(b.ts_open) === one.ts_open && b.state === one.state && String(b.rev) === one.rev,
      );
      if (!bar || bar.state === "forming") continue;
      for (const column of ["open", "high", "low", "close", "volume"] as const) expect(one[column]).toBe(bar[column]);
      expect(one.vwap).toBe(bar.vwap ?? "–");
      expect(one.trades).toBe(count(bar.trades));
      compared += 1;
    }
    expect(compared).toBeGreaterThan(0);
  });

  test("finds keys as the API does", async () => {
    const stream = (await streams()).find((one) => one.kind === "bars")!;
    const { records } = await api<{ records: Bar[] }>(`/v1/latest?stream=${stream.name}&limit=1`);
    const part = records[0]!.key.slice(0, 3).toLowerCase();
    await open(`#/keys?stream=${stream.name}`);
    await page.getByRole("searchbox", { name: "Search keys" }).fill(part);
    const found = await api<KeyPage>(`/v1/keys?stream=${stream.name}&search=${part}&limit=1000`);
    const expected = found.keys.map((key) => key.name);
    await page
      .getByTestId("key-count")
      .filter({ hasText: `${count(expected.length)} ${expected.length === 1 ? "key" : "keys"} found` })
      .waitFor();
    const names = await page
      .getByTestId("keys")
      .locator(".row")
      .evaluateAll((rows) => rows.map((one) => (one as HTMLElement).dataset.key));
    expect(names).toEqual(expected.slice(0, names.length));
    expect(names.length).toBeGreaterThan(0);
  });
});

describe.skipIf(REAL !== undefined)("with the data in hand", () => {
  test("the overview says what the status says", async () => {
    await open();
    await live();
    await page
      .getByTestId("tile-events")
      .filter({ hasText: count(mock.status().events!.total) })
      .waitFor();
    const status = await api<Status>("/v1/status");
    expect(await page.getByTestId("tile-p99").innerText()).toContain(nanos(status.latency_ns!.p99));
    expect(await page.getByTestId("tile-keys").innerText()).toContain(count(status.keys));
    const table = await page
      .getByTestId("ledger")
      .evaluate((one) => [...(one as HTMLTableElement).rows].map((r) => [...r.cells].map((c) => c.innerText)));
    expect(table[0]).toEqual(["Events by cause", ...status.ledger!.map((entry) => entry.stage)]);
    expect(table[1]).toEqual(["delivered", ...status.ledger!.map((entry) => count(entry.delivered))]);
    for (const [cause, ...cells] of table.slice(2, -1)) {
      expect(cells).toEqual(status.ledger!.map((entry) => count(entry.by_cause[cause!] ?? 0)));
    }
    expect(table.at(-1)).toEqual(["balance", ...status.ledger!.map(() => "0")]);
    for (const feed of status.feeds!) {
      expect(await cell("feeds", feed.source, "accepted").innerText()).toBe(count(feed.accepted));
    }
  });

  test("a ledger that does not balance is not glossed over", async () => {
    mock.shape = (status) => ({
      ...status,
      ledger: [{ stage: "bars.1s", delivered: 100, by_cause: { applied: 97 }, imbalance: 0 }],
    });
    try {
      await open();
      await page.getByText("does not balance").waitFor();
      expect(await page.getByTestId("ledger").locator("tfoot").innerText()).toContain("3 (node says 0)");
    } finally {
      mock.shape = (status) => status;
    }
  });

  test("what the node does not know is a dash", async () => {
    mock.shape = () => ({
      version: null,
      uptime_s: null,
      events: null,
      results: null,
      keys: null,
      latency_ns: null,
      shards: null,
      feeds: null,
      subscribers: null,
      ledger: null,
      stages: null,
    });
    try {
      await open();
      await page.getByTestId("tile-events").waitFor();
      for (const tile of ["events", "results", "p50", "p99", "lag", "keys", "uptime"]) {
        expect(await page.getByTestId(`tile-${tile}`).locator("b").innerText()).toMatch(/^–(\/s)?$/);
      }
      await page.getByText("No latency to show").waitFor();
      await page.keyboard.press("2");
      await page.getByText("The node does not describe its pipeline").waitFor();
      await page.keyboard.press("6");
      await page.getByText("The node does not say who reads").waitFor();
    } finally {
      mock.shape = (status) => status;
    }
  });

  test("the pipeline shows every shard, stage and stream", async () => {
    await open("#/pipeline");
    const status = await api<Status>("/v1/status");
    for (const id of [
      ...status.feeds!.map((feed) => `feed:${feed.source}`),
      ...status.shards!.map((shard) => `shard:${shard.shard}`),
      ...status.stages!.flatMap((stage) => [`stage:${stage.name}`, `stream:${stage.stream}`]),
    ]) {
      await page.getByTestId(id).waitFor();
    }
    expect(await cell("shards", "0", "events").innerText()).toBe(count(status.shards![0]!.events));
    expect(await cell("shards", "1", "watermark").innerText()).toBe(clockMillis(status.shards![1]!.watermark));
    // Edges end at boxes.
    expect(await page.getByTestId("graph").locator("path").count()).toBeGreaterThan(8);
  });

  test("a bar forms, closes and is amended before one's eyes", async () => {
    await open("#/keys/BTCUSD?stream=bars.1s");
    await field("close").filter({ hasText: /\d/ }).waitFor();
    const shown = async (ts_open: string) => {
      const key = String(ts_open);
      return page.getByTestId("records").locator(`.row[data-key^="${key} "]`);
    };
    const forming = (await history("bars.1s", "BTCUSD", 1))[0]!;
    mock.advance(1_000 - (mock.now_ms % 1_000) + 100);
    const closed = (await history("bars.1s", "BTCUSD", 5)).find((bar) => bar.ts_open === forming.ts_open)!;
    expect(closed.state).toBe("final");
    const line = await shown(forming.ts_open);
    await line.filter({ hasText: "final" }).waitFor();
    expect(await line.locator("[data-column=close]").innerText()).toBe(closed.close);

    // Go on until a bar is amended; the page must follow each.
    for (let i = 0; i < 120; i += 1) {
      mock.advance(1_000);
      const amended = (await history("bars.1s", "BTCUSD", 6)).find(
        (bar) => bar.state === "amended" && bar.ts_open > forming.ts_open,
      );
      if (!amended) continue;
      const own = await shown(amended.ts_open);
      await own.filter({ hasText: "amended" }).waitFor();
      expect(await own.locator("[data-column=rev]").innerText()).toBe(String(amended.rev));
      expect(await own.locator("[data-column=volume]").innerText()).toBe(amended.volume);
      return;
    }
    throw new Error("the mock amended nothing");
  });

  test("indicators belong to the bar under the crosshair, by keyboard", async () => {
    await open("#/keys/ETHUSD?stream=bars.1m");
    await field("close").filter({ hasText: /\d/ }).waitFor();
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("ArrowLeft");
    const bars = await history("bars.1m", "ETHUSD");
    const at = bars.at(-2)!;
    await field("ts_open")
      .filter({ hasText: clock(at.ts_open) })
      .waitFor();
    expect(await field("close").innerText()).toBe(at.close);
    const values = (await history<Row>("ind.1m", "ETHUSD")).find((one) => one.ts === at.ts)!;
    expect(await page.getByTestId("chip-vwap").locator("b").innerText()).toBe(at.vwap);
    expect(await page.getByTestId("chip-rsi_14").locator("b").innerText()).toBe(brief(values.values.rsi_14));
    // A minute has passed ten times: fewer than fourteen bars define no RSI, and the page does not make one up.
    expect(values.values.rsi_14).toBeNull();
  });

  test("2,000 keys: few rows exist, and those in view follow", async () => {
    await open("#/keys/BTCUSD");
    await page
      .getByTestId("key-count")
      .filter({ hasText: count(2_000) })
      .waitFor();
    const rows = page.getByTestId("keys").locator(".row");
    expect(await rows.count()).toBeLessThan(60);
    await page.getByTestId("keys").focus();
    await page.keyboard.press("End");
    const last = mock.names.at(-1)!;
    await row("keys", last).waitFor();
    expect(await rows.count()).toBeLessThan(60);
    await cell("keys", last, "close").filter({ hasText: /\d/ }).waitFor();
    mock.advance(1_000 - (mock.now_ms % 1_000) + 300);
    do mock.advance(100);
    while (!mock.active(last));
    const newest = (await history("bars.1s", last, 1))[0]!;
    await expect.poll(() => cell("keys", last, "close").innerText()).toBe(newest.close);
    await page.keyboard.press("Enter");
    await page.getByTestId("key").filter({ hasText: last }).waitFor();
  });

  test("a thousand updates later the page holds no more than before, and the newest of each", async () => {
    await open("#/keys/BTCUSD?stream=bars.1s");
    await cell("keys", mock.names[3]!, "close").filter({ hasText: /\d/ }).waitFor();
    const nodes = () => page.evaluate(() => document.querySelectorAll("*").length);
    const before = await nodes();
    for (let i = 0; i < 100; i += 1) mock.advance(100);
    while (!mock.active("BTCUSD")) mock.advance(100);
    const newest = (await history("bars.1s", "BTCUSD", 1))[0]!;
    await expect.poll(() => field("close").innerText()).toBe(newest.close);
    // Those that traded in the last step have been told of their newest bar.
    const traded = mock.names.slice(0, 10).filter((name) => mock.active(name));
    expect(traded.length).toBeGreaterThan(0);
    for (const name of traded) {
      const bar = (await history("bars.1s", name, 1))[0]!;
      await expect.poll(() => cell("keys", name, "close").innerText()).toBe(bar.close);
    }
    expect(await nodes()).toBeLessThan(before * 1.2);
  });

  test("search: by keyboard, without regard to case, and with nothing found", async () => {
    await open("#/keys/BTCUSD");
    await live();
    await page
      .getByTestId("key-count")
      .filter({ hasText: count(2_000) })
      .waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("btc");
    await page.getByTestId("key-count").filter({ hasText: "3 keys found" }).waitFor();
    const names = await page
      .getByTestId("keys")
      .locator(".row")
      .evaluateAll((rows) => rows.map((one) => (one as HTMLElement).dataset.key));
    expect(names).toEqual(["BTCEUR", "BTCUSD", "ETHBTC"]);
    await page.keyboard.press("Enter");
    await page.getByTestId("key").filter({ hasText: "BTCEUR" }).waitFor();
    await page.keyboard.type("zzz");
    await page.getByText("No key contains “btczzz”").waitFor();
    await page.keyboard.press("Escape");
    await page
      .getByTestId("key-count")
      .filter({ hasText: count(2_000) })
      .waitFor();
  });

  test("an unknown key is said to be one", async () => {
    await open("#/keys/NOPE");
    await page.getByText('There is no key "NOPE".').waitFor();
    heard.splice(0, heard.length, ...heard.filter((line) => !line.includes("404")));
  });

  test("hosts: all of them, sorted by what they did", async () => {
    await open("#/hosts");
    await page.getByText("hosts.1m: 420 hosts").waitFor();
    await page.getByTestId("hosts").getByRole("button", { name: "Unanswered" }).click();
    const { records } = await api<{ records: Row[] }>("/v1/latest?stream=hosts.1m&limit=1000");
    const worst = [...records].sort((a, b) => Number(b.values.unanswered) - Number(a.values.unanswered))[0]!;
    const first = page.getByTestId("hosts").locator(".row").first();
    await expect.poll(() => first.getAttribute("data-key")).toBe(worst.key);
    expect(await first.locator("[data-column=bytes_in]").innerText()).toBe(count(Number(worst.values.bytes_in)));
    expect(await first.locator("[data-column=peers]").innerText()).toBe(`≈${count(Number(worst.values.peers))}`);
    await first.click();
    await page.getByTestId("key").filter({ hasText: worst.key }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByTestId("key").waitFor({ state: "detached" });
  });

  test("subscribers: this page is one of them", async () => {
    await open("#/subscribers");
    await row("subscribers", "2").waitFor();
    expect(await cell("subscribers", "2", "dropped").innerText()).toBe("37");
    expect(await cell("subscribers", "2", "streams").innerText()).toBe("bars.1m, ind.1m");
    await page.getByTestId("subscribers").getByText("ws", { exact: true }).first().waitFor();
  });

  test("comes back by itself when the node was away, and says so meanwhile", async () => {
    const port = mock.port;
    await open("#/keys/BTCUSD?stream=bars.1s");
    await field("close").filter({ hasText: /\d/ }).waitFor();
    await mock.close();
    await page.getByTestId("banner").filter({ hasText: "Connection lost" }).waitFor();
    await page
      .getByTestId("link")
      .filter({ hasText: /Not connected|Reconnecting/ })
      .waitFor();
    expect(await field("close").innerText()).toMatch(/\d/); // what was heard stays

    mock = new Mock({ dist: "dist", started_s: 900 });
    await mock.listen(port);
    await live();
    await page.getByTestId("banner").waitFor({ state: "detached" });
    // What was missed is here, and new records arrive.
    const newest = (await history("bars.1s", "BTCUSD", 1))[0]!;
    await field("ts_open")
      .filter({ hasText: clock(newest.ts_open) })
      .waitFor();
    mock.advance(1_000);
    await field("ts_open")
      .filter({ hasText: clock(((await history("bars.1s", "BTCUSD", 1))[0] as Bar).ts_open) })
      .waitFor();
    // The browser itself reports the refused connections; nothing else may be wrong.
    heard.splice(0, heard.length, ...heard.filter((line) => !/WebSocket|ERR_CONNECTION/.test(line)));
  });

  test("dark and light: as the system says, until the reader says otherwise", async () => {
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await browser.close();
    await start({ colorScheme: "dark" });
    await open();
    await live();
    const dark = await background();
    await page.emulateMedia({ colorScheme: "light" });
    await expect.poll(background).not.toBe(dark);
    const light = await background();
    await page.keyboard.press("t");
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe("light");
    await page.keyboard.press("t");
    await expect.poll(background).toBe(dark);
    await page.reload();
    await live();
    expect(await background()).toBe(dark);
    await page.keyboard.press("t");
    await expect.poll(background).toBe(light);
  });

  test("the keyboard reaches everything, and `?` says how", async () => {
    await open();
    await live();
    await page.keyboard.press("?");
    const help = page.getByRole("dialog", { name: "Keys of the keyboard" });
    await help.getByText("Theme: automatic, light, dark").waitFor();
    await page.keyboard.press("Escape");
    await help.waitFor({ state: "detached" });
    await page.keyboard.press("3");
    await page.getByTestId("key").waitFor();
    const first = await page.getByTestId("key").innerText();
    await page.keyboard.press("j");
    await page.getByTestId("key").filter({ hasText: mock.names[1]! }).waitFor();
    await page.keyboard.press("k");
    await page.getByTestId("key").filter({ hasText: first }).waitFor();
    await page.keyboard.press("]");
    await page.getByRole("button", { name: "bars.1m", pressed: true }).waitFor();
    await page.keyboard.press("?");
    await help.getByText("Zoom in").waitFor();
  });

  test("a narrow screen: nothing is wider than it, list and chart take turns", async () => {
    await browser.close();
    await start({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    for (const hash of ["", "#/pipeline", "#/hosts", "#/subscribers", "#/keys"]) {
      await open(hash);
      await live();
      await page.locator("main .card").first().waitFor();
      expect(await page.evaluate(() => document.documentElement.scrollWidth), hash).toBeLessThanOrEqual(360);
      expect(await page.evaluate(() => document.querySelector("main")!.scrollWidth), hash).toBeLessThanOrEqual(360);
    }
    await row("keys", mock.names[2]!).tap();
    await page.getByTestId("candles").waitFor();
    expect(await page.getByTestId("keys").isVisible()).toBe(false);
    await page.getByRole("link", { name: "Back to the list" }).tap();
    await page.getByTestId("keys").waitFor();
  });
});
