"""Hostile text through every shipped filter: nothing crashes, every document is counted, every number is sane."""

import dataclasses
import gzip
import json
import math
import random
import unicodedata

import pytest
from conftest import ROOT, guard
from pyarrow import parquet

from kanana_jax import config as config_lib
from kanana_jax.data import filters
from kanana_jax.data.arrays import characters
from kanana_jax.data.filters import c4, job, pii
from kanana_jax.data.filters.signals import NAMES

COUNT = 10_000
LANGUAGES = ("ko", "en", "ja")
# Not shares: sizes, counts, means, quotients of different things; the most frequent n-gram may overlap itself.
NO_SHARES = {
    "characters", "bytes", "lines", "paragraphs", "words", "mean_word_length", "hashes_per_word", "ellipses_per_word",
    "stop_words", "stop_endings", "top_2_gram", "top_3_gram", "top_4_gram", "c4_sentences", "newlines_per_word",
    "mean_sentence", "longest_sentence", "ellipses_per_sentence", "spam_words", "boilerplate_phrases", "compression",
}  # fmt: skip
SENTENCES = (
    "그는 2019년에 학교를 졸업했다. 저작권자 ⓒ 무단전재 및 재배포 금지. 카지노 바카라",
    "彼は2019年に大学を卒業した。ガラスとカラスは違う！無断転載を禁じます。ＡＢＣ…",
    "The council met in 1999 [12]; it costs 3,000.50 won. All Rights Reserved. See the privacy policy.",
    "연락처 010-1234-5678, 900101-1234568, a.b@example.com, 8.8.8.8, 4111 1111 1111 1111, +82 10 1234 5678",
    "マイナンバー 123456789018、口座 123-456-789012、パスポート TK1234567、2001:db8::1 と 2606:4700::1111",
)
SPACES = " \t\n\r\v\f\x1c\x1d\x1e\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000"
HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u202a\u202b\u202d\u202e\u202c\u2066\u2067\u2068\u2069"
# What makes patterns that can match one text in many ways go through all of these.
PATTERNS = ("a", "a.", "a-", "1", "1.", "1-", "0 ", "(0", "+1", "1:", ":", "a@", "@a.", "[1", "[", "{", "<", "- ", ". ",
            "가", "ー", "...", "…", "\r", "\n ", "x\n", "\n\n", "계좌 ", "010-", "900101-", "A1", "%.", "_")  # fmt: skip


def _characters(rng, *ranges, longest=200):
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(0, longest)))


def _spoiled(rng):
    data = bytearray(rng.choice(SENTENCES).encode() * rng.randint(1, 3))
    for _ in range(rng.randint(1, 9)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randint(1, len(data))]).decode("utf-8", rng.choice(["surrogateescape", "replace"]))


def _sprinkled(rng):
    """A sentence with what nobody sees between its characters."""
    text, strange = (
        rng.choice(SENTENCES),
        rng.choice([HIDDEN, "\0\x01\x7f\x9f", SPACES, "\ud800\udfff", "\u0301\u3099"]),
    )
    return "".join(c + (rng.choice(strange) if rng.random() < 0.2 else "") for c in text)


KINDS = (
    lambda rng: rng.randbytes(rng.randint(0, 200)).decode("utf-8", "surrogateescape"),
    _spoiled,
    _sprinkled,
    lambda rng: _characters(rng, (0xD800, 0xDFFF), (0x20, 0x7E)),
    lambda rng: "".join(rng.choice(HIDDEN) for _ in range(rng.randint(0, 50))),
    lambda rng: "".join(rng.choice(SPACES) for _ in range(rng.randint(0, 50))),
    lambda rng: _characters(rng, (0x300, 0x36F), (0x3099, 0x309A), (0x20D0, 0x20FF)),
    lambda rng: "".join(c + _characters(rng, (0x300, 0x36F), longest=9) for c in rng.choice(SENTENCES)),
    lambda rng: _characters(rng, (0x378, 0x379), (0xE000, 0xE010), (0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF), (0x10FFF0, 0x10FFFF)),
    lambda rng: rng.choice("([{<「（") * rng.randint(1, 2000) + rng.choice(")]}>」）") * rng.randint(0, 2000),
    lambda rng: rng.choice("aA1.가あ。\n\t\0\u0301😀ㅋ") * rng.randint(1, 3000),
    lambda rng: _characters(rng, (0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2), (0x3131, 0x318E), (0xFFA0, 0xFFDC)),
    lambda rng: "".join(rng.choice(["👩‍👩‍👧‍👦", "🏴\U000e0067\U000e007f", "🇰🇷", "👍🏽", "❤️", "\u200d", "1️⃣"]) for _ in range(rng.randint(1, 60))),
    lambda rng: "".join(rng.choice(["a", "가", "-", "•", "", " ", "{", "x.", "…"]) + "\n" for _ in range(rng.randint(1, 300))),
    lambda rng: rng.choice(PATTERNS) * rng.randint(1, 400) + rng.choice(["", "!", "@", " ", "\n", "x"]),
    lambda rng: "".join(rng.choice(PATTERNS) for _ in range(rng.randint(1, 200))),
    lambda rng: _characters(rng, (0, 0x2FF), (0x3000, 0x30FF), (0xAC00, 0xD7A3), (0x4E00, 0x9FFF), (0, 0x10FFFF)),
    lambda rng: unicodedata.normalize(rng.choice(["NFD", "NFKD", "NFC"]), " ".join(rng.choices(SENTENCES, k=rng.randint(1, 9)))),
)  # fmt: skip


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    return [KINDS[i % len(KINDS)](rng) for i in range(COUNT)]


def _config(lang, **changes):
    file = ROOT / f"configs/data/{lang}.py"
    config = config_lib.build(filters.FilterConfig, config_lib.read_config_file(str(file)).filters[lang], lang)
    return dataclasses.replace(config, **{"c4": config.c4 or c4.C4Config(), "cut_lines": True, "pii": True, **changes})


def _judge(judge, texts):
    found = []
    for i in range(0, len(texts), 128):
        found += judge.judge([{"id": str(i), "text": text, "source": "web"} for text in texts[i : i + 128]])
    return found


def _check(verdict, text):
    normal = characters.normalise(text)
    measured = verdict.signals._asdict() | dict(verdict.scores)
    for name, value in measured.items():
        assert math.isfinite(value) and value >= 0, name
        if name in NAMES and name not in NO_SHARES:
            assert value <= 1, name
    assert measured["characters"] == len(normal) or "```" in normal or "~~~" in normal
    at = 0
    for start, end, _ in verdict.spans:
        assert at <= start < end <= len(normal)
        at = end
    out = verdict.record["text"]
    out.encode()
    assert "\0" not in out and "\r" not in out
    assert sum(verdict.pii.values()) == sum(
        out.count(f"<{k.upper()}>") - normal.count(f"<{k.upper()}>") for k in verdict.pii
    )
    if verdict.rules:
        assert not verdict.pii and not verdict.spans and out == normal


@pytest.mark.parametrize("lang", LANGUAGES)
def test_fuzzed_documents(texts, lang):
    judge = filters.Filter(_config(lang))
    verdicts = _judge(judge, texts)
    assert len(verdicts) == COUNT
    for text, verdict in zip(texts, verdicts):
        _check(verdict, text)
    # Most of these texts are dropped: what happens to those that are kept is seen without rules.
    free, uncut = (filters.Filter(_config(lang, rules={}, cut_lines=cut)) for cut in (True, False))
    part = texts[::7]  # some of every kind
    kept, whole = _judge(free, part), _judge(uncut, part)
    for text, verdict in zip(part * 2, kept + whole):
        _check(verdict, text)
    assert sum(len(v.spans) for v in kept) > 1000 and sum(sum(v.pii.values()) for v in whole) > 50
    alone = [free({"id": "", "text": text, "source": "web"}) for text in part[::20]]
    assert [(v.signals, v.spans, v.pii, v.record["text"]) for v in alone] == [
        (v.signals, v.spans, v.pii, v.record["text"]) for v in kept[::20]
    ]
    composed, decomposed = (
        _judge(free, [unicodedata.normalize(form, text) for text in part]) for form in ("NFC", "NFD")
    )
    for one, other in zip(composed, decomposed):
        assert (one.signals, one.scores, one.spans, one.pii) == (other.signals, other.scores, other.spans, other.pii)
        assert one.record["text"] == other.record["text"]


LARGE = {
    "long line": "x" * 2_000_000,
    "one character": "가" * 10**6,
    "combining": "\u0301" * 300_000,
    "brackets": "{" * 300_000 + "}" * 300_000,
    "one sentence": "가나다 라마. " * 50_000,
    **{
        f"{start!r} to nowhere": (start + unit * 100_000 + "x" * 300)
        for start, unit in (
            ("계좌 1", " "),
            ("1", "("),
            ("a@", "a"),
            ("010-", " "),
            ("1:", "1"),
            ("[", "1"),
            ("+", "1"),
        )
    },
    **{
        pattern: pattern * (200_000 // len(pattern)) for pattern in ("a@", "1-", "1.", "0 ", "1:", "[1", "x\n", "계좌 ")
    },
}


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", LARGE)
def test_large_documents(name, lang):
    with guard(120):
        _check(filters.Filter(_config(lang, rules={}))({"id": "", "text": LARGE[name], "source": "web"}), LARGE[name])


def test_normalising_twice_changes_nothing(texts):
    for text in texts:
        normal = characters.normalise(text)
        assert characters.normalise(normal) == normal == unicodedata.normalize("NFC", normal)
        assert characters.normalise(unicodedata.normalize("NFD", normal)) == normal


def test_personal_data_lie_inside_the_text_in_order(texts):
    for text in map(characters.normalise, texts[::5]):
        at = 0
        for start, end, kind in pii.find(text):
            assert at <= start < end <= len(text) and kind in pii.KINDS
            at = end


def test_the_job_counts_every_line(texts, tmp_path):
    """Broken lines between hostile ones; what is written is UTF-8, one JSON object a line, in the input's order."""
    broken = [
        b"{",
        b"[" * 9999,
        b'{"text": 5}',
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"text": "\xff"}',
        b"1" * 5000,
    ]
    broken += [
        b'{"id": 1}',
        b'{"text": ""}',
        b'{"text": " \\n"}',
        b'{"text": "\\ud800"}',
        b'{"text": "x"',
        b"NaN",
        b"\x00",
    ]
    lines, good = [], 0
    for i, text in enumerate(texts):
        record = {"id": f"{i}\ud800" if i % 99 == 0 else i, "text": text, "lang": LANGUAGES[i % 3], "source": "\x00가"}
        lines.append(json.dumps({**record, "meta": {"a\ud800": [text[:9], float(i)]}}).encode())
        try:
            text.encode()
            good += bool(text.strip())
        except UnicodeEncodeError:
            pass
        if i % 50 == 0:
            lines.append(broken[i // 50 % len(broken)])
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    config = job.JobConfig(keep_dropped=True, signals=True, max_broken_share=1.0)
    # The shipped rules would drop nearly all of it.
    configs = {lang: _config(lang, rules={"length": filters.Rule("characters", min=50)}) for lang in LANGUAGES}
    report = job.run(configs, str(tmp_path / "in.jsonl"), tmp_path / "out", config)
    assert report["documents"] == good and report["broken_lines"] == len(lines) - good
    assert report["kept"] + report["dropped"] == good and min(report["kept"], report["dropped"]) > 1000
    names = parquet.read_table(tmp_path / "out/signals.parquet").column("id").to_pylist()
    written = []
    for name in ("kept", "dropped"):
        data = gzip.decompress((tmp_path / f"out/{name}.jsonl.gz").read_bytes())
        rows = [json.loads(line) for line in data.decode().removesuffix("\n").split("\n")]
        assert len(rows) == report[name]
        assert all(bool(row.get("rules")) == (name == "dropped") for row in rows)
        places = [names.index(row["id"]) for row in rows]
        assert places == sorted(places)
        written += places
    assert sorted(written) == list(range(good))
