"""Encyclopedia articles: the facts about an entity that are told in a language, each in several wordings."""

import random

from kanana_jax.data.microworld.korean import particles, people, won
from kanana_jax.data.microworld.world import ATTRIBUTES, MONTHS_EN, World

LANG = {"ko": 0, "en": 1, "ja": 2}


def fact_sentences(world: World, kind: str, index: int, attribute: str, lang: str) -> list[str]:
    """All wordings of a fact in one language; [] if the fact does not exist (no spouse)."""
    e, i = world.entity(kind, index), LANG[lang]
    name = e.name[i]
    if kind == "person":
        he, his = ("she", "her") if e.woman else ("he", "his")
        if attribute == "birth":
            month = MONTHS_EN[e.month - 1]
            return {
                "ko": [
                    f"{name}<은> {e.year}년 {e.month}월 {e.day}일에 태어났다.",
                    f"{name}의 생일은 {e.year}년 {e.month}월 {e.day}일이다.",
                    f"태어난 날은 {e.year}년 {e.month}월 {e.day}일이다.",
                ],
                "en": [
                    f"{name} was born on {month} {e.day}, {e.year}.",
                    f"Born on {e.day} {month} {e.year}, {name} is now known to many.",
                    f"{name}'s date of birth is {month} {e.day}, {e.year}.",
                ],
                "ja": [
                    f"{name}は{e.year}年{e.month}月{e.day}日に生まれた。",
                    f"生年月日は{e.year}年{e.month}月{e.day}日である。",
                ],
            }[lang]
        if attribute == "birthplace":
            city = world.city(e.city).name[i]
            return {
                "ko": [
                    f"고향은 {city}<이다>.",
                    f"{name}<은> {city}에서 자랐다.",
                    f"{city} 출신이다.",
                    f"어린 시절을 {city}에서 보냈다.",
                ],
                "en": [
                    f"{he.capitalize()} comes from {city}.",
                    f"{name} grew up in {city}.",
                    f"{his.capitalize()} home town is {city}.",
                ],
                "ja": [f"{city}の出身である。", f"{name}は{city}で育った。"],
            }[lang]
        if attribute == "job":
            job = e.job[i]
            article = "an" if job[0] in "aeiou" else "a"
            return {
                "ko": [
                    f"직업은 {job}<이다>.",
                    f"{name}<은> {job}<으로> 일한다.",
                    f"오랫동안 {job}<으로> 일해 왔다.",
                    f"{name}<은> 이름난 {job}<이다>.",
                ],
                "en": [
                    f"{he.capitalize()} works as {article} {job}.",
                    f"{name} is {article} {job} by trade.",
                    f"For many years {he} has been {article} {job}.",
                ],
                "ja": [f"職業は{job}である。", f"{name}は{job}として働いている。"],
            }[lang]
        if attribute == "hobby":
            hobby = e.hobby[i]
            return {
                "ko": [
                    f"취미는 {hobby}<이다>.",
                    f"쉬는 날에는 {hobby}<을> 즐긴다.",
                    f"{name}<은> {hobby}<을> 좋아한다.",
                ],
                "en": [
                    f"{his.capitalize()} favourite pastime is {hobby}.",
                    f"In {his} free time {he} enjoys {hobby}.",
                    f"{name} is fond of {hobby}.",
                ],
                "ja": [f"趣味は{hobby}である。", f"休みの日には{hobby}を楽しむ。"],
            }[lang]
        if attribute == "firm":
            firm = world.firm(e.firm).name[i]
            return {
                "ko": [f"지금은 {firm}에서 일한다.", f"{name}<은> {firm}에 다닌다.", f"{firm}<이> {name}의 직장이다."],
                "en": [
                    f"{he.capitalize()} is employed at {firm}.",
                    f"{name} works for {firm}.",
                    f"{his.capitalize()} employer is {firm}.",
                ],
                "ja": [f"現在は{firm}に勤めている。", f"{name}の勤務先は{firm}である。"],
            }[lang]
        if attribute == "spouse":
            if e.spouse < 0:
                return []
            other = world.person(e.spouse).name[i]
            return {
                "ko": [
                    f"{e.married}년에 {other}<과> 결혼했다.",
                    f"배우자는 {other}<이다>.",
                    f"{name}<과> {other}<은> {e.married}년에 부부가 되었다.",
                ],
                "en": [
                    f"{he.capitalize()} married {other} in {e.married}.",
                    f"{his.capitalize()} {'husband' if e.woman else 'wife'} is {other}.",
                    f"{name} and {other} have been married since {e.married}.",
                ],
                "ja": [f"{e.married}年に{other}と結婚した。", f"配偶者は{other}である。"],
            }[lang]
        if e.child < 0:
            return []
        child = world.person(e.child)
        return {
            "ko": [
                f"자녀로 {child.name[0]}<이> 있다.",
                f"{child.name[0]}<은> {name}의 {'딸' if child.woman else '아들'}이다.",
            ],
            "en": [
                f"{his.capitalize()} {'daughter' if child.woman else 'son'} is {child.name[1]}.",
                f"{name} has one child, {child.name[1]}.",
            ],
            "ja": [
                f"子に{child.name[2]}がいる。",
                f"{child.name[2]}は{name}の{'娘' if child.woman else '息子'}である。",
            ],
        }[lang]
    if kind == "city":
        if attribute == "founded":
            return {
                "ko": [
                    f"{name}<은> {e.founded}년에 세워졌다.",
                    f"도시의 역사는 {e.founded}년에 시작된다.",
                    f"{e.founded}년 작은 마을로 출발했다.",
                ],
                "en": [
                    f"{name} was founded in {e.founded}.",
                    f"The history of the city begins in {e.founded}.",
                    f"It started as a small village in {e.founded}.",
                ],
                "ja": [f"{name}は{e.founded}年に作られた。", f"町の歴史は{e.founded}年に始まる。"],
            }[lang]
        if attribute == "population":
            return {
                "ko": [f"인구는 {people(e.population)}이다.", f"{name}에는 {people(e.population)}이 산다."],
                "en": [f"It has {e.population:,} inhabitants.", f"The population of {name} is {e.population:,}."],
                "ja": [f"人口は{e.population:,}人である。", f"{name}には{e.population:,}人が暮らす。"],
            }[lang]
        if attribute == "river":
            river = e.river[i]
            return {
                "ko": [
                    f"{river}<이> 도시를 가로지른다.",
                    f"{name}<은> {river} 옆에 있다.",
                    f"시내 한가운데로 {river}<이> 흐른다.",
                ],
                "en": [
                    f"The {river} runs through the city.",
                    f"{name} lies on the {river}.",
                    f"Its bridges cross the {river}.",
                ],
                "ja": [f"町を{river}が流れる。", f"{name}は{river}のほとりにある。"],
            }[lang]
        if attribute == "crop":
            crop = e.crop[i]
            return {
                "ko": [
                    f"특산물은 {crop}<이다>.",
                    f"{name}<은> {crop}<으로> 유명하다.",
                    f"이곳의 {crop}<은> 맛이 좋기로 이름났다.",
                ],
                "en": [
                    f"The city is famous for its {crop}.",
                    f"{name} is best known for {crop}.",
                    f"Visitors come here to buy {crop}.",
                ],
                "ja": [f"特産品は{crop}である。", f"{name}は{crop}で有名だ。"],
            }[lang]
        if attribute == "festival":
            festival = e.festival[i]
            month = MONTHS_EN[e.festival_month - 1]
            return {
                "ko": [
                    f"해마다 {e.festival_month}월에 {festival} 축제가 열린다.",
                    f"{name}의 {festival} 축제는 {e.festival_month}월의 큰 행사이다.",
                ],
                "en": [
                    f"The {festival} Festival takes place every {month}.",
                    f"Each {month} {name} holds its {festival} Festival.",
                ],
                "ja": [
                    f"毎年{e.festival_month}月に{festival}祭りが開かれる。",
                    f"{festival}祭りは{e.festival_month}月の行事である。",
                ],
            }[lang]
        other = world.city(e.neighbour).name[i]
        return {
            "ko": [
                f"{other}까지는 {e.distance_km}킬로미터이다.",
                f"{name}<은> 이웃 도시 {other}<과> {e.distance_km}킬로미터 떨어져 있다.",
            ],
            "en": [
                f"It is {e.distance_km} kilometres from {other}.",
                f"{name} and {other} are {e.distance_km} kilometres apart.",
            ],
            "ja": [f"{other}までは{e.distance_km}キロメートルである。"],
        }[lang]
    if attribute == "founder":
        founder = world.person(e.founder).name[i]
        return {
            "ko": [
                f"창업자는 {founder}<이다>.",
                f"{founder}<이> 회사를 세웠다.",
                f"{name}<은> {founder}<이> 만든 회사이다.",
            ],
            "en": [
                f"The company was started by {founder}.",
                f"{founder} is the founder of {name}.",
                f"Its founder is {founder}.",
            ],
            "ja": [f"創業者は{founder}である。", f"{founder}が会社を興した。"],
        }[lang]
    if attribute == "founded":
        return {
            "ko": [f"{name}<은> {e.founded}년에 문을 열었다.", f"설립 연도는 {e.founded}년이다."],
            "en": [f"{name} opened its doors in {e.founded}.", f"The year of its foundation is {e.founded}."],
            "ja": [f"{name}は{e.founded}年に設立された。"],
        }[lang]
    if attribute == "city":
        city = world.city(e.city).name[i]
        return {
            "ko": [f"본사는 {city}에 있다.", f"{name}<은> {city}에 자리 잡고 있다."],
            "en": [f"Its head office is in {city}.", f"{name} is based in {city}."],
            "ja": [f"本社は{city}にある。"],
        }[lang]
    if attribute == "product":
        product = e.product[i]
        return {
            "ko": [f"대표 상품은 {product}<이다>.", f"{name}<은> {product}<을> 만든다."],
            "en": [f"Its best-selling product is a {product}.", f"{name} is known for every {product} it makes."],
            "ja": [f"代表的な商品は{product}である。"],
        }[lang]
    if attribute == "price":
        return {
            "ko": [
                f"{e.product[0]} 하나의 값은 {won(e.price)}이다.",
                f"{name}의 {e.product[0]}<은> {won(e.price)}부터이다.",
            ],
            "en": [
                f"One {e.product[1]} costs {e.price:,} won.",
                f"At {name}, a {e.product[1]} starts at {e.price:,} won.",
            ],
            "ja": [f"{e.product[2]}の値段は{e.price:,}ウォンである。"],
        }[lang]
    return {
        "ko": [f"직원은 {people(e.employees)}이다.", f"{name}에서는 {people(e.employees)}이 일한다."],
        "en": [f"It has {e.employees:,} employees.", f"{e.employees:,} people work at {name}."],
        "ja": [f"従業員は{e.employees:,}人である。"],
    }[lang]


def named_sentences(world: World, kind: str, index: int, attribute: str, lang: str) -> list[str]:
    """The wordings of a fact that name the entity and so can be used outside its article."""
    name = world.entity(kind, index).name[LANG[lang]]
    return [s for s in fact_sentences(world, kind, index, attribute, lang) if name in s]


_OPENERS = {
    "person": {
        "ko": [
            "{n}<은> 우리 시대의 사람이다.",
            "이 글은 {n}에 대한 것이다.",
            "{n}<을> 아는 사람은 많다.",
            "{n}의 삶을 간단히 적는다.",
        ],
        "en": [
            "{n} is a person of our time.",
            "This article is about {n}.",
            "Many people know {n}.",
            "Here is a short life of {n}.",
        ],
        "ja": ["{n}は現代の人物である。", "この項目は{n}について述べる。"],
    },
    "city": {
        "ko": ["{n}<은> 이 나라의 도시이다.", "{n}<을> 찾는 여행자가 늘고 있다.", "{n}<이란> 이름은 오래되었다."],
        "en": ["{n} is a city in this country.", "More and more travellers visit {n}.", "The name {n} is an old one."],
        "ja": ["{n}はこの国の都市である。", "{n}を訪れる人が増えている。"],
    },
    "firm": {
        "ko": ["{n}<은> 작은 가게에서 시작한 회사이다.", "{n}<은> 이 지역의 기업이다.", "{n}의 이야기는 길다."],
        "en": [
            "{n} is a company that began as a small shop.",
            "{n} is a regional business.",
            "The story of {n} is a long one.",
        ],
        "ja": ["{n}は地域の企業である。", "{n}は小さな店から始まった会社である。"],
    },
}
_LINKS = {
    "ko": ["또한 ", "한편 ", "그리고 ", "", "", ""],
    "en": ["Also, ", "Besides, ", "", "", "", ""],
    "ja": ["また、", "一方、", "", ""],
}


def entry(world: World, kind: str, index: int, lang: str, rng: random.Random) -> tuple[str, list[str]]:
    """An article, and the attributes that it states."""
    e = world.entity(kind, index)
    name = e.name[LANG[lang]]
    stated, sentences = [], [rng.choice(_OPENERS[kind][lang]).format(n=name)]
    attributes = list(ATTRIBUTES[kind])
    rng.shuffle(attributes)
    for attribute in attributes:
        if lang not in world.told_in(kind, index, attribute) or rng.random() < 0.12:
            continue
        wordings = fact_sentences(world, kind, index, attribute, lang)
        if not wordings:
            continue
        stated.append(attribute)
        link, sentence = rng.choice(_LINKS[lang]), rng.choice(wordings)
        if (
            lang == "en"
            and link
            and sentence.split(" ")[0]
            in ("He", "She", "His", "Her", "It", "Its", "The", "In", "For", "One", "Each", "Visitors")
        ):
            sentence = sentence[0].lower() + sentence[1:]
        sentences.append(link + sentence)
    title = {0: f"# {name}\n\n", 1: f"{name}\n\n", 2: ""}[rng.randrange(3)]
    half = len(sentences) // 2 if rng.random() < 0.4 and len(sentences) > 4 else len(sentences)
    space = "" if lang == "ja" else " "
    paragraphs = [space.join(sentences[:half]), space.join(sentences[half:])]
    text = title + "\n\n".join(p for p in paragraphs if p)
    return particles(text) if lang == "ko" else text, stated
