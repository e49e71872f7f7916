/**
 * Who the page says it is: a bearer token, kept in the tab's `sessionStorage` and nowhere else. It goes out in the header
 * `Authorization` and in the WebSocket's first message, never in an address. What it says is for the node to read.
 */
import type { ApiError } from "../api/types";
import { Cell } from "./store";

const STORED = "tidegate.token";

export interface Session {
  /** What is shown of it: nothing is known of a token before the node has taken it. */
  principal: string | null;
  /** By this machine's clock; null: the node sets no end. */
  expires_at_ms: number | null;
  /** Why the node wants another token; null: it does not. */
  asked: string | null;
}

const NOBODY: Session = { principal: null, expires_at_ms: null, asked: null };

/** The tab's memory, where the browser lets us have one. */
const memory = {
  get: (): string | null => {
    try {
      return sessionStorage.getItem(STORED);
    } catch {
      return null;
    }
  },
  set: (token: string | null): void => {
    try {
      if (token === null) sessionStorage.removeItem(STORED);
      else sessionStorage.setItem(STORED, token);
    } catch {
      // without it the token lasts as long as the page
    }
  },
};

/** The token that the node took last, and one that it has not been asked about yet. */
let [held, offered] = [memory.get(), null as string | null];
/** Whether the reader does not want to be asked again for what this token may not do. */
let put_off = false;

export const session = new Cell<Session>(NOBODY);

/** The token to show when a connection opens. */
export function token(): string | null {
  return offered ?? held;
}

/** The token that goes with a question: one that the node has taken, or took before the page was loaded. */
export function believed(): string | null {
  return held;
}

/** A token that the reader gave, to be shown to the node. */
export function offer(text: string): void {
  // As it may have been copied: in lines, or with the header's first word.
  const bare = text.replace(/\s+/g, " ").trim();
  offered = bare.replace(/^(authorization: *)?bearer +/i, "").replaceAll(" ", "");
  put_off = false;
}

/** The node took it. */
export function authorized(principal: string, expires_in_ms: number | null): void {
  if (offered !== null) {
    [held, offered] = [offered, null];
    memory.set(held);
  }
  const expires_at_ms = expires_in_ms === null ? null : Date.now() + expires_in_ms;
  session.set({ principal, expires_at_ms, asked: null });
}

/** The node wants to know who is there, does not believe what was `shown`, or no longer does. */
export function refused(error: ApiError, shown: string | null): void {
  if (shown !== null && shown === offered) {
    // The one before may still be good.
    offered = null;
  } else if (shown === held && held !== null) {
    held = null;
    memory.set(null);
    session.set(NOBODY);
  }
  session.set({ ...session.get(), asked: error.message });
}

/** Something is not for this reader: another token may do. */
export function forbidden(error: ApiError): void {
  if (!put_off) session.set({ ...session.get(), asked: error.message });
}

export function putOff(): void {
  put_off = true;
  session.set({ ...session.get(), asked: null });
}

/** Forgets who it was. */
export function forget(): void {
  [held, offered, put_off] = [null, null, false];
  memory.set(null);
  session.set(NOBODY);
}
