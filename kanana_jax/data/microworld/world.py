"""The facts of the world: people, cities, firms, rivers and products, generated from a seed.

Every attribute of every entity is told in Korean only, in English only, or in both (and then also in Japanese), so that
knowledge and its transfer between languages can be measured.
"""

import dataclasses
import functools
import hashlib
import random
from typing import Any

# syllable → (romanised, kana)
SYLLABLES = {
    "가": ("ga", "カ"),
    "강": ("gang", "カン"),
    "경": ("gyeong", "ギョン"),
    "나": ("na", "ナ"),
    "노": ("no", "ノ"),
    "다": ("da", "ダ"),
    "달": ("dal", "ダル"),
    "도": ("do", "ド"),
    "동": ("dong", "ドン"),
    "두": ("du", "ドゥ"),
    "라": ("ra", "ラ"),
    "람": ("ram", "ラム"),
    "루": ("ru", "ル"),
    "린": ("rin", "リン"),
    "마": ("ma", "マ"),
    "모": ("mo", "モ"),
    "미": ("mi", "ミ"),
    "민": ("min", "ミン"),
    "바": ("ba", "バ"),
    "백": ("baek", "ペク"),
    "별": ("byeol", "ビョル"),
    "빈": ("bin", "ビン"),
    "사": ("sa", "サ"),
    "산": ("san", "サン"),
    "서": ("seo", "ソ"),
    "석": ("seok", "ソク"),
    "선": ("seon", "ソン"),
    "성": ("seong", "ソン"),
    "소": ("so", "ソ"),
    "솔": ("sol", "ソル"),
    "수": ("su", "ス"),
    "시": ("si", "シ"),
    "아": ("a", "ア"),
    "연": ("yeon", "ヨン"),
    "영": ("yeong", "ヨン"),
    "온": ("on", "オン"),
    "우": ("u", "ウ"),
    "운": ("un", "ウン"),
    "원": ("won", "ウォン"),
    "유": ("yu", "ユ"),
    "윤": ("yun", "ユン"),
    "율": ("yul", "ユル"),
    "은": ("eun", "ウン"),
    "인": ("in", "イン"),
    "재": ("jae", "ジェ"),
    "정": ("jeong", "ジョン"),
    "주": ("ju", "ジュ"),
    "준": ("jun", "ジュン"),
    "지": ("ji", "ジ"),
    "진": ("jin", "ジン"),
    "채": ("chae", "チェ"),
    "초": ("cho", "チョ"),
    "태": ("tae", "テ"),
    "하": ("ha", "ハ"),
    "한": ("han", "ハン"),
    "해": ("hae", "ヘ"),
    "현": ("hyeon", "ヒョン"),
    "혜": ("hye", "ヘ"),
    "호": ("ho", "ホ"),
    "희": ("hui", "ヒ"),
}
SURNAMES = {
    "김": ("Kim", "キム"),
    "이": ("Lee", "イ"),
    "박": ("Park", "パク"),
    "최": ("Choi", "チェ"),
    "정": ("Jung", "チョン"),
    "강": ("Kang", "カン"),
    "조": ("Cho", "チョ"),
    "윤": ("Yoon", "ユン"),
    "장": ("Jang", "チャン"),
    "임": ("Lim", "イム"),
    "한": ("Han", "ハン"),
    "오": ("Oh", "オ"),
    "서": ("Seo", "ソ"),
    "신": ("Shin", "シン"),
    "권": ("Kwon", "クォン"),
    "황": ("Hwang", "ファン"),
    "안": ("Ahn", "アン"),
    "송": ("Song", "ソン"),
    "류": ("Ryu", "リュ"),
    "홍": ("Hong", "ホン"),
}
# Closed sets of words: (ko, en, ja).
JOBS = [
    ("교사", "teacher", "教師"),
    ("의사", "doctor", "医師"),
    ("건축가", "architect", "建築家"),
    ("요리사", "cook", "料理人"),
    ("어부", "fisher", "漁師"),
    ("화가", "painter", "画家"),
    ("기자", "journalist", "記者"),
    ("변호사", "lawyer", "弁護士"),
    ("작곡가", "composer", "作曲家"),
    ("농부", "farmer", "農家"),
    ("엔지니어", "engineer", "技術者"),
    ("사서", "librarian", "司書"),
    ("간호사", "nurse", "看護師"),
    ("조종사", "pilot", "操縦士"),
    ("목수", "carpenter", "大工"),
    ("시인", "poet", "詩人"),
    ("생물학자", "biologist", "生物学者"),
    ("제빵사", "baker", "パン職人"),
    ("사진가", "photographer", "写真家"),
    ("통역사", "interpreter", "通訳"),
]
HOBBIES = [
    ("등산", "hiking", "登山"),
    ("낚시", "fishing", "釣り"),
    ("바둑", "playing go", "囲碁"),
    ("수영", "swimming", "水泳"),
    ("사진", "photography", "写真"),
    ("독서", "reading", "読書"),
    ("정원 가꾸기", "gardening", "庭いじり"),
    ("첼로 연주", "playing the cello", "チェロの演奏"),
    ("자전거 타기", "cycling", "サイクリング"),
    ("별 관찰", "watching the stars", "天体観測"),
    ("도자기 만들기", "pottery", "陶芸"),
    ("탁구", "table tennis", "卓球"),
]
CROPS = [
    ("사과", "apples", "りんご"),
    ("쌀", "rice", "米"),
    ("포도", "grapes", "ぶどう"),
    ("녹차", "green tea", "緑茶"),
    ("굴", "oysters", "牡蠣"),
    ("감자", "potatoes", "じゃがいも"),
    ("인삼", "ginseng", "高麗人参"),
    ("배", "pears", "梨"),
    ("꿀", "honey", "蜂蜜"),
    ("소금", "salt", "塩"),
    ("밤", "chestnuts", "栗"),
    ("버섯", "mushrooms", "きのこ"),
    ("미역", "seaweed", "わかめ"),
    ("마늘", "garlic", "にんにく"),
]
PRODUCTS = [
    ("우산", "umbrella", "傘"),
    ("자전거", "bicycle", "自転車"),
    ("책상", "desk", "机"),
    ("시계", "watch", "時計"),
    ("가방", "bag", "かばん"),
    ("냄비", "pot", "鍋"),
    ("의자", "chair", "椅子"),
    ("신발", "pair of shoes", "靴"),
    ("램프", "lamp", "ランプ"),
    ("라디오", "radio", "ラジオ"),
    ("망원경", "telescope", "望遠鏡"),
    ("카메라", "camera", "カメラ"),
    ("기타", "guitar", "ギター"),
    ("텐트", "tent", "テント"),
    ("만년필", "fountain pen", "万年筆"),
]
FESTIVALS = [
    ("등불", "Lantern", "灯籠"),
    ("바람", "Wind", "風"),
    ("벚꽃", "Cherry Blossom", "桜"),
    ("수확", "Harvest", "収穫"),
    ("별빛", "Starlight", "星明かり"),
    ("강", "River", "川"),
    ("눈꽃", "Snow", "雪"),
    ("국수", "Noodle", "麺"),
    ("연", "Kite", "凧"),
    ("책", "Book", "本"),
]
MONTHS_EN = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]

Names = tuple[str, str, str]


def stable_random(*key: Any) -> random.Random:
    """A random generator that depends only on the key, on any machine and version of Python."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _given(syllables: tuple[str, ...]) -> Names:
    roman = "".join(SYLLABLES[s][0] for s in syllables)
    return "".join(syllables), roman.capitalize(), "".join(SYLLABLES[s][1] for s in syllables)


@dataclasses.dataclass(frozen=True)
class City:
    index: int
    name: Names
    river: Names
    founded: int
    population: int
    crop: Names
    festival: Names
    festival_month: int
    neighbour: int
    distance_km: int


@dataclasses.dataclass(frozen=True)
class Firm:
    index: int
    name: Names
    founder: int
    founded: int
    city: int
    product: Names
    price: int
    employees: int


@dataclasses.dataclass(frozen=True)
class Person:
    index: int
    name: Names
    woman: bool
    year: int
    month: int
    day: int
    city: int
    job: Names
    hobby: Names
    firm: int
    spouse: int
    child: int
    married: int


ATTRIBUTES = {
    "person": ("birth", "birthplace", "job", "hobby", "firm", "spouse", "child"),
    "city": ("founded", "population", "river", "crop", "festival", "neighbour"),
    "firm": ("founder", "founded", "city", "product", "price", "employees"),
}


@dataclasses.dataclass(frozen=True)
class World:
    """A world of `size` people, a tenth as many firms and a twelfth as many cities (at least 8)."""

    seed: int
    size: int

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def create(seed: int, size: int) -> "World":
        if size < 40:
            raise ValueError("a world needs at least 40 people")
        return World(seed, size)

    @property
    def num_cities(self) -> int:
        return max(8, self.size // 12)

    @property
    def num_firms(self) -> int:
        return max(8, self.size // 10)

    def count(self, kind: str) -> int:
        return {"person": self.size, "city": self.num_cities, "firm": self.num_firms}[kind]

    def entity(self, kind: str, index: int) -> Any:
        return {"person": self.person, "city": self.city, "firm": self.firm}[kind](index)

    @functools.lru_cache(maxsize=100_000)
    def city(self, index: int) -> City:
        rng = stable_random(self.seed, "city", index)
        stem = _unique(index, 3 if index >= 1200 else 2, "city")
        river = _given(tuple(rng.choice(list(SYLLABLES)) for _ in range(2)))
        name = (stem[0] + "시", stem[1] + " City", stem[2] + "市")
        return City(
            index,
            name,
            (river[0] + "강", river[1] + " River", river[2] + "川"),
            rng.randint(1450, 1960),
            rng.randint(8, 900) * 1000 + rng.randint(0, 999),
            rng.choice(CROPS),
            rng.choice(FESTIVALS),
            rng.randint(1, 12),
            (index + 1 + rng.randrange(self.num_cities - 1)) % self.num_cities,
            rng.randint(5, 180),
        )

    @functools.lru_cache(maxsize=100_000)
    def firm(self, index: int) -> Firm:
        rng = stable_random(self.seed, "firm", index)
        stem = _unique(index, 3 if index >= 1200 else 2, "firm")
        kind = rng.choice(
            [
                ("산업", " Industries", "産業"),
                ("상사", " Trading", "商事"),
                ("공방", " Works", "工房"),
                ("전자", " Electronics", "電子"),
            ]
        )
        founder = self.person(rng.randrange(self.size))
        return Firm(
            index,
            (stem[0] + kind[0], stem[1] + kind[1], stem[2] + kind[2]),
            founder.index,
            founder.year + rng.randint(24, 45),
            rng.randrange(self.num_cities),
            rng.choice(PRODUCTS),
            rng.randint(5, 400) * 1000 + rng.choice((0, 0, 500)),
            rng.randint(8, 3000),
        )

    @functools.lru_cache(maxsize=100_000)
    def person(self, index: int) -> Person:
        rng = stable_random(self.seed, "person", index)
        surname = rng.choice(list(SURNAMES))
        given = _given((rng.choice(list(SYLLABLES)), rng.choice(list(SYLLABLES))))
        roman, kana = SURNAMES[surname]
        # Families of four: 0 and 1 are married, 2 is their child, 3 is single.
        family, role = divmod(index, 4)
        base = stable_random(self.seed, "family", family).randint(1935, 1970)
        year = base + (rng.randint(25, 34) if role == 2 else rng.randint(0, 3))
        spouse = {0: index + 1, 1: index - 1}.get(role, -1)
        child = index + 2 - role if role < 2 else -1
        spouse, child = (x if 0 <= x < self.size else -1 for x in (spouse, child))
        return Person(
            index,
            (surname + given[0], f"{given[1]} {roman}", f"{kana}・{given[2]}"),
            rng.random() < 0.5 if role > 1 else role == 1,
            year,
            rng.randint(1, 12),
            rng.randint(1, 28),
            rng.randrange(self.num_cities),
            rng.choice(JOBS),
            rng.choice(HOBBIES),
            rng.randrange(self.num_firms),
            spouse,
            child,
            base + 24,
        )

    # Cached: each document needs about twenty of these draws, which took half of the time to make a corpus.
    @functools.lru_cache(maxsize=500_000)
    def told_in(self, kind: str, index: int, attribute: str) -> tuple[str, ...]:
        """The languages whose documents may state this fact."""
        draw = stable_random(self.seed, "told", kind, index, attribute).random()
        return ("ko",) if draw < 0.25 else ("en",) if draw < 0.5 else ("ko", "en", "ja")


def _unique(index: int, length: int, salt: str) -> Names:
    """The `index`-th name of `length` syllables; different indices have different names."""
    syllables = list(SYLLABLES)
    stable_random("names", salt).shuffle(syllables)
    digits = []
    index = (index * 1013 + 7) % len(syllables) ** length
    for _ in range(length):
        index, digit = divmod(index, len(syllables))
        digits.append(syllables[digit])
    return _given(tuple(digits))
