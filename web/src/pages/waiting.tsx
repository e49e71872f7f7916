import { useCell } from "../lib/store";
import { link } from "../node";
import { Empty } from "../ui/parts";

/** Before the first word of the node. */
export function Waiting() {
  const { phase } = useCell(link);
  return (
    <div class="alone">
      <Empty
        title={
          phase === "live"
            ? "Waiting for the first status"
            : phase === "connecting"
              ? "Connecting to the node"
              : phase === "refused"
                ? "The node asks who is there"
                : "The node does not answer"
        }
      >
        {phase === "waiting" && (
          <>
            It is tried again by itself. Is <code>tidegate serve</code> running?
          </>
        )}
      </Empty>
    </div>
  );
}
