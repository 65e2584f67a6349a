"""Signals against definitions written out in plain Python, and the faults of other filters."""

import collections
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.arrays import characters, documents, hashing, lines, units
from kanana_jax.data.arrays.spans import cut
from kanana_jax.data.filters import c4, phrases, repetition, signals

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


@given(st.lists(st.text(st.sampled_from("ab かが\n😀𠀀"), max_size=60), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_repetition_of_characters_document_by_document(batch):
    """Code points beyond the table's 16 bits among them; what runs into the next document is no n-gram."""
    joined = documents.join(batch)
    found = units.of(joined, "character")
    share, top, duplicate = repetition.ngram_characters(joined, joined.codes[found.starts], found, skip=False)
    for i, text in enumerate(batch):
        own = [c for c in text if not c.isspace()]
        assert {n: int(v[i]) for n, v in top.items()} == {n: _top(own, n) for n in repetition.TOP}
        assert {n: int(v[i]) for n, v in duplicate.items()} == {n: _covered(own, n) for n in repetition.DUPLICATE}
        assert share[i] == (pytest.approx(len(set(own)) / len(own)) if own else 1.0)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=200))
@settings(max_examples=200, deadline=None)
def test_first_equal(keys):
    assert hashing.first_equal(np.array(keys, np.uint64)).tolist() == [keys.index(key) for key in keys]


def test_first_equal_of_many():
    """So many that some meet in every table."""
    keys = np.random.default_rng(0).integers(0, 30_000, 100_000).astype(np.uint64) << np.uint64(40)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    assert (hashing.first_equal(keys) == first[which]).all()


PHRASES = ("카지노", "무단 전재", "ⓒ", "Ab c", "aa", "激安", "スーパーコピー", "éa", "aé", "토토")


@given(
    st.lists(
        st.text(st.sampled_from("aAbB cCéÉⒸⓒ카지노무단전재激安スーパコピ토\n"), max_size=60), min_size=1, max_size=5
    )
)
@settings(max_examples=300, deadline=None)
def test_phrases_are_words_and_the_first_and_longest_counts(batch):
    batch = [text + phrase for text, phrase in zip(batch, PHRASES)]
    data = [text.encode() for text in batch]
    groups = (PHRASES[:4], PHRASES[4:])
    different, covered = phrases.Phrases(*groups).measure(batch, data, documents.join(batch).codes)
    for i, text in enumerate(batch):
        for g, group in enumerate(groups):
            found = _phrases(text.lower(), [phrase.lower() for phrase in group])
            assert (different[g, i], covered[g, i]) == (len(set(found)), sum(map(len, found)))


def _script(character):
    names = {"HANGUL": "hangul", "KATAKANA": "katakana", "LATIN": "latin"}
    if character == "ー":
        return "katakana"
    return names.get(unicodedata.name(character, "").split()[0] if unicodedata.name(character, "") else "", "")


def _phrases(text, group):
    """The definition, place by place: both ends where the kind of writing changes, or a particle behind Hangul."""
    found, at = [], 0
    while at < len(text):
        fitting = []
        for phrase in group:
            rest = text[at + len(phrase) :]
            before = text[at - 1 : at]
            good = text.startswith(phrase, at)
            good = good and not (before and _script(phrase[0]) and _script(before) == _script(phrase[0]))
            ends = [""] + (["가", "이", "의", "에서"] if _script(phrase[-1]) == "hangul" else [])
            bare = [rest[len(end) :][:1] for end in ends if rest.startswith(end)]
            last = _script(phrase[-1])
            if good and (not last or any(not c or _script(c) != last for c in bare)):
                fitting.append(phrase)
        if fitting:
            found.append(max(fitting, key=len))
            at += len(found[-1])
        else:
            at += 1
    return found


@pytest.mark.parametrize(
    "text, count",
    [
        ("토토로는 숲에 산다", 0),
        ("토토로가 버스를 탄다", 0),
        ("토토에서 돈을 잃다", 1),
        ("토토, 토토", 2),
        ("사설토토를", 0),
        ("카지노업은 허가를 받는다", 0),
        ("카지노는 강원도에 있다", 1),
        ("カジノキは落葉樹である", 0),
        ("カジノの法案", 1),
        ("logins and blogging in", 0),
        ("Log in, or LOG IN.", 2),
    ],
)
def test_topics_are_no_spam_words(text, count):
    words = phrases.Phrases(("토토", "카지노", "カジノ", "log in"))
    assert len(words.find(text)) == count
    different, covered = words.measure([text], [text.encode()], documents.join([text]).codes)
    assert (different[0, 0], covered[0, 0] > 0) == (min(count, 1), count > 0)


@pytest.mark.parametrize("blank", [" ", "\t", "\u3000", "\xa0", "\u200b", " \ufeff "])
def test_blanks_at_line_ends_change_nothing(blank):
    text = "강은 바다로 흐른다.\n그 물이 맑다\n강은 바다로 흐른다.\n- 끝이다…"
    names = ("line_punctuation", "short_lines", "ellipsis_lines", "duplicate_lines", "lines", "bullet_lines")
    plain, blanks = (_measure(t)[0]._asdict() for t in (text, text.replace("\n", f"{blank}\n") + blank))
    assert {name: plain[name] for name in names} == {name: blanks[name] for name in names}
    cuts = _measure(f"A fact is stated here.{blank}[1]{blank}\nAnd another one.{blank}")[1]
    assert [rule for _, _, rule in cuts] == ["citation"]


@given(st.lists(st.integers(0, 300), max_size=50))
def test_batches_hold_all_texts_in_order(sizes):
    texts = ["x" * size for size in sizes]
    limit, most = 200, 8
    found = list(documents.batches(texts, limit, most))
    assert [text for batch in found for text in batch] == texts
    assert all(0 < len(batch) <= most and (len(batch) == 1 or sum(map(len, batch)) <= limit) for batch in found)


@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_characters_are_counted_by_category(batch):
    batch = [characters.normalise(text) for text in batch]
    for text, (found, _) in zip(batch, signals.measure(batch, "character", LEXICON)):
        visible = [c for c in text if not c.isspace() and ord(c) < 0x20000]
        if len(visible) != sum(not c.isspace() for c in text):
            continue  # the table knows only letters there
        categories = [unicodedata.category(c) for c in visible]
        total = len(visible) or 1
        assert found.symbols == pytest.approx(sum(c[0] in "PS" or c == "Cc" for c in categories) / total)
        assert found.words == sum(not (c[0] in "PS" or c == "Cc") for c in categories)
        assert found.alphabetic_words == pytest.approx(sum(c[0] == "L" for c in categories) / total)
        assert found.hangul == pytest.approx(sum("가" <= c <= "힣" for c in visible) / total)


def test_capitals_are_those_of_latin():
    assert _measure("ПРИВЕТ a")[0].upper == 0
    assert _measure("ΑΒΓ ABc")[0].upper == pytest.approx(2 / 3)


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
    full = [r.rstrip() or r for r in rows if r]
    again = len(full) - len(set(full))
    assert found.duplicate_lines == pytest.approx(again / (len(full) or 1))
    paragraphs = [p for p in re.split(r"\n{2,}", text.strip("\n")) if p]
    assert found.paragraphs == len(paragraphs)
    assert found.duplicate_paragraphs == pytest.approx(
        (len(paragraphs) - len(set(paragraphs))) / (len(paragraphs) or 1)
    )
    if written:
        assert found.short_lines == pytest.approx(sum(len(r.rstrip()) <= 30 for r in written) / len(written))
        marks = tuple(".。")
        assert found.line_punctuation == pytest.approx(sum(r.rstrip().endswith(marks) for r in written) / len(written))


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
    assert cut(text, cuts) == "\n".join(expected)


def test_citations_are_cut_and_lines_end_before_them():
    text = "A fact that is cited well.[1][citation needed][23]\nAnd this one is not cited[4] [5]\nOne more[6] fact is here."
    _, cuts = _measure(text)
    assert [r for _, _, r in cuts] == ["citation"] * 3 + ["c4_no_terminal_punctuation", "citation"]
    assert cut(text, cuts) == "A fact that is cited well.\nOne more fact is here."


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
        assert cut(normal, cuts) is not None


def test_lone_surrogates_nul_and_empty_text():
    for text in ("\ud800", "a\0b", "", "\u200b\u202e", "\n\n\n"):
        assert np.isfinite(_measure(text)[0]).all()
    assert characters.normalise("a\r\nb\rc\u2028d\0") == "a\nb\nc\nd"
    assert characters.normalise("e\0\u0301\r\0\n") == "é"
