"""Personal data in a labelled set: each kind found, and what looks like it left alone."""

import random

import pytest
from conftest import guard
from hypothesis import given, settings
from hypothesis import strategies as st

from kanana_jax.data.filters import pii


def _rrn(birth, gender, rng, foreign=False):
    digits = [int(c) for c in birth + str(gender)] + [rng.randint(0, 9) for _ in range(5)]
    total = sum(d * w for d, w in zip(digits, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)))
    number = "".join(map(str, digits)) + str(((13 if foreign else 11) - total % 11) % 10)
    return f"{number[:6]}-{number[6:]}"


def _card(prefix, length, rng):
    digits = [int(c) for c in prefix] + [rng.randint(0, 9) for _ in range(length - len(prefix) - 1)]
    doubled = [d * 2 - 9 * (d > 4) if i % 2 == 0 else d for i, d in enumerate(reversed(digits))]
    return "".join(map(str, [*digits, -sum(doubled) % 10]))


def _my_number(rng):
    digits = [rng.randint(0, 9) for _ in range(11)]
    rest = sum(d * w for d, w in zip(digits, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2))) % 11
    return "".join(map(str, [*digits, 0 if rest <= 1 else 11 - rest]))


R = random.Random(0)
GROUPED = " ".join(c for c in (lambda n: [n[i : i + 4] for i in range(0, 16, 4)])(_card("4", 16, R)))
# (text with {} where the datum stands, the datum, its kind)
POSITIVE = [
    ("연락처는 {}입니다.", "010-1234-5678", "phone"),
    ("전화 {}로 문의", "01012345678", "phone"),
    ("문의: {}", "02-312-4567", "phone"),
    ("사무실 {} (내선 3)", "(031) 123-4567", "phone"),
    ("고객센터 {}", "070-1234-5678", "phone"),
    ("안심번호 {}", "0504-123-4567", "phone"),
    ("Call {} now", "+82 10-1234-5678", "phone"),
    ("電話番号は{}です", "03-1234-5678", "phone"),
    ("携帯{}まで", "090-1234-5678", "phone"),
    ("お問い合わせ {}", "0120-123-456"[:8] + "4567"[:0] + "-4567", "phone"),
    ("Call us at {}.", "(415) 555-2671", "phone"),
    ("or {} today", "415-555-2671", "phone"),
    ("UK office {}", "+44 20 7946 0958", "phone"),
    ("메일은 {}로", "hong.gil-dong@example.co.kr", "email"),
    ("メール：{}まで", "taro_yamada+news@mail.example.jp", "email"),
    ("write to {}.", "jane.doe@example.org", "email"),
    ("주민등록번호 {} 기재", _rrn("850312", 1, R), "rrn"),
    ("신청인({})", _rrn("020711", 4, R), "rrn"),
    ("주민번호: {}", "201105-3456789", "rrn"),
    ("외국인등록번호 {}", _rrn("900101", 5, R, True), "foreigner"),
    ("카드번호 {}", GROUPED, "card"),
    ("card {} exp 12/27", _card("5", 16, R), "card"),
    ("Amex {}", _card("37", 15, R), "card"),
    ("계좌 {} 홍길동", "110-123-456789", "account"),
    ("국민은행 {}으로 입금", "123456-04-123456", "account"),
    ("예금주 홍길동, 농협 {}", "302-1234-5678-91", "account"),
    ("account number {}", "1234567890", "account"),
    ("여권번호 {}", "M12345678", "passport"),
    ("여권: {}", "M123A4567", "passport"),
    ("passport no. {}", "AB1234567", "passport"),
    ("マイナンバー：{}", _my_number(R), "my_number"),
    ("접속 IP {} 차단", "211.45.130.7", "ip"),
    ("from {} at noon", "2a00:1450:4001:81b::200e", "ip"),
]
NEGATIVE = [
    "가격은 2000000원이고 할인하면 1,500,000원이다.",
    "제1조(목적) 이 법은 제12조제3항에 따라 2024-03-15부터 시행한다.",
    "시행일: 2024.03.15. 14:30-15:45",
    "ISBN 978-89-123-4567-8",
    "버전 192.0.2.1이 아니라 버전 10.2.33.4를 쓴다.",
    "Chrome version 120.0.6099.109 is out.",
    "서버는 127.0.0.1과 192.168.0.10에서 돈다.",
    "주문번호 20240315123456",
    "운송장 1234-5678-9012-3456",
    "사업자등록번호 123-45-67890",
    "2020-2021, 2022-2023 시즌",
    "원주율은 3.14159265358979이다.",
    "x = 1234567890123456",
    "인구는 51,234,567명, 면적은 100,210.5km²",
    "좌표 37.5665, 126.9780",
    "@decorator\ndef f(a: int) -> int: ...",
    "email me at example dot com",
    "std::vector<int>::iterator a::b::c",
    "850312-1234567은 검사 숫자가 틀리다",
    "991301-1234567",
    "모델명 AB1234567 재고 있음",
    "우편번호 06236, 사서함 123-4567",
    "전체 3-4-5 대형, 10-20-30",
    "令和5年12月31日 123-4567 東京都",
    "11:22:33 에 시작, 1:2:3 비율",
    "MAC 00:1A:2B:3C:4D:5E",
    "sha 0123456789abcdef0123456789abcdef",
    "Unix time 1700000000, 1700000001",
    "제2024-123456호",
    "Table 4-1234-5678",
]


@pytest.mark.parametrize("frame,datum,kind", POSITIVE)
def test_each_is_found_as_a_whole(frame, datum, kind):
    text = frame.format(datum)
    assert [(text[f.start : f.end], f.kind) for f in pii.find(text)] == [(datum, kind)]
    assert pii.replace(text) == (frame.format(f"<{kind.upper()}>"), {kind: 1})


@pytest.mark.parametrize("text", NEGATIVE)
def test_what_looks_like_it_is_left_alone(text):
    assert pii.replace(text) == (text, {})


def test_many_in_one_text_and_no_overlaps():
    text = "홍길동 010-1234-5678, hong@example.com, 계좌 110-123-456789, 211.45.130.7"
    assert [f.kind for f in pii.find(text)] == ["phone", "email", "account", "ip"]
    replaced, counts = pii.replace(text)
    assert replaced == "홍길동 <PHONE>, <EMAIL>, 계좌 <ACCOUNT>, <IP>" and sum(counts.values()) == 4
    assert pii.replace(replaced)[0] == replaced


@given(st.text(st.sampled_from("0123456789-. :@a가+()\n"), max_size=120))
@settings(max_examples=300, deadline=None)
def test_any_text(text):
    found = pii.find(text)
    assert all(0 <= f.start < f.end <= len(text) and f.kind in pii.KINDS for f in found)
    assert all(a.end <= b.start for a, b in zip(found, found[1:]))


@pytest.mark.parametrize("piece", ["1", "1-", "1:", "a.", "a@", "1.", "+1 ", "0 ", "12345-"])
def test_long_runs_are_read_in_linear_time(piece):
    """A pattern that goes back over what it has read would not come to an end here."""
    text = piece * (2_000_000 // len(piece))
    assert all(f.end - f.start < 100 for f in pii.find(text))


@pytest.mark.parametrize(
    "piece", ["010-8765-4321 ", "01087654321 ", "은행 110-448-227719 ", "1.2.3.4/", "a@b.kr ", "여권 M48271935 "]
)
def test_many_data_in_a_row_are_read_in_linear_time(piece):
    """Half a second of work; what compared each with all others would take minutes."""
    text = piece * (200_000 // len(piece))
    with guard(5):
        found = pii.find(text)
    assert piece == "1.2.3.4/" or len(found) > 0.9 * text.count(piece)
