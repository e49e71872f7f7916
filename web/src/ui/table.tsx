import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { rowsInView } from "../lib/window";
import { oncePerFrame } from "../lib/store";

export interface Column<R> {
  id: string;
  title: string;
  /** A track of a CSS grid. */
  width: string;
  numeric?: boolean;
  hint?: string;
  cell: (row: R) => ComponentChildren;
  /** What to sort by; null goes last either way. */
  by?: (row: R) => number | string | null;
}

interface Props<R> {
  label: string;
  rows: R[];
  columns: Column<R>[];
  rowKey: (row: R) => string;
  /** Fill the parent and scroll; else as tall as the rows. */
  fill?: boolean;
  rowHeight?: number;
  selected?: string | null;
  onSelect?: (row: R) => void;
  /** Told when other rows came into view. */
  onView?: (first: number, end: number) => void;
  empty?: ComponentChildren;
  footer?: ComponentChildren;
  sortable?: boolean;
  rowClass?: (row: R) => string;
  testid?: string;
}

/** A table of any length: only rows in view exist. Sorting, arrow keys, one selected row. */
export function Table<R>(props: Props<R>) {
  const { rows, columns, rowHeight = 32, fill = false } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const [range, setRange] = useState({ first: 0, end: 40 });
  const [sort, setSort] = useState<{ id: string; down: boolean } | null>(null);
  const [cursor, setCursor] = useState<number | null>(null);

  const sorted = useMemo(() => {
    const by = sort && columns.find((column) => column.id === sort.id)?.by;
    return by ? sortRows(rows, by, sort.down) : rows;
  }, [rows, sort, columns]);

  const total = sorted.length;
  // As the browser told last: to ask it here would make it lay out the page between two changes of it.
  const place = useRef({ top: 0, height: 0 });
  const measure = () => {
    place.current.height ||= scroller.current?.clientHeight ?? 0;
    const next = rowsInView(place.current.top, place.current.height, rowHeight, total);
    setRange((old) => (old.first === next.first && old.end === next.end ? old : next));
  };
  const latest = useRef(measure);
  latest.current = measure;
  const ask = useMemo(() => oncePerFrame(() => latest.current()), []);
  useLayoutEffect(measure, [total, rowHeight]);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      if (entry) place.current.height = entry.contentRect.height;
      ask();
    });
    observer.observe(scroller.current!);
    return () => observer.disconnect();
  }, []);
  useEffect(() => props.onView?.(range.first, Math.min(range.end, total)), [range, total, sorted]);

  const show = (index: number) => {
    const element = scroller.current;
    if (!element) return;
    const head =
      (element.firstElementChild as HTMLElement | null)?.querySelector<HTMLElement>(".head")?.offsetHeight ?? 0;
    const top = index * rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + rowHeight + head > element.scrollTop + element.clientHeight) {
      element.scrollTop = top + rowHeight + head - element.clientHeight;
    }
  };
  const move = (index: number) => {
    if (!total) return;
    const to = Math.min(total - 1, Math.max(0, index));
    setCursor(to);
    show(to);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const chosen = sorted.findIndex((row) => props.rowKey(row) === props.selected);
    const at = cursor ?? chosen;
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / rowHeight) - 2);
    const moves: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? 0 : at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: total - 1,
    };
    const to = moves[event.key];
    if (to !== undefined) {
      event.preventDefault();
      move(to);
    } else if (event.key === "Enter" && event.target === scroller.current) {
      const row = sorted[at];
      if (row !== undefined) props.onSelect?.(row);
    }
  };

  const tracks = columns.map((column) => column.width).join(" ");
  const { first } = range;
  const end = Math.min(range.end, total);
  const id = `table-${props.label.replace(/\W+/g, "-")}`;
  return (
    <div
      ref={scroller}
      class={`table ${fill ? "fill" : ""} ${props.onSelect ? "selectable" : ""}`}
      role="grid"
      aria-label={props.label}
      aria-rowcount={total + 1}
      aria-activedescendant={cursor !== null && cursor < total ? `${id}-${cursor}` : undefined}
      tabIndex={0}
      onScroll={(event) => {
        place.current.top = event.currentTarget.scrollTop;
        ask();
      }}
      onKeyDown={onKeyDown}
      onBlur={() => setCursor(null)}
      data-testid={props.testid}
      style={{ "--tracks": tracks, "--row": `${rowHeight}px` } as preact.CSSProperties}
    >
      <div class="inner" role="presentation">
        <div class="head" role="row" aria-rowindex={1}>
          {columns.map((column) => {
            const on = sort?.id === column.id;
            return (
              <span
                key={column.id}
                role="columnheader"
                class={column.numeric ? "numeric" : ""}
                title={column.hint}
                aria-sort={on ? (sort.down ? "descending" : "ascending") : undefined}
              >
                {column.by && props.sortable !== false ? (
                  <button
                    type="button"
                    onClick={() =>
                      setSort(
                        on
                          ? sort.down === (column.numeric ?? false)
                            ? { id: column.id, down: !sort.down }
                            : null
                          : { id: column.id, down: column.numeric ?? false },
                      )
                    }
                  >
                    {column.title}
                    <i class="arrow" aria-hidden="true">
                      {on ? (sort.down ? "↓" : "↑") : ""}
                    </i>
                  </button>
                ) : (
                  column.title
                )}
              </span>
            );
          })}
        </div>
        {total === 0 ? (
          props.empty
        ) : (
          <div class="body" role="presentation" style={{ height: `${total * rowHeight}px` }}>
            <div class="window" role="presentation" style={{ transform: `translateY(${first * rowHeight}px)` }}>
              {sorted.slice(first, end).map((row, i) => {
                const key = props.rowKey(row);
                const index = first + i;
                return (
                  <div
                    key={key}
                    id={`${id}-${index}`}
                    class={`row ${props.rowClass?.(row) ?? ""} ${cursor === index ? "cursor" : ""}`}
                    role="row"
                    aria-rowindex={index + 2}
                    aria-selected={props.onSelect ? key === props.selected : undefined}
                    data-key={key}
                    onClick={props.onSelect && (() => (setCursor(null), props.onSelect!(row)))}
                  >
                    {columns.map((column) => (
                      <span
                        key={column.id}
                        role="gridcell"
                        class={column.numeric ? "numeric" : ""}
                        data-column={column.id}
                      >
                        {column.cell(row)}
                      </span>
                    ))}
                  </div>
                );
              })}
            </div>
          </div>
        )}
        {props.footer}
      </div>
    </div>
  );
}

/** Sorted copy; equal rows keep their order, and what is not known goes last. */
export function sortRows<R>(rows: R[], by: (row: R) => number | string | null, down: boolean): R[] {
  const sign = down ? -1 : 1;
  return rows
    .map((row, place) => ({ row, place, value: by(row) }))
    .sort((a, b) => {
      if (a.value === null || b.value === null) {
        return Number(a.value === null) - Number(b.value === null) || a.place - b.place;
      }
      return (a.value < b.value ? -sign : a.value > b.value ? sign : 0) || a.place - b.place;
    })
    .map(({ row }) => row);
}
