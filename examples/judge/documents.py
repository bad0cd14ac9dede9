"""Writes documents.parquet: made-up titles and abstracts, with embeddings that count words. Needs pyarrow."""

import random
import re
import zlib

import pyarrow as pa
import pyarrow.parquet as pq

TOPICS = ["heat pumps", "district heating", "gas boilers", "solar thermal collectors", "insulation", "window films"]
BUILDINGS = ["houses built in 1910", "a school built in 1962", "new offices", "passive houses", "a hospital", "barns"]
METHODS = ["We measure a winter of operation", "We simulate a year", "We survey residents", "We review standards"]
RESULTS = ["Costs fall by a third", "Comfort improves", "Peak loads rise", "Noise is the main complaint", "Results vary"]
DIM = 64


def embed(text):
    """A count of words. Replace this with your embeddings, such as those of sentence-transformers."""
    vector = [0.0] * DIM
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(word.encode()) % DIM] += 1.0
    return vector


rng = random.Random(1)
titles, abstracts = [], []
for _ in range(800):
    topic, building = rng.choice(TOPICS), rng.choice(BUILDINGS)
    titles.append(f"{topic.capitalize()} in {building}")
    abstracts.append(f"{rng.choice(METHODS)} of {topic} in {building}. {rng.choice(RESULTS)}, {rng.choice(RESULTS).lower()}.")
embeddings = [embed(f"{title} {abstract}") for title, abstract in zip(titles, abstracts)]
columns = {"title": titles, "abstract": abstracts, "embedding": pa.array(embeddings, pa.list_(pa.float32(), DIM))}
pq.write_table(pa.table(columns), "documents.parquet")
