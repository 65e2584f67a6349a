"""Training of low-rank adapters (`models/lora.py`) in place of a whole model: the section `lora` of any stage on text.

A stage's loss, batches and evaluation stay the same. Its parameters become the adapters, the base becomes one of its
frozen models, and the merged model is evaluated and written. Parts that a stage adds to the model, such as the head of
a reward model, are trained in full next to the adapters.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from kanana_jax.errors import ConfigError
from kanana_jax.files import place
from kanana_jax.interop import model_folder, peft
from kanana_jax.interop.model_folder import ModelFolder
from kanana_jax.interop.weights import NUMPY
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
      abstract: their shapes and dtypes.
      axes: the names of their axes.
      make: creates them, sharded.
    """

    abstract: Params = {}
    axes: Params = {}
    make: Callable[[], Params] = dict


class WithBase(NamedTuple):
    """The frozen models of a stage that trains adapters: their base, and the stage's own."""

    base: Params
    others: Others


def base_model(config: LoraConfig, model: Model) -> Model:
    """The base model of adapters: the stage's model, stored in a dtype of its own."""
    dtype = config.base_dtype or model.runtime.compute_dtype
    return dataclasses.replace(model, runtime=dataclasses.replace(model.runtime, param_dtype=dtype))


def adapted_loss(config: LoraConfig, loss: Loss) -> Loss:
    """A loss of the whole model as a function of its adapters."""

    def of_adapters(trained: Params, batch: Batch, rng: jax.Array, others: WithBase) -> LossOutput:
        adapters, added = _apart(trained, others.base)
        return loss({**lora.adapted(config, others.base, adapters), **added}, batch, rng, others.others)

    return of_adapters


def _apart(trained: Params, base: Params) -> tuple[Params, Params]:
    """Adapters, and the parts that are trained in full."""
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
    base: ModelFolder,
    load: Callable[[Model], Params],
    added: Added,
) -> Task:
    """The task of a stage that trains adapters.

    Args:
      base: the model that they adapt.
      load: loads its parameters for the model that holds them.
      added: the parts that the stage adds to the model.

    Raises:
      ConfigError: `lora.adapter` has another rank, scale or targets.
      UserError: the adapter cannot be read, or belongs to another base.
    """
    begun = given(config, task.name, base)
    a, axes = model.architecture, lora.logical_axes(config, model.architecture)
    shardings = tree_shardings(shapes.mesh, axes)
    make = jax.jit(lambda key: lora.init_adapters(config, a, model.runtime.param_dtype, key), out_shardings=shardings)
    merge = jax.jit(
        lambda base, adapters: lora.merge(config, base, adapters),
        out_shardings=tree_shardings(shapes.mesh, model.logical_axes()),
    )

    def make_adapters() -> Params:
        if begun is None:
            return make(jax.random.key(shapes.seed))
        dtype = NUMPY[model.runtime.param_dtype]
        return jax.tree.map(
            lambda x, where: jax.make_array_from_callback(x.shape, where, lambda index: x[index].astype(dtype)),
            begun,
            shardings,
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
        make_params=lambda: {**make_adapters(), **added.make()},
        abstract_params={**abstract_adapters(config, model), **added.abstract},
        logical_axes={**axes, **added.axes},
        make_frozen=make_frozen,
        full=full,
        flops={**task.flops, "train": lora.train_flops_per_token(config, a, seq_len)},
    )


def given(config: LoraConfig, stage: str, base: ModelFolder) -> Params | None:
    """The adapters that a stage starts from, as NumPy arrays; None: new ones.

    Raises:
      ConfigError: `lora.adapter` has another rank, scale or targets.
      UserError: the adapter cannot be read, or belongs to another base.
    """
    if not config.adapter:
        return None
    found = peft.read(place(config.adapter), base)
    for key in ("rank", "alpha"):
        asked, there = getattr(config, key), getattr(found.config, key)
        if abs(asked - there) > 1e-6 * there:
            raise ConfigError(f"config '{stage}.lora.{key}' is {asked:g}, but {config.adapter} has {there:g}")
    if set(config.targets) != set(found.config.targets):
        told = ", ".join(found.config.targets)
        raise ConfigError(f"config '{stage}.lora.targets' must match those of {config.adapter}: {told}")
    return found.params


def write_adapter(folder: pathlib.Path, config: LoraConfig, trained: Params, base: ModelFolder) -> None:
    """Writes trained adapters for the `peft` library; every process calls this, and process 0 writes."""
    adapters = jax.tree.map(model_folder.on_host, trained)
    if jax.process_index() == 0:
        peft.write(folder, config, adapters, base)
