import { describe, expect, it } from "vitest";
import { extent, logTicks, niceStep, ticks, timeLabel, timeTicks, zoomed } from "../chart/scale";
import type { Bar, LedgerEntry, Row, Stage, Status } from "../api/types";
import { address } from "../api/rest";
import { sortRows } from "../ui/table";
import { BarSeries, compareTs, RowSeries } from "./bars";
import { placesOf } from "./decimals";
import { groups, heat, join, parameters, rangeOf } from "./derived";
import { barsDrawing } from "./drawing";
import {
  axis,
  brief,
  clock,
  count,
  DASH,
  float,
  millis,
  nanos,
  percent,
  seconds,
  short,
  split,
  stamp,
  toMillis,
} from "./format";
import { History } from "./history";
import { groupOf, placement, valuesOf } from "./indicators";
import { ledgerView } from "./ledger";
import { graphOf } from "./pipeline";
import { format, parse } from "./route";
import { rowsInView } from "./window";

const plain = (text: string) => text.replace(/\u202f/g, " ");

describe("what is not known", () => {
  it("is a dash everywhere", () => {
    for (const write of [count, short, nanos, millis, seconds, percent, float, clock, stamp]) {
      expect(write(null)).toBe(DASH);
      expect(write(undefined)).toBe(DASH);
    }
    for (const write of [count, short, nanos, seconds, percent, float]) expect(write(Number.NaN)).toBe(DASH);
  });
  it("is not confused with nothing", () => {
    expect([count(0), short(0), plain(nanos(0)), plain(percent(0)), float(0)]).toEqual(["0", "0", "0 ns", "0 %", "0"]);
  });
});

describe("numbers", () => {
  it("are grouped without a comma or a point", () => {
    expect(plain(count(158_505_308))).toBe("158 505 308");
    expect(plain(count(-1_000))).toBe("-1 000");
    expect(count(999)).toBe("999");
  });
  it("are short with three digits", () => {
    expect([198_208, 4_050, 222e6, 999.6, 17, 0.5, 999_999].map((n) => plain(short(n)))).toEqual([
      "198 k",
      "4.05 k",
      "222 M",
      "1.00 k",
      "17",
      "0.50",
      "1.00 M",
    ]);
  });
  it("have the unit that fits", () => {
    expect([850, 56_210, 1_071_000, 2_500_000_000, 999_600].map((n) => plain(nanos(n)))).toEqual([
      "850 ns",
      "56.2 µs",
      "1.07 ms",
      "2.50 s",
      "1.00 ms",
    ]);
    expect([4, 185, 8_040, 273_600].map((n) => plain(seconds(n)))).toEqual(["4 s", "3 m 05 s", "2 h 14 m", "3 d 04 h"]);
    expect([0.004, 0.37, 1].map((n) => plain(percent(n)))).toEqual(["0.4 %", "37 %", "100 %"]);
    expect(plain(axis(short)(4000))).toBe("4 k");
  });
  it("of indicators keep six digits behind the point, and what came as text stays text", () => {
    expect(float(57.123456789)).toBe("57.123457");
    expect(float(0.00000012)).toBe("1.2000e-7");
    expect(float("12.50")).toBe("12.50");
    expect(brief(64321.48105)).toBe("64321.48");
  });
});

describe("decimal strings", () => {
  it("come out as they went in, whatever a float would make of them", () => {
    for (const text of ["64086.10", "0.000000001", "123456789012345678.123456789", "-0.0", "42"]) {
      expect(split(text).join("")).toBe(text);
    }
  });
  it("align by their longest fraction", () => {
    expect(placesOf(["1", "2.5", null, "3.125"])).toBe(3);
    expect(placesOf([])).toBe(0);
  });
});

describe("times", () => {
  it("keep their nanoseconds", () => {
    expect(clock("1767623400100000001")).toBe("14:30:00.100000001");
    expect(stamp("1767623400000000000")).toBe("2026-01-05 14:30:00");
    expect(toMillis("1767623400999999999")).toBe(1767623400999);
    expect(clock("0")).toBe("00:00:00");
    expect(clock("5")).toBe("00:00:00.000000005");
    expect(clock("soon")).toBe(DASH);
  });
  it("are ordered as integers of any size", () => {
    expect(compareTs("999", "1000")).toBeLessThan(0);
    expect(compareTs("1767623400000000001", "1767623400000000000")).toBeGreaterThan(0);
    expect(compareTs("7", "7")).toBe(0);
  });
});

function bar(over: Partial<Bar>): Bar {
  return {
    key: "K",
    stream: "bars.1s",
    slot: 1,
    seq: 1,
    ts_open: "1000",
    ts: "2000",
    state: "final",
    cause: "watermark",
    open: "1",
    high: "2",
    low: "1",
    close: "2",
    volume: "1",
    buy_volume: "0",
    notional: "1",
    vwap: "1",
    trades: 1,
    rev: 0,
    missing: 0,
    ...over,
  };
}

describe("bars", () => {
  it("form, close and are amended in place", () => {
    const series = new BarSeries();
    series.take([bar({ state: "forming", seq: null, close: "1" }), bar({ state: "forming", seq: null, close: "1.5" })]);
    expect(series.bars.map((b) => b.close)).toEqual(["1.5"]);
    series.take([bar({ seq: 4 })]);
    expect(series.take([bar({ state: "forming", seq: null, close: "9" })])).toBe(false);
    series.take([bar({ ts_open: "2000", ts: "3000", seq: 5 }), bar({ seq: 6, rev: 1, state: "amended", close: "3" })]);
    expect(series.bars.map((b) => [b.ts_open, b.close, b.rev])).toEqual([
      ["1000", "3", 1],
      ["2000", "2", 0],
    ]);
    expect(series.take([bar({ seq: 4 })])).toBe(false);
    expect(series.bars).toHaveLength(2);
  });
  it("are the same whether history or the live part comes first", () => {
    const history = [
      bar({}),
      bar({ ts_open: "2000", ts: "3000", seq: 2 }),
      bar({ ts_open: "3000", ts: "4000", seq: 3 }),
    ];
    const live = [
      bar({ ts_open: "3000", ts: "4000", seq: 3 }),
      bar({ seq: 9, rev: 1, state: "amended" }),
      bar({ ts_open: "4000", ts: "5000", seq: 4 }),
    ];
    const [a, b] = [new BarSeries(), new BarSeries()];
    a.take([...history, ...live]);
    b.take([...live, ...history]);
    expect(a.bars).toEqual(b.bars);
    expect(a.bars.map((one) => one.rev)).toEqual([1, 0, 0, 0]);
  });
  it("by measure may open in the same nanosecond", () => {
    const series = new BarSeries();
    series.take([bar({ seq: 1, ts: "1500" }), bar({ seq: 2, ts: "1600" })]);
    expect(series.bars.map((b) => b.seq)).toEqual([1, 2]);
  });
  it("leave out late trades that were set aside", () => {
    const late = {
      key: "K",
      stream: "bars.1s",
      slot: 1,
      seq: 7,
      ts: "2000",
      state: "late" as const,
      cause: null,
      late: { ts: "1", price: "1", size: "1" },
    };
    expect(new BarSeries().take([late])).toBe(false);
    expect(new RowSeries().take([late])).toBe(false);
  });
  it("are bounded", () => {
    const series = new BarSeries(3);
    series.take(Array.from({ length: 10 }, (_, i) => bar({ ts_open: String(1000 + i), ts: String(2000 + i), seq: i })));
    expect(series.bars.map((b) => b.seq)).toEqual([7, 8, 9]);
  });
  it("are drawn with their marks", () => {
    const drawing = barsDrawing(
      [bar({ state: "amended", missing: 3 }), bar({ ts_open: "2000", state: "forming", vwap: null })],
      [],
      [],
      true,
    );
    const price = drawing.panes[0]!;
    expect(price.tag?.text).toBe("2");
    const candles = price.series.find((one) => one.kind === "candles");
    expect(candles?.candles.map((c) => [c.amended, c.missing, c.forming])).toEqual([
      [true, true, false],
      [false, false, true],
    ]);
    expect(price.series[0]).toMatchObject({ kind: "line", values: [1, null] });
  });
});

describe("rows", () => {
  const row = (ts: string, seq: number, state: Row["state"] = "final"): Row => ({
    key: "K",
    stream: "ind",
    slot: 1,
    seq,
    ts,
    state,
    cause: null,
    values: { x: seq },
  });
  it("are ordered by time, without doubles, and bounded", () => {
    const series = new RowSeries(3);
    series.take([row("100", 1), row("300", 3), row("200", 2), row("200", 2)]);
    expect(series.rows.map((r) => r.seq)).toEqual([1, 2, 3]);
    series.take([row("400", 4)]);
    expect(series.at("100")).toBeUndefined();
    expect(series.at("400")?.values.x).toBe(4);
  });
  it("that form are replaced", () => {
    const series = new RowSeries();
    series.take([row("150", 0, "forming"), row("160", 0, "forming"), row("200", 1)]);
    expect(series.rows.map((r) => r.ts)).toEqual(["200"]);
  });
});

describe("ledger", () => {
  const entry = (over: Partial<LedgerEntry>): LedgerEntry => ({
    stage: "bars.1s",
    delivered: 10,
    by_cause: { applied: 9, late_amended: 1 },
    imbalance: 0,
    ...over,
  });
  it("is added up here, not repeated", () => {
    expect(ledgerView([entry({})]).balances).toBe(true);
    const lying = ledgerView([entry({ delivered: 12 })]);
    expect(lying.balances).toBe(false);
    expect(lying.columns[0]).toMatchObject({ computed: 2, stated: 0 });
    expect(ledgerView([entry({ imbalance: 1 })]).balances).toBe(false);
  });
  it("lists causes in the node's order, unknown ones last, zero ones not at all", () => {
    const entries = [entry({ by_cause: { zeal: 1, applied: 8, too_late: 1, over_bound: 0 } })];
    const order = ["too_late", "over_bound", "applied"];
    expect(ledgerView(entries, order).causes).toEqual(["too_late", "applied", "zeal"]);
    expect(ledgerView(entries).causes).toEqual(["applied", "too_late", "zeal"]);
  });
  it("says nothing when nothing is known", () => {
    expect(ledgerView(null).balances).toBeNull();
    expect(ledgerView([entry({ delivered: null })]).balances).toBeNull();
  });
});

describe("pipeline", () => {
  const stage = (name: string, upstream: string | null): Stage => ({ name, upstream, stream: name, outputs: 1 });
  const shard = {
    shard: 0,
    phase: null,
    events: null,
    outputs: null,
    watermark: null,
    lag_ms: null,
    ring_depth: null,
    ring_capacity: null,
    busy: null,
    panics: null,
    restarts: null,
  };
  it("is a tree in columns, one row per stage", () => {
    const graph = graphOf({
      feeds: null,
      shards: [shard],
      stages: [
        stage("bars.1s", "feed"),
        stage("hosts.1m", "feed"),
        stage("ind.1s", "bars.1s"),
        stage("bars.1m", "bars.1s"),
        stage("ind.1m", "bars.1m"),
      ],
    });
    expect(graph.columns.map((c) => c.title)).toEqual([
      "Shards",
      "Operators",
      "Analyzers",
      "Further analyzers",
      "Streams",
    ]);
    const stages = graph.boxes.filter((box) => box.kind === "stage");
    expect(new Set(stages.map((box) => box.row)).size).toBe(5);
    expect(graph.edges).toContainEqual({ from: "stage:bars.1m", to: "stage:ind.1m" });
    expect(graph.edges).toContainEqual({ from: "shard:0", to: "stage:hosts.1m" });
    expect(graph.edges.filter((edge) => edge.to === "stage:ind.1s")).toHaveLength(1);
  });
  it("survives circles, unknown upstreams and too many shards", () => {
    const graph = graphOf({
      feeds: [],
      shards: Array.from({ length: 64 }, (_, i) => ({ ...shard, shard: i })),
      stages: [stage("a", "b"), stage("b", "a"), stage("c", "gone")],
    });
    expect(graph.columns[0]).toMatchObject({ count: 64, left_out: 52 });
    expect(graph.boxes.filter((box) => box.kind === "stage")).toHaveLength(3);
  });
  it("is empty for a node that says nothing", () => {
    expect(graphOf({ feeds: null, shards: null, stages: null })).toEqual({
      boxes: [],
      edges: [],
      columns: [],
      rows: 0,
    });
  });
});

describe("indicators", () => {
  it("lie where they belong", () => {
    expect(placement("ema_20").pane).toBe("price");
    expect(placement("bb_upper").pane).toBe("price");
    expect(placement("rsi_14")).toMatchObject({ pane: "RSI", range: [0, 100] });
    expect(placement("macd_hist")).toMatchObject({ pane: "MACD", histogram: true });
    expect(placement("regime").pane).toBe("regime");
    expect(["bb_mid", "macd_signal", "rsi_14"].map(groupOf)).toEqual(["bb", "macd", "rsi_14"]);
  });
  it("are found by the pipeline, else by name", () => {
    const streams = [
      { name: "bars.1s", kind: "bars" as const, columns: [] },
      { name: "ind.1s", kind: "values" as const, columns: ["x"] },
      { name: "mine", kind: "values" as const, columns: ["y"] },
    ];
    const stages: Stage[] = [
      { name: "bars.1s", upstream: "feed", stream: "bars.1s", outputs: 0 },
      { name: "mine", upstream: "bars.1s", stream: "mine", outputs: 0 },
    ];
    expect(valuesOf(streams[0]!, streams, stages).map((s) => s.name)).toEqual(["mine"]);
    const silent = streams.map(({ name }) => ({ name, upstream: null, stream: name, outputs: 0 }));
    expect(valuesOf(streams[0]!, streams, silent).map((s) => s.name)).toEqual(["ind.1s"]);
    expect(valuesOf(streams[0]!, streams, null).map((s) => s.name)).toEqual(["ind.1s"]);
  });
});

describe("history", () => {
  const status = (rate: number): Status => ({
    version: null,
    uptime_s: null,
    events: { total: null, rate },
    results: null,
    keys: null,
    latency_ns: null,
    shards: null,
    feeds: null,
    subscribers: null,
    ledger: null,
    stages: null,
  });
  it("draws a hole where the page heard nothing", () => {
    const history = new History();
    for (const at of [0, 1_000, 2_000, 30_000]) history.push(status(at), at);
    expect(history.samples.map((s) => s.events)).toEqual([0, 1_000, 2_000, null, 30_000]);
  });
  it("is bounded, and a burst counts once", () => {
    const history = new History();
    for (let i = 0; i < 500; i += 1) history.push(status(i), i * 1_000);
    history.push(status(1), 499_100);
    expect(history.samples).toHaveLength(300);
    expect(history.samples.at(-1)?.events).toBe(499);
  });
});

describe("axes", () => {
  it("have round steps", () => {
    expect([1, 7, 42, 0.03].map((span) => niceStep(span, 4))).toEqual([0.5, 2, 20, 0.01]);
    expect(ticks(63_870, 64_310, 4)).toEqual({ values: [64_000, 64_200], places: 0 });
    expect(ticks(0.1231, 0.1236, 5).places).toBe(4);
    expect(ticks(1, 1, 4).values).toEqual([]);
    expect(logTicks(40_000, 1_000_000)).toEqual([50_000, 100_000, 200_000, 500_000, 1_000_000]);
  });
  it("ignore what is not known", () => {
    expect(extent([null, 3, Number.NaN, 1, undefined])).toEqual([1, 3]);
    expect(extent([null])).toBeNull();
  });
  it("label round instants", () => {
    const labels = timeTicks((i) => 1767623397_000 + i * 1_000, 0, 60, 14).map((t) => [
      t.index,
      timeLabel(t.ms, t.step_ms),
    ]);
    expect(labels).toEqual([
      [3, "14:30:00"],
      [18, "14:30:15"],
      [33, "14:30:30"],
      [48, "14:30:45"],
    ]);
    expect(timeLabel(1767571200_000, 60_000)).toBe("01-05");
  });
  it("stay with the record that was zoomed at", () => {
    const view = zoomed({ from: 400, to: 500 }, 450, 0.5, 600);
    expect(view).toEqual({ from: 425, to: 475 });
    const wide = zoomed({ from: 0, to: 600 }, 300, 10, 600);
    expect(wide.to - wide.from).toBeCloseTo(630);
  });
});

describe("lists", () => {
  it("hold only the rows in view", () => {
    expect(rowsInView(0, 300, 30, 2_000)).toEqual({ first: 0, end: 16 });
    expect(rowsInView(30_000, 300, 30, 2_000)).toEqual({ first: 994, end: 1_016 });
    expect(rowsInView(90_000, 300, 30, 2_000)).toEqual({ first: 2_000, end: 2_000 });
    expect(rowsInView(0, 0, 30, 0)).toEqual({ first: 0, end: 0 });
  });
  it("sort stably, unknown last either way", () => {
    const rows = [
      { n: 2, i: 0 },
      { n: null, i: 1 },
      { n: 1, i: 2 },
      { n: 2, i: 3 },
    ];
    expect(sortRows(rows, (r) => r.n, false).map((r) => r.i)).toEqual([2, 0, 3, 1]);
    expect(sortRows(rows, (r) => r.n, true).map((r) => r.i)).toEqual([0, 3, 2, 1]);
  });
});

describe("addresses", () => {
  it("go there and back", () => {
    for (const item of ["BTCUSD", "10.0.0.1", "a/b c%", "fe80::1"]) {
      expect(parse(format({ page: "keys", item, query: { stream: "bars.1s" } }))).toEqual({
        page: "keys",
        item,
        query: { stream: "bars.1s" },
      });
    }
  });
  it("that make no sense lead to the overview", () => {
    for (const hash of ["", "#", "#/nowhere/x", "garbage"])
      expect(parse(hash)).toMatchObject({ page: "overview", item: null });
    expect(parse("#/keys/%E0%A4%A").item).toBeNull();
  });
  it("of requests are escaped", () => {
    expect(address("/v1/keys", { search: "a&b", limit: 5, after: undefined })).toBe("/v1/keys?search=a%26b&limit=5");
  });
});

describe("what is derived", () => {
  const stream = (name: string, columns: string[] = ["bars", "x"]) => ({ name, kind: "values" as const, columns });
  const row = (key: string, values: Row["values"]) => ({ key, ts: "5", values }) as Row;

  it("is grouped by what it is of, and parts of a surface belong together", () => {
    const all = ["bars.1s", "surface.rsi", "surface.rsi.2", "corr.spectrum", "risk.var", "ind.1s"].map((name) =>
      stream(name),
    );
    const found = groups(all).map((group) => [group.name, group.kind, group.streams.length]);
    expect(found).toEqual([
      ["surface.rsi", "surface", 2],
      ["corr.spectrum", "spectrum", 1],
      ["risk.var", "risk", 1],
    ]);
    const [surface] = groups([stream("surface.a", ["bars", "rsi_2"]), stream("surface.a.2", ["bars", "rsi_17"])]);
    expect(parameters(surface!)).toEqual(["rsi_2", "rsi_17"]);
  });

  it("joins the parts of a row and says of how many bars it is", () => {
    const lines = join(
      [row("A", { bars: 3, rsi_2: 1 }), row("B", { bars: 2, rsi_2: null }), row("A", { bars: 3, rsi_17: 2 })],
      (one) => one.key,
    );
    expect(lines).toEqual([
      { key: "A", ts: "5", bars: 3, values: { rsi_2: 1, rsi_17: 2 } },
      { key: "B", ts: "5", bars: 2, values: { rsi_2: null } },
    ]);
  });

  it("colours from the least to the largest, around zero where values lie on both sides of it", () => {
    const lines = [0, 50, 100].map((x) => ({ key: "A", ts: "1", bars: 1, values: { x } }));
    expect(rangeOf(lines, ["x"])).toEqual({ low: 0, high: 100, signed: false });
    expect(rangeOf([{ ...lines[0]!, values: { x: null } }], ["x"])).toBeNull();
    const signed = rangeOf(
      [-1, 3].map((x) => ({ key: "A", ts: "1", bars: 1, values: { x } })),
      ["x"],
    )!;
    expect(signed).toEqual({ low: -3, high: 3, signed: true });
    expect(heat(0, signed)).toEqual({ side: "high", part: 0 });
    expect(heat(-3, signed)).toEqual({ side: "low", part: 1 });
    expect(heat(9, signed)).toEqual({ side: "high", part: 1 });
    expect(heat(null, signed)).toBeNull();
    expect(heat(7, { low: 7, high: 7, signed: false })).toEqual({ side: "high", part: 0 });
  });
});
