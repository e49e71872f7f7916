import type { Server } from "node:http";
import { defineConfig, type Plugin } from "vite";
import { Mock } from "./mock/server.ts";

const upstream = process.env.TIDEGATE_URL;

/** Answers `/v1` of the development server from the mock, unless `TIDEGATE_URL` names a real node. */
function mock(): Plugin {
  const attach = (use: (handler: Mock["handle"]) => unknown, http: unknown) => {
    if (upstream) return;
    const node = new Mock({ live: true });
    use(node.handle);
    (http as Server | null)?.on("upgrade", node.upgrade);
  };
  return {
    name: "tidegate-mock",
    configureServer: (server) => attach((h) => server.middlewares.use(h), server.httpServer),
    configurePreviewServer: (server) => attach((h) => server.middlewares.use(h), server.httpServer),
  };
}

// A node answers pages of its own origin only.
const proxy = upstream
  ? { "/v1": { target: upstream, ws: true, changeOrigin: true, headers: { origin: new URL(upstream).origin } } }
  : {};

export default defineConfig({
  base: "./",
  plugins: [mock()],
  server: { proxy },
  preview: { proxy },
  build: {
    target: "es2022",
    cssTarget: ["chrome123", "firefox120", "safari17.5"], // `light-dark()` as it is written
    modulePreload: { polyfill: false }, // the polyfill would be of no use here, and one script less
    assetsInlineLimit: 0, // no `data:` addresses: a strict Content-Security-Policy forbids them
    reportCompressedSize: true,
  },
});
