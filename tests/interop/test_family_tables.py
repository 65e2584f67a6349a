"""Each family's `config.json` both ways, what it refuses, and which classes a model leaves as."""

import dataclasses
import json
import math

import jax
import pytest

from kanana_jax import cli
from kanana_jax.errors import UserError
from kanana_jax.interop import families, model_folder
from kanana_jax.interop.families.family import canonical
from kanana_jax.models.architecture import Architecture, LayerKind, RopeScaling, Runtime
from kanana_jax.models.transformer import axes_by_path, init_params

SHAPE = dict(vocab_size=31, embed_dim=16, mlp_dim=24, num_layers=5, num_heads=2, num_kv_heads=2, head_dim=8)
WINDOW = LayerKind(8)
BEHIND = dict(norm_placement="post", norm_eps=1e-6)
GEMMA = dict(
    norm_placement="both", norm_unit_offset=True, activation="gelu_tanh", embedding_multiplier=math.sqrt(16),
    attention_multiplier=24**-0.5, logits_softcap=30.0, tied_embeddings=True,
)  # fmt: skip
YARN, LLAMA3, LINEAR = RopeScaling("yarn", 4.0, 64), RopeScaling("llama3", 8.0, 64), RopeScaling("linear", 8.0, 8192)
MODELS = {
    "llama": dict(attention_bias="qkvo", mlp_bias=True, rope_scaling=LLAMA3),
    "mistral": dict(layer_pattern=(WINDOW,), rope_scaling=LINEAR),
    "qwen2": dict(attention_bias="qkv", layer_pattern=(LayerKind(), LayerKind(), WINDOW, WINDOW, WINDOW)),
    "qwen3": dict(qk_norm="head", tied_embeddings=True, layer_pattern=(WINDOW, LayerKind()), rope_scaling=YARN),
    "smollm3": dict(layer_pattern=(LayerKind(), LayerKind(8, rope=False)), rope_theta=2e6),
    "olmo2": dict(qk_norm="width", attention_bias="qkvo", **BEHIND),
    "olmo3": dict(
        qk_norm="width", layer_pattern=(LayerKind(8, rope_scaled=False), LayerKind()), rope_scaling=YARN, **BEHIND
    ),
    "exaone4": dict(qk_norm="head", layer_pattern=(WINDOW, LayerKind(rope=False)), **BEHIND),
    "gemma2": GEMMA | dict(attention_softcap=50.0, layer_pattern=(WINDOW, LayerKind())),
    "gemma3_text": GEMMA
    | dict(qk_norm="head", layer_pattern=(LayerKind(8, True, 1e4, False), LayerKind()), rope_scaling=LINEAR),
    "hyperclovax": dict(
        norm_placement="both", embedding_multiplier=3.0, residual_multiplier=0.5, logits_multiplier=0.3,
        attention_multiplier=0.2,
    ),
    "kanana2_tiny": dict(
        qk_norm="head", layer_pattern=(LayerKind(8, rope_scaled=False),) * 3 + (LayerKind(),), rope_scaling=YARN
    ),
    "mellum": dict(
        qk_norm="head", attention_bias="qkvo", layer_pattern=(LayerKind(8, True, 1e4), LayerKind()),
    ),
    "kanana_jax": dict(qk_norm="width"),
}  # fmt: skip


def model(name):
    return Architecture(**(SHAPE | MODELS[name]))


def config(name):
    return json.loads(json.dumps(families.family_of(model(name)).to_config(model(name), "float32", {})))


def test_every_family_that_can_be_written_is_here():
    assert MODELS.keys() == {family.model_type for family in families.FAMILIES if not family.inner}


@pytest.mark.parametrize("name", MODELS)
def test_a_config_is_read_as_it_was_written(name):
    a = model(name)
    family = families.family_of(a)
    assert family.model_type == name and families.read(config(name), "x") == (family, a) and canonical(a) == a
    named = [tensor for group in family.groups(a) for tensor in group]
    assert {tensor.path for tensor in named} == axes_by_path(a).keys()
    assert len({tensor.name for tensor in named}) == len(named)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "kanana_jax"])
def test_a_switch_that_a_class_has_not_leads_elsewhere(name):
    """A change of any field that decides logits is seen: another family, or other values in the same one."""
    for change in (
        dict(qk_norm="width"), dict(norm_placement="post"), dict(norm_unit_offset=True), dict(attention_bias="qkv"),
        dict(mlp_bias=True), dict(layer_pattern=(LayerKind(3, rope=False),)), dict(partial_rotary_factor=0.5),
        dict(embedding_multiplier=7.0), dict(residual_multiplier=0.9), dict(logits_multiplier=2.0),
        dict(attention_multiplier=0.3), dict(attention_softcap=9.0), dict(logits_softcap=9.0),
        dict(activation="gelu_tanh"), dict(rope_scaling=LLAMA3),
    ):  # fmt: skip
        a = dataclasses.replace(model(name), **change)
        family = families.family_of(a)
        assert families.from_config(family.to_config(a, "float32", {}), "x") == canonical(a), change


REFUSED = [
    ("llama", dict(sliding_window=8), "sliding_window = 8"),
    ("llama", dict(num_experts=8), "num_experts = 8"),
    ("llama", dict(kv_lora_rank=512), "kv_lora_rank = 512"),
    ("llama", dict(rope_parameters={"full_attention": {"rope_type": "default"}}), "table for 'full_attention'"),
    ("llama", dict(quantization_config={"bits": 4}), "weights are quantised"),
    ("mistral", dict(attention_bias=True), "attention_bias = True"),
    ("mistral", dict(sliding_window=None, layer_types=["sliding_attention"] * 5), "layer_types contradicts"),
    ("mistral", dict(sliding_window="8"), "sliding_window = '8'"),
    ("qwen2", dict(use_sliding_window=False), "use_sliding_window is false"),
    ("qwen2", dict(layer_types=["full_attention"] * 4), "layer_types names 4 layers"),
    ("qwen3", dict(sliding_window=None), "sliding_window is null"),
    ("qwen3", dict(layer_types=["linear_attention"] * 5), "'linear_attention' is not supported"),
    ("qwen3", dict(rope_parameters={"full_attention": {"rope_type": "default"}}), "a single RoPE"),
    ("smollm3", dict(no_rope_layers=[1, 0]), "names 2 layers"),
    ("smollm3", dict(no_rope_layers=[]), "names 0 layers"),
    ("smollm3", dict(no_rope_layers=[True] * 5), "a list of 1"),
    ("smollm3", dict(use_sliding_window=False), "use_sliding_window is false"),
    ("olmo2", dict(clip_qkv=8.0), "clip_qkv = 8.0"),
    ("olmo3", dict(rope_parameters={"rope_type": "default", "rope_theta": 1e4}), "'rope_type', and this class"),
    ("olmo3", dict(rope_parameters=None, rope_theta=1e4), "rope_theta does not apply"),
    ("olmo3", dict(sliding_window=None), "sliding_window is null"),
    ("exaone4", dict(layer_types=None, sliding_window_pattern="LLLG"), "not a multiple of sliding_window_pattern"),
    ("exaone4", dict(sliding_window=None), "sliding_window is null"),
    ("hyperclovax", dict(attention_multiplier=-1.0), "attention_multiplier = -1.0"),
    ("gemma2", dict(attn_logit_softcapping=0.0), "attn_logit_softcapping = 0.0"),
    ("gemma2", dict(hidden_activation="gelu"), "hidden_activation = 'gelu'"),
    ("gemma2", dict(use_bidirectional_attention=True), "use_bidirectional_attention = True"),
    ("gemma2", dict(hidden_size_per_layer_input=8), "hidden_size_per_layer_input = 8"),
    ("gemma3_text", dict(attn_logit_softcapping=50.0), "attn_logit_softcapping = 50.0"),
    ("gemma3_text", dict(rope_local_base_freq=5e4), "contradict each other"),
    ("kanana2_tiny", dict(layer_types=None), "'layer_types' is missing"),
    ("kanana2_tiny", dict(rope_parameters={"full_attention": {"rope_type": "default"}}), "table for 'sliding_attention'"),
    ("mellum", dict(mlp_layer_types=["sparse"] * 5), "'dense' for each layer"),
    ("kanana_jax", dict(architecture={"vocab_size": 10**12}), "vocab_size = 1000000000000"),
]  # fmt: skip


@pytest.mark.parametrize("name, change, told", REFUSED)
def test_what_would_have_other_logits_is_refused(name, change, told):
    with pytest.raises(UserError, match=told) as caught:
        families.from_config(config(name) | change, "config.json")
    assert (
        "\n" not in str(caught.value) and str(caught.value).startswith("config.json") and len(str(caught.value)) < 300
    )


@pytest.mark.parametrize("name", MODELS)
def test_harmless_keys_pass(name):
    more = dict(use_cache=True, attention_dropout=0.1, pretraining_tp=2, unsloth_version="1", temperature=0.6)
    assert families.from_config(config(name) | more, "x") == model(name)


def test_export_as(tmp_path, capsys):
    a = Architecture(**SHAPE)
    params = init_params(a, Runtime(), jax.random.key(0))
    model_folder.write(tmp_path / "m", a, params, model_folder.card(a), None, {})
    assert cli.main(["export", str(tmp_path / "m"), str(tmp_path / "out"), "--as", "smollm3"]) == 0
    assert model_folder.find(tmp_path / "out").family.model_type == "smollm3"
    for name, told, code in (
        ("qwen3", "Qwen3ForCausalLM has no qk_norm 'none'; classes that compute the same function: llama, mistral", 1),
        ("gpt2", "there is no family 'gpt2'", 2),
        ("kanana_jax", "there is no family 'kanana_jax'", 2),
    ):
        capsys.readouterr()
        assert cli.main(["export", str(tmp_path / "m"), str(tmp_path / "no"), "--as", name]) == code
        assert told in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_a_model_of_no_public_class_is_kept_and_not_exported(tmp_path, capsys):
    a = model("kanana_jax")
    params = init_params(a, Runtime(), jax.random.key(0))
    model_folder.write(tmp_path / "m", a, params, model_folder.card(a), None, {})
    found = model_folder.find(tmp_path / "m")
    assert (found.architecture, found.family.model_type) == (a, "kanana_jax")
    model_folder.transfer(tmp_path / "m", tmp_path / "copy", keep_card=True)
    assert model_folder.fingerprint(model_folder.find(tmp_path / "copy")) == model_folder.fingerprint(found)
    assert cli.main(["export", str(tmp_path / "m"), str(tmp_path / "no")]) == 1
    assert "no public class computes this model" in capsys.readouterr().err and not (tmp_path / "no").exists()
