"""An exported embedding model in sentence-transformers: our vectors of queries and documents, padded, cut and alone.

The folder that sentence-transformers then saves is read by us.
"""

import json
import subprocess

import jax
import numpy as np
import own_models
import pytest
from environments import interpreter

from kanana_jax.applications.embedder import Embedder
from kanana_jax.data import microworld
from kanana_jax.interop import model_folder
from kanana_jax.models.embedding import Embedding

pytestmark = pytest.mark.more

SCRIPT = """
import json, sys
from sentence_transformers import SentenceTransformer
asked = json.load(open(sys.argv[2], encoding="utf-8"))
model = SentenceTransformer(sys.argv[1], device="cpu")
made = {"documents": model.encode(asked["texts"], batch_size=3), "queries": model.encode(asked["texts"], prompt_name="query")}
made["alone"] = model.encode(asked["texts"][:1])
json.dump({name: value.tolist() for name, value in made.items()}, open(sys.argv[3], "w"))
model.save(sys.argv[4])
"""
TEXTS = ["가람시에 새 도서관이 문을 열었다.", "도서관", "A new library opened in the city.", "7", "가나다 " * 60]


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("kind", own_models.VOCABULARIES)
def test_vectors_are_ours(interpreter, tmp_path, kind, pooling):
    python = interpreter(
        "sentence-transformers", "sentence-transformers==6.2.0", "transformers==5.23.0", "torch==2.13.0"
    )
    folder = own_models.write(tmp_path, kind, microworld.World.create(0, 400))
    card = json.loads((folder / "model.json").read_text("utf-8"))
    about = Embedding(pooling=pooling, instruction="질문에 답하는 글을 찾아라.\n", longest=64)
    (folder / "model.json").write_text(json.dumps(card | {"embedding": about.to_dict()}), encoding="utf-8")
    model_folder.transfer(folder, tmp_path / "exported", keep_card=False)
    asked, told = tmp_path / "asked.json", tmp_path / "told.json"
    asked.write_text(json.dumps({"texts": TEXTS}), encoding="utf-8")
    saved = tmp_path / "saved"
    command = [python, "-c", SCRIPT, str(tmp_path / "exported"), str(asked), str(told), str(saved)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    made = {name: np.array(value) for name, value in json.loads(told.read_text("utf-8")).items()}
    embedder = Embedder.load(str(folder), devices=jax.devices()[:1])
    ours = embedder(TEXTS)
    assert ours.left_out[-1] > 0
    np.testing.assert_allclose(made["documents"], ours.values, atol=1e-5)
    np.testing.assert_allclose(made["alone"], ours.values[:1], atol=1e-5)
    queries = embedder(TEXTS, about.instruction).values
    np.testing.assert_allclose(made["queries"], queries, atol=1e-5)
    # Both its folders and our own exports are read back.
    assert json.loads((saved / "config.json").read_text("utf-8"))["architectures"] == ["LlamaModel"]
    for folder in (saved, tmp_path / "exported"):
        again = Embedder.load(str(folder), devices=jax.devices()[:1])
        assert again.about == about
        np.testing.assert_allclose(again(TEXTS).values, ours.values, atol=1e-6)
        np.testing.assert_allclose(again(TEXTS, again.about.instruction).values, queries, atol=1e-6)
