"""Recomputes what the model predicted of each item of a run, with scikit-learn, from the run folder and the library alone.

    predictions.py RUN ITEMS [--tolerance 1e-6]

The run reads the embeddings alone (`update.features = []`), and ITEMS is the Parquet file of its library. The formulas are
those of src/surrogate: targets.rs, target_transform.rs, distance.rs, kernel.rs, gp.rs, niching.rs and posterior.rs. Exits with an
error if a value of `predicted` or `deviation` differs, relative to the larger of it and the deviation. Prints the number of
predictions by `chosen_by`, as JSON.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np
import polars as pl
from scipy.spatial.distance import cdist, pdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

# Two squared exponentials, of lengths 1 and 1/2: points are in units of the length.
KERNEL = 0.5 * RBF(1.0) + 0.5 * RBF(0.5)
NOISE, NOISE_ABOVE = 0.1, 0.03


def quantile(scores, part):
    """The lowest value that one in `part` of the scores is below."""
    return np.sort(scores)[len(scores) // part]


def floor_of(scores, reused):
    baseline = quantile(scores[: max(32, reused)], 8 if reused else 2)
    return baseline if np.isfinite(baseline) else scores[np.isfinite(scores)].min()


def threshold_of(scores, reused):
    """The score above which the noise is less."""
    return max(quantile(scores, 2), floor_of(scores, reused))


def noise_of(scores, threshold):
    return np.where(scores > threshold, NOISE_ABOVE, NOISE)


class Targets:
    """Targets of mean 0 and variance 1, logarithmic above 3, and the way back to scores."""

    def __init__(self, scores, floor):
        self.floor, self.passes = floor, []
        z = self.standardise(np.maximum(scores, floor))
        while z.max() > 3 and len(self.passes) < 4:
            z = self.standardise(np.where(z > 3, 3 + np.log(np.maximum(z, 3) - 2), z))
        self.values = z

    def standardise(self, values):
        self.passes.append((values.mean(), values.std()))
        return (values - values.mean()) / values.std()

    def score(self, mean, deviation):
        """The score and its deviation. NaN where the target is at the floor or below it."""
        for nth, (centre, scale) in reversed(list(enumerate(self.passes))):
            mean, deviation = mean * scale + centre, deviation * scale
            if nth > 0 and mean > 3:
                mean, deviation = 2 + math.exp(mean - 3), deviation * math.exp(mean - 3)
        return (mean, deviation) if mean > self.floor else (math.nan, math.nan)


def process(points, targets, noise, pending):
    """A Gaussian process, and its amplitude. The scores of pending items are taken to be its own mean."""
    fit = lambda *data: GaussianProcessRegressor(KERNEL, alpha=data[2], optimizer=None).fit(data[0], data[1])
    known = fit(points, targets, noise)
    amplitude = targets @ known.alpha_ / len(targets)
    if not len(pending):
        return known, amplitude
    targets = np.concatenate([targets, known.predict(pending)])
    noise = np.concatenate([noise, np.full(len(pending), NOISE_ABOVE)])
    return fit(np.concatenate([points, pending]), targets, noise), amplitude


def peak(points, scores, library):
    """The centre of the peak and its squared radius, with which the nearest tenth of the library is on it."""
    scored = np.isfinite(scores).sum()
    if scored < np.clip(len(library) // 100, 100, 300):
        return None
    order = np.argsort(-scores, kind="stable")
    near = order[: max(scored // 4, 5)]
    near = near[np.argsort(cdist(points[order[:1]], points[near])[0], kind="stable")][:10]
    centre = points[near].mean(0, keepdims=True)
    return centre, np.sort(cdist(centre, library)[0])[max(int(len(library) * 0.1), 1) - 1]


class Model:
    """What is known when a batch is chosen."""

    def __init__(self, vectors):
        self.vectors = vectors
        self.ids, self.scores, self.reused, self.next_fit = [], np.empty(0), 0, 0

    def observe(self, batch, learn):
        self.ids += batch["db_idx"].to_list()
        self.scores = np.concatenate([self.scores, batch["score"].fill_null(-math.inf).to_numpy()])
        self.reused += batch["chosen_by"].null_count()
        if learn and len(self.ids) >= self.next_fit:
            self.next_fit = len(self.ids) + (len(self.ids) + 1) // 2
            self.threshold = threshold_of(self.scores, self.reused)
            # Points are f32, as the vectors are. Their median squared distance is 1.
            vectors = self.vectors[self.ids]
            mean = np.float32(1 / np.sqrt(pdist(vectors.astype(float), "sqeuclidean").mean()))
            distances = np.sort(pdist((vectors * mean).astype(float), "sqeuclidean"))
            length = np.sqrt(distances[len(distances) // 2] * pdist(vectors.astype(float), "sqeuclidean").mean())
            self.points = (self.vectors * np.float32(1 / length)).astype(float)

    def predict(self, batch, pending):
        points, pending = self.points[self.ids], self.points[pending]
        targets = Targets(self.scores, floor_of(self.scores, self.reused))
        everywhere = process(points, targets.values, noise_of(self.scores, self.threshold), pending), targets, self.threshold
        processes = {"model": everywhere, "random": everywhere}
        found = peak(points, self.scores, self.points)
        if found:
            outside = cdist(found[0], points)[0] > found[1]
            if outside.sum() < 12:
                outside[:] = True
            scores = self.scores[outside]
            targets, threshold = Targets(scores, floor_of(scores, self.reused)), threshold_of(scores, self.reused)
            gp = process(points[outside], targets.values, noise_of(scores, threshold), pending)
            processes["elsewhere"] = gp, targets, threshold
        for item, chosen_by in batch.select("db_idx", "chosen_by").iter_rows():
            (gp, amplitude), targets, threshold = processes[chosen_by]
            mean, deviation = gp.predict(self.points[[item]], return_std=True)
            score, slope = targets.score(mean[0], 1.0)
            yield score, math.sqrt(amplitude * (deviation[0] ** 2 + noise_of(score, threshold))) * slope


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("items", type=pathlib.Path)
    parser.add_argument("--tolerance", type=float, default=1e-6)
    arguments = parser.parse_args()
    embeddings = np.stack(pl.read_parquet(arguments.items)["embedding"].to_numpy()).astype(np.float32)
    centred = embeddings - embeddings.mean(0, dtype=float).astype(np.float32)
    scale = np.float32(1 / np.sqrt(2 * (centred.astype(float) ** 2).sum(1).mean()))
    model = Model(centred * scale)
    update = json.loads((arguments.run / "run.json").read_text())["config"]["update"]
    behind = update.get("behind") or 0

    files = sorted(arguments.run.glob("results/*/*.parquet"))
    batches = [pl.read_parquet(file) for file in files]
    first = next(nth for nth, batch in enumerate(batches) if "model" in batch["chosen_by"])
    counts, observed, largest = {}, 0, 0.0
    for nth, batch in enumerate(batches):
        while observed < max(min(nth, first), nth - behind):
            observed += 1
            model.observe(batches[observed - 1], learn=observed >= first)
        if nth < first:
            assert batch["predicted"].null_count() == batch["deviation"].null_count() == batch.height, "predictions without a model"
            continue
        pending = [item for earlier in batches[observed:nth] for item in earlier["db_idx"]]
        ours = np.array(list(model.predict(batch, pending)))
        theirs = batch.select("predicted", "deviation").to_numpy().astype(float)
        errors = np.abs(ours - theirs) / np.maximum(np.abs(ours), ours[:, 1:])
        wrong = (np.isnan(ours) != np.isnan(theirs)) | (errors > arguments.tolerance)
        if wrong.any():
            with pl.Config(tbl_rows=-1, tbl_cols=-1):
                sys.exit(f"iteration {nth}: {batch}\nexpected {ours}")
        largest = max(largest, np.nanmax(errors, initial=0.0))
        for chosen_by, count in batch.drop_nulls("predicted")["chosen_by"].value_counts().iter_rows():
            counts[chosen_by] = counts.get(chosen_by, 0) + count
    print(json.dumps({**counts, "largest error": largest}))


main()
