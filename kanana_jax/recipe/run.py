"""Runs a recipe: a list of stages, each started from scratch, from an earlier stage or from a folder.

A config is a `ConfigDict` with the sections of `RecipeConfig` and one section for each name in `stages`
(`recipe/config.py`). A finished stage (its result is there) is skipped, an interrupted one resumed.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.recipe import inputs
from kanana_jax.recipe import workdir as workdir_files
from kanana_jax.recipe.ahead import compile_ahead
from kanana_jax.recipe.config import RecipeConfig, check_models, check_references, left_out, parse
from kanana_jax.recipe.context import Run, shapes
from kanana_jax.recipe.reports import write_report
from kanana_jax.stages import KINDS
from kanana_jax.stages.kind import StageConfig
from kanana_jax.training.trackers import check_installed

log = logging.getLogger("kanana")


def run(
    config: Any,
    workdir: pathlib.Path,
    command: Sequence[str] = ("kanana", "run"),
    devices: list[jax.Device] | None = None,
) -> None:
    """Runs every stage that is not finished and writes `report.html`.

    Args:
      config: a `ConfigDict`.
      workdir: its files are listed in docs/workdir.md; stages found there are resumed or skipped.
      command: the command line, recorded in `config.json` and the report.
      devices: default: all.

    Raises:
      UserError: another run holds the workdir, or training failed (`training/loop.py`).
      ConfigError: a bad config, or a workdir that was started with another one.
    """
    recipe, stages = parse(config)
    unused = left_out(config)
    if unused:
        log.info("these config sections are not listed in 'stages' and do not run: %s", ", ".join(unused))
    check_installed(recipe.trackers)
    mesh = make_mesh(recipe.mesh, devices)
    with workdir_files.held(workdir):
        workdir_files.record(config, recipe.seed, workdir, command, mesh)
        _run(recipe, stages, workdir, mesh)


def _run(recipe: RecipeConfig, stages: Mapping[str, StageConfig], workdir: pathlib.Path, mesh: Mesh) -> None:
    unfinished = [n for n, stage in stages.items() if not (workdir / n / KINDS[stage.kind].result).is_file()]
    check_references({name: stages[name] for name in unfinished}, list(stages))
    check_models({name: stages[name] for name in unfinished}, list(stages))
    for stage in (stages[name] for name in unfinished):
        KINDS[stage.kind].check(stage)
    ahead = compile_ahead(unfinished[:1], shapes(recipe, stages, mesh))
    prepared = inputs.prepare_sources(recipe, workdir)
    tokenizer = inputs.tokenizer(recipe, prepared, workdir)
    context = Run(recipe, stages, prepared, tokenizer, mesh, workdir, ahead)
    left = list(unfinished)
    for name, stage in stages.items():
        if name in left:
            KINDS[stage.kind].run(name, stage, context)
            _report(workdir)
            left.remove(name)
        else:
            log.info("stage '%s' is finished: %s", name, workdir / name)
        if left:  # Each stage sees the sources of those before it, whether or not they had finished at the start.
            made = inputs.made_sources(recipe, stages, name, workdir)
            context = dataclasses.replace(context, prepared={**context.prepared, **made})
    if not unfinished:
        _report(workdir)


def _report(workdir: pathlib.Path) -> None:
    if jax.process_index() == 0:
        write_report(workdir)
