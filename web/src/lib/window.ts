/** Which rows of a long list are on the screen, with a few on either side so that a quick scroll finds them there. */
export function rowsInView(
  scroll_top: number,
  height: number,
  row_height: number,
  total: number,
  spare = 6,
): { first: number; end: number } {
  const first = Math.max(0, Math.min(total, Math.floor(scroll_top / row_height) - spare));
  const end = Math.min(total, Math.ceil((scroll_top + height) / row_height) + spare);
  return { first, end: Math.max(first, end) };
}
