import { useEffect, useState } from "preact/hooks";
import { seconds } from "../lib/format";
import { useCell } from "../lib/store";
import { heard_at_ms, link, socket, status } from "../node";
import { useNow } from "./session";

/** Silence of a live connection that is worth a word. */
const QUIET_MS = 4_000;

export function Connection() {
  const now = useCell(link);
  useCell(status);
  const time = useNow(1_000);
  const quiet_ms = heard_at_ms ? time - heard_at_ms : 0;
  const [tone, text] =
    now.phase === "live"
      ? quiet_ms > QUIET_MS
        ? ["warn", `No news for ${seconds(Math.round(quiet_ms / 1000))}`]
        : ["good", "Live"]
      : now.phase === "connecting"
        ? ["warn", now.attempt > 1 ? "Reconnecting" : "Connecting"]
        : now.phase === "refused"
          ? ["bad", "Not let in"]
          : ["bad", "Not connected"];
  return (
    <span class={`link ${tone}`} role="status" data-testid="link">
      <i class="dot" aria-hidden="true" />
      {text}
    </span>
  );
}

/** Says that what is shown is old, since when, and what happens next. */
export function ConnectionBanner() {
  const now = useCell(link);
  const [lost_at_ms, setLost] = useState<number | null>(null);
  useEffect(() => {
    if (now.phase === "live" || now.phase === "refused") setLost(null);
    else if (now.phase === "waiting") setLost(now.lost_at_ms);
  }, [now]);
  return now.phase === "live" || now.phase === "refused" || lost_at_ms === null ? null : (
    <Lost lost_at_ms={lost_at_ms} />
  );
}

function Lost({ lost_at_ms }: { lost_at_ms: number }) {
  const now = useCell(link);
  const time = useNow(250);
  const since = new Date(lost_at_ms).toTimeString().slice(0, 8);
  const wait_s = now.phase === "waiting" ? Math.max(0, Math.ceil((now.retry_at_ms - time) / 1000)) : 0;
  return (
    <div class="banner" role="alert" data-testid="banner">
      <span>
        {heard_at_ms
          ? `Connection lost at ${since}. What you see is what was heard until then.`
          : "The node does not answer."}{" "}
        <span class="muted">
          {now.phase === "waiting" && wait_s > 0 ? `Next attempt in ${wait_s} s` : "Trying now"}
          {"attempt" in now && now.attempt > 1 ? ` (attempt ${now.attempt})` : ""}.
        </span>
      </span>
      <button type="button" onClick={() => socket.connect()}>
        Try now
      </button>
    </div>
  );
}
