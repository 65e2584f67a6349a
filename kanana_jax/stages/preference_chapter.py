"""Preference stages in a run's report: changes for chosen and rejected answers separately."""

import pathlib
from typing import Any

from kanana_jax.report.page import Block, Chapter, Figure, Table
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.run_stages import json_lines

Json = dict[str, Any]
# Metric of both answers → axis title, caption.
_BOTH = {
    "reward_{}": (
        "reward",
        "β times the log-ratio of policy and reference. Both may fall: training aims at the margin.",
    ),
    "{}_log_prob": (
        "nats per token",
        "Log-probability per token. If the chosen line keeps falling, the model unlearns good answers: add "
        "preference.nll_weight, or lower the learning rate.",
    ),
    "kl_{}": (
        "nats per token",
        "How far the policy has moved from its reference on these answers: half the mean squared log-ratio of tokens.",
    ),
}


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    """Curves of the stages that log pairs, and a table of their first and last figures."""
    logged = {name: json_lines(folder / "metrics.jsonl") for name, folder in folders.items()}
    trained = {name: [row for row in rows if "chosen_log_prob" in row] for name, rows in logged.items()}
    trained = {name: rows for name, rows in trained.items() if rows}
    blocks: list[Block] = []
    for name, rows in trained.items():
        for metric, (title, caption) in _BOTH.items():
            if metric.format("chosen") not in rows[0]:
                continue  # a loss without a reference
            series = [
                Series(answer, [row["step"] for row in rows], [row[metric.format(answer)] for row in rows])
                for answer in ("chosen", "rejected")
            ]
            blocks.append(Figure(lines(series, x="steps", y=title, height=2.4), f"{name}: {caption}"))
    held = {
        name: [row["eval"] for row in logged[name] if "preference_accuracy" in row.get("eval", {})] for name in trained
    }
    cells = [
        (
            name,
            language.removeprefix("lang/"),
            *(100 * figures[i]["preference_accuracy"][language] for i in (0, -1)),
            *(figures[i]["preference_loss"][language] for i in (0, -1)),
        )
        for name, figures in held.items()
        for language in (figures[-1]["preference_accuracy"] if figures else ())
        if language.startswith("lang/")
    ]
    if cells:
        columns = ("stage", "language", "accuracy before, %", "after, %", "loss before", "loss after")
        formats = {"accuracy before, %": ".1f", "after, %": ".1f", "loss before": ".4f", "loss after": ".4f"}
        caption = "Held-out pairs. Accuracy: the share whose chosen answer has the higher reward; ties count as wrong."
        blocks.append(Table(columns, cells, caption, formats))
    return blocks


CHAPTER = Chapter("Preferences", _blocks)
