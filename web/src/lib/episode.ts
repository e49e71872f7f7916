/** What is said of an alert, in words. */
import type { Alert } from "../api/types";

/** What became of an alert, in a word. */
export function standing(alert: Alert): "open" | "acknowledged" | "false positive" | "held back" {
  if (alert.told === null) return "held back";
  return alert.status === "false-positive" ? "false positive" : alert.status;
}

/** Against whom. */
export function against(alert: Alert): string {
  const { peer, port } = alert;
  if (peer !== null && port !== null) return peer.includes(":") ? `[${peer}]:${port}` : `${peer}:${port}`;
  return peer ?? (port === null ? "" : `port ${port}`);
}

/** Why findings of it were held back: `budget 3, suppressed 1`; empty for none. */
export function heldBack(alert: Alert): string {
  return Object.entries(alert.held)
    .filter(([, count]) => count > 0)
    .map(([reason, count]) => `${reason} ${count}`)
    .join(", ");
}

export const TONES = { high: "bad", medium: "warn", low: "faint" } as const;

/** Whether the name is one of a host's addresses. */
export function isAddress(text: string): boolean {
  return /^\d{1,3}(\.\d{1,3}){3}$/.test(text) || (text.includes(":") && /^[0-9a-f:.]+$/i.test(text));
}

/** The technique's page in MITRE ATT&CK; a sub-technique is below its technique. */
export function technique(name: string): string | null {
  const parts = /^(T\d{4})(?:\.(\d{3}))?$/.exec(name);
  return parts && `https://attack.mitre.org/techniques/${parts[1]}/${parts[2] ? `${parts[2]}/` : ""}`;
}
