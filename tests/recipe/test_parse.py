"""A recipe's sections: each stage is of a kind, none is dropped in silence, none takes what is the recipe's own."""

import logging

import jax
import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.errors import ConfigError
from kanana_jax.recipe import run as recipe
from kanana_jax.recipe.config import left_out, override
from kanana_jax.recipe.workdir import free_keys
from kanana_jax.stages import KINDS


def test_a_stage_may_not_have_the_name_of_a_section(tiny_config):
    config = tiny_config().unlock()
    config.stages = ("data",)
    config.data = config.stage1
    with pytest.raises(ConfigError, match="'data', which is a section of the recipe: rename this stage"):
        recipe.parse(config)
    config.stages = ("scratch",)
    with pytest.raises(ConfigError, match="'scratch', which is reserved: rename this stage"):
        recipe.parse(config)


def test_stages_that_do_not_run_are_named(tiny_config, tmp_path, caplog):
    config = tiny_config("stages=('stage1',)", "stage1.train.tokens=512", "mesh.fsdp=3")
    assert sorted(left_out(config)) == sorted(["stage2", "upscaled", "deeper", "pruned", "student"])
    with caplog.at_level(logging.INFO, "kanana"), pytest.raises(ConfigError):
        recipe.run(config, tmp_path, devices=jax.devices()[:1])
    assert "do not run: " in caplog.text and "upscaled" in caplog.text


def test_a_section_of_the_recipe_stays_its_own_whatever_it_holds(tiny_config):
    config = tiny_config().unlock()
    config.evaluation.kind = "x"
    with pytest.raises(ConfigError, match="unknown config key 'evaluation.kind'"):
        recipe.parse(config)


@pytest.mark.parametrize(
    "kind, told",
    [
        ("pretrian", "config 'stage1.kind' is 'pretrian'; it must be one of .*'pretrain'.*'distill'"),
        (None, "config 'stage1.kind' is missing: set it to one of"),
    ],
)
def test_an_unknown_kind_is_told(tiny_config, kind, told):
    config = tiny_config().unlock()
    if kind is None:
        del config.stage1.kind
    else:
        config.stage1.kind = kind
    with pytest.raises(ConfigError, match=told):
        recipe.parse(config)


def test_every_kind_says_what_may_change(tiny_config):
    """Its own keys, in its own stages: nothing else of the same name is free."""
    free = free_keys(config_lib.to_dict(tiny_config()))
    assert {"mesh", "runtime.remat", "student.distill.mesh", "student.train.accumulate", "stage1.tasks"} <= set(free)
    assert not {"runtime", "runtime.param_dtype", "runtime.compute_dtype", "evaluation", "evaluation.max_bytes"} & set(
        free
    )
    assert not {"stage1.distill.mesh", "pruned.tasks", "sources.tasks", "stage1.train.tokens"} & set(free)
    assert set(KINDS["search"].free) >= {"train.log_every", "distill.mesh"} and not KINDS["upscale"].free


def test_a_profile_is_its_assignments_and_others_win_over_it(tiny_config):
    config = tiny_config().unlock()
    config.profiles = dict(short=("stage1.train.tokens=1024", "stage2.train.tokens=2048"))
    override(config, ["stage1.train.tokens=4096", "profile=short"])
    assert (config.stage1.train.tokens, config.stage2.train.tokens, config.profile) == (4096, 2048, "short")
    with pytest.raises(ConfigError, match="there is no profile 'shrot'; did you mean 'short'"):
        override(config, ["profile=shrot"])


def test_the_demos_short_profile_has_its_stages_and_fewer_tokens():
    whole, quick = (config_lib.read_config_file(f"{ROOT}/configs/tiny.py") for _ in range(2))
    override(quick, ["profile=quick"])
    (_, long), (_, short) = recipe.parse(whole), recipe.parse(quick)
    assert list(long) == list(short) and {"stage1", "student", "merged", "contrastive", "calls_ko"} < set(long)
    trained = [name for name, stage in long.items() if hasattr(stage, "train")]
    assert sum(short[name].train.tokens for name in trained) < 0.3 * sum(long[name].train.tokens for name in trained)
    assert all(short[name].train.tokens < long[name].train.tokens for name in trained)
