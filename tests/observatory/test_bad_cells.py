"""Tables as spreadsheets and editors leave them: read where that is safe, refused with the way out where it is not."""

import csv
import json
import unicodedata

import numpy as np
import pandas as pd
import pytest

from kanana_jax.cli import main
from kanana_jax.errors import ConfigError
from kanana_jax.observatory import output, tables

pytest_plugins = ["observatory_fixtures"]
_RNG = np.random.default_rng(0)
ROWS = [[f"m{i}", *(f"{v:.3f}" for v in _RNG.random(4))] for i in range(6)]
HEADER = "model,a,b,c,d"
TASKS = "task,language\na,en\nb,ko\nc,en\nd,ko\n"


def _csv(rows=ROWS, header=HEADER, separator=",", end="\n"):
    return end.join([header.replace(",", separator), *(separator.join(row) for row in rows)]) + end


def _read(tmp_path, scores, models=None):
    (tmp_path / "tasks.csv").write_text(TASKS)
    for name, text in (("scores.csv", scores), ("models.csv", models)):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tables.read(tmp_path / "scores.csv")


def _named(names):
    return [[name, *row[1:]] for name, row in zip(names, ROWS)]


def test_decomposed_names_are_the_composed_ones(tmp_path):
    names = [f"모델{c}" for c in "가나다라마바"]
    scores = unicodedata.normalize("NFD", _csv(_named(names)))
    found = _read(tmp_path, scores, "model,family,params\n" + "".join(f"{n},F,1e9\n" for n in names))
    assert list(found.scores.index) == names and found.models["params"].notna().all()


@pytest.mark.parametrize(
    "scores",
    [
        _csv() + "\n\n",
        _csv() + ",,,,\n , ,,,\n",
        _csv() + ",,\n",
        "sep=,\n" + _csv(),
        "\ufeff" + _csv(end="\r\n"),
        _csv([ROWS[0], [""] * 5, *ROWS[1:]]),
    ],
    ids=["blank", "commas", "fewer commas", "sep", "bom", "between"],
)
def test_rows_that_are_wholly_empty_are_skipped(tmp_path, scores):
    found = _read(tmp_path, scores)
    np.testing.assert_allclose(found.scores.to_numpy(), [[float(v) for v in row[1:]] for row in ROWS])


def _refused(tmp_path, scores, match):
    with pytest.raises(ConfigError, match=match) as error:
        _read(tmp_path, scores)
    assert "\n" not in str(error.value)


def test_lines_are_counted_with_what_was_skipped(tmp_path):
    bad = [*ROWS[:2], [""] * 5, ["m2", "0.1"], *ROWS[3:]]
    _refused(tmp_path, _csv(bad), "line 5 has 2 cells")
    _refused(tmp_path, "sep=,\n" + _csv(bad), "line 6 has 2 cells")


def test_titles_and_notes_are_told_from_separators(tmp_path):
    for title in ("Our scores\n", "Our scores,,,,\n"):
        _refused(tmp_path, title + _csv(), "line 1.*'Our scores'.*is a title, remove it")
    _refused(tmp_path, _csv() + "Source: our own runs\n", "line 8 has 1 cells.*if this line is a note, remove it")


def test_tables_of_european_and_korean_spreadsheets_are_read(tmp_path):
    """The same numbers as with points, commas and UTF-8; a sentence says how they were read."""
    values = [[float(v) for v in row[1:]] for row in ROWS]
    european = _csv([[row[0], *(v.replace(".", ",") for v in row[1:])] for row in ROWS], separator=";")
    for scores in (european, "sep=;\n" + european):
        found = _read(tmp_path, scores)
        np.testing.assert_allclose(found.scores.to_numpy(), values)
        assert "scores.csv is separated by ';' with decimal commas and is read as such." in found.warnings
    names = [f"모델{c}" for c in "가나다라마바"]
    about = "model,family,params\n" + "".join(f"{n},F,1e9\n" for n in names)
    found = _read(tmp_path, _csv(_named(names)).encode("cp949"), about.encode("cp949"))
    np.testing.assert_allclose(found.scores.to_numpy(), values)
    assert list(found.scores.index) == names and found.models["params"].notna().all()
    assert sum("is CP949 (Korean) and is read as such" in warning for warning in found.warnings) == 2


def test_dates_with_points_stand_beside_decimal_commas(tmp_path):
    dates = ["02.2024", "1.2.2024", "01.12.2023", "2023", "", "2024-02-01"]
    rows = [[row[0], *(v.replace(".", ",") for v in row[1:]), date] for row, date in zip(ROWS, dates)]
    found = _read(tmp_path, _csv(rows, HEADER + ",date", separator=";"))
    np.testing.assert_allclose(found.scores.to_numpy(), [[float(v) for v in row[1:]] for row in ROWS])
    assert found.models["date"].tolist() == dates
    rows[2][3] = "1.2.2024"  # 1,2 as a spreadsheet takes it
    _refused(tmp_path, _csv(rows, HEADER + ",date", separator=";"), "'1.2.2024' in column 'c' .* it looks like a date")


def test_other_separators_are_named(tmp_path):
    _refused(tmp_path, _csv(separator="\t"), "is separated by tabs: save it with ','")
    quoted = _csv([[row[0], *(f'"{v.replace(".", ",")}"' for v in row[1:])] for row in ROWS])
    _refused(tmp_path, quoted, r"'\d,\d+' in column 'a' is not a number.*write decimals with '\.'")


@pytest.mark.parametrize(
    ("names", "codec", "words"),
    [
        (
            [f"믉{c}" for c in "뷁쒧똠펲햏꿻"],
            "cp949",
            r"probably CP949 \(Korean\) \(line 2: '믉뷁'\): save it as 'CSV UTF-8'",
        ),
        ([f"日本語モデル{c}" for c in "一二三四五六"], "shift_jis", r"probably Shift_JIS \(Japanese\)"),
        ([f"模型{c}" for c in "一二三四五六"], "gb18030", "is not UTF-8 but probably"),
        ([f"modèle {c}" for c in "abcdef"], "cp1252", "Windows code page"),
        ([f"m{c}" for c in "abcdef"], "utf-16", "probably UTF-16"),
    ],
)
def test_other_encodings_are_named(tmp_path, names, codec, words):
    _refused(tmp_path, _csv(_named(names)).encode(codec), words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ('"m\n1"', "line 4: 'm.1' holds a line break"),
        ("m\x001", r"line 3: 'm.1' holds the invisible character U\+0000"),
        ("m\u200b1", r"holds the invisible character U\+200B: remove it"),
        ("m\u202f1", None),
    ],
)
def test_names_hold_nothing_that_cannot_be_seen(tmp_path, name, words):
    scores = _csv([ROWS[0], [name, *ROWS[1][1:]], *ROWS[2:]])
    if words:
        _refused(tmp_path, scores, words)
    else:
        assert len(_read(tmp_path, scores).scores) == 6  # a narrow space is one


@pytest.mark.parametrize("text", ["0_5", "٠.٥", "1e", "0x1", "inf", "nan", "1.5.2", "-"])
def test_numbers_are_plain(tmp_path, text):
    _refused(tmp_path, _csv([[ROWS[0][0], text, *ROWS[0][2:]], *ROWS[1:]]), "is not a number; leave it empty")


def test_one_model_is_said_to_be_one(tmp_path):
    _refused(tmp_path, _csv(ROWS[:1]), "has 1 model with scores: components need at least 5")
    _refused(tmp_path, _csv(ROWS[:4]), "has 4 models with scores")


def test_formulas_are_written_as_text(tmp_path):
    names = ["=HYPERLINK(1)", "+m", "-m", "@m", "m4", "m5"]
    found = _read(tmp_path, _csv(_named(names)))
    frame = pd.DataFrame({"=model": found.scores.index, "change": -0.5})
    output._write(tmp_path / "out.csv", frame)
    with (tmp_path / "out.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[0] == "'=model" and [row[0] for row in rows] == ["'=HYPERLINK(1)", "'+m", "'-m", "'@m", "m4", "m5"]
    assert {row[1] for row in rows} == {"-0.5"}


def test_one_language_gives_components_and_no_verdicts(tmp_path, capsys):
    """A table of English tasks only is no dead end."""
    _read(tmp_path, _csv())
    (tmp_path / "tasks.csv").write_text(TASKS.replace("ko", "en"))
    command = ["observe", str(tmp_path / "scores.csv"), "--output", str(tmp_path / "out"), "--draws", "100"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "nothing can be said about local text" in said and "Task by task" not in said
    found = json.loads((tmp_path / "out/components.json").read_text())
    assert found["verdicts"] == {} and found["loadings"]["PC1"] and found["local_component"] is None
    assert "no local language" in (tmp_path / "out/report.html").read_text()
    assert main([*command, "--plan", "base=m0,ko_tokens=1e9"]) == 2
    assert "needs tasks in a local language" in capsys.readouterr().err
