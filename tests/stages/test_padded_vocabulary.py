"""A vocabulary padded for a mesh: a new model is made so, trains, teaches and samples; too small a one is refused."""

import jax
import numpy as np
import pytest
from conftest import losses

from kanana_jax.errors import ConfigError
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import run as recipe

SHORT = (
    "stage1.train.tokens=1024",
    "student.train.tokens=1024",
    "stage1.train.eval_every=0",
    "student.train.eval_every=0",
)


def test_a_padded_model_trains_and_learns_from_one_of_another_padding(tiny_config, tmp_path, monkeypatch):
    """Its 800 tokens are padded to 816; then a student of 804 rows learns from it, both on meshes that divide them."""
    monkeypatch.setattr(recipe, "_report", lambda workdir: None)
    config = tiny_config(*SHORT).unlock()
    config.samples = dict(prompts={})
    config.stages = ("stage1", "student")
    config.stage1.vocab_multiple = 48
    model = config.stage1.model.to_dict()
    config.student = config.student.to_dict() | dict(start="scratch", model=model, vocab_multiple=12)
    config.student.distill = dict(teacher="stage1", dtype="float32")
    config.mesh = dict(fsdp=1, tensor=2)
    recipe.run(config, tmp_path, devices=jax.devices()[:2])
    stages = {name: model_folder.find(tmp_path / name).architecture.vocab_size for name in config.stages}
    assert stages == {"stage1": 816, "student": 804}
    assert losses(tmp_path, "stage1")[0] == pytest.approx(np.log(816), abs=0.1)  # padding is in the softmax
    assert np.isfinite(losses(tmp_path, "student")).all()
    params = model_folder.load_params(
        model_folder.find(tmp_path / "stage1"), Runtime(), make_mesh(MeshConfig(), jax.devices()[:1])
    )
    assert params["embedding"].shape[0] == 816


def test_a_tokenizer_that_is_larger_than_the_model_is_refused(tiny_config, tmp_path):
    config = tiny_config(*SHORT).unlock()
    config.stage1.model.vocab_size = 780
    config.stage1.vocab_multiple = 16
    config.stages = ("stage1",)
    with pytest.raises(ConfigError, match="vocab_size is 784, but the tokenizer has 800 tokens"):
        recipe.run(config, tmp_path, devices=jax.devices()[:1])


def test_a_mesh_that_does_not_divide_the_vocabulary_says_how_to_pad_it(tiny_config, tmp_path):
    config = tiny_config(*SHORT).unlock()
    config.stage1.model.vocab_size = 801
    config.stages, config.mesh = ("stage1",), dict(fsdp=1, tensor=2)
    with pytest.raises(ConfigError, match="vocab_size = 801 is not divisible by the 2 .*vocab_multiple"):
        recipe.run(config, tmp_path, devices=jax.devices()[:2])
