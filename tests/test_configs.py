"""Every shipped config parses; the full-size ones carry the paper's figures and meshes that divide them."""

import dataclasses

import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax import recipe
from kanana_jax.models import presets
from kanana_jax.parallel.mesh import resolve
from kanana_jax.surgery import prune
from kanana_jax.training.distillation import DistillationConfig

FULL = sorted(p.stem for p in (ROOT / "configs/kanana").glob("*.py") if p.stem not in ("common", "chain"))


@pytest.mark.parametrize("name", FULL)
def test_full_size_configs(name):
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/kanana/{name}.py:docs"))
    first, second = stages["stage1"].train, stages["stage2"].train
    architecture = getattr(presets, name)()
    if stages["stage1"].model is not None:
        assert stages["stage1"].model == architecture
        assert first.tokens + second.tokens == 3e12
    else:
        assert first.tokens == second.tokens == 100e9
    assert (first.optimizer.weight_decay, first.z_loss, first.seq_len) == (1e-4, 5e-6, 8192)
    assert stages["stage1"].mixture["en_web"] == 67.8 and sum(stages["stage2"].mixture.values()) == pytest.approx(
        100, abs=0.2
    )
    for devices in (64, 256):
        sizes = resolve(parsed.mesh, devices)
        assert first.batch_size % (sizes["data"] * sizes["fsdp"]) == 0 and first.batch_size % parsed.data.lanes == 0
        assert architecture.num_kv_heads % sizes["tensor"] == 0 and architecture.mlp_dim % sizes["tensor"] == 0
        assert architecture.embed_dim % sizes["fsdp"] == 0


def test_the_chain_is_the_papers():
    config = config_lib.read_config_file(f"{ROOT}/configs/kanana/chain.py:docs,base")
    parsed, stages = recipe.parse(config)
    assert parsed.stages[::2] == tuple(f"{name}_pruned" for name in parsed.stages[1::2])
    assert parsed.stages[1::2] == ("nano_4_5b", "nano_2_1b", "nano_1_3b", "nano_635m", "nano_385m", "nano_192m")
    shape = presets.essence_8b()
    for name in parsed.stages[1::2]:
        pruned, student = stages[f"{name}_pruned"], stages[name]
        after = prune.shape(shape, pruned.prune.shape)
        assert after == getattr(presets, name)() and after.num_layers == 32 and after.num_kv_heads == 8
        assert student.distill.teacher == "base" and student.distill.loss == DistillationConfig()
        assert student.train.batch_tokens == 512 * 8192 and student.train.optimizer.learning_rate == 1.2e-4
        assert sum(student.mixture.values()) == pytest.approx(100, abs=0.2)
        shape = after
    assert stages["nano_2_1b_pruned"].prune.shape.tie_embeddings


def test_the_laws_values_for_the_papers_two_models():
    """About 3.9e-4 and 11.5M tokens for 8B at 3T; 3.4e-4 and 17M for 26.8B."""
    for name, lr, batch in (("essence_8b", 3.9e-4, 11.5e6), ("flag_26_8b", 3.4e-4, 17e6)):
        _, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/kanana/{name}.py:docs"))
        train = stages["stage1"].train
        assert train.optimizer.learning_rate == pytest.approx(lr, rel=0.03)
        assert train.batch_tokens == pytest.approx(batch, rel=0.15)
        assert stages["stage2"].train.optimizer.learning_rate == pytest.approx(lr / 10, rel=0.03)
        drops = dict(train.optimizer.schedule.drops)
        assert {round(share * 2.7 / 3, 6) for share in drops} == {0.8, 0.9}


def test_real_config_reads_a_folder_of_languages(tmp_path):
    for path in ("ko/law.jsonl", "en/web.jsonl", "code/c.jsonl", "ja/x.jsonl"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text('{"text": "x"}\n')
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/real.py:{tmp_path}"))
    assert {n: s.lang for n, s in parsed.sources.items()} == {"ko_law": "ko", "en_web": "en", "en_c": "en"}
    assert stages["stage1"].mixture["ko_law"] == 0.5
    assert dataclasses.is_dataclass(stages["stage2"]) and stages["stage2"].start == "stage1"
