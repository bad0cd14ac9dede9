"""Analyses the Parquet files of a run: the best items, the best score by cost, and the movement of the queries.

Also works while the run is in progress, after its first iteration. Needs Polars:

    python analyse.py RUN
"""

import sys

import polars as pl

run = sys.argv[1]
pl.Config.set_tbl_rows(30)

# All results, one row for each query and item. The folder names give the column `iteration`.
results = pl.scan_parquet(f"{run}/results/*/*.parquet", hive_partitioning=True)
queries = pl.scan_parquet(f"{run}/queries/*/*.parquet", hive_partitioning=True)

# Each item once, with the first iteration that found it.
items = (
    results.sort("iteration", maintain_order=True)
    .unique("db_idx", keep="first", maintain_order=True)
    .drop("query_idx", "distance")
)

best = items.sort("score", "db_idx", descending=[True, False], nulls_last=True).head(10)

# The best score so far by cost: the items that scored better than all earlier ones.
best_so_far = (
    items.drop_nulls("score")
    .sort("evaluation")
    .filter(pl.col("score") > pl.col("score").cum_max().shift(fill_value=float("-inf")))
    .select("evaluation", best_so_far="score", db_idx="db_idx", iteration="iteration")
)

first_found = items.select("db_idx", first_found="iteration")
by_iteration = (
    results.join(first_found, on="db_idx")
    .group_by("iteration")
    .agg(
        rows=pl.len(),
        new_items=pl.col("db_idx").filter(pl.col("first_found") == pl.col("iteration")).n_unique(),
        evaluations=pl.col("evaluation").max(),
        mean_score=pl.col("score").mean(),
        best_score=pl.col("score").max(),
    )
    .sort("iteration")
    .with_columns(pl.col("evaluations").cum_max())
)

# Reasons that differ only in numbers are counted together, with one of them as an example.
failed = (
    items.filter(pl.col("score").is_null())
    .group_by("outcome", kind=pl.col("reason").str.replace_all(r"[0-9][0-9.]*", "#"))
    .agg(reason=pl.col("reason").min(), items=pl.len())
    .drop("kind")
    .sort("items", "reason", descending=[True, False])
)


def distance(a: str, b: str) -> pl.Expr:
    """The Euclidean distance between two columns of vectors."""
    difference = pl.col(a) - pl.col(b)
    return (difference * difference).arr.sum().sqrt()


# How far the queries moved: in each step, and from their start. (This includes the last update,
# so it is one iteration longer than the results.)
before = queries.select(pl.col("iteration") + 1, parent_idx="query_idx", before="embedding")
start = queries.filter(pl.col("iteration") == 0).select(collection_idx="query_idx", start="embedding")
movement = (
    queries.join(before, on=["iteration", "parent_idx"])
    .join(start, on="collection_idx")
    .group_by("iteration")
    .agg(
        mean_step=distance("embedding", "before").mean(),
        longest_step=distance("embedding", "before").max(),
        mean_from_start=distance("embedding", "start").mean(),
    )
    .sort("iteration")
)

for title, frame in [
    ("the ten best items", best),
    ("the best score so far, by evaluations", best_so_far),
    ("iterations", by_iteration),
    ("items without a score", failed),
    ("how far the queries moved", movement),
]:
    print(title)
    print(frame.collect())
