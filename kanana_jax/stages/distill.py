"""Distillation from a frozen teacher on the final logits (Kanana, arXiv:2502.18934, §2.3; arXiv:2407.14679, §3).

The teacher runs on the same packed rows as the student, with the same document masks, sharded in the same way or on the
same devices under another mesh.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from kanana_jax.losses.distillation import DistillationConfig, cached_distillation, distillation
from kanana_jax.losses.hidden_states import HiddenConfig, Matching, hidden_term
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.transformer import Params, Transformer, bind
from kanana_jax.parallel.mesh import MeshConfig
from kanana_jax.parallel.sharding import spec
from kanana_jax.training.loop import Frozen
from kanana_jax.training.step import Batch, Loss, LossOutput


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """The section `distill` of a stage.

    Attributes:
      teacher: name of an earlier stage, or a model folder; beside `cache` only compared with the cached one.
      cache: name of an earlier stage of kind 'cache_teacher', or its folder: no teacher runs then.
      top_k: entries of the cache that are used at each token, the most probable ones; 0: all.
      loss: divergence, temperature, cross-entropy.
      hidden: a term of hidden states, beside the logits.
      dtype: in which the teacher is held and runs.
      mesh: the teacher's, over the same devices; None: the student's. A teacher that is many times the student's size
        may want more `tensor`.
    """

    teacher: str = ""
    cache: str = ""
    top_k: int = 0
    loss: DistillationConfig = DistillationConfig()
    hidden: HiddenConfig | None = None
    dtype: str = "bfloat16"
    mesh: MeshConfig | None = None

    def __post_init__(self):
        if not self.teacher and not self.cache:
            raise ValueError("name a teacher, or a cache of one")
        if self.cache and (self.loss.divergence != "forward" or self.loss.temperature != 1.0):
            raise ValueError(
                f"a cache gives divergence 'forward' at temperature 1, not '{self.loss.divergence}' at "
                f"{self.loss.temperature}: name a teacher instead"
            )
        if self.mesh is not None and (self.cache or self.hidden is not None):
            raise ValueError("a mesh of its own is for a teacher that runs, and gives logits alone: leave out 'mesh'")
        if self.cache and self.hidden is not None:
            raise ValueError("a cache holds no hidden states: leave out 'hidden', or name a teacher instead")
        if self.top_k < 0 or (self.top_k and not self.cache):
            raise ValueError("top_k is for a cache, and at least 1 (0: all that is cached)")
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype must be 'bfloat16' or 'float32', not '{self.dtype}'")


def frozen_runtime(runtime: Runtime, dtype: str) -> Runtime:
    """A teacher's: held and run in one dtype, nothing recomputed."""
    return dataclasses.replace(runtime, param_dtype=dtype, compute_dtype=dtype, remat="none")


def make_loss(
    architecture: Architecture,
    runtime: Runtime,
    implementation: str,
    teacher: Architecture,
    teacher_runtime: Runtime,
    teacher_implementation: str,
    *,
    config: DistillationConfig,
    chunk: int,
    hidden: HiddenConfig | None = None,
    matching: Matching | None = None,
) -> Loss:
    """Sum of the divergence (and cross-entropy) over the tokens that carry loss.

    `frozen` is the teacher; or its output matrix, where the batch has its final states (`apart`).

    Args:
      hidden, matching: the term of hidden states and which states it compares; both or none.
    """

    def loss(params: Params, batch: Batch, rng: jax.Array, frozen: Params) -> LossOutput:
        del rng  # nothing is drawn
        model = bind(architecture, runtime, params)
        student = _reader(model, implementation, batch)
        if "teacher_hidden" in batch:
            hidden_BTD, teacher_BTD, teacher_VD = student(), batch["teacher_hidden"], frozen["unembedding"]
        else:
            teaching = bind(teacher, teacher_runtime, jax.lax.stop_gradient(frozen))
            told, teacher_VD = _reader(teaching, teacher_implementation, batch), teaching.unembedding_matrix()
            if matching is None:
                hidden_BTD, teacher_BTD = student(), told()
            else:
                kept = slice(None) if matching.channels is None else np.array(matching.channels)
                layers, place = np.unique(matching.teacher, return_inverse=True)
                hidden_BTD, states_NBTD = student(observe=lambda taps: taps["output"], observe_layers=matching.student)
                teacher_BTD, teacher_NBTD = told(
                    observe=lambda taps: taps["output"][..., kept], observe_layers=tuple(int(i) for i in layers)
                )
        output = distillation(
            hidden_BTD,
            model.unembedding_matrix(),
            teacher_BTD,
            teacher_VD,
            batch["targets"],
            batch["weights"],
            config=config,
            chunk=chunk,
        )
        total, metrics = output.loss, {"divergence": output.divergence, "nll": output.nll}
        if matching is not None:
            metrics["hidden"] = hidden_term(hidden.kind, states_NBTD, teacher_NBTD[place], batch["weights"])
            total += hidden.weight * metrics["hidden"]
        return LossOutput(total, batch["weights"].sum(), metrics)

    return loss


def _reader(model: Transformer, implementation: str, batch: Batch) -> Callable[..., Any]:
    """A model on the rows of a batch."""
    rows = {"positions": batch["positions"], "segment_ids": batch["segment_ids"]}
    return functools.partial(model, batch["inputs"], implementation=implementation, **rows)


def forward(architecture: Architecture, runtime: Runtime, implementation: str, mesh: Mesh) -> Callable[..., jax.Array]:
    """`(params, batch) → last states [B, T, D]` as they lie on the student's `mesh`, jitted."""

    def last_states(params: Params, batch: Batch) -> jax.Array:
        return _reader(bind(architecture, runtime, params), implementation, batch)()

    return jax.jit(last_states, out_shardings=NamedSharding(mesh, spec("batch", "sequence", None)))


def apart(
    params: Params, architecture: Architecture, runtime: Runtime, implementation: str, own: Mesh, mesh: Mesh
) -> Frozen:
    """A teacher that runs on a mesh of its own before each step; its last states and output matrix go to the student's.

    Args:
      params: on `own`.
      mesh: the student's; of the same devices in the same order (`mesh.rearranged`).
    """

    def matrix(params: Params) -> jax.Array:
        return bind(architecture, runtime, params).unembedding_matrix()

    run = forward(architecture, runtime, implementation, mesh)
    with jax.set_mesh(own):
        unembedding = jax.jit(matrix, out_shardings=NamedSharding(mesh, spec("vocab", "embed")))(params)

    def prepare(batch: Batch) -> Batch:
        with jax.set_mesh(own):
            return batch | {"teacher_hidden": run(params, batch)}

    return Frozen({"unembedding": unembedding}, prepare)


def make_cached_loss(
    architecture: Architecture, runtime: Runtime, implementation: str, *, config: DistillationConfig, chunk: int
) -> Loss:
    """As `make_loss`, for batches with `teacher_ids` and `teacher_log_probs` (`data/stream/cached.py`)."""

    def loss(params: Params, batch: Batch, rng: jax.Array, frozen: None) -> LossOutput:
        del rng, frozen  # nothing is drawn, the teacher's word is in the batch
        model = bind(architecture, runtime, params)
        output = cached_distillation(
            _reader(model, implementation, batch)(),
            model.unembedding_matrix(),
            batch["teacher_ids"],
            batch["teacher_log_probs"],
            batch["targets"],
            batch["weights"],
            config=config,
            chunk=chunk,
        )
        return LossOutput(output.loss, batch["weights"].sum(), {"divergence": output.divergence, "nll": output.nll})

    return loss
