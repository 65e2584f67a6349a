"""Cached teachers in a run's report."""

import pathlib
from typing import Any

from kanana_jax.data.stream import teacher_cache
from kanana_jax.files import read_json
from kanana_jax.report.page import Block, Chapter, Table

Json = dict[str, Any]


def cache_blocks(indices: dict[str, Json]) -> list[Block]:
    """A table of the stages that cached a teacher.

    Args:
      indices: stage → its `index.json`.
    """
    rows = [
        (
            name,
            index["of"],
            index["k"],
            index["vocab_size"],
            index["rows"],
            index["tokens"],
            index["bytes_per_token"],
            100 * index["mean_tail"],
            index["flops"]["teacher"],
        )
        for name, index in indices.items()
    ]
    if not rows:
        return []
    columns = ("stage", "teacher", "entries per token", "of", "rows", "tokens", "bytes per token", "tail %", "FLOPs")
    caption = (
        "Tail: the probability that the teacher gives to all other tokens, on average; the loss treats it as one event."
    )
    return [Table(columns, rows, caption, formats={"bytes per token": ",.0f", "tail %": ".2f", "FLOPs": ".3g"})]


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    indices = {name: read_json(folder / teacher_cache.INDEX) for name, folder in folders.items()}
    return cache_blocks({name: index for name, index in indices.items() if index is not None})


CHAPTER = Chapter("Cached teachers", _blocks)
