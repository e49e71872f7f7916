import { Cell } from "./store";

export const PAGES = ["overview", "pipeline", "keys", "hosts", "alerts", "subscribers", "surfaces", "cluster"] as const;
export type Page = (typeof PAGES)[number];

export interface Route {
  page: Page;
  /** What is looked at within the page: a key or a host. */
  item: string | null;
  query: Record<string, string>;
}

/** `#/keys/BTCUSD?stream=bars.1s`; what is not understood leads to the overview. */
export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [page = "", ...rest] = path.split("/");
  const known = (PAGES as readonly string[]).includes(page);
  let item: string | null = null;
  try {
    item = known && rest.length ? decodeURIComponent(rest.join("/")) || null : null;
  } catch {
    item = null; // a stray percent sign
  }
  return { page: known ? (page as Page) : "overview", item, query: Object.fromEntries(new URLSearchParams(query)) };
}

export function format(route: {
  page: Page;
  item?: string | null;
  query?: Record<string, string | undefined>;
}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(route.query ?? {})) if (value) query.set(name, value);
  const text = query.toString();
  return `#/${route.page}${route.item ? `/${encodeURIComponent(route.item)}` : ""}${text ? `?${text}` : ""}`;
}

export const route = new Cell<Route>(parse(globalThis.location?.hash ?? ""));

export function go(to: Parameters<typeof format>[0], replace = false): void {
  const hash = format(to);
  if (replace) window.history.replaceState(null, "", hash);
  else window.history.pushState(null, "", hash);
  route.set(parse(hash));
}

export function followAddress(): void {
  const read = () => route.set(parse(location.hash));
  addEventListener("hashchange", read);
  addEventListener("popstate", read);
}
