"""Markdown, MDX, reStructuredText, gettext, notebooks, Aozora Bunko and PDF."""

import json

import pytest

from kanana_jax.data.extract import FORMATS, extract, format_of
from kanana_jax.errors import ConfigError


def run(source: str, format: str):
    return extract(source.encode(), format, "name")


def test_names_tell_formats():
    names = {"a.HTML": "html", "a.tar.gz": "latex", "x.tex.gz": "latex", "README.md": "markdown", "b.mdx": "mdx"}
    assert {name: format_of(name) for name in names} == names
    assert format_of("a.txt") is None and format_of("md") is None
    with pytest.raises(ConfigError, match="did you mean 'html'"):
        extract(b"", "htm1")
    assert set(FORMATS) >= {"aozora", "text", "pdf"}


def test_markdown():
    source = (
        '---\ntitle: "A &lt;T&gt;"\nms.date: 1\n---\n## <a name="h"></a>Head {#id}\n\nText `<a name="x">` here<br/>next'
        ' 2<sup>10</sup> {{% note %}}in{{% /note %}}[!INCLUDE[vs](a.md)]\n<!-- a\ncomment -->\n```html\n<a name="y"></a>\n'
        "<!-- kept -->\n```\n| a<br>b | <b>c</b> |\n"
    )
    result = run(source, "markdown")
    assert result.title == "A <T>"
    assert result.text == (
        '## Head\n\nText `<a name="x">` here\nnext 2¹⁰ in\n\n```html\n<a name="y"></a>\n<!-- kept -->\n```\n| a b | c |'
    )
    assert result.report["anchors_dropped"] == 1 and result.report["comments_dropped"] == 1


@pytest.mark.parametrize("source", ["---\n\nno keys\n---\n", "---\nopen: yes\n", "---", "a\n---\nb: c\n---\n"])
def test_what_is_no_front_matter_stays(source):
    assert run(source, "markdown").text == source.strip()


def test_mdx():
    source = (
        "---\ntitle: T\n---\nimport A from './a';\nexport const b = {\n  x: 1,\n};\n\n<Intro>\n\nHello `<Intro>` "
        '{/* gone */}*x* {"str"}\n\n</Intro>\n\n<Diagram alt="a > b" f={() => <b>1</b>} />\n\n## H {/*id*/}\n\n'
        "```js\nimport React from 'react';\n<Foo />\n```\n"
    )
    result = run(source, "mdx")
    assert result.text == "Hello `<Intro>` *x* str\n\na > b\n\n## H\n\n```js\nimport React from 'react';\n<Foo />\n```"
    assert result.title == "T" and result.report["imports_and_exports_dropped"] == 4


RST = """
=====
Title
=====

.. module:: foo
   :synopsis: x

Intro with :mod:`foo`, :func:`~a.b.c`, :ref:`text <t>`, ``lit\\n`` and `link <http://x>`_, |ver|.

Section
-------
.. note::

   Careful::

      run(1)
        deep

.. function:: run(x)

   Runs :math:`x^2`.

   :param x: the thing

.. math::

   a = b

.. image:: x.png
.. a comment
   more

=====  =====
A      B
=====  =====
1      2
=====  =====

Sub
~~~
.. |ver| replace:: 1.0
"""


def test_rst():
    result = run(RST, "rst")
    assert result.text.split("\n\n") == [
        "# Title",
        "`foo`",
        "Intro with `foo`, `c`, text, `lit\\n` and link, 1.0.",
        "## Section",
        "Note:",
        "Careful:",
        "```\nrun(1)\n  deep\n```",
        "`run(x)`",
        "Runs $x^2$.",
        "- param x: the thing",
        "$$a = b$$",
        "| A | B |\n| --- | --- |\n| 1 | 2 |",
        "### Sub",
    ]
    assert result.report["directives_dropped_names"] == ["image"]


def test_po():
    entries = [
        ("", "Content-Type: text/plain; charset=EUC-KR\\n", ""),
        (":mod:`foo`", ":mod:`!foo` --- 설명", "#: ../../library/foo.rst:2\n"),
        ("bad", "나쁨", "#, fuzzy\n"),
        ("Run::", "실행::", ""),
        ("a(1)\\nb(2)", "a(1)\\nb(2)", ""),
        ("none", "", ""),
    ]
    source = "\n".join(f'{note}msgid "{m}"\nmsgstr ""\n"{t}"\n' for m, t, note in entries)
    source += '\nmsgid "one"\nmsgid_plural "many"\nmsgstr[0] "하나"\nmsgstr[1] "여럿"\n#~ msgid "old"\n#~ msgstr "옛"\n'
    result = extract(source.encode("cp949"), "po")
    assert result.text == "`foo` --- 설명\n\n실행:\n\n```\na(1)\nb(2)\n```\n\n하나"
    assert result.report == {
        "decoded": 1, "decoded_names": ["cp949"], "fuzzy_dropped": 1, "obsolete_dropped": 1, "translated": 4, "untranslated": 1,
    }  # fmt: skip


def notebook(*cells: dict, **more) -> bytes:
    return json.dumps({"cells": list(cells), "nbformat": 4, **more}).encode()


def test_notebook():
    data = notebook(
        {"cell_type": "markdown", "source": ["##### Copyright 2021 The Authors."]},
        {"cell_type": "code", "source": ["#@title Licensed under the Apache License, Version 2.0\n", "# you may"]},
        {"cell_type": "markdown", "source": ["# 제목\n", "글"]},
        {"cell_type": "markdown", "source": '<table class="tfo-notebook-buttons"><td><a>Run</a></td></table>\n\nText'},
        {"cell_type": "code", "source": ["x = 1\n", "print(x)"], "outputs": [{"data": {"image/png": "AAAA"}}]},
        {"cell_type": "raw", "source": "raw"},
        metadata={"kernelspec": {"language": "julia"}},
    )
    result = extract(data, "ipynb")
    assert result.text == "# 제목\n글\n\nText\n\n```julia\nx = 1\nprint(x)\n```"
    assert result.title == "제목"
    assert result.report["licence_cells_dropped"] == 2 and result.report["outputs_dropped"] == 1
    old = {
        "worksheets": [
            {"cells": [{"cell_type": "heading", "level": 2, "source": "H"}, {"cell_type": "code", "input": "y"}]}
        ]
    }
    assert extract(json.dumps(old).encode(), "ipynb").text == "## H\n\n```python\ny\n```"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 100_000, b'{"cells": 3', b"\xff\xfe"])
def test_what_is_no_notebook_is_an_error(data):
    with pytest.raises(ValueError, match="not a notebook"):
        extract(data, "ipynb")


def test_notebooks_of_strange_types():
    assert (
        extract(notebook(1, None, {"source": 5}, {"cell_type": [], "source": ["a", 1]}, metadata=5), "ipynb").text == ""
    )
    assert extract(b'{"cells":[{"cell_type":"code","source":"\\ud800x"}]}', "ipynb").text == "```python\n\ufffdx\n```"


def test_aozora():
    source = (
        "題名\r\n作者\r\n\r\n"
        + "-" * 55
        + "\r\n【テキスト中に現れる記号について】\r\n《》：ルビ\r\n"
        + "-" * 55
        + "\r\n\r\n"
        "［＃６字下げ］一月《いちぐわつ》［＃「一月」は中見出し］\r\n\r\n"
        "　｜東京《とうきょう》へ※［＃「魚＋（岌－山）」、第4水準2-93-34］《めざし》を［＃「を」に傍点］※［＃「口＋土」、U+5410］\r\n\r\n\r\n"
        "底本：「全集」書店\r\n入力：某\r\n"
    )
    result = extract(source.encode("cp932"), "aozora")
    character = b"\x8f\xfd\xc2".decode("euc_jis_2004")  # plane 2, row 93, cell 34
    assert result.text == f"### 一月\n\n　東京へ{character}を吐"
    assert result.title == "題名" and result.report["ruby_dropped"] == 3


def test_pdf():
    """A page written by hand: two lines and a hyphen."""
    content = b"BT /F1 12 Tf 72 700 Td (The quick brown fox jumps over the lazy exam-) Tj 0 -14 Td (ple. End.) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    data = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj%s endobj\n" % (number, body)
    start = len(data)
    data += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % o for o in offsets)
    data += b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start
    assert extract(data, "pdf").text == "The quick brown fox jumps over the lazy example. End."
    with pytest.raises(ValueError, match="not a readable PDF"):
        extract(data[:40], "pdf")


def test_binary_is_refused():
    with pytest.raises(ValueError, match="binary"):
        extract(bytes(range(256)) * 20, "markdown")
