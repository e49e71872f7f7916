import type { Stage, Status } from "../api/types";

export type NodeKind = "feed" | "shard" | "stage" | "stream";

export interface Box {
  id: string;
  kind: NodeKind;
  name: string;
  column: number;
  /** Halves are allowed: shorter columns are centred. */
  row: number;
}

export interface Graph {
  boxes: Box[];
  edges: { from: string; to: string }[];
  columns: { title: string; kind: NodeKind; count: number; left_out: number }[];
  rows: number;
}

/** Boxes drawn per column; the tables hold all. */
export const COLUMN_MAX = 12;

/**
 * The node's actors as columns from left to right: feeds, shards, then stages by their distance from the feed, then the
 * streams they write. Stages run inside every shard; the edges from shards to stages say that. Each stage has a row of its
 * own, shared with its stream, so that no edge crosses a box.
 */
export function graphOf(status: Pick<Status, "feeds" | "shards" | "stages">): Graph {
  const stages = inOrder(unique(status.stages ?? [])).slice(0, COLUMN_MAX);
  const stages_left_out = unique(status.stages ?? []).length - stages.length;
  const depth = depths(stages);
  const rows = Math.max(
    stages.length,
    Math.min(COLUMN_MAX, status.feeds?.length ?? 0),
    Math.min(COLUMN_MAX, status.shards?.length ?? 0),
  );
  const columns: Graph["columns"] = [];
  const boxes: Box[] = [];
  const edges: Graph["edges"] = [];

  const centred = (title: string, kind: NodeKind, names: string[]): string[] => {
    if (!names.length) return [];
    const shown = names.slice(0, COLUMN_MAX);
    const column = columns.length;
    columns.push({ title, kind, count: names.length, left_out: names.length - shown.length });
    return shown.map((name, i) => {
      boxes.push({ id: `${kind}:${name}`, kind, name, column, row: i + (rows - shown.length) / 2 });
      return `${kind}:${name}`;
    });
  };
  const feeds = centred(
    "Feeds",
    "feed",
    (status.feeds ?? []).map((feed) => feed.source),
  );
  const shards = centred(
    "Shards",
    "shard",
    (status.shards ?? []).map((shard) => String(shard.shard)),
  );
  for (const from of feeds) for (const to of shards) edges.push({ from, to });

  const first_row = (rows - stages.length) / 2;
  const first_column = columns.length;
  const depth_max = Math.max(-1, ...depth.values());
  for (let d = 0; d <= depth_max; d += 1) {
    const count = stages.filter((stage) => depth.get(stage.name) === d).length;
    const title = ["Operators", "Analyzers"][d] ?? "Further analyzers";
    columns.push({ title, kind: "stage", count, left_out: d === 0 ? stages_left_out : 0 });
  }
  const streams = new Set<string>();
  stages.forEach((stage, i) => {
    const id = `stage:${stage.name}`;
    const at = depth.get(stage.name)!;
    boxes.push({ id, kind: "stage", name: stage.name, column: first_column + at, row: first_row + i });
    if (at > 0) edges.push({ from: `stage:${stage.upstream}`, to: id });
    else for (const from of shards) edges.push({ from, to: id });
    if (stage.stream === null) return;
    if (!streams.has(stage.stream)) {
      boxes.push({
        id: `stream:${stage.stream}`,
        kind: "stream",
        name: stage.stream,
        column: first_column + depth_max + 1,
        row: first_row + i,
      });
    }
    streams.add(stage.stream);
    edges.push({ from: id, to: `stream:${stage.stream}` });
  });
  if (streams.size) columns.push({ title: "Streams", kind: "stream", count: streams.size, left_out: 0 });
  boxes.sort((a, b) => a.column - b.column || a.row - b.row);
  return { boxes, edges, columns, rows };
}

/** Each stage directly behind what it reads: a tree from the top down. */
function inOrder(stages: Stage[]): Stage[] {
  const names = new Set(stages.map((stage) => stage.name));
  const out = new Set<Stage>();
  const take = (stage: Stage) => {
    if (out.has(stage)) return;
    out.add(stage);
    for (const below of stages) if (below.upstream === stage.name) take(below);
  };
  for (const stage of stages) if (stage.upstream === null || !names.has(stage.upstream)) take(stage);
  for (const stage of stages) take(stage); // a circle, which no node should have
  return [...out];
}

function unique(stages: Stage[]): Stage[] {
  return [...new Map(stages.map((stage) => [stage.name, stage])).values()];
}

/** Steps from the feed. An upstream that is not a known stage (`feed`, or one not listed) is the feed. */
function depths(stages: Stage[]): Map<string, number> {
  const by_name = new Map(stages.map((stage) => [stage.name, stage]));
  const depth = new Map<string, number>();
  const of = (stage: Stage, trail: Set<string>): number => {
    const known = depth.get(stage.name);
    if (known !== undefined) return known;
    const above = stage.upstream === null || trail.has(stage.name) ? undefined : by_name.get(stage.upstream);
    const own = above && above !== stage ? of(above, trail.add(stage.name)) + 1 : 0;
    depth.set(stage.name, own);
    return own;
  };
  for (const stage of stages) of(stage, new Set());
  return depth;
}
