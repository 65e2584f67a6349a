"""AdamW and schedules against NumPy; the scaling law against DeepSeek's published values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kanana_jax.models import laws, transformer
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.axes import is_matrix
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.schedule import ScheduleConfig, make_schedule


def test_adamw_with_independent_decay_against_numpy():
    axes = {"w": ("embed", "mlp"), "norm": {"scale": ("norm",)}}
    config = OptimizerConfig(
        learning_rate=0.1, weight_decay=0.03, clip_norm=1.0, schedule=ScheduleConfig("multi_step", warmup_steps=4)
    )
    total = 10
    params = {"w": np.array([[1.0, -2.0], [3.0, 0.5]]), "norm": {"scale": np.array([1.0, 1.0])}}
    optimizer = make_optimizer(config, total, axes)
    ours = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state = optimizer.init(ours)
    m = jax.tree.map(np.zeros_like, params)
    v = jax.tree.map(np.zeros_like, params)
    rng = np.random.default_rng(0)
    for step in range(total):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape) * 3, params)
        updates, state = optimizer.update(jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads), state, ours)
        ours = optax.apply_updates(ours, updates)
        norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * min(1.0, 1.0 / norm), grads)
        m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
        v = jax.tree.map(lambda a, g: 0.95 * a + 0.05 * g**2, v, grads)
        eta = min(1, (step + 1) / 4) * (0.1 if step >= 9 else 0.316 if step >= 8 else 1.0)
        adam = jax.tree.map(
            lambda a, b: (a / (1 - 0.9 ** (step + 1))) / (np.sqrt(b / (1 - 0.95 ** (step + 1))) + 1e-8), m, v
        )
        # Decay is multiplied by the schedule, not by the learning rate, and spares the norm.
        params = {
            "w": params["w"] - eta * (0.1 * adam["w"] + 0.03 * params["w"]),
            "norm": {"scale": params["norm"]["scale"] - eta * 0.1 * adam["norm"]["scale"]},
        }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), ours, params)


@pytest.mark.parametrize("qk_norm", ["none", "head", "width"])
def test_names_decide_what_decays(qk_norm):
    """Without gradients only decay moves a parameter."""
    a = Architecture(31, 16, 24, 2, 4, 2, 8, qk_norm=qk_norm)
    params = transformer.init_params(a, Runtime(), jax.random.key(0))
    config = OptimizerConfig(1e-3, ScheduleConfig("constant", 0), weight_decay=0.5, clip_norm=0)
    optimizer = make_optimizer(config, 10, transformer.logical_axes(a))
    zeros, state = jax.tree.map(jnp.zeros_like, params), optimizer.init(params)
    updates, _ = optimizer.update(zeros, state, params)
    for path, names in transformer.axes_by_path(a).items():
        update, param = updates, params
        for key in path:
            update, param = update[key], param[key]
        np.testing.assert_allclose(update, -0.5 * param if is_matrix(names) else 0.0 * param, rtol=1e-6)


def test_moments_are_float32_for_bfloat16_parameters():
    state = make_optimizer(OptimizerConfig(1e-3), 10, {"w": ("embed", "mlp")}).init(
        {"w": jnp.ones((4, 4), jnp.bfloat16)}
    )
    moments = [x for x in jax.tree.leaves(state) if x.shape == (4, 4)]
    assert len(moments) == 2 and all(x.dtype == jnp.float32 for x in moments)


@pytest.mark.parametrize(
    "config, points",
    [
        (ScheduleConfig("multi_step", 100), {0: 0.01, 99: 1.0, 799: 1.0, 800: 0.316, 899: 0.316, 900: 0.1, 999: 0.1}),
        (ScheduleConfig("cosine", 0, final=0.1), {0: 1.0, 500: 0.55, 1000: 0.1}),
        (ScheduleConfig("wsd", 0, final=0.0, decay=0.2), {0: 1.0, 800: 1.0, 900: 0.5, 1000: 0.0}),
        (ScheduleConfig("constant", 10), {4: 0.5, 10: 1.0, 999: 1.0}),
    ],
)
def test_schedules(config, points):
    schedule = make_schedule(config, 1000)
    for step, value in points.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-6), step


@pytest.mark.parametrize(
    "layers, width, mlp, heads, kv, lr, batch",
    # DeepSeek LLM (arXiv:2401.02954, Table 2): 7B and 67B on 2T tokens; batches of 2,304 and 4,608 × 4,096.
    [(30, 4096, 11008, 32, 32, 4.2e-4, 2304 * 4096), (95, 8192, 22016, 64, 8, 3.2e-4, 4608 * 4096)],
)
def test_scaling_law_meets_deepseeks_choices(layers, width, mlp, heads, kv, lr, batch):
    a = Architecture(102_400, width, mlp, layers, heads, kv, 128)
    law = laws.recommend(a, 2e12, 4096)
    assert law.learning_rate == pytest.approx(lr, rel=0.06)
    assert law.batch_tokens == pytest.approx(batch, rel=0.12)
