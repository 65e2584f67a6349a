"""Merges result files into one table: a row per model, a column per task, and the facts known about both."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kanana_jax.errors import ConfigError
from kanana_jax.files import load_json
from kanana_jax.observatory import cells, informative
from kanana_jax.observatory.result_files import every_eval, harness, own
from kanana_jax.observatory.result_files.score import Score

KINDS = "of 'kanana eval', of lm-evaluation-harness (results_….json), or of Every Eval Ever"
_BUDGET = ("tokens_b_low", "tokens_b_est", "tokens_b_high")


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The scores of all result files.

    Attributes:
      scores: model → task → score.
      about: model → column of models.csv → text, as far as the files contain it.
      warnings: sentences for the report.
    """

    scores: dict[str, dict[str, Score]]
    about: dict[str, dict[str, str]]
    warnings: tuple[str, ...]

    @property
    def tasks(self) -> list[str]:
        """All tasks, in the order in which they were found."""
        return list(dict.fromkeys(task for row in self.scores.values() for task in row))


def found(places: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The .json files among `places`, and those below the folders among them.

    Raises:
      ConfigError: a place does not exist, is another kind of file, or is a folder without results.
    """
    files: list[pathlib.Path] = []
    for place in places:
        if place.is_dir():
            below = sorted(file for file in place.rglob("*.json") if _kind(load_json(file, object)) is not None)
            if not below:
                raise ConfigError(f"{place} holds no result file {KINDS}")
            files += below
        elif place.suffix != ".json":
            raise ConfigError(f"{place} is not a .json file: give one SCORES.csv, or result files {KINDS}")
        else:
            files.append(place)
    return list(dict.fromkeys(files))


def gather(files: Sequence[pathlib.Path], known: Iterable[str] = ()) -> Gathered:
    """Reads and merges result files.

    Args:
      known: names in models.csv; a model is called by whichever of its own names occurs there.

    Raises:
      ConfigError: a file of another kind, no usable score, or two scores of one model on one task without dates to
        choose the later one.
    """
    every, told, unmeasured = [], {}, []
    for file in files:
        value = load_json(file)
        kind = _kind(value)
        if kind is None:
            raise ConfigError(f"{file} holds no results {KINDS}: leave it out")
        try:
            scores = list(kind.scores(file, value))
            told |= {names: _about(known) for names, known in own.about(file, value).items()} if kind is own else {}
        except (AttributeError, TypeError, ValueError, KeyError) as error:  # edited by hand, or of another version
            form = f"another form ({' '.join(str(error).split())[:80]})"
            raise ConfigError(f"{file} has results in {form}: write it again, or leave it out") from error
        every += [(file, score) for score in scores if math.isfinite(score.value)]
        unmeasured += [f"{s.task} of {s.models[0]}" for s in scores if not math.isfinite(s.value)]
    if not every:
        raise ConfigError(f"no file holds a score whose metric is known: {', '.join(map(str, files[:3]))}")
    names = _names([*{score.models for _, score in every}, *told], set(known))
    rows: dict[str, dict[str, tuple[pathlib.Path, Score]]] = {}
    again = []
    for file, score in every:
        row = rows.setdefault(names[score.models], {})
        if score.task in row:
            row[score.task] = _later(*row[score.task], file, score, names[score.models])
            again.append(f"{score.task} of {names[score.models]}")
        else:
            row[score.task] = (file, score)
    warnings = []
    if unmeasured:
        warnings.append(f"Scores that are not numbers are left out: {informative.cut(unmeasured)}.")
    if again:
        warnings.append(f"Of scores that were found twice, the later one counts: {informative.cut(again)}.")
    about = {names[models]: columns for models, columns in told.items()}
    scores = {model: {task: score for task, (_, score) in row.items()} for model, row in rows.items()}
    return Gathered(scores, {m: a for m, a in about.items() if m in scores}, tuple(warnings))


def _kind(value: Any) -> Any:
    """The reader for a file's format; None if it has no known format."""
    forms = ((own, own.is_own), (harness, harness.is_harness), (every_eval, every_eval.is_record))
    return next((module for module, holds in forms if isinstance(value, dict) and holds(value)), None)


def _names(each: Sequence[tuple[str, ...]], known: set[str]) -> dict[tuple[str, ...], str]:
    """Names of a model → the name to use: a known one, or the shortest end of its path that is unique."""
    found: dict[tuple[str, ...], str] = {}
    for models in dict.fromkeys(each):
        plain = [cells.composed(name) for name in models]
        listed = next((name for name in plain if name in known), None)
        found[models] = listed or _short(plain, [o for o in each if o[0] != models[0]])
    return found


def _short(names: Sequence[str], others: Sequence[tuple[str, ...]]) -> str:
    """The id of a hub's model unchanged; for a path, its shortest end that no other model shares."""
    first = names[0]
    if first.count("/") <= 1 and not first.startswith((".", "/", "~")):
        return first
    parts = first.rstrip("/").split("/")
    for depth in range(1, len(parts) + 1):
        end = "/".join(parts[-depth:])
        if not any(f"/{other[0].rstrip('/')}".endswith(f"/{end}") for other in others):
            return end
    return first


def _later(
    file: pathlib.Path, score: Score, other_file: pathlib.Path, other: Score, model: str
) -> tuple[pathlib.Path, Score]:
    """The later of two scores; raises ConfigError if their dates do not determine it."""
    if not (score.date and other.date) or score.date == other.date:
        raise ConfigError(
            f"{file} and {other_file} both have '{score.task}' of '{model}', without dates to tell which is later: "
            "give one"
        )
    return (file, score) if score.date > other.date else (other_file, other)


def _about(value: Mapping[str, Any]) -> dict[str, str]:
    """Columns of models.csv from the description of the model in a result of `kanana eval`."""
    found = {"params": f"{value['parameters']:.9g}"} if value.get("parameters") else {}
    by_language = {} if value.get("from_elsewhere") else value.get("tokens_by_language") or {}
    if by_language:
        found["tokens_b"] = f"{sum(by_language.values()) / 1e9:.9g}"
    for language, tokens in by_language.items():
        found |= {f"{language}_{end}": f"{tokens / 1e9:.9g}" for end in _BUDGET} | {f"{language}_status": "reported"}
    return found


def listed(models: pathlib.Path | None) -> Iterator[str]:
    """The model names in models.csv; none if there is no such file."""
    if models is not None:
        yield from cells.unique(models, cells.read_csv(models), "model").index
