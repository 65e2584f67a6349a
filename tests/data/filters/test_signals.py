"""Signals against definitions written out in plain Python, and the faults of other filters."""

import collections
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.filters import c4, characters, documents, hashing, lines, repetition, signals, units

KOREAN = "한빛시는 1795년에 세워졌다. 강을 끼고 있으며, 사과로 알려져 있다.\n\n시장은 김가람이다. 시장은 김가람이다.\n- 첫째\n- 둘째…"
JAPANESE = "東京は日本の首都である。人口は約1400万人。\n「ガラス」と「カラス」は違う。が、か、を区別する。"
ENGLISH = "The council of the town isn't large. It costs 3,000.50 won; see [1].\nThe end of the story...\n\n* one # two"
LEXICON = signals.Lexicon(("the", "of"), ("는", "을", "로", "다"), ("카지노", "토토"), ("무단전재",))
texts = st.text(st.sampled_from("ab 가나 다。.\n\n#…-1ㅋかガ"), max_size=120)


def _measure(text, unit="word", **kwargs):
    return signals.measure([characters.normalise(text)], unit, LEXICON, c4.C4Config(), **kwargs)[0]


def _words(text):
    """The definition: runs of letters, digits and marks, or of other visible characters."""
    found, run = [], ""
    for i, c in enumerate(text):
        inside = unicodedata.category(c)[0] in "LNM"
        around = text[i - 1] + text[i + 1] if 0 < i < len(text) - 1 else "  "
        if c in "'’" and all(unicodedata.category(x)[0] == "L" for x in around):
            inside = True
        if c in ".," and all(unicodedata.category(x)[0] == "N" for x in around):
            inside = True
        kind = " " if c.isspace() else "w" if inside else "s"
        if run and (kind == " " or kind != run[0]):
            found.append(run[1:])
            run = ""
        if kind != " ":
            run = (run or kind) + c
    return found + ([run[1:]] if run else [])


@pytest.mark.parametrize("text", [KOREAN, JAPANESE, ENGLISH, "", " ", "don't 'quoted' 1.5, a.b ㅋㅋ"])
def test_words_are_as_defined(text):
    text = characters.normalise(text)
    codes = characters.code_points(text)
    found = units.split(codes, characters.bits_of(codes), "word")
    assert [text[s:e] for s, e in zip(found.starts, found.ends)] == _words(text)
    found = units.split(codes, characters.bits_of(codes), "character")
    assert [text[s:e] for s, e in zip(found.starts, found.ends)] == [c for c in text if not c.isspace()]


@given(texts)
@settings(max_examples=200, deadline=None)
def test_words_of_any_text(text):
    codes = characters.code_points(text)
    found = units.split(codes, characters.bits_of(codes), "word")
    assert [text[s:e] for s, e in zip(found.starts, found.ends)] == _words(text)


def _top(words, n):
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams:
        return 0
    gram, count = collections.Counter(grams).most_common(1)[0]
    return len(gram) * count if count > 1 else 0


def _found_again(words, n):
    seen, total, i = set(), 0, 0
    while i <= len(words) - n:
        gram = tuple(words[i : i + n])
        if gram in seen:
            total += len("".join(gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return total


def _covered(words, n):
    seen, covered = set(), set()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        covered |= set(range(i, i + n)) if gram in seen else set()
        seen.add(gram)
    return sum(len(words[i]) for i in covered)


@given(st.lists(st.sampled_from(["a", "bb", "c", "가나"]), max_size=80))
@settings(max_examples=300, deadline=None)
def test_repetition_is_gophers(words):
    text = " ".join(words)
    codes = characters.code_points(text)
    found = units.split(codes, characters.bits_of(codes), "word")
    hashes = hashing.PrefixHash(codes).of(found.starts, found.ends)
    share, top, duplicate = repetition.ngram_characters(documents.join([text]), hashes, found, skip=True)
    assert {n: int(v[0]) for n, v in top.items()} == {n: _top(words, n) for n in repetition.TOP}
    assert {n: int(v[0]) for n, v in duplicate.items()} == {n: _found_again(words, n) for n in repetition.DUPLICATE}
    _, same, covered = repetition.ngram_characters(documents.join([text]), hashes, found, skip=False)
    assert {n: int(v[0]) for n, v in same.items()} == {n: int(v[0]) for n, v in top.items()}
    assert {n: int(v[0]) for n, v in covered.items()} == {n: _covered(words, n) for n in repetition.DUPLICATE}
    assert share[0] == (pytest.approx(len(set(words)) / len(words)) if words else 1.0)


@given(st.lists(texts, max_size=6), st.sampled_from(["word", "character"]))
@settings(max_examples=300, deadline=None)
def test_documents_side_by_side_are_measured_as_alone(batch, unit):
    batch = [characters.normalise(text) for text in batch]
    together = signals.measure(batch, unit, LEXICON, c4.C4Config())
    alone = [signals.measure([text], unit, LEXICON, c4.C4Config())[0] for text in batch]
    for (found, spans), (wanted, wanted_spans) in zip(together, alone, strict=True):
        assert found._asdict() == pytest.approx(wanted._asdict(), abs=1e-12)
        assert spans == wanted_spans


def _bullets(rows):
    return sum(row.lstrip()[:1] in ("-", "•") for row in rows if row.strip())


@given(texts)
@settings(max_examples=200, deadline=None)
def test_lines_and_paragraphs(text):
    text = characters.normalise(text)
    found, _ = _measure(text)
    rows = text.splitlines()
    written = [r for r in rows if r.strip()]
    assert found.lines == len(written)
    if not rows:
        return
    assert found.bullet_lines == pytest.approx(_bullets(rows) / len(rows))
    ends = sum(r.rstrip().endswith(("...", "…")) for r in rows)
    assert found.ellipsis_lines == pytest.approx(ends / len(rows))
    full = [r for r in rows if r]
    again = len(full) - len(set(full))
    assert found.duplicate_lines == pytest.approx(again / (len(full) or 1))
    paragraphs = [p for p in re.split(r"\n{2,}", text.strip("\n")) if p]
    assert found.paragraphs == len(paragraphs)
    assert found.duplicate_paragraphs == pytest.approx(
        (len(paragraphs) - len(set(paragraphs))) / (len(paragraphs) or 1)
    )
    if written:
        assert found.short_lines == pytest.approx(sum(len(r) <= 30 for r in written) / len(written))
        marks = tuple(".。")
        assert found.line_punctuation == pytest.approx(sum(r.endswith(marks) for r in written) / len(written))


@pytest.mark.parametrize("text", [KOREAN, JAPANESE, ENGLISH, "Ｇａﾗｽ が Å ㄱ 각\r\nx\u2028y"])
def test_decomposed_text_gives_the_same_signals_and_spans(text):
    for unit in ("word", "character"):
        assert _measure(unicodedata.normalize("NFD", text), unit) == _measure(unicodedata.normalize("NFC", text), unit)


def test_korean_words_do_not_overlap_and_keep_their_particles():
    """datatrove's morphemes of 갔다 are 갔, 갔 and 다, which inflates its n-grams."""
    found, _ = _measure("그는 집에 갔다. 그는 집에 갔다.")
    assert found.words == 6 and found.stop_endings == 2


def test_long_digit_runs_do_not_shift_anything():
    """Twenty or more digits in a row shift the offsets of datatrove's Korean words."""
    plain, _ = _measure("가나다 라마바 사아자.")
    long, _ = _measure("가나다 123456789012345678901234567890 라마바 사아자.")
    assert long.words == plain.words + 1 and long.line_punctuation == 1.0


def test_marks_are_not_dropped():
    """Dropping combining marks makes か of が, and カラス (crow) of ガラス (glass)."""
    assert hashing.text_hash("ガラス") != hashing.text_hash("カラス")
    found, _ = _measure("ガラスカラスガラスカラス", "character")
    assert found.different_words == pytest.approx(4 / 12)


def test_hanja_is_not_hangul_and_jamo_is_apart():
    found, _ = _measure("漢字 한글 ㅋㅋ")
    assert found.han == pytest.approx(2 / 6) and found.hangul == pytest.approx(2 / 6)
    assert found.jamo == pytest.approx(2 / 6)


def test_script_shares_sum_to_at_most_one():
    for text in (KOREAN, JAPANESE, ENGLISH, "😀 emoji ½ Ⅳ"):
        found, _ = _measure(text)
        shares = found[signals.NAMES.index("hangul") : signals.NAMES.index("digits") + 1]
        assert 0 <= sum(shares) <= 1 + 1e-9


def test_sentences_do_not_end_inside_numbers_and_names():
    text = "It is 3.14 in os.path now. Next one! And the last?"
    assert len(lines.sentence_lengths(documents.join([text]))[0]) == 3
    assert len(lines.sentence_lengths(documents.join([JAPANESE]))[0]) == 4


@pytest.mark.parametrize(
    "line,rule",
    [
        ("This line is all right.", None),
        ("no mark at the end", "c4_no_terminal_punctuation"),
        ("It goes on and on...", "c4_no_terminal_punctuation"),
        ("Two words.", "c4_few_words"),
        ("Please enable JavaScript to go on.", "c4_javascript"),
        ("We have a Cookie Policy for you.", "c4_policy"),
        ("One " + "x" * 1001 + " is here.", "c4_long_word"),
        ("A fact that is cited.[12]", None),
    ],
)
def test_c4_lines(line, rule):
    text = f"This first line stays here.\n{line}\nThis last line stays as well."
    _, cuts = _measure(text)
    rules = [r for s, e, r in cuts if r != "citation"]
    assert rules == ([rule] if rule else [])
    expected = [row for row in text.replace("[12]", "").split("\n") if not (rule and row == line)]
    assert c4.cut(text, cuts) == "\n".join(expected)


def test_c4_documents():
    base = "A sentence stands here. And a second one is here.\nThe third one follows now."
    found, cuts = _measure(base)
    assert found.c4_sentences == 3 and found.c4_lorem_ipsum == found.c4_curly_bracket == 0
    assert _measure(base + "\nLorem ipsum dolor sit amet.")[0].c4_lorem_ipsum == 1
    assert _measure(base + "\nThis is a { in code.")[0].c4_curly_bracket == 1
    assert _measure(base + "\n{ not a sentence")[0].c4_curly_bracket == 0


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_finite_signals(text):
    for unit in ("word", "character"):
        found, cuts = _measure(text, unit)
        assert np.isfinite(found).all()
        normal = characters.normalise(text)
        assert all(0 <= s < e <= len(normal) for s, e, _ in cuts)
        assert c4.cut(normal, cuts) is not None


def test_lone_surrogates_nul_and_empty_text():
    for text in ("\ud800", "a\0b", "", "\u200b\u202e", "\n\n\n"):
        assert np.isfinite(_measure(text)[0]).all()
    assert characters.normalise("a\r\nb\rc\u2028d\0") == "a\nb\nc\nd"
