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
        await page.clock.install();
        await page.goto(`${base}/`);
        await page.getByTestId("tile-events").waitFor();
        if (!process.env.TIDEGATE_URL) {
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
        await page.clock.runFor(100);
        await shoot("overview");
        await page.goto(`${base}/#/pipeline`);
        await page.clock.runFor(300);
        await page.clock.runFor(300);
        await shoot("pipeline");
        for (const [name, hash] of [
          ["keys", "#/keys/BTCUSD"],
          ["hosts", "#/hosts"],
          ["host", "#/hosts/10.0.1.104"],
          ["subscribers", "#/subscribers"],
        ]) {
          await page.goto(`${base}/${hash}`);
          await page.clock.runFor(400);
          await page.waitForLoadState("networkidle");
          if (name === "keys") {
            await page.getByTestId("records").locator(".row").first().waitFor();
            mock.advance(150);
            await page.clock.runFor(200);
          }
          for (let i = 0; i < 8; i += 1) await page.clock.runFor(100);
          await shoot(name!);
        }
        await page.keyboard.press("?");
        await shoot("help");
      });
    }
  }
});
