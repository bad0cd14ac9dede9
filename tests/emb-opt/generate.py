"""Records what emb-opt 1.0.2 does, as the fixtures beside this file.

    pip install emb-opt==1.0.2 pyarrow && python3 generate.py

One file per case and kind. Queries are named as Uphill names them: a query with one child passes its `query_idx` on,
the children of one with several get new ones (the largest so far + 1, in order of parent, then branch).
"""
import string
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from emb_opt.data_source import DataPluginGradWrapper, NumpyDataPlugin
from emb_opt.log import Log
from emb_opt.prune import TopKPrune
from emb_opt.runner import Runner
from emb_opt.schemas import FilterResponse, ScoreResponse
from emb_opt.update import RLUpdate, TopKContinuousUpdate, TopKDiscreteUpdate, UpdatePluginGradientWrapper
from emb_opt.utils import build_batch_from_embeddings

HERE = Path(__file__).parent


def library(rows, dim):
    """The library of the package's tutorial; embeddings are rounded to f32, as Lance keeps them."""
    np.random.seed(42)
    vectors = np.random.randn(rows, dim).astype(np.float32).astype(float)
    letters = list(string.ascii_lowercase)
    rand = []
    for _ in range(rows):
        np.random.choice(letters, size=10)  # the tutorial's `item`, unused
        rand.append(np.random.rand())
    return vectors, np.array(rand)


def score(embeddings):
    """The tutorial's: largest at (.75, .75, …)."""
    away = np.linalg.norm(embeddings - 0.75, axis=1) / np.sqrt(embeddings.shape[1])
    return np.exp(-0.5 * (away / 5.0) ** 2)


def run(name, shape, n_queries, iterations, update, prune=None, scales=None):
    vectors, rand = library(*shape)
    data = [{"id": i, "rand": rand[i]} for i in range(shape[0])]
    source = NumpyDataPlugin(10, vectors, data, id_key="id", distance_metric="sqeuclidean")
    if scales:
        source = DataPluginGradWrapper(source, np.array(scales))
    runner = Runner(
        source,
        lambda items: [FilterResponse(valid=item.data["rand"] < 0.9, data=None) for item in items],
        lambda items: [
            ScoreResponse(valid=True, score=value, data=None)
            for value in score(np.array([item.embedding for item in items]))
        ],
        prune,
        update,
    )
    np.random.seed(40)
    batch = build_batch_from_embeddings(np.random.randn(n_queries, shape[1]))
    log, batches = Log(), [batch]
    for iteration in range(iterations):
        batch = runner.step(batch, log, iteration, verbose=False)
        batches.append(batch)

    queries, results, names, most = [], [], {}, -1
    for iteration, batch in enumerate(batches):
        children = {}
        for query in batch:
            children[query.internal.parent_id] = children.get(query.internal.parent_id, 0) + 1
        for query in batch:
            parent = names.get(query.internal.parent_id)
            if parent is not None and children[query.internal.parent_id] == 1:
                names[query.id] = parent
            else:
                most += 1
                names[query.id] = most
            pruned = query.internal.removal_reason == "prune response invalid"
            assert pruned or not query.internal.removed, "a query met nothing: choose another case"
            queries.append((iteration, names[query.id], parent, query.internal.collection_id, pruned, query.embedding))
            for item in query.valid_results():
                results.append((iteration, names[query.id], item.id, item.score))
    ids = pa.uint32()
    columns = list(zip(*queries))
    order = sorted(range(len(queries)), key=lambda row: (columns[0][row], columns[1][row]))
    write(name, "queries", {
        "iteration": pa.array(columns[0], ids), "query_idx": pa.array(columns[1], ids),
        "parent_idx": pa.array(columns[2], ids), "collection_idx": pa.array(columns[3], ids),
        "pruned": pa.array(columns[4]),
        "vector": pa.array([list(map(float, v)) for v in columns[5]], pa.list_(pa.float64(), shape[1])),
    }, order)
    columns = list(zip(*results))
    order = sorted(range(len(results)), key=lambda row: (columns[0][row], columns[1][row]))  # stable
    write(name, "results", {
        "iteration": pa.array(columns[0], ids), "query_idx": pa.array(columns[1], ids),
        "db_idx": pa.array(columns[2], pa.uint64()), "score": pa.array(columns[3]),
    }, order)

    truth = score(vectors)
    truth[rand >= 0.9] = -np.inf
    best = np.argsort(-truth, kind="stable")
    met = {item["id"] for item in log.compile_results(skip_removed=False)}
    scored = {row[2] for row in results}
    compiled = {item["id"] for item in log.compile_results()}
    shares = [len(scored & set(best[:k].tolist())) / k for k in (1, 5, 10, 50)]
    print(f"{name}: {len(met)} items met, {len(scored)} scored, {len(compiled)} compiled; of the top 1/5/10/50: {shares}")


def write(name, kind, columns, order):
    table = pa.table(columns).take(pa.array(order))
    pq.write_table(table, HERE / f"{name}-{kind}.parquet", compression="zstd")


TUTORIAL, SMALL = (10_000, 64), (500, 8)
run("tutorial", TUTORIAL, 5, 15, RLUpdate([0.25], 0.0))
run("branching", TUTORIAL, 3, 3, RLUpdate([0.25, 1.0, 5.0], 0.0), TopKPrune(1))
run("discrete", SMALL, 3, 4, TopKDiscreteUpdate(2), TopKPrune(4, "max", None))
run("continuous", SMALL, 3, 4, TopKContinuousUpdate(3))
run("clip-l1", SMALL, 3, 4, RLUpdate([0.5], 0.3, 1.0, 1))
run("clip-l2", SMALL, 3, 4, RLUpdate([0.5], 0.3, 0.4, 2.0))
run("clip-max", SMALL, 3, 4, RLUpdate([0.5], 0.0, 0.2, np.inf))
run("prune-collection-max", SMALL, 3, 4, RLUpdate([0.2, 0.5, 1.0], 0.0), TopKPrune(2, "max", "collection_id"))
run("prune-parent-mean", SMALL, 3, 4, RLUpdate([0.2, 0.5, 1.0], 0.0), TopKPrune(2, "mean", "parent_id"))
run("prune-global-mean", SMALL, 3, 4, RLUpdate([0.2, 0.5, 1.0], 0.0), TopKPrune(3, "mean", None))
run("gradient", SMALL, 3, 4, UpdatePluginGradientWrapper(RLUpdate([0.3], 0.0), 0.1, 1.0, 2.0), scales=[0.1, 0.5])
run("gradient-branching", SMALL, 3, 4, UpdatePluginGradientWrapper(TopKDiscreteUpdate(3)), TopKPrune(1), [0.2])
