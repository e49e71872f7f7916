import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["src/**/*.test.ts", "mock/**/*.test.ts"], testTimeout: 30_000 } },
      {
        test: {
          name: "e2e",
          include: ["e2e/**/*.test.ts"],
          fileParallelism: false,
          // Longer than one wait for something on a page, so that a test says which did not come.
          testTimeout: 90_000,
          hookTimeout: 120_000,
          // A page hears of its node once a second, and the machine may be busy; without this it is a second.
          expect: { poll: { timeout: 30_000, interval: 100 } },
        },
      },
    ],
  },
});
