"""The paper's steps beside those of a run (arXiv:2502.18934): the gain of each there and here.

The paper's figures: for §2 the average of MMLU, KMMLU, HAE-RAE, HumanEval, MBPP and GSM8K; for §3 the mean of
normalised chat benchmarks (2.1B, read off a figure); nDCG@10 for its embeddings; grounding on its own benchmark
(Table 11); accuracy on FunctionChat-Bench; 11.06% as counted in §2.2. A run has its own questions and sizes: the order
of models can be compared, but not the values.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from kanana_jax.files import read_json
from kanana_jax.report.page import Block, Chapter, Table
from kanana_jax.report.run_stages import json_lines
from kanana_jax.stages import cost_chapter, evaluation_chapter

Json = dict[str, Any]
_ARROW = " → "


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    config = (read_json(next(iter(folders.values())).parent / "config.json") or {}).get("config", {})
    stages = {name: config.get(name, {}) for name in folders}
    found = [row for row in _rows(stages, folders) if row is not None]
    if len(found) < 2:
        return []
    columns = ("step", "the paper", "this run")
    caption = (
        "The paper's benchmarks, sizes and tokens differ (8B to 2.1B parameters, 3T tokens): compare the order of "
        "the models, not the values. Bits per byte: lower is better; scores: higher is better."
    )
    return [Table(columns, found, caption)]


def _rows(stages: dict[str, Json], folders: dict[str, pathlib.Path]) -> Iterator[tuple[str, str, str] | None]:
    evals = {
        name: [row["eval"] for row in json_lines(f / "metrics.jsonl") if "eval" in row] for name, f in folders.items()
    }
    asked = evaluation_chapter.evaluated(folders)
    means = evaluation_chapter.scores(next(iter(asked.values())))[1] if asked else {}

    def kind(name: str) -> str:
        return stages.get(name, {}).get("kind", "")

    def start(name: str) -> str:
        return stages.get(name, {}).get("start", "")

    def told(*names: str) -> str:
        """Bits per byte and scores of models, in their order; empty where fewer than two have either."""
        bits = [value for name in names if (value := _bits(evals.get(name, []))) is not None]
        own = [means[name] for name in names if name in means]
        parts = []
        if len(bits) > 1:
            parts.append(f"{_ARROW.join(f'{value:.3f}' for value in bits)} bits per byte")
        if len(own) > 1:
            parts.append(f"{_ARROW.join(f'{value:.3f}' for value in own)} mean score")
        return "; ".join(parts)

    for name in stages:
        before = start(name)
        if kind(name) == kind(before) == "pretrain":
            yield _row("second stage of pre-training", "46.81 → 57.44 (8B)", told(before, name))
        elif kind(name) == "pretrain" and kind(before) == "upscale":
            yield _row("depth up-scaling and more training", "57.44 → 60.10 (8B → 9.8B)", told(start(before), name))
        elif kind(name) == "distill" and kind(before) == "prune":
            paper = "57.44 → 50.06 (8B → 2.1B, from scratch 43.13)"
            yield _row("pruning and distillation", paper, told(start(before), name))
        elif kind(name) == "online_dpo" and kind(before) == "dpo":
            paper = ".456 → .505 → .519 (2.1B: fine-tuned, DPO, online DPO)"
            yield _row("alignment", paper, _preferences(evals, start(before), before, name, means))
        elif kind(name) == "contrastive":
            yield _row("embeddings", "nDCG@10 51.56 English, 65.00 Korean (2.1B)", _found(evals.get(name, [])))
    paper = "grounding 32.63 → 59.29 → 65.33 → 57.38 (instruct, fine-tuned, DPO, merged)"
    yield _row("answers from documents", paper, _documents(asked))
    yield _row("function calls", "88% single, 89% dialogue (8B)", _calls(asked))
    cost = cost_chapter.family_cost(cost_chapter.family_ledger(folders))
    if cost is not None:
        words = f"{100 * cost['saved']:.2f}% of the FLOPs for training every model from scratch"
        yield _row("saved by surgery", "11.06% (by up-scaling)", words)


def _row(step: str, paper: str, here: str) -> tuple[str, str, str] | None:
    return (step, paper, here) if here else None


def _bits(evals: list[Json]) -> float | None:
    """The last bits per byte, mean over languages."""
    found = [own for row in evals if (own := row.get("bits_per_byte"))]
    values = [value for key, value in found[-1].items() if key.startswith("lang/")] if found else []
    return sum(values) / len(values) if values else None


def _mean(values: Json) -> float:
    own = [value for key, value in values.items() if key.startswith("lang/")]
    return sum(own) / len(own) if own else 0.0


def _preferences(evals: dict[str, list[Json]], sft: str, dpo: str, online: str, means: dict[str, float]) -> str:
    """Scores of the three models; the share of chosen answers preferred, and the reward of the model's own answers."""
    parts = []
    own = [means[name] for name in (sft, dpo, online) if name in means]
    if len(own) == 3:
        parts.append(f"{_ARROW.join(f'{value:.3f}' for value in own)} mean score")
    for name, metric, words in (
        (dpo, "preference_accuracy", "pairs told apart by DPO"),
        (online, "reward", "reward of own answers"),
    ):
        found = [_mean(row[metric]) for row in evals.get(name, []) if metric in row]
        if len(found) > 1:
            parts.append(f"{words} {found[0]:.3f}{_ARROW}{found[-1]:.3f}")
    return "; ".join(parts)


def _found(evals: list[Json]) -> str:
    found = [row["contrastive_accuracy"] for row in evals if "contrastive_accuracy" in row]
    if len(found) < 2:
        return ""
    own = [f"{100 * found[0][key]:.0f}%{_ARROW}{100 * found[-1][key]:.0f}% {key.removeprefix('lang/')}"
           for key in found[-1] if key.startswith("lang/")]  # fmt: skip
    return f"nearest of the texts compared is the right one: {', '.join(own)}"


def _documents(asked: dict[str, dict[str, Json]]) -> str:
    """The share of unseen questions that each model answered, in their order; empty for fewer than two models."""
    for models in asked.values():
        shares = {
            name: [result["answered"] for result in model["results"].values() if "answered" in result]
            for name, model in models.items()
        }
        told = [f"{100 * sum(own) / len(own):.0f}% {name}" for name, own in shares.items() if own]
        if len(told) > 1:
            return f"answered from the passage: {_ARROW.join(told)}"
    return ""


def _calls(asked: dict[str, dict[str, Json]]) -> str:
    """The last model that was asked for function calls, by set."""
    for models in asked.values():
        for name, model in reversed(models.items()):
            own = {task: r for task, r in model["results"].items() if "broken" in r and "/" not in task}
            if own:
                return f"{name}: " + ", ".join(f"{100 * r['accuracy']:.0f}% {task}" for task, r in own.items())
    return ""


CHAPTER = Chapter("Beside the paper", _blocks)
