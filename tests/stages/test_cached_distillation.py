"""A student learns from a cached teacher as it would from the teacher itself, and only from the right one."""

import copy
import dataclasses
import json
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
from conftest import ROOT, log_softmax, losses, stopped_after

from kanana_jax import config as config_lib
from kanana_jax.data.stream.cached import CachedStream
from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.data.stream.teacher_cache import TeacherCache
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop import model_folder
from kanana_jax.losses.distillation import DistillationConfig
from kanana_jax.models import counts, presets, transformer
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import context as recipe_context
from kanana_jax.recipe import inputs as recipe_inputs
from kanana_jax.recipe import run as recipe
from kanana_jax.recipe.config import _stage
from kanana_jax.recipe.reports import write_report
from kanana_jax.stages import cut, distill
from kanana_jax.stages.cache_teacher import _Job, _progress
from kanana_jax.stages.cost_chapter import cache_card, family_cost
from kanana_jax.surgery.cuts import CutList
from kanana_jax.training import loop

V, STEPS = 800, 6
ONE = slice(0, 1)
MESH = dict(data=2, fsdp=2, sequence=1, tensor=2)


def _model(folder, seed, size, **shape):
    """A model of random weights."""
    a = presets.tiny(V, num_heads=4, num_kv_heads=2, head_dim=8, **shape)
    rng = np.random.default_rng(seed)
    shapes = transformer.abstract_params(a, Runtime())
    params = jax.tree.map(lambda s: (size * rng.normal(size=s.shape)).astype(np.float32), shapes)
    model_folder.write(folder, a, params, model_folder.card(a), None, {})
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Large weights, so that it is sure of what it says."""
    return _model(tmp_path_factory.mktemp("teacher") / "model", 0, 0.7, embed_dim=32, mlp_dim=64, num_layers=2)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return _model(tmp_path_factory.mktemp("student") / "model", 1, 0.05, embed_dim=24, mlp_dim=48, num_layers=1)


@pytest.fixture(scope="module")
def config(teacher, student):
    """A student learns from the teacher, and from all that it said."""
    c = config_lib.read_config_file(f"{ROOT / 'configs/tiny.py'}:test").unlock()
    c.stages = ("online", "cached", "offline", "exact")
    c.samples = dict(prompts={})
    for source in c.sources.values():
        source.holdout = 0.0
    mixture = c.student.mixture.to_dict()
    train = c.student.train.to_dict() | dict(tokens=512 * STEPS, checkpoint=dict(every=2, keep_last=1, keep_best=0))
    c.online = dict(kind="distill", start=str(student), mixture=mixture, train=train)
    c.offline = dict(c.online, distill=dict(cache="cached"))
    c.online.distill = dict(teacher=str(teacher), dtype="float32")
    keep = dict(k=V, tokens=512 * STEPS, batch_tokens=512, seq_len=64, dtype="float32", shard_bytes=512 * V * 8)
    c.cached = dict(kind="cache_teacher", start=str(teacher), mixture=mixture, cache_teacher=keep)
    keep = keep | dict(log_probs="float32", tokens=512)
    c.exact = dict(kind="cache_teacher", start=str(teacher), mixture=mixture, cache_teacher=keep, data_after="online")
    return c


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("cached")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "_report", lambda workdir: None)
        recipe.run(config, workdir, devices=jax.devices()[ONE])
    return workdir


@pytest.fixture(autouse=True)
def _no_reports(monkeypatch):
    monkeypatch.setattr(recipe, "_report", lambda workdir: None)


def _again(run, tmp_path, *gone):
    """A copy of the workdir without some stages."""
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(*gone, "compiled", "events"))
    (tmp_path / "run/config.json").unlink()
    return tmp_path / "run"


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_tokens_cached_teach_as_the_teacher_does(run):
    online, offline = (np.array(losses(run, stage)) for stage in ("online", "offline"))
    assert online[0] > 1 and len(offline) == STEPS  # nats: the two have much to tell each other
    np.testing.assert_allclose(offline, online, rtol=3e-4)  # float16: 2⁻¹¹ of each log-probability


def _bound(folder):
    found = model_folder.find(folder)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[ONE]))
    return transformer.bind(found.architecture, Runtime(), params)


def _stream(config, workdir, stage, name):
    """A stage's stream and what its rows are made of."""
    parsed, stages = recipe.parse(config)
    prepared = recipe_inputs.prepare_sources(parsed, workdir)
    tokenizer = recipe_inputs.tokenizer(parsed, prepared, workdir)
    shared = recipe_context.Run(parsed, stages, prepared, tokenizer, None, workdir)
    stage = stages[name] if stage is None else _stage(stage, name)
    position = shared.position(stage)
    assert (position is None) == (not stage.data_after)
    stream = shared.stream(name, stage, TextEncoder(tokenizer), range(8), 8, 64, position)
    return stream, shared.about_rows(name, stage)


def _logits(model, rows):
    run = jax.jit(lambda x, **where: model(x, **where))
    hidden = run(rows.inputs, positions=rows.positions, segment_ids=rows.segment_ids)
    return np.asarray(hidden, np.float64) @ np.asarray(model.unembedding_matrix(), np.float64).T


def test_sixteen_tokens_and_the_rest_by_hand(run, config, teacher, student):
    """A loss of a student that goes on where `online` left the data, from the logits of both models in float64."""
    stage = config.offline.to_dict() | dict(data_after="online")
    stream, about = _stream(config, run, stage, "short")
    cache = TeacherCache(run / "exact")
    stream = CachedStream(stream, np.arange(8), cache, steps=1, stage="short", about=about, top_k=16)
    batch = next(stream)
    stream.close()
    assert batch.teacher_ids.shape == (8, 64, 16)
    model = _bound(student)
    loss = distill.make_cached_loss(Model(model.architecture), config=DistillationConfig(ce_weight=0.25), chunk=100)
    params = model_folder.load_params(
        model_folder.find(student), Runtime(), make_mesh(MeshConfig(), jax.devices()[ONE])
    )
    found = jax.jit(loss)(params, batch, None, None)

    log_p, log_q = (log_softmax(_logits(m, batch.rows)) for m in (_bound(teacher), model))
    top = np.argsort(-log_p, axis=-1, kind="stable")[..., :16]
    p, q = (np.exp(np.take_along_axis(x, top, -1)) for x in (log_p, log_q))
    t, u = 1 - p.sum(-1), 1 - q.sum(-1)
    each = (p * np.log(p / q)).sum(-1) + t * np.log(t / u)
    nll = -np.take_along_axis(log_q, batch.rows.targets[..., None], -1)[..., 0]
    w = batch.rows.weights
    assert float(found.metrics["divergence"]) == pytest.approx((each * w).sum(), rel=2e-5)
    assert float(found.loss) == pytest.approx(((0.75 * each + 0.25 * nll) * w).sum(), rel=2e-5)
    full = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    assert (each * w).sum() < 0.98 * (full * w).sum()  # the support is really cut
    for row, entry in enumerate(cache.read(0, range(8))):
        kept = w[row] > 0
        np.testing.assert_array_equal(entry.ids[:, :4], top[row][kept][:, :4])
        np.testing.assert_allclose(entry.log_probs[:, :16], np.log(p[row][kept]), atol=2e-5)


def test_what_it_cost_and_what_is_told(run, teacher):
    index = json.loads((run / "cached/index.json").read_text())
    cards = {s: json.loads((run / s / "model/model.json").read_text()) for s in ("online", "offline")}
    exact = json.loads((run / "exact/index.json").read_text())
    a = model_folder.find(teacher).architecture
    assert index["tokens"] == cards["offline"]["tokens"] == cards["online"]["tokens"]
    assert index["flops"]["teacher"] == pytest.approx(counts.forward_flops_per_token(a, 64) * index["tokens"])
    assert cards["offline"]["flops"]["teacher"] == 0 and cards["offline"]["cache"] == "cached"
    assert index["flops"]["teacher"] == pytest.approx(cards["online"]["flops"]["teacher"])
    assert index["rows"] == 8 * STEPS and len(index["shards"]) == 3 and index["ids_dtype"] == "uint16"
    size = sum((run / "cached" / shard["file"]).stat().st_size for shard in index["shards"])
    assert index["bytes_per_token"] == pytest.approx(size / index["tokens"])
    # With 2 + 4 bytes an entry instead of 2 + 2, and the same tail to the precision of each.
    assert exact["bytes_per_token"] > 1.2 * index["bytes_per_token"] and exact["mean_tail"] < 1e-6
    assert index["mean_tail"] < 2e-4
    through_cache = family_cost({"cached": cache_card(index), "offline": cards["offline"]})
    directly = family_cost({"online": cards["online"]})
    assert through_cache["total"] == pytest.approx(directly["total"])
    assert through_cache["scratch"] == directly["scratch"]
    page = write_report(run).read_text()
    assert (
        "Cached teachers" in page
        and re.search(r"cached: cache_teacher, [^\n]*finished", page)
        and "bytes per token" in page
    )


class _Stop(Exception):
    pass


@pytest.mark.parametrize("how", ["crash", "sigterm"])
def test_a_stopped_cache_job_ends_with_the_same_bytes(run, config, tmp_path, monkeypatch, how):
    workdir = _again(run, tmp_path, "cached", "offline", "exact")
    original, written = _Job._write, []

    def write(self, *arguments):
        found = original(self, *arguments)
        written.append(1)
        if len(written) == 4:
            if how == "crash":
                raise _Stop
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(_Job, "_write", write)
        with pytest.raises(
            _Stop if how == "crash" else loop.Preempted, match=None if how == "crash" else "2 of 6 steps"
        ):
            recipe.run(config, workdir, devices=jax.devices()[ONE])
    assert sorted(path.name for path in (workdir / "cached").iterdir()) == [
        "000000-00000.array_record",
        "progress.json",
    ]
    (workdir / "cached/000009-00000.partial").write_bytes(b"of a process that was killed")
    (workdir / "cached/000001-00000.array_record").write_bytes(b"whole, but not yet in the progress")
    stages = copy.deepcopy(config)
    stages.stages = ("online", "cached")
    (workdir / "config.json").unlink()
    recipe.run(stages, workdir, devices=jax.devices()[ONE])
    assert _files(workdir / "cached") == _files(run / "cached")


def test_a_stopped_student_ends_with_the_same_bits(run, config, tmp_path):
    workdir = _again(run, tmp_path, "offline")
    config = copy.deepcopy(config)
    config.stages = ("online", "cached", "offline")
    with stopped_after(5):
        recipe.run(config, workdir, devices=jax.devices()[ONE])
    recipe.run(config, workdir, devices=jax.devices()[ONE])
    assert losses(workdir, "offline") == losses(run, "offline")
    ends = [
        json.loads((w / "data_state.json").read_text()) for w in (workdir / "offline", run / "offline", run / "online")
    ]
    assert ends[0] == ends[1] == ends[2]


def test_written_by_eight_devices_and_read_by_one(run, config, tmp_path):
    workdir = _again(run, tmp_path, "cached", "offline", "exact")
    eight, one = copy.deepcopy(config), copy.deepcopy(config)
    eight.mesh = MESH
    eight.stages, one.stages = ("online", "cached"), ("online", "cached", "offline")
    recipe.run(eight, workdir)
    ours, theirs = TeacherCache(workdir / "cached"), TeacherCache(run / "cached")
    for step in range(STEPS):
        for a, b in zip(ours.read(step, range(8)), theirs.read(step, range(8))):
            assert a[:2] == b[:2]
            np.testing.assert_allclose(
                *(x.log_probs.astype(np.float32) for x in (a, b)), rtol=1.1e-3, atol=1e-5
            )  # an ulp
    (workdir / "config.json").unlink()
    recipe.run(one, workdir, devices=jax.devices()[ONE])
    np.testing.assert_allclose(losses(workdir, "offline"), losses(run, "offline"), rtol=2e-4)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda c: c.update(seed=1), "row 0 of step 0 is not the row .*its seed differ"),
        (lambda c: setattr(c.offline, "mixture", dict(ko_news=1.0)), "is not the row .*its mixture differ"),
        (lambda c: c.offline.update(data_after="online"), "is not the row .*its data_after differ"),
        (lambda c: c.offline.train.update(tokens=512 * 7), "ends after 6 steps, the stage has 7"),
        (lambda c: c.offline.train.update(seq_len=32), "rows of seq_len 64, the stage needs 32"),
        (lambda c: c.offline.distill.update(teacher="online"), "made by another model"),
        (lambda c: c.offline.distill.update(cache="online"), "online holds no cached teacher"),
        (lambda c: c.cached.cache_teacher.update(k=V + 1), "cache_teacher.k' is 801: the tokenizer has 800"),
        (
            lambda c: c.cached.cache_teacher.update(seq_len=2048, batch_tokens=8 * 2048),
            "beyond the teacher's max_seq_len",
        ),
        (lambda c: c.cached.update(start="online", data_after="later"), "cached.data_after' is 'later'"),
    ],
)
def test_what_does_not_belong_together_is_told(run, config, tmp_path, change, told):
    config = copy.deepcopy(config)
    config.stages = ("online", "cached", "offline")
    change(config)
    gone = ("cached", "offline") if "tokenizer has" in told or "max_seq_len" in told else ("offline",)
    with pytest.raises(UserError, match=told) as caught:
        recipe.run(config, _again(run, tmp_path, *gone), devices=jax.devices()[ONE])
    assert "\n" not in str(caught.value)


def test_a_job_goes_on_only_with_what_it_began_with(run, config, tmp_path):
    workdir = _again(run, tmp_path, "cached", "offline", "exact")
    (workdir / "cached").mkdir()
    (workdir / "cached/progress.json").write_text(json.dumps({"header": {"teacher": "another", "k": V}, "done": 2}))
    with pytest.raises(UserError, match="started with different values of .*teacher"):
        recipe.run(config, workdir, devices=jax.devices()[ONE])
    header = json.loads((run / "cached/index.json").read_text())
    header["data"] = header["data"] | {"sources": "others"}
    (workdir / "cached/progress.json").write_text(json.dumps({"header": header, "done": 2}))
    with pytest.raises(UserError, match="started with different values of sources:"):
        recipe.run(config, workdir, devices=jax.devices()[ONE])


def test_a_damaged_progress_is_told(tmp_path):
    header = {"k": 3, "data": {"seed": 0}}
    shard = {"file": "000000-00000.array_record", "bytes": 8}
    good = {"header": header, "done": 2, "tokens": 9, "tail": 0.5, "stream": {"0": {}}, "shards": [shard]}
    file = tmp_path / "progress.json"
    file.write_text(json.dumps(good))
    assert _progress(tmp_path, header) == good
    for key, value in (
        ("header", None), ("header", {"k": 3, "data": 3}), ("done", -1), ("done", "2"), ("tokens", None), ("tail", "0"),
        ("stream", 3), ("shards", None), ("shards", [3]), ("shards", [shard | {"bytes": None}]), ("shards", [{}]),
    ):  # fmt: skip
        file.write_text(json.dumps(good | {key: value}))
        with pytest.raises(UserError, match="progress.json is damaged: delete"):
            _progress(tmp_path, header)


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda c: c.offline.distill.update(loss=dict(divergence="reverse")), "divergence 'forward' at temperature 1"),
        (lambda c: c.offline.distill.update(loss=dict(temperature=2.0)), "not 'forward' at 2.0"),
        (lambda c: c.offline.distill.update(hidden=dict(weight=1.0)), "holds no hidden states"),
        (lambda c: setattr(c.offline, "distill", dict()), "name a teacher, or a cache"),
        (lambda c: c.online.distill.update(top_k=4), "top_k is for a cache"),
        (
            lambda c: (
                c.online.update(start="scratch", model=presets.tiny(V).to_dict()),
                c.online.distill.update(hidden=dict(weight=1.0)),
            ),
            "a student from scratch has no layers of its teacher",
        ),
        (
            lambda c: setattr(c.online, "distill", dict(cache="cached")),
            "online.distill.cache' is 'cached', which does not",
        ),
        (lambda c: c.cached.cache_teacher.update(k=0), "k, tokens"),
        (lambda c: c.cached.cache_teacher.update(batch_tokens=100), "multiple of seq_len"),
        (lambda c: setattr(c.cached, "mixture", dict()), "needs a mixture"),
        (
            lambda c: c.cached.update(start="scratch", model=presets.tiny(V).to_dict()),
            "starts from another stage or a model",
        ),
        (lambda c: c.cached.update(train=c.online.train), "has no section 'train'"),
    ],
)
def test_sections_that_do_not_fit_are_refused(config, change, told):
    config = copy.deepcopy(config)
    change(config)
    with pytest.raises(ConfigError, match=told):
        recipe.parse(config)


def test_hidden_states_over_two_prunings(run, config, teacher, student, tmp_path):
    """The first figures of a student that was pruned twice, once by another recipe, from its and its teacher's states."""
    found = model_folder.find(teacher)
    first = tuple(i for i in range(32) if i % 4)
    narrow = dataclasses.replace(found.architecture, embed_dim=24)
    cut.carry_out(
        CutList(found.architecture, narrow, (0, 1), (False, False), first), found, tmp_path / "narrow", "narrow", {}, {}
    )
    workdir = _again(run, tmp_path, "online", "offline", "cached", "exact")
    config = copy.deepcopy(config)
    config.stages = ("shallow", "student")
    shape, scores = dict(embed_dim=16, num_layers=1), dict(method="random", samples=8, batch_size=8, seed=3)
    config.shallow = dict(
        kind="prune", start=str(tmp_path / "narrow"), mixture=config.online.mixture.to_dict(),
        prune=dict(shape=shape, importance=scores, seq_len=64),
    )  # fmt: skip
    config.student = config.online.to_dict() | dict(
        start="shallow", distill=dict(teacher=str(teacher), dtype="float32", hidden=dict(weight=0.5))
    )
    config.student.train.tokens = 512
    recipe.run(config, workdir, devices=jax.devices()[ONE])
    line = next(json.loads(x) for x in (workdir / "student/metrics.jsonl").read_text().splitlines() if "hidden" in x)
    assert line["loss"] == pytest.approx(line["divergence"] + 0.5 * line["hidden"], rel=1e-5)

    with np.load(workdir / "shallow/importance.npz") as file:
        second = np.sort(np.argsort(-file["channels"], kind="stable")[:16])
        layer = 1  # of two the last, which stays
    stream, _ = _stream(config, workdir, None, "student")
    rows = next(stream)
    stream.close()

    def states(folder):
        model, where = _bound(folder), dict(positions=rows.positions, segment_ids=rows.segment_ids)
        seen = jax.jit(lambda x: model(x, **where, observe=lambda taps: taps["output"])[1])
        return np.asarray(seen(rows.inputs), np.float64)

    s, t = states(workdir / "shallow")[0], states(teacher)[layer][..., np.array(first)[second]]
    each = 1 - (s * t).sum(-1) / np.sqrt((s * s).sum(-1) * (t * t).sum(-1))
    w = rows.weights
    assert line["hidden"] == pytest.approx((each * w).sum() / w.sum(), rel=1e-4)
    config.student.distill.teacher = str(student)
    (workdir / "config.json").unlink()
    shutil.rmtree(workdir / "student")
    with pytest.raises(UserError, match="no surgery.json leads from .*student"):
        recipe.run(config, workdir, devices=jax.devices()[ONE])
