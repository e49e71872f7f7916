import { useEffect, useRef } from "preact/hooks";

export interface Binding {
  /** As `KeyboardEvent.key` names it. */
  key: string;
  /** What it does, for the help. */
  what: string;
  run: () => void;
}

const active: { page: string; bindings: Binding[] }[] = [];

/** What the help shows: every group of bindings that is in force now. */
export function bindingsInForce(): { page: string; bindings: Binding[] }[] {
  return active.map(({ page, bindings }) => ({ page, bindings: [...bindings] }));
}

/** Bindings of a component while it is on the page. */
export function useBindings(page: string, bindings: Binding[]): void {
  const held = useRef({ page, bindings });
  held.current.bindings = bindings;
  useEffect(() => {
    const group = held.current;
    active.push(group);
    return () => void active.splice(active.indexOf(group), 1);
  }, []);
}

export function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

export function startKeyboard(): void {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTyping(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    for (const { bindings } of [...active].reverse()) {
      const found = bindings.find((binding) => binding.key === event.key);
      if (found) {
        event.preventDefault();
        found.run();
        return;
      }
    }
  });
}
