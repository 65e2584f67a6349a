"""Properties of the reader of tables: what is read does not depend on how a table was saved; the rest is one sentence."""

import csv
import io
import unicodedata

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kanana_jax.errors import ConfigError
from kanana_jax.observatory import cells, encodings

SEEN = st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters=",;|\t\"'=")
NAMES = st.lists(
    st.text(SEEN, min_size=1, max_size=6).filter(lambda t: not cells._BLANKS.search(unicodedata.normalize("NFC", t))),
    min_size=2,
    max_size=5,
    unique_by=lambda t: unicodedata.normalize("NFC", t),
)
HIDDEN = (
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\u061c\u3164\u115f\uffa0\u034f\u2800\ufe0f\ue000\x00\x07\x7f\u2028"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "scores.csv"


def _read(file, text):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return cells.read_csv(file)


def _refused(file, text, *words):
    with pytest.raises(ConfigError) as error:
        _read(file, text)
    said = str(error.value)
    assert "\n" not in said and all(word in said for word in words), said
    return said


@settings(deadline=None, max_examples=40)
@given(names=NAMES, end=st.sampled_from(["\n", "\r\n", "\r"]), form=st.sampled_from(["NFC", "NFD"]),
       bom=st.booleans(), sep=st.booleans(), blanks=st.integers(0, 2), extra=st.integers(0, 2), quoted=st.booleans())  # fmt: skip
def test_a_table_is_read_the_same_however_it_was_saved(file, names, end, form, bom, sep, blanks, extra, quoted):
    """Line ends, composition, BOM, Excel's first line, empty rows and columns at the end, quotes."""
    values = [f"0.{i + 1}" for i in range(len(names))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerow(["model", "a", *[""] * extra])
    for name, value in zip(names, values):
        writer.writerow([name, value, *[""] * extra])
        writer.writerows([[""] * (2 + extra)] * blanks)
    whole = ("\ufeff" if bom else "") + (f"sep=,{end}" if sep else "") + unicodedata.normalize(form, text.getvalue())
    found = _read(file, whole)
    assert list(found["model"]) == [unicodedata.normalize("NFC", name) for name in names]
    assert list(found["a"]) == values and list(found.columns) == ["model", "a"]


@settings(deadline=None, max_examples=40)
@given(names=NAMES, at=st.integers(0, 5), hidden=st.sampled_from(HIDDEN))
def test_what_cannot_be_seen_is_refused_by_its_code_point(file, names, at, hidden):
    name = "x" + names[0][:at] + hidden + names[0][at:] + "x"
    kept = unicodedata.normalize("NFC", name)
    before = kept[kept.index(hidden) - 1]
    assume(hidden != "\ufe0f" or not unicodedata.category(before).startswith("S"))
    said = _refused(file, f"model,a\n{name},0.5\n", "scores.csv, line 2", "remove it")
    assert hidden in kept and f"U+{ord(hidden):04X}" in said and hidden not in said


@pytest.mark.parametrize("style", ["\ufe0e", "\ufe0f"])
def test_the_style_of_a_symbol_does_not_count(file, style):
    found = _read(file, f"model,Average ⬆{style}\nm❤{style}x,0.5\n")
    assert list(found.columns) == ["model", "Average ⬆"] and list(found["model"]) == ["m❤x"]


@settings(deadline=None, max_examples=30)
@given(space=st.sampled_from("\u00a0\u2003\u202f\u3000 "))
def test_every_space_is_a_space(file, space):
    found = _read(file, f"model,a\n{space}Model{space}A{space},{space}0.5\n")
    assert list(found["model"]) == ["Model A"] and list(found["a"]) == ["0.5"]


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.sampled_from("0123456789.,+-eE_%xnaif٣−０½ "), min_size=1, max_size=6))
def test_a_cell_is_a_plain_number_or_is_refused(file, text):
    """Against Python's own reader of ASCII decimals, without its underscores, infinities and other digits."""
    text = text.strip()
    if not text:
        return
    try:
        plain = text.isascii() and not any(c in "_nNxX" for c in text) and np.isfinite(float(text))
    except ValueError:
        plain = False
    if plain:
        assert cells.number(file, "here", "a", text) == float(text)
        return
    with pytest.raises(ConfigError, match="is not a number; leave it empty if unknown"):
        cells.number(file, "here", "a", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,5", "write decimals with '.'"),
        ("0_5", "without '_'"),
        ("−0.5", "U+2212 (minus sign)"),
        ("０.5", "U+FF10 (fullwidth digit zero)"),
        ("57 %", "write a share: 0.57"),
        ("57,5%", "write a share: 0.575"),
        ("1,234", "write 1.234 or 1234, whichever is meant"),
        ("1,234,567.8", "write thousands without ','"),
        ("1.234.567", "write thousands without '.'"),
        *((date, "it looks like a date") for date in ("1.2.2024", "01.02.24", "2024-02-01", "1/2/2024")),
        ("7B", "write 7e9"),
        ("0.5 billion", "write 500000000"),
        ("100억", "write 1e10"),
        ("0.5 ± 0.1", "U+00B1"),
    ],
)
def test_a_number_that_was_meant_has_a_way_out(file, text, words):
    with pytest.raises(ConfigError, match="is not a number") as error:
        cells.number(file, "model 'm'", "a", text)
    assert words in str(error.value)


def test_budgets_are_told_in_their_unit(file):
    """models.csv holds tokens in 1e9: 15e12 would be a thousand times a thousand too many."""
    for text, words in (("15T", "write 15000, the unit is 1e9"), ("2.5 trillion", "write 2500, the unit"), ("80B", "write 80,")):
        with pytest.raises(ConfigError, match=words):
            cells.number(file, "model 'm'", "ja_tokens_b_est", text)


FIRST = pytest.mark.parametrize("first", ["", "sep={}\n", "SEP={}\r\n", '"sep={}"\n'])


@pytest.mark.parametrize("separator", ["\t", "|"])
@FIRST
def test_other_separators_are_named_whatever_stands_in_the_header(file, separator, first):
    rows = [["model", "WMT20 (en,ja)", "b"], ["m", "0,5", "0,25"]]
    text = first.format(separator) + "\n".join(separator.join(row) for row in rows) + "\n"
    _refused(file, text, "tabs" if separator == "\t" else f"'{separator}'", "and '.' in numbers")


@FIRST
@pytest.mark.parametrize(
    ("cells_", "read"),
    [
        (["0,5", "-0,25", "1,234"], ["0.5", "-0.25", "1.234"]),
        (["0.5", "", "7"], ["0.5", "", "7"]),
        (["1,5", "a, b", "8000000000"], ["1.5", "a, b", "8000000000"]),
    ],
)
def test_semicolons_and_decimal_commas_are_read(file, first, cells_, read):
    warnings = []
    file.write_text(
        first.format(";") + "\n".join([";".join(["model", "WMT20 (en,ja)", "b", "c"]), ";".join(["m", *cells_])])
    )
    found = cells.read_csv(file, warnings)
    assert found.to_numpy().tolist() == [["m", *read]] and list(found.columns)[1] == "WMT20 (en,ja)"
    more = " with decimal commas" if cells_ != read else ""
    assert warnings == [f"scores.csv is separated by ';'{more} and is read as such."]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("m;1,234;22,500\n", ("line 2: '1,234' in column 'a' is 1.234 or 1234", "thousands without a sign")),
        ("m;0,5;1\nn;3;0.25\n", ("line 2: '0,5' in column 'a'", "'0.25' in line 3 a point", "all decimals with '.'")),
        ("m;0,5\n", ("line 2 has 2 cells, the header 3", "separate by ';'")),
    ],
)
def test_semicolons_that_leave_a_doubt_are_refused(file, rows, words):
    _refused(file, "model;a;b\n" + rows, *words)


HANGUL = (
    ["한국어 모델", "카나나"],
    ["모델가", "모델나"],
    ["솔라 10.7B", "엑사원 3.5", "라마 한국어"],
    ["품질·속도", "사용자 질문"],
)


@pytest.mark.parametrize("names", HANGUL)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_korean_of_a_spreadsheet_is_read(file, names, end):
    warnings = []
    text = end.join(["model,KMMLU", *(f"{name},0.{i + 1}" for i, name in enumerate(names))]) + end
    file.write_bytes(text.encode("cp949"))
    assert list(cells.read_csv(file, warnings)["model"]) == names
    assert warnings == ["scores.csv is CP949 (Korean) and is read as such; 'CSV UTF-8' leaves no doubt."]


@pytest.mark.parametrize("codec", ["gb18030", "big5", "euc_jp", "cp932"])
@pytest.mark.parametrize(
    "names",
    [
        ["通義千問", "百川智能", "書生浦語", "悟道天鷹"],
        ["文心一言", "混元大模型", "月之暗面", "零一万物"],
        ["日本語モデル", "ツバメ", "評価結果一覧", "機械翻訳"],
        ["翻訳", "要約", "国語", "常識推論"],
    ],
)
def test_other_letters_are_never_read_as_korean(file, names, codec):
    """Many of them decode as CP949 without an error."""
    data = b"model,a\n" + b"".join(name.encode(codec, "ignore") + b",0.5\n" for name in names)
    _refused(file, data, "is not UTF-8 but probably", "(line 2: '", "save it as 'CSV UTF-8'")
    assert encodings._korean(b"model\n" + bytes(range(0xA1, 0xFF)) + b"\n") is None


@pytest.mark.parametrize(
    ("names", "codec", "words"),
    [
        (["뷁쒧", "똠"], "cp949", "CP949 (Korean) (line 2: '뷁쒧')"),
        (["日本語モデル", "ツバメ"], "euc_jp", "EUC-JP (Japanese) (line 2: '日本語モデル')"),
        (["翻訳モデル", "要約"], "cp932", "Shift_JIS (Japanese)"),
        (["繁體中文", "模型一"], "big5", "Big5 (Chinese)"),
        (["모델"], "utf-16-le", "UTF-16"),
        (["model"], "utf-16-be", "UTF-16"),
        (["naive", "Größe"], "latin-1", "Windows code page such as 1252 (line 3: 'Größe')"),
    ],
)
def test_encodings_are_named(file, names, codec, words):
    text = "model,KMMLU\n" + "".join(f"{name},0.{i + 1}\n" for i, name in enumerate(names))
    _refused(file, text.encode(codec), words, "save it as 'CSV UTF-8'")


def test_a_spreadsheet_is_no_text(file):
    _refused(file, b"PK\x03\x04" + bytes(40), "is a spreadsheet or an archive")
    file.write_text("model,a\nm,1\n")
    assert encodings.text(file).startswith("model")


@pytest.mark.parametrize("key", ["model", "a"])
def test_names_in_options_are_composed_too(key):
    assert cells.composed(unicodedata.normalize("NFD", f"각 {key}\u00a0")) == f"각 {key}"
