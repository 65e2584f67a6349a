"""Aggregate records of Every Eval Ever (github.com/evaleval/every_eval_ever, `eval.schema.json` 0.1–0.2)."""

import math
import pathlib
from collections.abc import Iterator, Mapping

from kanana_jax.observatory import task_names
from kanana_jax.observatory.result_files.score import Json, Score


def is_record(value: Json) -> bool:
    """Whether the content of a file is such a record."""
    return isinstance(value.get("evaluation_results"), list) and isinstance(value.get("model_info"), dict)


def scores(file: pathlib.Path, value: Json) -> Iterator[Score]:
    """The scores of a record that have a known range; a task is named after its data set and subset."""
    model = value["model_info"]
    names = tuple(dict.fromkeys(str(model[key]) for key in ("id", "name") if model.get(key)))
    rows = [row for row in value["evaluation_results"] if isinstance(row, Mapping)]
    titles = [_task(row, value) for row in rows]
    for title, row in zip(titles, rows):
        config, details = row.get("metric_config") or {}, row.get("score_details") or {}
        span, number = _range(config), details.get("score")
        if span is None or isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if config.get("has_unknown_level") and number == -1:
            continue
        metric = str(config.get("metric_name") or config.get("metric_id") or config.get("evaluation_description") or "")
        error, items = _uncertainty(details, row.get("source_data"))
        yield Score(
            models=names,
            task=f"{title} ({metric})" if titles.count(title) > 1 and metric else title,
            value=float(number),
            error=error,
            items=items,
            metric=metric if metric != title else "",
            source=f"Every Eval Ever: {value.get('evaluation_id') or file.name}",
            language=task_names.language(title),
            version=_library(value),
            low=span[0],
            high=span[1],
            better="lower" if config.get("lower_is_better") else "higher",
            date=str(row.get("evaluation_timestamp") or value.get("evaluation_timestamp") or ""),
        )


def _task(row: Mapping[str, object], value: Json) -> str:
    """The name of an evaluation, prefixed with its data set unless it already begins with that."""
    name = str(row.get("evaluation_name") or "")
    data = row.get("source_data")
    own = str(data.get("dataset_name") or "") if isinstance(data, Mapping) else ""
    plain = ["".join(c for c in text.casefold() if c.isalnum()) for text in (own, name)]
    return name if not plain[0] or plain[1].startswith(plain[0]) else f"{own}/{name}" if name else own


def _range(config: Mapping[str, object]) -> tuple[float, float] | None:
    """The lowest and highest possible score; None if not given."""
    levels = config.get("level_names")
    if config.get("score_type") == "levels" and isinstance(levels, list) and len(levels) > 1:
        return 0.0, float(len(levels) - 1)
    ends = [config.get(key) for key in ("min_score", "max_score")]
    if all(isinstance(end, (int, float)) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        low, high = (float(end) for end in ends)  # ty: ignore[invalid-argument-type]
        return (low, high) if low < high else None
    return (0.0, 1.0) if config.get("score_type") == "binary" else None


def _uncertainty(details: Mapping[str, object], data: object) -> tuple[float | None, int | None]:
    """Standard error and number of questions, None if not given."""
    given = details.get("uncertainty")
    given = given if isinstance(given, Mapping) else {}
    error = given.get("standard_error")
    error = error.get("value") if isinstance(error, Mapping) else error
    items = given.get("num_samples") or (data.get("samples_number") if isinstance(data, Mapping) else None)
    return (
        float(error) if isinstance(error, (int, float)) and error > 0 else None,
        items if isinstance(items, int) and items > 0 else None,
    )


def _library(value: Json) -> str:
    """The harness that ran the evaluation, as part of the version: scores of different harnesses are not comparable."""
    library = value.get("eval_library") or {}
    source = (value.get("source_metadata") or {}).get("source_name") or ""
    return str(library.get("name") or source)
