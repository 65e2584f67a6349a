"""Plans are of the engine's own program, their counts are formulas, and their advice fits.

Needs libtpu (the `plan` extra): programs are compiled for TPUs that are not here.
"""

import dataclasses
import json
import re

import jax
import pytest
from conftest import ROOT

pytest.importorskip("libtpu")

from kanana_jax import config as config_lib  # noqa: E402
from kanana_jax.cli import main  # noqa: E402
from kanana_jax.errors import ConfigError  # noqa: E402
from kanana_jax.models import counts, presets  # noqa: E402
from kanana_jax.parallel import sharding  # noqa: E402
from kanana_jax.parallel.mesh import MeshConfig, make_mesh  # noqa: E402
from kanana_jax.plan import cache as plan_cache  # noqa: E402
from kanana_jax.plan import costs, hlo, plan  # noqa: E402
from kanana_jax.plan import measure as plan_measure  # noqa: E402
from kanana_jax.plan import memory as plan_memory  # noqa: E402
from kanana_jax.plan import request as plan_request  # noqa: E402
from kanana_jax.plan import search as plan_search  # noqa: E402
from kanana_jax.plan import show as plan_show  # noqa: E402
from kanana_jax.plan.topology import describe, named  # noqa: E402
from kanana_jax.recipe.config import override, parse  # noqa: E402
from kanana_jax.recipe.context import shapes  # noqa: E402
from kanana_jax.stages import KINDS  # noqa: E402
from kanana_jax.training import loop  # noqa: E402

# Sharding errors are found as well by a compiler that tries less: a third of the time.
QUICK = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
SMALL = {
    **{"num_layers": 2, "embed_dim": 512, "mlp_dim": 1024, "num_heads": 4, "num_kv_heads": 4, "head_dim": 128},
    **{"vocab_size": 32768, "max_seq_len": 2048},
}
ROWS, SEQ_LEN = 8, 2048


def read(name, *overrides):
    config = config_lib.read_config_file(f"{ROOT}/configs/kanana/{name}.py")
    override(config, overrides)
    return config


def small(*more):
    model = [f"stage1.model.{key}={value}" for key, value in SMALL.items()]
    train = [
        f"stage1.train.seq_len={SEQ_LEN}",
        f"stage1.train.batch_tokens={ROWS * SEQ_LEN}",
        "stage1.train.accumulate=2",
    ]
    return read("essence_8b", *model, *train, "stage1.train.loss_chunk=256", *more)


def wanted(config, topology="v5e-4", stage="", options=None, cache=None):
    return dataclasses.replace(plan_request.request(*parse(config), stage, topology, cache=cache), options=options)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The small stage, compiled once as a run compiles it: what was prepared, traced, measured and kept."""
    cache = tmp_path_factory.mktemp("plans")
    request, seen = wanted(small(), cache=cache), []
    original = plan_measure.measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_measure, "measure", lambda *args: seen.append(original(*args)) or seen[-1])
        made, _ = plan.measure(request)
    return cache, made, made.programs[0].trace(), seen[0]


def test_flops_are_the_formula(program):
    """Forward, backward, and what 'context' computes again: all of a layer's products but `down` and attention."""
    _, made, _, measured = program
    a, tokens = made.model.architecture, ROWS * SEQ_LEN / 4
    layer = counts.layer_parameters(a) - 2 * a.embed_dim
    again = layer - a.embed_dim * a.mlp_dim
    matrices = 2.0 * tokens * (a.num_layers * (3 * layer + again) + 3 * a.vocab_size * a.embed_dim)
    assert measured.flops - measured.kernel_flops == pytest.approx(matrices, rel=1e-6)
    # Two blocks of 1,024 a side: three of four are visited; 2 products forward, once, and 5 backward.
    products = 2.0 * a.num_heads * a.head_dim * SEQ_LEN**2 * 3 / 4
    assert measured.kernel_flops == pytest.approx(a.num_layers * ROWS / 4 * products * (2 + 5), rel=1e-6)


def test_weights_travel_over_fsdp_in_the_compute_dtype(program):
    """Each layer is gathered once forward and once or twice backward for every micro-batch, its gradient scattered once.

    The compiler turns some of these into rings of permutes inside of a product; a ring moves (n − 1)/n of an array as
    any gather does.
    """
    _, made, _, measured = program
    a = made.model.architecture
    layers = 2 * a.num_layers * (counts.layer_parameters(a) - 2 * a.embed_dim)
    table = a.vocab_size * a.embed_dim
    assert all(row["axis"] == "fsdp" for row in measured.collectives)
    sent = {"forward": 0.0, "backward": 0.0, "lookup": 0.0}
    for found in costs.count(hlo.parse(measured.text)).collectives:
        if found.dtype == "bf16" and found.bytes > 1e5:
            way = "backward" if "transpose" in found.scope else "forward"
            share = 1.0 if found.kind == "collective-permute" else 3 / 4
            sent["lookup" if found.kind == "all-to-all" else way] += found.bytes * found.times * share
    assert sent["forward"] == pytest.approx(3 / 4 * (2 * layers + 2 * table), rel=1e-6)
    assert 3 / 4 * 2 * 2 * layers <= sent["backward"] <= 3 / 4 * 2 * 3 * layers
    # Embeddings looked up, and their gradient, in both micro-batches.
    assert sent["lookup"] == pytest.approx(2 * ROWS / 4 * SEQ_LEN * a.embed_dim * 2 * 3 / 4)
    # The gradient of the output matrix is summed in float32, once a step.
    large = [r for r in measured.collectives if r["dtype"] == "f32" and r["bytes"] > 1e6]
    assert [(r["kind"], r["bytes"], r["times"]) for r in large] == [("reduce-scatter", 4 * table, 1)]


def test_memory_is_the_shapes(program):
    _, made, traced, measured = program
    a = made.model.architecture
    state = made.resident["parameters"] + made.resident["optimizer"]
    assert state == pytest.approx(3 * 4 * counts.parameters(a) / 4, rel=1e-3)
    assert measured.arguments == pytest.approx(state + made.batch_bytes, rel=0.02)
    # 'context' keeps a layer's input and the attention's output, in bfloat16, and its log Σ exp, of one row a device.
    kept = plan_measure.saved_activations(traced, made)
    assert kept == a.num_layers * SEQ_LEN * ((a.embed_dim + a.num_heads * a.head_dim) * 2 + a.num_heads * 4)
    assert kept == plan_search.kept_bytes(a, SEQ_LEN, 1, "context")


def test_no_tensor_of_tokens_by_vocabulary(program):
    """Logits exist for a chunk of tokens only, in the compiled program as in the source."""
    _, made, _, measured = program
    rows = beside_vocabulary(measured.text, made.model.architecture.vocab_size)
    assert 256 in rows  # a chunk's logits are there to be found
    assert max(rows - {made.model.architecture.embed_dim}) == 256


def beside_vocabulary(text, vocabulary):
    """How much every array with an axis over the vocabulary has beside it: channels of a matrix, tokens of logits."""
    return {
        shape.elements // vocabulary
        for computation in hlo.parse(text).computations.values()
        for instruction in computation.instructions.values()
        for shape in instruction.shapes
        if vocabulary in shape.dims
    }


def test_the_kernel_is_splash_with_segments_and_state_is_donated(program):
    text = program[3].text
    assert len(re.findall(r"%splash_mha_fwd_segmented[\w.]* = ", text)) == 1
    assert len(re.findall(r"%splash_mha_dkv_segmented[\w.]* = ", text)) == 1
    donated = len(re.findall(r"may-alias|must-alias", text.split("\n", 1)[0]))
    assert donated >= len(jax.tree.leaves(program[1].programs[0].arguments["state"])) - 1


def changes(**model):
    """`small` as options of the command line."""
    train = {"seq_len": SEQ_LEN, "batch_tokens": ROWS * SEQ_LEN, "accumulate": 2, "loss_chunk": 256}
    chosen = {f"model.{k}": v for k, v in (SMALL | model).items()} | {f"train.{k}": v for k, v in train.items()}
    return [f"--config.stage1.{key}={value}" for key, value in chosen.items()]


def test_a_plan_is_found_again_and_says_everything(program, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(plan_measure, "measure", refuse)
    arguments = ["plan", "--config", f"{ROOT}/configs/kanana/essence_8b.py", "--topology", "v5e-4", *changes()]
    file = tmp_path / "plan.json"
    assert main([*arguments, "--cache", str(program[0]), "--json", str(file)]) == 0
    shown, found = capsys.readouterr().out, json.loads(file.read_text())
    assert "set config plan.prices.v5e" in shown and "all-gather" in shown
    for key in ("fits", "devices", "flops_per_step", "step_time_bound_s", "mfu_bound", "bound_by", "tokens_per_day"):
        assert key in found
    assert {"limit", "arguments", "temporaries", "peak"} <= set(found["hbm_bytes_per_device"])
    assert found["fits"] and found["devices"] == 4 and found["cost"] is None
    assert 0 < found["mfu_no_overlap"] < found["mfu_bound"] < 1
    assert found["step_time_bound_s"] == max(found["seconds"].values())
    assert found["tokens_per_day"] * found["step_time_bound_s"] == pytest.approx(86400 * found["batch_tokens"])
    assert found["programs"][0]["seconds"] == pytest.approx(found["seconds"]) and len(found["programs"]) == 1
    sampler = found["programs"][0] | {"name": "sampler", "holds": {"KV cache": 2**33}}
    text = plan_show.text(found | {"programs": [sampler, *found["programs"]]})
    assert "programs of a step" in text and "(KV cache 8.00 GiB), compute" in text and "programs" not in shown
    # Another length of the stage is the same program; a price is no part of it.
    priced = plan.plan(wanted(small("stage1.train.tokens=1000000000"), cache=program[0]))
    assert priced["steps"] < found["steps"] and priced["cached_as"] == found["cached_as"]
    config = small()
    config.plan.prices = {"v5e": 2.0}
    assert plan.plan(wanted(config, cache=program[0]))["cost"]["bound"] == 2 * found["chip_hours"]["bound"]


@pytest.mark.parametrize(
    "model, rows, change",
    [
        # Keeps 32 GiB for the backward pass; a remedy of this kind is tried whole in tests/test_dry_run.py.
        pytest.param({"num_layers": 32}, 256 * 4, "--config.stage1.train.accumulate=", marks=pytest.mark.more),
        ({"num_layers": 200, "mlp_dim": 16384}, 2 * 4, "--topology v5e-"),  # moments alone take 10 GiB
    ],
)
def test_what_does_not_fit_is_refused_with_a_change_that_fits(model, rows, change, tmp_path, capsys, monkeypatch):
    """Of a v5e's 16 GiB: what a smaller micro-batch mends, and what only more chips do."""
    request = plan_request.request
    monkeypatch.setattr(plan_request, "request", lambda *args: dataclasses.replace(request(*args), options=QUICK))
    arguments = ["plan", "--config", f"{ROOT}/configs/kanana/essence_8b.py", "--topology", "v5e-4"]
    arguments += [*changes(**model), f"--config.stage1.train.batch_tokens={rows * SEQ_LEN}", "--cache", str(tmp_path)]
    assert main([*arguments, "--config.stage1.train.accumulate=1"]) == 1
    told = capsys.readouterr()
    assert "DOES NOT FIT" in told.out and "does not fit v5e-4" in told.err
    advice = re.search(r"use ((?:--\S+(?: v5e-\d+)? ?)+)", told.err).group(1)
    assert advice.startswith(change) and main([*arguments, *advice.split()]) == 0


@pytest.mark.parametrize(
    "name, topology, overrides, stage",
    [
        pytest.param(  # the teacher of the chain below
            *("essence_8b", "v5p-8", ("stage1.model.num_layers=2", "stage1.train.batch_tokens=32768"), "stage1"),
            marks=pytest.mark.more,
        ),
        pytest.param(
            *("flag_26_8b", "v6e-8", ("stage1.model.num_layers=2", "stage1.train.batch_tokens=16384"), "stage1"),
            marks=pytest.mark.more,
        ),
        (
            *("chain", "v5p-8"),
            ("plan.models.essence_8b.num_layers=2", "nano_2_1b.train.batch_tokens=32768"),
            "nano_2_1b",
        ),
    ],
)
def test_full_width_compiles(name, topology, overrides, stage, monkeypatch):
    """Two layers at full width, one row a device: what the mesh cuts is the same as at full depth."""
    texts, original = [], plan_measure.measure

    def kept(*arguments):
        texts.append(original(*arguments))
        return texts[-1]

    monkeypatch.setattr(plan_measure, "measure", kept)
    config = read(name, *overrides, f"{stage}.train.accumulate=1")
    found = plan.plan(wanted(config, topology, stage, QUICK), advise=False)
    assert found["fits"] and "fsdp" in {axis for row in found["collectives"] for axis in row["axis"].split("+")}
    assert (found["mesh"]["tensor"] > 1) == any("tensor" in row["axis"] for row in found["collectives"])
    assert len(re.findall(r"%splash_mha_dkv_segmented[\w.]* = ", texts[0].text)) == 1
    # What is executed is what is needed, and less than the half of it again.
    needed = found["flops_per_step"] / found["devices"]
    assert needed < found["executed_flops_per_device"] < 1.5 * needed
    if name == "chain":
        assert found["teacher_parameters"] > found["parameters"]
        assert found["hbm_bytes_per_device"]["teacher"] == pytest.approx(found["teacher_parameters"] * 2 / 4, rel=1e-3)
        # Neither model's logits exist for more than a chunk of tokens.
        student, teacher = presets.nano_2_1b(), presets.essence_8b()
        rows = beside_vocabulary(texts[0].text, student.vocab_size)
        chunk = config[stage].train.loss_chunk
        assert chunk in rows and max(rows - {student.embed_dim, teacher.embed_dim}) == chunk < SEQ_LEN


@pytest.mark.parametrize(
    "topology, slices, sequence, options",
    [
        ("v5p-8", 2, 2, ()),
        pytest.param("v6e-4", 1, 2, (), marks=pytest.mark.more),  # another chip's compiler for half a minute
        pytest.param("v4-8", 2, 1, ("plan.dcn_bandwidth.v4=5e9",), marks=pytest.mark.more),
    ],
)
def test_slices_and_cut_sequences_compile(topology, slices, sequence, options, monkeypatch):
    """Between slices go sums alone; a cut sequence gathers keys and values of whole rows; the kernel is splash on each."""
    texts, original = [], plan_measure.measure
    monkeypatch.setattr(plan_measure, "measure", lambda *args: texts.append(original(*args)) or texts[-1])
    config = small("stage1.train.accumulate=1", f"mesh.sequence={sequence}", *options)
    request = plan_request.request(*parse(config), "stage1", topology, slices if slices > 1 else 0)
    found = plan.plan(dataclasses.replace(request, options=QUICK), advise=False)
    assert found["fits"] and found["mesh"]["data"] == slices and found["mesh"]["sequence"] == sequence
    across = [row for row in found["collectives"] if row["dcn_bytes"]]
    assert bool(across) == (slices > 1) == bool(found["dcn_bytes_per_device"])
    assert {(row["kind"], row["axis"]) for row in across} <= {("all-reduce", "data")}
    gathered = [row for row in found["collectives"] if row["axis"] == "sequence" and row["dtype"] == "bf16"]
    assert bool(gathered) == (sequence > 1)
    assert len(re.findall(r"%splash_mha_fwd_segmented[\w.]* = ", texts[0].text)) == 1
    assert len(re.findall(r"%splash_mha_dkv_segmented[\w.]* = ", texts[0].text)) == 1


@pytest.mark.parametrize("name", ["essence_8b", "essence_9_8b", "flag_26_8b", "flag_32_5b", "chain"])
def test_every_stage_divides_a_v5p_and_a_v6e_slice(name):
    """Shapes and meshes of all training stages at full size; nothing is traced or compiled."""
    recipe, stages = parse(read(name))
    for topology in ("v5p-128", "v6e-256"):
        mesh = make_mesh(recipe.mesh, describe(named(topology)))
        for stage, section in stages.items():
            if KINDS[section.kind].programs is not None:
                architecture = shapes(recipe, stages, mesh).architecture(stage)
                loop.check_divisible(mesh, counts.sizes(architecture), section.train)


def test_every_full_size_config_is_planned_on_two_kinds_of_chips():
    """What `make plan-all` compiles: its options are known to the configs, its meshes divide them."""
    import sys

    sys.path.insert(0, str(ROOT / "benchmarks"))
    from plan_all import PLANS

    seen = {}
    for name, stage, topology, options in PLANS:
        recipe, stages = parse(read(name, *options))
        mesh = make_mesh(recipe.mesh, describe(named(topology)))
        sizes = counts.sizes(shapes(recipe, stages, mesh).architecture(stage))
        loop.check_divisible(mesh, sizes, stages[stage].train)
        seen.setdefault((name, stage), set()).add(topology.split("-")[0])
    configs = {file.stem for file in (ROOT / "configs/kanana").glob("*.py")} - {"__init__", "common"}
    assert {name for name, _ in seen} == configs and all(len(chips) == 2 for chips in seen.values())


def test_what_lies_there_shrinks_with_the_devices():
    """Parameters and two moments in float32, whatever the mesh; a whole table costs no compiling."""
    found = plan_memory.resident(wanted(read("essence_8b"), "v5p-128"), plan_memory.sizes("4,16,64,256"))
    assert [row["mesh"]["fsdp"] for row in found["rows"]] == [4, 16, 64, 256]
    for row in found["rows"]:
        held = row["bytes_per_device"]
        assert held["parameters"] == pytest.approx(4 * found["parameters"] / row["devices"], rel=0.01)
        assert held["optimizer"] == pytest.approx(2 * held["parameters"], rel=1e-3)
    assert "v5p-512" in plan_memory.text(found)
    with pytest.raises(ConfigError, match="numbers of chips"):
        plan_memory.sizes("4;16")


def test_a_described_mesh_has_its_own_platform():
    with jax.set_mesh(make_mesh(MeshConfig(), describe(named("v5e-4")))):
        assert sharding.platform() == "tpu"
    with jax.set_mesh(make_mesh(MeshConfig())):
        assert sharding.platform() == "cpu"


def test_shapes_follow_surgery():
    recipe, stages = parse(read("chain"))
    shape = shapes(recipe, stages, make_mesh(recipe.mesh, describe(named("v5p-128")))).architecture("nano_2_1b")
    assert shape.tied_embeddings and counts.parameters(shape) == pytest.approx(2.087e9, rel=1e-3)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--topology", "v5p-100"], "sizes are"),
        (["--topology", "v9-8"], "is unknown"),
        (["--topology", "h100-8"], "TPUs only"),
        (["--topology", "v5p-8", "--stage", "stage3"], "did you mean 'stage"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, words, capsys):
    assert main(["plan", "--config", f"{ROOT}/configs/kanana/essence_8b.py", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_two_slices_of_a_chip_whose_network_is_not_published_are_asked_for():
    with pytest.raises(ConfigError, match="plan.dcn_bandwidth.v4"):
        plan_request.request(*parse(read("essence_8b")), "stage1", "v4-128", 2)


def test_a_model_that_is_not_here_is_asked_for():
    config = read("essence_9_8b")
    del config.plan.models
    with pytest.raises(ConfigError, match="plan.models"):
        plan_request.prepared(wanted(config, "v5p-8"))


def test_the_pareto_set_by_brute_force():
    rows = [{"step_time_no_overlap_s": t, "peak": p} for t, p in ((3, 1), (1, 9), (2, 5), (2, 6), (4, 1), (1, 10))]

    def beaten(row):
        def better(other):
            pairs = [(other[k], row[k]) for k in row]
            return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

        return any(better(other) for other in rows)

    assert plan_search.front(rows) == sorted((r for r in rows if not beaten(r)), key=lambda r: r["peak"], reverse=True)


def test_candidates_divide_and_differ():
    request = wanted(read("essence_8b"), "v5p-128")
    found = plan_search.candidates(request)
    seen = {json.dumps(change, sort_keys=True) for _, change in found}
    assert len(seen) == len(found) > 50
    for _, change in found:
        assert change["mesh"]["data"] * change["mesh"]["fsdp"] * change["mesh"]["tensor"] == 64
        assert request.train.batch_size % (change["accumulate"] * change["mesh"]["data"] * change["mesh"]["fsdp"]) == 0


def test_a_search_drops_what_cannot_fit_and_marks_what_is_best(monkeypatch):
    """With a plan that is made up: memory and time as the guess has them."""
    request = wanted(small(), "v5e-4")

    def made_up(candidate, advise):
        train, mesh = candidate.train, candidate.recipe.mesh
        fits = candidate.recipe.runtime.remat != "none"
        found = {"fits": fits, "mfu_bound": 0.5, "mfu_no_overlap": 0.4, "bound_by": "compute"}
        found |= {f"step_time_{kind}_s": 1.0 * train.accumulate * mesh.tensor for kind in ("bound", "no_overlap")}
        return found | {"hbm_bytes_per_device": {"peak": 100 // train.accumulate}}

    monkeypatch.setattr(plan, "plan", made_up)
    found = plan_search.search(request, tries=9)
    assert 4 < len(found["tried"]) <= 9 and found["pareto"]
    assert len({json.dumps([r["mesh"], r["remat"]]) for r in found["tried"]}) == len(found["tried"])
    assert all(row["fits"] for row in found["pareto"]) and not all(row["fits"] for row in found["tried"])
    text = plan_search.text(found)
    assert text.count("\n  *") == len(found["pareto"]) and "does not fit" in text


def test_broken_cache_entries_are_made_again(tmp_path):
    (tmp_path / "x.json").write_text("{")
    assert plan_cache.load(tmp_path, "x") is None and plan_cache.load(None, "x") is None


def test_unknown_kernels_are_an_error():
    made = hlo.Instruction("mystery.1", "custom-call", (), (), {}, ', custom_call_target="tpu_custom_call"', "")
    computation = hlo.Computation("main", {made.name: made}, made.name)
    with pytest.raises(ValueError, match=r"mystery\.1 is not known"):
        costs.count(hlo.Module({"main": computation}, "main"))


def test_a_plan_that_does_not_fit_is_shown_with_its_advice():
    memory = dict.fromkeys(
        ("limit", "arguments", "temporaries", "peak", "parameters", "optimizer", "activations"), 2**34
    )
    text = plan_show.text(
        {
            **{"stage": "s", "kind": "pretrain", "slices": 2, "topology": "v5e-4", "devices": 8, "chip": "TPU v5e"},
            **{"mesh": {"data": 2, "fsdp": 4}, "parameters": 1, "teacher_parameters": 0, "batch_tokens": 1},
            **{"accumulate": 1, "rows_per_device": 1.0, "remat": "full", "hbm_bytes_per_device": memory, "fits": False},
            "advice": {"sentence": "use less"},
        }
    )
    assert "2 × v5e-4" in text and "DOES NOT FIT: use less" in text
