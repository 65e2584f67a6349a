"""The models of a run side by side: the ability of each against its cost (Figure 1 of arXiv:2502.18934)."""

import pathlib
from typing import Any

from kanana_jax.files import read_json
from kanana_jax.report import evaluation
from kanana_jax.report.page import Block, Chapter, Figure, Table, Text

RESULT = evaluation.RESULT
Json = dict[str, Any]


def evaluated(folders: dict[str, pathlib.Path]) -> dict[str, dict[str, Json]]:
    """Stage → model → its tasks and results, for the finished evaluation stages."""
    found = {name: read_json(folder / RESULT) for name, folder in folders.items()}
    return {name: value["models"] for name, value in found.items() if value is not None}


def scores(models: dict[str, Json]) -> tuple[list[str], dict[str, float]]:
    """The tasks that all models were asked, and each model's mean score on them, from 0 to 1."""
    tasks, table = evaluation.table(models)
    return tasks, {name: evaluation.mean(found, tasks)[0] for name, found in table.items()} if tasks else {}


def _costs(models: dict[str, Json], key: str) -> dict[str, float]:
    return {name: model[key] for name, model in models.items() if model[key]}


def _against_compute(folders: dict[str, pathlib.Path]) -> list[Block]:
    blocks: list[Block] = []
    for models in evaluated(folders).values():
        tasks, table = evaluation.table(models)
        if not tasks:
            continue
        means = {name: evaluation.mean(found, tasks) for name, found in table.items()}
        sizes = {name: f"{model['parameters']:,} parameters" for name, model in models.items()}
        own, whole = _costs(models, "training_flops_own"), _costs(models, "training_flops")
        if own:
            words = (
                f"Mean of {', '.join(tasks)}, each from 0 to 1, chance included, against 6·N·D of the model since "
                "it was last cut or grown, as in the paper's Figure 1. Lines join models of one size; bars are one "
                "standard error over documents."
            )
            blocks.append(Figure(evaluation.figure(own, means, sizes, "mean score"), words))
        rows = [
            (
                name,
                model["parameters"],
                own.get(name),
                whole.get(name),
                means[name][0],
                *(table[name][task][0] for task in tasks),
            )
            for name, model in models.items()
        ]
        columns = ("model", "parameters", "training FLOPs", "with its parents", "mean", *tasks)
        formats = dict.fromkeys(("training FLOPs", "with its parents"), ".3g") | dict.fromkeys(("mean", *tasks), ".3f")
        caption = f"Questions: {', '.join(f'{task} {_asked(models, task)}' for task in tasks)}. Higher is better."
        blocks.append(Table(columns, rows, caption, formats))
    return blocks


def _asked(models: dict[str, Json], task: str) -> str:
    """Number of questions and metric."""
    result = next(iter(models.values()))["results"][task]
    return f"{result['n']} ({evaluation.metric(result)})"


def _blocks(folders: dict[str, pathlib.Path]) -> list[Block]:
    blocks: list[Block] = []
    for stage, models in evaluated(folders).items():
        rows = [
            (name, task.removesuffix("/free"), "free" if task.endswith("/free") else "grammar", 100 * r["accuracy"],
             100 * r["accuracy_stderr"], r["broken"], r.get("cut"), r["n"])
            for name, model in models.items()
            for task, r in model["results"].items()
            if "broken" in r and task.partition("/")[2] in ("", "free")
        ]  # fmt: skip
        if rows:
            columns = ("model", "set", "arguments", "right, %", "± %", "broken", "cut", "asked")
            formats = {"right, %": ".1f", "± %": ".1f"}
            caption = (
                "Function calls: the last turn of unseen conversations. Right: name and arguments match, or rightly no "
                "call. 'grammar': only calls that fit their schema can be written. Broken: unreadable calls. "
                "Cut: calls that did not end within their tokens."
            )
            blocks.append(Table(columns, rows, caption, formats))
        blocks += _documents(models) + _by_language(models)
        blocks.append(
            Text(
                f"{stage}/observatory/ has these models as rows of the observatory's tables, with the tokens that "
                "each has seen by language: append them to a table of other models, then run 'kanana observe'."
            )
        )
    return blocks


def _documents(models: dict[str, Json]) -> list[Block]:
    """Answers from documents, next to Table 11 of the paper."""
    shares = ("answered", "cited", "refused", "refused_wrongly")
    rows = [
        (name, task, *(100 * result[share] for share in shares), result.get("cut"), result["n"])
        for name, model in models.items()
        for task, result in model["results"].items()
        if "answered" in result
    ]
    if not rows:
        return []
    columns = ("model", "documents", "answered, %", "cited, %", "nothing found: right, %", "wrong, %", "cut", "asked")
    caption = (
        "Answers from documents: unseen questions, each asked with two passages. Answered: the reply has the answer; "
        "cited: it names the right passage; nothing found: it says so where neither passage has it (right), and where "
        "one does (wrong); cut: replies that did not end, of two to each question. The paper's Table 11 has a judge "
        "rate grounding, helpfulness and instruction following."
    )
    return [Table(columns, rows, caption, dict.fromkeys(columns[2:6], ".1f"))]


def _by_language(models: dict[str, Json]) -> list[Block]:
    """The row of each model in the observatory's tables."""
    from kanana_jax.stages import score_tables

    tasks = score_tables.rows(models)
    if not tasks:
        return []
    tongues = sorted({tongue for model in models.values() for tongue in model["tokens_by_language"]})
    cells = [
        (
            name,
            *(model["tokens_by_language"].get(tongue) for tongue in tongues),
            *((evaluation.score(model["results"][task]) or (None,))[0] for task in tasks),
        )
        for name, model in models.items()
    ]
    columns = ("model", *(f"tokens, {tongue}" for tongue in tongues), *tasks)
    caption = "Tokens that a model and its parents have seen, and scores, by language."
    return [Table(columns, cells, caption, dict.fromkeys(tasks, ".2f"))]


FIRST = Chapter("Score against compute", _against_compute, first=True)
CHAPTER = Chapter("What the models can do", _blocks)
