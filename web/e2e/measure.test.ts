/**
 * How smooth the page is: `MEASURE=1 npm run e2e -- e2e/measure.test.ts` prints frame times, long tasks and the page's weight while
 * 2,000 keys are told ten updates a second: those of a real node and a made-up market with `TIDEGATE_BIN`, else of the mock. Figures,
 * not a test: they belong to the machine they were taken on.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Page } from "playwright-core";
import { describe, test, vi } from "vitest";
import { Mock } from "../mock/server";
import type { KeyPage, Status } from "../src/api/types";
import { Browser } from "./browser";
import { Node } from "./node";

const SECONDS = 10;
const BIN = process.env.TIDEGATE_BIN;
/** A market that, at 220 times its speed, closes about 20,000 bars of a second in each second: ten of each of 2,000 symbols. */
const MARKET = ["generate", "market", "--symbols", "2000", "--events", "60000000", "--speed", "220"];

interface Found {
  /** Milliseconds between two frames. */
  frames: number[];
  /** Milliseconds of tasks over 50. */
  long: number[];
}

/** Frames and long tasks of the page from now on. */
function watch(page: Page, seconds: number): Promise<Found> {
  return page.evaluate(
    (seconds) =>
      new Promise<Found>((done) => {
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
    seconds,
  );
}

function tell(what: string, { frames, long }: Found): void {
  frames.sort((a, b) => a - b);
  const at = (share: number) => frames[Math.min(frames.length - 1, Math.floor(frames.length * share))]!.toFixed(1);
  const blocked = (long.reduce((a, b) => a + b, 0) / (SECONDS * 1_000)) * 100;
  const longest = Math.max(0, ...long).toFixed(0);
  console.log(
    `${what}: ${frames.length} frames in ${SECONDS} s; frame time median ${at(0.5)}, p95 ${at(0.95)}, p99 ${at(0.99)}, most ${at(1)} ms; ` +
      `long tasks (over 50 ms): ${long.length}, longest ${longest} ms, ${blocked.toFixed(1)} % of the time`,
  );
}

async function weigh(folder: string): Promise<void> {
  let [all, packed] = [0, 0];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const bytes = await readFile(join(entry.parentPath, entry.name));
    all += bytes.length;
    packed += gzipSync(bytes, { level: 9 }).length;
  }
  console.log(`the page weighs ${(all / 1_000).toFixed(1)} kB, ${(packed / 1_000).toFixed(1)} kB with gzip`);
}

describe.runIf(process.env.MEASURE)("measure", () => {
  test.skipIf(!BIN)("2,000 symbols of a real node at ten updates a second", { timeout: 180_000 }, async () => {
    await weigh("dist");
    const browser = new Browser();
    const node = await Node.start(BIN!);
    const end = node.publishing("market", ...MARKET);
    try {
      const status = async () => (await (await fetch(`${node.url}/v1/status`)).json()) as Status;
      // All symbols are there, and rates have been taken.
      await vi.waitFor(
        async () => {
          const { keys, events } = await status();
          if ((keys ?? 0) < 2_000 || !events?.rate) throw new Error(`${keys} keys`);
        },
        { timeout: 60_000, interval: 250 },
      );
      const stream = "bars.1s";
      const { keys } = (await (await fetch(`${node.url}/v1/keys?stream=${stream}&limit=1`)).json()) as KeyPage;
      const page = await browser.page();
      for (const [what, hash, ready] of [
        ["keys and candles", `#/keys/${encodeURIComponent(keys[0]!.name)}?stream=${stream}`, "records"],
        ["all keys", "#/keys", "keys"],
        ["overview", "#/", "tile-events"],
        ["pipeline", "#/pipeline", null],
      ] as const) {
        await page.goto(`${node.url}/${hash}`);
        await page.locator(".app[data-phase=live]").waitFor();
        if (ready === "tile-events") await page.getByTestId(ready).waitFor();
        else if (ready) await page.getByTestId(ready).locator(".row").first().waitFor();
        const before = (await status()).stages!.find((stage) => stage.stream === stream)!.outputs!;
        const start = performance.now();
        const found = await watch(page, SECONDS);
        const after = (await status()).stages!.find((stage) => stage.stream === stream)!.outputs!;
        const each = (after - before) / ((performance.now() - start) / 1_000) / 2_000;
        tell(`${what}, ${each.toFixed(1)} updates a second and symbol`, found);
        if (process.env.SHOTS) await page.screenshot({ path: `e2e/shots/measure-${ready ?? "pipeline"}.png` });
      }
    } finally {
      await browser.close();
      await end();
      await node.stop();
    }
  });

  test.skipIf(BIN)("2,000 keys of the mock at ten updates a second", { timeout: 120_000 }, async () => {
    const browser = new Browser();
    const mock = new Mock({ dist: "dist", hosts: 0 });
    const page = await browser.page();
    try {
      await page.goto(`${await mock.listen()}/#/keys/BTCUSD?stream=bars.1s`);
      await page.getByTestId("keys").locator(".row").first().waitFor();
      await page.getByTestId("records").locator(".row").first().waitFor();
      const beat = setInterval(() => mock.advance(100), 100);
      tell("keys and candles", await watch(page, SECONDS));
      clearInterval(beat);
    } finally {
      await browser.close();
      await mock.close();
    }
  });
});
