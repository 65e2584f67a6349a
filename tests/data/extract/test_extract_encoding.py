"""Legacy encodings are told apart, mojibake is mended only where that is certain, controls go."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanana_jax.data.extract import encoding
from kanana_jax.data.extract.markup import Report

KOREAN = "대한민국 헌법은 국민의 자유와 권리를 보장한다. 모든 국민은 법 앞에 평등하다."
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。コーヒーを飲む。"
FRENCH = "Le café était fermé à cause de la tempête; nous sommes allés à l'hôtel."


def decode(data: bytes, declared: str | None = None) -> tuple[str, dict]:
    report = Report()
    return encoding.decode(data, report, declared), report.as_dict()


@pytest.mark.parametrize(
    "text, name",
    [
        (KOREAN, "cp949"),
        (KOREAN + " 똠방각하 펲시콜라", "cp949"),  # syllables that only CP949 has
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"),
        (FRENCH, "cp1252"),
        (KOREAN, "utf-8"),
        (KOREAN, "utf-8-sig"),
        (JAPANESE, "utf-16"),
        (FRENCH, "utf-16-le"),
        (KOREAN, "utf-32"),
    ],
)
def test_encodings_are_recognised(text, name):
    assert decode(text.encode(name))[0] == text


@pytest.mark.parametrize("wrong", ["iso-8859-1", "utf-8", "shift_jis", "no-such-charset", "zlib", "idna", ""])
def test_a_wrong_declaration_does_no_harm(wrong):
    assert decode(KOREAN.encode("cp949"), wrong)[0] == KOREAN


def test_a_declaration_decides_where_bytes_do_not():
    text = "中文网页的内容很短"
    assert decode(text.encode("gb18030"), "gb2312")[0] == text


def test_one_bad_byte_does_not_spoil_the_page():
    data = bytearray((KOREAN * 20).encode("cp949"))
    data[200:200] = b"\xff"
    text, report = decode(bytes(data))
    assert KOREAN in text and report["undecodable"] >= 1
    data = (KOREAN * 20).encode()[:-1]  # cut in the middle of a character
    assert decode(data)[0].startswith(KOREAN)


@pytest.mark.parametrize("text", [KOREAN, JAPANESE, "naïve “quotes” — and … dashes"])
@pytest.mark.parametrize("wrong", ["latin-1", "cp1252"])
def test_mojibake_is_mended(text, wrong):
    broken = "".join(
        bytes([b]).decode(wrong) if wrong == "latin-1" or b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(b)
        for b in text.encode()
    )
    assert broken != text
    got, report = decode(broken.encode())
    assert got == text and report["mojibake_mended"] >= 1
    twice = broken.encode().decode("latin-1")
    assert decode(twice.encode())[0] == text


def test_mojibake_through_legacy_encodings():
    for wrong in ("cp949", "cp932"):
        for text in (
            "안녕하세요 여러분",
            "한국어 문서입니다",
            "日本語の文章です",
            "これはテストです",
            "대한민국의 서울",
        ):
            try:
                broken = text.encode().decode(wrong)
            except UnicodeDecodeError:
                continue
            assert decode(f"첫 줄\n{broken}".encode())[0] == f"첫 줄\n{text}"


@pytest.mark.parametrize(
    "text",
    [KOREAN, JAPANESE, FRENCH, "짜장면 차차 징 찜", "SÃO PAULO", "É” et Ö”", "Ârvore", "한자 漢字 混用文", "ｶﾀｶﾅ 半角"],
)
def test_sound_text_is_left_alone(text):
    got, report = decode(text.encode())
    assert got == text and "mojibake_mended" not in report


@given(st.text(alphabet=st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=40))
def test_hangul_is_never_mended(text):
    assert encoding.mend(text, Report()) == text


def test_controls_line_ends_and_lone_surrogates():
    report = Report()
    got = encoding.clean("a\0b\r\nc\rd\u2028e\x0cf\u200bg\ufeff\u202eh\ud800i\u200dj", report)
    assert got == "ab\nc\nd\ne\nfgh\ufffdi\u200dj"
    assert report.as_dict() == {"invisible_removed": 4, "surrogates_replaced": 1}


@given(st.text())
def test_nfc_in_equals_nfd_in(text):
    def utf8(form: str) -> bytes:
        return unicodedata.normalize(form, text).encode("utf-8", "surrogatepass")

    assert decode(b"\xef\xbb\xbf" + utf8("NFC"))[0] == decode(b"\xef\xbb\xbf" + utf8("NFD"))[0]


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_clean_text(data):
    text, _ = decode(data)
    assert text.encode().decode() == text == unicodedata.normalize("NFC", text)
    assert not set(text) & {chr(c) for c in (*range(9), *range(11, 32), *range(127, 160))}
