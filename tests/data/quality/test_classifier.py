"""The classifier: what it reads, that it learns, that it comes out the same, and what it refuses."""

import os
import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanana_jax.data.quality import classifier, fasttext_file
from kanana_jax.data.quality.classifier import OTHER, Classifier, ClassifierConfig, QualityModel
from kanana_jax.data.quality.quality_model import GOOD
from kanana_jax.errors import ConfigError, UserError

SMALL = ClassifierConfig(dim=8, buckets=1000, epochs=5, min_count=1, min_subword=2, max_subword=3)
TEACH = ("함수는", "입력을", "출력에", "대응시킨다", "예를", "들어", "제곱은", "수를", "제곱에", "보낸다")
SPAM = ("지금", "클릭", "대박", "할인", "무료", "상담", "카톡", "추천", "코드", "입력")


def _texts(words, count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=20)) for _ in range(count)]


def _trained(path, config=SMALL):
    texts = _texts(TEACH, 60, 1) + _texts(SPAM, 60, 2)
    return classifier.train(texts, [GOOD] * 60 + [OTHER] * 60, config, path)


def test_it_separates_what_can_be_separated_and_is_the_same_twice(tmp_path):
    first = _trained(tmp_path / "a.bin")
    assert _trained(tmp_path / "b.bin") == first
    assert _trained(tmp_path / "c.bin", ClassifierConfig(**{**vars(SMALL), "seed": 1})) != first
    model = Classifier(QualityModel(str(tmp_path / "a.bin"), sha256=first))
    scores = model(_texts(TEACH, 20, 3) + _texts(SPAM, 20, 4))
    assert scores[:20].min() > 0.5 > scores[20:].max() and scores.min() >= 0 and scores.max() <= 1
    again = pickle.loads(pickle.dumps(model))(_texts(TEACH, 20, 3))
    np.testing.assert_array_equal(again, scores[:20])


def test_scores_are_the_librarys_probabilities(tmp_path):
    _trained(tmp_path / "a.bin")
    text = "함수는 클릭 대응시킨다"
    found = classifier.library().load_model(str(tmp_path / "a.bin")).f.predict(f"{text}\n", 2, 0.0, "strict")
    by_label = {label: p for p, label in found}
    score = Classifier(QualityModel(str(tmp_path / "a.bin")))([text])[0]
    assert score == pytest.approx(by_label[GOOD], abs=1e-4)


def test_numeric_labels_give_an_expectation(tmp_path):
    texts = _texts(TEACH, 40, 1) + _texts(SPAM, 40, 2)
    classifier.train(texts, ["__label__4"] * 40 + ["__label__0"] * 40, SMALL, tmp_path / "a.bin")
    model = Classifier(QualityModel(str(tmp_path / "a.bin"), label=""))
    scores = model([texts[0], texts[-1]])
    found = classifier.library().load_model(str(tmp_path / "a.bin")).f
    for text, score in zip((texts[0], texts[-1]), scores):
        by_label = {label: p for p, label in found.predict(f"{text}\n", 2, 0.0, "strict")}
        assert score == pytest.approx(4 * by_label["__label__4"], abs=1e-3)
    assert scores[0] > 2 > scores[1]


def test_published_models_are_read_as_they_are(tmp_path):
    assert classifier.prepare(["A\nB,  c"], "raw") == ["A B,  c"]
    _trained(tmp_path / "a.bin")
    with pytest.raises(ConfigError, match="__label__hq.*__label__good"):
        Classifier(QualityModel(str(tmp_path / "a.bin"), label="__label__hq"))
    with pytest.raises(ConfigError, match="are not numbers"):
        Classifier(QualityModel(str(tmp_path / "a.bin"), label=""))
    with pytest.raises(UserError, match="sha256"):
        Classifier(QualityModel(str(tmp_path / "a.bin"), sha256="0" * 64))
    with pytest.raises(UserError, match="not there"):
        Classifier(QualityModel(str(tmp_path / "none.bin")))
    (tmp_path / "text.bin").write_text("not a model, but long enough to be read as one " * 20)
    with pytest.raises(UserError, match="not a fastText model"):
        Classifier(QualityModel(str(tmp_path / "text.bin")))


def test_one_kind_of_documents_is_no_training_set(tmp_path):
    with pytest.raises(UserError, match="two kinds"):
        classifier.train(["a b"], [GOOD], SMALL, tmp_path / "a.bin")
    for wrong in (dict(dim=0), dict(min_subword=3, max_subword=2), dict(learning_rate=0.0)):
        with pytest.raises(ValueError):
            ClassifierConfig(**wrong)


@given(st.text(max_size=200))
def test_prepared_text_is_one_line_that_keeps_every_visible_character(text):
    from kanana_jax.data.arrays.characters import normalise

    text = normalise(text)
    for kind in ("word", "character"):
        (line,) = classifier.prepare([text], kind)
        assert "\n" not in line
        assert "".join(line.split()) == "".join(text.lower().split())


def test_words_and_marks_stand_apart():
    assert classifier.prepare(["Don't stop! 3.14은 원주율입니다."], "word") == ["don't stop ! 3.14은 원주율입니다 ."]
    assert classifier.prepare(["猫 だ。"], "character") == ["猫 だ 。"]
    assert classifier.prepare(["abcdef"], "word", max_characters=3) == ["abc"]


@pytest.mark.parametrize("mode", ["raw", "word"])
def test_marks_of_the_library_inside_a_document_are_text(tmp_path, mode):
    """What stands behind an end of line counts, and a document cannot say its own label, in training or in scoring."""
    config = ClassifierConfig(**{**vars(SMALL), "text": mode, "min_count": 2})
    good, bad = _texts(TEACH, 60, 1), _texts(SPAM, 60, 2)
    claims = [f"{GOOD} {t} __label__new {GOOD}" for t in bad]
    classifier.train(good + claims, [GOOD] * 60 + [OTHER] * 60, config, tmp_path / "a.bin")
    model = Classifier(QualityModel(str(tmp_path / "a.bin"), text=mode))
    assert set(model._fasttext.getLabels("strict")[0]) == {GOOD, OTHER}
    hidden = [f"{a} </s> {b} {b} {b}" for a, b in zip(_texts(TEACH, 20, 5), _texts(SPAM, 20, 6))]
    plain = [t.replace("</s>", "") for t in hidden]
    assert np.abs(model(hidden) - model(plain)).max() < 0.2
    assert model(hidden).max() < 0.5 < model(_texts(TEACH, 20, 7)).min()


def test_a_whole_file_is_read_by_its_own_header(tmp_path):
    _trained(tmp_path / "a.bin")
    header = fasttext_file.check(tmp_path / "a.bin")
    model = classifier.library().load_model(str(tmp_path / "a.bin")).f
    assert header.words == len(model.getVocab("strict")[0]) and set(header.labels) == {GOOD, OTHER}
    assert (header.dim, header.buckets) == (8, 1000)


def test_a_quantised_file_is_read_too(tmp_path):
    file = tmp_path / "train.txt"
    draw = random.Random(0)
    lines = [
        f"{GOOD if i % 2 else OTHER} " + " ".join(f"w{draw.randrange(2000)}" for _ in range(30)) for i in range(300)
    ]
    file.write_text("\n".join(lines) + "\n")
    model = classifier.library().train_supervised(str(file), dim=9, bucket=2000, wordNgrams=2, thread=1, verbose=0)
    for name, options in (("q", {"qnorm": True, "dsub": 2}), ("p", {"cutoff": 1000, "retrain": False})):
        model.quantize(input=str(file), thread=1, **options)
        model.save_model(str(tmp_path / f"{name}.ftz"))
        assert set(fasttext_file.check(tmp_path / f"{name}.ftz").labels) == {GOOD, OTHER}
        model = classifier.library().train_supervised(str(file), dim=9, bucket=2000, wordNgrams=2, thread=1, verbose=0)


def _damaged(data, draw):
    """A copy that is cut, grown, or has other numbers in its header and dictionary."""
    data, kind = bytearray(data), draw.choice(["cut", "more", "size", "nan", "magic"])
    if kind == "cut":
        return data[: draw.randrange(len(data))]
    if kind == "more":
        return data + bytes(draw.randrange(1, 99))
    if kind == "nan":
        at = len(data) - 4 * draw.randrange(1, 12)
        data[at : at + 4] = b"\0\0\xc0\x7f"
        return data
    at = draw.choice([0] if kind == "magic" else [8, 28, 36, 40, 64, 68, 72])  # dim, n-grams, model, rows, entries …
    data[at : at + 4] = draw.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x07\0\0\x10"])
    return data


def test_a_damaged_file_is_refused_before_the_library_sees_it(tmp_path, monkeypatch):
    _trained(tmp_path / "a.bin")
    whole, draw = (tmp_path / "a.bin").read_bytes(), random.Random(0)
    monkeypatch.setattr(classifier, "library", lambda: pytest.fail("the library was asked"))
    for _ in range(int(os.environ.get("KANANA_FUZZ", "300"))):
        (tmp_path / "b.bin").write_bytes(_damaged(whole, draw))
        with pytest.raises(UserError, match="not a fastText model"):
            Classifier(QualityModel(str(tmp_path / "b.bin")))
