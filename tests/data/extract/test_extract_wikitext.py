"""Wikipedia markup: formulas, heading levels and values stay, in reading order."""

import pytest
from conftest import ROOT

from kanana_jax.data.extract import extract

FIXTURES = ROOT / "tests/data/extract/fixtures"


def text(source: str) -> str:
    return extract(source.encode(), "wikitext", "제목").text


def test_the_article_whose_formulas_and_headings_public_sets_lose():
    """The example of arXiv:2502.18934: the Korean article on the Coriolis effect."""
    result = extract((FIXTURES / "coriolis.wiki").read_bytes(), "wikitext", "코리올리 효과")
    assert result.text == (FIXTURES / "coriolis.wiki.md").read_text().strip()
    assert result.title == "코리올리 효과"
    assert result.report["formulas"] == 5 and result.report["references_dropped"] == 2
    assert result.report["templates_dropped_names"] == ["공식_웹사이트"]


@pytest.mark.parametrize(
    "source, shown",
    [
        ("{{convert|5|km|mi}}", "5 km"),
        ("{{convert|5|-|10|km|mi|abbr=on}}", "5–10 km"),
        ("{{convert|1500|to|2000|sqmi|km2}}", "1,500 to 2,000 sq mi"),
        ("{{convert|6|ft|2|in|cm}}", "6 ft 2 in"),
        ("{{cvt|37|C|F}}", "37 °C"),
        ("{{변환|100|m2}}", "100 m²"),
        ("{{val|1.25|0.05|e=-3|u=kg|up=m3}}", "1.25 ± 0.05 × 10⁻³ kg/m³"),
        ("{{formatnum:1234567.5}}", "1,234,567.5"),
        ("{{lang|fr|chat}} {{llang|en|cat}} {{lang-ja|猫}}", "chat cat 猫"),
        ("{{nowrap|10 m}} {{frac|1|2}} {{sfrac|3|4}} {{sqrt|2}}", "10 m 1/2 3/4 √2"),
        ("x{{sup|2}} H{{sub|2}}O {{chem2|CO2}}", "x² H₂O CO₂"),
        ("{{출생일|1950|3|2}} / {{birth date|1950|3|2}}", "1950년 3월 2일 / 1950-03-02"),
        ("{{#if: x | yes | no}} {{#if: | yes | no}}", "yes no"),
        ("{{lang|ko|{{nowrap|안 {{lang|en|in}}}}}}", "안 in"),
        ("{{PAGENAME}}", "제목"),
        ("{{{1|기본}}} {{{2}}}", "기본"),
        ("a {{없는 틀|x|y=z}}b", "a b"),
        ("f({{lang|en|x}}; born {{날짜|1999|1}})", "f(x; born 1999년 1월)"),
        ("이름(<ref>x</ref>, {{IPAc-en|x}})은", "이름은"),
        ("[[대상|글]] [[대상]] [[대상 (물리)|]] [[:분류:물]] [http://a.b 밖] [http://a.b]", "글 대상 대상 분류:물 밖"),
        ("'''굵게''' ''기울임'' <small>작게</small> &lt;b&gt; &amp; &nbsp;끝", "굵게 기울임 작게 <b> & 끝"),
        ("<nowiki>[[x]] ''y'' {{z}}</nowiki>", "[[x]] ''y'' {{z}}"),
        ("a<!-- b\n\n{{ -->c", "ac"),
        ("#넘겨주기 [[다른 문서]]", ""),
        ("x < y and y > z", "x < y and y > z"),
        ("<math>f''(x) < {{y}}</math>", "$f''(x) < {{y}}$"),
        ("<chem>H2O</chem>", "$\\ce{H2O}$"),
    ],
)
def test_values_of_templates_and_markup(source, shown):
    assert text(source) == shown


def test_tables_with_spans_and_nesting():
    source = (
        '{| class="x"\n! a !! colspan=2 | b\n|-\n| rowspan="2" | 1 || [[x|2]] || 3\n|-\n| style="c" | 4\n| 5{{!}}6\n'
        "|-\n|\n{| \n| in\n| ner\n|}\n|| y\n|}"
    )
    assert text(source).split("\n") == [
        "| a | b |  |",
        "| --- | --- | --- |",
        "| 1 | 2 | 3 |",
        "|  | 4 | 5\\|6 |",
        "| in ner | y |  |",
    ]


def test_code_keeps_its_lines():
    source = 'A\n<syntaxhighlight lang="python">\n# no heading\n* no item\n{{no template}}\n</syntaxhighlight>\nB'
    assert text(source) == "A\n\n```python\n# no heading\n* no item\n{{no template}}\n```\n\nB"


def test_reading_order_of_captions_and_galleries():
    source = "앞\n[[파일:a.jpg|섬네일|200px|캡션 [[링크]]]]\n뒤\n<gallery>\n파일:b.jpg|둘째\n</gallery>"
    assert text(source) == "앞\n\n캡션 링크\n\n뒤\n\n- 둘째"


def test_sections_left_empty_go_and_others_keep_their_level():
    source = "== 하나 ==\n=== 둘 ===\n글\n== 각주 ==\n{{각주}}\n== 셋 ==\n=== 넷 ===\n{{본문|x}}\n"
    assert text(source) == "## 하나\n\n### 둘\n\n글"


def test_what_is_left_open_loses_nothing():
    assert text("앞 [[열린 링크\n== 제목 ==\n뒤").split() == ["앞", "열린", "링크", "##", "제목", "뒤"]
    assert "남는다" in text("{{열린 틀|x=남는다\n\n글")
    assert text("{| \n| 표").split() == ["|", "표"]
