"""Folders of every family that are damaged, quantised, or contradict themselves: one sentence, never other logits."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_family_tables import MODELS, config, model

from kanana_jax import cli
from kanana_jax.errors import UserError
from kanana_jax.interop import families, model_folder
from kanana_jax.interop.families.family import canonical

GATE, EMBED, HEAD = "model.layers.3.mlp.gate_proj.weight", "model.embed_tokens.weight", "lm_head.weight"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PUBLIC = [name for name in MODELS if name != "kanana_jax"]


class Folder:
    """A family's folder: what is in it, and a copy with something else."""

    def __init__(self, name, path):
        self.name, self.path, self.a = name, path, model(name)
        draw = np.random.default_rng(0)
        groups = families.family_of(self.a).groups(self.a)
        self.tensors = {t.name: draw.normal(size=t.shape).astype(np.float32) for group in groups for t in group}
        self.config, self.tries = config(name), 0
        self.read()

    def put(self, change=None, tensors=None, spoil=None):
        """The folder with other keys, other tensors, or spoilt as a whole."""
        self.tries += 1
        folder = self.path / f"{self.tries}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config | (change or {})), encoding="utf-8")
        save_file(self.tensors if tensors is None else tensors, str(folder / SINGLE))
        if spoil:
            spoil(folder)
        return folder

    def read(self, **how):
        """Reads every tensor, as whatever loads a model does."""
        weights = model_folder.open_weights(model_folder.find(self.put(**how)))
        weights.outer()
        return [weights.layer(i) for i in range(self.a.num_layers)]

    def some(self):
        """Names of tensors: the outer ones, and those of a layer."""
        return [name for name in self.tensors if "layers" not in name or "layers.3" in name]


@pytest.fixture(scope="module", params=PUBLIC)
def folder(request, tmp_path_factory):
    return Folder(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def refused(folder):
    """Asserts that reading ends with one sentence, which names the folder's file and something more."""

    def check(*named, **how):
        with pytest.raises(UserError) as caught:
            folder.read(**how)
        told = str(caught.value)
        assert "\n" not in told and len(told) < 500, told
        assert str(folder.path / f"{folder.tries}") in told and all(str(name) in told for name in named), told

    return check


def test_the_verb_says_so(folder, capsys):
    assert cli.main(["import", str(folder.put()), str(folder.path / "good")]) == 0
    spoilt = folder.put(tensors=_without(folder, GATE))
    capsys.readouterr()
    assert cli.main(["import", str(spoilt), str(folder.path / "bad")]) == 1
    told = capsys.readouterr().err.strip()
    assert "\n" not in told and str(spoilt) in told and GATE in told and not (folder.path / "bad").exists()


def _without(folder, name):
    return {key: value for key, value in folder.tensors.items() if key != name}


def test_tensors_that_lack_or_are_too_many(folder, refused):
    for name in folder.some():
        refused(name, tensors=_without(folder, name))
    for name in ("model.layers.5.mlp.up_proj.weight", "model.layers.0.mlp.experts.0.up_proj.weight", GATE + "_scale"):
        refused(name, tensors=folder.tensors | {name: np.ones((2, 2), np.float32)})


def test_tensors_of_another_shape_or_kind(folder, refused):
    for name in folder.some():
        longer = np.append(folder.tensors[name], folder.tensors[name][:1], axis=0)
        refused(name, "has shape", tensors=folder.tensors | {name: longer})
    for dtype, called in ((np.int8, "I8"), (np.float64, "F64"), (ml_dtypes.float8_e4m3fn, "F8_E4M3")):
        refused(GATE, called, tensors=folder.tensors | {GATE: folder.tensors[GATE].astype(dtype)})


def test_values_that_are_not_finite(folder, refused):
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        for value in (np.nan, np.inf, -np.inf):
            spoilt = folder.tensors[GATE].astype(dtype)
            spoilt[-1, -1] = value
            refused(GATE, SINGLE, "NaN or infinite", tensors=folder.tensors | {GATE: spoilt})
    largest = {name: np.full_like(value, np.finfo(np.float32).max) for name, value in folder.tensors.items()}
    folder.read(tensors=largest)


def _cut(folder):
    with (folder / SINGLE).open("r+b") as file:
        file.truncate(file.seek(0, 2) - 5)


def _two_files(folder):
    """An index of two files, of which one is not there."""
    tensors = load_file(str(folder / SINGLE))
    (folder / SINGLE).unlink()
    save_file({GATE: tensors.pop(GATE)}, str(folder / "b.safetensors"))
    save_file(tensors, str(folder / "a.safetensors"))
    places = dict.fromkeys(tensors, "a.safetensors") | {GATE: "b.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    (folder / "b.safetensors").unlink()


def test_files_that_are_cut_or_missing(folder, refused):
    refused(SINGLE, "truncated", spoil=_cut)
    refused(INDEX, "b.safetensors", "missing", spoil=_two_files)
    refused("no .safetensors file", spoil=lambda path: (path / SINGLE).unlink())


QUANTISED = {
    "gptq": dict(quantization_config=dict(quant_method="gptq", bits=4, group_size=128)),
    "awq": dict(quantization_config=dict(quant_method="awq", bits=4, zero_point=True)),
    "bitsandbytes": dict(quantization_config=dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "fp8": dict(quantization_config=dict(quant_method="fp8", weight_block_size=[128, 128])),
    "compressed": dict(compression_config=dict(format="pack-quantized")),
}


def test_quantised_weights(folder, refused):
    for change in QUANTISED.values():
        refused("config.json", next(iter(change)), "quantised", change=change)
        refused("config.json", "quantised", change=change, tensors=_without(folder, GATE))


# Keys that some family's logits depend on, with values that change them.
OTHERS = dict(
    attention_bias=True, mlp_bias=True, qkv_bias=True, use_qk_norm=True, use_post_norm=True, clip_qkv=8.0,
    attn_logit_softcapping=9.0, final_logit_softcapping=9.0, query_pre_attn_scalar=7, attention_multiplier=0.7,
    logits_scaling=0.7, embedding_multiplier=7.0, residual_multiplier=0.7, partial_rotary_factor=0.5,
    num_experts=8, n_routed_experts=8, moe_intermediate_size=64, kv_lora_rank=16, q_lora_rank=16, use_mla=True,
    attention_sinks=True, hidden_size_per_layer_input=8, linear_num_key_heads=2, attention_chunk_size=8,
    no_rope_layers=[0, 0, 0, 0, 0], is_causal=False, use_bidirectional_attention=True, sliding_window=3,
    layer_types=["full_attention"] * 4 + ["sliding_attention"], rope_theta=77.0, hidden_act="gelu",
)  # fmt: skip
# Of classes that do not read a key: transformers' own ignore it too.
UNREAD = {
    "hidden_act": ("gemma2", "gemma3_text"),  # hidden_activation counts
    "num_experts": ("mellum",),
    "moe_intermediate_size": ("mellum",),  # of experts that no layer has
    "sliding_window": (),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_key_that_changes_logits_is_refused_or_changes_the_model(name):
    before, a = config(name), canonical(model(name))
    for key, value in OTHERS.items():
        try:
            found = families.from_config(before | {key: value}, "config.json")
        except UserError as error:
            assert key in str(error) and str(error).startswith("config.json") and "\n" not in str(error)
        else:
            harmless = name in UNREAD.get(key, ()) or before.get(key) == value
            assert (found != a) != harmless, (key, value)


def test_keys_that_contradict_each_other_or_the_tensors(folder, refused):
    more = dict(num_hidden_layers=6)
    if "layer_types" in folder.config:
        refused("config.json", "layer_types", change=dict(layer_types=["full_attention"] * 4))
        refused("config.json", "chunked", change=dict(layer_types=["chunked"] * 5))
        refused("config.json", "layer", change=more)
    else:
        refused("model.layers.5", change=more)
    refused("head_dim", change=dict(head_dim=7))
    refused("has shape", change=dict(head_dim=4))
    refused("config.json", "num_key_value_heads", change=dict(num_key_value_heads=-2))
    refused("num_kv_heads", change=dict(num_attention_heads=3, head_dim=8, hidden_size=18))
    refused("has shape", change=dict(vocab_size=30))
    refused("config.json", "num_hidden_layers", change=dict(num_hidden_layers="5"))
    refused("config.json", "architectures", change=dict(architectures=["GPT2LMHeadModel"]))
    if any(kind.window for kind in folder.a.kinds) and folder.name != "mistral":
        refused("config.json", "sliding_window", change=dict(sliding_window=None))
    unknown = dict(rope_type="longrope", factor=8.0)
    by_type = "full_attention" in (folder.config.get("rope_parameters") or {})
    tables = dict.fromkeys(("full_attention", "sliding_attention"), unknown) if by_type else unknown
    refused("config.json", "longrope", change=dict(rope_parameters=tables, rope_scaling=None))


def test_ties_that_the_tensors_contradict(folder, refused):
    tied = folder.tensors[EMBED]
    if not folder.a.tied_embeddings:
        refused("tie_word_embeddings", HEAD, change=dict(tie_word_embeddings=True))
        return
    refused(HEAD, change=dict(tie_word_embeddings=False))
    refused("tie_word_embeddings", tensors=folder.tensors | {HEAD: tied + 1})
    folder.read(tensors=folder.tensors | {HEAD: tied.copy()})
