"""Every shipped config parses; the full-size ones carry the paper's figures and meshes that divide them."""

import dataclasses

import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.losses.distillation import DistillationConfig
from kanana_jax.models import counts, presets
from kanana_jax.parallel.mesh import resolve
from kanana_jax.recipe import run as recipe
from kanana_jax.surgery import prune

OTHERS = ("__init__", "common", "chain", "slm", "post_training")
FULL = sorted(p.stem for p in (ROOT / "configs/kanana").glob("*.py") if p.stem not in OTHERS)


@pytest.mark.parametrize("name", FULL)
def test_full_size_configs(name):
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/kanana/{name}.py:docs"))
    first, second = stages["stage1"].train, stages["stage2"].train
    architecture = getattr(presets, name)()
    if getattr(stages["stage1"], "model", None) is not None:
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


def test_kanana_2s_small_model_is_cut_from_its_large_one():
    """Half the width, all heads, and windows, as the published checkpoints' exact counts have it."""
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/kanana/slm.py:docs"))
    large = stages["stage1"].model
    small = prune.shape(large, stages["pruned"].prune.shape)
    assert (large, small) == (presets.kanana_2_3b(), presets.kanana_2_1_3b())
    assert (counts.parameters(large), counts.parameters(small)) == (3_508_972_032, 1_291_478_272)
    assert [kind.window for kind in small.kinds] == [1024, 1024, 1024, 0] * 8
    # The published cut of the KV cache at 32K of context: three of four layers keep 1,024 tokens.
    kept = sum(kind.window or 32_768 for kind in small.kinds) / (32 * 32_768)
    assert 1 - kept == pytest.approx(0.727, abs=5e-4)
    assert stages["student"].distill.teacher == "stage2"
    assert parsed.stages == ("stage1", "stage2", "pruned", "student")


def test_post_training_is_the_papers():
    """1.2M conversations and 407K preferences by domain; who starts from whom, and what scores and refers."""
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/kanana/post_training.py"))
    assert parsed.stages == ("sft", "reward", "dpo", "online", "merged")
    share = stages["sft"].mixture
    assert sum(share.values()) == pytest.approx(1200, abs=5)
    assert share["conversations_code"] / sum(share.values()) == pytest.approx(0.41, abs=0.005)
    assert sum(stages["dpo"].mixture.values()) == pytest.approx(100, abs=0.2)
    assert {name: stage.start for name, stage in stages.items()} == {
        "sft": "essence_8b", "reward": "sft", "dpo": "sft", "online": "dpo", "merged": "sft"
    }  # fmt: skip
    online = stages["online"]
    assert (online.reference_model, online.reward.model, online.staleness) == ("dpo", "reward", 1)
    assert online.longest_prompt == 1024


@pytest.mark.parametrize("name", presets.LATER)
def test_later_models_have_their_published_counts(name):
    make, count = presets.LATER[name]
    assert counts.parameters(make()) == count and make().max_seq_len == 32_768


def ablation(name):
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/ablations/{name}"))
    return parsed, stages


def test_arms_of_the_alignment_ablation_start_where_they_say():
    """Each from the arm before it, of its own seed; what an arm is named for is what differs."""
    made = config_lib.read_config_file(f"{ROOT}/configs/ablations/alignment.py:base")
    assert made.stages == ("stage1", "stage2")
    from kanana_jax.configs.ablations import alignment

    for arm, before in alignment.START.items():
        parsed, stages = ablation(f"alignment.py:{arm},2")
        place = f"runs/alignment/{before}-2/{alignment.last_stage(before)}" if before else f"{alignment.BASE}/stage2"
        assert stages[parsed.stages[0]].start == place and parsed.seed == 2
        assert parsed.stages[-1] == alignment.last_stage(arm)
        out = arm.partition("without_")[2]
        if out:
            assert len(stages[arm].mixture) == 6 and not [name for name in stages[arm].mixture if out in name]
    _, moving = ablation("alignment.py:online_moving,0")
    _, fixed = ablation("alignment.py:online,0")
    assert [moving[f"online_{i}"].reference_model for i in (2, 3, 4)] == ["online_1", "online_2", "online_3"]
    assert sum(moving[f"online_{i}"].train.steps for i in range(1, 5)) == fixed["online"].train.steps
    assert [ablation(f"alignment.py:{arm},0")[1]["online"].staleness for arm in ("k1", "k4")] == [1, 4]


def test_the_small_teacher_sees_twenty_tokens_a_parameter():
    _, stages = ablation("small.py")
    teacher = stages["stage1"]
    assert teacher.train.tokens >= 20 * counts.parameters(teacher.model)


def test_the_middle_scale_chain_ends_where_scratch_does():
    _, stages = ablation("chain.py")
    shape, sizes = stages["teacher"].model, []
    for name in ("large", "middle", "small", "smallest"):
        shape = prune.shape(shape, stages[f"{name}_pruned"].prune.shape)
        sizes.append(counts.parameters(shape))
        assert stages[name].distill.teacher == "teacher"
        assert stages[name].train.tokens * 10 == stages["scratch_middle"].train.tokens
        if name == "middle":
            assert shape == stages["scratch_middle"].model
    assert sizes == sorted(sizes, reverse=True)


def test_arms_of_the_shape_ablation_are_equal_in_size_and_tokens():
    _, stages = ablation("shapes.py:0")
    teacher = ablation("small.py")[1]["stage1"].model

    def result(name):
        """Shape and tokens of a student, with those of what it comes from."""
        if name not in stages:
            return teacher, 0
        stage = stages[name]
        if getattr(stage, "model", None) is not None:
            return stage.model, 0
        before, tokens = result(stage.start)
        if getattr(stage, "prune", None) is not None:
            return prune.shape(before, stage.prune.shape), tokens
        return before, tokens + stage.train.tokens

    groups = (
        ("width", "depth", "depth_scattered", "depth_last", "both"),
        ("one_shot", "iterative", "predecessor", "heads_early", "heads_late", "even", "english"),
        ("heads_early_middle", "heads_late_middle"),
    )
    for group in groups:
        found = [result(name) for name in group]
        sizes = [counts.parameters(shape) for shape, _ in found]
        assert max(sizes) / min(sizes) < 1.01, dict(zip(group, sizes))
        assert len({tokens for _, tokens in found}) == 1
    assert result("tied")[0].tied_embeddings and not result("untied")[0].tied_embeddings


def test_grown_and_fresh_models_cost_the_same():
    _, stages = ablation("growth.py:0")

    def cost(*names):
        total = 0.0
        for name in names:
            shape = stages["base" if name in ("base", "none") else "fresh_begun"].model
            total += stages[name].train.tokens * counts.train_flops_per_token(shape, 256)
        return total

    assert cost("base", "overlap") == pytest.approx(cost("fresh_begun", "fresh"), rel=1e-6)
    assert cost("base", "overlap") == pytest.approx(cost("base", "none"), rel=1e-6)


@pytest.mark.parametrize("name", ["pruning.py:0", "pruning.py:sweep", "importance.py:0", "divergences.py:0"])
def test_students_of_an_ablation_start_alike(name):
    _, stages = ablation(name)
    students = [s for s in stages.values() if getattr(s, "train", None) is not None]
    assert len({s.train.batch_tokens for s in students}) == 1 and all(
        s.mixture == students[0].mixture for s in students
    )
    for stage in students:
        shape = stage.model
        if shape is not None:
            assert shape == prune.shape(ablation("small.py")[1]["stage1"].model, stages["pruned"].prune.shape)


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
    for path in ("ko/law/a.b.jsonl", "ko/web/a.c.txt", "en/web.jsonl", "code/c.jsonl", "ja/x.jsonl"):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text('{"text": "x"}\n')
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/real.py:{tmp_path}"))
    langs = {"ko_law": "ko", "ko_web": "ko", "en": "en", "code": "en", "ja": "ja"}
    assert {n: s.lang for n, s in parsed.sources.items()} == langs
    first, second = stages["stage1"].mixture, stages["stage2"].mixture
    assert first == pytest.approx(dict(ko_law=1 / 6, ko_web=1 / 6, en=1 / 6, code=1 / 6, ja=1 / 3), abs=1e-5)
    assert second["ko_law"] == pytest.approx(3 * second["ko_web"], abs=1e-5)
    assert dataclasses.is_dataclass(stages["stage2"]) and stages["stage2"].start == "stage1"


def test_calls_are_learnt_in_english_and_then_in_korean():
    for arg, english in (("m", "microworld://calls/en?size=4000&count=20000"), ("m,e.jsonl,k.jsonl", "e.jsonl")):
        parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/calls.py:{arg}"))
        assert parsed.stages == ("english", "korean") and stages["korean"].start == "english"
        assert stages["english"].mixture == {"en_calls": 1.0} and stages["korean"].mixture["ko_calls"] == 0.8
        assert parsed.sources["en_calls"].path == english and parsed.sources["en_calls"].lang == "en"
    parsed, stages = recipe.parse(config_lib.read_config_file(f"{ROOT}/configs/calls.py:m,e.jsonl,k.jsonl,g.jsonl"))
    assert parsed.sources["general"].path == "g.jsonl" and stages["english"].mixture == dict(en_calls=0.8, general=0.2)
    assert stages["korean"].mixture == pytest.approx(dict(ko_calls=0.64, en_calls=0.16, general=0.2))
