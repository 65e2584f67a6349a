"""Which family a model is written as, and that hashes of models do not change from version to version."""

import json

import jax
import numpy as np
import pytest

from kanana_jax.errors import UserError
from kanana_jax.interop import families, model_folder
from kanana_jax.models import presets
from kanana_jax.models.architecture import Architecture, RopeScaling, Runtime
from kanana_jax.models.transformer import abstract_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
SHAPE = dict(vocab_size=31, embed_dim=16, mlp_dim=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)
LLAMAS = {
    "untied": Architecture(**SHAPE),
    "tied": Architecture(**SHAPE, tied_embeddings=True, rope_scaling=RopeScaling("yarn", 4.0, 64)),
}


def _params(a: Architecture):
    """Weights that need no generator of random numbers."""
    shapes = abstract_params(a, Runtime())
    return jax.tree.map(lambda x: np.arange(x.size, dtype=np.float32).reshape(x.shape) / x.size, shapes)


def _written(folder, a: Architecture) -> model_folder.ModelFolder:
    model_folder.write(folder, a, _params(a), model_folder.card(a), None, SPECIAL)
    return model_folder.find(folder)


def test_model_types_are_of_one_family_each():
    types = [family.model_type for family in families.FAMILIES]
    assert len(set(types)) == len(types)


@pytest.mark.parametrize("a", [*LLAMAS.values(), presets.essence_8b()])
def test_a_model_without_more_is_a_llama(a):
    assert families.family_of(a).class_name == "LlamaForCausalLM"


def test_a_width_that_is_no_multiple_of_its_heads_makes_a_mistral():
    """The class of Llama refuses it, whatever its head_dim."""
    assert families.family_of(presets.nano_2_1b()).class_name == "MistralForCausalLM"


@pytest.mark.parametrize("tied", [False, True])
def test_norms_of_queries_and_keys_make_a_qwen3(tmp_path, tied):
    a = Architecture(**SHAPE, qk_norm="head", tied_embeddings=tied, rope_theta=1e6)
    written = _written(tmp_path / "a", a)
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert (config["architectures"], config["model_type"], config["head_dim"]) == (["Qwen3ForCausalLM"], "qwen3", 8)
    model_folder.transfer(tmp_path / "a", tmp_path / "hf", keep_card=False)
    model_folder.transfer(tmp_path / "hf", tmp_path / "b", keep_card=True)
    found = model_folder.find(tmp_path / "b")
    assert found.architecture == a == Architecture.from_dict(found.card["architecture"])
    loaded = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    jax.tree.map(np.testing.assert_array_equal, loaded, _params(a))
    assert model_folder.fingerprint(found) == model_folder.fingerprint(written)


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(mlp_bias=True), "mlp_bias = True is not supported"),
        (
            dict(use_sliding_window=True, sliding_window=None, layer_types=["full_attention", "sliding_attention"]),
            "sliding_window is null",
        ),
        (dict(layer_types=["full_attention", "sliding_attention"]), "use_sliding_window is false"),
    ],
)
def test_a_qwen3_that_we_could_not_compute_is_refused(change, told):
    config = families.qwen3.FAMILY.to_config(Architecture(**SHAPE, qk_norm="head"), "float32", SPECIAL)
    with pytest.raises(UserError, match=told) as caught:
        families.from_config(config | change, "config.json")
    assert "\n" not in str(caught.value)


def test_hashes_of_models_without_younger_parts_know_nothing_of_them():
    assert "qk_norm" not in LLAMAS["untied"].to_dict()
    assert Architecture(**SHAPE, qk_norm="head").to_dict() == LLAMAS["untied"].to_dict() | {"qk_norm": "head"}


def test_an_unknown_family_is_refused_by_name():
    with pytest.raises(UserError, match="x: architecture GemmaForCausalLM is not known.*LlamaForCausalLM"):
        families.from_config({"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}, "x")


@pytest.mark.parametrize(
    "name, digest",
    [("untied", "cc6754be48922dec4028f5a83b917cc3"), ("tied", "ad564a5cf2f0c7f9e06e673f57acf82e")],
)
def test_fingerprints_are_those_of_earlier_versions(tmp_path, name, digest):
    """Caches of a teacher's outputs are found by it."""
    assert model_folder.fingerprint(_written(tmp_path / name, LLAMAS[name])) == digest
