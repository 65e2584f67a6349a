"""What an approximate index of vectors would save: exact search beside HNSW (usearch), at several sizes.

    pip install usearch
    python benchmarks/vector_index.py --sizes 10000 100000 1000000 --built 100000 --output index.json

Vectors lie around centres, as those of texts do, and a query near a vector. recall@10 is the share of the ten nearest
that the index finds. Sizes above `--built` are searched exactly only: their index takes too long to build.
"""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Callable

import numpy as np

from kanana_jax.applications.retrieval import best

_COUNT, _CENTRES, _NOISE = 10, 1000, 0.7


def vectors(size: int, dim: int, queries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and queries of length 1, float32 `[N, D]` and `[Q, D]`."""
    rng = np.random.default_rng(seed)
    centres_CD = rng.standard_normal((_CENTRES, dim), np.float32)

    def near(places: np.ndarray, base_CD: np.ndarray, noise: float) -> np.ndarray:
        found = base_CD[places] + noise * rng.standard_normal((len(places), dim), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    made_ND = near(rng.integers(_CENTRES, size=size), centres_CD, _NOISE)
    return made_ND, near(rng.integers(size, size=queries), made_ND, _NOISE / dim**0.5)


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """A result, and CPU seconds of the process."""
    start = time.process_time()
    return call(), time.process_time() - start


def measured(size: int, options: argparse.Namespace) -> dict[str, float]:
    """CPU milliseconds a query, one at a time, exact and by the index, with its recall and what building it took."""
    made_ND, asked_QD = vectors(size, options.dim, options.queries, options.seed)
    exact, seconds = timed(lambda: np.stack([best(made_ND @ asked_D, _COUNT, -np.inf) for asked_D in asked_QD]))
    row = {"exact_ms": 1000 * seconds / len(asked_QD), "megabytes": made_ND.nbytes / 1e6}
    if size > options.built:
        return row
    from usearch.index import Index

    index = Index(ndim=options.dim, metric="ip", dtype="f32")
    row["build_s"] = timed(lambda: index.add(np.arange(size), made_ND, threads=1))[1]
    found, seconds = timed(lambda: np.stack([index.search(asked_D, _COUNT).keys for asked_D in asked_QD]))
    hits = [len(set(own) & set(right)) / _COUNT for own, right in zip(found.tolist(), exact.tolist())]
    return row | {"index_ms": 1000 * seconds / len(asked_QD), "recall@10": float(np.mean(hits))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--built", type=int, default=100_000, metavar="N", help="largest size that is indexed")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    results = {"threads": os.environ.get("OPENBLAS_NUM_THREADS", "")}
    for size in options.sizes:
        results[str(size)] = measured(size, options)
        print(size, results[str(size)], flush=True)
    options.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
