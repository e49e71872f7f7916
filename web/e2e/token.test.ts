/**
 * The page of a real node that asks for tokens: it asks for one, keeps it in the tab, says when it ends, and goes on with the next.
 * Runs with `TIDEGATE_BIN`.
 */
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Browser, complaints } from "./browser";
import { Node } from "./node";

const BIN = process.env.TIDEGATE_BIN;

describe.skipIf(!BIN)("a node that asks for tokens", () => {
  const browser = new Browser();
  let node: Node;
  let page: Page;
  let heard: string[] = [];
  /** Everything that left the page with an address. */
  let addresses: string[] = [];
  let sockets = 0;
  let sent: string[] = [];

  const panel = () => page.getByTestId("token");
  const live = () => page.locator(".app[data-phase=live]").waitFor();
  const refused = () => page.locator(".app[data-phase=refused]").waitFor();
  const give = async (token: string) => {
    await panel().getByRole("textbox").fill(token);
    await panel().getByRole("button", { name: "Use it" }).click();
  };
  const bearer = (principal: string, ttl: string, ...more: string[]) => node.token(principal, ttl, "--bearer", ...more);
  const ops = (op: string) => sent.filter((text) => text.includes(`"op":"${op}"`)).length;

  beforeAll(async () => {
    node = await Node.startAsking(BIN!);
    const file = join(node.folder, "feed.token");
    await node.token("feed", "5m", "--verbs", "publish", "--out", file);
    await node.publish("market", "generate", "market", "--symbols", "60", "--events", "100000", "--token", file);
  });
  afterAll(async () => {
    expect((await node.stop()).imbalance).toBe(0);
  });
  beforeEach(async () => {
    page = await browser.page();
    heard = complaints(page);
    [addresses, sockets, sent] = [[], 0, []];
    page.on("request", (request) => addresses.push(request.url()));
    page.on("websocket", (socket) => {
      sockets += 1;
      addresses.push(socket.url());
      socket.on("framesent", ({ payload }) => sent.push(String(payload)));
    });
  });
  afterEach(async () => {
    await browser.close();
    // The browser itself reports answers of 401 and 403; nothing else may be wrong.
    expect(
      heard.filter((line) => !/status of 40[13]/.test(line)),
      "the page's console",
    ).toEqual([]);
  });

  test("it asks who is there, says why not, lets in, remembers and forgets", async () => {
    await page.goto(`${node.url}/#/keys`);
    await refused();
    await panel()
      .getByText(/Show who you are/)
      .waitFor();
    await give("nonsense");
    await panel()
      .getByText(/The token cannot be read/)
      .waitFor();
    await refused();
    expect(await page.evaluate(() => sessionStorage.length)).toBe(0);

    const token = await bearer("desk", "5m");
    await give(`Bearer ${token}\n`);
    await live();
    await page.getByTestId("keys").locator(".row").first().waitFor();
    expect(await panel().count()).toBe(0);
    expect(await page.getByTestId("session").innerText()).toMatch(/^desk\s*[45] min$/);
    const stored = () =>
      page.evaluate(() => [Object.values({ ...sessionStorage }), Object.values({ ...localStorage }).join()] as const);
    expect((await stored())[0]).toEqual([token]);

    // As somebody, after a load too, without being asked.
    await page.reload();
    await live();
    await page.getByTestId("keys").locator(".row").first().waitFor();
    expect(await page.getByTestId("session").innerText()).toContain("desk");
    expect(await panel().count()).toBe(0);

    await page.getByTestId("session").click();
    await panel()
      .getByText(/The token of desk expires at \d\d:\d\d:\d\d/)
      .waitFor();
    await panel().getByRole("button", { name: "Forget" }).click();
    await refused();
    await panel().waitFor();
    const [tab, kept] = await stored();
    expect(tab).toEqual([]);
    expect(kept).not.toContain(token);
    expect(await page.getByTestId("keys").count()).toBe(0);
    expect([page.url(), ...addresses].filter((address) => address.includes(token.slice(0, 20)))).toEqual([]);
  });

  test("a fresh token before the end keeps the connection and what is subscribed; after the end it begins anew", async () => {
    await page.goto(`${node.url}/#/keys`);
    await panel().waitFor();
    // The page asks for the next in the minute before its end, so a little later: by then it has subscribed to what it shows.
    await give(await bearer("desk", "62s"));
    await live();
    await page.getByTestId("keys").locator(".row").first().locator("[data-column=close]").waitFor();
    // So near its end the page asks for the next by itself.
    await panel()
      .getByText(/The token of desk expires at .*, in \d+\ss/)
      .waitFor();
    const before = [sockets, ops("subscribe")];
    await give(await bearer("desk", "5m"));
    await panel().waitFor({ state: "detached" });
    expect(await page.getByTestId("session").innerText()).toMatch(/min$/);
    expect([sockets, ops("subscribe")]).toEqual(before);

    // Another one that nobody renews.
    await page.getByTestId("session").click();
    await give(await bearer("desk", "1s"));
    await panel()
      .getByText(/has expired/)
      .waitFor();
    await refused();
    expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
    const closed = sockets;
    await give(await bearer("desk", "5m"));
    await live();
    expect(sockets).toBe(closed + 1);
    await page.getByTestId("keys").locator(".row").first().locator("[data-column=close]").waitFor();
    const status = await fetch(`${node.url}/v1/status`, {
      headers: { authorization: `Bearer ${await bearer("all", "5m")}` },
    });
    const { subscribers_total } = (await status.json()) as { subscribers_total: number };
    expect(subscribers_total).toBeGreaterThan(0);
  });

  test("somebody who may read some sees that, and is told what is not theirs", async () => {
    const { keys } = (await (
      await fetch(`${node.url}/v1/keys`, { headers: { authorization: `Bearer ${await bearer("all", "5m")}` } })
    ).json()) as { keys: { name: string }[] };
    const name = keys[0]!.name;
    await page.goto(`${node.url}/#/keys`);
    await give(await bearer("some", "5m", "--streams", "bars.*", "--symbols", name));
    await live();
    const row = page.getByTestId("keys").locator(".row");
    await row.first().waitFor();
    expect(await row.count()).toBe(1);
    expect(await page.getByTestId("key-count").innerText()).toBe("1 key");
    await page.goto(`${node.url}/#/hosts`);
    await page.getByRole("link", { name: "Subscribers", exact: true }).click();
    await page.locator(".page.subscribers").waitFor();
    await live();
  });
});
