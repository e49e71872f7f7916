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

/** As [`oncePerFrame`], and not again before `ms` have passed. */
export function atMostEvery(ms: number, draw: () => void): () => void {
  let [asked, drawn_at_ms] = [false, -Infinity];
  const next = oncePerFrame(() => {
    asked = false;
    drawn_at_ms = performance.now();
    draw();
  });
  return () => {
    if (asked) return;
    asked = true;
    const wait_ms = drawn_at_ms + ms - performance.now();
    if (wait_ms > 0) setTimeout(next, wait_ms);
    else next();
  };
}

/**
 * A value that changes far more often than the screen: writers write at any rate, readers are told once per frame.
 */
export class Cell<T> {
  #readers = new Set<() => void>();
  #tell: () => void;

  /** Readers are told at most every `every_ms`. */
  constructor(
    private value: T,
    every_ms = 0,
  ) {
    const tell = () => {
      for (const reader of this.#readers) reader();
    };
    this.#tell = every_ms ? atMostEvery(every_ms, tell) : oncePerFrame(tell);
  }

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
