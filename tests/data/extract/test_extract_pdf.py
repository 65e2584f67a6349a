"""Paragraphs of a PDF: lines are joined by where they stand, in scripts of two widths, with and without spaces."""

import dataclasses
import random
import re

import pytest

from kanana_jax.data.extract import extract, paragraphs
from kanana_jax.data.extract.paragraphs import Box, Line
from kanana_jax.data.extract.spacing import Spacing

FONTS = {
    "ja": ("HeiseiMin-W3", "UniJIS-UCS2-H", "Japan1"),
    "ko": ("HYSMyeongJo-Medium", "UniKS-UCS2-H", "Korea1"),
    "en": ("Helvetica", "", ""),
    "code": ("Courier", "", ""),
}
# (x, y, size, font, text)
Text = tuple[float, float, float, str, str]


def pdf(*pages: list[Text]) -> bytes:
    """A PDF of texts at places; ideographs are an em wide, letters of those fonts half an em."""
    fonts, objects = [], []
    for name, coding, ordering in FONTS.values():
        number = 3 + len(objects)
        if coding:
            fonts.append(number)
            info = f"/CIDSystemInfo<</Registry(Adobe)/Ordering({ordering})/Supplement 1>>/DW 1000/W[1 95 500 8094 8190 500]"
            objects.append(
                f"<</Type/Font/Subtype/Type0/BaseFont/{name}/Encoding/{coding}/DescendantFonts[{number + 1} 0 R]>>"
            )
            objects.append(f"<</Type/Font/Subtype/CIDFontType0/BaseFont/{name}{info}>>")
        else:
            fonts.append(number)
            objects.append(f"<</Type/Font/Subtype/Type1/BaseFont/{name}/Encoding/WinAnsiEncoding>>")
    resources = "".join(f"/{name} {number} 0 R" for name, number in zip(FONTS, fonts))
    kids = []
    for page in pages:
        content = ""
        for x, y, size, font, text in page:
            coded = text.encode("utf-16-be") if FONTS[font][1] else text.encode("cp1252")
            content += f"BT /{font} {size} Tf 1 0 0 1 {x} {y} Tm <{coded.hex()}> Tj ET\n"
        kids.append(3 + len(objects))
        box = f"/MediaBox[0 0 600 800]/Contents {4 + len(objects)} 0 R/Resources<</Font<<{resources}>>>>"
        objects += [f"<</Type/Page/Parent 2 0 R{box}>>", f"<</Length {len(content)}>>stream\n{content}\nendstream"]
    tree = f"<</Type/Pages/Kids[{' '.join(f'{k} 0 R' for k in kids)}]/Count {len(kids)}>>"
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(["<</Type/Catalog/Pages 2 0 R>>", tree, *objects], 1):
        offsets.append(len(data))
        data += f"{number} 0 obj{body} endobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(offsets) + 1
    tail = (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF"
    )
    return data + tail.encode()


def column(
    font: str, paragraphs_of: list[str], em: int = 30, size: float = 10, gap: float = 0, indent: int = 0
) -> list[Text]:
    """Paragraphs set in lines of `em` ems, broken anywhere but in Latin words; `gap` points more between paragraphs."""
    page, y = [], 760.0
    for paragraph in paragraphs_of:
        line, used, x = "", indent, 50 + indent * size
        for c in re.findall("[!-~]+|.", paragraph):
            step = paragraphs.width(c) / 2
            if used + step > em:
                page.append((x, y, size, font, line))
                line, used, x, y = "", 0, 50.0, y - 1.5 * size
            line, used = line + c, used + step
        page.append((x, y, size, font, line))
        y -= 1.5 * size + gap
    return page


def text(*pages: list[Text]) -> str:
    return extract(pdf(*pages), "pdf").text


JA = ["山の上の観測所では毎朝六時に気温と風の向きを測り、その値を大きな帳面に書き写してから谷の町へ無線で知らせることになっている。",
      "冬のあいだは道が雪に埋もれるので、食べ物と燃料は秋のうちに運び上げておき、春まで三人の係が交代で番をしながら暮らすのである。"]  # fmt: skip


@pytest.mark.parametrize("em", [17, 23, 30, 40])
@pytest.mark.parametrize("gap, indent", [(0, 0), (8, 0), (0, 1)])
def test_japanese_between_longer_lines_of_code(em, gap, indent):
    page = column("ja", JA, em, gap=gap, indent=indent)
    low = min(y for _, y, *_ in page) - 30
    code = [(50, low - 12 * i, 8, "code", f"$ measure --station {i} --unit celsius --output readings-{i}.txt --append --quiet") for i in range(4)]  # fmt: skip
    got = text(page + code).split("\n")
    assert got[:2] == JA and got[2:] == [line for *_, line in code]


@pytest.mark.parametrize("prompt", ["$ ", ""])
def test_commands_in_the_letters_and_lines_of_the_text(prompt):
    """No gap, no other size and no font says that they are none of it: they pass the edge of the text."""
    page, want, y = [], [], 760.0
    for i in range(3):
        part = column("ja", JA[:1], 25)
        page += [(x, y - 15 * k, *rest) for k, (x, _, *rest) in enumerate(part)]
        y -= 15 * len(part)
        code = f"{prompt}measure --station={i} --unit=celsius --output=readings/{i}.txt --append"
        page.append((50, y, 10, "en", code))
        y -= 15
        want += [JA[0], code]
    assert text(page).split("\n") == want


def test_latin_words_inside_japanese_lines():
    """By the document's own habit there is a space between the scripts, or none."""
    for space in ("", " "):
        paragraph = f"この道具は{space}Python{space}で書かれ、{space}Linux{space}と{space}BSD{space}の上で動き、設定は{space}YAML{space}の書式で読み込む。".replace(
            "、 ", "、"
        )
        sentences = paragraph * 3
        assert text(column("ja", [sentences], 19.5)) == sentences


def test_what_begins_anew_is_not_joined():
    page = [
        (50, 760, 16, "ja", "第一章　観測所の一年とそこで働く人びとについて"),
        *((x, y - 40, *rest) for x, y, *rest in column("ja", JA[:1], 30)),
        (50, 660, 10, "ja", "・朝の測定は六時に行い、値は帳面に書き写してから町へ知らせる"),
        (50, 645, 10, "ja", "・夜の測定は九時に行い、値は翌朝まで棚の上の箱に入れておくこと"),
        (60, 630, 10, "ja", "　にする"),
        (50, 600, 10, "ja", "3.1 道具"),
        (50, 585, 10, "ja", "3.2 部屋"),
        (50, 540, 10, "ja", "序文・・・・・・・・・・・・・・・・・・・・・・・・・・・3"),
        (50, 525, 10, "ja", "本文・・・・・・・・・・・・・・・・・・・・・・・・・・・9"),
    ]
    assert text(page).split("\n") == [
        page[0][4],
        JA[0],
        page[-7][4],
        page[-6][4] + "にする",
        "3.1 道具",
        "3.2 部屋",
        page[-2][4],
        page[-1][4],
    ]


KO = "도서관 이용 안내는 누구나 읽을 수 있도록 쉬운 말로 쓰였다. 책을 빌리려는 사람은 먼저 안내대에서 이용증을 만들고, 빌린 책은 두 주 안에 돌려주어야 한다."


def test_korean_lines_that_end_at_words():
    """Each way of saying it: nothing, a space that stays at the end, a space that goes to the next line."""
    for before, after in (("", ""), (" ", ""), ("", " ")):
        page, line, y = [], "", 760.0
        for word in (KO * 3).split():
            if paragraphs.width(line + word) > 60:
                page.append((50, y, 10, "ko", (after if page else "") + line.rstrip() + before))
                line, y = "", y - 15
            line += f"{word} "
        page.append((50, y, 10, "ko", after + line.rstrip()))
        assert text(page) == KO * 3


def test_korean_lines_that_part_words():
    """The middle of the lines tells what is a word; endings never stand alone."""
    words = " ".join(["도서관 이용 안내는 안내대에서 이용증을 만들고 나서 책을 빌리는 방법을 설명한다."] * 12)
    got = text(column("ko", [words], 23.5))
    wrong = sum(a != b for a, b in zip(got.split(), words.split()))
    assert got.replace(" ", "") == words.replace(" ", "") and "\n" not in got and wrong <= 2
    assert text(
        [(50, 760, 10, "ko", "가나다라마바사아자차카타파하 도서관"), (50, 745, 10, "ko", "에서 만난다.")]
    ).endswith("도서관에서 만난다.")


@pytest.mark.parametrize(
    "first, second, whole",
    [
        ("the weather sta-", "tion sends its values", "the weather station sends its values"),
        ("a well-known and well-", "known place", "a well-known and well-known place"),
        ("of the UTF-", "8 encoding", "of the UTF-8 encoding"),
        ("a state-of-the-", "art tool", "a state-of-the-art tool"),
        ("see https://mill.example/docs/", "guide/index.html for more", "see https://mill.example/docs/guide/index.html for more"),
        ("the 기상 관측소는", "매일 값을 보낸다", "the 기상 관측소는 매일 값을 보낸다"),
        ("값은 Linux", "에서 읽는다", "값은 Linux에서 읽는다"),
        ("値は（毎朝", "六時の）気温", "値は（毎朝六時の）気温"),
    ],
)  # fmt: skip
def test_what_stands_between_two_lines(first, second, whole):
    lines = [Line(first, 0, 50, 300, 700, 10, 20), Line(second, 0, 50, 298, 685, 10, 60)]
    assert paragraphs.join(lines) == whole


def test_english_paragraphs_and_columns():
    left = ["Every morning at six the station", "measures wind and temperature and", "sends both down to the town.", "In winter the road is closed, and", "food must be carried up before."]  # fmt: skip
    right = ["Three people share the watch and", "write all values into a large book", "which nobody has read."]
    page = [(50, 760 - 12 * i, 10, "en", line) for i, line in enumerate(left)]
    page += [(320, 760 - 12 * i, 10, "en", line) for i, line in enumerate(right)]
    assert text(page).split("\n") == [" ".join(left[:3]), " ".join(left[3:]), " ".join(right)]


def test_a_sentence_goes_on_over_the_page_and_not_into_the_foot():
    whole = "".join(JA)
    pages = [
        [*column("ja", [whole[n * 24 : n * 24 + 24]], 12), (300, 30, 8, "en", f"- {n} -")]
        for n in range(len(whole) // 24)
    ]
    got = extract(pdf(*pages), "pdf")
    assert got.report["running_lines_dropped"] == len(pages)
    assert got.text == whole[: 24 * len(pages)]


def test_lines_set_from_top_to_bottom():
    def line(string: str, x: float, page: int = 0) -> Line:
        first, last = Box(x, 740, x + 10, 750), Box(x, 750 - 10 * len(string), x + 10, 760 - 10 * len(string))
        return Line.of(string, page, first, last, first)

    whole = JA[0] + JA[1]
    lines = [line(part, 500 - 18 * i) for i, part in enumerate(whole[k : k + 20] for k in range(0, len(whole), 20))]
    assert paragraphs.join(lines) == whole


def test_without_places_lines_are_measured_in_columns():
    def lines(strings: list[str]) -> list[Line]:
        return [Line.of(string, 0, None, None, None) for string in strings]

    parts = [JA[0][k : k + 20] for k in range(0, len(JA[0]), 20)]
    assert paragraphs.join(lines([*parts, "$ " + "x" * 70, "끝"])).startswith(JA[0])


def test_spacing_of_few_lines_and_of_odd_ones():
    spacing = Spacing([], [], [])
    assert spacing.between("가", "산") == " " and spacing.between("あ", "い") == "" and spacing.between("a", "b") == " "
    assert paragraphs.join([]) == ""


def test_many_lines_take_linear_time():
    rng = random.Random(0)
    blank = Line("", 0, 50, 300, 700, 10, 10)
    letters = "가나다라 마바사 漢字かな abc,.-"
    lines = [
        dataclasses.replace(
            blank,
            text="".join(rng.choices(letters, k=rng.randint(1, 80))).strip() or "x",
            page=i // 50,
            start=rng.choice([50, 60, 300]),
            end=rng.uniform(60, 550),
            base=800 - 12 * (i % 50),
        )
        for i in range(20_000)
    ]
    got = paragraphs.join(lines)
    assert len(got) > 500_000
