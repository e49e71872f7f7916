import type { AnyRecord, ApiError, ClientMessage, FromSequence, ServerMessage, Status, Subscribe } from "./types";

/** Wait before attempt `attempt` (from 1): doubles from 250 ms to 8 s, less a random part so that pages do not return in step. */
export function backoff_ms(attempt: number, random: number): number {
  const full = Math.min(8_000, 250 * 2 ** Math.min(attempt - 1, 10));
  return Math.round(full * (1 - random / 2));
}

export type Link =
  | { phase: "connecting"; attempt: number }
  | { phase: "live"; since_ms: number }
  | { phase: "waiting"; attempt: number; retry_at_ms: number; lost_at_ms: number }
  /** The node wants a token before it says anything; nothing is tried until there is one. */
  | { phase: "refused" };

export interface Reader {
  /** Records in the order sent. */
  records(records: AnyRecord[]): void;
  /**
   * Called after each (re)connection, when the server has confirmed. Unless it `resumed`, what was missed meanwhile must be read
   * anew.
   */
  subscribed?(resumed: boolean): void;
  /** Where a new connection can go on: the first number wanted, by stream and slot. Null if it cannot. */
  resume?(): NonNullable<FromSequence["slots"]> | null;
  loss?(count: number, cause: string): void;
  error?(error: ApiError): void;
}

/** What shows the node who is there. */
export interface Credentials {
  /** The token to show; null for none. */
  token(): string | null;
  authorized(principal: string, expires_in_ms: number | null): void;
  /** The node wants one, or does not believe the one that was shown. */
  refused(error: ApiError, shown: string | null): void;
  /** The node does not let its holder have something. */
  forbidden(error: ApiError): void;
}

const NOBODY: Credentials = { token: () => null, authorized: () => {}, refused: () => {}, forbidden: () => {} };

/** The parts of the browser that the socket needs, so that tests can bring their own. */
export interface Surroundings {
  open(url: string): WebSocket;
  now_ms(): number;
  random(): number;
  after(ms: number, run: () => void): () => void;
}

const BROWSER: Surroundings = {
  open: (url) => new WebSocket(url),
  now_ms: () => Date.now(),
  random: () => Math.random(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

/** Silence after which a ping is sent, and after which the connection is given up. */
const PING_AFTER_MS = 4_000;
const GIVE_UP_AFTER_MS = 12_000;
/** Before a subscription that the server ended is asked for again. */
const CLOSED_WAIT_MS = 1_000;

interface Wanted {
  request: Subscribe;
  reader: Reader;
  /** The start of the node that confirmed it last. */
  incarnation: string | null;
  /** Whether it was asked to go on where it was. */
  resuming: boolean;
  /** Whether the node refused it to who is there: it is asked for again when that is somebody else. */
  barred: boolean;
}

/** Whoever asks must show who it is: as an error's code. */
const NOT_BELIEVED = new Set(["unauthorized", "expired"]);
/** What the node says only to those whom it lets in. `authorized` first tells the credentials. */
const SUBSTANCE = new Set<ServerMessage["op"]>(["status", "subscribed", "data", "live"]);
/** The same as the code of a close. */
const CLOSE_UNAUTHORIZED = 4401;

/** Refusals to go on; the subscription is then asked for as if it were new. */
const NO_WAY_BACK = new Set(["sequence_cut", "other_incarnation"]);

/**
 * One WebSocket to the node that comes back by itself: after a loss it waits with back-off, connects and subscribes again to
 * whatever is still wanted: where it was, if its reader can say where that is and the node still has what follows. It never
 * invents data for the time between; readers are told through `subscribed`.
 */
export class Socket {
  onLink: (link: Link) => void = () => {};
  onStatus: (status: Status) => void = () => {};
  /** A stream that was subscribed to has changed or is gone. */
  onChanged: () => void = () => {};

  #link: Link = { phase: "connecting", attempt: 1 };
  #socket: WebSocket | null = null;
  #attempt = 0;
  #wanted = new Map<number, Wanted>();
  #id_next = 1;
  #status_every_ms = 0;
  #heard_at_ms = 0;
  #cancel: () => void = () => {};

  constructor(
    readonly url: string,
    readonly around: Surroundings = BROWSER,
    readonly credentials: Credentials = NOBODY,
  ) {}

  get link(): Link {
    return this.#link;
  }

  /** Connects now, without waiting for the back-off. */
  connect(): void {
    if (this.#socket) return;
    this.#cancel();
    this.#attempt += 1;
    this.#set({ phase: "connecting", attempt: this.#attempt });
    let socket: WebSocket;
    try {
      socket = this.around.open(this.url);
    } catch {
      this.#lost();
      return;
    }
    this.#socket = socket;
    this.#heard_at_ms = this.around.now_ms();
    this.#watch(socket);
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      this.#heard_at_ms = this.around.now_ms();
      this.#show();
      // Who shows something is known when the node has looked at it.
      if (this.#shown === null) this.#live();
      if (this.#status_every_ms) this.#send({ op: "status", every_ms: this.#status_every_ms });
      for (const wanted of this.#wanted.values()) this.#ask(wanted);
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket) this.#take(String(event.data));
    };
    socket.onclose = (event) => {
      if (socket !== this.#socket) return;
      const token = this.credentials.token();
      // There may be another token by now.
      if (event?.code === CLOSE_UNAUTHORIZED && (token === null || token === this.#shown)) this.#refuse();
      else this.#lost();
    };
  }

  /** There is another token: shows it, on the connection there is, or on a new one. */
  present(): void {
    if (this.#socket?.readyState === 1) this.#show();
    else this.connect();
  }

  #show(): void {
    const token = this.credentials.token();
    this.#shown = token;
    if (token !== null) this.#send({ op: "auth", token });
  }

  /** Who was let in last. */
  #principal: string | null = null;

  #live(): void {
    this.#set({ phase: "live", since_ms: this.around.now_ms() });
  }

  /** What the connection showed last. */
  #shown: string | null = null;

  #refuse(): void {
    this.#cancel();
    this.#socket = null;
    this.#set({ phase: "refused" });
  }

  status(every_ms: number): void {
    this.#status_every_ms = every_ms;
    this.#send({ op: "status", every_ms });
  }

  /** Wants records until the returned function is called, across reconnections. */
  subscribe(request: Omit<Subscribe, "op" | "id">, reader: Reader): () => void {
    const id = this.#id_next++;
    const whole: Subscribe = { op: "subscribe", id, ...request };
    this.#wanted.set(id, { request: whole, reader, incarnation: null, resuming: false, barred: false });
    this.#send(whole);
    return () => {
      if (this.#wanted.delete(id)) this.#send({ op: "unsubscribe", id });
    };
  }

  #take(text: string): void {
    this.#heard_at_ms = this.around.now_ms();
    let message: ServerMessage;
    try {
      message = JSON.parse(text) as ServerMessage;
    } catch {
      return; // not ours: a proxy's words, say
    }
    this.#attempt = 0; // the server talks: the next loss starts from a short wait again
    // It says something of substance, so it lets the page in.
    if (this.#link.phase === "connecting" && SUBSTANCE.has(message.op)) this.#live();
    switch (message.op) {
      case "authorized":
        this.credentials.authorized(message.principal, message.expires_in_ms);
        this.#admitted(message.principal);
        break;
      case "status":
        this.onStatus(message.status);
        break;
      case "data":
        this.#wanted.get(message.id)?.reader.records(message.records);
        break;
      case "subscribed": {
        const wanted = this.#wanted.get(message.id);
        if (!wanted) break;
        wanted.incarnation = message.incarnation ?? null;
        wanted.reader.subscribed?.(wanted.resuming);
        break;
      }
      case "loss":
        this.#wanted.get(message.id)?.reader.loss?.(message.count, message.cause);
        break;
      case "closed":
        if (message.code === "changed") this.onChanged();
        if (message.code === "forbidden") this.#bar(message.id, message);
        else this.#again(message.id);
        break;
      case "error": {
        const wanted = message.id === undefined ? undefined : this.#wanted.get(message.id);
        if (NOT_BELIEVED.has(message.code)) {
          if (wanted) wanted.barred = true;
          // Whoever showed something is closed, unless the connection is good without it.
          if (this.#link.phase === "live" && this.#shown === null) this.#set({ phase: "refused" });
          this.credentials.refused(message, this.#shown);
        } else if (message.code === "forbidden" && message.id === undefined) {
          // A token that opens nothing.
          this.credentials.refused(message, this.#shown);
        } else if (message.code === "forbidden") this.#bar(message.id, message);
        else if (wanted?.resuming && NO_WAY_BACK.has(message.code)) this.#ask(wanted, false);
        else wanted?.reader.error?.(message);
        break;
      }
    }
  }

  /** Who is there is known now: what was refused before is asked for again; what stands goes on. */
  #admitted(principal: string): void {
    const barred = [...this.#wanted.values()].filter((wanted) => wanted.barred);
    // Somebody else may see other things: what was read is read anew.
    if (this.#link.phase !== "live" || principal !== this.#principal) this.#live();
    this.#principal = principal;
    if (this.#status_every_ms) this.#send({ op: "status", every_ms: this.#status_every_ms });
    for (const wanted of barred) this.#ask(wanted);
  }

  #bar(id: number | undefined, error: ApiError): void {
    const wanted = id === undefined ? undefined : this.#wanted.get(id);
    if (wanted) wanted.barred = true;
    wanted?.reader.error?.(error);
    this.credentials.forbidden(error);
  }

  /** Asks for a subscription, from where it was if that is possible. */
  #ask(wanted: Wanted, may_resume = true): void {
    const { request, reader, incarnation } = wanted;
    const slots = may_resume && incarnation !== null ? (reader.resume?.() ?? null) : null;
    wanted.resuming = slots !== null;
    wanted.barred = false;
    this.#send(
      slots !== null && incarnation !== null ? { ...request, from: { sequence: 1, slots, incarnation } } : request,
    );
  }

  /** The server ended one subscription and keeps the connection: ask anew in a while, as for a lost connection. */
  #again(id: number): void {
    const socket = this.#socket;
    this.around.after(CLOSED_WAIT_MS, () => {
      const wanted = this.#wanted.get(id);
      if (wanted && socket === this.#socket) this.#ask(wanted);
    });
  }

  /** A peer that vanished without a word closes nothing: ask when it is silent, give up when it stays so. */
  #watch(socket: WebSocket): void {
    const check = () => {
      if (socket !== this.#socket) return;
      const silent_ms = this.around.now_ms() - this.#heard_at_ms;
      if (silent_ms >= GIVE_UP_AFTER_MS) {
        socket.close();
        this.#lost();
        return;
      }
      if (silent_ms >= PING_AFTER_MS) this.#send({ op: "ping", id: 0 });
      this.#cancel = this.around.after(PING_AFTER_MS, check);
    };
    this.#cancel = this.around.after(PING_AFTER_MS, check);
  }

  #lost(): void {
    this.#cancel();
    const now_ms = this.around.now_ms();
    const lost_at_ms = this.#link.phase === "live" ? now_ms : this.#lost_at_ms(now_ms);
    this.#socket = null;
    const wait_ms = backoff_ms(this.#attempt + 1, this.around.random());
    this.#lost_before_ms = lost_at_ms;
    this.#set({ phase: "waiting", attempt: this.#attempt + 1, retry_at_ms: now_ms + wait_ms, lost_at_ms });
    this.#cancel = this.around.after(wait_ms, () => this.connect());
  }

  #lost_before_ms: number | null = null;
  #lost_at_ms(now_ms: number): number {
    return this.#lost_before_ms ?? now_ms;
  }

  #set(link: Link): void {
    this.#link = link;
    if (link.phase === "live") this.#lost_before_ms = null;
    this.onLink(link);
  }

  #send(message: ClientMessage): void {
    // A socket that is not open will say everything that is still wanted when it opens.
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }
}
