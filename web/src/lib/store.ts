import { useEffect, useReducer } from "preact/hooks";

/** Runs `draw` once in the next animation frame, however often it is asked. */
export function oncePerFrame(draw: () => void): () => void {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

/**
 * A value that changes far more often than the screen: writers write at any rate, readers are told once per frame.
 */
export class Cell<T> {
  #readers = new Set<() => void>();
  #tell = oncePerFrame(() => {
    for (const reader of this.#readers) reader();
  });

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    this.#tell();
  }

  /** For values that are changed in place. */
  touch(): void {
    this.#tell();
  }

  listen(reader: () => void): () => void {
    this.#readers.add(reader);
    return () => void this.#readers.delete(reader);
  }
}

/** The cell's value; the component is drawn again in the frame after a change. */
export function useCell<T>(cell: Cell<T>): T {
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    redraw(0); // what changed between the first drawing and now
    return cell.listen(() => redraw(0));
  }, [cell]);
  return cell.get();
}
