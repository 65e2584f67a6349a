"""A search for a shape in a run's report: the candidates, their last steps, and whether ranks settled early."""

import pathlib

from kanana_jax.files import read_json
from kanana_jax.report.page import Block, Chapter, Figure, Table, Text
from kanana_jax.report.plots import Series, lines

RESULT = "search.json"


def search_blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    """Tables and curves of the stages that hold `search.json`.

    Args:
      folders: stage → its folder.
    """
    blocks: list[Block] = []
    for name, folder in folders.items():
        found = read_json(folder / RESULT)
        if found is not None:
            blocks += _search(name, found)
    return blocks


def _search(name: str, found: dict) -> list[Block]:
    rungs, rows = [str(rung) for rung in found["rungs"]], found["candidates"]
    columns = (
        "shape",
        "parameters",
        "FLOPs per token",
        "memory, MB",
        "ms per step",
        "pruned",
        *(f"{r} steps" for r in rungs),
    )
    cells = [
        (
            row["shape"],
            row["parameters"],
            row["flops_per_token"],
            row["memory_bytes"] / 1e6,
            1e3 * row["latency_s"],
            row["pruned"],
            *(row["rungs"].get(rung) for rung in rungs),
        )
        for row in rows
    ]
    formats = dict.fromkeys(columns[5:], ".4f")
    caption = f"{name}: candidates, the best first; held-out bits per byte right after pruning and after each rung."
    series = [
        Series(row["shape"], [0, *map(int, row["rungs"])], [row["pruned"], *row["rungs"].values()], faint=place >= 6)
        for place, row in enumerate(rows)
    ]
    agree = [
        f"{'right after pruning' if key == 'pruned' else f'after {key} steps'} {value:.2f}"
        for key, value in found["spearman_with_last"].items()
        if value is not None
    ]
    words = (
        f"Rank correlation (Spearman) with the last rung, among those that reached it: {', '.join(agree)}."
        if agree
        else ""
    )
    return [
        Table(columns, cells, caption, formats),
        Figure(
            lines(series, x="steps of the short distillation", y="held-out bits per byte", markers=True),
            f"{name}: where each candidate was stopped.",
        ),
        *([Text(words)] if words else []),
    ]


CHAPTER = Chapter("Search", search_blocks)
