import { oncePerFrame } from "../lib/store";
import { palette, thin, type Ink, type Palette } from "./palette";
import { clamped, extent, logTicks, ticks, timeLabel, timeTicks, zoomed, type View } from "./scale";

export interface Candle {
  open: number;
  high: number;
  low: number;
  close: number;
  forming: boolean;
  amended: boolean;
  missing: boolean;
}

export type Series =
  | { kind: "line"; values: (number | null)[]; ink: Ink; dash?: boolean; fill?: boolean; width?: number }
  | {
      kind: "columns";
      values: (number | null)[];
      ink: Ink | ((index: number) => Ink);
      alpha?: number;
      part?: (number | null)[];
    }
  | { kind: "candles"; candles: Candle[] };

export interface Pane {
  label: string;
  weight: number;
  series: Series[];
  range?: [number, number];
  guides?: number[];
  log?: boolean;
  /** The range starts at zero. */
  zero?: boolean;
  format?: (value: number) => string;
  /** The newest value, in words of its own, at the axis. */
  tag?: { value: number; text: string; ink: Ink };
}

export interface Drawing {
  count: number;
  time_ms: (index: number) => number;
  panes: Pane[];
}

export interface ChartOptions {
  /** Records in view at first, at most. */
  view_count: number;
  /** So wide is each record at first, in pixels: a narrow screen starts with fewer. */
  record_px?: number;
  /** Zoom, pan and crosshair keys. */
  interactive: boolean;
  /** Free records to the right of the newest. */
  pad_right: number;
  /** Everything is in view while it is fewer than `view_count`, but at least so many places. */
  fit_least?: number;
  onHover?: (index: number | null) => void;
}

/** Where a pane lies on the canvas, and its range. */
interface Place {
  top: number;
  height: number;
  low: number;
  high: number;
  log: boolean;
  format: (value: number) => string;
}

const AXIS_BOTTOM = 22;
const PANE_GAP = 10;

/**
 * Stacked panes over one axis of records (not of time, so that a night or a weekend leaves no hole). Draws at most once per
 * frame, and only what is in view.
 */
export class Chart {
  readonly canvas = document.createElement("canvas");
  #drawing: Drawing = { count: 0, time_ms: () => 0, panes: [] };
  #view: View;
  #following = true;
  /** The reader has chosen how much is in view. */
  #chosen = false;
  #hover: number | null = null;
  #hover_y: number | null = null;
  #colors: Palette | null = null;
  #axis_right = 56;
  #size = { width: 0, height: 0 };
  #places: Place[] = [];
  #cleanup: (() => void)[] = [];
  #ask = oncePerFrame(() => this.#draw());

  constructor(
    readonly host: HTMLElement,
    readonly options: ChartOptions,
  ) {
    this.#view = { from: -options.view_count, to: 0 };
    host.append(this.canvas);
    const observer = new ResizeObserver(() => {
      const box = host.getBoundingClientRect();
      this.#size = { width: box.width, height: box.height };
      if (this.#following) this.#follow();
      this.#ask();
    });
    observer.observe(host);
    this.#cleanup.push(() => observer.disconnect());
    const repaint = () => {
      this.#colors = null;
      this.#ask();
    };
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", repaint);
    addEventListener("tidegate:theme", repaint);
    this.#cleanup.push(() => scheme.removeEventListener("change", repaint));
    this.#cleanup.push(() => removeEventListener("tidegate:theme", repaint));
    this.#listen();
  }

  destroy(): void {
    for (const run of this.#cleanup) run();
    this.canvas.remove();
  }

  set(drawing: Drawing): void {
    const grown = drawing.count - this.#drawing.count;
    this.#drawing = drawing;
    if (this.#following || grown < 0) this.#follow();
    this.#ask();
  }

  get following(): boolean {
    return this.#following;
  }

  /** Back to the newest record. */
  latest(): void {
    this.#following = true;
    this.#follow();
    this.hover(null);
    this.#ask();
  }

  zoom(factor: number): void {
    const at = this.#following ? this.#drawing.count : (this.#view.from + this.#view.to) / 2;
    this.#move(zoomed(this.#view, at, factor, this.#drawing.count));
  }

  pan(share: number): void {
    const by = (this.#view.to - this.#view.from) * share;
    this.#move(clamped({ from: this.#view.from + by, to: this.#view.to + by }, this.#drawing.count));
  }

  /** Moves the crosshair by records, bringing it into view. */
  step(by: number): void {
    const last = this.#drawing.count - 1;
    if (last < 0) return;
    const index = Math.min(last, Math.max(0, (this.#hover ?? last + (by < 0 ? 1 : 0)) + by));
    this.#hover_y = null;
    if (index < this.#view.from + 1 || index > this.#view.to - 1) {
      const half = (this.#view.to - this.#view.from) / 2;
      this.#move(clamped({ from: index - half, to: index + half }, this.#drawing.count));
    }
    this.hover(index);
  }

  hover(index: number | null): void {
    if (index !== this.#hover) {
      this.#hover = index;
      this.options.onHover?.(index);
    }
    this.#ask();
  }

  #follow(): void {
    const { view_count, fit_least, record_px, pad_right } = this.options;
    const count = this.#drawing.count;
    let width = this.#view.to - this.#view.from;
    if (!this.#chosen) {
      width = view_count;
      if (record_px !== undefined && this.#size.width)
        width = Math.min(width, Math.max(20, this.#plotWidth() / record_px));
      if (fit_least !== undefined) width = Math.min(width, Math.max(fit_least, count + pad_right));
    }
    const to = count + pad_right;
    this.#view = { from: to - width, to };
  }

  #move(view: View): void {
    if (Math.abs(view.to - view.from - (this.#view.to - this.#view.from)) > 1e-6) this.#chosen = true;
    this.#view = view;
    this.#following = view.to >= this.#drawing.count && view.to <= this.#drawing.count + this.options.pad_right + 1;
    if (this.#following) this.#follow();
    this.#ask();
  }

  #listen(): void {
    const { canvas } = this;
    const on = <K extends keyof HTMLElementEventMap>(
      name: K,
      run: (event: HTMLElementEventMap[K]) => void,
      passive = true,
    ) => canvas.addEventListener(name, run, { passive });
    const fingers = new Map<number, { x: number; y: number }>();
    on("pointermove", (event) => {
      const { x, y } = this.#spot(event);
      const held = fingers.get(event.pointerId);
      if (held && this.options.interactive) {
        const step = this.#step();
        const others = [...fingers].filter(([id]) => id !== event.pointerId);
        if (others.length === 1) {
          const still = others[0]![1].x;
          const factor = Math.abs(held.x - still) / Math.max(20, Math.abs(x - still));
          this.#move(zoomed(this.#view, this.#index((x + still) / 2), factor, this.#drawing.count));
        } else if (x !== held.x) {
          const by = (held.x - x) / step;
          this.#move(clamped({ from: this.#view.from + by, to: this.#view.to + by }, this.#drawing.count));
        }
        fingers.set(event.pointerId, { x, y });
      }
      const index = Math.round(this.#index(x) - 0.5);
      this.#hover_y = y;
      this.hover(index >= 0 && index < this.#drawing.count && x < this.#plotWidth() ? index : null);
    });
    on("pointerdown", (event) => {
      if (!this.options.interactive || event.button !== 0) return;
      fingers.set(event.pointerId, this.#spot(event));
      canvas.setPointerCapture(event.pointerId);
    });
    const release = (event: PointerEvent) => void fingers.delete(event.pointerId);
    on("pointerup", release);
    on("pointercancel", release);
    on("pointerleave", () => {
      this.#hover_y = null;
      this.hover(null);
    });
    if (!this.options.interactive) return;
    on("dblclick", () => this.latest());
    on(
      "wheel",
      (event) => {
        const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
        if (!sideways && !event.ctrlKey && document.activeElement !== this.host && !event.altKey) return; // the page scrolls
        event.preventDefault();
        if (sideways) this.pan(event.deltaX / Math.max(200, this.#plotWidth()));
        else {
          const at = this.#following ? this.#drawing.count : this.#index(this.#spot(event).x);
          this.#move(zoomed(this.#view, at, Math.exp(event.deltaY / 400), this.#drawing.count));
        }
      },
      false,
    );
  }

  #spot(event: MouseEvent): { x: number; y: number } {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #plotWidth(): number {
    return Math.max(10, this.#size.width - this.#axis_right);
  }

  #step(): number {
    return this.#plotWidth() / (this.#view.to - this.#view.from);
  }

  #index(x: number): number {
    return this.#view.from + x / this.#step();
  }

  /** Middle of record `index`. */
  #x(index: number): number {
    return (index + 0.5 - this.#view.from) * this.#step();
  }

  #draw(): void {
    const { width, height } = this.#size;
    if (width < 20 || height < 20) return;
    const ratio = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== h) [this.canvas.width, this.canvas.height] = [w, h];
    const g = this.canvas.getContext("2d");
    if (!g) return;
    const colors = (this.#colors ??= palette(this.host));
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = `11px ${colors.font}`;
    g.textBaseline = "middle";

    this.#layout(g);
    const first = Math.max(0, Math.floor(this.#view.from));
    const last = Math.min(this.#drawing.count - 1, Math.ceil(this.#view.to));
    this.#timeAxis(g, colors, first, last);
    this.#drawing.panes.forEach((pane, at) => this.#pane(g, colors, pane, at, first, last));
    this.#crosshair(g, colors);
  }

  /** Ranges and heights of panes, and the width of the value axis from its widest label. */
  #layout(g: CanvasRenderingContext2D): void {
    const { panes, count } = this.#drawing;
    const first = Math.max(0, Math.floor(this.#view.from));
    const last = Math.min(count, Math.ceil(this.#view.to) + 1);
    const weights = panes.reduce((sum, pane) => sum + pane.weight, 0) || 1;
    const room = this.#size.height - AXIS_BOTTOM - PANE_GAP * Math.max(0, panes.length - 1);
    let top = 0;
    let widest = 0;
    this.#places = panes.map((pane) => {
      const whole = (room * pane.weight) / weights;
      const caption = pane.label && whole > 64 ? 16 : 0; // where there is room, the label stands above the lines
      const height = whole - caption;
      top += caption;
      let [low, high] = pane.range ?? extent(seen(pane, first, last)) ?? [0, 1];
      if (!pane.range) {
        if (pane.zero) low = Math.min(0, low);
        if (pane.log) {
          [low, high] = [Math.max(1, low) / 1.3, Math.max(1, high) * 1.3];
        } else {
          if (high === low)
            [low, high] = [pane.zero ? 0 : low - Math.abs(low || 1) * 0.01, high + Math.abs(high || 1) * 0.01];
          const spare = (high - low) * 0.08;
          [low, high] = [pane.zero && low === 0 ? 0 : low - spare, high + spare * (pane.zero ? 2 : 1)];
        }
      }
      const { places } = ticks(low, high, Math.max(2.5, height / 38));
      const format = pane.format ?? ((value: number) => value.toFixed(places));
      const place = { top, height, low, high, log: pane.log ?? false, format };
      top += height + PANE_GAP;
      for (const value of this.#ticks(place, pane)) widest = Math.max(widest, g.measureText(format(value)).width);
      if (pane.tag) widest = Math.max(widest, g.measureText(pane.tag.text).width);
      return place;
    });
    this.#axis_right = Math.max(44, Math.ceil(widest / 8) * 8 + 14); // in steps, so that it does not tremble
  }

  #ticks(place: Place, pane: Pane): number[] {
    if (pane.range && pane.guides) return pane.guides;
    return place.log
      ? logTicks(place.low, place.high)
      : ticks(place.low, place.high, Math.max(2.5, place.height / 38)).values;
  }

  #y(place: Place, value: number): number {
    const share = place.log
      ? Math.log(Math.max(value, place.low) / place.low) / Math.log(place.high / place.low)
      : (value - place.low) / (place.high - place.low);
    return place.top + place.height * (1 - share);
  }

  #timeAxis(g: CanvasRenderingContext2D, colors: Palette, first: number, last: number): void {
    const width = this.#plotWidth();
    const bottom = this.#size.height - AXIS_BOTTOM;
    g.textAlign = "center";
    for (const { index, ms, step_ms } of timeTicks(this.#drawing.time_ms, first, last, 84 / this.#step())) {
      const x = Math.round(this.#x(index)) + 0.5;
      if (x < 24 || x > width - 12) continue;
      line(g, colors.grid, x, 0, x, bottom);
      g.fillStyle = colors.muted;
      g.fillText(timeLabel(ms, step_ms), x, bottom + AXIS_BOTTOM / 2 + 2);
    }
  }

  #pane(g: CanvasRenderingContext2D, colors: Palette, pane: Pane, at: number, first: number, last: number): void {
    const place = this.#places[at]!;
    const width = this.#plotWidth();
    const bottom = place.top + place.height;
    const above = at > 0 ? this.#places[at - 1]! : null;
    const edge = above ? above.top + above.height + PANE_GAP / 2 : 0;
    if (above) line(g, colors.line, 0, Math.round(edge) + 0.5, this.#size.width, Math.round(edge) + 0.5);
    g.textAlign = "left";
    const tag_y = pane.tag ? this.#y(place, pane.tag.value) : null;
    for (const value of this.#ticks(place, pane)) {
      const y = Math.round(this.#y(place, value)) + 0.5;
      if (y < place.top + 5 || y > bottom - 3) continue;
      line(g, colors.grid, 0, y, width, y);
      if (tag_y !== null && Math.abs(tag_y - y) < 15) continue; // the tag covers it
      g.fillStyle = colors.muted;
      g.fillText(place.format(value), width + 7, y);
    }
    g.save();
    g.beginPath();
    g.rect(0, place.top - 2, width, place.height + 4);
    g.clip();
    for (const guide of pane.guides ?? []) {
      const y = Math.round(this.#y(place, guide)) + 0.5;
      g.setLineDash([3, 3]);
      line(g, colors.muted, 0, y, width, y);
      g.setLineDash([]);
    }
    for (const series of pane.series) {
      if (series.kind === "line") this.#line(g, colors, place, series, first, last);
      else if (series.kind === "columns") this.#columns(g, colors, place, series, first, last);
      else this.#candles(g, colors, place, series.candles, first, last);
    }
    g.restore();
    if (pane.label) {
      g.font = `600 11px ${colors.font}`;
      const text_width = g.measureText(pane.label).width;
      g.fillStyle = thin(colors.panel, 0.8);
      g.fillRect(4, edge + 5, text_width + 8, 16);
      g.fillStyle = colors.muted;
      g.fillText(pane.label, 8, edge + 13.5);
      g.font = `11px ${colors.font}`;
    }
    if (pane.tag) {
      const y = Math.min(bottom - 8, Math.max(place.top + 8, this.#y(place, pane.tag.value)));
      g.setLineDash([2, 3]);
      line(g, colors[pane.tag.ink], 0, Math.round(y) + 0.5, width, Math.round(y) + 0.5);
      g.setLineDash([]);
      label(g, pane.tag.text, width + 2, y, colors[pane.tag.ink], colors.panel, this.#axis_right - 4);
    }
  }

  #line(
    g: CanvasRenderingContext2D,
    colors: Palette,
    place: Place,
    series: Extract<Series, { kind: "line" }>,
    first: number,
    last: number,
  ): void {
    const color = colors[series.ink];
    g.lineWidth = series.width ?? 1.5;
    g.lineJoin = "round";
    g.strokeStyle = color;
    if (series.dash) g.setLineDash([4, 3]);
    let run: [number, number][] = [];
    const flush = () => {
      if (run.length === 1) {
        g.fillStyle = color;
        g.beginPath();
        g.arc(run[0]![0], run[0]![1], 1.5, 0, 7);
        g.fill();
      } else if (run.length > 1) {
        g.beginPath();
        run.forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
        g.stroke();
        if (series.fill) {
          const floor = place.top + place.height;
          g.lineTo(run.at(-1)![0], floor);
          g.lineTo(run[0]![0], floor);
          g.closePath();
          const shade = g.createLinearGradient(0, place.top, 0, floor);
          shade.addColorStop(0, thin(color, 0.28));
          shade.addColorStop(1, thin(color, 0.03));
          g.fillStyle = shade;
          g.fill();
        }
      }
      run = [];
    };
    for (let i = Math.max(0, first - 1); i <= Math.min(last + 1, series.values.length - 1); i += 1) {
      const value = series.values[i];
      if (value === null || value === undefined || !Number.isFinite(value)) flush();
      else run.push([this.#x(i), this.#y(place, value)]);
    }
    flush();
    g.setLineDash([]);
    g.lineWidth = 1;
  }

  #columns(
    g: CanvasRenderingContext2D,
    colors: Palette,
    place: Place,
    series: Extract<Series, { kind: "columns" }>,
    first: number,
    last: number,
  ): void {
    const half = Math.max(0.5, this.#step() * 0.35);
    const zero = this.#y(place, 0);
    for (let i = first; i <= last; i += 1) {
      const value = series.values[i];
      if (value === null || value === undefined || !Number.isFinite(value)) continue;
      const color = colors[typeof series.ink === "function" ? series.ink(i) : series.ink];
      const x = this.#x(i);
      const y = this.#y(place, value);
      g.fillStyle = thin(color, series.alpha ?? 0.8);
      g.fillRect(x - half, Math.min(y, zero), half * 2, Math.max(1, Math.abs(zero - y)));
      const part = series.part?.[i];
      if (part !== null && part !== undefined) {
        const inner = this.#y(place, part);
        g.fillStyle = thin(color, 0.55);
        g.fillRect(x - half, inner, half * 2, Math.max(0, zero - inner));
      }
    }
  }

  #candles(
    g: CanvasRenderingContext2D,
    colors: Palette,
    place: Place,
    candles: Candle[],
    first: number,
    last: number,
  ): void {
    const step = this.#step();
    const half = Math.max(0.5, Math.min(9, step * 0.36));
    for (let i = first; i <= Math.min(last, candles.length - 1); i += 1) {
      const candle = candles[i]!;
      const x = Math.round(this.#x(i)) + 0.5;
      const color = candle.close >= candle.open ? colors.up : colors.down;
      if (candle.missing) {
        g.fillStyle = thin(colors.bad, 0.13);
        g.fillRect(x - step / 2, place.top, step, place.height);
      }
      const [high, low] = [this.#y(place, candle.high), this.#y(place, candle.low)];
      line(g, color, x, high, x, low);
      if (step >= 3) {
        const [open, close] = [this.#y(place, candle.open), this.#y(place, candle.close)];
        const top = Math.min(open, close);
        const tall = Math.max(1, Math.abs(open - close));
        if (candle.forming) {
          g.fillStyle = colors.panel;
          g.fillRect(x - half, top, half * 2, tall);
          g.strokeStyle = color;
          g.setLineDash([2, 2]);
          g.strokeRect(x - half, top, half * 2, tall);
          g.setLineDash([]);
        } else {
          g.fillStyle = color;
          g.fillRect(x - half, top, half * 2, tall);
        }
      }
      if (candle.amended) {
        const size = Math.max(2.5, Math.min(4.5, step * 0.45));
        const y = high - size - 4;
        g.fillStyle = colors.warn;
        g.beginPath();
        g.moveTo(x, y - size);
        g.lineTo(x + size, y);
        g.lineTo(x, y + size);
        g.lineTo(x - size, y);
        g.fill();
      }
    }
  }

  #crosshair(g: CanvasRenderingContext2D, colors: Palette): void {
    const index = this.#hover;
    if (index === null || index >= this.#drawing.count) return;
    const x = Math.round(this.#x(index)) + 0.5;
    const width = this.#plotWidth();
    const bottom = this.#size.height - AXIS_BOTTOM;
    g.setLineDash([3, 3]);
    line(g, colors.muted, x, 0, x, bottom);
    g.setLineDash([]);
    const iso = new Date(this.#drawing.time_ms(index)).toISOString();
    g.textAlign = "center";
    const text = iso.slice(11, iso.endsWith(".000Z") ? 19 : 23);
    const half = g.measureText(text).width / 2 + 6;
    const center = Math.min(width - half, Math.max(half, x));
    g.fillStyle = colors.text;
    g.fillRect(center - half, bottom + 4, half * 2, 17);
    g.fillStyle = colors.panel;
    g.fillText(text, center, bottom + 13);
    g.textAlign = "left";
    const y = this.#hover_y;
    const place = y === null ? undefined : this.#places.find((p) => y >= p.top && y <= p.top + p.height);
    if (y === null || !place || place.log) return;
    g.setLineDash([3, 3]);
    line(g, colors.muted, 0, Math.round(y) + 0.5, width, Math.round(y) + 0.5);
    g.setLineDash([]);
    const value = place.high - ((y - place.top) / place.height) * (place.high - place.low);
    label(g, place.format(value), width + 2, y, colors.text, colors.panel, this.#axis_right - 4);
  }
}

function* seen(pane: Pane, first: number, last: number): Generator<number | null | undefined> {
  for (const series of pane.series) {
    for (let i = first; i < last; i += 1) {
      if (series.kind === "candles") {
        yield series.candles[i]?.high;
        yield series.candles[i]?.low;
      } else yield series.values[i];
    }
  }
  if (pane.series.some((series) => series.kind === "columns")) yield 0;
}

function line(g: CanvasRenderingContext2D, color: string, x0: number, y0: number, x1: number, y1: number): void {
  g.strokeStyle = color;
  g.beginPath();
  g.moveTo(x0, y0);
  g.lineTo(x1, y1);
  g.stroke();
}

function label(
  g: CanvasRenderingContext2D,
  text: string,
  x: number,
  y: number,
  back: string,
  ink: string,
  width: number,
): void {
  g.fillStyle = back;
  g.fillRect(x, y - 8.5, width, 17);
  g.fillStyle = ink;
  g.fillText(text, x + 5, y + 0.5);
}
