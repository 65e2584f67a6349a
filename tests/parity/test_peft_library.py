"""Adapters go to the peft library and come from it with the same logits, on transformers' class of the base."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kanana_jax.interop import model_folder
from kanana_jax.interop import peft as ours
from kanana_jax.models import lora
from kanana_jax.models.architecture import Architecture, Runtime
from kanana_jax.models.lora import LoraConfig
from kanana_jax.models.transformer import abstract_params, bind
from kanana_jax.parallel.mesh import MeshConfig, make_mesh

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

A = Architecture(
    vocab_size=64, embed_dim=32, mlp_dim=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, max_seq_len=64
)
TOKENS = np.random.default_rng(0).integers(0, 64, (2, 12)).astype(np.int32)


def _draw(shapes, seed):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (0.2 * draw.normal(size=x.shape)).astype(np.float32), shapes)


@pytest.fixture(scope="module", params=({}, dict(qk_norm="head")), ids=("llama", "qwen3"))
def base(request, tmp_path_factory):
    a, folder = dataclasses.replace(A, **request.param), tmp_path_factory.mktemp("models") / "base"
    params = _draw(abstract_params(a, Runtime()), 0)
    model_folder.write(folder, a, params, model_folder.card(a), None, {"bos_token_id": 1, "eos_token_id": 2})
    return model_folder.find(folder)


def _ours(base, adapter):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = lora.adapted(adapter.config, model_folder.load_params(base, Runtime(), mesh), adapter.params)
    own = params.pop("adapters")
    module = bind(base.architecture, Runtime(), params)
    return np.asarray(module.unembed(module(jnp.asarray(TOKENS), adapters=own)))


def _theirs(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS, dtype=torch.long)).logits.numpy()


def _class(base):
    return transformers.AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)


def test_peft_loads_what_is_written(base, tmp_path):
    config = LoraConfig(rank=3, alpha=5.0)
    adapters = _draw(
        jax.eval_shape(lambda: lora.init_adapters(config, base.architecture, "float32", jax.random.key(0))), 1
    )
    ours.write(tmp_path / "adapter", config, adapters, base)
    loaded = peft.PeftModel.from_pretrained(_class(base), tmp_path / "adapter")
    beside = _theirs(loaded)
    np.testing.assert_allclose(beside, _ours(base, ours.Adapter(config, adapters)), atol=1e-4)
    assert np.abs(beside - _theirs(_class(base))).max() > 0.1
    # PEFT's own loader finds the base by the name in the file.
    named = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    np.testing.assert_allclose(_theirs(named), beside, atol=1e-5)


@pytest.mark.parametrize("stabilised", (False, True))
def test_what_peft_writes_is_read_and_merged(base, stabilised, tmp_path):
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "up_proj"], use_rslora=stabilised, task_type="CAUSAL_LM"
    )
    torch.manual_seed(0)
    model = peft.get_peft_model(_class(base), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.2)
    model.save_pretrained(tmp_path / "adapter")
    beside = _theirs(model)
    np.testing.assert_allclose(_ours(base, ours.read(tmp_path / "adapter", base)), beside, atol=1e-4)
    difference, _ = ours.merge_folder(tmp_path / "adapter", tmp_path / "merged")
    assert difference < 1e-4
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    np.testing.assert_allclose(_theirs(merged), beside, atol=1e-4)
