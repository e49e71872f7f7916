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

/**
 * The ledger as a table of causes by stages, in the node's order of causes; what is not in it follows by name. The page adds up
 * for itself instead of repeating the node's word.
 */
export function ledgerView(entries: LedgerEntry[] | null, order: readonly string[] = []): LedgerView {
  const seen = new Set<string>();
  for (const entry of entries ?? []) {
    for (const [cause, n] of Object.entries(entry.by_cause)) if (n !== 0) seen.add(cause);
  }
  const place = (cause: string) => (order.indexOf(cause) + order.length + 1) % (order.length + 1);
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
