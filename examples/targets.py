"""Reads the runs of many targets, written with `--out arr/target=NAME`, as one Polars frame.

    python targets.py arr
"""

import sys

import polars as pl

# The folder names give the columns `target` and `iteration`.
results = pl.scan_parquet(f"{sys.argv[1]}/*/results/*/*.parquet", hive_partitioning=True, missing_columns="insert")

# The three best items of each target, each item once.
best = (
    results.filter(pl.col("score").is_not_null())
    .group_by("target", "db_idx")
    .agg(pl.col("score").max(), pl.col("evaluation").min())
    .sort("score", "db_idx", descending=[True, False])
    .group_by("target", maintain_order=True)
    .head(3)
    .sort("target", "score", "db_idx", descending=[False, True, False])
)
print(best.collect().write_csv(), end="")
