"""GGUF files: every tensor under the name that the package gguf has for it, keys, the vocabulary, and refusals."""

import dataclasses
import json
import sys

import gguf
import gguf_models
import numpy as np
import pytest
import tokenizers

from kanana_jax import cli
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder
from kanana_jax.interop.gguf import architectures, file, vocabulary
from kanana_jax.models.architecture import LayerKind

NEIGHBOURS = ("llama", "smollm3", "granite")
QUICK = [name for name, (_, a) in gguf_models.MODELS.items() if a.num_layers < 64]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return gguf_models.tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def models(tmp_path_factory, words):
    """Name → folder, made when it is asked for."""
    place, made = tmp_path_factory.mktemp("models"), {}

    def folder(name: str):
        if name not in made:
            made[name] = place / name.replace(" ", "_")
            gguf_models.write(made[name], gguf_models.MODELS[name][1], words)
        return made[name]

    return folder


def _read(path):
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}, reader.tensors


def _values(tensor) -> np.ndarray:
    found = gguf.quants.dequantize(np.asarray(tensor.data), tensor.tensor_type)
    return found.reshape(tensor.shape[::-1])


def _theirs(folder) -> dict[str, np.ndarray]:
    """Hugging Face's names → values."""
    found = model_folder.find(folder)
    weights = model_folder.open_weights(found)
    return {found.family.name(t): weights.read(t) for group in found.family.groups(found.architecture) for t in group}


@pytest.mark.parametrize("name", QUICK)
def test_every_tensor_is_there_as_llama_cpp_has_it(models, tmp_path, name):
    arch, a = gguf_models.MODELS[name]
    file.export(models(name), tmp_path / "m.gguf", "f32")
    keys, tensors = _read(tmp_path / "m.gguf")
    assert keys["general.architecture"] == arch
    found = {tensor.name: _values(tensor) for tensor in tensors}
    number = {architecture: key for key, architecture in gguf.MODEL_ARCH_NAMES.items()}
    known = gguf.get_tensor_name_map(number["qwen3" if arch == "mellum" else arch], a.num_layers)
    for called, value in _theirs(models(name)).items():
        # HyperCLOVA X has Granite's names but for norms that are not in these models.
        target = known.get_name(called, try_suffixes=(".weight", ".bias"))
        assert target is not None, called
        if arch == "mellum" and ".ffn_" in target and "norm" not in target:
            halves = found.pop(target.replace(".weight", "_exps.weight"))
            joined = np.concatenate(list(halves), axis=1 if "down" in target else 0)
            np.testing.assert_array_equal(joined / (2 if "down" in target else 1), value)
            continue
        ours = found.pop(target)
        if arch in NEIGHBOURS and (".attn_q." in target or ".attn_k." in target):
            heads = a.num_heads if ".attn_q." in target else a.num_kv_heads
            pairs = ours.reshape(heads, a.head_dim // 2, 2, -1)
            ours = np.concatenate([pairs[:, :, 0], pairs[:, :, 1]], axis=1).reshape(value.shape)
        np.testing.assert_array_equal(ours, value + 1 if arch.startswith("gemma") and "norm" in target else value)
    if arch in ("olmo2", "mellum") and a.tied_embeddings:
        np.testing.assert_array_equal(
            found.pop("output.weight"), found.get("token_embd.weight", _embedding(models(name)))
        )
    if arch == "mellum":
        assert not any(found.pop(f"blk.{layer}.ffn_gate_inp.weight").any() for layer in range(a.num_layers))
    factors = found.pop("rope_freqs.weight", None)
    assert not found and (factors is not None) == (a.rope_scaling is not None and a.rope_scaling.type == "llama3")


def _embedding(folder):
    return _theirs(folder)["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("llama 3", {"llama.rope.freq_base": 5e5, "llama.attention.key_length": 8, "llama.context_length": 128}),
        (
            "llama with yarn",
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0,
             "llama.rope.scaling.original_context_length": 32},
        ),
        ("llama slowed", {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}),
        ("qwen3", {"qwen3.rope.scaling.attn_factor": pytest.approx(1.3 / (0.1 * np.log(4) + 1))}),
        ("olmo3", {"olmo2.attention.sliding_window": 8, "olmo2.attention.sliding_window_pattern": 4}),
        (
            "gemma2",
            {"gemma2.attn_logit_softcapping": 5.0, "gemma2.final_logit_softcapping": 9.0,
             "gemma2.attention.sliding_window_pattern": 2, "gemma2.attention.sliding_window": 8},
        ),
        ("gemma2 without windows", {"gemma2.attention.sliding_window": 128}),
        ("gemma3", {"gemma3.rope.freq_base_swa": 1e4, "gemma3.rope.freq_base": 1e6}),
        ("hyperclovax", {"granite.logit_scale": 0.5, "granite.residual_scale": 0.5}),
        ("kanana2_tiny", {"mellum.expert_count": 2, "mellum.expert_used_count": 2}),
        ("windows first", {"mellum.attention.sliding_window_pattern": [False, True, True]}),
    ],
)  # fmt: skip
def test_keys(models, tmp_path, name, wanted):
    file.export(models(name), tmp_path / "m.gguf", "f32")
    keys, _ = _read(tmp_path / "m.gguf")
    assert {key: keys[key] for key in wanted} == wanted


def test_factors_of_llama_3s_rope_are_those_of_long_waves(models, tmp_path):
    """The formula of arXiv:2407.21783's code: the longest are slowed by the whole factor, the shortest not at all."""
    file.export(models("llama 3"), tmp_path / "m.gguf", "f32")
    factors = next(_values(t) for t in _read(tmp_path / "m.gguf")[1] if t.name == "rope_freqs.weight")
    turns = 32 / (2 * np.pi * 5e5 ** (np.arange(0, 8, 2) / 8))
    smooth = np.clip((turns - 1.0) / 3.0, 0, 1)
    np.testing.assert_allclose(factors, 1 / ((1 - smooth) / 8 + smooth), rtol=1e-5)


def test_the_vocabulary_with_what_stands_around_a_text(models, words, tmp_path):
    file.export(models("llama 3"), tmp_path / "m.gguf", "f32")
    keys, _ = _read(tmp_path / "m.gguf")
    ours, library = load_tokenizer(words), tokenizers.Tokenizer.from_file(str(words / "tokenizer.json"))
    pieces = keys["tokenizer.ggml.tokens"]
    assert pieces[: gguf_models.TOKENS] == [library.id_to_token(i) for i in range(gguf_models.TOKENS)]
    special = set(library.get_added_tokens_decoder())
    assert keys["tokenizer.ggml.token_type"] == [3 if i in special else 1 for i in range(gguf_models.TOKENS)] + [5] * 4
    assert len(set(pieces)) == len(pieces) == gguf_models.BASE.vocab_size
    definition = json.loads((words / "tokenizer.json").read_bytes())
    assert [tuple(m.split(" ")) for m in keys["tokenizer.ggml.merges"]] == list(
        map(tuple, definition["model"]["merges"])
    )
    assert (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"]) == ("gpt2", "llama-bpe")
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"]) == (ours.bos_id, ours.eos_id)
    assert keys["tokenizer.ggml.eot_token_id"] == ours.token_id("<|eot_id|>")
    assert (keys["tokenizer.ggml.add_bos_token"], keys["tokenizer.ggml.add_eos_token"]) == (True, False)
    assert keys["tokenizer.chat_template"] == (words / "chat_template.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_narrower_dtypes_lose_what_they_must(models, tmp_path, dtype):
    file.export(models("llama with biases"), tmp_path / "m.gguf", dtype)
    file.export(models("llama with biases"), tmp_path / "f32.gguf", "f32")
    keys, tensors = _read(tmp_path / "m.gguf")
    assert keys["general.file_type"] == {"f16": 1, "bf16": 32, "q8_0": 7}[dtype]
    for tensor, exact in zip(tensors, _read(tmp_path / "f32.gguf")[1], strict=True):
        x, y, kind = _values(exact), _values(tensor), tensor.tensor_type.name
        assert (tensor.name, kind) == (exact.name, "F32" if x.ndim == 1 else dtype.upper())
        if x.ndim == 1:
            np.testing.assert_array_equal(y, x)
        elif dtype == "q8_0":  # 32 numbers share a scale, their largest over 127, which is held in float16
            blocks = x.reshape(-1, 32)
            scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
            assert np.all(np.abs(y.reshape(-1, 32) - blocks) <= scale * (0.5 + 127 * 2.0**-11 + 1e-5))
        else:
            np.testing.assert_allclose(y, x, rtol=2.0 ** -(11 if dtype == "f16" else 8), atol=1e-7)


def test_rows_that_are_no_blocks_stay_in_float16(models, words, tmp_path):
    a = dataclasses.replace(gguf_models.BASE, mlp_dim=40)
    gguf_models.write(tmp_path / "narrow", a, words)
    file.export(tmp_path / "narrow", tmp_path / "m.gguf", "q8_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in _read(tmp_path / "m.gguf")[1]}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


def test_the_verb(models, tmp_path, capsys, monkeypatch):
    out = tmp_path / "m.gguf"
    assert cli.main(["export", str(models("llama 3")), str(out)]) == 0
    assert _read(out)[0]["general.file_type"] == 0  # as the folder
    assert cli.main(["export", str(models("llama 3")), str(out)]) == 2 and "exists" in capsys.readouterr().err
    assert cli.main(["export", str(models("llama 3")), str(tmp_path / "x"), "--dtype", "f16"]) == 2
    assert "OUT.gguf" in capsys.readouterr().err
    assert cli.main(["export", str(models("llama 3")), str(tmp_path / "x.gguf"), "--as", "mistral"]) == 2
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert cli.main(["export", str(models("llama 3")), str(tmp_path / "x.gguf")]) == 1
    assert "kanana-jax[gguf]" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_a_file_is_whole_or_not_there(words, tmp_path):
    found = gguf_models.params(gguf_models.BASE)
    found["unembedding"] = found["unembedding"] * 1e6
    model_folder.write(tmp_path / "m", gguf_models.BASE, found, model_folder.card(gguf_models.BASE), words,
                       {"bos_token_id": 1, "eos_token_id": 2})  # fmt: skip
    with pytest.raises(UserError, match=r"output\.weight has values beyond float16.*bf16"):
        file.export(tmp_path / "m", tmp_path / "m.gguf", "f16")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    "changes, told",
    [
        (dict(layer_pattern=(LayerKind(8),)), "the nearest of its architectures, llama, has no layer_pattern"),
        (dict(qk_norm="head", attention_bias="qkvo"), "llama, has no qk_norm 'head'"),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor"),
        (dict(rope_scaling=dataclasses.replace(gguf_models.YARN, beta_fast=16.0)), "beta_fast other than 32"),
        (
            dict(qk_norm="head", mlp_bias=True, layer_pattern=(LayerKind(8), LayerKind())),
            "llama, has no qk_norm",
        ),
    ],
)
def test_a_model_that_llama_cpp_does_not_compute_is_refused(changes, told):
    with pytest.raises(UserError, match=told) as caught:
        architectures.architecture_of(dataclasses.replace(gguf_models.BASE, **changes), "M")
    assert "families that it has: llama, mistral, qwen2" in str(caught.value) and "\n" not in str(caught.value)


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(pattern: str, behavior: str = "Isolated", invert: bool = False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


@pytest.mark.parametrize(
    "steps, whole_words, wanted",
    [
        ([{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}], False, "smollm"),
        ([BYTES | {"use_regex": True}], False, "gpt-2"),
        ([_split(QWEN), BYTES], False, "qwen2"),
        ([_split(QWEN, "Removed", True), BYTES], False, "qwen2"),
        (None, False, "smaug-bpe"),
        ([_split(QWEN), BYTES], True, "llama.cpp has no pre-tokenizer with its expressions and ignore_merges true"),
        ([_split(QWEN, "MergedWithNext"), BYTES], False, "splits with behavior MergedWithNext"),
        ([_split(r"\w+"), BYTES], False, "llama.cpp has no pre-tokenizer with its expressions, so"),
        ([BYTES | {"add_prefix_space": True}], False, "puts a space before a text"),
        ([_split(QWEN)], False, "does not end in bytes"),
        ([{"type": "Punctuation"}, BYTES], False, "has a step Punctuation"),
    ],
)
def test_the_pre_tokenizer_is_named_by_what_it_does(words, tmp_path, steps, whole_words, wanted):
    definition = json.loads((words / "tokenizer.json").read_bytes())
    definition["model"]["ignore_merges"] = whole_words
    if steps is not None:
        definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    for path in words.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    if " " not in wanted:
        assert vocabulary.read(tmp_path, gguf_models.TOKENS).pre == wanted
        return
    with pytest.raises(UserError, match=f"would tokenize texts differently.*{wanted}"):
        vocabulary.read(tmp_path, gguf_models.TOKENS)
