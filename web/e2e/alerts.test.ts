/**
 * Alerts on the page of a real node that a capture and an exporter have given something to find: what the page shows equals what the
 * API says, and what is clicked is done. Runs with `TIDEGATE_BIN`, the program; the page is the one that was built into it.
 */
import { createSocket } from "node:dgram";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { AlertDetail, AlertList, Status, Stream, Traffic } from "../src/api/types";
import { against, standing } from "../src/lib/episode";
import { clock, count, float, when } from "../src/lib/format";
import { Browser, complaints } from "./browser";
import { Node } from "./node";

const BIN = process.env.TIDEGATE_BIN;

const host = (text: string) => text.split(".").map(Number);

/** A capture of raw IPv4 packets: so many ports of a host, each asked with SYN and refused. */
function capture(source: string, target: string, ports: number): Buffer {
  const words = (...all: number[]) => Buffer.from(new Uint32Array(all).buffer);
  const packet = (from: string, from_port: number, to: string, to_port: number, flags: number) =>
    Buffer.from([
      ...[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, ...host(from), ...host(to)],
      ...[from_port >> 8, from_port & 255, to_port >> 8, to_port & 255],
      ...[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0],
    ]);
  const parts = [words(0xa1b2c3d4, 0x00040002, 0, 0, 65_535, 101)];
  for (let i = 0; i < 2 * ports; i += 1) {
    const port = 1 + (i >> 1);
    parts.push(words(1_700_000_000 + Math.floor(i / 100), (i % 100) * 10_000, 40, 40));
    parts.push(i % 2 ? packet(target, port, source, 40_000, 0x14) : packet(source, 40_000, target, port, 2));
  }
  return Buffer.concat(parts);
}

/** NetFlow v5: connections of a few hosts to a few servers that went well, both directions. */
function exports(): Buffer[] {
  const record = (from: string, to: string, ports: [number, number], bytes: number, at: number) => {
    const buffer = Buffer.alloc(48);
    buffer.set([...host(from), ...host(to)]);
    buffer.writeUInt32BE(10, 16);
    buffer.writeUInt32BE(bytes, 20);
    buffer.writeUInt32BE(at, 24);
    buffer.writeUInt32BE(at + 900, 28);
    buffer.writeUInt16BE(ports[0], 32);
    buffer.writeUInt16BE(ports[1], 34);
    buffer.set([0, 0x1b, 6], 36);
    return buffer;
  };
  const records = Array.from({ length: 60 }, (_, i) => {
    const [from, to, port] = [`10.0.0.${20 + (i % 9)}`, `192.0.2.${1 + (i % 5)}`, 50_000 + i];
    return [
      record(from, to, [port, 443], 4_000 + i * 100, 590_000 + i * 20),
      record(to, from, [443, port], 90_000 + i * 1_000, 590_001 + i * 20),
    ];
  }).flat();
  const now_s = Math.floor(Date.now() / 1000);
  return Array.from({ length: records.length / 20 }, (_, i) => {
    const head = Buffer.alloc(24);
    head.set([0, 5, 0, 20]);
    head.writeUInt32BE(600_000, 4);
    head.writeUInt32BE(now_s, 8);
    head.writeUInt32BE(i * 20, 16);
    return Buffer.concat([head, ...records.slice(i * 20, i * 20 + 20)]);
  });
}

describe.skipIf(!BIN)("alerts of a real node", () => {
  const browser = new Browser();
  let node: Node;
  let folder: string;
  let page: Page;
  let heard: string[] = [];

  async function api<T>(path: string): Promise<T> {
    const response = await fetch(node.url + path);
    expect(response.ok, path).toBe(true);
    return (await response.json()) as T;
  }
  const list = (state = "open") => api<AlertList>(`/v1/alerts?state=${state}`);
  const open = (hash: string) => page.goto(`${node.url}/${hash}`);
  const row = (id: string) => page.getByTestId("alerts-table").locator(`.row[data-key="${id}"]`);

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tidegate-alerts-"));
    const [one, two] = [join(folder, "one.pcap"), join(folder, "two.pcap")];
    await writeFile(one, capture("10.0.0.66", "10.0.0.10", 40));
    await writeFile(two, capture("10.0.0.67", "10.0.0.11", 300));
    node = await Node.start(BIN!, "--flows", "127.0.0.1:0", "--traffic", one, "--traffic", two, "--anomaly", "volume");
    const [address, port] = node.exports[0]!.split(":") as [string, string];
    const socket = createSocket("udp4");
    for (const bytes of exports()) {
      await new Promise<void>((done, failed) =>
        socket.send(bytes, Number(port), address, (error) => (error ? failed(error) : done())),
      );
    }
    socket.close();
    await vi.waitFor(
      async () => {
        const { alerts } = await api<Status>("/v1/status");
        expect(alerts!.flows).toBeGreaterThanOrEqual(400);
        // What only counts up is written after five seconds.
        expect((await list()).alerts.map((one) => one.count).every((n) => n > 1)).toBe(true);
        expect((await list()).total).toBe(2);
      },
      { timeout: 30_000, interval: 100 },
    );
  }, 60_000);
  afterAll(async () => {
    await node.stop();
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    page = await browser.page();
    heard = complaints(page);
  });
  afterEach(async () => {
    await browser.close();
    expect(heard, "the page's console").toEqual([]);
  });

  test("the list says what the API says, worst first", async () => {
    await open("#/alerts");
    const { alerts, total } = await list();
    await page
      .getByTestId("alert-count")
      .filter({ hasText: `${alerts.length} of ${total}` })
      .waitFor();
    const shown = await page
      .getByTestId("alerts-table")
      .locator(".row")
      .evaluateAll((rows) =>
        rows.map((one) => [
          (one as HTMLElement).dataset.key,
          ...[...one.querySelectorAll<HTMLElement>("[data-column]")].map((c) => c.innerText.trim()),
        ]),
      );
    expect(shown).toEqual(
      alerts.map((one) => [
        ...[one.id, one.severity, one.kind, one.entity, against(one) || "–", one.score.toFixed(3), count(one.count)],
        ...[when(one.last_ts), standing(one)],
      ]),
    );
    expect(shown.map((one) => one[1])).toEqual(["high", "medium"]);
    // How many are open is beside the page's name.
    expect(await page.locator("nav .open-alerts").innerText()).toBe(String(total));
    await page.getByRole("searchbox", { name: "Search alerts" }).fill("10.0.0.66");
    await page
      .getByTestId("alert-count")
      .filter({ hasText: `1 of ${total}` })
      .waitFor();
    await page.getByRole("group", { name: "Severity" }).getByRole("button", { name: "High", exact: true }).click();
    await page.getByText("No alert contains").waitFor();
  });

  test("an alert shows its reasons, the flows behind it, and how to prove it", async () => {
    const { alerts } = await list();
    const id = alerts.find((one) => one.entity === "10.0.0.66")!.id;
    const alert = await api<AlertDetail>(`/v1/alerts/${id}`);
    await open("#/alerts");
    await row(id).click();
    await page.getByTestId("reasons").waitFor();
    expect(await page.getByTestId("alert-title").innerText()).toBe(alert.kind);
    const reasons = await page
      .getByTestId("reasons")
      .evaluate((one) =>
        [...(one as HTMLTableElement).tBodies[0]!.rows].map((r) => [...r.cells].slice(0, 3).map((c) => c.innerText)),
      );
    expect(reasons).toEqual(alert.features.map((one) => [one.name, float(one.seen), float(one.expected)]));
    const detail = page.getByRole("region", { name: "Alert", exact: true });
    const field = (name: string) => detail.locator(`[data-field=${name}]`);
    expect(await field("score").innerText()).toBe(alert.score.toFixed(3));
    expect(await field("count").innerText()).toBe(`${count(alert.count)} times`);
    const technique = field("technique").getByRole("link");
    expect(await technique.innerText()).toBe(alert.technique);
    expect(await technique.getAttribute("href")).toBe("https://attack.mitre.org/techniques/T1046/");
    expect(await page.getByTestId("replay").innerText()).toBe(alert.replay);
    expect(alert.flows.length).toBe(32);
    const flow = alert.flows.at(-1)!;
    const first = page.getByTestId("flows").locator(".row").first();
    expect(await first.locator("[data-column=originator]").innerText()).toBe(flow.originator);
    expect(await first.locator("[data-column=service]").innerText()).toBe(`${flow.protocol}/${flow.responder_port}`);
    expect(await first.locator("[data-column=state]").innerText()).toBe(flow.state);
    // The command on the page proves it.
    await node.run(...alert.replay!.split(" ").slice(1), "--data", node.folder);
    await page.keyboard.press("Escape");
    await detail.waitFor({ state: "detached" });
  });

  test("what is clicked is done, and seen by everybody", async () => {
    const id = (await list()).alerts.find((one) => one.entity === "10.0.0.66")!.id;
    await open(`#/alerts/${id}`);
    await page.getByRole("textbox", { name: "Note" }).fill("our own");
    await page.getByRole("button", { name: "Acknowledge" }).click();
    await page.getByTestId("said").filter({ hasText: "is acknowledged" }).waitFor();
    await page.locator("[data-field=state]").filter({ hasText: "acknowledged" }).waitFor();
    await row(id).waitFor({ state: "detached" });
    const acknowledged = await api<AlertDetail>(`/v1/alerts/${id}`);
    expect([acknowledged.status, acknowledged.note]).toEqual(["acknowledged", "our own"]);
    // What somebody else says is seen here.
    await node.run("alert", "ack", id, "--undo", "--data", node.folder);
    await row(id).waitFor();
    await page.getByRole("button", { name: "False positive" }).click();
    await page.getByTestId("said").filter({ hasText: "is told from a score of" }).waitFor();
    expect((await list("all")).alerts.find((one) => one.id === id)!.status).toBe("false-positive");
    await page.getByRole("button", { name: "Open again" }).click();
    await page.locator("[data-field=state]").filter({ hasText: "open" }).waitFor();
    expect((await list()).total).toBe(2);
  });

  test("who talks to whom is drawn as the API has it, and the keyboard leads through it", async () => {
    const traffic = await api<Traffic>("/v1/traffic?limit=40");
    await open("#/hosts?view=traffic");
    const picture = page.getByTestId("picture");
    await picture.waitFor();
    const drawn = await picture
      .locator("[data-host]")
      .evaluateAll((all) => all.map((one) => (one as SVGElement & { dataset: DOMStringMap }).dataset.host));
    expect(drawn.sort()).toEqual(traffic.hosts.map((one) => one.address).sort());
    expect(await picture.locator(".links path").count()).toBe(traffic.edges.length);
    const accused = await picture
      .locator(".accused")
      .evaluateAll((all) => all.map((one) => (one as SVGElement & { dataset: DOMStringMap }).dataset.host));
    expect(accused.sort()).toEqual(["10.0.0.66", "10.0.0.67"]);
    const line = await page.getByTestId("pairs").locator(".row").first().innerText();
    expect(line).toContain(traffic.edges[0]!.from);
    // One stop for the tabulator, arrows from there, and Enter opens.
    expect(await picture.locator("[tabindex='0']").count()).toBe(1);
    await picture.locator("[tabindex='0']").focus();
    const focused = () => page.evaluate(() => (document.activeElement as SVGElement | null)?.dataset.host ?? null);
    const start = await focused();
    const seen = new Set([start]);
    for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowLeft", "ArrowDown"]) {
      await page.keyboard.press(key);
      seen.add(await focused());
    }
    expect(seen.size).toBeGreaterThan(2);
    const chosen = await focused();
    await page.keyboard.press("Enter");
    await page.getByTestId("key").filter({ hasText: chosen! }).waitFor();
    expect(new URL(page.url()).hash).toBe(`#/hosts/${chosen}?view=traffic`);
  });

  test("a host has its figures, its alerts and its flows", async () => {
    await open("#/hosts/10.0.0.66?view=traffic");
    const around = await api<Traffic>("/v1/traffic?limit=40&host=10.0.0.66");
    const of = around.hosts.find((one) => one.address === "10.0.0.66")!;
    expect(await page.getByTestId("host-opened").locator("b").innerText()).toBe(count(of.opened));
    await page.getByTestId("host-alerts").filter({ hasText: "vertical-scan" }).waitFor();
    await page.getByRole("listitem").filter({ hasText: "vertical-scan" }).getByRole("link").click();
    await page.getByTestId("alert-title").filter({ hasText: "vertical-scan" }).waitFor();
  });

  test("a link to a host waits for the node to say whether it knows who talks to whom", async () => {
    // The status comes later than everything else that the page asks for, and no word of the other view is asked meanwhile.
    let statuses: string[] | null = [];
    let tell = (_: string) => {};
    await page.routeWebSocket(/\/v1\/ws$/, (socket) => {
      const server = socket.connectToServer();
      tell = (text) => socket.send(text);
      server.onMessage((message) => {
        const text = message.toString();
        if (statuses && (JSON.parse(text) as { op: string }).op === "status") statuses.push(text);
        else socket.send(text);
      });
    });
    const named = page.waitForResponse((response) => response.url().endsWith("/v1/streams"));
    // Nobody has a record of this one.
    await open("#/hosts/203.0.113.99?view=traffic");
    await (await named).finished();
    await page.getByText("Waiting for the first status").waitFor();
    await vi.waitFor(() => expect(statuses!.length).toBeGreaterThan(0));
    statuses.forEach(tell);
    statuses = null;
    await page.locator(".traffic-page").waitFor();
    // It asks who talked to that one, whom nobody knows; of the other view's questions there is none.
    await vi.waitFor(() => expect(heard.length).toBeGreaterThan(0));
    expect(heard.filter((complaint) => !complaint.includes("/v1/traffic?"))).toEqual([]);
    heard.length = 0;
  });

  test("an anomaly shows its series as it was, also when the key has gone on", async () => {
    const trade = (second: number) => {
      const ts = 1_767_623_400_000_000_000n + BigInt(second) * 1_000_000_000n;
      return `${ts},AAA,100.${10 + (second % 7)},${second === 1_500 ? 9_000 : 10 + ((second * 7) % 5)}`;
    };
    const csv = join(folder, "trades.csv");
    await writeFile(csv, ["ts,symbol,price,size", ...Array.from({ length: 2_400 }, (_, i) => trade(i)), ""].join("\n"));
    await node.publish("trades", csv);
    const anomalies = async () => (await list("all")).alerts.filter((one) => one.kind === "anomaly");
    await vi.waitFor(async () => expect((await anomalies()).length).toBeGreaterThan(0), { timeout: 20_000 });
    const worst = (await anomalies())[0]!;
    const alert = await api<AlertDetail>(`/v1/alerts/${worst.id}`);
    await open(`#/alerts/${worst.id}`);
    const sentence = page.getByTestId("sentence");
    await sentence.filter({ hasText: `of AAA, in ${alert.series!.stream}` }).waitFor();
    const legend = page.getByTestId("legend");
    const columns = (await api<{ streams: Stream[] }>("/v1/streams")).streams.find(
      (one) => one.name === alert.series!.stream,
    )!.columns;
    const row = alert.series!.rows.find((one) => one.ts === alert.range.last_ts)!;
    for (const name of ["value", "expected", "score"]) {
      expect(await legend.locator(`[data-field=${name}]`).innerText(), name).toBe(
        float(row.values[columns.indexOf(name)]),
      );
    }
    expect(await legend.locator("[data-field=ts]").innerText()).toBe(clock(row.ts));
  });

  test("everything fits a phone", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    const id = (await list()).alerts[0]!.id;
    for (const hash of ["#/alerts", `#/alerts/${id}`, "#/hosts?view=traffic", "#/hosts/10.0.0.66?view=traffic"]) {
      await open(hash);
      await page.locator("main h1, main h2").first().waitFor({ state: "attached" });
      await page.waitForLoadState("networkidle");
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect(wide, hash).toBeLessThanOrEqual(0);
    }
    const size = await page.getByTestId("picture").evaluate((one) => one.getBoundingClientRect().width);
    expect(size).toBeLessThanOrEqual(390);
  });
});
