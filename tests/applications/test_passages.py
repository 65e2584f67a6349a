"""Passages: nothing of a document is lost, changed or doubled; cut where a section, paragraph or sentence ends."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.applications import passages
from kanana_jax.applications.passages import of_folder, of_text
from kanana_jax.errors import UserError

STATUTE = """# 주차장법

## 제1장 총칙

##### 제1조 (목적)

이 법은 주차장의 설치에 필요한 사항을 정한다.

##### 제2조 (정의)

첫째 문단이다. 둘째 문장이다.

둘째 문단이다.
"""


def test_a_passage_is_a_section_with_its_heading():
    assert of_text(STATUTE) == [
        ("주차장법 › 제1장 총칙 › 제1조 (목적)", "이 법은 주차장의 설치에 필요한 사항을 정한다."),
        ("주차장법 › 제1장 총칙 › 제2조 (정의)", "첫째 문단이다. 둘째 문장이다.\n\n둘째 문단이다."),
    ]


def test_a_heading_with_nothing_below_it_is_a_passage():
    assert of_text("# 환불\n## 기한은 7일입니다\n## C#\n배송비는 무료\n# 끝 ##") == [
        ("환불", "기한은 7일입니다"),
        ("환불 › C#", "배송비는 무료"),
        ("", "끝"),
    ]


def test_code_is_no_heading():
    assert of_text("a\n\n```sh\n# not a heading\nls\n```\n\n# A heading #\nb") == [
        ("", "a\n\n```sh\n# not a heading\nls\n```"),
        ("A heading", "b"),
    ]
    assert of_text("#해시태그 가 있다") == [("", "#해시태그 가 있다")]


@pytest.mark.parametrize(
    "text, parts",
    [
        ("가나다라 마바사아 자차카타 파하거너다. " * 2 + "더러머버 서어저처 커터퍼허 고노도로다.",
         ["가나다라 마바사아 자차카타 파하거너다. 가나다라 마바사아 자차카타 파하거너다.", "더러머버 서어저처 커터퍼허 고노도로다."]),
        ("これは一番目の文であり、とても長いです。" * 4, ["これは一番目の文であり、とても長いです。" * 2] * 2),
        ("Dr. No paid 3.50 for it on a cold and rainy day. " * 2, ["Dr. No paid 3.50 for it on a cold and rainy day."] * 2),
        ("한" * 120, ["한" * 50, "한" * 50, "한" * 20]),
    ],
)  # fmt: skip
def test_a_long_paragraph_is_cut_between_sentences(text, parts):
    assert [part for _, part in of_text(text, 50)] == parts


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.text("가다. \n#「」。ab.1?\"'`", max_size=60), max_size=6).map("\n\n".join),
    st.integers(50, 120),
)
def test_every_letter_is_in_one_passage_in_its_order(text, longest):
    found = of_text(text, longest)
    assert all(part.strip() == part.strip("\n") or part for _, part in found)
    assert all(0 < len(part) <= longest for _, part in found)
    squeezed = "".join("".join(text.split()).replace("#", "") if not found else "".join(text.split()))
    seen = "".join("".join(part.split()) for _, part in found)
    at = 0
    for letter in seen:  # headings are left out of texts: what is left is in order
        at = squeezed.index(letter, at) + 1
    if "#" not in text:
        assert seen == "".join(text.split())


def test_a_folder_of_several_forms(tmp_path):
    (tmp_path / "a.md").write_text(STATUTE, encoding="utf-8")
    (tmp_path / "b.txt").write_text("A plain text.", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(
        "\n".join([json.dumps({"id": "x", "text": "한 줄이다."}), "{", json.dumps({"id": "y", "text": " "})]),
        encoding="utf-8",
    )
    found = of_folder(str(tmp_path))
    assert found.documents == 3 and len(found.left_out) == 2
    by_id = {p.id: p for p in found.passages}
    assert by_id.keys() == {"a.md#1", "a.md#2", "b.txt:1#1", "x#1"} or by_id.keys() == {
        "a.md#1",
        "a.md#2",
        "b.txt#1",
        "x#1",
    }
    second = by_id["a.md#2"]
    assert (second.title, second.heading) == ("주차장법", "주차장법 › 제1장 총칙 › 제2조 (정의)")
    assert second.place == "a.md, 주차장법 › 제1장 총칙 › 제2조 (정의)"
    assert second.searched.startswith("주차장법 › 제1장 총칙 › 제2조 (정의)\n첫째")


def test_pages_and_papers(tmp_path):
    pytest.importorskip("resiliparse")
    body = "<p>返金は申請から七日以内に行われます。送料はお客様の負担です。詳しくは窓口にお尋ねください。</p>"
    (tmp_path / "p.html").write_text(f"<html><body><main><h1>返品</h1>{body}</main></body></html>", encoding="utf-8")
    (one,) = of_folder(str(tmp_path)).passages
    assert (one.title, one.text[:5]) == ("返品", "返金は申請")


def test_no_text_is_a_sentence(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n', encoding="utf-8")
    with pytest.raises(UserError, match="holds no document with text .*is empty"):
        of_folder(str(tmp_path))
    with pytest.raises(UserError, match="no such file or folder"):
        of_folder(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="at least 50"):
        of_text("a", 10)
    assert passages.of_text(" \n ") == []


def test_questions_of_a_document_go_with_the_passage_that_answers_them():
    asked = [
        {"question": "언제?", "answer": "사흘"},
        {"question": "어디?", "answer": "창구"},
        {"question": "누가?", "answer": "아무도"},  # the text does not tell
        {"question": "", "answer": "사흘"},
        "언제?",
    ]
    text = "## 하나\n\n답은 사흘이다.\n\n## 둘\n\n답은 창구이다."
    one, two = passages.of_record({"id": "a", "text": text, "meta": {"questions": asked}})
    assert (one.questions, two.questions) == ((("언제?", "사흘"),), (("어디?", "창구"),))
    (plain,) = passages.of_record({"id": "b", "text": "답은 사흘이다.", "meta": {"questions": "언제?"}})
    assert plain.questions == ()
