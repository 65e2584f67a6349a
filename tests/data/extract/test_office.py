"""Word and Hangul documents: body, headings, tables, notes, boxes in order; what is encrypted or broken is named."""

import random
import struct

import office_files as files
import pytest

from kanana_jax.data.extract import extract, format_of
from kanana_jax.data.extract.hwp import records


def _p(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


WORD = files.docx(
    _p("회의 안내", '<w:pStyle w:val="a3"/>')
    + _p("둘째 절", '<w:outlineLvl w:val="1"/>')
    + '<w:p><w:r><w:t xml:space="preserve">첫 문장 </w:t></w:r><w:hyperlink><w:r><w:t>누리집</w:t></w:r></w:hyperlink>'
    '<w:r><w:footnoteReference w:id="2"/></w:r><w:del><w:r><w:delText>지운 글</w:delText></w:r></w:del>'
    "<w:ins><w:r><w:t>덧댄 글</w:t></w:r></w:ins><w:r><w:tab/><w:t>끝</w:t><w:br/><w:t>새 줄</w:t></w:r>"
    "<w:r><w:fldChar/><w:instrText>PAGEREF x</w:instrText></w:r>"
    "<w:r><w:ruby><w:rt><w:r><w:t>かん</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>漢</w:t></w:r></w:rubyBase></w:ruby></w:r>"
    "<m:oMath><m:r><m:t>E=mc</m:t></m:r></m:oMath></w:p>"
    + _p("항목", "<w:numPr/>")
    + _p("둘째", '<w:pStyle w:val="a9"/>')
    + "<w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan w:val='2'/></w:tcPr>"
    + _p("이름")
    + "</w:tc></w:tr><w:tr><w:tc>"
    + _p("김")
    + "</w:tc><w:tc>"
    + _p("3 | 4")
    + "<w:tbl><w:tr><w:tc>"
    + _p("안")
    + "</w:tc><w:tc>"
    + _p("쪽")
    + "</w:tc></w:tr></w:tbl></w:tc></w:tr></w:tbl>"
    + "<w:sdt><w:sdtContent>"
    + _p("차례 뒤")
    + "</w:sdtContent></w:sdt>"
    + "<w:p><w:r><mc:AlternateContent><mc:Choice><w:txbxContent>"
    + _p("글상자")
    + "</w:txbxContent></mc:Choice><mc:Fallback><w:txbxContent>"
    + _p("글상자")
    + "</w:txbxContent></mc:Fallback></mc:AlternateContent></w:r><w:r><w:t>상자 앞</w:t></w:r></w:p>",
    footnotes='<w:footnote w:id="0" w:type="separator">'
    + _p("----")
    + '</w:footnote><w:footnote w:id="2">'
    + _p("각주 글")
    + "</w:footnote>",
    styles='<w:style w:styleId="a3"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="a9"><w:name w:val="목록"/><w:pPr><w:numPr/></w:pPr></w:style>',
    comments=_p("메모"),
)
WORD_TEXT = """# 회의 안내

## 둘째 절

첫 문장 누리집 (각주 글)덧댄 글\t끝
새 줄漢E=mc

- 항목

- 둘째

| 이름 |  |
| --- | --- |
| 김 | 3 \\| 4 안 쪽 |

차례 뒤

상자 앞

글상자"""


def test_word():
    made = extract(WORD, format_of("회의.DOCX"), "회의.docx")
    assert made.text == WORD_TEXT and made.report["tables"] == 2 and made.report["notes"] == 1


def _hp(text: str, inner: str = "", shape: int = 0) -> str:
    return f'<hp:p paraPrIDRef="{shape}"><hp:run><hp:t>{text}</hp:t>{inner}</hp:run></hp:p>'


HANGUL_X = files.hwpx(
    _hp("제1장 총칙", shape=3)
    + _hp("앞<hp:tab/>뒤<hp:lineBreak/>다음<hp:deleteBegin/>지움<hp:deleteEnd/>남음",
          "<hp:ctrl><hp:footNote><hp:subList>" + _hp("주석") + "</hp:subList></hp:footNote></hp:ctrl><hp:t>.</hp:t>"
          "<hp:ctrl><hp:header><hp:subList>" + _hp("머리말") + "</hp:subList></hp:header></hp:ctrl>")
    + _hp("표:", '<hp:tbl><hp:tr><hp:tc><hp:subList>' + _hp("가") + '</hp:subList><hp:cellSpan colSpan="1" rowSpan="2"/></hp:tc>'
          "<hp:tc><hp:subList>" + _hp("나") + "</hp:subList></hp:tc></hp:tr><hp:tr><hp:tc><hp:subList>" + _hp("다")
          + "</hp:subList></hp:tc></hp:tr></hp:tbl><hp:equation><hp:script>x over 2</hp:script></hp:equation>")
    + _hp("", "<hp:rect><hp:drawText><hp:subList>" + _hp("상자") + "</hp:subList></hp:drawText></hp:rect>"),
    _hp("둘째 구역"),
    header='<hh:paraPr id="3"><hh:heading type="OUTLINE" level="0"/></hh:paraPr><hh:paraPr id="0"><hh:heading type="NONE" level="0"/></hh:paraPr>',
    title="규정",
)  # fmt: skip
HANGUL_TEXT = """# 제1장 총칙

앞\t뒤
다음남음 (주석).

표:x over 2

| 가 | 나 |
| --- | --- |
|  | 다 |

상자

둘째 구역"""


def test_hangul_x():
    made = extract(HANGUL_X, format_of("규정.hwpx"))
    assert (made.text, made.title) == (HANGUL_TEXT, "규정")


def _section() -> bytes:
    table = files.control(
        1, b"tbl ", record_table(2) + files.cell(2, 0, 0, files.paragraph(2, "가"), down=2) + files.cell(2, 1, 0, files.paragraph(2, "나"))
        + files.cell(2, 1, 1, files.paragraph(2, "다"))
    )  # fmt: skip
    note = files.control(1, b"fn  ", files.record(72, 2, bytes(16)) + files.paragraph(2, "주석"))
    head = files.control(1, b"head", files.record(72, 2, bytes(16)) + files.paragraph(2, "머리말"))
    script = "x over 2".encode("utf-16-le")
    formula = files.control(1, b"eqed", files.record(88, 2, struct.pack("<IH", 0, len(script) // 2) + script))
    box = files.control(1, b"gso ", files.record(76, 2, bytes(8) + files.record(0, 0)) + files.record(72, 3, bytes(16)) + files.paragraph(3, "상자"))
    return (
        files.paragraph(0, "제1장 총칙", shape=1)
        + files.paragraph(0, "앞\t뒤\n다음남음\x11.\x10", controls=note + head)
        + files.paragraph(0, "표:\x0b\x0b", controls=table + formula)
        + files.paragraph(0, "\x0b", controls=box)
    )


def record_table(level: int) -> bytes:
    return files.record(77, level, bytes(20))


SHAPES = files.record(25, 0, struct.pack("<I", 0)) + files.record(25, 0, struct.pack("<I", 1 << 23))


@pytest.mark.parametrize("flags", [0, 1])
def test_hangul(flags):
    made = extract(files.hwp(_section(), files.paragraph(0, "둘째 구역"), flags=flags, shapes=SHAPES), format_of("규정.hwp"))
    assert made.text == HANGUL_TEXT
    assert (made.report["tables"], made.report["notes"], made.report["formulas"]) == (1, 1, 1)


def test_a_long_text_and_a_large_table():
    text = "가나다라 마바사 " * 3000
    table = b"".join(files.cell(2, c, r, files.paragraph(2, f"{r}-{c}")) for r in range(200) for c in range(20))
    section = files.paragraph(0, text) + files.paragraph(0, "\x0b", controls=files.control(1, b"tbl ", record_table(2) + table))
    made = extract(files.hwp(section), "hwp").text
    assert made.startswith(text.strip()) and "| 199-0 | 199-1 |" in made


def test_a_hangul_document_of_the_newer_kind_under_the_older_name():
    assert extract(HANGUL_X, "hwp").text == HANGUL_TEXT


ENCRYPTED_WORD = files.compound({"EncryptedPackage": b"x", "EncryptionInfo": b"y"})


@pytest.mark.parametrize(
    "data, format, words",
    [
        (ENCRYPTED_WORD, "docx", "encrypted"),
        (files.compound({"WordDocument": b"x"}), "docx", "before 2007"),
        (files.zipped({"a.txt": "x"}), "docx", "no word/document.xml"),
        (b"plain", "docx", "no zip"),
        (b"", "docx", "no zip"),
        (files.docx("")[:-40], "docx", "broken"),
        (files.zipped({"word/document.xml": "<a><b></a>"}), "docx", "broken"),
        (files.docx("<w:p>" * 500 + "</w:p>" * 500), "docx", "nested too deep"),
        (files.zipped({"word/document.xml": '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><a>&q;</a>'}), "docx", "broken"),
        (files.hwpx(_hp("x"), manifest="<encryption-data/>"), "hwpx", "encrypted"),
        (files.zipped({"mimetype": "application/hwp+zip"}), "hwpx", "no Contents/section0.xml"),
        (files.hwp(_section(), flags=3), "hwp", "encrypted"),
        (files.hwp(_section(), flags=5), "hwp", "for distribution"),
        (files.hwp(_section(), version=0x04000000), "hwp", "version 4"),
        (files.hwp(), "hwp", "no BodyText/Section0"),
        (files.compound({"WordDocument": b"x"}), "hwp", "no FileHeader"),
        (b"HWP Document File V3.00 \x1a\x01", "hwp", "before 2000"),
        (b"\xd0\xcf\x11\xe0", "hwp", "no compound file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "hwp", "broken"),
        (files.hwp(files.record(66, 0, bytes(5000))[:-10], flags=0), "hwp", "cut"),
        (files.hwp(b"".join(files.record(71, level, b" osg") for level in range(400))), "hwp", "nested too deep"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(data, format, words):
    with pytest.raises(ValueError, match=words):
        extract(data, format)


def test_a_bomb_in_a_section_is_refused():
    with pytest.raises(ValueError, match="more than the limit"):
        extract(files.hwp(bytes(600 << 20)), "hwp")


def test_records_are_read_as_they_were_written():
    draw = random.Random(0)
    made = [(draw.randrange(1024), draw.randrange(1024), draw.randbytes(draw.choice((0, 3, 4094, 4095, 4096, 9000)))) for _ in range(300)]
    assert list(records(b"".join(files.record(*one) for one in made))) == made


@pytest.mark.parametrize("format, data", [("docx", WORD), ("hwpx", HANGUL_X), ("hwp", files.hwp(_section(), flags=0, shapes=SHAPES))])
def test_damaged_files_are_read_or_refused(format, data):
    draw = random.Random(1)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 4, 30))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        cut = draw.randrange(len(damaged)) if draw.random() < 0.3 else len(damaged)
        try:
            extract(bytes(damaged[:cut]), format)
        except ValueError as error:
            assert "\n" not in str(error)
