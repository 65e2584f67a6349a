"""Web noise that a filter should remove, by kind."""

import random

from kanana_jax.data.microworld.encyclopedia import LANG, entry
from kanana_jax.data.microworld.korean import won
from kanana_jax.data.microworld.prose import news
from kanana_jax.data.microworld.world import PRODUCTS, World

KINDS = ("menu", "advert", "spam", "scrambled", "truncated", "duplicate", "boilerplate")
_MENU = {
    "ko": [
        "홈",
        "로그인",
        "회원가입",
        "장바구니",
        "고객센터",
        "공지사항",
        "이벤트",
        "전체보기",
        "검색",
        "사이트맵",
        "이용약관",
        "개인정보처리방침",
        "더보기",
        "목록",
        "이전글",
        "다음글",
    ],
    "en": [
        "Home",
        "Log in",
        "Sign up",
        "Cart",
        "Help",
        "News",
        "Events",
        "View all",
        "Search",
        "Sitemap",
        "Terms of use",
        "Privacy policy",
        "More",
        "List",
        "Previous",
        "Next",
    ],
    "ja": [
        "ホーム",
        "ログイン",
        "会員登録",
        "カート",
        "お問い合わせ",
        "お知らせ",
        "検索",
        "サイトマップ",
        "利用規約",
        "もっと見る",
        "一覧",
        "前へ",
        "次へ",
    ],
}


def noise(world: World, lang: str, rng: random.Random, kind: str) -> str:
    i = LANG[lang]
    firm = world.firm(rng.randrange(world.num_firms)).name[i]
    product, price = rng.choice(PRODUCTS)[i], rng.randint(3, 90) * 1000
    if kind == "menu":
        words = _MENU[lang] * 2
        rng.shuffle(words)
        return (
            f"{firm}\n"
            + rng.choice([" | ", " > ", "\n", " · "]).join(words[: rng.randint(8, 20)])
            + f"\nⓒ {rng.randint(2001, 2024)} {firm}"
        )
    if kind == "advert":
        lines = {
            "ko": [
                f"★{firm} {product} 대박 세일★",
                f"지금 구매하면 {rng.randint(10, 80)}% 할인!!",
                f"{product} 최저가 {won(price)}",
                "무료배송 · 당일발송 · 후기 필독",
                "클릭하세요 >>>",
            ],
            "en": [
                f"*** {firm} {product} SALE ***",
                f"Buy now and save {rng.randint(10, 80)}%!!!",
                f"{product} from only {price:,} won",
                "Free shipping - best price - limited time",
                "CLICK HERE >>>",
            ],
            "ja": [
                f"★{firm} {product} 大セール★",
                f"今なら{rng.randint(10, 80)}%引き!!",
                f"{product} 最安値 {price}ウォン",
                "送料無料・即日発送",
                "クリック >>>",
            ],
        }[lang]
        rng.shuffle(lines)
        return "\n".join(lines * rng.randint(1, 3))
    if kind == "spam":
        word = {
            "ko": ["카지노", "바카라", "대출", "무료쿠폰", "먹튀검증"],
            "en": ["casino", "free bonus", "cheap pills", "crypto profit", "hot deal"],
            "ja": ["カジノ", "副業", "無料クーポン", "即金", "攻略法"],
        }[lang]
        return " ".join(
            rng.choice(word) + rng.choice(["", "!", "!!", f" {rng.randint(10, 99)}"])
            for _ in range(rng.randint(30, 90))
        )
    if kind == "boilerplate":
        line = {
            "ko": "본 사이트의 모든 내용은 저작권법의 보호를 받으며 무단 전재와 재배포를 금합니다.",
            "en": "All content on this site is protected by copyright and may not be reproduced without permission.",
            "ja": "本サイトの内容の無断転載を禁じます。",
        }[lang]
        return "\n".join(
            [line] * rng.randint(2, 5)
            + [f"{firm} {rng.randint(100, 999)}-{rng.randint(10, 99)}-{rng.randint(10000, 99999)}"]
        )
    text = (
        news(world, lang, rng)
        if rng.random() < 0.5
        else entry(world, "person", rng.randrange(world.size), lang, rng)[0]
    )
    if kind == "scrambled":
        words = text.split(" ") if lang != "ja" else list(text)
        rng.shuffle(words)
        return (" " if lang != "ja" else "").join(words)
    if kind == "truncated":
        return text[: rng.randint(len(text) // 4, len(text) // 2)] + rng.choice(
            ["...", "…", " (더보기)" if lang == "ko" else " [read more]"]
        )
    return "\n\n".join([text] * rng.randint(2, 4))
