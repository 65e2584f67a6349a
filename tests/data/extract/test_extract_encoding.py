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


LAUGHS = "ㅋㅋㅋㅋ 진짜 웃기네 ㅠㅠㅠ ㄷㄷ 인정 ㅎㅎㅎㅎ ㅊㅋㅊㅋ ㅋㅋㅋㅋㅋㅋ"
ONLY_JAMO = "ㅋㅋㅋㅋㅋㅋ\nㅎㅎㅎㅎ\nㅠㅠ ㅜㅜ\nㅇㅇ ㄴㄴ ㄱㄱ ㅇㅈ ㄹㅇ"
CHINESE = "我们在这里说明如何安装软件。首先下载安装包，然后运行安装程序，按照提示完成设置。"
TAIWANESE = "我們在這裡說明如何安裝軟體。首先下載安裝檔，然後執行安裝程式，依照提示完成設定。"
RUSSIAN = "Все люди рождаются свободными и равными в своём достоинстве и правах."


@pytest.mark.parametrize(
    "text, codec, declared",
    [
        (LAUGHS, "euc_kr", "euc-kr"),
        (ONLY_JAMO, "cp949", "ks_c_5601-1987"),
        ("ㅇㅇ ㄴㄴ", "euc_kr", "EUC-KR"),
        (LAUGHS, "johab", "johab"),
        (KOREAN, "iso2022_kr", "iso-2022-kr"),
        (JAPANESE + "①②", "euc_jis_2004", "euc-jp"),
        (JAPANESE + "①②", "cp932", "Shift_JIS"),
        ("半角のｶﾀｶﾅと漢字", "iso2022_jp_ext", "iso-2022-jp"),
        (CHINESE * 3, "gb18030", "gbk"),
        (CHINESE, "hz", "hz-gb-2312"),
        (TAIWANESE, "big5", "big5"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (RUSSIAN, "cp1251", "windows-1251"),
        (FRENCH, "cp1252", "iso-8859-1"),
    ],
)
def test_a_declared_encoding_is_believed(text, codec, declared):
    assert decode(text.encode(codec), declared)[0] == text


def test_laughter_is_korean_also_where_nothing_is_declared():
    assert decode(LAUGHS.encode("cp949"))[0] == LAUGHS


@pytest.mark.parametrize(
    "text, codec", [(KOREAN, "cp949"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp"), (FRENCH, "cp1252")]
)
@pytest.mark.parametrize("wrong", ["utf-8", "windows-1251", "shift_jis", "euc-jp", "euc-kr", "gb2312", "big5", "johab"])
@pytest.mark.parametrize("length", [1, 20])
def test_what_a_declaration_cannot_mean_is_not_believed(text, codec, wrong, length):
    assert decode((text * length).encode(codec), wrong)[0] == text * length


def test_the_page_is_heard_where_the_server_is_wrong():
    report = Report()
    assert encoding.decode(ONLY_JAMO.encode("cp949"), report, "iso-8859-1", "euc-kr") == ONLY_JAMO
