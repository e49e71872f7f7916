/** Pictures to look at: `SHOTS=1 npm run e2e`. Not a test of anything. */
import { afterAll, beforeAll, describe, test } from "vitest";
import { Mock } from "../mock/server";
import { Browser } from "./browser";

const SIZES = { wide: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } };

describe.runIf(process.env.SHOTS)("shots", () => {
  const browser = new Browser();
  const mock = new Mock({ dist: "dist" });
  let base = process.env.TIDEGATE_URL ?? "";

  beforeAll(async () => {
    if (!base) base = await mock.listen();
  });
  afterAll(async () => {
    await browser.close();
    await mock.close();
  });

  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const scheme of ["light", "dark"] as const) {
      test(`${size} ${scheme}`, { timeout: 120_000 }, async () => {
        const page = await browser.page({
          viewport,
          colorScheme: scheme,
          ...(size === "phone" && { deviceScaleFactor: 2 }),
        });
        const shoot = (name: string) => page.screenshot({ path: `e2e/shots/${size}-${scheme}-${name}.png` });
        const real = process.env.TIDEGATE_URL !== undefined;
        if (!real) await page.clock.install();
        /** Lets the page's time go on: by its own clock; a real node needs none. */
        const pass = async (ms: number) => {
          if (!real) return page.clock.runFor(ms);
          for (let i = 0; i < 2; i += 1) await page.evaluate(() => new Promise((done) => requestAnimationFrame(done)));
        };
        let key = "BTCUSD";
        if (real) {
          const { records } = (await (await fetch(`${base}/v1/latest?stream=bars.1s&limit=1`)).json()) as {
            records: { key: string }[];
          };
          key = records[0]!.key;
        }
        await page.goto(`${base}/`);
        await page.getByTestId("tile-events").waitFor();
        if (!real) {
          for (let i = 0; i < 200; i += 1) {
            // The page's clock and the mock's go together, one status at a time.
            const before = await page.getByTestId("tile-uptime").innerText();
            await page.clock.runFor(1_000);
            mock.advance(1_000);
            await page.waitForFunction(
              (old) => document.querySelector<HTMLElement>("[data-testid=tile-uptime]")?.innerText !== old,
              before,
            );
          }
        }
        await pass(100);
        await shoot("overview");
        await page.goto(`${base}/#/pipeline`);
        await pass(300);
        await pass(300);
        await shoot("pipeline");
        for (const [name, hash] of [
          ["keys", `#/keys/${encodeURIComponent(key)}`],
          ["hosts", "#/hosts"],
          ["host", "#/hosts/10.0.1.104"],
          ["alerts", "#/alerts?state=all"],
          ["talk", "#/hosts?view=traffic"],
          ["subscribers", "#/subscribers"],
        ]) {
          await page.goto(`${base}/${hash}`);
          await pass(400);
          if (!real) await page.waitForLoadState("networkidle");
          if (name === "keys") {
            await page.getByTestId("records").locator(".row").first().waitFor();
            mock.advance(150);
            await pass(200);
          }
          for (let i = 0; i < 8; i += 1) await pass(100);
          await shoot(name!);
        }
        await page.keyboard.press("?");
        await shoot("help");
      });
    }
  }

  test.skipIf(process.env.TIDEGATE_URL)("states", { timeout: 60_000 }, async () => {
    const away = new Mock({ dist: "dist", hosts: 0 });
    const page = await browser.page({ viewport: { width: 1100, height: 760 } });
    const shoot = (name: string) => page.screenshot({ path: `e2e/shots/state-${name}.png` });
    await page.goto(`${await away.listen()}/#/keys/ETHBTC?stream=bars.1s`);
    const chart = page.getByTestId("candles");
    await chart.locator("canvas").waitFor();
    await page.keyboard.press("+");
    await page.keyboard.press("+");
    await chart.hover({ position: { x: 300, y: 90 } });
    await page.getByTestId("legend").and(page.locator("[data-hovered=true]")).waitFor();
    await page.evaluate(() => new Promise(requestAnimationFrame));
    await shoot("crosshair");
    await page.keyboard.press("4");
    await page.getByText("No stream of hosts").waitFor();
    await shoot("no-hosts");
    await page.keyboard.press("1");
    await page.getByTestId("tile-events").waitFor();
    away.shape = (status) => ({ ...status, latency_ns: null, feeds: [] });
    away.advance(1_000);
    await page.getByText("No feed has connected").waitFor();
    await away.close();
    await page.getByTestId("banner").waitFor();
    await shoot("lost");
  });
});
