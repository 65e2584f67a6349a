"""News, textbook pages and dialogues: connected prose about the world's entities, with arithmetic."""

import random
from typing import NamedTuple

from kanana_jax.data.microworld.encyclopedia import LANG, named_sentences
from kanana_jax.data.microworld.korean import particles, won
from kanana_jax.data.microworld.world import ATTRIBUTES, CROPS, MONTHS_EN, PRODUCTS, World


def _known(world: World, kind: str, index: int, lang: str, rng: random.Random) -> str:
    """One fact told in this language, as a sentence; '' if there is none."""
    attributes = [a for a in ATTRIBUTES[kind] if lang in world.told_in(kind, index, a)]
    rng.shuffle(attributes)
    for attribute in attributes:
        wordings = named_sentences(world, kind, index, attribute, lang)
        if wordings:
            return rng.choice(wordings)
    return ""


class _Event(NamedTuple):
    """People, places and dates; names are in the language of the report."""

    city: str
    person: str
    firm: str
    river: str
    month: int
    day: int
    crowd: int
    score: tuple[int, int]


_Report = tuple[str, list[str], list[str]]  # the lead, and the quotes and endings to choose from


def news(world: World, lang: str, rng: random.Random) -> str:
    """A report of an event: an opening, an exhibition, a flood, a match or a prize."""
    i = LANG[lang]
    city = world.city(rng.randrange(world.num_cities))
    person = world.person(rng.randrange(world.size))
    firm = world.firm(rng.randrange(world.num_firms))
    month, day, count = rng.randint(1, 12), rng.randint(1, 28), rng.randint(20, 4000)
    score = (rng.randint(0, 5), rng.randint(0, 5))
    event = _Event(city.name[i], person.name[i], firm.name[i], city.river[i], month, day, count, score)
    lead, quotes, ends = {"ko": _ko_report, "en": _en_report, "ja": _ja_report}[lang](event, rng)
    about = [
        _known(world, "city", city.index, lang, rng),
        _known(world, "person", person.index, lang, rng),
        _known(world, "firm", firm.index, lang, rng),
    ]
    chosen = [s for s in rng.sample(about, rng.randint(1, 3)) if s]
    sentences = [lead, *chosen, rng.choice(quotes), rng.choice(ends)]
    text = ("" if lang == "ja" else " ").join(sentences)
    return particles(text) if lang == "ko" else text


def _ko_report(e: _Event, rng: random.Random) -> _Report:
    """The report in Korean, with particles still to be resolved."""
    lead = rng.choice(
        [
            f"{e.month}월 {e.day}일 {e.city}에서 {e.person}의 전시회가 열렸다. 첫날에만 {e.crowd}명이 찾았다.",
            f"{e.firm}<이> {e.month}월 {e.day}일 {e.city}에 새 매장을 열었다. 매장에는 {e.crowd}명이 몰렸다.",
            f"{e.city}<은> {e.month}월 {e.day}일 {e.river}의 물이 불어나 다리를 막았다. 주민 {e.crowd}명이 대피했다.",
            f"{e.city} 축구단이 {e.month}월 {e.day}일 경기에서 {e.score[0]} 대 {e.score[1]}<으로> {'이겼다' if e.score[0] > e.score[1] else '졌다' if e.score[0] < e.score[1] else '비겼다'}. 관중은 {e.crowd}명이었다.",
            f"{e.person}<이> {e.month}월 {e.day}일 {e.city} 시민상을 받았다. 시상식에는 {e.crowd}명이 참석했다.",
            f"{e.city} 도서관이 {e.month}월 {e.day}일 다시 문을 열었다. 공사에는 {rng.randint(2, 30)}개월이 걸렸다.",
        ]
    )
    quotes = [
        f'{e.person}<은> "{q}"라고 말했다.'
        for q in (
            "오늘은 잊지 못할 날입니다",
            "모두가 힘을 모은 결과입니다",
            "다음 해에도 다시 오겠습니다",
            "아이들이 기뻐해서 다행입니다",
            "아직 할 일이 많습니다",
            "처음에는 아무도 믿지 않았습니다",
            "날씨가 조금 더 도와주면 좋겠습니다",
        )
    ]
    ends = [
        "행사는 저녁까지 이어졌다.",
        "자세한 내용은 시청 누리집에서 볼 수 있다.",
        "다음 소식은 내일 전해질 예정이다.",
        f"시는 {rng.randint(2, 90)}억 원을 더 쓸 계획이다.",
        "비가 왔지만 분위기는 밝았다.",
    ]
    return lead, quotes, ends


def _en_report(e: _Event, rng: random.Random) -> _Report:
    """The report in English."""
    date = f"{MONTHS_EN[e.month - 1]} {e.day}"
    lead = rng.choice(
        [
            f"An exhibition of works by {e.person} opened in {e.city} on {date}. On the first day alone {e.crowd:,} people came.",
            f"{e.firm} opened a new shop in {e.city} on {date}, and {e.crowd:,} customers stood in line.",
            f"The {e.river} rose on {date}, and {e.city} closed its bridges. {e.crowd:,} residents had to leave their homes.",
            f"The football club of {e.city} {'won' if e.score[0] > e.score[1] else 'lost' if e.score[0] < e.score[1] else 'drew'} {e.score[0]}-{e.score[1]} on {date} before {e.crowd:,} spectators.",
            f"{e.person} received the citizens' prize of {e.city} on {date}. {e.crowd:,} guests attended the ceremony.",
            f"The library of {e.city} opened again on {date} after {rng.randint(2, 30)} months of building work.",
        ]
    )
    quotes = [
        f'"{q}," said {e.person}.'
        for q in (
            "I will never forget this day",
            "We did this together",
            "We hope to be back next year",
            "It is good to see the children happy",
            "There is still much to do",
            "Nobody believed in it at first",
            "A little more sunshine would have helped",
        )
    ]
    ends = [
        "The event went on into the evening.",
        "Details can be found at the town hall.",
        "More news is expected tomorrow.",
        f"The city plans to spend another {rng.randint(2, 90)} million won.",
        "It rained, but the mood was bright.",
    ]
    return lead, quotes, ends


def _ja_report(e: _Event, rng: random.Random) -> _Report:
    """The report in Japanese."""
    lead = rng.choice(
        [
            f"{e.month}月{e.day}日、{e.city}で{e.person}の展覧会が開かれた。初日だけで{e.crowd}人が訪れた。",
            f"{e.firm}は{e.month}月{e.day}日、{e.city}に新しい店を開いた。{e.crowd}人が並んだ。",
            f"{e.city}の図書館が{e.month}月{e.day}日に再び開館した。工事は{rng.randint(2, 30)}か月かかった。",
        ]
    )
    quotes = [
        f"{e.person}は「{q}」と語った。"
        for q in ("今日は忘れられない日です", "みんなの力です", "来年もまた来ます", "まだやることがあります")
    ]
    ends = ["催しは夕方まで続いた。", "詳しくは市役所で見られる。", "雨だったが、雰囲気は明るかった。"]
    return lead, quotes, ends


def textbook(world: World, lang: str, rng: random.Random) -> str:
    """One to three worked problems with correct arithmetic."""
    parts = [_problem(world, lang, rng) for _ in range(rng.randint(1, 3))]
    heads = {"ko": "예제", "en": "Example", "ja": "例題"}
    number = rng.randint(1, 60)
    text = "\n\n".join(f"{heads[lang]} {number + k}. {part}" for k, part in enumerate(parts))
    return particles(text) if lang == "ko" else text


def _problem(world: World, lang: str, rng: random.Random) -> str:
    i = LANG[lang]
    name = world.person(rng.randrange(world.size)).name[i]
    kind = rng.randrange(7)
    product, crop = rng.choice(PRODUCTS)[i], rng.choice(CROPS)[i]
    price, n, a, b = rng.randint(2, 90) * 500, rng.randint(2, 12), rng.randint(11, 98), rng.randint(3, 60)
    if kind == 0:
        total = price * n
        return {
            "ko": f"{product} 하나의 값이 {won(price)}이다. {name}<이> {n}개를 사면 모두 얼마인가? 풀이: {price} × {n} = {total}이므로 {won(total)}이다.",
            "en": f"One {product} costs {price:,} won. How much does {name} pay for {n} of them? Solution: {price} × {n} = {total}, so {name} pays {total:,} won.",
            "ja": f"{product}一つの値段は{price}ウォンである。{name}が{n}個買うといくらか。解答：{price} × {n} = {total}、よって{total}ウォンである。",
        }[lang]
    if kind == 1:
        return {
            "ko": f"{name}에게 {crop} {a}상자가 있다. {b}상자를 더 받으면 모두 몇 상자인가? 풀이: {a} + {b} = {a + b}. 답은 {a + b}상자이다.",
            "en": f"{name} has {a} boxes of {crop} and is given {b} more. How many boxes are there now? Solution: {a} + {b} = {a + b}. There are {a + b} boxes.",
            "ja": f"{name}は{crop}を{a}箱持っている。さらに{b}箱もらうと何箱か。解答：{a} + {b} = {a + b}。{a + b}箱である。",
        }[lang]
    if kind == 2:
        speed, hours = rng.randint(3, 20) * 5, rng.randint(2, 9)
        d = speed * hours
        return {
            "ko": f"기차가 한 시간에 {speed}킬로미터를 달린다. {hours}시간 동안 가는 거리는? 풀이: {speed} × {hours} = {d}. 따라서 {d}킬로미터를 간다.",
            "en": f"A train covers {speed} kilometres an hour. How far does it go in {hours} hours? Solution: {speed} × {hours} = {d}. It goes {d} kilometres.",
            "ja": f"列車は一時間に{speed}キロ進む。{hours}時間では何キロ進むか。解答：{speed} × {hours} = {d}。{d}キロである。",
        }[lang]
    if kind == 3:
        total = n * b
        return {
            "ko": f"학생 {total}명을 {n}개 모둠으로 똑같이 나눈다. 한 모둠은 몇 명인가? 풀이: {total} ÷ {n} = {b}. 한 모둠은 {b}명이다.",
            "en": f"{total} students are divided into {n} equal groups. How many are in one group? Solution: {total} ÷ {n} = {b}. Each group has {b} students.",
            "ja": f"{total}人の生徒を{n}組に等しく分ける。一組は何人か。解答：{total} ÷ {n} = {b}。一組は{b}人である。",
        }[lang]
    if kind == 4:
        big, small = max(a, b) + b, min(a, b)
        return {
            "ko": f"{name}<은> {big}쪽짜리 책에서 {small}쪽을 읽었다. 남은 쪽수는? 풀이: {big} - {small} = {big - small}. {big - small}쪽이 남았다.",
            "en": f"{name} has read {small} of the {big} pages of a book. How many are left? Solution: {big} - {small} = {big - small}. {big - small} pages are left.",
            "ja": f"{name}は{big}ページの本を{small}ページ読んだ。残りは何ページか。解答：{big} - {small} = {big - small}。{big - small}ページである。",
        }[lang]
    if kind == 5:
        percent = rng.choice((10, 20, 25, 50))
        cut = price * percent // 100
        return {
            "ko": f"{won(price)}짜리 {product}<을> {percent}% 싸게 판다. 값은 얼마가 되는가? 풀이: {price} × {percent} ÷ 100 = {cut}, {price} - {cut} = {price - cut}. {won(price - cut)}이다.",
            "en": f"A {product} that costs {price:,} won is sold at {percent}% off. What is the new price? Solution: {price} × {percent} ÷ 100 = {cut}, and {price} - {cut} = {price - cut}. It is {price - cut:,} won.",
            "ja": f"{price}ウォンの{product}を{percent}%引きで売る。いくらになるか。解答：{price} × {percent} ÷ 100 = {cut}、{price} - {cut} = {price - cut}。{price - cut}ウォンである。",
        }[lang]
    width, height = rng.randint(3, 40), rng.randint(3, 40)
    return {
        "ko": f"가로 {width}미터, 세로 {height}미터인 밭의 넓이를 구하라. 풀이: {width} × {height} = {width * height}. 넓이는 {width * height}제곱미터이다.",
        "en": f"Find the area of a field {width} metres wide and {height} metres long. Solution: {width} × {height} = {width * height}. The area is {width * height} square metres.",
        "ja": f"横{width}メートル、縦{height}メートルの畑の面積を求めよ。解答：{width} × {height} = {width * height}。{width * height}平方メートルである。",
    }[lang]


def dialogue(world: World, lang: str, rng: random.Random) -> str:
    """A conversation of two people about shopping, a journey or a neighbour."""
    i = LANG[lang]
    x, y = (world.person(rng.randrange(world.size)) for _ in range(2))
    city, firm = world.city(rng.randrange(world.num_cities)), world.firm(rng.randrange(world.num_firms))
    a, b, c, f = (
        x.name[i].split(" ")[0] if lang == "en" else x.name[i],
        y.name[i].split(" ")[0] if lang == "en" else y.name[i],
        city.name[i],
        firm.name[i],
    )
    n, price = rng.randint(2, 9), rng.randint(2, 90) * 500
    product = rng.choice(PRODUCTS)[i]
    fact = _known(world, *rng.choice([("city", city.index), ("firm", firm.index), ("person", y.index)]), lang, rng)
    if lang == "ko":
        turns = rng.choice(
            [
                [
                    (a, rng.choice([f"이 {product}<은> 얼마예요?", f"{product} 하나 값이 어떻게 되나요?"])),
                    (b, f"하나에 {won(price)}입니다."),
                    (a, f"{n}개 주세요."),
                    (b, f"네, 모두 {won(price * n)}입니다."),
                    (a, rng.choice(["여기 있습니다.", "카드로 낼게요.", "조금 비싸네요. 다음에 올게요."])),
                ],
                [
                    (a, rng.choice([f"{c}에 가 본 적 있어?", f"이번 주말에 {c}에 갈래?"])),
                    (b, rng.choice(["아니, 어떤 곳이야?", "작년에 한 번 갔어. 왜?"])),
                    (a, fact or f"{c}<은> 조용한 곳이야."),
                    (b, rng.choice(["그렇구나. 재미있겠다.", "그건 몰랐네.", "그럼 기차표를 알아볼게."])),
                ],
                [
                    (a, f"{f}<이라는> 회사를 아세요?"),
                    (b, rng.choice(["이름은 들어 봤어요.", "네, 친구가 거기에서 일해요."])),
                    (a, fact or "요즘 사람을 뽑는대요."),
                    (b, rng.choice(["고마워요, 찾아볼게요.", "좋은 소식이네요."])),
                ],
            ]
        )
    elif lang == "en":
        turns = rng.choice(
            [
                [
                    (a, rng.choice([f"How much is this {product}?", f"What does one {product} cost?"])),
                    (b, f"{price:,} won each."),
                    (a, f"I will take {n}, please."),
                    (b, f"That makes {price * n:,} won in all."),
                    (a, rng.choice(["Here you are.", "Can I pay by card?", "That is too much for me today."])),
                ],
                [
                    (a, rng.choice([f"Have you ever been to {c}?", f"Shall we go to {c} this weekend?"])),
                    (b, rng.choice(["No, what is it like?", "Once, last year. Why?"])),
                    (a, fact or f"{c} is a quiet place."),
                    (
                        b,
                        rng.choice(
                            ["I see. That sounds fun.", "I did not know that.", "Then I will look for train tickets."]
                        ),
                    ),
                ],
                [
                    (a, f"Do you know a company called {f}?"),
                    (b, rng.choice(["I have heard the name.", "Yes, a friend of mine works there."])),
                    (a, fact or "They are hiring."),
                    (b, rng.choice(["Thanks, I will look it up.", "That is good news."])),
                ],
            ]
        )
    else:
        turns = [
            (a, f"この{product}はいくらですか。"),
            (b, f"一つ{price}ウォンです。"),
            (a, f"{n}個ください。"),
            (b, f"全部で{price * n}ウォンです。"),
        ]
    text = "\n".join(f"{who}: {what}" for who, what in turns)
    return particles(text) if lang == "ko" else text
