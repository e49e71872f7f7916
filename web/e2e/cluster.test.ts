/** The cluster's page: against the mock, and with `TIDEGATE_BIN` on three real nodes of which the leader is killed. */
import { spawn, type ChildProcess } from "node:child_process";
import { createSocket, type Socket } from "node:dgram";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { busy, ONE_GONE, several, WELL } from "../mock/cluster";
import { Mock } from "../mock/server";
import type { Cluster } from "../src/api/types";
import { count } from "../src/lib/format";
import { Browser, complaints } from "./browser";

const BIN = process.env.TIDEGATE_BIN;
const browser = new Browser();
/** The page hears of the node once a second, and the machine may be busy. */
const SOON = { timeout: 15_000 };

let page: Page;
let heard: string[] = [];

async function start(wishes: Parameters<Browser["page"]>[0] = {}): Promise<void> {
  page = await browser.page(wishes);
  heard = complaints(page);
}
afterEach(async () => {
  await browser.close();
  expect(heard, "the page's console").toEqual([]);
});

const box = (node: number) => page.getByTestId("cluster-map").locator(`.node-box[data-node="${node}"]`);
const cell = (node: number, column: string) =>
  page.getByTestId("cluster-nodes").locator(`.row[data-key="${node}"] [data-column="${column}"]`);

describe("a made-up cluster", () => {
  const mock = new Mock({ dist: "dist", symbols: 10, hosts: 0, live: true });
  let base = "";
  beforeAll(async () => {
    base = await mock.listen();
  });
  afterAll(() => mock.close());

  test("a node that stands alone has no such page", async () => {
    mock.cluster = null;
    await start();
    await page.goto(base);
    await page.getByTestId("tile-events").waitFor();
    expect(await page.getByRole("link", { name: "Cluster" }).count()).toBe(0);
    await page.keyboard.press("7");
    expect(new URL(page.url()).hash).not.toContain("cluster");
    await page.goto(`${base}/#/cluster`);
    await page.getByText("This node stands alone").waitFor();
    expect(mock.requests.filter((path) => path.startsWith("/v1/cluster"))).toEqual([]);
  });

  test("says who leads, how far each is, and what to mind", async () => {
    mock.cluster = WELL;
    await start();
    await page.goto(base);
    await page.getByRole("link", { name: "Cluster" }).waitFor();
    await page.keyboard.press("7");
    await page.getByText("1 may be lost and feeds go on").waitFor();
    expect(await page.getByTestId("tile-leader").locator("b").innerText()).toBe("node 1");
    expect(await page.getByTestId("tile-isr").locator("b").innerText()).toBe("3 of 3");
    expect(await cell(3, "lag").innerText()).toBe("1");
    expect(await cell(1, "committed").innerText()).toBe(count(WELL.committed));
    expect(await page.getByTestId("cluster-changes").locator(".row").count()).toBe(WELL.changes.length);
    mock.cluster = ONE_GONE;
    await page.getByTestId("cluster-warnings").locator("[data-code=one_more_loss]").waitFor();
    expect(await box(3).getAttribute("data-tone")).toBe("bad");
    await page.locator("nav .dot.warn").waitFor();
    mock.cluster = {
      ...ONE_GONE,
      leader: null,
      warnings: [{ code: "no_leader", severity: "bad", text: "nobody leads" }],
    };
    await page.locator("nav .dot.bad").waitFor();
    await expect.poll(() => page.getByTestId("tile-leader").locator("b").innerText(), SOON).toBe("none");
  });

  test("of many groups each is shown, found, and chosen without a mouse", async () => {
    mock.cluster = several(64);
    await start();
    await page.goto(`${base}/#/cluster`);
    await page.getByText("Each of 64 groups is in sync wherever it is held: 1 may be lost").waitFor();
    const table = page.getByTestId("cluster-groups");
    const map = page.getByTestId("slot-map");
    const detail = page.getByTestId("group-detail");
    const pick = (name: string) => page.getByRole("button", { name, exact: true });
    const of = (group: number, column: string) =>
      table.locator(`.row[data-key="${group}"] [data-column="${column}"]`).innerText();
    expect(await table.getAttribute("aria-rowcount")).toBe("65");
    expect(await map.locator("[data-group]").count()).toBe(64);
    expect(await page.getByRole("region", { name: "zone north" }).locator(".node-box").count()).toBe(2);
    expect([await of(0, "node-1"), await of(0, "node-2"), await of(0, "node-4")]).toEqual([
      "leads",
      "2 behind",
      "relays 3",
    ]);

    // What happens is seen without anything being touched; then only what is to be minded is listed.
    mock.cluster = busy(64);
    await page.getByTestId("cluster-warnings").locator("[data-code=no_leader]").waitFor();
    expect(await map.locator(".bad").getAttribute("data-group")).toBe("2");
    expect(await map.locator(".mark").count()).toBe(3);
    expect(await page.getByTestId("tile-moving").innerText()).toContain("3 slots");
    await pick("to mind 3").press("Enter");
    await expect.poll(() => table.locator(".row").count(), SOON).toBe(3);
    expect([await of(2, "leader"), await of(5, "node-2")]).toEqual(["none", "out 5.21\u202fk"]);
    await pick("under way 4").press("Enter");
    await expect.poll(() => table.locator(".row").count(), SOON).toBe(4);
    expect([await of(7, "node-1"), await of(0, "slots")]).toEqual(["comes 39 %", "63, 3 leave"]);

    // By keys down to the last of them, whose slots are shown in the map and in words.
    await table.focus();
    await page.keyboard.press("End");
    await page.keyboard.press("Enter");
    await detail.getByText("a copy comes in place of node 4").waitFor();
    expect(await detail.innerText()).toContain("448 to 511");
    expect(await map.locator(".on").getAttribute("data-group")).toBe("7");
    await map.locator('[data-group="63"]').click();
    await detail.getByText(`${count(4_032)} to ${count(4_095)}`).waitFor();
    await pick("all 64").press("Enter");
    // Twice: what stands worst at a node comes first.
    const sort = table.getByRole("button", { name: "Node 2" });
    await sort.press("Enter");
    await sort.press("Enter");
    await expect.poll(() => table.locator(".row").first().getAttribute("data-key"), SOON).toBe("5");
  });

  test.each([1, 64])("fits a phone with %i groups, in the dark too", async (many) => {
    mock.cluster = many > 1 ? busy(many) : ONE_GONE;
    await start({ viewport: { width: 390, height: 844 }, colorScheme: "dark" });
    await page.goto(`${base}/#/cluster`);
    await box(3).waitFor();
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth)).toBe(true);
    const main = await page.locator("main").evaluate((one) => one.scrollWidth <= one.clientWidth);
    expect(main, "nothing is wider than the page").toBe(true);
  });
});

/** Ports nobody uses now. */
async function ports(many: number): Promise<number[]> {
  const sockets = await Promise.all(
    Array.from({ length: many }, () => {
      const socket = createSocket("udp4");
      return new Promise<Socket>((done) => socket.bind(0, "127.0.0.1", () => done(socket)));
    }),
  );
  const found = sockets.map((socket) => socket.address().port);
  await Promise.all(sockets.map((socket) => new Promise<void>((done) => socket.close(done))));
  return found;
}

describe.skipIf(!BIN)("three real nodes", () => {
  let folder = "";
  const nodes: { process: ChildProcess; url: string }[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tidegate-cluster-"));
    const free = await ports(6);
    const places = [0, 1, 2].flatMap((at) => ["--node", `${at + 1}=127.0.0.1:${free[at]}:${free[at + 3]}`]);
    const init = spawn(BIN!, ["cluster", "init", join(folder, "lab"), ...places], { stdio: "ignore" });
    expect(await new Promise((done) => init.once("exit", done))).toBe(0);
    for (const node of [1, 2, 3]) {
      const what = ["serve", "--cluster", join(folder, "lab", `node-${node}`), "--http", "127.0.0.1:0", "--bars", "1s"];
      const served = spawn(BIN!, [...what, "--json", "--quiet"], { stdio: ["ignore", "pipe", "ignore"] });
      process.once("exit", () => served.kill("SIGKILL"));
      const first = await createInterface({ input: served.stdout })[Symbol.asyncIterator]().next();
      if (first.done) throw new Error(`node ${node} ended before it listened`);
      nodes.push({ process: served, url: (JSON.parse(first.value) as { http: string }).http });
    }
  }, 120_000);
  afterAll(async () => {
    for (const { process } of nodes) process.kill("SIGKILL");
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(() => start());

  const seen = async (node: number) => (await (await fetch(`${nodes[node - 1]!.url}/v1/cluster`)).json()) as Cluster;

  test("the page follows a fail-over", { timeout: 180_000 }, async () => {
    await expect.poll(async () => (await seen(1)).isr.length, { timeout: 60_000 }).toBe(3);
    const { leader } = await seen(1);
    const other = leader === 1 ? 2 : 1;
    await page.goto(`${nodes[other - 1]!.url}/#/cluster`);
    await box(leader!).locator("text=leads").waitFor();
    for (const node of [1, 2, 3]) await expect.poll(() => box(node).getAttribute("data-tone"), SOON).toBe("good");
    await page.getByText("1 may be lost and feeds go on").waitFor();
    nodes[leader! - 1]!.process.kill("SIGKILL");
    await page.getByTestId("cluster-changes").getByText("fail-over").first().waitFor();
    await page.getByTestId("cluster-warnings").locator("[data-code=one_more_loss]").waitFor();
    const tile = (name: string) => page.getByTestId(name).locator("b").innerText();
    await expect
      .poll(async () => {
        const now = (await seen(other)).leader;
        return now !== leader && (await tile("tile-leader")) === `node ${now}`;
      }, SOON)
      .toBe(true);
    await expect.poll(() => box(leader!).getAttribute("data-tone"), SOON).toBe("bad");
    await expect.poll(() => tile("tile-isr"), SOON).toBe("2 of 3");
  });
});
