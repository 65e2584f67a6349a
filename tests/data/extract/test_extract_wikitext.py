"""Wikipedia markup: formulas, heading levels and values stay, in reading order."""

import pytest
from conftest import ROOT

from kanana_jax.data.extract import extract
from kanana_jax.data.extract.wikitext import countries

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
        ("{{val|1.25|0.05|e=-3|u=kg|up=m3}}", "(1.25 ± 0.05) × 10⁻³ kg/m³"),
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


@pytest.mark.parametrize(
    "source, shown",
    [
        # Powers, by each of their names.
        ("3.2{{e|7}}개", "3.2 × 10⁷개"),
        ("3.2{{E|-7}} m", "3.2 × 10⁻⁷ m"),
        ("8.1{{×10^|5}} J", "8.1 × 10⁵ J"),
        ("8.1{{esp|5}}", "8.1 × 10⁵"),
        ("약 {{10^|6}}명", "약 10⁶명"),
        ("{{pow|2|64}}", "2⁶⁴"),
        ("7{{sup|3}} 7{{위첨자|3}} x{{아래 첨자|1}}", "7³ 7³ x₁"),
        # Values, errors, units: https://en.wikipedia.org/wiki/Template:Val
        ("{{val|9.80665|u=m/s2}}", "9.80665 m/s²"),
        ("{{val|96485|u=C|up=mol}}", "96,485 C/mol"),
        ("{{Val|4.2|ul=kJ|upl=kg}}", "4.2 kJ/kg"),
        ("{{val|12.3|0.4}}", "12.3 ± 0.4"),
        ("{{val|12.3|0.4|0.5|u=km}}", "12.3 +0.4/−0.5 km"),
        ("{{val|6.5|(12)|e=-11|u=N}}", "6.5(12) × 10⁻¹¹ N"),
        ("{{val|e=15|u=Hz}}", "10¹⁵ Hz"),
        ("{{val|p=~|30|s=개}}", "~30개"),
        ("{{val|45|u=%}} {{val|30|u=deg}}", "45% 30°"),
        ("{{val|3|u=us}} {{val|5|u=Mohm}} {{val|2|u=solar mass}}", "3 μs 5 MΩ 2 M☉"),
        ("{{val|10|to|20|u=kg}}", "10 to 20 kg"),
        ("{{su|p=+2|b=-1}}", "⁺²₋₁"),
        ("{{±|0.5}} {{gaps|1|234|567}}", "±0.5 1,234,567"),
        # Conversions: https://en.wikipedia.org/wiki/Template:Convert
        ("{{convert|21|C|F}} {{convert|3|C-change}}", "21 °C 3 °C"),
        ("{{convert|5|x|7|m}} {{convert|5|by|7|by|9|cm}}", "5 × 7 m 5 × 7 × 9 cm"),
        ("{{convert|3+1/2|mi|km}} {{convert|1/2|in}}", "3 1/2 mi 1/2 in"),
        ("{{convert|10|+/-|2|km}} {{convert|1|or|2|oz}}", "10 ± 2 km 1 or 2 oz"),
        ("{{convert|4|lb|6|oz|kg}} {{변환|12|km/h|mph|0}}", "4 lb 6 oz 12 km/h"),
        ("{{단위 변환|300|km2}} {{換算|8|m3}}", "300 km² 8 m³"),
        ("{{height|m=1.82}} {{height|ft=6|in=2}}", "1.82 m 6 ft 2 in"),
        ("{{frac|2|3|4}} {{분수|3|8}} {{3/4}}", "2 3/4 3/8 3/4"),
        ("{{nts|-1234}} {{formatnum:9876543}} {{수|1234}}", "-1,234 9,876,543 1,234"),
        ("{{percentage|1|8}} {{pct|50|200|0}}", "12.5% 25%"),
        ("{{ordinal|22}} {{ordinal|13}} {{로마 숫자|1994}}", "22nd 13th MCMXCIV"),
        ("{{US$|5000}} {{€|20}} {{₩|15000}} {{GBP|3}}", "US$5,000 €20 ₩15,000 £3"),
        ("{{abs|x}} {{floor|x}} {{closed-open|0|1}} {{ket|ψ}}", "|x| ⌊x⌋ [0, 1) |ψ⟩"),
        ("{{nuclide|U|235}} {{sqrt|x|3}}", "²³⁵U ³√x"),
        ("{{RA|12|30|49}} {{DEC|+12|23|28}}", "12h 30m 49s +12° 23′ 28″"),
        ("{{circa|1450}} {{reign|1418|1450}} {{age|1900|5|6|1950|5|5}}", "c. 1450 r. 1418–1450 49"),
        ("{{math|1=a = b}} {{math|a = b}} {{mvar|x}}", "a = b a = b x"),
        ("<math>10^{23}</math>", "$10^{23}$"),
        # Countries.
        ("개최국은 {{CAN}}이고 다음은 {{flag|BRA}}이다", "개최국은 캐나다이고 다음은 브라질이다"),
        ("{{국기|NED}}와 {{몽골}}의 경기", "네덜란드와 몽골의 경기"),
        ("{{국기그림|프랑스}} 프랑스 {{flagicon|ITA}} 이탈리아", "프랑스 이탈리아"),
        ("{{북한}}과 {{터키}}", "북한과 터키"),
        ("{{국기|영국|이름=대영 제국}}에서", "대영 제국에서"),
        ("{{flagathlete|김가람|KOR}} 선수", "김가람 (대한민국) 선수"),
        ("参加国は{{GER}}と{{flag|SUI}}である", "参加国はドイツとスイスである"),
        ("played against {{fb|MEX}} and {{flagcountry|New Zealand}}", "played against Mexico and New Zealand"),
        ("{{kor|한글|漢字}} {{UK}}", "한글, 漢字 영국"),
        # Marked spans.
        ("{{색|red|빨간}} {{글씨색|blue|파란}} {{글자색|green|푸른}} 글", "빨간 파란 푸른 글"),
        ("{{font color|white|black|흰}} {{resize|80%|작은}} {{글자 크기|9pt|글}}", "흰 작은 글"),
        ("{{仮リンク|風車|en|Windmill}}は{{ルビ|水車|すいしゃ}}に", "風車は水車に"),
        ("{{仮リンク|風車 (回転)|en|Windmill|label=風車}}は", "風車は"),
        ("{{ill|Mill|ko|방앗간|lt=the mill}} {{루비|水車|물레방아}} 옆", "the mill 水車 옆"),
        ("{{要出典範囲|古い水車である|date=2020年}}。", "古い水車である。"),
        ("{{citation needed span|the mill is old|date=May}}{{citation needed}}.", "the mill is old."),
        ("{{sortname|Ada|Mill}} {{sort|02|둘째}} {{abbr|WMO|World}}", "Ada Mill 둘째 WMO"),
        ("{{key press|Ctrl|Alt|Del}} {{script|Hebr|אב}} {{script/Hebrew|אב}}", "Ctrl+Alt+Del אב אב"),
        ("{{w|Water wheel|the wheel}} {{w|Mill}} {{vanchor|바퀴}} {{transl|ja|ISO|suisha}}", "the wheel Mill 바퀴 suisha"),
        ("{{lang-en-GB|mill}} {{llang|ko|방아}} {{lang|de|a=b}}", "mill 방아 a=b"),
        ("{{nowrap|1=x=1}} {{작은 글씨|글}} {{안깨짐|한 줄}}", "x=1 글 한 줄"),
        ("{{formation|x}} 뒤 {{mainland mill|y}}", "뒤"),
    ],
)
def test_numbers_countries_and_marked_spans_stay_in_the_sentence(source, shown):
    language = {"参": "日本語の文", "仮": "日本語の文", "要": "日本語の文", "p": "English text"}.get(source[0], "한국어 글")
    got = text(f"{language}.\n\n{source}")
    assert got == f"{language}.\n\n{shown}"


def test_templates_that_nobody_knows_are_named_and_leave_a_hole():
    source = "주어는 {{모르는 틀|x}}이고 수는 {{모름|3}} 개다.\n\n{{둘러보기 상자|x}}\n\n글 (또는 {{모름|x}})."
    result = extract(source.encode(), "wikitext", "x")
    assert result.text == "주어는 이고 수는 개다.\n\n글 (또는)."
    assert result.report["templates_dropped"] == 3 and result.report["templates_dropped_names"] == ["모르는_틀", "모름"]
    assert result.report["notes_dropped"] == 1 and result.report["sentences_cut"] == 2


@pytest.mark.parametrize("name", ["val", "convert", "pct", "roman", "e", "flag", "lang", "quote", "없는 틀"])
def test_arguments_of_any_length(name):
    for argument in ("1" * 100_000, "1," * 50_000, "a=" * 50_000, "|" * 50_000, "- " * 50_000):
        assert len(text(f"글 {{{{{name}|{argument}}}}} 끝")) < 400_000


def test_countries_have_a_name_in_each_language():
    for code, alias in (("KOR", "ROK"), ("DEU", "GER"), ("CHE", "SUI"), ("ZAF", "RSA"), ("SUN", "URS")):
        names = [countries.name_of(code, language) for language in countries.LANGUAGES]
        assert names == [countries.name_of(alias, language) for language in countries.LANGUAGES] and len(set(names)) == 3
    assert countries.name_of("QQQ", "ko") is None
    assert [countries.language_of(t) for t in ("한국의 mill", "日本の mill", "the mill", "")] == ["ko", "ja", "en", "en"]
