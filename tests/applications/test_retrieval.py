"""Words, BM25 by its formula in float64, ranks fused by hand, and when a passage counts as found."""

import math
import types

import numpy as np
import pytest

pytest.importorskip("bm25s")
pytest.importorskip("kiwipiepy")

from kanana_jax.applications import words
from kanana_jax.applications.embedder import Vectors
from kanana_jax.applications.passages import Passage
from kanana_jax.applications.retrieval import Bm25, Least, Retriever, best, fused
from kanana_jax.errors import UserError

TEXTS = {
    "ko": "주차장의 설치에 관한 허가는 시장이 한다.",
    "ko2": "도서관은 월요일에 쉰다.",
    "ja": "図書館は月曜日に休みます。",
    "en": "The library is closed on Mondays.",
    "mix": "GPU 2024년 3.14",
}


def _passages():
    return [Passage(name, text, f"{name}.txt") for name, text in TEXTS.items()]


def test_particles_and_endings_are_cut_off():
    (one, other) = words.morphemes(["도서관은 열렸다", "도서관을 열었습니까?"])
    assert set(one) & set(other) >= {"도서관"} and not set(one) & {"은", "다"}
    assert words.morphemes([TEXTS["ja"]]) == [
        ["図書", "書館", "館は", "は月", "月曜", "曜日", "日に", "に休", "休み", "みま", "ます", "休"]
    ]
    # A word of one character, and a hashtag, are found.
    assert words.morphemes(["犬が好き", "犬"])[0].count("犬") == 1 and words.morphemes(["#환불 기한"]) == [["환불", "기한"]]
    assert words.morphemes([TEXTS["en"], TEXTS["mix"].replace("년", ""), "犬"]) == [
        ["librari", "close", "monday"], ["gpu", "2024", "3.14"], ["犬"],
    ]  # fmt: skip
    assert words.bigrams(["도서관은 A"]) == [["도서", "서관", "관은"]]
    assert words.spaced(["도서관은 열렸다."]) == [["도서관은", "열렸다"]]
    # Half-width and decomposed letters are the same letters.
    assert words.morphemes(["ＧＰＵ", "ﾄｼｮ"]) == [["gpu"], ["トシ", "ショ"]]


def test_scores_are_bm25s():
    texts = [["a", "b", "a", "c"], ["b", "c"], ["c", "d", "e", "f", "a"], []]
    made, query = Bm25(texts), ["a", "d", "a", "z"]
    mean, expected = sum(map(len, texts)) / 4, []
    for text in texts:
        score = 0.0
        for word in query:
            n, tf = sum(word in t for t in texts), text.count(word)
            if n:
                idf = math.log(1 + (4 - n + 0.5) / (n + 0.5))
                score += idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(text) / mean))
        expected.append(score)
    np.testing.assert_allclose(made.scores(query), expected, rtol=1e-5)
    assert not made.scores(["z"]).any() and not made.scores([]).any()
    weight = {w: math.log(1 + (4 - n + 0.5) / (n + 0.5)) for w, n in (("a", 2), ("d", 1), ("z", 1))}
    assert made.share(query, 0) == pytest.approx(weight["a"] / sum(weight.values()))
    assert made.share([], 0) == 0 and Bm25([[], []]).scores(["a"]).tolist() == [0, 0]


def test_reciprocal_ranks():
    found = fused([np.array([4, 2, 7]), np.array([2, 9])])
    assert found == pytest.approx({2: 1 / 62 + 1 / 61, 4: 1 / 61, 9: 1 / 62, 7: 1 / 63})
    assert list(found) == [2, 4, 9, 7]
    assert best(np.array([0.0, 2, 1, 2]), 3).tolist() == [1, 3, 2] and best(np.zeros(3), 2).tolist() == []


def test_a_question_finds_passages_of_its_language_alone():
    made = Retriever(_passages())
    assert [hit.passage.id for hit in made.find("도서관은 언제 쉬나요?")] == ["ko2"]
    assert [hit.passage.id for hit in made.find("図書館の休みは？")] == ["ja"]
    assert [hit.passage.id for hit in made.find("When is the library closed?")] == ["en"]
    assert [hit.passage.id for hit in made.find("Are libraries closing?")] == ["en"]
    for nothing in ("회사의 환불 정책은 무엇입니까?", "Wo ist der Bahnhof?", "東京タワー", "?", ""):
        assert made.find(nothing) == []
    assert made.find("도서관은 언제 쉬나요?", 0) == []


class _Embedder:
    """Vectors by meaning, as a table."""

    about = types.SimpleNamespace(instruction="Q: ")
    # The plane of libraries, and the rest.
    _known = {"ko": (0.1, 1), "ko2": (1, 0), "ja": (0.95, 0.1), "en": (0.9, 0.2), "mix": (0, 1)}

    def __call__(self, texts, instruction=""):
        rows = [
            (1.0, 0.0) if instruction else self._known[next(k for k, t in TEXTS.items() if t == text)] for text in texts
        ]
        values = np.array(rows, np.float32)
        return Vectors(values / np.linalg.norm(values, axis=1, keepdims=True), np.zeros(len(values)))


def test_vectors_find_other_languages_and_agree_with_words():
    made = Retriever(_passages(), _Embedder(), Least(0.3, 0.9))
    hits = made.find("도서관은 언제 쉬나요?")
    assert [hit.passage.id for hit in hits] == ["ko2", "ja", "en"]
    assert hits[0].score == pytest.approx(2 / 61) and hits[1].score == pytest.approx(1 / 62)
    assert hits[1].words == 0 and hits[1].cosine == pytest.approx(0.95 / math.hypot(0.95, 0.1))
    with pytest.raises(ValueError, match="least share"):
        Least(words=0)


def test_a_missing_library_is_a_sentence(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(UserError, match=r"needs bm25s: pip install .*\[rag\]"):
        Bm25([["a"]])
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    words._kiwi.cache_clear()
    with pytest.raises(UserError, match=r"needs kiwipiepy: .*\[rag\]"):
        words.morphemes(["한국어"])
