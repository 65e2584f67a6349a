"""Runs a recipe: a list of stages, each begun from scratch, from an earlier stage or from a folder.

A config is a `ConfigDict` with the sections of `RecipeConfig` and one section for each name in `stages`
(`StageConfig`, both in `recipe/config.py`). A finished stage (its result is there) is skipped, a broken one resumed.
"""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from kanana_jax.data.stream import pipeline
from kanana_jax.data.tokens.tokenizer import Tokenizer, encode_document
from kanana_jax.files import write_json
from kanana_jax.inference.generate import generate
from kanana_jax.interop import model_folder
from kanana_jax.models import counts
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.recipe import inputs as recipe_inputs
from kanana_jax.recipe import workdir as workdir_files
from kanana_jax.recipe.ahead import compile_ahead
from kanana_jax.recipe.config import SamplesConfig, StageConfig, parse
from kanana_jax.recipe.search import calibration_batches, run_search
from kanana_jax.recipe.task import Run, training
from kanana_jax.stages import cache_teacher, distill, pretrain
from kanana_jax.surgery import stage as surgery
from kanana_jax.training import loop

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
      workdir: see the contract in the architecture document; what is there is gone on with.
      command: noted in `config.json` and the report.
      devices: default all.

    Raises:
      UserError: see `training/loop.py`; `ConfigError` for a bad config or a workdir of another one.
    """
    recipe, stages = parse(config)
    workdir_files.check_place(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    mesh = make_mesh(recipe.mesh, devices)
    workdir_files.record(config, recipe.seed, workdir, command, mesh)
    unfinished = [name for name, stage in stages.items() if not (workdir / name / stage.result).is_file()]
    ahead = compile_ahead(recipe, stages, unfinished, mesh)
    prepared = recipe_inputs.prepare_sources(recipe, workdir)
    tokenizer = recipe_inputs.tokenizer(recipe, prepared, workdir)
    shared = Run(recipe, stages, prepared, tokenizer, mesh, workdir, ahead)
    for name, stage in stages.items():
        folder = workdir / name
        if name not in unfinished:
            log.info("stage '%s' is finished: %s", name, folder)
            continue
        ACTS[stage.kind](name, stage, shared)
        _report(workdir)
    _report(workdir)


def _upscale(name: str, stage: StageConfig, run: Run) -> None:
    surgery.run_upscale(stage.upscale, run.find(stage.start), run.workdir / name, {"stage": name})


def _prune(name: str, stage: StageConfig, run: Run) -> None:
    parent, config, runtime = run.find(stage.start), stage.prune, run.recipe.runtime
    run.check_text(name, parent.architecture, parent.card, "prune.seq_len", config.seq_len)
    surgery.run_prune(
        config,
        parent,
        run.workdir / name,
        {"stage": name},
        lambda count: calibration_batches(name, stage, run, config.importance, config.seq_len, count),
        runtime,
        run.implementation(runtime, parent.architecture, config.seq_len),
        run.mesh,
    )


def _cache_teacher(name: str, stage: StageConfig, run: Run) -> None:
    config, tokenizer, teacher = stage.cache_teacher, run.tokenizer, run.find(stage.start)
    a, position = teacher.architecture, run.position(stage)
    run.check_text(name, a, teacher.card, "cache_teacher.seq_len", config.seq_len, "teacher")
    runtime = distill.frozen_runtime(run.recipe.runtime, config.dtype)
    cache_teacher.run(
        name,
        config,
        teacher,
        runtime,
        run.implementation(runtime, a, config.seq_len),
        run.mesh,
        run.workdir / name,
        stream=lambda rows: run.stream(name, stage, rows, config.batch_size, config.seq_len, position),
        sizes=pretrain.sizes(a),
        about={"tokenizer": tokenizer.fingerprint, "data": run.about_rows(name, stage)},
    )


def _train(name: str, stage: StageConfig, run: Run) -> None:
    recipe, tokenizer, folder = run.recipe, run.tokenizer, run.workdir / name
    parent = None if stage.start == "scratch" else run.find(stage.start)
    made = training(name, stage, run, parent)
    result = loop.train(made.task, stage.train, run.mesh, folder, recipe.seed, ahead=run.ahead.get(name))
    architecture, runtime = made.architecture, recipe.runtime
    with jax.set_mesh(run.mesh):
        samples = _samples(recipe.samples, result.state.params, architecture, runtime, tokenizer, recipe.seed)
    if jax.process_index() == 0:
        write_json(folder / "data_state.json", result.data)
        write_json(folder / "data_report.json", pipeline.data_report(result.data, run.prepared))
        write_json(folder / "samples.json", [{"step": stage.train.steps, **sample} for sample in samples])
    card = model_folder.card(
        architecture,
        tokens=result.tokens,
        train_flops=made.flops_per_token * result.tokens,
        teacher_flops=made.teacher_flops * result.tokens,
        parent=None if parent is None else str(parent.path),
        tokenizer=tokenizer.fingerprint,
        stage=name,
        evaluation=result.evaluation,
        flops_six_n_d=counts.six_n_d(architecture, result.tokens),
        **({} if made.cache is None else {"cache": str(made.cache.folder)}),
    )
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": None}
    model_folder.write(folder / "model", architecture, result.state.params, card, run.workdir / "tokenizer", special)


ACTS = {
    "pretrain": _train,
    "distill": _train,
    "upscale": _upscale,
    "prune": _prune,
    "search": run_search,
    "cache_teacher": _cache_teacher,
}


def _samples(
    config: SamplesConfig, params: Any, architecture: Architecture, runtime: Runtime, tokenizer: Tokenizer, seed: int
) -> list[dict[str, str]]:
    flat = [(lang, prompt) for lang, prompts in config.prompts.items() for prompt in prompts]
    if not flat:
        return []
    ids = [encode_document(tokenizer, prompt)[:-1] for _, prompt in flat]
    outputs = generate(
        params,
        architecture,
        runtime,
        ids,
        max_new_tokens=config.max_new_tokens,
        sampling=config.sampling,
        stop=[tokenizer.eos_id],
        seed=seed,
    )
    return [
        {"lang": lang, "prompt": prompt, "text": tokenizer.decode(out)} for (lang, prompt), out in zip(flat, outputs)
    ]


def _report(workdir: pathlib.Path) -> None:
    if jax.process_index() == 0:
        from kanana_jax.report.run import write_run_report

        write_run_report(workdir)
