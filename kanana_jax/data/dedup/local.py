"""Deduplication on one machine; keys and sketches in memory take 660 bytes per document with 14 bands and 512 bins."""

import dataclasses
import glob
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kanana_jax.config import fingerprint
from kanana_jax.data.dedup import clusters, verdicts
from kanana_jax.data.dedup import index as index_lib
from kanana_jax.data.dedup.index import DedupConfig, Index, Read
from kanana_jax.data.read import origins as origins_lib
from kanana_jax.data.read import outputs, records
from kanana_jax.data.read.origins import Origin
from kanana_jax.data.read.record import Broken, Record
from kanana_jax.errors import UserError
from kanana_jax.files import whole_file, write_json


def judge(found: Index, config: DedupConfig) -> tuple[np.ndarray, np.ndarray]:
    """`clusters.verdicts` of all documents."""
    _, texts = np.unique(found.texts, axis=0, return_inverse=True)
    quality = np.nan_to_num(found.quality, nan=-np.inf)
    documents = clusters.Documents(texts, found.bands, found.sketches, found.lengths, quality)
    return clusters.verdicts(documents, config.keep, config.threshold)


def run(
    config: DedupConfig,
    inputs: Sequence[str],
    output: pathlib.Path,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Judges the documents of all inputs, together with those of earlier runs into the same `output`.

    A further run reads only new or changed files. The verdicts equal those of a single run over everything: first the
    earlier inputs that are not named again, then the inputs in the order of this run.

    Args:
      output: folder for the verdicts, `duplicates.jsonl`, `report.json` and the index.
      progress: called with the number of documents read.

    Returns:
      The content of `report.json`: documents, kept, exact, near, clusters by size.

    Raises:
      ConfigError: `output` was started with another config, or lies in an input.
      UserError: there are no documents, a file of an earlier run is gone or has changed, or the disk is full.
    """
    outputs.apart(output, inputs)
    digest = fingerprint(dataclasses.asdict(config))
    old = index_lib.load(output, digest)
    named = origins_lib.identify(records.find_all(inputs), [read.origin for read in old])
    left = _not_named(old, named, inputs)
    known = {read.origin.row[::2]: read for read in old}  # by path and digest
    new = {read.origin.path: read for read in _read([o for o in named if o.row[::2] not in known], config, progress)}
    found = [*left, *(new.get(o.path) or dataclasses.replace(known[o.row[::2]], origin=o) for o in named)]
    whole = index_lib.join([read.index for read in found])
    if not whole.ids:
        raise UserError(f"no documents in {', '.join(inputs)}")
    kinds, kept = judge(whole, config)
    sizes = np.bincount(kept)
    report = make_report(len(kinds), kinds[kinds != clusters.KEPT], sizes[sizes > 1], config)
    judged = verdicts.Judged(
        [read.origin for read in found],
        np.array([read.items for read in found], np.int64),
        np.array([len(read.index.ids) for read in found], np.int64),
        whole.numbers,
        whole.checks,
    )
    index_lib.save(output, digest, found)
    lines = (
        judged.line(i, kept[i], (whole.ids[i], whole.ids[kept[i]]), int(kinds[i]))
        for i in np.flatnonzero(kinds).tolist()
    )
    write_results(output, judged, kinds, lines, report)
    return report


def write_results(
    output: pathlib.Path,
    judged: verdicts.Judged,
    kinds: np.ndarray,
    lines: Iterator[dict[str, str]],
    report: dict[str, Any],
) -> None:
    """Writes the results of the local and the Beam path, each file atomically.

    Raises:
      UserError: the disk is full or not writable.
    """
    verdicts.write(output, judged, kinds)
    with whole_file(output / "duplicates.jsonl") as temporary, temporary.open("wb") as file:
        for line in lines:  # a path that is not UTF-8 contains lone surrogates, which must be escaped
            file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    write_json(output / "report.json", report)


def _read(todo: Sequence[Origin], config: DedupConfig, progress: Callable[[int], None] | None) -> list[Read]:
    """Reads origins, with batches of documents that may span several origins."""
    sizes: list[tuple[int, int]] = []

    def items() -> Iterator[Record | Broken]:
        total = 0
        for origin in todo:
            count = documents = 0
            for item in records.documents_of(origin, source=""):
                count, total = count + 1, total + 1
                documents += isinstance(item, dict)
                yield item
                if progress is not None and total % 1000 == 0:
                    progress(total)
            sizes.append((count, documents))

    found, read, end = index_lib.index(items(), config), [], 0
    for origin, (count, documents) in zip(todo, sizes):
        read.append(Read(origin, count, found.part(end, end + documents)))
        end += documents
    return read


def _not_named(old: Sequence[Read], named: Sequence[Origin], inputs: Sequence[str]) -> list[Read]:
    """The earlier inputs that this run does not name; they are kept and precede the named ones.

    Raises:
      UserError: such a file has changed, or is gone from a folder or glob that is named again: copies of its documents
        may have been dropped in favour of the documents that it held.
    """
    paths, contents = {origin.path for origin in named}, {origin.digest for origin in named}
    roots = [os.path.realpath(records.root_of(path)) for path in inputs if _is_many(path)]
    left = []
    for read in old:
        origin = read.origin
        if origin.path in paths:
            continue
        file = pathlib.Path(origin.path)
        if not origin.is_address and not file.exists():
            if origin.digest in contents:
                continue  # it was renamed
            if any(file.is_relative_to(root) for root in roots):
                raise UserError(
                    f"{file} was judged before and is gone, and copies of its documents were dropped: "
                    "put it back, or name another --output"
                )
        elif not origins_lib.is_unchanged(origin):
            (now,) = origins_lib.identify([dataclasses.replace(origin, stamp="", digest="")])
            if now.digest != origin.digest:
                raise UserError(f"{file} was judged before and has changed: name it among --input, to be read again")
        left.append(read)
    return left


def _is_many(path: str) -> bool:
    expanded = os.path.expanduser(path)
    return not path.startswith(records.ADDRESSES) and (glob.has_magic(expanded) or os.path.isdir(expanded))


def make_report(documents: int, dropped: np.ndarray, sizes: np.ndarray, config: DedupConfig) -> dict[str, Any]:
    """The content of `report.json`; `probability` is that of dropping one of two long documents, by their similarity.

    Args:
      documents: number of all documents.
      dropped: verdicts on the documents that are not kept.
      sizes: number of documents in each cluster.
    """
    sizes, counts = np.unique(sizes, return_counts=True)
    hashing, threshold = config.hashing, config.threshold
    found = {f"{s:.2f}": hashing.probability(s) * hashing.accepted(s, threshold) for s in np.arange(0.5, 1.0, 0.05)}
    return {
        "documents": documents,
        "kept": documents - len(dropped),
        "exact": int(np.count_nonzero(dropped == clusters.EXACT)),
        "near": int(np.count_nonzero(dropped == clusters.NEAR)),
        "clusters": {str(size): int(count) for size, count in zip(sizes, counts)},
        "threshold": threshold,
        "standard_error": round(math.sqrt(threshold * (1 - threshold) / hashing.bins), 4),
        "probability": {s: round(p, 4) for s, p in found.items()},
        "config_hash": fingerprint(dataclasses.asdict(config)),
    }
