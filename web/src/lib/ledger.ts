import type { LedgerEntry } from "../api/types";

export interface LedgerView {
  causes: string[];
  columns: {
    stage: string;
    delivered: number | null;
    by_cause: Record<string, number>;
    /** What the node says. */
    stated: number | null;
    /** What the numbers on this page say: delivered less the sum of causes. */
    computed: number | null;
  }[];
  /** Null: nothing known yet. */
  balances: boolean | null;
}

/** The order in which the engine names fates; what it does not know follows by name. */
const ORDER = [
  "applied",
  "late_amended",
  "late_side",
  "late_dropped",
  "too_late",
  "cancelled",
  "corrected",
  "cancel_unmatched",
  "other_kind",
  "undefined_key",
  "over_bound",
];

/** The ledger as a table of causes by stages. The page adds up for itself instead of repeating the node's word. */
export function ledgerView(entries: LedgerEntry[] | null): LedgerView {
  const seen = new Set<string>();
  for (const entry of entries ?? []) {
    for (const [cause, n] of Object.entries(entry.by_cause)) if (n !== 0) seen.add(cause);
  }
  const place = (cause: string) => (ORDER.indexOf(cause) + ORDER.length + 1) % (ORDER.length + 1);
  const causes = [...seen].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  const columns = (entries ?? []).map((entry) => {
    const sum = Object.values(entry.by_cause).reduce((a, b) => a + b, 0);
    return {
      stage: entry.stage,
      delivered: entry.delivered,
      by_cause: entry.by_cause,
      stated: entry.imbalance,
      computed: entry.delivered === null ? null : entry.delivered - sum,
    };
  });
  const known = columns.filter((column) => column.computed !== null);
  const balances = known.length ? known.every((c) => c.computed === 0 && (c.stated === null || c.stated === 0)) : null;
  return { causes, columns, balances };
}
