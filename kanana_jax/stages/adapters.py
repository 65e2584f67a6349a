"""Training of low-rank adapters (`models/lora.py`) in place of a whole model: any stage of text, by its section `lora`.

A stage's loss, batches and evaluation stay as they are. Its parameters become the adapters, the base becomes one of its
frozen models, and what is evaluated and written is the merged model. Parts that a stage adds to the model, such as the
head of a reward model, are trained whole beside the adapters.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from kanana_jax.models import lora
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import tree_shardings
from kanana_jax.stages.kind import Shapes
from kanana_jax.training.step import Batch, Loss, LossOutput, Others
from kanana_jax.training.task import Frozen, Task


class Added(NamedTuple):
    """Parts that a stage adds to its model, by their key in the parameters.

    Attributes:
      abstract: shapes and dtypes.
      axes: names of their axes.
      make: makes them, sharded.
    """

    abstract: Params = {}
    axes: Params = {}
    make: Callable[[], Params] = dict


class WithBase(NamedTuple):
    """The frozen models of a stage that trains adapters: their base, and the stage's own."""

    base: Params
    others: Others


def base_model(config: LoraConfig, model: Model) -> Model:
    """The model that adapters are trained beside: as the stage's, held in its own dtype."""
    dtype = config.base_dtype or model.runtime.compute_dtype
    return dataclasses.replace(model, runtime=dataclasses.replace(model.runtime, param_dtype=dtype))


def adapted_loss(config: LoraConfig, loss: Loss) -> Loss:
    """A loss of the whole model as one of its adapters."""

    def of_adapters(trained: Params, batch: Batch, rng: jax.Array, others: WithBase) -> LossOutput:
        adapters, added = _apart(trained, others.base)
        return loss({**lora.adapted(config, others.base, adapters), **added}, batch, rng, others.others)

    return of_adapters


def _apart(trained: Params, base: Params) -> tuple[Params, Params]:
    """Adapters, and the parts that are trained whole."""
    added = {key: part for key, part in trained.items() if key not in base}
    return {key: part for key, part in trained.items() if key in base}, added


def abstract_adapters(config: LoraConfig, model: Model) -> Params:
    """Shapes and dtypes of the adapters."""
    a, dtype = model.architecture, model.runtime.param_dtype
    return jax.eval_shape(lambda: lora.init_adapters(config, a, dtype, jax.random.key(0)))


def adapted_task(
    config: LoraConfig,
    task: Task,
    model: Model,
    shapes: Shapes,
    seq_len: int,
    load: Callable[[Model], Params],
    added: Added,
) -> Task:
    """A stage's task that trains adapters.

    Args:
      added: what the stage adds to the model.
      load: loads the base's parameters for the model that holds them.
    """
    a, axes = model.architecture, lora.logical_axes(config, model.architecture)
    shardings = tree_shardings(shapes.mesh, axes)
    make = jax.jit(lambda key: lora.init_adapters(config, a, model.runtime.param_dtype, key), out_shardings=shardings)
    merge = jax.jit(
        lambda base, adapters: lora.merge(config, base, adapters),
        out_shardings=tree_shardings(shapes.mesh, model.logical_axes()),
    )

    def make_frozen() -> Frozen:
        own = task.make_frozen()
        return own._replace(params=WithBase(load(base_model(config, model)), own.params))

    def full(trained: Params, others: Any) -> Params:
        adapters, whole = _apart(trained, others.base)
        return {**merge(others.base, adapters), **whole}

    return dataclasses.replace(
        task,
        loss=adapted_loss(config, task.loss),
        make_params=lambda: {**make(jax.random.key(shapes.seed)), **added.make()},
        abstract_params={**abstract_adapters(config, model), **added.abstract},
        logical_axes={**axes, **added.axes},
        make_frozen=make_frozen,
        full=full,
        flops={**task.flops, "train": lora.train_flops_per_token(config, a, seq_len)},
    )
