"""Embedding stages in a run's report: retrieval among held-out texts, and similarity of a text and its positive."""

import pathlib
from typing import Any

from kanana_jax.report.page import Block, Chapter, Figure, Table
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.run_stages import json_lines

Json = dict[str, Any]


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    """Held-out figures of the first and last evaluation, and curves of both kinds of stages."""
    logged = {name: json_lines(folder / "metrics.jsonl") for name, folder in folders.items()}
    found = _before_and_after(logged, ("contrastive_accuracy", "contrastive_loss"))
    blocks: list[Block] = []
    if found:
        rows = [(*row[:2], 100 * row[2], 100 * row[3], *row[4:]) for row in found]
        columns = ("stage", "language", "found before, %", "after, %", "loss before", "loss after")
        caption = (
            "Held-out groups. Found: the share of anchors whose positive is nearer than every other text in as many "
            "rows as the stage compares (`compared`). Figures from different numbers of rows are not comparable."
        )
        formats = {"found before, %": ".1f", "after, %": ".1f", "loss before": ".4f", "loss after": ".4f"}
        blocks.append(Table(columns, rows, caption, formats))
    for name, rows in logged.items():
        steps = [row for row in rows if "cosine" in row and "candidates" in row]
        if len(steps) > 1:
            series = [Series(name, [row["step"] for row in steps], [row["cosine"] for row in steps])]
            candidates = sum(row["candidates"] for row in steps) / len(steps)
            caption = (
                f"{name}: mean cosine of an anchor and its positive in training, among {candidates:,.0f} "
                "negatives on average. Near 1 from the beginning to the end means that all vectors are nearly alike."
            )
            blocks.append(Figure(lines(series, x="steps", y="cosine", height=2.4), caption))
    masked = _before_and_after(logged, ("masked_loss",))
    if masked:
        caption = "Masked tokens of held-out documents, predicted with attention to both sides; lower is better."
        columns = ("stage", "language", "nats per token before", "after")
        formats = {"nats per token before": ".4f", "after": ".4f"}
        blocks.append(Table(columns, masked, caption, formats))
    return blocks


def _before_and_after(logged: dict[str, list[Json]], metrics: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Stage, language, and each metric at the first and last evaluation."""
    evals = {name: [row["eval"] for row in rows if metrics[0] in row.get("eval", {})] for name, rows in logged.items()}
    return [
        (name, key.removeprefix("lang/"), *(own[i][metric][key] for metric in metrics for i in (0, -1)))
        for name, own in evals.items()
        for key in (own[-1][metrics[0]] if own else ())
        if key.startswith("lang/")
    ]


CHAPTER = Chapter("Embeddings", _blocks)
