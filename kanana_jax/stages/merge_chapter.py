"""Merges in a run's report: the models' shares, the distances that they moved, and the weights tried."""

import pathlib
from typing import Any

from kanana_jax.files import read_json
from kanana_jax.report.page import Block, Chapter, Figure, Table, Text
from kanana_jax.report.plots import heatmap

RESULT = "merge.json"
_OUTER = "outer"
Json = dict[str, Any]


def merge_blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    """Tables and heat maps of the stages that hold `merge.json`.

    Args:
      folders: stage → its folder.
    """
    blocks: list[Block] = []
    for name, folder in folders.items():
        found = read_json(folder / RESULT)
        if found is not None:
            blocks += _merge(name, found)
    return blocks


def _merge(name: str, found: Json) -> list[Block]:
    used = [i for i, weight in enumerate(found["weights"]) if weight]
    labels = [_short(found["models"][i]) for i in used]
    details = f"; λ {found['scale']:g}" if found["method"] not in ("linear", "slerp") else ""
    details += f", density {found['density']:g}" if found["method"] in ("ties", "dare_ties") else ""
    rows = [(model, weight) for model, weight in zip(found["models"], found["weights"])]
    layers = {key: found["layers"][key] for key in sorted(found["layers"], key=_order)}
    moved = list(zip(*(layer["moved"] for layer in layers.values())))
    blocks: list[Block] = [
        Table(("model", "weight"), rows, f"{name}: {found['method']} from {found['base']}{details}.", {"weight": "g"}),
        Figure(
            heatmap([*labels, "result"], [_title(key) for key in layers], [[100 * x for x in row] for row in moved]),
            f"{name}: distance from {found['base']}, in % of its norm, by layer.",
        ),
    ]
    pairs = [f"{labels[j]} and {labels[i]}" for i in range(len(labels)) for j in range(i)]
    cosines = list(zip(*(layer["cosines"] for layer in layers.values())))
    shown = [(pair, row) for pair, row in zip(pairs, cosines) if None not in row]
    if shown:
        figure = heatmap(
            [p for p, _ in shown], [_title(key) for key in layers], [row for _, row in shown], low=-1, high=1
        )
        words = "cosine of the models' differences, by layer: 1 if both changed alike, 0 if they do not interfere."
        blocks.append(Figure(figure, f"{name}: {words}"))
    return [*blocks, *(_search(name, found["search"], found["models"]) if found["search"] else [])]


def _search(name: str, search: Json, models: list[str]) -> list[Block]:
    rows = [(*point["weights"], point["scale"], point["value"]) for point in search["points"]]
    columns = (*(f"weight of {_short(model)}" for model in models), "λ", search["score"])
    caption = f"{name}: the weights tried, the best first."
    formats = dict.fromkeys(columns[:-1], "g") | {columns[-1]: ".4f"}
    return [Table(columns, rows, caption, formats), Text("This score chose the weights: judge the result by another.")]


def _order(key: str) -> int:
    return -1 if key == _OUTER else int(key)


def _title(key: str) -> str:
    return "embeddings" if key == _OUTER else f"layer {key}"


def _short(model: str) -> str:
    """A stage's name, or that of a folder."""
    path = pathlib.PurePath(model)
    return path.parent.name if path.name == "model" and path.parent.name else path.name


CHAPTER = Chapter("Merging", merge_blocks)
