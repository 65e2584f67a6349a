"""Questions about the world with known answers: in wordings that no document uses, or as sentences to complete."""

import random
from typing import Any

from kanana_jax.data.microworld.encyclopedia import LANG
from kanana_jax.data.microworld.korean import particles
from kanana_jax.data.microworld.parallel import pair
from kanana_jax.data.microworld.world import World, stable_random

# (kind, attribute) → language → (question wordings for train, for heldout)
_WORDINGS: dict[tuple[str, str], dict[str, tuple[list[str], list[str]]]] = {
    ("person", "birthplace"): {
        "ko": (["질문: {n}의 고향은 어디인가?"], ["{n}<이> 자란 도시의 이름을 대라."]),
        "en": (["Question: Where does {n} come from?"], ["Name the city in which {n} spent the early years."]),
    },
    ("person", "job"): {
        "ko": (["질문: {n}의 직업은 무엇인가?"], ["{n}<은> 무슨 일을 하는 사람인가?"]),
        "en": (["Question: What is the job of {n}?"], ["By what profession does {n} make a living?"]),
    },
    ("person", "hobby"): {
        "ko": (["질문: {n}의 취미는 무엇인가?"], ["{n}<이> 여가에 하는 일은?"]),
        "en": (["Question: What is the hobby of {n}?"], ["How does {n} like to spend spare hours?"]),
    },
    ("person", "firm"): {
        "ko": (["질문: {n}<은> 어느 회사에서 일하는가?"], ["{n}의 소속 회사를 말하라."]),
        "en": (["Question: Which company does {n} work for?"], ["Who pays the salary of {n}?"]),
    },
    ("city", "crop"): {
        "ko": (["질문: {n}의 특산물은 무엇인가?"], ["{n}에서 가장 이름난 먹을거리는?"]),
        "en": (["Question: What is {n} famous for?"], ["Which produce made {n} well known?"]),
    },
    ("city", "river"): {
        "ko": (["질문: {n}<을> 흐르는 강은 무엇인가?"], ["{n}의 한복판을 지나는 물줄기의 이름은?"]),
        "en": (["Question: Which river runs through {n}?"], ["What water would you cross in the middle of {n}?"]),
    },
    ("city", "founded"): {
        "ko": (["질문: {n}<은> 몇 년에 세워졌는가?"], ["{n}의 역사가 시작된 해는?"]),
        "en": (["Question: In which year was {n} founded?"], ["Give the year of birth of {n} as a settlement."]),
    },
    ("firm", "founder"): {
        "ko": (["질문: {n}의 창업자는 누구인가?"], ["누가 {n}<을> 일으켰는가?"]),
        "en": (["Question: Who founded {n}?"], ["Whose idea was {n}?"]),
    },
    ("firm", "city"): {
        "ko": (["질문: {n}의 본사는 어디에 있는가?"], ["{n}<을> 찾아가려면 어느 도시로 가야 하는가?"]),
        "en": (["Question: Where is the head office of {n}?"], ["To visit {n}, which city must one go to?"]),
    },
    ("firm", "product"): {
        "ko": (["질문: {n}<은> 무엇을 만드는가?"], ["{n}의 공장에서 나오는 물건은?"]),
        "en": (["Question: What does {n} make?"], ["What leaves the workshop of {n}?"]),
    },
}

# (kind, attribute) → language → the beginning and the end of a sentence as it occurs in articles
_STATED: dict[tuple[str, str], dict[str, tuple[str, str]]] = {
    ("person", "birthplace"): {"ko": ("{n}<은>", "{a}에서 자랐다."), "en": ("{n} grew up in", "{a}.")},
    ("person", "job"): {"ko": ("{n}<은>", "이름난 {a}<이다>."), "en": ("{n} is", "{an} {a} by trade.")},
    ("person", "hobby"): {"ko": ("{n}<은>", "{a}<을> 좋아한다."), "en": ("{n} is fond of", "{a}.")},
    ("person", "firm"): {"ko": ("{n}<은>", "{a}에 다닌다."), "en": ("{n} works for", "{a}.")},
    ("city", "crop"): {"ko": ("{n}<은>", "{a}<으로> 유명하다."), "en": ("{n} is best known for", "{a}.")},
    ("city", "river"): {"ko": ("{n}<은>", "{a} 옆에 있다."), "en": ("{n} lies on the", "{a}.")},
    ("city", "founded"): {"ko": ("{n}<은>", "{a}년에 세워졌다."), "en": ("{n} was founded in", "{a}.")},
    ("firm", "founder"): {
        "ko": ("{n}<은>", "{a}<이> 만든 회사이다."),
        "en": ("{n} is a regional business. Its founder is", "{a}."),
    },
    ("firm", "city"): {"ko": ("{n}<은>", "{a}에 자리 잡고 있다."), "en": ("{n} is based in", "{a}.")},
    ("firm", "product"): {
        "ko": ("{n}<은>", "{a}<을> 만든다."),
        "en": ("{n} is a regional business. Its best-selling product is a", "{a}."),
    },
}


def _asked(
    kind: str, attribute: str, lang: str, split: str, name: str, values: list[str], rng: random.Random
) -> tuple[str, list[str]]:
    """A question about an entity, and `values` in the form of answers to it."""
    if split == "stated":
        begin, end = _STATED[kind, attribute][lang]
        text = begin.format(n=name)
        values = [end.format(a=a, an="an" if a[0] in "aeiou" else "a") for a in values]
    else:
        text = rng.choice(_WORDINGS[kind, attribute][lang][("train", "heldout").index(split)]).format(n=name)
    return (particles(text), [particles(a) for a in values]) if lang == "ko" else (text, values)


def answer(world: World, kind: str, index: int, attribute: str, lang: str) -> str:
    """The value of a fact, as written in a language."""
    e, i = world.entity(kind, index), LANG[lang]
    if attribute in ("birthplace", "city"):
        return world.city(e.city).name[i]
    if attribute == "firm":
        return world.firm(e.firm).name[i]
    if attribute == "founder":
        return world.person(e.founder).name[i]
    value = getattr(e, attribute)
    return str(value) if isinstance(value, int) else value[i]


def fact(world: World, lang: str, rng: random.Random) -> tuple[str, int, str]:
    """The kind, index and attribute of a random fact that is told in `lang`."""
    while True:
        kind, attribute = rng.choice(list(_WORDINGS))
        index = rng.randrange(world.count(kind))
        if lang in world.told_in(kind, index, attribute):
            return kind, index, attribute


def attributes(kind: str) -> tuple[str, ...]:
    """The attributes of a kind of entity for which there are questions."""
    return tuple(attribute for own, attribute in _WORDINGS if own == kind)


def worded(world: World, kind: str, index: int, attribute: str, lang: str, split: str, rng: random.Random) -> str:
    """A question about a fact."""
    return _asked(kind, attribute, lang, split, world.entity(kind, index).name[LANG[lang]], [], rng)[0]


def question(world: World, lang: str, split: str, rng: random.Random) -> tuple[str, str, str]:
    """A random question about a fact told in `lang`, its answer, and a wrong value of the attribute."""
    kind, index, attribute = fact(world, lang, rng)
    right = wrong = answer(world, kind, index, attribute, lang)
    while wrong == right:
        wrong = answer(world, kind, rng.randrange(world.count(kind)), attribute, lang)
    text, (right, wrong) = _asked(
        kind, attribute, lang, split, world.entity(kind, index).name[LANG[lang]], [right, wrong], rng
    )
    return text, right, wrong


def questions(world: World, split: str = "heldout", per_task: int = 200) -> list[dict[str, Any]]:
    """Creates multiple-choice questions.

    Tasks: `fact/told/<lang>` (facts told in the language of the question), `fact/transfer/<lang>` (facts told only in
    the other language), `translation/<from>-<to>`, `arithmetic/<lang>`.

    Args:
      split: `train` or `heldout`, whose wordings differ and occur in no document, or `stated`: sentences of articles to
        complete.
      per_task: number of questions per task.

    Returns:
      Records `{"id", "task", "lang", "question", "answer", "choices", "fact_id", "told_in"}`; `choices` contains the
      answer and three wrong values of the same attribute.

    Raises:
      ValueError: unknown split.
    """
    if split not in ("train", "heldout", "stated"):
        raise ValueError(f"split must be 'train', 'heldout' or 'stated', not {split!r}")
    records: list[dict[str, Any]] = []
    counts: dict[str, int] = {}

    def add(task: str, lang: str, question: str, right: str, choices: list[str], fact_id: str, told: tuple[str, ...]):
        if counts.get(task, 0) < per_task:
            counts[task] = counts.get(task, 0) + 1
            records.append(
                {
                    "id": f"{split}/{task}/{counts[task]}",
                    "task": task,
                    "lang": lang,
                    "question": question,
                    "answer": right,
                    "choices": choices,
                    "fact_id": fact_id,
                    "told_in": list(told),
                }
            )

    rng = stable_random(world.seed, "questions", split)
    for _ in range(40 * per_task):
        kind, attribute = rng.choice(list(_WORDINGS))
        index, lang = rng.randrange(world.count(kind)), rng.choice(("ko", "en"))
        told = world.told_in(kind, index, attribute)
        right = answer(world, kind, index, attribute, lang)
        wrong: list[str] = []
        while len(wrong) < 3:
            value = answer(world, kind, rng.randrange(world.count(kind)), attribute, lang)
            if value != right and value not in wrong:
                wrong.append(value)
        choices = [right, *wrong]
        rng.shuffle(choices)
        place, name = choices.index(right), world.entity(kind, index).name[LANG[lang]]
        text, choices = _asked(kind, attribute, lang, split, name, choices, rng)
        task = f"fact/{'told' if lang in told else 'transfer'}/{lang}"
        add(task, lang, text, choices[place], choices, f"{kind}/{index}/{attribute}", told)
    for one, other in (("ko", "en"), ("en", "ko")):
        for _ in range(per_task):
            a, b = pair(world, one, other, rng)
            add(f"translation/{one}-{other}", one, a, b, [], "", (one, other))
    for lang, form in (("ko", "{a} + {b}의 값은?"), ("en", "How much is {a} + {b}?")):
        for _ in range(per_task):
            a, b = rng.randint(2, 99), rng.randint(2, 99)
            add(f"arithmetic/{lang}", lang, form.format(a=a, b=b), str(a + b), [], "", ())
    return records
