"""Runs a recipe: a list of stages, each begun from scratch, from an earlier stage or from a folder.

A config is a `ConfigDict` with the sections of `RecipeConfig` and one section for each name in `stages`
(`StageConfig`). A finished stage (its `model/` is there) is skipped, a broken one resumed.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from kanana_jax import config as config_lib
from kanana_jax import workdir as workdir_files
from kanana_jax.config import ConfigError
from kanana_jax.data import filters as filters_lib
from kanana_jax.data import heldout, mixture, pipeline, sources
from kanana_jax.data.tokenizer import Tokenizer, encode_document, load_tokenizer
from kanana_jax.data.tokenizer_training import TokenizerConfig, train_sentencepiece
from kanana_jax.files import write_json
from kanana_jax.inference.generate import generate
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.interop import model_folder
from kanana_jax.models import attention, counts, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import tree_shardings
from kanana_jax.stages import pretrain
from kanana_jax.training import loop

log = logging.getLogger("kanana")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Held-out text: `max_bytes` a source, evaluated `batch_size` rows at a time."""

    max_bytes: int = 100_000
    batch_size: int = 8


@dataclasses.dataclass(frozen=True)
class SamplesConfig:
    """Prompts by language that every finished stage continues, for the report."""

    prompts: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    max_new_tokens: int = 64
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, top_p=0.9)


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One stage.

    Attributes:
      kind: the file in `stages/` that it runs.
      start: `scratch`, the name of an earlier stage, or a model folder.
      model: the architecture, where the stage starts from scratch.
      mixture: weights of the sources, as shares of tokens.
      train: length, batch, optimizer, logging, checkpoints.
      select: source → further rules for its documents in this stage: how a high-quality slice is cut.
      data_after: the stage whose position in the sources is kept; empty: `start`, if it is a stage.
    """

    kind: Literal["pretrain"]
    train: loop.TrainConfig
    mixture: dict[str, float]
    start: str = "scratch"
    model: Architecture | None = None
    data_after: str = ""
    select: dict[str, dict[str, filters_lib.Rule]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if (self.start == "scratch") != (self.model is not None):
            raise ValueError("a stage that starts from 'scratch' needs a model section, any other takes none")


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """What the stages share."""

    name: str
    stages: tuple[str, ...]
    sources: dict[str, sources.SourceConfig]
    tokenizer: TokenizerConfig = TokenizerConfig()
    seed: int = 0
    mesh: MeshConfig = MeshConfig()
    runtime: Runtime = Runtime()
    data: pipeline.PipelineConfig = pipeline.PipelineConfig()
    filters: dict[str, filters_lib.FilterConfig] = dataclasses.field(default_factory=dict)
    evaluation: EvaluationConfig = EvaluationConfig()
    samples: SamplesConfig = SamplesConfig()

    def __post_init__(self):
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ValueError("stages must name at least one stage, each once")


def parse(config: Any) -> tuple[RecipeConfig, dict[str, StageConfig]]:
    """The recipe and its stages.

    Raises:
      ConfigError: names the key that is unknown, missing or wrong.
    """
    values = dict(config.items())
    names = tuple(values.get("stages", ()))
    sections = {}
    for name in names:
        if name not in values:
            raise ConfigError(f"config 'stages' names '{name}', but there is no section config.{name}")
        sections[name] = values.pop(name)
    # Stages that `stages` leaves out may stay in the file.
    values = {k: v for k, v in values.items() if not (hasattr(v, "keys") and "kind" in v)}
    recipe = config_lib.build(RecipeConfig, values, "")
    langs = {source.lang for source in recipe.sources.values()}
    filters_lib.check_names(recipe.filters, (*recipe.sources, *sorted(langs)), "filters")
    stages = {name: config_lib.build(StageConfig, section, name) for name, section in sections.items()}
    for i, (name, stage) in enumerate(stages.items()):
        mixture.normalised(stage.mixture, list(recipe.sources), f"{name}.mixture")
        for source, rules in stage.select.items():
            if source not in recipe.sources:
                known = config_lib.nearest(source, list(recipe.sources))
                raise ConfigError(f"config '{name}.select.{source}' is no source: {known}")
            filters_lib.check_select(
                recipe.filters, source, recipe.sources[source].lang, rules, f"{name}.select.{source}"
            )
        earlier = names[:i]
        for key in ("start", "data_after"):
            value = getattr(stage, key)
            if value in names and value not in earlier:
                raise ConfigError(f"config '{name}.{key}' is '{value}', which does not come before it in 'stages'")
        if stage.data_after and stage.data_after not in earlier:
            raise ConfigError(
                f"config '{name}.data_after' is '{stage.data_after}': {config_lib.nearest(stage.data_after, earlier)}"
            )
    return recipe, stages


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
    for name, stage in stages.items():
        folder = workdir / name
        if (folder / "model" / model_folder.CARD).is_file():
            log.info("stage '%s' is finished: %s", name, folder / "model")
            continue
        _run_stage(name, stage, recipe, stages, prepared, tokenizer, mesh, workdir)
        _report(workdir)
    _report(workdir)


def _run_stage(
    name: str,
    stage: StageConfig,
    recipe: RecipeConfig,
    stages: dict[str, StageConfig],
    prepared: dict[str, sources.PreparedSource],
    tokenizer: Tokenizer,
    mesh: Mesh,
    workdir: pathlib.Path,
) -> None:
    train, runtime, folder = stage.train, recipe.runtime, workdir / name
    parent = (
        None
        if stage.start == "scratch"
        else model_folder.find(workdir / stage.start if stage.start in stages else stage.start)
    )
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
    platform = jax.devices()[0].platform
    implementation = attention.choose(
        runtime.attention,
        platform,
        compute_dtype=runtime.compute_dtype,
        seq_len=train.seq_len,
        head_dim=architecture.head_dim,
    )
    log.info(
        "stage '%s': %s parameters, %d steps of %d tokens, attention '%s' on %s, mesh %s",
        name,
        f"{counts.parameters(architecture):,}",
        train.steps,
        train.batch_tokens,
        implementation,
        platform,
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

    data_after = stage.data_after or (stage.start if stage.start in stages else "")
    position = json.loads((workdir / data_after / "data_state.json").read_text()) if data_after else None

    filters = filters_lib.Filters(recipe.filters)
    judges = {n: filters.of(n, s.lang, stage.select.get(n, {})) for n, s in prepared.items()}

    def make_stream(rows):
        return pipeline.BatchStream(
            prepared,
            mixture.normalised(stage.mixture, list(recipe.sources), f"{name}.mixture"),
            tokenizer,
            judges,
            recipe.data,
            rows=rows,
            batch_size=train.batch_size,
            seq_len=train.seq_len,
            seed=recipe.seed,
            start=position,
        )

    held = heldout.heldout_rows(prepared, tokenizer, train.seq_len, recipe.evaluation.max_bytes)
    flops_per_token = counts.train_flops_per_token(architecture, train.seq_len)
    task = loop.Task(
        name=name,
        loss=pretrain.make_loss(architecture, runtime, implementation, z_loss=train.z_loss, chunk=train.loss_chunk),
        make_params=make_params,
        abstract_params=transformer.abstract_params(architecture, runtime),
        logical_axes=logical,
        stream=make_stream,
        flops_per_token=flops_per_token,
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
    )
    result = loop.train(task, train, mesh, folder, recipe.seed)
    with jax.set_mesh(mesh):
        samples = _samples(recipe.samples, result.state.params, architecture, runtime, tokenizer, recipe.seed)
    if jax.process_index() == 0:
        write_json(folder / "data_state.json", result.data)
        write_json(folder / "data_report.json", pipeline.data_report(result.data, prepared))
        write_json(folder / "samples.json", [{"step": train.steps, **sample} for sample in samples])
    card = model_folder.card(
        architecture,
        tokens=result.tokens,
        train_flops=flops_per_token * result.tokens,
        parent=None if parent is None else str(parent.path),
        tokenizer=tokenizer.fingerprint,
        stage=name,
        evaluation=result.evaluation,
        flops_six_n_d=counts.six_n_d(architecture, result.tokens),
    )
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": None}
    model_folder.write(folder / "model", architecture, result.state.params, card, workdir / "tokenizer", special)


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
