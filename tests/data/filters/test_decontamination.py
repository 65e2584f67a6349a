"""Overlap with evaluation sets: against a definition in plain Python, and copies planted in documents."""

import fractions
import gzip
import json
import pathlib
import pickle
import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data import microworld
from kanana_jax.data.arrays import characters, tables
from kanana_jax.data.filters.decontamination import Contamination, ContaminationConfig, build, items
from kanana_jax.data.filters.ngrams import Lengths
from kanana_jax.errors import UserError

ENGLISH = (
    "Anna's bakery sells 1,200 loaves on Monday and half as many on Tuesday; each loaf costs $2.50. "
    "How many dollars did she earn in both days together, if ten loaves were given away?"
)
KOREAN = (
    "세종이는 아침마다 사과 세 개를 먹고 친구들을 위해 매일 빵을 네 개씩 굽는다. "
    "남은 달걀을 시장에서 한 개에 이천 원씩 받고 판다면 하루에 버는 돈은 모두 얼마인가?"
)
JAPANESE = (
    "梅雨とは、五月から七月にかけて来る曇りや雨の多い期間のことで、その間の雨そのものを指すこともある。"
    "高温多湿な気候は農業を潤すが、長雨が続けば川が溢れて田畑を流すこともあるのはなぜか。"
)
SETS = {"en": [ENGLISH], "ko": [KOREAN], "ja": [JAPANESE]}
ALL = [("en", ENGLISH), ("ko", KOREAN), ("ja", JAPANESE)]
SMALL = ContaminationConfig(Lengths(words=4, eojeol=3, characters=6, shortest_words=2), max_items=2)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contamination") / "sets"
    build(SETS, ContaminationConfig(), folder)
    return Contamination(folder)


def _judge(found, text):
    return found.judge([characters.normalise(text)])[0]


def _units(text):
    """The definition, character by character: (folded text, part of an n-gram's length, start, end)."""
    units, inside = [], False
    for i, c in enumerate(text):
        around = text[i - 1 : i] + text[i + 1 : i + 2]
        kinds = "".join(unicodedata.category(x)[0] for x in around) if 0 < i < len(text) - 1 else ""
        if (c in "'’" and kinds == "LL") or (c in ".," and kinds == "NN"):
            continue
        if unicodedata.category(c)[0] not in "LNM":
            inside = False
            continue
        name = unicodedata.name(c)
        alone = name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))
        folded = unicodedata.normalize("NFKC", c).casefold()
        if alone or not inside:
            units.append([folded, "characters" if alone else "words", i, i + 1])
        else:
            units[-1][0] += folded
            units[-1][3] = i + 1
        if name.startswith("HANGUL"):
            units[-1][1] = "eojeol"
        inside = not alone
    return units


def _weight(units, lengths):
    return sum(fractions.Fraction(1, getattr(lengths, kind)) for _, kind, _, _ in units)


def _runs(units, lengths):
    """Of each start all runs that may be n-grams, the last one whole; (start, end, text, whether whole)."""
    least = fractions.Fraction(lengths.shortest_words, lengths.words)
    for start in range(len(units)):
        for end in range(start + 1, len(units) + 1):
            weight = _weight(units[start:end], lengths)
            if weight >= least:
                yield start, end, tuple(text for text, *_ in units[start:end]), weight >= 1
            if weight >= 1:
                break


def _index(texts, config):
    """N-grams of a set that is written out: those of each different item, without what is in too many."""
    of_items = {}
    for text in texts:
        units = _units(text)
        whole = [words for _, _, words, long in _runs(units, config.ngrams) if long]
        if not whole:
            whole = [w for start, end, w, _ in _runs(units, config.ngrams) if start == 0 and end == len(units)]
        of_items[tuple(unit for unit, *_ in units)] = set(whole)
    return {
        words
        for grams in of_items.values()
        for words in grams
        if sum(words in others for others in of_items.values()) <= config.max_items
    }


def _expected(text, index, lengths):
    units = _units(text)
    hits = [(start, end) for start, end, words, _ in _runs(units, lengths) if words in index]
    if not hits:
        return None
    covered = sorted({i for start, end in hits for i in range(start, end)})
    last = next((a for a, b in zip(covered, covered[1:]) if b > a + 1), covered[-1])
    # Stretches that only touch are one.
    span = (units[covered[0]][2], units[last][3])
    return len({start for start, _ in hits}), len(covered) / len(units), span


words = st.sampled_from(["a", "B", "don't", "1,0", "2", "가", "나b", "かな", "漢", "-", ". ", "\n", "Ａ", "#"])
texts = st.lists(words, max_size=14).map(" ".join) | st.lists(words, max_size=14).map("".join)


@given(st.lists(texts, min_size=1, max_size=6), st.lists(texts, min_size=1, max_size=4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_overlaps_are_those_of_the_definition(tmp_path_factory, evaluation, documents, copy):
    folder = tmp_path_factory.mktemp("defined") / "sets"
    documents = [characters.normalise(text) for text in [*documents, *(evaluation[:2] if copy else [])]]
    index = _index([characters.normalise(text) for text in evaluation], SMALL)
    if not index:
        with pytest.raises(UserError, match="long enough"):
            build({"x": evaluation}, SMALL, folder)
        return
    report = build({"x": evaluation}, SMALL, folder)
    assert report["sets"]["x"]["ngrams"] == len(index)
    for text, got in zip(documents, Contamination(folder).judge(documents)):
        wanted = _expected(text, index, SMALL.ngrams)
        assert [(o.ngrams, pytest.approx(o.share), o.span) for o in got] == ([] if wanted is None else [wanted])


def _markdown(text):
    return "\n\n> " + text.replace(" ", "\n> ").replace(",", " ,").replace("?", "**?**")


@pytest.mark.parametrize("name, item", ALL)
def test_copies_are_found_however_they_are_written(found, name, item):
    before = next(iter(microworld.parse_uri(f"microworld://news/{name}?count=1")))["text"]
    rewritten = {
        "as it is": item,
        "case": item.upper(),
        "white space": "\t".join(item.split()) + "\r\n",
        "punctuation": item.replace(",", "").replace("、", "").replace(".", "").replace("'", "’"),
        "markdown": _markdown(item),
        "decomposed": unicodedata.normalize("NFD", item),
        "wide": "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in item),
        "first half": item[: len(item) * 6 // 10],
        "second half": item[len(item) * 4 // 10 :],
        "in a quarrel of languages": "김 씨의 글이다: " + item + " って言われました。",
    }
    for how, text in rewritten.items():
        assert {o.set for o in _judge(found, text)} == {name}, how
        (overlap,) = _judge(found, before + "\n" + text + "\n" + before)
        assert overlap.set == name and 0 < overlap.share < 1, how
    assert _judge(found, item)[0].share == 1.0
    assert _judge(found, before) == ()


@pytest.mark.parametrize("name, item", ALL)
def test_the_span_is_the_copy(found, name, item):
    text = characters.normalise(f"서론이다. Prelude! 前置き。\n\n{item} 끝 end 終")
    (overlap,) = _judge(found, text)
    start, end = overlap.span
    assert text[start:end] == item.rstrip("?。")
    assert overlap.ngrams == found.report["sets"][name]["ngrams"]


def test_what_is_reworded_or_translated_is_not_found(found):
    innocent = [
        "Anna sold bread for two days. On Monday she sold 1,200 loaves at $2.50 and half as many on Tuesday.",
        "안나의 빵집은 월요일에 빵 1,200개를 팔고 화요일에는 그 절반을 판다. 이틀 동안 모두 얼마를 벌었는가?",
        "세종이는 아침에 사과를 먹는다. 남은 달걀은 시장에서 판다.",
        "梅雨は五月から七月までの雨の多い時期である。",
        "",
        "…!?",
    ]
    assert found.judge(innocent) == [()] * len(innocent)


def test_short_items_count_from_eight_words_on(tmp_path):
    config, eight = ContaminationConfig(), "Which of these seven rivers is the longest"
    report = build(
        {"a": [eight], "b": ["Which of these six rivers is longest"], "c": [ENGLISH]}, config, tmp_path / "x"
    )
    assert {name: (s["ngrams"], s["too_short"]) for name, s in report["sets"].items()} == {
        "a": (1, 0),
        "b": (0, 1),
        "c": (33 - 12, 0),
    }
    found = Contamination(tmp_path / "x")
    assert [o.set for o in _judge(found, f"Question: {eight.lower()}? Answer: the Nile.")] == ["a"]
    assert _judge(found, "which of these seven rivers is the") == ()


def test_the_span_runs_on_where_another_item_follows_at_once(tmp_path):
    one, two = "Which of these seven rivers is the longest", "how many lakes lie in the far north"
    build({"a": [one, two]}, ContaminationConfig(), tmp_path / "x")
    (overlap,) = _judge(Contamination(tmp_path / "x"), f"{one}? {two} or south? {two}")
    assert (overlap.ngrams, overlap.share, overlap.span) == (3, 24 / 26, (0, len(one) + 2 + len(two)))


def test_templates_are_left_out(tmp_path):
    """What opens every item drops nobody; a passage that has many questions is no template."""
    instruction = "Read the following passage with care and then answer the question below in one word only please."
    number = random.Random(0)
    told = [" ".join(f"w{number.randrange(10**6)}" for _ in range(20)) for _ in range(12)]
    sets = {"t": [f"{instruction} {item}" for item in told] + [ENGLISH] * 12 + [ENGLISH.upper()]}
    report = build(sets, ContaminationConfig(), tmp_path / "x")["sets"]["t"]
    assert (report["items"], report["repeated_items"], report["template_ngrams"]) == (25, 12, 5)
    found = Contamination(tmp_path / "x")
    assert _judge(found, f"{instruction} An innocent text goes on quite differently from here.") == ()
    assert _judge(found, f"{instruction} {told[3]}")[0].ngrams == 20
    assert _judge(found, ENGLISH)[0].share == 1.0
    build(sets, ContaminationConfig(max_items=12), tmp_path / "x")
    assert _judge(Contamination(tmp_path / "x"), instruction)[0].ngrams == 5


def test_a_text_in_two_sets_is_of_both(tmp_path):
    build({"b": [ENGLISH, KOREAN], "a": [KOREAN]}, ContaminationConfig(), tmp_path / "x")
    found = Contamination(tmp_path / "x")
    assert [o.set for o in _judge(found, f"{ENGLISH}\n{KOREAN}")] == ["a", "b"]
    assert [o.set for o in _judge(found, ENGLISH)] == ["b"]


def _bytes(folder: pathlib.Path):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_same_sets_give_the_same_bytes(tmp_path):
    many = {
        lang: [r["text"] for r in microworld.parse_uri(f"microworld://news/{lang}?count=30")]
        for lang in ("ko", "en", "ja")
    }
    build(many, ContaminationConfig(), tmp_path / "a")
    turned = {name: [unicodedata.normalize("NFD", t) for t in reversed(many[name])] for name in sorted(many)}
    for sets in (turned, {name: iter(texts) for name, texts in many.items()}):
        build({"other": [ENGLISH]}, ContaminationConfig(), tmp_path / "b")
        build(sets, ContaminationConfig(), tmp_path / "b")
        assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_documents_are_judged_alike_alone_and_together(found):
    texts = [characters.normalise(t) for _, item in ALL for t in (item, "다른 글", item[:-9], "", item * 3)] * 30
    together = pickle.loads(pickle.dumps(found)).judge(texts)
    assert together == [found.judge([text])[0] for text in texts]


def test_hostile_texts(found):
    hostile = [
        "\u200b" * 99,
        "\u0301" * 99,
        "1" * 10**5,
        "ㅋ" * 10**5,
        "漢" * 10**5,
        "a b " * 10**4,
        "'" * 99,
        "1,2.3'4",
    ]
    assert found.judge([characters.normalise(t) for t in [*hostile, "\ud800\0"]]) == [()] * (len(hostile) + 1)


def test_files_of_items(tmp_path):
    rows = [
        {"id": "1", "question": KOREAN, "choices": ["하나", "둘"], "label": 3},
        {"id": "2", "question": "짧다", "choices": ["셋", "넷"], "meta": {"text": ENGLISH}},
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("a.jsonl", "b.jsonl.gz"):
        assert list(items(tmp_path / name)) == [KOREAN]
        assert list(items(tmp_path / name, ["choices", "question"])) == ["하나\n둘", KOREAN, "셋\n넷", "짧다"]
    with pytest.raises(UserError, match=r"a\.jsonl:1: field 'text' is not a text .*the row has id, question, choices"):
        list(items(tmp_path / "a.jsonl", ["text"]))
    (tmp_path / "c.jsonl").write_text(lines + "{broken\n")
    with pytest.raises(UserError, match=r"c\.jsonl:3 is not JSON"):
        list(items(tmp_path / "c.jsonl"))
    (tmp_path / "d.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match=r"d\.jsonl:1 is not a JSON object"):
        list(items(tmp_path / "d.jsonl"))
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-9])
    for name in ("e.jsonl.gz", "none.jsonl", "f.csv"):
        with pytest.raises(UserError, match=name):
            list(items(tmp_path / name))


def test_broken_folders(tmp_path):
    with pytest.raises(UserError, match="no item of an evaluation set is long enough"):
        build({"x": ["짧다"]}, ContaminationConfig(), tmp_path / "x")
    with pytest.raises(UserError, match="holds no n-grams of evaluation sets"):
        Contamination(tmp_path / "x")
    build(SETS, ContaminationConfig(), tmp_path / "x")
    file = tmp_path / "x" / "contamination.safetensors"
    before = file.read_bytes()
    Contamination(tmp_path / "x")
    for damaged in (b"", before[:-1], before[:-3] + b"\1\1\1", before[:4]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="`kanana contamination .* again"):
            Contamination(tmp_path / "x")
    file.write_bytes(before)
    about, arrays = tables.read(file)
    about["config"]["ngrams"]["words"] = "13"
    tables.write(file, about, arrays)
    with pytest.raises(UserError, match=r"contamination.json.ngrams.words"):
        Contamination(tmp_path / "x")
    with pytest.raises(UserError, match="cannot write"):
        (tmp_path / "file").write_text("")
        build(SETS, ContaminationConfig(), tmp_path / "file" / "x")


def test_bad_configs():
    for values in ({"words": 0}, {"shortest_words": 14}, {"characters": -1}):
        with pytest.raises(ValueError):
            Lengths(**values)
    with pytest.raises(ValueError, match="max_items"):
        ContaminationConfig(max_items=0)
