# A few commands for people, the rest is `cargo xtask`. Each target installs what it needs and does not find.
.DEFAULT_GOAL := help
.PHONY: help run cluster test bench web

help: ## show this
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: ## build everything and serve a made-up market and office network; prints the address of the dashboard
	@.ci/needs build
	@if .ci/needs web; then $(MAKE) --no-print-directory web/dist/index.html || echo "note: the dashboard could not be built; going on without it" >&2; fi
	cargo build --release --locked --package tidegate
	@cargo run --quiet --release --locked --package tidegate -- serve --demo

cluster: ## three nodes on this machine that hold the same log, and a feed: kill one and see
	@.ci/needs build
	cargo build --release --locked --package tidegate
	@deploy/cluster

test: ## everything: style, lints, docs, tests, loom, a short fuzz run, the yardstick
	@.ci/needs test
	@cargo xtask ci

web/dist/index.html: web/index.html web/package-lock.json web/vite.config.ts $(shell find web/src web/public -type f 2>/dev/null)
	@cd web && npm ci --no-progress --no-audit --no-fund && npm run build

web: ## build the dashboard into the next `tidegate serve` (needs Node.js 20.19 or newer)
	@cd web && npm ci --no-progress && npm run build

bench: ## the benchmarks as a table
	@.ci/needs build
	@cargo xtask bench
