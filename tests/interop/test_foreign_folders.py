"""Folders of strangers: what would compute other logits than it says is refused, by every way in, in one sentence."""

import json
import shutil
import struct
import tracemalloc
import types

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kanana_jax.data.tokens import folder as folder_files
from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import from_config, llama, qwen3
from kanana_jax.models.architecture import Architecture, RopeScaling, Runtime
from kanana_jax.models.transformer import abstract_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe.config import check_models
from kanana_jax.surgery import streaming, upscale

SHAPE = dict(
    vocab_size=40, embed_dim=16, mlp_dim=24, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4, max_seq_len=64
)
A = Architecture(**SHAPE)
TIED = Architecture(**SHAPE, tied_embeddings=True)
EMBED, HEAD, GATE = "model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.gate_proj.weight"
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)


def tensors(a=A, dtype=np.float32):
    rng = np.random.default_rng(0)
    named = [tensor for group in llama.FAMILY.groups(a) for tensor in group]
    return {tensor.name: rng.normal(size=tensor.shape).astype(dtype) for tensor in named}


def put(folder, config=None, weights=None, a=A):
    """A folder as transformers writes it: config.json and one file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(llama.FAMILY.to_config(a, "float32", {}) | (config or {})))
    save_file(tensors(a) if weights is None else weights, str(folder / "model.safetensors"))
    return folder


def load(folder, dtype="float32"):
    found = model_folder.find(folder)
    return model_folder.load_params(found, Runtime(param_dtype=dtype), make_mesh(MeshConfig(), jax.devices()[:1]))


def deeper(folder, out):
    found = model_folder.find(folder)
    cuts = upscale.cut_list(found.architecture, upscale.UpscaleConfig(found.architecture.num_layers + 1))
    streaming.apply_to_folder(cuts, found, out, model_folder.card(cuts.after))


def refused(folder, told, tmp_path):
    """By import and export, loading, hashing and surgery; nothing is left."""
    ways = [
        load,
        lambda f: model_folder.fingerprint(model_folder.find(f)),
        lambda f: deeper(f, tmp_path / "deeper"),
        lambda f: model_folder.transfer(f, tmp_path / "out", keep_card=True),
    ]
    for way in ways:
        with pytest.raises(UserError, match=told) as caught:
            way(folder)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not (tmp_path / "out").exists() and not (tmp_path / "deeper").exists()


CONFIGS = {
    "quantised": (dict(quantization_config={"quant_method": "fp8"}), "weights are quantised"),
    "quantised in no way": (dict(quantization_config={}), "weights are quantised"),
    "window": (dict(sliding_window=16), "sliding_window = 16"),
    "window of a flag": (dict(sliding_window=16, use_sliding_window=True), "use_sliding_window = True"),
    "layers": (dict(layer_types=["full_attention", "chunked"]), "layer of type 'chunked'"),
    "partial": (dict(partial_rotary_factor=0.5), "partial_rotary_factor = 0.5"),
    "scaled logits": (dict(logits_scaling=8.0), "logits_scaling = 8.0"),
    "text for a bool": (dict(tie_word_embeddings="false"), "tie_word_embeddings = 'false' .* true or false"),
    "number for a bool": (dict(attention_bias=1), "attention_bias = 1"),
    "bool for a number": (dict(num_hidden_layers=True), "num_hidden_layers = True .* an integer"),
    "text for a number": (dict(rms_norm_eps="1e-5"), "rms_norm_eps = '1e-5' .* a number"),
    "no number": (dict(rope_theta=float("nan")), "rope_theta = nan"),
    "null for a number": (dict(rms_norm_eps=None), "rms_norm_eps = None"),
    "negative": (dict(intermediate_size=-24), "intermediate_size = -24 .* between 1 and"),
    "a part": (dict(hidden_size=16.0), "hidden_size = 16.0 .* an integer"),
    "no heads": (dict(num_key_value_heads=0), "num_key_value_heads = 0"),
    "heads that do not divide": (dict(head_dim=None, num_attention_heads=3), "not a multiple of num_attention_heads"),
    "another width of heads": (dict(head_dim=None, num_attention_heads=2), "has shape"),
    "another class": (dict(architectures=["MistralForCausalLM"]), "'MistralForCausalLM'.* contradict"),
    "activation": (dict(hidden_act="gelu"), "hidden_act = 'gelu'"),
    "two bases": (dict(rope_theta=1e6), "rope_theta 1e\\+06 and rope_parameters.rope_theta 500000 contradict"),
    "two scalings": (
        dict(rope_scaling=dict(rope_type="llama3", **LLAMA3), rope_parameters=dict(rope_type="llama3", **LLAMA3 | dict(factor=4.0))),
        "factor is 8.0 in rope_scaling and 4.0 in rope_parameters",
    ),
    "two kinds": (dict(rope_scaling=dict(rope_type="llama3", type="yarn", **LLAMA3)), "rope_type 'llama3' and type 'yarn'"),
    "scaling without a kind": (dict(rope_parameters=LLAMA3), "'factor' without a rope_type"),
    "a key less": (dict(rope_parameters={k: v for k, v in dict(LLAMA3, rope_type="llama3").items() if k != "low_freq_factor"}), "needs the key 'low_freq_factor'"),
    "text for a factor": (dict(rope_parameters=dict(LLAMA3, rope_type="llama3", factor="8.0")), "factor = '8.0'"),
    "unknown kind": (dict(rope_parameters=dict(rope_type="longrope", factor=2.0)), "'longrope' is not supported"),
    "no kind": (dict(rope_parameters=dict(rope_type=["yarn"])), "rope_type = \\['yarn'\\]"),
    "not cut off": (dict(rope_parameters=dict(rope_type="yarn", factor=2.0, truncate=False)), "truncate = False"),
    "cut off by 1": (dict(rope_parameters=dict(rope_type="yarn", factor=2.0, truncate=1)), "truncate = 1 "),
    "no table": (dict(rope_scaling="linear"), "rope_scaling = 'linear'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_says_another_model_is_refused(tmp_path, name):
    change, told = CONFIGS[name]
    refused(put(tmp_path / "f", change), told, tmp_path)


def _without(name):
    return {k: v for k, v in tensors().items() if k != name}


WEIGHTS = {
    "int8": (lambda: tensors() | {GATE: np.ones((24, 16), np.int8)}, f"{GATE} is of dtype I8, as quantised"),
    "fp8": (lambda: tensors() | {GATE: np.ones((24, 16), ml_dtypes.float8_e4m3fn)}, f"{GATE} is of dtype F8_E4M3"),
    "packed": (
        lambda: _without(GATE) | {GATE.replace("weight", "qweight"): np.ones((2, 24), np.int32)},
        f"lacks the tensor {GATE}",
    ),
    "scales": (lambda: tensors() | {GATE + "_scale": np.ones((24, 1), np.float32)}, "weight_scale, for which Llama"),
    "bias": (lambda: tensors() | {"model.layers.0.self_attn.q_proj.bias": np.ones(16, np.float32)}, "q_proj.bias"),
    "further layer": (lambda: tensors() | {"model.layers.2.input_layernorm.weight": np.ones(16, np.float32)}, "layers.2"),
    "name of a terminal": (lambda: tensors() | {"a\n\x1b[31m": np.ones(1, np.float32)}, r"holds the tensor a\\n\\x1b\[31m"),
    "adapter": (lambda: tensors() | {"base_model.q.lora_A.weight": np.ones((2, 16), np.float32)}, "lora_A"),
    "shape": (lambda: tensors() | {GATE: np.ones((16, 24), np.float32)}, r"has shape \(16, 24\)"),
    "no output matrix": (lambda: _without(HEAD), f"lacks the tensor {HEAD}"),
    "wide": (lambda: tensors() | {GATE: np.ones((24, 16))}, f"{GATE} is of dtype F64"),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_tensors_of_another_model_are_refused(tmp_path, name):
    make, told = WEIGHTS[name]
    refused(put(tmp_path / "f", weights=make()), told, tmp_path)


def test_an_output_matrix_that_is_tied_and_another_is_refused(tmp_path):
    weights = tensors(TIED)
    same = put(tmp_path / "same", a=TIED, weights=weights | {HEAD: weights[EMBED].copy()})
    swapped = {HEAD if name == EMBED else name: value for name, value in weights.items()}
    want = load(put(tmp_path / "once", a=TIED, weights=weights))
    for folder in (same, put(tmp_path / "swapped", a=TIED, weights=swapped)):
        jax.tree.map(np.testing.assert_array_equal, load(folder), want)
        model_folder.transfer(folder, tmp_path / f"{folder.name}.out", keep_card=False)
        jax.tree.map(np.testing.assert_array_equal, load(tmp_path / f"{folder.name}.out"), want)
    other = weights[EMBED].copy()
    other[3, 3] += 1e-3
    refused(put(tmp_path / "other", a=TIED, weights=weights | {HEAD: other}), "both are there and differ", tmp_path)
    narrow = weights | {HEAD: other.astype(np.float16)}
    refused(put(tmp_path / "narrow", a=TIED, weights=narrow), "both are there and differ", tmp_path)


def _sharded(folder):
    """Two files and an index."""
    named = load_file(str(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(sorted(named))}
    for file in set(places.values()):
        save_file({name: named[name] for name, place in places.items() if place == file}, str(folder / file))
    _index(folder, places)
    return places


def _index(folder, places):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_a_single_file_counts_before_an_index(tmp_path):
    """As in transformers."""
    folder = put(tmp_path / "f")
    want = load(folder)
    save_file({name: 2 * value for name, value in tensors().items()}, str(folder / "other.safetensors"))
    _index(folder, dict.fromkeys(tensors(), "other.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, load(folder), want)


def test_an_index_names_files_of_its_folder_and_each_tensor_once(tmp_path):
    folder = put(tmp_path / "f")
    want = load(folder)
    places = _sharded(folder)
    jax.tree.map(np.testing.assert_array_equal, load(folder), want)
    shutil.copy(folder / "model-1.safetensors", tmp_path / "outside.safetensors")
    (folder / "sub").mkdir()
    shutil.copy(folder / "model-1.safetensors", folder / "sub/in.safetensors")
    name = next(n for n, file in places.items() if file == "model-1.safetensors")
    for value, told in {
        "../outside.safetensors": "outside this folder: it is not read",
        str(tmp_path / "outside.safetensors"): "outside this folder: it is not read",
        "sub/in.safetensors": "outside this folder",
        "..": "outside this folder",
        "": "outside this folder",
        "gone.safetensors": "gone.safetensors, which is missing",
        "model-2.safetensors": "model-2.safetensors lacks the tensor",
        7: "is not a safetensors index",
    }.items():
        _index(folder, places | {name: value})
        refused(folder, told, tmp_path)
    for value in ([], {}, ["a"], None, "a"):
        _index(folder, value)
        refused(folder, "is not a safetensors index", tmp_path)
    (folder / "model.safetensors.index.json").write_text("[1]")
    refused(folder, "where an object of keys should be", tmp_path)
    both = load_file(str(folder / "model-2.safetensors")) | {name: np.zeros(1, np.float32)}
    save_file(both, str(folder / "model-2.safetensors"))
    _index(folder, places)
    refused(folder, "is both in model-1.safetensors and in model-2.safetensors", tmp_path)


def _file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


HEADERS = {
    "empty": b"",
    "cut length": b"\x10\0\0",
    "length beyond the file": _file({}, length=1 << 40),
    "length beyond 64 bits of sense": _file({}, length=2**64 - 1),
    "no json": _file(b"{" * 40),
    "nested": _file(b'{"a":' + b"[" * 200_000),
    "a list": _file([1, 2, 3]),
    "not utf-8": _file(b'{"\xff": 1}'),
    "beyond the data": _file({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 8),
    "more data": _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 8),
    "overlap": _file(
        {n: {"dtype": "F32", "shape": [2], "data_offsets": [4 * i, 4 * i + 8]} for i, n in enumerate("ab")}, b"\0" * 12
    ),
    "gap": _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
    "backwards": _file({"a": {"dtype": "F32", "shape": [0], "data_offsets": [8, 0]}}, b"\0" * 8),
    "negative": _file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [-4, 0]}}, b""),
    "huge shape": _file({"a": {"dtype": "F32", "shape": [2**61, 2**61], "data_offsets": [0, 4]}}, b"\0" * 4),
    "bools": _file({"a": {"dtype": "F32", "shape": [True], "data_offsets": [False, 4]}}, b"\0" * 4),
    "dtype": _file({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "unlike its dtype": _file({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "no tensor": _file({"a": 3}),
    "twice": _file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"\0" * 8),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie_are_refused_within_little_memory(tmp_path, name):
    folder = put(tmp_path / "f")
    (folder / "model.safetensors").write_bytes(HEADERS[name])
    tracemalloc.start()
    refused(folder, "truncated or not a safetensors file|is not whole JSON|an object of keys", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        dict(num_hidden_layers=50_000_000),
        dict(num_hidden_layers=9_999),
        dict(vocab_size=10**12),
        dict(hidden_size=2**22, head_dim=2**22),
        dict(max_position_embeddings=10**40),
        dict(num_hidden_layers=2**10_000),
        dict(num_attention_heads=60_000, num_key_value_heads=60_000),
    ],
)
def test_absurd_sizes_end_at_once(tmp_path, change):
    """Before names, shapes or arrays are made of them."""
    folder = put(tmp_path / "f", change)
    tracemalloc.start()
    refused(folder, "lacks the tensor|it must be an integer|has shape", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "file, text, told",
    [
        ("config.json", "", "is not whole JSON"),
        ("config.json", "[" * 100_000, "is not whole JSON"),
        ("config.json", '{"a": 1, "a": 2}', "'a' occurs twice"),
        ("config.json", "\udcff", "is not whole JSON"),
        ("config.json", "[]", "where an object of keys should be"),
        ("config.json", '{"model_type": ["llama"]}', "is not known; supported are Llama"),
        ("config.json", '{"model_type": "llama"}', "key 'num_attention_heads' is missing"),
        ("model.json", "", "model.json is not whole JSON"),
        ("model.json", "3", "where an object of keys should be"),
        ("model.json", '{"parent": 3}', "parent = 3"),
        ("model.json", '{"tokenizer": []}', "tokenizer = \\[\\]"),
        ("model.json", '{"flops_six_n_d": "1"}', "flops_six_n_d = '1'"),
        ("model.json", '{"flops": {"train": null}}', "train = None"),
        ("model.json", '{"architecture": {"layers": 3}}', "its architecture is invalid"),
    ],
)
def test_damaged_json_is_told(tmp_path, file, text, told):
    folder = put(tmp_path / "f")
    (folder / file).write_bytes(text.encode(errors="surrogateescape"))
    refused(folder, told, tmp_path)


def test_a_config_that_was_changed_beside_its_history_is_told(tmp_path):
    model_folder.transfer(put(tmp_path / "f"), tmp_path / "ours", keep_card=True)
    file = tmp_path / "ours/config.json"
    config = json.loads(file.read_text())
    config["rms_norm_eps"] = 1e-6
    file.write_text(json.dumps(config))
    refused(tmp_path / "ours", "describe different models \\(norm_eps 1e-06 and 1e-05\\)", tmp_path)


def test_a_changed_byte_of_our_weights_is_noticed(tmp_path):
    model_folder.transfer(put(tmp_path / "f"), tmp_path / "ours", keep_card=True)
    model_folder.transfer(tmp_path / "ours", tmp_path / "again", keep_card=True)
    file = tmp_path / "ours/model-00002-of-00003.safetensors"
    data = bytearray(file.read_bytes())
    assert data == (tmp_path / "again" / file.name).read_bytes()
    for place in (-1, -9, -1000):
        changed = data.copy()
        changed[place] ^= 4
        file.write_bytes(changed)
        refused(tmp_path / "ours", "are not those that were written", tmp_path)
    file.write_bytes(data)
    load(tmp_path / "ours")
    assert load_file(str(file)).keys() == {n for n in tensors() if n.startswith("model.layers.0.")}


def test_a_recipe_looks_at_its_folders_before_it_compiles(tmp_path):
    good, bad = put(tmp_path / "good"), put(tmp_path / "bad", dict(num_hidden_layers=9_000))
    for start, teacher in ((good, bad), (bad, good)):
        stage = types.SimpleNamespace(start=str(start), others=lambda teacher=teacher: {"teacher": str(teacher)})
        with pytest.raises(UserError, match="bad lacks the tensor"):
            check_models({"s": stage}, ["s"])
    check_models({"s": types.SimpleNamespace(start="earlier", others=dict)}, ["earlier", "s"])


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    folder = put(tmp_path / "f")
    save_file({"x.lora_A.weight": np.ones((2, 16), np.float32)}, str(folder / "adapter_model.safetensors"))
    load(folder)  # a file that nothing names
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "holds an adapter", tmp_path)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_cut_exactly(tmp_path, dtype):
    name = np.dtype(dtype).name
    folder = put(tmp_path / "f", weights=tensors(dtype=dtype))
    deeper(folder, tmp_path / "deeper")
    made = {}
    for file in (tmp_path / "deeper").glob("*.safetensors"):
        made |= load_file(str(file))
    assert made[EMBED].dtype == dtype and json.loads((tmp_path / "deeper/config.json").read_text())["dtype"] == name
    np.testing.assert_array_equal(
        made["model.layers.2.mlp.up_proj.weight"], tensors(dtype=dtype)[GATE.replace("gate", "up")]
    )
    assert load(tmp_path / "deeper", "bfloat16")["embedding"].dtype == ml_dtypes.bfloat16
    model_folder.transfer(tmp_path / "deeper", tmp_path / "out", keep_card=False)
    assert model_folder.open_weights(model_folder.find(tmp_path / "out")).dtype == name


def test_mixed_precision_is_cut_in_the_dtype_that_holds_both(tmp_path):
    weights = tensors(dtype=ml_dtypes.bfloat16) | {"model.norm.weight": np.full(16, 1 + 2**-20, np.float32)}
    deeper(put(tmp_path / "f", weights=weights), tmp_path / "deeper")
    assert load(tmp_path / "deeper")["final_norm"]["scale"][0] == np.float32(1 + 2**-20)


def test_rope_of_all_spellings_is_one():
    """transformers 4 and 5, ints and floats, DeepSeek's weights of the temperature (arXiv:2405.04434, §2.1.4)."""
    plain = {k: v for k, v in llama.FAMILY.to_config(A, "float32", {}).items() if not k.startswith("rope")}
    scaled = Architecture(**SHAPE, rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0))
    whole = {k: int(v) for k, v in LLAMA3.items()}
    for rope in (
        dict(rope_theta=500000, rope_scaling=dict(LLAMA3, type="llama3")),
        dict(rope_theta=5e5, rope_scaling=dict(whole, rope_type="llama3", type="llama3")),
        dict(rope_parameters=dict(LLAMA3, rope_type="llama3", rope_theta=500000.0)),
        dict(
            rope_theta=5e5,
            rope_scaling=dict(LLAMA3, rope_type="llama3"),
            rope_parameters=dict(whole, rope_type="llama3"),
        ),
    ):
        assert from_config(plain | rope, "x") == scaled
    assert from_config(plain, "x").rope_theta == 10_000.0
    deep = dict(rope_type="yarn", factor=4.0, mscale=1.0, mscale_all_dim=1.0)
    assert from_config(plain | dict(rope_scaling=deep), "x").rope_scaling == RopeScaling(
        "yarn", 4.0, 64, attention_factor=1.0
    )
    one = from_config(plain | dict(rope_scaling=dict(deep, mscale_all_dim=0)), "x").rope_scaling
    assert one == RopeScaling("yarn", 4.0, 64)


def test_defaults_are_those_of_the_family():
    small = {
        k: v
        for k, v in llama.FAMILY.to_config(A, "float32", {}).items()
        if k not in ("max_position_embeddings", "rms_norm_eps", "num_key_value_heads", "head_dim")
    }
    found = from_config(small, "x")
    assert (found.max_seq_len, found.norm_eps, found.num_kv_heads, found.head_dim) == (2048, 1e-6, 4, 4)
    own = qwen3.FAMILY.to_config(Architecture(**SHAPE | dict(num_heads=64), qk_norm="head"), "float32", {})
    own = {k: v for k, v in own.items() if k not in ("max_position_embeddings", "num_key_value_heads", "head_dim")}
    found = from_config(own | dict(use_sliding_window=False, sliding_window=4096, max_window_layers=28), "x")
    assert (found.max_seq_len, found.num_kv_heads, found.head_dim) == (32768, 32, 128)


def test_every_end_is_known(tmp_path):
    folder = put(tmp_path / "f", dict(eos_token_id=[2, 5]))
    assert folder_files.end_ids(folder) == (2, 5)
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 2], "bos_token_id": 1}')
    model_folder.transfer(folder, tmp_path / "out", keep_card=True)
    assert folder_files.end_ids(tmp_path / "out") == (2, 5, 7)
    deeper(tmp_path / "out", tmp_path / "deeper")
    assert folder_files.end_ids(tmp_path / "deeper") == (2, 5, 7)
    for value in ("2", [2, None], True, [[2]]):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        with pytest.raises(UserError, match="must be an id or a list"):
            folder_files.end_ids(folder)


def test_shapes_of_what_is_loaded_are_the_architecture_s(tmp_path):
    assert jax.tree.map(np.shape, load(put(tmp_path / "f"))) == jax.tree.map(
        lambda x: x.shape, abstract_params(A, Runtime())
    )
