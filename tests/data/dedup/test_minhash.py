"""Shingles and signatures: what is equal, what is not, and how often a similarity is found."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.dedup import minhash
from kanana_jax.data.dedup.minhash import MinHashConfig, Shingles

WORDS, CHARACTERS = Shingles("word", 3), Shingles("character", 5)


def _shingles(text, shingles=WORDS):
    (found,) = minhash.shingle_hashes([text], shingles)
    return set(found.tolist())


def _jaccard(a, b):
    return len(a & b) / len(a | b)


def test_shingles_are_runs_of_words():
    assert len(_shingles("a b c d e")) == 3
    assert len(_shingles("a b c a b c")) == 3
    assert _shingles("one, two; three!") == _shingles("One two\nthree")
    assert len(_shingles("a b")) == 1 and len(_shingles("")) == len(_shingles("!!! ...")) == 0
    assert _shingles("a b c") != _shingles("a bc") and _shingles("ab c d") != _shingles("a bc d")


@given(st.lists(st.sampled_from("가나다라마바"), max_size=30), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_as_many_shingles_as_different_runs(words, n):
    runs = {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, min(1, len(words))))}
    assert len(_shingles(" ".join(words), Shingles("word", n))) == len(runs)


def test_texts_side_by_side_have_the_shingles_they_have_alone():
    texts = ["a b c d", "", "x", "가 나 다 라 마"]
    together = minhash.shingle_hashes(texts, WORDS)
    assert [set(found.tolist()) for found in together] == [_shingles(text) for text in texts]


@pytest.mark.parametrize("text", ["한국어 문장을 여러 번 쓴다", "ガラスの靴を落とした人は誰か", "Čeština má háčky"])
def test_decomposed_text_is_the_same(text):
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    for shingles in (WORDS, CHARACTERS):
        assert _shingles(text, shingles) == _shingles(decomposed, shingles)
    assert minhash.text_key(text) == minhash.text_key(decomposed)


def test_marks_and_syllables_are_not_taken_apart():
    """datatrove's MinHash leaves Hangul in jamo and drops the marks of kana."""
    assert minhash.text_key("ガラス") != minhash.text_key("カラス")
    assert not _shingles("ガラスガラス", CHARACTERS) & _shingles("カラスカラス", CHARACTERS)
    # One syllable of ten differs in one jamo; by syllables little is shared, by jamo most would be.
    a, b = "가나다라마바사아자차", "가나다라각바사아자차"
    assert _jaccard(_shingles(a, CHARACTERS), _shingles(b, CHARACTERS)) < 0.2


def _pair(rng, similarity, size=400):
    """Two sets of shingles with this Jaccard similarity."""
    shared = round(2 * size * similarity / (1 + similarity))
    values = rng.integers(0, 2**63, 2 * size - shared).astype(np.uint64)
    return values[:size], np.concatenate([values[:shared], values[size:]])


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9])
def test_similar_documents_meet_as_often_as_the_formula_says(similarity):
    rng, config, trials = np.random.default_rng(int(100 * similarity)), MinHashConfig(), 400
    met = 0
    for _ in range(trials):
        a, b = _pair(rng, similarity)
        met += bool((minhash.band_keys(a, config) == minhash.band_keys(b, config)).any())
    expected = config.probability(similarity)
    deviation = np.sqrt(expected * (1 - expected) / trials)
    assert abs(met / trials - expected) < 4 * deviation + 0.005


def test_one_row_of_a_signature_estimates_jaccard():
    rng, config = np.random.default_rng(0), MinHashConfig(bands=4000, rows=1)
    a, b = _pair(rng, 0.6)
    assert np.mean(minhash.band_keys(a, config) == minhash.band_keys(b, config)) == pytest.approx(0.6, abs=0.04)


@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.7, 0.8, 0.95])
@pytest.mark.parametrize("size", [20, 400, 4000])
def test_sketches_estimate_jaccard_within_the_stated_error(similarity, size):
    rng, config, errors = np.random.default_rng(size), MinHashConfig(), []
    for _ in range(150):
        a, b = (np.sort(x * np.uint64(2)) for x in _pair(rng, similarity, size))  # over the whole range, as hashes are
        true = len(np.intersect1d(a, b)) / len(np.union1d(a, b))
        found = minhash.similarity(minhash.sketch(a, config), minhash.sketch(b, config)[None])[0]
        errors.append(found - true)
    stated = np.sqrt(max(true * (1 - true), 1 / config.bins) / config.bins)
    assert abs(np.mean(errors)) < 4 * stated / np.sqrt(150) + 0.002
    assert np.std(errors) < 1.25 * stated


def test_equal_sketches_are_alike_and_empty_ones_are_not():
    config = MinHashConfig()
    (found,) = minhash.shingle_hashes(["가 나 다 라 마 바 사"], WORDS)
    nothing = minhash.sketch(found[:0], config)
    own = minhash.sketch(found, config)
    assert minhash.similarity(own, np.stack([own, nothing])).tolist() == [1.0, 0.0]
    assert minhash.similarity(nothing, nothing[None]).tolist() == [0.0]


def test_signatures_do_not_change_between_versions():
    keys = minhash.band_keys(minhash.shingle_hashes(["the quick brown fox jumps"], WORDS)[0], MinHashConfig(2, 2))
    assert [hex(k) for k in keys] == ["0xea2df2ca3de03e98", "0x12538642ecaccc75"]
    sketch = minhash.sketch(minhash.shingle_hashes(["the quick brown fox jumps"], WORDS)[0], MinHashConfig(bins=8))
    assert sketch.tolist() == [166, 0, 0, 189, 0, 0, 195, 0]
    assert MinHashConfig().probability(0.8) == pytest.approx(0.924, abs=1e-3)
