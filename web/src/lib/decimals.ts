import { split } from "./format";

/** Most digits behind the point among decimal strings. */
export function placesOf(texts: Iterable<string | null | undefined>): number {
  let places = 0;
  for (const text of texts) if (text) places = Math.max(places, split(text)[1].length - 1);
  return places;
}
