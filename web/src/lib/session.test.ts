import { beforeEach, describe, expect, it, vi } from "vitest";

/** A tab's memory. */
function tab(): Map<string, string> {
  const held = new Map<string, string>();
  vi.stubGlobal("sessionStorage", {
    getItem: (name: string) => held.get(name) ?? null,
    setItem: (name: string, text: string) => void held.set(name, text),
    removeItem: (name: string) => void held.delete(name),
  });
  vi.stubGlobal("requestAnimationFrame", () => 0);
  return held;
}

/** As after a load of the page. */
async function load() {
  vi.resetModules();
  return import("./session");
}

describe("session", () => {
  let memory: Map<string, string>;
  beforeEach(() => {
    memory = tab();
  });
  const no = { code: "unauthorized", message: "the token expired 3 s ago" };

  it("keeps a token once the node has taken it, and only in the tab", async () => {
    const one = await load();
    one.offer("  Authorization: Bearer a.b\n c ");
    expect([one.token(), one.believed(), memory.size]).toEqual(["a.bc", null, 0]);
    one.authorized("desk", 1_000);
    expect([one.token(), one.believed()]).toEqual(["a.bc", "a.bc"]);
    expect([...memory.values()]).toEqual(["a.bc"]);
    expect(one.session.get()).toMatchObject({ principal: "desk", asked: null });
    expect((await load()).believed()).toBe("a.bc");
    one.forget();
    expect([one.token(), memory.size]).toEqual([null, 0]);
  });

  it("drops what is not believed, and no other", async () => {
    const one = await load();
    one.offer("good");
    one.authorized("desk", null);
    one.offer("bad");
    one.refused(no, "bad");
    expect([one.token(), one.session.get().principal]).toEqual(["good", "desk"]);
    expect(one.session.get().asked).toBe(no.message);
    // What was asked with a token that is gone says nothing about this one.
    one.refused(no, "older");
    expect(one.token()).toBe("good");
    one.refused(no, "good");
    expect([one.token(), memory.size, one.session.get().principal]).toEqual([null, 0, null]);
  });

  it("asks about what is forbidden until it is put off", async () => {
    const one = await load();
    one.forbidden({ code: "forbidden", message: "`anonymous` may not" });
    expect(one.session.get().asked).toBe("`anonymous` may not");
    one.putOff();
    one.forbidden({ code: "forbidden", message: "again" });
    expect(one.session.get().asked).toBe(null);
    one.refused(no, null);
    expect(one.session.get().asked).toBe(no.message);
  });
});
