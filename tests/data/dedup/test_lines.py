"""Lines that documents have in common: against a count and the paper's patterns written out in plain Python."""

import collections
import json
import pickle
import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data import microworld
from kanana_jax.data.arrays import characters, tables
from kanana_jax.data.arrays.spans import cut
from kanana_jax.data.dedup.lines import LinesConfig, LineVerdicts, run
from kanana_jax.errors import ConfigError, UserError

SMALL = LinesConfig(red=2, yellow=1, min_letters=2)


def _write(path, texts):
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def _lines(text):
    """Of a text (start, end, pattern), or None for a pattern where a line is not counted."""
    at, fence = 0, ""
    for line in text.split("\n"):
        pattern = line.casefold()
        letters = sum(unicodedata.category(c)[0] == "L" for c in pattern)
        mark = line.strip()[:3]
        inside = bool(fence)
        if mark in ("```", "~~~") and fence in ("", mark):
            fence, inside = "" if fence else mark, True
        pattern = "".join("0" if unicodedata.category(c)[0] == "N" else c for c in pattern)
        pattern = re.sub("0([.,]?0)*", "0", " ".join(pattern.split()))
        yield at, at + len(line), pattern if letters >= 2 and not inside else None
        at += len(line) + 1


def _expected(texts, config):
    """Documents of each pattern, and the spans to cut out of each text, with and without lone lines."""
    texts = [characters.normalise(text) for text in texts]
    counts = collections.Counter(p for text in texts for p in {p for *_, p in _lines(text) if p is not None})
    cuts = []
    for text in texts:
        lines = [line for line in _lines(text) if line[2] is not None]
        colours = "".join("gyr"[(counts[p] > config.yellow) + (counts[p] > config.red)] for *_, p in lines)
        kept = {i for match in re.finditer("gg+(?:y+g+)+g|gg+", colours) for i in range(*match.span())}
        names = {"g": "lone_line", "y": "yellow_line", "r": "red_line"}
        cuts.append(
            [(start, end, names[c]) for i, ((start, end, _), c) in enumerate(zip(lines, colours)) if i not in kept]
        )
    return counts, cuts


line = st.sampled_from(
    [
        "가나",
        "다라 1",
        "다라 2,345",
        "다라 ２.0",
        "\t다라   9 ",
        "Ab",
        "aB",
        "ab\u00a0c",
        "a",
        "",
        " ",
        "}",
        "12",
        "```",
        "~~~ x",
    ]
    + ["마바", "사아", "straße", "STRASSE", "é clair", "e\u0301 clair", "İx", "…", "1가나", "차,카", "ⅳ장", "3장"]
)
text = st.lists(line, max_size=9).map("\n".join)


@given(st.lists(text, min_size=1, max_size=7).filter(lambda texts: any(t.strip() for t in texts)), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_counts_and_cuts_are_those_of_the_definition(tmp_path_factory, texts, chunk):
    folder = tmp_path_factory.mktemp("lines")
    texts = [t for t in texts if t.strip()]
    counts, cuts = _expected(texts, SMALL)
    report = run(SMALL, [_write(folder / "a.jsonl", texts)], folder / "out", chunk)
    assert (report["documents"], report["lines"], report["patterns"]) == (len(texts), counts.total(), len(counts))
    for colour, low, high in (("red", 2, 10**9), ("yellow", 1, 2)):
        own = {pattern: n for pattern, n in counts.items() if low < n <= high}
        assert (report[colour]["patterns"], report[colour]["lines"]) == (len(own), sum(own.values()))
        assert {e["pattern"]: e["documents"] for e in report[colour]["examples"]} == own
    normalised = [characters.normalise(t) for t in texts]
    assert list(map(list, LineVerdicts(folder / "out", lone=True).spans(normalised))) == cuts
    without = [[span for span in own if span[2] != "lone_line"] for own in cuts]
    assert list(map(list, LineVerdicts(folder / "out").spans(normalised))) == without


@given(st.lists(st.sampled_from("ggyr"), max_size=14).map("".join))
@settings(max_examples=100, deadline=None)
def test_the_pattern_is_that_of_the_paper(judged, colours):
    """Any string of colours, with blank lines and code in between, against the paper's own regular expressions."""
    words = {"g": "첫째", "y": "노랑", "r": "빨강"}
    body = [f"{words[c]} {'가나다라마바사아자차카타파하'[i] * 3 if c == 'g' else ''}" for i, c in enumerate(colours)]
    text = characters.normalise("\n\n}\n".join(body))
    fallen = {text[start:end].strip() for start, end, _ in judged.spans([text])[0]}
    kept = {i for match in re.finditer("gg+(?:y+g+)+g|gg+", colours) for i in range(*match.span())}
    starts = [start for start, *_ in judged.spans([text])[0]]
    wanted = [i for i, c in enumerate(colours) if i not in kept]
    lengths = [len(part) + 4 for part in body]
    assert starts == [sum(lengths[:i]) for i in wanted]
    assert fallen == {body[i].strip() for i in wanted}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    texts = ["노랑"] * 4 + ["빨강"] * 51
    run(LinesConfig(), [_write(folder / "a.jsonl", texts)], folder / "out")
    return LineVerdicts(folder / "out", lone=True)


def _pages():
    """News with a menu above, a notice in every fifth between paragraphs and a footer below."""
    articles = [r["text"] for r in microworld.parse_uri("microworld://news/ko?count=60")]
    pages = []
    for i, article in enumerate(articles):
        top = ["홈 > 뉴스 > 정치", f"조회 {i * 997:,}  |  댓글 {i}", f"입력 2024.05.{i % 28 + 1:02} 오전 9:{i:02}"]
        notice = ["▶ 이 기자의 다른 기사 보기"] if i % 5 == 0 else []
        low = ["ⓒ 한빛일보, 무단 전재 및 재배포 금지", "", "구독하기  공유하기"]
        pages.append("\n".join([*top, *notice, article, *low]))
    return articles, pages


def test_boilerplate_goes_and_text_stays(tmp_path):
    articles, pages = _pages()
    report = run(LinesConfig(), [_write(tmp_path / "a.jsonl", pages)], tmp_path / "out")
    assert (report["red"]["patterns"], report["yellow"]["patterns"]) == (5, 1)
    assert {"pattern": "조회 0 | 댓글 0", "documents": 60} in report["red"]["examples"]
    assert report["yellow"]["examples"] == [{"pattern": "▶ 이 기자의 다른 기사 보기", "documents": 12}]
    look_up = pickle.loads(pickle.dumps(LineVerdicts(tmp_path / "out")))
    texts = [characters.normalise(page) for page in pages]
    for article, text, spans in zip(articles, texts, look_up.spans(texts)):
        assert cut(text, spans) == article.strip()
    # Another page of the site, which was not counted, in another Unicode form.
    unseen = characters.normalise(
        unicodedata.normalize("NFD", "조회 31,415 | 댓글 9\n새로 쓴 기사이다.\n구독하기 공유하기")
    )
    assert cut(unseen, look_up.spans([unseen])[0]) == "새로 쓴 기사이다."


def test_a_yellow_line_stays_within_text(tmp_path):
    heading = "2. 주요 내용"
    others = [f"{heading}\n{word * 3}" for word in "가나다라"]
    run(LinesConfig(), [_write(tmp_path / "a.jsonl", others)], tmp_path / "out")
    look_up = LineVerdicts(tmp_path / "out")
    first = "하나 있다.\n둘이다.\n"
    assert look_up.spans([f"{first}3. 주요 내용\n셋이다.\n넷이다."]) == [()]
    assert look_up.spans([f"{first}3. 주요 내용\n셋이다."]) == [((len(first), len(first) + 8, "yellow_line"),)]
    assert look_up.spans([heading]) == [((0, 8, "yellow_line"),)]


def test_code_stays(tmp_path):
    code = "import numpy as np\n}\nreturn x"
    texts = [f"예제 {name}\n```python\n{code}\n```" for name in "ABCDEFGH"] + [f"~~~\n{code}" for _ in range(8)]
    config = LinesConfig(red=4)
    report = run(config, [_write(tmp_path / "a.jsonl", texts)], tmp_path / "out")
    assert report["lines"] == 8 and report["red"]["patterns"] == report["yellow"]["patterns"] == 0
    report = run(
        config, [_write(tmp_path / "b.jsonl", [*texts, *[code + f" {i}" * i for i in range(5)]])], tmp_path / "out"
    )
    assert [e["pattern"] for e in report["red"]["examples"]] == ["import numpy as np"]
    spans = LineVerdicts(tmp_path / "out").spans([*texts, code])
    assert spans == [()] * len(texts) + [((0, 18, "red_line"),)]


def _bytes(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_order_form_and_memory_do_not_matter(tmp_path):
    _, pages = _pages()
    run(LinesConfig(), [_write(tmp_path / "a.jsonl", pages)], tmp_path / "out")
    wanted = _bytes(tmp_path / "out")
    assert sorted(wanted) == ["lines.safetensors", "report.json"]
    _, arrays = tables.read(tmp_path / "out" / "lines.safetensors")
    assert (len(arrays["red"]), len(arrays["yellow"])) == (5, 1)
    pages = [unicodedata.normalize("NFD", page) for page in pages]
    random.Random(0).shuffle(pages)
    one, two = _write(tmp_path / "b.jsonl", pages[:7]), _write(tmp_path / "c.jsonl", pages[7:])
    for chunk in (1, 7, 100, 10**6):
        run(LinesConfig(), [two, one], tmp_path / "out", chunk)
        assert _bytes(tmp_path / "out") == wanted
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "c.jsonl", "out"]


def test_hostile_and_empty_texts(tmp_path, judged):
    texts = [
        "\u200b\n\u202e",
        "\x00",
        "ㅋ" * 10**5,
        "\n" * 1000 + "a",
        "```\n" * 999,
        "1,2" * 9999,
        "🙂\n" * 9,
        "\r\r\n가나",
    ]
    lines = [json.dumps({"text": t}) for t in texts]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "{broken", '{"text": "\\ud800"}']))
    report = run(SMALL, [str(tmp_path / "a.jsonl")], tmp_path / "out")
    assert (report["documents"], report["broken"], report["lines"]) == (len(texts), 2, 2)
    spans = LineVerdicts(tmp_path / "out").spans([characters.normalise(t) for t in [*texts, "", "\ud800"]])
    assert spans == [()] * (len(texts) + 2)
    assert judged.spans(["", ""]) == [(), ()] and judged.spans([]) == []


def test_errors(tmp_path):
    with pytest.raises(UserError, match="holds no counts of lines"):
        LineVerdicts(tmp_path / "out")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="no documents"):
        run(SMALL, [str(tmp_path / "empty.jsonl")], tmp_path / "out")
    path = _write(tmp_path / "a.jsonl", ["가나", "가나", "가나", "다라", "다라"])
    run(SMALL, [path], tmp_path / "out")
    file = tmp_path / "out" / "lines.safetensors"
    before = file.read_bytes()
    for damaged in (b"", before[:-1], before[:-3] + b"\0\0\0", before[:4], before[:40]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"lines.safetensors holds no counts .* `kanana lines"):
            LineVerdicts(tmp_path / "out")
    file.write_bytes(before)
    assert LineVerdicts(tmp_path / "out").spans(["가나"]) == [((0, 2, "red_line"),)]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run(SMALL, [path], tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match="chunk 0"):
        run(SMALL, [path], tmp_path / "out", chunk=0)
    for values in ({"yellow": 0}, {"red": 2}, {"min_letters": 0}):
        with pytest.raises(ValueError):
            LinesConfig(**values)


def test_a_run_that_fails_leaves_what_was_there(tmp_path):
    path = _write(tmp_path / "a.jsonl", ["가나"] * 3)
    run(SMALL, [path], tmp_path / "out")
    before = _bytes(tmp_path / "out")
    with pytest.raises(UserError, match="none.jsonl"):
        run(SMALL, [path, str(tmp_path / "none.jsonl")], tmp_path / "out")
    assert _bytes(tmp_path / "out") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "out"]
