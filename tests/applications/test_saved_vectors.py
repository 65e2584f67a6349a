"""Vectors of documents that are kept: a text is embedded once, a stopped start goes on, other models are refused."""

import dataclasses

import numpy as np
import pytest

from kanana_jax.applications import saved_vectors
from kanana_jax.applications.embedder import Vectors
from kanana_jax.errors import UserError
from kanana_jax.models.embedding import Embedding

ABOUT = Embedding(document="글: ")


@dataclasses.dataclass
class _Embedder:
    """A vector that follows from the text; stops after `most` texts."""

    most: int = 1000
    about: Embedding = ABOUT
    dim: int = 3
    asked: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, texts):
        if len(self.asked) + len(texts) > self.most:
            raise KeyboardInterrupt
        self.asked += texts
        return Vectors(_want(texts), np.array([max(len(text) - 3, 0) for text in texts]))


def _want(texts):
    return np.array([[len(text), ord(text[0]), ord(text[-1])] for text in texts], np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(saved_vectors, "_BLOCK", 2)


def _made(embedder, texts, folder, model="m float32"):
    return saved_vectors.saved_vectors(embedder, texts, folder, model)


def test_a_text_is_embedded_once(tmp_path):
    one, texts = _Embedder(), ["가", "나나", "가", "abc", "d"]
    np.testing.assert_array_equal(_made(one, texts, tmp_path / "v"), _want(texts))
    assert sorted(one.asked) == sorted(set(texts))
    again, other = _Embedder(), ["d", "new", "가"]
    np.testing.assert_array_equal(_made(again, other, tmp_path / "v"), _want(other))
    assert again.asked == ["new"]
    assert _made(again, [], tmp_path / "v").shape == (0, 3) and again.asked == ["new"]


def test_texts_beyond_the_limit_are_counted_once(tmp_path, caplog):
    texts = ["abcd", "b", "c", "defgh", "e"]
    with caplog.at_level("WARNING", "kanana"):
        for _ in range(2):
            _made(_Embedder(), texts, tmp_path / "v")
    assert [record.getMessage()[:14] for record in caplog.records] == ["2 of 5 texts a"]


def test_a_stopped_start_goes_on_behind_its_last_whole_block(tmp_path):
    texts = ["a", "b", "c", "d", "e"]
    with pytest.raises(KeyboardInterrupt):
        _made(_Embedder(most=4), texts, tmp_path / "v")
    last = _Embedder()
    np.testing.assert_array_equal(_made(last, texts, tmp_path / "v"), _want(texts))
    assert last.asked == ["e"]


def test_other_vectors_and_damage_are_refused(tmp_path):
    _made(_Embedder(), ["a", "b", "c"], tmp_path / "v")
    with pytest.raises(UserError, match="other model"):
        _made(_Embedder(), ["a"], tmp_path / "v", "n float32")
    with pytest.raises(UserError, match="other embedding"):
        _made(_Embedder(about=Embedding()), ["a"], tmp_path / "v")
    (tmp_path / "v/000000.npy").write_bytes(b"cut")
    with pytest.raises(UserError, match="damaged"):
        _made(_Embedder(), ["a"], tmp_path / "v")
    # As the message says: the block is made again, and what stood behind it is never beside other vectors.
    (tmp_path / "v/000000.npy").unlink()
    (tmp_path / "v/000000.json").unlink()
    np.testing.assert_array_equal(_made(_Embedder(), ["b", "c", "x"], tmp_path / "v"), _want(["b", "c", "x"]))
