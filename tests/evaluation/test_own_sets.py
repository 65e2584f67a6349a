"""Files of own questions: understood by their fields, each fault named by file, line and field."""

import json
import re
import unicodedata

import pytest

from kanana_jax.errors import ConfigError
from kanana_jax.evaluation import own_sets

CHOICE = {"question": "서울은 어느 나라의 수도인가?", "choices": ["일본", "한국", "중국"], "answer": "한국"}
SHORT = {"question": "연차는 며칠인가?", "answer": "15일"}


def _file(folder, *rows, name="faq.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / name)


def test_the_fields_of_its_lines_decide_the_form(tmp_path):
    found = own_sets.read(_file(tmp_path, CHOICE, {**CHOICE, "answer": "c", "team": "HR"}, {**CHOICE, "answer": 0}))
    assert (found.name, found.form, found.language, found.unread) == ("faq", "choices", "ko", ("team",))
    assert [row["right"] for row in found.rows] == [1, 2, 0]
    found = own_sets.read(
        _file(tmp_path, SHORT, {"question": "본사는?", "answers": ["판교", "성남시"]}, {**SHORT, "answer": 15})
    )
    assert (found.form, [row["answers"] for row in found.rows]) == ("answers", [["15일"], ["판교", "성남시"], ["15"]])
    found = own_sets.read(_file(tmp_path, {"question": "How do I reset it?", "reference": "Hold it.\nWait."}))
    assert (found.form, found.language, found.rows[0]["answers"]) == ("reference", "en", ["Hold it.\nWait."])
    (tmp_path / "표.csv").write_text("question,answer\n休暇は何日ですか,15\n本社はどこですか,20\n", encoding="utf-8")
    found = own_sets.read(str(tmp_path / "표.csv"))
    assert (found.name, found.language, found.rows[1]["answers"]) == ("표", "ja", ["20"])


def test_a_text_that_is_a_choice_is_that_choice_before_it_is_a_letter(tmp_path):
    row = {"question": "Which blood type?", "choices": ["B", "A", "O"], "answer": "A"}
    assert own_sets.read(_file(tmp_path, row)).rows[0]["right"] == 1


@pytest.mark.parametrize(
    "rows, told",
    [
        ([SHORT, "{"], "faq.jsonl, line 2: not JSON"),
        ([SHORT, "[1]"], "line 2: not a JSON object"),
        (["", SHORT, {"question": "그래?"}], "line 3: no field 'answer': beside 'question' a line has"),
        ([{"question": "그래?", "anwser": "네"}], "line 1: no field 'answer' ('anwser': did you mean 'answer'?)"),
        ([{"questoin": "그래?", "answer": "네"}], "line 1: no field 'question' ('questoin': did you mean 'question'?)"),
        ([{"question": " ", "answer": "네"}], "line 1: field 'question' is ' ', which holds no letter"),
        ([{"question": "그래?", "answer": True}], "line 1: field 'answer' is True, which is not text"),
        ([{"question": "그래?", "answer": ["네"]}], "line 1: field 'answer' is ['네'], which is not text"),
        ([{"question": "그래?", "answer": "…"}], "line 1: field 'answer' is '…', which holds no letter"),
        ([{"question": "그래?", "answers": "네"}], "line 1: field 'answers' is '네', where a list of texts belongs"),
        ([{"question": "그래?", "answers": []}], "line 1: field 'answers' is [], where a list of texts belongs"),
        ([{**SHORT, "answers": ["네"]}], "line 1: fields 'answer' and 'answers' together"),
        ([{"question": "?", "choices": ["a", "b"]}], "line 1: no field 'answer', which names the right one"),
        ([{**CHOICE, "answer": 3}], "line 1: field 'answer' is 3, but the 3 choices are numbered from 0 to 2"),
        ([{**CHOICE, "answer": "3"}], "line 1: field 'answer' is '3', none of the choices"),
        ([{**CHOICE, "answer": "미국"}], "line 1: field 'answer' is '미국', none of the choices"),
        ([{**CHOICE, "choices": ["한국"]}], "line 1: field 'choices' has 1 choices: give 2 to 26"),
        ([{**CHOICE, "choices": ["한국", "한국 "]}], "line 1: field 'choices' has '한국' twice"),
        ([CHOICE, SHORT], "line 2: field 'answer', but "),
        ([SHORT, {"question": "왜?", "reference": "그냥"}], "line 1 has 'answer': a file holds one form"),
        ([], "faq.jsonl is empty"),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_field(tmp_path, rows, told):
    with pytest.raises(ConfigError, match=re.escape(told)) as error:
        own_sets.read(_file(tmp_path, *rows))
    assert "faq.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_an_editor_with_a_byte_order_mark_is_read(tmp_path):
    mark, line = "\ufeff", json.dumps(SHORT, ensure_ascii=False)
    text = f"{mark}{line}\n{mark}{line}\n"  # two such files, put together
    for name, content in (("a.jsonl", text), ("b.json", f"{mark}[{line}]")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert own_sets.read(str(tmp_path / name)).rows[-1]["answers"] == ["15일"]
    (tmp_path / "c.jsonl").write_text(line, encoding="utf-16")
    with pytest.raises(ConfigError, match="c.jsonl, line 1: not JSON .*: save it as UTF-8"):
        own_sets.read(str(tmp_path / "c.jsonl"))


def test_a_number_that_is_also_another_choice_is_refused(tmp_path):
    """It may be meant as the choice's number or as its text: whichever is guessed, the other is scored as right."""
    row = {"question": "2 × 1 = ?", "choices": [1, 2, 3, 4], "answer": 2}
    told = "line 1: field 'answer' is 2, but choice 2 from 0 is '3', choice 1 reads '2': give the text in quotes"
    with pytest.raises(ConfigError, match=re.escape(told)):
        own_sets.read(_file(tmp_path, row))
    for answer in ("2", "B"):
        assert own_sets.read(_file(tmp_path, {**row, "answer": answer})).rows[0]["right"] == 1
    assert own_sets.read(_file(tmp_path, {**row, "choices": [0, 1, 2]})).rows[0]["right"] == 2  # both are one


def test_a_table_of_a_spreadsheet_is_read_without_what_it_leaves_empty(tmp_path):
    file = tmp_path / "faq.csv"
    file.write_text("question,answer,,\n연차는?,15,,\n,,,\n\n본사는?,20,,\n,,,\n", encoding="utf-8-sig")
    found = own_sets.read(str(file))
    assert [row["answers"] for row in found.rows] == [["15"], ["20"]] and found.unread == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("question;answer\n연차는?;15\n", "is separated by ';': save it with ',' between cells"),
        ("question\tanswer\n연차는?\t15\n", "is separated by tabs"),
        ("question,answer,answer\n연차는?,15,16\n", "has the column 'answer' twice: keep one"),
        ("question,answer\n,\n연차는?,15,16\n", "row 2: 3 values for 2 columns"),
        ("question,answer\n,\n", "faq.csv is empty"),
    ],
)
def test_a_table_that_would_be_read_wrongly_is_refused(tmp_path, text, told):
    (tmp_path / "faq.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(told)):
        own_sets.read(str(tmp_path / "faq.csv"))
    (tmp_path / "faq.csv").write_bytes("question,answer\n연차는?,15\n".encode("cp949"))
    with pytest.raises(ConfigError, match="save it as 'CSV UTF-8'"):
        own_sets.read(str(tmp_path / "faq.csv"))


def test_what_is_allowed_and_seldom_meant_is_told(tmp_path, caplog):
    own_sets.read(_file(tmp_path, *({**CHOICE, "question": f"{n}번?", "answer": 1 + n % 2} for n in range(8))))
    assert "the first choice is never right" in caplog.text
    own_sets.read(_file(tmp_path, SHORT, {**SHORT, "answer": "20일"}))
    assert "1 of 2 questions were asked before" in caplog.text
    with pytest.raises(ConfigError, match="no name before its ending"):
        own_sets.read(str(tmp_path / ".jsonl"))


@pytest.mark.parametrize(
    "one, two, same",
    [
        ("서울 특별시.", "서울특별시", True),
        (unicodedata.normalize("NFD", "각하"), "각하", True),
        ("ＫＡＮＡＮＡ", "Kanana", True),
        ("ｶﾅﾀﾞ", "カナダ", True),
        ("「東京」。", "東京", True),
        ("1,000원", "1000 원", True),
        ("10〜20", "10～20", True),
        ("3.5", "35", False),
        ("1, 2", "12", False),
        ("1 2", "12", False),
        ("-5", "5", False),
        ("−5", "-5", True),
        ("10:30", "1030", False),
        ("30%", "30", False),
        ("C++", "C", False),
        ("C#", "C", False),
        ("あり", "なし", False),
        ("バ", "ハ", False),
        ("네 (예)", "네예", True),
    ],
)
def test_short_answers_are_equal_without_what_decides_nothing(one, two, same):
    assert (own_sets.normalised(one) == own_sets.normalised(two)) is same


def test_the_language_is_that_of_most_letters():
    assert own_sets.language(["PC를 포맷하려면 어떻게 하나요?"]) == "ko"
    assert own_sets.language(["PCを初期化するにはどうしますか"]) == "ja"
    assert own_sets.language(["What does 'nunchi' (눈치) mean in everyday life?"]) == "en"
    assert own_sets.language(["1 + 1 = ?"]) == "en"
