"""Embedding models: groups packed as alone, masks, two stages with adapters, vectors as by hand, a job that resumes."""

import copy
import dataclasses
import functools
import json
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import own_models
import pytest
from conftest import ROOT

from kanana_jax import cli
from kanana_jax import config as config_lib
from kanana_jax.applications import embed_file as job
from kanana_jax.applications import embedder as embedder_lib
from kanana_jax.applications.embedder import Embedder
from kanana_jax.data import microworld
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Refused, TextEncoder
from kanana_jax.data.stream.groups import GroupEncoder
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.stream.packing import Rows
from kanana_jax.data.tokens.instructed import instructed
from kanana_jax.data.tokens.tokenizer import load_tokenizer
from kanana_jax.errors import UserError
from kanana_jax.inference.prefix import padded
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.parallel.sharding import put_batch, tree_shardings
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import contrastive, embedding_chapter, mntp
from kanana_jax.stages.contrastive import ContrastiveStage

pytestmark = pytest.mark.usefixtures("no_reports")
ONE = jax.devices()[:1]
T, ASK = 96, "Query: "


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", microworld.World.create(0, 100))


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


@pytest.fixture(scope="module")
def loaded(base):
    found = model_folder.find(base)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), ONE))
    return Model(found.architecture, causal=False), params


def _group(number):
    draw = random.Random(number)
    a, b = draw.randrange(90), draw.randrange(90)
    negatives = [f"{a + k + 1}의 짝은 {b}이다." for k in range(draw.randrange(4))]
    return {"id": str(number), "anchor": f"{a}의 짝?", "positive": f"{a}의 짝은 {b}이다.", "negatives": negatives}


def _config(**more):
    train = dict(tokens=8 * T, batch_tokens=4 * T, seq_len=T, optimizer=dict(learning_rate=1e-3))
    section = dict(kind="contrastive", start="x", mixture=dict(pairs=1.0), negatives=2, per_row=3, train=train)
    return config_lib.build(ContrastiveStage, {**section, **more}, "contrastive")


@functools.partial(jax.jit, static_argnums=0)
def _states(model, params, rows):
    return model(params, rows)[0]


def _alone(model, params, tokenizer, text, instruction=""):
    """The mean of the states of a text that a model reads alone, in float64, without those of its instruction."""
    read = instructed(tokenizer, text, instruction)
    n, places = len(read.ids), np.arange(T)
    ids = np.pad(read.ids, (0, T - n))
    rows = Rows(*(x[None] for x in (ids, ids, (places < n).astype(int), places)), None, None)
    return np.asarray(_states(model, params, rows)[0], np.float64)[read.skipped : n].mean(0)


@pytest.mark.parametrize("instruction", [ASK, pytest.param("", marks=pytest.mark.more)])
def test_groups_of_packed_texts_have_the_vectors_of_texts_alone(loaded, tokenizer, instruction):
    model, params = loaded
    config = _config(instruction=instruction)
    records = [_group(i) for i in range(5)]
    made = [contrastive.encoder(config, tokenizer)(record) for record in records]
    rows = packing.pack(made, T, whole=True)
    assert len(rows.inputs) < len(records)
    texts = jax.jit(lambda p: contrastive.texts_of(model, config, p, rows, jax.random.key(0)))(params)
    there = np.flatnonzero(texts.there)
    assert len(there) == len(records)
    for place, record in zip(there[:2], records):
        negatives = record["negatives"][:2]
        np.testing.assert_array_equal(texts.negatives_there[place], [i < len(negatives) for i in range(2)])
        got = np.stack([texts.anchors[place], texts.positives[place], *texts.negatives[place][: len(negatives)]])
        want = [_alone(model, params, tokenizer, record["anchor"], instruction)]
        want += [_alone(model, params, tokenizer, text) for text in (record["positive"], *negatives)]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_no_row_has_more_groups_than_its_share_and_what_does_not_fit_is_refused(tokenizer):
    short = {"id": "1", "anchor": "1", "positive": "2", "negatives": []}
    for per_row, seq_len in [(3, 96), (7, 95), (1, 20)]:
        encoder = GroupEncoder(tokenizer, seq_len, 1, per_row)
        rows = packing.pack([encoder(short)] * 20, seq_len, whole=True)
        assert rows.segment_ids.max() <= 3 * per_row
    encoder = GroupEncoder(tokenizer, 16, 1)
    assert encoder(short | {"positive": "가나다라마바사" * 9}) == Refused("texts_longer_than_row")
    assert encoder(short | {"anchor": " \n"}) == Refused("empty_text")
    cut = GroupEncoder(tokenizer, 16, 1, longest=3, instruction="a b c d e f g")
    assert cut(short) == Refused("no_token_beside_instruction")
    with pytest.raises(UserError, match="record '1' has no 'anchor'"):
        encoder({"id": "1", "text": "가"})


def test_a_text_is_its_own_positive_under_another_dropout(loaded, tokenizer):
    model, params = loaded
    config = _config(form="texts", dropout=0.3, negatives=0)
    made = [contrastive.encoder(config, tokenizer)({"id": "1", "text": f"{i}의 짝은 {i}이다."}) for i in range(4)]
    rows = packing.pack(made, T, whole=True)
    texts = jax.jit(lambda p: contrastive.texts_of(model, config, p, rows, jax.random.key(0)))(params)
    there = np.asarray(texts.there)
    assert there.sum() == 4 and not np.allclose(texts.anchors[there], texts.positives[there], atol=1e-2)
    with pytest.raises(Exception, match="dropout above 0"):
        _config(form="texts")
    with pytest.raises(Exception, match="chunks"):
        _config(
            train=dict(tokens=8 * T, batch_tokens=4 * T, seq_len=T, accumulate=2, optimizer=dict(learning_rate=1.0))
        )


def test_gradients_in_chunks_on_eight_devices_are_the_plain_ones_of_one(loaded, tokenizer):
    """With an instruction that does not count, dropout, prefixes, given negatives, and negatives of all devices."""
    model, params = loaded
    loss_config = dict(temperature=0.5, matryoshka=(8,))
    train = dict(tokens=16 * T, batch_tokens=16 * T, seq_len=T, optimizer=dict(learning_rate=1e-3))
    one = _config(instruction=ASK, dropout=0.2, contrastive=loss_config, train=train)
    made = [contrastive.encoder(one, tokenizer)(_group(i)) for i in range(48)]
    rows = jax.tree.map(lambda x: x[:16], packing.pack(made, T, whole=True))
    assert len(rows.inputs) == 16

    def both(config):
        loss = contrastive.make_loss(model, config=config)
        return jax.jit(jax.value_and_grad(lambda p, batch: loss(p, batch, jax.random.key(0), None).loss))

    want = jax.device_get(both(one)(params, rows))  # done before eight devices wait for one another
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    with jax.set_mesh(mesh):
        cut = jax.device_put(jax.device_get(params), tree_shardings(mesh, model.logical_axes()))
        got = both(dataclasses.replace(one, chunks=2))(cut, put_batch(mesh, np.arange(16), 16, rows))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), got[1], want[1])


@pytest.mark.parametrize("form", ["pairs", pytest.param("texts", marks=pytest.mark.more)])
def test_a_models_own_vectors_are_at_no_distance_and_anothers_at_that_of_unit_vectors(loaded, tokenizer, form):
    model, params = loaded
    more = dict(form="texts", negatives=0) if form == "texts" else {}
    config = _config(teacher="t", dropout=0.1, **more)
    made = [contrastive.encoder(config, tokenizer)({"text": "글", **_group(i)}) for i in range(5)]
    rows, teacher = packing.pack(made, T, whole=True), contrastive.Teacher(model, "mean")
    config = dataclasses.replace(config, dropout=1e-9)
    loss, key = contrastive.make_loss(model, config=config, teacher=teacher), jax.random.key(0)
    of = jax.jit(lambda others: loss(params, rows, key, others).metrics["teacher_distance"])
    assert float(of(params)) < 1e-4
    other = {**params, "embedding": params["embedding"][::-1]}
    distance = float(of(other))
    vectors = jax.jit(lambda p: contrastive.texts_of(model, config, p, rows, key))
    texts, aimed = vectors(params), vectors(other)
    want = 0.0
    for ours, theirs in zip(jax.tree.leaves(texts[:3]), jax.tree.leaves(aimed[:3])):
        ours, theirs = (np.asarray(x, np.float64).reshape(-1, 32) for x in (ours, theirs))
        there = np.linalg.norm(ours, axis=1) > 0
        unit = [x[there] / np.linalg.norm(x[there], axis=1, keepdims=True) for x in (ours, theirs)]
        want += np.square(unit[0] - unit[1]).sum()
    np.testing.assert_allclose(distance, want, rtol=1e-4)


def test_masked_tokens_are_predicted_where_the_token_before_them_is(tokenizer):
    documents = [TextEncoder(tokenizer)({"text": f"{i}의 짝은 {i * 7 % 90}이다. " * 9}) for i in range(6)]
    rows = Rows(*map(jnp.asarray, packing.pack(documents, 64)))
    config, token = mntp.MaskConfig(rate=0.3, random=0.2, kept=0.2), 5
    got = jax.jit(lambda rows, key: mntp.masked(config, rows, key, token, 300))(rows, jax.random.key(0))
    weights, changed = np.asarray(got.weights), np.asarray(got.inputs != rows.inputs)
    asked = np.argwhere(weights > 0)
    assert 0.2 < len(asked) / (np.asarray(rows.weights) > 0).sum() < 0.4
    segments = np.asarray(rows.segment_ids)
    for row, place in asked:
        assert segments[row, place] == segments[row, place + 1] > 0
        assert rows.targets[row, place] == rows.inputs[row, place + 1]
    # What was changed is asked for; of what is asked for, a fifth was kept.
    assert all(weights[row, place - 1] > 0 for row, place in np.argwhere(changed))
    share = np.mean(np.asarray(got.inputs)[asked[:, 0], asked[:, 1] + 1] == token)
    assert 0.45 < share < 0.75


@pytest.fixture(scope="module")
def chain(base, tmp_path_factory):
    """The chain of `configs/embed.py`, in small."""
    folder = tmp_path_factory.mktemp("embed")
    pairs, texts = folder / "pairs.jsonl", folder / "texts.jsonl"
    records = [_group(i) for i in range(150)]
    pairs.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records), encoding="utf-8")
    lines = [json.dumps({"text": " ".join(r["negatives"]) or r["positive"]}, ensure_ascii=False) for r in records]
    texts.write_text("\n".join(lines), encoding="utf-8")
    c = config_lib.read_config_file(f"{ROOT / 'configs/embed.py'}:{base},{texts},{pairs}")
    for section in (c.mntp, c.contrastive):
        section.train.update(batch_tokens=4 * T, seq_len=T, tokens=4 * T * 4, eval_every=0, log_every=1)
        section.train.checkpoint.update(every=4)
        section.train.optimizer.learning_rate = 1e-2
        section.train.optimizer.schedule.warmup_steps = 1
    c.sources.pairs.holdout = c.sources.texts.holdout = 0.2
    c.mntp.lora = None
    c.contrastive.lora.update(rank=4, alpha=8.0)
    c.contrastive.train.tokens = 4 * T * 10
    c.contrastive.update(chunks=1, per_row=3, instruction=ASK)
    return c


def _ran(chain, workdir, *stages, **more):
    c = copy.deepcopy(chain)
    c.stages = stages
    c.contrastive.update(**more)
    recipe.run(c, workdir, devices=ONE)
    return workdir


@pytest.fixture(scope="module")
def run(chain, tmp_path_factory):
    return _ran(chain, tmp_path_factory.mktemp("run") / "run", "contrastive", start=chain.mntp.start)


def _card(workdir, stage):
    return json.loads((workdir / stage / "model/model.json").read_text("utf-8"))


def _learnt(workdir, stage, figure):
    lines = [json.loads(x) for x in (workdir / stage / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["eval"][figure]["lang/ko"] for line in lines if "eval" in line]
    return losses[-1] < 0.97 * losses[0]


def test_contrastive_training_learns_and_notes_how_vectors_are_made(run):
    card = _card(run, "contrastive")
    figures = card["evaluation"]
    assert 0 <= figures["contrastive_accuracy"]["lang/ko"] <= 1 and figures["contrastive_loss"]["source/pairs"] > 0
    assert card["embedding"] == {"causal": False, "pooling": "mean", "instruction": ASK, "longest": T, "dims": []}
    assert json.loads((run / "contrastive/samples.json").read_text("utf-8")) == []
    assert (run / "contrastive/adapter").is_dir()
    assert _learnt(run, "contrastive", "contrastive_loss")


def test_held_out_groups_are_compared_with_all_candidates_whatever_the_batch(loaded, tokenizer):
    """Also with those that training leaves out as false negatives, and without its dropout."""
    model, params = loaded
    made = [contrastive.encoder(_config(), tokenizer)(_group(i)) for i in range(12)]
    rows = packing.pack(made, T, whole=True)
    whole = len(rows.inputs)
    config = _config(dropout=0.5, compared=whole, contrastive=dict(false_negative=0.0))
    held, mesh = [HeldoutRows("pairs", "ko", rows, 1, 12)], make_mesh(MeshConfig(), ONE)
    figures = [
        contrastive.make_evaluation(model, held, mesh, config=config, batch_size=size, chunk=0)(params)
        for size in (1, whole)
    ]
    for name in ("contrastive_loss", "contrastive_accuracy"):
        assert figures[0][name] == pytest.approx(figures[1][name], rel=1e-5)
    texts = jax.jit(lambda p: contrastive.texts_of(model, _config(), p, rows, jax.random.key(0)))(params)
    anchors, positives, negatives = (np.asarray(x, np.float64) for x in texts[:3])
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)  # noqa: E731
    candidates = np.concatenate([unit(positives), unit(negatives).reshape(-1, positives.shape[1])])
    usable = np.concatenate([texts.there, np.asarray(texts.negatives_there).reshape(-1)])
    found = []
    for place in np.flatnonzero(texts.there):
        others = usable & (np.arange(len(usable)) != place)
        cosines = candidates @ unit(anchors[place])
        found.append(unit(positives[place]) @ unit(anchors[place]) > cosines[others].max())
    assert 0 < np.mean(found) < 1
    assert figures[0]["contrastive_accuracy"]["lang/ko"] == pytest.approx(np.mean(found))


def test_the_report_has_the_figures_of_both_kinds(run, tmp_path):
    masked = [{"step": i, "eval": {"masked_loss": {"lang/ko": loss}}} for i, loss in ((0, 3.0), (4, 2.0))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, masked)), encoding="utf-8")
    folders = {"mntp": tmp_path, "contrastive": run / "contrastive", "other": tmp_path / "none"}
    found, curve, predicted = embedding_chapter.CHAPTER.blocks(folders)
    assert list(predicted.rows) == [("mntp", "ko", 3.0, 2.0)] and "negatives on average" in curve.caption
    ((stage, language, before, after, loss_before, loss_after),) = found.rows
    last = _card(run, "contrastive")["evaluation"]
    assert (stage, language) == ("contrastive", "ko") and loss_after < loss_before
    assert after == 100 * last["contrastive_accuracy"]["lang/ko"] and 0 <= before <= 100
    assert embedding_chapter.CHAPTER.blocks({"other": tmp_path / "none"}) == []


@pytest.mark.more
def test_masked_prediction_learns_and_the_chain_goes_on_from_it(chain, tmp_path):
    workdir = _ran(chain, tmp_path / "run", "mntp", "contrastive")
    card = _card(workdir, "mntp")
    assert np.isfinite(card["evaluation"]["masked_loss"]["source/texts"]) and card["embedding"]["longest"] == T
    assert _learnt(workdir, "mntp", "masked_loss") and _learnt(workdir, "contrastive", "contrastive_loss")


@pytest.mark.more
def test_a_teacher_in_chunks_is_approached(chain, run, tmp_path):
    more = dict(teacher=str(run / "contrastive/model"), teacher_weight=1.0, chunks=2)
    workdir = _ran(chain, tmp_path / "run", "contrastive", start=chain.mntp.start, **more)
    lines = [json.loads(x) for x in (workdir / "contrastive/metrics.jsonl").read_text("utf-8").splitlines()]
    distances = [line["teacher_distance"] for line in lines if "teacher_distance" in line]
    assert distances[-1] < 0.8 * distances[0]
    assert _card(workdir, "contrastive")["flops"]["teacher"] > 0


def test_vectors_are_those_of_the_model_alone_and_a_stopped_job_resumes(run, tmp_path, monkeypatch):
    embedder = dataclasses.replace(Embedder.load(str(run / "contrastive"), devices=ONE), batch_tokens=96)
    texts = [f"{i}의 짝은 {i * 31 % 90}이다." for i in range(9)]
    lines = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    lines[4:4] = [{"id": "e", "text": "  "}, {"id": "2", "text": "두 번"}, {"id": "m"}]
    lines += [{"id": "long", "text": "가나다 " * 200}, {"id": "", "text": ""}]
    file, output = tmp_path / "texts.jsonl", tmp_path / "vectors"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    config = job.EmbedConfig(block=3)
    calls = []

    def stop(done):
        calls.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.embed_file(embedder, str(file), output, config, show=stop)
    with pytest.raises(UserError, match="no finished vectors"):
        job.load_vectors(output)
    before = (output / "000001.npy").stat().st_mtime_ns
    counts = job.embed_file(embedder, str(file), output, config)
    assert counts == {"records": 14, "texts": 10, "empty": 2, "broken": 1, "repeated": 1, "cut": 1}
    assert (output / "000001.npy").stat().st_mtime_ns == before and calls == [3, 6]
    assert job.embed_file(embedder, str(file), output, config) == counts
    ids, vectors = job.load_vectors(output)
    assert ids == [*map(str, range(9)), "long"]
    for place in (0, 8):
        want = _alone(embedder.model, embedder.params, embedder.tokenizer, texts[place])
        np.testing.assert_allclose(vectors[place], want / np.linalg.norm(want), atol=1e-5)
    rows = []
    monkeypatch.setattr(embedder_lib, "padded", lambda ids, *size: rows.append(size[0]) or padded(ids, *size))
    asked = embedder([texts[0]], ASK).values[0]
    assert rows == [1]  # a question alone is no batch
    want = _alone(embedder.model, embedder.params, embedder.tokenizer, texts[0], ASK)
    np.testing.assert_allclose(asked, want / np.linalg.norm(want), atol=1e-5)
    with pytest.raises(UserError, match="made with other block"):
        job.embed_file(embedder, str(file), output, job.EmbedConfig(block=4))
    file.write_text(json.dumps({"text": "가"}), encoding="utf-16")
    with pytest.raises(UserError, match=r"with letters in field 'text' \(.*:1: not JSON in UTF-8.*\): nothing to embed"):
        job.embed_file(embedder, str(file), tmp_path / "none", config)
    with pytest.raises(UserError, match="text 2 of 2 is empty"):
        embedder(["가", " "])


def test_the_verb_on_eight_devices_makes_the_vectors_of_one(run, tmp_path, capsys):
    file, output = tmp_path / "queries.jsonl", tmp_path / "vectors"
    file.write_text('{"id": "a", "text": "3의 짝?"}\n{"id": "b", "text": ""}\n{"id": "c", "text": "7의 짝?"}', "utf-8")
    command = [
        "embed",
        str(run / "contrastive"),
        str(file),
        "--output",
        str(output),
        "--query",
        "--dim",
        "16",
        "--half",
    ]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"{output}: 2 vectors of 16 numbers; 1 empty\n"
    ids, vectors = job.load_vectors(output)
    want = Embedder.load(str(run / "contrastive"), devices=ONE, dim=16)(["3의 짝?", "7의 짝?"], ASK).values
    assert ids == ["a", "c"] and vectors.dtype == np.float16
    np.testing.assert_allclose(vectors, want, atol=1e-3)
    assert cli.main([*command, "--instruction", "x"]) == 2
    assert cli.main([*command[:-3], "--dim", "33"]) == 2
    assert "have 32 dimensions" in capsys.readouterr().err


def test_a_soup_makes_vectors_as_its_models_do(run, base, tmp_path):
    model, again, soup = str(run / "contrastive/model"), tmp_path / "again", tmp_path / "soup"
    shutil.copytree(model, again)
    assert cli.main(["merge", model, str(again), "--weights", "0.5", "0.5", "--output", str(soup)]) == 0
    assert model_folder.find(soup).card["embedding"] == model_folder.find(model).card["embedding"]
    mixed = tmp_path / "mixed"
    assert cli.main(["merge", model, str(base), "--weights", "0.5", "0.5", "--output", str(mixed)]) == 0
    assert "embedding" not in model_folder.find(mixed).card
