import { Cell } from "./store";

export const THEMES = ["auto", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const STORED = "tidegate.theme";

export const theme = new Cell<Theme>("auto");

export function setTheme(to: Theme): void {
  document.documentElement.dataset.theme = to;
  theme.set(to);
  recall.set(STORED, to);
  dispatchEvent(new Event("tidegate:theme"));
}

export function nextTheme(): void {
  setTheme(THEMES[(THEMES.indexOf(theme.get()) + 1) % THEMES.length]!);
}

export function startTheme(): void {
  const stored = recall.get(STORED);
  setTheme(THEMES.find((name) => name === stored) ?? "auto");
}

/** Small wishes of the reader, kept by the browser where it lets us. */
export const recall = {
  get(name: string): string | null {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name: string, value: string): void {
    try {
      localStorage.setItem(name, value);
    } catch {
      // private windows may refuse: the wish then lasts as long as the page
    }
  },
};
