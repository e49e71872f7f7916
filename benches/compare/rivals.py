"""DuckDB and Polars on W1: one line of JSON per measurement.

    rivals.py W1.parquet [--rounds N] [--only TEXT]

Without POLARS_MAX_THREADS it is the conductor: it runs itself once per engine and thread count, because Polars fixes
its threads at import. Every run's answer is compared with W1.parquet.json, which `tidegate-compare w1` wrote.

Opens and closes: `duckdb.parquet` takes them by event time (arg_min, arg_max). `duckdb.roworder` takes first and last,
which is twice as fast and which DuckDB does not promise to be in row order with several threads; here it is, because a
row group is read by one thread and no bar straddles two. Polars takes first and last; its group_by keeps row order. VWAP is a float in both: neither has the exact sum.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

CONTESTANTS = [
    # name, threads
    ("duckdb.parquet.a", 1),
    ("duckdb.parquet.a", 2),
    ("duckdb.roworder.a", 1),
    ("duckdb.roworder.a", 2),
    ("polars.memory.a", 1),
    ("polars.memory.a", 2),
    ("polars.streaming.a", 1),
    ("polars.streaming.a", 2),
    ("polars.parquet.a", 1),
    ("polars.parquet.a", 2),
    ("polars.memory.b", 1),
    ("polars.memory.b", 2),
]


def check(bars, answers, indicators=None):
    """Bars as integer columns against the hand-written loop's, by the same wrapping checksum."""
    import numpy as np

    key, second, opened, high, low, closed, volume, count, notional = bars
    with np.errstate(over="ignore"):
        # Hundredths and whole units are exact in a float; 1e-9 and 1e-8 are what the engine counts in.
        cents = lambda column: np.rint(column * 100).astype(np.int64).view(np.uint64) * np.uint64(10_000_000)
        units = lambda column: column.astype(np.uint64)
        mixed = cents(opened) + np.uint64(3) * cents(high) + np.uint64(5) * cents(low) + np.uint64(7) * cents(closed)
        mixed += np.uint64(11 * 100_000_000) * units(volume) + np.uint64(13) * units(count)
        mixed *= (units(key) + np.uint64(1)) * (np.uint64(2) * units(second) + np.uint64(1))
        checksum = int(mixed.sum(dtype=np.uint64))
    assert len(key) == answers["bars"], f"{len(key)} bars, expected {answers['bars']}"
    assert int(count.sum()) == answers["events"], "events are missing"
    assert checksum == int(answers["checksum"]), f"checksum {checksum}, expected {answers['checksum']}"
    assert abs(float(notional.sum()) * 1e17 / answers["notional"] - 1) < 1e-9, "notional differs"
    for found, expected in zip(indicators or [], answers["indicators"]):
        assert abs(found - expected) <= 1e-7 * max(1.0, abs(expected)), f"indicators {indicators}, {answers}"


def duckdb_job(source, path, threads):
    import duckdb

    connection = duckdb.connect(config={"threads": threads})
    opened, closed = ("arg_min(price, ts)", "arg_max(price, ts)")
    if source == "roworder":
        opened, closed = ("first(price)", "last(price)")

    def run():
        return connection.sql(
            f"""
            SELECT symbol, epoch_ns(ts) // 1000000000 AS second,
                   {opened} AS open, max(price) AS high, min(price) AS low, {closed} AS close,
                   sum(size)::BIGINT AS volume, count(*) AS count, sum(price * size) AS notional
            FROM read_parquet('{path}') GROUP BY ALL
            """
        ).to_arrow_table()

    def columns(table):
        return keys_of(table["symbol"].to_pylist()), *(table[name].to_numpy() for name in NUMBERS)

    return run, columns, None


NUMBERS = ["second", "open", "high", "low", "close", "volume", "count", "notional"]


def keys_of(names):
    import numpy as np

    return np.array([int(name[1:]) for name in names], dtype=np.int64)


def polars_bars(frame):
    import polars as pl

    return frame.group_by("symbol", (pl.col("ts").cast(pl.Int64) // 1_000_000_000).alias("second")).agg(
        open=pl.col("price").first(),
        high=pl.col("price").max(),
        low=pl.col("price").min(),
        close=pl.col("price").last(),
        volume=pl.col("size").sum(),
        count=pl.len(),
        notional=(pl.col("price") * pl.col("size")).sum(),
    )


def polars_indicators(bars):
    """TA-Lib's definitions: exponential averages that start from a plain mean."""
    import polars as pl

    def average(column, period, alpha, start=0):
        # The first value comes after `start` missing ones; the mean of `period` values stands where they end.
        nth = pl.int_range(pl.len()) - start
        seeded = (
            pl.when(nth < period - 1)
            .then(None)
            .when(nth == period - 1)
            .then(column.rolling_mean(period))
            .otherwise(column)
        )
        return seeded.ewm_mean(alpha=alpha, adjust=False, ignore_nulls=True).over("symbol")

    close = pl.col("close")
    change = close.diff().over("symbol")
    return (
        bars.sort("symbol", "second")
        .with_columns(gain=change.clip(lower_bound=0.0), loss=(-change).clip(lower_bound=0.0))
        .with_columns(
            gain=average(pl.col("gain"), 14, 1 / 14, start=1),
            loss=average(pl.col("loss"), 14, 1 / 14, start=1),
            ema12=average(close, 12, 2 / 13),
            ema26=average(close, 26, 2 / 27),
            # The MACD's fast average starts where the slow one does, 14 bars in.
            fast=average(close, 12, 2 / 13, start=14),
            middle=close.rolling_mean(20).over("symbol"),
            width=2 * close.rolling_std(20, ddof=0).over("symbol"),
        )
        .with_columns(
            rsi14=100 * pl.col("gain") / (pl.col("gain") + pl.col("loss")), macd=pl.col("fast") - pl.col("ema26")
        )
        .with_columns(
            signal=average(pl.col("macd"), 9, 0.2, start=25),
            bb_upper=pl.col("middle") + pl.col("width"),
            bb_middle=pl.col("middle"),
            bb_lower=pl.col("middle") - pl.col("width"),
        )
    )


INDICATORS = ["rsi14", "ema12", "ema26", "macd", "signal", "bb_upper", "bb_middle", "bb_lower"]


def polars_job(source, job, path):
    import polars as pl

    scan = pl.scan_parquet(path).with_columns(pl.col("symbol").cast(pl.Categorical))
    frame = scan if source == "parquet" else scan.collect().rechunk().lazy()
    query = polars_bars(frame)
    if job == "b":
        query = polars_indicators(query)
    engine = "in-memory" if source == "memory" else "streaming"

    def columns(bars):
        return keys_of(bars["symbol"].cast(pl.String).to_list()), *(bars[name].to_numpy() for name in NUMBERS)

    def sums(bars):
        return [bars[name].fill_nan(None).sum() for name in INDICATORS]

    return lambda: query.collect(engine=engine), columns, sums if job == "b" else None


def measure(name, threads, path, rounds):
    engine, source, job = name.split(".")
    with open(path + ".json") as file:
        answers = json.load(file)
    run, columns, sums = duckdb_job(source, path, threads) if engine == "duckdb" else polars_job(source, job, path)
    runs = []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        check(columns(result), answers, sums(result) if sums else None)
        if turn:  # the first is the warm-up
            runs.append(answers["events"] / seconds)
    line = {"name": f"{name}.t{threads}", "value": statistics.median(runs), "unit": "events/s"}
    print(json.dumps(line | {"runs": runs, "min": min(runs), "max": max(runs)}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="run contestants whose name holds this")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one[0], int(arguments.one[1]), arguments.path, arguments.rounds)
        return
    failed = False
    for name, threads in CONTESTANTS:
        if arguments.only not in f"{name}.t{threads}":
            continue
        command = [sys.executable, __file__, arguments.path, "--rounds", str(arguments.rounds)]
        command += ["--one", name, str(threads)]
        environment = os.environ | {"POLARS_MAX_THREADS": str(threads)}
        failed |= subprocess.run(command, env=environment).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
