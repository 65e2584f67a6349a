"""The rows that a stage of a recipe is trained on, without its model."""

import contextlib
import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from kanana_jax.data.read.sources import PreparedSource
from kanana_jax.data.stream.encode import Encoder, Refused
from kanana_jax.data.stream.packing import Rows
from kanana_jax.errors import ConfigError, nearest
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import inputs
from kanana_jax.recipe.config import RecipeConfig
from kanana_jax.recipe.context import Run
from kanana_jax.stages import KINDS
from kanana_jax.stages.kind import ReadingConfig, StageConfig
from kanana_jax.training.task import TrainConfig


@dataclasses.dataclass(frozen=True)
class Reading:
    """A stage's sources, and the way it reads them.

    Attributes:
      train: the sizes of its rows and batches.
      encoder: makes its sequences.
    """

    name: str
    config: ReadingConfig
    train: TrainConfig
    encoder: Encoder
    run: Run


def reading(recipe: RecipeConfig, stages: dict[str, StageConfig], stage: str, workdir: pathlib.Path) -> Reading:
    """A stage's sources, prepared in `workdir` unless they exist.

    Args:
      stage: its name; empty: the first stage that trains.

    Raises:
      ConfigError: no such stage, or one that does not train.
    """
    trained = {n: s for n, s in stages.items() if isinstance(s, ReadingConfig) and hasattr(s, "train")}
    if not trained or (stage and stage not in trained):
        asked = f"stage '{stage}' does not" if stage in stages else f"there is no stage '{stage}'" if stage else ""
        raise ConfigError(
            f"only a stage that trains has rows; {asked or 'the config has none'}: {nearest(stage, list(trained))}"
        )
    name = stage or next(iter(trained))
    found: Any = trained[name]
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, workers="threads"))
    prepared = inputs.prepare_sources(recipe, workdir) | _made(recipe, stages, name, workdir)
    tokenizer = inputs.tokenizer(recipe, prepared, workdir)
    run = Run(recipe, stages, prepared, tokenizer, make_mesh(MeshConfig(), jax.devices()[:1]), workdir)
    return Reading(name, found, found.train, KINDS[found.kind].encoder(found, tokenizer), run)


def _made(
    recipe: RecipeConfig, stages: dict[str, StageConfig], stage: str, workdir: pathlib.Path
) -> dict[str, PreparedSource]:
    """The sources that a stage reads and earlier stages have made.

    Raises:
      ConfigError: the stage that makes one has not ended.
    """
    reads: Any = stages[stage]
    makers = {recipe.sources[name].made_by: name for name in reads.reads}
    for maker, source in makers.items():
        if maker and not (workdir / maker / KINDS[stages[maker].kind].result).is_file():
            raise ConfigError(
                f"config 'sources.{source}' is made by stage '{maker}', which has not ended: run it first"
            )
    found: dict[str, PreparedSource] = {}
    for maker in filter(None, makers):
        found |= inputs.made_sources(recipe, stages, maker, workdir)
    return found


def first_rows(found: Reading, count: int) -> tuple[Rows[np.ndarray], dict[str, Any]]:
    """The first rows `[count, T]` of a stage's first batches, and `data_report.json` of the records read for them.

    Raises:
      UserError: see `pipeline.BatchStream`.
    """
    size, lanes = found.train.batch_size, found.run.lanes
    per_lane = max(size // lanes, 1)
    rows = range(min(size, -(-count // per_lane) * per_lane))  # from as many lanes as needed
    start = found.run.position(found.config)
    stream = found.run.stream(found.name, found.config, found.encoder, rows, size, found.train.seq_len, start)
    with contextlib.closing(stream):
        batches = [next(stream) for _ in range(-(-count // len(rows)))]
        report = found.run.data_report(stream.get_state())
    return Rows(*(np.concatenate(parts)[:count] for parts in zip(*batches))), report


@dataclasses.dataclass
class Counted:
    """The records of a source: those trained on, their tokens, and those left out, by reason."""

    records: int = 0
    kept: int = 0
    tokens: int = 0
    trained: int = 0
    longest: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)


def count_all(found: Reading) -> Iterator[tuple[str, Counted]]:
    """Encodes every record of each source of a stage's mixture, without filters.

    Raises:
      UserError: a record that the stage cannot read.
    """
    for name, weight in found.config.mixture.items():
        if not weight:
            continue
        counted = Counted()
        for data in found.run.prepared[name].split("train"):
            made = found.encoder(json.loads(data))
            counted.records += 1
            if isinstance(made, Refused):
                counted.reasons[made.reason] += 1
                continue
            counted.kept += 1
            for tokens, weights in made:
                counted.tokens += len(tokens)
                counted.longest = max(counted.longest, len(tokens))
                # A sequence's first token is not a target.
                counted.trained += len(tokens) - 1 if weights is None else int(np.count_nonzero(weights[1:]))
        yield name, counted
