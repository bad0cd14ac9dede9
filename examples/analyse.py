"""Analyses the Parquet files of a run: the best items, the best score by cost, the movement of the queries, and how well the
model predicted.

Also works while the run is in progress, after its first iteration. Needs Polars:

    python analyse.py RUN
"""

import sys
from statistics import NormalDist

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

# What the model predicted of each item before it was scored. Rules without a model predict nothing.
absent = {"predicted", "deviation"} - set(items.collect_schema())
predictions = items.with_columns(
    *(pl.lit(None, pl.Float64).alias(name) for name in absent),
    hundred=(pl.col("evaluation") - 1) // 100 + 1,
)
by_hundred = predictions.drop_nulls(["score", "predicted"]).sort("evaluation").group_by("hundred", maintain_order=True)
error = pl.col("score") - pl.col("predicted")

# The share of scores within 1.28 deviations of the prediction is 0.8 if the deviations are right.
calibration = by_hundred.agg(
    predictions=pl.len(),
    covered=(error.abs() < 1.2816 * pl.col("deviation")).mean(),
    mean_error=error.mean(),
)
parity = by_hundred.agg(
    pl.col("predicted", "score").mean(),
    rank_correlation=pl.corr(pl.col("predicted").rank(), pl.col("score").rank()),
)

# The 100th best score before each batch: a better score is an entry into the best 100.
earlier = items.drop_nulls("score").select("score", earlier="iteration")
thresholds = (
    items.select("iteration")
    .unique()
    .join_where(earlier, pl.col("earlier") < pl.col("iteration"))
    .group_by("iteration")
    .agg(threshold=pl.col("score").sort(descending=True).get(99, null_on_oob=True))
    .drop_nulls()
)
is_entry = pl.col("score") > pl.col("threshold")
entry_cost = (
    predictions.join(thresholds, on="iteration")
    .drop_nulls("hundred")
    .group_by("hundred")
    .agg(scores=pl.len(), entries=is_entry.sum())
    .with_columns(scores_per_entry=pl.when(pl.col("entries") > 0).then(pl.col("scores") / pl.col("entries")))
    .sort("hundred")
)

# The forecast and the observed entries of each batch. The probability of an entry comes from the errors of earlier batches, in
# deviations, mixed with a normal distribution. A factor corrects what is left. Weights decay by batch.
with_predictions = predictions.drop_nulls("predicted").select("iteration").unique()
predicted_batches = predictions.join(with_predictions, on="iteration").with_columns(batch=pl.col("iteration").rank("dense"))
residuals = (
    predicted_batches.select("batch", residual=error / pl.col("deviation")).drop_nulls().rename({"batch": "earlier"})
)
z = (pl.col("threshold") - pl.col("predicted")) / pl.col("deviation")
items_of_batches = predicted_batches.join(thresholds, on="iteration").select(
    "iteration", "batch", "db_idx", z=z, is_entry=is_entry.fill_null(False)
)
weight = 0.8 ** (pl.col("batch") - pl.col("earlier") - 1.0)
of_residuals = (
    # Older errors have no weight.
    items_of_batches.join_where(
        residuals, pl.col("earlier") < pl.col("batch"), pl.col("earlier") + 150 > pl.col("batch")
    )
    .group_by("db_idx")
    .agg(weight=weight.sum(), weight_above=weight.filter(pl.col("residual") > pl.col("z")).sum())
)
normal = (-pl.col("z")).map_elements(NormalDist().cdf, return_dtype=pl.Float64)
with_probability = items_of_batches.join(of_residuals, on="db_idx", how="left").with_columns(
    probability=(2 * normal + pl.col("weight_above").fill_null(0)) / (2 + pl.col("weight").fill_null(0))
)
batches = (
    with_probability.group_by("iteration")
    .agg(expected=pl.col("probability").sum(), entries=pl.col("is_entry").sum())
    .sort("iteration")
    .select("iteration", "expected", "entries", batch=pl.int_range(pl.len()))
)
age = pl.col("batch") - pl.col("batch_right") - 1
observed, expected = ((pl.col(f"{name}_right") * 0.8**age).sum() for name in ("entries", "expected"))
corrections = (
    batches.join_where(batches, pl.col("batch_right") < pl.col("batch"))
    .group_by("iteration")
    .agg(correction=((observed + 1) / (expected + 1)).clip(0.1, 2))
)
forecasts = (
    with_probability.join(corrections, on="iteration", how="left")
    .group_by("iteration")
    .agg(
        items=pl.len(),
        forecast=(pl.col("probability") * pl.col("correction").fill_null(1)).clip(upper_bound=1).sum(),
        entries=pl.col("is_entry").sum(),
    )
    .sort("iteration")
)

for title, frame in [
    ("the ten best items", best),
    ("the best score so far, by evaluations", best_so_far),
    ("iterations", by_iteration),
    ("items without a score", failed),
    ("how far the queries moved", movement),
    ("calibration: scores within 1.28 deviations of the prediction, by hundred scores", calibration),
    ("parity: predicted against scored, by hundred scores", parity),
    ("the scores per entry into the best 100, by hundred scores", entry_cost),
    ("forecast against truth: entries of each batch", forecasts),
]:
    print(title)
    print(frame.collect())
