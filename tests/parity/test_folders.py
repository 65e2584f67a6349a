"""Folders that say one thing in several ways, or two things at once: the logits of `transformers`, or a refusal."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.transformer import bind
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
ORIGINAL = dict(original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, **ORIGINAL)
# name → (change of config.json, whether we compute it; else we may refuse).
CONFIGS = {
    "plain": ({}, True),
    "llama3 of 4": (dict(rope_scaling=LLAMA3 | ORIGINAL, rope_parameters=None, rope_theta=10000.0), True),
    "llama3 of 5": (dict(rope_parameters=LLAMA3 | ORIGINAL | dict(rope_theta=10000.0), rope_theta=None), True),
    "llama3 in integers": (
        dict(rope_parameters=dict(rope_type="llama3", factor=8, low_freq_factor=1, high_freq_factor=4) | ORIGINAL), True,
    ),
    "llama3 without a length": (dict(rope_parameters=LLAMA3), True),
    "both sections": (dict(rope_scaling=LLAMA3 | ORIGINAL, rope_parameters=LLAMA3 | ORIGINAL), True),
    "both sections differ": (
        dict(rope_scaling=LLAMA3 | ORIGINAL, rope_parameters=LLAMA3 | ORIGINAL | dict(factor=2.0)), False,
    ),
    "an empty section": (dict(rope_scaling=None, rope_parameters=LLAMA3 | ORIGINAL), True),
    "two lengths": (dict(rope_parameters=LLAMA3 | ORIGINAL, original_max_position_embeddings=64), False),
    "a length beside": (dict(rope_parameters=LLAMA3, original_max_position_embeddings=64), True),
    "two bases": (dict(rope_theta=5e4), False),
    "base of the section": (dict(rope_theta=None, rope_parameters=dict(rope_type="default", rope_theta=5e4)), True),
    "yarn": (dict(rope_parameters=YARN), True),
    "yarn, another factor than the lengths": (dict(rope_parameters=YARN | dict(factor=2.0)), True),
    "yarn with its own temperature": (dict(rope_parameters=YARN | dict(attention_factor=0.7)), True),
    "yarn of DeepSeek": (dict(rope_parameters=YARN | dict(mscale=0.707, mscale_all_dim=1.0)), True),
    "yarn with one weight": (dict(rope_parameters=YARN | dict(mscale=1.0)), True),
    "yarn with weights of 1": (dict(rope_parameters=YARN | dict(mscale=1.0, mscale_all_dim=1.0)), True),
    "yarn with betas": (dict(rope_parameters=YARN | dict(beta_fast=16, beta_slow=2)), True),
    "yarn without a length": (dict(rope_parameters=dict(rope_type="yarn", factor=4.0)), True),
    "yarn not cut off": (dict(rope_parameters=YARN | dict(truncate=False)), False),
    "yarn cut off by 1": (dict(rope_parameters=YARN | dict(truncate=1)), False),
    "linear": (dict(rope_parameters=dict(rope_type="linear", factor=2.0)), False),
    "dynamic": (dict(rope_parameters=dict(rope_type="dynamic", factor=2.0)), False),
    "partial": (dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)), False),
    "partial beside": (dict(partial_rotary_factor=0.5), False),
    "window": (dict(sliding_window=8), False),
    "swish": (dict(hidden_act="swish"), True),
    "tied": (dict(tie_word_embeddings=True), False),
    "biases": (dict(attention_bias=True), False),
    "heads from the width": (dict(head_dim=None), True),
    "no norm's epsilon": (dict(rms_norm_eps=...), True),
    "another epsilon": (dict(rms_norm_eps=1e-3), True),
    "no kv heads": (dict(num_key_value_heads=...), False),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, initializer_range=0.3, rope_theta=10000.0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("plain")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _with(plain, folder, change):
    folder.mkdir()
    config = json.loads((plain / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    (folder / "model.safetensors").symlink_to(plain / "model.safetensors")
    return folder


TOKENS = np.random.default_rng(0).integers(3, 61, (2, 96))


def _theirs(folder):
    """Logits, or None where they refuse or fail."""
    try:
        model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            return model.eval()(torch.tensor(TOKENS)).logits.numpy()
    except Exception:  # of many kinds
        return None


def _ours(folder):
    """Logits, or the refusal; the same by a folder that was imported."""
    found = model_folder.find(folder)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    model = bind(found.architecture, Runtime(), params)
    return np.asarray(model.unembed(model(jnp.asarray(TOKENS))))


def _compare(folder, computed):
    want = _theirs(folder)
    try:
        got = _ours(folder)
    except UserError as error:
        assert not computed and "\n" not in str(error), error
        return
    assert want is not None, "transformers computes nothing"
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_logits_or_a_refusal(plain, tmp_path, name):
    change, computed = CONFIGS[name]
    _compare(_with(plain, tmp_path / "f", change), computed)


def _tied(named):
    """Folders with the embedding, the output matrix, both alike, both and different."""
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    rest = {k: v for k, v in named.items() if k not in (embedding, head)}
    same = {embedding: named[embedding], head: named[embedding].copy()}
    yield "embedding", rest | {embedding: named[embedding]}, True
    yield "head", rest | {head: named[head]}, True
    yield "alike", rest | same, True
    yield "different", named, False


def test_tied_matrices(plain, tmp_path):
    for name, tensors, computed in _tied(load_file(str(plain / "model.safetensors"))):
        folder = _with(plain, tmp_path / name, dict(tie_word_embeddings=True))
        (folder / "model.safetensors").unlink()
        save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
        _compare(folder, computed)
