/** What a real node derives from bars, as its page shows it: equal to what the API says. Runs with `TIDEGATE_BIN`. */
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { AlertDetail, AlertList, Row } from "../src/api/types";
import { clock, count, DASH, float, percent, short, when } from "../src/lib/format";
import { Browser, complaints } from "./browser";
import { Node } from "./node";

const BIN = process.env.TIDEGATE_BIN;
/** What is on its way to the page, on a machine that may be busy. */
const SOON = { timeout: 15_000 };

describe.skipIf(!BIN)("what a real node derives", () => {
  const browser = new Browser();
  let node: Node;
  let page: Page;
  let heard: string[] = [];

  const latest = async (stream: string) => {
    const response = await fetch(`${node.url}/v1/latest?stream=${stream}&limit=1000`);
    expect(response.ok, stream).toBe(true);
    return ((await response.json()) as { records: Row[] }).records;
  };
  const texts = (table: string, key: string) =>
    page
      .getByTestId(table)
      .locator(`.row[data-key="${key}"] [data-column]`)
      .evaluateAll((cells) => cells.map((cell) => cell.textContent ?? ""));
  const written = (value: unknown) => (value === null || value === undefined ? DASH : short(Number(value)));

  beforeAll(async () => {
    const rule = "busy: bars.1s(trades >= 1) times 3 within 1m";
    const derived = ["--surface", "rsi:2..20", "--spectrum", "--risk", "60b"];
    node = await Node.start(BIN!, "--bars", "1h", ...derived, "--pattern", rule);
    await node.publish("market", "generate", "market", "--symbols", "12", "--events", "60000");
    // Everything has been computed once each stream has a row of the newest step, and stays.
    await vi.waitFor(
      async () => {
        const newest = async (stream: string) =>
          (await latest(stream))
            .map((row) => row.ts)
            .sort()
            .at(-1);
        const bars = await newest("bars.1s");
        expect(bars).toBeDefined();
        for (const stream of ["surface.rsi-1s", "surface.rsi-1s.2", "corr.spectrum-1s", "risk.var-1s"]) {
          expect(await newest(stream), stream).toBe(bars);
        }
        expect((await latest("risk.var-1s"))[0]!.values.ready).toBe(1);
        expect((await latest("risk.var-1h")).length).toBe(1);
        const alerts = await fetch(`${node.url}/v1/alerts?kind=pattern:busy`);
        expect(((await alerts.json()) as AlertList).total).toBeGreaterThan(0);
      },
      { timeout: 60_000, interval: 100 },
    );
  }, 120_000);
  afterAll(async () => {
    expect((await node.stop()).imbalance).toBe(0);
  });
  beforeEach(async () => {
    page = await browser.page();
    heard = complaints(page);
  });
  afterEach(async () => {
    await browser.close();
    expect(heard, "the page's console").toEqual([]);
  });

  test("a surface is a heat map of every symbol, and of one over time", async () => {
    await page.goto(`${node.url}/#/surfaces?stream=surface.rsi-1s`);
    const [first, second] = await Promise.all([latest("surface.rsi-1s"), latest("surface.rsi-1s.2")]);
    await page.getByText(`surface.rsi-1s: ${count(first.length)} symbols × ${count(19)} parameters`).waitFor();
    for (const row of [...first].sort((a, b) => (a.key < b.key ? -1 : 1)).slice(0, 5)) {
      const { bars, ...values } = row.values;
      const more = second.find((one) => one.key === row.key)!.values;
      const all = [
        ...Object.values(values),
        ...Object.entries(more).flatMap(([name, v]) => (name === "bars" ? [] : [v])),
      ];
      // The page asks for both streams, and draws what it has.
      const line = [row.key, count(Number(bars)), ...all.map(written)];
      await expect.poll(() => texts("surface", row.key), SOON).toEqual(line);
    }
    // Values are coloured by where they lie; the extremes are not pale.
    const parts = await page
      .getByTestId("surface")
      .locator(".heat")
      .evaluateAll((cells) => cells.map((cell) => parseInt((cell as HTMLElement).style.getPropertyValue("--part"))));
    expect(Math.max(...parts.filter(Number.isFinite))).toBeGreaterThan(60);
    const one = first[0]!;
    await page.getByTestId("surface").locator(`.row[data-key="${one.key}"]`).click();
    await page.getByTestId("surface-time").locator(`.row[data-key="${one.ts}"]`).waitFor();
    await expect
      .poll(async () => (await texts("surface-time", one.ts)).slice(0, 3), SOON)
      .toEqual([clock(one.ts), count(Number(one.values.bars)), written(one.values.rsi_2)]);
    await page.keyboard.press("Escape");
    await page.getByTestId("surface-time").waitFor({ state: "detached" });
  });

  test("an alert of a rule over results shows the rows that it was found in", async () => {
    const api = async <T>(path: string) => (await (await fetch(`${node.url}/v1/alerts${path}`)).json()) as T;
    const { alerts } = await api<AlertList>("?kind=pattern:busy");
    const alert = await api<AlertDetail>(`/${alerts[0]!.id}`);
    const newest = alert.rows!.at(-1)!;
    expect(newest).toMatchObject({ stream: "bars.1s", key: alert.entity });
    await page.goto(`${node.url}/#/alerts/${alert.id}`);
    const row = page.getByTestId("found-in").locator(".row").first();
    expect(await row.locator("[data-column=ts]").innerText()).toBe(when(newest.ts));
    expect(await row.locator("[data-column=stream]").innerText()).toBe("bars.1s");
    expect(await row.locator("[data-column=values]").innerText()).toContain(
      `close ${float(Number(newest.values.close))}`,
    );
  });

  test("a spectrum and a risk say what they are of, and what is still learning says that", async () => {
    await page.goto(`${node.url}/#/surfaces?stream=corr.spectrum-1s`);
    const [spectrum] = await latest("corr.spectrum-1s");
    const state = page.getByTestId("derived-state");
    await state
      .filter({ hasText: `${count(Number(spectrum!.values.symbols))} symbols over the last 60 bars` })
      .waitFor();
    await page.getByRole("button", { name: "risk.var-1s" }).click();
    const [risk] = await latest("risk.var-1s");
    const legend = page.getByTestId("risk");
    await legend.filter({ hasText: percent(Number(risk!.values.var_95)) }).waitFor();
    await legend.filter({ hasText: percent(Number(risk!.values.var_high_99)) }).waitFor();
    await page.getByRole("button", { name: "risk.var-1h" }).click();
    const [learning] = await latest("risk.var-1h");
    expect(learning!.values).toMatchObject({ ready: 0, var_95: null });
    await state.filter({ hasText: `Still learning: ${count(Number(learning!.values.bars))} bars so far` }).waitFor();
  });
});
