"""One optimizer step: accumulate, guard, update. Pure functions over `TrainState`."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from kanana_jax.models.transformer import Params
from kanana_jax.parallel.sharding import replicated, tree_shardings, where_divisible
from kanana_jax.training import master

# A stage's batch: a NamedTuple of arrays `[B, …]` (`packing.Rows`, `cached.CachedRows` …), defined by the stage.
Batch = Any
# A stage's other models (a teacher, a reference), or None.
Others = Any


class LossOutput(NamedTuple):
    """The result of a stage's loss for one (micro-)batch.

    Attributes:
      loss: float32 scalar: a **sum**, so that accumulation over micro-batches is exact.
      weight: float32 scalar: the divisor of the sum in the end (tokens that carry loss, pairs …).
      metrics: more sums, shown divided by `weight`.
      tokens: float32 scalar: tokens that the model was trained on, counted by tokens/s, MFU and `model.json`; None:
        the same as `weight`.
    """

    loss: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]
    tokens: jax.Array | None = None


# (parameters, batch, key, others) → sums.
Loss = Callable[[Params, Batch, jax.Array, Others], LossOutput]


class TrainState(NamedTuple):
    """Everything that a checkpoint holds besides the data position.

    Attributes:
      step: int32, batches consumed.
      params, opt_state: trees of arrays; low-precision parameters have a float32 master in the latter (`master.py`).
      rng: uint32 key data; step `i` draws from `fold_in(rng, i)`.
      skipped: int32, updates refused so far by the guard; `skipped_in_a_row`: since the last good one.
      norm_average: float32, running mean of the gradient norm (for the spike guard); 0: none yet.
    """

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    rng: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array
    norm_average: jax.Array


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """Criteria for refusing an update.

    Attributes:
      spike: refuse a gradient norm above `spike` × its running mean; 0: never. A loss or gradient that is not finite
        is always refused.
      after: applied updates until the mean has settled; before that, a norm above `spike`² × the mean is refused. The
        first finite norm is the mean.
      stop_after: refused updates in a row after which the run stops with an error.
    """

    spike: float = 0.0
    after: int = 100
    stop_after: int = 10

    def __post_init__(self):
        if self.spike and not self.spike > 1:
            raise ValueError(f"guard.spike must be a multiple of the mean norm, above 1 (0: never), not {self.spike}")
        if self.after < 0 or self.stop_after < 1:
            raise ValueError("guard.after must not be negative, and guard.stop_after at least 1")


def init_state(params: Params, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    def zero():
        return jnp.zeros((), jnp.int32)

    rng = jax.random.key_data(jax.random.key(seed))
    opt_state = master.begin(optimizer, params)
    return TrainState(zero(), params, opt_state, rng, zero(), zero(), jnp.zeros((), jnp.float32))


def state_shardings(mesh: Mesh, abstract: TrainState, logical_axes: Params) -> TrainState:
    """Shardings of a whole state: optimizer moments are sharded like their parameters, the rest is replicated.

    An array with a parameter's axes but fewer elements along some (block scales) is sharded where the mesh divides it.
    """
    of_params = tree_shardings(mesh, logical_axes)
    by_path = {
        tuple(str(k) for k in path): (sharding, leaf.shape)
        for (path, sharding), leaf in zip(
            jax.tree_util.tree_leaves_with_path(of_params), jax.tree.leaves(abstract.params)
        )
    }

    def like_its_parameter(path, leaf):
        keys = tuple(str(k) for k in path)
        for start in range(len(keys)):
            sharding, shape = by_path.get(keys[start:], (None, None))
            if sharding is not None and shape == leaf.shape:
                return sharding
            if sharding is not None and len(shape) == len(leaf.shape):
                return where_divisible(sharding, leaf.shape)
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(like_its_parameter, abstract)


def _judged(state: TrainState, norm: jax.Array, finite: jax.Array, guard: GuardConfig) -> tuple[jax.Array, jax.Array]:
    """Returns whether an update is good, and the running mean of the gradient norm after it.

    The mean starts as the first finite norm and soon forgets it: the newest norm has weight 2/(n + 2) after n updates,
    and at least 0.01. No norm counts for more than `spike` × the mean, refused or not, so that no single one moves it
    far, and a lasting new level is accepted after a while.
    """
    updates, average = state.step - state.skipped, state.norm_average
    good, counted = finite, norm
    if guard.spike > 0:
        limit = jnp.where(average > 0, guard.spike * average, jnp.inf)
        good = finite & (norm <= limit * jnp.where(updates < guard.after, guard.spike, 1.0))
        counted = jnp.minimum(norm, limit)
    share = jnp.where(average > 0, jnp.maximum(0.01, 2.0 / (updates + 2.0)), 1.0)
    return good, jnp.where(finite, (1 - share) * average + share * counted, average)


def make_train_step(
    loss: Loss, optimizer: optax.GradientTransformation, *, accumulate: int = 1, guard: GuardConfig = GuardConfig()
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """The step function to be jitted.

    Micro-batch `i` of `accumulate` takes rows `i::accumulate`, so that every device keeps its own rows.

    Returns:
      `(state, batch, others=None) -> (state, metrics)`; metrics are float32 scalars: `loss` (the mean that is
      minimised), `weight`, `tokens` (where they are not the weight), `grad_norm`, `skipped`, `skipped_in_a_row`, and
      the stage's own.
    """

    def gradients(params, batch, rng, others):
        def scalar(params, micro, rng):
            output = loss(params, micro, rng, others)
            return output.loss, output

        grad = jax.grad(scalar, has_aux=True)
        if accumulate == 1:
            return grad(params, batch, rng)
        micros = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def body(total, inputs):
            index, micro = inputs
            value = grad(params, micro, jax.random.fold_in(rng, index))
            return jax.tree.map(lambda t, v: t + v.astype(t.dtype), total, value), None

        shapes = jax.eval_shape(grad, params, jax.tree.map(lambda x: x[0], micros), rng)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)
        total, _ = jax.lax.scan(body, zeros, (jnp.arange(accumulate), micros))
        return total

    def step(state: TrainState, batch: Batch, others: Any = None):
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        grads, output = gradients(state.params, batch, rng, others)
        weight = jnp.maximum(output.weight, 1e-9)
        grads = jax.tree.map(lambda g: g.astype(jnp.float32) / weight, grads)
        mean = output.loss / weight
        norm = optax.global_norm(grads).astype(jnp.float32)
        good, average = _judged(state, norm, jnp.isfinite(mean) & jnp.isfinite(norm), guard)
        params, opt_state = master.advance(optimizer, grads, state.opt_state, state.params)

        def keep(new, old):
            return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

        refused = 1 - good.astype(jnp.int32)
        new_state = TrainState(
            step=state.step + 1,
            params=keep(params, state.params),
            opt_state=keep(opt_state, state.opt_state),
            rng=state.rng,
            skipped=state.skipped + refused,
            skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
            norm_average=average,
        )
        metrics = {name: value / weight for name, value in output.metrics.items()}
        metrics |= {
            "loss": mean,
            "weight": output.weight,
            **({} if output.tokens is None else {"tokens": output.tokens}),
            "grad_norm": norm,
            "skipped": new_state.skipped,
            "skipped_in_a_row": new_state.skipped_in_a_row,
        }
        return new_state, metrics

    return step
