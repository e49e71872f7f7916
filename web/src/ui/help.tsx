import { useEffect, useRef } from "preact/hooks";
import { bindingsInForce } from "../lib/keyboard";

const NAMES: Record<string, string> = {
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  Escape: "Esc",
};

const TABLES = [
  { key: "ArrowUp", what: "Row above" },
  { key: "ArrowDown", what: "Row below" },
  { key: "Enter", what: "Open the row" },
  { key: "Home", what: "First row, with End: last" },
];

export function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const groups = [...bindingsInForce(), { page: "In tables", bindings: TABLES }];
  return (
    <dialog
      ref={dialog}
      class="help"
      aria-label="Keys of the keyboard"
      onClose={onClose}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <form method="dialog">
        <h2>Keyboard</h2>
        <div class="groups">
          {groups.map(({ page, bindings }) => (
            <section key={page}>
              <h3>{page}</h3>
              <dl>
                {bindings.map(({ key, what }) => (
                  <div key={key}>
                    <dt>
                      <kbd>{NAMES[key] ?? key}</kbd>
                    </dt>
                    <dd>{what}</dd>
                  </div>
                ))}
              </dl>
            </section>
          ))}
        </div>
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
