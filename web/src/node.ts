/** The one connection of the page to its node, and what it heard last. */
import { RequestError, rest } from "./api/rest";
import { Socket, type Link } from "./api/socket";
import type { Status, Stream } from "./api/types";
import { History } from "./lib/history";
import { authorized, forbidden, forget, offer, refused, token } from "./lib/session";
import { Cell } from "./lib/store";

const STATUS_EVERY_MS = 1_000;

export const link = new Cell<Link>({ phase: "connecting", attempt: 1 });
export const status = new Cell<Status | null>(null);
export const history = new Cell(new History());
/** Null until known; an error if the node refused to say. */
export const streams = new Cell<Stream[] | Error | null>(null);
/** When the last status came, by this machine's clock. */
export let heard_at_ms = 0;

const address = new URL("/v1/ws", location.href);
address.protocol = address.protocol.replace("http", "ws");
export const socket = new Socket(address.href, undefined, { token, authorized, refused, forbidden });

/** Shows the node a token that the reader gave. */
export function show(text: string): void {
  offer(text);
  socket.present();
}

/** Goes on as nobody: nothing that was heard as somebody stays on the page. */
export function leave(): void {
  forget();
  location.reload();
}

// One of its streams has other columns, or is gone.
socket.onChanged = () => void loadStreams();

socket.onLink = (now) => {
  link.set(now);
  if (now.phase === "live") void loadStreams();
};

/** The streams that the node named last, so that others are noticed. */
let named = "";

socket.onStatus = (now) => {
  heard_at_ms = Date.now();
  const names = now.stages?.map((stage) => stage.stream).join(" ") ?? "";
  if (named !== "" && names !== "" && names !== named) void loadStreams();
  named = names;
  history.get().push(now, heard_at_ms);
  history.touch();
  status.set(now);
};

async function loadStreams(): Promise<void> {
  try {
    streams.set(await rest.streams());
  } catch (error) {
    // Who must say first who it is has not been refused anything yet.
    if (error instanceof RequestError && error.status === 401) return;
    if (!Array.isArray(streams.get())) streams.set(error instanceof Error ? error : new Error(String(error)));
  }
}

export function start(): void {
  socket.status(STATUS_EVERY_MS);
  socket.connect();
  // A machine that slept or lost its network knows before the timer does.
  const again = () => void (socket.link.phase === "refused" || socket.connect());
  addEventListener("online", again);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) again();
  });
}
