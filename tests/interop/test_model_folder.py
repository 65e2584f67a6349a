"""Model folders: exact round trips, sharded loading, and every kind of damage."""

import json
import shutil

import jax
import numpy as np
import pytest

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop import model_folder
from kanana_jax.interop.families import llama
from kanana_jax.models.architecture import Architecture, RopeScaling, Runtime
from kanana_jax.models.transformer import init_params
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

ARCHITECTURE = Architecture(
    vocab_size=48,
    embed_dim=16,
    mlp_dim=24,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_seq_len=64,
    rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0),
)
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


def _write(folder, dtype="float32", architecture=ARCHITECTURE):
    params = init_params(architecture, Runtime(param_dtype=dtype), jax.random.key(1))
    model_folder.write(folder, architecture, params, model_folder.card(architecture, tokens=7), None, SPECIAL)
    return params


def _load(folder, dtype="float32", **mesh):
    devices = None if mesh else jax.devices()[:1]
    return model_folder.load_params(
        model_folder.find(folder), Runtime(param_dtype=dtype), make_mesh(MeshConfig(**mesh), devices)
    )


def _assert_equal(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x, np.float32), np.asarray(y, np.float32)), a, b)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_export_and_import_are_bit_exact(tmp_path, dtype, tied):
    architecture = Architecture(**{**ARCHITECTURE.__dict__, "tied_embeddings": tied})
    params = _write(tmp_path / "a", dtype, architecture)
    model_folder.transfer(tmp_path / "a", tmp_path / "hf", keep_card=False)
    model_folder.transfer(tmp_path / "hf", tmp_path / "b", keep_card=True)
    assert not (tmp_path / "hf/model.json").exists()
    found = model_folder.find(tmp_path / "b")
    assert found.architecture == architecture
    loaded = _load(tmp_path / "b", dtype)
    assert jax.tree.leaves(loaded)[0].dtype == dtype
    _assert_equal(loaded, params)


@pytest.mark.parametrize("mesh", [dict(fsdp=4, tensor=2), dict(data=2, fsdp=2, sequence=2), dict(fsdp=8)])
def test_sharded_loading_and_writing(tmp_path, mesh):
    params = _write(tmp_path / "a")
    loaded = _load(tmp_path / "a", **mesh)
    q = loaded["blocks"]["attention"]["q"]
    assert (
        len(q.addressable_shards) == 8
        and q.addressable_shards[0].data.nbytes * mesh.get("fsdp", 1) * mesh.get("tensor", 1) == q.nbytes
    )
    _assert_equal(loaded, params)
    model_folder.write(tmp_path / "b", ARCHITECTURE, loaded, {}, None, SPECIAL)
    _assert_equal(_load(tmp_path / "b"), params)


def test_a_stage_folder_is_found_and_an_unfinished_one_is_not(tmp_path):
    _write(tmp_path / "run/stage1/model")
    assert model_folder.find(tmp_path / "run/stage1").card["tokens"] == 7
    (tmp_path / "run/stage2/checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="let 'kanana run' finish"):
        model_folder.find(tmp_path / "run/stage2")
    (tmp_path / "run/config.json").write_text('{"config": {}}')
    with pytest.raises(UserError, match="is a workdir"):
        model_folder.find(tmp_path / "run")


def _edit(file, change):
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def _truncate(folder):
    file = folder / "model-00002-of-00004.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _drop_tensor(folder):
    _edit(folder / "model.safetensors.index.json", lambda v: v["weight_map"].pop("model.layers.1.mlp.up_proj.weight"))


DAMAGE = {
    "truncated": (_truncate, "model-00002-of-00004.safetensors is truncated"),
    "missing tensor": (
        _drop_tensor,
        "the tensor model.layers.1.mlp.up_proj.weight, which model.safetensors.index.json does not name",
    ),
    "missing file": (
        lambda f: (f / "model-00003-of-00004.safetensors").unlink(),
        "model-00003-of-00004.safetensors, which is missing",
    ),
    "other shape": (
        lambda f: _edit(f / "config.json", lambda v: v.update(intermediate_size=32)),
        "mlp.gate_proj.weight has shape",
    ),
    "more layers": (lambda f: _edit(f / "config.json", lambda v: v.update(num_hidden_layers=4)), "model.layers.3"),
    "fewer layers": (lambda f: _edit(f / "config.json", lambda v: v.update(num_hidden_layers=2)), "has no place"),
    "another architecture": (
        lambda f: _edit(f / "config.json", lambda v: v.update(model_type="gpt2", architectures=["GPT2LMHeadModel"])),
        "GPT2LMHeadModel is not known",
    ),
    "biases": (lambda f: _edit(f / "config.json", lambda v: v.update(attention_bias=True)), "lacks the tensor .*q_proj.bias"),
    "unknown scaling": (
        lambda f: _edit(f / "config.json", lambda v: v["rope_parameters"].update(rope_type="dynamic")),
        "'dynamic'",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "is not whole JSON"),
    "pickles": (
        lambda f: ([x.unlink() for x in f.glob("model*safetensors*")], (f / "pytorch_model.bin").write_bytes(b"x")),
        "never loaded",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told_in_one_sentence_and_leaves_nothing(tmp_path, what):
    damage, message = DAMAGE[what]
    _write(tmp_path / "hf")
    damage(tmp_path / "hf")
    with pytest.raises(UserError, match=message) as caught:
        model_folder.transfer(tmp_path / "hf", tmp_path / "out", keep_card=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_an_existing_folder_is_not_overwritten(tmp_path):
    _write(tmp_path / "hf")
    shutil.copytree(tmp_path / "hf", tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        model_folder.transfer(tmp_path / "hf", tmp_path / "out", keep_card=True)


def test_config_json_round_trips_every_field():
    for a in (
        ARCHITECTURE,
        Architecture(
            **{
                **ARCHITECTURE.__dict__,
                "rope_scaling": RopeScaling("yarn", 4.0, 16, attention_factor=1.5),
                "tied_embeddings": True,
            }
        ),
    ):
        assert llama.FAMILY.from_config(json.loads(json.dumps(llama.FAMILY.to_config(a, "float32", SPECIAL))), "x") == a


def test_streaming_holds_about_one_layer(tmp_path):
    """Peak memory of a transfer in a process of its own, against the model's size."""
    import subprocess
    import sys

    wide = Architecture(
        vocab_size=512, embed_dim=256, mlp_dim=2048, num_layers=24, num_heads=4, num_kv_heads=2, head_dim=32
    )
    params = _write(tmp_path / "hf", "float32", wide)
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    program = (
        "import resource, pathlib, sys; from kanana_jax.interop import model_folder; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        f"model_folder.transfer(pathlib.Path({str(tmp_path / 'hf')!r}), pathlib.Path({str(tmp_path / 'out')!r}), keep_card=True); "
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert size > 150e6 and int(result.stdout) < size / 3
