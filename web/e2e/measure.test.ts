/**
 * How smooth the page is: `MEASURE=1 npm run e2e -- e2e/measure.test.ts` prints frame times and long tasks while every one of 2,000
 * keys is told ten updates a second. Figures, not a test: they belong to the machine they were taken on.
 */
import { describe, test } from "vitest";
import { Mock } from "../mock/server";
import { Browser } from "./browser";

const SECONDS = 20;

describe.runIf(process.env.MEASURE)("measure", () => {
  test("2,000 keys at ten updates a second", { timeout: 120_000 }, async () => {
    const browser = new Browser();
    const mock = new Mock({ dist: "dist", hosts: 0 });
    const page = await browser.page();
    try {
      await page.goto(`${await mock.listen()}/#/keys/BTCUSD?stream=bars.1s`);
      await page.getByTestId("keys").locator(".row").first().waitFor();
      await page.getByTestId("records").locator(".row").first().waitFor();
      const beat = setInterval(() => mock.advance(100), 100);
      const result = await page.evaluate(
        (seconds) =>
          new Promise<{ frames: number[]; long: number[] }>((done) => {
            const [frames, long]: [number[], number[]] = [[], []];
            const observer = new PerformanceObserver((list) =>
              long.push(...list.getEntries().map((entry) => entry.duration)),
            );
            observer.observe({ type: "longtask" });
            const start = performance.now();
            let last = start;
            const step = (now: number) => {
              frames.push(now - last);
              last = now;
              if (now - start < seconds * 1_000) requestAnimationFrame(step);
              else done({ frames: frames.slice(1), long });
            };
            requestAnimationFrame(step);
          }),
        SECONDS,
      );
      clearInterval(beat);
      const frames = result.frames.sort((a, b) => a - b);
      const at = (share: number) => frames[Math.min(frames.length - 1, Math.floor(frames.length * share))]!.toFixed(1);
      const blocked = result.long.reduce((a, b) => a + b, 0);
      const longest = Math.max(0, ...result.long);
      console.log(
        `${frames.length} frames in ${SECONDS} s; frame time p50 ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)} ms; ` +
          `long tasks (over 50 ms): ${result.long.length}, longest ${longest.toFixed(0)} ms, ` +
          `${((blocked / (SECONDS * 1_000)) * 100).toFixed(1)} % of the time`,
      );
    } finally {
      await browser.close();
      await mock.close();
    }
  });
});
