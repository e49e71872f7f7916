import { expect, test } from "vitest";
import { arrange, nearest } from "./talk";

const HOSTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1", "192.0.2.2"];
const LINKS = [
  { from: "10.0.0.1", to: "192.0.2.1" },
  { from: "10.0.0.2", to: "192.0.2.1" },
  { from: "10.0.0.3", to: "192.0.2.2" },
];

test("a picture is the same whatever order its hosts come in, and stays within its frame", () => {
  const places = arrange(HOSTS, LINKS, 800, 400);
  expect(arrange([...HOSTS].reverse(), LINKS, 800, 400)).toEqual(places);
  for (const { x, y } of places.values()) {
    expect(x).toBeGreaterThanOrEqual(40);
    expect(x).toBeLessThanOrEqual(760);
    expect(y).toBeGreaterThanOrEqual(20);
    expect(y).toBeLessThanOrEqual(370);
  }
  // No two lie on each other, and who talks is nearer than who does not.
  const apart = (a: string, b: string) => {
    const [p, q] = [places.get(a)!, places.get(b)!];
    return Math.hypot(p.x - q.x, p.y - q.y);
  };
  for (const a of HOSTS) for (const b of HOSTS) if (a !== b) expect(apart(a, b), `${a} ${b}`).toBeGreaterThan(30);
  expect(apart("10.0.0.3", "192.0.2.2")).toBeLessThan(apart("10.0.0.3", "192.0.2.1"));
});

test("few hosts, links to nowhere and to oneself are no trouble", () => {
  expect(arrange([], LINKS, 300, 300).size).toBe(0);
  const one = arrange(["a"], [{ from: "a", to: "a" }, ...LINKS], 300, 300).get("a")!;
  expect(Number.isFinite(one.x) && Number.isFinite(one.y)).toBe(true);
  const many = Array.from({ length: 200 }, (_, i) => `10.0.0.${i}`);
  for (const { x, y } of arrange(many, [], 360, 300).values()) expect(Number.isFinite(x + y)).toBe(true);
});

test("arrows lead to the nearest host in their direction", () => {
  const places = new Map([
    ["middle", { x: 100, y: 100 }],
    ["right", { x: 200, y: 110 }],
    ["far", { x: 300, y: 100 }],
    ["above", { x: 105, y: 20 }],
  ]);
  expect(nearest(places, "middle", "ArrowRight")).toBe("right");
  expect(nearest(places, "right", "ArrowRight")).toBe("far");
  expect(nearest(places, "middle", "ArrowUp")).toBe("above");
  expect(nearest(places, "middle", "ArrowDown")).toBe(null);
  expect(nearest(places, "middle", "Enter")).toBe(null);
  expect(nearest(places, "nobody", "ArrowUp")).toBe(null);
});
