"""Memory by estimate for chips that are not here, GPUs among them: bytes by formula, against a compiler, and remedies."""

import dataclasses
import math

import pytest
from conftest import ROOT

from kanana_jax import config as config_lib
from kanana_jax.cli import main
from kanana_jax.errors import ConfigError
from kanana_jax.parallel.chips import CHIPS
from kanana_jax.parallel.mesh import make_mesh
from kanana_jax.plan import fit, memory, request, topology
from kanana_jax.plan.estimate import estimate
from kanana_jax.recipe.config import override, parse
from kanana_jax.recipe.context import shapes
from kanana_jax.stages import KINDS

SIZES = dict(num_layers=4, embed_dim=256, mlp_dim=1024, num_heads=4, num_kv_heads=2, head_dim=64, vocab_size=8192)
TRAIN = dict(seq_len=256, batch_tokens=16 * 256, tokens=16 * 256, accumulate=1, loss_chunk=256)


def wanted(topology_name, *overrides, name="tiny"):
    config = config_lib.read_config_file(f"{ROOT}/configs/{name}.py")
    if name == "tiny":
        sizes = [f"stage1.model.{key}={value}" for key, value in SIZES.items()]
        sizes += [f"stage1.train.{key}={value}" for key, value in TRAIN.items()]
        override(config, ["tokenizer.vocab_size=8192", "runtime.scan_layers=true", *sizes])
    override(config, overrides)
    return request.request(*parse(config), "stage1", topology_name)


@pytest.mark.parametrize("moments, each", [("float32", 8), ("bfloat16", 4), ("int8", 2), ("factored", 2)])
def test_bytes_are_the_formulas(moments, each):
    bf16 = ("runtime.param_dtype=bfloat16", "runtime.compute_dtype=bfloat16", "stage1.train.accumulate=2")
    found = fit.fit(wanted("rtx4090-1", *bf16, f"stage1.train.optimizer.moments={moments}"))
    count, parts = found["parameters"], found["bytes_per_device"]
    assert parts["parameters"] == 2 * count
    # The master, the moments, and for each block of 8-bit moments or row of factored ones a little more.
    assert (4 + each) * count <= parts["optimizer"] < (4 + 1.06 * each) * count
    assert parts["gradients"] == 6 * count  # a micro-batch's in bfloat16, the sum in float32
    assert parts["logits"] == 2 * 4 * 256 * 8192
    assert parts["total"] == sum(size for name, size in parts.items() if name != "total")
    assert found["fits"] and found["limit"] == int(0.92 * 24e9)


def test_eight_devices_hold_an_eighth_of_the_matrices():
    one, eight = (fit.fit(wanted(name))["bytes_per_device"] for name in ("h100-1", "h100-8"))
    for name in ("parameters", "optimizer", "gradients"):
        assert eight[name] == pytest.approx(one[name] / 8, rel=0.02)
    # What is laid out anew counts twice in a program for several devices.
    assert one["activations"] / 8 <= eight["activations"] < one["activations"] / 6


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("runtime.remat=full",), marks=pytest.mark.more),
        ("runtime.remat=none", "stage1.train.accumulate=4"),
        ("runtime.remat=full", "stage1.train.accumulate=2", "stage1.train.optimizer.moments=int8"),
    ],
)
def test_it_is_near_what_a_compiler_says(overrides):
    """XLA's own count for one CPU device; float32, since XLA widens bfloat16 there."""
    asked = wanted("rtx4090-1", *overrides)
    (device,) = topology.stand_ins(asked.target)
    known = shapes(asked.recipe, asked.stages, make_mesh(asked.recipe.mesh, [device]))
    programs = KINDS["pretrain"].programs
    estimated = sum(estimate(lambda s: programs("stage1", asked.stages["stage1"], s), known).values())
    step = programs("stage1", asked.stages["stage1"], known).step
    compiled = step.trace().lower().compile().memory_analysis()
    measured = compiled.argument_size_in_bytes + compiled.temp_size_in_bytes
    print(f"{overrides}: {estimated / 2**20:.0f} MiB estimated, {measured / 2**20:.0f} compiled")
    assert 0.75 < estimated / measured < 1.3


def test_remedies_are_what_they_say():
    """Each is a line of options; carried out, the estimate is the one that was told."""
    asked = wanted("l4-1", "runtime.remat=none", "stage1.train.batch_tokens=65536", "stage1.train.tokens=65536")
    small = topology.Slice("l4-1", dataclasses.replace(CHIPS["l4"], hbm_bytes=1e9), (1,))
    found = fit.fit(request.Request(asked.recipe, asked.stages, asked.stage, small))
    assert not found["fits"] and any(row["fits"] for row in found["remedies"])
    row = min((row for row in found["remedies"] if row["fits"]), key=lambda row: row["total"])
    assert "moments" in row["change"] and "remat=full" in row["change"] and "accumulate" in row["change"]
    options = [word.removeprefix("--config.") for word in row["change"].split()]
    changed = ["runtime.remat=none", "stage1.train.batch_tokens=65536", "stage1.train.tokens=65536", *options]
    again = wanted("l4-1", *changed)
    total = fit.fit(again)["bytes_per_device"]["total"]
    assert total == row["total"]
    assert "changes that fit" in fit.text(found) and row["change"] in fit.text(found)


def test_what_lies_there_all_the_time_is_told_for_gpus():
    found = memory.resident(wanted("a100-80-1"), (1, 2, 8))
    assert [row["topology"] for row in found["rows"]] == ["a100-80-1", "a100-80-2", "a100-80-8"]
    for row in found["rows"]:
        want = 4 * found["parameters"] / row["devices"]
        assert row["bytes_per_device"]["parameters"] == pytest.approx(want, rel=0.02)


def test_the_verb(capsys, tmp_path):
    arguments = ["plan", "--config", f"{ROOT}/configs/tiny.py", "--topology", "rtx3090-1", "--memory"]
    assert main([*arguments, "--json", str(tmp_path / "fit.json")]) == 0
    assert "on rtx3090-1 (1 device)" in capsys.readouterr().out and (tmp_path / "fit.json").is_file()
    assert main([*arguments, "--config.stage1.model.num_layers=200000"]) == 1
    told = capsys.readouterr()
    assert "nothing fits; nearest" in told.out and "does not fit rtx3090-1" in told.err


@pytest.mark.parametrize("name, words", [("rtx409-1", "did you mean 'rtx4090'"), ("a100-80", "1 to 8 of this GPU")])
def test_an_unknown_card_is_one_sentence(name, words):
    with pytest.raises(ConfigError, match=words):
        topology.named(name)


def test_names_of_cards_are_told_apart():
    """A prefix that two kinds share must not decide: the longest does."""
    kinds = [kind for chip in CHIPS.values() for kind in chip.kinds]
    assert len(set(kinds)) == len(kinds)
    assert topology.named("a100-80-8").chips == 8 and topology.named("h100-8").chip.label == "NVIDIA H100"
    assert math.prod(topology.named("v5e-8").grid) == 8
