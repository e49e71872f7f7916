#!/bin/sh
# Every rival on W1, one line of JSON each. Usage: run.sh [events] [rounds]
set -eu
cd "$(dirname "$0")"
events=${1:-20000000} rounds=${2:-3}
target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked
if [ ! -d .venv ]; then
    python3 -m venv .venv
    .venv/bin/pip install -q polars==2.1.0 duckdb==2.0.0 pyarrow==26.0.1 numpy
fi
mkdir -p "$target"
file=$target/w1-$events.parquet
"$target/release/tidegate-compare" w1 "$file" "$events"
"$target/release/tidegate-compare" timely "$events" "$rounds"
.venv/bin/python rivals.py "$file" --rounds "$rounds"
