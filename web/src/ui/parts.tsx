import type { ComponentChildren } from "preact";
import type { Feed } from "../api/types";
import { DASH, split } from "../lib/format";

export function Card(props: { title: string; note?: ComponentChildren; class?: string; children: ComponentChildren }) {
  return (
    <section class={`card ${props.class ?? ""}`} aria-label={props.title}>
      <header>
        <h2>{props.title}</h2>
        {props.note !== undefined && <div class="note">{props.note}</div>}
      </header>
      {props.children}
    </section>
  );
}

/** What stands where data will be: why there is none, and what would change that. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="title">{title}</p>
      {children && <p>{children}</p>}
    </div>
  );
}

export function Failure({ title, detail, onRetry }: { title: string; detail: string; onRetry?: () => void }) {
  return (
    <div class="empty failure" role="alert">
      <p class="title">{title}</p>
      <p>{detail}</p>
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

/**
 * A decimal as it came. `places` is the width of the part behind the point, so that a column aligns its points; the text is
 * unchanged by it.
 */
export function Decimal({ text, places }: { text: string | null | undefined; places?: number }) {
  if (text === null || text === undefined) return <span class="decimal">{DASH}</span>;
  const [whole, rest] = split(text);
  const width = places === undefined ? undefined : { minWidth: `${places ? places + 1 : 0}ch` };
  return (
    <span class="decimal">
      {whole}
      <span class="rest" style={width}>
        {rest}
      </span>
    </span>
  );
}

/** A share as a bar; nothing is drawn for what is not known. */
export function Meter({ share, tone = "", label }: { share: number | null; tone?: string; label: string }) {
  const known = share !== null && Number.isFinite(share);
  return (
    <span
      class={`meter ${tone}`}
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={known ? Math.round(share * 100) : undefined}
    >
      {known && <i style={{ width: `${Math.min(100, Math.max(0, share * 100))}%` }} />}
    </span>
  );
}

/** Whether a feed is there; one that has finished is missed by nobody. */
export function FeedDot({ feed }: { feed: Feed | undefined }) {
  const [tone, title] =
    feed?.connected == null
      ? ["", "not known"]
      : feed.connected
        ? ["good", "connected"]
        : feed.finished
          ? ["", "finished"]
          : ["bad", "not connected"];
  return <i class={`dot ${tone}`} title={title} />;
}

export function Badge({ tone, children, title }: { tone: string; children: ComponentChildren; title?: string }) {
  return (
    <span class={`badge ${tone}`} title={title}>
      {children}
    </span>
  );
}
