"""Deduplication on one machine: all keys in memory, 112 bytes per document at 14 bands."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kanana_jax.config import fingerprint
from kanana_jax.data.dedup import clusters, minhash, verdicts
from kanana_jax.data.dedup.minhash import MinHashConfig
from kanana_jax.data.read import records
from kanana_jax.data.read.record import Broken, Record
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import load_json, write_json

BATCH = 64  # documents
ARRAYS = ("bands", "texts", "lengths", "quality")


@dataclasses.dataclass(frozen=True)
class DedupConfig:
    """When documents are duplicates, and which of several is kept.

    Attributes:
      keep: the first in input order, the longest, or the best by `meta[quality]`.
      lang: of records that do not say theirs.
    """

    hashing: MinHashConfig = MinHashConfig()
    keep: clusters.Keep = "first"
    quality: str = "quality"
    lang: str = "default"


@dataclasses.dataclass(frozen=True)
class Index:
    """Keys of `N` documents.

    Attributes:
      ids: of the documents.
      bands: uint64 `[N, bands]`; all zeros where a text has no shingle.
      texts: 16 bytes of each text, `[N, 2]` uint64.
      lengths: characters, `[N]`.
      quality: `[N]`, NaN where the record says nothing.
    """

    ids: list[str]
    bands: np.ndarray
    texts: np.ndarray
    lengths: np.ndarray
    quality: np.ndarray


def index(items: Iterator[Record | Broken], config: DedupConfig) -> Index:
    """Reads documents once; broken lines are passed over."""
    ids, rows, texts, lengths, quality, batch = [], [], [], [], [], []

    def work():
        for lang in {r.get("lang", config.lang) for r in batch}:
            shingles = config.hashing.shingles.get(lang, config.hashing.shingles["default"])
            own = [i for i, r in enumerate(batch) if r.get("lang", config.lang) == lang]
            for i, found in zip(own, minhash.shingle_hashes([batch[i]["text"] for i in own], shingles)):
                rows_of_batch[i] = minhash.band_keys(found, config.hashing) if len(found) else nothing
        rows.extend(rows_of_batch[i] for i in range(len(batch)))
        for record in batch:
            ids.append(record["id"])
            texts.append(np.frombuffer(minhash.text_key(record["text"]), np.uint64))
            lengths.append(len(record["text"]))
            value = record.get("meta", {}).get(config.quality)
            quality.append(float(value) if isinstance(value, (int, float)) else np.nan)

    nothing = np.zeros(config.hashing.bands, np.uint64)
    rows_of_batch: dict[int, np.ndarray] = {}
    for item in items:
        if isinstance(item, dict):
            batch.append(item)
        if len(batch) == BATCH:
            work()
            batch.clear()
    work()
    return Index(
        ids,
        np.array(rows, np.uint64).reshape(-1, config.hashing.bands),
        np.array(texts, np.uint64).reshape(-1, 2),
        np.array(lengths, np.int64),
        np.array(quality, np.float64),
    )


def judge(found: Index, config: DedupConfig) -> tuple[np.ndarray, np.ndarray]:
    """`clusters.verdicts` of all documents."""
    _, texts = np.unique(found.texts, axis=0, return_inverse=True)
    edges = [clusters.edges_of(texts)]
    some = np.flatnonzero(found.bands.any(axis=1))
    for band in found.bands[some].T:
        a, b = clusters.edges_of(band)
        edges.append((some[a], some[b]))
    labels = clusters.components(len(found.ids), edges)
    quality = np.nan_to_num(found.quality, nan=-np.inf)
    return clusters.verdicts(labels, texts, found.lengths, quality, config.keep)


def run(config: DedupConfig, inputs: list[str], output: pathlib.Path, progress: Callable[[int], None] | None = None):
    """Judges the documents of all inputs, after those that `output` has judged before.

    Run again with new inputs, it reads only these; the verdicts are those of one run over everything.

    Returns:
      `report.json`: documents, kept, exact, near, clusters by size.

    Raises:
      ConfigError: `output` was begun with another config.
      UserError: no documents, or the disk is full.
    """
    output.mkdir(parents=True, exist_ok=True)
    digest = fingerprint(dataclasses.asdict(config))
    old = _load(output, digest)
    done = set() if old is None else set(old[1])
    todo = [path for path in inputs if path not in done]

    def items():
        for path in todo:
            for count, item in enumerate(records.read(path, source="", lang=None), 1):
                yield item
                if progress is not None and count % 1000 == 0:
                    progress(count)

    found = index(items(), config)
    if old is not None:
        before = old[0]
        found = Index(
            before.ids + found.ids,
            *(np.concatenate([getattr(before, name), getattr(found, name)]) for name in ARRAYS),
        )
    if not found.ids:
        raise UserError(f"no documents in {', '.join(inputs)}")
    kinds, kept = judge(found, config)
    sizes = np.bincount(kept)
    report = make_report(len(kinds), kinds[kinds != clusters.KEPT], sizes[sizes > 1], config)
    try:
        _save(output, found, digest, [*sorted(done), *todo])
        verdicts.write(output, found.ids, kinds)
        with (output / "duplicates.jsonl.partial").open("w", encoding="utf-8") as file:
            for i in np.flatnonzero(kinds):
                line = {"id": found.ids[i], "verdict": verdicts.NAMES[int(kinds[i])], "kept": found.ids[kept[i]]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        os.replace(output / "duplicates.jsonl.partial", output / "duplicates.jsonl")
        write_json(output / "report.json", report)
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error.strerror}): free space, then run it again") from error
    return report


def make_report(documents: int, dropped: np.ndarray, sizes: np.ndarray, config: DedupConfig) -> dict[str, Any]:
    """`report.json`.

    Args:
      dropped: kinds of the documents that are not kept.
      sizes: documents in each cluster.
    """
    sizes, counts = np.unique(sizes, return_counts=True)
    return {
        "documents": documents,
        "kept": documents - len(dropped),
        "exact": int(np.count_nonzero(dropped == clusters.EXACT)),
        "near": int(np.count_nonzero(dropped == clusters.NEAR)),
        "clusters": {str(size): int(count) for size, count in zip(sizes, counts)},
        "probability": {f"{s:.2f}": round(config.hashing.probability(s), 4) for s in np.arange(0.5, 1.0, 0.05)},
        "config_hash": fingerprint(dataclasses.asdict(config)),
    }


def _load(output: pathlib.Path, digest: str) -> tuple[Index, list[str]] | None:
    file = output / "index.json"
    if not file.is_file():
        return None
    head = load_json(file)
    if head["config_hash"] != digest:
        raise ConfigError(f"{output} was begun with another config: use that, or name another --output")
    arrays = [np.load(output / f"{name}.{head['generation']}.npy", allow_pickle=False) for name in ARRAYS]
    return Index(head["ids"], *arrays), head["inputs"]


def _save(output: pathlib.Path, found: Index, digest: str, inputs: list[str]) -> None:
    """Arrays of a new generation, then the head that names it: a killed run leaves the old index whole."""
    generation = len(found.ids)
    for name in ARRAYS:
        np.save(output / f"{name}.{generation}.npy", getattr(found, name))
    head = {"config_hash": digest, "generation": generation, "inputs": inputs, "ids": found.ids}
    write_json(output / "index.json", head, indent=None)
    for name in ARRAYS:
        for stale in output.glob(f"{name}.*.npy"):
            if stale.name != f"{name}.{generation}.npy":
                stale.unlink()
