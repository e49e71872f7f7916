/** One headless Chromium for a test file. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type BrowserContext, type Page } from "playwright-core";

const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

type Wishes = NonNullable<Parameters<typeof chromium.launchPersistentContext>[1]>;

export class Browser {
  #opened: { context: BrowserContext; folder: string }[] = [];

  /** A page of its own, with a profile nobody has used. */
  async page(wishes: Wishes = {}): Promise<Page> {
    const folder = await mkdtemp(join(tmpdir(), "tidegate-web-"));
    const context = await chromium.launchPersistentContext(folder, {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ARGUMENTS,
      viewport: { width: 1440, height: 900 },
      reducedMotion: "reduce",
      timezoneId: "UTC",
      ...wishes,
    });
    context.setDefaultTimeout(30_000);
    this.#opened.push({ context, folder });
    return context.pages()[0] ?? context.newPage();
  }

  async close(): Promise<void> {
    for (const { context, folder } of this.#opened.splice(0)) {
      await context.close();
      await rm(folder, { recursive: true, force: true });
    }
  }
}

/** Everything the page complained about: exceptions, console errors, refusals of the Content-Security-Policy. */
export function complaints(page: Page): string[] {
  const heard: string[] = [];
  page.on("pageerror", (error) => heard.push(String(error)));
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    heard.push(`${message.text()} (${message.location().url})`);
  });
  return heard;
}
