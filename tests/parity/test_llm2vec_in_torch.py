"""`benchmarks/llm2vec_torch.py` beside our stages: vectors, the losses of a batch and of the updates after it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_models
import pytest
from conftest import ROOT, losses
from test_benchmarks import load

from kanana_jax import config as config_lib
from kanana_jax.applications.embedder import Embedder
from kanana_jax.data import microworld
from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import TextEncoder
from kanana_jax.interop import model_folder
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.embedding import Embedding
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.recipe import run as recipe
from kanana_jax.stages import contrastive, mntp
from kanana_jax.stages.contrastive import ContrastiveStage
from kanana_jax.training.optimizer import OptimizerConfig, make_optimizer
from kanana_jax.training.schedule import ScheduleConfig
from kanana_jax.training.task import TrainConfig

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peer = load("llm2vec_torch")

WORLD = microworld.World.create(0, 100)
T, LONGEST, TOKEN = 128, 40, 5
TRAIN = TrainConfig(
    tokens=4 * 2 * T,
    batch_tokens=2 * T,
    seq_len=T,
    optimizer=OptimizerConfig(
        2e-3, ScheduleConfig("cosine", warmup_steps=2, final=0.1), weight_decay=0.0, clip_norm=0.5
    ),
)
STAGE = dict(kind="contrastive", start="base", mixture={"texts": 1.0}, per_row=3, longest=LONGEST, train=TRAIN)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random model as a folder of ours."""
    return own_models.write(tmp_path_factory.mktemp("base"), "bpe", WORLD)


@pytest.fixture(scope="module")
def ours(base):
    found = model_folder.find(base)
    params = model_folder.load_params(found, Runtime(), make_mesh(MeshConfig(), jax.devices()[:1]))
    return Model(found.architecture, causal=False), params


@pytest.fixture
def theirs(base, tmp_path):
    model_folder.transfer(base, tmp_path / "exported", keep_card=False)
    return peer.load(tmp_path / "exported").eval()


@pytest.fixture(scope="module")
def embedder(base):
    return Embedder.load(str(base), devices=jax.devices()[:1], causal=False, longest=LONGEST)


def _texts(count):
    """The first are of two words, the last are cut."""
    found = [row["text"] for lang in ("ko", "en") for row in microworld.documents(WORLD, "news", lang, count)]
    return [" ".join(text.split()[: 2 + place]) for place, text in enumerate(found[:count])]


def _groups(config, tokenizer, records):
    """Both rows of a batch."""
    encode = contrastive.encoder(config, tokenizer)
    rows = packing.pack([encode(record) for record in records], T, whole=True)
    return packing.Rows(*(x[:2] for x in rows))


def _triplets(tokenizer, skipped=0):
    texts = _texts(24)[skipped:]
    records = [{"id": "", "anchor": a, "positive": p, "negatives": [n]} for a, p, n in zip(texts, texts[1:], texts[2:])]
    config = ContrastiveStage(**STAGE)
    return config, _groups(config, tokenizer, records[::3])


def _lines(file, records):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


def _mean(loss):
    def mean(params, batch):
        found = loss(params, batch, jax.random.key(0), None)
        return found.loss / found.weight

    return jax.jit(jax.value_and_grad(mean))


def test_vectors_agree(embedder, theirs):
    texts = _texts(20)
    own = peer.TorchEmbedder(theirs, embedder.tokenizer, Embedding(longest=LONGEST), batch=8)(texts)
    made = embedder(texts)
    np.testing.assert_allclose(own.values, made.values, atol=1e-4)
    assert own.left_out.tolist() == made.left_out.tolist() and made.left_out.any()
    causal = dataclasses.replace(embedder, model=dataclasses.replace(embedder.model, causal=True))
    assert np.abs(causal(texts).values - own.values).max() > 1e-2


def test_masked_loss_of_a_batch_agrees(embedder, ours, theirs):
    model, params = ours
    rows = packing.pack([TextEncoder(embedder.tokenizer)({"id": "", "text": text}) for text in _texts(24)], T)
    config, key = mntp.MaskConfig(rate=0.3), jax.random.key(1)
    drawn = np.pad(np.asarray(mntp.masked(config, rows, key, TOKEN, 400).weights)[:, :-1] > 0, ((0, 0), (1, 0)))
    assert drawn.sum() > 20 and len(np.unique(rows.segment_ids)) > 3
    loss = mntp.make_loss(model, config=config, token=TOKEN, words=400, chunk=64)
    found = jax.jit(lambda params, rows: loss(params, rows, key, None))(params, rows)
    with torch.no_grad():
        own = peer.mntp_loss(theirs, peer.tensors(rows), torch.from_numpy(drawn), TOKEN)
    assert float(found.weight) == drawn.sum()
    assert own.item() == pytest.approx(float(found.loss / found.weight), abs=1e-4)


def test_masks_are_of_tokens_that_something_predicts(embedder):
    rows = packing.pack([TextEncoder(embedder.tokenizer)({"id": "", "text": text}) for text in _texts(24)], T)
    drawn = peer.masked(peer.tensors(rows), 0.5, torch.Generator().manual_seed(0)).numpy()
    follows = np.pad(
        (rows.segment_ids[:, 1:] == rows.segment_ids[:, :-1]) & (rows.segment_ids[:, 1:] > 0), ((0, 0), (1, 0))
    )
    assert not (drawn & ~follows).any()
    assert drawn.sum() / follows.sum() == pytest.approx(0.5, abs=0.1)


def test_loss_of_single_texts_agrees_without_dropout(embedder, ours, theirs):
    model, params = ours
    config = ContrastiveStage(**STAGE | dict(form="texts", dropout=1e-12))  # which drops nothing
    rows = _groups(config, embedder.tokenizer, [{"id": "", "text": text} for text in _texts(12)])
    value, _ = _mean(contrastive.make_loss(model, config=config))(params, rows)
    with torch.no_grad():
        own = peer.simcse_loss(theirs, peer.tensors(rows), config.per_row, config.contrastive.temperature)
    assert own.item() == pytest.approx(float(value), abs=1e-4)


def test_dropout_tells_two_passes_apart_in_training_alone(embedder, theirs):
    config = ContrastiveStage(**STAGE | dict(form="texts", dropout=0.5))
    rows = peer.tensors(_groups(config, embedder.tokenizer, [{"id": "", "text": text} for text in _texts(12)]))
    peer.add_dropout(theirs, config.dropout)
    for training in (True, False):
        theirs.train(training)
        with torch.no_grad():
            first, second = (peer.pooled(theirs, rows, config.per_row)[0] for _ in range(2))
        assert torch.equal(first, second) != training


def test_losses_of_the_first_steps_agree(embedder, ours, theirs):
    """Four steps on triplets: every loss after the first comes of gradients, clipping, Adam and the schedule."""
    model, params = ours
    config, first = _triplets(embedder.tokenizer)
    batches = [first, _triplets(embedder.tokenizer, 1)[1]] * 2
    gradients = _mean(contrastive.make_loss(model, config=config))
    optimizer = make_optimizer(TRAIN.optimizer, TRAIN.steps, model.logical_axes())
    state, known = optimizer.init(params), []
    for batch in batches:
        value, grads = gradients(params, jax.tree.map(jnp.asarray, batch))
        assert float(optax.global_norm(grads)) > TRAIN.optimizer.clip_norm
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        known.append(float(value))
    own = peer.train(theirs, peer.loss_of(config, 0, 0), batches, TRAIN)
    np.testing.assert_allclose(own, known, atol=1e-3)
    assert own[0] == pytest.approx(known[0], abs=1e-4) and abs(known[2] - known[0]) > 0.02


@pytest.mark.usefixtures("no_reports")
def test_a_run_and_its_peer_read_the_same_batches(base, theirs, monkeypatch, tmp_path):
    """The benchmark's own arm on triplets, run by us, and by the peer on the batches that the benchmark gives it."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    texts = _texts(90)
    triplets = [  # no two texts of a batch are equal, which the stage alone would see
        {"anchor": f"{i} {text}", "positive": f"{text} {i}", "negative": f"{i}: {texts[i % 7]}"}
        for i, text in enumerate(texts * 2)
    ]
    _lines(tmp_path / "triplets.jsonl", triplets)
    for lang in ("ko", "en"):
        _lines(
            tmp_path / "documents" / lang / "some.jsonl", [{"id": f"{i}", "text": text} for i, text in enumerate(texts)]
        )
    steps, arm = load("embedding_steps"), "supervised_direct"
    steps.prepare("documents", "triplets.jsonl")
    (steps.FOLDER / "base/stage2").mkdir(parents=True)
    (steps.FOLDER / "base/stage2/model").symlink_to(base)
    (steps.FOLDER / "base/tokenizer").symlink_to(base.parent / "tokenizer")
    config = config_lib.read_config_file(f"{ROOT}/configs/ablations/embedding.py:{arm},0")
    config.evaluation.update(max_bytes=500, batch_size=8)
    config[arm].train.update(tokens=5 * 4 * 512, batch_tokens=4 * 512, log_every=1)
    parsed, stages = recipe.parse(config)
    recipe.run(config, steps.EXPERIMENT.workdir(arm, 0), devices=jax.devices()[:1])
    with steps.batches(parsed, stages, arm) as batches:
        own = peer.train(theirs, peer.loss_of(stages[arm], 0, 0), batches, stages[arm].train)
    np.testing.assert_allclose(own, losses(steps.EXPERIMENT.workdir(arm, 0), arm), atol=1e-3)
