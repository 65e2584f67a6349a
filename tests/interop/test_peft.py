"""Adapters in the peft library's format: written and read to the bit, merged by hand, and refused for another base."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from kanana_jax.cli import main
from kanana_jax.errors import UserError
from kanana_jax.interop import model_folder, peft, safetensors
from kanana_jax.models import lora
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.transformer import abstract_params

A = Architecture(
    vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, max_seq_len=64
)
CONFIG = LoraConfig(rank=3, alpha=5.0, targets=("q", "o", "down"))


def _draw(shapes, seed, dtype=np.float32):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (0.1 * draw.normal(size=x.shape)).astype(dtype), shapes)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("models") / "base", 0)


def _write(folder, seed, a=A):
    params = _draw(abstract_params(a, Runtime()), seed, jnp.bfloat16)
    model_folder.write(folder, a, params, model_folder.card(a), None, {"bos_token_id": 1, "eos_token_id": 2})
    return model_folder.find(folder)


@pytest.fixture(scope="module")
def adapters():
    shapes = jax.eval_shape(lambda: lora.init_adapters(CONFIG, A, "float32", jax.random.key(0)))
    return _draw(shapes, 1)


@pytest.fixture
def folder(base, adapters, tmp_path):
    peft.write(tmp_path / "adapter", CONFIG, adapters, base)
    return tmp_path / "adapter"


def test_what_is_written_is_read_to_the_bit(folder, base, adapters):
    found = peft.read(folder, base)
    assert (found.config.rank, found.config.alpha, found.config.targets) == (3, 5.0, CONFIG.targets)
    jax.tree.map(np.testing.assert_array_equal, found.params, adapters)
    noted = json.loads((folder / "adapter_config.json").read_text())
    assert noted["target_modules"] == ["down_proj", "o_proj", "q_proj"] and noted["lora_alpha"] == 5.0
    # Names and shapes as in peft: A [r, in], B [out, r]; `o` reads the heads side by side.
    shapes = {name: entry.shape for name, entry in safetensors.Reader(folder, peft.WEIGHTS).entries.items()}
    of_layer = "base_model.model.model.layers.1."
    assert shapes[of_layer + "self_attn.o_proj.lora_A.weight"] == (3, 64)
    assert shapes[of_layer + "self_attn.o_proj.lora_B.weight"] == (32, 3)
    assert shapes[of_layer + "mlp.down_proj.lora_A.weight"] == (3, 48) and len(shapes) == 2 * 3 * 2


def test_a_merge_is_the_product_by_hand(folder, base, tmp_path, capsys):
    assert main(["import", str(folder), str(tmp_path / "out"), "--base", str(base.path)]) == 0
    words = capsys.readouterr().out.split()
    assert 0 < float(words[words.index("by") + 1]) < 0.1  # the merged weights are rounded to bfloat16
    before, after = (safetensors.Reader(path) for path in (base.path, tmp_path / "out"))
    factors = safetensors.Reader(folder, peft.WEIGHTS)
    for name in before.entries:
        x, y = before.read(name), after.read(name)
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in factors.entries:
            a, b = (factors.read(f"{module}.lora_{key}.weight").astype(np.float64) for key in "AB")
            x = (x.astype(np.float64) + 5.0 / 3 * b @ a).astype(x.dtype)
            assert np.abs(x.astype(np.float32) - y.astype(np.float32)).max() < 2e-3 and (x == y).mean() > 0.99
        else:
            np.testing.assert_array_equal(x, y)


def test_logits_beside_and_within_agree_in_float32(tmp_path, adapters):
    a = A
    params = _draw(abstract_params(a, Runtime()), 3)
    model_folder.write(tmp_path / "b", a, params, model_folder.card(a), None, {"eos_token_id": 2})
    base = model_folder.find(tmp_path / "b")
    adapter = peft.Adapter(CONFIG, adapters)
    peft.merge_into(base, adapter, tmp_path / "out", model_folder.card(a))
    difference, largest = peft.differences(base, adapter, model_folder.find(tmp_path / "out"))
    assert difference < 1e-5 * max(largest, 1)
    unmerged, _ = peft.differences(base, adapter, base)
    assert unmerged > 100 * max(difference, 1e-7)  # the adapter is no small thing


def test_rank_stabilised_scale_is_read(folder, base):
    _change(folder, use_rslora=True)
    assert peft.read(folder, base).config.scale == pytest.approx(5 / np.sqrt(3))


def _change(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"use_dora": True}, "'use_dora' is True: only plain low-rank adapters"),
        ({"alpha_pattern": {"q_proj": 3}}, "'alpha_pattern'"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save'"),
        ({"peft_type": "PREFIX_TUNING"}, "only LORA adapters"),
        ({"r": 4}, "it must be float of shape"),
        ({"r": 0}, "r = 0 is not supported"),
    ],
)
def test_other_adapters_are_refused(folder, base, values, told):
    _change(folder, **values)
    with pytest.raises(UserError, match=told):
        peft.read(folder, base)


def test_an_adapter_of_another_base_is_refused(folder, base, tmp_path):
    other = _write(tmp_path / "other", 7)
    with pytest.raises(UserError, match="holds other weights: name its base"):
        peft.read(folder, other)
    (folder / "base.json").unlink()  # as one from elsewhere
    same_name = _write(tmp_path / "base", 7)  # every stage's folder is called 'model'
    for one in (other, same_name):
        with pytest.raises(UserError, match="holds other weights: name its base"):
            peft.read(folder, one)
    assert peft.read(folder, _write(tmp_path / "copy", 0)).config.rank == 3
    _change(folder, base_model_name_or_path="someone/base")
    with pytest.raises(UserError, match="name its base, or correct 'base_model_name_or_path'"):
        peft.read(folder, other)
    _change(folder, base_model_name_or_path="someone/Other")
    assert peft.read(folder, other).config.rank == 3
    wide = _write(tmp_path / "wide", 0, dataclasses.replace(A, mlp_dim=64))
    _change(folder, base_model_name_or_path="wide")
    with pytest.raises(UserError, match="adapter of another base"):
        peft.read(folder, wide)


def test_tensors_must_be_all_there_and_no_more(folder, base):
    file = folder / peft.WEIGHTS
    reader = safetensors.Reader(folder, peft.WEIGHTS)
    tensors = {name: reader.read(name) for name in reader.entries}
    first = next(name for name in tensors if "layers.1" in name)
    safetensors.save(file, {name: x for name, x in tensors.items() if name != first})
    with pytest.raises(UserError, match="lacks base_model.model.model.layers.1"):
        peft.read(folder, base)
    safetensors.save(file, tensors | {"base_model.model.lm_head.lora_A.weight": np.zeros((3, 32), np.float32)})
    with pytest.raises(UserError, match="lm_head.lora_A.weight, for which .* has no place"):
        peft.read(folder, base)
    file.unlink()
    with pytest.raises(UserError, match="pickled weights are never loaded"):
        peft.read(folder, base)


def test_a_stages_adapter_is_exported(base, adapters, tmp_path, capsys):
    stage = tmp_path / "run/dpo"
    assert main(["export", str(base.path), str(tmp_path / "o"), "--adapter"]) == 1
    assert "only a stage with a section 'lora' leaves one" in capsys.readouterr().err
    peft.write(stage / "adapter", CONFIG, adapters, base)
    merged = peft.Adapter(CONFIG, adapters)
    peft.merge_into(base, merged, stage / "model", model_folder.card(A))
    assert main(["export", str(stage), str(tmp_path / "out"), "--adapter", "--base", "someone/base"]) == 0
    assert "differ by" in capsys.readouterr().out
    flat = traverse_util.flatten_dict(peft.read(tmp_path / "out", base).params)
    assert set(flat) == set(lora.shapes(CONFIG, A))
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"] == "someone/base"
