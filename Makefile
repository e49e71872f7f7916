# Two commands for people, the rest is `cargo xtask`. Each target installs what it needs and does not find.
.DEFAULT_GOAL := help
.PHONY: help run test bench web

help: ## show this
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: ## build the release binary and show `tidegate demo`
	@.ci/needs build
	cargo build --release --locked --package tidegate
	@cargo run --quiet --release --locked --package tidegate -- demo

test: ## everything: style, lints, docs, tests, loom, a short fuzz run, the yardstick
	@.ci/needs test
	@cargo xtask ci

web: ## build the dashboard into the next `tidegate serve` (needs Node.js 20.19 or newer)
	@cd web && npm ci --no-progress && npm run build

bench: ## the benchmarks as a table
	@.ci/needs build
	@cargo xtask bench
