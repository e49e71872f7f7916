import { believed, forbidden, refused } from "../lib/session";
import type {
  AlertDetail,
  AlertList,
  AlertQuery,
  AnyRecord,
  ApiError,
  Cluster,
  KeyPage,
  Status,
  Stream,
  Traffic,
} from "./types";

/** An answer that is not a success, with the server's own words where it had some. */
export class RequestError extends Error {
  constructor(
    readonly path: string,
    readonly status: number | null,
    readonly detail: ApiError | null,
  ) {
    super(detail?.message ?? (status === null ? "The node does not answer." : `The node answered ${status}.`));
    this.name = "RequestError";
  }
}

/** `/v1/bars?stream=…&key=…`; parameters that are undefined are left out. */
export function address(path: string, parameters: Record<string, string | number | undefined> = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) query.set(name, String(value));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

async function read<T>(
  path: string,
  parameters?: Record<string, string | number | undefined>,
  signal?: AbortSignal,
  said?: object,
): Promise<T> {
  const url = address(path, parameters);
  const shown = believed();
  const headers = {
    accept: "application/json",
    ...(shown !== null && { authorization: `Bearer ${shown}` }),
    ...(said && { "content-type": "application/json" }),
  };
  const body_sent = said && { method: "POST", body: JSON.stringify(said) };
  let response: Response;
  try {
    response = await fetch(url, { headers, ...body_sent, ...(signal && { signal }) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new RequestError(url, null, null);
  }
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) {
    const detail = (body as { error?: ApiError } | null)?.error ?? null;
    // Another token may have been shown meanwhile.
    if (detail && shown === believed()) {
      if (response.status === 401) refused(detail, shown);
      else if (detail.code === "forbidden") forbidden(detail);
    }
    throw new RequestError(url, response.status, detail);
  }
  if (body === null)
    throw new RequestError(url, response.status, { code: "not_json", message: "The answer is not JSON." });
  return body as T;
}

export const rest = {
  streams: async (signal?: AbortSignal) => (await read<{ streams: Stream[] }>("/v1/streams", {}, signal)).streams,
  status: (signal?: AbortSignal) => read<Status>("/v1/status", {}, signal),
  cluster: (signal?: AbortSignal) => read<Cluster>("/v1/cluster", {}, signal),
  /** Names with a record in `stream` that contain `search`, page by page. */
  keys: (
    query: { stream: string; search?: string | undefined; limit?: number; after?: string | undefined },
    signal?: AbortSignal,
  ) => read<KeyPage>("/v1/keys", { ...query, search: query.search || undefined }, signal),
  /** The last `limit` records of one key, oldest first; works for every kind of stream. */
  history: async (stream: string, key: string, limit: number, signal?: AbortSignal) =>
    (await read<{ records: AnyRecord[] }>("/v1/bars", { stream, key, limit }, signal)).records,
  alerts: (query: AlertQuery, signal?: AbortSignal) => read<AlertList>("/v1/alerts", { ...query }, signal),
  alert: (id: string, signal?: AbortSignal) => read<AlertDetail>(`/v1/alerts/${encodeURIComponent(id)}`, {}, signal),
  /** What an operator says to an alert: what the node answers. */
  say: (id: string, verb: "ack" | "false-positive" | "suppress", words: object) =>
    read<{ said: string }>(`/v1/alerts/${encodeURIComponent(id)}/${verb}`, {}, undefined, words),
  /** Who talks to whom, of so many hosts; around one of them if it is named. */
  traffic: (host: string | null, limit: number, signal?: AbortSignal) =>
    read<Traffic>("/v1/traffic", { host: host ?? undefined, limit }, signal),
};

/** What to tell a person about a failure. */
export function words(error: unknown): string {
  if (error instanceof RequestError && error.detail?.allowed?.length) {
    return `${error.message} Allowed: ${error.detail.allowed.slice(0, 8).join(", ")}.`;
  }
  return error instanceof Error ? error.message : String(error);
}
