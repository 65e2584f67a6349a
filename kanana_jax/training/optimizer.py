"""AdamW with independent weight decay, built from optax parts, with moments in 32 bits or fewer."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from kanana_jax.models.axes import is_matrix
from kanana_jax.models.transformer import Params
from kanana_jax.training.adam8bit import scale_by_adam8bit
from kanana_jax.training.schedule import ScheduleConfig, make_schedule

Moments = Literal["float32", "bfloat16", "int8", "factored"]
# Matrices whose two axes are at least this long get factored second moments.
_FACTORED_FROM = 32


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW.

    Attributes:
      learning_rate: the schedule's peak.
      schedule: the course of the learning rate.
      b1, b2, eps: Adam's constants (not stated in the Kanana report; DeepSeek LLM's 0.9, 0.95).
      weight_decay: **independent** (arXiv:1711.05101, Algorithm 2: θ ← θ − η_t·(α·m̂/(√v̂+ε) + λ·θ)):
        multiplied by the schedule's multiple η_t but not by the learning rate α. Kanana §2.2: 1e-4.
      clip_norm: global norm at which gradients are clipped; 0 turns clipping off.
      moments: storage of the two moments, with bytes per parameter: `float32` 8; `bfloat16` 4 (DeepSeek-V3,
        arXiv:2412.19437, §3.3.3); `int8` 2 and a scale per block (`adam8bit.py`); `factored` 2: the first in bfloat16,
        the second by rows and columns (Adafactor, arXiv:1804.04235, with momentum as in arXiv:2106.04560, §3.4).
        Updates are computed in float32.
    """

    learning_rate: float
    schedule: ScheduleConfig = ScheduleConfig()
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    moments: Moments = "float32"

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if self.moments == "bfloat16" and self.b2 > 0.99:
            raise ValueError(
                f"b2 {self.b2} forgets {1 - self.b2:.2g} per step, which bfloat16 (steps of 1/128) rounds away, so "
                "that a second moment would never fall: use b2 up to 0.99, or moments 'float32', 'int8' or 'factored'"
            )


def make_optimizer(config: OptimizerConfig, total_steps: int, logical_axes: Params) -> optax.GradientTransformation:
    """Clip → Adam → learning rate → independent decay, as updates to be added.

    Every moment has its parameter's shape and sharding (a factored second moment keeps only rows and columns, on
    every device). Its dtype is `config.moments`, whatever the parameter's. For low-precision parameters the transform
    is given the master (`master.py`), which decays and moves.

    Args:
      config: AdamW's constants.
      total_steps: length of the schedule.
      logical_axes: names of the parameters' axes: matrices decay, gains do not.
    """
    multiple = make_schedule(config.schedule, total_steps)
    parts = []
    if config.clip_norm > 0:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts += [
        _in_float32(_scale(config)),
        _learning_rate_and_decay(config, multiple, logical_axes),
    ]
    return optax.chain(*parts)


def _scale(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradients → Adam's directions."""
    if config.moments == "bfloat16":
        return _adam_in_bfloat16(config)
    if config.moments == "int8":
        return scale_by_adam8bit(config.b1, config.b2, config.eps)
    if config.moments == "factored":
        return optax.chain(
            # As in optax's Adafactor, with Adam's constants; the decay counts from 0: the first step takes it all.
            optax.scale_by_factored_rms(
                min_dim_size_to_factor=_FACTORED_FROM,
                decay_rate=config.b2,
                decay_rate_fn=lambda step, b2: b2 * (1 - b2**step) / (1 - b2 ** (step + 1)),
            ),
            optax.clip_by_block_rms(1.0),
            optax.ema(config.b1, debias=True, accumulator_dtype=jnp.bfloat16),
        )
    return optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)


def _adam_in_bfloat16(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam that keeps both moments in bfloat16 and computes in float32; optax does so only for the first."""
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)

    def kept(state: optax.OptState, dtype: jax.typing.DTypeLike) -> optax.OptState:
        assert isinstance(state, optax.ScaleByAdamState)
        return state._replace(
            mu=jax.tree.map(lambda x: x.astype(dtype), state.mu), nu=jax.tree.map(lambda x: x.astype(dtype), state.nu)
        )

    def update(updates, state, params=None):
        made, state = adam.update(updates, kept(state, jnp.float32), params)
        return made, kept(state, jnp.bfloat16)

    return optax.GradientTransformation(lambda params: kept(adam.init(params), jnp.bfloat16), update)


def _in_float32(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    def cast(tree):
        return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

    return optax.GradientTransformation(
        lambda params: transform.init(cast(params)),
        lambda updates, state, params=None: transform.update(cast(updates), state, cast(params)),
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
