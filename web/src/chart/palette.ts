/** Colours of the style sheet as a canvas can use them. */

const NAMES = [
  "text",
  "muted",
  "line",
  "grid",
  "panel",
  "accent",
  "up",
  "down",
  "warn",
  "bad",
  "series-1",
  "series-2",
  "series-3",
  "series-4",
  "series-5",
  "series-6",
] as const;

export type Ink = (typeof NAMES)[number];
export type Palette = Record<Ink, string> & { font: string };

/** Reads what `var(--name)` comes to here and now; ask again when the theme changes. */
export function palette(element: Element): Palette {
  const probe = document.createElement("i");
  probe.hidden = true;
  element.append(probe);
  const out = { font: getComputedStyle(element).fontFamily } as Palette;
  for (const name of NAMES) {
    probe.style.color = `var(--${name})`;
    out[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return out;
}

/** The same colour, thinner. */
export function thin(color: string, alpha: number): string {
  const parts = color.match(/[\d.]+/g);
  return parts && color.startsWith("rgb") ? `rgba(${parts.slice(0, 3).join(", ")}, ${alpha})` : color;
}
