"""The Korean web filter: the English rules with thresholds fitted to eojeol, and rules for Korean.

    kanana filter --config configs/data/ko.py --input 'web/*.jsonl.gz' --lang ko --output filtered

FineWeb2's published Korean thresholds assume morphemes. Those in `ko_thresholds.json` are for eojeol; the file
also says how and on which text they were fitted (`kanana thresholds --config configs/data/ko.py:unfitted …` makes it).
As in FineWeb2, C4's rules, short lines and paragraphs are left out. Line endings are left out as well: a fifth of good
petitions have no full stop at the end of any line. Word lists are distinguished from sentences by `ended_words`, the
share of words with a particle or an ending. The Korean lists and the bound on Hangul follow EleutherAI's dps and
KOREAN-WEBTEXT. Words that are also topics (slots, log-in, 좋아요) are listed in the compounds that advertisements use.
"""

import pathlib

from kanana_jax.configs.data import en
from ml_collections import ConfigDict

THRESHOLDS = pathlib.Path(__file__).with_name("ko_thresholds.json")
LEFT_OUT = ("duplicate_paragraphs", "duplicate_paragraph_characters", "short_lines", "stop_words", "language",
            "line_punctuation", *en.C4)  # fmt: skip
# Particles and endings: any one or two Korean sentences contain two different ones.
ENDINGS = tuple("은는이가을를에의로도와과고다서며면요지")
SPAM = (
    "카지노", "온라인카지노", "카지노사이트", "카지노추천", "토토", "스포츠토토", "사설토토", "토토사이트",
    "메이저사이트", "안전놀이터", "바카라", "바카라사이트", "온라인바카라", "먹튀", "먹튀검증", "먹튀없는", "홀덤",
    "홀덤펍", "슬롯사이트", "슬롯머신", "슬롯게임", "꽁머니", "가입쿠폰", "첫충", "매충", "충환전", "롤링",
    "출장안마", "출장샵", "출장마사지", "후불제", "대출상담", "당일대출", "무직자대출", "신용불량자대출",
    "소액결제현금화", "성인용품", "비아그라", "시알리스", "정품비아그라", "조건만남", "만남어플", "최저가 보장",
    "최저가", "무료체험", "당일배송", "무료배송", "카톡문의", "텔레그램문의", "24시간 상담", "상담문의", "선착순",
    "마감임박", "고수익 알바", "고수익", "원금보장", "수익보장", "리딩방", "무료추천주", "투자문의", "분양문의",
    "모델하우스", "실입주금",
)  # fmt: skip
FOOTERS = (
    "무단전재", "무단 전재", "무단전재및재배포금지", "무단전재및재배포", "재배포", "재배포 금지", "재배포금지",
    "저작권자", "ⓒ", "©", "copyright", "all rights reserved", "이용약관", "개인정보처리방침", "개인정보 처리방침",
    "개인정보취급방침", "개인정보 취급방침", "이메일무단수집거부", "이메일 무단수집거부", "청소년보호정책", "로그인",
    "로그아웃", "회원가입", "아이디찾기", "비밀번호찾기", "마이페이지", "장바구니", "고객센터", "기사제보",
    "제보하기", "구독하기", "구독", "좋아요", "공유하기", "스크랩", "댓글", "댓글쓰기", "답글", "신고", "신고하기",
    "추천", "조회수", "이전글", "다음글", "목록", "목록보기", "글쓰기", "맨위로", "더보기", "사이트맵",
    "찾아오시는길", "오시는 길", "회사소개", "광고문의", "제휴문의", "사업자등록번호", "통신판매업신고",
    "통신판매업신고번호", "대표이사", "발행인", "편집인", "등록번호", "인쇄하기",
)  # fmt: skip


def get_config(arg: str = ""):
    c = ConfigDict()
    rules = en.chosen(LEFT_OUT)
    # In good prose half of the words have two letters: short words alone are no fault.
    rules.mean_word_length = dict(signal="mean_word_length", min=2.2, max=10.0)
    rules.ended_words = dict(signal="ended_words", min=0.3)
    rules.stop_endings = dict(signal="stop_endings", min=2.0)
    rules.hangul = dict(signal="hangul", min=0.25)
    rules.jamo = dict(signal="jamo", max=0.02)
    rules = rules if arg == "unfitted" else en.fitted(rules, THRESHOLDS)
    rules.update(en.PHRASES)
    # Share of the text: documentation that is half code must pass, other languages not.
    rules.language = dict(signal="language", min=0.2)
    c.filters = dict(
        ko=dict(unit="word", stop_endings=ENDINGS, spam=SPAM, boilerplate=FOOTERS, language="ko", pii=True, rules=rules)
    )
    return c
