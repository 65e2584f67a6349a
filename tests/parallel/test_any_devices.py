"""Evaluation and generation on numbers of devices that divide neither rows nor the model."""

import jax
import numpy as np
import pytest

from kanana_jax.data.stream import packing
from kanana_jax.data.stream.encode import Example
from kanana_jax.data.stream.heldout import HeldoutRows
from kanana_jax.data.tokens import training as tokenizer_training
from kanana_jax.inference.sampling import SamplingConfig
from kanana_jax.inference.session import Session
from kanana_jax.interop import model_folder
from kanana_jax.models import presets, transformer
from kanana_jax.models.architecture import Runtime
from kanana_jax.models.model import Model
from kanana_jax.parallel.mesh import MeshConfig, make_mesh
from kanana_jax.training.heldout import make_evaluation

MODEL = presets.tiny(330, embed_dim=24, mlp_dim=40, num_layers=1, num_heads=3, num_kv_heads=1, head_dim=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = tokenizer_training.TokenizerConfig(vocab_size=320, train_bytes=5_000)
    letters = np.random.default_rng(0)
    words = ["".join(letters.choice(list("abcdefghij"), 5)) for _ in range(60)]
    texts = {"en": [" ".join(["the river", "rain", *letters.choice(words, 8)]) for _ in range(80)]}
    tokenizer_training.train_tokenizer(texts, config, folder / "tokenizer")
    rng = np.random.default_rng(0)
    shapes = transformer.abstract_params(MODEL, Runtime())
    params = jax.tree.map(lambda s: (0.3 * rng.normal(size=s.shape)).astype(np.float32), shapes)
    model_folder.write(folder / "model", MODEL, params, model_folder.card(MODEL), folder / "tokenizer", {})
    return folder / "model"


@pytest.mark.parametrize("count", [3, 5, 7])
def test_text_is_the_same_on_any_number_of_devices(folder, count):
    """5 and 7 do not divide 24 channels: there each holds all of them, and rows are padded."""
    prompts = ["the river", "rain"]
    texts = [
        Session.load(str(folder), devices=jax.devices()[:n]).continue_texts(
            prompts, max_new_tokens=6, sampling=SamplingConfig(), seed=0
        )
        for n in (1, count)
    ]
    assert texts[0] == texts[1] and all(text.startswith(p) and text != p for text, p in zip(texts[1], prompts))


@pytest.mark.parametrize("mesh", [dict(data=3, fsdp=1), dict(data=7, fsdp=1), dict(data=2, fsdp=2, tensor=1)])
def test_held_out_rows_are_padded_to_the_devices(mesh):
    rng = np.random.default_rng(1)
    documents = [(Example(np.concatenate([[1], rng.integers(3, 300, 20), [2]]).astype(np.int32)),) for _ in range(11)]
    rows = packing.pack(documents, 32)
    held = [HeldoutRows("a", "en", rows, 500, 11)]
    found = []
    for axes, count in ((dict(), 1), (mesh, int(np.prod(list(mesh.values()))))):
        made = make_mesh(MeshConfig(**axes), jax.devices()[:count])
        params = transformer.init_params(MODEL, Runtime(), jax.random.key(0))
        evaluate = make_evaluation(Model(MODEL), held, made, batch_size=5, chunk=64)
        with jax.set_mesh(made):
            found.append(evaluate(params)["bits_per_byte"]["lang/en"])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
