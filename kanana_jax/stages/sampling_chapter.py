"""Stages that sample in a run's report: reward, length and distance by step, and answers before and after training."""

import pathlib
from typing import Any

from kanana_jax.files import read_json
from kanana_jax.report.page import Block, Chapter, Figure, Table
from kanana_jax.report.plots import Series, lines
from kanana_jax.report.run_stages import json_lines

Json = dict[str, Any]
# Metric → axis title, caption.
_CURVES = {
    "reward": ("reward", "Mean reward of the sampled answers."),
    "answer_tokens": ("tokens", "Length of the sampled answers. Growth without reward means a gamed loss."),
    "ended": ("share", "Answers that ended by themselves; the others were cut off by rollout.max_new_tokens."),
    "kl": ("nats per token", "Distance of the policy from the fixed reference, estimated on sampled tokens."),
    "divergence": ("nats per token", "Divergence between student and teacher on the student's own tokens."),
    "mismatch": ("nats per token", "Mean difference of a token's log-probability in sampler and trainer."),
    "sampling_wait_s": ("seconds", "Time that a step waited for its answers while nothing trained."),
    "language": ("share", "Answers in the language of their prompt, by the scripts of their letters."),
}
_SHOWN = 8


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    """Curves of the stages that log sampled answers; their held-out answers, before and after, side by side."""
    logged = {name: json_lines(folder / "metrics.jsonl") for name, folder in folders.items()}
    trained = {name: [row for row in rows if "answer_tokens" in row] for name, rows in logged.items()}
    trained = {name: rows for name, rows in trained.items() if rows}
    blocks: list[Block] = []
    for metric, (title, caption) in _CURVES.items():
        series = [
            Series(name, [row["step"] for row in rows if metric in row], [row[metric] for row in rows if metric in row])
            for name, rows in trained.items()
            if any(metric in row for row in rows)
        ]
        if series:
            blocks.append(Figure(lines(series, x="steps", y=title, height=2.4), caption))
    held = {name: [row["eval"] for row in logged[name] if "eval" in row] for name in trained}
    cells = [
        (
            name,
            language.removeprefix("lang/"),
            *(figures[i].get("reward", {}).get(language) for i in (0, -1)),
            *(figures[i]["answer_tokens"][language] for i in (0, -1)),
            *(100 * figures[i]["ended"][language] for i in (0, -1)),
        )
        for name, figures in held.items()
        for language in (figures[-1].get("answer_tokens", {}) if figures else ())
        if language.startswith("lang/")
    ]
    if cells:
        columns = (
            "stage",
            "language",
            "reward before",
            "after",
            "tokens before",
            "tokens after",
            "ended before, %",
            "ended after, %",
        )
        formats = {name: ".3f" if name in ("reward before", "after") else ".1f" for name in columns[2:]}
        blocks.append(Table(columns, cells, "Greedy answers to held-out prompts.", formats))
    for name in trained:
        blocks += _answers(name, read_json(folders[name] / "answers.json") or {})
    return blocks


def _answers(name: str, found: Json) -> list[Block]:
    pairs = _of_each_language(list(zip(found.get("before", ()), found.get("after", ()))))
    if not pairs:
        return []
    rewards = "reward" in pairs[0][1]
    columns = (
        "language",
        "prompt",
        "before",
        *(("reward",) if rewards else ()),
        "after",
        *(("reward after",) if rewards else ()),
    )
    rows = [
        (
            after["lang"],
            after["prompt"],
            before["text"],
            *((before["reward"],) if rewards else ()),
            after["text"],
            *((after["reward"],) if rewards else ()),
        )
        for before, after in pairs
    ]
    formats = {"reward": ".2f", "reward after": ".2f"}
    return [Table(columns, rows, f"{name}: the same held-out prompts before and after.", formats)]


def _of_each_language(pairs: list[tuple[Json, Json]]) -> list[tuple[Json, Json]]:
    """The first pairs of each language, equally many of each: in files, one language follows the other."""
    groups: dict[str, list[tuple[Json, Json]]] = {}
    for pair in pairs:
        groups.setdefault(pair[1]["lang"], []).append(pair)
    each = max(1, _SHOWN // max(1, len(groups)))
    return [pair for group in groups.values() for pair in group[:each]]


CHAPTER = Chapter("Sampled answers", _blocks)
