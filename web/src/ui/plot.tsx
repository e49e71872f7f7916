import { useEffect, useRef } from "preact/hooks";
import type { RefObject } from "preact";
import { Chart, type ChartOptions, type Drawing } from "../chart/chart";

/** A chart in the page; `handle` is for the buttons and keys beside it. */
export function Plot(props: {
  label: string;
  class?: string;
  drawing: Drawing;
  options: ChartOptions;
  handle?: RefObject<Chart | null>;
  testid?: string;
}) {
  const host = useRef<HTMLDivElement>(null);
  const chart = useRef<Chart | null>(null);
  const options = useRef(props.options);
  options.current.onHover = props.options.onHover ?? (() => {});
  useEffect(() => {
    const made = new Chart(host.current!, options.current);
    chart.current = made;
    const { handle } = props;
    if (handle) handle.current = made;
    return () => {
      made.destroy();
      if (handle) handle.current = null;
    };
  }, []);
  useEffect(() => chart.current?.set(props.drawing), [props.drawing]);
  const interactive = props.options.interactive;
  const onKeyDown = (event: KeyboardEvent) => {
    const now = chart.current;
    if (!now || !interactive || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (by) event.shiftKey ? now.pan(by / 4) : now.step(by);
    else if (event.key === "End") now.latest();
    else if (event.key === "Escape") now.hover(null);
    else return;
    event.preventDefault();
  };
  return (
    <div
      ref={host}
      class={`plot ${interactive ? "interactive" : ""} ${props.class ?? ""}`}
      role="img"
      aria-label={props.label}
      tabIndex={interactive ? 0 : undefined}
      onKeyDown={onKeyDown}
      data-testid={props.testid}
    />
  );
}
