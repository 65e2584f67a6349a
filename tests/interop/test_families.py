"""Which family a model is written as, and that hashes of models do not change from version to version."""

import jax
import numpy as np
import pytest

from kanana_jax.errors import UserError
from kanana_jax.interop import families, model_folder
from kanana_jax.models import presets
from kanana_jax.models.architecture import Architecture, RopeScaling, Runtime
from kanana_jax.models.transformer import abstract_params

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


@pytest.mark.parametrize("a", [*LLAMAS.values(), presets.essence_8b(), presets.nano_2_1b()])
def test_a_model_without_more_is_a_llama(a):
    assert families.family_of(a).class_name == "LlamaForCausalLM"


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
