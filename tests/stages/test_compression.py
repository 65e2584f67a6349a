"""Up-scaling, pruning and distillation as stages of a recipe: they run, add up, and refuse what cannot be."""

import copy
import json
import shutil

import jax
import numpy as np
import pytest
from conftest import losses

from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop import model_folder
from kanana_jax.models import counts
from kanana_jax.models.architecture import Runtime
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import config as recipe_config
from kanana_jax.recipe import context as recipe_context
from kanana_jax.recipe import inputs as recipe_inputs
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import cut
from kanana_jax.surgery.importance import ImportanceConfig

pytestmark = pytest.mark.usefixtures("no_reports")
SHORT = ("stage1.train.tokens=2048", "stage2.train.tokens=1024")


def _card(workdir, stage):
    return json.loads((workdir / stage / "model/model.json").read_text())


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory):
    workdir, config = tmp_path_factory.mktemp("chain"), tiny_config(*SHORT)
    recipe.run(config, workdir, devices=jax.devices()[:1])
    return workdir, config


def test_every_stage_leaves_a_model_and_its_cost(run):
    workdir, config = run
    stage2, deeper, student = (_card(workdir, s) for s in ("stage2", "deeper", "student"))
    assert deeper["architecture"]["num_layers"] == 3 and stage2["architecture"]["num_layers"] == 2
    assert student["architecture"]["embed_dim"] == 24 and student["parameters"] < stage2["parameters"]
    teacher = model_folder.find(workdir / "stage2").architecture
    forward = counts.forward_flops_per_token(teacher, 64)
    assert student["flops"]["teacher"] == pytest.approx(forward * student["tokens"])
    assert _card(workdir, "pruned")["flops"]["calibration"] == pytest.approx(forward * 8 * 64)
    assert stage2["flops"]["teacher"] == 0
    assert len(losses(workdir, "student")) == 6
    assert json.loads((workdir / "pruned/surgery.json").read_text())["calibration"]["rows"] == 8
    report = json.loads((workdir / "upscaled/surgery.json").read_text())
    assert report["layers"] == [0, 1, 1]
    page = (workdir / "report.html").read_text()
    assert "student" in page


def test_the_kept_parts_are_the_teachers(run):
    workdir, _ = run
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    teacher, pruned = (
        model_folder.load_params(model_folder.find(workdir / s), Runtime(), mesh) for s in ("stage2", "pruned")
    )
    with np.load(workdir / "pruned/importance.npz") as file:
        channels = np.sort(np.argsort(-file["channels"], kind="stable")[:24])
    np.testing.assert_array_equal(pruned["embedding"], teacher["embedding"][:, channels])


def test_a_finished_chain_is_left_alone_and_a_removed_stage_comes_again(run):
    workdir, config = run
    before = {s: (workdir / s / "model/model.json").stat().st_mtime_ns for s in ("pruned", "student")}
    old = (workdir / "pruned/model/model-00002-of-00003.safetensors").read_bytes()

    shutil.rmtree(workdir / "pruned/model")
    recipe.run(config, workdir, devices=jax.devices()[:1])
    assert (workdir / "pruned/model/model-00002-of-00003.safetensors").read_bytes() == old
    assert (workdir / "student/model/model.json").stat().st_mtime_ns == before["student"]


def test_eight_devices_distil_as_one_with_the_teacher_on_a_mesh_of_its_own(run, tmp_path):
    workdir, config = run
    shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("student", "compiled"))
    config = copy.deepcopy(config)
    config.mesh = dict(data=2, fsdp=2, sequence=1, tensor=2)
    config.student.distill.mesh = dict(data=1, fsdp=4, sequence=1, tensor=2)
    (tmp_path / "run/config.json").unlink()
    recipe.run(config, tmp_path / "run")
    np.testing.assert_allclose(losses(tmp_path / "run", "student"), losses(workdir, "student"), rtol=2e-4, atol=2e-6)

    shutil.rmtree(tmp_path / "run/student")
    for mesh, told in (
        (dict(tensor=3), "mesh data 1 × fsdp 4 × sequence 1 × tensor 3 does not divide"),
        (dict(fsdp=2, tensor=4), "teacher.num_kv_heads = 2 is not divisible by the 4"),
        (dict(sequence=2, fsdp=2, tensor=2), "student.distill.mesh.sequence' is 2, but config 'mesh.sequence' is 1"),
    ):
        config.student.distill.mesh.update(mesh)
        (tmp_path / "run/config.json").unlink()
        with pytest.raises(ConfigError, match=told):
            recipe.run(config, tmp_path / "run")


@pytest.mark.parametrize(
    "change, told",
    [
        ("student.distill.teacher='deepr'", "no stage and no folder of that name; did you mean 'deeper'"),
        ("pruned.prune.shape.embed_dim=1000", "config 'pruned.prune.shape.embed_dim' is 1000"),
        ("upscaled.upscale.num_layers=2", "already has 2"),
        ("pruned.prune.seq_len=4096", "'pruned.prune.seq_len' is 4096, beyond the model's max_seq_len"),
        ("pruned.prune.shape.num_heads=3", "the 2 KV groups do not divide"),
    ],
)
def test_what_cannot_be_is_told(run, tmp_path, change, told):

    workdir, config = run
    config = copy.deepcopy(config)
    recipe_config.override(config, [change])
    stage = change.partition(".")[0]
    shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns(stage, "compiled"))
    (tmp_path / "run/config.json").unlink()
    with pytest.raises(UserError, match=told):
        recipe.run(config, tmp_path / "run", devices=jax.devices()[:1])


@pytest.mark.parametrize(
    "change, told",
    [
        ("pruned.kind='distill'", "'pruned'.*kind 'distill' needs a section 'train'"),
        ("upscaled.start='scratch'", "'scratch' needs a model section"),
        ("student.distill.teacher='student'", "config 'student.distill.teacher' is 'student', the stage itself"),
        ("upscaled.start='student'", "config 'upscaled.start' is 'student', which does not come before it"),
        ("student.distill.loss=dict(temperature=0.0)", "temperature must be positive"),
        ("student.distill.dtype='int8'", "bfloat16"),
    ],
)
def test_sections_that_do_not_fit_are_refused(tiny_config, change, told):
    with pytest.raises(ConfigError, match=told):
        config = tiny_config()
        key, _, value = change.partition("=")
        *path, last = key.split(".")
        section = config
        for name in path:
            section = section[name]
        section[last] = eval(value)  # noqa: S307
        recipe.parse(config)


def test_calibration_text_of_another_vocabulary_is_refused(run, tmp_path):
    """Its token ids would name other words, and every score would be of nothing."""
    workdir, config = run
    config = copy.deepcopy(config)
    config.stages = ("pruned",)
    config.pruned.start = str(workdir / "stage2")
    config.tokenizer.vocab_size = 700
    with pytest.raises(ConfigError, match="trained with another tokenizer"):
        recipe.run(config, tmp_path / "smaller", devices=jax.devices()[:1])
    config.tokenizer.vocab_size = 800
    config.tokenizer.train_bytes = 100_000
    with pytest.raises(ConfigError, match="'pruned'.*another tokenizer"):
        recipe.run(config, tmp_path / "other", devices=jax.devices()[:1])


def test_another_vocabulary_cannot_teach(run, tmp_path):
    workdir, config = run
    config = copy.deepcopy(config)
    config.stages = ("student",)
    shape = model_folder.find(workdir / "pruned").architecture
    config.student.update(start="scratch", model={**shape.to_dict(), "vocab_size": 700})
    config.student.distill.teacher = str(workdir / "stage2")
    config.tokenizer.vocab_size = 700
    with pytest.raises(ConfigError, match="the teacher was trained with another tokenizer"):
        recipe.run(config, tmp_path / "smaller", devices=jax.devices()[:1])
    config.student.model.vocab_size = config.tokenizer.vocab_size = 800
    config.tokenizer.train_bytes = 100_000
    with pytest.raises(ConfigError, match="the teacher was trained with another tokenizer"):
        recipe.run(config, tmp_path / "other", devices=jax.devices()[:1])
    # The same without a history: the folder's own files say it, also when it is imported again.
    teacher = tmp_path / "exported"
    model_folder.transfer(workdir / "stage2/model", teacher, keep_card=False)
    model_folder.transfer(teacher, tmp_path / "imported", keep_card=True)
    before = model_folder.find(workdir / "stage2").card["tokenizer"]
    assert model_folder.find(tmp_path / "imported").card["tokenizer"] == before
    for place in (teacher, tmp_path / "imported"):
        config.student.distill.teacher = str(place)
        with pytest.raises(ConfigError, match="the teacher was trained with another tokenizer"):
            recipe.run(config, tmp_path / "other2", devices=jax.devices()[:1])
        shutil.rmtree(tmp_path / "other2")
    for file in teacher.glob("tokenizer.*"):
        file.write_bytes(b"")
    config.student.distill.teacher = str(teacher)
    with pytest.raises(UserError, match="exported/tokenizer.json"):
        recipe.run(config, tmp_path / "other2", devices=jax.devices()[:1])
    with pytest.raises(UserError, match="exported/tokenizer.json"):
        model_folder.transfer(teacher, tmp_path / "again", keep_card=True)


@pytest.mark.parametrize("samples, at_once", [(6, 3), (8, 8), (9, 5)])
def test_calibration_rows_are_as_many_as_named_and_the_same_on_any_devices(run, samples, at_once):
    workdir, config = run
    parsed, stages = recipe.parse(config)
    prepared = recipe_inputs.prepare_sources(parsed, workdir)
    tokenizer = recipe_inputs.tokenizer(parsed, prepared, workdir)
    scoring = ImportanceConfig(samples=samples, batch_size=at_once)

    def rows(mesh, count):
        made = make_mesh(MeshConfig(**mesh), jax.devices()[:count])
        context = recipe_context.Run(parsed, stages, prepared, tokenizer, made, workdir)
        found = []
        counted = cut.Calibration()
        for batch in cut.calibration_batches("pruned", stages["pruned"], context, scoring, 64, counted):
            assert len(batch.inputs) % count == 0
            found += [np.asarray(batch.inputs)[i] for i in np.flatnonzero(np.asarray(batch.weights).sum(axis=1))]
        assert counted == cut.Calibration(samples, len({row.tobytes() for row in found}))
        return found

    want = rows(dict(), 1)
    assert len(want) == samples
    for mesh, count in ((dict(data=3), 3), (dict(), 8), (dict(data=5), 5)):
        np.testing.assert_array_equal(rows(mesh, count), want)


def test_calibration_text_that_is_read_over_is_told(run, caplog):
    workdir, config = run
    config = copy.deepcopy(config)
    parsed, stages = recipe.parse(config)
    prepared = recipe_inputs.prepare_sources(parsed, workdir)
    context = recipe_context.Run(
        parsed,
        stages,
        prepared,
        recipe_inputs.tokenizer(parsed, prepared, workdir),
        make_mesh(MeshConfig(), jax.devices()[:1]),
        workdir,
    )
    for samples, told in ((8, False), (1200, True)):
        caplog.clear()
        scoring, counted = ImportanceConfig(samples=samples, batch_size=200), cut.Calibration()
        batches = cut.calibration_batches("pruned", stages["pruned"], context, scoring, 64, counted)
        different = {row.tobytes() for batch in batches for row in np.asarray(batch.inputs)}
        assert counted.rows == samples and bool(counted.read_over) == told
        assert ("rows of calibration text are more than its sources hold" in caplog.text) == told
        if told:
            assert min(counted.read_over.values()) > 1
            assert f"{counted.different_rows} of them are distinct" in caplog.text
            assert counted.different_rows == len(different)


def test_calibration_text_that_repeats_itself_is_told(run, tmp_path, caplog):
    workdir, config = run
    config = copy.deepcopy(config)
    # One text again and again: far more rows than are read, all of a few forms.
    text = "강물은 산에서 시작해 들을 지나 바다로 흐른다. " * 40
    for name, source in config.sources.items():
        lines = (json.dumps({"id": f"{name}{i}", "text": text}, ensure_ascii=False) for i in range(200))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        source.path = str(tmp_path / f"{name}.jsonl")
    parsed, stages = recipe.parse(config)
    prepared = recipe_inputs.prepare_sources(parsed, tmp_path)
    tokenizer = recipe_inputs.tokenizer(parsed, prepared, workdir)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    context = recipe_context.Run(parsed, stages, prepared, tokenizer, mesh, tmp_path)
    scoring, counted = ImportanceConfig(samples=200, batch_size=50), cut.Calibration()
    batches = cut.calibration_batches("pruned", stages["pruned"], context, scoring, 64, counted)
    different = set()
    for batch in batches:
        read = np.asarray(batch.weights).any(axis=1)  # the others fill the batch up
        different |= {row.tobytes() for row in np.asarray(batch.inputs)[read]}
    assert not counted.read_over and counted.different_rows == len(different) < 200
    assert f"of 200 rows of calibration text, only {len(different)} are distinct" in caplog.text
    assert "its sources repeat themselves" in caplog.text


def test_a_search_prefers_a_number_to_none():
    from kanana_jax.stages.search import Candidate

    found = [Candidate({"4": 9.0, "8": float("nan")}), Candidate({"4": 1.0}), Candidate({"4": 5.0, "8": 3.0})]
    ranked = sorted(found, key=Candidate.standing)
    assert [c.rungs.get("8") for c in ranked][0] == 3.0 and ranked[-1].rungs == {"4": 1.0}
