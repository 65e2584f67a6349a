"""Documentation as people write it: what a page shows is kept, what is markup goes. Expected texts are by hand."""

import json

import pytest
from conftest import guard
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.extract import extract

WORD = st.text(alphabet="가나다라日本語カナabcXYZ", min_size=1, max_size=8)

MARKDOWN = [
    ("<h2 align='center'>큰 제목</h2>\n\n본문", "## 큰 제목\n\n본문"),
    ("<ul>\n<li>하나</li>\n<li>둘</li>\n</ul>", "- 하나\n- 둘"),
    ("<table>\n<tr><th>이름</th><th>값</th></tr>\n<tr><td>가<br>나</td>\n<td>1</td></tr>\n</table>",
     "| 이름 | 값 |\n| --- | --- |\n| 가 나 | 1 |"),
    ('<img src="a.png"\n  alt="그림 설명"> 뒤', "그림 설명 뒤"),
    ('<img src="https://img.shields.io/x" alt="build">글', "글"),
    ("[![화면 설명](shot.png)](full.png)", "![화면 설명](shot.png)"),
    ("<script>\nalert(1)\n</script>\n<style>.a {}</style>\n본문", "본문"),
    ("<ruby>漢字<rt>かんじ</rt></ruby>です", "漢字です"),
    ('<a href="x"\n title="y">두 줄 링크</a> 뒤', "두 줄 링크 뒤"),
    ("수식 $a<b$ 와 $c > d$, a <b 이고 c> d", "수식 $a<b$ 와 $c > d$, a <b 이고 c> d"),
    ("글\n\n    if a: <b>code</b>\n\n<b>굵게</b>", "글\n\n    if a: <b>code</b>\n\n굵게"),
    ("- 항목\n\n    <b>이어진</b> 글", "- 항목\n\n    이어진 글"),
    ("&copy; 2024 A&amp;B `&lt;`", "© 2024 A&B `&lt;`"),
    (":::note[제목 있음]\n내용\n:::", "제목 있음\n내용"),
    ('  :::tip{title="도움말"}\n  내용\n  :::', "도움말\n  내용"),
    ('!!! note "주의 사항"\n    첫 줄\n\n    ```sh\n    ls\n    ```\n\n뒤', "주의 사항\n\n첫 줄\n\n```sh\nls\n```\n\n뒤"),
    ('=== "파이썬"\n\n    ??? warning\n        안쪽\n\n=== "자바"\n\n    둘', "파이썬\n\nWarning\n\n안쪽\n\n자바\n\n둘"),
    ("```\n!!! note\n    code\n```", "```\n!!! note\n    code\n```"),
    ("```{note}\n:class: x\n알림 <b>글</b>\n```\n뒤", "Note\n\n알림 글\n뒤"),
    ("````{admonition} 직접 지은 제목\n```{code-block} py\nx<b>\n```\n````", "직접 지은 제목\n\n```py\nx<b>\n```"),
    ("```{toctree}\na\nb\n```\n뒤", "뒤"),
    ('{{< tab "하나" >}}내용{{< /tab >}} {{< figure src="a" title="그림 제목" >}}', "하나내용 그림 제목"),
    ('{% tab title="둘" %}\n글\n{% endtab %}', "둘\n글"),
    ("## 제목 {#id .cls}\n글{:target=\"_blank\"}", "## 제목\n글"),
    ("*[HTML]: Hyper Text\n\nHTML", "HTML"),
    ("각주[^1]와 [링크][r]\n\n[^1]: 각주 글", "각주[^1]와 [링크][r]\n\n[^1]: 각주 글"),
    ("1. 항목\n\n   ```html\n   <b>x</b> &amp;\n   ```\n\n2. 다음", "1. 항목\n\n   ```html\n   <b>x</b> &amp;\n   ```\n\n2. 다음"),
    ("Foo<T> Vec<i32> `<b>` \\<b>", "Foo<T> Vec<i32> `<b>` \\<b>"),
    ("<details open>\n<summary>자세히</summary>\n\n숨은 글\n</details>", "자세히\n\n숨은 글"),
    ("제목\n====\n\n소제목\n---\n글", "제목\n====\n\n소제목\n---\n글"),
]  # fmt: skip

MDX = [
    ('<Card title="설치 방법" description="패키지를 설치" href="/a" icon="box" />', "설치 방법\n\n패키지를 설치"),
    ("<Card title={'작은'} label={`템플릿`} />", "작은\n\n템플릿"),
    ('<Cards>\n  <Card title="하나">\n      첫째\n      - 목록\n  </Card>\n</Cards>', "하나\n\n첫째\n- 목록"),
    ('<Tabs items={["파이썬", "자바"]} className={["a"]}>\n글\n</Tabs>', "파이썬\n\n자바\n\n글"),
    ('<FAQ items={[{id: "q1", question: "질문?", answer: "답 {둘}."}]} />', "질문?\n\n답 {둘}."),
    ('<Image src="/a.png" alt="설명" caption={<>그림 <b>하나</b></>} />', "설명\n\n그림 하나"),
    ('문장 <Badge text="신규" /> 안', "문장 신규 안"),
    ("| a | b |\n|---|---|\n| <Badge text='새' /> | x |", "| a | b |\n|---|---|\n| 새 | x |"),
    ('<Meta content="https://a.example/" title="/path" id="x" name="y" />글', "글"),
    ('<Frame caption="캡션">\n  <img src="x" alt="안쪽" />\n</Frame>', "캡션\n\n  안쪽"),
    ('import {A,\n  B} from "y"\n\nexport const meta = {\n  title: "제목",\n\n  d: "설명"\n}\n\n본문', "본문"),
    ("{\n  items.map(x => <li key={x}>보이는 말</li>)\n}\n\n본문", "보이는 말\n\n본문"),
    ("{cond && <p>보임</p>}\n\n본문", "보임\n\n본문"),
    ("값 {props.name}은 `{props.name}`", "값 은 `{props.name}`"),
    ("<Code>{`한 줄`}</Code>", "한 줄"),
    ("<Code>{`a = 1;\nb = 2;`}</Code>", "```\na = 1;\nb = 2;\n```"),
    ('<div style={{color: "red"}} onClick={() => go(1)}>글</div>', "글"),
    ("수식 $\\frac{a.b}{c}$ \\{둘\\}", "수식 $\\frac{a.b}{c}$ \\{둘\\}"),
    ('`<Card title="코드" />`', '`<Card title="코드" />`'),
    ('```mdx\n<Card title="코드" />\n{a.b}\n```', '```mdx\n<Card title="코드" />\n{a.b}\n```'),
    ("export const x = {\n\n본문", "본문"),
    ("# 제목 {/*custom-id*/}\n<>조각</>", "# 제목\n조각"),
]  # fmt: skip

RST = [
    ("각주 [1]_, [#]_ 와 [CIT]_\n\n.. [1] 각주 글\n.. [CIT] 인용 글\n   둘째 줄", "각주 [1], [#] 와 [CIT]\n\n[1] 각주 글\n\n[CIT] 인용 글\n   둘째 줄"),
    ("===== =====\n이름  값\n===== =====\n가나  1\n다    둘째\n===== =====", "| 이름 | 값 |\n| --- | --- |\n| 가나 | 1 |\n| 다 | 둘째 |"),
    ("+----+----+\n| 가 | 1  |\n|    +----+\n|    | 2  |\n+----+----+", "| 가 | 1 |\n| --- | --- |\n|  | 2 |"),
    ('.. csv-table:: 표\n   :header: "이름", "값"\n\n   가, "1, 2"', "표\n\n| 이름 | 값 |\n| --- | --- |\n| 가 | 1, 2 |"),
    (".. tabs::\n\n   .. group-tab:: 자바 탭\n\n      내용", "자바 탭\n\n내용"),
    (".. grid:: 2\n\n   .. grid-item-card:: 카드 제목\n      :link: a\n\n      카드 글", "카드 제목\n\n카드 글"),
    (".. toctree::\n   :caption: 차례\n\n   a\n   b\n\n뒤", "뒤"),
    (".. graphviz::\n\n   digraph { a }\n\n뒤", "뒤"),
    (".. image:: a.png\n   :alt: 그림 설명", "그림 설명"),
    (".. figure:: a.png\n   :alt: 대체\n\n   그림 제목", "그림 제목"),
    (".. code-block:: py\n   :caption: 예제\n\n   x", "예제\n\n```py\nx\n```"),
    (".. versionadded:: 3.2 새 기능", "New in version 3.2: 새 기능"),
    (".. container:: cls\n\n   담긴 글", "담긴 글"),
    ("| 첫째 줄\n| 둘째 줄\n|\n| 셋째", "첫째 줄\n둘째 줄\n\n셋째"),
    ("단순_ 와 익명__, a_b __init__ x_\n\n.. _단순: https://c\n__ https://d", "단순 와 익명, a_b __init__ x_"),
    ("앞 `두 줄에\n걸친 링크 <https://a>`_ 뒤", "앞 두 줄에 걸친 링크 뒤"),
    ("|이름| 은 |img|\n\n.. |이름| replace:: 카나나\n.. |img| image:: a.png\n   :alt: 아이콘", "카나나 은 아이콘"),
    ("H\\ :sub:`2`\\ O, 10\\ :sup:`6`, :guilabel:`&파일`", "H₂O, 10⁶, 파일"),
    ("（**全角**）と「*括弧*」。:ref:`参照 <x>`、``コード``。", "（**全角**）と「*括弧*」。参照、`コード`。"),
    (":red:`빨강` :func:`~a.b.c`", "빨강 `c`"),
    (".. note::\n   :class: x\n\n   글\n\n   .. warning:: 안쪽\n\n      더\n\n뒤", "Note:\n\n글\n\nWarning: 안쪽\n\n더\n\n뒤"),
    (".. list-table:: 제목\n\n   * - 가\n     - 여러\n       줄", "제목\n\n| 가 | 여러 줄 |"),
]  # fmt: skip


@pytest.mark.parametrize(
    "format, source, text",
    [(form, *case) for form, cases in (("markdown", MARKDOWN), ("mdx", MDX), ("rst", RST)) for case in cases],
)
def test_what_a_page_shows(format, source, text):
    made = extract(source.encode(), format).text
    # A list table's header is not told apart, so that the rule below it is not judged.
    assert made.strip().replace("\n| --- | --- |", "") == text.replace("\n| --- | --- |", "")


@pytest.mark.parametrize(
    "head, title",
    [
        ('title = "토믈"\n', "토믈"),
        ("title: >\n  접힌\n  제목\n", "접힌 제목"),
        ("title: '작은 ''안'''\n", "작은 '안'"),
        ("draft: true\n", "본문 제목"),
    ],
)
def test_titles(head, title):
    rule = "+++" if "=" in head else "---"
    assert extract(f"{rule}\n{head}{rule}\n본문 제목\n===\n".encode(), "markdown").title == title


def _notebook(*cells) -> bytes:
    return json.dumps({"cells": list(cells), "nbformat": 4}, ensure_ascii=False).encode()


def test_notebooks_show_prose_of_programs():
    out = {"data": {"text/markdown": ["**결과** 는\n", "<b>글</b>"], "text/plain": "<Markdown>"}}
    data = _notebook(
        {"cell_type": "code", "source": ["f()"], "outputs": [out, {"data": {"text/plain": "1"}}, 3, {"text": ["x"]}]},
        {"cell_type": "raw", "source": "날것 <i>글</i>", "metadata": {"format": "text/markdown"}},
        {"cell_type": "raw", "source": ".. note:: 알림", "metadata": {"raw_mimetype": "text/restructuredtext"}},
        {"cell_type": "raw", "source": "\\latex", "metadata": {"format": "text/latex"}},
        {"cell_type": "code", "source": "", "outputs": [{"data": {"text/markdown": "가" * 200_000}}]},
        {"cell_type": "markdown", "source": []},
    )
    made = extract(data, "ipynb")
    assert made.text == "```python\nf()\n```\n\n**결과** 는\n글\n\n날것 글\n\nNote: 알림"
    assert made.report["outputs_dropped"] == 4 and made.report["raw_cells_dropped"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(WORD, min_size=1, max_size=6), WORD, st.booleans())
def test_words_of_components_stay_and_markup_goes(inner, title, block):
    body = " ".join(inner)
    gap = "\n\n" if block else ""
    made = extract(f'<Card title="{title}" href="/zzz">{gap}{body}{gap}</Card>'.encode(), "mdx").text
    assert made.split() == [title, *inner]
    made = extract(f'<div class="zzz"><p>{title}</p>{gap}<b>{body}</b></div>'.encode(), "markdown").text
    assert "".join(made.split()) == title + "".join(inner)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=6))
def test_columns_of_wide_characters(rows):
    def wide(text: str) -> str:
        return text + " " * (20 - sum(1 if c.isascii() else 2 for c in text))

    rule = "=" * 20 + " " + "=" * 20
    table = "\n".join(
        [
            rule,
            *(f"{wide(a)} {b}" for a, b in [("h", "k"), *rows][:1]),
            rule,
            *(f"{wide(a)} {b}" for a, b in rows),
            rule,
        ]
    )
    made = extract(table.encode(), "rst").text.split("\n")
    assert made == ["| h | k |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]


@pytest.mark.parametrize("format", ["markdown", "mdx", "rst"])
@pytest.mark.parametrize(
    "piece",
    ["<table>", "<table><tr>", "<script>", "<div a=\n", "<Card title={", '<Card title="', "export const a = {\n", "{\n",
     "!!! note\n    ", "```{note}\n", ":::a[", ".. [a] ", "`a\n", "a_ ", ".. _a: ", "| a\n", "{`", "&#", "{a.b"],
)  # fmt: skip
def test_what_is_never_closed_takes_linear_time(format, piece):
    with guard(30):  # quadratic time would be minutes
        extract((piece * 6000 + "\n가\n").encode(), format)
