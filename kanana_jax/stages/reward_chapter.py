"""Reward models in a run's report: accuracy by language and length, and calibration."""

import pathlib
from typing import Any

from kanana_jax.report.page import Block, Chapter, Figure, Table
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.run_stages import json_lines

Json = dict[str, Any]


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    evals = {
        name: [row["eval"] for row in json_lines(folder / "metrics.jsonl") if "reward_accuracy" in row.get("eval", {})]
        for name, folder in folders.items()
    }
    evals = {name: found for name, found in evals.items() if found}
    if not evals:
        return []
    last = {name: found[-1] for name, found in evals.items()}
    languages = [
        (name, key.removeprefix("lang/"), 100 * share, figures["reward_loss"][key], figures["reward_ece"][key])
        for name, figures in last.items()
        for key, share in figures["reward_accuracy"].items()
        if key.startswith("lang/")
    ]
    lengths = [
        (name, key.removeprefix("length/"), 100 * share)
        for name, figures in last.items()
        for key, share in figures["reward_accuracy"].items()
        if key.startswith("length/")
    ]
    bins = [
        (name, part, int(cell["pairs"]), 100 * cell["confidence"], 100 * cell["accuracy"])
        for name, figures in last.items()
        for part, cell in figures["calibration"].items()
    ]
    return [
        Table(
            ("stage", "language", "accuracy, %", "loss", "calibration error"),
            languages,
            "Held-out pairs: the share whose chosen answer has the higher reward (ties count as wrong), and the "
            "expected calibration error (arXiv:1706.04599): the mean distance between confidence and accuracy.",
            {"accuracy, %": ".1f", "loss": ".4f", "calibration error": ".3f"},
        ),
        Table(
            ("stage", "chosen answer", "accuracy, %"),
            lengths,
            "By the length of the chosen answer relative to the rejected one (alike: within 10%). If accuracy rises "
            "from the first row to the last, the model rewards length.",
            {"accuracy, %": ".1f"},
        ),
        _reliability(last),
        Table(
            ("stage", "probability", "pairs", "mean probability, %", "accuracy, %"),
            bins,
            "The same in figures.",
            {"mean probability, %": ".1f", "accuracy, %": ".1f"},
        ),
    ]


def _reliability(last: dict[str, Json]) -> Figure:
    curves = [Series("calibrated", [0.5, 1.0], [0.5, 1.0], faint=True)]
    for name, figures in last.items():
        cells = figures["calibration"].values()
        curves.append(Series(name, [c["confidence"] for c in cells], [c["accuracy"] for c in cells]))
    plot = lines(curves, x="probability that the model gives its choice", y="accuracy", markers=True, height=2.4)
    return Figure(plot, "Reliability: below the pale line, the model is overconfident.")


CHAPTER = Chapter("Reward models", _blocks)
