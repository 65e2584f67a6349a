"""Cached teachers in a run's report."""

from typing import Any

from kanana_jax.report.page import Block, Table

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
    columns = ("stage", "teacher", "entries a token", "of", "rows", "tokens", "bytes a token", "tail %", "FLOPs")
    caption = (
        "Tail: the probability that the teacher gives to all other tokens, on average; it is one event of the loss."
    )
    return [Table(columns, rows, caption, formats={"bytes a token": ",.0f", "tail %": ".2f", "FLOPs": ".3g"})]


def cache_card(index: Json) -> Json:
    """What a cache adds to the cost of a family, as `report/surgery.py` reads it: a forward pass, and no model."""
    return {"tokens": 0, "flops": index["flops"], "parent": None}
