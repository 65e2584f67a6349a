"""Every switch of the decoder against a plain NumPy decoder, whole, in steps with a cache, scanned and sharded."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.inference.generate import generate
from kanana_jax.losses.cross_entropy import cross_entropy
from kanana_jax.models import counts, transformer
from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling, Runtime, pattern_of
from kanana_jax.models.cache import empty_cache
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import tree_shardings

BASE = Architecture(96, 32, 48, 4, 4, 2, 16, max_seq_len=64, rope_theta=1e4)
LOCAL, GLOBAL, NOPE = LayerKind(window=6, rope_theta=500.0, rope_scaled=False), LayerKind(), LayerKind(rope=False)
YARN = RopeScaling("yarn", 8.0, 16)
SWITCHES: dict[str, dict] = {
    "windows, two RoPEs": dict(layer_pattern=(LOCAL, LOCAL, GLOBAL), rope_scaling=YARN),
    "NoPE": dict(layer_pattern=(GLOBAL, NOPE)),
    "post norms over the width": dict(norm_placement="post", qk_norm="width", layer_pattern=(LOCAL, GLOBAL)),
    "biases": dict(attention_bias="qkvo", mlp_bias=True),
    "biases of queries, keys, values": dict(attention_bias="qkv", tied_embeddings=True),
    "multipliers": dict(
        embedding_multiplier=3.0, residual_multiplier=0.4, logits_multiplier=0.7, attention_multiplier=0.3
    ),
    "as Gemma 2": dict(
        norm_placement="both", norm_unit_offset=True, activation="gelu_tanh", embedding_multiplier=math.sqrt(32),
        attention_softcap=2.0, logits_softcap=1.5, layer_pattern=(LayerKind(window=6), GLOBAL), tied_embeddings=True,
    ),
    "as Gemma 3": dict(
        norm_placement="both", norm_unit_offset=True, activation="gelu_tanh", qk_norm="head",
        layer_pattern=(LOCAL, LOCAL, GLOBAL), rope_scaling=RopeScaling("linear", 4.0, 16),
    ),
    "part of the channels": dict(partial_rotary_factor=0.5, qk_norm="head"),
}  # fmt: skip
CASES = {name: dataclasses.replace(BASE, **switches) for name, switches in SWITCHES.items()}
TOKENS = np.random.default_rng(0).integers(0, 96, (2, 24)).astype(np.int32)
SEGMENTS = np.repeat([[1] * 9 + [2] * 15, [3] * 20 + [0] * 4], 1, axis=0).astype(np.int32)
POSITIONS = np.array([[*range(9), *range(15)], [*range(20), *range(4)]], np.int32)


def params_of(a):
    """Parameters that are nowhere 0 or 1."""
    params = transformer.init_params(a, Runtime(), jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    draw = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [x + jnp.asarray(draw.normal(0, 0.12, x.shape), x.dtype) for x in leaves])


def rms(x, gain, a, over=1):
    gain = np.asarray(gain, np.float64) + (1.0 if a.norm_unit_offset else 0.0)
    return x / np.sqrt((x**2).mean(axis=tuple(range(-over, 0)), keepdims=True) + a.norm_eps) * gain


def rotation(a, kind, positions):
    width, theta = int(a.head_dim * a.partial_rotary_factor), kind.rope_theta or a.rope_theta
    speed = np.array([theta ** (-i / width) for i in range(0, width, 2)])
    factor, s = 1.0, a.rope_scaling if kind.rope_scaled else None
    if s is not None and s.type == "linear":
        speed = speed / s.factor
    elif s is not None:
        at = [width * math.log(s.original_max_position_embeddings / (n * 2 * math.pi)) / (2 * math.log(theta))
              for n in (s.beta_fast, s.beta_slow)]  # fmt: skip
        low, high = max(math.floor(at[0]), 0), min(math.ceil(at[1]), width - 1)
        ramp = np.clip((np.arange(width // 2) - low) / max(high - low, 1e-3), 0, 1)
        speed, factor = speed * (1 - ramp) + speed / s.factor * ramp, 0.1 * math.log(s.factor) + 1
    return positions[..., None] * speed, factor


def rotated(x, angle, factor):
    half = angle.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    sin, cos = np.sin(angle)[:, :, None] * factor, np.cos(angle)[:, :, None] * factor
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def decoder(a, params, tokens, positions, segments):
    """Logits in float64, one layer and one sum after another."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = p["embedding"][tokens] * a.embedding_multiplier
    B, T = tokens.shape
    t = np.arange(T)
    for layer in range(a.num_layers):
        kind = a.kinds[layer]
        block = jax.tree.map(lambda w, layer=layer: w[layer], p["blocks"])
        w, m = block["attention"], block["mlp"]
        y = rms(x, block["attention_norm"]["scale"], a) if a.norm_placement != "post" else x
        q, k, v = (np.einsum("btd,dnh->btnh", y, w[name]) + w.get(f"{name}_bias", 0.0) for name in "qkv")
        if a.qk_norm != "none":
            over = 1 if a.qk_norm == "head" else 2
            q, k = (rms(z, w[f"{name}_norm"]["scale"], a, over) for z, name in ((q, "q"), (k, "k")))
        if kind.rope:
            q, k = (rotated(z, *rotation(a, kind, positions)) for z in (q, k))
        k, v = (np.repeat(z, a.group_size, axis=2) for z in (k, v))
        scores = np.einsum("btnh,bsnh->bnts", q, k) * (a.attention_multiplier or a.head_dim**-0.5)
        scores = a.attention_softcap * np.tanh(scores / a.attention_softcap) if a.attention_softcap else scores
        near = (t[:, None] >= t) & ((t[:, None] - t < kind.window) if kind.window else True)
        seen = near & (segments[:, :, None] == segments[:, None, :])
        scores = np.where(seen[:, None], scores, -1e30)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = np.einsum("bnts,bsnh,nhd->btd", weights, v, w["o"]) + w.get("o_bias", 0.0)
        out = rms(out, block["attention_post_norm"]["scale"], a) if a.norm_placement != "pre" else out
        x = x + a.residual_multiplier * out
        y = rms(x, block["mlp_norm"]["scale"], a) if a.norm_placement != "post" else x
        gate, up = (y @ m[name] + m.get(f"{name}_bias", 0.0) for name in ("gate", "up"))
        tanh = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        hidden = (tanh if a.activation == "gelu_tanh" else gate / (1 + np.exp(-gate))) * up
        out = hidden @ m["down"] + m.get("down_bias", 0.0)
        out = rms(out, block["mlp_post_norm"]["scale"], a) if a.norm_placement != "pre" else out
        x = x + a.residual_multiplier * out
    x = rms(x, p["final_norm"]["scale"], a) * a.logits_multiplier
    logits = x @ p["embedding" if a.tied_embeddings else "unembedding"].T
    return a.logits_softcap * np.tanh(logits / a.logits_softcap) if a.logits_softcap else logits


def logits_of(a, params, runtime=Runtime()):
    model = transformer.bind(a, runtime, params)
    return model.unembed(model(TOKENS, positions=jnp.asarray(POSITIONS), segment_ids=jnp.asarray(SEGMENTS)))


@pytest.mark.parametrize("name", CASES)
def test_logits_of_packed_rows_are_those_of_a_plain_decoder(name):
    a = CASES[name]
    params = params_of(a)
    want, real = decoder(a, params, TOKENS, POSITIONS, SEGMENTS), SEGMENTS > 0
    for scan in (True, False) if a.layer_pattern else (True,):
        got = jax.jit(lambda p, scan=scan: logits_of(a, p, Runtime(scan_layers=scan)))(params)
        np.testing.assert_allclose(np.asarray(got)[real], want[real], atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("name, remat", [("windows, two RoPEs", "full"), ("multipliers", "none"), ("as Gemma 2", "dots")])
def test_the_loss_is_that_of_the_logits(name, remat):
    """And its gradient is that of the plain formula: scaled and soft-capped logits reach the fused loss."""
    a = CASES[name]
    targets, weights = jnp.asarray(TOKENS[:, ::-1]), jnp.asarray(SEGMENTS > 0, jnp.float32)

    def fused(params):
        model = transformer.bind(a, Runtime(remat=remat), params)
        hidden = model(TOKENS, positions=jnp.asarray(POSITIONS), segment_ids=jnp.asarray(SEGMENTS))
        cap = a.logits_softcap
        return cross_entropy(hidden, model.unembedding_matrix(), targets, weights, chunk=16, soft_cap=cap).loss

    def plain(params):
        log_p = jax.nn.log_softmax(logits_of(a, params))
        return -(jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0] * weights).sum()

    params = params_of(a)
    want = jax.jit(jax.value_and_grad(plain))(params)
    got = jax.jit(jax.value_and_grad(fused))(params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5 * (1e-3 + np.abs(y).max())), got, want)


WINDOWS = [name for name, a in CASES.items() if any(kind.window for kind in a.period)]


@pytest.mark.parametrize("name", WINDOWS)
def test_a_cache_of_windows_gives_the_same_logits(name):
    """Read in parts longer than the window and token by token, beside a row with padding."""
    a = CASES[name]
    params, T = params_of(a), 24
    model = transformer.bind(a, Runtime(), params)
    whole = np.asarray(jax.jit(lambda: model.unembed(model(TOKENS)))())
    step = jax.jit(lambda tokens, positions, segments, cache: model(
        tokens, positions=positions, segment_ids=segments, cache=cache
    ))  # fmt: skip
    cache, start, padding = empty_cache(a, 2, 32, "float32"), 0, np.array([0, 3])
    for length in (8, 8, *(1,) * 8):
        at = start + np.arange(length) - padding[:, None]
        real = at >= 0
        rows = np.where(real, np.take_along_axis(TOKENS, np.maximum(at, 0), 1), 0)
        hidden, cache = step(rows, np.maximum(at, 0), real.astype(np.int32), cache)
        got = np.asarray(model.unembed(hidden))
        for row in range(2):
            np.testing.assert_allclose(got[row, real[row]], whole[row, at[row, real[row]]], atol=1e-4)
        start += length
    assert start == T
    for kind, k in zip(a.period, cache.k):
        assert k.shape[4] == (kind.window or 32)


def test_greedy_text_goes_past_the_window():
    """Prompts with a shared prefix and of unlike lengths continue as each does without a cache."""
    a = CASES["windows, two RoPEs"]
    params, draw = params_of(a), np.random.default_rng(2)
    prefix = draw.integers(0, 96, 18)
    prompts = [np.concatenate([prefix, draw.integers(0, 96, n)]).astype(np.int32) for n in (3, 11)]
    got = generate(params, Model(a), prompts, max_new_tokens=12)
    model = transformer.bind(a, Runtime(), params)
    forward = jax.jit(lambda ids: model.unembed(model(ids)))
    for prompt, new in zip(prompts, got):
        row = np.zeros((1, 48), np.int32)
        row[0, : len(prompt) + 12] = [*prompt, *new]
        logits = np.asarray(forward(row))[0, len(prompt) - 1 : len(prompt) + 11]
        chosen = np.take_along_axis(logits, new[:, None], -1)[:, 0]
        np.testing.assert_allclose(chosen, logits.max(-1), atol=1e-5)


TENSOR, SEQUENCE = dict(fsdp=2, tensor=2, data=2), dict(fsdp=2, sequence=4)


@pytest.mark.parametrize(
    "name, mesh",
    [
        ("windows, two RoPEs", SEQUENCE),
        ("post norms over the width", TENSOR),
        ("biases", TENSOR),
        pytest.param("windows, two RoPEs", TENSOR, marks=pytest.mark.more),
        pytest.param("post norms over the width", SEQUENCE, marks=pytest.mark.more),
        pytest.param("biases", SEQUENCE, marks=pytest.mark.more),
    ],
)
def test_sharded_logits_are_the_same(name, mesh):
    a = CASES[name]
    params = params_of(a)
    tokens = np.tile(TOKENS, (2, 1))
    forward = jax.jit(lambda p: (lambda m: m.unembed(m(tokens)))(transformer.bind(a, Runtime(), p)))
    want = forward(params)
    made = make_mesh(MeshConfig(**mesh))
    with jax.set_mesh(made):
        placed = jax.device_put(params, tree_shardings(made, transformer.logical_axes(a)))
        got = forward(placed)
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_the_shortest_pattern_is_found():
    assert pattern_of([GLOBAL] * 4) == ()
    assert pattern_of([LOCAL] * 4) == (LOCAL,)
    assert pattern_of([LOCAL, GLOBAL, LOCAL]) == (LOCAL, GLOBAL)
    assert pattern_of([GLOBAL, LOCAL, LOCAL]) == (GLOBAL, LOCAL, LOCAL)
    for kinds in (kinds for n in range(1, 8) for kinds in itertools.product((LOCAL, GLOBAL), repeat=n)):
        shortest = next(p for p in range(1, 8) if all(k == kinds[i % p] for i, k in enumerate(kinds)))
        assert (pattern_of(kinds) or (GLOBAL,)) == kinds[:shortest]
    assert len(pattern_of([*[GLOBAL] * 99_999, LOCAL])) == 100_000  # in a moment: a stranger's list may be long
    assert dataclasses.replace(BASE, layer_pattern=(LOCAL, GLOBAL)).kinds == (LOCAL, GLOBAL, LOCAL, GLOBAL)


@pytest.mark.parametrize("name", CASES)
def test_an_architecture_survives_its_file(name):
    a = CASES[name]
    assert Architecture.from_dict(a.to_dict()) == a


def test_an_architecture_of_the_first_version_is_read():
    assert Architecture.from_dict(BASE.to_dict() | {"qk_norm": True}).qk_norm == "head"
    assert "layer_pattern" not in BASE.to_dict()


def test_windows_cost_what_they_see():
    a, T = dataclasses.replace(BASE, layer_pattern=(LOCAL, GLOBAL)), 24
    pairs = sum(min(t + 1, 6) for t in range(T)) * 2 + T * T / 2 * 2
    got = counts.attention_flops_per_token(a, T) * T
    # A token's own key is a half in the convention of T/2 keys per token.
    assert abs(got - 4 * a.num_heads * a.head_dim * (pairs - 2 * 6 / 2)) < 1
    assert counts.attention_flops_per_token(BASE, T) == 2 * 4 * 4 * 16 * T
    assert counts.cached_tokens(a, T) == 2 * 6 + 2 * T and counts.cached_tokens(a, 4) == 4 * 4
