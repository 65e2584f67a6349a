"""Log-probabilities of given tokens are one thing: packed, padded, alone, and as the sampler with its cache drew them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.inference.rollout import RolloutConfig, rollout
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.models import lora
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.model import Model
from kanana_jax.models.transformer import init_params
from kanana_jax.stages.dpo import target_log_probs

T = 96
MODEL = Model(
    Architecture(
        vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
        max_seq_len=128, rope_theta=10_000.0, init_std=0.2,
    )
)  # fmt: skip
LORA = lora.LoraConfig(rank=4, alpha=8.0)


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "adapters"])
def test_packed_padded_alone_and_as_sampled(adapters):
    """Per token within 1e-5 in float32; the sampler runs the merged weights."""
    params = whole = init_params(MODEL.architecture, Runtime(), jax.random.key(0))
    if adapters:
        made = lora.init_adapters(LORA, MODEL.architecture, "float32", jax.random.key(1))
        keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(made))))
        made = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), made)
        params, whole = lora.adapted(LORA, params, made), lora.merge(LORA, params, made)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(2, 64, size).astype(np.int32) for size in (3, 9, 5, 17, 4)]
    config = RolloutConfig(samples=2, max_new_tokens=20, sampling=SamplingConfig(temperature=1.0))
    answers = rollout(whole, MODEL, prompts, config, stop=[1], tokens=64, key=jax.random.key(3))
    flat = [(prompt, answer) for prompt, own in zip(prompts, answers) for answer in own]
    drawn = np.concatenate([answer.log_probs for _, answer in flat])
    examples = [
        Example(
            np.concatenate([prompt, answer.ids]), np.repeat([0.0, 1.0], [len(prompt), len(answer.ids)]).astype("f4")
        )
        for prompt, answer in flat
    ]
    run = jax.jit(lambda params, rows: target_log_probs(MODEL, params, rows, chunk=16))

    def of(rows):
        return np.asarray(run(params, jax.tree.map(jnp.asarray, rows)))[rows.weights > 0]

    packed = packing.pack([(example,) for example in examples], T, whole=True)
    padded = packing.Rows(*map(np.concatenate, zip(*(packing.pack([[e]], T, whole=True) for e in examples))))
    alone = packing.pack([examples[:1]], len(examples[0].tokens) - 1, whole=True)
    assert len(packed.inputs) < len(examples) < len(drawn) and len({len(a.ids) for _, a in flat}) > 1
    np.testing.assert_allclose(of(packed), of(padded), atol=1e-5)
    np.testing.assert_allclose(of(padded), drawn, atol=1e-5)
    np.testing.assert_allclose(of(alone), flat[0][1].log_probs, atol=1e-5)
