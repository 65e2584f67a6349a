"""Models of a run as rows of the observatory's tables (`observatory/tables.py` has the columns)."""

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from kanana_jax.files import read_json, whole_file
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.report import evaluation

FOLDER = "observatory"
Json = dict[str, Any]


def tokens_by_language(lineage: Iterable[ModelFolder]) -> dict[str, int]:
    """The tokens that a model and its ancestors were trained on, by language of the source.

    A stage's report counts from its first ancestor on; for a merged model, along the first model's ancestors. Tokens
    of models from elsewhere are unknown (`from_elsewhere`).

    Args:
      lineage: the model and its ancestors, the nearest first.
    """
    for found in lineage:
        report = read_json(found.path.parent / "data_report.json")
        if report is not None:
            counted: dict[str, int] = {}
            for source in report["sources"].values():
                counted[source["lang"]] = counted.get(source["lang"], 0) + source["tokens"]
            return counted
    return {}


def from_elsewhere(lineage: Iterable[ModelFolder]) -> bool:
    """Returns whether a model's oldest ancestor was trained outside the runs found here."""
    *_, oldest = lineage
    return bool(oldest.card.get("parent")) or not (oldest.path.parent / "data_report.json").is_file()


def known_tokens(lineage: list[ModelFolder]) -> Json:
    """`{"tokens_by_language", "from_elsewhere"}` of a model that was trained here; empty for others."""
    counted = tokens_by_language(lineage)
    return {"tokens_by_language": counted, "from_elsewhere": from_elsewhere(lineage)} if counted else {}


def language_of(task: str, known: Iterable[str]) -> str | None:
    """The language that a task's name ends in (`mgsm_ja`, `translation_ko-en`), if known; None otherwise."""
    last = task.replace("/", "_").replace("-", "_").rpartition("_")[2]
    return last if last in known else None


def rows(models: Mapping[str, Json]) -> dict[str, str]:
    """Task → language, for the tasks with a score and a known language that every model was asked.

    A task with parts counts as a whole if it is in one language, otherwise by its parts.

    Args:
      models: name → `tokens_by_language`, `results`.
    """
    tongues = {tongue for model in models.values() for tongue in model["tokens_by_language"]}
    every = [model["results"] for model in models.values()]
    known = {
        task: tongue
        for task, result in every[0].items()
        if evaluation.score(result) is not None
        and all(task in results for results in every)
        and (tongue := language_of(task, tongues)) is not None
    }
    whole = [task for task in known if every[0][task].get("parts")]
    return {task: tongue for task, tongue in known.items() if not any(task.startswith(f"{w}_") for w in whole)}


def write(folder: pathlib.Path, family: str, models: Mapping[str, Json]) -> None:
    """Writes `scores.csv`, `models.csv` and `tasks.csv`; tasks without a place in `rows` are left out.

    Args:
      family: the family of all models.
      models: name → `parameters`, `tokens_by_language`, `from_elsewhere` (all its tokens are then undisclosed, since
        those of the model that it started from are unknown), `results`.
    """
    tasks = rows(models)
    scores = [
        (name, *(f"{(evaluation.score(model['results'][task]) or (0.0,))[0]:.6g}" for task in tasks))
        for name, model in models.items()
    ]
    _csv(folder / "scores.csv", ("model", *tasks), scores)
    first = next(iter(models.values()))["results"]
    asked = [
        (task, tongue, evaluation.metric(first[task]), *(first[task].get(key, "") for key in ("shots", "n", "version")))
        for task, tongue in tasks.items()
    ]
    _csv(folder / "tasks.csv", ("task", "language", "metric", "shots", "items", "metric_version"), asked)
    tongues = sorted({tongue for model in models.values() for tongue in model["tokens_by_language"]})
    ends = ("tokens_b_low", "tokens_b_est", "tokens_b_high", "status")
    known = {name: {} if model["from_elsewhere"] else model["tokens_by_language"] for name, model in models.items()}
    about = [(name, family, model["parameters"], *_budget(known[name], tongues)) for name, model in models.items()]
    columns = ("model", "family", "params", "tokens_b", *(f"{tongue}_{end}" for tongue in tongues for end in ends))
    _csv(folder / "models.csv", columns, about)


def _budget(counted: Mapping[str, int], tongues: Iterable[str]) -> list[str]:
    """Tokens in total and by language, in units of 1e9."""
    if not counted:
        return ["", *(cell for _ in tongues for cell in ("", "", "", "undisclosed"))]
    own = {tongue: f"{counted.get(tongue, 0) / 1e9:.6g}" for tongue in tongues}
    total = f"{sum(counted.values()) / 1e9:.6g}"
    return [total, *(cell for value in own.values() for cell in (value, value, value, "reported"))]


def _csv(path: pathlib.Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
