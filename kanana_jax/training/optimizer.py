"""AdamW with independent weight decay, from optax's parts."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from kanana_jax.models.axes import is_matrix
from kanana_jax.models.transformer import Params
from kanana_jax.training.schedule import ScheduleConfig, make_schedule


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW.

    Attributes:
      learning_rate: peak.
      schedule: its course.
      b1, b2, eps: Adam's constants (not stated in the Kanana report; DeepSeek LLM's 0.9, 0.95).
      weight_decay: **independent** (arXiv:1711.05101, Algorithm 2: θ ← θ − η_t·(α·m̂/(√v̂+ε) + λ·θ)):
        multiplied by the schedule's multiple η_t but not by the learning rate α. Kanana §2.2: 1e-4.
      clip_norm: global norm at which gradients are clipped; 0 turns clipping off.
    """

    learning_rate: float
    schedule: ScheduleConfig = ScheduleConfig()
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-4
    clip_norm: float = 1.0

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")


def make_optimizer(config: OptimizerConfig, total_steps: int, logical_axes: Params) -> optax.GradientTransformation:
    """Clip → Adam → learning rate → independent decay, as updates to be added.

    Every moment has its parameter's shape and sharding; moments are float32 whatever the parameters. Of parameters in
    fewer bits it is given the master (`master.py`), which decays and moves.

    Args:
      config: the constants.
      total_steps: of the schedule.
      logical_axes: names of the parameters' axes: matrices decay, gains do not.
    """
    multiple = make_schedule(config.schedule, total_steps)
    parts = []
    if config.clip_norm > 0:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts += [
        _in_float32(optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)),
        _learning_rate_and_decay(config, multiple, logical_axes),
    ]
    return optax.chain(*parts)


def _in_float32(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    def cast(tree):
        return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

    return optax.GradientTransformation(
        lambda params: transform.init(cast(params)),
        lambda updates, state, params=None: transform.update(cast(updates), state),
    )


def _decays(logical_axes: Params) -> Params:
    """Returns whether each parameter decays."""
    return jax.tree.map(is_matrix, logical_axes, is_leaf=lambda x: isinstance(x, tuple))


def _learning_rate_and_decay(
    config: OptimizerConfig, multiple: Callable[[jax.Array], jax.Array], logical_axes: Params
) -> optax.GradientTransformation:
    def init(params):
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        eta = multiple(state.count)

        def leaf(u, p, decays):
            decay = config.weight_decay if decays else 0.0
            return -eta * (config.learning_rate * u + decay * p)

        assert params is not None, "weight decay needs the parameters: pass them to update"
        updates = jax.tree.map(leaf, updates, params, _decays(logical_axes))
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
