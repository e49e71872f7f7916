/** Where hosts stand in a picture of who talks to whom: the same picture for the same hosts, whatever order they come in. */

export interface Place {
  x: number;
  y: number;
}

export interface Link {
  from: string;
  to: string;
}

/** Rounds of pushing and pulling; so few hosts stand still long before. */
const ROUNDS = 260;
/** Hosts further apart than so many of those lengths leave each other alone: parts that do not talk come together. */
const REACH = 1.7;
/** How far from the border hosts stay, in pixels: room for a name below. */
const BORDER = { x: 46, top: 24, bottom: 38 };

/**
 * Hosts push each other away and links pull them together, within `width` by `height`. Starts from a circle in the order of names, so
 * that nothing depends on chance.
 */
export function arrange(hosts: string[], links: Link[], width: number, height: number): Map<string, Place> {
  const names = [...hosts].sort();
  const [cx, cy] = [width / 2, (height + BORDER.top - BORDER.bottom) / 2];
  const places = names.map((_, i) => {
    const angle = (2 * Math.PI * i) / Math.max(1, names.length);
    return { x: cx + Math.cos(angle) * width * 0.34, y: cy + Math.sin(angle) * height * 0.34 };
  });
  const at = new Map(names.map((name, i) => [name, i]));
  const pairs = links
    .map((one): [number, number] => [at.get(one.from) ?? -1, at.get(one.to) ?? -1])
    .filter(([a, b]) => a >= 0 && b >= 0 && a !== b);
  // Of this length a link neither pulls nor pushes: as far apart as hosts are when they fill the picture.
  const rest = 0.72 * Math.sqrt((width * height) / Math.max(1, names.length));
  const reach = (REACH * rest) ** 2;
  const shape = width / Math.max(1, height);
  for (let round = 0; round < ROUNDS && names.length > 1; round += 1) {
    const moves = places.map(() => ({ x: 0, y: 0 }));
    for (let a = 0; a < places.length; a += 1) {
      for (let b = a + 1; b < places.length; b += 1) {
        // Two in one place part along a line of their own.
        const dx = places[a]!.x - places[b]!.x || 0.01 * (a - b);
        const dy = places[a]!.y - places[b]!.y || 0.01 * (a + b);
        const square = Math.max(9, dx * dx + dy * dy);
        if (square > reach) continue;
        const push = (1.5 * rest * rest) / square;
        moves[a]!.x += dx * push;
        moves[a]!.y += dy * push;
        moves[b]!.x -= dx * push;
        moves[b]!.y -= dy * push;
      }
    }
    for (const [a, b] of pairs) {
      const [dx, dy] = [places[a]!.x - places[b]!.x, places[a]!.y - places[b]!.y];
      const pull = Math.hypot(dx, dy) / rest;
      moves[a]!.x -= dx * pull;
      moves[a]!.y -= dy * pull;
      moves[b]!.x += dx * pull;
      moves[b]!.y += dy * pull;
    }
    const step_max = rest * 0.5 * (1 - round / ROUNDS);
    places.forEach((place, i) => {
      // To the middle a little, more strongly across the short side.
      const x = moves[i]!.x - (place.x - cx) * 0.5;
      const y = moves[i]!.y - (place.y - cy) * 0.5 * shape;
      const length = Math.hypot(x, y) || 1;
      const step = Math.min(length * 0.08, step_max);
      place.x = Math.min(width - BORDER.x, Math.max(BORDER.x, place.x + (x / length) * step));
      place.y = Math.min(height - BORDER.bottom, Math.max(BORDER.top, place.y + (y / length) * step));
    });
  }
  return new Map(names.map((name, i) => [name, places[i]!]));
}

/** The host that an arrow key leads to: the nearest in that direction, sideways distance counting double. */
export function nearest(places: Map<string, Place>, from: string, key: string): string | null {
  const start = places.get(from);
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (!start || !way) return null;
  let best: [number, string] | null = null;
  for (const [name, place] of places) {
    const [dx, dy] = [place.x - start.x, place.y - start.y];
    const along = dx * way[0]! + dy * way[1]!;
    const aside = Math.abs(dx * way[1]!) + Math.abs(dy * way[0]!);
    if (name === from || along <= 0 || aside > along * 3) continue;
    const distance = along + 2 * aside;
    if (!best || distance < best[0]) best = [distance, name];
  }
  return best?.[1] ?? null;
}
