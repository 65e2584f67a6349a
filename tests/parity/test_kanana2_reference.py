"""Kanana-2 1.3B's class, which `transformers` has not, against a decoder in plain torch that is written here."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.interop import families, model_folder
from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling, Runtime
from kanana_jax.models.transformer import bind, init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

WINDOW, HEAD, FACTOR, ORIGINAL, THETA = 7, 16, 40.0, 64, 10_000.0
A = Architecture(
    vocab_size=61, embed_dim=32, mlp_dim=40, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=HEAD, init_std=0.2,
    tied_embeddings=True, rope_theta=THETA, qk_norm="head", rope_scaling=RopeScaling("yarn", FACTOR, ORIGINAL),
    layer_pattern=(LayerKind(WINDOW, rope_scaled=False),) * 3 + (LayerKind(),),
)  # fmt: skip


def _rms(x, gain):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + A.norm_eps) * gain


def _yarn(pair):
    """Speed of a pair of channels (arXiv:2309.00071, eq. 13), with whole bounds of the ramp."""
    bounds = [HEAD * math.log(ORIGINAL / (turns * 2 * math.pi)) / (2 * math.log(THETA)) for turns in (32, 1)]
    low, high = max(math.floor(bounds[0]), 0), min(math.ceil(bounds[1]), HEAD - 1)
    share, speed = min(max((pair - low) / (high - low), 0.0), 1.0), THETA ** (-2 * pair / HEAD)
    return share * speed / FACTOR + (1 - share) * speed


def _rotated(x, sliding):
    """Each pair of channels as one complex number, turned."""
    speeds = [THETA ** (-2 * i / HEAD) if sliding else _yarn(i) for i in range(HEAD // 2)]
    angle = torch.arange(x.shape[0])[:, None] * torch.tensor(speeds)[None]
    turn = torch.polar(torch.full_like(angle, 1.0 if sliding else 0.1 * math.log(FACTOR) + 1.0), angle)
    z = torch.complex(x[..., : HEAD // 2], x[..., HEAD // 2 :]) * turn[:, None]
    return torch.cat([z.real, z.imag], -1)


def _reference(w, tokens, types):
    """Logits `[T, V]` of one text; every head of every layer on its own."""
    x = w["model.embed_tokens.weight"][tokens]
    place = torch.arange(len(tokens))
    for i, kind in enumerate(types):
        sliding = kind == "sliding_attention"
        get = {k.split(f"layers.{i}.")[1]: v for k, v in w.items() if f"layers.{i}." in k}
        y = _rms(x, get["input_layernorm.weight"])
        q, k, v = ((y @ get[f"self_attn.{n}_proj.weight"].T).reshape(len(tokens), -1, HEAD) for n in "qkv")
        q = _rotated(_rms(q, get["self_attn.q_norm.weight"]), sliding)
        k = _rotated(_rms(k, get["self_attn.k_norm.weight"]), sliding)
        apart = place[:, None] - place[None]
        seen = (apart >= 0) & (apart < (WINDOW if sliding else 10**6))
        heads = [
            torch.where(seen, q[:, h] @ k[:, h // 2].T / math.sqrt(HEAD), -torch.inf).softmax(-1) @ v[:, h // 2]
            for h in range(4)
        ]
        x = x + torch.cat(heads, -1) @ get["self_attn.o_proj.weight"].T
        y = _rms(x, get["post_attention_layernorm.weight"])
        gate = y @ get["mlp.gate_proj.weight"].T
        x = x + (gate * gate.sigmoid() * (y @ get["mlp.up_proj.weight"].T)) @ get["mlp.down_proj.weight"].T
    return _rms(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


@pytest.mark.parametrize("scan", [True, False])
def test_logits(tmp_path, scan):
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), init_params(A, Runtime(), jax.random.key(0))
    )
    model_folder.write(tmp_path / "m", A, params, model_folder.card(A), None, {})
    config = json.loads((tmp_path / "m/config.json").read_text("utf-8"))
    assert config["model_type"] == "kanana2_tiny" and families.from_config(config, "x") == A
    found = model_folder.find(tmp_path / "m")
    loaded = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    w = {k: v for f in (tmp_path / "m").glob("*.safetensors") for k, v in safetensors_torch.load_file(str(f)).items()}
    tokens = rng.integers(3, 61, 48)
    model = bind(found.architecture, Runtime(scan_layers=scan), loaded)
    got = model.unembed(model(jnp.asarray(tokens[None])))[0]
    np.testing.assert_allclose(got, _reference(w, torch.tensor(tokens), config["layer_types"]).numpy(), atol=1e-4)
