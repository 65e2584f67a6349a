"""Results of `kanana eval` (one model) and of stages of kind `evaluate` (several models)."""

import pathlib
from collections.abc import Iterator

from kanana_jax.observatory import task_names
from kanana_jax.observatory.result_files import score
from kanana_jax.observatory.result_files.score import Json, Score


def is_own(value: Json) -> bool:
    """Whether the content of a file is a result of `kanana eval` or of a stage of kind `evaluate`."""
    if isinstance(value.get("models"), dict):
        return all(isinstance(m, dict) and isinstance(m.get("results"), dict) for m in value["models"].values())
    return isinstance(value.get("results"), dict) and isinstance(value.get("documents"), dict)


def scores(file: pathlib.Path, value: Json) -> Iterator[Score]:
    """The scores of a file with content `value`, for which `is_own` holds."""
    if isinstance(value.get("models"), dict):
        for name, model in value["models"].items():
            yield from _of_model((name,), model["results"], file)
        return
    settings = value.get("settings") or {}
    path = str(settings.get("model") or "")
    yield from _of_model((*_names(path), file.stem), value["results"], file, settings.get("limit"))


def about(file: pathlib.Path, value: Json) -> dict[tuple[str, ...], Json]:
    """Names of a model → parameters, tokens and tokens by language, as far as the file contains them."""
    if isinstance(value.get("models"), dict):
        return {(name,): model for name, model in value["models"].items()}
    names = (*_names(str((value.get("settings") or {}).get("model") or "")), file.stem)
    return {names: value.get("model") or {}}


def _names(path: str) -> tuple[str, ...]:
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    tails = ["/".join(parts[-depth:]) for depth in range(len(parts), 0, -1)]
    return tuple(dict.fromkeys([path, *tails])) if parts else ()


def _of_model(names: tuple[str, ...], results: Json, file: pathlib.Path, limit: int | None = None) -> Iterator[Score]:
    known = {task: found for task, r in results.items() if (found := score.of_result(r)) is not None}
    parts = {
        task: [other for other in results if other.startswith(f"{task}_")] or [task]
        for task, r in results.items()
        if r.get("parts")
    }
    for task in sorted(score.chosen(known, parts)):
        result, (value, error, metric) = results[task], known[task]
        few, chat = f"{result.get('shots', '?')}-shot", "chat" if result.get("chat") else ""
        settings = (str(result.get("version", "")), few, chat, f"limit {limit}" if limit else "", metric)
        yield Score(
            models=names,
            task=task,
            value=value,
            error=error,
            items=result.get("n"),
            metric=metric,
            source=file.name,
            language=task_names.language(task),
            version=", ".join(["kanana eval", *filter(None, settings)]),
            shots=str(result.get("shots", "")),
        )
