"""`kanana run --dry-run`: what a run would do, and everything that would stop it; nothing is written."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from kanana_jax.data.read import outputs, records, sources
from kanana_jax.data.tokens.tokenizer import holds_tokenizer, load_tokenizer
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.files import is_remote, read_json
from kanana_jax.models import counts
from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.plan import estimate, fit
from kanana_jax.plan.request import Asked
from kanana_jax.progress import sized
from kanana_jax.recipe import config as recipe_config
from kanana_jax.recipe import workdir as workdir_files
from kanana_jax.recipe.config import RecipeConfig
from kanana_jax.recipe.context import shapes
from kanana_jax.stages import KINDS
from kanana_jax.stages.kind import SCRATCH, StageConfig
from kanana_jax.training.task import BatchConfig

_Made = TypeVar("_Made")


class Check:
    """Collects the actions of the run, one per line, and the obstacles, one sentence each."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.problems: list[str] = []

    def tell(self, name: str, text: str) -> None:
        self.lines.append(f"{name:<12}{text}")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        self.lines += ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows]

    def refuse(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)

    def tried(self, function: Callable[..., _Made], *arguments: Any) -> _Made | None:
        """Returns a function's value, or None if it refuses; the refusal is recorded."""
        try:
            return function(*arguments)
        except UserError as error:
            self.refuse(str(error))
            return None


def check(config: Any, overrides: Sequence[str], file: str, workdir: pathlib.Path) -> Check:
    """Checks config, mesh, data and memory of a run on this machine's devices.

    Args:
      config: a `ConfigDict`, which the overrides change.
    """
    made = Check()
    for assignment in sorted(overrides, key=lambda each: not each.startswith("profile=")):  # over it the others win
        made.tried(recipe_config.override, config, [assignment])
    for sentence in recipe_config.mistakes(config):
        made.refuse(sentence)
    made.tell("config", file)
    _place(made, config, workdir)
    devices = jax.devices()
    made.tell("devices", f"{len(devices)} × {devices[0].device_kind}")
    try:
        recipe, stages = recipe_config.parse(config)
    except ConfigError:
        return made
    mesh = made.tried(make_mesh, recipe.mesh, devices)
    if mesh is not None:
        made.tell("mesh", " × ".join(f"{axis} {size}" for axis, size in mesh.shape.items()))
    _sources(made, recipe, workdir)
    _tokenizer(made, recipe, stages, workdir)
    _stages(made, recipe, stages, workdir, mesh)
    return made


def _place(made: Check, config: Any, workdir: pathlib.Path) -> None:
    there = made.tried(workdir.exists)
    if there is None:  # a bucket that cannot be asked
        return
    if not there and is_remote(workdir):
        made.tell("workdir", f"{workdir} (new)")
    elif not there:
        above = next((folder for folder in workdir.absolute().parents if folder.exists()), workdir)
        if not os.access(above, os.W_OK | os.X_OK):
            made.refuse(f"--workdir {workdir} cannot be made: you may not write in {above}")
        made.tell("workdir", f"{workdir} (new)")
    elif not workdir.is_dir() or not (is_remote(workdir) or os.access(workdir, os.W_OK | os.X_OK)):
        made.refuse(f"--workdir {workdir} is not a folder that you may write in: name another")
    else:
        found = made.tried(workdir_files.check_unchanged, config, workdir)
        changed = sorted(found[1]) if found is not None else []
        made.tell("workdir", f"{workdir} (resumed{'; changed: ' + ', '.join(changed) if changed else ''})")


def _sources(made: Check, recipe: RecipeConfig, workdir: pathlib.Path) -> None:
    rows, prepared = [], 0
    for name, source in recipe.sources.items():
        index = _prepared(name, workdir)
        prepared += index is not None
        found = made.tried(_found, name, source, workdir, index)
        rows.append((name, source.lang, "missing" if found is None else found, source.path))
    made.tell("sources", f"{len(rows)}, {prepared} of them already prepared")
    if rows:
        made.table(rows)


def _prepared(name: str, workdir: pathlib.Path) -> Mapping[str, Any] | None:
    """The result of an earlier start for a source."""
    of_name = (f for f in (workdir / "data").glob(f"{name}-*/index.json") if f.parent.name[:-17] == name)
    return next((index for file in of_name if (index := read_json(file))), None)


def _found(name: str, source: sources.SourceConfig, workdir: pathlib.Path, index: Mapping[str, Any] | None) -> str:
    """The size of a source.

    Raises:
      UserError: it is missing, unreadable or empty, or needs a library that is not installed.
    """
    if source.made_by:
        return f"made by stage '{source.made_by}'" if index is None else _counted(index)
    outputs.apart(workdir / "data", [source.path])
    if index is not None:
        return _counted(index)
    if source.path.startswith(records.ADDRESSES):
        records.check_address(source.path)
        return "read when the run starts"
    if records.in_bucket(source.path):
        objects = records.listed(source.path, source.format)
        if not sum(objects):
            raise UserError(f"source '{name}' ({source.path}) has no text: there is nothing to read at that address")
        return f"{len(objects):,} object{'s' * (len(objects) > 1)}, {sized(sum(objects))}, fetched when the run starts"
    files = [pathlib.Path(origin.path) for origin in records.find(source.path, source.format)]
    inside = [f for file in files for f in ([file] if file.is_file() else file.rglob("*")) if f.is_file()]
    unreadable = next((file for file in inside if not os.access(file, os.R_OK)), None)
    if unreadable is not None:
        raise UserError(f"source '{name}': {unreadable} cannot be read: change its permissions")
    size = sum(file.stat().st_size for file in inside)
    if not size:
        raise UserError(f"source '{name}' ({source.path}) has no text: its {len(files)} files are empty")
    return f"{len(files):,} file{'s' if len(files) > 1 else ''}, {sized(size)}"


def _counted(index: Mapping[str, Any]) -> str:
    """The size of a prepared source."""
    train, held = index["train"], index["heldout"]
    return f"{train['documents']:,} documents, {sized(train['bytes'])}; {held['documents']:,} held out"


def _tokenizer(made: Check, recipe: RecipeConfig, stages: Mapping[str, StageConfig], workdir: pathlib.Path) -> None:
    config, own = recipe.tokenizer, workdir / "tokenizer"
    place = own if holds_tokenizer(own) else config.path
    if place:
        loaded = made.tried(load_tokenizer, place, config.add_bos if place == config.path else None)
        size = None if loaded is None else loaded.vocab_size
        tokens = "" if size is None else f", {size:,} tokens"
        made.tell("tokenizer", f"{place}{tokens}")
    else:
        size = config.vocab_size
        made.tell("tokenizer", f"to be trained: {size:,} tokens ({config.model_type}) on {sized(config.train_bytes)}")
    for name, stage in stages.items():
        model = getattr(stage, "model", None)
        if size is not None and model is not None and model.vocab_size < size:
            made.refuse(
                f"config '{name}.model.vocab_size' is {model.vocab_size}, but the tokenizer has {size} tokens: a model "
                "must have a row for each"
            )


def _stages(
    made: Check, recipe: RecipeConfig, stages: Mapping[str, StageConfig], workdir: pathlib.Path, mesh: Mesh | None
) -> None:
    limit, broken = estimate.limit(jax.devices()[0]), set()
    lengths = {name: getattr(stage, "train", None) for name, stage in stages.items()}
    sizes = {name: length.batch_size for name, length in lengths.items() if isinstance(length, BatchConfig)}
    uneven = [f"{rows} of '{name}'" for name, rows in sizes.items() if rows % recipe.data.lanes]
    if uneven:
        made.refuse(
            f"config 'data.lanes' is {recipe.data.lanes}, which does not divide the rows of a batch "
            f"({', '.join(uneven)}): set it to a divisor, or change train.batch_tokens"
        )
    rows = [("stage", "kind", "start", "state", "tokens", "steps", "tokens per step", "parameters", "GiB per device")]
    for name, stage in stages.items():
        finished = (workdir / name / KINDS[stage.kind].result).is_file()
        before = len(made.problems)
        if not finished:
            made.tried(recipe_config.check_references, {name: stage}, list(stages))
            if len(made.problems) == before:
                made.tried(recipe_config.check_models, {name: stage}, list(stages))
            made.tried(KINDS[stage.kind].check, stage)
        memory = None
        if len(made.problems) > before or broken & set(stage.references().values()):
            broken.add(name)
        elif mesh is not None and not finished:
            memory = made.tried(_memory, Asked(recipe, dict(stages), name), mesh)
            broken |= {name} if len(made.problems) > before else set()
        length = getattr(stage, "train", None)
        figures = ("", "", "")
        if isinstance(length, BatchConfig):
            figures = (f"{length.tokens:,}", f"{length.steps:,}", f"{length.batch_tokens:,}")
        size, needed = "", ""
        if memory is not None:
            size, needed = f"{memory[0]:,}", f"{sum(memory[1].values()) / 2**30:.2f}"
            _fits(made, Asked(recipe, dict(stages), name), memory[1], limit)
        state = "finished" if finished else _state(workdir / name)
        rows.append((name, stage.kind, "" if stage.start == SCRATCH else stage.start, state, *figures, size, needed))
    made.tell("stages", f"{len(stages)}; a device has {limit / 2**30:.1f} GiB, memory is estimated")
    made.table(rows)


def _memory(wanted: Asked, mesh: Mesh) -> tuple[int, dict[str, int]] | None:
    """Parameters of a stage's model and bytes per device; None if its programs are not known beforehand.

    Raises:
      ConfigError: a mesh that does not divide the model or the batch.
    """
    stage = wanted.stages[wanted.stage]
    programs = KINDS[stage.kind].programs
    if programs is None:
        return None
    made = programs(wanted.stage, stage, shapes(wanted.recipe, wanted.stages, mesh))
    return counts.parameters(made.model.architecture), fit.needs(wanted, jax.devices())


def _fits(made: Check, wanted: Asked, parts: dict[str, int], limit: int) -> None:
    total = sum(parts.values())
    if total <= limit:
        return
    largest = ", ".join(f"{part} {sized(size)}" for part, size in sorted(parts.items(), key=lambda p: -p[1])[:3])
    found, fitting = fit.shown(fit.remedies(wanted, jax.devices(), parts, limit))
    remedies = "; or ".join(f"{row['change']} ({sized(row['total'])})" for row in found[:3])
    way = f"set {remedies}" if fitting else f"use more devices{f'; the nearest is {remedies}' if remedies else ''}"
    made.refuse(
        f"stage '{wanted.stage}' needs about {sized(total)} on each device, which has {sized(limit)} ({largest}): {way}"
    )


def _state(folder: pathlib.Path) -> str:
    steps = [int(step.name) for step in _listed(folder / "checkpoints") if step.name.isdigit()]
    return f"resumes at step {max(steps):,}" if steps else "to run"


def _listed(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    yield from folder.iterdir() if folder.is_dir() else ()
