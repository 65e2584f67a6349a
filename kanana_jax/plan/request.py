"""The request of a plan: a stage, its recipe and a slice; and the changes that a plan tries."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import jax

from kanana_jax.errors import ConfigError, nearest
from kanana_jax.models.layers import REMAT_POLICIES
from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.plan import topology
from kanana_jax.recipe.config import RecipeConfig
from kanana_jax.recipe.context import shapes
from kanana_jax.stages import KINDS
from kanana_jax.stages.kind import StageConfig, StagePrograms
from kanana_jax.training.task import TrainConfig

# A plan, or a part of one, as it is written: `kanana plan --json`.
Json = dict[str, Any]
# The policy that keeps the least is last.
REMAT_ORDER = ("none", "dots", "context", "full")
assert set(REMAT_ORDER[1:]) < set(REMAT_POLICIES)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A stage of a recipe, wherever it runs.

    Attributes:
      recipe, stages: from `recipe.config.parse`.
      stage: its name.
    """

    recipe: RecipeConfig
    stages: dict[str, StageConfig]
    stage: str

    def changed(
        self,
        *,
        accumulate: int | None = None,
        remat: str | None = None,
        mesh: Json | None = None,
        moments: str | None = None,
    ) -> Self:
        """The same with another micro-batch, rematerialisation, mesh or kind of optimizer moments."""
        stage, recipe, train = self.stages[self.stage], self.recipe, self.train
        if accumulate is not None:
            train = dataclasses.replace(train, accumulate=accumulate)
        if moments is not None:
            train = dataclasses.replace(train, optimizer=dataclasses.replace(train.optimizer, moments=moments))
        if train != self.train:
            changes: Json = {"train": train}
            stage = dataclasses.replace(stage, **changes)
        if remat is not None:
            recipe = dataclasses.replace(recipe, runtime=dataclasses.replace(recipe.runtime, remat=remat))
        if mesh is not None:
            recipe = dataclasses.replace(recipe, mesh=dataclasses.replace(recipe.mesh, **mesh))
        return dataclasses.replace(self, recipe=recipe, stages={**self.stages, self.stage: stage})

    @property
    def train(self) -> TrainConfig:
        train = getattr(self.stages[self.stage], "train", None)
        if not isinstance(train, TrainConfig):
            raise ConfigError(f"only a stage with a section 'train' can be planned, and '{self.stage}' has none")
        return train


@dataclasses.dataclass(frozen=True)
class Request(Asked):
    """A stage and a slice to plan for.

    Attributes:
      target: the slice, or several joined.
      cache: folder of cached measurements; None: no cache.
      options: compiler options; None: the defaults, as in a run.
    """

    target: topology.Slice
    cache: pathlib.Path | None = None
    options: dict[str, Any] | None = None


def request(
    recipe: RecipeConfig,
    stages: dict[str, StageConfig],
    stage: str,
    name: str,
    slices: int = 0,
    cache: pathlib.Path | None = None,
) -> Request:
    """A request for a named topology.

    Args:
      stage: its name; empty: the first that trains.
      name: `v5p-128`, the name of one slice.
      slices: 0: as many as the config's mesh has, cut as it says.

    Raises:
      ConfigError: no such stage or topology, or the stage trains nothing.
    """
    plannable = [kind.name for kind in KINDS.values() if kind.programs is not None]
    trained = [n for n, s in stages.items() if s.kind in plannable]
    if stage and stage not in stages:
        raise ConfigError(f"--stage '{stage}' is not in the config: {nearest(stage, trained)}")
    if not trained or (stage and stage not in trained):
        kind = f"'{stage}' is of kind '{stages[stage].kind}'" if stage else "the config has none"
        raise ConfigError(f"only a stage that trains can be planned ({', '.join(plannable)}); {kind}")
    mesh = recipe.mesh
    if slices:
        # As `launch/tpu.py --slices` starts it: each slice holds the whole model, unless the config says otherwise.
        mesh = dataclasses.replace(mesh, slices=slices, data=slices if mesh.data == 1 else mesh.data)
    slices, recipe = mesh.slices, dataclasses.replace(recipe, mesh=mesh)
    target = topology.named(name, slices, recipe.plan.dcn_bandwidth.get(name.split("-")[0]))
    return Request(recipe, stages, stage or trained[0], target, cache)


def prepared(wanted: Request, devices: Sequence[jax.Device] | None = None) -> StagePrograms:
    """The stage on the mesh of its slice, not compiled.

    Args:
      devices: devices that stand in for the slice's; default: those of its compiler.

    Raises:
      ConfigError: a mesh that does not divide the model, or a stage whose shape is not known.
    """
    return prepared_on(wanted, topology.describe(wanted.target) if devices is None else devices)


def prepared_on(wanted: Asked, devices: Sequence[jax.Device]) -> StagePrograms:
    """Like `prepared`, on given devices."""
    stage, mesh = wanted.stages[wanted.stage], make_mesh(wanted.recipe.mesh, list(devices))
    programs = KINDS[stage.kind].programs
    assert programs is not None  # nothing else is asked for
    return programs(wanted.stage, stage, shapes(wanted.recipe, wanted.stages, mesh))


def accumulations(wanted: Asked, shards: int) -> list[int]:
    """Numbers of micro-batches that divide the rows of a batch among the shards."""
    rows = wanted.train.batch_size
    return [n for n in range(1, rows // shards + 1) if rows % n == 0 and rows // n % shards == 0]
