"""The annotator's prompt: rate a text's educational value from 0 to 5.

Points are additive, as in FineWeb-Edu (arXiv:2406.17557, §4), which keeps documents from 3 points on.
"""

import re

EDUCATION = {
    "ko": """다음 글이 초등학교부터 고등학교, 대학 초년까지의 학습에 얼마나 쓸모 있는지 0점에서 5점까지 매겨 주세요.
아래 조건을 하나 채울 때마다 1점씩 더합니다.
1) 배울 만한 정보가 조금이라도 있다. 광고나 잡담이 섞여 있어도 된다.
2) 학습 주제를 다루지만 정리가 덜 되었거나 깊이가 얕다.
3) 교과와 이어지는 핵심 개념을 알아볼 수 있게 설명하며, 글의 흐름이 통한다.
4) 교과서의 한 절이나 강의 자료처럼 짜임새 있고, 군더더기가 적다.
5) 가르치기에 더없이 알맞다. 설명이 차근차근하고 예가 있으며 관련 없는 내용이 없다.

글:
<<<
{text}
>>>

한 문장으로 까닭을 쓴 뒤 마지막 줄에 "점수: N"만 쓰세요.""",
    "en": """Rate from 0 to 5 how useful the text below is for learning at school or in the first years of university.
Give one point for each of these that holds.
1) It carries some knowledge worth learning, even among advertising or chatter.
2) It treats a subject of study, though loosely or on the surface.
3) It explains key ideas of a subject so that a learner can follow, and hangs together.
4) It is built like a section of a textbook or lecture notes, with little that is beside the point.
5) It is excellent for teaching: step by step, with examples, nothing irrelevant.

Text:
<<<
{text}
>>>

Write one sentence of reasons, then a last line with only "Score: N".""",
    "ja": """次の文章が小学校から大学初年までの学習にどれほど役立つかを0から5で採点してください。
次の条件を一つ満たすごとに1点を加えます。
1) 広告や雑談が混じっていても、学ぶ価値のある情報が少しはある。
2) 学習の主題を扱うが、整理が足りないか浅い。
3) 教科に関わる要点を学習者に分かるように説明し、筋が通っている。
4) 教科書の一節や講義資料のように組み立てられ、余計な内容が少ない。
5) 教材として申し分ない。順を追い、例があり、無関係な内容がない。

文章:
<<<
{text}
>>>

理由を一文で書き、最後の行に「点数: N」とだけ書いてください。""",
}
_SCORE = re.compile(r"(?:점수|[Ss]core|点数)\s*[:：]\s*(?:\*+\s*)?([0-5])(?![0-9.])")


def ask(text: str, lang: str, max_characters: int) -> str:
    """The prompt for a document; in English for languages without a prompt of their own."""
    return EDUCATION.get(lang, EDUCATION["en"]).replace("{text}", text[:max_characters])


def score_in(answer: str) -> int | None:
    """The last score in an answer; None if there is none."""
    found = _SCORE.findall(answer)
    return int(found[-1]) if found else None
