import { describe, expect, test } from "vitest";
import { busy, several, WELL } from "../../mock/cluster";
import type { Cluster, ClusterGroup } from "../api/types";
import { lags } from "./cluster";
import { count } from "./format";
import * as groups from "./groups";

const member = (state: Cluster, node: number) => state.members.find((member) => member.node === node)!;
const place = (state: Cluster, group: number, node: number) =>
  groups.placeOf(state.groups[group]!, member(state, node));
const changed = (state: Cluster, group: number, change: Partial<ClusterGroup>): Cluster => ({
  ...state,
  groups: state.groups.map((of) => (of.group === group ? { ...of, ...change } : of)),
});

describe("slots", () => {
  test("runs have both ends, and cover every slot once", () => {
    expect(groups.runs([[0, 0]])).toEqual([[0, 4_095, 0]]);
    expect(groups.runs([])).toEqual([]);
    const { slots } = busy(64);
    expect(groups.runs(slots).slice(0, 4)).toEqual([
      [0, 19, 0],
      [20, 20, 4],
      [21, 63, 0],
      [64, 127, 1],
    ]);
    expect(groups.slotsText(slots, 0)).toBe("0 to 19, 21 to 63");
    expect(groups.slotsText(slots, 4)).toBe("20, 256 to 319");
    expect(groups.slotsText(slots, 64)).toBe("");
  });

  test("many runs of a group are counted, not listed", () => {
    const striped = Array.from({ length: 20 }, (_, at): [number, number] => [at, at % 2]);
    expect(groups.slotsText(striped, 0, 3)).toBe("0, 2, 4, and 7 more runs");
  });

  test.each([1, 3, 6, 64])("the map of %i groups draws each slot once, in rows", (many) => {
    const state = busy(Math.max(many, 10));
    for (const slots of [several(many).slots, state.slots]) {
      const owner = new Array<number>(groups.SLOTS).fill(-1);
      for (const { row, at, width, group, first, last } of groups.segments(slots, 512)) {
        expect(at + width, "no row is left").toBeLessThanOrEqual(512);
        for (let slot = row * 512 + at; slot < row * 512 + at + width; slot += 1) {
          if (owner[slot] !== -1 || slot < first || slot > last) throw new Error(`slot ${slot} is drawn amiss`);
          owner[slot] = group;
        }
      }
      const expected = groups.runs(slots).flatMap(([first, last, group]) => Array(last - first + 1).fill(group));
      expect(owner).toEqual(expected);
    }
  });

  test("neighbours differ in colour", () => {
    const apart = (a: number, b: number) => Math.min((a - b + 720) % 360, (b - a + 720) % 360);
    for (let group = 1; group < 64; group += 1) {
      expect(apart(groups.hue(group), groups.hue(group - 1))).toBeGreaterThan(90);
      // Above and below each other in the map of 64.
      if (group >= 8) expect(apart(groups.hue(group), groups.hue(group - 8))).toBeGreaterThan(15);
    }
  });

  test("slots that move are counted where they leave and where they come, if the node says so", () => {
    expect(groups.moving(several(64))).toEqual(new Map());
    const moving = groups.moving(busy(64));
    expect(moving.get(0)).toEqual({ leave: 3, come: 0 });
    expect(moving.get(4)).toEqual({ leave: 0, come: 2 });
    expect(moving.get(6)).toEqual({ leave: 0, come: 1 });
  });
});

describe("a group at a node", () => {
  const state = busy(64);

  test("leads, follows, relays", () => {
    expect(place(state, 0, 1)).toMatchObject({ kind: "leads", tone: "good", says: "leads", share: null });
    expect(place(state, 0, 2)).toMatchObject({ kind: "follows", tone: "good", says: "2 behind" });
    expect(place(state, 3, 1)).toMatchObject({ kind: "follows", says: "in sync", share: 0 });
    expect(place(state, 0, 4)).toMatchObject({ kind: "relays", tone: "faint", says: "relays 3" });
  });

  test("each trouble has a tone, words, and a place in the order", () => {
    const out = place(state, 5, 2);
    expect(out).toMatchObject({ kind: "out", tone: "warn", says: "out 5.21\u202fk", share: 1 });
    expect(out.title).toBe(`group 5 at node 2: not in sync; lacks ${count(5_210)} entries, 684\u202fKiB`);
    const apart = state.groups[9]!.relays![0]!.node;
    expect(place(state, 9, apart)).toMatchObject({ kind: "relays", tone: "bad", says: "no source" });
    const reads = changed(state, 9, {
      relays: [{ ...state.groups[9]!.relays![0]!, from: 5, caught_up: false }],
    });
    expect(place(reads, 9, apart)).toMatchObject({ tone: "warn", says: "reads 5" });
    expect(place(changed(reads, 9, { relays: [] }), 9, apart)).toMatchObject({ kind: "none", says: "–" });
    const eligible = changed(state, 5, { eligible: [2] });
    expect(place(eligible, 5, 2)).toMatchObject({ kind: "out", says: "eligible" });
    const gone = { ...state, members: state.members.map((of) => (of.node === 3 ? { ...of, connected: false } : of)) };
    expect(place(gone, 0, 3)).toMatchObject({ kind: "gone", tone: "bad", says: "gone" });
    const led = gone.groups.find((group) => group.leader === 3)!.group;
    expect(place(gone, led, 3)).toMatchObject({ kind: "leads", tone: "bad", says: "led, gone" });
    const ranks = [place(state, 0, 1), place(state, 0, 2), out, place(gone, 0, 3)].map((place) => place.rank);
    expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
  });

  test("a copy that comes says how far it is, and why it waits", () => {
    expect(place(state, 7, 1)).toMatchObject({ kind: "comes", says: "comes 39 %", tone: "" });
    const { coming } = state.groups[7]!;
    const entries = changed(state, 7, { coming: { ...coming!, fetching: null, entries: 7 } });
    expect(place(entries, 7, 1)).toMatchObject({ says: "comes", share: null });
    expect(place(entries, 7, 1).title).toContain("in place of node 4: 7 entries are there");
    const waits = changed(state, 7, { coming: { ...coming!, problem: "the disk is full" } });
    expect(place(waits, 7, 1)).toMatchObject({ says: "waits", tone: "warn" });
    expect(
      groups.copyShare(changed(state, 7, { coming: { ...coming!, fetching: { have: 0, all: 0 } } }).groups[7]!),
    ).toBe(null);
  });

  test("one entry is to be seen, and a bar is full where the node warns", () => {
    expect([0, 4_096, 1e9].map(groups.lagShare)).toEqual([0, 1, 1]);
    expect(groups.lagShare(1)).toBeGreaterThan(0.05);
    expect(groups.lagShare(100)).toBeLessThan(groups.lagShare(1_000));
  });
});

describe("the list", () => {
  test("nothing is to be minded of a cluster that is well", () => {
    for (const state of [WELL, several(6), several(64)]) {
      expect(groups.chosen(state, { kind: "mind" })).toEqual([]);
      expect(groups.chosen(state, { kind: "moving" })).toEqual([]);
      expect(groups.chosen(state, { kind: "all" })).toHaveLength(state.groups.length);
    }
  });

  test("shows what is to be minded, what moves, what a node leads", () => {
    const state = busy(64);
    const numbers = (of: groups.Wanted) => groups.chosen(state, of).map((group) => group.group);
    expect(numbers({ kind: "mind" })).toEqual([2, 5, 9]);
    expect(numbers({ kind: "moving" })).toEqual([0, 4, 6, 7]);
    const led = [1, 2, 3, 4, 5].map((node) => numbers({ kind: "led", node }).length);
    expect(led.reduce((all, many) => all + many)).toBe(63);
    expect(groups.trouble(state, state.groups[2]!)).toEqual({ tone: "bad", says: "nobody leads it" });
    const short = changed(state, 8, { isr: [4] });
    expect(groups.trouble(short, short.groups[8]!)).toEqual({ tone: "bad", says: "1 in sync, 2 are needed" });
  });
});

describe("a node", () => {
  test("has what it leads, holds, relays and lacks of all groups", () => {
    const state = busy(64);
    const loads = state.members.map((member) => groups.loadOf(state, member));
    for (const load of loads) expect(load.holds + load.relays).toBe(64);
    expect(loads[0]).toMatchObject({ coming: 1, out: [] });
    expect(loads[1]).toMatchObject({ out: [5], lag: { entries: 5_210, group: 5 } });
    expect(groups.nodeStanding(member(state, 2), loads[1]!)).toEqual({ tone: "warn", says: "not in sync in group 5" });
    expect(groups.nodeStanding({ ...member(state, 1), connected: false }, loads[0]!).tone).toBe("bad");
    const held = state.groups.flatMap((group) => group.replicas.filter((replica) => replica.node === 1));
    expect(loads[0]!.log_bytes).toBe(held.reduce((all, replica) => all + replica.log_bytes, 0));
    expect(groups.loadOf({ ...state, groups: [] }, member(state, 1))).toMatchObject({ events: null, lag: null });
  });

  test("its line in the chart is what it lacks most in any group", () => {
    const [sample] = lags([], busy(64), 1);
    expect(sample!.entries.get(2)).toBe(5_210);
    expect([...sample!.entries.keys()]).toEqual([1, 2, 3, 4, 5]);
    expect(lags([], WELL, 1)[0]!.entries).toEqual(
      new Map([
        [2, 0],
        [3, 1],
      ]),
    );
  });
});
