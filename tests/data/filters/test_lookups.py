"""Evaluation sets and common lines as filters see them: built by the command line, looked up in documents."""

import gzip
import json

import pytest

from kanana_jax import cli
from kanana_jax.data import filters
from kanana_jax.errors import UserError

QUESTION = (
    "A farmer has seventeen sheep and buys nine more at the spring market, then sells four of them in June; "
    "how many sheep are left on the farm at the end of the summer?"
)
PROSE = (
    "The committee met on Tuesday to talk about the roof of the library.\nIt will be mended before the winter comes.\n"
)
FOOTER = "Copyright 2024 Garam Daily, all rights reserved"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lookups")
    (folder / "math.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "22"}) + "\n")
    with (folder / "web.jsonl").open("w") as file:
        for i in range(12):
            word = "abcdefghijkl"[i] * 4
            prose = PROSE.replace("Tuesday", word).replace("winter", f"{word} winter")
            text = f"Page {word} begins here.\n{prose}{FOOTER.replace('2024', str(2010 + i))}"
            file.write(json.dumps({"id": str(i), "text": text, "lang": "en"}) + "\n")
    evaluation = ["contamination", "--input", f"math={folder / 'math.jsonl'}:question"]
    assert cli.main([*evaluation, "--output", str(folder / "evaluation")]) == 0
    lines = ["lines", "--input", str(folder / "web.jsonl"), "--red", "8", "--yellow", "3"]
    assert cli.main([*lines, "--output", str(folder / "lines")]) == 0
    return folder


def _config(folders, **more):
    rules = {"contamination": filters.Rule("contamination", max=0.0)}
    return filters.FilterConfig(contamination=str(folders / "evaluation"), rules=rules, **more)


def test_a_document_with_a_question_is_dropped_and_the_set_named(folders):
    judge = filters.Filter(_config(folders))
    dirty, clean = judge.judge([{"id": i, "text": t, "source": "s"} for i, t in enumerate((PROSE + QUESTION, PROSE))])
    assert dirty.rules == ("contamination",) and dirty.contamination == {"math": dirty.contamination["math"]}
    assert clean.rules == () and clean.contamination == {} and clean.scores["contamination"] == 0.0
    assert 0.3 < dirty.scores["contamination"] < 0.9


def test_common_lines_are_cut_out_of_what_is_kept(folders):
    judge = filters.Filter(_config(folders, lines=str(folders / "lines")))
    verdict = judge({"id": "x", "text": f"{PROSE}{FOOTER}", "source": "s"})
    assert verdict.record["text"] == PROSE.strip() and [rule for _, _, rule in verdict.spans] == ["red_line"]


def test_common_lines_are_cut_before_lines_are_judged(folders):
    rules = {
        "ends": filters.Rule("line_punctuation", min=0.9),
        "footer": filters.Rule("boilerplate", max=0.0),
        "words": filters.Rule("words", min=5),
    }
    looked_up = {"lines": str(folders / "lines"), "boilerplate": ("all rights reserved",), "rules": rules}
    judge, record = filters.Filter(filters.FilterConfig(**looked_up)), {"id": "x", "source": "s"}
    verdict = judge(record | {"text": f"{FOOTER}\n{PROSE}{FOOTER}"})
    assert verdict.rules == () and verdict.record["text"] == PROSE.strip() and verdict.signals.lines == 2
    assert judge(record | {"text": f"{FOOTER}\n{FOOTER}"}).rules == ("ends", "words")  # nothing is left
    alone = filters.Filter(filters.FilterConfig(boilerplate=looked_up["boilerplate"], rules=rules))
    assert alone(record | {"text": f"{PROSE}{FOOTER}"}).rules == ("ends", "footer")


def test_cuts_of_lines_and_of_c4_are_places_of_the_whole_text(folders):
    config = filters.FilterConfig(lines=str(folders / "lines"), c4=filters.rules.C4Config(False), cut_lines=True)
    text = f"{FOOTER}\n{PROSE}Two words.\n```\n}}\n```\n{FOOTER}\nAs was said before.[7]\n"
    verdict = filters.Filter(config)({"id": "x", "text": text, "source": "s"})
    assert [(text[s:e], rule) for s, e, rule in verdict.spans] == [
        (FOOTER, "red_line"), ("Two words.", "c4_few_words"), (FOOTER, "red_line"), ("[7]", "citation"),
    ]  # fmt: skip
    assert verdict.record["text"] == f"{PROSE}```\n}}\n```\nAs was said before."


def test_folders_are_named_on_the_command_line(folders, tmp_path, capsys):
    (tmp_path / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        "    c = ConfigDict()\n"
        "    rules = dict(ends=dict(signal='line_punctuation', min=0.9))\n"
        "    c.filters = dict(en=dict(rules=rules), ko=dict(rules=rules))\n"
        "    return c\n"
    )
    command = ["filter", "--config", str(tmp_path / "config.py"), "--input", str(folders / "web.jsonl")]
    for lookups, kept in (([], 0), (["--lines", str(folders / "lines")], 12)):
        out = tmp_path / str(kept)
        assert cli.main([*command, "--output", str(out), *lookups]) == 0
        assert json.loads((out / "report.json").read_text())["kept"] == kept
    assert cli.main([*command, "--output", str(tmp_path / "none"), "--lines", str(tmp_path / "absent")]) == 1
    assert "kanana lines" in capsys.readouterr().err


def test_the_job_reports_sets_and_marks_the_place(folders, tmp_path):
    (tmp_path / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        "    c = ConfigDict()\n"
        "    rules = dict(contamination=dict(signal='contamination', max=0.0))\n"
        f"    c.filters = dict(default=dict(contamination={str(folders / 'evaluation')!r},\n"
        f"                                  lines={str(folders / 'lines')!r}, rules=rules))\n"
        "    return c\n"
    )
    with (tmp_path / "in.jsonl").open("w") as file:
        for i, text in enumerate((f"{PROSE}{FOOTER}", PROSE + QUESTION)):
            file.write(json.dumps({"id": str(i), "text": text}) + "\n")
    out = tmp_path / "out"
    arguments = ["filter", "--config", str(tmp_path / "config.py"), "--input", str(tmp_path / "in.jsonl")]
    assert cli.main([*arguments, "--output", str(out), "--signals", "--workers", "2"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["contamination"] == {"math": 1} and report["kept"] == 1
    with gzip.open(out / "kept.jsonl.gz", "rt") as file:
        assert [json.loads(line)["text"] for line in file] == [PROSE.strip()]
    (example,) = json.loads((out / "examples.json").read_text())["examples"]["contamination"]
    marked = [example["text"][start:end] for start, end, _ in example["spans"]]
    assert marked == [QUESTION.rstrip("?")]
    page = (out / "report.html").read_text()
    assert "Evaluation sets" in page and "math" in page


def test_bad_arguments_are_told(folders, tmp_path, capsys):
    out = ["--output", str(tmp_path / "x")]
    assert cli.main(["contamination", "--input", "nothing", *out]) == 2
    assert cli.main(["contamination", "--input", f"math={folders / 'math.jsonl'}", "--max-items", "0", *out]) == 2
    assert cli.main(["contamination", "--input", f"math={tmp_path / 'none.jsonl'}", *out]) == 1
    assert cli.main(["lines", "--input", str(folders / "web.jsonl"), "--red", "1", "--yellow", "3", *out]) == 2
    assert "Traceback" not in capsys.readouterr().err
    for key in ("contamination", "lines"):
        with pytest.raises(UserError):
            filters.Filter(filters.FilterConfig(**{key: str(tmp_path / "none")}))
