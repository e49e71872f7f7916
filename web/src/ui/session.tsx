import { useEffect, useState } from "preact/hooks";
import { seconds } from "../lib/format";
import { putOff, session } from "../lib/session";
import { useCell } from "../lib/store";
import { leave, show } from "../node";

/** Before the end of a token, when the page asks for the next one by itself. */
const SOON_MS = 60_000;

/** The time, every `ms`, for words that speak of it. */
export function useNow(ms: number): number {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), ms);
    return () => clearInterval(timer);
  }, [ms]);
  return now;
}

/** Who the reader is to the node, and for how long. Nothing where the node asks nobody. */
export function SessionButton({ open, onClick }: { open: boolean; onClick: () => void }) {
  const { principal, expires_at_ms } = useCell(session);
  const now = useNow(1_000);
  if (principal === null) return null;
  const left = expires_at_ms === null ? null : Math.max(0, Math.ceil((expires_at_ms - now) / 1_000));
  return (
    <button
      type="button"
      class={`plain who ${left !== null && left * 1_000 <= SOON_MS ? "soon" : ""}`}
      data-testid="session"
      aria-expanded={open}
      title={left === null ? `You are ${principal}` : `You are ${principal}; the token is good for ${seconds(left)}`}
      onClick={onClick}
    >
      <b>{principal}</b>
      {left !== null && <span>{left >= 60 ? `${Math.floor(left / 60)} min` : `${left} s`}</span>}
    </button>
  );
}

/** Asks for a token: when the node wants one, when the one there is comes to its end, or when the reader wants another. */
export function SessionPanel({ open, onClose }: { open: boolean; onClose: () => void }) {
  const { principal, expires_at_ms, asked } = useCell(session);
  const now = useNow(1_000);
  const [text, setText] = useState("");
  const [put_off_at_ms, putOffAt] = useState<number | null>(null);
  const left_ms = expires_at_ms === null ? null : expires_at_ms - now;
  const soon = left_ms !== null && left_ms <= SOON_MS && put_off_at_ms !== expires_at_ms;
  useEffect(() => {
    // Taken: there is nothing more to ask.
    setText("");
    if (asked === null) onClose();
  }, [principal, expires_at_ms]);
  if (asked === null && !soon && !open) return null;
  const close = () => {
    putOffAt(expires_at_ms);
    if (asked !== null) putOff();
    onClose();
  };
  return (
    <form
      class="session"
      aria-label="Token"
      data-testid="token"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim()) show(text);
      }}
    >
      <p role="alert">
        {asked !== null ? <b>{sentence(asked)}</b> : null}
        {principal !== null && expires_at_ms !== null && left_ms !== null && (
          <span>
            The token of <b>{principal}</b> {left_ms > 0 ? "expires" : "expired"} at{" "}
            {new Date(expires_at_ms).toTimeString().slice(0, 8)}
            {left_ms > 0 && `, in ${seconds(Math.ceil(left_ms / 1_000))}`}.
          </span>
        )}
        {principal !== null && expires_at_ms === null && (
          <span>
            You are <b>{principal}</b>; the token has no end.
          </span>
        )}
        <span class="muted">
          <code>tidegate token issue --bearer</code> makes one. It stays in this tab until it is closed.
        </span>
      </p>
      <span class="field">
        <input
          type="password"
          name="token"
          aria-label="Token"
          placeholder="Paste a token"
          autocomplete="off"
          spellcheck={false}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <button type="submit" disabled={!text.trim()}>
          Use it
        </button>
        {principal !== null && (
          <button type="button" onClick={leave}>
            Forget
          </button>
        )}
        <button type="button" class="plain" onClick={close}>
          Not now
        </button>
      </span>
    </form>
  );
}

/** What a node says begins small. */
function sentence(text: string): string {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
