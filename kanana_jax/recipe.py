"""Runs a recipe: a list of stages, each begun from scratch, from an earlier stage or from a folder.

A config is a `ConfigDict` with the sections of `RecipeConfig` and one section for each name in `stages`
(`StageConfig`, both in `recipe_config.py`). A finished stage (its `model/` is there) is skipped, a broken one resumed.
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from kanana_jax import workdir as workdir_files
from kanana_jax.config import ConfigError
from kanana_jax.data import filters as filters_lib
from kanana_jax.data import heldout, mixture, pipeline, sources
from kanana_jax.data.tokenizer import Tokenizer, encode_document, load_tokenizer
from kanana_jax.data.tokenizer_training import train_sentencepiece
from kanana_jax.files import write_json
from kanana_jax.inference.generate import generate
from kanana_jax.interop import model_folder
from kanana_jax.models import attention, counts, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.parallel.sharding import local_rows, put_batch, tree_shardings
from kanana_jax.recipe_config import RecipeConfig, SamplesConfig, StageConfig, parse
from kanana_jax.stages import distill, pretrain
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
    workdir.mkdir(parents=True, exist_ok=True)
    mesh = make_mesh(recipe.mesh, devices)
    first = jax.process_index() == 0
    if first:
        workdir_files.record(config, recipe.seed, workdir, command, mesh)
    prepared = _prepare_sources(recipe, workdir)
    tokenizer = _tokenizer(recipe, prepared, workdir)
    shared = _Run(recipe, stages, prepared, tokenizer, mesh, workdir)
    for name, stage in stages.items():
        folder = workdir / name
        if (folder / "model" / model_folder.CARD).is_file():
            log.info("stage '%s' is finished: %s", name, folder / "model")
            continue
        (_operate if stage.train is None else _train)(name, stage, shared)
        _report(workdir)
    _report(workdir)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What all stages of one call share."""

    recipe: RecipeConfig
    stages: dict[str, StageConfig]
    prepared: dict[str, sources.PreparedSource]
    tokenizer: Tokenizer
    mesh: Mesh
    workdir: pathlib.Path

    def find(self, name: str) -> model_folder.ModelFolder:
        """The model of a stage, or in a folder."""
        return model_folder.find(self.workdir / name if name in self.stages else name)

    def implementation(self, runtime: Runtime, architecture: Architecture, seq_len: int) -> str:
        return attention.choose(
            runtime.attention,
            jax.devices()[0].platform,
            compute_dtype=runtime.compute_dtype,
            seq_len=seq_len,
            head_dim=architecture.head_dim,
        )

    def position(self, stage: StageConfig) -> dict[str, Any] | None:
        """Where `data_after` left the sources, or the last stage that this one comes from and that read any."""
        name = stage.data_after or stage.start
        while name in self.stages:
            file = self.workdir / name / "data_state.json"
            if file.is_file():
                return json.loads(file.read_text())
            name = self.stages[name].start
        return None

    def stream(self, name: str, stage: StageConfig, rows, batch_size: int, seq_len: int, start) -> pipeline.BatchStream:
        filters = filters_lib.Filters(self.recipe.filters)
        judges = {n: filters.of(n, s.lang, stage.select.get(n, {})) for n, s in self.prepared.items()}
        return pipeline.BatchStream(
            self.prepared,
            mixture.normalised(stage.mixture, list(self.recipe.sources), f"{name}.mixture"),
            self.tokenizer,
            judges,
            self.recipe.data,
            rows=rows,
            batch_size=batch_size,
            seq_len=seq_len,
            seed=self.recipe.seed,
            start=start,
        )


def _operate(name: str, stage: StageConfig, run: _Run) -> None:
    """A surgery: from one model folder to another."""
    parent, folder = run.find(stage.start), run.workdir / name
    if stage.kind == "upscale":
        surgery.run_upscale(stage.upscale, parent, folder, {"stage": name})
        return
    config, runtime = stage.prune, run.recipe.runtime
    batch_size = config.importance.batch_size

    def batches(count: int):
        rows = local_rows(run.mesh, batch_size)
        with contextlib.closing(run.stream(name, stage, rows, batch_size, config.seq_len, None)) as stream:
            for _ in range(count):
                yield put_batch(run.mesh, rows, batch_size, next(stream))

    implementation = run.implementation(runtime, parent.architecture, config.seq_len)
    surgery.run_prune(config, parent, folder, {"stage": name}, batches, runtime, implementation, run.mesh)


def _train(name: str, stage: StageConfig, run: _Run) -> None:
    recipe, mesh, tokenizer = run.recipe, run.mesh, run.tokenizer
    train, runtime, folder = stage.train, recipe.runtime, run.workdir / name
    parent = None if stage.start == "scratch" else run.find(stage.start)
    architecture = stage.model if parent is None else parent.architecture
    if architecture.vocab_size != tokenizer.vocab_size:
        raise ConfigError(
            f"stage '{name}': the model's vocab_size is {architecture.vocab_size}, the tokenizer's "
            f"{tokenizer.vocab_size}: they must be equal"
        )
    if train.seq_len > architecture.max_seq_len:
        raise ConfigError(
            f"config '{name}.train.seq_len' is {train.seq_len}, beyond the model's max_seq_len "
            f"{architecture.max_seq_len}"
        )
    implementation = run.implementation(runtime, architecture, train.seq_len)
    log.info(
        "stage '%s': %s parameters, %d steps of %d tokens, attention '%s' on %s, mesh %s",
        name,
        f"{counts.parameters(architecture):,}",
        train.steps,
        train.batch_tokens,
        implementation,
        jax.devices()[0].platform,
        dict(mesh.shape),
    )
    logical = transformer.logical_axes(architecture, runtime)

    def make_params():
        if parent is not None:
            return model_folder.load_params(parent, runtime, mesh)
        make = jax.jit(
            lambda key: transformer.init_params(architecture, runtime, key), out_shardings=tree_shardings(mesh, logical)
        )
        return make(jax.random.key(recipe.seed))

    loss, make_frozen, teacher_flops = _loss(name, stage, run, architecture, implementation)
    position = run.position(stage)
    held = heldout.heldout_rows(run.prepared, tokenizer, train.seq_len, recipe.evaluation.max_bytes)
    flops_per_token = counts.train_flops_per_token(architecture, train.seq_len)
    task = loop.Task(
        name=name,
        loss=loss,
        make_params=make_params,
        abstract_params=transformer.abstract_params(architecture, runtime),
        logical_axes=logical,
        stream=lambda rows: run.stream(name, stage, rows, train.batch_size, train.seq_len, position),
        flops_per_token=flops_per_token + teacher_flops,
        sizes=pretrain.sizes(architecture),
        evaluate=pretrain.make_evaluation(
            architecture,
            runtime,
            implementation,
            held,
            mesh,
            batch_size=recipe.evaluation.batch_size,
            chunk=train.loss_chunk,
        ),
        make_frozen=make_frozen,
    )
    result = loop.train(task, train, mesh, folder, recipe.seed)
    with jax.set_mesh(mesh):
        samples = _samples(recipe.samples, result.state.params, architecture, runtime, tokenizer, recipe.seed)
    if jax.process_index() == 0:
        write_json(folder / "data_state.json", result.data)
        write_json(folder / "data_report.json", pipeline.data_report(result.data, run.prepared))
        write_json(folder / "samples.json", [{"step": train.steps, **sample} for sample in samples])
    card = model_folder.card(
        architecture,
        tokens=result.tokens,
        train_flops=flops_per_token * result.tokens,
        teacher_flops=teacher_flops * result.tokens,
        parent=None if parent is None else str(parent.path),
        tokenizer=tokenizer.fingerprint,
        stage=name,
        evaluation=result.evaluation,
        flops_six_n_d=counts.six_n_d(architecture, result.tokens),
    )
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": None}
    model_folder.write(folder / "model", architecture, result.state.params, card, run.workdir / "tokenizer", special)


def _loss(name: str, stage: StageConfig, run: _Run, architecture: Architecture, implementation: str):
    """A stage's loss, what makes its other model's parameters (or None), and that model's FLOPs a token."""
    runtime, train = run.recipe.runtime, stage.train
    if stage.kind == "pretrain":
        made = pretrain.make_loss(architecture, runtime, implementation, z_loss=train.z_loss, chunk=train.loss_chunk)
        return made, None, 0.0
    teacher = run.find(stage.distill.teacher)
    distill.check_teacher(
        name, architecture, teacher.architecture, run.tokenizer.fingerprint, teacher.card.get("tokenizer")
    )
    teaching = dataclasses.replace(
        runtime, param_dtype=stage.distill.dtype, compute_dtype=stage.distill.dtype, remat="none"
    )
    made = distill.make_loss(
        architecture,
        runtime,
        implementation,
        teacher.architecture,
        teaching,
        run.implementation(teaching, teacher.architecture, train.seq_len),
        config=stage.distill.loss,
        chunk=train.loss_chunk,
    )
    flops = counts.forward_flops_per_token(teacher.architecture, train.seq_len)
    return made, lambda: model_folder.load_params(teacher, teaching, run.mesh), flops


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


def _prepare_sources(recipe: RecipeConfig, workdir: pathlib.Path) -> dict[str, sources.PreparedSource]:
    cache = workdir / "data"
    if jax.process_index() == 0:
        for name, source in recipe.sources.items():
            sources.prepare(name, source, cache)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("sources prepared")
    return {name: sources.load_prepared(name, source, cache) for name, source in recipe.sources.items()}


def _tokenizer(recipe: RecipeConfig, prepared: dict[str, sources.PreparedSource], workdir: pathlib.Path) -> Tokenizer:
    """The recipe's tokenizer, copied to or trained in `DIR/tokenizer/`."""
    folder = workdir / "tokenizer"
    if jax.process_index() == 0 and not any(folder.glob("tokenizer.*")):
        folder.mkdir(exist_ok=True)
        if recipe.tokenizer.path:
            load_tokenizer(recipe.tokenizer.path).save(folder)
        else:
            log.info("training a vocabulary of %d pieces", recipe.tokenizer.vocab_size)
            texts: dict[str, list[sources.PreparedSource]] = {}
            for source in prepared.values():
                texts.setdefault(source.lang, []).append(source)
            train_sentencepiece(
                {lang: sources.Texts(tuple(group)) for lang, group in texts.items()}, recipe.tokenizer, folder
            )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("tokenizer ready")
    return load_tokenizer(folder)


def _report(workdir: pathlib.Path) -> None:
    if jax.process_index() == 0:
        from kanana_jax.report.run import write_run_report

        write_run_report(workdir)
